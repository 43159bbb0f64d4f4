"""Whom a reader trusts for what. A file of the reader's own; nothing that is verified can change it.

>>> policy = Policy.parse('''
... version: 1
... keys: {alice: "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="}
... rules: [{keys: [alice], stages: ["gguf-*", "prune-*"]}]
... ''')
>>> policy.rules[0].threshold
1

Format: docs/formats/policy.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from ledger.errors import PolicyError, PublicKeyError, UntrustedError
from ledger.keys import ED25519, NAME, PublicKey
from ledger.predicates import RUN, builder_of, stage_of
from ledger.statement import Statement
from ledger.yaml_nodes import YamlNodes, is_node, nearest

if TYPE_CHECKING:
    from yaml import Node

MAX_POLICY_BYTES = 2**20
TRUSTED = Path(__file__).with_name("trusted")
"""The policies that come with this package."""

_AGE = re.compile(r"([1-9][0-9]{0,8})(s|min|h|d)\Z")
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True, slots=True)
class Rule:
    """Enough of these keys together are trusted for such statements.

    Patterns are those of a shell (`*`, `?`, `[abc]`), case counts, and `*` matches `:` and `/` too.

    Attributes:
        keys: names of keys, each once.
        threshold: how many different holders of these keys must have signed, in one entry or in several that say the same.
        stages: which stages' runs.
        builders: runs by which builders, as their statements name them.
        artifacts: every subject must match one of these by its name or by its digest's text.
        predicates: which predicate types. None: runs, and every other statement too when `stages` and `builders` have `*`; a rule for
            single stages says nothing about claims.
        line: where it stands in the file.
    """

    keys: tuple[str, ...]
    threshold: int = 1
    stages: tuple[str, ...] = ("*",)
    artifacts: tuple[str, ...] = ("*",)
    predicates: tuple[str, ...] | None = None
    builders: tuple[str, ...] = ("*",)
    line: int | None = field(default=None, compare=False)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Patterns of the predicate types that it is about."""
        if self.predicates is not None:
            return self.predicates
        return ("*",) if "*" in self.stages and "*" in self.builders else (RUN,)

    def covers(self, statement: Statement, stage: str | None) -> bool:
        """Whether the rule speaks about a statement; `stage` is None when it is not a run."""
        return (
            _matches(statement.predicate_type, self.kinds)
            and (stage is None or _matches(stage, self.stages))
            and (stage is None or "*" in self.builders or _matches(builder_of(statement) or "", self.builders))
            and all(_named(name, self.artifacts) or _matches(str(digest), self.artifacts) for name, digest in statement.subjects.items())
        )


@dataclass(frozen=True, slots=True)
class Span:
    """The entries of the log at which a key's signature counts: `first` to `until`, `until` not included; None for no end.

    `why` says in words what ended it, when a key event of the log did and not the policy.
    """

    first: int = 0
    until: int | None = None
    why: str = field(default="", compare=False)

    def __contains__(self, position: int) -> bool:
        return self.first <= position and (self.until is None or position < self.until)


@dataclass(frozen=True, slots=True)
class Witnesses:
    """Who must have seen a log's newest checkpoint, and how lately.

    Attributes:
        names: keys of the policy. threshold: how many different holders of these.
        max_age_s: how many seconds ago at most; None for any time.
    """

    names: tuple[str, ...]
    threshold: int = 1
    max_age_s: int | None = None


@dataclass(frozen=True)
class Policy:
    """Keys by name, and rules that say for what they count. Made by `parse`, `load` and `shipped`.

    Attributes:
        keys: name -> key; no key has two names.
        rules: a statement is trusted when at least one rule that covers it is met. No rules: nobody is trusted.
        environment: `same` when an E stage's result counts only for the environment that it was made in, else `any`.
        spans: name -> where in the log its signatures count; names that are absent count everywhere.
        replaces: name -> the older key of the same holder; a threshold counts both once.
        checkpoints: which witnesses must have seen a log lately; None: none need to.
        source: the file, for messages.
    """

    keys: Mapping[str, PublicKey]
    rules: tuple[Rule, ...]
    environment: Literal["any", "same"] = "any"
    spans: Mapping[str, Span] = field(default_factory=dict)
    replaces: Mapping[str, str] = field(default_factory=dict)
    checkpoints: Witnesses | None = None
    source: str = field(default="policy", compare=False)

    @classmethod
    def load(cls, path: Path) -> Policy:
        """Read a policy file.

        Raises:
            PolicyError: it cannot be read, or says something impossible.
        """
        try:
            data = path.read_bytes()
            text = data.decode("utf-8")
        except OSError as error:
            raise PolicyError(path, f"cannot read the policy: {error.strerror}; `ledger init` writes one") from error
        except UnicodeDecodeError as error:
            raise PolicyError(path, f"the policy is not UTF-8: {error}") from error
        return cls.parse(text, source=str(path))

    @classmethod
    def parse(cls, text: str, *, source: str = "policy") -> Policy:
        """Read a policy's text.

        Raises:
            PolicyError: not YAML, an unknown or repeated key, a rule that could be met by nobody or names a key that is not there.
        """
        return _Reader(source).policy(text)

    @classmethod
    def shipped(cls, folder: Path = TRUSTED) -> Mapping[str, Policy]:
        """The policies that come with this package, by file name without `.yaml`; empty when none do."""
        return {path.stem: cls.load(path) for path in sorted(folder.glob("*.yaml"))}

    @property
    def log_keys(self) -> Mapping[str, PublicKey]:
        """The keys that may sign a log itself (commits, checkpoints): those that some rule trusts for every artifact and every statement.

        A key that is trusted for a few named artifacts only, such as a shipped one, or for some predicate types, speaks for no log.
        """
        rules = [rule for rule in self.rules if "*" in rule.artifacts and (rule.predicates is None or "*" in rule.predicates)]
        return {name: self.keys[name] for name in sorted({name for rule in rules for name in rule.keys})}

    def speakers(self, predicate_type: str) -> Mapping[str, PublicKey]:
        """The keys that some rule trusts by themselves for such statements about any artifact, and that have no end."""
        rules = [rule for rule in self.rules if "*" in rule.artifacts and rule.threshold == 1 and _matches(predicate_type, rule.kinds)]
        names = {name for rule in rules for name in rule.keys if not self.retired(name)}
        return {name: self.keys[name] for name in sorted(names)}

    def place_keys(self, size: int) -> Mapping[PublicKey, str]:
        """The keys whose signature on a checkpoint of `size` entries proves places, with their names.

        A checkpoint says nothing about when it was signed, so a key that was retired or stolen proves none, wherever it counted.
        """
        return {key: name for name, key in self.log_keys.items() if not self.retired(name) and size - 1 in self.spans.get(name, _ANYWHERE)}

    def retired(self, name: str) -> bool:
        """Whether a key's signatures stop counting at some entry.

        Whoever holds such a key can still make a log of his own and put anything at any place in it, so it vouches for no place by itself.
        """
        return self.spans.get(name, Span()).until is not None

    def holder(self, name: str) -> str:
        """The first key of whoever holds this one."""
        while name in self.replaces:
            name = self.replaces[name]
        return name

    def holders(self, names: Iterable[str]) -> int:
        """How many different holders these keys have."""
        return len({self.holder(name) for name in names})

    @cached_property
    def together(self) -> bool:
        """Whether some rule wants more than one holder, so that several entries can count together."""
        return any(rule.threshold > 1 for rule in self.rules)

    def counting(self, signers: frozenset[PublicKey], position: int | None) -> frozenset[str]:
        """The names of those keys that count at a place of the log; None: at a place that is not proven, so they must count everywhere."""
        found = set()
        for name, key in self.keys.items():
            span = self.spans.get(name, _ANYWHERE)
            if key in signers and ((span.first, span.until) == (0, None) if position is None else position in span):
                found.add(name)
        return frozenset(found)

    def judge(self, statement: Statement, signers: frozenset[PublicKey], *, position: int | None) -> tuple[str, ...]:
        """The names of the keys that make this statement trusted, sorted.

        Args:
            statement: what was signed.
            signers: the keys whose signatures on it were verified.
            position: the entry's number in the log, from 0, None when it is not proven; a key counts only within its span.

        Raises:
            UntrustedError: no rule that covers it is met; the message says who signed and what is missing.
            StatementError: it says that it is a run, and names no stage.
        """
        counting = self.counting(signers, position)
        if trusted := self.judge_together([(statement, counting)])[0]:
            return trusted
        stage = stage_of(statement)
        covering = [rule for rule in self.rules if rule.covers(statement, stage)]
        about, who = self._about(statement, stage), self._who(signers, counting, position)
        raise UntrustedError(
            f"{about} is not trusted: {who}; {self._missing(covering, counting, stage)}", signers=(str(key) for key in signers)
        )

    def judge_together(self, votes: Sequence[tuple[Statement, frozenset[str]]]) -> list[tuple[str, ...]]:
        """For each of some statements that say the same, the names that make it trusted, sorted; none when it is not.

        Args:
            votes: each statement with the names of the keys that signed it and count at its place. A rule counts the holders of all
                statements that it covers; a statement is trusted by the names among its own that a met rule has.

        Raises:
            StatementError: one says that it is a run, and names no stage.
        """
        trusted: list[set[str]] = [set() for _ in votes]
        stages = [stage_of(statement) for statement, _ in votes]
        for rule in self.rules:
            covered = [number for number, (statement, _) in enumerate(votes) if rule.covers(statement, stages[number])]
            mine = [(number, votes[number][1].intersection(rule.keys)) for number in covered]
            if self.holders(name for _, names in mine for name in names) >= rule.threshold:
                for number, names in mine:
                    trusted[number] |= names
        return [tuple(sorted(names)) for names in trusted]

    def _about(self, statement: Statement, stage: str | None) -> str:
        what = f"a run of {stage}" if stage is not None else f"a statement of type {statement.predicate_type}"
        name, digest = next(iter(statement.subjects.items()))
        more = f" and {len(statement.subjects) - 1} more" if len(statement.subjects) > 1 else ""
        return f"{what} about {name} {digest.short}{more}"

    def _who(self, signers: frozenset[PublicKey], counting: frozenset[str], position: int | None) -> str:
        names = {key: name for name, key in self.keys.items()}
        words = []
        for key in sorted(signers, key=str):
            name = names.get(key)
            if name is None:
                words.append(f"{key} (not in {self.source})")
            elif name in counting:
                words.append(f"{name} ({key.short})")
            else:
                span = self.spans[name]
                end = "" if span.until is None else f" until {span.until}"
                why = f"{span.why}: " if span.why else ""
                place = "its place in the log is not proven" if position is None else f"this is entry {position}"
                words.append(f"{name} ({key.short}; {why}counts from entry {span.first}{end}, {place})")
        return "signed by " + (", ".join(words) or "nobody")

    def _missing(self, covering: list[Rule], counting: frozenset[str], stage: str | None) -> str:
        if not self.rules:
            return f"{self.source} has no rules, so it trusts nobody; add one"
        if not covering:
            what = f"stages: [{stage}]" if stage is not None else "predicates: [...]"
            return f"no rule of {self.source} covers it; one with {what} and the signer's name in keys would"
        needs = []
        for rule in covering:
            got = sorted(counting.intersection(rule.keys))
            where = "" if rule.line is None else f" (line {rule.line})"
            needs.append(f"{rule.threshold} of {', '.join(rule.keys)}{where}, got {', '.join(got) or 'none'}")
        return f"{self.source} needs " + "; or ".join(needs)

    def to_json(self) -> dict[str, Any]:
        """The policy as JSON, which is YAML too: `parse` gives an equal policy of it."""
        keys: dict[str, Any] = {}
        for name, key in self.keys.items():
            span = self.spans.get(name, _ANYWHERE)
            fields: dict[str, Any] = {"key": str(key)}
            fields |= ({"from": span.first} if span.first else {}) | ({"until": span.until} if span.until is not None else {})
            fields |= {"replaces": self.replaces[name]} if name in self.replaces else {}
            keys[name] = fields if len(fields) > 1 or name in self.spans else str(key)
        rules = []
        for rule in self.rules:
            value: dict[str, Any] = {"keys": list(rule.keys), "threshold": rule.threshold}
            patterns = (
                ("stages", rule.stages),
                ("artifacts", rule.artifacts),
                ("predicates", rule.predicates),
                ("builders", rule.builders),
            )
            rules.append(value | {label: list(some) for label, some in patterns if some is not None})
        policy: dict[str, Any] = {"version": 1, "environment": self.environment, "keys": keys, "rules": rules}
        if self.checkpoints is not None:
            wanted = self.checkpoints
            policy["checkpoints"] = {"witnesses": list(wanted.names), "threshold": wanted.threshold}
            if wanted.max_age_s is not None:
                policy["checkpoints"]["maxAge"] = age_text(wanted.max_age_s)
        return policy


_ANYWHERE = Span()


def _named(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a subject's name matches. Its signer chose it, so a name that looks like a digest matches nothing."""
    return not name.lower().startswith("sha256:") and _matches(name, patterns)


def _matches(text: str, patterns: tuple[str, ...]) -> bool:
    exact, globs = _sorted_out(patterns)
    return text in exact or any(fnmatchcase(text, pattern) for pattern in globs)


@lru_cache(maxsize=256)
def _sorted_out(patterns: tuple[str, ...]) -> tuple[frozenset[str], tuple[str, ...]]:
    """Patterns that can match nothing but themselves (a shipped rule lists hundreds of digests), and the others."""
    globs = tuple(pattern for pattern in patterns if set(pattern) & set("*?["))
    return frozenset(patterns) - frozenset(globs), globs


def age(text: str) -> int:
    """Seconds of a text like `30d`, `12h`, `90min` or `45s`.

    Raises:
        PolicyError: it is no such text.
    """
    match = _AGE.match(text)
    if match is None:
        raise PolicyError("maxAge", f"a whole number and s, min, h or d, like 30d; got {text!r}")
    return int(match[1]) * _SECONDS[match[2]]


def age_text(seconds: int) -> str:
    """The text of an age in the largest unit that divides it.

    >>> age_text(2_592_000), age_text(5400), age_text(61), age("30d")
    ('30d', '90min', '61s', 2592000)
    """
    return next(f"{seconds // size}{unit}" for unit, size in reversed(_SECONDS.items()) if seconds % size == 0)


# --- reading -------------------------------------------------------------------------------------------------------------------

_TOP = ("version", "keys", "rules", "environment", "checkpoints")
_RULE = ("keys", "threshold", "stages", "artifacts", "predicates", "builders")
_KEY = ("key", "from", "until", "replaces")
_CHECKPOINTS = ("witnesses", "threshold", "maxAge")


class _Reader(YamlNodes):
    """Reads a policy out of YAML nodes."""

    def policy(self, text: str) -> Policy:
        if len(text) > MAX_POLICY_BYTES:
            raise PolicyError(self.source, f"a policy of {len(text)} characters; at most {MAX_POLICY_BYTES} are read")
        node = self.compose(text)
        if node is None:
            raise PolicyError(self.source, "an empty policy trusts nobody, and has no version; `ledger init` writes one to start from")
        top = self.mapping(node, "a policy", _TOP)
        if "version" not in top:
            raise self.error(node, "a policy says `version: 1`")
        if self.integer(top["version"], "version", 0) != 1:
            raise self.error(
                top["version"], f"version {top['version'].value} of the policy format is not known here; this program reads version 1"
            )
        keys, spans, replaces = self._keys(top["keys"]) if "keys" in top else ({}, {}, {})
        known = Policy(keys, (), replaces=replaces)
        rules = tuple(self._rule(item, known) for item in self.sequence(top["rules"], "rules")) if "rules" in top else ()
        checkpoints = self._checkpoints(top["checkpoints"], known) if "checkpoints" in top else None
        environment = self.text(top["environment"], "environment") if "environment" in top else "any"
        if environment not in ("any", "same"):
            raise self.error(top["environment"], f"environment is any or same; got {environment!r}")
        return Policy(keys, rules, cast('Literal["any", "same"]', environment), spans, replaces, checkpoints, self.source)

    def _keys(self, node: Node) -> tuple[dict[str, PublicKey], dict[str, Span], dict[str, str]]:
        keys: dict[str, PublicKey] = {}
        spans: dict[str, Span] = {}
        replaces: dict[str, Node] = {}
        for name, item in self.mapping(node, "keys", None).items():
            if not NAME.match(name):
                raise self.error(item, f"{name!r} cannot name a key: letters, digits and ._@- only, at most 64, first a letter or digit")
            text = item
            if is_node(item, "map"):
                fields = self.mapping(item, f"key {name}", _KEY)
                if "key" not in fields:
                    raise self.error(item, f"key {name} has no `key: ed25519:...`")
                text = fields["key"]
                first = self.integer(fields["from"], "from", 0) if "from" in fields else 0
                until = self.integer(fields["until"], "until", first) if "until" in fields else None
                spans[name] = Span(first, until)
                if "replaces" in fields:
                    replaces[name] = fields["replaces"]
            try:
                key = PublicKey.parse(self.text(text, f"key {name}"))
            except PublicKeyError as error:
                raise self.error(text, f"key {name}: {error}") from error
            if key in keys.values():
                twin = next(other for other in keys if keys[other] == key)
                raise self.error(item, f"{twin} and {name} are the same key, which would count twice")
            keys[name] = key
        return keys, spans, self._successions(replaces, keys)

    def _successions(self, named: Mapping[str, Node], keys: Mapping[str, PublicKey]) -> dict[str, str]:
        """Name -> the key before it; a circle would have no first key."""
        replaces: dict[str, str] = {}
        for name, node in named.items():
            older = self.text(node, "replaces")
            if older not in keys:
                raise self.error(node, f"{name} replaces {older!r}, which is no key of this policy{nearest(older, keys)}")
            at: str | None = older
            while at is not None:
                if at == name:
                    raise self.error(node, f"{name} replaces {older}, which replaces {name}")
                at = replaces.get(at)
            replaces[name] = older
        return replaces

    def _rule(self, node: Node, known: Policy) -> Rule:
        fields = self.mapping(node, "a rule", _RULE)
        if "keys" not in fields:
            raise self.error(node, "a rule names its keys")
        names, threshold = self._some_of(fields, "keys", "the keys of a rule", known)
        stages, artifacts, predicates, builders = (
            self.texts(fields[name], name) if name in fields else None for name in ("stages", "artifacts", "predicates", "builders")
        )
        return Rule(names, threshold, stages or ("*",), artifacts or ("*",), predicates, builders or ("*",), node.start_mark.line + 1)

    def _checkpoints(self, node: Node, known: Policy) -> Witnesses:
        fields = self.mapping(node, "checkpoints", _CHECKPOINTS)
        if "witnesses" not in fields:
            raise self.error(node, "checkpoints name the witnesses that must have seen them")
        names, threshold = self._some_of(fields, "witnesses", "the witnesses", known)
        for name in names:
            if known.keys[name].algorithm != ED25519:
                raise self.error(fields["witnesses"], f"{name} is {known.keys[name].algorithm}; a witness signs with an Ed25519 key")
        most = None
        if "maxAge" in fields:
            try:
                most = age(self.text(fields["maxAge"], "maxAge"))
            except PolicyError as error:
                raise self.error(fields["maxAge"], str(error)) from error
        return Witnesses(names, threshold, most)

    def _some_of(self, fields: Mapping[str, Node], label: str, what: str, known: Policy) -> tuple[tuple[str, ...], int]:
        """Names of keys, and how many of their holders are enough."""
        names = self.texts(fields[label], what)
        for number, name in enumerate(names):
            if name not in known.keys:
                raise self.error(fields[label], f"no key is named {name!r} in this policy{nearest(name, known.keys)}")
            if name in names[:number]:
                place = "one rule" if label == "keys" else label
                raise self.error(fields[label], f"{name} is named twice in {place}; different keys are counted, each once")
        threshold = self.integer(fields["threshold"], "threshold", 1) if "threshold" in fields else 1
        if threshold > (most := known.holders(names)):
            text = f"threshold {threshold} of {most} keys can never be met"
            if most < len(names):
                text = f"threshold {threshold} can never be met: these {len(names)} keys have {most} holder{'s' if most > 1 else ''}"
            raise self.error(fields["threshold"], text)
        return names, threshold

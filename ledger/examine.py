"""One object: where it came from, back to its sources, and what is claimed about it; from entries that count under a policy."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ledger import chain, lookup, predicates, report, standing, witness_folder
from ledger.audit import StrangerError, anchored, log_signers, vouches
from ledger.chain import Made
from ledger.entries import UNPLACED, Entry
from ledger.errors import ContradictionError, VerificationError
from ledger.inventory import Unread
from ledger.log import Log
from ledger.policy import Policy
from ledger.report import Report, Row, printable
from ledger.statement import Statement
from ledger.vsa import VSA, summed_up
from store import files, tree
from store.actions import Action
from store.digest import Digest
from store.errors import CorruptError
from store.tree import Tree

if TYPE_CHECKING:
    from store.cas import Cas

Hasher = Callable[[Path], Digest]


class Evidence(Protocol):
    """Where entries come from: a `Log`, or a `Bundle` that travelled."""

    def lookup(self, key: Digest, /) -> list[Entry]:
        """Entries that claim to be runs of an action."""
        ...

    def by_subject(self, digest: Digest, /) -> list[Entry]:
        """Entries that say something about an object."""
        ...

    def by_material(self, digest: Digest, /) -> list[Entry]:
        """Entries of actions that took an object as an input."""
        ...


class _Placed:
    """A log in which a place counts only as far as somebody trusted vouches for it."""

    def __init__(self, log: Log, last: int) -> None:
        self._log, self._last = log, last

    def lookup(self, key: Digest) -> list[Entry]:
        return self._placed(self._log.lookup(key))

    def by_subject(self, digest: Digest) -> list[Entry]:
        return self._placed(self._log.by_subject(digest))

    def by_material(self, digest: Digest) -> list[Entry]:
        return self._placed(self._log.by_material(digest))

    def _placed(self, entries: list[Entry]) -> list[Entry]:
        return [entry if entry.number <= self._last else replace(entry, number=UNPLACED) for entry in entries]


def examine_target(target: Digest | Path, log: Log, policy: Policy, *, store: Cas | None = None, digest_of: Hasher | None = None) -> Report:
    """What the entries of a ledger prove about an object: a digest, a file (hashed), or a folder (as a tree).

    With a store, a folder that nobody mentions is compared, file by file, with the recorded one that it resembles most, and a file is also
    looked for inside recorded folders. `digest_of` hashes a file; give one that remembers (`store.statcache`) to save time.

    Raises:
        StoreError: the file or folder cannot be read.
    """
    events = standing.events(log)
    written, policy = policy, standing.narrowed(policy, events)
    examination = Examination(_Placed(log, anchored(log, policy)), policy, lambda: _recorded_trees(log, store) if store is not None else ())
    found: Tree | None = None
    if isinstance(target, Digest):
        digest, what = target, f"object {target.short}"
    elif target.is_dir():
        found = tree.hash_folder(target)
        digest, what = found.digest, f"folder {target.name}, these {len(found.entries)} files and {found.size:,} bytes,"
    else:
        digest = (digest_of or _hash_file)(target)
        what = f"{target.name}, these {target.stat().st_size:,} bytes,"
    if examination.mentions(digest):
        examination.explain([(digest, what)])
    else:
        known = [one for one in _recorded_trees(log, store) if examination.mentions(one.digest)] if store is not None else []
        recorded = sorted(known, key=lambda one: min(entry.entry.number for entry in examination.sift(one.digest)[0]))
        holders = [] if found is not None else holding(digest, recorded)
        if holders:
            examination.rows.append(held(digest, what, holders))
            examination.explain([(holders[0].digest, folder_of(holders[0]))])
        if not holders:
            examination.rows += differences(found, recorded) if found is not None else []
            examination.strange(digest, what)
    examination.rows.append(_standing(log, policy))
    examination.rows += [*standing.rows(written, standing.cuts(written, events)), *witness_folder.rows(log, policy)]
    return Report(str(target), tuple(examination.rows), {target.name if isinstance(target, Path) else str(target): digest})


def _hash_file(path: Path) -> Digest:
    return files.hash_file(path)[0]


def folder_of(one: Tree) -> str:
    """A recorded folder, for messages."""
    return f"the folder {one.digest.short} ({len(one.entries)} files)"


def holding(digest: Digest, trees: Iterable[Tree], listed: Container[Digest] = ()) -> list[Tree]:
    """The folders that hold a file, first the one by which a reader knows it: most of its files are `listed`, then it is the largest.

    A configuration or a tokenizer is the same in many folders: in a model, in another that was made to compare with, in what a stage left
    on the way. Where nothing else tells them apart, the order is that of `trees`.
    """
    found = [one for one in trees if any(file.digest == digest for file in one.entries)]
    return sorted(found, key=lambda one: (-sum(file.digest in listed for file in one.entries), -len(one.entries)))


def held(digest: Digest, what: str, holders: Sequence[Tree]) -> Row:
    """That a file is one of a folder, the first of some that hold it."""
    path = next(file.path for file in holders[0].entries if file.digest == digest)
    others = len(holders) - 1
    also = f"; {others} other attested folder{'s hold' if others > 1 else ' holds'} the same bytes" if others else ""
    return Row("proven", f"{what} are the file {path} of {folder_of(holders[0])}{also}")


def _recorded_trees(log: Log, store: Cas) -> Iterator[Tree]:
    """The folders that entries are about, as far as the store has their lists of files."""
    for digest in log.subjects():
        try:
            found = tree.load_if_tree(store, digest) if store.has(digest) else None
        except CorruptError:
            continue  # a damaged list says nothing here; whoever looks at the bytes reports it
        if found is not None:
            yield found


def differences(found: Tree, recorded: Iterable[Tree], where: str = "", unread: Iterable[Unread] = ()) -> list[Row]:
    """How a folder differs from the recorded one with which it shares most files; nothing when it shares none with any.

    `unread` lie there too, with paths from the top; of them nothing but a wrong size is a difference.
    """
    dark = {file.path: file.size for file in unread}
    mine = {file.path: file for file in found.entries}
    shared = [(sum(mine.get(file.path) == file for file in one.entries), one) for one in recorded]
    best = max(shared, key=lambda pair: pair[0], default=None)
    if best is None or best[0] == 0:
        return []
    theirs = {file.path: file for file in best[1].entries}
    rows: list[Row] = []
    for path in sorted({*mine, *theirs}):
        one, other = mine.get(path), theirs.get(path)
        if one == other:
            continue
        if one is None and other is not None and dark.get(where + path) == other.size:
            continue
        if one is None and other is not None:
            text = f"{where}{path} is missing: {folder_of(best[1])} has it, {other.size:,} bytes, {other.digest.short}"
        elif other is None and one is not None:
            text = f"{where}{path} is not in {folder_of(best[1])}; here it has {one.size:,} bytes, {one.digest.short}"
        elif one is not None and other is not None:
            mine_is, its = f"{one.size:,} bytes, {one.digest.short}", f"{other.size:,} bytes, {other.digest.short}"
            text = f"{where}{path} differs from that in {folder_of(best[1])}: expected {its}; got {mine_is}"
        rows.append(Row("failed", text, "Take the file from where the folder was published, or export it again"))
    return rows


@dataclass(frozen=True, slots=True)
class _Evaluated:
    """An evaluation that was attested: its oldest entry, who says so, and whether somebody else came to the same numbers."""

    number: int | None
    names: frozenset[str]
    confirmed: bool


class Examination:
    """Findings about objects, from entries that count under a policy."""

    def __init__(self, evidence: Evidence, policy: Policy, trees: Callable[[], Iterable[Tree]] = tuple) -> None:
        """`trees` gives the lists of files that are known here, for stages that take single files of a folder; asked for when needed."""
        self.rows: list[Row] = []
        self.names: dict[Digest, str] = {}
        """What people know an object by, where it is more than its digest."""
        self._trees = trees
        self._evidence, self._policy = evidence, policy
        self._sifted: dict[Digest, tuple[list[lookup.Trusted], list[lookup.Ignored]]] = {}

    def sift(self, digest: Digest) -> tuple[list[lookup.Trusted], list[lookup.Ignored]]:
        """The entries about an object that count, and those that do not."""
        if digest not in self._sifted:
            self._sifted[digest] = lookup.sift(self._evidence.by_subject(digest), self._policy)
        return self._sifted[digest]

    def mentions(self, digest: Digest) -> bool:
        """Whether somebody trusted says something about an object; that he verified it, or that it failed, says nothing of it here."""
        return any(one.statement.predicate_type != VSA for one in self.sift(digest)[0])

    def makers(self, digest: Digest) -> list[Made]:
        """The trusted runs that gave an object, oldest first; then, where none of them made it anew, those that gave a folder with it."""
        made = self._direct_makers(digest)
        if all(digest in one.action.inputs.values() for one in made):
            held = [one for folder in self._holders.get(digest, ()) for one in self._direct_makers(folder)]
            made += sorted(held, key=lambda one: -1 if one.entry is None else one.entry)
        return made

    @cached_property
    def _holders(self) -> Mapping[Digest, Sequence[Digest]]:
        """File -> the folders that hold it."""
        holders: dict[Digest, list[Digest]] = {}
        for one in self._trees():
            for file in one.entries:
                holders.setdefault(file.digest, []).append(one.digest)
        return holders

    def _direct_makers(self, digest: Digest) -> list[Made]:
        return self._made(self.sift(digest)[0])

    def _made(self, trusted: Iterable[lookup.Trusted]) -> list[Made]:
        """The runs among statements that count."""
        runs = [one for one in trusted if one.statement.predicate_type == predicates.RUN]
        return [Made(predicates.action_of(one.statement), one.statement.subjects, one.signers, _number(one.entry)) for one in runs]

    def strange(self, digest: Digest, what: str) -> None:
        """The finding that nobody trusted says anything about an object."""
        ignored = self.sift(digest)[1]
        users, _ = lookup.sift(self._evidence.by_material(digest), self._policy)
        if users:
            takers = sorted({predicates.action_of(one.statement).stage for one in users})
            text = f"{what} were only taken as an input, by {', '.join(takers)}; nobody trusted says where they come from"
            self.rows.append(Row("failed", text, entry=_number(users[0].entry)))
            return
        hint = f"{len(ignored)} entries that do not count speak of them, the first: {ignored[0].reason}" if ignored else ""
        reasons = f"they were changed, or made elsewhere, or by somebody whom {self._policy.source} does not trust"
        text = f"{what} are in no trusted statement ({digest}): {reasons}"
        self.rows.append(Row("failed", text, hint or "Ask for the attestations that came with them"))

    def explain(self, objects: Sequence[tuple[Digest, str]], *, away: Sequence[tuple[Digest, str]] = ()) -> None:
        """Where objects come from, back to the sources, and what is claimed about them. Each is mentioned by somebody trusted.

        Those that are `away` are traced like the others, but the runs that gave them are only counted.
        """
        steps: dict[Digest, Made] = {}
        gaps: dict[Digest, chain.Gap] = {}
        last: set[Digest] = set()
        for digest, what in (*objects, *away):
            provenance = chain.trace(digest, self.makers)
            steps |= {made.action.key: made for made in provenance.steps}
            gaps |= {gap.digest: gap for gap in provenance.gaps}
            if provenance.steps and (digest, what) not in away:
                made = provenance.steps[-1]
                last.add(made.action.key)
                text = f"{what} came out of {_describe(made.action)} ({self._source([made])}){self._also(digest, made)}"
                self.rows.append(Row("proven", text, entry=made.entry))
        before: dict[str, list[Made]] = {}
        for made in steps.values():
            if made.action.key not in last:
                before.setdefault(made.action.stage, []).append(made)
        for stage, runs in before.items():
            which = _describe(runs[0].action) if len(runs) == 1 else f"{len(runs)} runs of {stage}"
            short = stage if len(runs) == 1 else f"{len(runs)} {stage}"
            self.rows.append(Row("proven", f"from {which} ({self._source(runs)})", entry=runs[0].entry, step=short))
        for made in steps.values():
            self._agreement(made.action)
        evaluations: list[_Evaluated] = []
        for digest, what in dict((*objects, *away)).items():
            evaluations += self._claims(digest, what)
        self._gaps(gaps.values(), {digest: what.rstrip(",") for digest, what in (*objects, *away)} | self.names)
        self._unconfirmed(list(steps.values()), evaluations)
        if steps:
            names = sorted({name for made in steps.values() for name in made.signers})
            self.rows.append(Row("proven", f"all of this is signed by keys that {self._policy.source} trusts: {', '.join(names)}"))
        ignored = [one for digest, _ in (*objects, *away) for one in self.sift(digest)[1]]
        if ignored:
            which = "1 more statement counts" if len(ignored) == 1 else f"{len(ignored)} more statements count"
            text = f"{which} for nothing here: {ignored[0].reason}"
            self.rows.append(Row("unverified", text, entry=_number(ignored[0].entry)))

    def _also(self, digest: Digest, made: Made) -> str:
        """What other actions gave an object too, for the end of a sentence."""
        others = {one.action.key: one.action for one in self._direct_makers(digest) if digest not in one.action.inputs.values()}
        others.pop(made.action.key, None)
        if not others:
            return ""
        which = _describe(next(iter(others.values()))) if len(others) == 1 else f"{len(others)} other runs"
        return f"; the same bytes also came out of {which}"

    def _source(self, runs: Sequence[Made]) -> str:
        numbers = sorted(made.entry for made in runs if made.entry is not None)
        names = sorted({name for made in runs for name in made.signers})
        where = f"{report.entries(numbers)}, " if numbers else ""
        return f"{where}signed by {' and '.join(names)}"

    def _agreement(self, action: Action) -> None:
        try:
            lookup.find(self._evidence, self._policy, action)
        except ContradictionError as error:
            self.rows.append(Row("failed", str(error)))

    def _claims(self, digest: Digest, what: str) -> list[_Evaluated]:
        """What else is attested about an object; gives its evaluations. Statements that are equal to the byte are one finding."""
        said: dict[bytes, list[lookup.Trusted]] = {}
        for one in self.sift(digest)[0]:
            if one.statement.predicate_type != predicates.RUN:
                said.setdefault(one.statement.payload, []).append(one)
        evaluations = []
        for alike in said.values():
            first = alike[0]
            who = " and ".join(sorted({name for one in alike for name in one.signers}))
            numbers = [number for one in alike if (number := _number(one.entry)) is not None]
            if first.statement.predicate_type == predicates.EVALUATION:
                evaluations.append(self._evaluated(alike))
                where = f" ({report.entries(numbers)})" if numbers else ""
                text = f"{_evaluation(first.statement)} was attested by {who} for {what.rstrip(',')}{where}"
            elif first.statement.predicate_type == VSA:
                self.rows.append(summed_up(first.statement, who, what.rstrip(","), _number(first.entry)))
                continue
            else:
                text = f"a statement of type {first.statement.predicate_type} about {what.rstrip(',')} is signed by {who}"
            self.rows.append(Row("proven", text, entry=_number(first.entry)))
        return evaluations

    def _evaluated(self, alike: Sequence[lookup.Trusted]) -> _Evaluated:
        """An evaluation is confirmed when somebody else gives the same numbers, and made all the work between the object and them again."""
        statement, number = alike[0].statement, _number(alike[0].entry)
        names = frozenset(name for one in alike for name in one.signers)
        key = predicates.computed_by(statement)
        runs = self._evidence.lookup(key) if key is not None else []
        made = next((one for one in self._made(lookup.sift(runs, self._policy)[0])), None)
        behind = chain.between(statement.subjects.values(), made, self.makers) if made is not None else ()
        confirmed = self._policy.holders(names) > 1 and bool(behind) and all(self._confirmed(one) for one in behind)
        return _Evaluated(number, names, confirmed)

    def _gaps(self, gaps: Iterable[chain.Gap], names: Mapping[Digest, str]) -> None:
        for gap in gaps:
            what = names.get(gap.digest, gap.digest.short)
            used = f" ({gap.name} of {gap.wanted_by.stage})" if gap.wanted_by is not None else ""
            makers = self.makers(gap.digest) if gap.circular else []
            takers = [made for made in makers if gap.digest in made.action.inputs.values()]
            if takers:  # an import, that gives what it takes
                taker = _taker(takers[0].action)
                text = f"{taker} took in {what}{used} and gave it on unchanged ({self._source(takers)})"
                self.rows.append(Row("proven", text, entry=takers[0].entry))
                reason = f" before {taker} took it in"
                self._agreement(takers[0].action)
            else:
                reason = f"; each maker of it needs what it gave: {', '.join(sorted({m.action.stage for m in makers}))}" if makers else ""
            ignored = self.sift(gap.digest)[1]
            hint = f"A statement that does not count says it: {ignored[0].reason}" if ignored else ""
            self.rows.append(Row("unverified", f"where {what}{used} came from{reason}", hint))

    def _unconfirmed(self, steps: Sequence[Made], evaluations: Sequence[_Evaluated]) -> None:
        alone = [made for made in steps if not self._confirmed(made)]
        doubtful = [one for one in evaluations if not one.confirmed]
        counts = ((len(alone), "run"), (len(doubtful), "evaluation"))
        if parts := [f"{count:,} {what}{'s' if count > 1 else ''}" for count, what in counts if count]:
            who = " and ".join(sorted({name for made in alone for name in made.signers})) or "its signer"
            many = len(alone) + len(doubtful) > 1
            text = (
                f"that {' and '.join(parts)} went as attested: {who} alone says so, nobody else has made {'them' if many else 'it'} again"
            )
            numbers = [*(one.number for one in doubtful), *(made.entry for made in reversed(alone))]
            # Only a ledger has the inputs; what travels without one has to be run from its recipe.
            named = next((number for number in numbers if number is not None), None) if isinstance(self._evidence, _Placed) else None
            self.rows.append(Row("attested", text, f"ledger verify --rerun {named}" if named is not None else "", named))
        if len(steps) > len(alone):
            names = sorted({name for made in steps if made not in alone for name in self._vouching(made)})
            text = f"{len(steps) - len(alone):,} of {len(steps):,} runs are confirmed by a second key, with equal outputs"
            self.rows.append(Row("proven", f"{text}: {', '.join(names)}"))
        if confirmed := len(evaluations) - len(doubtful):
            what = f"{confirmed:,} of {len(evaluations):,} evaluations" if len(evaluations) > 1 else "the evaluation"
            self.rows.append(Row("proven", f"{what} {'were' if confirmed > 1 else 'was'} made again by a second key, with equal numbers"))

    def _confirmed(self, made: Made) -> bool:
        return self._policy.holders(self._vouching(made)) > 1

    def _vouching(self, made: Made) -> frozenset[str]:
        """The names of the keys that say that an action gave just these outputs."""
        same = [one for one in self._evidence_of(made.action) if dict(one.statement.subjects) == dict(made.outputs)]
        return frozenset(name for one in same for name in one.signers)

    def _evidence_of(self, action: Action) -> list[lookup.Trusted]:
        return lookup.sift(self._evidence.lookup(action.key), self._policy)[0]


def _number(entry: Entry) -> int | None:
    return None if entry.number == UNPLACED else entry.number


def _taker(action: Action) -> str:
    source = action.spec.get("source")
    return f"{action.stage} of {printable(repr(source))}" if isinstance(source, str) and source else action.stage


def _describe(action: Action) -> str:
    """A stage and what of its spec is short enough to read."""
    short = [
        f"{name} {value}" for name, value in sorted(action.spec.items()) if isinstance(value, (str, int)) and 0 < len(str(value)) <= 24
    ]
    return action.stage + (f" ({', '.join(short[:3])}{', ..' if len(short) > 3 else ''})" if short else "")


def _evaluation(statement: Statement) -> str:
    """`perplexity 43.3 ± 1.2 on 5c0d..`, of whatever an evaluation holds."""
    predicate = statement.predicate
    metrics = predicate.get("metrics")
    metrics = metrics if isinstance(metrics, Mapping) else {}
    name = str(predicate.get("benchmark", "evaluation"))
    main = name if name in metrics else next(iter(sorted(metrics)), "")
    error = predicates.stderr_of(metrics)
    value = _rounded(metrics[main], error) if main else ""
    text = f"{name} {value}" if main == name else f"{name}: {main} {value}" if main else name
    digest = predicates.dataset_of(predicate)
    return printable(text + (f" on {digest[:8]}.." if digest else ""))


def _rounded(value: object, error: object) -> str:
    """A value with as many digits as its error supports, two of the error; as it was signed when it is no number.

    >>> _rounded("41.93462", "1.1304"), _rounded("2715.6", "91.2"), _rounded("0.5", None), _rounded("high", "1")
    ('41.9 ± 1.1', '2716 ± 91', '0.5', 'high ± 1')
    """
    try:
        number, spread = Decimal(str(value)), Decimal(str(error))
        if not (number.is_finite() and spread.is_finite() and spread > 0):
            raise InvalidOperation
    except InvalidOperation:
        return str(value) + (f" ± {error}" if error is not None else "")
    places = max(0, 1 - spread.adjusted())
    return f"{number:.{places}f} ± {spread:.{places}f}"


def _standing(log: Log, policy: Policy) -> Row:
    """Who vouches for the order of the log that the entries come from."""
    head = log.head
    if head is None:
        return Row("unverified", "the ledger is empty")
    number = log.size - 1
    try:
        names = log_signers(log.repository, head, number, policy)
    except StrangerError as error:
        return Row(
            "unverified", f"the newest entry of the ledger was {error}, whom {policy.source} does not let sign a log", "Run `ledger verify`"
        )
    except VerificationError as error:
        return Row("failed", f"the ledger's newest entry {number}: {error}", "Run `ledger verify`", number)
    if not vouches(names, policy, log, number):
        text = f"when it was said: the log {log.origin} is signed by {' and '.join(sorted(names))}, who counts up to some entry only"
        return Row("unverified", text, "Run `ledger verify`")
    return Row(
        "proven",
        f"these entries are in log {log.origin} of {number + 1:,} entries, whose checkpoint {' and '.join(sorted(names))} signed",
        aside=True,
    )

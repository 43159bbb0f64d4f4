"""Is this action done? The question behind resume, dedup and provenance, answered only by entries that prove themselves.

An entry counts after its envelope's signatures were checked against the policy's keys, its key was recomputed from the statement, and the
policy accepted it at its place in the log. No other cache does that. What does not count is passed over, and said.

Where a rule wants k of n, entries count together: those of one action with equal outputs (of E stages: in one environment), or with the
same predicate about the same subjects, each with the keys that count at its own place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from ledger import dsse, predicates
from ledger.entries import UNPLACED, Entry
from ledger.errors import ContradictionError, SignatureError, StatementError, UntrustedError, VerificationError
from ledger.policy import Policy
from ledger.statement import Statement
from store import canonical
from store.actions import Action
from store.digest import Digest
from store.errors import StoreError


class Entries(Protocol):
    """Where entries are looked up: a `ledger.log.Log`, or anything that gives candidates."""

    def lookup(self, key: Digest, /) -> list[Entry]:
        """Entries that claim to be runs of the action."""
        ...


class Claims(Entries, Protocol):
    """Where entries that say the same as another can be found."""

    def by_subject(self, digest: Digest, /) -> list[Entry]:
        """Entries that say something about an object."""
        ...


@dataclass(frozen=True, slots=True)
class Trusted:
    """A statement that was accepted: its entry, what it says, and whose keys on it made it count, alone or with others' entries."""

    entry: Entry
    statement: Statement
    signers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ignored:
    """An entry that did not count, and why."""

    entry: Entry
    reason: VerificationError


@dataclass(frozen=True, slots=True)
class Hit:
    """A finished action.

    Attributes:
        entry: the oldest entry that counts.
        action: recomputed from its statement.
        outputs: name -> digest.
        signers: names, in the policy, of all keys that vouch for these outputs, over all entries that count; sorted.
        statement: of `entry`.
        corroborating: the other entries that count and say the same. elsewhere: those of other environments that say something else.
        ignored: entries of this key that do not count.
        environment_digest: of the environment that `entry` was made in, for E stages.
    """

    entry: Entry
    action: Action
    outputs: Mapping[str, Digest]
    signers: tuple[str, ...]
    statement: Statement
    corroborating: tuple[Entry, ...] = ()
    elsewhere: tuple[Entry, ...] = ()
    ignored: tuple[Ignored, ...] = field(default=(), compare=False)
    environment_digest: Digest | None = None


def accept(entry: Entry, policy: Policy, claims: Claims | None = None) -> Trusted:
    """Check one entry's envelope against a policy; the number is the entry's, so a key counts only where it may.

    With `claims`, entries found there that say the same count together with it.

    Raises:
        SignatureError, StatementError, UntrustedError: it does not count; says why.
    """

    def others(said: _Claim) -> list[Entry]:
        if claims is None:
            return []
        statement = entry.statement
        if statement.predicate_type == predicates.RUN:
            found = claims.lookup(predicates.action_of(statement).key)
        else:
            found = claims.by_subject(next(iter(statement.subjects.values())))
        return _by_claim(found).get(said, [])

    return _accept(entry, policy, others)


def sift(entries: Iterable[Entry], policy: Policy) -> tuple[list[Trusted], list[Ignored]]:
    """Split entries into those that count, by themselves or together with others among them, and those that do not."""
    given = list(entries)
    claims: dict[_Claim, list[Entry]] = {}

    def others(said: _Claim) -> list[Entry]:
        if not claims:
            claims.update(_by_claim(given))
        return claims.get(said, [])

    trusted: list[Trusted] = []
    ignored: list[Ignored] = []
    for entry in given:
        try:
            trusted.append(_accept(entry, policy, others))
        except VerificationError as reason:
            ignored.append(Ignored(entry, reason))
    return trusted, ignored


_Claim = tuple[object, ...]


def _accept(entry: Entry, policy: Policy, others: Callable[[_Claim], list[Entry]]) -> Trusted:
    """As `accept`; `others` gives the entries that make the same claim."""
    known = entry.accepted.get(id(policy))
    if known is not None and known[0] is policy and isinstance(known[1], Trusted):
        return known[1]
    signed = dsse.verify(entry.signed, policy.keys.values())
    statement = entry.statement
    position = None if entry.number == UNPLACED else entry.number
    try:
        trusted = Trusted(entry, statement, policy.judge(statement, signed, position=position))
    except UntrustedError:
        claim = _claim_of(entry) if policy.together else None
        if claim is None:
            raise
        votes = [(statement, policy.counting(signed, position))]
        votes += [(one.statement, _voters(one, policy)) for one in others(claim) if one is not entry]
        together = policy.judge_together(votes)[0]
        if not together:
            raise
        trusted = Trusted(entry, statement, together)
    entry.accepted[id(policy)] = (policy, trusted)
    return trusted


def _by_claim(entries: Iterable[Entry]) -> dict[_Claim, list[Entry]]:
    """Entries by what they say; those that say nothing readable are left out, whoever asks about them is told."""
    claims: dict[_Claim, list[Entry]] = {}
    for entry in entries:
        claim = _claim_of(entry)
        if claim is not None:
            claims.setdefault(claim, []).append(entry)
    return claims


def _voters(entry: Entry, policy: Policy) -> frozenset[str]:
    """The names of the keys on an entry that count at its place; none when nobody known signed it."""
    try:
        signed = dsse.verify(entry.signed, policy.keys.values())
    except SignatureError:
        return frozenset()
    return policy.counting(signed, None if entry.number == UNPLACED else entry.number)


def _claim_of(entry: Entry) -> _Claim | None:
    """What two entries must have in common to say the same; None when it cannot be read."""
    try:
        statement = entry.statement
        subjects = tuple(sorted((name, str(digest)) for name, digest in statement.subjects.items()))
        if statement.predicate_type == predicates.RUN:
            return predicates.RUN, predicates.action_of(statement).key, predicates.exact_in(statement), subjects
        return statement.predicate_type, canonical.dumps(dict(statement.predicate)), subjects
    except (VerificationError, StoreError):
        return None


def find(log: Entries, policy: Policy, action: Action, *, environment_digest: Digest | None = None) -> Hit | None:
    """The trusted result of an action, or None when it has to be done.

    With `environment_digest`, results of E stages from other environments are no hits. When the policy says `environment: same`, that is
    so without it too: then no result of an E stage is a hit.

    Raises:
        ContradictionError: trusted entries give different outputs. For an E stage that holds within one environment: results of different
            environments may differ, the oldest is taken and the others are in `Hit.elsewhere`.
    """
    entries = log.lookup(action.key)
    if not entries:
        return None
    demanded = environment_digest is not None or policy.environment == "same"
    trusted, ignored = sift(entries, policy)
    counting: list[tuple[Trusted, Action, Digest | None]] = []
    for one in trusted:
        try:
            found, environment = _read(one.statement, action)
        except VerificationError as reason:
            ignored.append(Ignored(one.entry, reason))
            continue
        if demanded and environment is not None and environment != environment_digest:
            foreign = UntrustedError(f"entry {one.entry.number} was made in environment {environment.short}; only the same one counts here")
            ignored.append(Ignored(one.entry, foreign))
            continue
        counting.append((one, found, environment))
    refuse_contradiction(action, [(one, environment) for one, _, environment in counting])
    if not counting:
        return None
    first, found, environment = counting[0]
    same = [one for one, _, _ in counting if dict(one.statement.subjects) == dict(first.statement.subjects)]
    return Hit(
        entry=first.entry,
        action=found,
        outputs=first.statement.subjects,
        signers=tuple(sorted({name for one in same for name in one.signers})),
        statement=first.statement,
        corroborating=tuple(one.entry for one in same if one is not first),
        elsewhere=tuple(one.entry for one, _, _ in counting if one not in same),
        ignored=tuple(ignored),
        environment_digest=environment,
    )


def confirmations(log: Entries, policy: Policy, action: Action) -> tuple[str, ...]:
    """Names of the keys that vouch for an action's outputs, each by an entry of its own or with others in one; sorted.

    Entries of other environments count when their outputs are the same. One name: nobody has confirmed it. None: nobody trusted says it.

    Raises:
        ContradictionError: trusted entries of one environment give different outputs.
    """
    hit = find(log, replace(policy, environment="any"), action) if policy.environment != "any" else find(log, policy, action)
    return hit.signers if hit is not None else ()


def _read(statement: Statement, action: Action) -> tuple[Action, Digest | None]:
    found = predicates.action_of(statement)
    if found.key != action.key:
        raise StatementError(f"the statement is about action {found.key.short}; expected {action.key.short}. The index is wrong; delete it")
    return found, predicates.exact_in(statement)


def refuse_contradiction(action: Action, claims: Sequence[tuple[Trusted, Digest | None]]) -> None:
    """Compare what trusted entries say about one action, each with its environment (None for P stages).

    Raises:
        ContradictionError: two of the same environment give different outputs, or one that is pure and any other.
    """
    # Who calls a run pure says that its bytes are the same anywhere, so an environment of its own excuses no other claim.
    anywhere = next((one for one, environment in claims if environment is None), None)
    first: dict[Digest | None, Trusted] = {}
    for one, environment in claims:
        other = anywhere or first.setdefault(environment, one)
        if dict(other.statement.subjects) != dict(one.statement.subjects):
            claims_by = {_who(item): {name: str(digest) for name, digest in item.statement.subjects.items()} for item in (other, one)}
            differing = sorted(
                name
                for name in {*other.statement.subjects, *one.statement.subjects}
                if other.statement.subjects.get(name) != one.statement.subjects.get(name)
            )
            raise ContradictionError(
                f"{action.stage} (action {action.key.short}) has two trusted results that differ in {', '.join(differing)}: "
                + "; ".join(f"{_who(item)} says {_outputs(item, differing)}" for item in (other, one))
                + ". One of them is wrong or the stage is not reproducible; take away trust in one key, or use `ledger why`",
                claims=claims_by,
            )


def _who(one: Trusted) -> str:
    return f"entry {one.entry.number} by {' and '.join(one.signers)}"


def _outputs(one: Trusted, names: Sequence[str]) -> str:
    return ", ".join(f"{name} {one.statement.subjects[name].short if name in one.statement.subjects else 'nothing'}" for name in names)

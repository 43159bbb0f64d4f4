"""Whose signatures still count: a reader's policy, narrowed by the key events that stand in a log.

A key event only ever takes away. A key that a trusted event supersedes or revokes from entry N is cut off there, and at the latest right
behind the event itself; a successor, or a key that an event adds, is trusted by nobody for that: policies name keys, logs do not.

An event counts when the key that it is about signed it, or keys that the policy trusts for key events. Events are judged in the order of
the log, each by what the ones before it left standing; positions alone count, never dates. Where everything an event takes away is taken
away by the policy already, the policy comes back as it is.

Which entries are key events is found by reading each entry once, from git, with its place proven; how far that went is remembered outside
the ledger. The index is not asked: whoever may write to it could hide a revocation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ledger import dsse, lookup, statement
from ledger.entries import UNPLACED, Entry
from ledger.errors import LogError, MovedError, RewrittenError, SignatureError, VerificationError
from ledger.memory import read_checkpoint
from ledger.policy import Policy, Span
from ledger.predicates import KEY_EVENT, KeyEvent
from ledger.report import Row

if TYPE_CHECKING:
    from ledger.keys import Signer
    from ledger.log import Log


@dataclass(frozen=True, slots=True)
class Cut:
    """A trusted key event about a key of the policy.

    Attributes:
        entry: of the event; `UNPLACED` when its place is not proven.
        name: of the key in the policy. by: names of who said so. successor: the policy's name for that key, or its short form; or nothing.
        until: the key's signatures count up to the entry before.
        new: whether the policy did not say so already.
    """

    entry: int
    event: KeyEvent
    name: str
    by: tuple[str, ...]
    successor: str
    until: int
    new: bool

    @property
    def sentence(self) -> str:
        """`alice was superseded by alice-2 from entry 13 on (entry 12, said by alice)`."""
        place = "its place is not proven" if self.entry == UNPLACED else f"entry {self.entry}"
        reason = f": {self.event.reason!r}" if self.event.reason else ""
        return f"{self.name} was {self.what} from entry {self.until} on ({place}, said by {' and '.join(self.by)}{reason})"

    @property
    def what(self) -> str:
        """`revoked`, or `superseded by alice-2`."""
        return f"superseded by {self.successor}" if self.successor else "revoked"


def of(log: Log, policy: Policy) -> Policy:
    """A policy, narrowed by the key events of a log.

    Raises:
        LogError: the log cannot be read.
    """
    return narrowed(policy, events(log))


def narrowed(policy: Policy, events: Iterable[Entry]) -> Policy:
    """A policy, narrowed by key events in the order of their log; the very same when they take nothing away."""
    return _cut(policy, cuts(policy, list(events)))


def cuts(policy: Policy, events: Sequence[Entry]) -> tuple[Cut, ...]:
    """The key events that count and are about keys of the policy, in the order of their log."""
    found: list[Cut] = []
    standing = policy
    settled: set[int] = set()
    for last in range(len(events)):
        # One more event can be what earlier ones waited for, where the policy wants several people to say so.
        for at in range(last + 1) if policy.together else (last,):
            if at in settled or not (by := _said_by(events[at], events[: last + 1], standing)):
                continue
            settled.add(at)
            cut = _cut_of(events[at], by, standing)
            if cut is not None:
                found.append(cut)
                standing = _cut(standing, [cut])
    return tuple(found)


def rows(policy: Policy, found: Iterable[Cut]) -> list[Row]:
    """What key events mean for whoever reads with a policy, as findings."""
    told: list[Row] = []
    known = set(policy.keys.values())
    for cut in found:
        hint = f"Write `until: {cut.until}` beside {cut.name} in {policy.source}" if cut.new else ""
        told.append(Row("proven", cut.sentence, hint, None if cut.entry == UNPLACED else cut.entry, aside=True))
        if cut.event.successor is not None and cut.event.successor not in known:
            text = (
                f"what {cut.event.successor}, the successor of {cut.name}, signs counts for nothing here: {policy.source} does not name it"
            )
            command = f"ledger key trust NAME {cut.event.successor} --replaces {cut.name} --from {cut.until}"
            told.append(Row("unverified", text, f"If you trust it: {command}", aside=True))
    return told


def _said_by(entry: Entry, heard: Sequence[Entry], standing: Policy) -> tuple[str, ...]:
    """Who makes a key event count; nobody when it does not, or is none."""
    try:
        event = KeyEvent.of(entry.statement)
    except VerificationError:
        return ()
    try:
        dsse.verify(entry.signed, [event.key])
    except SignatureError:
        counting = lookup.sift(heard, standing)[0] if standing.together else lookup.sift([entry], standing)[0]
        return next((one.signers for one in counting if one.entry is entry), ())
    return (next((name for name, key in standing.keys.items() if key == event.key), event.key.short),)


def _cut_of(entry: Entry, by: tuple[str, ...], standing: Policy) -> Cut | None:
    event = KeyEvent.of(entry.statement)
    name = next((name for name, key in standing.keys.items() if key == event.key), None)
    if name is None or event.event == "added":
        return None
    until = event.from_entry if entry.number == UNPLACED else min(event.from_entry, entry.number + 1)
    now = standing.spans.get(name, Span()).until
    heir = event.successor
    successor = "" if heir is None else next((known for known, key in standing.keys.items() if key == heir), heir.short)
    return Cut(entry.number, event, name, by, successor, until, now is None or until < now)


def _cut(policy: Policy, found: Iterable[Cut]) -> Policy:
    """The policy in which the keys end where the events say; the same object when they do already."""
    spans = dict(policy.spans)
    for cut in found:
        if cut.new:
            place = "" if cut.entry == UNPLACED else f" at entry {cut.entry}"
            spans[cut.name] = Span(spans.get(cut.name, Span()).first, cut.until, cut.what + place)
    return replace(policy, spans=spans) if spans != policy.spans else policy


def announce(log: Log, make: Callable[[int], KeyEvent], signer: Signer | None = None) -> Entry:
    """Append a key event.

    Args:
        log: opened with the key that signs the log.
        make: gives the event for the number that its entry will have.
        signer: who signs the statement, when it is another key than the log's.

    Raises:
        MovedError: others append so busily that it never got its place. LogError: the log cannot be written.
    """
    tries = 20
    while True:
        number = log.size
        event = make(number)
        payload = statement.make(event.subjects(), KEY_EVENT, event.predicate())
        try:
            if signer is None:
                return log.append([payload], [event.line()], at=number)[0]
            return log.append_foreign([dsse.sign(payload, signer)], at=number)[0]
        except MovedError:
            tries -= 1
            if not tries:
                raise


def events(log: Log) -> tuple[Entry, ...]:
    """The entries of a log that say to be key events, in their order; nothing about them is judged.

    Raises:
        LogError: the log cannot be read.
    """
    signed = log.checkpoint
    if signed is None:
        return ()
    now = read_checkpoint(signed)
    before = log.memory.searched(now.origin)
    start, numbers = 0, list[int]()
    if before is not None:
        with suppress(RewrittenError):  # another log of the same name: search it anew
            log.prove_extends(before[0])
            start, numbers = before[0].size, [number for number in before[1] if number < before[0].size]
    found = [log.entry(number) for number in numbers]
    for entry in log.entries(start, now.size):
        if is_event(entry):
            found.append(entry)
            numbers.append(entry.number)
    if start < now.size:
        with suppress(LogError):  # a home that cannot be written to: it is searched again next time
            log.memory.note_search(now, numbers)
    return tuple(found)


def is_event(entry: Entry) -> bool:
    """Whether an entry says to be a key event."""
    try:
        return entry.statement.predicate_type == KEY_EVENT
    except VerificationError:
        return False

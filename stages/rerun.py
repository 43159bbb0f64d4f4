"""Do recorded actions again, from their recorded inputs, and sign what came out: does the ledger tell what happens?

A rerun is never answered from the ledger: a worker runs the stage on the inputs that the entry names, out of the store, where reading
checks every byte. What came out is appended as an ordinary run of the same action by the verifier's key, with a byproduct that names the
entry. So equal outputs corroborate and unequal ones contradict by the same rules by which everything else does (`ledger.lookup`).

How outputs are compared follows from the stage. **P**: equal bytes, anywhere. **E**: equal bytes, in the environment that the entry
records; as many threads are taken as it says. In another environment (**T**) bytes may differ: where a kind of output has items (the nll of
an evaluation: chunks) their largest difference is measured and held against a tolerance that was declared beforehand; other kinds say
nothing about how much they may differ.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ledger import chain, dsse, predicates
from ledger.chain import Made
from ledger.entries import Entry
from ledger.errors import ContradictionError, StatementError, UntrustedError, VerificationError
from ledger.log import Log
from ledger.lookup import accept, confirmations
from ledger.policy import Policy
from stages import events, executor, leases, nll, plugins, record
from stages.errors import InputError, PluginError, StageError
from stages.executor import Executor, Job
from stages.graph import check_names
from stages.stage import Leaf, Node, spec_from_json, spec_to_json
from stages.work import job_of, present
from store.actions import Action
from store.cas import Cas
from store.digest import Digest

Outcome = Literal["equal", "contradicting", "within", "beyond", "different", "undone"]
"""In another environment, with other bytes: items differ by at most the tolerance (`within`), by more (`beyond`), or nothing says how much
they may (`different`). `undone`: it could not be made again."""

_WAIT_S = 1.0
_POLL_S = 0.05
_WINDOW = 64
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Vouched:
    """A recorded run that may be made again.

    Attributes:
        names: keys of the policy that signed the entry and count at its place.
        outputs: name -> digest. environment: what it says it was exact in; None for purity P.
        seconds: how long it took, by the clock of whoever ran it.
    """

    entry: Entry
    action: Action
    names: frozenset[str]
    outputs: Mapping[str, Digest]
    environment: Mapping[str, Any] | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Items:
    """Two results of one kind, item by item.

    Attributes:
        count: of items. largest: the largest absolute difference, in `unit`. beyond: how many differ by more than the tolerance, or at all
            when none was declared.
    """

    count: int
    largest: float
    beyond: int
    unit: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What came of one rerun.

    Attributes:
        number: the new entry, None when nothing was recorded.
        differing: output name -> (recorded, made now), of those that differ; None where one side has no such output.
        elsewhere: how the environment differs from the recorded one, each in words; empty when it is the same or does not matter.
        items: the comparison item by item, where there is one.
        reason: why it is undone, why the new entry does not count, or what it contradicts; and what to do.
        confirmed_by: the names of the keys that vouch for the recorded outputs now.
    """

    of: Vouched
    outcome: Outcome
    number: int | None = None
    differing: Mapping[str, tuple[Digest | None, Digest | None]] | None = None
    elsewhere: tuple[str, ...] = ()
    items: Items | None = None
    reason: str = ""
    confirmed_by: tuple[str, ...] = ()


# --- what is there to do again ---------------------------------------------------------------------------------------------------------


def vouched(entry: Entry, policy: Policy) -> Vouched:
    """An entry as something to make again.

    An entry of one of the keys that a policy wants several of does not count alone, and is vouched for all the same.

    Raises:
        SignatureError, StatementError: it cannot be read, or is no run.
        UntrustedError: no key of the policy that counts at its place signed it; nobody needs it confirmed.
    """
    signers = dsse.verify(entry.signed, policy.keys.values())
    names = policy.counting(signers, entry.number)
    statement = entry.statement
    action = predicates.action_of(statement)
    if not names:
        raise UntrustedError(
            f"entry {entry.number} is by no key that counts there under {policy.source}", signers=(str(key) for key in signers)
        )
    exact = predicates.exact_in(statement) is not None
    environment = predicates.environment_of(statement)[0] if exact else None
    return Vouched(entry, action, names, statement.subjects, environment, max(0.0, predicates.elapsed_s(statement) or 0.0))


def runs_behind(entry: Entry, log: Log, policy: Policy, me: str) -> tuple[Vouched, ...]:
    """What an entry stands for: a run for itself; an evaluation for everything that was computed between its subjects and its numbers.

    Of the latter those are left out that `me` has made already, unless that is all.

    Raises:
        VerificationError: it does not count, is neither, or nobody trusted says how its numbers were computed.
    """
    statement = entry.statement
    if statement.predicate_type == predicates.RUN:
        return (vouched(entry, policy),)
    key = predicates.computed_by(statement)
    runs = _of_key(key, log, policy) if key is not None else ()
    if not runs:
        raise StatementError(
            f"entry {entry.number} ({statement.predicate_type}) names no run that can be made again; runs and evaluations can"
        )
    known: dict[int, Vouched] = {}

    def made(one: Vouched) -> Made:
        known[one.entry.number] = one
        return Made(one.action, one.outputs, tuple(sorted(one.names)), one.entry.number)

    steps = chain.between(
        statement.subjects.values(), made(runs[0]), lambda digest: [made(one) for one in _vouched_among(log.by_subject(digest), policy)]
    )
    everything = [known[step.entry] for step in steps if step.entry is not None]
    left = [one for one in everything if not _made_by(me, _of_key(one.action.key, log, policy), policy)]
    return tuple(left or everything)


def _made_by(me: str, runs: Iterable[Vouched], policy: Policy) -> bool:
    return any(policy.holder(me) == policy.holder(name) for one in runs for name in one.names)


def _of_key(key: Digest, log: Log, policy: Policy) -> tuple[Vouched, ...]:
    """The runs of an action that somebody known vouches for, oldest first."""
    return tuple(_vouched_among(log.lookup(key), policy))


def _vouched_among(entries: Iterable[Entry], policy: Policy) -> Iterator[Vouched]:
    for entry in entries:
        try:
            yield vouched(entry, policy)
        except VerificationError:
            continue  # by a stranger, or no run


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """Which actions of a ledger need a second opinion.

    Attributes:
        runs: those that one holder alone vouches for, another than the one who asks; cheapest first.
        own: how many only the one who asks vouches for: a second entry by the same key would add nothing.
        contradicted: entry numbers whose action has results that differ already.
    """

    runs: tuple[Vouched, ...]
    own: int
    contradicted: tuple[int, ...]


def unconfirmed(log: Log, policy: Policy, me: str) -> Unconfirmed:
    """Look through a ledger for what one holder alone vouches for; `me` is the policy's name of the key that would confirm it."""
    mine = policy.holder(me)
    wanted: list[Vouched] = []
    contradicted: list[int] = []
    own = 0
    actions = log.actions()
    for key in dict.fromkeys(key for _, key in actions):
        runs = _of_key(key, log, policy)
        if not runs:
            continue
        holders = {policy.holder(name) for one in runs for name in one.names}
        if len(holders) == 1:
            own += mine in holders
            wanted += [] if mine in holders else [runs[0]]
        elif any(_clash(one, runs[0]) for one in runs):
            contradicted.append(runs[0].entry.number)
    return Unconfirmed(tuple(sorted(wanted, key=lambda one: (one.seconds, one.entry.number))), own, tuple(contradicted))


def _clash(one: Vouched, other: Vouched) -> bool:
    comparable = None in (one.environment, other.environment) or one.environment == other.environment
    return comparable and dict(one.outputs) != dict(other.outputs)


# --- doing it again --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Task:
    of: Vouched
    leaf: Leaf
    job: Job
    label: str


class Rerun:
    """Makes recorded runs again on one ledger, and signs what comes out.

    Args:
        folder: the `.ledger` folder. store, log, policy: opened on it; the log with the verifier's key.
        me: the policy's name of that key.
        tolerance: how much an item may differ in another environment, in its unit; None: nobody declared anything.
        hands: makes an executor for a number of threads.
        on_event: told everything, in order (`stages.events`).
    """

    def __init__(
        self,
        folder: Path,
        store: Cas,
        log: Log,
        policy: Policy,
        *,
        me: str,
        hands: Callable[[int], Executor],
        tolerance: float | None = None,
        on_event: Callable[[events.Event], None] = lambda event: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder, self._store, self._log, self._policy = folder, store, log, policy
        self._me, self._hands, self._tolerance, self._tell = me, hands, tolerance, on_event
        self._invocation = f"rerun/{record.utc(clock())}-{os.getpid()}"
        self._held: dict[Digest, leases.Lease] = {}
        self.receipts: list[Receipt] = []
        """What has come out so far, for whoever is interrupted."""

    def run(self, runs: Sequence[Vouched]) -> tuple[Receipt, ...]:
        """Make each again, in the given order as far as workers and inputs allow. Each is recorded as soon as it is done."""
        groups = dict(Counter(one.action.stage for one in runs))
        self._tell(events.Planned(total=len(runs), found=0, open=(), found_by={}, found_from={}, groups=groups))
        tasks: list[_Task] = []
        for one in runs:
            try:
                tasks.append(self._task(one))
            except StageError as error:
                self._undone(one, str(error))
        with leases.shared_with_gc(self._folder / "runs"):
            for threads in sorted({_threads(task.of) for task in tasks}):
                self._work([task for task in tasks if _threads(task.of) == threads], self._hands(threads))
        return tuple(self.receipts)

    def _task(self, one: Vouched) -> _Task:
        """How to run it here.

        Raises:
            StageError: this program has no such stage, or understands its spec otherwise.
        """
        action = one.action
        leaf = plugins.load("stages", action.stage)
        if not isinstance(leaf, Leaf) or leaf.version != action.version:
            here = f"version {leaf.version}" if isinstance(leaf, Leaf) else "a composite"
            raise PluginError(f"it was made by version {action.version} of {action.stage}; here is {here}: install the release that has it")
        check_names(f"inputs of {action.stage}", action.inputs, leaf.inputs)
        spec: Any = spec_from_json(leaf.spec, action.spec)
        if spec_to_json(spec) != dict(action.spec):
            raise PluginError(f"{action.stage} of this program reads its spec otherwise: install the release that made it")
        return _Task(one, leaf, job_of(action, leaf, self._store), f"entry {one.entry.number}")

    def _work(self, todo: list[_Task], hands: Executor) -> None:
        running: dict[Digest, _Task] = {}
        try:
            while todo or running:
                elsewhere = self._start(todo, running, hands)
                if not running and not elsewhere and not any(self._ready(task) for task in todo):
                    for task in todo:  # nothing that still runs can bring what is missing
                        self._undone(task.of, self._missing(task))
                    return
                self._hear(hands.wait(_POLL_S if elsewhere else _WAIT_S), running)
        finally:
            hands.close()
            for lease in self._held.values():
                lease.give_back()
            self._held.clear()

    def _start(self, todo: list[_Task], running: dict[Digest, _Task], hands: Executor) -> bool:
        """Start what can be started; whether another process holds some of the rest."""
        elsewhere = False
        for task in sorted(todo[:_WINDOW], key=lambda task: -hands.loaded(task.job)):
            key = task.of.action.key
            if key in running or not hands.places(task.job) or not self._ready(task):
                continue
            lease = leases.Lease.take(self._folder / "leases", key)
            if lease is None:
                elsewhere = True
                continue
            self._held[key] = lease
            running[key] = task
            todo.remove(task)
            worker = hands.submit(task.job)
            stage = task.of.action.stage
            self._tell(events.Started(stage, f"{stage}/{task.label}", stage, str(key), task.label, worker))
        todo.sort(key=lambda task: not self._ready(task))
        return elsewhere

    def _ready(self, task: _Task) -> bool:
        return all(present(self._store, digest) for digest in task.of.action.inputs.values())

    def _missing(self, task: _Task) -> str:
        """Which input is not here, and what would bring it."""
        name, digest = next((name, item) for name, item in sorted(task.of.action.inputs.items()) if not present(self._store, item))
        made = next(_vouched_among(self._log.by_subject(digest), self._policy), None)
        what = f"its input {name}, {digest}, is not in the store"
        if made is None or digest in made.action.inputs.values():
            return f"{what}, and was brought in from outside: import it again, or pull it from a remote"
        return (
            f"{what}; {made.action.stage} made it: `ledger verify --rerun {made.entry.number}` makes it again, and so does the recipe "
            "with `ledger run`"
        )

    def _hear(self, reports: Sequence[executor.Report], running: dict[Digest, _Task]) -> None:
        for report in reports:
            task = running[report.key]
            stage, key = task.of.action.stage, str(report.key)
            node = f"{stage}/{task.label}"
            if isinstance(report, executor.Moved):
                self._tell(events.Progress(stage, node, key, report.done, report.total, report.unit))
            elif isinstance(report, executor.Cautioned):
                self._tell(events.Warned(stage, node, report.message))
            else:
                try:
                    if isinstance(report, executor.Broke):
                        self._undone(task.of, report.message)
                    else:
                        self._record(task, report)
                finally:
                    del running[report.key]
                    self._held.pop(report.key).give_back()

    def _undone(self, one: Vouched, reason: str) -> None:
        self.receipts.append(Receipt(one, "undone", reason=reason))
        stage = one.action.stage
        self._tell(events.Failed(stage, f"{stage}/entry {one.entry.number}", stage, str(one.action.key), reason))

    # --- comparing and recording -------------------------------------------------------------------------------------------------------

    def _record(self, task: _Task, done: executor.Done) -> None:
        try:
            check_names(f"outputs of {task.leaf.name}", done.outputs, task.leaf.outputs)
        except StageError as error:
            self._undone(task.of, str(error))
            return
        receipt = self._compare(task, done)
        number = task.of.entry.number
        node = Node(f"rerun of entry {number}", task.leaf.name, None, task.of.action.inputs, task.leaf.name)
        signed = record.statements_of(
            done, task.of.action, task.leaf, node, invocation=self._invocation, rerun=self._byproduct(receipt)
        )  # fmt: skip
        entries = self._log.append([payload for payload, _ in signed], [line for _, line in signed])
        self.receipts.append(self._standing(receipt, entries[0]))
        outputs = record.outputs_of(done)
        sizes = {name: self._store.size(digest) for name, digest in outputs.items()}
        told = dict(done.outputs), sizes, done.notes, done.finished - done.started, entries[0].number
        self._tell(events.Finished(task.leaf.name, f"{task.leaf.name}/{task.label}", task.leaf.name, str(done.key), *told))

    def _standing(self, receipt: Receipt, entry: Entry) -> Receipt:
        """The receipt with what its entry made of the ledger."""
        names: tuple[str, ...] = ()
        reason = ""
        try:
            names = confirmations(self._log, self._policy, receipt.of.action)
            accept(entry, self._policy, self._log)
        except ContradictionError as error:
            reason = str(error)
        except VerificationError as error:
            reason = f"entry {entry.number} does not count here: {error}"
        return replace(receipt, number=entry.number, confirmed_by=names, reason=reason)

    def _compare(self, task: _Task, done: executor.Done) -> Receipt:
        recorded, made = dict(task.of.outputs), record.outputs_of(done)
        if recorded == made:
            return Receipt(task.of, "equal")
        names = sorted(name for name in {*recorded, *made} if recorded.get(name) != made.get(name))
        differing = {name: (recorded.get(name), made.get(name)) for name in names}
        before, now = task.of.environment, done.environment
        # A run that says its bytes are the same anywhere is held to that, and so is every run of a stage that declares it.
        elsewhere = () if task.leaf.purity == "P" or before is None else changes(before, now or {})
        if not elsewhere:
            return Receipt(task.of, "contradicting", differing=differing)
        pairs = [(before, now) for before, now in differing.values() if before is not None and now is not None]
        items = [self._items(*pair) for pair in pairs]
        if len(pairs) < len(differing) or any(item is None for item in items):
            return Receipt(task.of, "different", differing=differing, elsewhere=elsewhere)
        found = max((item for item in items if item is not None), key=lambda item: item.largest)
        outcome: Outcome = "within" if not found.beyond else "different" if self._tolerance is None else "beyond"
        return Receipt(task.of, outcome, differing=differing, elsewhere=elsewhere, items=found)

    def _items(self, before: Digest, now: Digest) -> Items | None:
        """Two objects item by item; None when they are of no kind that has items, or not of the same things."""
        values = [self._nll(digest) for digest in (before, now)]
        if None in values:
            return None
        one, other = (value for value in values if value is not None)
        if (one.tokens, one.chunks, one.settings) != (other.tokens, other.chunks, other.settings):
            return None
        gaps = [abs(a - b) for a, b in zip(one.chunk_means(), other.chunk_means(), strict=True)]
        return Items(len(gaps), max(gaps), sum(gap > (self._tolerance or 0.0) for gap in gaps), "nats per chunk")

    def _nll(self, digest: Digest) -> nll.Nll | None:
        if not self._store.has(digest):
            return None
        with self._store.open(digest) as file:
            if file.read(len(nll.MAGIC)) != nll.MAGIC:
                return None
        try:
            return nll.Nll.parse(self._store.read(digest))
        except InputError:
            return None

    def _byproduct(self, receipt: Receipt) -> dict[str, Any]:
        """What the statement says about itself as a rerun; nothing of it decides anything."""
        entry = receipt.of.entry
        value: dict[str, Any] = {"entry": entry.number, "envelope": str(entry.digest), "outcome": receipt.outcome}
        if self._tolerance is not None:
            value["tolerance"] = repr(self._tolerance)
        if receipt.items is not None:
            items = receipt.items
            value["items"] = {"count": items.count, "largest": repr(items.largest), "unit": items.unit, "beyond": items.beyond}
        return value


def _threads(one: Vouched) -> int:
    """The threads that the recorded environment had; they decide bits."""
    threads = (one.environment or {}).get("threads")
    return threads if type(threads) is int and 1 <= threads <= 1024 else 1


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """How an environment differs from another, field by field.

    >>> changes({"threads": 1, "packages": {"torch": "2.13.0"}}, {"threads": 1, "packages": {"torch": "2.14.0"}})
    ('packages.torch 2.13.0, here 2.14.0',)
    """
    old, new = dict(_fields(before, "")), dict(_fields(now, ""))
    names = sorted({name for name in {*old, *new} if old.get(name) != new.get(name)})
    return tuple(_changed(name, old.get(name), new.get(name)) for name in names)


def _fields(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name in value:
            yield from _fields(value[name], f"{where}.{name}" if where else str(name))
    else:
        yield where, value


def _changed(name: str, old: Any, new: Any) -> str:
    """One field of two environments; of lists of words only those that differ."""
    if isinstance(old, str) and isinstance(new, str) and (" " in old or " " in new):
        gone, came = (sorted(set(one.split()) - set(other.split())) for one, other in ((old, new), (new, old)))
        parts = [f"{word} {_brief(', '.join(words))}" for word, words in (("also", came), ("without", gone)) if words]
        return f"{name} here {' and '.join(parts)}" if parts else f"{name} in another order"
    return f"{name} {_brief(old)}, here {_brief(new)}"


def _brief(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:36]}.."

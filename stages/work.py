"""One run's work: look up what became known, start what is ready, record what is done, until nothing is left to do.

A failed action is one failure with its name: what does not depend on it goes on. An object that the ledger knows and the store does not
have is made again when something needs it, and must come out as recorded.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ledger import predicates
from ledger.log import Log
from ledger.lookup import Hit
from stages import events, executor, leases, record
from stages.errors import StageError
from stages.executor import Executor, Job
from stages.graph import Resolution, check_names
from stages.stage import Input, Leaf
from store import tree
from store.actions import Action
from store.cas import Cas
from store.digest import Digest

_POLL_S = 0.05
_WAIT_S = 1.0
_WINDOW = 64
"""Ready actions among which the next one is chosen, so that choosing costs the same however many are ready."""
_TREE_LIMIT_BYTES = 1 << 24


@dataclass
class Work:
    """The state of one run.

    Attributes:
        resolution: the graph on its way to digests.
        find: what the ledger answers to an action (`ledger.lookup.find` under the reader's policy).
        lease_folder: where the leases are. invocation: `<recipe>/<run>`, written into every statement.
        found: key -> hit. done: key -> number of its entry. failed: node -> message. finished: key -> when (UTC).
        todo: keys to run, in the order of the graph.
    """

    resolution: Resolution
    store: Cas
    log: Log
    find: Callable[[Action, Leaf], Hit | None]
    lease_folder: Path
    tell: Callable[[events.Event], None]
    invocation: str
    clock: Callable[[], float] = time.time
    found: dict[Digest, Hit] = field(default_factory=dict)
    done: dict[Digest, int] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    finished: dict[Digest, str] = field(default_factory=dict)
    todo: list[Digest] = field(default_factory=list)
    _broken: set[Digest] = field(default_factory=set)
    _remade: set[Digest] = field(default_factory=set)
    _held: dict[Digest, leases.Lease] = field(default_factory=dict)
    _elsewhere: set[Digest] = field(default_factory=set)
    _jobs: dict[Digest, Job] = field(default_factory=dict)

    # --- looking up ----------------------------------------------------------------------------------------------------------

    def look_up(self, keys: Iterable[Digest]) -> None:
        """Find what can be found, and what becomes known through it; the rest is to do."""
        queue = list(keys)
        while queue:
            key = queue.pop(0)
            if key in self.resolution.results or key in self._broken:
                continue
            hit = self.find(self.resolution.actions[key], self.resolution.leaf(key))
            if hit is None:
                if key not in self.todo:
                    self.todo.append(key)
            else:
                queue += self._take(key, hit)
        self._note_faults()

    def _take(self, key: Digest, hit: Hit) -> list[Digest]:
        self.found[key] = hit
        self.finished[key] = str(predicates.metadata_of(hit.statement).get("finishedOn", ""))
        fresh = self.resolution.finish(key, hit.outputs)
        outputs = {name: str(digest) for name, digest in hit.outputs.items()}
        for user in self.resolution.users[key]:
            self.tell(events.Found(group(user), user, hit.action.stage, str(key), outputs))
        return fresh

    def _note_faults(self) -> None:
        """Composites that could not be expanded with what has come in are failures like any other."""
        for node, error in self.resolution.faults.items():
            if node not in self.failed:
                self.failed[node] = str(error)
                self.tell(events.Failed(group(node), node, "", "", str(error)))

    def need(self, outputs: Mapping[str, Input]) -> None:
        """Have the makers of these run again where the object is not in the store.

        Args:
            outputs: what people call it -> where it comes from; what is not known yet is passed over.
        """
        for place, source in outputs.items():
            digest = self.resolution.resolve(source)
            if digest is not None and not present(self.store, digest):
                self._remake(digest, place)

    # --- doing ---------------------------------------------------------------------------------------------------------------

    def run(self, hands: Executor) -> None:
        """Work until nothing is left that could be done.

        Raises:
            StageError: the graph cannot be finished though nothing failed: its nodes wait for each other.
        """
        try:
            while self.todo or self._held:
                self._start_ready(hands)
                if not (self.todo or self._held):
                    break
                reports = hands.wait(_POLL_S if self._elsewhere or not self._held else _WAIT_S)
                self._hear([self._checked(report) for report in reports])
        finally:
            hands.close()
            for lease in self._held.values():
                lease.give_back()
            self._held.clear()
        left = [*self.resolution.closed(), *(node.id for node in self.resolution.waiting())]
        if left and not self.failed:
            raise StageError(f"these wait for each other and can never be known: {', '.join(left[:8])}")

    def _start_ready(self, hands: Executor) -> None:
        """Start what can be started, in the order of the graph, preferring workers that have the model loaded."""
        near = [key for key in self.todo if key not in self._elsewhere][:_WINDOW] + [key for key in self.todo if key in self._elsewhere]
        jobs = {key: self._job(key) for key in near}
        for key in sorted(near, key=lambda key: -hands.loaded(jobs[key])):
            if key not in self.todo or not hands.places(jobs[key]) or self._waits_for_bytes(key):
                continue
            lease = leases.Lease.take(self.lease_folder, key)
            if lease is None:
                if key not in self._elsewhere:
                    node = self.resolution.node(key)
                    self.tell(events.Waiting(group(node.id), node.id, str(key)))
                self._elsewhere.add(key)
                continue
            self._elsewhere.discard(key)
            self.todo.remove(key)
            # Another process may have done it since it was looked up.
            hit = None if key in self._remade else self.find(self.resolution.actions[key], self.resolution.leaf(key))
            if hit is not None:
                lease.give_back()
                self.look_up(self._take(key, hit))
                continue
            self._held[key] = lease
            worker = hands.submit(jobs[key])
            node = self.resolution.node(key)
            stage = self.resolution.actions[key].stage
            self.tell(events.Started(group(node.id), node.id, stage, str(key), node.label or node.id, worker))

    def _job(self, key: Digest) -> Job:
        if key not in self._jobs:
            self._jobs[key] = job_of(self.resolution.actions[key], self.resolution.leaf(key), self.store)
        return self._jobs[key]

    # --- bytes that are not here ---------------------------------------------------------------------------------------------

    def _waits_for_bytes(self, key: Digest) -> bool:
        """Whether an input that the ledger knows is not in the store: then its maker runs again first, or the action fails."""
        absent = [digest for digest in self.resolution.actions[key].inputs.values() if not present(self.store, digest)]
        for digest in absent:
            if not self._remake(digest, self.resolution.node(key).id):
                self.todo.remove(key)
                self._broken.add(key)
                break
        return bool(absent)

    def _remake(self, digest: Digest, wanted_by: str) -> bool:
        """Whether the action that gives an absent object runs again or is about to; False, and a failure, when that cannot be."""
        maker = next((key for key, outputs in self.resolution.results.items() if digest in outputs.values()), None)
        if maker in self._broken:
            return False
        if maker is None:
            self.failed[wanted_by] = (
                f"needs {digest}, which is not in the store and which nothing in this recipe makes; "
                "pull it from a remote, or put it back where it was imported from"
            )
            return False
        if maker not in self._remade:
            self._remade.add(maker)
            self.found.pop(maker, None)
            self.todo.append(maker)
        return True

    # --- hearing and recording -----------------------------------------------------------------------------------------------

    def _checked(self, report: executor.Report) -> executor.Report:
        """A result that its stage does not declare, or that was made again and came out different, is a failure: nothing is recorded."""
        if not isinstance(report, executor.Done):
            return report
        leaf = self.resolution.leaf(report.key)
        try:
            check_names(f"outputs of {leaf.name}", report.outputs, leaf.outputs)
        except StageError as error:
            return executor.Broke(report.key, str(error))
        before = self.resolution.results.get(report.key)
        outputs = record.outputs_of(report)
        if report.key in self._remade and before != outputs:
            return executor.Broke(
                report.key,
                "was made again because its output is not in the store, and came out different: "
                f"recorded {record.brief(before or {})}, now {record.brief(outputs)}. It was made in another environment, or is not "
                "reproducible: pull the recorded bytes, or run with --environment same to do the work anew here",
            )
        return report

    def _hear(self, reports: Sequence[executor.Report]) -> None:
        finished: list[executor.Done] = []
        for report in reports:
            node = self.resolution.node(report.key)
            key = str(report.key)
            if isinstance(report, executor.Moved):
                self.tell(events.Progress(group(node.id), node.id, key, report.done, report.total, report.unit))
            elif isinstance(report, executor.Cautioned):
                self.tell(events.Warned(group(node.id), node.id, report.message))
            elif isinstance(report, executor.Broke):
                self.failed[node.id] = report.message
                self._broken.add(report.key)
                self._held.pop(report.key).give_back()
                stage = self.resolution.actions[report.key].stage
                self.tell(events.Failed(group(node.id), node.id, stage, key, report.message))
            else:
                finished.append(report)
        if finished:
            known = self._record(finished)
            for done in finished:
                self._held.pop(done.key).give_back()
            self.look_up(known)
            self.tell(self.planned())

    def _record(self, finished: Sequence[executor.Done]) -> list[Digest]:
        """Sign and commit finished actions as one group; gives the keys that became known."""
        signed: list[tuple[bytes, str]] = []
        first_of: dict[Digest, int] = {}
        for done in finished:
            if done.key not in self._remade:
                first_of[done.key] = len(signed)
                action, leaf, node = self.resolution.actions[done.key], self.resolution.leaf(done.key), self.resolution.node(done.key)
                signed += record.statements_of(done, action, leaf, node, invocation=self.invocation)
        entries = self.log.append([payload for payload, _ in signed], [line for _, line in signed]) if signed else []
        known: list[Digest] = []
        for done in finished:
            outputs = record.outputs_of(done)
            number = entries[first_of[done.key]].number if done.key in first_of else -1
            if done.key in first_of:
                self.done[done.key] = number
                known += self.resolution.finish(done.key, outputs)
            self.finished[done.key] = record.utc(done.finished)
            sizes = {name: self.store.size(digest) for name, digest in outputs.items()}
            stage, elapsed = self.resolution.actions[done.key].stage, done.finished - done.started
            for user in self.resolution.users[done.key]:
                told = events.Finished(
                    group(user), user, stage, str(done.key), dict(done.outputs), sizes, done.notes, elapsed, number
                )  # fmt: skip
                self.tell(told)
        return known

    # --- telling -------------------------------------------------------------------------------------------------------------

    def planned(self) -> events.Planned:
        """The plan as far as it is known."""
        by = Counter(next(iter(hit.signers), "") for hit in self.found.values())
        where = Counter(_recipe_of(hit) for hit in self.found.values())
        made_in: dict[str, Counter[str]] = {}  # by what describes the environment: torch and llama.cpp each have their own
        for key, hit in self.found.items():
            if hit.environment_digest is not None:
                made_in.setdefault(self.resolution.leaf(key).environment, Counter())[str(hit.environment_digest)] += 1
        groups = dict.fromkeys(map(group, self.resolution.identifiers()), 0)
        for node in [users[0] for users in self.resolution.users.values()] + [node.id for node in self.resolution.waiting()]:
            groups[group(node)] += 1
        closed = self.resolution.closed()
        return events.Planned(
            total=self.resolution.leaves(),
            found=len(self.found),
            open=closed,
            found_by=dict(by),
            found_from=dict(where),
            groups=groups,
            open_groups=tuple(sorted(set(map(group, closed)))),
            environments={digest: count for counts in made_in.values() if len(counts) > 1 for digest, count in counts.items()},
        )


def job_of(action: Action, leaf: Leaf, store: Cas) -> Job:
    """An action as an executor takes it; the store says how much its shared inputs weigh."""
    shared = [action.inputs[name] for name in leaf.share if name in action.inputs]
    return Job(
        action,
        run=leaf.run,
        spec=f"{leaf.spec.__module__}:{leaf.spec.__qualname__}",
        environment=leaf.environment if leaf.purity == "E" else "",
        group=(leaf.name, *map(str, shared)),
        weight_bytes=sum(_weight(store, digest) for digest in shared),
        network=leaf.network,
    )


def _weight(store: Cas, digest: Digest) -> int:
    if not store.has(digest):
        return 0
    size = store.size(digest)
    found = tree.load_if_tree(store, digest) if size <= _TREE_LIMIT_BYTES else None
    return size if found is None else found.size


def present(store: Cas, digest: Digest) -> bool:
    """Whether an object is in the store, and every file of it when it is a tree."""
    if not store.has(digest):
        return False
    found = tree.load_if_tree(store, digest) if store.size(digest) <= _TREE_LIMIT_BYTES else None
    return found is None or all(store.has(entry.digest) for entry in found.entries)


def group(node: str) -> str:
    """The recipe-level stage that a node belongs to."""
    return node.split("/", 1)[0]


def _recipe_of(hit: Hit) -> str:
    return str(predicates.metadata_of(hit.statement).get("invocationId", "")).split("/", 1)[0]

"""Plan, look up, run, record: the one module of this package that writes to the ledger.

Running is resuming: every action is looked up by its key, what a trusted entry answers is not run, and each result is signed and
committed as soon as it is there. A kill at any moment loses at most the actions in flight.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ledger.log import Log
from ledger.lookup import Hit, find
from ledger.policy import Policy
from stages import events, executor, leases, plugins, record, results
from stages.errors import StageError
from stages.graph import Resolution, check_names
from stages.lowering import Plan, lower
from stages.recipe import Recipe
from stages.stage import Leaf, Stage
from store import canonical, tree
from store.actions import Action
from store.digest import Digest
from store.local import LocalCas
from store.statcache import StatCache

_POLL_S = 0.05
_WINDOW = 64
"""Ready actions among which the next one is chosen, so that choosing costs the same however many are ready."""
_TREE_LIMIT_BYTES = 1 << 24


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How to run; nothing here is in a key.

    Attributes:
        jobs: actions at once. threads: of each worker (recorded in the environment of E stages).
        tools: external tools by name, e.g. `llama-cpp` -> folder.
        environment: `same` takes an E entry as a hit only when it was made in this environment.
        out: where the alloy and the attestations are written.
    """

    jobs: int
    threads: int = 1
    tools: Mapping[str, str] = field(default_factory=dict)
    environment: str = "any"
    out: Path = Path()


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a finished run came to."""

    name: str
    total: int
    found: int
    done: int
    entries: tuple[int, ...]
    outputs: Mapping[str, Mapping[str, Digest]]
    alloy: Path
    attestations: Path
    report: Digest | None
    elapsed_s: float


class RunFailedError(StageError):
    """At least one action failed. What was finished is recorded; the failures are in `failures`, each named."""

    def __init__(self, failures: Sequence[tuple[str, str]], kept: int) -> None:
        self.failures = tuple(failures)
        lines = [f"{node}: {message}" for node, message in failures]
        kept_words = f"{kept} action{'s' if kept != 1 else ''} of this run {'are' if kept != 1 else 'is'} kept; run again to go on"
        super().__init__("\n".join([*lines, kept_words + "." if kept else "Nothing was recorded."]))


class Clock(Protocol):
    """Seconds since the epoch."""

    def __call__(self) -> float:
        """Now."""
        ...


@dataclass
class _Tally:
    """What a run has seen so far; only for display and for the record."""

    found: dict[Digest, Hit] = field(default_factory=dict)
    done: dict[Digest, int] = field(default_factory=dict)
    failed: dict[Digest, str] = field(default_factory=dict)
    finished: dict[Digest, str] = field(default_factory=dict)
    """When each action was finished, as its statement says."""
    remade: set[Digest] = field(default_factory=set)
    """Found, but with outputs that are needed and not in the store: run again, and not recorded again."""


class Runner:
    """Runs recipes on one ledger.

    Args:
        folder: the `.ledger` folder. store, log, policy: opened on it; the log with a signer.
        on_event: told everything, in order (`stages.events`).
    """

    def __init__(
        self,
        folder: Path,
        store: LocalCas,
        log: Log,
        policy: Policy,
        *,
        options: RunOptions,
        on_event: Callable[[events.Event], None] = lambda event: None,
        clock: Clock = time.time,
    ) -> None:
        self._folder, self._store, self._log, self._policy = folder, store, log, policy
        self._options, self._tell, self._clock = options, on_event, clock
        self._stages: dict[str, Stage] = {}
        self._environments: dict[str, str] = {}
        self._jobs: dict[Digest, executor.Job] = {}
        self._stats = StatCache(folder / "stat.sqlite")

    # --- the whole ---------------------------------------------------------------------------------------------------------

    def plan(self, recipe: Recipe) -> tuple[events.Planned, tuple[tuple[str, str], ...]]:
        """What `run` would do: the counts, and (node id, `found` | `to do` | `not known yet`) for every action. Runs nothing."""
        resolution, tally, _ = self._resolved(lower(recipe, self._material))
        rows = [(user, "found" if key in tally.found else "to do") for key in resolution.actions for user in resolution.users[key]]
        waiting = [(node.id, "not known yet") for node in resolution.waiting()]
        closed = [(name, "not known yet") for name in resolution.closed()]
        return self._planned(resolution, tally), (*rows, *waiting, *closed)

    def examine(self, recipe: Recipe) -> tuple[tuple[str, Action, Hit | None], ...]:
        """(node id, action, what the ledger answers) for every action whose inputs are known; for whoever asks why. Runs nothing."""
        resolution, tally, _ = self._resolved(lower(recipe, self._material))
        return tuple((user, action, tally.found.get(key)) for key, action in resolution.actions.items() for user in resolution.users[key])

    def run(self, recipe: Recipe) -> RunResult:
        """Do what a recipe asks for and is not in the ledger yet; write its alloy and attestations.

        Raises:
            RecipeError, SpecError: it cannot be planned; nothing was run.
            RunFailedError: actions failed; everything that does not depend on them was done and is recorded.
        """
        began = self._clock()
        run_id = f"{recipe.name}/{record.utc(began)}-{os.getpid()}"
        with leases.shared_with_gc(self._folder / "runs"):
            plan = lower(recipe, self._material)
            materials = sorted(str(digest) for digest in plan.materials.values())
            note = self._folder / "runs" / f"{run_id.replace('/', '@')}.json"
            _write_json(note, {"recipe": recipe.name, "pid": os.getpid(), "startedOn": record.utc(began), "state": "running",
                                 "roots": materials})  # fmt: skip
            resolution, tally, todo = self._resolved(plan)
            self._tell(self._planned(resolution, tally))
            todo = todo or self._absent_outputs(resolution, tally, plan)
            state = "failed"
            outputs: dict[str, dict[str, Digest]] = {}
            try:
                while todo:
                    self._work(resolution, tally, todo, run_id)
                    todo = [] if tally.failed else self._absent_outputs(resolution, tally, plan)
                outputs = {
                    group: {name: digest for name, source in named.items() if (digest := resolution.resolve(source)) is not None}
                    for group, named in plan.outputs.items()
                }
                if tally.failed:
                    named = [(resolution.node(key).id, message) for key, message in tally.failed.items()]
                    raise RunFailedError(named, len(tally.done))
                finished = {key: tally.finished[key] for key in resolution.actions}
                alloy, attestations, report = results.write(
                    recipe, plan, outputs, finished, store=self._store, log=self._log, out=self._options.out
                )
                state = "done"
            finally:
                made = {group: {name: str(digest) for name, digest in named.items()} for group, named in outputs.items()}
                counts = {"total": resolution.leaves(), "found": len(tally.found), "done": len(tally.done), "failed": len(tally.failed)}
                times = {"startedOn": record.utc(began), "finishedOn": record.utc(self._clock())}
                _write_json(note, {"recipe": recipe.name, "state": state, **times, **counts, "outputs": made, "roots": materials})
        return RunResult(
            recipe.name, resolution.leaves(), len(tally.found), len(tally.done), tuple(sorted(tally.done.values())),
            outputs, alloy, attestations, report, self._clock() - began,
        )  # fmt: skip

    # --- looking up ----------------------------------------------------------------------------------------------------------

    def _resolved(self, plan: Plan) -> tuple[Resolution, _Tally, list[Digest]]:
        resolution, tally = Resolution(self._stage, self._store), _Tally()
        return resolution, tally, self._look_up(resolution, tally, resolution.add(plan.graph.nodes))

    def _look_up(self, resolution: Resolution, tally: _Tally, keys: Sequence[Digest]) -> list[Digest]:
        """Find what can be found, and what becomes known through it; gives the keys to do."""
        todo: list[Digest] = []
        queue = list(keys)
        while queue:
            key = queue.pop(0)
            if key in resolution.results or key in tally.failed:
                continue
            hit = self._find(resolution.actions[key], resolution.leaf(key))
            if hit is None:
                todo.append(key)
                continue
            queue += self._take(resolution, tally, key, hit)
        return todo

    def _take(self, resolution: Resolution, tally: _Tally, key: Digest, hit: Hit) -> list[Digest]:
        tally.found[key] = hit
        tally.finished[key] = hit.statement.predicate["runDetails"]["metadata"]["finishedOn"]
        fresh = resolution.finish(key, hit.outputs)
        for user in resolution.users[key]:
            outputs = {name: str(digest) for name, digest in hit.outputs.items()}
            self._tell(events.Found(_group(user), user, hit.action.stage, str(key), outputs))
        return fresh

    def _find(self, action: Action, leaf: Leaf) -> Hit | None:
        same = leaf.purity == "E" and "same" in (self._options.environment, self._policy.environment)
        return find(self._log, self._policy, action, environment_digest=self._environment(leaf) if same else None)

    def _environment(self, leaf: Leaf) -> Digest:
        """The environment that a worker of this run has, asked of a process like it: the runner itself loads no ML library."""
        if leaf.environment not in self._environments:
            module, _, name = leaf.environment.partition(":")
            code = f"import json, {module} as m; print(json.dumps(m.{name}()))"
            threads, tools = str(self._options.threads), json.dumps(dict(self._options.tools))
            variables = os.environ | {"OMP_NUM_THREADS": threads, "LEDGER_THREADS": threads, "LEDGER_TOOLS": tools}
            ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=variables, check=False)
            if ran.returncode != 0:
                raise StageError(f"cannot tell the environment of {leaf.name}: {ran.stderr.strip().splitlines()[-1:]}")
            self._environments[leaf.environment] = str(Digest.of(canonical.dumps(json.loads(ran.stdout.splitlines()[-1]))))
        return Digest.parse(self._environments[leaf.environment])

    def _planned(self, resolution: Resolution, tally: _Tally) -> events.Planned:
        by = Counter(name for hit in tally.found.values() for name in hit.signers[:1])
        where = Counter(_recipe_of(hit) for hit in tally.found.values())
        nodes = [users[0] for users in resolution.users.values()] + [node.id for node in resolution.waiting()]
        closed = resolution.closed()
        return events.Planned(
            total=resolution.leaves(),
            found=len(tally.found),
            open=closed,
            found_by=dict(by),
            found_from=dict(where),
            groups=dict.fromkeys(map(_group, resolution.identifiers()), 0) | Counter(map(_group, nodes)),
            open_groups=tuple(sorted(set(map(_group, closed)))),
        )

    # --- doing ---------------------------------------------------------------------------------------------------------------

    def _work(self, resolution: Resolution, tally: _Tally, todo: list[Digest], run_id: str) -> None:
        options = self._options
        hands = executor.LocalExecutor(self._folder, jobs=options.jobs, threads=options.threads, tools=options.tools)
        held: dict[Digest, leases.Lease] = {}
        elsewhere: dict[Digest, float] = {}
        try:
            while todo or held:
                self._start_ready(resolution, tally, todo, hands, held, elsewhere)
                reports = [self._checked(resolution, report) for report in hands.wait(_POLL_S if elsewhere or not held else 1.0)]
                finished = [report for report in reports if isinstance(report, executor.Done)]
                for report in reports:
                    self._relay(resolution, tally, report, held)
                if finished:
                    known = self._record(resolution, tally, finished, run_id)
                    for report in finished:
                        held.pop(report.key).give_back()
                    fresh = self._look_up(resolution, tally, known)
                    todo += [key for key in fresh if key not in todo]
                    if known:
                        self._tell(self._planned(resolution, tally))
        finally:
            hands.close()
            for lease in held.values():
                lease.give_back()

    def _start_ready(
        self,
        resolution: Resolution,
        tally: _Tally,
        todo: list[Digest],
        hands: executor.LocalExecutor,
        held: dict[Digest, leases.Lease],
        elsewhere: dict[Digest, float],
    ) -> None:
        """Start what can be started, in the order of the graph, preferring workers that have the model loaded."""
        near = [key for key in todo if key not in elsewhere][:_WINDOW] + [key for key in todo if key in elsewhere]
        jobs = {key: self._job(resolution, key) for key in near}
        for key in sorted(near, key=lambda key: -hands.loaded(jobs[key])):
            if not hands.places(jobs[key]) or self._make_inputs_again(resolution, tally, todo, key):
                continue
            lease = leases.Lease.take(self._folder / "leases", key)
            if lease is None:
                if key not in elsewhere:
                    self._tell(events.Waiting(_group(resolution.node(key).id), resolution.node(key).id, str(key)))
                elsewhere[key] = self._clock()
                continue
            elsewhere.pop(key, None)
            # Another process may have done it since it was looked up.
            hit = None if key in tally.remade else self._find(resolution.actions[key], resolution.leaf(key))
            todo.remove(key)
            if hit is not None:
                lease.give_back()
                todo += [fresh for fresh in self._look_up(resolution, tally, self._take(resolution, tally, key, hit)) if fresh not in todo]
                continue
            held[key] = lease
            worker = hands.submit(jobs[key])
            node = resolution.node(key)
            self._tell(events.Started(_group(node.id), node.id, resolution.actions[key].stage, str(key), node.label or node.id, worker))

    @staticmethod
    def _checked(resolution: Resolution, report: executor.Report) -> executor.Report:
        """A result with other outputs than its stage declares is a failure, and never recorded."""
        if isinstance(report, executor.Done):
            leaf = resolution.leaf(report.key)
            try:
                check_names(f"outputs of {leaf.name}", report.outputs, leaf.outputs)
            except StageError as error:
                return executor.Broke(report.key, str(error))
        return report

    def _make_inputs_again(self, resolution: Resolution, tally: _Tally, todo: list[Digest], key: Digest) -> bool:
        """Whether the action must wait because an input that the ledger knows is not in the store: then its maker runs again first."""
        absent = [digest for digest in resolution.actions[key].inputs.values() if not self._present(digest)]
        todo += [maker for digest in absent if (maker := self._maker(resolution, tally, digest, resolution.node(key).id)) is not None]
        return bool(absent)

    def _absent_outputs(self, resolution: Resolution, tally: _Tally, plan: Plan) -> list[Digest]:
        """Actions to run again because an output of the recipe itself is not in the store."""
        named = {f"{group}.{name}": source for group, outputs in plan.outputs.items() for name, source in outputs.items()}
        makers = {
            maker: None
            for place, source in named.items()
            if (digest := resolution.resolve(source)) is not None and not self._present(digest)
            if (maker := self._maker(resolution, tally, digest, place)) is not None
        }
        return list(makers)

    def _maker(self, resolution: Resolution, tally: _Tally, digest: Digest, wanted_by: str) -> Digest | None:
        """The action that gives an absent object, marked to run again; None when it is marked already.

        Raises:
            StageError: nothing here gives it.
        """
        maker = next((made for made, outputs in resolution.results.items() if digest in outputs.values()), None)
        if maker is None:
            raise StageError(
                f"{wanted_by} needs {digest}, which is not in the store and which nothing in this recipe makes; "
                "pull it from a remote, or put it back where it was imported from"
            )
        if maker in tally.remade:
            return None
        tally.remade.add(maker)
        tally.found.pop(maker, None)
        return maker

    def _present(self, digest: Digest) -> bool:
        if not self._store.has(digest):
            return False
        if self._store.size(digest) > _TREE_LIMIT_BYTES or not tree.is_tree(self._store, digest):
            return True
        return all(self._store.has(entry.digest) for entry in tree.load(self._store, digest).entries)

    def _job(self, resolution: Resolution, key: Digest) -> executor.Job:
        if key in self._jobs:
            return self._jobs[key]
        leaf, action = resolution.leaf(key), resolution.actions[key]
        shared = [action.inputs[name] for name in leaf.share if name in action.inputs]
        spec = f"{leaf.spec.__module__}:{leaf.spec.__qualname__}"
        weight = sum(self._weight(digest) for digest in shared)
        self._jobs[key] = executor.Job(
            action, leaf.run, spec, leaf.environment if leaf.purity == "E" else "", (leaf.name, *map(str, shared)), weight
        )  # fmt: skip
        return self._jobs[key]

    def _weight(self, digest: Digest) -> int:
        if not self._store.has(digest):
            return 0
        if self._store.size(digest) <= _TREE_LIMIT_BYTES and tree.is_tree(self._store, digest):
            return tree.load(self._store, digest).size
        return self._store.size(digest)

    def _relay(self, resolution: Resolution, tally: _Tally, report: executor.Report, held: dict[Digest, leases.Lease]) -> None:
        node = resolution.node(report.key)
        group, text = _group(node.id), str(report.key)
        if isinstance(report, executor.Moved):
            self._tell(events.Progress(group, node.id, text, report.done, report.total, report.unit))
        elif isinstance(report, executor.Cautioned):
            self._tell(events.Warned(group, node.id, report.message))
        elif isinstance(report, executor.Broke):
            tally.failed[report.key] = report.message
            held.pop(report.key).give_back()
            self._tell(events.Failed(group, node.id, resolution.actions[report.key].stage, text, report.message))

    # --- recording -----------------------------------------------------------------------------------------------------------

    def _record(self, resolution: Resolution, tally: _Tally, finished: Sequence[executor.Done], run_id: str) -> list[Digest]:
        """Sign and commit finished actions as one group; gives the keys that became known."""
        group: list[tuple[bytes, str]] = []
        first_of: dict[Digest, int] = {}
        for done in finished:
            node, outputs = resolution.node(done.key), record.outputs_of(done)
            if done.key not in tally.remade:
                first_of[done.key] = len(group)
                group += record.statements_of(done, resolution.actions[done.key], resolution.leaf(done.key), node, invocation=run_id)
            elif dict(resolution.results[done.key]) != outputs:
                raise StageError(
                    f"{node.id} was made again because its output was not in the store, and came out different: "
                    f"recorded {record.brief(resolution.results[done.key])}, now {record.brief(outputs)}. It is not reproducible here"
                )
        entries = self._log.append([payload for payload, _ in group], [line for _, line in group]) if group else []
        known: list[Digest] = []
        for done in finished:
            outputs = record.outputs_of(done)
            number = entries[first_of[done.key]].number if done.key in first_of else -1
            if done.key in first_of:
                tally.done[done.key] = number
                tally.finished[done.key] = record.utc(done.finished)
                known += resolution.finish(done.key, outputs)
            sizes = {name: self._store.size(digest) for name, digest in outputs.items()}
            stage, elapsed = resolution.actions[done.key].stage, done.finished - done.started
            for user in resolution.users[done.key]:
                told = events.Finished(
                    _group(user), user, stage, str(done.key), dict(done.outputs), sizes, done.notes, elapsed, number
                )  # fmt: skip
                self._tell(told)
        return known

    # --- effects -------------------------------------------------------------------------------------------------------------

    def _material(self, path: Path) -> Digest:
        """Something the recipe names on disk, taken into the store by reference where that is safe."""
        if path.is_dir():
            return tree.import_folder(self._store, path)
        if not path.exists():
            raise StageError(f"{path.absolute()} is not there; the recipe names it (relative paths start at the recipe's folder)")
        digest = self._stats.digest_of(path)
        return digest if self._store.has(digest) else self._store.add_file(path)

    def _stage(self, name: str) -> Stage:
        if name not in self._stages:
            self._stages[name] = plugins.load("stages", name)
        return self._stages[name]


def _group(node: str) -> str:
    return node.split("/", 1)[0]


def _recipe_of(hit: Hit) -> str:
    metadata = hit.statement.predicate.get("runDetails", {}).get("metadata", {})
    return str(metadata.get("invocationId", "")).split("/", 1)[0]


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(f".{os.getpid()}.tmp")
    aside.write_text(json.dumps(value, indent=1) + "\n")
    aside.replace(path)

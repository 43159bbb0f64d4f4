"""Run recipes on a ledger: plan, work, and leave the results beside it.

Running is resuming: every action is looked up by its key, what a trusted entry answers is not run, and each result is signed and
committed as soon as it is there. A kill at any moment loses at most the actions in flight.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ledger import standing
from ledger.hf_hub import HfHub
from ledger.hub import Listing
from ledger.log import Log
from ledger.lookup import Hit, find, sift
from ledger.policy import Policy
from stages import events, hub_listing, hub_pins, leases, plugins, record, results
from stages.errors import StageError
from stages.executor import Executor, LocalExecutor, worker_variables
from stages.graph import Resolution
from stages.lowering import Plan, lower
from stages.recipe import Recipe
from stages.stage import Leaf, Stage
from stages.work import Work, group
from store import canonical, tree
from store.actions import Action
from store.digest import Digest
from store.local import LocalCas
from store.statcache import StatCache


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


class Runner:
    """Runs recipes on one ledger.

    Args:
        folder: the `.ledger` folder. store, log, policy: opened on it; the log with a signer.
        on_event: told everything, in order (`stages.events`).
        hands: makes the executor of a run; default: worker processes on this machine.
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
        hands: Callable[[], Executor] | None = None,
    ) -> None:
        self._folder, self._store, self._log, self._policy = folder, store, log, standing.of(log, policy)
        self._options, self._tell, self._clock = options, on_event, clock
        self._hands = hands or self._local_hands
        self._memory_bytes: int | None = None
        self._stages: dict[str, Stage] = {}
        self._environments: dict[str, Digest] = {}
        self._stats = StatCache(folder / "stat.sqlite")

    def plan(self, recipe: Recipe) -> tuple[events.Planned, tuple[tuple[str, str], ...]]:
        """What `run` would do: the counts, and (node id, `found` | `to do` | `not known yet`) for every action. Runs nothing."""
        work = self._planned(lower(self._pinned(recipe), self._material), "")
        resolution = work.resolution
        rows = [(user, "found" if key in work.found else "to do") for key in resolution.actions for user in resolution.users[key]]
        waiting = [(name, "not known yet") for name in (*(node.id for node in resolution.waiting()), *resolution.closed())]
        return work.planned(), (*rows, *waiting)

    def examine(self, recipe: Recipe) -> tuple[tuple[str, Action, Hit | None], ...]:
        """(node id, action, what the ledger answers) for every action whose inputs are known; for whoever asks why. Runs nothing."""
        work = self._planned(lower(self._pinned(recipe), self._material), "")
        resolution = work.resolution
        return tuple((user, action, work.found.get(key)) for key, action in resolution.actions.items() for user in resolution.users[key])

    def run(self, recipe: Recipe) -> RunResult:
        """Do what a recipe asks for and is not in the ledger yet; write its alloy and attestations.

        Raises:
            RecipeError, SpecError: it cannot be planned; nothing was run.
            RunFailedError: actions failed; everything that does not depend on them was done and is recorded.
        """
        began = self._clock()
        run_id = f"{recipe.name}/{record.utc(began)}-{os.getpid()}"
        with leases.shared_with_gc(self._folder / "runs"):
            recipe = self._pinned(recipe)
            plan = lower(recipe, self._material)
            self._memory_bytes = recipe.memory_bytes
            facts: dict[str, Any] = {"recipe": recipe.name, "startedOn": record.utc(began)}
            facts["roots"] = sorted(str(digest) for digest in plan.materials.values())
            note = self._folder / "runs" / f"{run_id.replace('/', '@')}.json"
            last = max(note.parent.glob(f"{recipe.name}@*.json"), default=None)  # named by time; another run may remove one meanwhile
            before = {} if last is None else _read_json(last)
            _write_json(note, {**facts, "pid": os.getpid(), "state": "running"})
            state = "failed"
            try:
                work = self._planned(plan, run_id)
                self._tell(work.planned())
                outputs = self._work(work, plan)
                facts["outputs"] = {group: {name: str(digest) for name, digest in named.items()} for group, named in outputs.items()}
                alloy, attestations = self._leave(recipe, plan, work, outputs, before, facts)
                facts |= {"total": work.resolution.leaves(), "found": len(work.found), "done": len(work.done)}
                state = "done"
            finally:
                _write_json(note, {**facts, "finishedOn": record.utc(self._clock()), "state": state})
            if last is not None and last != note and before.get("state") == "done" and before.get("done") == 0:
                last.unlink(missing_ok=True)  # one note of a run that did nothing is enough
        return RunResult(
            recipe.name,
            work.resolution.leaves(),
            len(work.found),
            len(work.done),
            tuple(sorted(work.done.values())),
            outputs,
            alloy,
            attestations,
            results.report_of(outputs),
            self._clock() - began,
        )

    def _planned(self, plan: Plan, invocation: str) -> Work:
        """The work of a plan, everything looked up that can be.

        Raises:
            StageError, StoreError: a stage refuses what it would be given; the message names its place in the recipe.
        """
        work = Work(
            Resolution(self._stage, self._store), self._store, self._log, self._find, self._folder / "leases", self._tell, invocation
        )  # fmt: skip
        work.look_up(work.resolution.add(plan.graph.nodes))
        for node, error in work.resolution.faults.items():
            if isinstance(error, StageError):
                raise type(error)(f"{node}: {error}") from error
            raise error
        return work

    def _work(self, work: Work, plan: Plan) -> Mapping[str, Mapping[str, Digest]]:
        """Do it; gives what each recipe stage gave, all of it in the store."""
        named = {f"{group}.{name}": source for group, outputs in plan.outputs.items() for name, source in outputs.items()}
        while True:
            if work.todo:
                work.run(self._hands())
            if work.failed:
                raise RunFailedError(tuple(work.failed.items()), len(work.done))
            work.need(named)
            if not work.todo and not work.failed:
                break
        resolve = work.resolution.resolve
        return {
            group: {name: digest for name, source in outputs.items() if (digest := resolve(source)) is not None}
            for group, outputs in plan.outputs.items()
        }

    def _leave(
        self,
        recipe: Recipe,
        plan: Plan,
        work: Work,
        outputs: Mapping[str, Mapping[str, Digest]],
        before: Mapping[str, Any],
        facts: dict[str, Any],
    ) -> tuple[Path, Path]:
        """Write the results beside the ledger, unless they stand there as an earlier run left them and would be the same bytes."""
        policy = self._folder / "policy.yaml"
        # By recipe stage and name, since the order in which actions become known depends on which was done first.
        place = {name: number for number, name in enumerate(plan.groups)}
        users = work.resolution.users
        keys = sorted(work.resolution.actions, key=lambda key: min((place[group(user)], user) for user in users[key]))
        decided = results.decided_by(
            recipe, plan, keys, log=self._log, policy=policy.read_bytes() if policy.exists() else b""
        )  # fmt: skip
        files = results.places(recipe, self._options.out)
        wrote = {str(path.absolute()): str(self._stats.digest_of(path)) for path in files if path.exists()}
        if before.get("decidedBy") != str(decided) or before.get("wrote") != wrote:
            finished = {key: work.finished[key] for key in keys}
            files = results.write(
                recipe, plan, outputs, finished, store=self._store, log=self._log, policy=self._policy, out=self._options.out
            )
            wrote = {str(path.absolute()): str(self._stats.digest_of(path)) for path in files}
        facts |= {"decidedBy": str(decided), "wrote": wrote}
        return files

    def _find(self, action: Action, leaf: Leaf) -> Hit | None:
        same = leaf.purity == "E" and "same" in (self._options.environment, self._policy.environment)
        return find(self._log, self._policy, action, environment_digest=self._environment(leaf) if same else None)

    def _environment(self, leaf: Leaf) -> Digest:
        """The environment that a worker of this run has, asked of a process like it: the runner itself loads no ML library."""
        if leaf.environment not in self._environments:
            module, _, name = leaf.environment.partition(":")
            code = f"import json, {module} as m; print(json.dumps(m.{name}()))"
            variables = worker_variables(self._options.threads, self._options.tools)
            ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=variables, check=False)
            if ran.returncode != 0:
                raise StageError(f"cannot tell the environment of {leaf.name}: {(ran.stderr.strip() or 'no words').splitlines()[-1]}")
            self._environments[leaf.environment] = Digest.of(canonical.dumps(json.loads(ran.stdout.splitlines()[-1])))
        return self._environments[leaf.environment]

    # --- effects -------------------------------------------------------------------------------------------------------------

    def _local_hands(self) -> Executor:
        options = self._options
        return LocalExecutor(
            self._folder,
            self._store.scratch(),
            jobs=options.jobs,
            threads=options.threads,
            tools=options.tools,
            memory_bytes=self._memory_bytes,
        )

    def _material(self, path: Path) -> Digest:
        """Something the recipe names on disk, taken into the store by reference where that is safe."""
        if path.is_dir():
            return tree.import_folder(self._store, path)
        if not path.exists():
            raise StageError(f"{path.absolute()} is not there; the recipe names it (relative paths start at the recipe's folder)")
        digest = self._stats.digest_of(path)
        return digest if self._store.has(digest) else self._store.add_file(path)

    def _pinned(self, recipe: Recipe) -> Recipe:
        """The recipe with a commit for each model that it names on the Hub."""
        return hub_pins.pinned(recipe, self._commit_of)

    def _commit_of(self, repo: str, revision: str) -> str:
        """Where a branch or tag of the Hub is now; the person is told, also when it is not the repository that was imported before."""
        listing = HfHub().listing(repo, revision)
        told = f"{repo} {revision} is now commit {listing.commit}; write {repo}@{listing.commit} to stay with it"
        self._tell(events.Warned(hub_pins.STAGE, hub_pins.STAGE, told))
        for number, before in self._listings(repo):
            if (before.created, before.identity) != (listing.created, listing.identity):
                told = (
                    f"{repo} is not the repository that entry {number} lists: that one was made {before.created or 'at an unknown time'}, "
                    f"this one {listing.created or 'at an unknown time'}. It was deleted and made again, maybe by somebody else: "
                    "look who owns it before you use it, or pin the commit that you had"
                )
                self._tell(events.Warned(hub_pins.STAGE, hub_pins.STAGE, told))
                break
        return listing.commit

    def _listings(self, repo: str) -> Iterator[tuple[int, Listing]]:
        """What trusted entries list of a repository, as far as the store has it; the newest first."""
        trusted, _ = sift(self._log.by_material(Digest.of(hub_listing.repository(repo))), self._policy)
        for one in reversed(trusted):
            digest = one.statement.subjects.get("listing")
            if digest is not None and self._store.has(digest) and one.entry.number is not None:
                yield one.entry.number, hub_listing.parse(self._store.read(digest))

    def _stage(self, name: str) -> Stage:
        if name not in self._stages:
            self._stages[name] = plugins.load("stages", name)
        return self._stages[name]


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(f".{os.getpid()}.tmp")
    aside.write_text(json.dumps(value, indent=1) + "\n")
    aside.replace(path)


def _read_json(path: Path) -> Mapping[str, Any]:
    """An earlier run's note; whatever cannot be read decides nothing."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}

"""`ledger status`, and what `ledger` alone says: what is here, what is in progress, what is broken, what to type next."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.errors import DONE, UNVERIFIED
from cli.gc import alive
from cli.names import Run, pins, runs
from cli.options import common
from cli.output import Output, ago, count, many, place, size
from cli.workspace import POLICY, Workspace, find, open_here

if TYPE_CHECKING:
    from ledger.policy import Policy


@dataclass(frozen=True)
class Confirmed:
    """What more than one key vouches for.

    Attributes:
        total: actions in the ledger. again: how many of them have several entries.
        confirmed: how many of these are confirmed by a second key; None when they are too many to check in passing.
        contradicted: how many of them have results that differ. names: of the keys that confirm one another.
    """

    total: int
    again: int
    confirmed: int | None
    contradicted: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class Status:
    """The state of a ledger.

    Attributes:
        entries, actions: None when the log cannot be read.
        stored_bytes: on disk; shared_bytes: of these, files that were taken in by reference.
        broken: what is wrong, each in a sentence; unproven: whether one of them is a failed verification.
    """

    folder: Path
    entries: int | None
    newest: datetime | None
    objects: int
    stored_bytes: int
    shared_bytes: int
    runs: tuple[Run, ...]
    pins: int
    policy: tuple[str, ...]
    broken: tuple[str, ...]
    unproven: bool
    actions: Confirmed | None = None

    @property
    def last(self) -> Run | None:
        """The run that was started last."""
        return self.runs[-1] if self.runs else None

    @property
    def going(self) -> tuple[Run, ...]:
        """Runs in progress."""
        return tuple(run for run in self.runs if run.state == "running" and alive(run.pid))

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        last = self.last
        return {
            "ledger": self.folder.absolute(),
            "entries": self.entries,
            "newest": self.newest,
            "objects": self.objects,
            "stored_bytes": self.stored_bytes,
            "shared_bytes": self.shared_bytes,
            "last_run": None if last is None else _run_facts(last),
            "in_progress": [_run_facts(run) for run in self.going],
            "pins": self.pins,
            "actions": self.actions,
            "policy": self.policy,
            "broken": self.broken,
        }


@click.command()
@common
def status(ledger: Path | None, json: bool) -> int:
    """What is in this ledger: entries, the last run, what is in progress, size on disk, whom it trusts, what is broken.

    Exit code 3 when the log is not the one that was accepted before.
    """
    workspace, output = open_here(ledger), Output(json=json)
    state = look(workspace)
    output.show(state.facts(), lambda: [*_lines(state, output), _next(state)])
    return UNVERIFIED if state.unproven else DONE


def start(ledger: Path | None, *, json: bool) -> int:
    """What `ledger` alone says: where one stands here, and what to type next."""
    output = Output(json=json)
    folder = find(ledger)
    if folder is None:
        recipe = _recipe_here() or "RECIPE"
        lines = [
            "no ledger here yet",
            f"  ledger run {recipe:<24} do what a recipe asks for; makes the ledger and a key on first use",
            f"  ledger verify {'TARGET':<21} check a model, a file or an alloy that somebody gave you",
            f"  ledger {'--help':<28} everything else",
        ]
        output.show({"ledger": None, "next": [f"ledger run {recipe}", "ledger verify TARGET", "ledger --help"]}, lines)
        return DONE
    state = look(Workspace(folder))
    output.show(state.facts() | {"next": [_next(state).removeprefix("next: ")]}, lambda: [*_lines(state, output)[:3], _next(state)])
    return UNVERIFIED if state.unproven else DONE


def look(workspace: Workspace) -> Status:
    """Read the state of a ledger; whatever is broken is told, not raised."""
    from ledger.errors import LedgerError, VerificationError

    broken: list[str] = []
    unproven = False
    entries: int | None = None
    newest: datetime | None = None
    policy: tuple[str, ...] = ()
    actions: Confirmed | None = None
    try:
        policy = _trusts(workspace.written)
        entries = workspace.log.size
        policy = _trusts(workspace.policy)  # without what the key events of the log take away
        newest = datetime.fromtimestamp(workspace.log.entry(entries - 1).when, UTC) if entries else None
        actions = _confirmed(workspace) if entries else None
    except LedgerError as error:
        broken.append(str(error))
        unproven = isinstance(error, VerificationError)
    if not policy and not broken:
        broken.append(f"{place(workspace.folder / POLICY)} trusts nobody, so no entry counts; add a key and a rule")
    known = tuple(runs(workspace.folder))
    objects, stored, shared = _disk(workspace.folder)
    return Status(
        workspace.folder, entries, newest, objects, stored, shared, known, len(pins(workspace.folder)), policy, tuple(broken), unproven,
        actions,
    )  # fmt: skip


_CHECKED = 200
"""So many confirmations are checked, signature by signature, whenever somebody asks how things are."""


def _confirmed(workspace: Workspace) -> Confirmed:
    from ledger import lookup, predicates
    from ledger.errors import ContradictionError, VerificationError

    log, policy = workspace.log, workspace.policy
    total, again, keys = log.repeated(_CHECKED)
    if again > _CHECKED:
        return Confirmed(total, again, None, 0, ())
    confirmed = contradicted = 0
    names: set[str] = set()
    for key in keys:
        try:
            vouching = lookup.confirmations(log, policy, predicates.action_of(log.lookup(key)[0].statement))
        except ContradictionError:
            contradicted += 1
            continue
        except VerificationError:
            continue  # whatever is wrong with it, nobody confirms it
        if policy.holders(vouching) > 1:
            confirmed += 1
            names |= set(vouching)
    return Confirmed(total, again, confirmed, contradicted, tuple(sorted(names)))


def _trusts(policy: Policy) -> tuple[str, ...]:
    """A line for each rule."""
    lines = []
    for rule in policy.rules:
        names = [name + _until(policy, name) for name in rule.keys]
        all_of = rule.threshold == policy.holders(rule.keys)
        who = " and ".join(names) if all_of else f"{rule.threshold} of {', '.join(names)}"
        what = "everything" if rule.stages == rule.artifacts == ("*",) and rule.predicates is None else _scope(rule.stages, rule.artifacts)
        lines.append(f"{who} for {what}")
    return tuple(lines)


def _until(policy: Policy, name: str) -> str:
    span = policy.spans.get(name)
    if span is None or (span.first == 0 and span.until is None):
        return ""
    parts = [f"from entry {span.first}"] if span.first else []
    parts += [f"until {span.until}" if parts else f"until entry {span.until}"] if span.until is not None else []
    return f" ({' '.join(parts)})"


def _scope(stages: Sequence[str], artifacts: Sequence[str]) -> str:
    words = [] if tuple(stages) == ("*",) else [", ".join(stages)]
    if tuple(artifacts) != ("*",):
        words.append(artifacts[0] if len(artifacts) == 1 else f"{len(artifacts)} named artifacts")
    return " of ".join(words) or "some statements"


def _disk(folder: Path) -> tuple[int, int, int]:
    """(objects, bytes on disk, bytes of these that are hard links to files outside)."""
    number = stored = shared = 0
    for area in ("objects", "splices"):
        for item in _files(folder / area):
            stat = item.stat(follow_symlinks=False)
            number += 1
            stored += stat.st_blocks * 512
            # A file that was taken in by reference keeps its owner's mode and its other name; what was exported is read-only.
            shared += stat.st_blocks * 512 if stat.st_mode & 0o222 and stat.st_nlink > 1 else 0
    return number, stored, shared


def _files(area: Path) -> Iterable[os.DirEntry[str]]:
    if area.is_dir():
        with os.scandir(area) as outer:
            for first in outer:
                if first.is_dir(follow_symlinks=False):
                    with os.scandir(first.path) as inner:
                        yield from (item for item in inner if item.is_file(follow_symlinks=False))


def _lines(state: Status, output: Output) -> list[str]:
    now = datetime.now(UTC)
    age = f", the newest {ago(state.newest, now)}" if state.newest else ""
    entries = "the log cannot be read" if state.entries is None else many(state.entries, "entry", "entries") + age
    shared = f", {size(state.shared_bytes)} of it by reference" if state.shared_bytes else ""
    kept = f" · {many(state.pins, 'pin')}" if state.pins else ""
    lines = [f"{place(state.folder)}: {entries} · {many(state.objects, 'object')}, {size(state.stored_bytes)} on disk{shared}{kept}"]
    lines.append(_run_line(state, output, now))
    lines.append(f"trusts {'; '.join(state.policy) or 'nobody'} ({place(state.folder / POLICY)})")
    if state.actions is not None and state.actions.total:
        lines += _confirmed_lines(state.actions, output)
    return [*(output.paint(f"broken: {text}", "red") for text in state.broken), *lines]


def _confirmed_lines(actions: Confirmed, output: Output) -> list[str]:
    if actions.confirmed is None:
        return [f"{many(actions.total, 'run')}, {count(actions.again)} of them made again; whether that confirms them: ledger verify"]
    alone = actions.total - actions.confirmed - actions.contradicted
    told = [f"{count(actions.confirmed)} confirmed by a second key ({', '.join(actions.names)})"] if actions.confirmed else []
    told += [f"{count(alone)} by one key alone → ledger verify --rerun"] if alone else []
    lines = [f"{many(actions.total, 'run')}: {', '.join(told)}"] if told else []
    if actions.contradicted:
        lines.append(output.paint(f"{many(actions.contradicted, 'run')} with results that differ → ledger verify", "red"))
    return lines


def _run_line(state: Status, output: Output, now: datetime) -> str:
    if state.going:
        return output.paint("in progress: " + ", ".join(f"{run.recipe} (process {run.pid})" for run in state.going), "yellow")
    last = state.last
    if last is None:
        return "no run yet"
    counts = last.counts
    told = [f"{count(counts[name])} {name}" for name in ("found", "done", "failed") if counts.get(name)]
    outcome = {"done": "done", "failed": "stopped before its end; run it again to go on"}.get(
        last.state, "was killed; run it again to go on"
    )
    return f"last run: {last.recipe}, {ago(_time(last), now)}, {outcome}" + (f" ({', '.join(told)})" if told else "")


def _time(run: Run) -> datetime:
    try:
        return datetime.fromisoformat(run.started_on)
    except ValueError:
        return datetime.fromtimestamp(0, UTC)


def _run_facts(run: Run) -> dict[str, Any]:
    outputs = {group: {name: str(digest) for name, digest in named.items()} for group, named in run.outputs.items()}
    return {"recipe": run.recipe, "state": run.state, "started_on": run.started_on, "pid": run.pid, **run.counts, "outputs": outputs}


def _next(state: Status) -> str:
    if state.broken:
        return "next: ledger verify · ledger fsck"
    done = next((run for run in reversed(state.runs) if run.outputs), None)
    if done is None:
        return f"next: ledger run {_recipe_here() or 'RECIPE'}"
    return f"next: ledger log · ledger verify · ledger show {done.recipe} · ledger export {done.recipe} DEST"


def _recipe_here() -> str | None:
    """A recipe in this folder that could be run, by its name alone."""
    here = Path()
    found = sorted(here.glob("*recipe*.y*ml")) or sorted(here.glob("examples/*/recipe.y*ml"))
    return str(found[0]) if found else None

"""`ledger gc`: what nothing needs any more; shown first, deleted when told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.errors import BusyError
from cli.names import pins, runs
from cli.options import common
from cli.output import Output, many, short, size
from cli.workspace import Workspace, open_here

if TYPE_CHECKING:
    from store.digest import Digest

_SHOWN = 20


@click.command()
@click.option("--delete", is_flag=True, help="Delete it. Without this, only say what would go.")
@click.option("--intermediates", is_flag=True, help="Also what runs made on the way: keep what recipes name and give, and pins.")
@common
def gc(delete: bool, intermediates: bool, ledger: Path | None, json: bool) -> int:
    """Say which stored objects nothing needs any more; with --delete, remove them.

    Kept are: inputs and outputs of every entry that the policy trusts, pins, what a run in progress uses, and every object
    that one of these is made of. Entries themselves are never removed. Downloads that were cut off and not continued go too.

    With --intermediates only what the recipes of finished runs name on disk and give as results is kept, and pins. The rest
    is still found by every run, and made again if something new needs it.
    """
    from stages.leases import UNFINISHED
    from store import fsck

    workspace, output = open_here(ledger), Output(json=json)
    store = workspace.writable_store if delete else workspace.store
    with ExitStack() as held:
        if delete:
            _keep_runs_out(workspace, held)
            held.enter_context(store.exclusive())
        roots = set(_results(workspace) if intermediates else _trusted(workspace)) | set(_held(workspace))
        lost = fsck.garbage(store, roots)
        cut_off = {path: path.stat().st_size for path in sorted((workspace.folder / UNFINISHED).glob("*"))}
        if delete:
            for digest, _ in lost:
                store.delete(digest)
            for path in cut_off:
                path.unlink()
    freed = sum(length for _, length in lost) + sum(cut_off.values())
    what = " and ".join(([many(len(lost), "object")] if lost else []) + ([many(len(cut_off), "unfinished download")] if cut_off else []))
    facts = {
        "deleted": delete,
        "objects": [{"digest": str(digest), "stored_bytes": length} for digest, length in lost],
        "unfinished": [{"name": path.name, "stored_bytes": length} for path, length in cut_off.items()],
        "stored_bytes": freed,
    }
    lines = [f"  {short(digest, 12)}  {size(length)}" for digest, length in sorted(lost, key=lambda item: -item[1])[:_SHOWN]]
    if len(lost) > _SHOWN:
        lines.append(f"  and {len(lost) - _SHOWN} smaller ones; --json lists all")
    if not lost and not cut_off:
        lines = ["nothing to delete: everything in the store is needed"]
    elif delete:
        lines.append(f"deleted {what}, {size(freed)}")
    else:
        lines += [f"would delete {what}, {size(freed)}; nothing was touched", "next: ledger gc --delete"]
    output.show(facts, lines)
    return 0


def _keep_runs_out(workspace: Workspace, held: ExitStack) -> None:
    import fcntl

    from stages import leases

    try:
        held.enter_context(leases.lock(workspace.folder / "runs" / "gc.lock", fcntl.LOCK_EX | fcntl.LOCK_NB))
    except BlockingIOError as error:
        going = ", ".join(f"{run.recipe} (process {run.pid})" for run in runs(workspace.folder) if run.state == "running")
        raise BusyError(
            f"a run is in progress{': ' + going if going else ''}; nothing was deleted. Try again when it has finished"
        ) from error


def _results(workspace: Workspace) -> Iterator[Digest]:
    """What the recipes of finished runs name and give."""
    for run in runs(workspace.folder):
        if run.state == "done":
            yield from run.roots
            for named in run.outputs.values():
                yield from named.values()


def _trusted(workspace: Workspace) -> Iterator[Digest]:
    """What trusted entries name."""
    from ledger.errors import VerificationError
    from ledger.lookup import accept
    from ledger.predicates import RUN, action_of

    for entry in workspace.log.entries():
        try:
            statement = accept(entry, workspace.policy, workspace.log).statement
            yield from statement.subjects.values()
            if statement.predicate_type == RUN:
                yield from action_of(statement).inputs.values()
        except VerificationError:
            continue  # what the policy does not trust is not kept for it


def _held(workspace: Workspace) -> Iterator[Digest]:
    """Pins, and what a run in progress has taken in."""
    yield from pins(workspace.folder).values()
    for run in runs(workspace.folder):
        if run.state == "running" and alive(run.pid):
            yield from run.roots


def alive(pid: int | None) -> bool:
    """Whether a process of that number exists."""
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

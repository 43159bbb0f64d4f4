"""`ledger fsck`: stored bytes against their names, and the log against itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.errors import CORRUPT, DONE
from cli.names import pins
from cli.options import common
from cli.output import Output, many, place, short
from cli.workspace import Workspace, open_here

if TYPE_CHECKING:
    from store.digest import Digest

_HARMLESS = {"stray"}
_SHOWN = 6


@click.command()
@click.option("--full", is_flag=True, help="Hash everything again, also what has not been touched since it was hashed.")
@click.option("--jobs", "-j", type=click.IntRange(min=0), default=0, metavar="N", help="Objects hashed at once. Default: one a core.")
@common
def fsck(full: bool, jobs: int, ledger: Path | None, json: bool) -> int:
    """Check every stored object against its name, and the log's signatures and checkpoints; name what depends on damage.

    Exit code 4 when something is damaged, changed or missing.
    """
    from store import fsck as store_fsck

    workspace, output = open_here(ledger), Output(json=json)
    entries, log = _log(workspace, full=full)
    store = workspace.store
    number = sum(1 for _ in store.list())
    damage = 0
    findings = []
    for finding in store_fsck.check(store, jobs=jobs, full=full, roots=pins(workspace.folder).values()):
        damage += finding.kind not in _HARMLESS
        about = [digest for digest in (finding.digest, *finding.dependents) if digest is not None]
        said = _entries(workspace, about) if entries is not None else []
        findings.append({
            "kind": finding.kind, "digest": finding.digest and str(finding.digest), "path": finding.path, "text": finding.text,
            "dependents": [str(digest) for digest in finding.dependents], "entries": [entry for entry, _ in said],
        })  # fmt: skip
        output.line(f"{output.paint(finding.kind, 'yellow' if finding.kind in _HARMLESS else 'red')}  {finding.text}")
        if finding.path is not None and finding.digest is not None:
            output.line(f"  file {place(finding.path)}")
        if finding.dependents:
            more = " .." if len(finding.dependents) > _SHOWN else ""
            output.line(f"  needed by {', '.join(short(digest) for digest in finding.dependents[:_SHOWN])}{more}")
        output.lines(f"  entry {entry}: {message}" for entry, message in said[:_SHOWN])
    output.lines(f"{output.paint('log', 'red')}  {text}" for text in log)
    output.object({"objects": number, "entries": entries, "findings": findings, "log": log, "ok": not damage and not log})
    what = f"{many(number, 'object')} and " + ("a log that cannot be opened" if entries is None else many(entries, "entry", "entries"))
    if damage or log:
        output.line(f"{many(damage + len(log), 'fault')} in {what}")
        if damage:
            output.line("next: restore these files from a copy, or delete them and run the recipe again")
        return CORRUPT
    output.line(f"{what}: all as their names and checkpoints say")
    return DONE


def _log(workspace: Workspace, *, full: bool) -> tuple[int | None, list[str]]:
    """How many entries there are (None when the log cannot be opened), and every fault of the log."""
    from ledger.errors import LogError
    from ledger.verify import verify_ledger

    faults = [row.text for row in verify_ledger(workspace.folder, workspace.written, full=full).rows if row.status == "failed"]
    try:
        return workspace.log.size, faults
    except LogError as error:
        return None, faults or [str(error)]


def _entries(workspace: Workspace, digests: list[Digest]) -> list[tuple[int, str]]:
    found = {entry.number: entry.message for digest in digests for entry in workspace.log.by_subject(digest)}
    return sorted(found.items())

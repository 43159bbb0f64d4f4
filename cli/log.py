"""`ledger log`: the entries, newest first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.entries import EntryView
from cli.options import common
from cli.output import Output, count, table
from cli.workspace import Workspace, open_here

if TYPE_CHECKING:
    from ledger.log import Entry

_PAGE = 100


@click.command()
@click.option("-n", "--number", type=click.IntRange(min=0), default=20, metavar="N", help="How many; 0 for all. Default: 20.")
@click.option("--stage", metavar="NAME", help="Only runs of this stage, or claims of this kind.")
@common
def log(number: int, stage: str | None, ledger: Path | None, json: bool) -> int:
    """The entries, newest first: number, age, key of the action, who vouches, and what was done.

    With --json one object a line.
    """
    from datetime import UTC, datetime

    workspace, output = open_here(ledger), Output(json=json)
    now, size = datetime.now(UTC), workspace.log.size
    shown = 0
    page: list[list[str]] = []
    for entry in _newest_first(workspace, size):
        view = EntryView(entry, workspace.policy, workspace.log)
        if stage is not None and view.kind != stage:
            continue
        if number and shown == number:
            break
        shown += 1
        output.object(view.facts())
        if not json:
            page.append(view.row(output, now))
        if len(page) == _PAGE:  # columns fit within a page; a long log starts to show at once
            output.lines(table(page, ">>"))
            page.clear()
    output.lines(table(page, ">>"))
    if not size:
        output.line("no entries yet; next: ledger run RECIPE")
    elif not shown:
        output.line(f"none of the {count(size)} entries is a run of {stage}" if stage else "")
    elif stage is None and shown < size:
        output.line(output.paint(f"{count(size - shown)} older: ledger log -n 0", "dim"))
    return 0


def _newest_first(workspace: Workspace, size: int) -> Iterator[Entry]:
    for number in range(size - 1, -1, -1):
        yield workspace.log.entry(number)

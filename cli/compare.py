"""`ledger compare`: the evaluated models of several recipes in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from cli.errors import UsageError
from cli.names import Run, runs
from cli.options import common
from cli.output import Output, Style, table
from cli.workspace import Workspace, open_here

_REPORT = "report"


@click.command()
@click.argument("recipes", nargs=-1, metavar="[RECIPE]...")
@common
def compare(recipes: tuple[str, ...], ledger: Path | None, json: bool) -> int:
    """The comparison that the latest run of each RECIPE made, in one table; without RECIPE, of all that made one.

    Each difference is against the base of its own recipe. A model that several recipes evaluated alike is shown once.
    """
    workspace, output = open_here(ledger), Output(json=json)
    latest = {run.recipe: run for run in runs(workspace.folder) if _report_of(run) is not None}
    unknown = [name for name in recipes if name not in latest]
    if unknown or not latest:
        what = f"no finished run of {', '.join(unknown)} made a comparison" if unknown else "no finished run made a comparison"
        raise UsageError(f"{what}; those that did: {', '.join(latest) or 'none'}. A recipe makes one with a stage of type eval")
    chosen = {name: read(workspace, latest[name]) for name in (recipes or latest)}
    output.show({"comparisons": chosen}, lambda: lines(chosen, output))
    return 0


def _report_of(run: Run) -> str | None:
    return next((str(named[_REPORT]) for named in reversed(list(run.outputs.values())) if _REPORT in named), None)


def read(workspace: Workspace, run: Run) -> Mapping[str, Any]:
    """The comparison report of a run.

    Raises:
        NotFoundError, CorruptError: the store does not have it.
    """
    from store import canonical
    from store.digest import Digest

    report: Mapping[str, Any] = canonical.loads(workspace.store.read(Digest.parse(str(_report_of(run)))))
    return report


def lines(reports: Mapping[str, Mapping[str, Any]], output: Output) -> list[str]:
    """A table of several comparison reports, one for each form of them; the recipe's name stands in front when there are several."""
    tables: dict[tuple[str, ...], list[list[str]]] = {}
    seen: set[tuple[str, ...]] = set()
    for name, report in reports.items():
        rows = report.get("table")
        if not isinstance(rows, list) or not rows or not all(isinstance(row, list) for row in rows):
            continue
        body = tables.setdefault(tuple(str(cell) for cell in rows[0]), [])
        for row in rows[1:]:
            cells = [str(cell) for cell in row]
            if tuple(cells) not in seen:
                seen.add(tuple(cells))
                body.append([name, *cells] if len(reports) > 1 else cells)
    shown: list[str] = []
    for titles, body in tables.items():
        if not body:
            continue
        everything = [[""] * (len(reports) > 1) + list(titles), *body]
        width = max(map(len, everything))
        padded = [_painted(row + [""] * (width - len(row)), output) for row in everything]
        shown += ["", *table(padded, "<" * (len(reports) > 1) + "<<>>")] if shown else table(padded, "<" * (len(reports) > 1) + "<<>>")
    return shown


_VERDICTS: Mapping[str, tuple[Style, ...]] = {"worse": ("yellow",), "better": ("green",)}


def _painted(cells: Sequence[str], output: Output) -> list[str]:
    return [output.paint(cell, *_VERDICTS.get(cell, ())) for cell in cells]

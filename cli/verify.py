"""`ledger verify`: what is proven about something, what is only stated, what was not checked; by whom, and what would settle it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.errors import UsageError
from cli.options import PATH, common
from cli.output import Output, Style, clean
from cli.workspace import Workspace, find, open_here

if TYPE_CHECKING:
    from ledger.policy import Policy
    from ledger.verify import Report

_WORDS: Mapping[str, tuple[str, tuple[Style, ...]]] = {
    "proven": ("proven", ("green",)),
    "stated": ("stated", ("yellow",)),
    "unchecked": ("not checked", ("yellow",)),
    "unknown": ("not known", ("dim",)),
    "failed": ("FAILED", ("red", "bold")),
}
_WIDTH = max(len(word) for word, _ in _WORDS.values())


@click.command()
@click.argument("target", required=False)
@click.option("--policy", type=PATH, metavar="FILE", help="Whom to trust. Default: the policy of the ledger.")
@click.option("--full", is_flag=True, help="Check every signature and hash everything again, whatever was checked before.")
@common
def verify(target: str | None, policy: Path | None, full: bool, ledger: Path | None, json: bool) -> int:
    """Check signatures, checkpoints, keys recomputed from statements, provenance back to the sources, and bytes.

    TARGET is an alloy, a model folder, a file, a DIGEST or RECIPE:OUTPUT; without it the whole ledger is verified.

    Whom to trust is your own policy: --policy, else the ledger's, else the keys that come with this program. A policy that lies
    beside what is verified is never read. Needs no key, changes nothing, runs no foreign code. Exit code 3 when anything fails.
    """
    output = Output(json=json)
    folder = find(ledger)
    workspace = Workspace(folder) if folder is not None else None
    trusted = _policy(policy, workspace)
    report = _report(target, trusted, workspace if target is not None else open_here(ledger), full=full)
    output.show(facts(report, trusted), lambda: lines(report, output))
    return report.exit_code


def _report(target: str | None, policy: Policy, workspace: Workspace | None, *, full: bool) -> Report:
    from ledger import verify as check

    if target is None:
        assert workspace is not None  # `verify` has opened it
        return check.verify_ledger(workspace.folder, policy, full=full)
    raise NotImplementedError


def shipped_policy() -> Policy:
    """The keys that come with this program, for the artifacts that they were shipped for and for nothing else.

    Raises:
        UsageError: this program comes with none.
    """
    from ledger.policy import Policy

    several = Policy.shipped().values()
    if not several:
        raise UsageError(
            "whom to trust? There is no ledger here and this program comes with no keys: --policy FILE (`ledger init` writes one)"
        )
    keys = {name: key for policy in several for name, key in policy.keys.items()}
    return Policy(keys, tuple(rule for policy in several for rule in policy.rules), source="the keys that come with ledger")


def _policy(named: Path | None, workspace: Workspace | None) -> Policy:
    from ledger.policy import Policy

    if named is not None:
        return Policy.load(named)
    return workspace.policy if workspace is not None else shipped_policy()


def facts(report: Report, policy: Policy) -> dict[str, object]:
    """A report as JSON."""
    rows = [{"status": row.status, "text": row.text, "hint": row.hint or None, "entry": row.entry} for row in report.rows]
    return {"target": report.target, "verdict": report.verdict, "exit_code": report.exit_code, "policy": policy.source, "rows": rows}


def lines(report: Report, output: Output) -> Iterable[str]:
    """A report as a table: a word for each finding, the finding, what would settle it; the verdict last."""
    for row in report.rows:
        word, styles = _WORDS[row.status]
        hint = f"   {output.paint('→', 'dim')} {clean(row.hint)}" if row.hint else ""
        yield f"{output.paint(f'{word:<{_WIDTH}}', *styles)}  {clean(row.text)}{hint}"
    style: Style = "red" if report.exit_code else "green" if report.verdict == "VERIFIED" else "yellow"
    yield output.paint(report.verdict, style, "bold")

"""`ledger verify`: what is proven about something, what somebody only attests, what was not checked; by whom, and what would settle it."""

from __future__ import annotations

import os
import shutil
import textwrap
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.errors import UsageError
from cli.options import PATH, common
from cli.output import Output, Style, clean, place
from cli.rerun import Again
from cli.rerun import options as rerun_options
from cli.targets import Asked, report_on
from cli.workspace import POLICY, Workspace, agent_keys, find, open_here, refuse_foreign

if TYPE_CHECKING:
    from ledger.policy import Policy
    from ledger.verify import Report, Row

_WORDS: Mapping[str, tuple[str, tuple[Style, ...]]] = {
    "proven": ("proven", ("green",)),
    "attested": ("attested", ("yellow",)),
    "self-reported": ("self-reported", ("yellow",)),
    "unverified": ("unverified", ("dim",)),
    "failed": ("FAILED", ("red", "bold")),
}
_WIDTH = max(len(word) for word, _ in _WORDS.values())
_MANY_STEPS = 4


@click.command()
@click.argument("target", required=False)
@click.argument("file", required=False, type=PATH)
@click.option("--policy", type=PATH, metavar="FILE", help="Whom to trust. Default: the policy of the ledger.")
@click.option("--expect", metavar="HASH", help="sha256:HEX that the alloy, or the file that TARGET names, must have.")
@click.option(
    "--spot", type=click.IntRange(min=1), metavar="K", help="Hub: read K random MiB of the weights too; 300 see 1 % damage with 95 %."
)
@click.option("--full", is_flag=True, help="Hub: read everything. Ledger: check and hash everything again, whatever was checked before.")
@click.option("--into", type=PATH, metavar="DIR", help="With --full: keep what is read there, and continue from what is there.")
@click.option("--offline", is_flag=True, help="TARGET is a proof (picture, text or .tlog-proof), perhaps of FILE; no network, no ledger.")
@click.option("--vsa", type=PATH, metavar="OUT", help="Write the result as a summary signed by your key (SLSA VSA).")
@click.option("--verbose", "-v", is_flag=True, help="Each step back to the sources in a line of its own.")
@rerun_options
@common
def verify(
    target: str | None,
    file: Path | None,
    policy: Path | None,
    expect: str | None,
    spot: int | None,
    full: bool,
    into: Path | None,
    offline: bool,
    vsa: Path | None,
    verbose: bool,
    rerun: bool,
    again: Again,
    ledger: Path | None,
    json: bool,
) -> int:
    """Check signatures, checkpoints, keys recomputed from statements, provenance back to the sources, and bytes.

    TARGET is a place on the Hub (hf:org/name[@REVISION][/path], its URL, the picture or text of a QR), an alloy, a model folder, a
    file, a DIGEST or RECIPE:OUTPUT; without it the whole ledger is verified. On the Hub the listing is compared with what is
    attested, in 3 requests and without the weights; --spot and --full read bytes.

    Whom to trust is your own policy: --policy, else the ledger's, else the keys that come with this program. A policy that lies
    beside what is verified is never read. Needs no key, changes nothing, runs no foreign code. Exit code 3 when anything fails.

    With --rerun it works: stages run again on their recorded inputs, and what comes out is signed by your key and appended. TARGET is
    then a KEY or the number of an entry; without it everything is made again that one key alone vouches for, the shortest first.
    """
    output = Output(json=json)
    if again.key is not None and vsa is None and not rerun:
        raise UsageError("--key names the key that signs; nothing is signed without --rerun or --vsa")
    if not rerun:
        _refuse_idle(target, offline=offline, expect=expect, spot=spot, full=full, into=into)
    workspace = _workspace(target, ledger)
    trusted = _policy(policy, workspace, target, ledger)
    if rerun:
        from cli.rerun import rerun as make_again

        return make_again(target, workspace or open_here(ledger), trusted, again, output)
    if offline and target is not None:
        from cli.offline import offline as check_offline

        report = check_offline(target, file, trusted)
    elif target is None:
        from ledger import verify as check

        assert workspace is not None  # `_workspace` has opened it
        report = check.verify_ledger(workspace.folder, trusted, full=full)
    else:
        report = report_on(target, trusted, workspace, Asked(expect, spot or 0, full, into, file))
    if policy is None and workspace is not None:
        report = replace(report, rows=(*report.rows, *_whose(workspace)))
    if not trusted.rules:
        report = replace(report, rows=(*report.rows, _nobody(trusted)))
    if vsa is not None:
        _summarise(report, trusted, workspace, again.key, vsa)
    shown = report if verbose else replace(report, rows=tuple(in_short(report.rows)))
    output.show(facts(report, trusted), lambda: lines(shown, output))
    return report.exit_code


def _workspace(target: str | None, ledger: Path | None) -> Workspace | None:
    folder = find(ledger)
    if folder is None:
        return open_here(ledger) if target is None else None  # says that there is none
    return Workspace(folder)


def _refuse_idle(target: str | None, *, offline: bool, **other: object) -> None:
    """Refuse what would be passed over in silence."""
    given = [f"--{name}" for name, value in other.items() if value]
    if offline and (target is None or given):
        raise UsageError(f"--offline checks a proof and nothing else: name it, and leave out {', '.join(given) or 'the rest'}")
    if target is None and (given := [name for name in given if name != "--full"]):
        raise UsageError(f"{', '.join(given)}: name a TARGET")
    if other["into"] and not other["full"]:
        raise UsageError("--into says where to keep what --full reads")
    if other["spot"] and other["full"]:
        raise UsageError("--full reads all that --spot would read a part of; say one")


def _summarise(report: Report, policy: Policy, workspace: Workspace | None, key: str | None, out: Path) -> None:
    """Write the report as a summary that the reader's own key signs."""
    from cli.workspace import unlock
    from ledger.key_store import KeyStore
    from ledger.keys import ED25519
    from ledger.vsa import Summary

    if workspace is not None:
        signer = workspace.signer(key)
    else:
        keys = KeyStore.default()
        own = [name for name, public, _ in keys.list() if public.algorithm == ED25519]
        if key is None and len(own) != 1:
            raise UsageError(
                f"which key signs the summary? --key NAME; yours: {', '.join(own) or 'none, and `ledger key new NAME` makes one'}"
            )
        signer = unlock(keys, key or own[0])
    where = report.target if report.target.startswith("hf:") else f"file:{Path(report.target).name}"
    summary = Summary.of(report, policy, signer, resource=where, now=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    out.write_bytes(summary.sign(signer) + b"\n")


def shipped_policy() -> Policy:
    """The keys that come with this program, for the artifacts that they were shipped for and for nothing else.

    Raises:
        UsageError: this program comes with none.
    """
    from ledger.policy import Policy

    several = Policy.shipped().values()
    if not several:
        raise UsageError("whom to trust? There is no ledger here, and this program comes with no keys; say it: --policy FILE")
    keys = {name: key for policy in several for name, key in policy.keys.items()}
    return Policy(keys, tuple(rule for policy in several for rule in policy.rules), source="the policy that comes with ledger")


def _policy(file: Path | None, workspace: Workspace | None, target: str | None, ledger: Path | None) -> Policy:
    from ledger.policy import Policy

    if file is not None:
        return Policy.load(file)
    if workspace is None:
        return shipped_policy()
    from ledger.locator import is_locator

    named = ledger is not None or bool(os.environ.get("LEDGER_DIR"))
    if target is not None and not named and not is_locator(target) and workspace.folder.resolve().is_relative_to(Path(target).resolve()):
        raise UsageError(
            f"the policy {place(workspace.folder / POLICY)} lies inside {target}, so whoever made {target} may have written it; "
            "say whom you trust: --policy FILE"
        )
    try:
        refuse_foreign(workspace.folder, ledger)
    except UsageError as error:
        raise UsageError(f"{error}; if not, say whom you trust: --policy FILE") from error
    return workspace.written  # whoever opens the log narrows it by the log's key events


def _whose(workspace: Workspace) -> list[Row]:
    """A ledger that came from somebody else brings their policy, which trusts them."""
    from ledger.key_store import KeyStore
    from ledger.verify import Row

    own = {public for _, public, _ in KeyStore.default().list()} or {public for _, public in agent_keys()}
    if own & set(workspace.written.keys.values()) or not workspace.written.rules:
        return []
    where = place(workspace.folder / POLICY)
    return [Row("unverified", f"who wrote {where}: it names no key of yours", "if this ledger came from somebody else: --policy FILE")]


def _nobody(policy: Policy) -> Row:
    from ledger.verify import Row

    text = f"{policy.source} has no rules, so it trusts nobody, and no signature proves anything here"
    return Row("unverified", text, "trust somebody: ledger key trust NAME KEY, or --policy FILE", aside=True)


def facts(report: Report, policy: Policy) -> dict[str, object]:
    """A report as JSON."""
    rows = [{"status": row.status, "text": row.text, "hint": row.hint or None, "entry": row.entry} for row in report.rows]
    return {
        "target": report.target,
        "verdict": report.verdict,
        "exit_code": report.exit_code,
        "policy": policy.source,
        "levels": list(report.levels),
        "subjects": {name: str(digest) for name, digest in report.subjects.items()},
        "rows": rows,
    }


def in_short(rows: Sequence[Row]) -> Iterable[Row]:
    """The findings, with the steps of the way back in one line where they are many."""
    from ledger.verify import Row

    for together, group in groupby(rows, key=lambda row: bool(row.step)):
        some = list(group)
        if not together or len(some) <= _MANY_STEPS:
            yield from some
            continue
        yield Row("proven", f"from {', '.join(row.step for row in some)}: each of these steps is signed", "-v lists them")


def lines(report: Report, output: Output) -> Iterable[str]:
    """A report as a table: a word for each finding, the finding, what would settle it; the verdict last.

    On a terminal long findings are wrapped beside their word; on a pipe each stays on one line.
    """
    width = shutil.get_terminal_size().columns if output.stream.isatty() else None
    for row in report.rows:
        word, styles = _WORDS[row.status]
        text = clean(row.text) + (f"   → {clean(row.hint)}" if row.hint else "")
        first, *rest = textwrap.wrap(text, max(40, width - _WIDTH - 2), break_on_hyphens=False) if width else [text]
        yield f"{output.paint(f'{word:<{_WIDTH}}', *styles)}  {first}"
        yield from (f"{'':<{_WIDTH}}  {line}" for line in rest)
    style: Style = "red" if report.exit_code else "green" if report.verdict == "VERIFIED" else "yellow"
    yield output.paint(report.verdict, style, "bold")

"""`ledger verify`: what is proven about something, what somebody only attests, what was not checked; by whom, and what would settle it."""

from __future__ import annotations

import os
import shutil
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.errors import UsageError
from cli.names import find_object
from cli.options import PATH, common
from cli.output import Output, Style, clean, many, place
from cli.rerun import Again
from cli.rerun import options as rerun_options
from cli.workspace import POLICY, Workspace, find, open_here, refuse_foreign

if TYPE_CHECKING:
    from ledger.policy import Policy
    from ledger.verify import Report, Row
    from store.digest import Digest

_WORDS: Mapping[str, tuple[str, tuple[Style, ...]]] = {
    "proven": ("proven", ("green",)),
    "attested": ("attested", ("yellow",)),
    "self-reported": ("self-reported", ("yellow",)),
    "unverified": ("unverified", ("dim",)),
    "failed": ("FAILED", ("red", "bold")),
}
_WIDTH = max(len(word) for word, _ in _WORDS.values())


@click.command()
@click.argument("target", required=False)
@click.option("--policy", type=PATH, metavar="FILE", help="Whom to trust. Default: the policy of the ledger.")
@click.option("--full", is_flag=True, help="Check every signature and hash everything again, whatever was checked before.")
@rerun_options
@common
def verify(target: str | None, policy: Path | None, full: bool, rerun: bool, again: Again, ledger: Path | None, json: bool) -> int:
    """Check signatures, checkpoints, keys recomputed from statements, provenance back to the sources, and bytes.

    TARGET is an alloy, a model folder, a file, a DIGEST or RECIPE:OUTPUT; without it the whole ledger is verified.

    Whom to trust is your own policy: --policy, else the ledger's, else the keys that come with this program. A policy that lies
    beside what is verified is never read. Needs no key, changes nothing, runs no foreign code. Exit code 3 when anything fails.

    With --rerun it works: stages run again on their recorded inputs, and what comes out is signed by your key and appended. TARGET is
    then a KEY or the number of an entry; without it everything is made again that one key alone vouches for, the shortest first.
    """
    output = Output(json=json)
    folder = find(ledger)
    workspace = Workspace(folder) if folder is not None else None
    if workspace is None and target is None:
        workspace = open_here(ledger)  # says that there is none
    trusted = _policy(policy, workspace, target, ledger)
    if rerun:
        from cli.rerun import rerun as make_again

        return make_again(target, workspace or open_here(ledger), trusted, again, output)
    report = _report(target, trusted, workspace, full=full)
    if policy is None and workspace is not None:
        report = replace(report, rows=(*report.rows, *_whose(workspace)))
    output.show(facts(report, trusted), lambda: lines(report, output))
    return report.exit_code


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
    return Policy(keys, tuple(rule for policy in several for rule in policy.rules), source="the keys that come with ledger")


def _policy(file: Path | None, workspace: Workspace | None, target: str | None, ledger: Path | None) -> Policy:
    from ledger.policy import Policy

    if file is not None:
        return Policy.load(file)
    if workspace is None:
        return shipped_policy()
    named = ledger is not None or bool(os.environ.get("LEDGER_DIR"))
    if target is not None and not named and workspace.folder.resolve().is_relative_to(Path(target).resolve()):
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
    from ledger.keys import KeyStore
    from ledger.verify import Row

    own = {public for _, public, _ in KeyStore.default().list()}
    if own & set(workspace.written.keys.values()):
        return []
    where = place(workspace.folder / POLICY)
    return [Row("unverified", f"who wrote {where}: it names no key of yours", "if this ledger came from somebody else: --policy FILE")]


def _report(target: str | None, policy: Policy, workspace: Workspace | None, *, full: bool) -> Report:
    from ledger import verify as check

    if target is None:
        assert workspace is not None  # `verify` has opened it
        return check.verify_ledger(workspace.folder, policy, full=full)
    path = Path(target)
    if path.exists():
        return _path(path, policy, workspace)
    if workspace is None:
        raise UsageError(f"{target} is not there, and without a ledger here only files and folders can be verified")
    digest, _ = find_object(workspace, target)
    report = check.verify_artifact(digest, workspace.log, policy, store=workspace.store)
    return replace(report, rows=(*report.rows, *_stored(workspace, digest, full=full)))


def _path(path: Path, policy: Policy, workspace: Workspace | None) -> Report:
    """A file or a folder: by the attestations that travel with it where they name it, else by the ledger here."""
    from ledger import verify as check
    from store import files

    if check.published(path):
        return check.verify_alloy(path, policy)

    @cache
    def hashed(file: Path) -> Digest:  # here and now: what was hashed before is known from the ledger's own folder, where others may write
        return files.hash_file(file)[0]

    beside = check.published(path.parent) if path.is_file() else []
    if beside and (workspace is None or not workspace.log.by_subject(hashed(path))):
        report = check.verify_beside(path, hashed(path), policy)
        if report is not None:
            return report
        if workspace is None:
            names = ", ".join(one.name for one in beside)
            text = f"{path.name}, {path.stat().st_size:,} bytes, is named by no trusted statement of {names}"
            return check.Report(str(path), (check.Row("failed", text, "take it from where it was published"),))
    if workspace is None:
        raise UsageError(f"nothing says what {path} is: no ledger is here, and no .alloy.json with its .attestations.jsonl beside it")
    return check.verify_artifact(path, workspace.log, policy, store=workspace.store, digest_of=hashed)


def _stored(workspace: Workspace, digest: Digest, *, full: bool) -> list[Row]:
    """Whether the store holds the bytes of an object and of its files, and whether they are those bytes."""
    from ledger.verify import Row
    from store import tree
    from store.errors import CorruptError, NotFoundError

    store = workspace.store
    rows: list[Row] = []
    absent = 0
    objects = [digest]
    try:
        if store.has(digest) and tree.is_tree(store, digest):
            objects += sorted({item.digest for item in tree.load(store, digest).entries})
    except CorruptError as error:
        return [Row("failed", str(error))]
    for each in objects:
        try:
            store.check(each, splice=store.is_splice(each), full=full)
        except NotFoundError:
            absent += 1
        except CorruptError as error:
            rows.append(Row("failed", str(error)))
    if absent:
        rows.append(Row("unverified", f"the bytes of {many(absent, 'object')}: not in the store", "run the recipe that makes them"))
    if len(objects) > absent and all(row.status != "failed" for row in rows):
        text = f"its bytes in the store ({many(len(objects) - absent, 'object')}) hash to their names"
        rows.append(Row("proven", text, aside=True))
    return rows


def facts(report: Report, policy: Policy) -> dict[str, object]:
    """A report as JSON."""
    rows = [{"status": row.status, "text": row.text, "hint": row.hint or None, "entry": row.entry} for row in report.rows]
    return {"target": report.target, "verdict": report.verdict, "exit_code": report.exit_code, "policy": policy.source, "rows": rows}


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

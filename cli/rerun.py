"""`ledger verify --rerun`: make recorded runs again, sign what comes out, and show whether it is what the ledger says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.errors import DONE, FAILED, UsageError
from cli.names import find_digest, find_entry, looks_like_digest
from cli.options import PATH
from cli.output import Output, duration, many
from cli.workspace import Workspace

if TYPE_CHECKING:
    from ledger.keys import Signer
    from ledger.policy import Policy
    from ledger.report import Row
    from stages.executor import Executor
    from stages.rerun import Receipt, Vouched


_ALIKE = 3
"""From so many equal outcomes of one stage on, they share a line."""


@dataclass(frozen=True, slots=True)
class Again:
    """How to rerun; the options that mean something with `--rerun` only.

    Attributes:
        key: name of the key that signs. jobs: actions at once, None for one a core.
        tolerance: nats by which a chunk may differ in another environment. llama_cpp: the person's own build.
    """

    key: str | None = None
    jobs: int | None = None
    tolerance: float | None = None
    llama_cpp: Path | None = None


def options(command: Callable[..., int]) -> Callable[..., int]:
    """Gives a command `rerun: bool` and `again: Again`."""

    @wraps(command)
    def gathered(*, rerun: bool, key: str | None, jobs: int | None, tolerance: float | None, llama_cpp: Path | None, **rest: Any) -> int:
        again = Again(key, jobs, tolerance, llama_cpp)
        if (jobs, tolerance, llama_cpp) != (None, None, None) and not rerun:
            raise UsageError("--jobs, --tolerance and --llama-cpp say how to rerun; they mean nothing without --rerun")
        return command(rerun=rerun, again=again, **rest)

    for option in (
        click.option("--llama-cpp", type=PATH, metavar="DIR", help="With --rerun: your own llama.cpp build."),
        click.option(
            "--tolerance",
            type=click.FloatRange(min=0, min_open=True),
            metavar="NATS",
            help="With --rerun: how much a chunk's mean nll may differ in another environment. Say it beforehand; it is signed.",
        ),
        click.option("--jobs", "-j", type=click.IntRange(min=1), metavar="N", help="With --rerun: actions at once. Default: one a core."),
        click.option("--key", metavar="NAME", help="With --rerun, --vsa: the key that signs. Default: your only one that is trusted here."),
        click.option("--rerun", is_flag=True, help="Make runs again and sign what comes out; TARGET is a KEY or an entry's number."),
    ):
        gathered = option(gathered)
    return gathered


def rerun(target: str | None, workspace: Workspace, policy: Policy, again: Again, output: Output) -> int:
    """Make runs again: those that `target` stands for, else all that one holder alone vouches for.

    Raises:
        UsageError: the target names no run, or the key that would sign counts for nothing here.
        VerificationError: nobody trusted says what the target says.
    """
    from cli.progress import watcher
    from ledger import standing
    from stages.rerun import Rerun, runs_behind, unconfirmed

    asked = None if target is None else _entry(workspace, target, policy)
    signer = workspace.signer(again.key)
    me = _name(signer, policy)
    log = workspace.signing_log(signer)
    policy = standing.of(log, policy)
    runs: Sequence[Vouched]
    extra: list[Row] = []
    if asked is None:
        found = unconfirmed(log, policy, me)
        runs, extra = found.runs, list(_standing(found.own, found.contradicted, me))
        if not runs:
            return _nothing(found.own, extra, me, policy, output)
    else:
        runs = runs_behind(asked, log, policy, me)
    output.aside(_plan(runs, me))
    watch = watcher(output, time.monotonic, me=me, recipe="")
    work = Rerun(
        workspace.folder,
        workspace.writable_store,
        log,
        policy,
        me=me,
        hands=lambda threads: _hands(workspace, again, threads),
        tolerance=again.tolerance,
        on_event=watch,
    )
    try:
        with watch:
            receipts = work.run(runs)
    except KeyboardInterrupt as stop:
        kept = sum(receipt.number is not None for receipt in work.receipts)
        raise KeyboardInterrupt(f"interrupted: {many(kept, 'rerun')} {'is' if kept == 1 else 'are'} kept; run again to go on") from stop
    return _show(target, [*rows(receipts, me, again.tolerance), *extra], receipts, policy, output)


def _name(signer: Signer, policy: Policy) -> str:
    """What the policy calls the key that signs: hours of work that count for nothing are refused before they begin."""
    name = next((name for name, public in policy.keys.items() if public == signer.public), None)
    if name is None:
        raise UsageError(
            f"your key {signer.name} ({signer.public}) is not in {policy.source}, so what it signs would count for nothing here; "
            f"`ledger key trust NAME {signer.name}` lets it count, or sign with another: --key NAME"
        )
    return name


def _entry(workspace: Workspace, target: str, policy: Policy) -> Any:
    """The entry that a number or a key means; of a key the oldest by somebody trusted."""
    from ledger.lookup import sift

    entry = find_entry(workspace, target)
    if entry is not None:
        return entry
    if not looks_like_digest(target):
        raise UsageError(f"--rerun takes the number of an entry or a KEY, not {target!r}; `ledger log` shows both")
    digest = find_digest(workspace, target)
    entries = workspace.log.lookup(digest)
    if entries:
        trusted, _ = sift(entries, policy)
        return trusted[0].entry if trusted else entries[0]
    made = workspace.log.by_subject(digest)
    if made:
        raise UsageError(f"{target} is an object; the run that made it can be made again: ledger verify --rerun {made[0].number}")
    raise UsageError(f"no run in the ledger is meant by {target}; `ledger log` shows keys and numbers")


def _hands(workspace: Workspace, again: Again, threads: int) -> Executor:
    from cli.run import cores
    from stages.executor import LocalExecutor

    tools = {"llama-cpp": str(again.llama_cpp.absolute())} if again.llama_cpp is not None else {}
    jobs = again.jobs or max(1, cores() // threads)
    return LocalExecutor(workspace.folder, workspace.writable_store.scratch(), jobs=jobs, threads=threads, tools=tools)


def _plan(runs: Sequence[Vouched], me: str) -> str:
    by = " and ".join(sorted({name for one in runs for name in one.names}))
    seconds = sum(one.seconds for one in runs)
    time_words = f", {duration(seconds)} of work by the times they recorded" if seconds else ""
    return f"again {many(len(runs), 'run')} by {by}{time_words}; {me} signs what comes out"


# --- what came out ---------------------------------------------------------------------------------------------------------------------


def _show(target: str | None, found: list[Row], receipts: Sequence[Receipt], policy: Policy, output: Output) -> int:
    from cli.verify import facts, lines
    from ledger.report import Report

    report = Report(target or "reruns", tuple(found))
    undone = any(receipt.outcome == "undone" for receipt in receipts)
    code = FAILED if undone and not any(row.status == "failed" for row in found) else report.exit_code
    told = {"reruns": [_facts(receipt) for receipt in receipts], **facts(report, policy), "exit_code": code}
    output.show(told, lambda: lines(report, output))
    return code


def _nothing(own: int, extra: Sequence[Row], me: str, policy: Policy, output: Output) -> int:
    from cli.verify import facts, lines
    from ledger.report import Report

    text = f"nothing to do: {many(own, 'run')} only you vouch for, as {me}" if own else "nothing to do: no run has one key alone behind it"
    hint = "; another key confirms them: --key NAME. One again all the same: ledger verify --rerun N" if own else ""
    report = Report("reruns", tuple(extra))
    failed = any(row.status == "failed" for row in extra)
    output.show({"reruns": [], **facts(report, policy), "exit_code": report.exit_code if failed else DONE}, lambda: [
        *(lines(report, output) if failed else []), text + hint
    ])  # fmt: skip
    return report.exit_code if failed else DONE


def _standing(own: int, contradicted: Sequence[int], me: str) -> Iterator[Row]:
    from ledger.report import Row, entries

    if contradicted:
        text = f"{many(len(contradicted), 'action')} has results that differ already ({entries(list(contradicted))})"
        yield Row("failed", text, f"ledger verify, or one of them again: ledger verify --rerun {contradicted[0]}")
    if own:
        yield Row("attested", f"{many(own, 'run')} more only you vouch for, as {me}", "another key confirms them: --key NAME", aside=True)


def rows(receipts: Iterable[Receipt], me: str, tolerance: float | None = None) -> list[Row]:
    """Receipts as findings; many equal outcomes of one stage as one."""
    from ledger.report import Row, entries

    alike: dict[tuple[str, tuple[str, ...], str], list[Receipt]] = {}
    found: list[Row] = []
    for receipt in receipts:
        if receipt.outcome == "equal" and not receipt.reason:
            alike.setdefault((receipt.of.action.stage, receipt.confirmed_by, receipt.outcome), []).append(receipt)
        else:
            found += _row(receipt, me, tolerance or 0.0)
    same: list[Row] = []
    for (stage, names, _), group in alike.items():
        if len(group) < _ALIKE:
            same += [row for receipt in group for row in _row(receipt, me, 0.0)]
            continue
        numbers = sorted(receipt.of.entry.number for receipt in group)
        text = f"{many(len(group), 'run')} of {stage} ({entries(numbers)}) came out the same to the byte; {_confirmed(names)}"
        same.append(Row("proven", text, entry=numbers[0]))
    return [*same, *found]


def _row(receipt: Receipt, me: str, tolerance: float) -> Iterator[Row]:
    from ledger.report import Row

    of, number = receipt.of, receipt.of.entry.number
    what = f"entry {number}, {of.action.stage} by {' and '.join(sorted(of.names))},"
    new = f"entry {receipt.number} by {me}" if receipt.number is not None else ""
    where = f"in another environment ({_some(receipt.elsewhere)})" if receipt.elsewhere else ""
    match receipt.outcome:
        case "equal":
            outputs = ", ".join(f"{name} {digest.short}" for name, digest in sorted(of.outputs.items())[:3])
            confirmed = f"; {_confirmed(receipt.confirmed_by)}" if not receipt.reason else ""
            yield Row("proven", f"{what} came out the same to the byte ({new}): {outputs}{confirmed}", entry=number)
            if receipt.confirmed_by == (me,):
                yield Row(
                    "attested", f"that it went as attested: {me} alone says so, and counts once", "another key confirms it: --key NAME"
                )
            if receipt.reason:
                failed = "two trusted results" in receipt.reason
                yield Row("failed" if failed else "unverified", receipt.reason, entry=receipt.number)
        case "contradicting":
            yield Row(
                "failed",
                f"{what} came out different ({new}): {_differing(receipt)}. Both are kept, and neither is taken as true",
                "one of them is wrong, or the stage is not reproducible: a third key can rerun it, `ledger show` has both",
                number,
            )
        case "within" | "beyond" | "different" if receipt.items is not None:
            items = receipt.items
            text = f"{what} made again {where}: {items.count} chunks differ by at most {items.largest:.3g} nats"
            declared = f"{tolerance:g} nats were declared"
            if receipt.outcome == "within":
                allowed = f" ({declared})" if items.largest else ""
                yield Row("proven", f"{text}{allowed}; the bytes are others, so they stay unconfirmed ({new})", entry=number)
            elif receipt.outcome == "beyond":
                yield Row("failed", f"{text}, {items.beyond} of them by more than allowed: {declared} ({new})", entry=number)
            else:
                hint = "say beforehand how much: --tolerance NATS"
                yield Row("unverified", f"{text}, and nothing says how much they may ({new})", hint, number)
        case "within" | "beyond" | "different":
            text = f"{what} made again {where} differs, and nothing says how much it may: {_differing(receipt)} ({new})"
            yield Row("unverified", text, "rerun it in the environment that it names: ledger show", number)
        case "undone":
            yield Row("unverified", f"{what} could not be made again: {receipt.reason}", entry=number)


def _confirmed(names: Sequence[str]) -> str:
    return f"confirmed by {len(names)}: {', '.join(names)}" if len(names) > 1 else "confirmed by nobody else"


def _differing(receipt: Receipt) -> str:
    pairs = sorted((receipt.differing or {}).items())
    words = [f"{name} {before or 'nothing'} before, {now or 'nothing'} now" for name, (before, now) in pairs[:3]]
    return "; ".join(words) + (f"; and {len(pairs) - 3} more" if len(pairs) > 3 else "")


def _some(texts: Sequence[str]) -> str:
    return "; ".join(texts[:3]) + (f"; and {len(texts) - 3} more" if len(texts) > 3 else "")


def _facts(receipt: Receipt) -> Mapping[str, Any]:
    of = receipt.of
    return {
        "of": of.entry.number,
        "key": of.action.key,
        "stage": of.action.stage,
        "outcome": receipt.outcome,
        "entry": receipt.number,
        "confirmed_by": receipt.confirmed_by,
        "differing": {name: {"recorded": before, "now": now} for name, (before, now) in (receipt.differing or {}).items()},
        "elsewhere": receipt.elsewhere,
        "items": receipt.items,
        "reason": receipt.reason or None,
    }

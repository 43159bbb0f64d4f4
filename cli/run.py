"""`ledger run`: do what a recipe asks for and the ledger does not know yet, and show it."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.compare import lines
from cli.errors import NoLedgerError, UsageError
from cli.options import PATH, common
from cli.output import Output, count, duration, many, place, table
from cli.workspace import Workspace, create, find, new_passphrase, refuse_foreign

if TYPE_CHECKING:
    from ledger.keys import Signer
    from stages.recipe import Recipe
    from stages.runner import RunOptions, RunResult


@click.command()
@click.argument("recipe", type=PATH)
@click.option("--jobs", "-j", type=click.IntRange(min=1), metavar="N", help="Actions at once. Default: one a core.")
@click.option("--threads", type=click.IntRange(min=1), default=1, metavar="N", help="Threads of each action; part of its environment.")
@click.option("--out", type=PATH, default=".", metavar="DIR", help="Where the alloy and the attestations go.")
@click.option("--dry-run", "-n", is_flag=True, help="Say what would be done; run and sign nothing.")
@click.option(
    "--environment",
    type=click.Choice(["any", "same"]),
    default="any",
    help="same: results that depend on the machine count only if they were made in this environment.",
)
@click.option("--llama-cpp", type=PATH, metavar="DIR", help="Your own llama.cpp build, for GPUs.")
@click.option("--key", metavar="NAME", help="The key that signs. Default: your only one that is trusted here.")
@click.option("--publish", is_flag=True, help="Then publish as the recipe's publish stage says; see `ledger publish`.")
@common
def run(
    recipe: Path,
    jobs: int | None,
    threads: int,
    out: Path,
    dry_run: bool,
    environment: str,
    llama_cpp: Path | None,
    key: str | None,
    publish: bool,
    ledger: Path | None,
    json: bool,
) -> int:
    """Do what a recipe asks for; whatever the ledger knows already is found, not done.

    Running again is resuming: after a crash or Ctrl-C, type the same command. The first run makes a ledger here if there is none.
    It ends by writing NAME.alloy.json and NAME.attestations.jsonl, which travel with the model.
    """
    from stages.recipe import load
    from stages.runner import RunOptions

    output = Output(json=json)
    asked = load(recipe)  # before anything is made: a typo leaves nothing behind
    if publish and not any(entry.type == "publish" for entry in asked.stages):
        raise UsageError(f"{place(recipe)} has no publish stage, so it does not say where to; add one, or run `ledger publish --to`")
    folder, signer = find(ledger), None
    if folder is None:
        if dry_run:
            raise NoLedgerError("there is no ledger here yet, so everything would be done; `ledger init` makes one, then this says what")
        made = create(ledger, key=key, passphrase=lambda: new_passphrase(ask=False))
        folder, signer = made.folder, made.signer
        output.aside(f"no ledger here yet: {made.sentence}")
    refuse_foreign(folder, ledger)
    workspace = Workspace(folder)
    tools = {"llama-cpp": str(llama_cpp.absolute())} if llama_cpp is not None else {}
    options = RunOptions(jobs or max(1, cores() // threads), threads=threads, tools=tools, environment=environment, out=out)
    if dry_run:
        return _plan(workspace, asked, options, output)
    code = _run(workspace, asked, options, signer or workspace.signer(key), output)
    if publish:
        from cli.publish import publish as command

        return int(click.get_current_context().invoke(command, target=asked.name, llama_cpp=llama_cpp, key=key, ledger=ledger, json=json))
    return code


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _plan(workspace: Workspace, recipe: Recipe, options: RunOptions, output: Output) -> int:
    from cli.progress import plan_line
    from stages.runner import Runner

    runner = Runner(workspace.folder, workspace.writable_store, workspace.log, workspace.policy, options=options)
    planned, nodes = runner.plan(recipe)
    lines = [f"plan  {plan_line(planned, me=_me(workspace), recipe=recipe.name)}"]
    counts: dict[str, Counter[str]] = {}
    for node, state in nodes:
        counts.setdefault(node.partition("/")[0], Counter())[state] += 1
    rows = [
        [f"  {group}", *(f"{count(told[state])} {state}" if told[state] else "" for state in _STATES)] for group, told in counts.items()
    ]
    lines += table(rows, "<>>>")
    output.show({"plan": planned, "actions": [{"node": node, "state": state} for node, state in nodes]}, lines)
    return 0


_STATES = ("found", "to do", "not known yet")


def _me(workspace: Workspace, signer: Signer | None = None) -> str:
    """What the policy here calls one's own key; it may be another name than the key file's."""
    from ledger.key_store import KeyStore

    own = {signer.public} if signer else {public for _, public, _ in KeyStore.default().list()}
    return next((name for name, public in workspace.policy.keys.items() if public in own), "")


def _run(workspace: Workspace, recipe: Recipe, options: RunOptions, signer: Signer, output: Output) -> int:
    from cli.progress import watcher
    from stages.runner import Runner

    log = workspace.signing_log(signer)
    watch = watcher(output, time.monotonic, me=_me(workspace, signer), recipe=recipe.name)
    runner = Runner(workspace.folder, workspace.writable_store, log, workspace.policy, options=options, on_event=watch)
    try:
        with watch:
            result = runner.run(recipe)
    except KeyboardInterrupt as stop:
        kept = len(watch.board.recorded)
        raise KeyboardInterrupt(
            f"interrupted: {many(kept, 'action')} of this run {'is' if kept == 1 else 'are'} kept; run again to go on"
        ) from stop
    report = _report(workspace, result)
    output.object({"event": "result", **{name: getattr(result, name) for name in result.__slots__}, "comparison": report})
    output.lines(lines({result.name: report}, output) if report else [])
    files = f"{place(result.alloy)} · {place(result.attestations)}"
    if result.done:
        output.line(f"{many(result.done, 'result')} signed · {duration(result.elapsed_s)} · {files}")
    else:
        output.line(f"all {count(result.found)} found, nothing done · {duration(result.elapsed_s)} · {files}")
    steps = [f"ledger verify {place(result.alloy)}"]
    steps += [f"ledger export {result.name} out/"] if result.outputs else []
    steps += ["ledger compare"] if report is not None else ["ledger log"]
    steps += _publishing(recipe, result)
    output.line("next: " + " · ".join(steps))
    return 0


def _publishing(recipe: Recipe, result: RunResult) -> list[str]:
    """How to publish what was made, if anything was that others load."""
    made = [(stage, name) for stage, named in result.outputs.items() for name in named]
    if not any(name.startswith("gguf-") or (name == "model" and not stage.startswith("import-model")) for stage, name in made):
        return []
    where = "" if any(entry.type == "publish" for entry in recipe.stages) else " --to hf:ORG/NAME"
    return [f"ledger publish {result.name}{where}"]


def _report(workspace: Workspace, result: RunResult) -> Mapping[str, Any] | None:
    from store import canonical

    if result.report is None:
        return None
    value = canonical.loads(workspace.store.read(result.report))
    return value if isinstance(value, dict) else None

"""`ledger show`: what an entry, an action or an object is, where it comes from, and who says so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.entries import EntryView
from cli.names import find_entry, find_object, latest_run, pins
from cli.options import common
from cli.output import Output, ago, dumps, duration, many, short, size, table
from cli.workspace import Workspace, open_here

if TYPE_CHECKING:
    from store.digest import Digest

_FILES_SHOWN = 40
_LONG = 100


@click.command()
@click.argument("target")
@common
def show(target: str, ledger: Path | None, json: bool) -> int:
    """What something in the ledger is: its spec, inputs, outputs, byproducts and signatures; a tree's files; a recipe's outputs.

    TARGET is the number of an entry, a DIGEST, a KEY, RECIPE, RECIPE:OUTPUT or a pin.

    Digests and keys may be abbreviated to four digits as long as only one thing begins so.
    """
    workspace, output = open_here(ledger), Output(json=json)
    now = datetime.now(UTC)
    entry = find_entry(workspace, target)
    if entry is not None:
        view = EntryView(entry, workspace.policy, workspace.log)
        output.show(entry_facts(view), lambda: entry_lines(view, workspace, output, now))
        return 0
    run = latest_run(workspace.folder, target)
    if run is not None:
        named = [(group, name, digest) for group, items in run.outputs.items() for name, digest in items.items()]
        facts = {"recipe": run.recipe, "run": run.id, "outputs": [{"stage": g, "output": n, "digest": str(d)} for g, n, d in named]}
        rows = [[f"{run.recipe}:{group}.{name}", _kind_and_size(workspace, digest), short(digest, 12)] for group, name, digest in named]
        output.show(facts, [f"{run.recipe}, run of {run.started_on}", *(f"  {line}" for line in table(rows))])
        return 0
    digest, _ = find_object(workspace, target)
    runs = [EntryView(entry, workspace.policy, workspace.log) for entry in workspace.log.lookup(digest)]
    if runs:
        output.object({"key": str(digest), "entries": [entry_facts(view) for view in runs]})
        for number, view in enumerate(runs):
            output.lines(["", *entry_lines(view, workspace, output, now)] if number else entry_lines(view, workspace, output, now))
        return 0
    facts = _object_facts(workspace, digest)
    output.show(facts, lambda: _object_lines(facts, workspace, digest, output, now))
    return 0


# --- an entry ------------------------------------------------------------------------------------------------------------------


def entry_facts(view: EntryView) -> dict[str, Any]:
    """Everything that an entry says, as JSON."""
    facts = view.facts()
    if view.action is not None and view.statement is not None:
        definition = view.statement.predicate["buildDefinition"]
        facts |= {"stage": view.action.stage, "version": view.action.version, "spec": view.action.spec}
        facts |= {"internal": definition.get("internalParameters"), "elapsed_s": view.elapsed_s, "byproducts": _byproducts(view)}
    elif view.statement is not None:
        facts |= {"predicate_type": view.statement.predicate_type, "predicate": view.statement.predicate}
    return facts


def entry_lines(view: EntryView, workspace: Workspace, output: Output, now: datetime) -> Iterable[str]:
    """Everything that an entry says, for people."""
    entry = view.entry
    yield output.paint(f"entry {entry.number}  {entry.message}", "bold")
    signers, reason = view.trust
    who = output.paint(f"signed by {' and '.join(signers)}, trusted by {workspace.policy.source}", "green") if signers else ""
    yield f"  {who or output.paint('not trusted: ' + reason, 'red')}"
    recipe = f" · in a run of {view.recipe}" if view.recipe else ""
    took = f" · took {duration(view.elapsed_s)}" if view.elapsed_s else ""
    yield f"  {view.when:%Y-%m-%d %H:%M} UTC, {ago(view.when, now)}{recipe}{took}"
    if view.statement is None:
        return
    if view.action is not None:
        yield f"  action   {view.action.key}"
        yield f"  stage    {view.action.stage} version {view.action.version}"
        yield from _block("spec", [[name, _value(value)] for name, value in sorted(view.action.spec.items())])
        yield from _block(
            "inputs", [_object_row(workspace, name, digest, entry.number) for name, digest in sorted(view.action.inputs.items())]
        )
        yield from _block(
            "outputs", [_object_row(workspace, name, digest, None) for name, digest in sorted(view.statement.subjects.items())]
        )
        yield from _block("noted", [[name, _value(value)] for name, value in sorted(_flat(_byproducts(view)).items())])
        internal = view.statement.predicate["buildDefinition"].get("internalParameters") or {}
        purity = {"P": "the same bytes anywhere", "E": "the same bytes in the same environment"}.get(str(internal.get("purity")), "?")
        environment = f" {short(internal['environmentDigest'], 12)}" if internal.get("environmentDigest") else ""
        yield f"  purity   {internal.get('purity')}: {purity}{environment}"
    else:
        yield f"  says     {view.statement.predicate_type}"
        yield from _block("about", [_object_row(workspace, name, digest, None) for name, digest in sorted(view.statement.subjects.items())])
        yield from _block("that", [[name, _value(value)] for name, value in sorted(view.statement.predicate.items())])
    yield f"  commit   {entry.commit}"


def _byproducts(view: EntryView) -> dict[str, Any]:
    from ledger import predicates
    from ledger.errors import VerificationError

    try:
        return predicates.byproducts_of(view.statement) if view.statement is not None else {}
    except VerificationError as error:
        return {"unreadable": str(error)}


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    notes = values.get("notes")
    rest = {name: value for name, value in values.items() if name != "notes"}
    return rest | (dict(notes) if isinstance(notes, Mapping) else {} if notes is None else {"notes": notes})


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else dumps(value)
    return text if len(text) <= _LONG else f"{text[: _LONG - 20]}... ({many(len(text), 'character')}; --json has all)"


def _block(title: str, rows: list[list[str]]) -> Iterable[str]:
    for number, line in enumerate(table(rows)):
        yield f"  {title if number == 0 else '':<8} {line}"


def _object_row(workspace: Workspace, name: str, digest: Digest, before: int | None) -> list[str]:
    made = [entry.number for entry in workspace.log.by_subject(digest) if before is None or entry.number < before]
    origin = f"from entry {made[0]}" if made and before is not None else ""
    return [name, short(digest, 12), _kind_and_size(workspace, digest), origin]


def _kind_and_size(workspace: Workspace, digest: Digest) -> str:
    from store import tree

    store = workspace.store
    if not store.has(digest):
        return "not in the store"
    if tree.is_tree(store, digest):
        files = tree.load(store, digest)
        return f"{many(len(files.entries), 'file')}, {size(files.size)}"
    return size(store.size(digest))


# --- an object -----------------------------------------------------------------------------------------------------------------


def _object_facts(workspace: Workspace, digest: Digest) -> dict[str, Any]:
    from store import tree

    store = workspace.store
    facts: dict[str, Any] = {"digest": str(digest), "present": store.has(digest)}
    if facts["present"]:
        facts |= {"size_bytes": store.size(digest), "stored_bytes": store.stored_bytes(digest), "splice": store.is_splice(digest)}
        if tree.is_tree(store, digest):
            content = tree.load(store, digest)
            facts["size_bytes"] = content.size
            facts["files"] = [
                {"path": item.path, "size_bytes": item.size, "digest": str(item.digest), "present": store.has(item.digest)}
                for item in content.entries
            ]
    facts["said"] = [EntryView(entry, workspace.policy, workspace.log).facts() for entry in workspace.log.by_subject(digest)]
    facts["used_by"] = [EntryView(entry, workspace.policy, workspace.log).facts() for entry in workspace.log.by_material(digest)]
    facts["pins"] = [name for name, pinned in pins(workspace.folder).items() if pinned == digest]
    return facts


def _object_lines(facts: Mapping[str, Any], workspace: Workspace, digest: Digest, output: Output, now: datetime) -> Iterable[str]:
    yield output.paint(str(digest), "bold")
    if not facts["present"]:
        yield "  not in the store; pull it from a remote, or run the recipe that makes it"
    elif "files" in facts:
        absent = sum(not item["present"] for item in facts["files"])
        yield f"  a tree of {many(len(facts['files']), 'file')}, {size(facts['size_bytes'])}" + (
            f", {absent} of them not here" if absent else ""
        )
        rows = [[item["path"], size(item["size_bytes"]), short(item["digest"], 12)] for item in facts["files"][:_FILES_SHOWN]]
        yield from (f"    {line}" for line in table(rows, "<>"))
        if len(facts["files"]) > _FILES_SHOWN:
            yield f"    and {len(facts['files']) - _FILES_SHOWN} more; --json has all"
    else:
        kept = f", kept as ranges of other objects: {size(facts['stored_bytes'])} on disk" if facts["splice"] else ""
        yield f"  a blob of {size(facts['size_bytes'])}{kept}"
    for title, entries in (("made or described by", workspace.log.by_subject(digest)), ("used by", workspace.log.by_material(digest))):
        if entries:
            yield f"  {title}"
            yield from (
                f"    {line}"
                for line in table([EntryView(entry, workspace.policy, workspace.log).row(output, now) for entry in entries], ">>")
            )
    if not facts["said"] and not facts["used_by"]:
        yield "  nothing in the ledger speaks of it"
    if facts["pins"]:
        yield f"  pinned as {', '.join(facts['pins'])}"

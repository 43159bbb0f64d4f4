"""`ledger why`: the nearest action that the ledger knows, compared field by field.

The comparison itself is pure: it sees actions, not a ledger.

>>> from store.actions import Action
>>> six, five = (Action("expert-prune", 1, {"keep": keep, "strategy": "reap"}) for keep in (6, 5))
>>> [(item.field, item.before, item.now) for item in compare(six, five) if not item.same]
[('spec.keep', 6, 5)]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from cli.entries import EntryView
from cli.errors import UsageError
from cli.names import find_digest, find_entry, looks_like_digest
from cli.options import common
from cli.output import Output, ago, dumps, many, short, table
from cli.workspace import Workspace, open_here
from store.actions import Action
from store.digest import Digest


class _Absent:
    """A field that one of the two does not have."""

    def __repr__(self) -> str:
        return "absent"


ABSENT: Final = _Absent()


@dataclass(frozen=True, slots=True)
class Difference:
    """One field of two actions.

    Attributes:
        field: `version`, `spec.<name>` or `inputs.<name>`; deeper values by dots and indexes.
        before: its value in the known action; now: in the one that is asked about. `ABSENT` where there is none.
    """

    field: str
    before: Any
    now: Any

    @property
    def same(self) -> bool:
        """Whether the two agree here."""
        return type(self.before) is type(self.now) and bool(self.before == self.now)


def compare(known: Action, asked: Action) -> tuple[Difference, ...]:
    """Every field of both, equal or not: the stage's version first, then the spec, then the inputs."""
    before, now = _fields(known), _fields(asked)
    names = [*now, *(name for name in before if name not in now)]
    return tuple(Difference(name, before.get(name, ABSENT), now.get(name, ABSENT)) for name in sorted(names, key=_order))


T = TypeVar("T")


def nearest(asked: Action, known: Iterable[tuple[Action, T]]) -> tuple[Action, T] | None:
    """The known action of the same stage that differs in the fewest fields; of equally near ones the last.

    An action of the same key is not a neighbour: it is the answer, and is passed over.
    """
    best: tuple[int, tuple[Action, T]] | None = None
    for action, where in known:
        if action.stage != asked.stage or action.key == asked.key:
            continue
        distance = sum(not item.same for item in compare(action, asked))
        if best is None or distance <= best[0]:
            best = distance, (action, where)
    return best[1] if best else None


def _order(name: str) -> tuple[int, str]:
    return ("version", "spec", "inputs").index(name.partition(".")[0]), name


def _fields(action: Action) -> dict[str, Any]:
    fields: dict[str, Any] = {"version": action.version}
    _flatten(action.spec, "spec", fields)
    for name, digest in action.inputs.items():
        fields[f"inputs.{name}"] = str(digest)
    return fields


def _flatten(value: Any, where: str, into: dict[str, Any]) -> None:
    if isinstance(value, Mapping):
        for name in sorted(value):
            _flatten(value[name], f"{where}.{name}", into)
    elif isinstance(value, (list, tuple)) and any(isinstance(item, (Mapping, list, tuple)) for item in value):
        for number, item in enumerate(value):
            _flatten(item, f"{where}[{number}]", into)
    else:
        into[where] = list(value) if isinstance(value, tuple) else value


# --- the command ---------------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("target")
@common
def why(target: str, ledger: Path | None, json: bool) -> int:
    """Why an action had to run, or will have to: how it differs from the nearest action that the ledger knows, field by field.

    TARGET is a KEY (or its first digits), the number of an entry, RECIPE or RECIPE:STAGE.

    RECIPE is a recipe's file: every action that would run is explained; RECIPE:STAGE only those of one stage.
    """
    workspace, output = open_here(ledger), Output(json=json)
    file, _, stage = target.rpartition(":") if ":" in target and not Path(target).is_file() else (target, "", "")
    asked = _of_recipe(workspace, Path(file), stage) if Path(file).is_file() else [_of_log(workspace, target)]
    recorded = Recorded(workspace)
    answers = [_answer(recorded, *question) for question in asked]
    output.object({"answers": [answer.facts() for answer in answers]})
    output.lines(_told(answers, output))
    return 0


@dataclass(frozen=True)
class Answer:
    """Why one action ran or must run.

    Attributes:
        node: what the recipe calls it, or nothing.
        entry: of the trusted result, if there is one. ignored: entries that do not count, each with the reason.
        neighbour: the nearest known action and its entry. rows: the two compared; notes: what is known about inputs that differ.
    """

    node: str
    action: Action
    entry: int | None
    ignored: tuple[tuple[int, str], ...]
    neighbour: EntryView | None
    rows: tuple[Difference, ...]
    notes: Mapping[str, str]

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        nearest = None if self.neighbour is None else {"entry": self.neighbour.entry.number, "key": str(_key(self.neighbour))}
        rows = [
            {"field": row.field, "same": row.same}
            | ({} if row.before is ABSENT else {"before": row.before})
            | ({} if row.now is ABSENT else {"now": row.now})
            for row in self.rows
        ]
        return {
            "node": self.node or None,
            "stage": self.action.stage,
            "key": str(self.action.key),
            "entry": self.entry,
            "ignored": [{"entry": number, "reason": reason} for number, reason in self.ignored],
            "nearest": nearest,
            "fields": rows,
        }


Question = tuple[str, "Action", "int | None"]


def _of_recipe(workspace: Workspace, file: Path, stage: str) -> list[Question]:
    from stages.recipe import load
    from stages.runner import Runner, RunOptions

    runner = Runner(workspace.folder, workspace.writable_store, workspace.log, workspace.policy, options=RunOptions(jobs=1))
    everything = runner.examine(load(file))
    groups = list(dict.fromkeys(node.partition("/")[0] for node, _, _ in everything))
    chosen = [item for item in everything if not stage or item[0] == stage or item[0].startswith(f"{stage}/") or item[1].stage == stage]
    if stage and not chosen:
        raise UsageError(f"no action of {stage!r} is known yet in {file}; known are {', '.join(groups)}")
    return [(node, action, hit.entry.number if hit else None) for node, action, hit in chosen if stage or hit is None]


def _of_log(workspace: Workspace, target: str) -> Question:
    from ledger.lookup import find

    entry = find_entry(workspace, target)
    if entry is not None:
        entries = [entry]
    elif looks_like_digest(target):
        digest = find_digest(workspace, target)
        entries = workspace.log.lookup(digest) or workspace.log.by_subject(digest)
    else:
        raise UsageError(
            f"{target!r} is no recipe file here, no entry and no key; `ledger log` shows keys, `ledger run -n RECIPE` what is to do"
        )
    action = next(
        (view.action for entry in entries if (view := EntryView(entry, workspace.policy, workspace.log)).action is not None), None
    )
    if action is None:
        raise UsageError(f"no action in the ledger is meant by {target}; for one that did not run yet: ledger why RECIPE:STAGE")
    hit = find(workspace.log, workspace.policy, action)
    return "", action, hit.entry.number if hit else None


_SEARCHED = 20_000
"""Among so many of the newest actions a neighbour is looked for."""


class Recorded:
    """The recorded actions, read once and only when they are asked for."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    @cached_property
    def _by_stage(self) -> dict[str, list[tuple[Action, EntryView]]]:
        found: dict[str, list[tuple[Action, EntryView]]] = {}
        actions = self.workspace.log.actions()
        for number, _ in actions[-_SEARCHED:]:
            view = EntryView(self.workspace.log.entry(number), self.workspace.policy, self.workspace.log)
            if view.action is not None:
                found.setdefault(view.action.stage, []).append((view.action, view))
        return found

    def before(self, stage: str, number: int) -> list[tuple[Action, EntryView]]:
        """Those of a stage that were there before an entry, oldest first."""
        return [(action, view) for action, view in self._by_stage.get(stage, ()) if view.entry.number < number]


def _answer(recorded: Recorded, node: str, action: Action, entry: int | None) -> Answer:
    from ledger.lookup import sift

    workspace = recorded.workspace
    _, ignored = sift(workspace.log.lookup(action.key), workspace.policy)
    neighbour = nearest(action, recorded.before(action.stage, workspace.log.size if entry is None else entry))
    rows = compare(neighbour[0], action) if neighbour else ()
    notes = {row.field: _origins(workspace, row) for row in rows if row.field.startswith("inputs.") and not row.same}
    reasons = tuple((item.entry.number, str(item.reason)) for item in ignored)
    return Answer(node, action, entry, reasons, neighbour[1] if neighbour else None, rows, notes)


def _origins(workspace: Workspace, row: Difference) -> str:
    def of(value: Any) -> str:
        made = [] if value is ABSENT else workspace.log.by_subject(Digest.parse(value))
        return f"entry {made[0].number}" if made else "absent" if value is ABSENT else "from outside"

    return f"{of(row.before)} → {of(row.now)}"


def _key(view: EntryView) -> Digest:
    assert view.action is not None  # neighbours are actions
    return view.action.key


_TOLD = 6


def _told(answers: Sequence[Answer], output: Output) -> Iterable[str]:
    if not answers:
        yield "nothing has to run: every action that is known so far is in the ledger"
        return
    for number, answer in enumerate(answers[:_TOLD]):
        if number:
            yield ""
        yield from _one(answer, output)
    if len(answers) > _TOLD:
        yield ""
        yield f"and {many(len(answers) - _TOLD, 'more action')}; `ledger why RECIPE:STAGE` for one stage, --json for all"


def _one(answer: Answer, output: Output) -> Iterable[str]:
    name = " ".join(dict.fromkeys(filter(None, (answer.node, answer.action.stage))))
    head = f"{output.paint(name, 'bold')} {short(answer.action.key)}"
    if answer.entry is not None:
        yield f"{head} is entry {answer.entry}: it is found, and does not run again."
    elif answer.ignored:
        yield f"{head} is in the ledger, but what is there does not count:"
        yield from (f"  entry {number}: {reason}" for number, reason in answer.ignored)
    else:
        yield f"{head} is not in the ledger."
    if answer.neighbour is None:
        yield (
            "No other action of this stage was there before it." if answer.entry is not None else "No other action of this stage is there."
        )
        return
    recipe = f"{answer.neighbour.recipe}, " if answer.neighbour.recipe else ""
    age = ago(answer.neighbour.when, datetime.now(UTC))
    where = f"entry {answer.neighbour.entry.number}, {recipe}{age}"
    yield f"Nearest{' before it' if answer.entry is not None else ''}: {short(_key(answer.neighbour))} ({where})"
    rows = [[row.field, *_sides(row, output), answer.notes.get(row.field, "")] for row in answer.rows]
    yield from (f"  {line}" for line in table(rows))


def _sides(row: Difference, output: Output) -> tuple[str, str, str]:
    if row.same:
        return output.paint("same", "dim"), "", ""
    return output.paint(_shown(row.before), "red"), "→", output.paint(_shown(row.now), "green")


def _shown(value: Any) -> str:
    if isinstance(value, str) and value.startswith("sha256:"):
        return short(value) + ".."
    text = value if isinstance(value, str) else repr(value) if value is ABSENT else dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."

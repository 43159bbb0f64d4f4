"""Why an action has to run: the nearest action that the ledger knows, compared field by field.

The comparison is pure: it sees actions, not a ledger.

>>> from store.actions import Action
>>> six, five = (Action("expert-prune", 1, {"keep": keep, "strategy": "reap"}) for keep in (6, 5))
>>> [(item.field, item.before, item.now) for item in compare(six, five) if not item.same]
[('spec.keep', 6, 5)]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from store.actions import Action


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
    return ("version", "spec", "inputs").index(name.partition(".")[0].partition("[")[0]), name


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

"""Entry points by kind: stages, families, formats, benchmarks, strategies, answerers, combiners. Our own come through a stranger's door.

The name is the contract: kebab-case (or a model type, a format's own name), recorded in attestations, never reused.
Nothing is imported before it is asked for. Entry points exist only once the project is installed (`make dev`).
"""

from __future__ import annotations

import difflib
from functools import cache
from importlib import metadata
from typing import Any

from stages.errors import PluginError

_ONE = {
    "stages": "stage",
    "families": "family",
    "formats": "format",
    "benchmarks": "benchmark",
    "strategies": "strategy",
    "answerers": "answerer",
    "combiners": "combiner",
}
KINDS = tuple(_ONE)


@cache
def _points(kind: str) -> dict[str, metadata.EntryPoint]:
    if kind not in KINDS:
        raise PluginError(f"no kind of plug-in is called {kind!r}; there are {', '.join(KINDS)}")
    found: dict[str, metadata.EntryPoint] = {}
    for point in sorted(metadata.entry_points(group=f"alloy_ledger.{kind}"), key=lambda item: (item.name, item.value)):
        other = found.get(point.name)
        if other is not None and other.value != point.value:
            raise PluginError(f"two packages register {point.name!r} as one of the {kind}: {_owner(other)} and {_owner(point)}; remove one")
        found[point.name] = point
    if kind == "stages" and not found:
        raise PluginError("no stages are registered: the project is not installed; run `make dev` (or `pip install -e .`)")
    return found


def _owner(point: metadata.EntryPoint) -> str:
    return f"{point.dist.name if point.dist else 'an unknown package'} ({point.value})"


def names(kind: str) -> tuple[str, ...]:
    """Every registered name of a kind, sorted."""
    return tuple(_points(kind))


def unknown(kind: str, name: str) -> str:
    """In words, that nothing of a kind is registered under a name: the nearest one, and all."""
    points = _points(kind)
    near = difflib.get_close_matches(name, points, n=1)
    return (
        f"no {_ONE[kind]} is called {name!r}" + (f"; did you mean {near[0]!r}?" if near else ".") + f" Known: {', '.join(points) or 'none'}"
    )


def load(kind: str, name: str) -> Any:
    """Import what a name stands for.

    Raises:
        PluginError: nothing has that name (the nearest is offered), two packages claim it, or its module does not import.
    """
    points = _points(kind)
    if name not in points:
        raise PluginError(unknown(kind, name))
    try:
        return points[name].load()
    except (ImportError, AttributeError) as error:
        raise PluginError(f"{kind} {name!r} from {_owner(points[name])} does not load: {error}") from error

"""Quantise a model into a format's types: which nodes that takes is the format's affair (`stages.formats`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages import plugins
from stages.errors import PluginError, RecipeError, SpecError
from stages.formats.format import Format
from stages.stage import Composite, Graph, Input, Node, Ref
from store.cas import Cas


@dataclass(frozen=True, slots=True, kw_only=True)
class Quant:
    """What to make."""

    types: tuple[str, ...]
    """Types of the format, such as F16 and Q4_K_M."""
    format: str = "gguf"


def wanted(spec: Quant) -> tuple[Format, tuple[str, ...]]:
    """The format, and the types as it spells them, each once.

    Raises:
        PluginError: no such format.
        SpecError: a type that it does not know (the known ones are listed), or none at all.
    """
    found: Format = plugins.load("formats", spec.format)
    spelled = {name.upper(): name for name in found.types}
    unknown = [name for name in spec.types if name.upper() not in spelled]
    if unknown:
        raise SpecError(f"format {found.name} has no type {', '.join(unknown)}; known: {', '.join(found.types)}")
    if not spec.types:
        raise SpecError(f"quant needs at least one type of {found.name}: {', '.join(found.types)}")
    return found, tuple(dict.fromkeys(spelled[name.upper()] for name in spec.types))


def expand(spec: Quant, inputs: Mapping[str, Input], store: Cas) -> Graph:
    """The format's own graph.

    Raises:
        PluginError, SpecError: as `wanted`.
    """
    found, types = wanted(spec)
    return found.graph(types, inputs["model"])


def lower(call: Any) -> Any:
    """The recipe form: one node, whose outputs are named by the types.

    Raises:
        RecipeError: an unknown format, type or key, with the line.
    """
    from stages import lowering

    spec, paths = lowering.bind(call.entry, STAGE)
    try:
        found, types = wanted(spec)
    except (SpecError, PluginError) as error:
        raise RecipeError(f"{call.entry.where('quantTypes' if isinstance(error, SpecError) else 'format')}{error}") from error
    node = Node(call.id, STAGE.name, spec, lowering.wire(call, STAGE, paths))
    return lowering.Lowered((node,), {found.output(kind): Ref(call.id, found.output(kind)) for kind in types})


STAGE = Composite(
    name="quant",
    spec=Quant,
    inputs=("model",),
    outputs=("*",),
    reads=(),
    expand=expand,
    keys={"quantTypes": "types"},
    described=("deviceTargets", "tool", "tiers"),
    lower=lower,
)

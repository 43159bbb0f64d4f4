"""Publish a model: where a recipe says it should go. `ledger run` publishes nothing; `ledger publish` does, when a person asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.stage import Composite, Graph, Input
from store.cas import Cas


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish:
    """Where to, and how it is described.

    Attributes:
        org: of the Hub. repo_name_template: `{base}`, `{domain}`, `{name}` and `{variant}` are filled in.
        include_alloy, card_from_benchmarks: always so here; false is refused.
        tags: of the card, besides those that follow from what was done. private: who may see it.
    """

    org: str
    repo_name_template: str = "{name}"
    include_alloy: bool = True
    card_from_benchmarks: bool = True
    tags: tuple[str, ...] = ()
    private: bool = False


def expand(spec: Publish, inputs: Mapping[str, Input], store: Cas) -> Graph:
    """Nothing is computed."""
    return Graph((), {})


def lower(call: Any) -> Any:
    """The recipe form: checked, and no work."""
    from stages import lowering

    lowering.bind(call.entry, STAGE)
    return lowering.Lowered((), {})


STAGE = Composite(
    name="publish",
    spec=Publish,
    inputs=(),
    outputs=(),
    reads=(),
    expand=expand,
    described=("cardHash", "notes"),
    lower=lower,
)

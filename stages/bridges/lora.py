"""LoRA of the target's queries and values, from outside: by hooks, so that the target's own numbers stay as they are.

Source: Hu et al., arXiv:2106.09685.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from stages.bridges.twin import LowRank
from stages.errors import SpecError

Layout = Literal["apart", "interleaved", "joined"]


@dataclass(frozen=True, slots=True)
class Projections:
    """Where a layer of the target makes queries and values, as names of modules below the layer.

    Attributes:
        query: module that gives the queries, or queries, keys and values together.
        value: module that gives the values.
        layout: `apart`: two modules; `interleaved`: one, with q, k, v of each head together (GPT-NeoX); `joined`: one, all q, all k, all v.
        inputs, queries, values: sizes.
        heads: of the queries.
    """

    query: str
    value: str
    layout: Layout
    inputs: int
    queries: int
    values: int
    heads: int

    def spread(self, query: Tensor, value: Tensor) -> Tensor:
        """What is added to the output of the one module that gives all: zero for the keys."""
        if self.layout == "interleaved":
            query, value = (part.reshape(*part.shape[:-1], self.heads, -1) for part in (query, value))
            return torch.stack([query, torch.zeros_like(query), value], dim=-2).flatten(-3)
        return torch.cat([query, torch.zeros_like(value), value], dim=-1)


def find(layer: nn.Module, heads: int, kv_heads: int, head_dim: int) -> Projections:
    """Where a decoder layer has them.

    Raises:
        SpecError: under none of the names known here.
    """
    queries, values = heads * head_dim, kv_heads * head_dim
    linears = {name.rsplit(".", 1)[-1]: name for name, module in layer.named_modules() if isinstance(module, nn.Linear)}
    layouts: tuple[tuple[str, str, Layout], ...] = (
        ("q_proj", "v_proj", "apart"),
        ("query_key_value", "query_key_value", "interleaved"),
        ("qkv_proj", "qkv_proj", "joined"),
    )
    for query, value, layout in layouts:
        if query in linears and value in linears:
            module = layer.get_submodule(linears[query])
            assert isinstance(module, nn.Linear)
            made = queries if layout == "apart" else queries + 2 * values
            if module.out_features != made:
                break
            return Projections(linears[query], linears[value], layout, module.in_features, queries, values, heads)
    raise SpecError(f"no queries and values are found in {type(layer).__name__} ({', '.join(sorted(linears))}): set loraRank: 0")


class Lora(nn.Module):
    """Pairs of low rank for each of the given layers; 0 at the start, exactly."""

    def __init__(self, places: Sequence[Projections], rank: int, alpha: float, generator: torch.Generator) -> None:
        super().__init__()
        self.query = nn.ModuleList(LowRank(place.inputs, place.queries, rank, alpha, generator) for place in places)
        self.value = nn.ModuleList(LowRank(place.inputs, place.values, rank, alpha, generator) for place in places)

    @staticmethod
    def count(places: Sequence[Projections], rank: int) -> int:
        """Trained numbers."""
        return sum(rank * (2 * place.inputs + place.queries + place.values) for place in places)

"""A composite: `width` chains of `depth` shouts, then one count over all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from acme_ledger.count import Count
from acme_ledger.shout import Shout
from stages.stage import Composite, Graph, Input, Node, Ref
from store.cas import Cas


@dataclass(frozen=True, slots=True, kw_only=True)
class Fan:
    """How wide and how deep."""

    width: int
    depth: int = 1


def expand(spec: Fan, inputs: Mapping[str, Input], store: Cas) -> Graph:
    """One chain per lane."""
    nodes: list[Node] = []
    ends: dict[str, Input] = {}
    for lane in range(spec.width):
        source = inputs["text"]
        for step in range(spec.depth):
            node = Node(f"shout-{lane:03}-{step:03}", "acme-shout", Shout(number=lane * 1000 + step), {"text": source})
            nodes.append(node)
            source = Ref(node.id, "text")
        ends[f"part-{lane:03}"] = source
    nodes.append(Node("count", "acme-count", Count(), ends))
    return Graph(tuple(nodes), {"total": Ref("count", "total"), "text": ends["part-000"]})


STAGE = Composite(name="acme-fan", spec=Fan, inputs=("text",), outputs=("total", "text"), reads=(), expand=expand)

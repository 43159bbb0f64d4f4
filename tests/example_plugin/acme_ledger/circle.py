"""A composite whose nodes wait for each other: a fault that only shows when the graph is worked on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from acme_ledger.shout import Shout
from stages.stage import Composite, Graph, Input, Node, Ref
from store.cas import Cas


@dataclass(frozen=True, slots=True, kw_only=True)
class Circle:
    """Nothing to choose."""


def expand(spec: Circle, inputs: Mapping[str, Input], store: Cas) -> Graph:
    """Two shouts, each of the other's text."""
    nodes = (Node("a", "acme-shout", Shout(), {"text": Ref("b", "text")}), Node("b", "acme-shout", Shout(), {"text": Ref("a", "text")}))
    return Graph(nodes, {"text": Ref("a", "text")})


STAGE = Composite(name="acme-circle", spec=Circle, inputs=("text",), outputs=("text",), reads=(), expand=expand)

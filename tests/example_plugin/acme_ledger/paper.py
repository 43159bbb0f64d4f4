"""A format: its one type shouts the model."""

from __future__ import annotations

from acme_ledger.shout import Shout
from stages.formats.format import Format
from stages.stage import Graph, Input, Node, Ref


def graph(types: tuple[str, ...], model: Input) -> Graph:
    """One shout per type."""
    nodes = tuple(Node(kind, "acme-shout", Shout(number=number), {"text": model}) for number, kind in enumerate(types))
    return Graph(nodes, {FORMAT.output(kind): Ref(kind, "text") for kind in types})


FORMAT = Format(name="acme-paper", types=("A4", "A5"), graph=graph)

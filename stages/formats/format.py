"""What a format of quantised models is, for plug-ins of the group `alloy_ledger.formats`.

    FORMAT = Format(name="my-format", types=("INT4", "INT8"), graph=graph)

    def graph(types: tuple[str, ...], model: Input) -> Graph:
        nodes = tuple(Node(name, "my-quantize", MyQuantize(type=name), {"model": model}) for name in types)
        return Graph(nodes, {f"my-format-{name}": Ref(name, "file") for name in types})

`graph` is called with known types only, each once. Its outputs are named `<format>-<TYPE>`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stages.stage import Graph, Input


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A format.

    Attributes:
        name: as recipes write it; also the prefix of its outputs.
        types: known types, in the order in which they are shown.
        graph: `graph(types, model)` gives the nodes that make these types of a model tree.
    """

    name: str
    types: tuple[str, ...]
    graph: Callable[[tuple[str, ...], Input], Graph]

    def output(self, kind: str) -> str:
        """Name of the output of one type: `gguf-Q4_K_M`."""
        return f"{self.name}-{kind}"

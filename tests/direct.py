"""Run a stage here and now, without a ledger: a leaf as it is, a composite node by node. For tests of what stages compute."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages import plugins
from stages.context import LeafContext
from stages.graph import check_names
from stages.stage import Composite, Input, Node, Ref, spec_from_json, spec_to_json
from store.cas import Cas
from store.digest import Digest


class Direct:
    """Stages over one store.

    Attributes:
        ran: (node id, input digests, output digests) of every leaf, in order.
        context: the one context of all leaves; its notes are of the last one, `notes` keeps all.
    """

    def __init__(self, store: Cas, folder: Path) -> None:
        self.store = store
        self.context = LeafContext(store, folder / "scratch", folder / "keep")
        self.ran: list[tuple[str, Mapping[str, Digest], Mapping[str, Digest]]] = []
        self.notes: dict[str, dict[str, Any]] = {}

    def run(self, stage: str, spec: Any, inputs: Mapping[str, Digest], node: str = "") -> Mapping[str, Digest]:
        """The outputs of a stage."""
        declared = plugins.load("stages", stage)
        if isinstance(declared, Composite):
            graph = declared.expand(spec, inputs, self.store)
            done: dict[str, Mapping[str, Digest]] = {}
            waiting = list(graph.nodes)
            while waiting:
                ready = next(item for item in waiting if all(not isinstance(i, Ref) or i.node in done for i in item.inputs.values()))
                waiting.remove(ready)
                done[ready.id] = self.run(ready.stage, ready.spec, self._inputs(ready, done), ready.id)
            return {name: _resolved(source, done) for name, source in graph.outputs.items()}
        assert set(spec_to_json(spec)) == {field for field in spec.__dataclass_fields__}
        spec = spec_from_json(declared.spec, spec_to_json(spec))  # as a worker gets it
        module, _, name = declared.run.partition(":")
        self.context = self.context.fresh(self.context.scratch)
        outcome = getattr(importlib.import_module(module), name)(spec, inputs, self.context)
        check_names(f"outputs of {stage}", outcome.outputs, declared.outputs)
        self.ran.append((node or stage, dict(inputs), dict(outcome.outputs)))
        self.notes[node or stage] = dict(self.context.notes)
        return dict(outcome.outputs)

    def _inputs(self, node: Node, done: Mapping[str, Mapping[str, Digest]]) -> dict[str, Digest]:
        return {name: _resolved(source, done) for name, source in node.inputs.items()}


def _resolved(source: Input, done: Mapping[str, Mapping[str, Digest]]) -> Digest:
    return done[source.node][source.output] if isinstance(source, Ref) else source

"""Put what was read for a bridge together as one tree, block by block; no byte of it is copied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stages.stage import Context, Leaf, Outcome
from store.digest import Digest
from store.tree import Tree, TreeEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeGather:
    """Nothing to choose."""


STAGE = Leaf(
    name="bridge-gather",
    version=1,
    spec=BridgeGather,
    inputs=("tokens-*", "states-*", "held-out-*", "handoff-*", "bytes-*"),
    outputs=("readings",),
    purity="P",
    run="stages.bridge_gather:run",
)


def run(spec: BridgeGather, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Make a tree with an entry for every input, of its name: `tokens-00000`, `states-<model>-00000`, ..."""
    entries = [TreeEntry(name, digest, context.store.size(digest)) for name, digest in inputs.items()]
    return Outcome({"readings": context.store.put(Tree.of(entries).to_bytes())})

"""Put aligned blocks of states together as one tree; no byte of them is copied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stages.errors import InputError
from stages.stage import Context, Leaf, Outcome
from store.digest import Digest
from store.tree import Tree, TreeEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class GatherStates:
    """Nothing to choose."""


STAGE = Leaf(
    name="gather-states",
    version=1,
    spec=GatherStates,
    inputs=("aligned-*",),
    outputs=("aligned",),
    purity="P",
    run="stages.gather_states:run",
)


def run(spec: GatherStates, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Make the tree `00000.safetensors`, ... in the order of the blocks.

    Raises:
        InputError: blocks of different models or layers.
    """
    from stages import align_states
    from stages.many_worlds import tensor_file

    names = sorted(inputs)
    heads = [tensor_file.read_head(context.path(inputs[name]), align_states.FORM) for name in names]
    for name, head in zip(names, heads, strict=True):
        if head != heads[0]:
            raise InputError(f"{name} is of {head}, {names[0]} of {heads[0]}: they cannot be put together")
    entries = [TreeEntry(f"{n:05d}.safetensors", inputs[name], context.store.size(inputs[name])) for n, name in enumerate(names)]
    return Outcome({"aligned": context.store.put(Tree.of(entries).to_bytes())})

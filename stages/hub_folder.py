"""Files by their names as one tree. Pure bookkeeping: no byte of a file is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stages.stage import Context, Leaf, Outcome
from store.digest import Digest
from store.tree import Tree, TreeEntry

PREFIX = "file-"
"""Before the path of each file, in the names of the inputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFolder:
    """Nothing to choose: the inputs say it all."""


STAGE = Leaf(
    name="hub-folder",
    version=1,
    spec=HubFolder,
    inputs=(PREFIX + "*",),
    outputs=("folder",),
    purity="P",
    run="stages.hub_folder:run",
)


def run(spec: HubFolder, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Make the tree."""
    store = context.store
    made = Tree.of(TreeEntry(name.removeprefix(PREFIX), digest, store.size(digest)) for name, digest in inputs.items())
    return Outcome({"folder": store.put(made.to_bytes())})

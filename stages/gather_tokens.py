"""Join the tokens of several corpus files: for each domain, the files' ids one after another, in the order of the inputs' names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stages.errors import InputError
from stages.stage import Context, Leaf, Outcome
from store import tree
from store.digest import Digest
from store.tree import Tree, TreeEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class GatherTokens:
    """Nothing to choose."""


STAGE = Leaf(
    name="gather-tokens",
    version=1,
    spec=GatherTokens,
    inputs=("tokens-*",),
    outputs=("tokens",),
    purity="P",
    run="stages.gather_tokens:run",
)


def run(spec: GatherTokens, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Make the tree of all domains; a domain of one file keeps its blob.

    Raises:
        InputError: nothing to join, or a domain has ids of two widths (two tokenizers).
    """
    parts: dict[str, list[TreeEntry]] = {}
    for name in sorted(inputs):
        for entry in tree.load(context.store, inputs[name]).entries:
            parts.setdefault(entry.path, []).append(entry)
    if len({path.partition(".")[0] for path in parts}) != len(parts) or not parts:
        raise InputError(f"token files {', '.join(sorted(parts)) or '(none)'} do not come from one tokenizer")
    entries = []
    for path in sorted(parts):
        digest = parts[path][0].digest
        if len(parts[path]) > 1:
            with context.store.writer() as writer:
                for part in parts[path]:
                    writer.write(context.store.read(part.digest))
                digest = writer.finish()
        entries.append(TreeEntry(path, digest, sum(part.size for part in parts[path])))
    return Outcome({"tokens": context.store.put(Tree(tuple(entries)).to_bytes())})

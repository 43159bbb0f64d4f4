"""Take the tokenizer's files out of a model tree: a model and what was pruned from it then share all that depends on it alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stages.errors import InputError
from stages.hf_tokenizer import FILES
from stages.stage import Context, Leaf, Outcome
from store import tree
from store.digest import Digest
from store.tree import Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerOfModel:
    """Nothing to choose."""


STAGE = Leaf(
    name="tokenizer-of-model",
    version=1,
    spec=TokenizerOfModel,
    inputs=("model",),
    outputs=("tokenizer",),
    purity="P",
    run="stages.tokenizer_of_model:run",
)


def run(spec: TokenizerOfModel, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Make the tree of the files in `stages.hf_tokenizer.FILES`.

    Raises:
        InputError: the model has none.
    """
    entries = tree.load(context.store, inputs["model"]).entries
    kept = tuple(entry for entry in entries if entry.path in FILES)
    if not kept:
        raise InputError(
            f"model {inputs['model'].short} has no tokenizer: none of {', '.join(FILES)} is among {', '.join(e.path for e in entries[:8])}"
        )
    return Outcome({"tokenizer": context.store.put(Tree(kept).to_bytes())})

"""Perplexity of a GGUF file as llama-perplexity defines it: cut the tokens, one action per block of chunks, merge. See docs/perplexity.md.

Blocks are cut from the beginning and are always whole where the text allows, so a quick evaluation (`chunks=10`) is a prefix of the
full one, and equal blocks are found whatever run computed them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from stages import token_blocks
from stages.errors import InputError, SpecError
from stages.perplexity_block import PerplexityBlock
from stages.perplexity_merge import PerplexityMerge
from stages.stage import Composite, Graph, Input, Node, Ref
from stages.token_blocks import TokenBlocks
from stages.tokens import BYTES_PER_TOKEN
from store.cas import Cas
from store.digest import Digest

LEAST_CHUNKS = 2
"""llama-perplexity refuses a shorter text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Perplexity:
    """How to evaluate."""

    n_ctx: int = 512
    """Tokens of a chunk; the second half of each is scored."""
    chunks: int | None = None
    """Chunks that count, from the beginning; None for all."""
    block_chunks: int = 8
    """Chunks per action."""
    kv: Literal["F32", "F16"] = "F32"
    """Number type of the key-value cache."""
    flash: bool = False
    """Flash attention. With F16 it is llama-perplexity's default; F32 without it agrees with transformers."""


def expand(spec: Perplexity, inputs: Mapping[str, Input], store: Cas) -> Graph:
    """`token-blocks` cuts, one `perplexity-block` evaluates each block, `perplexity-merge` joins.

    Raises:
        SpecError: n_ctx, chunks or block_chunks make no sense.
        InputError: the text is too short.
    """
    if spec.n_ctx < 4 or spec.block_chunks < 1 or (spec.chunks is not None and spec.chunks < 1):
        raise SpecError(
            f"perplexity needs n_ctx >= 4, block_chunks >= 1 and chunks >= 1; got {spec.n_ctx}, {spec.block_chunks}, {spec.chunks}"
        )
    tokens = inputs["tokens"]
    if not isinstance(tokens, Digest):
        raise SpecError("the tokens must be there before it is known how many blocks they make")
    length = store.size(tokens) // BYTES_PER_TOKEN
    there = length // spec.n_ctx
    if there < LEAST_CHUNKS:
        raise InputError(
            f"the text has {length:,} tokens; perplexity with n_ctx {spec.n_ctx} needs at least "
            f"{LEAST_CHUNKS * spec.n_ctx:,} ({LEAST_CHUNKS} chunks): take a longer text or a smaller n_ctx"
        )
    counted = min(there, spec.chunks or there)
    cut = TokenBlocks(n_ctx=spec.n_ctx, block_chunks=spec.block_chunks)
    evaluated = -(-counted // spec.block_chunks)
    measure = PerplexityBlock(n_ctx=spec.n_ctx, kv=spec.kv, flash=spec.flash)
    nodes = [
        Node(
            f"nll-{number:05d}",
            "perplexity-block",
            measure,
            {"gguf": inputs["gguf"], "tokens": Ref("blocks", token_blocks.name(number))},
            f"block {number + 1}/{evaluated}",
        )
        for number in range(evaluated)
    ]
    merge = Node(
        "merge",
        "perplexity-merge",
        PerplexityMerge(n_ctx=spec.n_ctx, chunks=counted),
        {"gguf": inputs["gguf"], "tokens": tokens, "dataset": inputs["dataset"]} | {node.id: Ref(node.id, "nll") for node in nodes},
    )
    return Graph(
        (Node("blocks", "token-blocks", cut, {"tokens": tokens}), *nodes, merge),
        {"metrics": Ref("merge", "metrics"), "nll": Ref("merge", "nll")},
    )


STAGE = Composite(
    name="perplexity",
    spec=Perplexity,
    inputs=("gguf", "tokens", "dataset"),
    outputs=("metrics", "nll"),
    reads=("tokens",),
    expand=expand,
)

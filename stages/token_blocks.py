"""Cut a token file into blocks of whole chunks, each an object of its own, so that equal blocks are found whoever needed them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stages.errors import InputError
from stages.stage import Context, Leaf, Outcome
from stages.tokens import BYTES_PER_TOKEN
from store.digest import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBlocks:
    """Where to cut."""

    n_ctx: int
    block_chunks: int


STAGE = Leaf(
    name="token-blocks",
    version=1,
    spec=TokenBlocks,
    inputs=("tokens",),
    outputs=("tokens-*",),
    purity="P",
    run="stages.token_blocks:run",
)


def count(spec: TokenBlocks, size_bytes: int) -> int:
    """How many blocks a token file of this size gives; the last may hold fewer chunks."""
    chunks = size_bytes // BYTES_PER_TOKEN // spec.n_ctx
    return -(-chunks // spec.block_chunks)


def name(number: int) -> str:
    """The output of a block: `tokens-00003`."""
    return f"tokens-{number:05d}"


def run(spec: TokenBlocks, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Cut from the beginning; tokens after the last whole chunk are dropped.

    Raises:
        InputError: the file does not hold one chunk.
    """
    data = context.store.read(inputs["tokens"])
    chunk = spec.n_ctx * BYTES_PER_TOKEN
    whole = len(data) // chunk * chunk
    if not whole:
        raise InputError(f"{len(data) // BYTES_PER_TOKEN} tokens do not make one chunk of {spec.n_ctx}")
    step = chunk * spec.block_chunks
    blocks = [data[start : min(start + step, whole)] for start in range(0, whole, step)]
    return Outcome({name(number): context.store.put(block) for number, block in enumerate(blocks)})

"""The nll of every scored token in a few chunks of a text, by llama.cpp, from one GGUF file."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from stages import gguf_file, tokens, toolchain
from stages.errors import InputError
from stages.nll import Nll
from stages.stage import Context, Leaf, Outcome
from stages.toolchain import Window
from store.digest import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class PerplexityBlock:
    """How to evaluate; see `stages.perplexity`."""

    n_ctx: int
    kv: Literal["F32", "F16"]
    flash: bool


STAGE = Leaf(
    name="perplexity-block",
    version=1,
    spec=PerplexityBlock,
    inputs=("gguf", "tokens"),
    outputs=("nll",),
    purity="E",
    run="stages.perplexity_block:run",
    share=("gguf",),
    environment=toolchain.ENVIRONMENT,
)


def run(spec: PerplexityBlock, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Evaluate chunk after chunk, each from an empty cache, BOS in place of its first token where the vocabulary says so.

    Raises:
        InputError: the GGUF file is not whole, or the tokens are another tokenizer's.
        ToolError: llama.cpp failed.
    """
    ids = tokens.unpack(context.store.read(inputs["tokens"]), "block of tokens")
    if not ids or len(ids) % spec.n_ctx:
        raise InputError(f"a block of {len(ids)} tokens is not a number of chunks of {spec.n_ctx}")
    chunks = [ids[start : start + spec.n_ctx] for start in range(0, len(ids), spec.n_ctx)]
    chain = toolchain.choose(context.tools, context.memo)
    gguf = context.path(inputs["gguf"])
    known = f"perplexity-block:{inputs['gguf']}"
    if known not in context.memo:
        gguf_file.check(gguf)
        context.memo[known] = toolchain.bos_of(chain, gguf)
    bos: int | None = context.memo[known]
    window = Window(spec.n_ctx, spec.kv, spec.flash)
    started = time.perf_counter()
    values: list[float] = []
    for done, chunk in enumerate(chain.nll(gguf, chunks, window, bos=bos, threads=toolchain.threads()), start=1):
        values += chunk
        context.progress(done, len(chunks), "chunks")
    result = Nll(
        n_ctx=spec.n_ctx,
        chunks=len(chunks),
        bos=bos,
        kv=spec.kv,
        flash=spec.flash,
        resolution=chain.resolution,
        tokens=inputs["tokens"],
        toolchains=(chain.label(),),
        values=values,
    )
    context.note("tokens", len(ids))
    context.note("tokens_per_s", f"{len(ids) / max(time.perf_counter() - started, 1e-9):.1f}")
    return Outcome({"nll": context.store.put(result.to_bytes())})

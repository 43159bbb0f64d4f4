"""Join the blocks of one evaluation into perplexity with its errors, and state it about the GGUF file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ledger.predicates import EVALUATION
from stages import metrics
from stages.errors import InputError
from stages.nll import Nll
from stages.stage import Claim, Context, Leaf, Outcome
from stages.tokens import BYTES_PER_TOKEN
from stages.toolchain import Window
from store import canonical
from store.digest import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class PerplexityMerge:
    """What counts."""

    n_ctx: int
    chunks: int
    """The first so many chunks; blocks may hold more."""


STAGE = Leaf(
    name="perplexity-merge",
    version=1,
    spec=PerplexityMerge,
    inputs=("gguf", "tokens", "dataset", "nll-*"),
    outputs=("metrics", "nll"),
    purity="P",
    run="stages.perplexity_merge:run",
)


def run(spec: PerplexityMerge, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Join, compute, and claim.

    Raises:
        InputError: blocks that were evaluated differently, that are not the tokens' own, or too few of them.
    """
    names = sorted(name for name in inputs if name.startswith("nll-"))
    blocks = [Nll.parse(context.store.read(inputs[name])) for name in names]
    merged = merge(blocks, context.store.read(inputs["tokens"]), spec)
    if len(merged.toolchains) > 1:
        context.warn(f"blocks of this evaluation were measured by different builds: {', '.join(merged.toolchains)}")
    numbers = summary(merged)
    content = {
        "benchmark": "perplexity",
        "dataset": {"digest": {"sha256": inputs["dataset"].hex}},
        "tokens": {"digest": {"sha256": merged.tokens.hex}, "scored": len(merged.values)},
        "metrics": {
            key: numbers[key]
            for key in ("perplexity", "low", "high", "stderrClustered", "stderrIid", "meanNllNats")
            if numbers[key] is not None
        },
        "settings": {
            "nCtx": merged.n_ctx,
            "chunks": merged.chunks,
            "bos": merged.bos,
            "kv": merged.kv,
            "flash": merged.flash,
            "resolution": merged.resolution,
        },
        "toolchains": list(merged.toolchains),
    }
    context.note("summary", f"perplexity {float(numbers['perplexity']):.4g}")
    return Outcome(
        {"metrics": context.store.put(canonical.dumps(content)), "nll": context.store.put(merged.to_bytes())},
        (Claim({"gguf": inputs["gguf"]}, EVALUATION, content),),
    )


def merge(blocks: list[Nll], tokens: bytes, spec: PerplexityMerge) -> Nll:
    """The first `spec.chunks` chunks of consecutive blocks as one result.

    Args:
        blocks: in order.
        tokens: the whole token file, of which the blocks must be consecutive slices from the beginning.
        spec: how many chunks count.

    Raises:
        InputError: see `run`.
    """
    if not blocks:
        raise InputError("no blocks to merge")
    width, scored = spec.n_ctx * BYTES_PER_TOKEN, Window(spec.n_ctx).scored
    values: list[float] = []
    at = 0
    for number, block in enumerate(blocks):
        if block.settings != blocks[0].settings or block.n_ctx != spec.n_ctx:
            raise InputError(
                f"block {number} was evaluated with {dict(block.settings)}, block 0 with {dict(blocks[0].settings)}: they cannot be joined"
            )
        piece = tokens[at * width : (at + block.chunks) * width]
        if Digest.of(piece) != block.tokens:
            raise InputError(f"block {number} evaluated tokens {block.tokens.short}, the text has {Digest.of(piece).short} there")
        values += block.values
        at += block.chunks
    if at < spec.chunks:
        raise InputError(f"{len(blocks)} blocks hold {at} chunks; {spec.chunks} are wanted")
    return Nll(
        n_ctx=spec.n_ctx,
        chunks=spec.chunks,
        bos=blocks[0].bos,
        kv=blocks[0].kv,
        flash=blocks[0].flash,
        resolution="chunk" if any(block.resolution == "chunk" for block in blocks) else "token",
        tokens=Digest.of(tokens[: spec.chunks * width]),
        toolchains=tuple(sorted({name for block in blocks for name in block.toolchains})),
        values=values[: spec.chunks * scored],
    )


def summary(result: Nll) -> dict[str, Any]:
    """Perplexity with its errors, as decimal text.

    `stderrClustered` (by chunk) is the honest one; `stderrIid` is what llama-perplexity prints, None where only chunk means are known.
    `low` and `high` are the 95 % interval: exp of mean nll -+ t(chunks - 1) clustered standard errors.
    """
    center = metrics.mean(result.values)
    value = metrics.perplexity(result.values)
    clustered = metrics.clustered_stderr(result.values, result.chunks)
    iid = metrics.iid_stderr(result.values) if result.resolution == "token" else None
    low, high = metrics.perplexity_interval(result.values, result.chunks)
    return {
        "meanNllNats": metrics.text(center),
        "perplexity": metrics.text(value),
        "stderrClustered": None if clustered is None else metrics.text(value * clustered),
        "stderrIid": None if iid is None else metrics.text(value * iid),
        "low": metrics.text(low),
        "high": metrics.text(high),
    }

"""The spec of a bridge, and the versions v1 to v12 as values of it.

Where a number was chosen for models of 1.7 to 4 billion parameters (rank 256, 16 tokens), it is what it was; take `dataclasses.replace` for
smaller models. No torch here: the runner reads it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from stages.errors import SpecError

Inject = Literal["residual", "cross-attention", "soft-prompt", "cache"]
Reader = Literal["linear", "attention", "q-former", "fusion", "prompt"]
Pool = Literal["none", "mean", "last"]
Norm = Literal["free", "scaled", "pinned", "vocabulary"]
Gate = Literal["none", "confidence", "uncertainty"]
Place = Literal["front", "seam"]
Objective = Literal["next-token", "align", "align-mse"]
SourceLayer = Literal["two-thirds", "last"]

_READERS: Mapping[Inject, tuple[Reader, ...]] = MappingProxyType(
    {
        "residual": ("linear",),
        "cross-attention": ("attention",),
        "soft-prompt": ("linear", "q-former", "prompt"),
        "cache": ("fusion",),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeSpec:
    """Everything about a bridge that can change what comes out, except the models and the seed."""

    inject: Inject = "soft-prompt"
    """How it reaches the target: a vector added to its hidden states, attention of its hidden states to the field, vectors in place of
    token embeddings, or additions to its keys and values."""
    reader: Reader = "q-former"
    """What makes that of the field. `prompt` reads no source: trained vectors of the same number, the control of equal size."""
    dim: int = 256
    """d, of the space between models, and of the reader."""
    rank: int = 256
    """r, of each source's Project, and of Read (residual), and inside each layer's fusion (cache)."""
    pool: Pool = "none"
    """The field as one vector a source: the `mean` over its tokens, or its `last` token's; `none` keeps every token."""
    substrate: bool = False
    """Whether points go through the Gaussian substrate (written as weights over Gaussians, and read back) or are Project's means."""
    gaussians: int = 128
    """Of the substrate."""
    soft_tokens: int = 16
    """k, in place of embeddings."""
    place: Place = "front"
    """Where they stand: before the prefix, as all versions had it, or at the `seam` between the prefix and what follows."""
    heads: int = 4
    """Of attention in the reader."""
    layers: int = 2
    """Of the Q-Former."""
    positions: bool = True
    """Whether a Q-Former or cross-attention is told how far each source token is from the end of the prefix. Without, the order of the
    source's tokens cannot matter, since attention sums over them."""
    norm: Norm = "free"
    """Of soft tokens: as they come; together `scaled` to the target's mean embedding norm; each `pinned` to it; or mixtures of the target's
    `vocabulary`."""
    temperature: float = 1.0
    """Of the first softmax over the vocabulary, whose scores have a spread of 1 at the start; it is trained."""
    gate: Gate = "none"
    """`confidence`: a trained share, .2689 at the start. `uncertainty`: exactly 0 where the target is certain."""
    threshold: float = 0.5
    """Of the uncertainty gate: nothing is injected where the target's entropy / log V is at most this."""
    scale: float = 1.0
    """What a cross-attention is multiplied with; and a residual at the start, where it is trained."""
    lora_rank: int = 0
    """Of LoRA on q and v in the target's layers after the insertion; 0 for none. Even."""
    lora_alpha: float = 64.0
    """LoRA is multiplied with alpha / rank."""
    insert_layer: int | None = None
    """A residual or cross-attention acts after so many of the target's layers; None for floor(2 L / 3)."""
    source_layer: SourceLayer = "two-thirds"
    """Which states of a source are its field."""
    objective: Objective = "next-token"
    """What training makes small: the target's loss on what follows; or how far what is added lies from the target's own states over what
    follows, as 1 - cosine or as a mean square (`BridgedTarget.align`)."""

    def __post_init__(self) -> None:
        for name in ("dim", "rank", "gaussians", "soft_tokens", "heads", "layers"):
            if getattr(self, name) < 1:
                raise SpecError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.reader not in _READERS[self.inject]:
            raise SpecError(f"inject: {self.inject} has the reader {' or '.join(_READERS[self.inject])}, not {self.reader}")
        if self.dim % (2 * self.heads):
            raise SpecError(f"dim is {self.dim}; it must be a multiple of twice the {self.heads} heads")
        if self.reader == "linear" and self.pool == "none":
            raise SpecError("the reader linear takes one vector of a source: say pool: mean or pool: last")
        if self.reader in ("q-former", "fusion", "prompt") and self.pool != "none":
            raise SpecError(f"the reader {self.reader} takes every token of a source, so pool must be none")
        if self.rank % 2 or self.lora_rank % 2 or self.lora_rank < 0:
            raise SpecError("rank and lora_rank must be even: what starts at zero is made of two equal halves")
        if self.lora_rank and self.inject != "cross-attention":
            raise SpecError("lora_rank goes with inject: cross-attention")
        if self.substrate and self.inject == "cache":
            raise SpecError("inject: cache has no path through the substrate")
        if self.norm != "free" and self.inject != "soft-prompt":
            raise SpecError(f"norm: {self.norm} is of soft prompts; inject is {self.inject}")
        if self.norm == "vocabulary" and self.reader != "q-former":
            raise SpecError("norm: vocabulary goes with the reader q-former")
        if self.gate == "confidence" and self.reader not in ("q-former", "attention"):
            raise SpecError("gate: confidence goes with the readers q-former and attention")
        if self.gate == "uncertainty" and not self.reads_sources:
            raise SpecError("gate: uncertainty decides whether sources are asked, and the reader prompt asks none")
        if self.objective != "next-token" and self.inject not in ("residual", "cross-attention"):
            raise SpecError(f"objective: {self.objective} needs something added to hidden states: inject residual or cross-attention")
        if not 0 <= self.threshold <= 1:
            raise SpecError(f"threshold is {self.threshold}; entropy / log V lies between 0 and 1")
        if self.temperature <= 0:
            raise SpecError(f"temperature is {self.temperature}; it must be above 0")
        if self.insert_layer is not None and self.insert_layer < 1:
            raise SpecError(f"insert_layer is {self.insert_layer}; what is added comes after layer 1 or later")

    @property
    def reads_sources(self) -> bool:
        """Whether any source has a say."""
        return self.reader != "prompt"


def prompt_of(spec: BridgeSpec) -> BridgeSpec:
    """The control of equal size: as many vectors at the same place, trained alike, without any source."""
    return BridgeSpec(reader="prompt", soft_tokens=spec.soft_tokens, place=spec.place)


_CROSS = BridgeSpec(inject="cross-attention", reader="attention", substrate=True, objective="align")
_V7 = dataclasses.replace(_CROSS, objective="next-token", lora_rank=32, source_layer="last")
_V9 = BridgeSpec(reader="linear", pool="mean", source_layer="last")
_V11 = BridgeSpec()
_V12 = dataclasses.replace(_V11, norm="vocabulary", gate="confidence")

VERSIONS: Mapping[str, BridgeSpec] = MappingProxyType(
    {
        "v1": BridgeSpec(inject="residual", reader="linear", pool="last", substrate=True, scale=0.01),
        "v2": BridgeSpec(inject="residual", reader="linear", pool="last", substrate=True, scale=1.0),
        "v3": dataclasses.replace(_CROSS, rank=64, objective="align-mse", gate="confidence"),
        "v4": dataclasses.replace(_CROSS, rank=64, objective="align-mse"),
        "v5": dataclasses.replace(_CROSS, rank=64),
        "v6": _CROSS,
        "v7": _V7,
        "v8": dataclasses.replace(_V7, pool="mean"),
        "v9": _V9,
        "v10": dataclasses.replace(_V9, norm="scaled"),
        "v11": _V11,
        "v11b": dataclasses.replace(_V11, norm="pinned"),
        "v12": _V12,
        "v12u": dataclasses.replace(_V12, gate="uncertainty"),
        "c2c": BridgeSpec(inject="cache", reader="fusion"),
    }
)
"""By name. Several sources are no version: any of these takes them."""

WHAT: Mapping[str, str] = MappingProxyType(
    {
        "v1": "Read(point) added to hidden states at two thirds of the depth, times .01",
        "v2": "the same, times 1",
        "v3": "hidden states attend to the field, behind a gate of its own; trained towards states of the target, mean square",
        "v4": "v3 without the gate",
        "v5": "v4 with a cosine for the mean square",
        "v6": "v5 with rank 256 for 64",
        "v7": "v6 trained on the next token, with LoRA on q and v of all layers behind, from the source's last layer",
        "v8": "v7 with the field's mean for its tokens",
        "v9": "16 soft tokens, a linear map of the mean of the source's last states",
        "v10": "v9 scaled to the target's mean embedding norm, in training and evaluation alike",
        "v11": "16 queries of a Q-Former make the soft tokens from the states at two thirds of the depth, token by token",
        "v11b": "v11 with each soft token's norm pinned",
        "v12": "v11 with each soft token a mixture of the target's own embeddings, and a trained gate to their mean",
        "v12u": "v12 with the target's own uncertainty as the gate",
        "c2c": "the source's states added to the target's keys and values, token by token and layer by layer",
    }
)
"""Each in a line."""

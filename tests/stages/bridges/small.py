"""Small random targets of three families, and prefixes with sources that have read them."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import torch
from torch import Tensor

from stages.bridges.bridge import Bridge, build
from stages.bridges.field import Field, of_rows
from stages.bridges.spec import VERSIONS, BridgeSpec, prompt_of
from stages.bridges.target import BridgedTarget

FAMILIES = ("llama", "gpt_neox", "mixtral")
VOCABULARY, HIDDEN = 96, 32
PREFIXES = (5, 7, 3)
"""Lengths of the prefixes of the three rows."""
WIDTHS = (24, 40)
"""Of two sources' states."""


@cache
def model(family: str = "llama") -> Any:
    """A random model, the same for all tests: none may change it."""
    from transformers import AutoConfig, AutoModelForCausalLM

    fields = {"vocab_size": VOCABULARY, "hidden_size": HIDDEN, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    fields |= {"max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 1}
    if family != "gpt_neox":
        fields["num_key_value_heads"] = 2
    if family == "phi3":
        fields["pad_token_id"] = 0
    if family == "mixtral":
        fields["num_local_experts"] = 4
    made = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **fields), dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, parameter in sorted(made.named_parameters()):
            if parameter.dim() > 1:
                parameter.normal_(0.0, 2 / parameter.shape[-1] ** 0.5, generator=generator)
    return made


def spec_of(name: str, **change: Any) -> BridgeSpec:
    """A version, or `prompt`, in small."""
    spec = prompt_of(VERSIONS["v11"]) if name == "prompt" else VERSIONS[name]
    rank = {"rank": 16, "lora_rank": min(spec.lora_rank, 4), "lora_alpha": 8.0, "threshold": 0.1}
    return dataclasses.replace(spec, **({"dim": 32, "gaussians": 16, "soft_tokens": 4} | rank | change))


def bridged(spec: BridgeSpec, family: str = "llama", widths: tuple[int, ...] = WIDTHS, seed: int = 0) -> tuple[BridgedTarget, Bridge]:
    """A target and a bridge to it."""
    target = BridgedTarget(model(family), spec)
    return target, build(spec, target, widths, seed)


def texts() -> tuple[Tensor, Tensor]:
    """(ids (3, 12), scored): three rows of other lengths."""
    ids = torch.randint(0, VOCABULARY, (3, 12), generator=torch.Generator().manual_seed(1))
    scored = torch.zeros(3, 12, dtype=torch.bool)
    for row, (start, stop) in enumerate(zip(PREFIXES, (9, 12, 6), strict=True)):
        scored[row, start:stop] = True
    return ids, scored


def fields_of(widths: tuple[int, ...] = WIDTHS, lengths: tuple[int, ...] = PREFIXES) -> list[Field]:
    """What sources of these widths say about prefixes of these lengths."""
    return [
        of_rows([torch.randn(length, width, generator=torch.Generator().manual_seed(100 * number + length)) for length in lengths])
        for number, width in enumerate(widths)
    ]


def said(bridge: Bridge) -> list[Field]:
    """The fields that a bridge of `bridged` takes."""
    return fields_of() if bridge.spec.reads_sources else []


def moved(bridge: Bridge, seed: int = 0) -> None:
    """Take a bridge away from its start, where a cache bridge adds zeros and gates do not yet look."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for item in bridge.parameters():
            item.add_(0.1 * torch.randn(item.shape, generator=generator))

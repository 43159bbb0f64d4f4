"""Qwen2-MoE and Qwen3-MoE: `mlp.experts`, some layers may be dense, Qwen2's shared expert stays as it is."""

from collections.abc import Iterable, Mapping
from typing import Any

from stages.families.family import Family


def sparse_layers(config: Mapping[str, Any]) -> Iterable[int]:
    """Every `decoder_sparse_step`-th layer, but none of `mlp_only_layers`. Source: transformers, Qwen3MoeDecoderLayer."""
    step = int(config.get("decoder_sparse_step") or 1)
    dense = set(config.get("mlp_only_layers") or ())
    return [layer for layer in range(int(config["num_hidden_layers"])) if layer not in dense and (layer + 1) % step == 0]


FAMILY = Family(
    name="qwen-moe",
    model_types=("qwen3_moe", "qwen2_moe"),
    layout="mlp-experts-unfused",
    experts=("model.layers.{layer}.mlp.experts.{expert}.{part}",),
    rows=("model.layers.{layer}.mlp.gate.weight",),
    moe_layers=sparse_layers,
)

"""DeepSeek-V2 and V3: the first layers are dense, shared experts stay as they are, V3's router has a correction bias per expert."""

from collections.abc import Iterable, Mapping
from typing import Any

from stages.families.family import Family


def routed_layers(config: Mapping[str, Any]) -> Iterable[int]:
    """Layers from `first_k_dense_replace` on, every `moe_layer_freq`-th. Source: DeepSeek's modeling_deepseek.py."""
    first = int(config.get("first_k_dense_replace") or 0)
    every = int(config.get("moe_layer_freq") or 1)
    return [layer for layer in range(first, int(config["num_hidden_layers"])) if layer % every == 0]


FAMILY = Family(
    name="deepseek",
    model_types=("deepseek_v2", "deepseek_v3"),
    layout="deepseek-routed-shared",
    experts=("model.layers.{layer}.mlp.experts.{expert}.{part}",),
    rows=("model.layers.{layer}.mlp.gate.weight",),
    optional_rows=("model.layers.{layer}.mlp.gate.e_score_correction_bias",),
    moe_layers=routed_layers,
    beyond_key="num_nextn_predict_layers",
)

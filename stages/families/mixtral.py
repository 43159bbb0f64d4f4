"""Mixtral and Phi-3.5-MoE: `block_sparse_moe`, one w1 (gate), w2 (down), w3 (up) per expert."""

from stages.families.family import Family

FAMILY = Family(
    name="mixtral",
    model_types=("mixtral", "phimoe"),
    layout="block_sparse_moe-unfused",
    experts=("model.layers.{layer}.block_sparse_moe.experts.{expert}.{part}",),
    rows=("model.layers.{layer}.block_sparse_moe.gate.weight",),
)

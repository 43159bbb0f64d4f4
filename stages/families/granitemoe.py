"""Granite MoE: the experts of a layer are stacked on axis 0 of one tensor each."""

from stages.families.family import Family

FAMILY = Family(
    name="granitemoe",
    model_types=("granitemoe", "granitemoeshared"),
    layout="granite-moe-fused",
    rows=(
        "model.layers.{layer}.block_sparse_moe.router.layer.weight",
        "model.layers.{layer}.block_sparse_moe.input_linear.weight",
        "model.layers.{layer}.block_sparse_moe.output_linear.weight",
    ),
)

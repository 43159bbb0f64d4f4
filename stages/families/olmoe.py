"""OLMoE: `mlp.experts` in every layer."""

from stages.families.family import Family

FAMILY = Family(
    name="olmoe",
    model_types=("olmoe",),
    layout="mlp-experts-unfused",
    experts=("model.layers.{layer}.mlp.experts.{expert}.{part}",),
    rows=("model.layers.{layer}.mlp.gate.weight",),
)

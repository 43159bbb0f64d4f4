"""A family: tensors with names like nobody else's."""

from stages.families.family import Family

FAMILY = Family(
    name="acme",
    model_types=("acme_moe",),
    layout="acme-specialists-unfused",
    experts=("acme.{layer}.specialists.{expert}.{part}",),
    rows=("acme.{layer}.switchboard",),
)

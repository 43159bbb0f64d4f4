"""Drop the least salient experts of every mixture-of-experts layer: choose, prune each shard, assemble.

Source: REAP (arXiv:2510.13999) for the default strategy; the others are in `stages.strategies`. The profile comes from
`expert-activation-profile`.
Everything that can be refused is refused here, from config.json and the shards' headers, before any action runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stages import families, plugins
from stages.errors import SpecError
from stages.expert_select import ExpertSelect, check_counts
from stages.families import family as counts
from stages.prune_assemble import PruneAssemble
from stages.prune_shard import PruneShard
from stages.stage import Composite, Graph, Input, Node, Ref
from stages.tensors import read_config, read_headers, weight_files
from store import tree
from store.cas import Cas
from store.digest import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertPrune:
    """What to prune."""

    keep_experts: int
    """Experts kept in each layer (a count, not a fraction; the same for every layer, as no runtime loads anything else)."""
    strategy: str = "reap"
    """A registered strategy."""
    seed: int = 0
    """Of strategies that draw."""


def expand(spec: ExpertPrune, inputs: Mapping[str, Input], store: Cas) -> Graph:
    """`expert-select`, one `prune-shard` per weight file, `prune-assemble`.

    Raises:
        SpecError: a count that cannot work, with the arithmetic.
        PluginError: no such strategy, or no family for the model.
        InputError: the model is not complete.
    """
    model = inputs["model"]
    if not isinstance(model, Digest):
        raise SpecError("the model must be there before its shards are known")
    source = tree.load(store, model)
    config = read_config(store, source)
    experts = counts.expert_count(config)
    check_counts(spec.keep_experts, experts, counts.top_k(config), counts.groups(config))
    plugins.load("strategies", spec.strategy)
    family = families.find(config)
    headers = read_headers(store, source)
    family.census((item.name for header in headers.values() for item in header.tensors), config, experts)

    select = Node(
        "select",
        "expert-select",
        ExpertSelect(keep=spec.keep_experts, strategy=spec.strategy, seed=spec.seed),
        {"profile": inputs["profile"], "model": model},
        f"choose {spec.keep_experts} of {experts} by {spec.strategy}",
    )
    plan = Ref("select", "plan")
    files = weight_files(source)
    shards = [
        Node(
            f"shard-{number:05d}",
            "prune-shard",
            PruneShard(family=family.name),
            {"shard": item.digest, "plan": plan, "config": source.entry("config.json").digest},
            item.path,
        )
        for number, item in enumerate(files)
    ]
    parts: dict[str, Input] = {"model": model, "plan": plan, **{node.id: Ref(node.id, "shard") for node in shards}}
    assemble = Node("assemble", "prune-assemble", PruneAssemble(family=family.name), parts, f"{experts}→{spec.keep_experts}")
    return Graph((select, *shards, assemble), {"model": Ref("assemble", "model"), "plan": plan})


STAGE = Composite(
    name="expert-prune",
    spec=ExpertPrune,
    inputs=("model", "profile"),
    outputs=("model", "plan"),
    reads=("model",),
    expand=expand,
    keys={"keepExpertsPerLayer": "keep_experts", "keepExperts": "keep_experts"},
    described=(
        "originalExpertsPerLayer",
        "selectionStrategy",
        "importanceJson",
        "metric",
        "metricSource",
        "profileDataset",
        "profileSteps",
        "expertTensorLayout",
        "calibrationCorpus",
        "perLayerNormalized",
        "prunePct",
        "expertsDropped",
        "expertsRenamed",
        "routerSlicedLayers",
        "implementation",
        "rationale",
        "notes",
    ),
)

"""Choose the experts of every layer that stay: a plan, from a profile and a strategy. Pure.

The plan is canonical JSON, `{"type":"expert-plan/v1","strategy","seed","keep","experts","top_k","groups","layers":[...]}`; each layer has
`kept` (ids, ascending), `scores` (decimal text, one per expert) and `margin` (decimal text: lowest kept score minus highest dropped one).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.errors import InputError, SpecError
from stages.stage import Context, Leaf, Outcome
from store import canonical
from store.digest import Digest
from store.errors import CanonicalError

TYPE = "expert-plan/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertSelect:
    """How to choose. Every field changes the plan."""

    keep: int
    """Experts kept in each layer (a count, the same for every layer)."""
    strategy: str = "reap"
    """A registered strategy."""
    seed: int = 0
    """Of strategies that draw; others ignore it."""


STAGE = Leaf(
    name="expert-select",
    version=1,
    spec=ExpertSelect,
    inputs=("profile", "model"),
    outputs=("plan",),
    purity="P",
    run="stages.expert_select:run",
)


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan that was read back.

    Attributes:
        kept: layer -> ids of its kept experts, ascending.
        experts: how many each layer had.
    """

    keep: int
    experts: int
    kept: Mapping[int, tuple[int, ...]]


def check_counts(keep: int, experts: int, top_k: int, groups: int = 1) -> None:
    """Refuse a count that cannot work.

    Raises:
        SpecError: with the arithmetic.
    """
    if not 1 <= keep <= experts:
        raise SpecError(f"cannot keep {keep} of {experts} experts per layer: keep must be from {top_k} (the router's top-k) to {experts}")
    if keep < top_k:
        raise SpecError(
            f"cannot keep {keep} experts per layer: the router picks {top_k} for each token, and {keep} < {top_k}; keep at least {top_k}"
        )
    if keep % groups:
        raise SpecError(
            f"cannot keep {keep} experts per layer: the router chooses among {groups} equal groups, and {keep} / {groups} is not whole; "
            f"keep {keep - keep % groups} or {keep - keep % groups + groups}"
        )


def choose(scores: Sequence[float], keep: int, groups: int = 1) -> tuple[tuple[int, ...], float]:
    """The experts of one layer that stay, ascending, and the margin at the cut; ties go to the lower index.

    Args:
        scores: one per expert, larger is better; finite.
        keep: how many stay.
        groups: of consecutive experts; as many stay in each, so that the router's choice among groups means the same as before.

    >>> choose([0.5, 2.0, 2.0, 1.0], 2)
    ((1, 2), 1.0)
    >>> choose([0.5, 2.0, 2.0, 1.0], 2, groups=2)
    ((1, 2), 1.0)
    >>> choose([1.0, 1.0, 1.0], 2)
    ((0, 1), 0.0)
    """
    size, each = len(scores) // groups, keep // groups
    kept: list[int] = []
    margins: list[float] = []
    for start in range(0, len(scores), size):
        order = sorted(range(start, start + size), key=lambda expert: (-scores[expert], expert))
        kept += order[:each]
        if each < size:
            margins.append(scores[order[each - 1]] - scores[order[each]])
    return tuple(sorted(kept)), min(margins, default=0.0)


def read_plan(data: bytes) -> Plan:
    """Read a plan.

    Raises:
        InputError: it is none, or its numbers contradict each other.
    """
    try:
        value = canonical.loads(data)
        if value["type"] != TYPE:
            raise InputError(f"not a plan: its type is {value['type']!r}, expected {TYPE}")
        keep, experts = int(value["keep"]), int(value["experts"])
        kept = {int(item["layer"]): tuple(int(expert) for expert in item["kept"]) for item in value["layers"]}
    except (CanonicalError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"not a plan of type {TYPE}: {error}") from error
    for layer, ids in kept.items():
        if len(ids) != keep or list(ids) != sorted(set(ids)) or not all(0 <= item < experts for item in ids):
            raise InputError(f"the plan keeps {ids} in layer {layer}; expected {keep} different experts of 0 to {experts - 1}, ascending")
    return Plan(keep, experts, kept)


def run(spec: ExpertSelect, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Score the experts of every layer and keep the best."""
    import numpy as np

    from stages import families, plugins, saliency
    from stages.families import family as counts
    from stages.tensors import read_config
    from store import tree

    config = read_config(context.store, tree.load(context.store, inputs["model"]))
    experts, top_k, groups = counts.expert_count(config), counts.top_k(config), counts.groups(config)
    check_counts(spec.keep, experts, top_k, groups)
    strategy = plugins.load("strategies", spec.strategy)
    with context.store.open(inputs["profile"]) as file:
        profile = saliency.read(file, inputs["profile"].short, context.store.size(inputs["profile"]))
    if profile.about.experts != experts:
        raise InputError(f"the profile has {profile.about.experts} experts per layer, config.json says {experts}: it is of another model")
    expected = families.find(config).layers(config)
    missing = sorted(set(expected) - set(profile.about.layers))
    if missing:
        raise InputError(
            f"the profile lacks layer{'s' if len(missing) > 1 else ''} {', '.join(map(str, missing))}: it has {len(profile.about.layers)} "
            f"of {len(expected)} layers with experts. Profile this model again"
        )
    if profile.about.model != str(inputs["model"]):
        context.warn(
            f"the profile was measured on another model ({profile.about.model[:19]}) than the one to prune ({inputs['model'].short})"
        )
    layers: list[dict[str, Any]] = []
    for layer in expected:
        scores = np.asarray(strategy(profile, layer, seed=spec.seed), dtype=np.float64)
        if scores.shape != (experts,):
            raise InputError(f"strategy {spec.strategy} gave scores of shape {scores.shape} for layer {layer}; expected ({experts},)")
        broken = [number for number, score in enumerate(scores.tolist()) if not np.isfinite(score)]
        if broken:
            raise InputError(f"strategy {spec.strategy} gave experts {broken} of layer {layer} a score that is NaN or infinite")
        kept, margin = choose(scores.tolist(), spec.keep, groups)
        layers.append({"layer": layer, "kept": list(kept), "scores": [repr(item) for item in scores.tolist()], "margin": repr(margin)})
        if margin == 0.0 and spec.keep < experts:
            context.warn(f"layer {layer}: an expert kept and one dropped have the same score; the lower number stays")
    plan = {
        "type": TYPE,
        "strategy": spec.strategy,
        "seed": spec.seed,
        "keep": spec.keep,
        "experts": experts,
        "top_k": top_k,
        "groups": groups,
        "layers": layers,
    }
    context.note("kept", {str(item["layer"]): item["kept"] for item in layers})
    return Outcome({"plan": context.store.put(canonical.dumps(plan))})

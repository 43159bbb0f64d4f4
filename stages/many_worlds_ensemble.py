"""Put frozen models together as one that answers: names, order and a combiner, over the same stored bytes. See docs/ensemble.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from stages import named_models
from stages.errors import InputError, PluginError, RecipeError, SpecError
from stages.stage import Context, Input, Leaf, Node, Outcome, Ref
from store.digest import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class ManyWorldsEnsemble:
    """Who speaks, and by which rule.

    Attributes:
        members: names, in order; the first is the target. The input `model-<name>` is of each.
        combiner, settings: one of `alloy_ledger.combiners`.
        skip_below: members with a smaller share are skipped for a while; 0, exact, never.
        tolerance: the part of the probability that may wait to be computed; 0 is exact.
    """

    members: tuple[str, ...]
    combiner: str = "fixed-share"
    settings: Mapping[str, Any] = field(default_factory=dict)
    skip_below: float = 0.0
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        if not self.members:
            raise SpecError("members: there are none; an ensemble needs one at least")
        named_models.check_names(self.members)
        folded = [name.casefold() for name in self.members]
        if len(set(folded)) < len(folded):
            raise SpecError(f"members: {', '.join(self.members)}: two differ in case alone; give their folders different names")
        for name in ("skip_below", "tolerance"):
            if not 0 <= getattr(self, name) < 1:
                raise SpecError(f"{name} is {getattr(self, name)}; it is a part below 1, and 0 is exact")


def lower(call: Any) -> Any:
    """The recipe form: `targetModel` and `specialists` are ids of earlier stages or what import-model takes; `alpha` is alpha-blend's.

    Raises:
        RecipeError: as `stages.lowering.bind`; a way to combine that is none, or members of one name.
    """
    from stages import lowering
    from stages.combiners.combiner import find

    entry = call.entry
    target = entry.fields.get("targetModel")
    if not isinstance(target, str):
        raise RecipeError(f"{entry.where('targetModel')}{entry.type} needs targetModel: a stage or a folder")
    found = [named_models.model_of(call, target, "targetModel"), *named_models.models_of(call, "specialists")]
    own = {key: value for key, value in entry.fields.items() if key not in ("targetModel", "specialists")}
    own = _own_form(entry, own) | {"members": [name for name, _, _ in found]}
    lines = {**entry.lines, "members": entry.lines.get("specialists", entry.line)}
    spec, _ = lowering.bind(replace(entry, fields=own, lines=lines), STAGE)
    try:
        find(spec.combiner, spec.settings, len(spec.members))
    except (PluginError, SpecError) as error:
        raise RecipeError(f"{entry.where('settings' if spec.settings else 'combiner')}{error}") from error
    spec = replace(spec, settings=_complete(spec))
    inputs: dict[str, Input] = {f"model-{name}": model for name, _, model in found}
    nodes = [node for _, made, _ in found for node in made]
    return lowering.Lowered((*nodes, Node(call.id, STAGE.name, spec, inputs)), {"model": Ref(call.id, "model")})


def _own_form(entry: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of the published format as ours."""
    own = dict(given)
    if own.pop("method", "logit-blend") != "logit-blend":
        raise RecipeError(f"{entry.where('method')}method is {given['method']!r}; members are combined by logit-blend alone")
    if "topK" in own or own.pop("blendStrategy", "full-distribution") == "specialist-top-k-boost":
        key = "topK" if "topK" in own else "blendStrategy"
        raise RecipeError(
            f"{entry.where(key)}the boost of the top-k first tokens has no normaliser and no guarantee, and is not run as a stage: leave "
            "topK and blendStrategy out, and name a combiner (docs/ensemble.md)"
        )
    if "alpha" in own:
        if "combiner" in own or "settings" in own:
            raise RecipeError(f"{entry.where('alpha')}alpha is the setting of alpha-blend; with a combiner, write it into settings")
        own |= {"combiner": "alpha-blend", "settings": {"alpha": own.pop("alpha")}}
    return own


def _complete(spec: ManyWorldsEnsemble) -> dict[str, Any]:
    """A combiner's settings as JSON without floats, defaults included: one way to say one thing, so one digest."""
    from stages.combiners.combiner import read
    from stages.stage import spec_to_json

    return spec_to_json(read(spec.combiner, spec.settings)[1])


STAGE = Leaf(
    name="many-worlds-ensemble",
    version=1,
    spec=ManyWorldsEnsemble,
    inputs=("model-*",),
    outputs=("model",),
    purity="P",
    run="stages.many_worlds_ensemble:run",
    described=("notes", "vramGb"),
    lower=lower,
)


def run(spec: ManyWorldsEnsemble, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Write the config, and the members' entries below their names.

    Raises:
        SpecError: a combiner's settings that do not fit the members, or members that are not the inputs.
        InputError: a member that is no model of transformers.
    """
    from stages import plugins
    from stages.combiners.combiner import find
    from stages.ensemble_tree import EnsembleConfig, Member, build
    from stages.tensors import read_config
    from store import tree

    given = {name.removeprefix("model-") for name in inputs}
    if given != set(spec.members):
        raise SpecError(f"members are {', '.join(spec.members)}; given are {', '.join(sorted(given)) or 'none'}")
    find(spec.combiner, spec.settings, len(spec.members))
    members = tuple(Member(name, inputs[f"model-{name}"]) for name in spec.members)
    for member in members:
        kind = read_config(context.store, tree.load(context.store, member.digest)).get("model_type")
        if kind in plugins.names("answerers"):
            raise InputError(
                f"member {member.name} ({member.digest.short}) is of the type {kind}, and is not read byte by byte: members are models of "
                "transformers; of an ensemble, name its members"
            )
    config = EnsembleConfig(
        combiner=spec.combiner, settings=_complete(spec), members=members, skip_below=spec.skip_below, tolerance=spec.tolerance
    )
    context.note("members", {member.name: str(member.digest) for member in members})
    return Outcome({"model": build(context.store, config)})

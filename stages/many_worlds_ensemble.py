"""Put frozen models together as one that answers: names, order and a combiner, over the same stored bytes. See docs/ensemble.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from stages import combiner_fit, many_worlds_fit, named_models
from stages.errors import InputError, PluginError, RecipeError, SpecError
from stages.stage import Context, Input, Leaf, Node, Outcome, Ref
from store.digest import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class ManyWorldsEnsemble:
    """Who speaks, and by which rule.

    Attributes:
        members: names, in order; the first is the target. The input `model-<name>` is of each. With an input `team` these are candidates,
            in no order: who of them become members, that says.
        take: with a team: its members in its order, or the `best` single model alone.
        target: with a team: who is the first member, in the team or not; None for the first of the team.
        combiner, settings: one of `alloy_ledger.combiners`. With an input `fit` its settings are those that were fitted.
        skip_below: members with a smaller share are skipped for a while; 0, exact, never.
        tolerance: the part of the probability that may wait to be computed; 0 is exact.
    """

    members: tuple[str, ...]
    take: Literal["team", "best"] = "team"
    target: str | None = None
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
        if self.target is not None and (self.target not in self.members or self.take == "best"):
            raise SpecError(
                f"target is {self.target!r}; it is one of {', '.join(self.members)}, and where only the best is taken there is none"
            )
        for name in ("skip_below", "tolerance"):
            if not 0 <= getattr(self, name) < 1:
                raise SpecError(f"{name} is {getattr(self, name)}; it is a part below 1, and 0 is exact")


def lower(call: Any) -> Any:
    """The recipe form: `targetModel` and `specialists` are ids of earlier stages or what import-model takes; `alpha` is alpha-blend's.

    Members are those of a team where `team` (or `specialists`) is the id of a stage that gives one, or where neither is said after such a
    stage. Then `targetModel` may be left out, and `take: best` is the best single model alone.

    Raises:
        RecipeError: as `stages.lowering.bind`; a way to combine that is none, members of one name, or no team.
    """
    from stages import lowering

    entry = call.entry
    limit = entry.fields.get("vramGb", 0)
    if isinstance(limit, bool) or not isinstance(limit, (int, float)) or limit < 0:
        raise RecipeError(f"{entry.where('vramGb')}vramGb is {limit!r}; it is how many GiB the members' weights may take at once")
    team, found = _named(call)
    if team is not None and {"fit", "fitDataset"} & set(entry.fields):
        raise RecipeError(f"{entry.where('fit')}a fit is of members that are named, and here a team says who they are: name them")
    fitted = many_worlds_fit.taken(call, found)
    own = {key: value for key, value in entry.fields.items() if key not in ("targetModel", "specialists", "team", "fit", "fitDataset")}
    own |= {} if fitted is None else {"combiner": fitted[0]}
    for key, better in (("members", "targetModel and specialists"), ("target", "targetModel")):
        if key in own:
            raise RecipeError(f"{entry.where(key)}unknown key {key!r} in {entry.type}; write {better}")
    own = _own_form(entry, own) | {"members": [name for name, _, _ in found]}
    if team is None and "take" in own:
        raise RecipeError(f"{entry.where('take')}take says who of a team speaks, and the members are named one by one: leave it out")
    if team is not None and "targetModel" in entry.fields:
        own["target"] = found[0][0]
    lines = {**entry.lines, "members": entry.lines.get("specialists", entry.line), "target": entry.lines.get("targetModel", entry.line)}
    spec, _ = lowering.bind(replace(entry, fields=own, lines=lines), STAGE)
    try:
        _refuse_unfit(spec, len(spec.members) if team is None else None)
    except (PluginError, SpecError) as error:
        raise RecipeError(f"{entry.where('settings' if spec.settings else 'combiner')}{error}") from error
    spec = replace(spec, settings=_complete(spec))
    inputs: dict[str, Input] = {f"model-{name}": model for name, _, model in found} | ({} if team is None else {"team": team})
    nodes = [node for _, made, _ in found for node in made]
    if fitted is not None:
        nodes, inputs = [*nodes, *fitted[1]], {**inputs, "fit": fitted[2]}
    return lowering.Lowered((*nodes, Node(call.id, STAGE.name, spec, inputs)), {"model": Ref(call.id, "model")})


def _named(call: Any) -> tuple[Input | None, list[named_models.Named]]:
    """The team that chooses, if one does, and the members or candidates; a target that the recipe names is the first."""
    from stages.team import asked

    entry = call.entry
    target, specialists, team = (entry.fields.get(key) for key in ("targetModel", "specialists", "team"))
    if target is not None and not isinstance(target, str):
        raise RecipeError(f"{entry.where('targetModel')}targetModel is {target!r}; it is a stage or a folder")
    gives = [one.id for one, lowered in call.before if "team" in lowered.outputs]
    if team is None and isinstance(specialists, str) and specialists in gives:
        team, specialists = specialists, None
    if specialists is not None and team is not None:
        raise RecipeError(f"{entry.where('team')}{entry.type} takes specialists or a team, not both")
    if specialists is None and (team is not None or gives):
        if team is not None and team not in gives:
            raise RecipeError(f"{entry.where('team')}team is {team!r}; stages before that give a team: {', '.join(gives) or 'none'}")
        chosen, models = asked.team(call, team)
        found: list[named_models.Named] = [(name, (), model) for name, model in sorted(models.items())]
        if target is None:
            return chosen, found
        first = named_models.model_of(call, target, "targetModel")
        known = next((item for item in found if item[0] == first[0]), first)
        return chosen, [known, *(item for item in found if item[0] != first[0])]
    if target is None:
        raise RecipeError(
            f"{entry.where('targetModel')}{entry.type} needs targetModel: a stage or a folder; or a {asked.SEARCH} stage before it"
        )
    return None, [named_models.model_of(call, target, "targetModel"), *named_models.models_of(call, "specialists")]


_STRATEGIES = {
    "specialist-top-k-boost": "first-token-boost",
    "full-distribution": "alpha-blend",
    "weighted-average": "alpha-blend",
}
"""The published strategies as combiners. Both of the whole distribution weigh the target with 1 - alpha."""


def _own_form(entry: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of the published format as ours: `alpha` alone is that of alpha-blend; with `topK` and no strategy it is the boost's."""
    own = dict(given)
    method = own.pop("method", "logit-blend")
    if method in ("soft-prompt", "cross-attention"):
        raise RecipeError(
            f"{entry.where('method')}method is {method!r}: that is a bridge, which many-worlds-bridge trains; {entry.type} trains nothing"
        )
    if method != "logit-blend":
        raise RecipeError(f"{entry.where('method')}method is {method!r}; it is logit-blend, and the rule is named by combiner")
    said = [key for key in ("blendStrategy", "topK", "alpha") if key in own]
    if not said:
        return own
    if "combiner" in own or "settings" in own:
        raise RecipeError(f"{entry.where(said[0])}{said[0]} names a combiner and its setting; with combiner, write it into settings")
    strategy = own.pop("blendStrategy", "specialist-top-k-boost" if "topK" in own else "full-distribution")
    if strategy not in _STRATEGIES:
        raise RecipeError(f"{entry.where('blendStrategy')}blendStrategy is {strategy!r}; it must be one of {', '.join(_STRATEGIES)}")
    combiner, count, alpha = _STRATEGIES[strategy], own.pop("topK", 20), own.pop("alpha", 0.2)
    return own | {"combiner": combiner, "settings": {"alpha": alpha} | ({"top_k": count} if combiner == "first-token-boost" else {})}


def _refuse_unfit(spec: ManyWorldsEnsemble, members: int | None) -> None:
    """Refuse a combiner that does not fit: its settings, the number of members (None: not known yet), or savings that only bytes have.

    Raises:
        PluginError, SpecError: with the reason.
    """
    from stages.combiners.combiner import find, read

    found, _ = read(spec.combiner, spec.settings)
    if found.answerer is None:
        if members is not None:
            find(spec.combiner, spec.settings, members)
    elif spec.skip_below or spec.tolerance:
        raise SpecError(f"combiner {spec.combiner} reads tokens; skip_below and tolerance save what is read byte by byte: leave them out")


def _complete(spec: ManyWorldsEnsemble) -> dict[str, Any]:
    """A combiner's settings as JSON without floats, defaults included: one way to say one thing, so one digest."""
    from stages.combiners.combiner import read
    from stages.stage import spec_to_json

    return spec_to_json(read(spec.combiner, spec.settings)[1])


STAGE = Leaf(
    name="many-worlds-ensemble",
    version=2,
    spec=ManyWorldsEnsemble,
    inputs=("fit*", "team*", "model-*"),  # a fit and a team are optional
    outputs=("model",),
    purity="P",
    run="stages.many_worlds_ensemble:run",
    described=("notes", "vramGb"),
    lower=lower,
)


def run(spec: ManyWorldsEnsemble, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Write the config, and the members' entries below their names. Candidates that no team chose leave no trace in it.

    Raises:
        SpecError: a combiner's settings that do not fit the members, or members that are not the inputs.
        InputError: a member that is no model of transformers; a team of others.
    """
    from stages import ensemble_tree, plugins
    from stages.ensemble_tree import EnsembleConfig, Member, build
    from stages.tensors import read_config
    from store import tree

    given = {name.removeprefix("model-") for name in inputs if name not in ("fit", "team")}
    if given != set(spec.members):
        raise SpecError(f"members are {', '.join(spec.members)}; given are {', '.join(sorted(given)) or 'none'}")
    names = _chosen(spec, context.store.read(inputs["team"])) if "team" in inputs else spec.members
    if "team" not in inputs and (spec.take, spec.target) != ("team", None):
        raise SpecError("take and target choose among the candidates of a team, and there is no input team")
    if "fit" in inputs:
        of = {name: inputs[f"model-{name}"] for name in names}
        combiner, settings = combiner_fit.fitted(context.store.read(inputs["fit"]), of)
        if combiner != spec.combiner:
            raise SpecError(f"the fit is of {combiner}, the ensemble's combiner {spec.combiner}")
        spec = replace(spec, settings=settings)
    _refuse_unfit(spec, len(names))
    members = []
    for name in names:
        digest = inputs[f"model-{name}"]
        kind = read_config(context.store, tree.load(context.store, digest)).get("model_type")
        # An ensemble of one answers by its member alone, so candidates may be asked in that form and be members afterwards.
        alone = ensemble_tree.only(context.store, digest) if kind == ensemble_tree.MODEL_TYPE else None
        if alone is None and kind in plugins.names("answerers"):
            raise InputError(
                f"member {name} ({digest.short}) is of the type {kind}, and is not read byte by byte: members are models of transformers, "
                "or ensembles of one; of a larger ensemble, name its members"
            )
        members.append(Member(name, alone or digest))
    config = EnsembleConfig(
        combiner=spec.combiner, settings=_complete(spec), members=tuple(members), skip_below=spec.skip_below, tolerance=spec.tolerance
    )
    context.note("members", {member.name: str(member.digest) for member in members})
    return Outcome({"model": build(context.store, config)})


def _chosen(spec: ManyWorldsEnsemble, report: bytes) -> tuple[str, ...]:
    """Who of the candidates speaks, in order, as a report of a team says.

    Raises:
        InputError: no such report, or one of other candidates.
    """
    from stages.team.report import Team

    team = Team.parse(report)
    names = (team.best,) if spec.take == "best" else team.members
    strange = next((name for name in names if name not in spec.members), None)
    if strange is not None:
        raise InputError(f"the team has {strange}, who is no candidate; there are {', '.join(spec.members)}")
    return names if spec.target is None else (spec.target, *(name for name in names if name != spec.target))

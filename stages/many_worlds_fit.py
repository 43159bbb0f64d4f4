"""Fit how several frozen models are combined, on a set that is used for nothing else: each reads it once, then weights are computed.

A composite of leaves: `fit-texts` writes the set down, `fit-apart` holds it against what the recipe measures, `byte-rows` has a member read
it (by member, so one more costs its own reading), `combiner-fit` fits. See docs/ensemble.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from stages import named_models, plugins
from stages.byte_rows import ByteRows
from stages.combiner_fit import CombinerFit
from stages.errors import PluginError, RecipeError, SpecError
from stages.fit_apart import FitApart
from stages.fit_texts import FitKind, FitSet, FitTexts
from stages.stage import Composite, Graph, Input, Node, Ref
from store.cas import Cas

_KINDS: Mapping[str, FitKind] = {
    "texts": "texts",
    "multiple-choice": "multiple-choice",
    "arc": "multiple-choice",
    "numeric-answer": "numeric-answer",
    "gsm8k": "numeric-answer",
    "code-execution": "code-execution",
    "humaneval": "code-execution",
}
"""What a data set is called in a recipe: as a benchmark that asks its questions, with that one's template."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManyWorldsFit:
    """Whom to fit, on what.

    Attributes:
        fit: members, combiner, and which bytes count.
        sets: the fitting set; input `dataset-<number>` of each.
        rows: how members are read.
    """

    fit: CombinerFit
    sets: tuple[FitSet, ...]
    rows: ByteRows


def expand(spec: ManyWorldsFit, inputs: Mapping[str, Input], store: Cas) -> Graph:
    """The leaves; `model-<name>` of each member, `measured-*` of what must not be fitted on."""
    texts = Node(
        "texts", "fit-texts", FitTexts(sets=spec.sets), {name: item for name, item in inputs.items() if name.startswith("dataset-")}
    )
    measured = {name: item for name, item in inputs.items() if name.startswith("measured-")}
    apart = Node("apart", "fit-apart", FitApart(), {"texts": Ref("texts", "texts"), **measured})
    nodes = [texts, apart]
    given: dict[str, Input] = {"texts": Ref("texts", "texts"), "apart": Ref("apart", "apart")}
    for name in spec.fit.members:
        model = inputs[f"model-{name}"]
        node = Node(f"rows-{name}", "byte-rows", spec.rows, {"model": model, "texts": Ref("texts", "texts")}, f"{name} reads")
        nodes.append(node)
        given |= {f"model-{name}": model, f"rows-{name}": Ref(node.id, "rows")}
    nodes.append(Node("fit", "combiner-fit", spec.fit, given))
    return Graph(tuple(nodes), {"fit": Ref("fit", "fit")})


def lower(call: Any) -> Any:
    """The recipe form: `targetModel`, `specialists`, `datasets: [{name, dataset, ...}]`, `combiner`, `scored`, `loadIn`, `tolerance`.

    Raises:
        RecipeError: an unknown key, no data set, members of one name.
        SpecError: a setting that cannot be.
    """
    from stages import lowering
    from stages.recipe import known

    entry = call.entry
    own = ("targetModel", "specialists", "datasets", "combiner", "scored", "loadIn", "tolerance")
    known(entry.fields, (*own, *STAGE.described), entry.type, entry.where)
    target = entry.fields.get("targetModel")
    if not isinstance(target, str):
        raise RecipeError(f"{entry.where('targetModel')}{entry.type} needs targetModel: a stage or a folder")
    found = [named_models.model_of(call, target, "targetModel"), *named_models.models_of(call, "specialists")]
    sets, datasets = _sets(call)
    spec = ManyWorldsFit(
        fit=_bound(entry, CombinerFit, ("combiner", "scored"), members=tuple(name for name, _, _ in found)),
        sets=sets,
        rows=_bound(entry, ByteRows, ("loadIn", "tolerance")),
    )
    inputs: dict[str, Input] = {f"model-{name}": model for name, _, model in found} | datasets | measured(call)
    nodes = [node for _, made, _ in found for node in made]
    return lowering.Lowered((*nodes, Node(call.id, STAGE.name, spec, inputs)), {"fit": Ref(call.id, "fit")})


def _bound(entry: Any, kind: type[Any], keys: tuple[str, ...], **more: Any) -> Any:
    from stages import lowering
    from stages.stage import spec_from_json

    names = {lowering.camel(one.name): one.name for one in fields(kind)}
    try:
        return spec_from_json(kind, {names[key]: entry.fields[key] for key in keys if key in entry.fields} | more)
    except SpecError as error:
        key = next((key for key in keys if str(error).startswith(names[key])), "type")
        raise RecipeError(f"{entry.where(key)}{entry.type}: {error}") from error


def _sets(call: Any) -> tuple[tuple[FitSet, ...], dict[str, Input]]:
    """The fitting set as `datasets` lists it, and its inputs."""
    from stages.recipe import known

    entry = call.entry
    listed = entry.fields.get("datasets")
    if not isinstance(listed, list) or not listed or not all(isinstance(item, dict) for item in listed):
        raise RecipeError(f"{entry.where('datasets')}{entry.type} needs datasets: a list of mappings with a name and a dataset")
    sets: list[FitSet] = []
    datasets: dict[str, Input] = {}
    for number, item in enumerate(listed):
        known(
            item, ("name", "dataset", "template", "preamble", "delimiter", "questions"), "a fitting set", lambda _: entry.where("datasets")
        )
        name = item.get("name")
        if name not in _KINDS or not isinstance(item.get("dataset"), str):
            raise RecipeError(
                f"{entry.where('datasets')}a fitting set has a dataset, the path of a file, and a name, one of {', '.join(_KINDS)}; "
                f"this has {item!r}"
            )
        values = {key: value for key, value in item.items() if key in ("template", "preamble", "delimiter")}
        try:
            asked = plugins.load("benchmarks", name).spec() if name != "texts" else None
            defaults = {key: getattr(asked, key) for key in ("template", "preamble") if hasattr(asked, key)}
            sets.append(_set(_KINDS[name], {**defaults, **values}, item.get("questions")))
        except (PluginError, SpecError) as error:
            raise RecipeError(f"{entry.where('datasets')}fitting set {name}: {error}") from error
        datasets[f"dataset-{number}"] = call.materials(item["dataset"])
    return tuple(sets), datasets


def _set(kind: FitKind, values: Mapping[str, Any], first: Any) -> FitSet:
    from stages.stage import spec_from_json

    return spec_from_json(FitSet, {"kind": kind, **values} | ({} if first is None else {"first": first}))


def measured(call: Any) -> dict[str, Input]:
    """Data sets of questions that the recipe's evaluations measure on, wherever they stand in it: those must not be fitted on."""
    paths = {
        item["dataset"]
        for entries in call.recipe.variants.values()
        for entry in entries
        if entry.type == "eval" and isinstance(entry.fields.get("benchmarks"), list)
        for item in entry.fields["benchmarks"]
        if isinstance(item, dict) and isinstance(item.get("dataset"), str) and _KINDS.get(str(item.get("name")), "texts") != "texts"
    }
    return {f"measured-{number}": call.materials(path) for number, path in enumerate(sorted(paths))}


# --- as many-worlds-ensemble takes it ------------------------------------------------------------------------------------------


def taken(call: Any, models: list[named_models.Named]) -> tuple[str, tuple[Node, ...], Input] | None:
    """(combiner, nodes, fit) of an ensemble's own keys `fit: <stage id>` or `fitDataset: [{name, dataset, ...}]`; None without either.

    Raises:
        RecipeError: both; settings beside them; a stage that is no fit, or of other members.
    """
    from stages.recipe import StageEntry

    entry = call.entry
    key = next((key for key in ("fit", "fitDataset") if key in entry.fields), None)
    if key is None:
        return None
    clash = [name for name in ("fitDataset", "settings", "alpha", "blendStrategy", "topK") if name in entry.fields and name != key]
    if clash:
        raise RecipeError(f"{entry.where(clash[0])}{clash[0]} and {key} exclude each other: the fit gives the settings")
    names = tuple(name for name, _, _ in models)
    if key == "fit":
        for _, lowered in call.before:
            node = next((node for node in lowered.nodes if node.id == entry.fields["fit"] and node.stage == STAGE.name), None)
            if node is not None:
                if node.spec.fit.members != names:
                    raise RecipeError(
                        f"{entry.where('fit')}{node.id} fits {', '.join(node.spec.fit.members)}; the members are {', '.join(names)}, and a "
                        "fit is of the same members in the same order"
                    )
                if entry.fields.get("combiner", node.spec.fit.combiner) != node.spec.fit.combiner:
                    raise RecipeError(f"{entry.where('combiner')}{node.id} fits {node.spec.fit.combiner}, not {entry.fields['combiner']}")
                return node.spec.fit.combiner, (), lowered.outputs["fit"]
        raise RecipeError(f"{entry.where('fit')}fit is {entry.fields['fit']!r}; it is the id of an earlier {STAGE.name} stage")
    given: dict[str, Any] = {"datasets": entry.fields["fitDataset"], "combiner": entry.fields.get("combiner", "geometric")}
    given |= {name: entry.fields[name] for name in ("tolerance",) if name in entry.fields}
    where = {name: entry.lines.get("fitDataset" if name == "datasets" else name, entry.line) for name in given}
    made = StageEntry(f"{call.id}/fit", STAGE.name, given, {}, entry.line, where)
    sets, datasets = _sets(replace(call, entry=made, id=made.id))
    spec = ManyWorldsFit(
        fit=_bound(made, CombinerFit, ("combiner",), members=names), sets=sets, rows=_bound(made, ByteRows, ("tolerance",))
    )
    inputs: dict[str, Input] = {f"model-{name}": model for name, _, model in models} | datasets | measured(call)
    node = Node(made.id, STAGE.name, spec, inputs)
    return spec.fit.combiner, (node,), Ref(node.id, "fit")


STAGE = Composite(
    name="many-worlds-fit",
    spec=ManyWorldsFit,
    inputs=("model-*", "dataset-*", "measured-*"),
    outputs=("fit",),
    reads=(),
    expand=expand,
    described=("notes",),
    lower=lower,
)

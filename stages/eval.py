"""Evaluate models on benchmarks, and compare them with the base model where the recipe wants that.

A benchmark is a plug-in (`stages.benchmarks`) that measures GGUF files or the model as it is. As a composite this stage evaluates the files
of one model, and the model; its recipe form also quantises and evaluates the base model in the same types and adds the comparisons.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from stages import plugins, question_compare
from stages.benchmarks.benchmark import Benchmark, ModelSubject, Subject
from stages.compare import Compare, Row
from stages.errors import PluginError, RecipeError, SpecError
from stages.expert_prune import ExpertPrune
from stages.quant import Quant, wanted
from stages.question_compare import QuestionCompare
from stages.recipe import known
from stages.stage import Composite, Graph, Input, Node, Ref, spec_from_json
from stages.tokenizer_of_model import TokenizerOfModel
from store.cas import Cas

_GGUF = "gguf-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """One benchmark with its settings: fields of its spec, as JSON. Its dataset is the input `dataset-<position>`.

    Attributes:
        label: what its results are called; another than the name where one benchmark is used on several datasets.
    """

    name: str
    label: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Eval:
    """What to evaluate with."""

    benchmarks: tuple[Use, ...]


def loaded(use: Use) -> tuple[Benchmark, Any]:
    """A benchmark and its spec.

    Raises:
        PluginError: no such benchmark.
        SpecError: a setting that it does not have (the nearest is offered), or of the wrong kind.
    """
    benchmark: Benchmark = plugins.load("benchmarks", use.name)
    names = [item.name for item in fields(benchmark.spec)]
    for key in use.settings:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1)
            raise SpecError(
                f"benchmark {use.name} has no setting {key!r}"
                + (f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(names)}")
            )
    return benchmark, spec_from_json(benchmark.spec, use.settings)


def expand(spec: Eval, inputs: Mapping[str, Input], store: Cas) -> Graph:
    """Every benchmark on every GGUF file, or on the model: outputs `metrics-<label>-<TYPE>` (`metrics-<label>` of the model) and whatever
    else the benchmark gives.

    Raises:
        PluginError, SpecError: as `loaded`; or a benchmark whose graph gives no metrics.
    """
    nodes: list[Node] = []
    outputs: dict[str, Input] = {}
    for number, use in enumerate(spec.benchmarks):
        benchmark, settings = loaded(use)
        dataset, label = inputs[f"dataset-{number}"], use.label or use.name
        subjects: dict[str, Subject | ModelSubject] = {label: ModelSubject(inputs["model"], dataset)}
        if benchmark.measures == "gguf":
            if not nodes or nodes[0].id != "tokenizer":
                nodes.insert(0, Node("tokenizer", "tokenizer-of-model", TokenizerOfModel(), {"model": inputs["model"]}))
            files = sorted(name for name in inputs if name.startswith(_GGUF))
            subjects = {f"{label}-{name[len(_GGUF) :]}": Subject(inputs[name], Ref("tokenizer", "tokenizer"), dataset) for name in files}
        for name, subject in subjects.items():
            graph = benchmark.graph(settings, subject)
            if "metrics" not in graph.outputs:
                raise SpecError(f"benchmark {use.name} gives {', '.join(graph.outputs) or 'nothing'}, and no metrics")
            inner = {node.id for node in graph.nodes}
            nodes += [
                Node(
                    f"{name}/{node.id}",
                    node.stage,
                    node.spec,
                    {key: _within(name, inner, item) for key, item in node.inputs.items()},
                    node.label,
                )
                for node in graph.nodes
            ]
            outputs |= {f"{output}-{name}": _within(name, inner, item) for output, item in graph.outputs.items()}
    return Graph(tuple(nodes), outputs)


def _within(label: str, inner: set[str], item: Input) -> Input:
    """A Ref to a node of the benchmark's own graph, under the name that the node got here."""
    return Ref(f"{label}/{item.node}", item.output) if isinstance(item, Ref) and item.node in inner else item


def lower(call: Any) -> Any:
    """The recipe form: `benchmarks: [{name, dataset, ...}]`, `compareToBase`.

    Benchmarks of GGUF files measure those of the nearest quant stage; benchmarks of models the model that was quantised, or the nearest
    where nothing was. With `compareToBase` (the default) the source model is evaluated too, quantised into the same types where need be,
    unless it is the very model that was measured, and comparisons are made; `compareTo` names another stage whose model is the base. In
    that of the files every row stands against the base's of its type, and the base's types against its first. `controls: [random]` adds
    what the same pruning costs when it drops experts by lot, in the first type. A limit under `acceptanceCriteria: {perplexity:
    {maxIncreasePct: 10}}` is held against the model that the recipe made.

    Raises:
        RecipeError: no quant stage or no model before, a benchmark without a dataset or unknown, an unknown key, a setting that cannot be.
    """
    from stages import lowering

    entry = call.entry
    known(entry.fields, ("benchmarks", "compareToBase", "compareTo", "models", "controls", *STAGE.described), entry.type, entry.where)
    uses, datasets = _uses(call)
    of_files, of_models = ([use for use in uses if loaded(use)[0].measures == what] for what in ("gguf", "model"))
    made = _nearest_quant(call)
    if made is None and of_files:
        raise RecipeError(f"line {entry.line}: {entry.type} needs GGUF files: put a quant stage before it")
    several = _several(call)
    if several and of_files:
        raise RecipeError(f"{entry.where('models')}benchmark {of_files[0].name} measures GGUF files, and models: is of models as they are")
    model = next(iter(several.values()), None) or (call.nearest("model") if made is None else made[1])
    if model is None:
        raise RecipeError(f"line {entry.line}: {entry.type} needs a model: name a source, or put a stage that makes one before it")
    files = made[2] if made is not None and of_files else {}
    compare = entry.fields.get("compareToBase", True)
    if not isinstance(compare, bool):
        raise RecipeError(f"{entry.where('compareToBase')}compareToBase is true or false, not {compare!r}")
    base = _base(call)
    subjects: dict[str, tuple[Input, dict[str, Input]]] = {_variant(call): (model, files)}
    nodes: list[Node] = []
    if several:
        subjects = {name: (tree, {}) for name, tree in several.items() if not compare or tree != base}
        subjects = {"base": (base, {}), **subjects} if compare and base is not None else subjects
    elif base is None or base == model:
        subjects = {"base" if base == model else _variant(call): (model, files)}
    elif compare:
        quantised: dict[str, Input] = {}
        if made is not None and files:
            nodes.append(Node(f"{call.id}/quant-base", "quant", made[0], {"model": base}))
            quantised = {name: Ref(f"{call.id}/quant-base", name) for name in files}
        subjects = {"base": (base, quantised), **subjects}
        for control, pruned, making, ggufs in _controls(call, None if made is None else made[0], next(iter(files), None)):
            nodes += making
            subjects[control] = (pruned, ggufs)
    outputs: dict[str, Input] = {}
    for variant, (tree, ggufs) in subjects.items():
        node = Node(f"{call.id}/{_plain(variant)}", STAGE.name, Eval(benchmarks=uses), {"model": tree, **ggufs, **datasets})
        nodes.append(node)
        own = len(subjects) == 1 or variant == _variant(call)
        for output in (
            *(f"metrics-{use.label}-{name[len(_GGUF) :]}" for use in of_files for name in ggufs),
            *(f"metrics-{use.label}" for use in of_models),
        ):
            outputs[output if own else f"{_plain(variant)}-{output}"] = Ref(node.id, output)
        if len(subjects) > 1 and variant == "base":
            outputs |= {f"base-{name}": item for name, item in ggufs.items()}
    comparisons = {use.label: _comparison(call, use.label, subjects) for use in of_files if use.name == "perplexity"}
    asked = [use.label for use in of_models if _gives_records(use, ModelSubject(model, model))]
    if asked:
        comparisons["questions"] = _question_comparison(call, asked, subjects)
    for number, (label, (stage, spec, inputs)) in enumerate(comparisons.items()):
        suffix = f"-{label}" if number else ""  # the first is the one that a run ends with
        comparison = Node(f"{call.id}/compare{suffix}", stage, spec, inputs)
        nodes.append(comparison)
        outputs |= {f"report{suffix}": Ref(comparison.id, "report"), f"table{suffix}": Ref(comparison.id, "table")}
    return lowering.Lowered(tuple(nodes), outputs)


def _several(call: Any) -> dict[str, Input]:
    """The models of the stages that `models` names; none where it is not there."""
    entry = call.entry
    wished = entry.fields.get("models", [])
    made = {one.id: lowered.outputs["model"] for one, lowered in call.before if "model" in lowered.outputs}
    if not isinstance(wished, list) or ("models" in entry.fields and not wished) or len({str(item) for item in wished}) < len(wished):
        raise RecipeError(f"{entry.where('models')}models is a list of ids of earlier stages, each once, not {wished!r}")
    lost = next((item for item in wished if item not in made), None)
    if lost is not None:
        raise RecipeError(f"{entry.where('models')}models: {lost!r} is not the id of an earlier stage with a model: {', '.join(made)}")
    return {name: made[name] for name in wished}


def _base(call: Any) -> Input | None:
    """The model to compare with: that of the stage that `compareTo` names, else the first of the recipe."""
    entry = call.entry
    models = {one.id: lowered.outputs["model"] for one, lowered in call.before if "model" in lowered.outputs}
    if "compareTo" not in entry.fields:
        return next(iter(models.values()), None)
    wanted = entry.fields["compareTo"]
    if wanted not in models:
        raise RecipeError(
            f"{entry.where('compareTo')}compareTo is {wanted!r}; it is the id of an earlier stage that gives a model: "
            f"{', '.join(models) or 'there is none'}"
        )
    if entry.fields.get("compareToBase") is False:
        raise RecipeError(f"{entry.where('compareTo')}compareTo asks for a comparison, and compareToBase: false for none; leave one out")
    found: Input = models[wanted]
    return found


def _plain(variant: str) -> str:
    """A variant's words as part of an id."""
    return variant.replace(" ", "-")


def _controls(call: Any, quant: Quant | None, tier: str | None) -> list[tuple[str, Input, list[Node], dict[str, Input]]]:
    """(name, model, nodes, GGUF files) of every control that the recipe asks for: its own pruning with another strategy."""
    entry = call.entry
    wished = entry.fields.get("controls", [])
    if not isinstance(wished, list) or not all(isinstance(item, str) for item in wished):
        raise RecipeError(f"{entry.where('controls')}controls is a list of strategies, such as [random], not {wished!r}")
    pruned = next((node for _, lowered in reversed(call.before) for node in lowered.nodes if isinstance(node.spec, ExpertPrune)), None)
    if wished and pruned is None:
        raise RecipeError(f"{entry.where('controls')}controls prune as the recipe does, and no expert-prune stage comes before")
    made: list[tuple[str, Input, list[Node], dict[str, Input]]] = []
    for strategy in wished:
        assert pruned is not None
        plugins.load("strategies", strategy)
        where = f"{call.id}/control-{strategy}"
        model = Node(f"{where}-prune", pruned.stage, replace(pruned.spec, strategy=strategy), pruned.inputs)
        made.append((f"control {strategy}", Ref(model.id, "model"), [model], {}))
        if quant is not None and tier is not None:
            small = Node(f"{where}-quant", "quant", replace(quant, types=(tier[len(_GGUF) :],)), {"model": Ref(model.id, "model")})
            made[-1][2].append(small)
            made[-1][3][tier] = Ref(small.id, tier)
    return made


def _limit(call: Any) -> float | None:
    """How much perplexity may rise, in per cent, by the recipe's acceptance criteria."""
    criteria = call.recipe.raw.get("acceptanceCriteria") or {}
    limit = (criteria.get("perplexity") or {}).get("maxIncreasePct") if isinstance(criteria, dict) else None
    if limit is None:
        return None
    if isinstance(limit, bool) or not isinstance(limit, (int, float)) or limit < 0:
        raise RecipeError(f"acceptanceCriteria: perplexity.maxIncreasePct must be a number of at least 0, not {limit!r}")
    return float(limit)


def _nearest_quant(call: Any) -> tuple[Quant, Input, dict[str, Input]] | None:
    """The latest quant stage that made GGUF files: its spec, the model it took, its files."""
    for entry, lowered in reversed(call.before):
        files = {name: item for name, item in lowered.outputs.items() if name.startswith(_GGUF)}
        if files and entry.type == "quant":
            spec = lowered.nodes[0].spec
            assert isinstance(spec, Quant)
            wanted(spec)
            return spec, lowered.nodes[0].inputs["model"], files
    return None


def _uses(call: Any) -> tuple[tuple[Use, ...], dict[str, Input]]:
    from stages import lowering

    entry = call.entry
    listed = entry.fields.get("benchmarks")
    if (
        not isinstance(listed, list)
        or not listed
        or not all(isinstance(item, dict) and isinstance(item.get("name"), str) for item in listed)
    ):
        raise RecipeError(f"{entry.where('benchmarks')}{entry.type} needs benchmarks: a list of mappings with a name and a dataset")
    names = [item["name"] for item in listed]
    uses: list[Use] = []
    datasets: dict[str, Input] = {}
    for number, item in enumerate(listed):
        if not isinstance(item.get("dataset"), str):
            raise RecipeError(f"{entry.where('benchmarks')}benchmark {item['name']} needs a dataset: the path of a file")
        try:
            benchmark: Benchmark = plugins.load("benchmarks", item["name"])
        except PluginError as error:
            raise RecipeError(f"{entry.where('benchmarks')}{error}") from error
        keys = {lowering.camel(one.name): one.name for one in fields(benchmark.spec)}
        known(item, ("name", "dataset", *keys, *_DESCRIBED), f"benchmark {item['name']}", lambda _: entry.where("benchmarks"))
        label = item["name"] if names.count(item["name"]) == 1 else f"{item['name']}-{Path(item['dataset']).stem}"
        if any(use.label == label for use in uses):
            raise RecipeError(f"{entry.where('benchmarks')}two benchmarks are called {label}: give their datasets different file names")
        use = Use(name=item["name"], label=label, settings={keys[key]: value for key, value in item.items() if key in keys})
        try:
            loaded(use)
        except SpecError as error:
            raise RecipeError(f"{entry.where('benchmarks')}benchmark {item['name']}: {error}") from error
        uses.append(use)
        datasets[f"dataset-{number}"] = call.materials(item["dataset"])
    return tuple(uses), datasets


def _variant(call: Any) -> str:
    """What people read before a row: `pruned` after any pruning stage, else the id of the last stage that made a model."""
    makers = [entry for entry, lowered in call.before if "model" in lowered.outputs]
    if any("prune" in entry.type for entry in makers):
        return "pruned"
    return makers[-1].id if makers else "model"


Comparison = tuple[str, Any, dict[str, Input]]
"""(stage, spec, inputs) of a comparison."""


def _comparison(call: Any, label: str, subjects: Mapping[str, tuple[Input, Mapping[str, Input]]]) -> Comparison:
    rows: list[Row] = []
    inputs: dict[str, Input] = {}
    for variant, (_, files) in subjects.items():
        for output in files:
            tier = output[len(_GGUF) :]
            name = f"{_plain(variant)}-{tier}"
            baseline = f"base-{tier}" if variant != "base" and "base" in subjects else rows[0].name if rows else None
            limit = _limit(call) if variant == _variant(call) and "base" in subjects else None
            rows.append(Row(name=name, variant=variant, tier=tier, baseline=baseline, max_increase_pct=limit))
            inputs[f"nll-{name}"] = Ref(f"{call.id}/{_plain(variant)}", f"nll-{label}-{tier}")
            inputs[f"gguf-{name}"] = files[output]
    return "compare", Compare(rows=tuple(rows)), inputs


def _gives_records(use: Use, subject: ModelSubject) -> bool:
    """Whether a benchmark keeps what became of each question, so that models can be paired."""
    benchmark, settings = loaded(use)
    return "records" in benchmark.graph(settings, subject).outputs


def _question_comparison(call: Any, labels: Sequence[str], subjects: Mapping[str, tuple[Input, Mapping[str, Input]]]) -> Comparison:
    rows: list[question_compare.Row] = []
    inputs: dict[str, Input] = {}
    for variant, (model, _) in subjects.items():
        for label in labels:
            name = f"{_plain(variant)}-{label}"
            baseline = f"base-{label}" if variant != "base" and "base" in subjects else None
            shown = str(call.entry.fields.get("compareTo", variant)) if variant == "base" else variant
            rows.append(question_compare.Row(name=name, variant=shown, benchmark=label, baseline=baseline))
            inputs[f"model-{name}"] = model
            for output in ("metrics", "records"):
                inputs[f"{output}-{name}"] = Ref(f"{call.id}/{_plain(variant)}", f"{output}-{label}")
    return "question-compare", QuestionCompare(rows=tuple(rows)), inputs


_DESCRIBED = ("subset", "nShot", "submitToLeaderboard", "samplesPath", "baseSamplesPath", "calibrationAnchor", "notes")

STAGE = Composite(
    name="eval",
    spec=Eval,
    inputs=("model", "gguf-*", "dataset-*"),
    outputs=("*",),
    reads=(),
    expand=expand,
    described=("passingThreshold", "calibrationAnchor", "notes"),
    lower=lower,
)

"""The recipe form of a team search: which models answer what, each as actions of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from stages import named_models, plugins, question_blocks
from stages.benchmarks.benchmark import Benchmark, ModelSubject
from stages.byte_divergence import ByteDivergence
from stages.byte_rows import ByteRows
from stages.errors import PluginError, RecipeError, SpecError
from stages.eval import Eval, Use, loaded
from stages.question_benchmark import QuestionBenchmark
from stages.question_blocks import QuestionBlocks
from stages.recipe import known
from stages.stage import Input, Node, Ref
from stages.team.board import input_name
from store.digest import Digest

SEARCH = "team-search"
_OWN = ("name", "dataset", "heldOut", "secondSample")


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of every candidate.

    Attributes:
        uses: benchmarks, for choosing; datasets: of each.
        heldout_uses, heldout: likewise, for confirming.
        second, second_heldout: those benchmarks of which the recipe wants a second sample, with its settings.
    """

    uses: tuple[Use, ...]
    datasets: tuple[Digest, ...]
    heldout_uses: tuple[Use, ...]
    heldout: tuple[Digest, ...]
    second: tuple[Use, ...]
    second_heldout: tuple[Use, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """What the benchmarks' results are called."""
        return tuple(use.label for use in self.uses)

    def nodes(self, call: Any, name: str, model: Input) -> tuple[list[Node], dict[str, Input]]:
        """Every evaluation of one model, and the records that they give by name of input."""
        nodes: list[Node] = []
        inputs: dict[str, Input] = {f"model-{name}": model}
        for prefix, uses, datasets in (
            ("records", self.uses, self.datasets),
            ("heldout", self.heldout_uses, self.heldout),
            ("second", self.second, self.datasets),
            ("heldoutsecond", self.second_heldout, self.heldout),
        ):
            if not uses:
                continue
            of_label = dict(zip(self.labels, datasets, strict=True))
            given: dict[str, Input] = {f"dataset-{number}": of_label[use.label] for number, use in enumerate(uses)}
            node = Node(f"{call.id}/{name}-{prefix}", "eval", Eval(benchmarks=uses), {"model": model, **given})
            nodes.append(node)
            inputs |= {input_name(prefix, name, use.label): Ref(node.id, f"records-{use.label}") for use in uses}
        return nodes, inputs

    def reading(self, call: Any, models: Mapping[str, Input], limit: int, most: int | None) -> tuple[list[Node], Ref]:
        """What every model says of the bytes of the prompts that choose, at most `limit` of each benchmark; and where they are compared.

        Raises:
            RecipeError: a benchmark that asks no questions.
        """
        nodes: list[Node] = []
        inputs: dict[str, Input] = {}
        for use, dataset in zip(self.uses, self.datasets, strict=True):
            benchmark, settings = loaded(use)
            graph = benchmark.graph(settings, ModelSubject(dataset, dataset))
            spec = next((node.spec for node in graph.nodes if isinstance(node.spec, QuestionBenchmark)), None)
            if spec is None:
                raise RecipeError(f"{call.entry.where('divergence')}benchmark {use.name} asks no questions whose bytes could be read")
            # One block of all that choose: as many as there are where no number is given.
            cut = QuestionBlocks(asking=spec.asking, block_questions=spec.questions or ALL)
            texts = Node(f"{call.id}/texts-{use.label}", "question-blocks", cut, {"dataset": dataset})
            nodes.append(texts)
            for name, model in models.items():
                asked: dict[str, Input] = {"model": model, "texts": Ref(texts.id, question_blocks.name(0))}
                node = Node(f"{call.id}/{name}-bytes-{use.label}", "byte-rows", ByteRows(max_bytes=limit, load_in=spec.load_in), asked)
                nodes.append(node)
                inputs[input_name("rows", name, use.label)] = Ref(node.id, "rows")
        compared = ByteDivergence(candidates=tuple(models), benchmarks=self.labels, max_members=most)
        nodes.append(Node(f"{call.id}/bytes", "byte-divergence", compared, inputs))
        return nodes, Ref(f"{call.id}/bytes", "divergence")


ALL = 10**9
"""Questions of a block that holds all."""


def of(call: Any) -> Asked:
    """`benchmarks: [{name, dataset, heldOut, ...}]`, or one as `benchmark`, `dataset`, `heldOut`; `numProblems` count of what is chosen on.

    Raises:
        RecipeError: none, an unknown one, one that keeps no records, a data set that is missing, a setting that cannot be.
    """
    entry = call.entry
    listed = entry.fields.get("benchmarks")
    key = "benchmarks" if listed is not None else "benchmark"
    if listed is None and isinstance(entry.fields.get("benchmark"), str):
        listed = [
            {"name": entry.fields["benchmark"]} | {name: entry.fields[name] for name in ("dataset", "heldOut") if name in entry.fields}
        ]
    elif {"benchmark", "dataset", "heldOut"} & set(entry.fields):
        raise RecipeError(f"{entry.where(key)}{entry.type} takes benchmarks, or benchmark with dataset and heldOut, not both")
    if (
        not isinstance(listed, list)
        or not listed
        or not all(isinstance(item, dict) and isinstance(item.get("name"), str) for item in listed)
    ):
        raise RecipeError(f"{entry.where(key)}{entry.type} needs benchmarks: a list of mappings with name, dataset and heldOut")
    # The published form asks 50 questions where nothing is said; whoever lists benchmarks has cut the data sets to what should choose.
    first = entry.fields.get("numProblems", 50 if key == "benchmark" else None)
    if first is not None and (type(first) is not int or first < 1):
        raise RecipeError(f"{entry.where('numProblems')}numProblems is {first!r}; it must be a whole number of at least 1")
    names = [item["name"] for item in listed]
    uses: list[Use] = []
    second: list[Use] = []
    files: dict[str, list[Digest]] = {"dataset": [], "heldOut": []}
    for item in listed:
        for name, digests in files.items():
            if not isinstance(item.get(name), str):
                raise RecipeError(
                    f"{entry.where(key)}benchmark {item['name']} needs dataset, to choose on, and heldOut, to confirm on: two paths"
                )
            digests.append(call.materials(item[name]))
        label = item["name"] if names.count(item["name"]) == 1 else f"{item['name']}-{Path(item['dataset']).stem}"
        if label in {use.label for use in uses}:
            raise RecipeError(f"{entry.where(key)}two benchmarks are called {label}: give their datasets different file names")
        settings = {name: value for name, value in item.items() if name not in _OWN}
        uses.append(_use(call, key, item["name"], label, settings, files["dataset"][-1]))
        other = item.get("secondSample")
        if other is not None:
            if not isinstance(other, Mapping) or not other:
                raise RecipeError(f"{entry.where(key)}secondSample of {label} holds the settings in which the second asking differs")
            second.append(_use(call, key, item["name"], label, {**settings, **other}, files["dataset"][-1]))
    return Asked(
        uses=_first(uses, first),
        datasets=tuple(files["dataset"]),
        heldout_uses=tuple(uses),
        heldout=tuple(files["heldOut"]),
        second=_first(second, first),
        second_heldout=tuple(second),
    )


def _first(uses: Sequence[Use], count: int | None) -> tuple[Use, ...]:
    return tuple(uses if count is None else (replace(use, settings={**use.settings, "questions": count}) for use in uses))


def _use(call: Any, key: str, name: str, label: str, given: Mapping[str, Any], dataset: Digest) -> Use:
    """A benchmark with its settings, checked."""
    from stages import lowering

    def where(_: str) -> str:
        return str(call.entry.where(key))

    try:
        benchmark: Benchmark = plugins.load("benchmarks", name)
    except PluginError as error:
        raise RecipeError(f"{where('')}{error}") from error
    keys = {lowering.camel(one.name): one.name for one in fields(benchmark.spec)}
    known(given, (*_OWN, *keys), f"benchmark {name}", where)
    use = Use(name=name, label=label, settings={keys[item]: value for item, value in given.items()})
    try:
        _, settings = loaded(use)
    except SpecError as error:
        raise RecipeError(f"{where('')}benchmark {name}: {error}") from error
    if benchmark.measures != "model" or "records" not in benchmark.graph(settings, ModelSubject(dataset, dataset)).outputs:
        raise RecipeError(f"{where('')}benchmark {name} keeps no record of each question, so no team can be searched by it")
    return use


def search(call: Any) -> tuple[Any, Mapping[str, Input]]:
    """The nearest team search before a stage: the spec and the inputs of its leaf.

    Raises:
        RecipeError: there is none.
    """
    for entry, lowered in reversed(call.before):
        if entry.type == SEARCH:
            node = lowered.nodes[-1]
            return node.spec, node.inputs
    raise RecipeError(f"line {call.entry.line}: {call.entry.type} needs a team: put a {SEARCH} stage before it")


def team(call: Any, identifier: str | None) -> tuple[Input, dict[str, Input]]:
    """The team of a stage (None: the nearest that gives one), and its candidates' models by name.

    Raises:
        RecipeError: there is none.
    """
    for entry, lowered in reversed(call.before):
        if "team" in lowered.outputs and identifier in (None, entry.id):
            given = lowered.nodes[-1].inputs
            models = {name.removeprefix("model-"): item for name, item in given.items() if name.startswith("model-")}
            return lowered.outputs["team"], models
    what = "a team" if identifier is None else f"the team of {identifier}"
    raise RecipeError(f"line {call.entry.line}: {call.entry.type} needs {what}: put a {SEARCH} or population-prune stage before it")


def candidate(call: Any, text: str, candidates: Sequence[str], key: str) -> str:
    """The candidate that a recipe means by an id, a folder or a Hub id.

    Raises:
        RecipeError: it was none of the search.
    """
    for name in (text, named_models.name_of(text)):
        if name in candidates:
            return name
    raise RecipeError(f"{call.entry.where(key)}{text} is no candidate of the team search; there are {', '.join(candidates)}")

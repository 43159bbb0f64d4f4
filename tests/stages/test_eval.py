from collections.abc import Mapping
from dataclasses import replace

import pytest

from stages import eval as evaluate
from stages.errors import PluginError, RecipeError, SpecError
from stages.eval import Eval, Use
from stages.lowering import Plan, lower
from stages.perplexity import Perplexity
from stages.quant import Quant
from stages.recipe import parse
from stages.stage import Graph, Input, Node, Ref
from store.digest import Digest
from store.memory import MemoryCas

MODEL, F16, TEXT = Digest.of(b"model"), Digest.of(b"f16"), Digest.of(b"text")


def expand(*uses: Use) -> Graph:
    inputs: dict[str, Input] = {"model": MODEL, "gguf-F16": F16, "gguf-Q8_0": Ref("/quant", "gguf-Q8_0")}
    inputs |= {f"dataset-{number}": TEXT for number in range(len(uses))}
    return evaluate.expand(Eval(benchmarks=uses), inputs, MemoryCas())


def test_every_file_is_evaluated_on_every_benchmark() -> None:
    """Nodes of a benchmark get its name and the file's in front; its settings are fields of its spec."""
    graph = expand(Use(name="perplexity", settings={"n_ctx": 128}), Use(name="acme-length", settings={"repeat_dataset": 2}))
    nodes = {node.id: node for node in graph.nodes}
    assert list(nodes) == [
        "tokenizer",
        "perplexity-F16/tokenize",
        "perplexity-F16/perplexity",
        "perplexity-Q8_0/tokenize",
        "perplexity-Q8_0/perplexity",
        "acme-length-F16/count",
        "acme-length-Q8_0/count",
    ]
    assert nodes["perplexity-F16/perplexity"].spec == Perplexity(n_ctx=128)
    assert nodes["perplexity-F16/perplexity"].inputs == {"gguf": F16, "tokens": Ref("perplexity-F16/tokenize", "tokens"), "dataset": TEXT}
    assert nodes["perplexity-Q8_0/perplexity"].inputs["gguf"] == Ref("/quant", "gguf-Q8_0")
    assert nodes["perplexity-F16/tokenize"].inputs == {"tokenizer": Ref("tokenizer", "tokenizer"), "text": TEXT}
    assert graph.outputs["nll-perplexity-F16"] == Ref("perplexity-F16/perplexity", "nll")
    assert graph.outputs["metrics-acme-length-Q8_0"] == Ref("acme-length-Q8_0/count", "total")


@pytest.mark.parametrize(
    ("use", "error", "words"),
    [
        (Use(name="perplexty"), PluginError, "did you mean 'perplexity'"),
        (Use(name="perplexity", settings={"nctx": 128}), SpecError, "has no setting 'nctx'; did you mean 'n_ctx'"),
        (Use(name="perplexity", settings={"n_ctx": "many"}), SpecError, "n_ctx is 'many'"),
    ],
)
def test_unknown_benchmarks_and_settings_are_refused(use: Use, error: type[Exception], words: str) -> None:
    """The nearest name is offered."""
    with pytest.raises(error, match=words):
        expand(use)


def lowered(stages: str) -> Plan:
    text = f"name: x\nsource: {{baseModel: base}}\nstages:\n{stages}"
    return lower(parse(text), lambda path: Digest.of(str(path).encode()))


QUANT = " - {type: quant, quantTypes: [F16, q4_k_m]}\n"
EVAL = " - {type: eval, benchmarks: [{name: perplexity, dataset: held.txt, chunks: 4}]"


def nodes_of(plan: Plan) -> Mapping[str, Node]:
    return {node.id: node for node in plan.graph.nodes}


def test_a_recipe_without_changes_to_the_model_evaluates_it_as_the_base() -> None:
    """Each quantised type stands against the first."""
    plan = lowered(QUANT + EVAL + "}\n")
    nodes = nodes_of(plan)
    assert [name for name in nodes if name.startswith("eval")] == ["eval/base", "eval/compare"]
    assert nodes["quant"].spec == Quant(types=("F16", "q4_k_m"))
    assert nodes["eval/base"].inputs == {
        "model": Ref("import-model", "model"),
        "gguf-F16": Ref("quant", "gguf-F16"),
        "gguf-Q4_K_M": Ref("quant", "gguf-Q4_K_M"),
        "dataset-0": Digest.of(b"held.txt"),
    }
    assert [(row.name, row.baseline) for row in nodes["eval/compare"].spec.rows] == [("base-F16", None), ("base-Q4_K_M", "base-F16")]
    assert set(plan.outputs["eval"]) == {"metrics-perplexity-F16", "metrics-perplexity-Q4_K_M", "report", "table"}


def chained(stages: str) -> Mapping[str, Node]:
    """A recipe in which another stage stands between the source and the quantising."""
    return nodes_of(lowered(" - {type: acme-repaint}\n" + stages))


def test_a_changed_model_is_compared_with_the_base_in_the_same_types() -> None:
    """The source is quantised alike and evaluated on the same text; every row has the base's of its type as baseline."""
    nodes = chained(QUANT + EVAL + "}\n")
    assert [name for name in nodes if name.startswith("eval")] == ["eval/quant-base", "eval/base", "eval/acme-repaint", "eval/compare"]
    assert nodes["eval/quant-base"].inputs == {"model": Ref("import-model", "model")}
    assert nodes["eval/quant-base"].spec == nodes["quant"].spec
    assert nodes["eval/base"].inputs["gguf-F16"] == Ref("eval/quant-base", "gguf-F16")
    assert [(row.name, row.baseline) for row in nodes["eval/compare"].spec.rows] == [
        ("base-F16", None),
        ("base-Q4_K_M", "base-F16"),
        ("acme-repaint-F16", "base-F16"),
        ("acme-repaint-Q4_K_M", "base-Q4_K_M"),
    ]
    assert nodes["eval/compare"].inputs["nll-acme-repaint-F16"] == Ref("eval/acme-repaint", "nll-perplexity-F16")


def test_one_benchmark_on_several_datasets() -> None:
    """Results are told apart by the datasets' names; each has its comparison, and the first is the report."""
    uses = "{name: perplexity, dataset: code/held.txt}, {name: perplexity, dataset: prose.txt}"
    plan = lowered(QUANT + f" - {{type: eval, benchmarks: [{uses}]}}\n")
    nodes = nodes_of(plan)
    assert [use.label for use in nodes["eval/base"].spec.benchmarks] == ["perplexity-held", "perplexity-prose"]
    assert nodes["eval/compare-perplexity-prose"].inputs["nll-base-F16"] == Ref("eval/base", "nll-perplexity-prose-F16")
    assert {"metrics-perplexity-held-F16", "report", "table-perplexity-prose"} <= set(plan.outputs["eval"])
    graph = evaluate.expand(nodes["eval/base"].spec, nodes["eval/base"].inputs, MemoryCas())
    assert len({node.id for node in graph.nodes}) == len(graph.nodes) == 9


PRUNE = " - {type: expert-activation-profile, calibrationCorpus: c}\n - {type: expert-prune, keepExpertsPerLayer: 6}\n"


def test_a_control_prunes_by_lot_in_the_first_type() -> None:
    """The same counts by another strategy, quantised once and compared with the base; its results have names of their own."""
    plan = lowered(PRUNE + QUANT + EVAL + ", controls: [random]}\n")
    nodes = nodes_of(plan)
    assert nodes["eval/control-random-prune"].spec == replace(nodes["expert-prune"].spec, strategy="random")
    assert nodes["eval/control-random-prune"].inputs == nodes["expert-prune"].inputs
    assert nodes["eval/control-random-quant"].spec.types == ("F16",)
    last = nodes["eval/compare"].spec.rows[-1]
    assert (last.variant, last.name, last.baseline) == ("control random", "control-random-F16", "base-F16")
    assert nodes["eval/compare"].inputs["nll-control-random-F16"] == Ref("eval/control-random", "nll-perplexity-F16")
    assert "control-random-metrics-perplexity-F16" in plan.outputs["eval"]
    with pytest.raises(RecipeError, match="no expert-prune stage comes before"):
        lowered(" - {type: acme-repaint}\n" + QUANT + EVAL + ", controls: [random]}\n")


def test_acceptance_criteria_limit_the_rows_of_the_made_model() -> None:
    """The limit stands at the pruned rows, not at the base's; a limit that is no number is refused."""
    head = "name: x\nsource: {baseModel: base}\nacceptanceCriteria: {perplexity: {maxIncreasePct: 10}}\nstages:\n"
    text = head + PRUNE + QUANT + EVAL + "}\n"
    nodes = nodes_of(lower(parse(text), lambda path: Digest.of(str(path).encode())))
    assert [row.max_increase_pct for row in nodes["eval/compare"].spec.rows] == [None, None, 10.0, 10.0]
    with pytest.raises(RecipeError, match="maxIncreasePct: must be a number"):
        lower(parse(text.replace("Pct: 10", "Pct: ten")), lambda path: Digest.of(str(path).encode()))


def test_the_base_can_be_left_out() -> None:
    """`compareToBase: false` evaluates only the recipe's own files."""
    nodes = chained(QUANT + EVAL + ", compareToBase: false}\n")
    assert [name for name in nodes if name.startswith("eval")] == ["eval/acme-repaint", "eval/compare"]


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        (EVAL + "}\n", "line 4: eval needs GGUF files: put a quant stage before it"),
        (QUANT + " - {type: eval, benchmarks: []}\n", "line 5: eval needs benchmarks"),
        (QUANT + " - {type: eval, benchmarks: [{name: perplexity}]}\n", "line 5: benchmark perplexity needs a dataset"),
        (
            QUANT + " - {type: eval, benchmarks: [{name: perplexity, dataset: a, chunk: 4}]}\n",
            "line 5: unknown key 'chunk' .*mean 'chunks'",
        ),
        (QUANT + EVAL + ", compareToBse: true}\n", "line 5: unknown key 'compareToBse' in eval; did you mean 'compareToBase'"),
        (QUANT + " - {type: eval, benchmarks: [{name: perplexity, dataset: a, nCtx: x}]}\n", "line 5: benchmark perplexity: n_ctx is 'x'"),
        (QUANT + " - {type: eval, benchmarks: [{name: perplexty, dataset: a}]}\n", "line 5: no benchmark is called 'perplexty'"),
        (
            QUANT + " - {type: eval, benchmarks: [{name: perplexity, dataset: a/t.txt}, {name: perplexity, dataset: b/t.txt}]}\n",
            "line 5: two benchmarks are called perplexity-t",
        ),
        (" - {type: quant, quantTypes: [Q4_K_N]}\n", "line 4: format gguf has no type Q4_K_N; known: F32"),
        (" - {type: quant, format: ggup, quantTypes: [F16]}\n", "line 4: no format is called 'ggup'; did you mean 'gguf'"),
        (QUANT + EVAL + ", compareToBase: maybe}\n", "line 5: compareToBase is true or false, not 'maybe'"),
    ],
)
def test_recipes_that_cannot_be_evaluated_are_refused(stages: str, words: str) -> None:
    """With the line and the remedy."""
    with pytest.raises(RecipeError, match=words):
        lowered(stages)


def test_an_outside_format_is_quantised_like_our_own() -> None:
    """A plug-in's types are outputs of the quant stage under its name."""
    plan = lowered(" - {type: quant, format: acme-paper, quantTypes: [a5]}\n")
    assert plan.outputs["quant"] == {"acme-paper-A5": Ref("quant", "acme-paper-A5")}


ASK = " - {type: eval, benchmarks: [{name: gsm8k, dataset: sums.jsonl, questions: 50}, {name: arc, dataset: facts.jsonl}]"


def test_models_are_evaluated_on_questions_without_being_quantised() -> None:
    """The nearest model and, for comparison, the source; each difference is of one benchmark, and all stand in one comparison."""
    nodes = chained(ASK + "}\n")
    assert [name for name in nodes if name.startswith("eval")] == ["eval/base", "eval/acme-repaint", "eval/compare"]
    assert nodes["eval/base"].inputs == {
        "model": Ref("import-model", "model"),
        "dataset-0": Digest.of(b"sums.jsonl"),
        "dataset-1": Digest.of(b"facts.jsonl"),
    }
    assert nodes["eval/base"].spec.benchmarks[0] == Use(name="gsm8k", label="gsm8k", settings={"questions": 50})
    compare = nodes["eval/compare"]
    assert compare.stage == "question-compare"
    assert [(row.name, row.benchmark, row.baseline) for row in compare.spec.rows] == [
        ("base-gsm8k", "gsm8k", None),
        ("base-arc", "arc", None),
        ("acme-repaint-gsm8k", "gsm8k", "base-gsm8k"),
        ("acme-repaint-arc", "arc", "base-arc"),
    ]
    assert compare.inputs["records-acme-repaint-arc"] == Ref("eval/acme-repaint", "records-arc")
    assert compare.inputs["model-base-arc"] == Ref("import-model", "model")


def test_a_question_benchmark_measures_the_model_once() -> None:
    """Not its files, and no tokenizer is taken out of it for that."""
    inputs: dict[str, Input] = {"model": MODEL, "gguf-F16": F16, "dataset-0": TEXT}
    graph = evaluate.expand(Eval(benchmarks=(Use(name="gsm8k", settings={"questions": 5}),)), inputs, MemoryCas())
    (node,) = graph.nodes
    assert (node.id, node.stage, node.inputs) == ("gsm8k/questions", "question-benchmark", {"model": MODEL, "dataset": TEXT})
    assert graph.outputs == {"metrics-gsm8k": Ref("gsm8k/questions", "metrics"), "records-gsm8k": Ref("gsm8k/questions", "records")}


def test_files_and_models_in_one_evaluation() -> None:
    """Perplexity of the files comes first; the comparison on questions stands beside it under its own name."""
    both = EVAL.replace("]", ", {name: gsm8k, dataset: sums.jsonl}]")
    plan = lowered(" - {type: acme-repaint}\n" + QUANT + both + "}\n")
    nodes = nodes_of(plan)
    assert nodes["eval/compare"].stage == "compare"
    assert nodes["eval/compare-questions"].stage == "question-compare"
    assert nodes["eval/base"].inputs["gguf-F16"] == Ref("eval/quant-base", "gguf-F16")
    assert {"metrics-gsm8k", "metrics-perplexity-F16", "base-metrics-gsm8k", "report", "report-questions"} <= set(plan.outputs["eval"])


def test_a_control_is_pruned_and_not_quantised_where_only_the_model_is_measured() -> None:
    """It answers the same questions."""
    nodes = nodes_of(lowered(PRUNE + ASK + ", controls: [random]}\n"))
    assert "eval/control-random-quant" not in nodes
    assert nodes["eval/control-random"].inputs["model"] == Ref("eval/control-random-prune", "model")
    assert nodes["eval/compare"].spec.rows[-1].name == "control-random-arc"


def test_a_recipe_from_scratch_with_no_model_has_nothing_to_ask() -> None:
    """With the remedy."""
    text = f"name: x\nsource: {{baseModel: scratch}}\nstages:\n{ASK}}}\n"
    with pytest.raises(RecipeError, match="line 4: eval needs a model: name a source"):
        lower(parse(text), lambda path: Digest.of(str(path).encode()))

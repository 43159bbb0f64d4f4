import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from acme_ledger import parrot

from ledger.predicates import EVALUATION
from stages import plugins, question_benchmark, question_merge
from stages.benchmarks.benchmark import Benchmark, ModelSubject
from stages.context import LeafContext
from stages.errors import InputError, SpecError
from stages.question_benchmark import QuestionBenchmark
from stages.question_compare import QuestionCompare, Row
from stages.question_kinds import Asking
from stages.question_merge import QuestionMerge, parse_records
from stages.stage import Node
from stages.statistics import clustered_mean, mcnemar, wilson
from store import canonical, tree
from store.digest import Digest
from store.memory import MemoryCas
from tests.direct import Direct
from tests.tiny import make_model

NUMBERS = [{"id": f"n{i}", "question": f"{i} + {i} =", "answer": str(2 * i), "cluster": f"c{i // 4}"} for i in range(10)]
CHOICES = [{"id": f"c{i}", "question": f"Pick {i}:", "choices": ["left", "right"], "answer": i % 2} for i in range(6)]
CODES = [
    {
        "id": f"f{i}",
        "prompt": f"def add{i}(x):\n",
        "entry_point": f"add{i}",
        "test": f"assert add{i}(1) == {i + 1}\n",
        "canonical_solution": f"    return x + {i}\n",
    }
    for i in range(5)
]


def lines(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@pytest.fixture
def direct(tmp_path: Path) -> Direct:
    return Direct(MemoryCas(), tmp_path)


def says(direct: Direct, folder: Path, table: Mapping[str, str]) -> Digest:
    """A model whose answers are known."""
    return tree.import_folder(direct.store, parrot.save(folder, table))


def numeric(benchmark: str = "numeric-answer", *, questions: int | None = None, block_questions: int = 4) -> QuestionBenchmark:
    return QuestionBenchmark(
        benchmark=benchmark,
        asking=Asking(kind="numeric-answer"),
        max_bytes=64,
        stop=("\n",),
        questions=questions,
        block_questions=block_questions,
    )


def evaluate(direct: Direct, spec: QuestionBenchmark, model: Digest, rows: list[dict[str, Any]]) -> tuple[dict[str, Any], list[Any]]:
    """(metrics, records as JSON) of an evaluation."""
    made = direct.run("question-benchmark", spec, {"model": model, "dataset": direct.store.put(lines(rows))})
    return json.loads(direct.store.read(made["metrics"])), [json.loads(line) for line in direct.store.read(made["records"]).splitlines()]


# --- the three kinds, from data set to numbers -------------------------------------------------------------------------------------


def test_numbers_are_read_out_of_generated_text(direct: Direct, tmp_path: Path) -> None:
    """Strict and flexible, each with its errors; every question's record holds prompt, answer and solution."""
    table = {f"{i} + {i} =": f" {i} and {i} is {2 * i}.{f' #### {2 * i}' if i < 6 else ''}\nQuestion: 77" for i in range(8)}
    metrics, records = evaluate(direct, numeric(), says(direct, tmp_path / "m", table), NUMBERS)
    assert metrics["questions"] == {"counted": 10, "clusters": 3}
    right = [1.0] * 6 + [0.0] * 4
    mean = clustered_mean(right, [row["cluster"] for row in NUMBERS])
    assert metrics["metrics"]["accuracy"] == "0.6"
    assert float(metrics["metrics"]["stderrClustered"]) == pytest.approx(mean.stderr)
    assert metrics["metrics"]["accuracyFlexible"] == "0.8"
    assert float(metrics["metrics"]["low"]) < wilson(6, 10).low  # three clusters say less than ten questions
    assert records[7] == {
        "id": "n7",
        "cluster": "c1",
        "prompt": "7 + 7 =",
        "solution": "14",
        "answer": " 7 and 7 is 14.",
        "outcomes": {"strict": False, "flexible": True},
        "read": {"strict": None, "flexible": "14"},
    }
    assert metrics["settings"] == {
        "asking": {"kind": "numeric-answer", "template": "{question}", "preamble": "", "delimiter": " "},
        "maxBytes": 64,
        "stop": ["\n"],
        "loadIn": "auto",
    }


def test_choices_keep_every_loglikelihood(direct: Direct, tmp_path: Path) -> None:
    """As decimal text, with what each rule picked."""
    model = says(direct, tmp_path / "m", {f"Pick {i}:": " left" for i in range(6)})
    spec = QuestionBenchmark(benchmark="multiple-choice", asking=Asking(kind="multiple-choice"), block_questions=4)
    metrics, records = evaluate(direct, spec, model, CHOICES)
    assert (metrics["metrics"]["accuracy"], metrics["metrics"]["accuracyPerByte"]) == ("0.5", "0.5")
    assert float(metrics["metrics"]["low"]) == pytest.approx(wilson(3, 6).low)
    assert records[1]["logLikelihoods"] == ["-0.5", "-6"]
    assert records[1]["picked"] == {"sum": 0, "perByte": 0}
    assert records[1]["outcomes"] == {"sum": False, "perByte": False}


def test_known_good_solutions_score_100_percent_and_empty_ones_0(direct: Direct, tmp_path: Path) -> None:
    """And so do loops, exits and writers of files; each with its reason."""
    spec = QuestionBenchmark(benchmark="humaneval", asking=Asking(kind="code-execution"), max_bytes=400, stop=("\ndef",), block_questions=2)
    good = says(direct, tmp_path / "good", {row["prompt"]: row["canonical_solution"] + "\ndef other" for row in CODES})
    metrics, records = evaluate(direct, spec, good, CODES)
    assert metrics["metrics"]["accuracy"] == "1"
    assert records[3]["verdict"] == {"ending": "passed", "message": ""}
    assert records[3]["answer"] == "    return x + 3\n"
    metrics, _ = evaluate(direct, spec, says(direct, tmp_path / "empty", {"nothing": "x"}), CODES)
    assert metrics["metrics"]["accuracy"] == "0"
    tricks = [
        "    import os\n    os._exit(0)\n",
        "    pass\nraise SystemExit(0)\n",
        f"    open({str(tmp_path / 'written')!r}, 'w')\n",
        "    import os\n    while True: os.fork()\n",
        "    return x + 4\n",
    ]
    bad = says(direct, tmp_path / "bad", {row["prompt"]: trick for row, trick in zip(CODES, tricks, strict=True)})
    metrics, records = evaluate(direct, spec, bad, CODES)
    assert metrics["metrics"]["accuracy"] == "0.2"
    assert [row["verdict"]["ending"] for row in records] == ["left", "failed", "failed", "failed", "passed"]
    assert not (tmp_path / "written").exists()


def test_a_model_of_transformers_answers(direct: Direct, tmp_path: Path) -> None:
    """A random one, at chance or below; twice the same bytes, and cut otherwise into blocks too."""
    model = tree.import_folder(direct.store, make_model(tmp_path / "model", hidden=32, intermediate=32, layers=1, experts=4))
    spec = QuestionBenchmark(benchmark="arc", asking=Asking(kind="multiple-choice"), block_questions=4)
    inputs = {"model": model, "dataset": direct.store.put(lines(CHOICES))}
    made = direct.run("question-benchmark", spec, inputs)
    other = direct.run("question-benchmark", QuestionBenchmark(benchmark="arc", asking=spec.asking, block_questions=5), inputs)
    assert made == other
    record = json.loads(direct.store.read(made["records"]).splitlines()[0])
    assert all(float(value) < 0 for value in record["logLikelihoods"])


# --- blocks ------------------------------------------------------------------------------------------------------------------------


def keys(direct: Direct, spec: QuestionBenchmark, model: Digest, dataset: Digest) -> list[Mapping[str, Digest]]:
    """The inputs of each action that asks the model."""
    direct.ran.clear()
    direct.run("question-benchmark", spec, {"model": model, "dataset": dataset})
    return [inputs for node, inputs, _ in direct.ran if node.startswith("answers-")]


def test_a_quick_evaluation_is_a_prefix_of_the_full_one(direct: Direct, tmp_path: Path) -> None:
    """5 questions take two whole blocks of 4, which the full evaluation finds; only 5 count."""
    model, dataset = says(direct, tmp_path / "m", {"=": " #### 4"}), direct.store.put(lines(NUMBERS))
    full = keys(direct, numeric(), model, dataset)
    assert len(full) == 3
    assert keys(direct, numeric(questions=5), model, dataset) == full[:2]
    metrics, records = evaluate(direct, numeric(questions=5), model, NUMBERS)
    assert (metrics["questions"]["counted"], len(records), metrics["metrics"]["accuracy"]) == (5, 5, "0.2")
    assert evaluate(direct, numeric(questions=500), model, NUMBERS) == evaluate(direct, numeric(), model, NUMBERS)


def test_other_solutions_ask_the_model_nothing_new(direct: Direct, tmp_path: Path) -> None:
    """A corrected answer key, another name or another scorer reuses every answer."""
    model = says(direct, tmp_path / "m", {"=": " #### 4"})
    before = keys(direct, numeric(), model, direct.store.put(lines(NUMBERS)))
    corrected = direct.store.put(lines([NUMBERS[0] | {"answer": "100"}, *NUMBERS[1:]]))
    assert keys(direct, numeric("gsm8k"), model, corrected) == before


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (numeric(block_questions=0), "got 0, None, 64"),
        (numeric(questions=0), "got 4, 0, 64"),
        (QuestionBenchmark(benchmark="x", asking=Asking(kind="numeric-answer")), "got 32, None, 0"),
    ],
)
def test_impossible_settings_are_refused(spec: QuestionBenchmark, words: str) -> None:
    """Before any model is loaded."""
    store = MemoryCas()
    with pytest.raises(SpecError, match=words):
        question_benchmark.expand(spec, {"model": Digest.of(b""), "dataset": store.put(lines(NUMBERS))}, store)


def test_a_broken_data_set_is_refused_before_any_model_is_loaded() -> None:
    """While planning, with the line."""
    store = MemoryCas()
    with pytest.raises(InputError, match="data set line 11: not strict JSON"):
        question_benchmark.expand(numeric(), {"model": Digest.of(b""), "dataset": store.put(lines(NUMBERS) + b"{")}, store)


def test_a_tree_without_a_config_is_no_model(direct: Direct, tmp_path: Path) -> None:
    """With what is expected."""
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.gguf").write_bytes(b"x")
    with pytest.raises(InputError, match=r"has no config\.json; questions are for model folders"):
        evaluate(direct, numeric(), tree.import_folder(direct.store, tmp_path / "m"), NUMBERS)


# --- merging -----------------------------------------------------------------------------------------------------------------------


def test_the_claim_is_about_the_model(direct: Direct, tmp_path: Path) -> None:
    """Its subject is the tree, its predicate is the metrics blob, and no float is in it."""
    model = says(direct, tmp_path / "m", {"=": " #### 4"})
    made = direct.run("question-benchmark", numeric(), {"model": model, "dataset": direct.store.put(lines(NUMBERS))})
    (inputs,) = [inputs for node, inputs, _ in direct.ran if node == "merge"]
    spec = QuestionMerge(benchmark="numeric-answer", asking=numeric().asking, questions=10, block_questions=4)
    outcome = question_merge.run(spec, inputs, LeafContext(direct.store, tmp_path, tmp_path))
    (claim,) = outcome.claims
    assert (claim.subjects, claim.predicate_type) == ({"model": model}, EVALUATION)
    assert canonical.dumps(claim.predicate) == direct.store.read(made["metrics"])
    assert b"." not in canonical.dumps({key: value for key, value in claim.predicate.items() if key not in ("metrics", "settings")})
    assert claim.predicate["dataset"] == {"digest": {"sha256": Digest.of(lines(NUMBERS)).hex}}


def test_answers_to_other_questions_are_refused(direct: Direct, tmp_path: Path) -> None:
    """Wrong order, other questions, too few, verdicts on other answers."""
    model, dataset = says(direct, tmp_path / "m", {"=": " #### 4"}), direct.store.put(lines(NUMBERS))
    direct.run("question-benchmark", numeric(), {"model": model, "dataset": dataset})
    (inputs,) = [inputs for node, inputs, _ in direct.ran if node == "merge"]
    spec = QuestionMerge(benchmark="x", asking=numeric().asking, questions=10, block_questions=4)
    swapped = dict(inputs) | {"answers-00000": inputs["answers-00001"]}
    fewer = {name: digest for name, digest in inputs.items() if name != "answers-00002"}
    other = dict(inputs) | {"dataset": direct.store.put(lines([NUMBERS[0] | {"question": "?"}, *NUMBERS[1:]]))}
    for broken, words in (
        (swapped, "block 0 answers questions"),
        (fewer, "hold answers to 8 questions; 10 are wanted"),
        (other, "block 0 answers questions"),
        (dict(inputs) | {"dataset": direct.store.put(lines(NUMBERS[:3]))}, "the data set has 3"),
    ):
        with pytest.raises(InputError, match=words):
            direct.run("question-merge", spec, broken)


def test_records_read_back(direct: Direct, tmp_path: Path) -> None:
    """Ids, clusters and outcomes; a file that is none is refused."""
    model = says(direct, tmp_path / "m", {"=": " #### 4"})
    made = direct.run("question-benchmark", numeric(), {"model": model, "dataset": direct.store.put(lines(NUMBERS))})
    records = parse_records(direct.store.read(made["records"]))
    assert [(item.id, item.outcomes["strict"]) for item in records] == [(f"n{i}", i == 2) for i in range(10)]
    with pytest.raises(InputError, match="line 1: a record has"):
        parse_records(b'{"id": "a"}\n')


# --- comparing -----------------------------------------------------------------------------------------------------------------------


def compared(direct: Direct, tmp_path: Path, right: Mapping[str, list[int]], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The report on models, each of which answers the given questions and no other; all against the first."""
    inputs: dict[str, Digest] = {}
    dataset = direct.store.put(lines(rows))
    first = next(iter(right))
    for name, known in right.items():
        table = {rows[i]["question"]: f" #### {rows[i]['answer']}" for i in known} or {"nothing": ""}
        model = says(direct, tmp_path / name, table)
        made = direct.run("question-benchmark", numeric(), {"model": model, "dataset": dataset})
        inputs |= {f"model-{name}": model, f"metrics-{name}": made["metrics"], f"records-{name}": made["records"]}
    spec = QuestionCompare(
        rows=tuple(Row(name=name, variant=name, benchmark="sums", baseline=None if name == first else first) for name in right)
    )
    made = direct.run("question-compare", spec, inputs)
    report: dict[str, Any] = json.loads(direct.store.read(made["report"]))
    assert direct.store.read(made["table"]).decode().count("\n") == len(right) + 2
    return report


PLAIN = [{key: value for key, value in row.items() if key != "cluster"} for row in NUMBERS] + [
    {"id": f"m{i}", "question": f"{i} - 1 =", "answer": str(i - 1)} for i in range(20)
]


def test_three_more_of_thirty_are_not_distinguishable(direct: Direct, tmp_path: Path) -> None:
    """20/30 against 23/30: p = .25 at best, and the table says so."""
    report = compared(direct, tmp_path, {"base": list(range(20)), "more": list(range(23))}, PLAIN)
    found = report["rows"][1]["difference"]
    assert (found["wins"], found["losses"], found["p"], found["verdict"]) == (3, 0, "0.25", "not distinguishable")
    assert float(found["mean"]) == pytest.approx(0.1)
    assert report["table"][2][2:] == ["76.7 % [59.1, 88.2]", "30", "+10.0 [-1.4, +21.4]", "3 : 0", "0.25", "not distinguishable"]
    assert report["rows"][1]["further"]["flexible"]["wins"] == 3


def test_no_discordant_question_gives_no_interval(direct: Direct, tmp_path: Path) -> None:
    """A width of zero would claim certainty; nor has an accuracy of 0 or 100 % an error of zero."""
    report = compared(direct, tmp_path, {"base": list(range(30)), "same": list(range(30))}, PLAIN)
    found = report["rows"][1]["difference"]
    assert (found["mean"], found["low"], found["high"], found["stderrClustered"], found["p"]) == ("0", None, None, None, "1")
    assert report["table"][2][4:] == ["+0.0", "0 : 0", "1", "not distinguishable"]
    assert set(report["rows"][0]["metrics"]) == {"accuracy", "low", "high", "accuracyFlexible", "lowFlexible", "highFlexible"}


def test_several_differences_are_one_family(direct: Direct, tmp_path: Path) -> None:
    """P = .031 alone is resolved; beside two others it is not, for Holm makes .094 of it."""
    alone = compared(direct, tmp_path / "1", {"base": list(range(10)), "a": list(range(16))}, PLAIN)
    assert (alone["rows"][1]["difference"]["p"], alone["rows"][1]["difference"]["verdict"]) == ("0.03125", "better")
    right = {"base": list(range(10)), "a": list(range(16)), "b": list(range(11)), "c": list(range(9))}
    report = compared(direct, tmp_path / "3", right, PLAIN)
    found = report["rows"][1]["difference"]
    assert (found["p"], found["pHolm"], found["verdict"]) == ("0.03125", "0.09375", "not distinguishable")
    assert report["tests"] == 3


def test_a_worse_model_is_called_worse(direct: Direct, tmp_path: Path) -> None:
    """With the anytime-valid p-value beside the exact one, which is the smaller."""
    report = compared(direct, tmp_path, {"base": list(range(30)), "less": list(range(18))}, PLAIN)
    found = report["rows"][1]["difference"]
    assert found["verdict"] == "worse"
    assert float(found["p"]) == pytest.approx(mcnemar(0, 12).p)
    assert float(found["p"]) < float(found["anytimeP"]) < 0.05
    assert found["looks"] == 30


def test_with_clusters_both_tests_must_agree(direct: Direct, tmp_path: Path) -> None:
    """Ten wins from one template are one piece of evidence, whatever McNemar says."""
    rows = [row | {"cluster": "one" if i < 10 else f"c{i}"} for i, row in enumerate(PLAIN)]
    found = compared(direct, tmp_path, {"base": list(range(10, 20)), "more": list(range(20))}, rows)["rows"][1]["difference"]
    assert float(found["p"]) < 0.05
    assert float(found["low"]) < 0 < float(found["high"])
    assert found["verdict"] == "not distinguishable"


def test_the_difference_over_several_benchmarks_is_told_beside_each(direct: Direct, tmp_path: Path) -> None:
    """All questions count once, in clusters of their own benchmark: five wins here and four there are nine of sixty, p = 2 / 2 ** 9."""
    inputs: dict[str, Digest] = {}
    spread = [row | {"cluster": "one" if i < 2 else f"c{i}"} for i, row in enumerate(PLAIN)]
    for variant, known in (("base", (10, 20)), ("more", (15, 24))):
        for label, count in zip(("a", "b"), known, strict=True):
            model = says(direct, tmp_path / f"{variant}{label}", {row["question"]: f" #### {row['answer']}" for row in spread[:count]})
            made = direct.run("question-benchmark", numeric(), {"model": model, "dataset": direct.store.put(lines(spread))})
            name = f"{variant}-{label}"
            inputs |= {f"model-{name}": model, f"metrics-{name}": made["metrics"], f"records-{name}": made["records"]}
    rows = [Row(name=f"base-{label}", variant="base", benchmark=label) for label in "ab"]
    rows += [Row(name=f"more-{label}", variant="more", benchmark=label, baseline=f"base-{label}") for label in "ab"]
    made = direct.run("question-compare", QuestionCompare(rows=tuple(rows)), inputs)
    report = json.loads(direct.store.read(made["report"]))
    (found,) = report["pooled"]
    assert (found["variant"], found["baseline"], found["benchmarks"]) == ("more", "base", ["a", "b"])
    difference = found["difference"]
    assert (difference["questions"], difference["clusters"], difference["wins"], difference["losses"]) == (60, 58, 9, 0)
    assert (difference["p"], difference["pHolm"], difference["verdict"]) == ("0.00390625", "0.01171875", "better")
    assert (found["baselineAccuracy"], found["metrics"]["accuracy"], float(difference["mean"])) == ("0.5", "0.65", 0.15)
    assert report["tests"] == 3
    assert report["table"][-1][:4] == ["more", "all 2", "65.0 % [52.0, 76.1]", "60"]
    assert direct.store.read(made["table"]).decode().splitlines()[-1].startswith("| more | all 2 | 65.0 %")


def test_models_that_were_asked_differently_are_not_paired(direct: Direct, tmp_path: Path) -> None:
    """Another number of questions, another data set or other settings are named."""
    model, dataset = says(direct, tmp_path / "m", {"=": " #### 4"}), direct.store.put(lines(NUMBERS))
    a = direct.run("question-benchmark", numeric(), {"model": model, "dataset": dataset})
    b = direct.run("question-benchmark", numeric(questions=5), {"model": model, "dataset": dataset})
    inputs = {f"{kind}-a": digest for kind, digest in a.items()} | {f"{kind}-b": digest for kind, digest in b.items()}
    spec = QuestionCompare(rows=(Row(name="a", variant="a", benchmark="x"), Row(name="b", variant="b", benchmark="x", baseline="a")))
    with pytest.raises(InputError, match="b cannot be paired with a: they were evaluated on different questions"):
        direct.run("question-compare", spec, inputs | {"model-a": model, "model-b": model})
    with pytest.raises(SpecError, match="each row needs its model"):
        direct.run("question-compare", spec, inputs)
    lost = QuestionCompare(rows=(Row(name="a", variant="a", benchmark="x", baseline="c"),))
    with pytest.raises(SpecError, match="compared with 'c'"):
        direct.run("question-compare", lost, {"model-a": model} | {name: digest for name, digest in inputs.items() if name.endswith("-a")})


# --- benchmarks ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "template"),
    [
        ("multiple-choice", "multiple-choice", "{question}"),
        ("arc", "multiple-choice", "Question: {question}\nAnswer:"),
        ("numeric-answer", "numeric-answer", "{question}"),
        ("gsm8k", "numeric-answer", "Question: {question}\nAnswer:"),
        ("code-execution", "code-execution", "{question}"),
        ("humaneval", "code-execution", "{question}"),
    ],
)
def test_each_benchmark_is_a_kind_with_settings(name: str, kind: str, template: str) -> None:
    """Results are stated under the benchmark's own name."""
    benchmark: Benchmark = plugins.load("benchmarks", name)
    assert (benchmark.name, benchmark.measures) == (name, "model")
    graph = benchmark.graph(benchmark.spec(questions=7), ModelSubject(Digest.of(b"m"), Digest.of(b"d")))
    (node,) = graph.nodes
    assert isinstance(node, Node)
    assert (node.spec.benchmark, node.spec.asking.kind, node.spec.asking.template, node.spec.questions) == (name, kind, template, 7)
    assert set(graph.outputs) == {"metrics", "records"}

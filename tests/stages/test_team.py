"""The stages team-search, population-prune and gate-profile: planted records give exact reports, and recipe forms load."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from acme_ledger import parrot

from stages import lowering, recipe
from stages.errors import InputError, RecipeError, SpecError
from stages.gate_profile import GateProfile
from stages.population_prune import PopulationPrune
from stages.question_benchmark import QuestionBenchmark
from stages.question_kinds import Asking
from stages.stage import Ref
from stages.team import picture
from stages.team_search import TeamSearch
from store import canonical, tree
from store.digest import Digest
from store.memory import MemoryCas
from tests.direct import Direct

Inputs = dict[str, Digest]


@pytest.fixture
def direct(tmp_path: Path) -> Direct:
    return Direct(MemoryCas(), tmp_path)


def generated(direct: Direct, right: str, prefix: str = "s") -> Digest:
    """Records of numbers: '10' is right, wrong."""
    rows = [
        {
            "id": f"{prefix}{place}",
            "cluster": f"{prefix}{place}",
            "prompt": f"{prefix} {place}",
            "solution": "1",
            "answer": "",
            "outcomes": {"strict": hit == "1", "flexible": hit == "1"},
        }
        for place, hit in enumerate(right)
    ]
    return direct.store.put(b"".join(canonical.dumps(row) + b"\n" for row in rows))


def chosen(direct: Direct, chances: Sequence[float], prefix: str = "s") -> Digest:
    """Records of two choices, of which the first is right with a probability."""
    rows = [
        {
            "id": f"{prefix}{place}",
            "cluster": f"{prefix}{place}",
            "prompt": f"{prefix} {place}",
            "solution": 0,
            "choices": ["yes", "no"],
            "logLikelihoods": [repr(math.log(p)), repr(math.log(1 - p))],
            "outcomes": {"sum": p >= 0.5, "perByte": p >= 0.5},
        }
        for place, p in enumerate(chances)
    ]
    return direct.store.put(b"".join(canonical.dumps(row) + b"\n" for row in rows))


def model(direct: Direct, tmp_path: Path, name: str, size: int) -> Digest:
    (tmp_path / name).mkdir()
    (tmp_path / name / "weights").write_bytes(name.encode() * (size // len(name)))
    return tree.import_folder(direct.store, tmp_path / name)


def report(direct: Direct, made: Mapping[str, Digest], output: str = "team") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(direct.store.read(made[output]))
    return found


@pytest.fixture
def planted(direct: Direct, tmp_path: Path) -> Inputs:
    """Three models on generated numbers: a knows the first half, b half of the rest, c nothing new."""
    inputs: Inputs = {}
    for name, select, heldout, size in (
        ("a", "1111100000", "1" * 10 + "0" * 10, 1000),
        ("b", "0000011110", "0" * 10 + "1" * 7 + "0" * 3, 600),
        ("c", "1111000000", "1" * 8 + "0" * 12, 200),
    ):
        inputs[f"model-{name}"] = model(direct, tmp_path, name, size)
        inputs[f"records-{name}-sums"] = generated(direct, select)
        inputs[f"heldout-{name}-sums"] = generated(direct, heldout, "h")
    return inputs


SPEC = TeamSearch(candidates=("a", "b", "c"), benchmarks=("sums",))


def test_planted_records_give_the_exact_team(direct: Direct, planted: Inputs) -> None:
    """Model a starts with 5 of 10, b adds 4, c nothing; on held-out questions b wins 7 that a lost: p = 2 / 128."""
    found = report(direct, direct.run("team-search", SPEC, planted))
    assert found["growth"] == [
        {"name": "a", "gain": "0.5", "control": None, "net": "0.5"},
        {"name": "b", "gain": "0.4", "control": None, "net": "0.4"},
    ]
    assert found["refused"] == {"name": "c", "gain": "0", "control": None, "net": "0"}
    assert (found["selectedTeam"], found["oracleGain"]) == (["a", "b"], "0.4")
    assert [(item["a"], item["b"], item["complementary"], item["potential"]) for item in found["pairs"]] == [
        ("a", "b", 9, 9),
        ("b", "c", 8, 8),
        ("a", "c", 1, 5),
    ]
    assert found["questions"] == {"select": 10, "heldOut": 20}
    assert found["confirmation"] == {
        "single": "a",
        "anyone": "0.85",
        "alone": "0.5",
        "against": {"wins": 7, "losses": 0, "p": "0.015625"},
        "control": None,
        "againstControl": None,
        "confirmed": None,
    }
    assert "divergence" not in found


def test_the_picture_is_drawn_from_the_report_alone(direct: Direct, planted: Inputs) -> None:
    """Every name, count and step of the report stands in it; the same bytes again; a name that is markup stays text."""
    made = direct.run("team-search", SPEC, planted)
    found, drawn = report(direct, made), direct.store.read(made["picture"]).decode()
    assert picture.draw(found) == drawn
    written = ["".join(item.itertext()) for item in ElementTree.fromstring(drawn).iter("{http://www.w3.org/2000/svg}text")]
    assert {"5", "4", "9", "8", "1", "50.0%", "40.0%", "0.0% (refused)"} <= set(written)
    assert "held out, 20 questions: 85.0% by anyone, 50.0% by the best alone" in written
    wide = {f"<m{number}>" + "x" * 40: {"select": number, "heldOut": 1} for number in range(12)}
    pairs = [{"a": a, "b": b, "complementary": 3} for a in wide for b in wide if a < b]
    matrix = {a: {b: "inf" if a != b else "0" for b in wide} for a in wide}
    many = picture.draw(
        {**found, "candidates": wide, "pairs": pairs, "byteDivergence": {"matrix": matrix}, "divergence": {"matrix": matrix}}
    )
    assert len(list(ElementTree.fromstring(many).iter("{http://www.w3.org/2000/svg}rect"))) == 3 * 12**2 + 4
    assert "<m0>" not in many


def test_a_second_sample_that_does_as_well_confirms_nothing(direct: Direct, planted: Inputs) -> None:
    """Where the best model's second sample wins what the other wins, nobody joins, and nothing is confirmed."""
    for name in SPEC.candidates:
        planted[f"second-{name}-sums"] = generated(direct, "0000011110")
        planted[f"heldoutsecond-{name}-sums"] = generated(direct, "0" * 10 + "1" * 7 + "0" * 3, "h")
    found = report(direct, direct.run("team-search", SPEC, planted))
    assert found["selectedTeam"] == ["a"]
    assert found["refused"] == {"name": "b", "gain": "0.4", "control": "0.4", "net": "0"}
    assert found["confirmation"]["confirmed"] is False


def test_a_control_that_wins_nothing_confirms_the_team(direct: Direct, planted: Inputs) -> None:
    """Second samples that repeat the first: the gain is that of other knowledge."""
    for name in SPEC.candidates:
        planted[f"second-{name}-sums"] = planted[f"records-{name}-sums"]
        planted[f"heldoutsecond-{name}-sums"] = planted[f"heldout-{name}-sums"]
    found = report(direct, direct.run("team-search", SPEC, planted))
    assert found["selectedTeam"] == ["a", "b"]
    assert found["confirmation"]["control"] == "0.5"
    assert found["confirmation"]["againstControl"]["mean"] == "0.35"
    assert found["confirmation"]["confirmed"] is True


def test_choices_give_the_divergence_matrix_and_the_control(direct: Direct, planted: Inputs) -> None:
    """D of two Bernoulli distributions in closed form; NLL of the team = mean NLL - D; a second sample is right by its probability."""
    sure, doubt = 0.9, 0.2
    for name, select in (("a", [sure, doubt]), ("b", [doubt, sure]), ("c", [sure, doubt])):
        planted[f"records-{name}-sums"] = chosen(direct, select)
        planted[f"heldout-{name}-sums"] = chosen(direct, select * 10, "h")
    found = report(direct, direct.run("team-search", SPEC, planted))
    d = -math.log(math.sqrt(sure * doubt) + math.sqrt((1 - sure) * (1 - doubt)))
    matrix = found["divergence"]["matrix"]
    assert float(matrix["a"]["b"]) == pytest.approx(d, abs=1e-9)
    assert float(matrix["b"]["a"]) == float(matrix["a"]["b"])
    assert abs(float(matrix["a"]["c"])) < 1e-12
    losses = found["divergence"]["nll"]
    assert found["selectedTeam"] == ["a", "b"]
    assert float(found["divergence"]["team"]) == float(matrix["a"]["b"])
    mean = (float(losses["a"]) + float(losses["b"])) / 2
    assert float(found["divergence"]["teamNll"]) == pytest.approx(mean - d, abs=1e-6)
    assert found["growth"][1] == {"name": "b", "gain": "0.5", "control": "0.1", "net": "0.4"}
    assert found["confirmation"]["control"] == "0.6"
    assert found["geometricTeam"]["accuracy"] == "1"
    assert found["geometricTeam"]["against"]["wins"] == 10


def test_a_second_sample_of_one_benchmark_goes_with_the_chances_of_another(direct: Direct, planted: Inputs) -> None:
    """Generated answers have their drawn second sample, choices their probabilities; without one of both there is no control."""
    for name in SPEC.candidates:
        planted[f"records-{name}-picks"] = chosen(direct, [0.25] * 10, "p")
        planted[f"heldout-{name}-picks"] = chosen(direct, [0.25] * 20, "q")
    both = TeamSearch(candidates=SPEC.candidates, benchmarks=("sums", "picks"))
    assert report(direct, direct.run("team-search", both, planted))["growth"][1]["control"] is None
    for name in SPEC.candidates:
        planted[f"second-{name}-sums"] = generated(direct, "0000010000")
    found = report(direct, direct.run("team-search", both, planted))
    assert found["growth"][1] == {"name": "b", "gain": "0.2", "control": "0.175", "net": "0.025"}
    assert found["confirmation"]["control"] is None


def test_what_cannot_be_compared_is_refused(direct: Direct, planted: Inputs) -> None:
    """Held-out questions that chose; models that answered other questions; a model without records."""
    with pytest.raises(InputError, match="10 held-out questions are among those that choose, sums/s0 first"):
        direct.run("team-search", SPEC, planted | {f"heldout-{name}-sums": planted[f"records-{name}-sums"] for name in "abc"})
    with pytest.raises(InputError, match="b did not answer what a answered: 9 to 10"):
        direct.run("team-search", SPEC, planted | {"records-b-sums": generated(direct, "1" * 9)})
    with pytest.raises(InputError, match="b did not answer what a answered: at place 0 sums/t0 to sums/s0"):
        direct.run("team-search", SPEC, planted | {"records-b-sums": generated(direct, "1" * 10, "t")})
    spec = TeamSearch(candidates=("a", "d"), benchmarks=("sums",))
    with pytest.raises(SpecError, match="no input records-d-sums"):
        direct.run("team-search", spec, planted | {"model-d": planted["model-a"]})
    with pytest.raises(InputError, match="the second sample answers sums/s10"):
        direct.run("team-search", SPEC, planted | {f"second-{name}-sums": generated(direct, "1" * 11) for name in "abc"})
    with pytest.raises(SpecError, match="no input second-b-sums"):
        direct.run("team-search", SPEC, planted | {"second-a-sums": planted["records-a-sums"]})
    with pytest.raises(SpecError, match="at least 2 models"):
        TeamSearch(candidates=("a",), benchmarks=("sums",))


def test_the_population_is_pruned_to_its_budget(direct: Direct, planted: Inputs) -> None:
    """Of three, c contributes nothing; under a budget that a and b together exceed, the one that contributes less leaves."""
    team = direct.store.put(canonical.dumps({"selectedTeam": ["a", "b", "c"]}))
    inputs = {name: digest for name, digest in planted.items() if not name.startswith("heldout-")} | {"team": team}
    found = report(direct, direct.run("population-prune", PopulationPrune(benchmarks=("sums",)), inputs))
    assert found["selectedTeam"] == ["a", "b"]
    assert found["contributions"] == {"a": "0.5", "b": "0.4"}
    assert found["removed"] == [{"name": "c", "reason": "contributes too little", "contribution": "0"}]
    assert (found["sizeBytes"], found["savedBytes"]) == (1600, 200)
    found = report(direct, direct.run("population-prune", PopulationPrune(benchmarks=("sums",), memory_bytes=900), inputs))
    assert found["selectedTeam"] == ["b", "c"]
    assert found["sizeBytes"] == 800
    with pytest.raises(InputError, match="take measure oracle"):
        direct.run("population-prune", PopulationPrune(benchmarks=("sums",), measure="nll"), inputs)


def test_the_population_is_pruned_by_loss(direct: Direct, planted: Inputs) -> None:
    """A member that makes the geometric team's loss worse leaves, though it alone gets something right."""
    for name, select in (("a", [0.9, 0.4, 0.9]), ("b", [0.4, 0.9, 0.9]), ("c", [0.01, 0.01, 0.6])):
        planted[f"records-{name}-sums"] = chosen(direct, select)
    team = direct.store.put(canonical.dumps({"selectedTeam": ["b", "a", "c"]}))
    inputs = {name: digest for name, digest in planted.items() if not name.startswith("heldout-")} | {"team": team}
    spec = PopulationPrune(benchmarks=("sums",), measure="nll", min_contribution=0.0)
    found = report(direct, direct.run("population-prune", spec, inputs))
    assert found["selectedTeam"] == ["b", "a"]
    assert float(found["removed"][0]["contribution"]) < 0


def test_a_planted_gate_is_chosen_on_one_set_and_confirmed_on_another(direct: Direct, planted: Inputs) -> None:
    """A target that is right where it is sure: the threshold lies at its last sure question, and holds on new ones."""
    for name, select in (("a", [0.99, 0.95, 0.4, 0.45]), ("b", [0.3, 0.3, 0.8, 0.8])):
        planted[f"records-{name}-sums"] = chosen(direct, select)
        planted[f"heldout-{name}-sums"] = chosen(direct, select * 3, "h")
    inputs = {name: digest for name, digest in planted.items() if not name.startswith("model-")}
    inputs["team"] = direct.store.put(canonical.dumps({"selectedTeam": ["a", "b"]}))
    found = report(direct, direct.run("gate-profile", GateProfile(benchmark="sums"), inputs), "gates")
    assert found["target"] == "a"
    helper = found["helpers"]["b"]
    assert [(item["coverage"], item["accuracy"]) for item in helper["profile"]] == [
        ("0", "0.5"),
        ("0.25", "0.75"),
        ("0.5", "1"),
        ("0.75", "0.75"),
        ("1", "0.5"),
    ]
    entropy = -(0.95 * math.log(0.95) + 0.05 * math.log(0.05))
    assert float(helper["chosen"]["threshold"]) == pytest.approx(entropy, abs=1e-9)
    assert helper["heldOut"]["accuracy"] == "1"
    assert helper["heldOut"]["against"] == {"wins": 6, "losses": 0, "p": "0.03125"}
    assert found["perSpecialistContribution"] == {"b": "0.5"}
    with pytest.raises(InputError, match="profile a gate on choices"):
        direct.run(
            "gate-profile", GateProfile(benchmark="sums"), inputs | {f"records-{name}-sums": generated(direct, "1111") for name in "ab"}
        )


# --- with models, and in recipes ---------------------------------------------------------------------------------------------------


def test_records_of_evaluated_models_are_what_a_search_reads(direct: Direct, tmp_path: Path) -> None:
    """Two models whose answers are known, asked by the benchmark: one knows small sums, the other large ones."""
    asked = {
        prefix: [{"id": f"{prefix}{n}", "question": f"{n} + {n} =", "answer": str(2 * n)} for n in places]
        for prefix, places in (("records", range(10)), ("heldout", range(10, 20)))
    }
    inputs: Inputs = {}
    for name, rest in (("even", 0), ("odd", 1)):
        says = {f"{n} + {n} =": f" #### {2 * n}" for n in range(20) if n % 2 == rest}
        inputs[f"model-{name}"] = tree.import_folder(direct.store, parrot.save(tmp_path / name, says))
        for prefix, rows in asked.items():
            dataset = direct.store.put(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
            spec = QuestionBenchmark(benchmark="sums", asking=Asking(kind="numeric-answer"), max_bytes=64)
            made = direct.run("question-benchmark", spec, {"model": inputs[f"model-{name}"], "dataset": dataset})
            inputs[f"{prefix}-{name}-sums"] = made["records"]
    found = report(direct, direct.run("team-search", TeamSearch(candidates=("even", "odd"), benchmarks=("sums",)), inputs))
    assert found["selectedTeam"] == ["even", "odd"]
    assert found["oracleGain"] == "0.5"
    assert found["confirmation"]["anyone"] == "1"
    assert found["confirmation"]["against"]["wins"] == 5


RECIPE = """
name: team
version: 1.0.0
stages:
  - {type: import-model, id: mine, folder: one}
  - {type: team-search, searchPool: [mine, models/two], benchmark: multiple-choice, dataset: choose.jsonl, heldOut: confirm.jsonl,
     numProblems: 50, candidatesEvaluated: 2, minNet: 0.01}
  - {type: population-prune, minContribution: 0.02, memoryBytes: 1000000, removedModels: [], vramSavedGb: 0}
  - {type: gate-profile, benchmark: multiple-choice, numProblems: 40, targetModel: models/two}
"""


def lower(text: str) -> lowering.Plan:
    return lowering.lower(recipe.parse(text), lambda path: Digest.of(str(path).encode()))


def test_the_recipe_forms_load() -> None:
    """Keys of the format reach the specs; every candidate has evaluations of its own, and later stages read the same records."""
    plan = lower(RECIPE)
    nodes = {node.id: node for node in plan.graph.nodes}
    search, prune, gate = (nodes[name] for name in ("team-search", "population-prune", "gate-profile"))
    assert search.spec == TeamSearch(candidates=("mine", "two"), benchmarks=("multiple-choice",), min_net=0.01)
    assert prune.spec == PopulationPrune(benchmarks=("multiple-choice",), min_contribution=0.02, memory_bytes=1_000_000)
    assert gate.spec == GateProfile(benchmark="multiple-choice", target="two", questions=40)
    assert search.inputs["heldout-two-multiple-choice"] == Ref("team-search/two-heldout", "records-multiple-choice")
    assert nodes["team-search/two-records"].spec.benchmarks[0].settings == {"questions": 50}
    assert nodes["team-search/two-heldout"].spec.benchmarks[0].settings == {}
    assert nodes["team-search/two-heldout"].inputs["dataset-0"] == Digest.of(b"confirm.jsonl")
    assert (prune.inputs["team"], gate.inputs["team"]) == (Ref("team-search", "team"), Ref("population-prune", "team"))
    assert prune.inputs["model-two"] == search.inputs["model-two"]


def test_one_more_candidate_evaluates_only_itself() -> None:
    """All nodes of the smaller search but its last are those of the larger one."""
    less, more = (
        {node.id: node for node in lower(RECIPE.replace("models/two]", pool)).graph.nodes} for pool in ("models/two]", "models/two, three]")
    )
    ended = {"team-search", "population-prune", "gate-profile"}
    assert all(more[name] == node for name, node in less.items() if name not in ended)
    assert set(more) - set(less) == {"team-search/import-three", "team-search/three-records", "team-search/three-heldout"}


def test_second_samples_and_several_benchmarks_load() -> None:
    """A second asking differs in the settings that it names; two data sets of one benchmark are called by their files."""
    listed = """benchmarks: [
      {name: numeric-answer, dataset: a.jsonl, heldOut: ha.jsonl},
      {name: numeric-answer, dataset: b.jsonl, heldOut: hb.jsonl, secondSample: {preamble: 'Think.'}}],"""
    text = RECIPE.replace("benchmark: multiple-choice, dataset: choose.jsonl, heldOut: confirm.jsonl,", listed)
    plan = lower(text.replace("gate-profile, benchmark: multiple-choice", "gate-profile, benchmark: numeric-answer-a"))
    nodes = {node.id: node for node in plan.graph.nodes}
    assert nodes["team-search"].spec.benchmarks == ("numeric-answer-a", "numeric-answer-b")
    (use,) = nodes["team-search/two-second"].spec.benchmarks
    assert (use.label, use.settings) == ("numeric-answer-b", {"preamble": "Think.", "questions": 50})
    assert nodes["team-search/two-second"].inputs["dataset-0"] == Digest.of(b"b.jsonl")
    asked = nodes["team-search"].inputs["heldoutsecond-two-numeric-answer-b"]
    assert isinstance(asked, Ref)
    assert asked.output == "records-numeric-answer-b"


ENSEMBLES = """  - {type: many-worlds-ensemble, id: alone, take: best}
  - {type: many-worlds-ensemble, id: together}
  - type: eval
    compareTo: alone
    benchmarks: [{name: multiple-choice, dataset: report.jsonl}, {name: numeric-answer, dataset: sums.jsonl}]
"""


def test_a_team_becomes_an_ensemble_and_is_held_against_the_best_alone() -> None:
    """Every candidate is an input, the nearest team chooses; `eval` pairs the two ensembles on every benchmark and no other model."""
    nodes = {node.id: node for node in lower(RECIPE + ENSEMBLES).graph.nodes}
    alone, together = nodes["alone"], nodes["together"]
    assert (alone.spec.members, alone.spec.take, together.spec.take) == (("mine", "two"), "best", "team")
    models = {"model-mine": Ref("mine", "model"), "model-two": nodes["team-search"].inputs["model-two"]}
    assert alone.inputs == together.inputs == {"team": Ref("population-prune", "team"), **models}
    rows = nodes["eval/compare"].spec.rows
    assert [(row.name, row.variant, row.baseline) for row in rows] == [
        ("base-multiple-choice", "alone", None),
        ("base-numeric-answer", "alone", None),
        ("together-multiple-choice", "together", "base-multiple-choice"),
        ("together-numeric-answer", "together", "base-numeric-answer"),
    ]
    assert nodes["eval/base"].inputs["model"] == Ref("alone", "model")


def test_the_models_of_several_stages_are_each_held_against_one() -> None:
    """The base is measured once, also where it is among them; each of the others stands against it on every benchmark."""
    text = RECIPE + ENSEMBLES.replace("compareTo: alone", "compareTo: together\n    models: [mine, together, alone]")
    nodes = {node.id: node for node in lower(text).graph.nodes}
    rows = [(row.variant, row.benchmark, row.baseline) for row in nodes["eval/compare"].spec.rows]
    assert [variant for variant, benchmark, _ in rows if benchmark == "numeric-answer"] == ["together", "mine", "alone"]
    assert {baseline for variant, _, baseline in rows if variant != "together"} == {"base-multiple-choice", "base-numeric-answer"}
    assert nodes["eval/mine"].inputs["model"] == Ref("mine", "model")


@pytest.mark.parametrize("words", ["team: team-search", "specialists: team-search"])
def test_a_team_may_be_named_and_so_may_its_target(words: str) -> None:
    """By the id of the stage; a target is a candidate by another name, or joins them."""
    text = RECIPE + f"  - {{type: many-worlds-ensemble, id: whole, targetModel: TARGET, {words}}}\n"
    node = next(node for node in lower(text.replace("TARGET", "models/two")).graph.nodes if node.id == "whole")
    assert (node.spec.members, node.spec.target, node.inputs["team"]) == (("two", "mine"), "two", Ref("team-search", "team"))
    node = next(node for node in lower(text.replace("TARGET", "models/three")).graph.nodes if node.id == "whole")
    assert (node.spec.members, node.spec.target) == (("three", "mine", "two"), "three")
    assert node.inputs["model-three"] == Ref("whole/import-three", "model")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("id: alone, take: best", "id: alone, take: first", "line 10: .*take is 'first'"),
        ("id: alone, take: best", "id: alone, take: best, targetModel: mine", "line 10: .*target is 'mine'"),
        ("id: alone, take: best", "id: alone, team: gate-profile", "line 10: team is 'gate-profile'; .*team-search, population-prune"),
        ("id: alone, take: best", "id: alone, team: team-search, specialists: [mine]", "line 10: .*specialists or a team, not both"),
        ("id: alone, take: best", "id: alone, take: best, targetModel: mine, specialists: []", "line 10: take says who of a team speaks"),
        ("id: alone, take: best", "id: alone, members: [mine]", "line 10: unknown key 'members' .* write targetModel and specialists"),
        ("id: alone, take: best", "id: alone, combiner: fixed-shares", "line 10: .*did you mean 'fixed-share'"),
        ("compareTo: alone", "compareTo: team-search", "line 13: compareTo is 'team-search'; .*: mine, alone, together"),
        ("compareTo: alone", "compareTo: alone\n    compareToBase: false", "line 13: compareTo asks for a comparison"),
        ("compareTo: alone", "models: [mine, team-search]", "line 13: models: 'team-search' is not the id .*: mine, alone, together"),
        ("compareTo: alone", "models: [mine, mine]", "line 13: models is a list of ids of earlier stages, each once"),
        ("compareTo: alone", "models: []", "line 13: models is a list of ids"),
    ],
)
def test_faults_of_choosing_are_told(old: str, new: str, message: str) -> None:
    """With the line, and what there is instead."""
    with pytest.raises((RecipeError, SpecError), match=message):
        lower((RECIPE + ENSEMBLES).replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("searchPool: [mine, models/two]", "searchPool: [mine]", "line 6: .*at least 2 models"),
        ("searchPool: [mine, models/two]", "searchPool: mine", "line 6: .*needs searchPool: a list"),
        ("searchPool: [mine, models/two]", "searchPool: [a/two, models/two]", "two are called two"),
        ("heldOut: confirm.jsonl,", "", "needs dataset, to choose on, and heldOut"),
        ("benchmark: multiple-choice, dataset", "benchmark: multiple-chioce, dataset", "did you mean 'multiple-choice'"),
        ("benchmark: multiple-choice, dataset", "benchmark: perplexity, dataset", "keeps no record of each question"),
        ("numProblems: 50", "numProblems: 0", "numProblems is 0"),
        ("memoryBytes: 1000000", "memoryByte: 1", "did you mean 'memoryBytes'"),
        ("minContribution: 0.02", "minContribution: -1", "min_contribution -1.0 must not be negative"),
        ("gate-profile, benchmark: multiple-choice", "gate-profile, benchmark: arc", "the team search has no benchmark 'arc'"),
        ("targetModel: models/two", "targetModel: other", "other is no candidate of the team search; there are mine, two"),
    ],
)
def test_faults_of_recipes_are_told(old: str, new: str, message: str) -> None:
    """A wrong key, a missing one, a value outside of its range: found when the recipe is read."""
    assert old in RECIPE
    with pytest.raises((RecipeError, SpecError), match=message):
        lower(RECIPE.replace(old, new, 1))


def test_pruning_needs_a_search_before_it() -> None:
    """A team comes from somewhere."""
    with pytest.raises(RecipeError, match="put a team-search stage before it"):
        lower("name: x\nstages:\n  - {type: population-prune}\n")

"""The recipe form many-worlds-population, and that recipes of the published format load with every key that it has."""

from __future__ import annotations

from typing import Any

import pytest

from stages import lowering, recipe
from stages.errors import RecipeError, SpecError
from stages.gate_profile import GateProfile
from stages.stage import Ref
from store.digest import Digest

WHOLE = """type: many-worlds-population
target: models/phi
search_pool: [models/code/model, models/maths]
benchmark: gsm8k
dataset: choose.jsonl
heldOut: report.jsonl
num_eval_problems: 50
alpha: 0.3
top_k: 20
min_contribution: 0.01
output: somewhere
"""


def lower(text: str) -> dict[str, Any]:
    plan = lowering.lower(recipe.parse(text), lambda path: Digest.of(str(path).encode()))
    return {node.id: node for node in plan.graph.nodes}


def test_a_population_is_searched_pruned_combined_and_held_against_the_best() -> None:
    """Every model is asked byte by byte on what chooses; the target with the chosen meets the best single model elsewhere."""
    nodes = lower(WHOLE)
    assert recipe.parse(WHOLE).name == "many-worlds-gsm8k-blend"
    search, prune, blend, best = (nodes[name] for name in ("team-search", "population-prune", "population", "best-single"))
    assert search.spec.candidates == ("phi", "code", "maths")
    assert search.inputs["model-code"] == Ref("code", "model")
    assert (nodes["code"].spec.members, nodes["code"].spec.combiner) == (("code",), "fixed-share")
    assert nodes["team-search/code-records"].spec.benchmarks[0].settings == {"questions": 50}
    assert (prune.spec.min_contribution, prune.inputs["team"]) == (0.01, Ref("team-search", "team"))
    assert (blend.spec.target, blend.inputs["team"]) == ("phi", Ref("population-prune", "team"))
    assert (blend.spec.combiner, blend.spec.settings) == ("first-token-boost", {"alpha": "0.3", "top_k": 20})
    assert (best.spec.take, best.inputs["team"]) == ("best", Ref("team-search", "team"))
    asked = {name: nodes[f"eval/{name}"] for name in ("base", "population")}
    assert {name: node.inputs["model"] for name, node in asked.items()} == {
        "base": Ref("best-single", "model"),
        "population": Ref("population", "model"),
    }
    assert {node.inputs["dataset-0"] for node in asked.values()} == {Digest.of(b"report.jsonl")}
    assert nodes["team-search/code-records"].inputs["dataset-0"] == Digest.of(b"choose.jsonl")


STAGE = """name: x
stages:
  - {type: import-model, id: phi, folder: somewhere}
  - type: many-worlds-population
    target: phi
    searchPool: [models/code]
    combiner: bayes
    memoryBytes: 1000
    benchmarks:
      - {name: gsm8k, dataset: a.jsonl, heldOut: b.jsonl, maxBytes: 64, secondSample: {preamble: Think.}}
      - {name: arc, dataset: c.jsonl, heldOut: d.jsonl}
  - {type: gate-profile, benchmark: arc}
"""


def test_a_population_may_be_one_stage_among_others() -> None:
    """A model may be that of an earlier stage, several benchmarks choose together, and without the boost's keys ours combines."""
    nodes = lower(STAGE)
    assert nodes["phi-alone"].inputs == {"model-phi": Ref("phi", "model")}
    assert nodes["team-search"].spec.candidates == ("phi-alone", "code")
    assert (nodes["population"].spec.target, nodes["population"].spec.combiner) == ("phi-alone", "bayes")
    assert nodes["population-prune"].spec.memory_bytes == 1000
    assert [use.settings for use in nodes["eval/population"].spec.benchmarks] == [{"max_bytes": 64}, {}]
    assert nodes["team-search/code-second"].spec.benchmarks[0].settings == {"max_bytes": 64, "preamble": "Think.", "questions": 50}
    assert nodes["gate-profile"].spec == GateProfile(benchmark="arc", questions=100)
    unnamed = lower(STAGE.replace("id: phi, ", "").replace("target: phi", "target: import-model"))
    assert unnamed["import-model-alone"].inputs == {"model-import-model": Ref("import-model", "model")}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("heldOut: report.jsonl\n", "", "line 5: .*two data sets of gsm8k: .*; given is dataset. .* into two files"),
        ("dataset: choose.jsonl\nheldOut: report.jsonl\n", "", "two data sets of gsm8k: .*; neither is given"),
        ("heldOut: report", "heldOut: choose", "line 5: .*two data sets of gsm8k: .*; both are one file"),
        ("search_pool: [", "serch_pool: [", "line 3: unknown key 'serch_pool' .*did you mean 'search_pool'"),
        ("search_pool: [models/code/model, models/maths]", "search_pool: []", "line 3: .*needs target, a model, and search_pool"),
        ("models/maths]", "other/phi]", "line 3: two models of many-worlds-population are of one name"),
        ("top_k: 20", "top_k: 20\ntopK: 20", "line 10: topK and top_k of many-worlds-population are one key|line 9: .*one key"),
        ("benchmark: gsm8k\n", "", "needs benchmark, a name"),
        ("output: somewhere", "stages: []", "line 11: a recipe of the type many-worlds-population has no stages"),
        ("min_contribution: 0.01", "min_contribution: -1", "line 10: .*min_contribution -1.0 must not be negative"),
        ("alpha: 0.3", "alpha: 3", "line 8: combiner first-token-boost: alpha is 3.0|alpha is 3.0"),
    ],
)
def test_faults_of_a_population_are_told_with_their_line(old: str, new: str, message: str) -> None:
    """As the file was written, not as it is written out."""
    assert old in WHOLE
    with pytest.raises((RecipeError, SpecError), match=message):
        lower(WHOLE.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("combiner: bayes", "combiner: byes", "line 7: .*did you mean 'bayes'"),
        ("    target: phi", "    id: mine\n    target: phi", "line 5: many-worlds-population stands for several stages and takes no id"),
        ("benchmark: arc}", "benchmark: ark}", "line 12: the team search has no benchmark 'ark'"),
        ("benchmarks:", "dataset: x\n    benchmarks:", "takes benchmarks, or benchmark with dataset and heldOut, not both"),
    ],
)
def test_lines_hold_before_behind_and_inside_a_population(old: str, new: str, message: str) -> None:
    """Stages behind it are told by their own lines."""
    assert old in STAGE
    with pytest.raises((RecipeError, SpecError), match=message):
        lower(STAGE.replace(old, new, 1))


PUBLISHED = """name: published
version: 1.0.0
stages:
  - {type: import-model, id: a, folder: one}
  - {type: many-worlds-substrate, substrateDim: 256, numGaussians: 128, sourceModels: [a, two], calibrationCorpus: c.jsonl,
     trainingSteps: 1000, learningRate: "1e-4", lossType: both}
  - {type: many-worlds-adapter, targetModel: three, substratePath: many-worlds-substrate, adapterRank: 64, insertLayer: 2,
     trainingSteps: 500, learningRate: "1e-4"}
  - {type: team-search, searchPool: [a, two], benchmark: gsm8k, dataset: c.jsonl, heldOut: h.jsonl, numProblems: 50, candidatesEvaluated: 2,
     selectedTeam: [a], divergenceScore: 0.2, complementaryProblems: 11}
  - {type: population-prune, minContribution: 0.05, removedModels: [two], vramSavedGb: 1.5}
  - {type: gate-profile, benchmark: gsm8k, numProblems: 100, perSpecialistContribution: {two: 0.1}, exportPath: gates.json}
  - {type: many-worlds-ensemble, method: logit-blend, targetModel: a, specialists: [two], alpha: 0.2, topK: 20,
     blendStrategy: specialist-top-k-boost, vramGb: 12}
"""


def test_every_key_of_the_published_stages_loads() -> None:
    """What describes an earlier result changes nothing: without it, the same graph."""
    described = (
        ", candidatesEvaluated: 2,\n     selectedTeam: [a], divergenceScore: 0.2, complementaryProblems: 11",
        ", removedModels: [two], vramSavedGb: 1.5",
        ", perSpecialistContribution: {two: 0.1}, exportPath: gates.json",
        ", vramGb: 12",
    )
    less = PUBLISHED
    for words in described:
        assert words in less
        less = less.replace(words, "")
    assert lower(PUBLISHED) == lower(less)


def test_defaults_are_the_published_ones() -> None:
    """Left out is as written: 50 problems of a search, 100 of a gate, .05 of a contribution; alpha .2 and 20 tokens of the boost."""
    defaults = (", numProblems: 50", ", numProblems: 100", ", minContribution: 0.05", ", alpha: 0.2, topK: 20", ", adapterRank: 64")
    less = PUBLISHED
    for words in (*defaults, ", substrateDim: 256, numGaussians: 128", ", method: logit-blend"):
        assert words in less, words
        less = less.replace(words, "")
    assert lower(PUBLISHED) == lower(less)

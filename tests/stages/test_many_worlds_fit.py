"""Weights are fitted on texts that are used for nothing else: what is fitted, on which bytes, for whom, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages import combiner_fit, ensemble_tree, lowering, many_worlds_fit, recipe
from stages.byte_lm import byte_lm
from stages.byte_lm.byte_lm import ByteLm
from stages.byte_rows import ByteRows
from stages.combiner_fit import CombinerFit, interval
from stages.combiners import geometric
from stages.combiners.combiner import find
from stages.errors import InputError, RecipeError, SpecError
from stages.fit_apart import FitApart
from stages.fit_texts import FitSet, FitTexts, texts_of
from stages.many_worlds_ensemble import ManyWorldsEnsemble
from stages.many_worlds_fit import ManyWorldsFit
from stages.stage import Input, Ref
from store import tree
from store.digest import Digest
from store.local import LocalCas
from tests.direct import Direct
from tests.tiny import make_model

CHOICES = [
    {"id": f"c{i}", "question": f"Which way is it at the corner of street {i}?", "choices": ["left", "right"], "answer": i % 2}
    for i in range(3)
]
NUMBERS = [{"id": f"n{i}", "question": f"{i} + {i} =", "answer": str(2 * i)} for i in range(2)]
CODE = {"task_id": "f", "prompt": "def f(x):\n", "entry_point": "f", "test": "assert f(1) == 1\n"}
NAMES = ("one", "two")


def lines(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@dataclass
class Worlds:
    """Two random models with different tokenizers."""

    store: LocalCas
    direct: Direct
    folders: Mapping[str, Path]
    models: Mapping[str, Digest]

    def fit(self, spec: ManyWorldsFit, *data: bytes, measured: bytes = b"") -> Digest:
        """A fit of both on some data sets, with another that is measured."""
        inputs = {f"dataset-{number}": self.store.put(item) for number, item in enumerate(data)}
        inputs |= {"measured-0": self.store.put(measured)} if measured else {}
        return self.direct.run("many-worlds-fit", spec, inputs | {f"model-{name}": self.models[name] for name in NAMES})["fit"]


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Worlds:
    place = tmp_path_factory.mktemp("fit")
    store = LocalCas(place / "store")
    small: dict[str, Any] = {"hidden": 32, "intermediate": 32, "layers": 1, "experts": 2, "max_position_embeddings": 256}
    vocabs = {"one": 300, "two": 420}
    folders = {name: make_model(place / name, vocab=size, seed=size, **small) for name, size in vocabs.items()}
    return Worlds(store, Direct(store, place), folders, {name: tree.import_folder(store, folder) for name, folder in folders.items()})


SPEC = ManyWorldsFit(fit=CombinerFit(members=NAMES), sets=(FitSet(kind="multiple-choice"), FitSet(kind="texts")), rows=ByteRows())
PLAIN = [{"text": "def add(left, right):"}, {"id": "t", "prompt": "return", "text": " left"}]


# --- texts -------------------------------------------------------------------------------------------------------------------------


def test_a_question_is_a_text_with_its_right_answer() -> None:
    """The right choice behind the delimiter, the number or the worked answer, a program with its solution where there is one."""
    (first, second, _) = texts_of(lines(CHOICES), FitSet(kind="multiple-choice", template="Q: {question}\nA:"))
    assert (first.prompt, first.text) == (f"Q: {CHOICES[0]['question']}\nA:", " left")
    assert (second.text, second.asked) == (" right", CHOICES[1]["question"])
    assert [item.text for item in texts_of(lines(NUMBERS), FitSet(kind="numeric-answer"))] == [" 0", " 2"]
    worked = [{"question": "Q", "answer": "1 + 1 = 2\n#### 2"}]
    assert texts_of(lines(worked), FitSet(kind="numeric-answer", delimiter="\n"))[0].text == "\n1 + 1 = 2\n#### 2"
    code = [CODE, CODE | {"task_id": "g", "canonical_solution": "    return x\n"}]
    assert [item.text for item in texts_of(lines(code), FitSet(kind="code-execution"))] == ["", "    return x\n"]
    assert [(item.prompt, item.text) for item in texts_of(lines(PLAIN), FitSet(kind="texts"))] == [
        ("", PLAIN[0]["text"]),
        ("return", " left"),
    ]
    assert len(texts_of(lines(CHOICES), FitSet(kind="multiple-choice", first=2))) == 2
    with pytest.raises(InputError, match="line 1: needs 'text'"):
        texts_of(lines(NUMBERS), FitSet(kind="texts"))


def test_what_is_measured_must_not_be_fitted_on(worlds: Worlds) -> None:
    """Known again in another layout, and inside of a text; what is only alike is another question."""
    texts = worlds.direct.run(
        "fit-texts",
        FitTexts(sets=(FitSet(kind="texts"),)),
        {"dataset-0": worlds.store.put(lines([{"text": f"Question: {CHOICES[0]['question']}\nAnswer: left"}, {"text": "1 + 1 ="}]))},
    )["texts"]

    def held(rows: list[dict[str, Any]]) -> Digest:
        return worlds.direct.run("fit-apart", FitApart(), {"texts": texts, "measured-0": worlds.store.put(lines(rows))})["apart"]

    apart = held([CHOICES[1], NUMBERS[0] | {"question": "11 + 1 ="}, NUMBERS[0] | {"question": "1 +"}])
    assert apart == held([CODE])
    for question in (CHOICES[0]["question"], str(CHOICES[0]["question"]).replace(" ", "\n "), "1  + 1 ="):
        with pytest.raises(InputError, match="1 questions that are measured are in the fitting set, the first is x"):
            held([CHOICES[1], {"id": "x", "question": question}])


# --- what is fitted ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scored", ["all", "answer"])
def test_weights_are_those_of_least_loss_on_the_bytes_that_count(worlds: Worlds, scored: Any) -> None:
    """As `geometric.fit` gives them for each member's own rows; the loss beside them is the least."""
    spec = replace(SPEC, fit=replace(SPEC.fit, scored=scored))
    report = json.loads(worlds.store.read(worlds.fit(spec, lines(CHOICES), lines(PLAIN))))
    members: list[ByteLm] = [byte_lm.load(worlds.folders[name]) for name in NAMES]
    texts = [*texts_of(lines(CHOICES), SPEC.sets[0]), *texts_of(lines(PLAIN), SPEC.sets[1])]
    given = []
    for item in texts:
        data, start = (item.prompt + item.text).encode(), len(item.prompt.encode()) if scored == "answer" else 0
        given.append((np.stack([member.rows(data)[:-1] for member in members], axis=1)[start:], data[start:]))
    weights = [float(value) for value in report["settings"]["weights"]]
    assert weights == pytest.approx(geometric.fit(given), abs=1e-4)
    assert sum(weights) == pytest.approx(1)
    assert report["texts"]["scoredBytes"] == sum(len(data) for _, data in given)
    losses = report["loss"]
    assert float(losses["fitted"]) <= min(float(losses["equalGeometric"]), *map(float, losses["members"].values())) + 1e-6
    assert report["models"] == {name: str(worlds.models[name]) for name in NAMES}


def test_thresholds_are_those_of_least_loss() -> None:
    """Against every pair of thresholds between neighbours: none gains more, and what is open by them gains just that."""
    rng = np.random.default_rng(3)
    for _ in range(30):
        unsure, gains = rng.integers(0, 8, 12) / 8 + 0.05, rng.normal(0, 1, 12)

        def gained(below: float, above: float, unsure: Any = unsure, gains: Any = gains) -> float:
            return float(gains[(below <= unsure) & (unsure <= above)].sum())

        edges = np.concatenate([[0.0], np.unique(unsure) + 1e-6, np.unique(unsure) - 1e-6, [1.0]])
        best = max(gained(*pair) for pair in combinations_with_replacement(sorted(edges), 2))
        assert gained(*interval(unsure.tolist(), gains.tolist())) == pytest.approx(max(0.0, best))
    assert interval([0.2, 0.4], [-1.0, -1.0]) == (1.0, 1.0)
    assert interval([0.2, 0.4], [1.0, 1.0]) == (0.0, 1.0)


def test_a_gate_is_fitted_by_what_its_inner_combiner_gains(worlds: Worlds) -> None:
    """The fitted gate loses no more than the target alone or the inner combiner alone."""
    spec = replace(SPEC, fit=replace(SPEC.fit, combiner="uncertainty-gate"))
    report = json.loads(worlds.store.read(worlds.fit(spec, lines(CHOICES), lines(PLAIN))))
    members = [byte_lm.load(worlds.folders[name]) for name in NAMES]
    texts = []
    for item in [*texts_of(lines(CHOICES), SPEC.sets[0]), *texts_of(lines(PLAIN), SPEC.sets[1])]:
        data = (item.prompt + item.text).encode()
        texts.append((np.stack([member.rows(data)[:-1] for member in members], axis=1), data, 0))
    gate = combiner_fit.loss(find("uncertainty-gate", report["settings"], 2), texts)
    assert float(report["loss"]["fitted"]) == pytest.approx(gate, abs=1e-5)
    assert gate <= min(combiner_fit.loss(find("fixed-share", {}, 2), texts), float(report["loss"]["members"]["one"])) + 1e-5


def test_texts_without_what_counts_are_refused(worlds: Worlds) -> None:
    """Programs without a solution have no answer; a text that a member cannot read is named."""
    spec = replace(SPEC, sets=(FitSet(kind="code-execution"),), fit=replace(SPEC.fit, scored="answer"))
    with pytest.raises(InputError, match="scored: all"):
        worlds.fit(spec, lines([CODE]))
    with pytest.raises(InputError, match=r"text long: .*longer than the model reads"):
        worlds.fit(replace(SPEC, sets=(FitSet(kind="texts"),)), lines([{"id": "long", "text": "x y z " * 200}]))


# --- who takes it ------------------------------------------------------------------------------------------------------------------


def test_an_ensemble_takes_the_fit_of_its_members(worlds: Worlds) -> None:
    """The fitted weights are in its config; members in another order, other models of these names, or another combiner are refused."""
    fit = worlds.fit(SPEC, lines(CHOICES), lines(PLAIN))
    spec = ManyWorldsEnsemble(members=NAMES, combiner="geometric")
    inputs = {f"model-{name}": worlds.models[name] for name in NAMES} | {"fit": fit}
    made = worlds.direct.run("many-worlds-ensemble", spec, inputs)["model"]
    config = ensemble_tree.checked(worlds.store, made)
    assert config.settings == json.loads(worlds.store.read(fit))["settings"]
    with pytest.raises(InputError, match="the fit is of one, two"):
        worlds.direct.run("many-worlds-ensemble", replace(spec, members=("two", "one")), inputs)
    with pytest.raises(InputError, match="other models of these names"):
        worlds.direct.run("many-worlds-ensemble", spec, inputs | {"model-one": worlds.models["two"], "model-two": worlds.models["one"]})
    with pytest.raises(SpecError, match="the fit is of geometric"):
        worlds.direct.run("many-worlds-ensemble", replace(spec, combiner="bayes"), inputs)


RECIPE = """
name: fitted
version: 1.0.0
stages:
  - {type: many-worlds-fit, targetModel: one, specialists: [two], datasets: [{name: gsm8k, dataset: fit.jsonl, questions: 20}]}
  - {type: many-worlds-ensemble, targetModel: one, specialists: [two], fit: many-worlds-fit}
  - {type: eval, benchmarks: [{name: numeric-answer, dataset: set.jsonl}]}
"""


def test_the_recipe_forms_load() -> None:
    """A fit of its own or inside of the ensemble's stage; asked as the named benchmark asks; what is measured is held against it."""
    for text in (
        RECIPE,
        RECIPE.replace("fit: many-worlds-fit", "fitDataset: [{name: gsm8k, dataset: fit.jsonl, questions: 20}]").replace(
            "  - {type: many-worlds-fit", "  # "
        ),
    ):
        nodes = {node.id: node for node in lowering.lower(recipe.parse(text), lambda path: Digest.of(str(path).encode())).graph.nodes}
        (fit,) = (node for node in nodes.values() if node.stage == "many-worlds-fit")
        assert fit.spec.sets == (FitSet(kind="numeric-answer", template="Question: {question}\nAnswer:", first=20),)
        assert fit.inputs["measured-0"] == Digest.of(b"set.jsonl")
        made = nodes["many-worlds-ensemble"]
        assert (made.spec.combiner, set(made.inputs)) == ("geometric", {"model-one", "model-two", "fit"})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: gsm8k", "name: mmlu", "line 5: a fitting set has"),
        ("dataset: fit.jsonl, ", "", "line 5: a fitting set has"),
        ("questions: 20", "question: 20", "did you mean 'questions'"),
        ("datasets: [{name: gsm8k, dataset: fit.jsonl, questions: 20}]", "combiner: geometric", "line 5: .*needs datasets"),
        ("datasets:", "combiner: bayes, datasets:", "line 5: .*combiner is 'bayes'"),
        ("fit: many-worlds-fit", "fit: fits", "line 6: fit is 'fits'"),
        ("fit: many-worlds-fit", "fit: many-worlds-fit, settings: {}", "line 6: settings and fit exclude"),
        ("fit: many-worlds-fit", "fit: many-worlds-fit, combiner: bayes", "line 6: many-worlds-fit fits geometric"),
        ("specialists: [two], fit:", "specialists: [three], fit:", "line 6: .*the same members in the same order"),
    ],
)
def test_faults_of_recipes_are_told_with_their_line(old: str, new: str, message: str) -> None:
    """Found when the recipe is read."""
    assert old in RECIPE
    with pytest.raises((RecipeError, SpecError), match=message):
        lowering.lower(recipe.parse(RECIPE.replace(old, new, 1)), lambda path: Digest.of(b""))


def test_one_more_member_costs_its_own_reading(worlds: Worlds) -> None:
    """What reads for a member is the same action whoever else is a member, and whatever is fitted."""
    inputs: dict[str, Input] = {"dataset-0": Digest.of(b"set"), **{f"model-{name}": worlds.models[name] for name in NAMES}}
    alone = replace(SPEC, fit=CombinerFit(members=("one",), combiner="uncertainty-gate"))
    one = {node.id: node for node in many_worlds_fit.expand(alone, inputs, worlds.store).nodes}
    both = {node.id: node for node in many_worlds_fit.expand(SPEC, inputs, worlds.store).nodes}
    assert set(both) - set(one) == {"rows-two"}
    assert [name for name in one if one[name] != both[name]] == ["fit"]


def test_a_set_that_is_measured_is_never_fitted_on(worlds: Worlds) -> None:
    """The fit waits for the comparison with what the recipe measures, and a fit does not depend on what that was."""
    with pytest.raises(InputError, match="1 questions that are measured are in the fitting set, the first is c2"):
        worlds.fit(SPEC, lines(CHOICES), lines(PLAIN), measured=lines(CHOICES[2:]))
    inputs: dict[str, Input] = {"dataset-0": Digest.of(b"set"), **{f"model-{name}": worlds.models[name] for name in NAMES}}
    fit = {node.id: node for node in many_worlds_fit.expand(SPEC, inputs | {"measured-0": Digest.of(b"x")}, worlds.store).nodes}["fit"]
    assert fit.inputs["apart"] == Ref("apart", "apart")
    assert not any("measured" in name for name in fit.inputs)

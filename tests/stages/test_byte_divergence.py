"""Divergence over the next byte: the identity, planted cases, and that models are read once, in actions of their own."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages import lowering, questions, recipe
from stages.byte_divergence import ByteDivergence
from stages.byte_lm import byte_lm
from stages.byte_rows import FORM, ByteRows
from stages.errors import GuaranteeError, InputError, RecipeError, SpecError
from stages.many_worlds import tensor_file
from stages.many_worlds_ensemble import ManyWorldsEnsemble
from stages.questions import Question
from stages.stage import Ref
from stages.statistics import Mean
from stages.team import divergence, next_byte
from stages.team.next_byte import Read
from store import tree
from store.digest import Digest
from store.local import LocalCas
from tests.direct import Direct
from tests.tiny import make_model


def read_of(rows: Any, symbols: list[int], texts: list[int] | None = None) -> Read:
    return Read(
        rows=np.array(rows, dtype=np.float32),
        symbols=np.array(symbols, dtype=np.int64),
        texts=np.array(texts or [0] * len(symbols), dtype=np.int64),
    )


def random_read(seed: int, places: int = 30) -> Read:
    """Peaked rows, of which some bytes are impossible, as after the first byte of a character."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 4, (places, 257))
    logits[::3, 128:] = -np.inf
    top = logits.max(axis=1, keepdims=True)
    rows = logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
    return read_of(rows, np.random.default_rng(0).integers(0, 128, places).tolist(), [place // 5 for place in range(places)])


def test_a_team_loses_the_mean_less_its_divergence() -> None:
    """For two to four members, within 1e-6; D and loss are those of the slow functions; one member is itself."""
    reads = [random_read(seed) for seed in range(1, 5)]
    for count in (1, 2, 3, 4):
        found = next_byte.team(reads[:count])
        rows = [item.rows.astype(float).tolist() for item in reads[:count]]
        mixed, _ = divergence.geometric(rows)
        labels = reads[0].symbols.tolist()
        assert found.nll == pytest.approx(divergence.nll(mixed, labels), abs=1e-6)
        assert found.divergence == pytest.approx(divergence.divergence(rows), abs=1e-6)
        assert found.error < 1e-12
        mean = math.fsum(next_byte.team([item]).nll for item in reads[:count]) / count
        assert abs(found.nll - (mean - found.divergence)) < 1e-6


def test_a_broken_identity_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault in what is divided by is no report."""
    real = next_byte._log_sum
    pair = [random_read(1), random_read(2)]
    monkeypatch.setattr(next_byte, "_log_sum", lambda rows: real(rows) + 1e-5)
    with pytest.raises(GuaranteeError, match="differ by"):
        next_byte.team(pair)


def spoken(chances: list[tuple[float, float]]) -> Read:
    """Over two bytes, of which the first comes always; one text a byte."""
    rows = np.full((len(chances), 257), -np.inf)
    rows[:, :2] = np.log(chances)
    return read_of(rows, [0] * len(chances), list(range(len(chances))))


def test_a_planted_team_grows_by_the_net_gain() -> None:
    """One is sure where the other doubts: D in closed form outweighs its mean loss; c, worse everywhere, is refused."""
    sure, doubt = (0.99, 0.01), (0.5, 0.5)
    read = {"a": spoken([sure, doubt] * 4), "b": spoken([doubt, sure] * 4), "c": spoken([(0.05, 0.95)] * 8)}
    steps, refused, error = next_byte.grow(read)
    assert [step.name for step in steps] == ["a", "b"]
    assert refused is not None
    assert refused.name == "c"
    d = -math.log(math.sqrt(0.99 * 0.5) + math.sqrt(0.01 * 0.5))
    alone = -(math.log(0.99) + math.log(0.5)) / 2
    assert steps[1].divergence == pytest.approx(d, abs=1e-6)
    assert steps[1].nll == pytest.approx(alone - d, abs=1e-6)
    gain = steps[1].gain
    assert gain is not None
    assert gain.mean == pytest.approx(d, abs=1e-6)
    assert gain.clusters == 8
    assert error < 1e-9
    assert [step.name for step in next_byte.grow(read, most=1)[0]] == ["a"]


def test_the_least_number_of_texts_follows_from_gain_and_spread() -> None:
    """Power .8 at .05: (1.96 + .84)^2 variances of a text over the squared gain; none where nothing is gained."""
    gain = Mean(mean=0.1, stderr=0.05, low=None, high=None, n=100, clusters=25)
    assert next_byte.needed(gain) == math.ceil(25 * (2.801585 * 0.05 / 0.1) ** 2)
    assert next_byte.needed(Mean(mean=-0.1, stderr=0.05, low=None, high=None, n=100, clusters=25)) is None


def test_what_cannot_be_predicted_is_refused() -> None:
    """Other bytes; a byte that came and that a member holds impossible; members that agree on nothing."""
    with pytest.raises(InputError, match="read the same bytes"):
        next_byte.team([random_read(1), random_read(2, places=20)])
    one, other = (np.where(np.eye(257)[place : place + 1] > 0, 0.0, -np.inf) for place in (0, 1))
    with pytest.raises(InputError, match="probability 0"):
        next_byte.team([spoken([(0.5, 0.5)]), read_of(other, [0])])
    with pytest.raises(InputError, match="in common"):
        next_byte.team([read_of(one, [0]), read_of(other, [0])])


# --- with models -------------------------------------------------------------------------------------------------------------------


def test_models_are_read_once_and_compared_without_them(tmp_path: Path) -> None:
    """The file holds what `ByteLm` says, in float32; an ensemble of one reads as its member; the matrix is that of the files."""
    store = LocalCas(tmp_path / "store")
    direct = Direct(store, tmp_path)
    small: dict[str, Any] = {"hidden": 32, "intermediate": 32, "layers": 1, "experts": 2, "max_position_embeddings": 128}
    folders = {
        name: make_model(tmp_path / name, vocab=300 + 60 * seed, seed=seed, **small) for seed, name in enumerate(("a", "b"), start=1)
    }
    models = {name: tree.import_folder(store, folder) for name, folder in folders.items()}
    asked = store.put(
        questions.block([Question(id=f"q{n}", prompt=text) for n, text in enumerate(("def add(", "é = 1\n", "no room for this"))])
    )
    made = {
        name: direct.run("byte-rows", ByteRows(max_bytes=20), {"model": model, "texts": asked})["rows"] for name, model in models.items()
    }
    alone = direct.run("many-worlds-ensemble", ManyWorldsEnsemble(members=("a",)), {"model-a": models["a"]})["model"]
    assert direct.run("byte-rows", ByteRows(max_bytes=20), {"model": alone, "texts": asked})["rows"] == made["a"]
    file = tensor_file.read(direct.context.path(made["a"]), FORM)
    assert file.tensors["starts"].tolist() == [0, 8, 15]
    assert bytes(file.tensors["bytes"].tolist()) == "def add(é = 1\n".encode()
    expected = np.concatenate([byte_lm.load(folders["a"]).rows(text.encode())[:-1] for text in ("def add(", "é = 1\n")])
    assert np.array_equal(file.tensors["rows"].numpy(), expected.astype(np.float32))
    spec = ByteDivergence(candidates=("a", "b"), benchmarks=("sums",))
    inputs = {f"rows-{name}-sums": digest for name, digest in made.items()}
    found = json.loads(store.read(direct.run("byte-divergence", spec, inputs)["divergence"]))
    rows = [tensor_file.read(direct.context.path(made[name]), FORM).tensors["rows"].double().tolist() for name in "ab"]
    assert (found["bytes"], found["texts"]) == (15, 2)
    assert float(found["matrix"]["a"]["b"]) == pytest.approx(divergence.divergence(rows), abs=1e-6)
    mean = (float(found["nll"]["a"]) + float(found["nll"]["b"])) / 2
    assert float(found["pairNll"]["b"]["a"]) == pytest.approx(mean - float(found["matrix"]["a"]["b"]), abs=1e-6)
    with pytest.raises(SpecError, match="no input rows-c-sums"):
        direct.run("byte-divergence", ByteDivergence(candidates=("a", "c"), benchmarks=("sums",)), inputs)
    with pytest.raises(InputError, match="raise divergenceBytes"):
        direct.run("byte-rows", ByteRows(max_bytes=7), {"model": models["a"], "texts": asked})
    both = direct.run("many-worlds-ensemble", ManyWorldsEnsemble(members=("a", "b")), {f"model-{name}": models[name] for name in "ab"})
    with pytest.raises(InputError, match="ensembles of one"):
        direct.run("byte-rows", ByteRows(), {"model": both["model"], "texts": asked})


# --- in recipes --------------------------------------------------------------------------------------------------------------------

RECIPE = """name: team
stages:
  - {type: team-search, searchPool: [one, two], divergence: bytes, divergenceBytes: 5000, numProblems: 40, maxMembers: 2,
     benchmarks: [{name: gsm8k, dataset: a.jsonl, heldOut: b.jsonl}, {name: multiple-choice, dataset: c.jsonl, heldOut: d.jsonl}]}
"""


def lower(text: str) -> dict[str, Any]:
    plan = lowering.lower(recipe.parse(text), lambda path: Digest.of(str(path).encode()))
    return {node.id: node for node in plan.graph.nodes}


def test_one_more_candidate_reads_only_itself() -> None:
    """A file for each model and block; the search embeds the comparison; all other actions stay what they were."""
    less, more = lower(RECIPE), lower(RECIPE.replace("[one, two]", "[one, two, three]"))
    assert less["team-search/one-bytes-gsm8k"].inputs["texts"] == Ref("team-search/texts-gsm8k", "questions-00000")
    assert less["team-search/texts-gsm8k"].spec.block_questions == 40
    assert less["team-search/one-bytes-gsm8k"].spec == ByteRows(max_bytes=5000)
    assert less["team-search/bytes"].spec == ByteDivergence(
        candidates=("one", "two"), benchmarks=("gsm8k", "multiple-choice"), max_members=2
    )
    assert less["team-search"].inputs["divergence"] == Ref("team-search/bytes", "divergence")
    assert all(more[name] == node for name, node in less.items() if name not in ("team-search", "team-search/bytes"))
    assert {name for name in set(more) - set(less) if "bytes" in name} == {
        "team-search/three-bytes-gsm8k",
        "team-search/three-bytes-multiple-choice",
    }
    plain = lower(RECIPE.replace("divergence: bytes, divergenceBytes: 5000, ", ""))
    assert not any("bytes" in name for name in plain)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("divergence: bytes", "divergence: tokens", "line 3: divergence is 'tokens'"),
        ("divergenceBytes: 5000", "divergenceBytes: 0", "line 3: divergenceBytes is 0"),
        ("divergence: bytes, ", "", "line 3: divergenceBytes is for divergence: bytes"),
    ],
)
def test_faults_are_told(old: str, new: str, message: str) -> None:
    """With the line."""
    with pytest.raises(RecipeError, match=message):
        lower(RECIPE.replace(old, new, 1))

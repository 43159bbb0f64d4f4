"""The many-worlds stages: what is run once, what a crash costs, what is frozen, and that the recipe forms load."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stages import lowering, many_worlds_evaluate, many_worlds_segment, many_worlds_substrate, recipe
from stages.environment import pin
from stages.errors import InputError, RecipeError, SpecError, StageError
from stages.gather_states import GatherStates
from stages.hidden_states import HiddenStates, two_thirds
from stages.many_worlds import aligned, files, state, tensor_file
from stages.many_worlds.aligned import Rows
from stages.many_worlds.settings import Objective, Schedule
from stages.many_worlds_adapter import ManyWorldsAdapter
from stages.many_worlds_evaluate import ManyWorldsEvaluate
from stages.many_worlds_export import Asked, ManyWorldsExport
from stages.many_worlds_init import ManyWorldsInit
from stages.many_worlds_segment import ManyWorldsSegment
from stages.many_worlds_substrate import ManyWorldsSubstrate
from stages.stage import Composite
from store import tree
from store.digest import Digest
from store.local import LocalCas
from tests.direct import Direct
from tests.tiny import TEXT, corpus, make_model

SPEC = ManyWorldsSubstrate(
    models=("one", "two"),
    substrate_dim=64,
    num_gaussians=16,
    adapter_rank=16,
    training_steps=100,
    learning_rate=3e-3,
    batch_size=32,
    segment_steps=40,
    block_samples=12,
    max_bytes=120,
    heldout_percent=30,
    evaluation_places=200,
)


def samples(count: int) -> list[dict[str, str]]:
    words = " ".join(TEXT).split()
    return [{"text": f"{number} " + " ".join(words[(7 * number + n * n) % len(words)] for n in range(30))} for number in range(count)]


@dataclass
class Trained:
    """A substrate of two random models with different tokenizers, trained in three segments; a third model waits."""

    store: LocalCas
    direct: Direct
    models: Mapping[str, Digest]
    calibration: Digest
    outputs: Mapping[str, Digest]

    def entries(self, substrate: Digest) -> dict[str, Digest]:
        """Path -> digest of a substrate's folder."""
        return {item.path: item.digest for item in tree.load(self.store, substrate).entries}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    pin(1)
    place = tmp_path_factory.mktemp("worlds")
    store = LocalCas(place / "store")
    direct = Direct(store, place)
    shapes: dict[str, dict[str, Any]] = {
        "one": {"hidden": 32, "layers": 3, "vocab": 300, "experts": 2},
        "two": {"hidden": 48, "layers": 2, "vocab": 420, "experts": 2},
        "three": {"hidden": 32, "layers": 4, "vocab": 360, "experts": 2},
    }
    folders = {name: make_model(place / name, intermediate=32, seed=n, **shape) for n, (name, shape) in enumerate(shapes.items())}
    models = {name: tree.import_folder(store, folder) for name, folder in folders.items()}
    calibration = store.put(corpus(samples(36)))
    inputs = {"calibration": calibration, "model-one": models["one"], "model-two": models["two"]}
    return Trained(store, direct, models, calibration, direct.run("many-worlds-substrate", SPEC, inputs))


def of(trained: Trained, stage: str) -> list[tuple[str, Mapping[str, Digest], Mapping[str, Digest]]]:
    """The runs of a stage, by the beginning of their node's id."""
    return [item for item in trained.direct.ran if item[0].startswith(stage)]


# --- states --------------------------------------------------------------------------------------------------------------------


def test_states_are_those_of_transformers_at_two_thirds(trained: Trained) -> None:
    """Each row is the hidden state after floor(2 L / 3) layers of the last token that ends at its place, as transformers gives it."""
    from transformers import AutoModelForCausalLM

    from stages.hf_tokenizer import HfTokenizer

    _, inputs, outputs = of(trained, "states-one-00000")[0]
    file = tensor_file.read(trained.store.path(outputs["states"]), "hidden-states/v1")
    assert (file.head["layer"], file.head["layers"]) == (two_thirds(3), 3) == (2, 3)
    folder = trained.direct.context.folder(trained.models["one"])
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = HfTokenizer(folder)
    text = json.loads(trained.store.read(inputs["samples"]).split(b"\n")[3])["text"].encode()[:120].decode()
    ids = tokenizer.encode(text, add_special=False)
    with torch.inference_mode():
        wanted = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
    start, stop = file.tensors["texts"][3:5].tolist()
    assert torch.equal(file.tensors["states"][start:stop], wanted[2][0])  # byte-level tokens each end at a place of their own
    pieces = [len(tokenizer.decode(ids[: number + 1]).encode()) for number in range(len(ids))]
    assert file.tensors["ends"][start:stop].tolist() == pieces
    assert not torch.allclose(wanted[2][0], wanted[1][0])


def test_aligned_rows_have_read_the_same_bytes(trained: Trained) -> None:
    """Every model's row at a place is its state after exactly those bytes: what it computes from the prefix alone."""
    from transformers import AutoModelForCausalLM

    from stages.hf_tokenizer import HfTokenizer

    _, inputs, outputs = of(trained, "aligned-00000")[0]
    file = tensor_file.read(trained.store.path(outputs["aligned"]), "aligned-states/v1")
    rows = len(file.tensors["ends"])
    assert 50 < rows < len(tensor_file.read(trained.store.path(inputs["states-one"]), "hidden-states/v1").tensors["ends"])
    from stages.many_worlds import positions

    texts = {positions.key_of(data): data for line in trained.store.read(inputs["samples"]).splitlines()
             for data in [json.loads(line)["text"].encode()[:120]]}  # fmt: skip
    for name, layer in (("one", 2), ("two", 1)):
        folder = trained.direct.context.folder(trained.models[name])
        model, tokenizer = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), HfTokenizer(folder)
        for row in range(0, rows, 37):
            data = texts[int(file.tensors["texts"][row])]
            prefix = data[: int(file.tensors["ends"][row])]
            assert positions.key_of(prefix) == int(file.tensors["prefixes"][row])
            whole = tokenizer.encode(data.decode(), add_special=False)
            ids = next(whole[:n] for n in range(1, len(whole) + 1) if tokenizer.decode(whole[:n]).encode() == prefix)
            with torch.inference_mode():
                alone = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[layer][0, -1]
            assert torch.allclose(file.tensors[f"states/{name}"][row], alone, atol=1e-4)


def test_training_and_held_out_share_nothing(trained: Trained) -> None:
    """No text and no beginning of a text is on both sides, and none is twice on one; which side a text is on depends on itself alone."""
    _, inputs, _ = of(trained, "init")[0]
    data = aligned.load(trained.direct.context.folder(inputs["aligned"]), 30)
    sides = [data.train, data.held_out]
    texts, prefixes = ([set(getattr(side, name).tolist()) for side in sides] for name in ("texts", "prefixes"))
    assert not texts[0] & texts[1]
    assert not prefixes[0] & prefixes[1]
    assert [len(item) for item in prefixes] == [len(side) for side in sides]
    assert all(key % 100 >= 30 for key in texts[0])
    assert all(key % 100 < 30 for key in texts[1])


def test_a_text_longer_than_the_model_is_refused(trained: Trained, tmp_path: Path) -> None:
    """Nothing is cut silently at a token: the person is told to lower the number of bytes, for all models alike."""
    model = tree.import_folder(trained.store, make_model(tmp_path / "short", hidden=32, experts=2, vocab=300, max_position_embeddings=16))
    block = trained.store.put(corpus([{"text": "x" * 50}]))
    with pytest.raises(InputError, match="model reads 16: lower maxBytes"):
        trained.direct.run("hidden-states", HiddenStates(), {"model": model, "samples": block})
    with pytest.raises(SpecError, match="layer is 9, and the model has 2 layers"):
        trained.direct.run("hidden-states", HiddenStates(layer=9, max_bytes=8), {"model": model, "samples": block})


# --- training ------------------------------------------------------------------------------------------------------------------


def test_base_models_are_unchanged_and_not_trained(trained: Trained) -> None:
    """The models are inputs by digest whose bytes are still those; what a training moves is named, and is substrate and adapters only."""
    for digest in trained.models.values():
        for entry in tree.load(trained.store, digest).entries:
            assert Digest.of(trained.store.read(entry.digest)) == entry.digest
    current = state.load(trained.store.path(of(trained, "steps-0000100")[0][2]["state"]))
    assert {name.split(".")[0] for name, _ in current.world.trained(SPEC.objective, "")} == {"substrate", "adapters"}
    assert set(current.moments["exp_avg"]) == {name for name, _ in current.world.trained(SPEC.objective, "")}
    segments = of(trained, "steps")
    assert all(set(inputs) == {"state", "aligned"} for _, inputs, _ in segments)  # no model is even at hand


def test_every_parameter_moves(trained: Trained) -> None:
    """After the first segment no tensor of substrate and adapters is what it was."""
    before = state.load(trained.store.path(of(trained, "init")[0][2]["state"])).world
    after = state.load(trained.store.path(of(trained, "steps-0000040")[0][2]["state"])).world
    same = [name for (name, a), b in zip(before.named_parameters(), after.parameters(), strict=True) if torch.equal(a, b)]
    assert same == ["contrast_log_temperature"]  # which is fixed unless one asks


def test_segments_do_not_change_the_bytes(trained: Trained) -> None:
    """One segment of 100 steps, or three with the state written and read between them, give the same state and the same substrate."""
    _, inputs, _ = of(trained, "init")[0]
    start = of(trained, "init")[0][2]["state"]
    settings = {name: getattr(SPEC.training, name) for name in SPEC.training.__dataclass_fields__}
    whole = trained.direct.run(
        "many-worlds-segment",
        ManyWorldsSegment(until=100, objective=SPEC.objective, **settings),
        {"state": start, "aligned": inputs["aligned"]},
    )["state"]
    digest = start
    for until in (30, 31, 100):
        trained.direct.context.memo.clear()  # as in another process
        spec = ManyWorldsSegment(until=until, objective=SPEC.objective, **settings)
        digest = trained.direct.run("many-worlds-segment", spec, {"state": digest, "aligned": inputs["aligned"]})["state"]
    assert digest == whole == of(trained, "steps-0000100")[0][2]["state"]


def test_one_step_equals_adamw_by_hand(trained: Trained) -> None:
    """The first step is Adam's first: against the gradient's sign after the cut, with decay of matrices alone, at the warm-up's rate."""
    _, inputs, _ = of(trained, "init")[0]
    start = state.load(trained.store.path(of(trained, "init")[0][2]["state"]))
    settings = {name: getattr(SPEC.training, name) for name in SPEC.training.__dataclass_fields__} | {"weight_decay": 0.5}
    spec = ManyWorldsSegment(until=1, objective=SPEC.objective, **settings)
    made = trained.direct.run("many-worlds-segment", spec, {"state": of(trained, "init")[0][2]["state"], "aligned": inputs["aligned"]})[
        "state"
    ]
    after = dict(state.load(trained.store.path(made)).world.named_parameters())
    data = aligned.load(trained.direct.context.folder(inputs["aligned"]), 30)
    chosen = many_worlds_segment.batch(spec, 0, len(data.train))
    world = start.world
    batch = {name: world.adapter(name).standard(states[chosen]) for name, states in data.train.states.items()}
    torch.autograd.backward(world.losses(batch, spec.objective)["loss"])
    named = dict(world.trained(spec.objective, ""))
    norm = torch.stack([(value.grad**2).sum() for value in named.values() if value.grad is not None]).sum().sqrt()
    rate = many_worlds_segment.learning_rate(spec, 0)
    assert rate == pytest.approx(3e-3 * (0.01 + 0.99 / 10))
    for name, value in named.items():
        assert value.grad is not None
        gradient = value.grad * min(1.0, 1.0 / (norm.item() + 1e-6))
        decay = 0.5 if value.ndim > 1 else 0.0
        expected = value.detach() * (1 - rate * decay) - rate * gradient / (gradient.abs() + 1e-8)
        settled = gradient.abs() > 1e-5  # below, the sign of a rounded gradient decides
        assert torch.allclose(after[name][settled], expected[settled], atol=1e-6), name


def test_every_step_is_kept(trained: Trained) -> None:
    """The metadata have the loss of each of the 100 steps, and the last one; training made it smaller, and the picture is of them."""
    metadata = json.loads(trained.store.read(trained.entries(trained.outputs["substrate"])["training_metadata.json"]))
    losses = metadata["losses_history"]["loss"]
    assert len(losses) == metadata["steps"] == 100
    assert losses[-1] == metadata["final_loss"] < 0.7 * losses[0]
    assert all(value > 0 for value in metadata["losses_history"]["contrastive"])
    assert metadata["losses_history"]["learning_rate"][-1] == pytest.approx(3e-5)
    assert [item["insert_layer"] for item in metadata["models"]] == [2, 1]
    assert trained.store.read(trained.outputs["picture"]).startswith(b"<svg ")


def test_a_batch_never_holds_a_place_twice() -> None:
    """Within a batch all rows differ, an epoch sees every row at most once and all but the last part of a batch, and steps differ."""
    spec = Schedule(steps=100, learning_rate=1.0, batch_size=8, seed=3)
    rows = [many_worlds_segment.batch(spec, step, 30).tolist() for step in range(6)]
    assert all(len(set(row)) == 8 for row in rows)
    assert [len({row for batch in rows[start : start + 3] for row in batch}) for start in (0, 3)] == [24, 24]
    assert rows[0] != rows[3]
    assert rows == [many_worlds_segment.batch(spec, step, 30).tolist() for step in range(6)]


def test_shuffled_rows_are_the_same_rows(trained: Trained) -> None:
    """The control sees each model's own states, all of them, in an order that belongs to no other model."""
    _, inputs, outputs = of(trained, "init")[0]
    current = state.load(trained.store.path(outputs["state"]))
    found = {}
    for shuffled in (False, True):
        spec = ManyWorldsSegment(until=1, steps=1, learning_rate=1.0, batch_size=8, heldout_percent=30, shuffled=shuffled)
        trained.direct.context.memo.clear()
        found[shuffled] = many_worlds_segment._rows(spec, current, inputs["aligned"], trained.direct.context, torch.device("cpu"))
    for name in ("one", "two"):
        own, mixed = found[False][name], found[True][name]
        assert not torch.equal(own, mixed)
        assert torch.equal(own.sort(dim=0).values, mixed.sort(dim=0).values)
    order = [[found[False][n].eq(row).all(dim=1).nonzero()[0].item() for row in found[True][n][:20]] for n in ("one", "two")]
    assert order[0] != order[1]


def test_a_loss_that_is_no_number_stops_with_what_to_do(trained: Trained) -> None:
    """A rate far too high is told with step and rate, and earlier segments stay."""
    _, inputs, outputs = of(trained, "init")[0]
    spec = ManyWorldsSegment(until=60, steps=60, learning_rate=1e30, batch_size=32, heldout_percent=30)
    with pytest.raises(StageError, match="Lower learningRate; earlier segments are kept"):
        trained.direct.run("many-worlds-segment", spec, {"state": outputs["state"], "aligned": inputs["aligned"]})


# --- files ---------------------------------------------------------------------------------------------------------------------


def test_the_folder_loads_to_the_same_outputs(trained: Trained) -> None:
    """The exported folder holds safetensors and JSON only, and gives, bit for bit, what the trained state gives."""
    entries = trained.entries(trained.outputs["substrate"])
    assert sorted(entries) == ["adapter_one.safetensors", "adapter_two.safetensors", "substrate.safetensors", "training_metadata.json"]
    world = files.load(trained.direct.context.folder(trained.outputs["substrate"]))
    current = state.load(trained.store.path(of(trained, "steps-0000100")[0][2]["state"])).world.eval()
    rows = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(world.cross("one", "two", rows), current.cross("one", "two", rows))
        assert world.cross("one", "two", rows).shape == (5, 48)


@pytest.mark.parametrize("path", ["substrate.safetensors", "adapter_two.safetensors", "training_metadata.json"])
def test_a_damaged_folder_is_refused(trained: Trained, tmp_path: Path, path: str) -> None:
    """A truncated file is an error that names it, not a world with odd numbers in it."""
    tree.export(trained.store, trained.outputs["substrate"], tmp_path / "folder")
    data = (tmp_path / "folder" / path).read_bytes()
    (tmp_path / "folder" / path).unlink()
    (tmp_path / "folder" / path).write_bytes(data[:-7])
    if path.endswith("json"):
        with pytest.raises(InputError, match="metadata are damaged"):
            files.described(trained.store, tree.import_folder(trained.store, tmp_path / "folder"))
    else:
        with pytest.raises(InputError, match=path):
            files.load(tmp_path / "folder")


# --- evaluation ----------------------------------------------------------------------------------------------------------------


def test_the_evaluation_is_honest_about_everything(trained: Trained) -> None:
    """n, chance, both controls and all closed forms stand in the claim, verdicts in words, what beats the substrate first: here, with
    random models that have nothing in common, PCA does, and no retrieval is resolved against shuffled pairs.
    """
    content = json.loads(trained.store.read(trained.outputs["metrics"]))
    retrieval = content["retrieval"]
    assert float(retrieval["chance"]) == 1 / retrieval["n"]
    assert set(retrieval["all"]) == set(many_worlds_evaluate.LABELS) - {"pca"}
    assert [(row["source"], row["target"]) for row in retrieval["directions"]] == [("one", "two"), ("two", "one")]
    assert float(retrieval["all"]["ridge-shuffled"]["value"]) < 5 / retrieval["n"]
    assert any("retrieval: substrate trained on shuffled pairs and the substrate cannot be told apart" in v for v in content["verdicts"])
    for row in content["roundTrip"]:
        assert set(row["methods"]) == {"substrate", "shuffled", "pca"}
    for line in content["verdicts"]:
        assert any(word in line for word in ("beats the substrate", "cannot be told apart", "is beaten by the substrate"))
    wins = [line for line in content["verdicts"] if "beats the substrate" in line]
    assert content["verdicts"][: len(wins)] == wins  # first of all
    assert any(line.startswith("round trip of one (R2): PCA of the same rank beats the substrate") for line in wins)
    table = trained.store.read(trained.outputs["table"]).decode()
    assert all(label in table for label in many_worlds_evaluate.LABELS.values())
    assert all(line in table for line in content["verdicts"])


def test_a_planted_map_is_scored_as_it_must_be() -> None:
    """Two models whose states are turns of each other: Procrustes and ridge find every place and all of the variance, shuffled nothing."""
    from stages.many_worlds.world import AdapterShape, World

    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(12, 12)))[0]

    def rows(count: int, seed: int) -> Rows:
        x = np.random.default_rng(seed).normal(size=(count, 12))
        keys = torch.arange(count) + 1000 * seed
        return Rows({"a": torch.tensor(x).float(), "b": torch.tensor(x @ turn).float()}, keys, keys, keys)

    world = World(64, 16, {"a": AdapterShape(12, 8), "b": AdapterShape(12, 8)}, seed=0, scale=1.0, dropout=0.0, temperature=0.07).eval()
    found, alike = many_worlds_evaluate.measure(world, None, rows(2000, 1), rows(300, 2), "")
    content = many_worlds_evaluate.report(found, rows(300, 2), "")
    values = {method: float(item["value"]) for method, item in content["retrieval"]["all"].items()}
    assert values["ridge"] == values["procrustes"] == values["cca"] == 1.0
    assert values["ridge-shuffled"] < 0.05
    assert values["substrate"] < 0.3  # untrained
    assert float(alike["a b"]) > 0.99
    cross = {method: float(item["value"]) for method, item in content["crossModel"][0]["methods"].items()}
    assert cross["ridge"] > 0.999
    assert any(line.startswith("retrieval: PCA and Procrustes beats the substrate, 1.000") for line in content["verdicts"])
    trip = {method: float(item["value"]) for method, item in content["roundTrip"][0]["methods"].items()}
    assert trip["pca"] == pytest.approx(8 / 12, abs=0.05)


@pytest.fixture
def planted(tmp_path: Path) -> tuple[LocalCas, Direct, Digest]:
    """Aligned states of three models that see the same six hidden numbers, each through a mixing, a bend and noise of its own."""
    store = LocalCas(tmp_path / "store")
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(4000, 6))
    states = {}
    for name, width in (("one", 20), ("two", 31), ("three", 26)):
        mixed = hidden @ rng.normal(size=(6, width)) / 6**0.5
        states[f"states/{name}"] = torch.tensor(mixed + 0.5 * np.tanh(2 * mixed) + 0.05 * rng.normal(size=mixed.shape)).float()
    keys = torch.tensor(rng.permutation(4000))
    head = {"layers": {"one": 1, "two": 1, "three": 1}, "maxBytes": 1, "models": ["one", "two", "three"]}
    block = tensor_file.write(store, "aligned-states/v1", head, states | {"texts": keys, "prefixes": keys, "ends": keys})
    direct = Direct(store, tmp_path)
    return store, direct, direct.run("gather-states", GatherStates(), {"aligned-00000": block})["aligned"]


def test_a_common_world_is_found(planted: tuple[LocalCas, Direct, Digest]) -> None:
    """Where models do see the same, held-out places are found far above chance and above a training on shuffled pairs, and states of one
    are told from another's.
    """
    pin(1)
    store, direct, gathered = planted
    training = Schedule(steps=200, learning_rate=3e-3, batch_size=64)
    settings = {name: getattr(training, name) for name in Schedule.__dataclass_fields__}
    start = direct.run("many-worlds-init", ManyWorldsInit(dim=64, gaussians=32, rank=32), {"aligned": gathered})["state"]
    models = {f"model-{name}": Digest.of(name.encode()) for name in ("one", "two", "three")}
    given: dict[str, Digest] = {}
    for name, shuffled in (("substrate", False), ("control-shuffled", True)):
        segment = ManyWorldsSegment(until=training.steps, **settings | {"shuffled": shuffled})
        done = direct.run("many-worlds-segment", segment, {"state": start, "aligned": gathered})["state"]
        export = ManyWorldsExport(
            models=tuple(Asked(name=one, layer=None) for one in ("one", "two", "three")),
            training=replace(training, shuffled=shuffled), objective=Objective(), max_bytes=1, block_samples=1, load_in="auto",
        )  # fmt: skip
        inputs = {"state": done, "aligned": gathered, "calibration": Digest.of(b"texts"), **models}
        given[name] = direct.run("many-worlds-export", export, inputs)["substrate"]
    metrics = direct.run(
        "many-worlds-evaluate", ManyWorldsEvaluate(places=300), {**given, "aligned": gathered, "calibration": Digest.of(b"texts")}
    )["metrics"]
    content = json.loads(store.read(metrics))
    own, shuffled_value = (float(content["retrieval"]["all"][name]["value"]) for name in ("substrate", "shuffled"))
    assert own > 0.5
    assert shuffled_value < 0.05
    assert float(content["metrics"]["crossModelR2"]) > 0.5
    assert len(content["retrieval"]["directions"]) == 6


# --- adding a model ------------------------------------------------------------------------------------------------------------


def test_adding_a_model_trains_one_adapter_and_changes_no_other_byte(trained: Trained) -> None:
    """The new folder is the old one, blob by blob, and two files; the earlier models' states are found under the keys that they had."""
    spec = ManyWorldsAdapter(
        name="three", adapter_rank=16, training_steps=100, learning_rate=3e-3, batch_size=32, segment_steps=50, evaluation_places=200
    )
    before, ran = trained.entries(trained.outputs["substrate"]), len(trained.direct.ran)
    known = {(tuple(sorted(inputs.items())), tuple(sorted(outputs.items()))) for node, inputs, outputs in of(trained, "states-")}
    made = trained.direct.run("many-worlds-adapter", spec, {"substrate": trained.outputs["substrate"], "model": trained.models["three"]})
    after = trained.entries(made["substrate"])
    assert {path: digest for path, digest in after.items() if path in before} == before
    assert set(after) - set(before) == {"adapter_three.safetensors", "training_metadata_three.json"}
    for node, inputs, outputs in trained.direct.ran[ran:]:
        if node.startswith(("states-one", "states-two")):  # the same action: in a ledger it is looked up, not done
            assert (tuple(sorted(inputs.items())), tuple(sorted(outputs.items()))) in known
    content = json.loads(trained.store.read(made["metrics"]))
    assert {(row["source"], row["target"]) for row in content["retrieval"]["directions"]} == {
        ("one", "three"), ("three", "one"), ("three", "two"), ("two", "three")
    }  # fmt: skip
    assert [row["model"] for row in content["roundTrip"]] == ["three"]
    assert [member.name for member in files.described(trained.store, made["substrate"]).members] == ["one", "two", "three"]
    assert files.load(trained.direct.context.folder(made["substrate"])).names == ("one", "two", "three")
    with pytest.raises(InputError, match="has a model called 'three' already"):
        trained.direct.run("many-worlds-adapter", spec, {"substrate": made["substrate"], "model": trained.models["three"]})


def test_what_is_no_substrate_is_refused(trained: Trained) -> None:
    """A model folder in place of the substrate is told apart before any work."""
    spec = ManyWorldsAdapter(name="three", training_steps=100)
    with pytest.raises(InputError, match=r"has no training_metadata.json and substrate.safetensors; it holds config.json"):
        trained.direct.run("many-worlds-adapter", spec, {"substrate": trained.models["one"], "model": trained.models["three"]})


# --- specs and recipes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"substrate_dim": 63}, "substrate_dim is 63; it must be between 64 and 2048"),
        ({"num_gaussians": 2000}, "num_gaussians is 2000"),
        ({"training_steps": 99}, "training_steps is 99"),
        ({"batch_size": 1}, "InfoNCE of one pair is 0 whatever the models do"),
        ({"models": ("one",)}, "a shared space is of at least 2 models"),
        ({"models": ("one", "one")}, "two are called one"),
        ({"models": ("one", "../two")}, "must be letters, digits"),
        ({"insert_layers": {"six": 1}}, "there is no model 'six'"),
        ({"heldout_percent": 100}, "heldout_percent is 100"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, Any], message: str) -> None:
    """A setting that cannot work is an error with the numbers before any model is read."""
    with pytest.raises(SpecError, match=message):
        replace(SPEC, **change)


def test_losses_that_are_all_left_out_are_refused() -> None:
    """There would be nothing to train."""
    with pytest.raises(SpecError, match="nothing would be trained"):
        Objective(contrastive=0.0, round_trip=0.0, cross_model=0.0)


@pytest.mark.parametrize(
    ("loss_type", "weights"), [("contrastive", (1.0, 0.0, 0.0)), ("round_trip", (0.0, 1.0, 0.0)), ("both", (1.0, 1.0, 1.0))]
)
def test_a_loss_type_leaves_in_what_it_names(trained: Trained, loss_type: Any, weights: tuple[float, ...]) -> None:
    """`contrastive` and `round_trip` are those alone, `both` has the cross-model loss too."""
    inputs = {"calibration": trained.calibration, "model-one": trained.models["one"], "model-two": trained.models["two"]}
    graph = many_worlds_substrate.expand(replace(SPEC, loss_type=loss_type), inputs, trained.store)
    objective = next(node.spec.objective for node in graph.nodes if node.stage == "many-worlds-segment")
    assert (objective.contrastive, objective.round_trip, objective.cross_model) == weights


def test_other_settings_take_no_states_again(trained: Trained) -> None:
    """Another dimension, rate, seed or loss is another training; which actions run a model, and on what, stays as it was."""
    inputs = {"calibration": trained.calibration, "model-one": trained.models["one"], "model-two": trained.models["two"]}
    plans = [
        [
            node
            for node in many_worlds_substrate.expand(spec, inputs, trained.store).nodes
            if node.stage in ("hidden-states", "align-states")
        ]
        for spec in (SPEC, replace(SPEC, substrate_dim=128, learning_rate=1e-4, seed=9, loss_type="contrastive", heldout_percent=10))
    ]
    assert plans[0] == plans[1]
    assert len(plans[0]) == 9


RECIPE = """
name: worlds
version: 1.0.0
stages:
  - {type: import-model, id: mine, folder: one}
  - {type: many-worlds-substrate, substrateDim: 256, numGaussians: 128, sourceModels: [mine, models/two.5b], calibrationCorpus: set.jsonl,
     trainingSteps: 1000, learningRate: 1e-4, lossType: both, objective: {native: 0, cross_model: 0.5}}
  - {type: many-worlds-adapter, targetModel: models/three, substratePath: many-worlds-substrate, adapterRank: 64, insertLayer: 3,
     trainingSteps: 500, learningRate: 1e-4}
  - {type: many-worlds-adapter, id: more, targetModel: models/four, substratePath: elsewhere/folder}
"""


def test_the_recipe_forms_load() -> None:
    """Keys of the format reach the specs; models are earlier stages or folders; a substrate is an earlier stage's or a folder."""
    asked: list[str] = []

    def material(path: Path) -> Digest:
        asked.append(str(path))
        return Digest.of(str(path).encode())

    plan = lowering.lower(recipe.parse(RECIPE), material)
    nodes = {node.id: node for node in plan.graph.nodes}
    spec = nodes["many-worlds-substrate"].spec
    assert isinstance(spec, ManyWorldsSubstrate)
    assert (spec.models, spec.substrate_dim, spec.num_gaussians, spec.training_steps) == (("mine", "two-5b"), 256, 128, 1000)
    assert (spec.learning_rate, spec.loss_type, spec.rank) == (1e-4, "both", 256)
    assert (spec.objective.native, spec.objective.cross_model, spec.objective.contrastive) == (0.0, 0.5, 1.0)
    assert set(nodes["many-worlds-substrate"].inputs) == {"calibration", "model-mine", "model-two-5b"}
    adapter = nodes["many-worlds-adapter"]
    assert (adapter.spec.name, adapter.spec.adapter_rank, adapter.spec.insert_layer) == ("three", 64, 3)
    assert str(adapter.inputs["substrate"]) == "Ref(node='many-worlds-substrate', output='substrate')"
    assert nodes["more"].inputs["substrate"] == Digest.of(b"elsewhere/folder")
    assert set(asked) == {"one", "models/two.5b", "set.jsonl", "models/three", "models/four", "elsewhere/folder"}
    assert plan.outputs["more"].keys() == {"substrate", "picture", "metrics", "table"}
    assert isinstance(many_worlds_substrate.STAGE, Composite)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("sourceModels: [mine, models/two.5b]", "sourceModels: mine", "line 6: .*needs sourceModels: a list"),
        ("sourceModels: [mine, models/two.5b]", "sourceModels: [mine]", "line 6: .*at least 2 models"),
        ("numGaussians: 128", "numGausians: 128", "did you mean 'numGaussians'"),
        ("substratePath: many-worlds-substrate", "substratePath: mine", "mine gives no substrate; it gives model"),
        ("targetModel: models/three, ", "", "needs targetModel"),
        ("calibrationCorpus: set.jsonl,", "", "needs calibrationCorpus"),
        ("adapterRank: 64", "adapterRank: 4", "adapter_rank is 4; it must be between 8 and 512"),
    ],
)
def test_faults_of_recipes_are_told_with_their_line(old: str, new: str, message: str) -> None:
    """A wrong key, a missing one, a value outside of its range: found when the recipe is read."""
    assert old in RECIPE
    with pytest.raises((RecipeError, SpecError), match=message):
        lowering.lower(recipe.parse(RECIPE.replace(old, new, 1)), lambda path: Digest.of(b""))


# --- in a ledger ---------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_from_recipe_to_signed_evaluation_and_no_model_runs_twice(tmp_path: Path) -> None:
    """Through the runner: substrate, then a model that joins. Another training finds all states; adding a model runs that model alone; the
    joined folder holds the first one's blobs, and the evaluation is a signed claim about it.
    """
    from stages import events
    from tests.homes import Home

    for number, name in enumerate(("one", "two", "three")):
        make_model(tmp_path / name, hidden=32, intermediate=32, layers=3, experts=2, vocab=300 + 20 * number, seed=number)
    (tmp_path / "set.jsonl").write_bytes(corpus(samples(24)))
    home = Home(tmp_path)
    settings = "substrateDim: 64, numGaussians: 16, adapterRank: 16, trainingSteps: 100, batchSize: 16, blockSamples: 12, maxBytes: 60"
    first = f" - {{type: many-worlds-substrate, sourceModels: [one, two], calibrationCorpus: set.jsonl, {settings}, learningRate: 1e-3}}\n"
    other = first.replace("1e-3", "1e-4").replace("substrateDim: 64", "substrateDim: 128")
    adapter = (
        " - {type: many-worlds-adapter, targetModel: three, substratePath: many-worlds-substrate, adapterRank: 8, trainingSteps: 100, \
batchSize: 16}\n"
    )

    def ran() -> list[str]:
        return [event.node.split("/")[-1] for event in home.heard(events.Started) if isinstance(event, events.Started)]

    home.run(first)
    assert sum(node.startswith("states-") for node in ran()) == 4
    home.run(other, "other")
    assert ran()
    assert not [node for node in ran() if node.startswith(("states-", "aligned"))]
    result = home.run(first + adapter, "joined")
    assert sorted(node for node in ran() if node.startswith("states-")) == ["states-three-00000", "states-three-00001"]
    before, after = (
        {item.path: item.digest for item in tree.load(home.store, result.outputs[stage]["substrate"]).entries}
        for stage in ("many-worlds-substrate", "many-worlds-adapter")
    )
    assert before.items() < after.items()
    rows = json.loads(result.alloy.read_text())["results"]["benchmarks"]
    assert [(row["benchmark"], row["subject"]) for row in rows] == [("many-worlds", "substrate")] * 2
    assert rows[1]["digest"] == str(result.outputs["many-worlds-adapter"]["substrate"])

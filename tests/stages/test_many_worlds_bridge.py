"""The stage many-worlds-bridge: nothing leaks, nothing depends on where it is cut, every control stands in every report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stages import bridge_segment, lowering, many_worlds_bridge, recipe
from stages.bridge_gather import BridgeGather
from stages.bridge_init import BridgeInit
from stages.bridge_protocol import conditions, files, loaded, readings, report, ridge, state
from stages.bridge_protocol import cut as cutting
from stages.bridge_protocol.cut import Cut
from stages.bridge_protocol.readings import Readings, Text
from stages.bridge_segment import BridgeSegment
from stages.bridges.bridge import build
from stages.bridges.spec import VERSIONS
from stages.byte_lm import byte_lm
from stages.byte_lm.ensemble import combine
from stages.combiners.combiner import find
from stages.environment import pin
from stages.errors import InputError, RecipeError, SpecError
from stages.hf_tokenizer import HfTokenizer
from stages.hidden_states import HiddenStates
from stages.many_worlds import tensor_file
from stages.many_worlds.files import ADAPTER_FORM, SUBSTRATE, SUBSTRATE_FORM, adapter_name
from stages.many_worlds.optimizer import adamw
from stages.many_worlds.world import AdapterShape, World
from stages.many_worlds_bridge import ManyWorldsBridge
from stages.stage import Node
from store import tree
from store.digest import Digest
from store.local import LocalCas
from store.tree import Tree, TreeEntry
from tests.direct import Direct
from tests.stages.test_bridge_protocol import SHAPES, samples
from tests.tiny import corpus, make_model

SMALL: Mapping[str, Any] = {"dim": 16, "rank": 8, "soft_tokens": 3, "heads": 2, "layers": 1, "gaussians": 16}
SPEC = ManyWorldsBridge(
    sources=("one", "two"),
    target="target",
    version="v12",
    bridge=SMALL,
    training_steps=6,
    segment_steps=4,
    batch_size=4,
    learning_rate=1e-2,
    prompt_bytes=40,
    continuation_bytes=16,
    handoff_bytes=8,
    heldout_percent=40,
    block_samples=14,
)
CONTROLS = {*report.LABELS, "without-one", "without-two"}

Ran = list[tuple[str, Mapping[str, Digest], Mapping[str, Digest]]]
"""(node, inputs, outputs) of leaves, in order."""


@dataclass
class Bridged:
    """Two random sources, a random target, and a bridge between them."""

    store: LocalCas
    direct: Direct
    models: Mapping[str, Digest]
    inputs: Mapping[str, Digest]
    outputs: Mapping[str, Digest]
    ran: Ran

    def run(self, spec: ManyWorldsBridge, *, drop: str = "", **inputs: Digest) -> tuple[Mapping[str, Digest], Ran]:
        """Outputs of another bridge, and what ran for it."""
        before = len(self.direct.ran)
        given = {name: digest for name, digest in {**self.inputs, **inputs}.items() if name != drop}
        return self.direct.run("many-worlds-bridge", spec, given), self.direct.ran[before:]

    def content(self, outputs: Mapping[str, Digest]) -> dict[str, Any]:
        """The metrics of a bridge."""
        found: dict[str, Any] = json.loads(self.store.read(outputs["metrics"]))
        return found

    def readings(self) -> Readings:
        """What the first bridge was trained and measured on."""
        folders = [self.direct.context.folder(of(self.ran, node)[0][2]["readings"]) for node in ("readings", "controls")]
        return readings.load(folders[0], SPEC.sources, folders[1])

    def continuation(self, text: Text) -> bytes:
        """The bytes that are scored."""
        tokenizer = HfTokenizer(self.direct.context.folder(self.models["target"]))
        return tokenizer.decode(text.ids[text.prefix_tokens :].tolist()).encode()


def of(ran: Ran, node: str) -> Ran:
    """The runs whose node's id begins so."""
    return [item for item in ran if item[0].startswith(node)]


@pytest.fixture(scope="module")
def bridged(tmp_path_factory: pytest.TempPathFactory) -> Bridged:
    pin(1)
    place = tmp_path_factory.mktemp("bridged")
    store = LocalCas(place / "store")
    folders = {
        name: make_model(place / name, intermediate=32, experts=2, seed=n, max_position_embeddings=256, **shape)
        for n, (name, shape) in enumerate(SHAPES.items())
    }
    models = {name: tree.import_folder(store, folder) for name, folder in folders.items()}
    direct = Direct(store, place)
    inputs = {
        "calibration": store.put(corpus(samples(28))),
        "target": models["target"],
        "model-one": models["one"],
        "model-two": models["two"],
    }
    outputs = direct.run("many-worlds-bridge", SPEC, inputs)
    return Bridged(store, direct, models, inputs, outputs, list(direct.ran))


# --- what must not depend on what ------------------------------------------------------------------------------------------------


def said(bridged: Bridged, texts: list[dict[str, str]], *, leaky: bool) -> dict[int, Tensor]:
    """Prefix -> the soft tokens that the trained bridge makes of it; `leaky`, the sources are given whole texts."""
    direct, spec = bridged.direct, SPEC.resolved
    block = bridged.store.put(corpus(texts))
    cut = direct.run("bridge-texts", SPEC.texts, {"model": bridged.models["target"], "samples": block})
    given = {"tokens-00000": cut["tokens"]}
    for name in SPEC.sources:
        read = block if leaky else cut["prefixes"]
        states = direct.run("hidden-states", HiddenStates(), {"model": bridged.models[name], "samples": read})
        given[f"states-{name}-00000"] = states["states"]
    folder = direct.context.folder(direct.run("bridge-gather", BridgeGather(), given)["readings"])
    found = readings.load(folder, SPEC.sources)
    target = loaded.target(bridged.models["target"], spec, "auto", direct.context)
    bridge = files.load(direct.context.folder(bridged.outputs["bridge"]), target)
    with torch.inference_mode():
        made = {}
        for text in (*found.train, *found.held_out):
            soft = bridge.inject(readings.fields([text], SPEC.sources, spec)).soft
            assert soft is not None
            made[text.prefix] = soft
    return made


def changed(bridged: Bridged, texts: list[dict[str, str]]) -> list[dict[str, str]]:
    """The same prefixes, and behind each another continuation."""
    tokenizer = HfTokenizer(bridged.direct.context.folder(bridged.models["target"]))
    found = []
    for number, sample in enumerate(texts):
        cut = cutting.cut(tokenizer, sample["text"], SPEC.prompt_bytes, SPEC.continuation_bytes)
        assert isinstance(cut, Cut)
        found.append({**sample, "text": cut.prefix.decode() + f" was not what they had said {number}"})
    return found


def test_the_continuation_reaches_no_injection(bridged: Bridged) -> None:
    """Another continuation behind every prefix changes no bit of what a bridge gives to the target."""
    before, after = (said(bridged, texts, leaky=False) for texts in (samples(10), changed(bridged, samples(10))))
    assert set(before) == set(after)
    assert len(before) == 10
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_leak_is_caught(bridged: Bridged, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources that read whole texts, as those of v7 to v12 once did, are refused when their states are read; and without that refusal the
    comparison of the test before this one would find them out.
    """
    with pytest.raises(InputError, match="one has read beyond the cut, so its states may hold the answer"):
        said(bridged, samples(10), leaky=True)
    monkeypatch.setattr(readings, "_refuse_beyond", lambda *given: None)
    before, after = (said(bridged, texts, leaky=True) for texts in (samples(10), changed(bridged, samples(10))))
    assert not any(torch.equal(before[key], after[key]) for key in before)


def test_segments_do_not_change_the_bytes(bridged: Bridged) -> None:
    """Six steps at once, or with the state written and read after four and five of them, give the same state: with and without sources."""
    for suffix in ("", "-prompt"):
        start = of(bridged.ran, f"init{suffix}")[0][2]["state"]
        _, inputs, outputs = of(bridged.ran, f"steps{suffix}-0000006")[0]
        for cuts in ((6,), (5, 6)):
            digest = start
            for until in cuts:
                bridged.direct.context.memo.clear()  # as in another process
                settings = {name: getattr(SPEC.training, name) for name in SPEC.training.__dataclass_fields__}
                spec = BridgeSegment(until=until, **settings)
                digest = bridged.direct.run("bridge-segment", spec, {**inputs, "state": digest})["state"]
            assert digest == outputs["state"]


def test_another_version_and_another_source_run_no_source_again(bridged: Bridged) -> None:
    """Whatever is trained on the states, and beside whichever other source: what runs a model, and on what, stays as it was."""

    def plan(spec: ManyWorldsBridge, *sources: str) -> dict[str, Node]:
        given = {name: digest for name, digest in bridged.inputs.items() if name in ("calibration", "target", *sources)}
        graph = many_worlds_bridge.expand(spec, given, bridged.store)
        return {
            node.id: node for node in graph.nodes if not node.id.startswith(("init", "steps", "export", "evaluate", "readings", "controls"))
        }

    both = plan(SPEC, "model-one", "model-two")
    assert plan(replace(SPEC, version="v11b", seed=3, training_steps=1, batch_size=2), "model-one", "model-two") == both
    alone = plan(replace(SPEC, sources=("one",)), "model-one")
    assert alone == {name: node for name, node in both.items() if "-two-" not in name}
    assert len(both) - len(alone) == 2 * len(("states", "handoff", "bytes"))
    assert {
        node.spec.layer for node in plan(replace(SPEC, version="v9"), "model-one", "model-two").values() if node.stage == "hidden-states"
    } == {-1}


def test_base_models_are_unchanged_and_not_trained(bridged: Bridged) -> None:
    """The models are inputs by digest, whose bytes are still those; what a step moves are the bridge's numbers, and all of them move."""
    for digest in bridged.models.values():
        for entry in tree.load(bridged.store, digest).entries:
            assert Digest.of(bridged.store.read(entry.digest)) == entry.digest
    target = loaded.target(bridged.models["target"], SPEC.resolved, "auto", bridged.direct.context)
    before = state.load(bridged.store.path(of(bridged.ran, "init")[0][2]["state"]), target)
    after = state.load(bridged.store.path(of(bridged.ran, "steps-0000006")[0][2]["state"]), target)
    assert [name for name, value in before.trained().items() if torch.equal(value, after.trained()[name])] == []
    assert {name.split(".")[0] for name in after.trained()} == {"bridge"}
    assert not any(value.requires_grad for value in target.model.parameters())


# --- the report ------------------------------------------------------------------------------------------------------------------


def check_report(bridged: Bridged, outputs: Mapping[str, Digest], missing: set[str]) -> dict[str, Any]:
    """What holds of every report."""
    content = bridged.content(outputs)
    assert set(content["conditions"]) == {report.OWN, *CONTROLS} - missing
    assert set(content["missing"]) == missing
    table = bridged.store.read(outputs["table"]).decode()
    assert all(report.label(name) in table for name in CONTROLS)
    order = [
        next(n for n, word in enumerate(("beats the bridge:", "told apart", "bridge beats")) if word in line)
        for line in content["verdicts"]
    ]
    assert order == sorted(order)  # who wins stands first
    assert len(order) == len(content["conditions"]) - 1
    assert table.splitlines()[2].startswith(f"- {content['verdicts'][0]}")
    assert content["texts"]["heldOut"] + content["texts"]["training"] + sum(content["texts"]["leftOut"].values()) == 28
    rows = [json.loads(line) for line in bridged.store.read(outputs["losses"]).splitlines()]
    assert len(rows) == content["texts"]["heldOut"]
    for name, item in content["conditions"].items():
        assert np.mean([float(row[name]) for row in rows]) == pytest.approx(float(item["value"]))
    return content


def test_every_control_is_in_the_report(bridged: Bridged) -> None:
    """The bridge is compared with each control on the same texts, in numbers and in words."""
    content = check_report(bridged, bridged.outputs, set())
    assert content["dataset"]["digest"]["sha256"] == bridged.inputs["calibration"].hex
    assert [row["domain"] for row in content["domains"]] == ["even", "odd"]
    assert float(content["metrics"]["gain"]) == pytest.approx(
        float(content["metrics"]["baseNllPerByte"]) - float(content["metrics"]["nllPerByte"])
    )


def test_additions_to_a_cache_have_their_controls(bridged: Bridged) -> None:
    """They go through the same protocol; what means nothing for them is named, with the reason."""
    outputs, _ = bridged.run(replace(SPEC, version="c2c", training_steps=2))
    content = check_report(bridged, outputs, {"mean-embedding"})
    assert content["missing"]["mean-embedding"] == "means nothing for keys and values"


def test_a_shut_gate_is_the_target_to_the_bit(bridged: Bridged) -> None:
    """Above its threshold nothing is injected: losses are those of the target alone, bit for bit, no token changes, and training goes on
    though no gradient comes.
    """
    outputs, _ = bridged.run(replace(SPEC, version="v12u", bridge={**SMALL, "threshold": 1.0}, training_steps=2))
    content = bridged.content(outputs)
    rows = [json.loads(line) for line in bridged.store.read(outputs["losses"]).splitlines()]
    assert all(row[report.OWN] == row["none"] == row["shuffled"] for row in rows)
    assert content["injected"]["texts that the gate leaves alone, to the bit"] == f"{len(rows)} of {len(rows)}"
    assert content["injected"]["most likely tokens that it changes"].startswith("0 of ")
    assert content["injected"]["length in parts of what it meets"] == "0 (0 to 0)"
    assert content["summary"].endswith("No gain over the target alone is resolved.")


def test_losses_are_those_of_plain_transformers(bridged: Bridged) -> None:
    """The target alone, and after a text hand-off: nats per byte of the continuation, as transformers computes them text by text."""
    from transformers import AutoModelForCausalLM

    folder = bridged.direct.context.folder(bridged.models["target"])
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), HfTokenizer(folder)
    data = bridged.readings()
    rows = {row["text"]: row for line in bridged.store.read(bridged.outputs["losses"]).splitlines() for row in [json.loads(line)]}
    for text in data.held_out[:3]:
        told = "".join(f"{text.prefix_text}{text.handoff[name]}\n" for name in SPEC.sources)
        for name, before in (("none", []), ("handoff", tokenizer.encode(told, add_special=False))):
            ids = torch.tensor([[*before, *text.ids.tolist()]])
            with torch.inference_mode():
                logs = torch.log_softmax(model(ids).logits[0].double(), dim=-1)
            first = len(before) + text.prefix_tokens
            nats = -sum(float(logs[place - 1, ids[0, place]]) for place in range(first, ids.shape[1]))
            assert float(rows[str(text.key)][name]) == pytest.approx(nats / text.scored_bytes, abs=1e-6)


def test_the_byte_ensemble_is_that_of_whole_distributions(bridged: Bridged) -> None:
    """Mixing what members say of the bytes that came gives what mixing their distributions gives, weights warmed by the prefix."""
    text = bridged.readings().held_out[0]
    assert text.log_probs["target"].shape == (text.prefix_bytes + text.scored_bytes,)
    members = ("target", *SPEC.sources)
    whole = bytes(text.prefix_text.encode()) + bridged.continuation(text)
    rows = np.stack([byte_lm.load(bridged.direct.context.folder(bridged.models[name])).rows(whole)[:-1] for name in members], axis=1)
    found = conditions.bytewise([text], members)
    for name in ("fixed-share", "bayes"):
        rule = find(name, {}, len(members))
        mixed, _, _ = combine(rule, rule.start(), rows, whole)
        nats = -sum(mixed[place, whole[place]] for place in range(text.prefix_bytes, len(whole)))
        assert found[f"bytes-{name}"][0] == pytest.approx(nats, abs=1e-9)


def test_the_folder_holds_the_bridge(bridged: Bridged) -> None:
    """Two files, no pickle: the weights with what they are for, every step's loss of both trainings, and a picture of them."""
    entries = {item.path: item.digest for item in tree.load(bridged.store, bridged.outputs["bridge"]).entries}
    assert sorted(entries) == ["bridge.safetensors", "training_metadata.json"]
    metadata = json.loads(bridged.store.read(entries["training_metadata.json"]))
    assert len(metadata["losses_history"]["loss"]) == len(metadata["prompt_losses_history"]["loss"]) == metadata["steps"] == 6
    assert metadata["models"] == {name: str(digest) for name, digest in bridged.models.items()}
    assert metadata["parameters"]["trained"] < metadata["prompt_parameters"]  # by the constants
    assert bridged.store.read(bridged.outputs["picture"]).startswith(b"<svg ")
    head = files.head(bridged.direct.context.folder(bridged.outputs["bridge"]))
    assert (head.spec, head.sources, head.layers, head.target) == (SPEC.resolved, ("one", "two"), (2, 1), "target")
    with pytest.raises(InputError, match=r"there is no bridge.safetensors"):
        files.head(bridged.direct.context.folder(bridged.models["one"]))


# --- planted -----------------------------------------------------------------------------------------------------------------------


def planted(vocabulary: int, *, knows: bool) -> Readings:
    """Texts that go on with one of six tokens, four times, at random; the source's state says which, or is as random as it."""
    rng = np.random.default_rng(0)
    texts = []
    for number in range(120):
        token = int(rng.integers(6))
        state_of = torch.zeros(2, 6)
        state_of[:, token if knows else int(rng.integers(6))] = 1.0
        ids = torch.tensor([*rng.integers(100, vocabulary, size=5), *[20 + token] * 4])
        texts.append(Text(ids, [*range(1, 10)], 5, 5, 4, number, number, "all", number >= 80, {"one": state_of}, {"one": [2, 5]}))
    return Readings(texts[:80], texts[80:], {}, {"one": 1})


@pytest.mark.parametrize("knows", [True, False])
def test_a_source_that_knows_is_heard(bridged: Bridged, knows: bool) -> None:
    """Where the source does know what comes, the bridge beats the target, the same bridge on a constant and the states of other texts, by
    resolved margins; where it knows nothing, it is not said to.
    """
    bridge = replace(VERSIONS["v2"], dim=16, rank=16, gaussians=16, heads=2, substrate=False)
    target = loaded.target(bridged.models["target"], bridge, "auto", bridged.direct.context)
    data, trained = planted(300, knows=knows), {}
    spec = BridgeSegment(until=60, steps=60, learning_rate=3e-2, batch_size=16)
    for constant in (False, True):
        module = state.Trained(build(bridge, target, [6], 0), constant=constant)
        current = state.State(module, ("one",), constant)
        optimizer = adamw(current.trained(), current.moments, step=0, learning_rate=1e-2, weight_decay=0.01)
        for _ in range(60):
            bridge_segment.take_step(spec, current, target, optimizer, data.train)
        trained[constant] = module.eval()
    given = conditions.Bridges(
        own=trained[False].bridge, untrained=build(bridge, target, [6], 0).eval(), prompt=trained[True], sources=("one",), seed=0
    )
    for text in data.held_out:
        text.handoff["one"] = ""
    tokenizer = HfTokenizer(bridged.direct.context.folder(bridged.models["target"]))
    nats, _, _, _ = conditions.measure(data, given, target, tokenizer)
    values = conditions.per_byte(nats, data.held_out)
    found = report.compared(report.Losses(values, {}, values["none"], ["all"] * 40))
    beaten = {name for name, item in found.items() if item.get("verdict") == "loses"}
    if knows:
        assert {"none", "prompt", "shuffled", "random-substrate", "zero", "random"} <= beaten
        assert report.summary(found).startswith("It gains ")
        assert report.summary(found).endswith(" of it, resolved.")
    else:
        assert "shuffled" not in beaten
        assert "prompt" not in beaten
        assert "resolved." not in report.summary(found).replace("No gain over the target alone is resolved.", "")


def test_the_ridge_map_is_a_ridge_map(bridged: Bridged) -> None:
    """Where the mean state is a linear picture of the continuation's mean embedding, what it injects points there, on unseen texts too."""
    spec = SPEC.resolved
    target = loaded.target(bridged.models["target"], spec, "auto", bridged.direct.context)
    data = planted(300, knows=True)
    map_ = ridge.fit(data.train, ("one",), spec, target)
    soft = map_.injection(data.held_out, target).soft
    assert soft is not None
    assert soft.shape == (40, 1, 32)
    wanted = target.embedding[torch.stack([text.ids[-1] for text in data.held_out])]
    assert float(torch.cosine_similarity(soft[:, 0], wanted).min()) > 0.99
    assert torch.allclose(soft.norm(dim=-1), target.mean_norm * map_.scale)


def test_words_follow_the_numbers() -> None:
    """Who wins is named first, what is not resolved is called so, and a gain that a prompt or other texts' states give as well is not
    ascribed to the sources.
    """

    def content(**ahead: float) -> dict[str, Any]:
        rng = np.random.default_rng(0)
        own = rng.normal(2.0, 0.1, size=50)
        margins = {"none": 0.0, "prompt": 0.0, "shuffled": 0.0, "bytes-fixed-share": 0.2} | ahead
        values = {report.OWN: own} | {name: own + margin + rng.normal(0, 0.05, size=50) for name, margin in margins.items()}
        lists = {name: [float(item) for item in value] for name, value in values.items()}
        return report.report(report.Losses(lists, {}, lists["none"], ["all"] * 50))

    assert content()["summary"] == "No gain over the target alone is resolved."
    assert "is not shown: not resolved from the states of another text" in content(none=0.1, prompt=0.1)["summary"]
    assert "is not shown: not resolved from the same bridge trained on a constant" in content(none=0.1, shuffled=0.1)["summary"]
    assert content(none=0.1, prompt=0.1, shuffled=0.1)["summary"].endswith(" of it, resolved.")
    mixed = content(**{"none": 0.1, "prompt": 0.1, "bytes-fixed-share": -0.3})
    assert mixed["summary"].startswith("Better than the bridge: the byte ensemble (fixed share). It gains 0.")
    assert mixed["verdicts"][0].startswith("the byte ensemble (fixed share) beats the bridge")
    assert "cannot be told apart (not resolved)" in mixed["verdicts"][1]


# --- substrate, specs and recipes ------------------------------------------------------------------------------------------------


def test_a_bridge_may_begin_with_a_trained_substrate(bridged: Bridged) -> None:
    """Its Gaussians, each source's Project with its units and the target's Read are taken; with freezeSubstrate they stay what they were,
    and if then nothing is left to train, that is said.
    """
    shapes = {"one": AdapterShape(32, 8), "two": AdapterShape(48, 8), "target": AdapterShape(32, 8)}
    world = World(16, 16, shapes, seed=5, scale=1.0, dropout=0.0, temperature=1.0)
    own = {SUBSTRATE: tensor_file.write(bridged.store, SUBSTRATE_FORM, {"dim": 16, "gaussians": 16}, world.substrate.state_dict())}
    for number, (name, layer) in enumerate({"one": 2, "two": 1, "target": 2}.items()):
        about = {"dim": 16, "hidden": shapes[name].hidden, "layer": layer, "name": name, "number": number, "rank": 8}
        own[adapter_name(name)] = tensor_file.write(bridged.store, ADAPTER_FORM, about, world.adapter(name).state_dict())

    def folder(*names: str) -> Digest:
        made = {path: digest for path, digest in own.items() if path == SUBSTRATE or path in map(adapter_name, names)}
        entries = [TreeEntry(path, digest, bridged.store.size(digest)) for path, digest in made.items()]
        return bridged.store.put(Tree.of(entries).to_bytes())

    def begun(*names: str, **changes: int) -> Digest:
        bridge = replace(SPEC, version="v2", bridge={**SMALL, **changes}).resolved
        init = BridgeInit(bridge=bridge, sources=SPEC.sources, target="target", freeze_substrate=True)
        gathered = of(bridged.ran, "readings")[0][2]["readings"]
        given = {"target": bridged.models["target"], "readings": gathered, "substrate": folder(*names)}
        start = bridged.direct.run("bridge-init", init, given)["state"]
        segment = BridgeSegment(until=2, steps=2, learning_rate=1e-2, batch_size=4)
        return bridged.direct.run("bridge-segment", segment, {"state": start, "target": given["target"], "readings": gathered})["state"]

    done = bridged.store.path(begun("one", "two"))
    current = state.load(done, loaded.target(bridged.models["target"], state.spec_of(done), "auto", bridged.direct.context))
    assert {name.split(".")[1] for name in current.trained()} == {"reader"}
    for number, name in enumerate(SPEC.sources):
        own_project = dict(current.bridge.senders[number].named_parameters())
        assert all(torch.equal(value, own_project[f"project.{key}"]) for key, value in world.adapter(name).project.named_parameters())
    with pytest.raises(SpecError, match="with freezeSubstrate nothing would be trained"):
        begun("one", "two", "target")
    with pytest.raises(SpecError, match=r"dim is 32, and the substrate's is 16"):
        begun("one", "two", dim=32)
    with pytest.raises(InputError, match="there is no adapter of 'two'"):
        begun("one")


def test_the_recipe_form_loads(tmp_path: Path) -> None:
    """All versions in one recipe: sources and target by folder, changes of a version under `bridge`."""
    found = lowered(tmp_path, {"version": "v9", "bridge": {"soft_tokens": 4}, "trainingSteps": 300})
    node = found.graph.nodes[-1]
    assert node.stage == "many-worlds-bridge"
    assert set(node.inputs) == {"calibration", "target", "model-one", "model-two"}
    assert (node.spec.sources, node.spec.target, node.spec.training_steps) == (("one", "two"), "target", 300)
    assert node.spec.resolved == replace(VERSIONS["v9"], soft_tokens=4)


def test_the_example_has_every_version() -> None:
    """One recipe trains and measures all of them on the same texts."""
    path = Path(__file__).parents[2] / "examples" / "many-worlds" / "bridges.yaml"
    plan = lowering.lower(recipe.load(path), lambda path: Digest.of(str(path).encode()))
    specs = [node.spec for node in plan.graph.nodes if node.stage == "many-worlds-bridge"]
    assert [spec.version for spec in specs] == list(VERSIONS)
    assert all(replace(spec, version="v1") == specs[0] for spec in specs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": "v13"}, "version: there is no 'v13'; there are v1, v2"),
        ({"bridge": {"soft_token": 4}}, "bridge: BridgeSpec has no field 'soft_token'"),
        ({"version": "v11", "bridge": {"reader": "prompt"}}, "reads no source; every report has it as a control"),
        ({"targetModel": None}, "needs targetModel: a stage or a folder"),
        ({"calibrationCorpus": None}, "needs calibrationCorpus: the path of a file"),
        ({"targetModel": "one"}, "two are called one"),
        ({"substratePath": 7}, "substratePath is 7; it must be a stage that gives a substrate, or a folder"),
        ({"trainingSteps": 0}, "training_steps is 0; it must be between 1 and 50000"),
    ],
)
def test_a_wrong_recipe_says_what_is_wrong(tmp_path: Path, change: Mapping[str, Any], message: str) -> None:
    """Before any model is read."""
    with pytest.raises((RecipeError, SpecError), match=message):
        lowered(tmp_path, change)


def lowered(folder: Path, change: Mapping[str, Any]) -> lowering.Plan:
    """A recipe with one bridge, as a graph."""
    entry = {"type": "many-worlds-bridge", "sourceModels": ["one", "two"], "targetModel": "target", "calibrationCorpus": "texts.jsonl"}
    given = {key: value for key, value in ({**entry, **change}).items() if value is not None}
    (folder / "recipe.json").write_text(json.dumps({"name": "x", "version": "1.0.0", "stages": [given]}))
    return lowering.lower(recipe.load(folder / "recipe.json"), lambda path: Digest.of(str(path).encode()))

"""Pruning: the pruned model is the original with experts masked out; no weight is written; what cannot work is refused."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.errors import InputError, PluginError, SpecError
from stages.expert_activation_profile import ExpertActivationProfile
from stages.expert_prune import ExpertPrune
from stages.expert_select import ExpertSelect, choose, read_plan
from stages.prune_shard import PruneShard
from stages.safetensors_file import header_bytes, place
from stages.tensors import INDEX, read_config, read_headers
from store import tree
from store.digest import Digest
from store.local import LocalCas
from store.memory import MemoryCas
from tests.direct import Direct
from tests.tiny import SAMPLES, TEXT, change_tensor, corpus, make_model


@pytest.fixture
def direct(tmp_path: Path) -> Direct:
    return Direct(MemoryCas(), tmp_path)


def prune(direct: Direct, folder: Path, spec: ExpertPrune) -> tuple[Digest, Mapping[str, Digest]]:
    """Import, profile and prune a folder: (model, outputs of expert-prune)."""
    model = tree.import_folder(direct.store, folder)
    calibration = direct.store.put(corpus(SAMPLES))
    profile = direct.run("expert-activation-profile", ExpertActivationProfile(), {"model": model, "calibration": calibration})
    return model, direct.run("expert-prune", spec, {"model": model, "profile": profile["profile"]})


def logits(folder: Path, dropped: Mapping[int, tuple[int, ...]] | None = None) -> Any:
    """Logits of a text; with `dropped`, the routers' logits of those experts are minus infinity."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = AutoTokenizer.from_pretrained(folder)(TEXT[1] + TEXT[0] + TEXT[2], return_tensors="pt")["input_ids"]
    routers = {}
    for layer, experts in (dropped or {}).items():
        block = model.model.layers[layer]
        found = [m for m in block.modules() if type(m).__name__.endswith(("TopKRouter", "TopKGating", "Router", "Gate", "Gating"))]
        assert len(found) == 1, [type(m).__name__ for m in block.modules()]
        weight = found[0].weight
        routers[weight.data_ptr()] = list(experts)
        if hasattr(found[0], "e_score_correction_bias"):
            found[0].e_score_correction_bias[list(experts)] = -torch.inf
    linear = torch.nn.functional.linear
    used = set()

    def masked(value: torch.Tensor, weight: torch.Tensor, *rest: Any) -> torch.Tensor:
        result = linear(value, weight, *rest)
        if weight.data_ptr() in routers:
            used.add(weight.data_ptr())
            result[..., routers[weight.data_ptr()]] = -torch.inf
        return result

    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setattr(torch.nn.functional, "linear", masked)
        result = model(ids).logits
    assert used == set(routers)
    return result


# --- the law ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "config"),
    [
        ("mixtral", {}),
        ("qwen3_moe", {"mlp_only_layers": [1], "layers": 3}),
        ("olmoe", {}),
        ("phimoe", {}),
        ("granitemoe", {}),
        ("deepseek_v2", {"layers": 3}),
        ("deepseek_v3", {"layers": 3}),
        ("deepseek_v3", {"layers": 3, "n_group": 2, "topk_group": 1}),
    ],
)
def test_a_pruned_model_is_the_original_with_experts_masked_out(tmp_path: Path, direct: Direct, family: str, config: Any) -> None:
    """Logits of the pruned model equal the original's with the dropped experts' router logits at minus infinity, in float32 to 1e-5."""
    import torch

    folder = make_model(tmp_path / "m", family=family, **config)
    _, made = prune(direct, folder, ExpertPrune(keep_experts=6))
    tree.export(direct.store, made["model"], tmp_path / "pruned")
    plan = read_plan(direct.store.read(made["plan"]))
    dropped = {layer: tuple(sorted(set(range(8)) - set(kept))) for layer, kept in plan.kept.items()}
    assert all(len(items) == 2 for items in dropped.values())
    pruned = logits(tmp_path / "pruned")
    torch.testing.assert_close(pruned, logits(folder, dropped), atol=1e-5, rtol=0)
    assert not torch.allclose(pruned, logits(folder), atol=1e-3)


def test_keeping_every_expert_keeps_every_tensor(tmp_path: Path, direct: Direct) -> None:
    """Keep 8 of 8: all tensors are the same bytes under the same names."""
    folder = make_model(tmp_path / "m")
    _, made = prune(direct, folder, ExpertPrune(keep_experts=8))
    tree.export(direct.store, made["model"], tmp_path / "pruned")
    before, after = arrays(folder), arrays(tmp_path / "pruned")
    assert sorted(before) == sorted(after)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def arrays(folder: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    return {name: array for file in sorted(folder.glob("*.safetensors")) for name, array in load_file(file).items()}


def test_kept_experts_are_the_same_bytes_under_new_numbers(tmp_path: Path, direct: Direct) -> None:
    """Against a plain load, drop, rename, slice of the same plan: equal names, dtypes and bytes, over several shards."""
    folder = make_model(tmp_path / "m", dtype="float16", max_shard_size="150KB")
    assert len(list(folder.glob("*.safetensors"))) > 3
    _, made = prune(direct, folder, ExpertPrune(keep_experts=5, strategy="msan"))
    tree.export(direct.store, made["model"], tmp_path / "pruned")
    plan = read_plan(direct.store.read(made["plan"]))
    expected = {}
    for name, array in arrays(folder).items():
        parts = name.split(".")
        if "experts" in parts:
            kept, old = plan.kept[int(parts[2])], int(parts[5])
            if old not in kept:
                continue
            parts[5] = str(kept.index(old))
        elif parts[-2] == "gate":
            array = array[list(plan.kept[int(parts[2])])]
        expected[".".join(parts)] = array
    got = arrays(tmp_path / "pruned")
    assert sorted(got) == sorted(expected)
    assert all(got[name].dtype == expected[name].dtype and np.array_equal(got[name], expected[name]) for name in got)
    index = json.loads((tmp_path / "pruned" / INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in got.values())
    assert json.loads((tmp_path / "pruned" / "config.json").read_text())["num_local_experts"] == 5
    assert (tmp_path / "pruned" / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


def test_no_weight_byte_is_written(tmp_path: Path) -> None:
    """Pruned shards are ranges of the old ones: the store grows by headers and small files only, and the notes count what happened."""
    direct = Direct(LocalCas(tmp_path / "store"), tmp_path)
    folder = make_model(tmp_path / "m", hidden=128, intermediate=256, max_shard_size="1MB")
    prune(direct, folder, ExpertPrune(keep_experts=6))
    shards = [notes for node, notes in direct.notes.items() if node.startswith("shard-")]
    assert len(shards) > 3
    assert {notes["weight_bytes_written"] for notes in shards} == {0}
    assert sum(notes["tensors_dropped"] for notes in shards) == 2 * 2 * 3
    assert sum(notes["tensors_sliced"] for notes in shards) == 2
    assert direct.notes["assemble"]["weights_bytes_after"] < direct.notes["assemble"]["weights_bytes_before"]
    store = direct.store
    assert isinstance(store, LocalCas)
    outputs = [outputs["shard"] for node, _, outputs in direct.ran if node.startswith("shard-")]
    assert all(store.is_splice(digest) for digest in outputs)
    assert sum(store.stored_bytes(digest) for digest in outputs) < sum(store.size(digest) for digest in outputs) / 50


def test_the_memory_of_a_shard_does_not_depend_on_its_size(tmp_path: Path) -> None:
    """Planning and splicing a shard of 64 MiB allocates no more than a few MiB."""
    store = LocalCas(tmp_path / "store")
    names = [f"model.layers.0.block_sparse_moe.experts.{expert}.w{part}.weight" for expert in range(8) for part in (1, 2, 3)]
    layout = place([("model.layers.0.block_sparse_moe.gate.weight", "F32", (8, 1024)), *((name, "F32", (700, 1000)) for name in names)])
    file = tmp_path / "big.safetensors"
    with file.open("wb") as opened:
        opened.write(header_bytes(layout, {"format": "pt"}))
        opened.truncate(opened.tell() + layout[-1].stop)
    plan = {"type": "expert-plan/v1", "keep": 6, "experts": 8, "layers": [{"layer": 0, "kept": [0, 1, 2, 4, 6, 7]}]}
    inputs = {
        "shard": store.add_file(file),
        "plan": store.put(json.dumps(plan).encode()),
        "config": store.put(b'{"model_type":"mixtral","num_hidden_layers":1,"num_local_experts":8}'),
    }
    direct = Direct(store, tmp_path)
    tracemalloc.start()
    direct.run("prune-shard", PruneShard(family="mixtral"), inputs)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * 2**20


def test_a_shard_that_becomes_empty_is_dropped(tmp_path: Path, direct: Direct) -> None:
    """A shard that held dropped experts alone is not in the pruned model, and the others are numbered anew."""
    from safetensors.numpy import load_file, save_file

    folder = make_model(tmp_path / "m", layers=1)
    whole = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    last = {name: array for name, array in whole.items() if ".experts.7." in name}
    rest = {name: array for name, array in whole.items() if name not in last}
    weight_map: dict[str, str] = {}
    for file, part in {"model-00001-of-00002.safetensors": last, "model-00002-of-00002.safetensors": rest}.items():
        save_file(part, folder / file, {"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    model = tree.import_folder(direct.store, folder)
    plan = {"type": "expert-plan/v1", "keep": 6, "experts": 8, "layers": [{"layer": 0, "kept": [0, 1, 2, 3, 4, 5]}]}
    source = tree.load(direct.store, model)
    named = {"plan": direct.store.put(json.dumps(plan).encode()), "config": source.entry("config.json").digest}
    spec = PruneShard(family="mixtral")
    shards = {
        f"shard-{number:05d}": direct.run("prune-shard", spec, named | {"shard": source.entry(file).digest})["shard"]
        for number, file in enumerate(sorted(set(weight_map.values())))
    }
    from stages.prune_assemble import PruneAssemble

    made = direct.run("prune-assemble", PruneAssemble(family="mixtral"), {"model": model, "plan": named["plan"], **shards})
    result = tree.load(direct.store, made["model"])
    assert [item.path for item in result.entries if "safetensors" in item.path] == ["model.safetensors"]
    assert direct.notes["prune-assemble"]["shards_empty"] == 1
    read_headers(direct.store, result)


def test_multi_token_prediction_layers_are_dropped_aloud(tmp_path: Path, direct: Direct) -> None:
    """Layers after the last that runs were never measured: their tensors go, the config says so, and the person is told."""
    from safetensors.numpy import load_file, save_file

    folder = make_model(tmp_path / "m", family="deepseek_v3")
    whole = load_file(folder / "model.safetensors")
    extra = {name.replace("layers.1.", "layers.2."): array.copy() for name, array in whole.items() if "layers.1." in name}
    save_file(whole | extra, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text()) | {"num_nextn_predict_layers": 1}
    (folder / "config.json").write_text(json.dumps(config))
    warned: list[str] = []
    direct.context.on_warning = warned.append
    _, made = prune(direct, folder, ExpertPrune(keep_experts=4))
    pruned = tree.load(direct.store, made["model"])
    assert read_config(direct.store, pruned)["num_nextn_predict_layers"] == 0
    assert not [item.name for header in read_headers(direct.store, pruned).values() for item in header.tensors if "layers.2." in item.name]
    assert any("multi-token prediction" in message for message in warned)


def test_correction_biases_are_sliced(tmp_path: Path, direct: Direct) -> None:
    """A bias per expert keeps the kept experts' values."""
    folder = make_model(tmp_path / "m", family="deepseek_v3")
    _, made = prune(direct, folder, ExpertPrune(keep_experts=4))
    tree.export(direct.store, made["model"], tmp_path / "pruned")
    kept = read_plan(direct.store.read(made["plan"])).kept[1]
    name = "model.layers.1.mlp.gate.e_score_correction_bias"
    assert np.array_equal(arrays(tmp_path / "pruned")[name], arrays(folder)[name][list(kept)])


def test_a_ladder_of_one_profile_is_nested(tmp_path: Path, direct: Direct) -> None:
    """What a smaller variant keeps, every larger one keeps too."""
    model = tree.import_folder(direct.store, make_model(tmp_path / "m"))
    calibration = direct.store.put(corpus(SAMPLES))
    profile = direct.run("expert-activation-profile", ExpertActivationProfile(), {"model": model, "calibration": calibration})["profile"]
    plans = [
        read_plan(direct.store.read(direct.run("expert-select", ExpertSelect(keep=keep), {"profile": profile, "model": model})["plan"]))
        for keep in range(2, 9)
    ]
    for smaller, larger in pairwise(plans):
        assert all(set(smaller.kept[layer]) < set(larger.kept[layer]) for layer in smaller.kept)


# --- what is refused -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        (9, "cannot keep 9 of 8 experts per layer: keep must be from 2"),
        (0, "cannot keep 0 of 8"),
        (1, "the router picks 2 for each token, and 1 < 2"),
    ],
)
def test_an_impossible_count_is_refused_before_any_action(tmp_path: Path, direct: Direct, keep: int, words: str) -> None:
    """The composite refuses counts above the experts or below top-k when it expands, with the arithmetic; so does the leaf."""
    model = tree.import_folder(direct.store, make_model(tmp_path / "m"))
    with pytest.raises(SpecError, match=words):
        direct.run("expert-prune", ExpertPrune(keep_experts=keep), {"model": model, "profile": Digest.of(b"")})
    with pytest.raises(SpecError, match=words):
        direct.run("expert-select", ExpertSelect(keep=keep), {"model": model, "profile": Digest.of(b"")})
    assert direct.ran == []


def test_a_count_that_breaks_the_groups_is_refused(tmp_path: Path, direct: Direct) -> None:
    """Group-limited routers need equal groups."""
    model = tree.import_folder(direct.store, make_model(tmp_path / "m", family="deepseek_v3", n_group=4, topk_group=2))
    with pytest.raises(SpecError, match="4 equal groups, and 6 / 4 is not whole; keep 4 or 8"):
        direct.run("expert-prune", ExpertPrune(keep_experts=6), {"model": model, "profile": Digest.of(b"")})


def test_an_unknown_strategy_is_refused_with_the_known_ones(tmp_path: Path, direct: Direct) -> None:
    """The nearest name is offered."""
    model = tree.import_folder(direct.store, make_model(tmp_path / "m"))
    with pytest.raises(PluginError, match="did you mean 'reap'"):
        direct.run("expert-prune", ExpertPrune(keep_experts=6, strategy="raep"), {"model": model, "profile": Digest.of(b"")})


def test_an_unknown_family_is_refused_with_the_known_ones(tmp_path: Path, direct: Direct) -> None:
    """The model type is named, and those that are known."""
    folder = make_model(tmp_path / "m")
    edit_config(folder, lambda config: config | {"model_type": "mystery_moe"})
    with pytest.raises(PluginError, match=r"no family for model_type 'mystery_moe'.*Known: acme_moe, deepseek_v2, .*mixtral"):
        direct.run(
            "expert-prune", ExpertPrune(keep_experts=6), {"model": tree.import_folder(direct.store, folder), "profile": Digest.of(b"")}
        )


def edit_config(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))


def test_a_missing_expert_tensor_is_refused_before_any_action(tmp_path: Path, direct: Direct) -> None:
    """The layer, the expert and the part that it lacks are named."""
    folder = make_model(tmp_path / "m")
    change_tensor(folder, "model.layers.1.block_sparse_moe.experts.3.w2.weight", lambda array: None)
    with pytest.raises(InputError, match=r"layer 1: expert 3 lacks w2\.weight"):
        direct.run(
            "expert-prune", ExpertPrune(keep_experts=6), {"model": tree.import_folder(direct.store, folder), "profile": Digest.of(b"")}
        )


def test_a_config_that_counts_other_experts_is_refused(tmp_path: Path, direct: Direct) -> None:
    """config.json with fewer experts than the weights, or more layers with experts."""
    folder = make_model(tmp_path / "m")
    edit_config(folder, lambda config: config | {"num_local_experts": 7})
    with pytest.raises(InputError, match=r"has an expert 7, but config\.json says 7"):
        direct.run(
            "expert-prune", ExpertPrune(keep_experts=6), {"model": tree.import_folder(direct.store, folder), "profile": Digest.of(b"")}
        )


def test_a_profile_that_lacks_a_layer_is_refused(tmp_path: Path, direct: Direct) -> None:
    """A profile of a shorter model does not choose for a longer one; the missing layers are named."""
    short = tree.import_folder(direct.store, make_model(tmp_path / "short", layers=1))
    long = tree.import_folder(direct.store, make_model(tmp_path / "long", layers=3))
    profile = direct.run(
        "expert-activation-profile", ExpertActivationProfile(), {"model": short, "calibration": direct.store.put(corpus(SAMPLES[:1]))}
    )["profile"]
    with pytest.raises(InputError, match=r"lacks layers 1, 2: it has 1 of 3"):
        direct.run("expert-select", ExpertSelect(keep=6), {"model": long, "profile": profile})


def test_scores_that_are_nan_are_refused(tmp_path: Path, direct: Direct, monkeypatch: pytest.MonkeyPatch) -> None:
    """A strategy that gives NaN chooses nothing; the layer and the experts are named."""
    from stages import plugins

    model = tree.import_folder(direct.store, make_model(tmp_path / "m", layers=1))
    profile = direct.run(
        "expert-activation-profile", ExpertActivationProfile(), {"model": model, "calibration": direct.store.put(corpus(SAMPLES[:1]))}
    )["profile"]
    real = plugins.load
    bad = lambda profile, layer, *, seed: np.array([1.0, np.nan] * 4)  # noqa: E731
    monkeypatch.setattr(plugins, "load", lambda kind, name: bad if kind == "strategies" else real(kind, name))
    with pytest.raises(InputError, match=r"gave experts \[1, 3, 5, 7\] of layer 0 a score that is NaN"):
        direct.run("expert-select", ExpertSelect(keep=6), {"model": model, "profile": profile})


@pytest.mark.parametrize(
    "plan",
    [
        b"{}",
        b'{"type":"expert-plan/v2"}',
        b'{"type":"expert-plan/v1","keep":2,"experts":4,"layers":[{"layer":0,"kept":[0,4]}]}',
        b'{"type":"expert-plan/v1","keep":2,"experts":4,"layers":[{"layer":0,"kept":[1,0]}]}',
        b'{"type":"expert-plan/v1","keep":2,"experts":4,"layers":[{"layer":0,"kept":[1]}]}',
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(plan: bytes) -> None:
    """Unknown types, ids out of range, out of order, or too few."""
    with pytest.raises(InputError):
        read_plan(plan)


def test_ties_go_to_the_lower_index() -> None:
    """Equal scores never depend on the sort."""
    assert choose([1.0] * 8, 3) == ((0, 1, 2), 0.0)
    assert choose([1.0, 3.0, 3.0, 2.0], 1) == ((1,), 0.0)
    assert choose([0.0, -0.0, 0.0], 2) == ((0, 1), 0.0)

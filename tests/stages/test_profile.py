"""Profiling: the model's own routing, every sum right, nothing changed, blocks that combine."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages import saliency
from stages.calibration import blocks, read_samples
from stages.errors import InputError, SpecError
from stages.expert_activation_profile import ExpertActivationProfile
from stages.profile_block import BASE, Loaded, ProfileBlock, decoder_layers, load
from store import tree
from store.digest import Digest
from store.memory import MemoryCas
from tests.direct import Direct
from tests.tiny import SAMPLES, TEXT, change_tensor, corpus, make_model

FAMILIES = ["mixtral", "qwen3_moe", "olmoe", "phimoe", "granitemoe", "deepseek_v2", "deepseek_v3"]


@pytest.fixture
def direct(tmp_path: Path) -> Direct:
    return Direct(MemoryCas(), tmp_path)


def imported(direct: Direct, folder: Path) -> Digest:
    return tree.import_folder(direct.store, folder)


def read(direct: Direct, digest: Digest) -> saliency.Profile:
    return saliency.read(io.BytesIO(direct.store.read(digest)), "profile", direct.store.size(digest))


# --- what is measured ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_profiling_leaves_the_logits_alone(tmp_path: Path, family: str) -> None:
    """Logits while profiling are bit-identical to the library's own implementation."""
    import torch
    from transformers import AutoModelForCausalLM

    folder = make_model(tmp_path / "m", family=family, layers=3)
    loaded = load(folder, "float32")
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, experts_implementation=BASE).eval()
    ids = loaded.tokenizer(TEXT[1] * 4, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        assert torch.equal(loaded.model(ids).logits, plain(ids).logits)
    assert sorted(loaded.recorder.scalars) == [0, 1, 2] if "deepseek" not in family else [1, 2]


def plain_sums(loaded: Loaded, texts: list[str]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """The same sums by loops over tokens and choices, in float64 from the weights themselves."""
    import torch

    layer_of = decoder_layers(loaded.model)
    seen: list[tuple[int, Any, tuple[torch.Tensor, ...]]] = []
    experts = [module for module in loaded.model.modules() if hasattr(module, "gate_up_proj") and hasattr(module, "num_experts")]
    handles = [module.register_forward_pre_hook(lambda m, a: seen.append((layer_of[id(m)], m, a))) for module in experts]
    with torch.inference_mode():
        for text in texts:
            loaded.model(loaded.tokenizer(text, return_tensors="pt")["input_ids"])
    for handle in handles:
        handle.remove()
    sums: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for layer, module, (hidden, index, weight) in seen:
        scalars, outputs = sums.setdefault(layer, (np.zeros((module.num_experts, 6)), np.zeros((module.num_experts, hidden.shape[-1]))))
        for token in range(hidden.shape[0]):
            for choice in range(index.shape[1]):
                expert, w = int(index[token, choice]), float(weight[token, choice])
                gate, up = (module.gate_up_proj[expert].double() @ hidden[token].double()).chunk(2)
                y = (module.down_proj[expert].double() @ (module.act_fn(gate) * up)).detach().numpy()
                n = float(np.sqrt(np.sum(y * y)))
                scalars[expert] += [1, w, n, w * n, n * n, (w * n) ** 2]
                outputs[expert] += y
    return sums


@pytest.mark.parametrize("family", ["mixtral", "deepseek_v3"])
def test_every_sum_equals_a_plain_recount(tmp_path: Path, direct: Direct, family: str) -> None:
    """All seven sums of every layer, expert and domain agree with loops over tokens, for softmax and for sigmoid-and-bias routers."""
    folder = make_model(tmp_path / "m", family=family)
    made = direct.run(
        "profile-block",
        ProfileBlock(load_in="float32"),
        {"model": imported(direct, folder), "samples": direct.store.put(next(blocks(map(json.dumps, SAMPLES), 9)))},
    )
    profile = read(direct, made["profile"])
    loaded = load(folder, "float32")
    for column, domain in enumerate(profile.about.domains):
        expected = plain_sums(loaded, [item["text"] for item in SAMPLES if item["domain"] == domain])
        assert tuple(sorted(expected)) == profile.about.layers
        for row, layer in enumerate(profile.about.layers):
            for number, metric in enumerate(saliency.METRICS):
                np.testing.assert_allclose(profile.sums[metric][0, column, row], expected[layer][0][:, number], rtol=2e-5, err_msg=metric)
            data = io.BytesIO(direct.store.read(made["profile"]))
            outputs = saliency.output_sums(data, "profile", len(data.getvalue()), layer)
            np.testing.assert_allclose(outputs[column], expected[layer][1], atol=2e-4)
    assert direct.context.notes["tokens"] == int(profile.tokens.sum())


def test_every_token_is_counted_top_k_times(tmp_path: Path, direct: Direct) -> None:
    """In each layer and domain the counts sum to tokens times top-k, and a normalised router's weights to the tokens."""
    made = direct.run(
        "expert-activation-profile",
        ExpertActivationProfile(block_samples=2),
        {"model": imported(direct, make_model(tmp_path / "m")), "calibration": direct.store.put(corpus(SAMPLES))},
    )
    profile = read(direct, made["profile"])
    assert profile.about.blocks == 3
    assert profile.about.domains == ("code", "data", "prose")
    per_layer = profile.sums["count"].sum(axis=-1)
    assert (per_layer == 2 * profile.tokens[:, :, None]).all()
    np.testing.assert_allclose(profile.sums["weight"].sum(axis=-1), np.broadcast_to(profile.tokens[:, :, None], per_layer.shape), rtol=1e-6)
    assert profile.samples.sum() == len(SAMPLES)


def test_samples_are_cut_at_max_length(tmp_path: Path, direct: Direct) -> None:
    """No sample gives more than `max_length` tokens."""
    made = direct.run(
        "expert-activation-profile",
        ExpertActivationProfile(max_length=5),
        {"model": imported(direct, make_model(tmp_path / "m")), "calibration": direct.store.put(corpus(SAMPLES))},
    )
    assert read(direct, made["profile"]).tokens.sum() == 5 * len(SAMPLES)


def test_a_second_run_gives_the_same_bytes(tmp_path: Path, direct: Direct) -> None:
    """The same action in the same environment gives the same digest, model reused or loaded anew."""
    inputs = {
        "model": imported(direct, make_model(tmp_path / "m")),
        "samples": direct.store.put(next(blocks(map(json.dumps, SAMPLES), 9))),
    }
    first = direct.run("profile-block", ProfileBlock(), inputs)
    again = direct.run("profile-block", ProfileBlock(), inputs)
    anew = Direct(direct.store, tmp_path / "other").run("profile-block", ProfileBlock(), inputs)
    assert first == again == anew


def test_a_dense_model_is_an_error(tmp_path: Path, direct: Direct) -> None:
    """Zero layers seen is an error that says why, never an empty profile."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.tiny import make_tokenizer

    folder = tmp_path / "dense"
    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 512}
    LlamaForCausalLM(LlamaConfig(**small)).save_pretrained(folder)
    make_tokenizer(folder)
    with pytest.raises(InputError, match="no layer with routed experts ran in LlamaForCausalLM"):
        direct.run(
            "profile-block",
            ProfileBlock(),
            {"model": imported(direct, folder), "samples": direct.store.put(next(blocks(map(json.dumps, SAMPLES), 9)))},
        )


def test_a_weight_that_is_nan_is_named(tmp_path: Path, direct: Direct) -> None:
    """NaN weights are refused with the layer and the expert where they showed first."""
    folder = make_model(tmp_path / "m")
    change_tensor(folder, "model.layers.1.block_sparse_moe.experts.3.w2.weight", lambda array: np.full_like(array, np.nan))
    with pytest.raises(InputError, match=r"layer 1, expert 3: its outputs on domain code are NaN"):
        direct.run(
            "profile-block",
            ProfileBlock(),
            {"model": imported(direct, folder), "samples": direct.store.put(next(blocks(map(json.dumps, SAMPLES[:1]), 9)))},
        )


def test_a_missing_expert_tensor_is_refused(tmp_path: Path, direct: Direct) -> None:
    """A tensor that the config asks for is never filled with random numbers."""
    folder = make_model(tmp_path / "m")
    change_tensor(folder, "model.layers.1.self_attn.q_proj.weight", lambda array: None)
    with pytest.raises(InputError, match=r"lacks weights.*layers\.1\.self_attn\.q_proj"):
        load(folder, "float32")


# --- blocks ----------------------------------------------------------------------------------------------------------------------


def test_a_superset_shares_the_blocks_of_its_beginning(tmp_path: Path, direct: Direct) -> None:
    """A calibration set with more samples behind the same ones measures the new blocks alone; the old blocks have the same inputs."""
    model = imported(direct, make_model(tmp_path / "m", layers=1))
    spec = ExpertActivationProfile(block_samples=2)
    direct.run("expert-activation-profile", spec, {"model": model, "calibration": direct.store.put(corpus(SAMPLES[:4]))})
    small = {node: inputs for node, inputs, _ in direct.ran if node.startswith("block-")}
    direct.ran.clear()
    direct.run("expert-activation-profile", spec, {"model": model, "calibration": direct.store.put(corpus(SAMPLES))})
    large = {node: inputs for node, inputs, _ in direct.ran if node.startswith("block-")}
    assert (len(small), len(large)) == (2, 3)
    assert {node: large[node] for node in small} == small


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "calibration set is empty"),
        (b"\n  \n", "calibration set is empty"),
        (b'{"text": "a"}\n{"text": ""}\n', "line 2: has no text"),
        (b'{"text": "a"}\nnot json\n', "line 2: not strict JSON"),
        (b'["a"]\n', "line 1: expected an object"),
        (b'{"prompt": "a"}\n', "line 1: has no text"),
        (b'{"text": "a", "domain": 3}\n', "line 1: its domain must be"),
        (b'{"text": "a", "text": "b"}\n', "key given twice"),
    ],
)
def test_a_bad_calibration_set_is_refused_before_any_work(tmp_path: Path, direct: Direct, data: bytes, words: str) -> None:
    """An empty set or a bad line stops the expansion, with the line's number."""
    with pytest.raises(InputError, match=words):
        direct.run("expert-activation-profile", ExpertActivationProfile(), {"model": Digest.of(b""), "calibration": direct.store.put(data)})


def test_a_block_needs_a_size() -> None:
    """Blocks of no samples are impossible."""
    with pytest.raises(SpecError, match="block of 0 samples"):
        list(blocks(['{"text": "a"}'], 0))


@given(st.lists(st.tuples(st.text(min_size=1).filter(str.strip), st.sampled_from(["a", "b"])), min_size=1, max_size=9), st.integers(1, 4))
def test_blocks_hold_the_samples_in_order(samples: list[tuple[str, str]], size: int) -> None:
    """Cutting and reading back gives the same samples, whatever characters they hold."""
    lines = [json.dumps({"text": text, "domain": domain}) for text, domain in samples]
    found = [sample for block in blocks(lines, size) for sample in read_samples(block)]
    assert [(item.text, item.domain) for item in found] == samples


# --- merging ---------------------------------------------------------------------------------------------------------------------


def random_profile(store: MemoryCas, seed: int, domains: tuple[str, ...]) -> Digest:
    generator = np.random.default_rng(seed)
    about = saliency.About(
        model=str(Digest.of(b"m")), dtype="float32", max_length=8, layers=(0, 3), experts=4, top_k=2, hidden=5, domains=domains, blocks=1
    )
    shapes = about.shapes
    counts = {name: generator.integers(0, 99, shapes[name]).astype(float) for name in ("samples", "tokens", "count")}
    sums: Mapping[str, Any] = {name: generator.random(shapes[name]) for name in saliency.METRICS} | {"count": counts["count"]}
    outputs: Iterator[Any] = iter([generator.standard_normal(shapes["output"])])
    with store.writer() as writer:
        saliency.write(about, (counts["samples"], counts["tokens"]), sums, outputs, writer)
        return writer.finish()


def merged(store: MemoryCas, digests: list[Digest]) -> Digest:
    with store.writer() as writer:
        saliency.merge(store, digests, writer)
        return writer.finish()


@given(st.data())
def test_merging_is_associative(data: st.DataObject) -> None:
    """Any bracketing of the same order gives the same blocks bit for bit and the same output sums up to rounding; one order, one digest."""
    store = MemoryCas()
    domains = st.sampled_from([("a",), ("b",), ("a", "b"), ("a", "c")])
    leaves = [random_profile(store, seed, data.draw(domains)) for seed in range(data.draw(st.integers(2, 5)))]
    flat = merged(store, leaves)
    assert merged(store, leaves) == flat
    parts = [[leaf] for leaf in leaves]
    while len(parts) > 1:
        at = data.draw(st.integers(0, len(parts) - 2))
        parts[at : at + 2] = [[merged(store, [*parts[at], *parts[at + 1]])]]
    nested = parts[0][0]
    one, two = (saliency.read(io.BytesIO(store.read(item)), "p", store.size(item)) for item in (flat, nested))
    assert one.about == two.about
    for metric in saliency.METRICS:
        assert np.array_equal(one.sums[metric], two.sums[metric])
    for layer in one.about.layers:
        a, b = (saliency.output_sums(io.BytesIO(store.read(item)), "p", store.size(item), layer) for item in (flat, nested))
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def test_merging_one_profile_gives_its_own_bytes() -> None:
    """One is the identity."""
    store = MemoryCas()
    only = random_profile(store, 1, ("a", "b"))
    assert merged(store, [only]) == only


def test_the_merged_output_is_the_sum_in_order() -> None:
    """`output` of a merged profile is the left-to-right float64 sum of its parts, exactly."""
    store = MemoryCas()
    parts = [random_profile(store, seed, ("a",)) for seed in range(4)]
    whole = merged(store, parts)
    expected = reduce(lambda a, b: a + b, (saliency.output_sums(io.BytesIO(store.read(p)), "p", store.size(p), 3) for p in parts))
    assert np.array_equal(saliency.output_sums(io.BytesIO(store.read(whole)), "p", store.size(whole), 3), expected)


def test_profiles_of_two_models_do_not_merge() -> None:
    """The message names the field and both values."""
    store = MemoryCas()
    one = random_profile(store, 1, ("a",))
    data = store.read(one).replace(str(Digest.of(b"m")).encode(), str(Digest.of(b"n")).encode())
    with pytest.raises(InputError, match=r"has model sha256:.*only profiles of one model"):
        merged(store, [one, store.put(data)])


def test_a_damaged_profile_is_refused() -> None:
    """NaN in a sum, a negative count, and a file that is no profile each get their message."""
    store = MemoryCas()
    data = store.read(random_profile(store, 1, ("a",)))
    profile = saliency.read(io.BytesIO(data), "p", len(data))
    value = profile.sums["norm"][0, 0, 1, 2]
    broken = data.replace(value.tobytes(), np.float64("nan").tobytes(), 1)
    with pytest.raises(InputError, match=r"norm holds NaN or infinity \(layer 3, expert 2, domain a\)"):
        saliency.read(io.BytesIO(broken), "p", len(broken))
    value = profile.sums["count"][0, 0, 0, 0]
    negative = data.replace(value.tobytes(), np.float64(-1).tobytes(), 1)
    with pytest.raises(InputError, match="holds a negative number"):
        saliency.read(io.BytesIO(negative), "p", len(negative))
    from stages.safetensors_file import header_bytes

    other = header_bytes((), {"format": "pt"})
    with pytest.raises(InputError, match="not a profile"):
        saliency.read(io.BytesIO(other), "p", len(other))

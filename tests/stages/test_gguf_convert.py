import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from stages import gguf_file
from stages.context import LeafContext
from stages.errors import InputError, ToolError
from stages.gguf_convert import GgufConvert, check_model, check_tokenizer, run, staged
from stages.hf_tokenizer import SAMPLE, HfTokenizer, is_gpt2_pretokenizer
from stages.llama_cyllama import Cyllama
from stages.safetensors_file import Header, place
from store import tree
from store.local import LocalCas
from tests.tiny import make_model

if TYPE_CHECKING:
    from tests.stages.conftest import Ggufs

CHAIN = Cyllama()


def convert(folder: Path, place: Path, outtype: Literal["F32", "F16", "BF16"] = "F16") -> LeafContext:
    """Import a folder into a store of its own and convert it; the context, whose store holds the GGUF."""
    store = LocalCas(place / "store")
    context = LeafContext(store, place / "scratch", place / "keep")
    context.scratch.mkdir(parents=True)
    outcome = run(GgufConvert(outtype=outtype), {"model": tree.import_folder(store, folder)}, context)
    context.notes["gguf"] = outcome.outputs["gguf"]
    return context


def test_two_conversions_in_different_places_give_the_same_bytes(ggufs: "Ggufs", tmp_path: Path) -> None:
    """No folder's name, time or order gets into the file, and a README, pickles or code beside the weights change nothing."""
    folder = tmp_path / "Another-Name-7B-Instruct-v2"
    shutil.copytree(ggufs.folders["wide"], folder)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Somebody's model\n")
    (folder / "modeling_evil.py").write_text("raise SystemExit('code of a model was run')")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    context = convert(folder, tmp_path / "elsewhere")
    assert context.notes["gguf"] == ggufs.files["wide-F16"]
    made = gguf_file.check(ggufs.path("wide-F16"))
    assert made.metadata["general.name"] == "model"
    assert context.notes["tensor_types"] == {"F16": 9, "F32": 4}


def test_add_bos_is_always_written(ggufs: "Ggufs") -> None:
    """A file that does not say would be read by llama.cpp's default for its kind of vocabulary."""
    assert gguf_file.check(ggufs.path("wide-F32")).metadata["tokenizer.ggml.add_bos_token"] is False


def test_a_tokenizer_that_adds_bos_is_converted_to_one_that_does(tmp_path: Path) -> None:
    """The template of the HF tokenizer and the flag in the file agree, and both give the same ids."""
    folder = make_model(tmp_path / "m", layers=1, experts=2)
    file = json.loads((folder / "tokenizer.json").read_text())
    file["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}},
    }
    (folder / "tokenizer.json").write_text(json.dumps(file))
    context = convert(folder, tmp_path)
    made = context.store.path(context.notes["gguf"])
    assert gguf_file.check(made).metadata["tokenizer.ggml.add_bos_token"] is True
    assert CHAIN.tokenize(made, "a", add_special=True) == HfTokenizer(folder).encode("a", add_special=True)


def test_an_unknown_tokenizer_that_is_not_gpt2s_is_refused(ggufs: "Ggufs", tmp_path: Path) -> None:
    """llama.cpp's own refusal comes through, with what to do; nothing is stored."""
    folder = tmp_path / "m"
    shutil.copytree(ggufs.folders["narrow"], folder)
    file = json.loads((folder / "tokenizer.json").read_text())
    file["pre_tokenizer"]["use_regex"] = False
    (folder / "tokenizer.json").write_text(json.dumps(file))
    with pytest.raises(ToolError, match=r"BPE pre-tokenizer was not recognized.*--llama-cpp"):
        convert(folder, tmp_path)


def test_a_gguf_that_tokenises_differently_is_refused(ggufs: "Ggufs", tmp_path: Path) -> None:
    """The first token that differs is named, with the text around it."""
    folder = tmp_path / "t"
    folder.mkdir()
    shutil.copy(ggufs.folders["wide"] / "tokenizer_config.json", folder)
    file = json.loads((ggufs.folders["wide"] / "tokenizer.json").read_text())
    file["pre_tokenizer"]["use_regex"] = False
    (folder / "tokenizer.json").write_text(json.dumps(file))
    with pytest.raises(InputError, match=r"tokenises differently from the model: at token \d+ of the sample"):
        check_tokenizer(CHAIN, ggufs.path("wide-F32"), HfTokenizer(folder))


def test_the_sample_is_tokenised_alike(ggufs: "Ggufs") -> None:
    """Code, prose, digits, blanks, many scripts: equal ids from the file and from transformers; `<s>` in a text is plain text."""
    tokenizer = HfTokenizer(ggufs.folders["wide"])
    check_tokenizer(CHAIN, ggufs.path("wide-F32"), tokenizer)
    check_tokenizer(CHAIN, ggufs.path("wide-F32"), tokenizer, "a <s> b </s><s>")
    assert 0 not in tokenizer.encode("<s>", add_special=False)
    assert len(set(SAMPLE)) > 120


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        (
            {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}]}},
            True,
        ),
        ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True}}, False),
        ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}}, False),
        ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits"}, {"type": "ByteLevel"}]}}, False),
        ({"pre_tokenizer": None}, False),
        ({"normalizer": {"type": "NFC"}}, False),
        ({"model": {"type": "Unigram"}}, False),
    ],
)
def test_only_gpt2s_own_splitting_counts_as_gpt2s(ggufs: "Ggufs", tmp_path: Path, change: dict[str, Any], same: bool) -> None:
    """By structure: BPE, no normaliser, one ByteLevel step with its regex and no space put in front."""
    file = json.loads((ggufs.folders["wide"] / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(file | change))
    assert is_gpt2_pretokenizer(tmp_path) is same


def test_a_model_without_a_tokenizer_is_refused(ggufs: "Ggufs", tmp_path: Path) -> None:
    """The message says what is missing."""
    shutil.copy(ggufs.folders["wide"] / "config.json", tmp_path)
    with pytest.raises(InputError, match="tokenizer does not load"):
        HfTokenizer(tmp_path)


def test_the_converter_sees_no_code_and_no_pickles(tmp_path: Path) -> None:
    """Only weights in safetensors, configuration and tokenizer files are handed on."""
    source = tmp_path / "source"
    source.mkdir()
    names = ("config.json", "model.safetensors", "tokenizer.json", "modeling.py", "pytorch_model.bin", "README.md", "x.gguf")
    for name in names:
        (source / name).write_text("")
    assert sorted(path.name for path in staged(source, tmp_path / "model").iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]


def headers(*layers: int, router: str = "model.layers.{}.block_sparse_moe.experts.{}.w1.weight") -> dict[str, Header]:
    """A model of so many experts in each layer, as a header."""
    names = [router.format(layer, expert) for layer, count in enumerate(layers) for expert in range(count)]
    return {"model.safetensors": Header(place([(name, "F32", (2, 2)) for name in names]), {}, 0)}


def test_layers_with_different_numbers_of_experts_are_refused() -> None:
    """GGUF has one count; the message lists the layers' own."""
    with pytest.raises(InputError, match=r"layer: experts 0: 8, 1: 6, 2: 8.*equally many"):
        check_model({"num_local_experts": 8}, headers(8, 6, 8))


def test_a_count_that_config_json_denies_is_refused() -> None:
    """Tensors were dropped and config.json was not changed, or the other way round."""
    with pytest.raises(InputError, match="says 8 experts, each layer's tensors hold 6"):
        check_model({"num_local_experts": 8}, headers(6, 6))
    check_model({"num_local_experts": 6}, headers(6, 6))
    check_model({}, headers())


def test_olmoe_with_grouped_heads_is_refused_early() -> None:
    """It would convert, and then llama.cpp would not load it."""
    config = {"architectures": ["OlmoeForCausalLM"], "num_attention_heads": 4, "num_key_value_heads": 2}
    with pytest.raises(InputError, match="4 heads and 2 key-value heads"):
        check_model(config, {})
    check_model(config | {"num_key_value_heads": 4}, {})


def test_an_architecture_that_llama_cpp_does_not_know_is_its_own_error(ggufs: "Ggufs", tmp_path: Path) -> None:
    """The converter's words, not a traceback."""
    folder = tmp_path / "m"
    shutil.copytree(ggufs.folders["narrow"], folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["NobodysForCausalLM"]}))
    with pytest.raises(ToolError, match=r"converter failed \(exit code 1\): Model NobodysForCausalLM is not supported\Z"):
        convert(folder, tmp_path)


def test_deepseek_v3_routes_by_sigmoid_in_the_file_too(tmp_path: Path) -> None:
    """The scoring function is not in the config.json of transformers 5; the GGUF must say it, or llama.cpp takes softmax without a word."""
    from tests.stages.test_llama_cyllama import WINDOW, chunks_of, perplexity, reference

    folder = make_model(tmp_path / "m", family="deepseek_v3", layers=2)
    assert "scoring_func" not in json.loads((folder / "config.json").read_text())
    context = convert(folder, tmp_path, "F32")
    made = context.store.path(context.notes["gguf"])
    assert gguf_file.check(made).metadata["deepseek2.expert_gating_func"] == 2
    chunks = chunks_of(folder, 2)
    ours = list(CHAIN.nll(made, chunks, WINDOW, bos=None, threads=1))
    assert perplexity(ours) == pytest.approx(perplexity(reference(folder, chunks)), rel=1e-6)

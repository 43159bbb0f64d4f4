"""GGUF file names: the convention's own cases, and names that are made of what recipes call things."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.errors import InputError
from stages.gguf_file import GgufFile, Tensor, TensorType
from stages.gguf_name import GgufName, name_of, size_label

CASES: dict[str, dict[str, str] | None] = {
    "Mixtral-8x7B-v0.1-KQ2.gguf": {"base": "Mixtral", "size": "8x7B", "version": "v0.1", "encoding": "KQ2"},
    "Grok-100B-v1.0-Q4_0-00003-of-00009.gguf": {
        "base": "Grok", "size": "100B", "version": "v1.0", "encoding": "Q4_0", "shard": "00003-of-00009",
    },
    "Hermes-2-Pro-Llama-3-8B-v1.0-F16.gguf": {"base": "Hermes-2-Pro-Llama-3", "size": "8B", "version": "v1.0", "encoding": "F16"},
    "Phi-3-mini-3.8B-ContextLength4k-instruct-v1.0.gguf": {
        "base": "Phi-3-mini", "size": "3.8B-ContextLength4k", "fine_tune": "instruct", "version": "v1.0",
    },
    "mtp-Qwen3-27B-v1.0-Q4_K_M.gguf": {"sidecar": "mtp", "base": "Qwen3", "size": "27B", "version": "v1.0", "encoding": "Q4_K_M"},
    "mmproj-Qwen2-VL-7B-v1.0-F16.gguf": {"sidecar": "mmproj", "base": "Qwen2-VL", "size": "7B", "version": "v1.0", "encoding": "F16"},
    "not-a-known-arrangement.gguf": None,
}  # fmt: skip
"""The seven test cases of ggml docs/gguf.md."""


@pytest.mark.parametrize("filename", CASES)
def test_the_cases_of_the_convention(filename: str) -> None:
    """Each is taken apart as the page says, and written back as it was."""
    expected = CASES[filename]
    found = GgufName.parse(filename)
    assert found == (None if expected is None else GgufName(**expected))
    assert found is None or str(found) == filename


@pytest.mark.parametrize(
    ("name", "version", "expected"),
    [
        ("mixtral", "1.0.0", "mixtral-8x7B-v1.0-Q4_K_M.gguf"),
        ("mixtral-6e", "1.2.3", "mixtral-8x7B-6e-v1.2.3-Q4_K_M.gguf"),
        ("qwen3.5-4b-code", "2.1.0", "qwen3-5-8x7B-4b-code-v2.1-Q4_K_M.gguf"),
        ("tiny_moe keepExpertsPerLayer=6", "1.0.0", "tiny-moe-keepExpertsPerLayer-6-8x7B-v1.0-Q4_K_M.gguf"),
        ("6e", "1.0.0", "6e-8x7B-v1.0-Q4_K_M.gguf"),
        ("../../x", "1.0.0", "x-8x7B-v1.0-Q4_K_M.gguf"),
    ],
)
def test_names_of_recipes(name: str, version: str, expected: str) -> None:
    """Words that would be read as a size follow it; nothing that is a path stays one."""
    assert str(name_of(name, version, size="8x7B", encoding="Q4_K_M")) == expected


@given(st.text(max_size=40), st.from_regex(r"\d{1,2}\.\d{1,2}\.\d{1,2}", fullmatch=True))
def test_whatever_is_written_is_read_back(name: str, version: str) -> None:
    """A name is either refused or follows the convention: no recipe makes a file that is taken apart wrongly."""
    try:
        made = name_of(name, version, size="6x1.7M", encoding="Q8_0")
    except InputError:
        return
    assert GgufName.parse(str(made)) == made
    assert "/" not in str(made)


def test_a_name_without_a_word_is_refused() -> None:
    """A recipe's name of signs alone names no file."""
    with pytest.raises(InputError, match="no file name"):
        name_of("...", "1.0.0", size="7B", encoding="F16")


F16 = TensorType("F16", 1, 2)


def test_the_size_is_the_file_s_own_or_is_counted() -> None:
    """A size in the metadata is taken when it is one; else experts and parameters are counted."""
    tensors = (
        Tensor("token_embd.weight", (100, 1000), F16, 0, 0),
        Tensor("blk.0.ffn_up_exps.weight", (100, 100, 6), F16, 0, 0),
        Tensor("blk.0.ffn_down_exps.weight", (100, 100, 6), F16, 0, 0),
    )
    metadata = {"general.architecture": "llama", "llama.expert_count": 6}
    assert size_label(GgufFile(3, {**metadata, "general.size_label": "6x1.7M"}, tensors, 32, 0)) == "6x1.7M"
    assert size_label(GgufFile(3, {**metadata, "general.size_label": "../large"}, tensors, 32, 0)) == "6x120K"
    assert size_label(GgufFile(3, {"general.architecture": "llama"}, tensors[:1], 32, 0)) == "100K"

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stages.errors import InputError, ToolError
from stages.llama_cyllama import FILE_TYPES, Cyllama, nll_of_row
from stages.toolchain import Window, bos_of
from tests.tiny import TEXT

if TYPE_CHECKING:
    from tests.stages.conftest import Ggufs

CHAIN = Cyllama()
WINDOW = Window(64)


def chunks_of(folder: Path, count: int = 4) -> list[list[int]]:
    from stages.hf_tokenizer import HfTokenizer

    ids = HfTokenizer(folder).encode("".join(TEXT) * 4, add_special=True)
    return [ids[start : start + 64] for start in range(0, 64 * count, 64)]


def reference(folder: Path, chunks: list[list[int]], *, bos: int | None = None) -> list[list[float]]:
    """The slow plain version: transformers in float32, llama-perplexity's window."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    values = []
    for chunk in chunks:
        ids = torch.tensor([chunk if bos is None else [bos, *chunk[1:]]])
        with torch.no_grad():
            logs = model(ids).logits[0].double().log_softmax(-1)
        values.append([-float(logs[position, chunk[position + 1]]) for position in range(32, 63)])
    return values


def perplexity(values: list[list[float]]) -> float:
    return math.exp(sum(map(sum, values)) / sum(map(len, values)))


@pytest.mark.parametrize("name", ["wide", "pruned"])
def test_an_f32_gguf_has_the_perplexity_of_transformers(ggufs: "Ggufs", name: str) -> None:
    """Within 1e-6 of transformers in float32, for a model of 8 experts and for the same with two of them dropped."""
    chunks = chunks_of(ggufs.folders[name])
    ours = list(CHAIN.nll(ggufs.path(f"{name}-F32"), chunks, WINDOW, bos=None, threads=1))
    assert perplexity(ours) == pytest.approx(perplexity(reference(ggufs.folders[name], chunks)), rel=1e-6)
    assert [len(values) for values in ours] == [WINDOW.scored] * 4


def test_bos_stands_in_place_of_the_first_token(ggufs: "Ggufs") -> None:
    """With a BOS the first id of each chunk is replaced, not shifted, as in llama-perplexity."""
    chunks = chunks_of(ggufs.folders["wide"], 2)
    ours = list(CHAIN.nll(ggufs.path("wide-F32"), chunks, WINDOW, bos=0, threads=1))
    assert perplexity(ours) == pytest.approx(perplexity(reference(ggufs.folders["wide"], chunks, bos=0)), rel=1e-6)


def test_a_long_chunk_is_read_in_pieces(ggufs: "Ggufs", monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks beyond 512 tokens go in several batches and give the very bits of one batch."""
    ids = [number * 37 % 500 for number in range(700)]
    pieces = list(Cyllama().nll(ggufs.path("wide-F32"), [ids], Window(700), bos=None, threads=1))
    monkeypatch.setattr("stages.llama_cyllama._MOST_TOKENS_AT_ONCE", 1024)
    assert list(Cyllama().nll(ggufs.path("wide-F32"), [ids], Window(700), bos=None, threads=1)) == pieces


def test_threads_do_not_change_the_values(ggufs: "Ggufs") -> None:
    """One and two threads give the same bits, from F32 and from K-quants."""
    chunks = chunks_of(ggufs.folders["wide"], 2)
    for name in ("wide-F32", "wide-Q4_K_M"):
        one, two = (list(CHAIN.nll(ggufs.path(name), chunks, WINDOW, bos=None, threads=threads)) for threads in (1, 2))
        assert one == two


def test_the_kv_cache_and_flash_attention_change_the_values_a_little(ggufs: "Ggufs") -> None:
    """F16 cache with flash attention is another measurement, so it is part of the spec; it stays within 1e-3."""
    chunks = chunks_of(ggufs.folders["wide"], 2)
    strict = perplexity(list(CHAIN.nll(ggufs.path("wide-F32"), chunks, WINDOW, bos=None, threads=1)))
    usual = perplexity(list(CHAIN.nll(ggufs.path("wide-F32"), chunks, Window(64, "F16", True), bos=None, threads=1)))
    assert strict != usual
    assert usual == pytest.approx(strict, rel=1e-3)


def test_tokens_of_another_vocabulary_are_refused(ggufs: "Ggufs") -> None:
    """An id that the model does not have is an error, not a crash in llama.cpp."""
    with pytest.raises(InputError, match="has 512 tokens: another tokenizer"):
        list(CHAIN.nll(ggufs.path("wide-F32"), [[600] * 64], WINDOW, bos=None, threads=1))


def test_llama_cpps_own_reason_is_in_the_error(ggufs: "Ggufs", tmp_path: Path) -> None:
    """Its log says why; its exception does not."""
    with pytest.raises(ToolError, match="requantizing from type"):
        CHAIN.quantize(ggufs.path("wide-Q4_K_M"), tmp_path / "x.gguf", "Q8_0", threads=1)
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(ggufs.path("wide-F32").read_bytes()[:-100_000])
    with pytest.raises(ToolError, match="not within the file bounds"):
        CHAIN.tokenize(cut, "a", add_special=True)


def test_every_known_type_quantises(ggufs: "Ggufs", tmp_path: Path) -> None:
    """Every type that the format offers is one that this build makes, under the number that llama.h gives it."""
    from stages import gguf_file
    from stages.formats.gguf import QUANTISED

    assert set(QUANTISED) == set(FILE_TYPES)
    for kind in QUANTISED:
        CHAIN.quantize(ggufs.path("narrow-F16"), tmp_path / kind, kind, threads=1)
        assert gguf_file.check(tmp_path / kind).metadata["general.file_type"] == FILE_TYPES[kind]


def test_identity_names_what_ran() -> None:
    """Version, llama.cpp release, ggml commit and the library's SHA-256 are in it, without floats."""
    found = CHAIN.identity()
    assert found["name"] == "cyllama"
    assert len(found["library"]["sha256"]) == 64
    assert found["llamaCpp"].startswith("b")
    assert found["llamaCpp"] in CHAIN.label()


def test_bos_is_found_by_asking_the_vocabulary(ggufs: "Ggufs") -> None:
    """A tokenizer without a template adds none."""
    assert bos_of(CHAIN, ggufs.path("wide-F32")) is None


class Broken:
    """A context whose getters answer wrongly, as a future release might."""

    def __init__(self, inner: Any, fault: str) -> None:
        self.inner, self.fault, self.calls = inner, fault, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def get_logits_ith(self, position: int) -> list[float]:
        self.calls += 1
        row = list(self.inner.get_logits_ith(0 if self.fault == "same" else position))
        if self.fault == "short":
            return row[:-1]
        if self.fault == "nan":
            return [float("nan")] * len(row)
        return [value + self.calls for value in row] if self.fault == "drift" else row


@pytest.mark.parametrize(
    ("fault", "words"),
    [("short", "a row has 511"), ("nan", "not finite"), ("same", "two positions"), ("drift", "changes with the tokens after")],
)
def test_the_self_test_finds_broken_getters(ggufs: "Ggufs", fault: str, words: str) -> None:
    """Getters that give short, undefined, repeated or unstable rows are found before a number is believed."""
    chain = Cyllama()
    loaded = chain._evaluator(ggufs.path("wide-F32"), WINDOW, 1)
    loaded.context = Broken(loaded.context, fault)
    with pytest.raises(ToolError, match=words):
        list(chain.nll(ggufs.path("wide-F32"), [[1] * 64], WINDOW, bos=None, threads=1))


def test_nll_of_a_row_is_stable() -> None:
    """Large logits do not overflow; the values of a row are the negative logs of probabilities that sum to one."""
    row = [1000.0, 999.0, -1000.0]
    assert nll_of_row(row, 0) == pytest.approx(math.log(1 + math.exp(-1)))
    assert sum(math.exp(-nll_of_row([0.1, 2.0, -3.0], target)) for target in range(3)) == pytest.approx(1)

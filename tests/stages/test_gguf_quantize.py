from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from stages import gguf_file
from stages.context import LeafContext
from stages.errors import InputError
from stages.gguf_quantize import GgufQuantize, run

if TYPE_CHECKING:
    from tests.stages.conftest import Ggufs


def quantize(ggufs: "Ggufs", name: str, kind: str, place: Path) -> LeafContext:
    """Quantise one of the files; the context with notes and warnings."""
    context = LeafContext(ggufs.store, place / "scratch", place / "keep")
    context.scratch.mkdir()
    context.notes["gguf"] = run(GgufQuantize(type=kind), {"gguf-base": ggufs.files[name]}, context).outputs["gguf"]
    return context


def test_the_real_types_are_noted_and_the_rule_of_eight_experts_is_told(ggufs: "Ggufs", tmp_path: Path) -> None:
    """Q4_K_M of a model with 8 experts has Q8_0 and Q5_K attention; one sentence says so."""
    context = quantize(ggufs, "wide-F16", "Q4_K_M", tmp_path)
    assert context.notes["tensor_types"] == {"F32": 4, "Q4_K": 4, "Q5_K": 1, "Q6_K": 2, "Q8_0": 2}
    assert len(context.warnings) == 1
    assert "exactly 8 experts" in context.warnings[0]
    assert "attn_k Q8_0, attn_v Q8_0, attn_output Q5_K" in context.warnings[0]


def test_six_experts_need_no_warning(ggufs: "Ggufs", tmp_path: Path) -> None:
    """The rule does not bite after pruning, and nothing is said; the file loads."""
    from stages.llama_cyllama import Cyllama

    context = quantize(ggufs, "pruned-F32", "Q4_K_M", tmp_path)
    made = ggufs.store.path(context.notes["gguf"])
    assert context.warnings == []
    assert gguf_file.check(made).experts == 6
    assert Cyllama().tokenize(made, "abc", add_special=False)


@pytest.mark.parametrize("kind", ["Q8_0", "Q5_0"])
def test_types_that_the_rows_allow_need_no_warning_of_rows(ggufs: "Ggufs", tmp_path: Path, kind: str) -> None:
    """Blocks of 32 divide rows of 128."""
    assert not [text for text in quantize(ggufs, "narrow-F16", kind, tmp_path).warnings if "rows" in text]


def test_rows_that_256_does_not_divide_are_told(ggufs: "Ggufs", tmp_path: Path) -> None:
    """Hidden 128: every matrix falls back; the sentence counts them and names what they became."""
    context = quantize(ggufs, "narrow-F16", "Q4_K_M", tmp_path)
    (sentence,) = [text for text in context.warnings if "rows" in text]
    assert sentence.startswith("Q4_K_M: ")
    assert "rows of 128" in sentence
    assert "Q5_0" in sentence
    assert "Q4_K" not in context.notes["tensor_types"]


def test_a_quantised_base_is_refused(ggufs: "Ggufs", tmp_path: Path) -> None:
    """Twice quantised is twice wrong, and would be allowed by nobody's name."""
    with pytest.raises(InputError, match=r"already holds .*Q4_K.*start from F16"):
        quantize(ggufs, "wide-Q4_K_M", "Q8_0", tmp_path)


def test_a_truncated_base_is_refused(ggufs: "Ggufs", tmp_path: Path) -> None:
    """It is never given to llama.cpp."""
    digest = ggufs.store.put(ggufs.path("wide-F16").read_bytes()[:-32])
    context = LeafContext(ggufs.store, tmp_path / "scratch", tmp_path / "keep")
    with pytest.raises(InputError, match="unquantised GGUF is not a whole GGUF file"):
        run(GgufQuantize(type="Q8_0"), {"gguf-base": digest}, context)


def test_threads_do_not_change_the_file(ggufs: "Ggufs", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One and two threads write the same bytes."""
    digests = set()
    for threads in ("1", "2"):
        monkeypatch.setenv("LEDGER_THREADS", threads)
        place = tmp_path / threads
        place.mkdir()
        digests.add(quantize(ggufs, "wide-F16", "Q4_K_M", place).notes["gguf"])
    assert digests == {ggufs.files["wide-Q4_K_M"]}

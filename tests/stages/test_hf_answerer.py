import math
from pathlib import Path
from typing import Any

import pytest

from stages.errors import InputError
from stages.hf_answerer import HfAnswerer
from tests.tiny import make_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"), hidden=32, intermediate=32, layers=2, experts=4, max_position_embeddings=96)


@pytest.fixture(scope="module")
def answerer(folder: Path) -> HfAnswerer:
    return HfAnswerer(folder)


@pytest.fixture(scope="module")
def plain(folder: Path) -> tuple[Any, Any]:
    """The same by transformers alone: (model, tokenizer)."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def logprob(plain: tuple[Any, Any], ids: list[int], first: int) -> float:
    """Slow and plain: one forward pass for each token."""
    import torch

    total = 0.0
    for place in range(first, len(ids)):
        with torch.no_grad():
            logits = plain[0](input_ids=torch.tensor([ids[:place]])).logits[0, -1].double()
        total += float(torch.log_softmax(logits, -1)[ids[place]])
    return total


def test_the_loglikelihood_is_the_sum_over_the_continuation_s_tokens(answerer: HfAnswerer, plain: tuple[Any, Any]) -> None:
    """Where the whole is cut as the prompt is, token by token."""
    prompt, continuation = "Question: what is it?\nAnswer:", " the river"
    start, whole = plain[1](prompt)["input_ids"], plain[1](prompt + continuation)["input_ids"]
    assert whole[: len(start)] == start
    expected = logprob(plain, whole, len(start))
    assert answerer.loglikelihood(prompt.encode(), continuation.encode()) == pytest.approx(expected, abs=1e-4)


def test_a_token_across_the_seam_is_accounted_for(answerer: HfAnswerer, plain: tuple[Any, Any]) -> None:
    """Log P(whole) - log P(prompt) from where their cuts differ: appending piece by piece adds up to appending all at once."""
    prompt, continuation = "    ret", "urn left + right"
    start, whole = plain[1](prompt)["input_ids"], plain[1](prompt + continuation)["input_ids"]
    common = next(n for n, (a, b) in enumerate(zip(start, whole, strict=False)) if a != b)
    assert common < len(start)
    expected = logprob(plain, whole, common) - logprob(plain, start, common)
    assert answerer.loglikelihood(prompt.encode(), continuation.encode()) == pytest.approx(expected, abs=1e-4)
    parts = answerer.loglikelihood(prompt.encode(), b"urn") + answerer.loglikelihood(b"    return", b" left + right")
    assert answerer.loglikelihood(prompt.encode(), continuation.encode()) == pytest.approx(parts, abs=1e-4)


def test_an_empty_prompt_is_read_after_bos(answerer: HfAnswerer, plain: tuple[Any, Any]) -> None:
    """As lm-evaluation-harness does it."""
    ids = [0, *plain[1]("The river")["input_ids"]]
    assert answerer.loglikelihood(b"", b"The river") == pytest.approx(logprob(plain, ids, 1), abs=1e-4)


def test_asking_twice_gives_the_same(answerer: HfAnswerer) -> None:
    """To the last bit, whatever was asked in between."""
    first = answerer.loglikelihood(b"def add", b"(left, right)")
    answerer.generate(b"The", 8, [])
    assert answerer.loglikelihood(b"def add", b"(left, right)") == first


def generated(plain: tuple[Any, Any], prompt: str) -> list[int]:
    """20 ids by transformers' own generate."""
    import torch

    ids = plain[1](prompt, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        out = plain[0].generate(ids, max_new_tokens=20, do_sample=False, attention_mask=torch.ones_like(ids), pad_token_id=1)
    found: list[int] = out[0, ids.shape[1] :].tolist()
    return found


def test_generating_is_greedy_as_transformers_generate(answerer: HfAnswerer, plain: tuple[Any, Any]) -> None:
    """The same tokens with the cache as without; cut at the given number of bytes."""
    prompt = "In the morning the"
    text = plain[1].decode(generated(plain, prompt), skip_special_tokens=True).encode()
    made = answerer.generate(prompt.encode(), 12, [])
    assert len(made) <= 12
    assert text.startswith(made.rstrip(b"\xef\xbf\xbd"))


def test_generating_ends_at_a_stop(answerer: HfAnswerer) -> None:
    """Before its first byte, also where it begins inside a token."""
    whole = answerer.generate(b"The river ran", 24, [])
    assert len(whole) > 8
    word = whole[5:8]
    assert answerer.generate(b"The river ran", 24, [word]) == whole[: whole.find(word)]
    assert answerer.generate(b"The river ran", 24, [b"\x00\x00"]) == whole


def test_generating_ends_at_eos_and_at_the_end_of_the_window(folder: Path, answerer: HfAnswerer, plain: tuple[Any, Any]) -> None:
    """EOS ends a text and is no part of it; a full window ends it too."""
    long = "a b c d " * 11
    room = 96 - len(plain[1](long)["input_ids"])
    assert 0 < room < 90
    assert 0 < len(answerer.generate(long.encode(), 4000, [])) <= room * max(map(len, plain[1].get_vocab()))
    first = HfAnswerer(folder)
    made = first.generate(b"The river ran", 40, [])
    first._ends = {generated(plain, "The river ran")[2]}
    assert made.startswith(first.generate(b"The river ran", 40, []))
    assert len(first.generate(b"The river ran", 40, [])) < len(made)


@pytest.mark.parametrize(
    ("prompt", "continuation", "words"),
    [(b"a b c d " * 50, b" x", "tokens, and the model reads 96"), (b"\xff", b"x", "no UTF-8"), (b"x", b"", "nothing to continue with")],
)
def test_what_cannot_be_read_is_refused(answerer: HfAnswerer, prompt: bytes, continuation: bytes, words: str) -> None:
    """With the arithmetic."""
    with pytest.raises(InputError, match=words):
        answerer.loglikelihood(prompt, continuation)


def test_a_model_with_holes_is_refused(folder: Path, tmp_path: Path) -> None:
    """Missing weights are not filled with random numbers."""
    import shutil

    from tests.tiny import change_tensor

    broken = shutil.copytree(folder, tmp_path / "broken")
    change_tensor(broken, "model.norm.weight", lambda _: None)
    with pytest.raises(InputError, match=r"lacks weights .* model\.norm\.weight"):
        HfAnswerer(broken)
    change_tensor(shutil.copytree(folder, tmp_path / "nan"), "model.norm.weight", lambda array: array * math.nan)
    assert math.isnan(HfAnswerer(tmp_path / "nan").loglikelihood(b"a", b"b"))

"""One model read byte by byte: held against every token sequence, computed plainly, without caches, trees or masks of ours."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stages.byte_lm.byte_lm import ByteLm, CoverRule, load
from stages.byte_lm.session import Session
from stages.byte_lm.validity import AllTokenisations
from stages.byte_lm.vocabulary import END, SYMBOLS
from stages.errors import InputError
from tests.byte_tokenizers import KINDS, begins_some_text, rule_of
from tests.tiny import make_model

TEXT = 'def add(left, right):\n    return left + right  # café — it\'s  x\n\n  \t"1234"'.encode()
FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "llama": {"hidden_size": 32, "intermediate_size": 64, "num_key_value_heads": 2},
    "gpt_neox": {"hidden_size": 32, "intermediate_size": 64},
    "mixtral": {"hidden_size": 32, "intermediate_size": 32, "num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "qwen2": {"hidden_size": 32, "intermediate_size": 64, "num_key_value_heads": 2},
}


def small(
    kind: str = "gpt2", family: str = "llama", *, seed: int = 0, spread: float = 3.0, covers: CoverRule = "valid", tolerance: float = 0.0
) -> ByteLm:
    """A random model of a family with a tokenizer of a kind."""
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer, rule = rule_of(kind)
    torch.manual_seed(seed)
    fields: dict[str, Any] = {
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
        "tie_word_embeddings": False,
    }
    fields |= {"vocab_size": len(tokenizer), "bos_token_id": 0, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": None}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **{**fields, **FAMILIES[family]}), dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, spread / parameter.shape[-1] ** 0.5)
    lm = ByteLm(model, tokenizer, name=f"{kind}-{family}", covers="all", tolerance=tolerance)
    if covers == "valid":
        lm.rule = rule  # what it has found out already is as good, and making another takes longer than all the rest
    return lm


class Plain:
    """The same definitions, computed by trying: softmax of a whole forward pass over the tokens that may follow."""

    def __init__(self, lm: ByteLm, *, valid: bool) -> None:
        self.lm, self.valid, self.tokenizer = lm, valid, rule_of(lm.name.rsplit("-", 1)[0])[0]
        self._known: dict[tuple[int, ...], tuple[dict[int, float], float]] = {}

    def after(self, ids: tuple[int, ...]) -> tuple[dict[int, float], float]:
        """Probabilities of the tokens that may follow, and of the end."""
        if ids not in self._known:
            vocabulary = self.lm.vocabulary
            with torch.inference_mode():
                given = torch.tensor([[*vocabulary.start, *ids]])
                logits = self.lm.model.model(input_ids=given, use_cache=False).logits[0, -1].double().numpy()
            texts = vocabulary.texts
            tokens = [n for n, text in enumerate(texts) if text and (not self.valid or self._may(ids, n))]
            ends = list(vocabulary.ends) if not self.valid or self._whole(ids) else []
            powers = np.exp(logits - logits.max())
            whole = powers[[*tokens, *ends]].sum()
            self._known[ids] = {n: float(powers[n] / whole) for n in tokens}, float(powers[ends].sum() / whole)
        return self._known[ids]

    def _may(self, ids: tuple[int, ...], token: int) -> bool:
        # Bytes above ASCII go on in too many ways to try each; they are those of the rule (held against trying in test_byte_validity).
        if all(byte < 0x80 for byte in self.lm.vocabulary.texts[token]):
            return begins_some_text(self.tokenizer, self.lm.vocabulary.texts, [*ids, token], lead=self.lm.vocabulary.lead)
        place = self.lm.rule.root()
        for number in ids:
            place = self.lm.rule.after(place, number)
        return bool(self.lm.rule.allowed(place)[self.lm.vocabulary.place[token]])

    def _whole(self, ids: tuple[int, ...]) -> bool:
        text = b"".join(self.lm.vocabulary.texts[n] for n in ids)[len(self.lm.vocabulary.lead) :].decode()
        encoded: list[int] = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return encoded == list(ids)

    def probability(self, text: bytes, ids: tuple[int, ...] = ()) -> float:
        """P(text): the sum over all covers, each a product over its tokens."""
        if not text:
            return 1.0
        total = 0.0
        for token, chance in self.after(ids)[0].items():
            data = self.lm.vocabulary.texts[token]
            if data.startswith(text):
                total += chance
            elif text.startswith(data):
                total += chance * self.probability(text[len(data) :], (*ids, token))
        return total

    def ending(self, text: bytes, ids: tuple[int, ...] = ()) -> float:
        """P(text, and then its end)."""
        total = self.after(ids)[1] if not text else 0.0
        for token, chance in self.after(ids)[0].items() if text else ():
            data = self.lm.vocabulary.texts[token]
            if text.startswith(data):
                total += chance * self.ending(text[len(data) :], (*ids, token))
        return total


def read(lm: ByteLm, text: bytes) -> Session:
    """A session that has told all rows of a text."""
    session = lm.session()
    session.push(text)
    session.rows(0, len(text) + 1)
    return session


@pytest.mark.parametrize(
    ("kind", "text"),
    [("bytes", b"he"), ("gpt2", b"a  x"), ("gpt2", b"it's"), ("neox", b"a   b"), ("sentencepiece", b"a  x"), ("ignore-merges", b" zq")],
)
def test_covers_sum_to_the_probability_over_valid_tokenisations(kind: str, text: bytes) -> None:
    """P(text) and P(text, end) are those of every valid token sequence, found by trying, computed without cache or tree."""
    lm = small(kind)
    plain, session = Plain(lm, valid=True), read(lm, text)
    lead = lm.vocabulary.lead
    # The lead is certain, unless the text ends before it.
    assert math.exp(session.log_probability(len(text))) == pytest.approx(plain.probability(lead + text), rel=2e-5)
    ended = math.exp(session.log_probability(len(text)) + session.rows(len(text), len(text) + 1)[0, END])
    assert ended == pytest.approx(plain.ending(lead + text), rel=2e-5)


@pytest.mark.parametrize("kind", ["gpt2", "sentencepiece"])
@pytest.mark.parametrize("text", [b"def", b" the", b"a  b"])
def test_covers_sum_to_the_probability_over_all_tokenisations(kind: str, text: bytes) -> None:
    """The other definition: every sequence of tokens that spells the bytes counts. It is what sampling tokens gives."""
    lm = small(kind, covers="all")
    plain, session = Plain(lm, valid=False), read(lm, text)
    lead = lm.vocabulary.lead
    assert math.exp(session.log_probability(len(text))) == pytest.approx(plain.probability(lead + text), rel=2e-5)


def test_a_text_and_its_end_have_the_probability_of_its_tokens() -> None:
    """Valid tokenisations: a whole text has one, so P(text, end) is the product over it, each factor over what may stand there."""
    lm = small()
    plain = Plain(lm, valid=True)
    ids = tuple(plain.tokenizer(TEXT.decode())["input_ids"])
    product = 0.0
    rule, vocabulary = lm.rule, lm.vocabulary
    place = rule.root()
    with torch.inference_mode():
        logits = lm.model.model(input_ids=torch.tensor([[*vocabulary.start, *ids]]), use_cache=False).logits[0].double().numpy()
    for row, token in zip(logits, [*ids, lm.vocabulary.ends[0]], strict=True):
        allowed = vocabulary.order[rule.allowed(place)]
        candidates = [*allowed.tolist(), *(vocabulary.ends if place.open else ())]
        assert token in candidates
        product += row[token] - np.log(np.exp(row[candidates] - row.max()).sum()) - row.max()
        place = rule.after(place, token) if token not in vocabulary.ends else place
    session = read(lm, TEXT)
    assert session.log_probability(len(TEXT)) + session.rows(len(TEXT), len(TEXT) + 1)[0, END] == pytest.approx(product, rel=1e-6)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_rows_sum_to_one_and_chain_to_the_text(family: str) -> None:
    """Every row sums to 1, and log P(s b) is log P(s) plus the row's b: for every byte of a text, in every architecture."""
    lm = small("gpt2", family)
    session = read(lm, TEXT)
    rows = session.rows(0, len(TEXT) + 1)
    assert rows.shape == (len(TEXT) + 1, SYMBOLS)
    np.testing.assert_allclose(np.exp(rows).sum(axis=1), 1, atol=1e-12)
    for place, byte in enumerate(TEXT):
        assert session.log_probability(place + 1) == pytest.approx(session.log_probability(place) + rows[place, byte], abs=1e-9)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_byte_by_byte_is_as_all_at_once(kind: str) -> None:
    """How the bytes come in changes nothing but the last bits of float32; so with waiting nodes, and with what is freed on the way."""
    for tolerance in (0.0, 0.02):
        lm = small(kind, tolerance=tolerance)
        at_once = read(lm, TEXT).rows(0, len(TEXT) + 1)
        session, rows = lm.session(), []
        for byte in TEXT:
            rows.append(session.rows(session.length, session.length + 1)[0])
            session.push(bytes([byte]))
            session.settle(session.length)
        np.testing.assert_allclose(np.exp(rows), np.exp(at_once[:-1]), atol=2e-5)


def test_what_waits_is_less_than_the_tolerance() -> None:
    """A row is off by no more than the tolerance, in total variation, gives no possible byte probability 0, and saves work."""
    exact = small()
    rows = np.exp(read(exact, TEXT).rows(0, len(TEXT) + 1))
    for tolerance in (1e-3, 0.03):
        lm = small(tolerance=tolerance)
        near = np.exp(read(lm, TEXT).rows(0, len(TEXT) + 1))
        assert (np.abs(near - rows).sum(axis=1) / 2).max() <= 2 * tolerance
        assert ((near > 0) >= (rows > 0)).all()


def test_going_back_gives_the_same_bits() -> None:
    """After `back` to a mark everything is computed as it was: a choice is not judged by what was asked before it."""
    lm = small()
    fresh = [small().loglikelihood(b"def add", choice) for choice in (b" left", b"(right)")]
    assert [lm.loglikelihood(b"def add", choice) for choice in (b" left", b"(right)")] == fresh
    assert [lm.loglikelihood(b"def add", choice) for choice in (b" left", b"(right)")] == fresh


def test_a_text_can_be_cut_back_and_go_on() -> None:
    """Other bytes after a cut: as if they had come at once."""
    lm = small()
    session = read(lm, b"def add(left): return")
    session.cut(7)
    session.push(b"_all(x)")
    assert np.allclose(np.exp(session.rows(0, 15)), np.exp(read(lm, b"def add_all(x)").rows(0, 15)), atol=1e-5)


@pytest.mark.parametrize("tolerance", [0.0, 1e-3])
def test_rows_may_begin_late_in_an_unlikely_text(tolerance: float) -> None:
    """A text less likely than the smallest number there is: what comes next is what it is after reading it from its first byte."""
    lm = small("bytes", "llama", tolerance=tolerance)
    text = bytes(32 + (7 * number * number) % 90 for number in range(220))
    whole = read(lm, text)
    assert whole.log_probability(len(text)) < -750
    late = lm.session()
    late.push(text)
    np.testing.assert_allclose(
        late.rows(len(text), len(text) + 1), whole.rows(len(text), len(text) + 1), atol=max(1e-4, 20 * tolerance), rtol=0
    )


def test_a_prompt_may_end_anywhere() -> None:
    """Cutting a prompt in mid-word changes nothing: P(continuation | prompt) is P(both) / P(prompt), wherever the seam is."""
    lm = small()
    text = b"class Stack:\n    def push(self, item):"
    whole = read(lm, text)
    for seam in range(1, len(text)):
        expected = whole.log_probability(len(text)) - whole.log_probability(seam)
        assert lm.loglikelihood(text[:seam], text[seam:]) == pytest.approx(expected, abs=1e-3)


def test_a_model_that_learned_a_text_finishes_its_words(tmp_path: Path) -> None:
    """The prompt boundary problem is absent: a trained model goes on inside a word, where its own tokens would not have been cut."""
    lm = load(_trained(tmp_path))
    words = b"the river ran slowly past the mill and the old wheel turned again"
    for seam in range(8, len(words)):
        assert lm.generate(words[:seam], 6, ()) == words[seam : seam + 6], words[:seam]


def _trained(folder: Path) -> Path:
    """A model of one sentence: a hundred steps."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    make_model(folder, hidden=32, intermediate=32, layers=1, experts=2, top_k=1, vocab=400)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor([[1, *tokenizer("the river ran slowly past the mill and the old wheel turned again")["input_ids"], 1]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder


def test_bytes_that_are_no_text_are_refused() -> None:
    """Only UTF-8 can be encoded; impossible bytes have probability 0, and are refused with their place."""
    lm = small()
    row = read(lm, "é".encode()[:1]).rows(1, 2)[0]
    assert set(np.flatnonzero(row > -np.inf)) <= set(range(0x80, 0xC0))
    with pytest.raises(InputError, match="0x41 cannot follow the 1 bytes before it"):
        lm.loglikelihood(b"\xc3", b"A")
    with pytest.raises(InputError, match="no continuation"):
        lm.loglikelihood(b"a", b"")


def test_a_text_that_is_too_long_is_refused() -> None:
    """Longer than the model reads: an error where a likelihood is asked for, the end where a text is made."""
    lm = small("bytes")
    with pytest.raises(InputError, match="more than 256 tokens"):
        lm.loglikelihood(b"a" * 300, b"b")
    assert len(lm.generate(b"a" * 250, 50, ())) <= 6


@pytest.mark.parametrize("tolerance", [0.0, 0.2])
def test_a_text_that_was_too_long_can_be_cut_back(tolerance: float) -> None:
    """What was asked for in vain does not count as computed: shorter texts give the rows that they give afresh."""
    lm = small(tolerance=tolerance)
    lm.model.length = 24
    text = b"a zq the mill, \x7f\x7f" * 9
    session = lm.session()
    session.push(text)
    with pytest.raises(InputError, match="24 tokens"):
        session.rows(4, len(text))
    for length in (20, 12, 6):
        session.cut(length)
        np.testing.assert_allclose(np.exp(session.rows(4, length + 1)), np.exp(lm.rows(text[:length], 4)), atol=1e-5 + tolerance / 10)


def test_a_model_that_ignores_the_tree_is_refused() -> None:
    """Positions by cache length instead of position ids, as some models do it, would give wrong numbers silently."""
    lm = small()
    model = lm.model.model
    forward: Callable[..., Any] = model.forward

    @functools.wraps(forward)
    def deaf(*arguments: Any, **named: Any) -> Any:
        named.pop("position_ids", None)
        return forward(*arguments, **named)

    model.forward = deaf
    with pytest.raises(InputError, match="does not follow position ids and masks"):
        ByteLm(model, KINDS["gpt2"]())


def test_stops_are_cut_off() -> None:
    """A text ends before the first stop, whenever it becomes complete."""
    lm = small(seed=3)
    free = lm.generate(b"def", 24, ())
    for start, size in itertools.product(range(0, 20, 5), (1, 3)):
        stop = free[start : start + size]
        assert lm.generate(b"def", 24, [stop]) == free[: free.index(stop)]


def test_all_tokenisations_of_a_long_text_are_refused() -> None:
    """They double with every byte or so; the message says what to do."""
    lm = small(covers="all")
    assert isinstance(lm.rule, AllTokenisations)
    with pytest.raises(InputError, match="short texts only"):
        lm.session().push(b"return left + right, and so on and on")

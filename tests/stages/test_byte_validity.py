"""Which token can come next: held against the tokenizer itself, for every kind of tokenizer that is read."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from stages.byte_lm.merges import Merges
from stages.byte_lm.validity import AllTokenisations, ValidTokenisations
from stages.byte_lm.vocabulary import of
from stages.errors import InputError
from stages.hf_tokenizer import SAMPLE
from tests.byte_tokenizers import KINDS, MORE, TEXTS, WHOLE, begins_some_text, byte_level, encode, rule_of, sentencepiece

SEEN = (*TEXTS, WHOLE, SAMPLE)


@pytest.fixture(scope="module", params=sorted(KINDS))
def case(request: pytest.FixtureRequest) -> tuple[Any, ValidTokenisations]:
    """A tokenizer, and the rule made of it."""
    return rule_of(request.param)


def test_tokens_that_encode_a_text_are_allowed_and_end_it(case: tuple[Any, ValidTokenisations]) -> None:
    """Every text's own tokens can come one after another, and the text can end exactly after them."""
    tokenizer, rule = case
    vocabulary = rule.vocabulary
    rng = random.Random(0)
    for text in SEEN:
        for _ in range(4):
            start = rng.randrange(len(text))
            part = text[start : start + rng.randrange(1, 40)]
            place = rule.root()
            for number in encode(tokenizer, part):
                assert rule.allowed(place)[vocabulary.place[number]], (part, vocabulary.texts[number], place)
                place = rule.after(place, number)
            assert place.open, (part, place)


def test_what_may_follow_is_what_begins_some_text(case: tuple[Any, ValidTokenisations]) -> None:
    """A token is allowed if and only if some text's encoding goes on with it, found by trying what may come behind."""
    tokenizer, rule = case
    vocabulary = rule.vocabulary
    rng = random.Random(1)
    for _ in range(25):
        text = rng.choice(SEEN)
        start = rng.randrange(len(text))
        ids = encode(tokenizer, text[start : start + rng.randrange(0, 14)])
        ids = ids[: rng.randrange(len(ids) + 1)]
        place = rule.root()
        for number in ids:
            place = rule.after(place, number)
        allowed = rule.allowed(place)
        blanks = [number for number, data in enumerate(vocabulary.sorted_texts) if data[:1] in b" \n'"]
        chosen = rng.sample(range(len(vocabulary.order)), 12) + rng.sample(blanks, min(len(blanks), 12))
        for number in chosen:
            token = int(vocabulary.order[number])
            found = begins_some_text(tokenizer, vocabulary.texts, [*ids, token], lead=vocabulary.lead)
            if found != allowed[number]:  # a character that was not tried may make it right: try them all
                found = begins_some_text(tokenizer, vocabulary.texts, [*ids, token], lead=vocabulary.lead, samples=70_000)
            assert found == allowed[number], (ids, vocabulary.texts[token], place)


def test_neighbours_are_those_that_bpe_leaves_apart(case: tuple[Any, ValidTokenisations]) -> None:
    """Two tokens can stand side by side in a piece if and only if BPE cuts their text into them: all pairs of a few hundred."""
    _, rule = case
    merges: Merges = rule.merges
    names = rule.vocabulary.names
    rng = random.Random(2)
    usable = [number for number in rule.vocabulary.order.tolist() if merges.reachable[number] and not merges.is_byte(number)]
    chosen = rng.sample(usable, 90)
    for left, right in itertools.product(chosen, chosen):
        assert merges.right_of(left)[right] == (merges.encode(names[left] + names[right]) == [left, right]), (names[left], names[right])


def test_ranks_say_what_trying_says() -> None:
    """The way by ranks and the way by trying agree on every pair."""
    tokenizer = byte_level()
    merges = Merges(of(tokenizer, rows=len(tokenizer)))
    assert merges.ordered
    for left in random.Random(3).sample(merges.vocabulary.order.tolist(), 40):
        assert (merges._by_ranks(left) == merges._by_trying(left)).all()


def test_all_tokenisations_allow_everything() -> None:
    """The other rule has no rule."""
    tokenizer = byte_level()
    rule = AllTokenisations(of(tokenizer, rows=len(tokenizer)))
    assert rule.allowed(rule.after(rule.root(), 7)).all()


def test_tokens_spell_their_text(case: tuple[Any, ValidTokenisations]) -> None:
    """The bytes of a text's tokens are the text, with the lead that SentencePiece puts before it."""
    tokenizer, rule = case
    for text in (MORE, WHOLE, SAMPLE):
        spelled = b"".join(rule.vocabulary.texts[number] for number in encode(tokenizer, text))
        assert spelled == rule.vocabulary.lead + text.encode()


def test_what_cannot_be_read_is_refused() -> None:
    """WordPiece, BPE without bytes, a blank before the text: the message says which."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    def fast(tokenizer: Tokenizer) -> Any:
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")

    with pytest.raises(InputError, match="WordPiece"):
        of(fast(Tokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"))), rows=1)
    with pytest.raises(InputError, match="neither byte-level nor has byte_fallback"):
        of(fast(Tokenizer(models.BPE({"a": 0}, []))), rows=1)
    spaced = Tokenizer(models.BPE({"a": 0}, []))
    spaced.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    with pytest.raises(InputError, match="add_prefix_space"):
        of(fast(spaced), rows=1)
    lower = Tokenizer(models.BPE({"a": 0}, []))
    lower.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    lower.normalizer = normalizers.Lowercase()
    with pytest.raises(InputError, match="Lowercase"):
        of(fast(lower), rows=1)
    lower.normalizer = None
    with pytest.raises(InputError, match="no token for byte"):
        of(fast(lower), rows=1)
    assert of(sentencepiece(), rows=400).lead == b" "

"""Ensembles across tokenizers: going ahead, skipping, taking turns change the cost and not the text; the baselines are what they are."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from stages.byte_lm import in_turn
from stages.byte_lm.byte_lm import ByteLm
from stages.byte_lm.ensemble import Ensemble, Pick, combine, greedy, sampler
from stages.byte_lm.first_token_boost import FirstTokenBoost
from stages.byte_lm.in_turn import InTurnEnsemble
from stages.byte_lm.spoken import about
from stages.byte_lm.token_member import TokenMember
from stages.byte_lm.unite import Unite
from stages.byte_lm.vocabulary import END
from stages.combiners.bayes import Bayes
from stages.combiners.bayes import Rule as BayesRule
from stages.combiners.combiner import State, find
from stages.errors import GuaranteeError, InputError, SpecError
from stages.questions import Answerer
from tests.stages.test_byte_lm import small
from tests.tiny import make_model

PROMPT = b"def add(left, right):\n    return"
NAMES = ("bayes", "fixed-share", "geometric", "alpha-blend", "confidence", "uncertainty-gate")


@pytest.fixture(scope="module")
def members() -> list[ByteLm]:
    """Three architectures, three tokenizers, a SentencePiece among them."""
    made = [small("bytes", "llama", seed=0), small("gpt2", "gpt_neox", seed=1), small("sentencepiece", "mixtral", seed=2)]
    gc.collect()
    gc.freeze()  # in turn, garbage is collected at every load: it need not look through what transformers has loaded by now
    return made


def texts(members: list[ByteLm], name: str, pick: Pick, *, ahead: int = 16) -> bytes:
    """What an ensemble says."""
    return bytes(Ensemble(members, find(name, {}, len(members)), ahead=ahead).run(PROMPT, 30, (), pick).text)


@pytest.mark.parametrize("name", NAMES)
def test_going_ahead_changes_nothing(members: list[ByteLm], name: str) -> None:
    """One member writes ahead and the others verify: the text is that of byte-by-byte combination, greedy and drawn with a seed."""
    for pick in (greedy, sampler(4, 0.8)):
        assert texts(members, name, pick, ahead=16) == texts(members, name, pick, ahead=0)


def test_greedy_combination_is_step_by_step_the_rule(members: list[ByteLm]) -> None:
    """The text is what the rows of all members, computed each alone, give: prompt bytes first, so the weights are warm."""
    run = Ensemble(members, find("fixed-share", {}, 3)).run(PROMPT, 20)
    text = PROMPT + bytes(run.text)
    rows = np.stack([member.rows(text) for member in members], axis=1)
    mixed, shares, state = combine(find("fixed-share", {}, 3), find("fixed-share", {}, 3).start(), rows, text)
    assert [int(row.argmax()) for row in mixed[len(PROMPT) :]] == list(run.text)
    np.testing.assert_allclose(run.shares, shares[len(PROMPT) :], atol=1e-4)
    assert run.state.loss == pytest.approx(state.loss, abs=1e-3)
    assert abs(float(shares[len(PROMPT)].max()) - 1 / 3) > 0.1  # warm


@pytest.mark.parametrize("name", NAMES)
def test_who_spoke_is_found_again_from_the_members_alone(members: list[ByteLm], name: str) -> None:
    """What a record tells of an answer is what the stored distributions of each member give; and by it the answer is found again."""
    ensemble, rule = Ensemble(members, find(name, {}, 3)), find(name, {}, 3)
    made, told = ensemble.generate_about(PROMPT, 20, [b"~~"])
    rows = np.stack([member.rows(PROMPT + made) for member in members], axis=1)
    _, _, state = combine(rule, rule.start(), rows, PROMPT)
    parts: list[NDArray[np.float64]] = []
    mixed, _, _ = combine(rule, state, rows[len(PROMPT) :], made, parts)
    again = about(ensemble.names, parts)
    assert told["symbols"] == len(made) == sum(count for _, count in told["turns"])
    assert (told["turns"], told["most"]) == (again["turns"], again["most"])
    for moment, shares in told["shares"].items():
        assert {who: float(share) for who, share in shares.items()} == pytest.approx(
            {who: float(share) for who, share in again["shares"][moment].items()}, abs=2e-3
        )
    assert [int(row.argmax()) for row in mixed] == list(made)
    value, scored = ensemble.loglikelihood_about(PROMPT, made)
    assert value == ensemble.loglikelihood(PROMPT, made)
    assert (scored["turns"], scored["symbols"]) == (told["turns"], len(made))
    if name == "confidence":  # the turns alone say whose most likely byte each was
        speakers = [who for who, count in told["turns"] for _ in range(count)]
        own = [rows[len(PROMPT) + n, ensemble.names.index(who)] for n, who in enumerate(speakers)]
        assert [int(row.argmax()) for row in own] == list(made)


def test_what_ended_a_text_was_said_too(members: list[ByteLm]) -> None:
    """Bytes of a stop are said before they are cut off, so they count; nothing after them does. Together and in turn."""
    rule = find("bayes", {}, 3)
    free = bytes(Ensemble(members, rule).run(PROMPT, 20).text)
    stop = [free[7:9]]
    end = free.index(stop[0]) + 2
    for ahead in (0, 16):
        made, told = Ensemble(members, rule, ahead=ahead).generate_about(PROMPT, 20, stop)
        assert (len(made), told["symbols"]) == (end - 2, end)
    loaders = [lambda member=member: member for member in members]
    assert len(in_turn.generate(loaders, rule, PROMPT, 20, stop, segment=4).parts) == end


def test_a_seed_gives_the_same_text_again(members: list[ByteLm]) -> None:
    """And another seed another."""
    first = texts(members, "bayes", sampler(1))
    assert texts(members, "bayes", sampler(1)) == first
    assert texts(members, "bayes", sampler(2)) != first
    with pytest.raises(SpecError, match="temperature"):
        sampler(1, 0.0)


def test_samples_follow_the_distribution() -> None:
    """Many draws from one row: frequencies as its probabilities."""
    row = np.full(257, -np.inf)
    row[[65, 66, END]] = np.log([0.5, 0.3, 0.2])
    pick = sampler(7)
    drawn = np.array([pick(row, place) for place in range(3000)])
    for symbol, chance in ((65, 0.5), (66, 0.3), (END, 0.2)):
        assert (drawn == symbol).mean() == pytest.approx(chance, abs=4 * math.sqrt(chance * (1 - chance) / 3000))


def test_one_member_alone_says_what_it_says(members: list[ByteLm]) -> None:
    """M = 1, and alpha 0: the member's text and, in the same reading, its likelihood to the bit."""
    for member in members:
        alone = Ensemble([member], find("bayes", {}, 1))
        led = Ensemble([member, *(other for other in members if other is not member)], find("alpha-blend", {"alpha": 0.0}, 3))
        assert alone.generate(PROMPT, 20, ()) == member.generate(PROMPT, 20, ()) == led.generate(PROMPT, 20, ())
        assert alone.loglikelihood(PROMPT, b" left") == led.loglikelihood(PROMPT, b" left")
        assert alone.loglikelihood(PROMPT, b" left") == pytest.approx(member.loglikelihood(PROMPT, b" left"), abs=1e-4)


def test_likelihoods_do_not_depend_on_what_was_asked_before(members: list[ByteLm]) -> None:
    """To the bit: choices of one question share their prompt, and see nothing of each other."""
    ensemble: Answerer = Ensemble(members, find("fixed-share", {}, 3))
    choices = (b" left", b" right + left", b"\n")
    first = [ensemble.loglikelihood(PROMPT, choice) for choice in choices]
    ensemble.generate(PROMPT, 5, ())
    assert [ensemble.loglikelihood(PROMPT, choice) for choice in reversed(choices)] == first[::-1]
    with pytest.raises(InputError, match="no continuation"):
        ensemble.loglikelihood(PROMPT, b"")


# --- members with the same tokenizer ------------------------------------------------------------------------------------------------


def token_probabilities(lm: ByteLm, ids: list[int]) -> list[NDArray[np.float64]]:
    """After each token, probabilities over all ids, of those that may follow."""
    vocabulary, rule = lm.vocabulary, lm.rule
    with torch.inference_mode():
        logits = lm.model.model(input_ids=torch.tensor([[*vocabulary.start, *ids]]), use_cache=False).logits[0].double().numpy()
    found, place = [], rule.root()
    for row, token in zip(logits, [*ids, None], strict=True):
        chosen = np.zeros(len(row), dtype=np.bool_)
        chosen[vocabulary.order[rule.allowed(place)]] = True
        chosen[list(vocabulary.ends)] = place.open
        powers = np.where(chosen, np.exp(row - row.max()), 0.0)
        found.append(powers / powers.sum())
        if token is not None:
            place = rule.after(place, token)
    return found


def test_bayes_over_bytes_is_bayes_over_tokens() -> None:
    """Members with one tokenizer, any text: the mixture's P(text, end) is that of mixing token distributions, to 1e-6 nats a byte."""
    pair = [small("gpt2", "llama", seed=5), small("gpt2", "gpt_neox", seed=6)]
    text = b"def add(left, right): return it's  x"
    ids: list[int] = pair[0].vocabulary.backend.encode(text.decode(), add_special_tokens=False).ids
    steps = [token_probabilities(member, ids) for member in pair]
    weights, expected = np.array([0.5, 0.5]), 0.0
    for place, token in enumerate([*ids, pair[0].vocabulary.ends[0]]):
        chances = np.array([member[place][token] for member in steps])
        expected += math.log(float(weights @ chances))
        weights = weights * chances / (weights @ chances)
    rows = np.stack([member.rows(text) for member in pair], axis=1)
    rule = find("bayes", {}, 2)
    _, _, state = combine(rule, rule.start(), rows, [*text, END])
    assert -state.loss == pytest.approx(expected, abs=1e-6 * len(text))


@pytest.mark.parametrize("name", ["bayes", "geometric", "alpha-blend", "confidence"])
def test_over_single_bytes_every_combiner_is_exact(name: str) -> None:
    """Where every token is a byte, the rows are the token distributions, so combining is the same for any rule: within 1e-6."""
    pair = [small("bytes", "llama", seed=5), small("bytes", "gpt_neox", seed=6)]
    text = b"def add(left): return"
    spans = [pair[0].vocabulary.span(bytes([byte])) for byte in text]
    ids = [int(span.low) for span in spans if span is not None]
    assert len(ids) == len(text)
    ids = [int(pair[0].vocabulary.order[place]) for place in ids]
    rule = find(name, {}, 2)
    state, rows = rule.start(), np.stack([member.rows(text) for member in pair], axis=1)
    mixed, _, _ = combine(rule, state, rows, text)
    direct = [token_probabilities(member, ids) for member in pair]
    vocabulary = pair[0].vocabulary
    for place, byte in enumerate(text):
        by_token = np.zeros((2, 257))
        for number, member in enumerate(direct):
            for token, chance in enumerate(member[place]):
                symbol = END if token in vocabulary.ends else vocabulary.texts[token][0] if vocabulary.texts[token] else None
                if symbol is not None:
                    by_token[number, symbol] += chance
        with np.errstate(divide="ignore"):
            logs = np.log(by_token)
        found = rule.combine(state, logs, np.ones(2, dtype=np.bool_))
        np.testing.assert_allclose(np.exp(mixed[place]), np.exp(found), atol=1e-6)
        state = rule.observe(state, logs, found, byte)


# --- cost -----------------------------------------------------------------------------------------------------------------------------


def test_members_without_weight_are_skipped_and_catch_up(members: list[ByteLm]) -> None:
    """After the weights settle only one is asked; those skipped catch up in few passes; the price of it is known, and small."""
    rule = find("bayes", {}, 3)
    whole = Ensemble(members, rule).run(PROMPT, 150)
    run = Ensemble(members, rule, skip_below=0.01).run(PROMPT, 150)
    assert run.text == whole.text
    assert abs(run.price) < 0.02
    assert run.state.loss == pytest.approx(whole.state.loss, abs=0.02)
    told = np.array(run.asked) + run.followed
    assert sorted(told)[0] < 100
    assert sorted(told)[-1] == len(run.text) - 1  # the row after the prompt is not of the text
    assert all(skipped > 0 for skipped in sorted(run.skipped)[1:])


def test_a_member_that_is_needed_again_wakes() -> None:
    """A text whose second half only the skipped member knows: after its nap it has the weight, and says so."""
    lm, other = small("bytes", "llama", seed=0), small("bytes", "llama", seed=1)
    rule = find("fixed-share", {"share": 0.001}, 2)
    ensemble = Ensemble([lm, other], rule, skip_below=0.01)
    calls = {"count": 0}

    def forced(row: NDArray[np.float64], place: int) -> int:
        calls["count"] += 1
        return script[place]

    script = list(other.generate(b"", 120, ()))
    if len(script) < 120:
        script += [97] * (120 - len(script))
    prompt = lm.generate(b"", 60, ())
    run = ensemble.run(prompt, 120, (), forced)
    assert bytes(run.text) == bytes(script)
    assert run.shares[0][0] > 0.9
    assert run.shares[-1][1] > 0.5
    assert run.price > 0


@dataclass
class _Watched:
    """Loaders that count how many of their members are alive."""

    make: Callable[[], ByteLm]
    alive: list[weakref.ref[ByteLm]]
    most: list[int]

    def __call__(self) -> ByteLm:
        member = self.make()
        self.alive.append(weakref.ref(member))
        self.most.append(sum(item() is not None for item in self.alive))
        return member


def test_in_turn_is_as_together_with_one_member_in_memory(members: list[ByteLm]) -> None:
    """The same text and loss, by loading one after another: never two at once."""
    kinds = (("bytes", "llama", 0), ("gpt2", "gpt_neox", 1), ("sentencepiece", "mixtral", 2))
    alive: list[weakref.ref[ByteLm]] = []
    most: list[int] = []
    loaders = [_Watched(partial(small, kind, family, seed=seed), alive, most) for kind, family, seed in kinds]
    rule = find("fixed-share", {}, 3)
    for pick in (greedy, sampler(3)):
        expected = Ensemble(members, rule).run(PROMPT, 16, (), pick)
        gc.collect()
        run = in_turn.generate(loaders, rule, PROMPT, 16, segment=8, pick=pick)
        assert run.text == expected.text
        assert run.state.loss == pytest.approx(expected.state.loss, abs=1e-3)
        assert run.loads >= 3 * run.rounds
    assert max(most) == 1


def test_likelihoods_in_turn_are_those_of_together_to_the_bit(members: list[ByteLm], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each member reads the same pieces in both ways; expected together, a question costs one loading of each, else one for itself."""
    alive: list[weakref.ref[ByteLm]] = []
    most: list[int] = []
    kinds = (("bytes", "llama", 0), ("gpt2", "gpt_neox", 1), ("sentencepiece", "mixtral", 2))
    loaders = [_Watched(partial(small, kind, family, seed=seed), alive, most) for kind, family, seed in kinds]
    rule = find("fixed-share", {}, 3)
    monkeypatch.setattr("stages.byte_lm.ensemble.PIECE", 16)
    monkeypatch.setattr("stages.byte_lm.in_turn.PIECE", 16)
    together, alone = Ensemble(members, rule), InTurnEnsemble(loaders, rule, Ensemble(members, rule).names)
    asked = [(PROMPT, [b" left", b" right + left", b"\n"]), (b"x" * 40, [b"y"]), (b"", [b"a"])]
    alone.expect([*asked, (b"\xff", [b"a", b"b"])])
    loaded = len(alive)
    for prompt, continuations in asked:
        for text in continuations:
            assert alone.loglikelihood_about(prompt, text) == together.loglikelihood_about(prompt, text)
    for text in (b"a", b"b"):
        with pytest.raises(InputError, match="UTF-8"):
            alone.loglikelihood(b"\xff", text)
    with pytest.raises(InputError, match="no continuation"):
        alone.loglikelihood(PROMPT, b"")
    assert (loaded, len(alive), max(most)) == (3, 3, 1)
    assert alone.loglikelihood(PROMPT, b" new") == together.loglikelihood(PROMPT, b" new")
    assert len(alive) == 6


def test_a_stop_ends_both_ways_alike(members: list[ByteLm]) -> None:
    """Before the stop's first byte, together and in turn."""
    rule = find("bayes", {}, 3)
    free = bytes(Ensemble(members, rule).run(PROMPT, 20).text)
    stop = [free[7:9]]
    assert Ensemble(members, rule).generate(PROMPT, 20, stop) == free[: free.index(stop[0])]
    loaders = [lambda member=member: member for member in members]
    assert bytes(in_turn.generate(loaders, rule, PROMPT, 20, stop, segment=4).text) == free[: free.index(stop[0])]


def test_a_broken_bound_ends_the_run(members: list[ByteLm]) -> None:
    """The bound is asserted on every run, in generation and in likelihoods."""

    class Liar(BayesRule):
        def bound(self, state: State) -> float | None:
            return state.loss - 1.0

    ensemble = Ensemble(members, Liar(Bayes(), 3))
    with pytest.raises(GuaranteeError, match="fault of the program"):
        ensemble.run(PROMPT, 3)
    with pytest.raises(GuaranteeError, match="fault of the program"):
        ensemble.loglikelihood(PROMPT, b"x")


# --- baselines ------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[TokenMember], list[Path]]:
    """Two models with vocabularies of 300 and 400 tokens."""
    place = tmp_path_factory.mktemp("pair")
    folders = [make_model(place / str(vocab), hidden=32, intermediate=32, layers=1, vocab=vocab, seed=vocab) for vocab in (300, 400)]
    return [TokenMember(folder) for folder in folders], folders


def test_the_boost_is_its_formula(pair: tuple[list[TokenMember], list[Path]]) -> None:
    """Each of the specialist's 20 best tokens, as text, in the target's ids: the first of them gets alpha * p * 10, the last one wins."""
    target, specialist = pair[0]
    boost = FirstTokenBoost(target, [specialist]).boost(PROMPT)
    with torch.inference_mode():
        ids = torch.tensor([specialist.encode(PROMPT)])
        start = torch.tensor([list(specialist.vocabulary.start)])
        chances = specialist.model(input_ids=torch.cat([start, ids], 1)).logits[0, -1].double().softmax(0)
    expected: dict[int, float] = {}
    collisions = 0
    for chance, number in zip(*(item.tolist() for item in chances.topk(20)), strict=True):
        pieces = target.encode(specialist.tokenizer.decode([number]).encode())
        if pieces:
            collisions += pieces[0] in expected
            expected[pieces[0]] = 0.2 * chance * 10
    assert boost == pytest.approx(expected)
    assert max(boost.values()) <= 2.0


def test_without_boost_it_is_the_target(pair: tuple[list[TokenMember], list[Path]]) -> None:
    """Alpha 0: token for token what transformers generates greedily; and with alpha only the first step differs in its distribution."""
    target, specialist = pair[0]
    plain = FirstTokenBoost(target, [specialist], alpha=0.0)
    ids = torch.tensor([[*target.vocabulary.start, *target.encode(PROMPT)]])
    with torch.inference_mode():
        made = target.model.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0)[0, ids.shape[1] :].tolist()
    text = b"".join(target.vocabulary.texts[number] for number in made if number not in target.vocabulary.ends)
    assert plain.generate(PROMPT, len(text), ()) == text


def test_a_boost_can_be_worse_than_the_target() -> None:
    """It only raises logits, and all the same takes the first place from an argmax that was right."""
    logits, boost = np.array([1.0, 0.9]), 0.2 * 0.5 * 10
    assert logits.argmax() == 0
    assert (logits + np.array([0.0, boost])).argmax() == 1


def test_unite_counts_a_string_once(pair: tuple[list[TokenMember], list[Path]]) -> None:
    """The union is of strings: probabilities of one step sum to one, and what both members know is one entry."""
    unite = Unite(pair[0], top_k=10)
    chances = unite.step([member.encode(PROMPT) for member in pair[0]])
    assert math.fsum(chances.values()) == pytest.approx(1)
    assert 10 <= len(chances) <= 20
    alone = [set(Unite([member], top_k=10).step([member.encode(PROMPT)])) for member in pair[0]]
    assert set(chances) == alone[0] | alone[1]


def test_unite_of_one_member_is_its_greedy_text(pair: tuple[list[TokenMember], list[Path]]) -> None:
    """With one member the rule does nothing."""
    member = pair[0][0]
    assert Unite([member]).generate(PROMPT, 12, ()) == FirstTokenBoost(member, []).generate(PROMPT, 12, ())
    assert Unite(pair[0]).loglikelihood(PROMPT, b" left") < 0

"""Combiners: each formula on rows small enough to compute by hand, each proven bound on random and on hostile texts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stages import plugins
from stages.byte_lm.ensemble import combine
from stages.byte_lm.vocabulary import SYMBOLS
from stages.combiners import bayes, fixed_share, geometric
from stages.combiners.combiner import State, check, find, mix
from stages.combiners.uncertainty_gate import uncertainty
from stages.errors import GuaranteeError, InputError, PluginError, SpecError

ALL: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("bayes", {}),
    ("bayes", {"prior": (1, 2, 3)}),
    ("fixed-share", {"share": 0.05}),
    ("fixed-share", {"share": 0.9}),
    ("geometric", {"weights": (0.5, 0.2, 0.3)}),
    ("alpha-blend", {"alpha": 0.3}),
    ("confidence", {"margin": 0.01}),
    ("uncertainty-gate", {"above": 0.9, "below": 0.2}),
)


def rows_of(count: int, members: int, seed: int, sharpness: float = 3.0) -> NDArray[np.float64]:
    """(count, members, 257) random log probabilities; some symbols impossible, the same for all members."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, sharpness, (count, members, SYMBOLS))
    logits[:, :, rng.integers(0, SYMBOLS, 20)] = -np.inf
    top = logits.max(axis=2, keepdims=True)
    found: NDArray[np.float64] = logits - top - np.log(np.exp(logits - top).sum(axis=2, keepdims=True))
    return found


def text_of(rows: NDArray[np.float64], seed: int) -> list[int]:
    """Symbols, each drawn from some member."""
    rng = np.random.default_rng(seed)
    return [int(rng.choice(SYMBOLS, p=np.exp(row[rng.integers(len(row))]))) for row in rows]


@pytest.mark.parametrize(("name", "spec"), ALL)
def test_a_combination_is_a_distribution_and_keeps_its_bound(name: str, spec: Mapping[str, Any]) -> None:
    """Sums to one after every symbol, never gives a symbol that all think possible probability 0, and never loses more than is proven."""
    for seed in range(4):
        rows = rows_of(60, 3, seed)
        rule = find(name, spec, 3)
        symbols = text_of(rows, seed)
        mixed, shares, state = combine(rule, rule.start(), rows, symbols)
        np.testing.assert_allclose(np.exp(mixed).sum(axis=1), 1, atol=1e-12)
        assert (np.isfinite(mixed) == np.isfinite(rows[:, 0])).all()
        assert state.loss == pytest.approx(-sum(row[symbol] for row, symbol in zip(mixed, symbols, strict=True)))
        np.testing.assert_allclose(state.losses, [-sum(rows[n, m, s] for n, s in enumerate(symbols)) for m in range(3)])
        check(rule, state)
        assert shares.shape == (60, 3)


@pytest.mark.parametrize(("name", "spec"), ALL)
def test_parts_are_what_the_combination_is_made_of(name: str, spec: Mapping[str, Any]) -> None:
    """They sum to one, also with a member asleep, and combining the rows by them alone gives the combination again."""
    rows, rule = rows_of(40, 3, 5), find(name, spec, 3)
    state, symbols = rule.start(), text_of(rows, 5)
    for number, symbol in enumerate(symbols):
        awake = np.array([True, True, number % 4 != 3])
        mixed, parts = rule.combine(state, rows[number], awake), rule.parts(state, rows[number], awake)
        assert parts.min() >= 0
        assert parts.sum() == pytest.approx(1)
        assert not (parts[~awake]).any()
        spoken = parts > 0
        if name == "geometric":
            powers = np.exp((rows[number][spoken] * parts[spoken, None]).sum(axis=0))
            again = powers / powers.sum()
        else:
            again = parts @ np.exp(rows[number])
        np.testing.assert_allclose(again, np.exp(mixed), atol=1e-12)
        state = rule.observe(state, rows[number], rule.combine(state, rows[number], np.ones(3, dtype=np.bool_)), symbol)


@pytest.mark.parametrize(("name", "spec"), [item for item in ALL if not {"prior", "weights"} & set(item[1])])
def test_one_member_is_itself_to_the_bit(name: str, spec: Mapping[str, Any]) -> None:
    """M = 1: the member's own rows."""
    rows = rows_of(20, 1, 0)
    rule = find(name, spec, 1)
    mixed, _, _ = combine(rule, rule.start(), rows, text_of(rows, 0))
    assert mixed.tobytes() == np.ascontiguousarray(rows[:, 0]).tobytes()


def test_alpha_zero_is_the_target_to_the_bit() -> None:
    """Whatever the others say."""
    rows = rows_of(20, 3, 1)
    rule = find("alpha-blend", {"alpha": 0.0}, 3)
    mixed, _, state = combine(rule, rule.start(), rows, text_of(rows, 1))
    assert mixed.tobytes() == np.ascontiguousarray(rows[:, 0]).tobytes()
    assert rule.bound(state) == pytest.approx(state.losses[0])


def test_a_shut_gate_is_the_target_to_the_bit() -> None:
    """Exactly, above one threshold of uncertainty and below the other; between them it is the inner combiner to the bit."""
    rows = np.concatenate([rows_of(20, 2, 2, sharpness) for sharpness in (0.1, 2.0, 9.0)])
    rule, inner = find("uncertainty-gate", {"above": 0.9, "below": 0.3}, 2), find("fixed-share", {}, 2)
    symbols = text_of(rows, 2)
    mixed, _, _ = combine(rule, rule.start(), rows, symbols)
    open_mixed, _, _ = combine(inner, inner.start(), rows, symbols)
    kinds = set()
    for number, row in enumerate(rows):
        u = uncertainty(row[0])
        shut = u > 0.9 or u < 0.3
        kinds.add((shut, u > 0.5))
        assert mixed[number].tobytes() == (row[0] if shut else open_mixed[number]).tobytes()
    assert len(kinds) >= 3  # sure, unsure, and between
    assert uncertainty(np.full(SYMBOLS, -math.log(SYMBOLS))) == pytest.approx(1)
    assert uncertainty(np.log(np.eye(SYMBOLS)[7] + 1e-300)) == pytest.approx(0, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 40))
def test_bayes_loses_no_more_than_the_best_and_ln_m(seed: int, members: int, length: int) -> None:
    """On any text, here one that a hostile reader picks: always the symbol that the mixture thinks least likely."""
    rule = bayes.Rule(bayes.Bayes(), members)
    rows = rows_of(length, members, seed)
    state: State = rule.start()
    for row in rows:
        mixed = rule.combine(state, row, np.ones(members, dtype=np.bool_))
        state = rule.observe(state, row, mixed, int(np.where(np.isfinite(mixed), mixed, 0).argmin()))
    assert state.loss <= state.losses.min() + math.log(members) + 1e-9
    check(rule, state)


def test_bayes_weights_are_the_posterior() -> None:
    """After n symbols they are the prior times each member's probability of the text."""
    rows = rows_of(12, 3, 5)
    rule, symbols = bayes.Rule(bayes.Bayes(prior=(2.0, 1.0, 1.0)), 3), text_of(rows, 5)
    _, _, state = combine(rule, rule.start(), rows, symbols)
    whole = np.array([math.log(prior) + sum(rows[n, m, s] for n, s in enumerate(symbols)) for m, prior in enumerate((0.5, 0.25, 0.25))])
    expected = np.exp(whole - whole.max()) / np.exp(whole - whole.max()).sum()
    np.testing.assert_allclose(rule.shares(state), expected, rtol=1e-9)


def test_fixed_share_is_the_mixture_over_all_ways_to_switch() -> None:
    """Brute force over every sequence of members of a short text: its loss, and the best sequence's price, which is the bound."""
    share, members, length = 0.1, 3, 6
    rows = rows_of(length, members, 6)
    rule, symbols = fixed_share.Rule(fixed_share.FixedShare(share=share), members), text_of(rows, 6)
    _, _, state = combine(rule, rule.start(), rows, symbols)
    total, best = 0.0, math.inf
    for way in itertools.product(range(members), repeat=length):
        switches = sum(a != b for a, b in itertools.pairwise(way))
        weight = (share / (members - 1)) ** switches * (1 - share) ** (length - 1 - switches) / members
        chance = math.exp(sum(rows[n, m, s] for n, (m, s) in enumerate(zip(way, symbols, strict=True))))
        total += weight * chance
        best = min(best, -math.log(weight * chance))
    assert state.loss == pytest.approx(-math.log(total))
    assert rule.bound(state) == pytest.approx(best)


def test_fixed_share_follows_a_switch_that_bayes_cannot() -> None:
    """Two members, each right in one half of a text: a mixture that cannot switch is as bad as they are, fixed share is not."""
    good, bad = np.full(SYMBOLS, math.log(0.1 / 256)), np.full(SYMBOLS, math.log(1 / SYMBOLS))
    good[65] = math.log(0.9)
    rows = np.array([[good, bad]] * 100 + [[bad, good]] * 100)
    losses = {}
    for name in ("bayes", "fixed-share"):
        rule = find(name, {}, 2)
        _, _, state = combine(rule, rule.start(), rows, [65] * 200)
        losses[name] = state.loss
    assert losses["bayes"] > 100 * math.log(SYMBOLS)
    assert losses["fixed-share"] < 40


def test_geometric_is_the_normalised_product() -> None:
    """And its loss is the mean of losses less what no label is needed for: the sum of -log Z."""
    rows = rows_of(15, 3, 7)
    weights = (0.5, 0.2, 0.3)
    rule, symbols = geometric.Rule(geometric.Geometric(weights=weights), 3), text_of(rows, 7)
    mixed, _, state = combine(rule, rule.start(), rows, symbols)
    powers = np.exp(rows)[:, 0] ** 0.5 * np.exp(rows)[:, 1] ** 0.2 * np.exp(rows)[:, 2] ** 0.3
    np.testing.assert_allclose(np.exp(mixed), powers / powers.sum(axis=1, keepdims=True), atol=1e-12)
    bound = rule.bound(state)
    assert bound is not None
    assert state.loss == pytest.approx(bound + np.log(powers.sum(axis=1)).sum())


def test_fitted_weights_are_the_best_there_are() -> None:
    """No weights of a fine grid are better, and those of a member that is never right go to zero."""
    rows = rows_of(80, 3, 8, 1.0)
    rng = np.random.default_rng(8)
    symbols = [int(rng.choice(SYMBOLS, p=np.exp(row[0] * 0.6 + row[1] * 0.4) / np.exp(row[0] * 0.6 + row[1] * 0.4).sum())) for row in rows]
    weights = geometric.fit([(rows[:50], symbols[:50]), (rows[50:], symbols[50:])])
    assert math.fsum(weights) == pytest.approx(1, abs=1e-12)

    def loss(chosen: tuple[float, ...]) -> float:
        rule = geometric.Rule(geometric.Geometric(weights=chosen), 3)
        return combine(rule, rule.start(), rows, symbols)[2].loss

    fitted = loss(weights)
    for first, second in itertools.product(range(21), range(21)):
        if first + second <= 20:
            assert fitted <= loss((first / 20, second / 20, (20 - first - second) / 20)) + 1e-4
    with pytest.raises(InputError, match="no texts to fit"):
        geometric.fit([])


def test_confidence_takes_the_surest_beyond_the_margin() -> None:
    """The target where it is surest, or nearly."""
    rule = find("confidence", {"margin": 0.1}, 2)

    def row(top: float) -> NDArray[np.float64]:
        found = np.full(SYMBOLS, (1 - top) / (SYMBOLS - 1))
        found[3] = top
        logs: NDArray[np.float64] = np.log(found)
        return logs

    awake = np.ones(2, dtype=np.bool_)
    for target, other, speaks in ((0.5, 0.55, 0), (0.5, 0.7, 1), (0.7, 0.5, 0)):
        rows = np.array([row(target), row(other)])
        assert rule.combine(rule.start(), rows, awake).tobytes() == rows[speaks].tobytes()


@pytest.mark.parametrize(("name", "spec"), ALL)
def test_members_asleep_are_not_read(name: str, spec: Mapping[str, Any]) -> None:
    """A row of nonsense of a member that is asleep changes nothing, and its weight stays what it was among the others."""
    rule = find(name, spec, 3)
    rows = rows_of(1, 3, 9)[0]
    awake = np.array([True, True, False])
    state = rule.start()
    mixed = rule.combine(state, rows, awake)
    broken = rows.copy()
    broken[2] = np.nan
    assert rule.combine(state, broken, awake).tobytes() == mixed.tobytes()
    np.testing.assert_allclose(np.exp(mixed).sum(), 1, atol=1e-12)
    filled = rows.copy()
    filled[2] = mixed
    if name == "bayes":
        after = rule.observe(state, filled, mixed, 5)
        assert np.exp(after.log_weights[2]) == pytest.approx(np.exp(state.log_weights[2]))


def test_a_mean_of_nothing_possible_is_nothing_possible() -> None:
    """Symbols that nobody thinks possible stay impossible, without a warning about logarithms of zero."""
    rows = np.array([[0.0, -np.inf, -np.inf], [-np.inf, 0.0, -np.inf]])
    assert mix(np.log([0.5, 0.5]), rows, np.array([True, True])).tolist() == [math.log(0.5), math.log(0.5), -np.inf]


def test_a_broken_bound_is_an_error_of_its_own() -> None:
    """A state that lost more than is proven: only a fault of the program can do that, and the message says so."""
    rule = find("bayes", {}, 2)
    start = rule.start()
    with pytest.raises(GuaranteeError, match=r"cost 5 nats, and can cost 0\.693147180\d* at most"):
        check(rule, State(start.log_weights, start.losses, loss=5.0, symbols=1))


def test_settings_that_cannot_work_are_refused() -> None:
    """Before any model is loaded, with the numbers."""
    for name, spec, message in (
        ("bayes", {"prior": (1.0, 0.0)}, "must be more than 0"),
        ("bayes", {"prior": (1.0,)}, "1 weights for 2 members"),
        ("fixed-share", {"share": 1.0}, "below 1"),
        ("geometric", {"weights": (0.5, 0.6)}, r"sum to 1\.1"),
        ("alpha-blend", {"alpha": 2.0}, "between 0 and 1"),
        ("alpha-blend", {"alfa": 0.2}, "alfa"),
        ("confidence", {"margin": -1.0}, "between 0 and 1"),
        ("uncertainty-gate", {"below": 0.5, "above": 0.2}, r"open from 0\.5 to 0\.2"),
    ):
        with pytest.raises(SpecError, match=message):
            find(name, spec, 2)
    with pytest.raises(PluginError, match="fixed-share"):
        find("fixed-shar", {}, 2)
    assert "bayes" in plugins.names("combiners")


def test_a_stranger_s_combiner_combines() -> None:
    """A package's rule is found by name, and held against the bound that it states."""
    rows = rows_of(10, 3, 11)
    rule, symbols = find("acme-last", {}, 3), text_of(rows, 11)
    mixed, _, state = combine(rule, rule.start(), rows, symbols)
    assert mixed.tobytes() == np.ascontiguousarray(rows[:, 2]).tobytes()
    check(rule, state)

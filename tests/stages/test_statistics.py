import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import special, stats

from stages.statistics import (
    EProcess,
    Side,
    clustered_mean,
    discordant,
    e_process,
    holm,
    mcnemar,
    mcnemar_power,
    odds,
    paired_difference,
    proportion,
    questions_needed,
    wilson,
)

COUNTS = st.integers(0, 60)


# --- one score ---------------------------------------------------------------------------------------------------------------------


@given(COUNTS, COUNTS, st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_is_scipys(wins: int, losses: int, level: float) -> None:
    """For every count and level."""
    if wins + losses == 0:
        return
    theirs = stats.binomtest(wins, wins + losses).proportion_ci(level, method="wilson")
    ours = wilson(wins, wins + losses, level)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@pytest.mark.parametrize(("wins", "n", "low", "high"), [(20, 30, 0.488, 0.808), (23, 30, 0.591, 0.882), (151, 164, 0.869, 0.953)])
def test_wilson_of_published_scores(wins: int, n: int, low: float, high: float) -> None:
    """20 and 23 of 30 overlap by far."""
    assert (wilson(wins, n).low, wilson(wins, n).high) == pytest.approx((low, high), abs=5e-4)


def coverage(p: float, n: int) -> float:
    """Exact: the probability of the counts whose interval holds p."""
    return float(sum(stats.binom.pmf(k, n, p) for k in range(n + 1) if wilson(k, n).low <= p <= wilson(k, n).high))


def test_wilson_covers() -> None:
    """95 % on average over p, and near it everywhere but at the very edge; the Wald interval of 5 of 5 has no width at all."""
    found = [coverage(p, 30) for p in np.linspace(0.05, 0.95, 37)]
    assert np.mean(found) == pytest.approx(0.95, abs=0.01)
    assert min(found) > 0.92


@pytest.mark.parametrize(("wins", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_impossible_proportions_are_refused(wins: int, n: int) -> None:
    """With the numbers."""
    with pytest.raises(ValueError, match="no proportion"):
        wilson(wins, n)


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=30))
def test_without_clusters_the_error_is_the_usual_one(values: list[float]) -> None:
    """Sample standard deviation / sqrt(n), and Student's interval of scipy."""
    found = clustered_mean(values)
    sem = float(stats.sem(values)) if len(set(values)) > 1 else 0.0
    assert found.stderr == pytest.approx(sem, abs=1e-9)
    if sem > 1e-6:
        low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=sem)
        assert (found.low, found.high) == pytest.approx((low, high), rel=1e-6, abs=1e-9)


@given(st.lists(st.tuples(st.floats(-10, 10), st.integers(0, 4)), min_size=3, max_size=40))
def test_the_clustered_error_is_the_sandwich_of_a_regression_on_a_constant(pairs: list[tuple[float, int]]) -> None:
    """(X'X)^-1 (sum_c X_c' e_c e_c' X_c) (X'X)^-1 with the factor C / (C - 1), computed with matrices."""
    values, labels = np.array([a for a, _ in pairs]), [b for _, b in pairs]
    found = clustered_mean(values.tolist(), labels)
    groups = sorted(set(labels))
    if len(groups) < 2:
        assert (found.stderr, found.low, found.clusters) == (None, None, 1)
        return
    x = np.ones((len(values), 1))
    bread = np.linalg.inv(x.T @ x)
    errors = values[:, None] - values.mean()
    scores = [x[[i for i, label in enumerate(labels) if label == group]].T @ errors[[i for i, g in enumerate(labels) if g == group]]
              for group in groups]  # fmt: skip
    sandwich = bread @ sum(score @ score.T for score in scores) @ bread * len(groups) / (len(groups) - 1)
    assert found.stderr == pytest.approx(math.sqrt(max(0.0, float(sandwich[0, 0]))), abs=1e-9)


def clustered_coverage(clusters: int, *, robust: bool, seed: int, runs: int = 2000) -> float:
    """How often the interval holds the true mean, 0, of values that share half their variance within clusters of 8."""
    dice = np.random.default_rng(seed)
    labels = np.repeat(np.arange(clusters), 8).tolist()
    held = 0
    for _ in range(runs):
        values = (np.repeat(dice.normal(size=clusters), 8) + dice.normal(size=8 * clusters)).tolist()
        found = clustered_mean(values, labels if robust else None)
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 0 <= found.high
    return held / runs


@pytest.mark.parametrize("clusters", [5, 10, 40])
def test_the_clustered_interval_covers_with_few_clusters(clusters: int) -> None:
    """95 % of 2000 simulated data sets, within 3 standard errors, because t has clusters - 1 degrees of freedom."""
    assert clustered_coverage(clusters, robust=True, seed=clusters) == pytest.approx(0.95, abs=0.015)


def test_the_usual_interval_does_not_cover_clustered_values() -> None:
    """It takes eight questions on one passage for eight passages: far below 95 %."""
    assert clustered_coverage(10, robust=False, seed=1) < 0.70


@given(st.lists(st.booleans(), min_size=1, max_size=20), st.integers(2, 5))
def test_answering_every_question_five_times_teaches_nothing(outcomes: list[bool], copies: int) -> None:
    """Copies in one cluster give the interval of the single questions again: where all are right, and where the errors are binomial."""
    once, bounds = proportion(outcomes)
    many, interval = proportion(
        [item for item in outcomes for _ in range(copies)], [i for i in range(len(outcomes)) for _ in range(copies)]
    )
    assert many.mean == pytest.approx(once.mean)
    if len(outcomes) > 1:
        assert many.stderr == pytest.approx(once.stderr, abs=1e-12)
    assert interval.high - interval.low == pytest.approx(bounds.high - bounds.low, rel=0.3 if len(outcomes) < 5 else 0.12)


def test_means_of_nothing_are_refused() -> None:
    """No values, or clusters for other values."""
    with pytest.raises(ValueError, match="no values"):
        clustered_mean([])
    with pytest.raises(ValueError, match="2 values in 1 places"):
        clustered_mean([1.0, 2.0], ["a"])


# --- two systems -------------------------------------------------------------------------------------------------------------------


def test_the_pairing_removes_what_both_find_hard() -> None:
    """Same difficulty, one a little better: the paired error is a fraction of the unpaired one."""
    dice = np.random.default_rng(0)
    hard = dice.normal(size=300) * 3
    a, b = (hard + 0.2 + dice.normal(size=300) * 0.1).tolist(), hard.tolist()
    found = paired_difference(a, b)
    assert found.resolved
    assert found.mean == pytest.approx(0.2, abs=0.02)
    assert found.stderr is not None
    one, two = clustered_mean(a).stderr, clustered_mean(b).stderr
    assert one is not None
    assert two is not None
    assert found.stderr < math.hypot(one, two) / 20
    with pytest.raises(ValueError, match="300 values cannot be paired with 299"):
        paired_difference(a, b[1:])


@given(COUNTS, COUNTS)
def test_mcnemar_is_the_binomial_test_of_scipy(wins: int, losses: int) -> None:
    """Two-sided and exact; symmetric; mid-p by its definition: less extreme tables not, equally extreme ones half."""
    found = mcnemar(wins, losses)
    n = wins + losses
    assert found.p == pytest.approx(1.0 if n == 0 else stats.binomtest(wins, n).pvalue, rel=1e-12)
    assert mcnemar(losses, wins).p == found.p
    away = abs(wins - losses)
    exact = [math.comb(n, k) * (Fraction(1) if abs(2 * k - n) > away else Fraction(1, 2)) for k in range(n + 1) if abs(2 * k - n) >= away]
    assert found.mid_p == pytest.approx(1.0 if n == 0 else float(sum(exact) / 2**n), rel=1e-12)


def test_three_wins_of_thirty_prove_nothing() -> None:
    """20/30 to 23/30: at best p = .25; the posterior still says 94 %, and the odds may be below one."""
    assert [mcnemar(3, 0).p, mcnemar(4, 1).p, round(mcnemar(5, 2).p, 3)] == [0.25, 0.375, 0.453]
    assert mcnemar(3, 0).verdict() == "not distinguishable"
    assert [round(odds(*counts).better, 2) for counts in ((3, 0), (4, 1), (5, 2))] == [0.94, 0.89, 0.86]
    assert odds(3, 0).low < 1
    assert (mcnemar(20, 4).verdict(), mcnemar(4, 20).verdict()) == ("better", "worse")


def test_mcnemar_of_thousands() -> None:
    """Integers do not overflow."""
    assert mcnemar(5000, 4700).p == pytest.approx(stats.binomtest(5000, 9700).pvalue, rel=1e-9)


def test_mcnemar_keeps_its_level() -> None:
    """With equal systems, exact p <= .05 in at most 5 % of 20000 evaluations of 60 questions; mid-p is nearer to it."""
    dice = np.random.default_rng(3)
    pairs = dice.binomial(60, 0.3, 20_000)
    wins = dice.binomial(pairs, 0.5)
    found = [mcnemar(int(w), int(n - w)) for w, n in zip(wins, pairs, strict=True)]
    exact, mid = (np.mean([getattr(item, name) <= 0.05 for item in found]) for name in ("p", "mid_p"))
    assert exact <= 0.05
    assert exact < mid < 0.055


@given(st.integers(0, 40), st.integers(0, 40), st.sampled_from([0.9, 0.95]))
@settings(deadline=None)
def test_odds_are_clopper_pearsons(wins: int, losses: int, level: float) -> None:
    """Scipy's exact interval of the share of wins, as odds; it excludes one exactly where McNemar rejects."""
    found = odds(wins, losses, level)
    if wins + losses == 0:
        assert math.isnan(found.odds)
        assert (found.low, found.high, found.better) == (0, math.inf, 0.5)
        return
    theirs = stats.binomtest(wins, wins + losses).proportion_ci(level, method="exact")
    assert found.low == pytest.approx(theirs.low / (1 - theirs.low), rel=1e-6)
    assert found.high == (math.inf if losses == 0 else pytest.approx(theirs.high / (1 - theirs.high), rel=1e-6))
    assert found.better == pytest.approx(stats.beta.sf(0.5, wins + 1, losses + 1), rel=1e-9)
    assert (found.low > 1 or found.high < 1) == (mcnemar(wins, losses).p < 1 - level)


def test_discordant_pairs_are_counted() -> None:
    """Wins are the candidate's."""
    assert discordant([True, True, False, False, True], [True, False, True, False, False]) == (2, 1)


def test_negative_counts_are_refused() -> None:
    """By both."""
    for function in (mcnemar, odds):
        with pytest.raises(ValueError, match="no counts"):
            function(-1, 2)


# --- looking before the end ----------------------------------------------------------------------------------------------------------


@given(st.integers(0, 30), st.integers(0, 30), st.sampled_from([0.5, 1.0, 2.0]))
@settings(deadline=None, max_examples=30)
def test_the_wealth_is_the_likelihood_ratio_of_the_mixture(wins: int, losses: int, a: float) -> None:
    """Against numerical integration over the share of wins, whole and each half of it."""
    grid = (np.arange(20_000) + 0.5) / 20_000
    prior = stats.beta.pdf(grid, a, a)
    ratio = np.exp((wins + losses) * math.log(2) + special.xlogy(wins, grid) + special.xlog1py(losses, -grid))
    tolerance = 0.02 if a < 1 else 1e-3  # the density has poles
    halves: dict[Side, NDArray[np.bool_]] = {"two-sided": grid >= 0, "better": grid > 0.5, "worse": grid < 0.5}
    for side, part in halves.items():
        expected = float((ratio * prior)[part].sum() / prior[part].sum())
        assert math.exp(EProcess(side=side, a=a, wins=wins, losses=losses).log_e) == pytest.approx(expected, rel=tolerance)


@given(st.integers(0, 20), st.integers(0, 20))
def test_the_wealth_is_a_fair_game(wins: int, losses: int) -> None:
    """With equal systems the expected wealth after one more discordant pair is the wealth; one-sided it is at most that."""
    two = EProcess(wins=wins, losses=losses)
    after = [two.after(True, False), two.after(False, True)]
    assert sum(math.exp(item.log_e) for item in after) / 2 == pytest.approx(math.exp(two.log_e), rel=1e-9)
    one = EProcess(side="worse", wins=wins, losses=losses)
    for share in (0.5, 0.6, 0.9):  # the candidate is not worse
        expected = share * math.exp(one.after(True, False).log_e) + (1 - share) * math.exp(one.after(False, True).log_e)
        assert expected <= math.exp(one.log_e) * (1 + 1e-9)


def stopped(side: Side, difference: float, *, seed: int, runs: int = 2000, n: int = 200, discordance: float = 0.2) -> tuple[float, float]:
    """(share of simulated comparisons that are stopped at alpha .1 when one looks after each of n questions, mean questions until then)."""
    dice = np.random.default_rng(seed)
    at = []
    for _ in range(runs):
        state = EProcess(side=side)
        for number, (differ, win) in enumerate(zip(dice.random(n) < discordance, dice.random(n), strict=True), start=1):
            if differ:
                better = bool(win < (1 + difference / discordance) / 2)
                state = state.after(better, not better)
                if state.stops(0.1):
                    at.append(number)
                    break
    return len(at) / runs, sum(at) / max(1, len(at))


@pytest.mark.parametrize("side", ["two-sided", "worse"])
def test_looking_after_every_question_keeps_the_level(side: Side) -> None:
    """Equal systems, 200 questions of which a fifth is discordant, alpha .1: some 5 % are stopped, and never more than 10 %."""
    share, _ = stopped(side, 0.0, seed=5)
    assert 0.02 < share < 0.075


def test_looking_at_mcnemar_after_every_question_does_not() -> None:
    """The same peeking with p <= .1 of the exact test stops equal systems far more often than one in ten."""
    dice = np.random.default_rng(5)
    rejected = 0
    for _ in range(1000):
        wins = losses = 0
        for win in dice.random(dice.binomial(200, 0.2)) < 0.5:
            wins, losses = wins + bool(win), losses + (not win)
            if mcnemar(wins, losses).p <= 0.1:
                rejected += 1
                break
    assert rejected / 1000 > 0.2


def test_a_worse_system_is_caught_early() -> None:
    """20 points worse: always, in about 30 of 200 questions; 10 points worse: in 87 % of the runs."""
    share, mean = stopped("worse", -0.2, seed=6, runs=500)
    assert share == 1.0
    assert mean < 40
    share, mean = stopped("worse", -0.1, seed=7, runs=1000)
    assert share == pytest.approx(0.87, abs=0.035)
    assert mean < 100


def test_every_look_is_counted() -> None:
    """Pairs that agree change no evidence, and are looks all the same; the p-value never rises again."""
    states = e_process([True, True, False, False, True, True], [True, False, False, True, False, False])
    assert [state.looks for state in states] == [1, 2, 3, 4, 5, 6]
    assert [(state.wins, state.losses) for state in states] == [(0, 0), (1, 0), (1, 0), (1, 1), (2, 1), (3, 1)]
    assert all(later.p <= earlier.p for earlier, later in pairwise(states))
    assert states[0].p == 1.0
    assert not states[-1].stops()
    with pytest.raises(ValueError, match="positive"):
        EProcess(a=0)


# --- several tests -------------------------------------------------------------------------------------------------------------------


def by_definition(p_values: Sequence[float], alpha: float) -> list[bool]:
    """Holm's procedure as it is told: reject from the smallest on, while p <= alpha / (number left)."""
    rejected = [False] * len(p_values)
    for left, number in zip(range(len(p_values), 0, -1), sorted(range(len(p_values)), key=lambda i: p_values[i]), strict=True):
        if p_values[number] > alpha / left:
            break
        rejected[number] = True
    return rejected


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.sampled_from([0.01, 0.05, 0.1]))
def test_holm_rejects_as_the_procedure_does(p_values: list[float], alpha: float) -> None:
    """Adjusted p-values are never below the raw ones, keep their order, and keep the names' order."""
    named = {f"test {number}": p for number, p in enumerate(p_values)}
    adjusted = holm(named)
    assert list(adjusted) == list(named)
    assert all(adjusted[name] >= p for name, p in named.items())
    mine = [adjusted[name] <= alpha for name in named]
    edge = any(abs(adjusted[name] - alpha) < 1e-12 for name in named)
    assert edge or mine == by_definition(p_values, alpha)


def test_holm_by_hand() -> None:
    """Three benchmarks: .01 * 3, .02 * 2, and .03 raised to the one before it."""
    assert holm({"a": 0.02, "b": 0.01, "c": 0.03}) == pytest.approx({"a": 0.04, "b": 0.03, "c": 0.04})
    assert holm({}) == {}
    with pytest.raises(ValueError, match=r"p-value of x is 1\.5"):
        holm({"x": 1.5})


# --- before running --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "discordance", "difference"), [(12, 0.5, 0.2), (25, 0.3, -0.25), (9, 1.0, 0.4), (5, 0.2, 0.1)])
def test_power_is_the_sum_over_all_tables(n: int, discordance: float, difference: float) -> None:
    """Against the plain double sum."""
    win, lose = (discordance + difference) / 2, (discordance - difference) / 2
    expected = 0.0
    for wins, losses in product(range(n + 1), repeat=2):
        if wins + losses <= n and mcnemar(wins, losses).p <= 0.05:
            ways = math.comb(n, wins) * math.comb(n - wins, losses)
            expected += ways * win**wins * lose**losses * (1 - discordance) ** (n - wins - losses)
    assert mcnemar_power(n, discordance=discordance, difference=difference) == pytest.approx(expected, abs=1e-10)


def test_power_of_a_simulation() -> None:
    """200 questions, 20 % discordant, 10 points: 87 %."""
    dice = np.random.default_rng(9)
    pairs = dice.binomial(200, 0.2, 20_000)
    wins = dice.binomial(pairs, 0.75)
    rejected = np.mean([mcnemar(int(w), int(n - w)).p <= 0.05 for w, n in zip(wins, pairs, strict=True)])
    assert mcnemar_power(200, discordance=0.2, difference=0.1) == pytest.approx(float(rejected), abs=0.01)


@pytest.mark.parametrize(
    ("difference", "discordance", "rule"),
    [(0.1, 0.1, 100), (0.1, 0.2, 200), (0.1, 0.3, 300), (0.05, 0.1, 400), (0.05, 0.2, 800), (0.03, 0.1, 1200)],
)
def test_questions_needed_for_80_percent(difference: float, discordance: float, rule: int) -> None:
    """The usual rule in hundreds is enough, and not twice too much; one question fewer is not always enough."""
    needed = questions_needed(difference=difference, discordance=discordance)
    assert rule / 2 < needed <= rule
    assert all(mcnemar_power(n, difference=difference, discordance=discordance) >= 0.8 for n in range(needed, needed + 20))
    assert mcnemar_power(needed - 1, difference=difference, discordance=discordance) < 0.8


def test_two_points_need_two_thousand() -> None:
    """At 10 % discordance 2000 questions have 79 % power: the rule is about right."""
    assert mcnemar_power(2000, difference=0.02, discordance=0.1) == pytest.approx(0.791, abs=1e-3)


def test_impossible_designs_are_refused() -> None:
    """A difference needs as many discordant pairs; none needs no number; a thousandth needs more than anybody has."""
    with pytest.raises(ValueError, match=r"\|difference\| <= discordance"):
        mcnemar_power(100, discordance=0.1, difference=0.2)
    with pytest.raises(ValueError, match="no number of questions"):
        questions_needed(discordance=0.1, difference=0)
    with pytest.raises(ValueError, match="more than 1,000 questions"):
        questions_needed(discordance=0.3, difference=0.01, most=1000)

import itertools
import math
import random

import pytest

from stages import metrics


def test_perplexity_is_exp_of_the_mean() -> None:
    """Two tokens of probability 1/2 and 1/8 give perplexity 4."""
    assert metrics.perplexity([math.log(2), math.log(8)]) == pytest.approx(4)


def test_the_iid_error_is_llama_perplexitys() -> None:
    """The formula of perplexity.cpp, written as there, gives the same."""
    chance = random.Random(1)
    values = [chance.gauss(3, 1) for _ in range(200)]
    mean, square = sum(values) / 200, sum(value * value for value in values) / 200
    assert metrics.iid_stderr(values) == pytest.approx(math.sqrt((square - mean * mean) / 199), rel=1e-10)
    assert metrics.iid_stderr([1.0]) is None


def test_the_clustered_error_of_equal_clusters_is_that_of_their_means() -> None:
    """For equal clusters: the sample standard deviation of cluster means over the root of their number."""
    chance = random.Random(2)
    values = [chance.gauss(0, 1) for _ in range(60)]
    means = [sum(values[start : start + 10]) / 10 for start in range(0, 60, 10)]
    center = sum(means) / 6
    assert metrics.clustered_stderr(values, 6) == pytest.approx(math.sqrt(sum((m - center) ** 2 for m in means) / 5 / 6), rel=1e-12)


def test_the_clustered_error_covers_where_the_iid_error_does_not() -> None:
    """Simulated text whose passages are alike: t intervals with the clustered error hold the truth 95 % of the time, iid ones far less."""
    chance, rounds = random.Random(3), 600
    hits = {"clustered": 0, "iid": 0}
    for _ in range(rounds):
        values = [level + chance.gauss(0, 1) for level in (chance.gauss(0, 0.5) for _ in range(10)) for _ in range(20)]
        center = metrics.mean(values)
        clustered, iid = metrics.clustered_stderr(values, 10), metrics.iid_stderr(values)
        assert clustered is not None
        assert iid is not None
        hits["clustered"] += abs(center) <= metrics.t_quantile(0.975, 9) * clustered
        hits["iid"] += abs(center) <= 1.96 * iid
    assert 0.93 <= hits["clustered"] / rounds <= 0.97
    assert hits["iid"] / rounds < 0.75


def test_pairing_finds_what_unpaired_errors_hide() -> None:
    """A model worse by 0.01 nats everywhere is found on texts whose own spread is a hundred times that, and the interval holds 0.01."""
    chance = random.Random(4)
    base = [level + chance.gauss(0, 1) for level in (chance.gauss(3, 1) for _ in range(8)) for _ in range(50)]
    other = [value + 0.01 + chance.gauss(0, 0.02) for value in base]
    difference = metrics.paired_difference(other, base, 8)
    assert difference.verdict == "worse"
    assert difference.low is not None
    assert difference.high is not None
    assert difference.low < 0.01 < difference.high
    assert metrics.paired_difference(base, other, 8).verdict == "better"
    assert metrics.clustered_stderr(base, 8) > 10 * difference.stderr  # type: ignore[operator]


def test_percent_is_the_change_of_perplexity() -> None:
    """The difference in per cent is that of the two perplexities."""
    base, other = [1.0, 2.0, 3.0, 4.0], [1.1, 2.2, 2.9, 4.3]
    percent, low, high = metrics.paired_difference(other, base, 2).percent
    assert percent == pytest.approx(100 * (metrics.perplexity(other) / metrics.perplexity(base) - 1))
    assert low is not None
    assert high is not None
    assert low < percent < high


def test_one_chunk_distinguishes_nothing() -> None:
    """Without a second chunk there is no error and no verdict."""
    difference = metrics.paired_difference([9.0, 9.0], [1.0, 1.0], 1)
    assert (difference.stderr, difference.low, difference.verdict) == (None, None, "not distinguishable")
    assert metrics.perplexity_interval([1.0, 2.0], 1) == (None, None)


def test_equal_models_are_not_distinguished() -> None:
    """Identical results have no difference and no spread."""
    assert metrics.paired_difference([1.0, 2.0], [1.0, 2.0], 2).verdict == "not distinguishable"


@pytest.mark.parametrize(
    ("freedom", "value"),
    [(1, 12.706205), (2, 4.302653), (5, 2.570582), (7, 2.364624), (30, 2.042272), (1000, 1.962339), (100000, 1.959988)],
)
def test_t_quantiles_are_those_of_the_tables(freedom: int, value: float) -> None:
    """97.5 % quantiles, as printed in tables of Student's t."""
    assert metrics.t_quantile(0.975, freedom) == pytest.approx(value, abs=2e-6)


def test_the_incomplete_beta_function_counts_binomials() -> None:
    """I_x(a, b) for whole numbers is the probability of at least a successes in a + b - 1 tries."""
    for a, b, x in itertools.product((1, 3, 8), (1, 4, 9), (0.0, 0.1, 0.5, 0.93, 1.0)):
        tries = a + b - 1
        plain = sum(math.comb(tries, k) * x**k * (1 - x) ** (tries - k) for k in range(a, tries + 1))
        assert metrics.incomplete_beta(a, b, x) == pytest.approx(plain, abs=1e-13)


def test_the_order_of_summands_does_not_matter() -> None:
    """Sums are exact, so shuffled values give the same bits."""
    chance = random.Random(5)
    values = [chance.gauss(0, 1e6) for _ in range(1000)] + [1e-9] * 1000
    shuffled = random.Random(6).sample(values, len(values))
    assert (metrics.mean(values), metrics.iid_stderr(values)) == (metrics.mean(shuffled), metrics.iid_stderr(shuffled))


@pytest.mark.parametrize(
    "call",
    [
        lambda: metrics.mean([]),
        lambda: metrics.clustered_stderr([1.0, 2.0, 3.0], 2),
        lambda: metrics.paired_difference([1.0], [1.0, 2.0], 1),
        lambda: metrics.t_quantile(0.4, 3),
    ],
)
def test_nonsense_is_refused(call: object) -> None:
    """No values, unequal clusters, unequal lengths, an impossible quantile."""
    with pytest.raises(ValueError, match=r"\d|no values"):
        call()  # type: ignore[operator]

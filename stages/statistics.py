"""Statistics of right and wrong answers: pure functions of numbers, each with its source. See docs/statistics.md.

Sums are exact (`math.fsum`) and p-values of McNemar's test are ratios of integers, so the same answers give the same text on every machine.
What `stages.metrics` does for the nll of tokens this module does for questions, which come in clusters of any size.

>>> mcnemar(3, 0).p, mcnemar(4, 1).p, round(mcnemar(5, 2).p, 3)
(0.25, 0.375, 0.453)
>>> interval = wilson(23, 30)
>>> round(interval.low, 3), round(interval.high, 3)
(0.591, 0.882)
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import NormalDist
from typing import Literal

from stages.metrics import Verdict, incomplete_beta, mean, t_quantile

_TINY = 1e-300
_NEGLIGIBLE = 1e-13
"""Probability of numbers of discordant pairs that power may leave out, on each side."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval."""

    low: float
    high: float


def _level(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"a confidence level lies between 0 and 1; got {level}")
    return level


# --- one score -----------------------------------------------------------------------------------------------------------------


def wilson(successes: float, n: float, level: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion: unlike p +- 1.96 SE it stays in 0..1 and covers at 0 and n of n as well.

    Args:
        successes: of n; not whole where `n` is an effective number.
        n: independent trials.
        level: of confidence.

    Raises:
        ValueError: n is not positive, or successes are not in 0..n.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927.
    """
    if not n > 0 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} are no proportion")
    z = NormalDist().inv_cdf(0.5 + _level(level) / 2)
    p, shrink = successes / n, 1 + z * z / n
    center = (p + z * z / (2 * n)) / shrink
    reach = z / shrink * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Interval(0.0 if successes == 0 else max(0.0, center - reach), 1.0 if successes == n else min(1.0, center + reach))


@lru_cache(maxsize=256)
def _t(probability: float, freedom: int) -> float:
    return t_quantile(probability, freedom)


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean with its cluster-robust error.

    Attributes:
        stderr, low, high: None where there is one cluster only. The interval is mean -+ t * stderr, t of Student with clusters - 1
            degrees of freedom.
        n, clusters: values, and groups of them that are taken to be independent of each other.
    """

    mean: float
    stderr: float | None
    low: float | None
    high: float | None
    n: int
    clusters: int

    @property
    def resolved(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


def clustered_mean(values: Sequence[float], clusters: Sequence[Hashable] | None = None, level: float = 0.95) -> Mean:
    """Mean of values that come in clusters (questions about one passage, or made from one template).

    SE = sqrt( sum_c ( sum_{i in c} (x_i - mean) )^2 ) / n * sqrt(C / (C - 1)). Without clusters every value is one of its own, and this
    is the usual sample standard deviation / sqrt(n). With few clusters (fewer than some 30) the t quantile matters: it is 2.26 for ten
    and 12.7 for two. It is still too small where clusters differ much in size: then few of them decide.

    Args:
        values: (n,)
        clusters: (n,) the cluster of each value.
        level: of confidence.

    Raises:
        ValueError: no values, or another number of clusters than of values.

    Source: Cameron & Miller, "A Practitioner's Guide to Cluster-Robust Inference", 2015, II and VI; Miller, arXiv:2411.00640, 2.2.
    """
    labels: Sequence[Hashable] = range(len(values)) if clusters is None else clusters
    if len(labels) != len(values):
        raise ValueError(f"{len(values)} values in {len(labels)} places: each needs its cluster")
    center = mean(values)
    members: defaultdict[Hashable, list[float]] = defaultdict(list)
    for value, label in zip(values, labels, strict=True):
        members[label].append(value - center)
    count = len(members)
    if count < 2:
        return Mean(center, None, None, None, len(values), count)
    sums = [math.fsum(item) for item in members.values()]
    stderr = math.sqrt(math.fsum(item * item for item in sums) * count / (count - 1)) / len(values)
    reach = _t(0.5 + _level(level) / 2, count - 1) * stderr
    return Mean(center, stderr, center - reach, center + reach, len(values), count)


def proportion(outcomes: Sequence[bool], clusters: Sequence[Hashable] | None = None, level: float = 0.95) -> tuple[Mean, Interval]:
    """Accuracy: the mean with its clustered error, and Wilson's interval.

    Where several questions share a cluster, Wilson's n is the effective number n / design effect, the design effect being the clustered
    variance over that of independent questions, and at least 1; when all or none are right it is the number of clusters.

    Raises:
        ValueError: as `clustered_mean`.

    Source: Korn & Graubard, "Confidence intervals for proportions with small expected number of positive counts", 1998 (effective n).
    """
    values = [float(item) for item in outcomes]
    found = clustered_mean(values, clusters, level)
    if found.clusters == found.n:
        return found, wilson(sum(map(bool, outcomes)), found.n, level)
    spread = found.mean * (1 - found.mean)
    independent = spread / found.n
    effective = float(found.clusters)
    if spread > 0 and found.stderr is not None:
        effective = found.n / max(1.0, found.stderr**2 / independent)
    return found, wilson(min(effective, found.mean * effective), effective, level)


# --- two systems on the same questions -------------------------------------------------------------------------------------------


def paired_difference(
    candidate: Sequence[float], baseline: Sequence[float], clusters: Sequence[Hashable] | None = None, level: float = 0.95
) -> Mean:
    """Mean of candidate - baseline, question by question: what both find hard cancels, so the error is that of the difference alone.

    Raises:
        ValueError: the lengths differ; else as `clustered_mean`.

    Source: Miller, "Adding Error Bars to Evals", arXiv:2411.00640, 4.2.
    """
    if len(candidate) != len(baseline):
        raise ValueError(f"{len(candidate)} values cannot be paired with {len(baseline)}")
    return clustered_mean([float(a) - float(b) for a, b in zip(candidate, baseline, strict=True)], clusters, level)


@dataclass(frozen=True, slots=True)
class McNemar:
    """An exact test of paired right and wrong answers.

    Attributes:
        wins: questions that only the candidate gets right; losses: only the baseline. All others say nothing about which is better.
        p: two-sided, exact. It never rejects a true hypothesis more often than it says, and mostly less often.
        mid_p: half the weight of the outcome itself: closer to its level, and sometimes above it. A note, never a verdict.
    """

    wins: int
    losses: int
    p: float
    mid_p: float

    def verdict(self, alpha: float = 0.05) -> Verdict:
        """`better` or `worse` where p <= alpha, else `not distinguishable`."""
        if self.p > alpha:
            return "not distinguishable"
        return "better" if self.wins > self.losses else "worse"


def mcnemar(wins: int, losses: int) -> McNemar:
    """Exact McNemar test: given the number of discordant pairs, wins are Binomial(wins + losses, 1/2) if neither is better.

    p = min(1, 2 P(X <= min(wins, losses))), in exact integers. Questions are taken to be independent: where they come in clusters, read
    the clustered paired difference.

    Raises:
        ValueError: a count is negative.

    Source: McNemar, Psychometrika 12, 1947; Fagerland, Lydersen & Laake, BMC Med. Res. Methodol. 13:91, 2013 (exact and mid-p).
    """
    if wins < 0 or losses < 0:
        raise ValueError(f"{wins} wins and {losses} losses are no counts")
    n, least = wins + losses, min(wins, losses)
    ways, tail = 1, 0  # C(n, k), and their sum up to k = least
    for k in range(least + 1):
        tail += ways
        last, ways = ways, ways * (n - k) // (k + 1)
    if wins == losses:
        return McNemar(wins, losses, 1.0, _ratio(2 ** (n + 1) - last, 2 ** (n + 1)) if n else 1.0)
    return McNemar(wins, losses, min(1.0, _ratio(2 * tail, 2**n)), min(1.0, _ratio(2 * tail - last, 2**n)))


def _ratio(above: int, below: int) -> float:
    """A quotient of integers of any size, rounded once."""
    return above / below


def discordant(candidate: Iterable[bool], baseline: Iterable[bool]) -> tuple[int, int]:
    """(wins, losses) of paired outcomes.

    Raises:
        ValueError: the lengths differ.
    """
    pairs = list(zip(candidate, baseline, strict=True))
    return sum(1 for a, b in pairs if a and not b), sum(1 for a, b in pairs if b and not a)


@dataclass(frozen=True, slots=True)
class Odds:
    """How much more often the candidate wins a discordant question than it loses one.

    Attributes:
        odds: wins / losses (infinite without losses, NaN without either); low, high: exact (Clopper-Pearson) interval.
        better: P(candidate is better | data) with a uniform prior on its share of discordant questions.
    """

    odds: float
    low: float
    high: float
    better: float


def odds(wins: int, losses: int, level: float = 0.95) -> Odds:
    """Conditional odds ratio of paired outcomes, its exact interval, and the posterior probability of being better.

    The interval excludes 1 exactly where McNemar's p is at most 1 - level. The posterior is P(Beta(wins + 1, losses + 1) > 1/2): it is
    not a p-value, and 3 wins of 3 give .94 of it at p = .25.

    Raises:
        ValueError: a count is negative.

    Source: Clopper & Pearson, Biometrika 26, 1934; Agresti, Categorical Data Analysis, 10.1 (conditional odds ratio b / c).
    """
    if wins < 0 or losses < 0:
        raise ValueError(f"{wins} wins and {losses} losses are no counts")
    tail = (1 - _level(level)) / 2
    low = 0.0 if wins == 0 else _root(lambda x: incomplete_beta(wins, losses + 1, x) - tail)
    high = 1.0 if losses == 0 else _root(lambda x: incomplete_beta(wins + 1, losses, x) - (1 - tail))
    ratio = wins / losses if losses else (math.inf if wins else math.nan)
    return Odds(ratio, low / (1 - low), high / (1 - high) if high < 1 else math.inf, incomplete_beta(losses + 1, wins + 1, 0.5))


def _root(rising: Callable[[float], float]) -> float:
    """Where a rising function of 0..1 crosses zero, to the last bit but a few."""
    low, high = 0.0, 1.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2


# --- looking before the end --------------------------------------------------------------------------------------------------------


Side = Literal["two-sided", "better", "worse"]
"""What evidence is sought for: a difference, or that the candidate is better (worse), against "it is not"."""


@dataclass(frozen=True, slots=True)
class EProcess:
    """Evidence that may be looked at after every question, and stopped at will.

    On discordant pairs a bettor starts with 1 and stakes by a Beta(a, a) mixture: after w wins and l losses its wealth is
    E = 2^(w+l) B(w + a, l + a) / B(a, a). If neither is better that is a martingale of mean 1, so by Ville's inequality the chance that it
    *ever* reaches 1 / alpha is at most alpha, however often one looks. Pairs that agree change nothing.
    One-sided, the mixture is the half of the Beta beyond 1/2: E gains the factor 2 P(Beta(w + a, l + a) beyond 1/2), and it is a
    supermartingale under every difference of the other sign too.

    Attributes:
        side: see `Side`.
        a: of the mixture; 1/2 is best for large differences, larger ones for small differences. It is chosen before the first look.
        wins, losses: discordant pairs so far.
        log_e: log E now, nats; log_max: the largest so far.
        looks: how often somebody could have stopped: one per pair, discordant or not.

    Source: Ville 1939; Robbins, Ann. Math. Stat. 41, 1970 (mixtures); Ramdas et al., arXiv:2210.01948.
    """

    side: Side = "two-sided"
    a: float = 2.0
    wins: int = 0
    losses: int = 0
    log_max: float = 0.0
    looks: int = 0

    def __post_init__(self) -> None:
        if not self.a > 0:
            raise ValueError(f"the mixture's parameter is positive; got {self.a}")

    @property
    def log_e(self) -> float:
        """Logarithm of the wealth, nats."""
        won, lost = self.wins + self.a, self.losses + self.a
        wealth = (self.wins + self.losses) * math.log(2) + _log_beta(won, lost) - _log_beta(self.a, self.a)
        if self.side == "two-sided":
            return wealth
        beyond = incomplete_beta(lost, won, 0.5) if self.side == "better" else incomplete_beta(won, lost, 0.5)
        return wealth + math.log(2 * max(beyond, _TINY))

    def after(self, candidate: bool, baseline: bool) -> EProcess:
        """The process after one more question."""
        seen = replace(
            self,
            wins=self.wins + (candidate and not baseline),
            losses=self.losses + (baseline and not candidate),
            looks=self.looks + 1,
        )
        return seen if candidate == baseline else replace(seen, log_max=max(self.log_max, seen.log_e))

    @property
    def p(self) -> float:
        """Anytime-valid p-value: 1 / the largest wealth so far."""
        return math.exp(-self.log_max)

    def stops(self, alpha: float = 0.05) -> bool:
        """Whether the wealth has ever reached 1 / alpha: what `side` sought evidence for may be said at level alpha."""
        return self.log_max >= -math.log(alpha)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def e_process(candidate: Iterable[bool], baseline: Iterable[bool], *, side: Side = "two-sided", a: float = 2.0) -> tuple[EProcess, ...]:
    """The process after each question, in order.

    Raises:
        ValueError: the lengths differ.
    """
    state, states = EProcess(side=side, a=a), []
    for mine, other in zip(candidate, baseline, strict=True):
        state = state.after(bool(mine), bool(other))
        states.append(state)
    return tuple(states)


# --- several tests -----------------------------------------------------------------------------------------------------------------


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p-values: if those <= alpha are rejected, the chance of any false rejection is at most alpha, whatever depends on what.

    The i-th smallest of m becomes max over j <= i of min(1, (m - j + 1) p_j).

    Raises:
        ValueError: a p-value is not in 0..1.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Stat. 6, 1979.
    """
    bad = next((name for name, p in p_values.items() if not 0 <= p <= 1), None)
    if bad is not None:
        raise ValueError(f"the p-value of {bad} is {p_values[bad]}")
    adjusted: dict[str, float] = {}
    reached = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda key: (p_values[key], key))):
        reached = max(reached, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = reached
    return {name: adjusted[name] for name in p_values}


# --- before running ----------------------------------------------------------------------------------------------------------------


def mcnemar_power(n: int, *, discordance: float, difference: float, alpha: float = 0.05) -> float:
    """P(the exact test rejects) on n questions, of which a share `discordance` is discordant and the accuracies differ by `difference`.

    Exact: the number of discordant questions is Binomial(n, discordance), wins among them Binomial(., (1 + difference/discordance) / 2).

    Raises:
        ValueError: the difference is larger than the discordance, or a share is not in 0..1.
    """
    if not 0 < discordance <= 1 or not abs(difference) <= discordance or n < 1 or not 0 < alpha < 1:
        raise ValueError(
            f"power needs n >= 1, 0 < discordance <= 1 and |difference| <= discordance; got n {n}, discordance {discordance}, "
            f"difference {difference}, alpha {alpha}"
        )
    share = (1 + difference / discordance) / 2
    terms = []
    for count, weight in _binomial(n, discordance):
        cut = _critical(count, alpha)
        if cut >= 0:
            terms.append(weight * math.fsum(p for wins, p in _binomial(count, share) if wins <= cut or wins >= count - cut))
    return math.fsum(terms)


def questions_needed(*, discordance: float, difference: float, power: float = 0.8, alpha: float = 0.05, most: int = 100_000) -> int:
    """The smallest n from which on the exact test has the power (it is a sawtooth: a little more n may have a little less).

    Raises:
        ValueError: as `mcnemar_power`; or more than `most` are needed.
    """
    if difference == 0 or not 0 < power < 1:
        raise ValueError(f"no number of questions gives power {power} for a difference of {difference}")

    def enough(n: int) -> bool:
        return mcnemar_power(n, discordance=discordance, difference=difference, alpha=alpha) >= power

    high = 1
    while not enough(high):
        high *= 2
        if high > 2 * most:
            raise ValueError(f"more than {most:,} questions are needed to resolve a difference of {difference}")
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    # The sawtooth's teeth are as long as it takes to see one more discordant question.
    tooth = math.ceil(2 / discordance)
    misses = [n for n in range(max(1, high - tooth), high + 4 * tooth) if not enough(n)]
    return max(misses, default=0) + 1


@lru_cache(maxsize=4096)
def _critical(count: int, alpha: float) -> int:
    """The largest k such that k wins of `count` discordant pairs are rejected; -1 where none is."""
    limit, tail = alpha / 2, 0.0
    for wins, p in _binomial(count, 0.5, whole=True):
        tail += p
        if tail > limit * (1 + 1e-12):
            return wins - 1
    return count


def _binomial(n: int, p: float, *, whole: bool = False) -> Iterable[tuple[int, float]]:
    """(k, probability), ascending; without the far tails unless the whole is wanted."""
    if p in (0, 1) or n == 0:
        return [(n if p == 1 else 0, 1.0)]
    logs = math.log(p), math.log1p(-p)
    first, last = 0, n
    if not whole:
        # Bernstein: beyond this many from the mean there is less than _NEGLIGIBLE.
        t = -math.log(_NEGLIGIBLE)
        reach = math.ceil(math.sqrt(2 * n * p * (1 - p) * t) + 2 * t / 3)
        first, last = max(0, math.floor(n * p) - reach), min(n, math.ceil(n * p) + reach)
    top = math.lgamma(n + 1)
    return [
        (k, math.exp(top - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * logs[0] + (n - k) * logs[1])) for k in range(first, last + 1)
    ]

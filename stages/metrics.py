"""Statistics of evaluations: pure functions of numbers, each with its source. Sums are exact (`math.fsum`), whatever order or machine.

>>> text(perplexity([math.log(4.0), math.log(9.0)]))
'6'
>>> round(t_quantile(0.975, 7), 4)
2.3646
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["better", "worse", "not distinguishable"]
_TINY = 1e-300


def text(value: float | None) -> str | None:
    """A number as decimal text of ten significant digits: the last bits of exp and sqrt differ between machines, these do not."""
    return None if value is None else f"{value:.10g}"


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("no values to average")
    return math.fsum(values) / len(values)


def perplexity(nll: Sequence[float]) -> float:
    """Exponential of the mean nll (nats). Source: llama.cpp tools/perplexity/perplexity.cpp."""
    return math.exp(mean(nll))


def iid_stderr(values: Sequence[float]) -> float | None:
    """Standard error of the mean if all values were independent; None for fewer than two.

    sqrt((mean(x^2) - mean(x)^2) / (n - 1)), as llama-perplexity computes its `+/-` (there multiplied by the perplexity). It is too small
    for text: tokens of one passage are alike (measured: 2.3 to 3.5 times too small). Source: llama.cpp perplexity.cpp.
    """
    if len(values) < 2:
        return None
    center = mean(values)
    return math.sqrt(math.fsum((value - center) ** 2 for value in values) / len(values) / (len(values) - 1))


def clustered_stderr(values: Sequence[float], clusters: int) -> float | None:
    """Standard error of the mean where `clusters` equal runs of values are independent, and values inside one are not; None for one.

    sqrt(sum_c (sum_{i in c} (x_i - mean))^2) / n * sqrt(C / (C - 1)): the cluster-robust error with the usual correction for few clusters.
    For equal clusters it equals the standard error of the cluster means. Source: Cameron & Miller, "A Practitioner's Guide to
    Cluster-Robust Inference", 2015, section II; Miller, "Adding Error Bars to Evals", arXiv:2411.00640, section 2.2.

    Raises:
        ValueError: the values do not divide into so many equal runs.
    """
    if clusters < 1 or len(values) % clusters:
        raise ValueError(f"{len(values)} values are not {clusters} equal clusters")
    if clusters < 2:
        return None
    center, size = mean(values), len(values) // clusters
    sums = [math.fsum(value - center for value in values[start : start + size]) for start in range(0, len(values), size)]
    return math.sqrt(math.fsum(item * item for item in sums) * clusters / (clusters - 1)) / len(values)


def perplexity_interval(nll: Sequence[float], chunks: int) -> tuple[float | None, float | None]:
    """95 % interval of the perplexity: exp(mean -+ t * clustered standard error), t of Student with chunks - 1 degrees of freedom."""
    stderr = clustered_stderr(nll, chunks)
    if stderr is None:
        return None, None
    reach = t_quantile(0.975, chunks - 1) * stderr
    return math.exp(mean(nll) - reach), math.exp(mean(nll) + reach)


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean nll of a candidate minus its baseline on the same tokens, in nats.

    Attributes:
        stderr: clustered by chunk; low, high: 95 % interval (Student's t with chunks - 1 degrees of freedom); None where one chunk is all.
    """

    mean: float
    stderr: float | None
    low: float | None
    high: float | None

    @property
    def percent(self) -> tuple[float, float | None, float | None]:
        """The same as a change of perplexity in per cent: 100 (exp(d) - 1), and its interval."""
        low = None if self.low is None else 100 * math.expm1(self.low)
        return 100 * math.expm1(self.mean), low, None if self.high is None else 100 * math.expm1(self.high)

    @property
    def verdict(self) -> Verdict:
        """`worse` when the whole interval is above zero, `better` when it is below, else `not distinguishable`."""
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return "not distinguishable"
        return "worse" if self.low > 0 else "better"


def paired_difference(candidate: Sequence[float], baseline: Sequence[float], chunks: int) -> Difference:
    """Compare two models on the same tokens: what both find hard cancels, so the error is that of the difference alone.

    Source: Miller, arXiv:2411.00640, section 4.2 (paired differences with clustered errors).

    Raises:
        ValueError: the lengths differ, or do not divide into chunks.
    """
    if len(candidate) != len(baseline):
        raise ValueError(f"{len(candidate)} values cannot be paired with {len(baseline)}")
    deltas = [a - b for a, b in zip(candidate, baseline, strict=True)]
    center, stderr = mean(deltas), clustered_stderr(deltas, chunks)
    if stderr is None:
        return Difference(center, None, None, None)
    reach = t_quantile(0.975, chunks - 1) * stderr
    return Difference(center, stderr, center - reach, center + reach)


def t_quantile(probability: float, freedom: int) -> float:
    """Quantile of Student's t: the value below which `probability` (over one half) of it lies.

    By bisection of the distribution function, to 1e-12. Source: Abramowitz & Stegun 26.7.1, 26.5.2.
    """
    if not 0.5 < probability < 1 or freedom < 1:
        raise ValueError(f"t_quantile of {probability} with {freedom} degrees of freedom")
    low, high = 0.0, 1.0
    while _t_upper(high, freedom) > 1 - probability:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_upper(middle, freedom) > 1 - probability else (low, middle)
    return (low + high) / 2


def _t_upper(value: float, freedom: int) -> float:
    """P(T > value) for value >= 0."""
    return incomplete_beta(freedom / 2, 0.5, freedom / (freedom + value * value)) / 2


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta function I_x(a, b), for x in 0..1.

    Source: Press et al., Numerical Recipes, section 6.4 (continued fraction, modified Lentz).
    """
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x < (a + 1) / (a + b + 2):
        return front * _beta_fraction(a, b, x) / a
    return 1 - front * _beta_fraction(b, a, 1 - x) / b


def _beta_fraction(a: float, b: float, x: float) -> float:
    c, d = 1.0, 1 / _away(1 - (a + b) * x / (a + 1))
    result = d
    for m in range(1, 500):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _away(1 + numerator * d)
            c = _away(1 + numerator / c)
            result *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return result


def _away(value: float) -> float:
    return value if abs(value) > _TINY else _TINY

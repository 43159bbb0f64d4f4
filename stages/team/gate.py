"""A gate by the target's uncertainty: below a threshold the target answers, above it a helper.

>>> [(point.kept, point.accuracy) for point in profile([0.1, 0.9], [True, False], [False, True])]
[(0.0, 0.5), (0.5, 1.0), (1.0, 0.5)]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from stages import statistics
from stages.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One threshold.

    Attributes:
        threshold: the target answers where its uncertainty is at most this; None where it never does.
        kept: fraction that the target answers; accuracy: of the two together; kept_accuracy: of the target on what it answers (None for
            nothing).
        wins, losses: against the target alone.
    """

    threshold: float | None
    kept: float
    accuracy: float
    kept_accuracy: float | None
    wins: int
    losses: int

    @property
    def mcnemar(self) -> statistics.McNemar:
        """Exact test against the target alone."""
        return statistics.mcnemar(self.wins, self.losses)


def entropy(logs: Sequence[float]) -> float:
    """Of a distribution of log probabilities, nats.

    >>> entropy([0.0, -math.inf])
    0.0
    """
    return 0.0 - math.fsum(math.exp(item) * item for item in logs if item > -math.inf)


def point(uncertainty: Sequence[float], target: Sequence[bool], helper: Sequence[bool], threshold: float | None) -> Point:
    """What one threshold gives.

    Raises:
        InputError: no questions, or not as many of each.
    """
    n = len(target)
    if not n or len(helper) != n or len(uncertainty) != n:
        raise InputError(f"a gate needs the same questions of all: {len(uncertainty)} uncertainties, {n} and {len(helper)} answers")
    stays = [threshold is not None and item <= threshold for item in uncertainty]
    gated = [mine if stay else other for stay, mine, other in zip(stays, target, helper, strict=True)]
    wins, losses = statistics.discordant(gated, target)
    own = [mine for stay, mine in zip(stays, target, strict=True) if stay]
    return Point(
        threshold=threshold,
        kept=len(own) / n,
        accuracy=sum(gated) / n,
        kept_accuracy=sum(own) / len(own) if own else None,
        wins=wins,
        losses=losses,
    )


def profile(uncertainty: Sequence[float], target: Sequence[bool], helper: Sequence[bool]) -> tuple[Point, ...]:
    """Every threshold that makes a difference: none, and each value of the uncertainty, ascending. The last is the target alone.

    Raises:
        InputError: as `point`; an uncertainty that is no number.
    """
    if any(math.isnan(item) for item in uncertainty):
        raise InputError("an uncertainty is no number")
    return tuple(point(uncertainty, target, helper, threshold) for threshold in (None, *sorted(set(uncertainty))))


def chosen(points: Sequence[Point]) -> Point:
    """The most accurate; of several the one where the target answers most."""
    return max(points, key=lambda item: (item.accuracy, item.kept))

"""Geometric teams over the next byte, from arrays that each model gave once: what a team would lose, without running a model.

The identity of `stages.team.divergence` holds at every byte; here both sides are computed, each by its own way, and compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

from stages import statistics
from stages.errors import GuaranteeError, InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SLACK = 1e-6
"""Nats per byte by which the two sides of the identity may differ."""
_PIECE = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """What a model says of some texts.

    Attributes:
        rows: (n, 257) float32 log probabilities before each byte, nats.
        symbols: (n,) the bytes that came.
        texts: (n,) the number of the text that each belongs to.
    """

    rows: NDArray[np.float32]
    symbols: NDArray[np.int64]
    texts: NDArray[np.int64]


def joined(parts: Sequence[Read]) -> Read:
    """Several blocks as one; texts stay apart."""
    import numpy as np

    counts = np.cumsum([0, *(int(part.texts.max()) + 1 for part in parts)])
    return Read(
        rows=np.concatenate([part.rows for part in parts]),
        symbols=np.concatenate([part.symbols for part in parts]),
        texts=np.concatenate([part.texts + count for part, count in zip(parts, counts, strict=False)]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """The equal-weight geometric mean of some models.

    Attributes:
        losses: (n,) of its own normalised distribution, nats.
        divergence: mean of -log of what it was divided by, nats per byte; no byte that came has a part in it.
        error: |mean losses - (mean of the members' - divergence)|.
    """

    losses: NDArray[np.float64]
    divergence: float
    error: float

    @property
    def nll(self) -> float:
        """Nats per byte."""
        return float(self.losses.mean())


def team(members: Sequence[Read]) -> Team:
    """The team's loss, computed from its distribution, and held against the identity.

    Raises:
        InputError: members that read other bytes; a byte that came and that a member holds impossible.
        GuaranteeError: the identity does not hold to 1e-6.
    """
    import numpy as np

    first = members[0]
    if any(not np.array_equal(item.symbols, first.symbols) or not np.array_equal(item.texts, first.texts) for item in members):
        raise InputError("members of a team read the same bytes")
    n = len(first.symbols)
    losses, prices, own = np.empty(n), np.empty(n), np.empty((len(members), n))
    for start in range(0, n, _PIECE):
        here = slice(start, min(n, start + _PIECE))
        places, symbols = np.arange(here.stop - start), first.symbols[here]
        logs = [_normalised(item.rows[here]) for item in members]
        for number, rows in enumerate(logs):
            own[number, here] = -rows[places, symbols]
        mean = np.stack(logs).mean(axis=0)
        prices[here] = -_log_sum(mean)
        powers = np.exp(mean - mean.max(axis=1, keepdims=True))
        chances = powers / powers.sum(axis=1, keepdims=True)
        with np.errstate(divide="ignore"):
            losses[here] = -np.log(chances[places, symbols])
    if not (np.isfinite(own).all() and np.isfinite(losses).all()):
        raise InputError("a byte that came has probability 0 by a member: its losses are not finite, and no team can be predicted")
    divergence = float(prices.mean())
    error = abs(float(losses.mean()) - (float(own.mean()) - divergence))
    if error > SLACK:
        raise GuaranteeError(
            f"NLL of the team and mean NLL - D differ by {error:.3g} nats per byte: a fault of the program, please report it"
        )
    return Team(losses=losses, divergence=max(0.0, divergence), error=error)


def _normalised(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """To 1 again, in float64: what was kept was rounded."""
    import numpy as np

    found = rows.astype(np.float64)
    normal: NDArray[np.float64] = found - _log_sum(found)[:, None]
    return normal


def _log_sum(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    import numpy as np

    top = rows.max(axis=1)
    if not np.isfinite(top).all():
        raise InputError("the members of a team have no possible byte in common at some place: they do not read the same kind of text")
    total: NDArray[np.float64] = top + np.log(np.exp(rows - top[:, None]).sum(axis=1))
    return total


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One member that joined, or could have.

    Attributes:
        nll, divergence: of the team with it, nats per byte.
        gain: what the team loses less than the team before, nats per byte, paired and clustered by text; None for the first.
        texts_needed: the least number of texts like these that show such a gain (two-sided .05, power .8); None where there is none.
    """

    name: str
    nll: float
    divergence: float
    gain: statistics.Mean | None
    texts_needed: int | None


def needed(gain: statistics.Mean) -> int | None:
    """The least number of clusters that shows a mean of this size and spread: two-sided .05, power .8, normal approximation.

    >>> needed(statistics.Mean(mean=1.0, stderr=0.5, low=None, high=None, n=4, clusters=4))
    8
    """
    if gain.mean <= 0 or gain.stderr is None:
        return None
    reach = NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(0.8)
    return max(2, math.ceil(gain.clusters * (reach * gain.stderr / gain.mean) ** 2))


def grow(read: Mapping[str, Read], *, most: int | None = None) -> tuple[list[Step], Step | None, float]:
    """Start with the model of the least loss; again and again add the one with which the geometric team loses least, while it loses less.

    Losses are compared to ten digits: the last ones differ between machines. Ties go to the first by name.

    Returns:
        the steps, who was refused (None where all joined), and the largest error of the identity in any team looked at.
    """
    alone = {name: team([item]) for name, item in sorted(read.items())}
    name = min(alone, key=lambda item: (_ten(alone[item].nll), item))
    best, steps, error = alone[name], [Step(name=name, nll=alone[name].nll, divergence=0.0, gain=None, texts_needed=None)], 0.0
    texts = [int(item) for item in read[name].texts]
    while rest := sorted(set(read) - {step.name for step in steps}):
        members = [read[step.name] for step in steps]
        found = {item: team([*members, read[item]]) for item in rest}
        error = max(error, *(item.error for item in found.values()))
        name = min(rest, key=lambda item: (_ten(found[item].nll), item))
        gain = statistics.paired_difference(best.losses.tolist(), found[name].losses.tolist(), texts)
        step = Step(name=name, nll=found[name].nll, divergence=found[name].divergence, gain=gain, texts_needed=needed(gain))
        if _ten(found[name].nll) >= _ten(best.nll) or (most is not None and len(steps) >= most):
            return steps, step, error
        steps.append(step)
        best = found[name]
    return steps, None, error


def _ten(value: float) -> float:
    return float(f"{value:.10g}")

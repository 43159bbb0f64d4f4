"""The geometric mixture: a weighted mean of log probabilities, as of logits. Its loss is never more than the weighted mean of losses.

    q(x) = prod_i p_i(x)^w_i / Z,    loss(q) = sum_i w_i loss_i - sum over symbols of (-ln Z),    Z <= 1

Weights are fitted on texts that are used for nothing else (`fit`); the loss is convex in them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stages.combiners.combiner import Combiner, State, begin, log_sum, tally
from stages.errors import InputError, SpecError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ROUNDS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometric:
    """Constant weights."""

    weights: tuple[float, ...] = ()
    """One for each member, not negative, together 1; empty: all alike."""

    def __post_init__(self) -> None:
        if any(not weight >= 0 for weight in self.weights) or (self.weights and abs(math.fsum(self.weights) - 1) > 1e-9):
            raise SpecError(f"weights {self.weights} sum to {math.fsum(self.weights):.12g}; they must not be negative, and sum to 1")


class Rule:
    """See `stages.combiners.combiner.Rule`."""

    def __init__(self, spec: Geometric, members: int) -> None:
        if spec.weights and len(spec.weights) != members:
            raise SpecError(f"{len(spec.weights)} weights for {members} members")
        self._weights = spec.weights or (1 / members,) * members

    def start(self) -> State:
        """The weights."""
        import numpy as np

        return begin(np.array(self._weights))

    def combine(self, state: State, rows: NDArray[np.float64], awake: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The normalised product."""
        import numpy as np

        weights = np.array(self._weights) * awake
        chosen = np.flatnonzero(weights)
        if len(chosen) == 1:
            row: NDArray[np.float64] = rows[chosen[0]]
            return row
        product = (rows[chosen] * (weights[chosen] / weights.sum())[:, None]).sum(axis=0)
        normalised: NDArray[np.float64] = product - log_sum(product)
        return normalised

    def observe(self, state: State, rows: NDArray[np.float64], mixed: NDArray[np.float64], symbol: int) -> State:
        """Nothing is learned."""
        return tally(state, rows, mixed, symbol)

    def shares(self, state: State) -> NDArray[np.float64]:
        """The weights."""
        import numpy as np

        return np.array(self._weights)

    def parts(self, state: State, rows: NDArray[np.float64], awake: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The exponents."""
        import numpy as np

        weights = np.array(self._weights) * awake
        parts: NDArray[np.float64] = weights / weights.sum()
        return parts

    def bound(self, state: State) -> float | None:
        """sum_i w_i loss_i, by Hölder's inequality (Z <= 1)."""
        return math.fsum(weight * float(loss) for weight, loss in zip(self._weights, state.losses, strict=True) if weight)


def fit(texts: Sequence[tuple[NDArray[np.float64], Sequence[int]]]) -> tuple[float, ...]:
    """Weights of the least loss on some texts.

    Exponentiated gradient with a step that is halved until the loss falls; the loss is convex, so this is the least there is.

    Args:
        texts: of each, (n, M, 257) log probabilities and the n symbols that came.

    Returns:
        M weights that sum to 1, rounded to six digits.

    Raises:
        InputError: there is no symbol, or one to which a member gave probability 0.
    """
    import numpy as np

    if not texts or not any(len(symbols) for _, symbols in texts):
        raise InputError("there are no texts to fit weights on")
    rows = np.concatenate([part[: len(symbols)] for part, symbols in texts])
    symbols = np.concatenate([np.asarray(list(symbols), dtype=np.intp) for _, symbols in texts])
    chosen = rows[np.arange(len(symbols)), :, symbols]
    if not np.isfinite(chosen).all():
        raise InputError("a member gives probability 0 to a symbol of the fitting texts")
    floor = np.where(np.isfinite(rows), rows, -1e4)

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        product = np.einsum("nmv,m->nv", floor, weights)
        top = product.max(axis=1, keepdims=True)
        powers = np.exp(product - top)
        whole = powers.sum(axis=1, keepdims=True)
        expected = np.einsum("nv,nmv->m", powers / whole, floor)
        value = float((np.log(whole) + top).sum() - (chosen @ weights).sum())
        return value / len(symbols), (expected - chosen.sum(axis=0)) / len(symbols)

    weights = np.full(rows.shape[1], 1 / rows.shape[1])
    value, gradient = loss(weights)
    step = 1.0
    for _ in range(ROUNDS):
        raised = weights * np.exp(-step * (gradient - gradient.min()))
        trial = raised / raised.sum()
        trial_value, trial_gradient = loss(trial)
        if trial_value <= value:
            small = value - trial_value < 1e-12 and float(np.abs(trial - weights).max()) < 1e-8
            weights, value, gradient, step = trial, trial_value, trial_gradient, step * 1.5
            if small:
                break
        else:
            step /= 2
            if step < 1e-9:
                break
    rounded = [round(float(weight), 6) for weight in weights]
    largest = rounded.index(max(rounded))
    rounded[largest] = round(rounded[largest] + 1 - math.fsum(rounded), 6)
    return tuple(rounded)


COMBINER = Combiner(name="geometric", spec=Geometric, rule=Rule)

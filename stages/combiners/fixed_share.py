"""Fixed share: a Bayes mixture of all ways to switch between members, so that another one can take over in mid-text.

    q(x) = sum_i w_i p_i(x),    v_i = w_i p_i(x) / q(x),    w_i <- (1 - s) v_i + s / (M - 1) * (1 - v_i)

Source: Herbster & Warmuth, Tracking the Best Expert, Machine Learning 32 (1998).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stages.combiners.combiner import Combiner, State, begin, log_sum, mix, parts_of, tally
from stages.errors import SpecError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedShare:
    """How readily it switches."""

    share: float = 0.01
    """Probability, at each symbol, that another member is the right one from here."""

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise SpecError(f"share is {self.share}; it is a probability below 1")


class Rule:
    """See `stages.combiners.combiner.Rule`. `State.extra` is (M,): the cost of the cheapest sequence of members that ends in each."""

    def __init__(self, spec: FixedShare, members: int) -> None:
        self._members = members
        self._share = spec.share if members > 1 else 0.0

    def start(self) -> State:
        """All alike."""
        import numpy as np

        return begin(np.full(self._members, 1 / self._members), np.full(self._members, math.log(self._members)))

    def combine(self, state: State, rows: NDArray[np.float64], awake: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The mean by weight."""
        return mix(state.log_weights, rows, awake)

    def observe(self, state: State, rows: NDArray[np.float64], mixed: NDArray[np.float64], symbol: int) -> State:
        """Bayes' rule, then everybody gives a share to the others."""
        import numpy as np

        weights = state.log_weights + rows[:, symbol]
        after = np.exp(weights - log_sum(weights))
        assert state.extra is not None
        costs = (self._moved(state.extra) if self._share and state.symbols else state.extra) - rows[:, symbol]
        if self._share:
            after = (1 - self._share) * after + self._share / (self._members - 1) * (1 - after)
        with np.errstate(divide="ignore"):
            return replace(tally(state, rows, mixed, symbol), log_weights=np.log(after), extra=costs)

    def _moved(self, costs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Stay, or come from the cheapest other member."""
        import numpy as np

        order = np.argsort(costs, kind="stable")
        cheapest = np.full(len(costs), costs[order[0]])
        cheapest[order[0]] = costs[order[1]]
        switch = math.log((self._members - 1) / self._share)
        return np.minimum(costs - math.log1p(-self._share), cheapest + switch)

    def shares(self, state: State) -> NDArray[np.float64]:
        """The weights."""
        import numpy as np

        return np.exp(state.log_weights)

    def parts(self, state: State, rows: NDArray[np.float64], awake: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The weights."""
        return parts_of(state.log_weights, awake)

    def bound(self, state: State) -> float | None:
        """The cheapest sequence of members: its loss, ln M, and for n symbols with k switches k ln((M-1)/s) + (n-1-k) ln(1/(1-s))."""
        assert state.extra is not None
        return float(state.extra.min())


COMBINER = Combiner(name="fixed-share", spec=FixedShare, rule=Rule)

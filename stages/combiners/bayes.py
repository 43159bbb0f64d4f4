"""The Bayes mixture: members weigh what they predicted so far. Its loss is never more than the best member's and ln M.

q(x) = sum_i w_i p_i(x),    w_i <- w_i p_i(x) / q(x)
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
class Bayes:
    """Where the weights begin."""

    prior: tuple[float, ...] = ()
    """One weight for each member, positive, of any scale; empty: all alike."""

    def __post_init__(self) -> None:
        if any(not weight > 0 for weight in self.prior):
            raise SpecError(f"prior is {self.prior}; every member's weight must be more than 0, or it could never be heard")


class Rule:
    """See `stages.combiners.combiner.Rule`."""

    def __init__(self, spec: Bayes, members: int) -> None:
        if spec.prior and len(spec.prior) != members:
            raise SpecError(f"prior has {len(spec.prior)} weights for {members} members")
        weights = spec.prior or (1.0,) * members
        self._prior = tuple(weight / math.fsum(weights) for weight in weights)

    def start(self) -> State:
        """The prior."""
        import numpy as np

        return begin(np.array(self._prior))

    def combine(self, state: State, rows: NDArray[np.float64], awake: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The mean by weight."""
        return mix(state.log_weights, rows, awake)

    def observe(self, state: State, rows: NDArray[np.float64], mixed: NDArray[np.float64], symbol: int) -> State:
        """Bayes' rule."""
        weights = state.log_weights + rows[:, symbol]
        return replace(tally(state, rows, mixed, symbol), log_weights=weights - log_sum(weights))

    def shares(self, state: State) -> NDArray[np.float64]:
        """The weights."""
        import numpy as np

        return np.exp(state.log_weights)

    def parts(self, state: State, rows: NDArray[np.float64], awake: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The weights."""
        return parts_of(state.log_weights, awake)

    def bound(self, state: State) -> float | None:
        """Min over members of loss_i + ln 1/prior_i: the mixture is the sum of prior_i P_i(text), so at least any of its terms."""
        import numpy as np

        return float((state.losses - np.log(self._prior)).min())


COMBINER = Combiner(name="bayes", spec=Bayes, rule=Rule)

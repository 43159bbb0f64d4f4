"""The alpha blend: the target speaks with 1 - alpha, the others share alpha. With alpha 0 it is the target, bit for bit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stages.combiners.combiner import Combiner, State, begin, mix, parts_of, tally
from stages.errors import SpecError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class AlphaBlend:
    """Constant weights."""

    alpha: float = 0.2
    """Of all members but the first, together."""

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise SpecError(f"alpha is {self.alpha}; it is a part, so it must be between 0 and 1")


class Rule:
    """See `stages.combiners.combiner.Rule`."""

    def __init__(self, spec: AlphaBlend, members: int) -> None:
        self._alpha = spec.alpha if members > 1 else 0.0
        self._weights = (1 - self._alpha, *(self._alpha / (members - 1) for _ in range(members - 1)))

    def start(self) -> State:
        """The weights."""
        import numpy as np

        return begin(np.array(self._weights))

    def combine(self, state: State, rows: NDArray[np.float64], awake: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The mean by weight."""
        return mix(state.log_weights, rows, awake)

    def observe(self, state: State, rows: NDArray[np.float64], mixed: NDArray[np.float64], symbol: int) -> State:
        """Nothing is learned."""
        return tally(state, rows, mixed, symbol)

    def shares(self, state: State) -> NDArray[np.float64]:
        """The weights."""
        import numpy as np

        return np.array(self._weights)

    def parts(self, state: State, rows: NDArray[np.float64], awake: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The weights."""
        return parts_of(state.log_weights, awake)

    def bound(self, state: State) -> float | None:
        """The target's loss, and ln 1/(1 - alpha) for each symbol."""
        return None if self._alpha == 1 else float(state.losses[0]) - state.symbols * math.log1p(-self._alpha)


COMBINER = Combiner(name="alpha-blend", spec=AlphaBlend, rule=Rule)

"""A combiner: the last member speaks, and it costs what it costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stages.combiners.combiner import Combiner, State, begin, tally

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Last:
    """Nothing to choose."""


class Rule:
    """See `stages.combiners.combiner.Rule`."""

    def __init__(self, spec: Last, members: int) -> None:
        self._members = members

    def start(self) -> State:
        """All weight on the last."""
        import numpy as np

        return begin(np.eye(self._members)[-1])

    def combine(self, state: State, rows: NDArray[np.float64], awake: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Its row."""
        row: NDArray[np.float64] = rows[-1]
        return row

    def observe(self, state: State, rows: NDArray[np.float64], mixed: NDArray[np.float64], symbol: int) -> State:
        """Nothing is learned."""
        return tally(state, rows, mixed, symbol)

    def shares(self, state: State) -> NDArray[np.float64]:
        """One for the last."""
        import numpy as np

        shares: NDArray[np.float64] = np.eye(self._members)[-1]
        return shares

    def parts(self, state: State, rows: NDArray[np.float64], awake: NDArray[np.bool_]) -> NDArray[np.float64]:
        """All of it is the last one's."""
        return self.shares(state)

    def bound(self, state: State) -> float | None:
        """Its own loss."""
        return float(state.losses[-1])


COMBINER = Combiner(name="acme-last", spec=Last, rule=Rule)

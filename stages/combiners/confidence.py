"""Confidence routing: whoever is surest of the next symbol says it; the target, unless another is surer by a margin. Nothing is proven.

The probabilities compared are of the same 257 symbols, unlike those of tokens in different vocabularies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stages.combiners.combiner import Combiner, State, begin, tally
from stages.errors import SpecError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Confidence:
    """When another member takes over."""

    margin: float = 0.0
    """By how much its highest probability must exceed the target's."""

    def __post_init__(self) -> None:
        if not 0 <= self.margin <= 1:
            raise SpecError(f"margin is {self.margin}; it is a difference of probabilities, so it must be between 0 and 1")


class Rule:
    """See `stages.combiners.combiner.Rule`."""

    def __init__(self, spec: Confidence, members: int) -> None:
        self._margin, self._members = spec.margin, members

    def start(self) -> State:
        """All alike."""
        import numpy as np

        return begin(np.full(self._members, 1 / self._members))

    def combine(self, state: State, rows: NDArray[np.float64], awake: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The row of whoever speaks, unchanged."""
        row: NDArray[np.float64] = rows[self._speaker(rows, awake)]
        return row

    def _speaker(self, rows: NDArray[np.float64], awake: NDArray[np.bool_]) -> int:
        import numpy as np

        highest = np.where(awake, np.exp(rows.max(axis=1)), -np.inf)
        best = int(highest.argmax())
        return 0 if awake[0] and highest[best] <= highest[0] + self._margin else best

    def observe(self, state: State, rows: NDArray[np.float64], mixed: NDArray[np.float64], symbol: int) -> State:
        """Nothing is learned."""
        return tally(state, rows, mixed, symbol)

    def shares(self, state: State) -> NDArray[np.float64]:
        """Anybody can be the next to speak."""
        import numpy as np

        return np.ones(self._members)

    def parts(self, state: State, rows: NDArray[np.float64], awake: NDArray[np.bool_]) -> NDArray[np.float64]:
        """One for whoever speaks."""
        import numpy as np

        found: NDArray[np.float64] = np.eye(self._members)[self._speaker(rows, awake)]
        return found

    def bound(self, state: State) -> float | None:
        """None."""
        return None


COMBINER = Combiner(name="confidence", spec=Confidence, rule=Rule)

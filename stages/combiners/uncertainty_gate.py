"""The gate by the target's uncertainty: another combiner speaks while it is open; while it is shut, the target, bit for bit.

Uncertainty is the target's entropy over the 257 symbols as a part of the highest, ln 257: 0 when it is sure, 1 when all are alike. The gate
is shut, exactly, below one threshold (the target knows) and above the other (it is lost, and so is whoever was fitted to it).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stages.combiners.combiner import Combiner, State, find, tally
from stages.combiners.combiner import Rule as AnyRule
from stages.errors import SpecError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class UncertaintyGate:
    """When it is open, and who speaks then."""

    above: float = 1.0
    """Shut where the uncertainty is more than this."""
    below: float = 0.02
    """Shut where it is less than this."""
    inner: str = "fixed-share"
    """The combiner that speaks while it is open. It learns from every symbol."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of `inner`."""

    def __post_init__(self) -> None:
        if not 0 <= self.below <= self.above <= 1:
            raise SpecError(f"the gate is open from {self.below} to {self.above}; both are parts, the first not above the second")


class Rule:
    """See `stages.combiners.combiner.Rule`. Weights and `extra` are those of the inner rule."""

    def __init__(self, spec: UncertaintyGate, members: int) -> None:
        self._spec = spec
        self._inner: AnyRule = find(spec.inner, spec.settings, members)

    def start(self) -> State:
        """As the inner rule begins."""
        return self._inner.start()

    def combine(self, state: State, rows: NDArray[np.float64], awake: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The target's own row, or the inner rule's."""
        if self._open(rows, awake):
            return self._inner.combine(state, rows, awake)
        row: NDArray[np.float64] = rows[0]
        return row

    def _open(self, rows: NDArray[np.float64], awake: NDArray[np.bool_]) -> bool:
        return not awake[0] or self._spec.below <= uncertainty(rows[0]) <= self._spec.above

    def observe(self, state: State, rows: NDArray[np.float64], mixed: NDArray[np.float64], symbol: int) -> State:
        """The inner rule learns; what is lost is what was said."""
        import dataclasses

        learned, counted = self._inner.observe(state, rows, mixed, symbol), tally(state, rows, mixed, symbol)
        return dataclasses.replace(learned, losses=counted.losses, loss=counted.loss, symbols=counted.symbols)

    def shares(self, state: State) -> NDArray[np.float64]:
        """The inner rule's; the target is always needed."""
        shares = self._inner.shares(state).copy()
        shares[0] = 1.0
        return shares

    def parts(self, state: State, rows: NDArray[np.float64], awake: NDArray[np.bool_]) -> NDArray[np.float64]:
        """One for the target while the gate is shut, else the inner rule's."""
        import numpy as np

        if self._open(rows, awake):
            return self._inner.parts(state, rows, awake)
        found: NDArray[np.float64] = np.eye(len(awake))[0]
        return found

    def bound(self, state: State) -> float | None:
        """None: the inner rule's bound is of its own predictions, not of the target's between them."""
        return None


def uncertainty(row: NDArray[np.float64]) -> float:
    """Entropy of log probabilities (257,), as a part of ln 257."""
    import numpy as np

    finite = row[row > -np.inf]
    return float(-(np.exp(finite) * finite).sum()) / math.log(len(row))


COMBINER = Combiner(name="uncertainty-gate", spec=UncertaintyGate, rule=Rule)

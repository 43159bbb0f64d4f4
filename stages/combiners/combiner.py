"""What a combiner is, for plug-ins of the group `alloy_ledger.combiners`.

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Loudest:
        pass

    class Rule:
        def __init__(self, members: int) -> None: ...
        # start, combine, observe, shares, parts, bound: see `Rule` below

    COMBINER = Combiner(name="loudest", spec=Loudest, rule=lambda spec, members: Rule(members))

Members see the same bytes and give the log probabilities of the next symbol: 256 bytes and the end of the text. The first member is the
target, where a combiner treats one differently. A rule is a set of pure functions of a `State`, so that a text can be gone through again.
The module is imported when a recipe is planned: numpy only inside functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from stages import plugins
from stages.errors import GuaranteeError, PluginError, SpecError
from stages.hf_model import LoadIn
from stages.questions import Answerer
from stages.stage import spec_from_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SLACK = 1e-9
"""Nats per symbol by which float64 sums may miss a bound."""


@dataclass(frozen=True, slots=True)
class State:
    """What a rule knows after some symbols. Arrays are never changed.

    Attributes:
        log_weights: (M,) of the next symbol.
        losses: (M,) nats of each member so far; of a member that was not asked, what the mixture lost.
        loss: nats of the combination.
        symbols: how many.
        extra: (...) what else a rule keeps.
    """

    log_weights: NDArray[np.float64]
    losses: NDArray[np.float64]
    loss: float = 0.0
    symbols: int = 0
    extra: NDArray[np.float64] | None = None


class Rule(Protocol):
    """One way to combine M members."""

    def start(self) -> State:
        """Before the first symbol."""
        ...

    def combine(self, state: State, rows: NDArray[np.float64], awake: NDArray[np.bool_]) -> NDArray[np.float64]:
        """(257,) log probabilities from (M, 257); rows of members that are not awake (M,) hold nothing and must not be read."""
        ...

    def observe(self, state: State, rows: NDArray[np.float64], mixed: NDArray[np.float64], symbol: int) -> State:
        """After a symbol. A member that was asleep said what the combination said: its row is `mixed`."""
        ...

    def shares(self, state: State) -> NDArray[np.float64]:
        """(M,) the most that each member can matter for the next symbol, 0 to 1, before it is asked."""
        ...

    def parts(self, state: State, rows: NDArray[np.float64], awake: NDArray[np.bool_]) -> NDArray[np.float64]:
        """(M,) how much of what `combine` says of the same arguments is each member's: not negative, together 1. For records."""
        ...

    def bound(self, state: State) -> float | None:
        """Nats that `state.loss` provably cannot exceed, whatever the text; None where nothing is proven."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Combiner:
    """A combiner: a rule for bytes, or (where members are not read byte by byte) an answerer of its own; one of the two.

    Attributes:
        name: kebab-case, recorded in results.
        spec: frozen dataclass of its settings.
        rule: `rule(spec, members)`.
        answerer: `answerer(spec, folders of the members, load_in)`.
    """

    name: str
    spec: type[Any]
    rule: Callable[[Any, int], Rule] | None = None
    answerer: Callable[[Any, Sequence[Path], LoadIn], Answerer] | None = None


def read(name: str, settings: Mapping[str, Any]) -> tuple[Combiner, Any]:
    """A registered combiner, and its settings as its spec; numbers may be decimal text, as specs are written down.

    Raises:
        PluginError: nothing has that name.
        SpecError: the settings do not fit.
    """
    found = plugins.load("combiners", name)
    if not isinstance(found, Combiner) or (found.rule is None) == (found.answerer is None):
        raise PluginError(
            f"combiner {name!r} is a {type(found).__name__}; it must be a stages.combiners.combiner.Combiner with a rule or an answerer"
        )
    try:
        return found, spec_from_json(found.spec, settings)
    except SpecError as error:
        raise SpecError(f"combiner {name}: {error}") from error


def find(name: str, settings: Mapping[str, Any], members: int) -> Rule:
    """The rule of a registered combiner.

    Raises:
        PluginError: nothing has that name.
        SpecError: the settings do not fit, or it has no rule for bytes.
    """
    found, spec = read(name, settings)
    if members < 1:
        raise SpecError(f"combiner {name}: there are no members to combine")
    if found.rule is None:
        raise SpecError(f"combiner {name} reads tokens and not bytes: it is a whole ensemble, and no rule for the next byte")
    return found.rule(spec, members)


def begin(weights: NDArray[np.float64], extra: NDArray[np.float64] | None = None) -> State:
    """A state with these weights (M,), which sum to 1."""
    import numpy as np

    with np.errstate(divide="ignore"):
        return State(np.log(weights), np.zeros(len(weights)), extra=extra)


def tally(state: State, rows: NDArray[np.float64], mixed: NDArray[np.float64], symbol: int) -> State:
    """Count what everybody lost; the weights stay."""
    return replace(state, losses=state.losses - rows[:, symbol], loss=state.loss - float(mixed[symbol]), symbols=state.symbols + 1)


def mix(log_weights: NDArray[np.float64], rows: NDArray[np.float64], awake: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(257,) log of the weighted mean of probabilities over the members that are awake; the row itself where only one has weight."""
    import numpy as np

    chosen = np.flatnonzero(awake & (log_weights > -np.inf))
    if len(chosen) == 1:
        row: NDArray[np.float64] = rows[chosen[0]]
        return row
    weighted = rows[chosen] + (log_weights[chosen] - log_sum(log_weights[chosen]))[:, None]
    top = weighted.max(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        summed = np.log(np.exp(weighted - top).sum(axis=0)) + top
    found: NDArray[np.float64] = np.where(top > -np.inf, summed, -np.inf)
    return found


def parts_of(log_weights: NDArray[np.float64], awake: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(M,) weights as `mix` uses them: of the members that are awake, together 1."""
    import numpy as np

    weighted = np.where(awake, log_weights, -np.inf)
    found: NDArray[np.float64] = np.exp(weighted - log_sum(weighted))
    return found


def log_sum(values: NDArray[np.float64]) -> float:
    """Log of the sum of exponentials."""
    import numpy as np

    top = float(values.max())
    return top if top == -math.inf else top + float(np.log(np.exp(values - top).sum()))


def check(rule: Rule, state: State) -> None:
    """Hold a run against what is proven of its rule.

    Raises:
        GuaranteeError: the loss exceeds the bound, which only a fault of this program can cause.
    """
    bound = rule.bound(state)
    if bound is not None and not state.loss <= bound + SLACK * (1 + state.symbols):
        raise GuaranteeError(
            f"{type(rule).__module__}: {state.symbols} symbols cost {state.loss:.12g} nats, and can cost {bound:.12g} at most. "
            "This is a fault of the program; please report it with the recipe"
        )

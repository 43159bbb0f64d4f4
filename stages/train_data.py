"""Which text a training step sees: a pure function of (seed, step, row), in integers, so it is the same on every machine.

The rows of all steps are numbered through. The mixture deals row numbers to domains in a fixed pattern; the n-th row of a domain is one
block of `sequence_length` tokens. An epoch goes through all blocks of the domain once, shuffled; each epoch cuts at another phase.

>>> pattern({"a": 2, "b": 1})
('a', 'b', 'a')
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.errors import InputError, SpecError

_MASK = (1 << 64) - 1


def pattern(weights: Mapping[str, int]) -> tuple[str, ...]:
    """One period of the mixture: each domain as often as its weight says, spread evenly; ties go to the first name."""
    total = sum(weights.values())
    credit = dict.fromkeys(sorted(weights), 0)
    period = []
    for _ in range(total):
        for domain in credit:
            credit[domain] += weights[domain]
        chosen = max(credit, key=lambda domain: credit[domain])
        credit[chosen] -= total
        period.append(chosen)
    return tuple(period)


class Order:
    """The sequences of a training run, by row number.

    Args:
        tokens: domain -> ids.
        mixture: domain -> weight; empty for every domain alike.
        length: tokens of one sequence.

    Raises:
        SpecError: the mixture names a domain that is not there.
        InputError: a domain is shorter than one sequence.
    """

    def __init__(self, tokens: Mapping[str, NDArray[np.unsignedinteger]], mixture: Mapping[str, int], *, length: int, seed: int) -> None:
        if set(mixture) - set(tokens):
            raise SpecError(
                f"mixture: no {', '.join(sorted(set(mixture) - set(tokens)))} in the corpus; it holds {', '.join(sorted(tokens))}"
            )
        self._tokens, self._length, self._seed = tokens, length, seed
        self._period = pattern(mixture or dict.fromkeys(tokens, 1))
        self._in_period = {domain: self._period.count(domain) for domain in self._period}
        for domain in self._in_period:
            if len(tokens[domain]) < length:
                raise InputError(f"domain {domain} has {len(tokens[domain])} tokens, fewer than one sequence of {length}")
        self._shuffled: dict[str, tuple[int, int, NDArray[np.int64]]] = {}

    def row(self, number: int) -> NDArray[np.int64]:
        """The ids of one sequence: (length,)."""
        rounds, place = divmod(number, len(self._period))
        domain = self._period[place]
        count = rounds * self._in_period[domain] + self._period[:place].count(domain)
        blocks = len(self._tokens[domain]) // self._length
        epoch, index = divmod(count, blocks)
        phase, order = self._epoch(domain, epoch, blocks)
        start = int(order[index]) * self._length + phase
        return self._tokens[domain][start : start + self._length].astype(np.int64)

    def batch(self, first: int, rows: int) -> NDArray[np.int64]:
        """Rows `first` to `first + rows`: (rows, length)."""
        return np.stack([self.row(first + offset) for offset in range(rows)])

    def _epoch(self, domain: str, epoch: int, blocks: int) -> tuple[int, NDArray[np.int64]]:
        if domain not in self._shuffled or self._shuffled[domain][0] != epoch:
            key = mix(self._seed, *domain.encode(), epoch)
            slack = len(self._tokens[domain]) - blocks * self._length
            order = np.argsort(_mixed(np.arange(blocks, dtype=np.uint64) ^ np.uint64(key)), kind="stable")
            self._shuffled[domain] = (epoch, mix(key, 1) % (slack + 1), order)
        return self._shuffled[domain][1:]


def mix(*numbers: int) -> int:
    """One 64-bit number from several (splitmix64, Steele et al. 2014), for seeds."""
    state = 0
    for number in numbers:
        state = int(_mixed(np.asarray([(state + number) & _MASK], dtype=np.uint64))[0])
    return state


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def load_tokens(folder: Path, names: Sequence[str]) -> dict[str, NDArray[np.unsignedinteger]]:
    """The arrays of a `tokens` tree that was put at `folder`, mapped, not read."""
    arrays: dict[str, NDArray[np.unsignedinteger]] = {}
    for name in names:
        domain, _, width = name.partition(".")
        arrays[domain] = np.memmap(folder / name, dtype="<u2" if width == "u16" else "<u4", mode="r")
    return arrays

"""How much models differ, without labels: what the geometric mean of their distributions gains by it.

For distributions p_1 .. p_M at the same places let q(v) be proportional to prod_i p_i(v)^(1/M). Then, whatever the labels are,

    NLL(q) = mean_i NLL(p_i) - D,    D = mean over places of -log sum_v prod_i p_i(v)^(1/M) >= 0.

So a team beats its best member exactly where D is more than the mean NLL lies above the best. D is the Bhattacharyya distance for M = 2.

>>> round(divergence([[[math.log(0.8), math.log(0.2)]], [[math.log(0.2), math.log(0.8)]]]), 6) == round(-math.log(0.8), 6)
True
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from stages.errors import InputError
from stages.team.board import log_sum

Rows = Sequence[Sequence[float]]
"""(T, V_t) log probabilities, nats: over choices, the bytes, or a vocabulary that all share."""


def geometric(members: Sequence[Rows]) -> tuple[list[list[float]], list[float]]:
    """The equal-weight geometric team: its log probabilities (T, V_t), and (T,) -log of what they were divided by, nats.

    Raises:
        InputError: no member, no place, or other places than the first member's.
    """
    if not members or not members[0]:
        raise InputError("a geometric mean needs a member and a place")
    shape = [len(row) for row in members[0]]
    for number, rows in enumerate(members):
        if [len(row) for row in rows] != shape:
            raise InputError(f"member {number} has other places than member 0: distributions must be over the same outcomes")
    mixed, prices = [], []
    for place in range(len(shape)):
        row = [
            math.fsum(values) / len(members) if -math.inf not in values else -math.inf
            for values in zip(*(rows[place] for rows in members), strict=True)
        ]
        total = log_sum(row)
        prices.append(-total)
        mixed.append([value - total for value in row] if math.isfinite(total) else row)
    return mixed, prices


def divergence(members: Sequence[Rows]) -> float:
    """D of a team, nats per place; 0 for equal members, infinite where they have no outcome in common.

    Raises:
        InputError: as `geometric`.
    """
    _, prices = geometric(members)
    return math.fsum(prices) / len(prices) if math.inf not in prices else math.inf


def nll(rows: Rows, labels: Sequence[int]) -> float:
    """Mean negative log-likelihood, nats per place."""
    values = [-row[label] for row, label in zip(rows, labels, strict=True)]
    return math.fsum(values) / len(values) if math.inf not in values else math.inf


def matrix(rows: Mapping[str, Rows]) -> dict[str, dict[str, float]]:
    """D of every pair, nats per place; symmetric, 0 on the diagonal.

    Raises:
        InputError: as `geometric`.
    """
    names = sorted(rows)
    found: dict[str, dict[str, float]] = {name: {name: 0.0} for name in names}
    for number, a in enumerate(names):
        for b in names[number + 1 :]:
            found[a][b] = found[b][a] = divergence([rows[a], rows[b]])
    return {name: {other: found[name][other] for other in names} for name in names}

"""What a trained substrate has to beat: closed forms on the same pairs of states, and the same measures for all of them.

All states are standard (each number less its mean over the training rows, through its standard deviation there), so means are zero.
Everything is float64 where it is solved; retrieval is float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Ridge penalties that are tried, per training row."""


@dataclass(frozen=True, slots=True)
class Maps:
    """Two maps into one space, in which rows of two models are compared by cosine: x @ left against y @ right."""

    left: Array
    right: Array


# --- maps ----------------------------------------------------------------------------------------------------------------------


def ridge(x: Array, y: Array, penalty: float) -> Array:
    """(h_x, h_y) the W that makes |x W - y|^2 / n + penalty |W|^2 least."""
    gram = x.T @ x / len(x)
    return np.asarray(np.linalg.solve(gram + penalty * np.eye(gram.shape[0]), x.T @ y / len(x)), np.float64)


def tuned_ridge(x: Array, y: Array, tuning: NDArray[np.bool_]) -> tuple[Array, float]:
    """Ridge with the penalty of PENALTIES that is best on the rows `tuning` when fitted on the others; then fitted on all."""
    fit_x, fit_y, x_left, y_left = x[~tuning], y[~tuning], x[tuning], y[tuning]
    losses = [float(((x_left @ ridge(fit_x, fit_y, penalty) - y_left) ** 2).mean()) for penalty in PENALTIES]
    best = PENALTIES[int(np.argmin(losses))]
    return ridge(x, y, best), best


def principal(x: Array, rank: int) -> Array:
    """(h, rank) the first principal directions, as columns of length 1; fewer when h is less."""
    _, vectors = np.linalg.eigh(x.T @ x)
    return np.ascontiguousarray(vectors[:, ::-1][:, : min(rank, x.shape[1])])


def procrustes(x: Array, y: Array, rank: int) -> Maps:
    """Both sides on their first principal directions (the same number), x turned to lie on y as well as a rotation can.

    Source: Schönemann, "A generalized solution of the orthogonal Procrustes problem", Psychometrika 31, 1966.
    """
    rank = min(rank, x.shape[1], y.shape[1])
    left, right = principal(x, rank), principal(y, rank)
    u, _, v = np.linalg.svd((x @ left).T @ (y @ right))
    return Maps(left @ (u @ v), right)


def canonical_correlation(x: Array, y: Array, rank: int, penalty: float) -> Maps:
    """Both sides whitened (with a ridge), turned so that pairs of directions correlate most, each weighted by its correlation.

    Source: Hotelling, "Relations between two sets of variates", Biometrika 28, 1936.
    """
    left, right = _whitening(x, penalty), _whitening(y, penalty)
    u, s, v = np.linalg.svd((x @ left).T @ (y @ right) / len(x), full_matrices=False)
    rank = min(rank, len(s))
    weights = np.sqrt(s[:rank])
    return Maps(left @ u[:, :rank] * weights, right @ v[:rank].T * weights)


def tuned_canonical_correlation(x: Array, y: Array, rank: int, tuning: NDArray[np.bool_], most: int = 1000) -> tuple[Maps, float]:
    """Canonical correlation with the penalty of PENALTIES that finds most of the rows `tuning` (at most so many) when fitted on the others;
    then fitted on all.
    """
    x_left, y_left = x[tuning][:most], y[tuning][:most]
    found = []
    for penalty in PENALTIES:
        maps = canonical_correlation(x[~tuning], y[~tuning], rank, penalty)
        found.append(int(hits(x_left @ maps.left, y_left @ maps.right).sum()))
    best = PENALTIES[int(np.argmax(found))]
    return canonical_correlation(x, y, rank, best), best


def _whitening(x: Array, penalty: float) -> Array:
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    return np.asarray(vectors / np.sqrt(np.maximum(values, 0) + penalty), np.float64)


# --- measures ------------------------------------------------------------------------------------------------------------------


def hits(queries: NDArray[np.floating], candidates: NDArray[np.floating], block: int = 512) -> NDArray[np.bool_]:
    """Retrieval at rank 1: for each query, whether the candidate of its own number is nearer by cosine than every other one.

    A tie is a miss: what cannot be told apart is not found. `queries` and `candidates` are (n, d); `block` queries are compared at a time.
    """
    left, right = _unit(queries), _unit(candidates)
    own = np.einsum("ij,ij->i", left, right)
    found = np.zeros(len(left), dtype=np.bool_)
    for start in range(0, len(left), block):
        rows = np.arange(start, min(start + block, len(left)))
        cosines = left[rows] @ right.T
        own[rows] = cosines[np.arange(len(rows)), rows]  # from the same product as the others, so that equal rows are equal
        cosines[np.arange(len(rows)), rows] = -np.inf
        found[rows] = own[rows] > cosines.max(axis=1, initial=-np.inf)
    return found


def _unit(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(norms > 0, norms, 1.0), dtype=np.float32)


def r_squared(found: NDArray[np.floating], wanted: NDArray[np.floating]) -> float:
    """1 - squared error / variance, over all numbers of all rows; the mean of each number would get 0."""
    errors = np.square(np.asarray(wanted, np.float64) - np.asarray(found, np.float64)).sum()
    return float(1 - errors / np.square(wanted - wanted.mean(axis=0, dtype=np.float64)).sum())


def pca_r_squared(train: Array, held_out: Array, rank: int) -> float:
    """What the first principal directions of the training rows keep of the held-out rows."""
    directions = principal(train, rank)
    return r_squared(held_out @ directions @ directions.T, held_out)


def cka(x: NDArray[np.floating], y: NDArray[np.floating]) -> float:
    """Linear centred kernel alignment of two models' rows for the same inputs: 1 when they agree up to a rotation and one scale.

    Source: Kornblith et al., arXiv:1905.00414.
    """
    a, b = (np.asarray(item, np.float64) - item.mean(axis=0, dtype=np.float64) for item in (x, y))
    together = float(np.square(a.T @ b).sum())
    return together / float(np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b))

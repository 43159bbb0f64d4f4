"""REAP: what an expert adds to a token that it is given."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.saliency import Profile


def scores(profile: Profile, layer: int, *, seed: int) -> NDArray[np.float64]:
    """score_e = (1 / N_e) sum over t in X_e of w_e(t) ||y_e(t)||_2; an expert that no token reached scores 0. Source: arXiv:2510.13999."""
    return profile.mean("weight_norm", layer)

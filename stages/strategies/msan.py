"""MSAN: the mean squared size of an expert's outputs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.saliency import Profile


def scores(profile: Profile, layer: int, *, seed: int) -> NDArray[np.float64]:
    """score_e = (1 / N_e) sum over t in X_e of ||y_e(t)||_2^2; 0 for an expert that no token reached. Source: arXiv:2606.15716."""
    return profile.mean("norm_sq", layer)

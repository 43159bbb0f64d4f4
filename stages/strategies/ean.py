"""EAN: the summed size of an expert's outputs, whatever weight they got."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.saliency import Profile


def scores(profile: Profile, layer: int, *, seed: int) -> NDArray[np.float64]:
    """score_e = sum over t in X_e of ||y_e(t)||_2. Source: REAP's baselines, arXiv:2510.13999."""
    return profile.total("norm", layer)

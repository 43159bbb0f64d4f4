"""Gate sum (SEER's soft count): how much weight the router gives an expert."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.saliency import Profile


def scores(profile: Profile, layer: int, *, seed: int) -> NDArray[np.float64]:
    """score_e = sum over t in X_e of w_e(t). Source: SEER-MoE, arXiv:2404.05089."""
    return profile.total("weight", layer)

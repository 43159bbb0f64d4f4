"""Frequency: how many tokens an expert is given. The usual baseline, and a weak one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.saliency import Profile


def scores(profile: Profile, layer: int, *, seed: int) -> NDArray[np.float64]:
    """score_e = N_e, tokens whose top-k contains the expert in the model's own routing."""
    return profile.total("count", layer)

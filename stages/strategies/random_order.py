"""Random: the control that every strategy must beat."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from stages.saliency import Profile


def scores(profile: Profile, layer: int, *, seed: int) -> NDArray[np.float64]:
    """score_e = the first 53 bits of SHA-256("<seed>/<layer>/<expert>"), as a fraction: uniform in [0, 1), the same on every machine."""
    digests = (hashlib.sha256(f"{seed}/{layer}/{expert}".encode()).digest() for expert in range(profile.about.experts))
    return np.array([(int.from_bytes(item[:8], "big") >> 11) / 2.0**53 for item in digests], dtype=np.float64)

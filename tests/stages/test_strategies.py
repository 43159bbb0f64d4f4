"""Strategies: each formula on a profile small enough to compute by hand."""

from __future__ import annotations

import numpy as np
import pytest

from stages import plugins
from stages.errors import SpecError
from stages.saliency import METRICS, About, Profile


@pytest.fixture
def profile() -> Profile:
    """Two blocks, two domains, layers 1 and 4, three experts; the last expert of layer 4 was never reached."""
    about = About(model="m", dtype="float32", max_length=8, layers=(1, 4), experts=3, top_k=2, hidden=2, domains=("a", "b"), blocks=2)
    shape = about.shapes["count"]
    sums = {metric: np.arange(np.prod(shape), dtype=float).reshape(shape) + 10 * number for number, metric in enumerate(METRICS)}
    for metric in METRICS:
        sums[metric][:, :, 1, 2] = 0
    return Profile(about, np.ones((2, 2)), np.ones((2, 2)), sums)


@pytest.mark.parametrize(
    ("name", "above", "below"),
    [
        ("reap", "weight_norm", "count"),
        ("activation-count", "count", None),
        ("calibration-aware-activation-count", "count", None),
        ("router-weight", "weight", None),
        ("ean", "norm", None),
        ("man", "norm", "count"),
        ("msan", "norm_sq", "count"),
    ],
)
def test_a_strategy_is_its_formula(profile: Profile, name: str, above: str, below: str | None) -> None:
    """Sums, or sums per routed token, over all blocks and domains; an expert that no token reached scores 0."""
    scores = plugins.load("strategies", name)(profile, 4, seed=0)
    expected = profile.sums[above][:, :, 1].sum(axis=(0, 1))
    if below:
        count = profile.sums[below][:, :, 1].sum(axis=(0, 1))
        expected = np.array([value / n if n else 0.0 for value, n in zip(expected, count, strict=True)])
    np.testing.assert_array_equal(scores, expected)
    assert scores.dtype == np.float64
    assert scores[2] == 0


def test_random_scores_are_pinned(profile: Profile) -> None:
    """The control is a function of seed, layer and expert alone: these numbers are the same on every machine."""
    random = plugins.load("strategies", "random")
    assert random(profile, 1, seed=0).tolist() == PINNED
    assert random(profile, 1, seed=1).tolist() != PINNED
    assert random(profile, 4, seed=0).tolist() != PINNED


PINNED = [0.3428294123423802, 0.13122454395803695, 0.9436038746118357]


def test_a_layer_that_is_not_there_is_named(profile: Profile) -> None:
    """Asking for another layer lists those that there are."""
    with pytest.raises(SpecError, match="no layer 2; it has 1, 4"):
        profile.total("count", 2)


def test_every_registered_strategy_scores_every_expert(profile: Profile) -> None:
    """The contract of the entry-point group: (E,) float64, finite."""
    for name in plugins.names("strategies"):
        scores = plugins.load("strategies", name)(profile, 1, seed=3)
        assert scores.shape == (3,)
        assert np.isfinite(scores).all()

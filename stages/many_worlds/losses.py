"""What training makes small. Each is a mean, so that its size does not depend on the batch, and none is zero by construction."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from stages.errors import SpecError

Distance = Literal["mse", "cosine", "l1"]


def info_nce(left: Tensor, right: Tensor, temperature: Tensor | float) -> Tensor:
    """Symmetric InfoNCE: each row of `left` is to be nearest, by cosine, to the row of `right` with its number, and the other way round.

    `left` and `right` are (B, d), of the same B inputs in two models, B at least 2; `temperature` is what cosines are divided by.

    Returns:
        mean over both directions of -log softmax; above 0 for every input, log B when all rows are alike.

    Raises:
        SpecError: fewer than two rows, where it would be 0 whatever the models do.

    Source: van den Oord et al., arXiv:1807.03748; symmetric as in CLIP, arXiv:2103.00020.
    """
    if left.shape != right.shape or left.ndim != 2 or len(left) < 2:
        raise SpecError(f"InfoNCE needs two batches of the same shape (B, d) with B of at least 2; got {left.shape} and {right.shape}")
    cosines = functional.normalize(left, dim=1) @ functional.normalize(right, dim=1).T / temperature
    own = torch.arange(len(left), device=left.device)
    return (functional.cross_entropy(cosines, own) + functional.cross_entropy(cosines.T, own)) / 2


def distance(found: Tensor, wanted: Tensor, kind: Distance) -> Tensor:
    """How far (B, h) states are from what they should be.

    `mse` and `l1`: mean over all numbers; `cosine`: 1 - mean cosine of the rows.
    """
    if kind == "mse":
        return functional.mse_loss(found, wanted)
    if kind == "l1":
        return functional.l1_loss(found, wanted)
    return 1 - functional.cosine_similarity(found, wanted, dim=1).mean()


def native_preservation(scale: Tensor) -> Tensor:
    """relu(|scale| - 1)^2: an adapter is not to shout."""
    return functional.relu(scale.abs() - 1).square().sum()

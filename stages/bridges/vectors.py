"""Lengths and directions of the last dimension."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def length(rows: Tensor) -> Tensor:
    """(..., 1) Euclidean, in float32."""
    found: Tensor = torch.linalg.vector_norm(rows.float(), dim=-1, keepdim=True)
    return found


def unit(rows: Tensor) -> Tensor:
    """Layer norm without trained numbers."""
    return functional.layer_norm(rows, rows.shape[-1:])


def direction(rows: Tensor) -> Tensor:
    """Of length 1."""
    return functional.normalize(rows, dim=-1)

"""The shared space: K Gaussians in d dimensions. A model writes a Gaussian into it as weights over them, and reads a point back.

Parameters: K directions of d numbers, K norms (base k is its direction, of length 1, times its norm) and one log temperature:
K (d + 1) + 1, which is 32,897 for d = 256 and K = 128.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

LOG_VARIANCE = (-6.0, 6.0)
_FLOOR = 1e-6


def parameter_count(dim: int, gaussians: int) -> int:
    """Trained numbers of a substrate.

    >>> parameter_count(256, 128)
    32897
    """
    return gaussians * (dim + 1) + 1


class Substrate(nn.Module):
    """The Gaussians.

    Args:
        dim: d. gaussians: K.
        generator: of the first directions, which are orthogonal (as far as K <= d allows), with norms of 1 and a temperature of 1.
    """

    def __init__(self, dim: int, gaussians: int, generator: torch.Generator) -> None:
        super().__init__()
        self.directions = nn.Parameter(nn.init.orthogonal_(torch.empty(gaussians, dim), generator=generator))
        self.norms = nn.Parameter(torch.ones(gaussians))
        self.log_temperature = nn.Parameter(torch.zeros(()))

    def bases(self) -> Tensor:
        """(K, d) the means of the Gaussians."""
        return self.norms[:, None] * nn.functional.normalize(self.directions, dim=1)

    def write(self, mean: Tensor, log_variance: Tensor) -> Tensor:
        """The field: how much each Gaussian is meant.

        Args:
            mean: (..., d).
            log_variance: (..., d), cut to -6..6.

        Returns:
            (..., K) softmax_k( -|mean - B_k|^2 / 2 / (mean_d variance + 1e-6) / T ): positive, sums to 1.
        """
        bases = self.bases()
        variance = log_variance.clamp(*LOG_VARIANCE).exp().mean(dim=-1, keepdim=True) + _FLOOR
        # |mean|^2 is the same for every k and cancels in the softmax.
        affinity = mean @ bases.T - 0.5 * bases.square().sum(dim=1)
        return torch.softmax(affinity / variance / self.log_temperature.exp(), dim=-1)

    def read(self, field: Tensor, query: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """(..., d) the point that a field means: field . B.

        Args:
            field: (..., K).
            query: (mean, log variance), each (..., d): where the reader looks; the field is weighted by what the query would write, and
                made to sum to 1 again.
        """
        if query is not None:
            field = field * self.write(*query)
            field = field / field.sum(dim=-1, keepdim=True)
        return field @ self.bases()

    def centre(self) -> Tensor:
        """(d,) what an even field reads as: the origin of directions in this space."""
        return self.bases().mean(dim=0)

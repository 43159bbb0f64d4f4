"""What leads from one model into the substrate and out of it: Project and Read, for states of size h, rank r and substrate dimension d.

Project: Linear(h -> r, no bias), dropout, GELU, two heads Linear(r -> d) for mean and log variance; the mean times a trained scale.
Read: Linear(d -> r, no bias), GELU, Linear(r -> h), times a trained scale.

Every state is first made free of its model's units: each of its h numbers less its mean, through its standard deviation, both taken once
from the training texts and kept beside the adapter; they are not trained, and are not among the parameters counted.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

HEAD_GAIN = 0.1
"""Of the Xavier bound of the last layers: small, so that a new adapter says little, and not zero, so that gradients pass."""


def parameter_count(hidden: int, rank: int, dim: int) -> int:
    """Trained numbers of an adapter pair.

    >>> [parameter_count(hidden, 256, 256) for hidden in (1536, 2048, 2560)]
    [985090, 1247746, 1510402]
    """
    return project_count(hidden, rank, dim) + read_count(hidden, rank, dim)


def project_count(hidden: int, rank: int, dim: int) -> int:
    """Those of Project: h r + 2 (r d + d) + 1.

    >>> project_count(2048, 256, 256)
    655873
    """
    return hidden * rank + 2 * (rank * dim + dim) + 1


def read_count(hidden: int, rank: int, dim: int) -> int:
    """Those of Read: d r + r h + h + 1.

    >>> read_count(2048, 256, 256)
    591873
    """
    return dim * rank + rank * hidden + hidden + 1


def _linear(inputs: int, outputs: int, gain: float, generator: torch.Generator, *, bias: bool) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, bias=bias, device="meta").to_empty(device="cpu")
    nn.init.xavier_uniform_(layer.weight, gain=gain, generator=generator)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


class Project(nn.Module):
    """States -> Gaussians of the substrate."""

    def __init__(self, hidden: int, rank: int, dim: int, *, scale: float, dropout: float, generator: torch.Generator) -> None:
        super().__init__()
        self.down = _linear(hidden, rank, 1.0, generator, bias=False)
        self.mean = _linear(rank, dim, HEAD_GAIN, generator, bias=True)
        self.log_variance = _linear(rank, dim, HEAD_GAIN, generator, bias=True)
        self.scale = nn.Parameter(torch.tensor(scale))
        self.dropout = dropout

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """(mean, log variance), each (..., d), of states (..., h)."""
        inner = functional.gelu(functional.dropout(self.down(states), self.dropout, self.training))
        return self.mean(inner) * self.scale, self.log_variance(inner)


class Read(nn.Module):
    """Points of the substrate -> states."""

    def __init__(self, hidden: int, rank: int, dim: int, *, scale: float, generator: torch.Generator) -> None:
        super().__init__()
        self.down = _linear(dim, rank, 1.0, generator, bias=False)
        self.up = _linear(rank, hidden, HEAD_GAIN, generator, bias=True)
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, points: Tensor) -> Tensor:
        """(..., h) of points (..., d)."""
        found: Tensor = self.up(functional.gelu(self.down(points))) * self.scale
        return found


class Adapter(nn.Module):
    """The pair of one model, and the units of its states.

    Attributes:
        enabled: when False, Project and Read give zeros: the model is as if it had no adapter.
    """

    center: Tensor
    spread: Tensor

    def __init__(self, hidden: int, rank: int, dim: int, *, generator: torch.Generator, scale: float = 1.0, dropout: float = 0.0) -> None:
        super().__init__()
        self.hidden, self.rank, self.dim = hidden, rank, dim
        self.project = Project(hidden, rank, dim, scale=scale, dropout=dropout, generator=generator)
        self.read = Read(hidden, rank, dim, scale=scale, generator=generator)
        self.register_buffer("center", torch.zeros(hidden))
        self.register_buffer("spread", torch.ones(hidden))
        self.enabled = True

    def standard(self, states: Tensor) -> Tensor:
        """(..., h) states in units of their own spread; float32."""
        return (states.float() - self.center) / self.spread

    def native(self, standard: Tensor) -> Tensor:
        """The way back."""
        return standard * self.spread + self.center

    def encode(self, standard: Tensor) -> tuple[Tensor, Tensor]:
        """Project: (mean, log variance) of standard states."""
        if not self.enabled:
            nothing = standard.new_zeros((*standard.shape[:-1], self.dim))
            return nothing, nothing
        found: tuple[Tensor, Tensor] = self.project(standard)
        return found

    def decode(self, points: Tensor) -> Tensor:
        """Read: standard states of points."""
        if not self.enabled:
            return points.new_zeros((*points.shape[:-1], self.hidden))
        found: Tensor = self.read(points)
        return found

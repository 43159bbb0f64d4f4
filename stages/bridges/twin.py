"""Maps that are exactly zero at the start and have gradients everywhere all the same.

A last layer of zeros gives zero too, but then nothing before it has a gradient at the first step (and a gate on it none either). Here the
map is the difference of two halves that begin as copies: their outputs cancel bit for bit, while each half sees the full gradient, once
with either sign, so the first step moves them apart.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def linear(inputs: int, outputs: int, generator: torch.Generator, *, gain: float = 1.0, bias: bool = False) -> nn.Linear:
    """A layer of Xavier weights times `gain`, drawn from the generator; biases begin at 0."""
    layer = nn.Linear(inputs, outputs, bias=bias, device="meta").to_empty(device="cpu")
    nn.init.xavier_uniform_(layer.weight, gain=gain, generator=generator)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def copy_of(module: nn.Module, twin: nn.Module) -> None:
    """Give `twin` the numbers of `module`."""
    twin.load_state_dict(module.state_dict())


class TwinGate(nn.Module):
    """sigmoid(b + w . GELU(W x) - w' . GELU(W' x)) with both halves alike at the start: sigmoid(b) whatever x is.

    As many numbers as Linear(d -> 2n), GELU, Linear(2n -> 1): 2 n (d + 1) + 2 n + 1.
    """

    BIAS = -1.0
    """sigmoid(-1) = .2689."""

    def __init__(self, dim: int, inner: int, generator: torch.Generator) -> None:
        super().__init__()
        self.plus = nn.Sequential(linear(dim, inner // 2, generator, bias=True), nn.GELU(), linear(inner // 2, 1, generator))
        self.minus = nn.Sequential(linear(dim, inner // 2, generator, bias=True), nn.GELU(), linear(inner // 2, 1, generator))
        copy_of(self.plus, self.minus)
        self.bias = nn.Parameter(torch.tensor(self.BIAS))

    def forward(self, inputs: Tensor) -> Tensor:
        """(...) shares, of inputs (..., d)."""
        found: Tensor = torch.sigmoid((self.plus(inputs) - self.minus(inputs)).squeeze(-1) + self.bias)
        return found


class LowRank(nn.Module):
    """LoRA of one matrix: alpha / r (B A - B' A') x, each half of rank r / 2, alike at the start; r (inputs + outputs) numbers."""

    def __init__(self, inputs: int, outputs: int, rank: int, alpha: float, generator: torch.Generator) -> None:
        super().__init__()
        self.scale = alpha / rank
        self.plus = nn.Sequential(linear(inputs, rank // 2, generator), linear(rank // 2, outputs, generator))
        self.minus = nn.Sequential(linear(inputs, rank // 2, generator), linear(rank // 2, outputs, generator))
        copy_of(self.plus, self.minus)

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., outputs)."""
        inputs = inputs.float()
        found: Tensor = (self.plus(inputs) - self.minus(inputs)) * self.scale
        return found


class TwinProject(nn.Module):
    """Two maps h -> d of half the rank, alike at the start, side by side: what a twin behind them takes one each of.

    Behind one map for both, the difference would be zero whatever that map is, and nothing in it would have a gradient.
    """

    def __init__(self, width: int, rank: int, dim: int, gain: float, generator: torch.Generator) -> None:
        super().__init__()
        self.plus, self.minus = (
            nn.Sequential(linear(width, rank // 2, generator), nn.GELU(), linear(rank // 2, dim, generator, gain=gain, bias=True))
            for _ in range(2)
        )
        copy_of(self.plus, self.minus)

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., 2, d)."""
        return torch.stack([self.plus(inputs), self.minus(inputs)], dim=-2)

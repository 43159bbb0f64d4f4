"""Fusion of caches: what a source says about a token is added to the target's keys and values of that token, layer by layer.

K' = K + g sigmoid(s(h)) proj(h), h = MLP([source; K; V]), and the same for V, as C2C has it (arXiv:2510.03215). Here it is the difference
of two such terms that begin as copies, each with its own map from the source, so that K' = K bit for bit at the start and everything has a
gradient, the gates too. g is sigmoid(logit / T) in training, where T may be let down to anneal it, and logit > 0 at test.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stages.bridges.twin import copy_of, linear
from stages.bridges.vectors import unit

GATE_LOGIT = 1.0
"""At the start: open at test."""


class Half(nn.Module):
    """One term: g sigmoid(s(h)) proj(h)."""

    def __init__(self, dim: int, kv_heads: int, head_dim: int, inner: int, generator: torch.Generator) -> None:
        super().__init__()
        self.heads = kv_heads
        self.inner = linear(dim + 2 * kv_heads * head_dim, inner, generator, bias=True)
        self.proj = linear(inner, 2 * kv_heads * head_dim, generator, bias=True)
        self.share = linear(inner, 2 * kv_heads, generator, bias=True)
        self.logit = nn.Parameter(torch.tensor(GATE_LOGIT))
        self.temperature = 1.0

    def _split(self, rows: Tensor) -> Tensor:
        return rows.reshape(*rows.shape[:-1], 2 * self.heads, -1)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, P, 2 heads, head_dim) of (B, P, d + 2 heads head_dim)."""
        inner = nn.functional.gelu(self.inner(inputs))
        gate = torch.sigmoid(self.logit / self.temperature) if self.training else (self.logit > 0).float()
        found: Tensor = gate * torch.sigmoid(self.share(inner))[..., None] * self._split(self.proj(inner))
        return found


class LayerFusion(nn.Module):
    """What is added to the keys and values of one layer."""

    def __init__(self, dim: int, kv_heads: int, head_dim: int, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.plus = Half(dim, kv_heads, head_dim, rank // 2, generator)
        self.minus = Half(dim, kv_heads, head_dim, rank // 2, generator)
        copy_of(self.plus, self.minus)

    def forward(self, points: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Additions to keys and values (B, heads, P, head_dim), for a source's points (B, P, 2 d), d for either half."""
        own = unit(torch.cat([keys, values], dim=1).transpose(1, 2).float().flatten(2))
        plus, minus = (
            half(torch.cat([part, own], dim=-1)) for half, part in zip((self.plus, self.minus), points.chunk(2, -1), strict=True)
        )
        added = (plus - minus).transpose(1, 2)
        key, value = added.chunk(2, dim=1)
        return key, value

    def anneal(self, temperature: float) -> None:
        """Set T of the gates in training: lower is nearer to open or shut."""
        self.plus.temperature = self.minus.temperature = temperature

    @staticmethod
    def count(dim: int, kv_heads: int, head_dim: int, rank: int) -> int:
        """Trained numbers, with w = 2 heads head_dim: r (d + w + 1) + r w + 2 w + 2 r heads + 4 heads + 2."""
        wide = 2 * kv_heads * head_dim
        return rank * (dim + wide + 1) + rank * wide + 2 * wide + 2 * rank * kv_heads + 4 * kv_heads + 2

"""What makes an injection of the field: a Q-Former, a linear map to soft tokens, attention of the target's own states, a learned prompt.

All see the field as (B, S, d) points of unit variance with a mask (B, S). Every attention to a field has one more key and value, of zeros:
it may look away, rows without a field are no special case, and a field of one point (v8) leaves queries and keys a gradient.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.bridges.twin import TwinGate, linear
from stages.bridges.vectors import unit

OUTPUT_GAIN = 0.1
"""Of the Xavier bound of last layers: little is said at the start, not nothing."""
SOFT_GAIN = 0.02
"""The same of a Q-Former's last layer."""
GATE_INNER = 64


def encode(distance: Tensor, dim: int) -> Tensor:
    """(..., d) sines and cosines of places counted from the end of the prefix; nothing trained, nothing stored."""
    rates = torch.exp(torch.arange(0, dim, 2, device=distance.device) * (-math.log(10_000.0) / dim))
    angles = distance[..., None].float() * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class Attention(nn.Module):
    """Multi-head attention without biases, 4 d^2 numbers."""

    def __init__(self, dim: int, heads: int, generator: torch.Generator, *, inputs: int | None = None) -> None:
        super().__init__()
        outer = dim if inputs is None else inputs
        self.heads = heads
        self.query = linear(outer, dim, generator)
        self.key = linear(dim, dim, generator)
        self.value = linear(dim, dim, generator)
        self.out = linear(dim, outer, generator, gain=OUTPUT_GAIN)

    def _split(self, rows: Tensor) -> Tensor:
        return rows.reshape(*rows.shape[:2], self.heads, -1).transpose(1, 2)

    def _keys(self, field: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        key, value = self._split(self.key(field)), self._split(self.value(field))
        if mask is None:
            return key, value, None
        key, value = functional.pad(key, (0, 0, 0, 1)), functional.pad(value, (0, 0, 0, 1))
        return key, value, functional.pad(mask, (0, 1), value=True)[:, None, None]

    def context(self, rows: Tensor, field: Tensor, mask: Tensor | None) -> Tensor:
        """(B, Q, d) what the rows (B, Q, outer) find, before the last layer; with a mask, there is a key of zeros too."""
        key, value, allowed = self._keys(field, mask)
        found = functional.scaled_dot_product_attention(self._split(self.query(rows)), key, value, attn_mask=allowed)
        return found.transpose(1, 2).flatten(2)

    def maps(self, rows: Tensor, field: Tensor, mask: Tensor | None) -> Tensor:
        """(B, heads, Q, S or S + 1) the weights of `context`."""
        key, _, allowed = self._keys(field, mask)
        query = self._split(self.query(rows))
        scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])
        return torch.softmax(scores if allowed is None else scores.masked_fill(~allowed, -math.inf), dim=-1)

    def forward(self, rows: Tensor, field: Tensor, mask: Tensor | None) -> Tensor:
        """(B, Q, outer)."""
        found: Tensor = self.out(self.context(rows, field, mask))
        return found


class Layer(nn.Module):
    """One layer of a Q-Former: queries look at the field, at each other, and think; pre-norm, residual around each."""

    def __init__(self, dim: int, heads: int, generator: torch.Generator) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        self.cross = Attention(dim, heads, generator)
        self.own = Attention(dim, heads, generator)
        self.think = nn.Sequential(
            linear(dim, 4 * dim, generator, bias=True), nn.GELU(), linear(4 * dim, dim, generator, gain=OUTPUT_GAIN, bias=True)
        )

    def forward(self, queries: Tensor, field: Tensor, mask: Tensor) -> Tensor:
        """(B, k, d)."""
        queries = queries + self.cross(self.norms[0](queries), field, mask)
        inner = self.norms[1](queries)
        queries = queries + self.own(inner, inner, None)
        found: Tensor = queries + self.think(self.norms[2](queries))
        return found


class QFormer(nn.Module):
    """k learned queries, each of which asks the field for something else (BLIP-2, arXiv:2301.12597).

    The queries begin at unit variance, not at .02: next to a field of unit variance, small ones come out nearly alike.
    """

    def __init__(self, dim: int, tokens: int, layers: int, heads: int, generator: torch.Generator) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(tokens, dim, generator=generator))
        self.layers = nn.ModuleList(Layer(dim, heads, generator) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)

    def forward(self, field: Tensor, mask: Tensor) -> Tensor:
        """(B, k, d) of unit variance."""
        queries = self.queries.expand(len(field), -1, -1)
        for layer in self.layers:
            queries = layer(queries, field, mask)
        found: Tensor = self.norm(queries)
        return found

    @staticmethod
    def count(dim: int, tokens: int, layers: int) -> int:
        """Trained numbers: k d + layers (16 d^2 + 11 d) + 2 d.

        >>> QFormer.count(256, 16, 2) + 256 * 2560 + 2560  # with the last layer to Phi-2: the prior art's 2.77 M
        2765312
        """
        return tokens * dim + layers * (16 * dim * dim + 11 * dim) + 2 * dim


class Soft(nn.Module):
    """v9: one pooled point -> k soft tokens, Linear(d -> k h)."""

    def __init__(self, dim: int, tokens: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.tokens = tokens
        self.out = linear(dim, tokens * hidden, generator, bias=True)

    def forward(self, point: Tensor) -> Tensor:
        """(B, k, h) of (B, d)."""
        found: Tensor = self.out(point)
        return found.reshape(*found.shape[:-1], self.tokens, -1)

    @staticmethod
    def count(dim: int, tokens: int, hidden: int) -> int:
        """Trained numbers.

        >>> Soft.count(256, 16, 2560)
        10526720
        """
        return (dim + 1) * tokens * hidden


class Vocabulary(nn.Module):
    """v12: a query -> weights over the target's own embeddings, softmax(LN(W q) . E / (mean row norm x T)), T trained."""

    def __init__(self, dim: int, hidden: int, temperature: float, generator: torch.Generator) -> None:
        super().__init__()
        self.ask = linear(dim, hidden, generator, gain=OUTPUT_GAIN, bias=True)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))

    def forward(self, queries: Tensor, embedding: Tensor, mean_norm: Tensor) -> Tensor:
        """(B, k, V): at least 0, each row sums to 1."""
        scores = unit(self.ask(queries)) @ (embedding.float() / mean_norm).T
        return torch.softmax(scores / self.log_temperature.exp(), dim=-1)


class Prompt(nn.Module):
    """The control of equal size: k trained vectors of the target's mean embedding norm at the start."""

    def __init__(self, tokens: int, hidden: int, norm: float, generator: torch.Generator) -> None:
        super().__init__()
        self.soft = nn.Parameter(torch.randn(tokens, hidden, generator=generator) * (norm / math.sqrt(hidden)))


class CrossAttention(nn.Module):
    """v3 to v8: the target's hidden states ask the field; the gate is per place."""

    def __init__(self, dim: int, hidden: int, heads: int, gated: bool, generator: torch.Generator) -> None:
        super().__init__()
        self.attention = Attention(dim, heads, generator, inputs=hidden)
        self.gate = TwinGate(dim, GATE_INNER, generator) if gated else None

    def forward(self, hidden: Tensor, field: Tensor, mask: Tensor, forced: float | None) -> Tensor:
        """(B, S, h) what to add to hidden states (B, S, h)."""
        context = self.attention.context(unit(hidden.float()), field, mask)
        found: Tensor = self.attention.out(context)
        if self.gate is None:
            return found
        return found * (self.gate(unit(context))[..., None] if forced is None else forced)

"""What reaches the target, and the controls on it: nothing, zeros, random vectors of the same norms, the mean embedding."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from stages.bridges.lora import Lora
from stages.bridges.spec import Place
from stages.bridges.vectors import direction, length
from stages.errors import SpecError

if TYPE_CHECKING:
    from stages.bridges.target import BridgedTarget

Delta = Callable[[Tensor], Tensor]
"""Hidden states (B, S, h) at the layer of insertion -> what is added to them."""
Fuse = Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(layer, keys, values), each (B, heads, P, head_dim) of the first P tokens -> what is added to either."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Injection:
    """For B rows; at most one of `soft`, `delta`, `fuse`.

    Attributes:
        soft: (B, k, h) in place of token embeddings; (1, k, h) for any number of rows.
        place: where these stand.
        delta: acts from the last token of the prefix on.
        fuse: acts on the keys and values of the prefix but its last token.
        lora: acts from the last token of the prefix on.
        active: (B,) bool; rows where it is False are the target's own, computed as if there were no injection.
    """

    soft: Tensor | None = None
    place: Place = "front"
    delta: Delta | None = None
    fuse: Fuse | None = None
    lora: Lora | None = None
    active: Tensor | None = None

    def __post_init__(self) -> None:
        if sum(item is not None for item in (self.soft, self.delta, self.fuse)) > 1 or (self.lora is not None and self.delta is None):
            raise SpecError("an injection is soft tokens, or additions to hidden states (with LoRA, perhaps), or to a cache")

    @property
    def is_none(self) -> bool:
        """Whether it is nothing at all: the target is then called as it is."""
        return self.soft is None and self.delta is None and self.fuse is None


def none() -> Injection:
    """The target alone, LoRA off."""
    return Injection()


def zeroed(injection: Injection) -> Injection:
    """The same with nothing but zeros in it; LoRA stays, so what it gains by itself shows."""

    def delta(hidden: Tensor) -> Tensor:
        return torch.zeros_like(hidden)

    def fuse(layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(keys), torch.zeros_like(values)

    return _changed(injection, None if injection.soft is None else torch.zeros_like(injection.soft), delta, fuse)


def random_like(injection: Injection, seed: int) -> Injection:
    """The same norms, row by row, in random directions.

    Each soft token, and each added key and value, has its own direction. What is added to hidden states has one direction for each of the B
    rows, wherever it is added, so that it does not depend on how a text is cut into calls.
    """
    inner_delta, inner_fuse, soft = injection.delta, injection.fuse, injection.soft

    def delta(hidden: Tensor) -> Tensor:
        assert inner_delta is not None
        size = length(inner_delta(hidden))
        return size * _directions((len(hidden), 1, hidden.shape[-1]), seed, size)

    def fuse(layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        assert inner_fuse is not None
        added = inner_fuse(layer, keys, values)
        key, value = (length(item) * _directions(tuple(item.shape), seed + 2 * layer + n, item) for n, item in enumerate(added))
        return key, value

    random = None if soft is None else length(soft) * _directions(tuple(soft.shape), seed, soft)
    return _changed(injection, random, delta, fuse)


def mean_embedding(injection: Injection, target: BridgedTarget) -> Injection:
    """The target's mean embedding for each soft token; in the direction of it, and as long as what it replaces, for hidden states.

    Raises:
        SpecError: of a cache, where it means nothing.
    """
    if injection.fuse is not None:
        raise SpecError("a mean embedding is no control for additions to a cache: take zeroed or random_like")
    mean, inner_delta, soft = target.mean_embedding, injection.delta, injection.soft

    def delta(hidden: Tensor) -> Tensor:
        assert inner_delta is not None
        return length(inner_delta(hidden)) * direction(mean)

    return _changed(injection, None if soft is None else mean.to(soft.dtype).expand_as(soft), delta, None)


def _changed(injection: Injection, soft: Tensor | None, delta: Delta, fuse: Fuse | None) -> Injection:
    return dataclasses.replace(
        injection,
        soft=soft,
        delta=None if injection.delta is None else delta,
        fuse=None if injection.fuse is None else fuse,
    )


def _directions(shape: tuple[int, ...], seed: int, like: Tensor) -> Tensor:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return direction(drawn).to(like)

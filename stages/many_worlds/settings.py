"""Settings of many-worlds training, as the specs of its stages share them. Imports no ML library: the runner reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stages.errors import SpecError

LossType = Literal["contrastive", "round_trip", "both"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """Weights of the losses; 0 leaves one out."""

    contrastive: float = 1.0
    """Symmetric InfoNCE, mean over pairs of models."""
    round_trip: float = 1.0
    """A model's states from their own points."""
    cross_model: float = 1.0
    """A model's states from the points of the others."""
    native: float = 0.1
    """relu(|scale| - 1)^2 of the output scales."""
    round_trip_distance: Literal["mse", "cosine", "l1"] = "mse"
    temperature: float = 0.07
    """Of InfoNCE, at the start."""
    learn_temperature: bool = False

    def __post_init__(self) -> None:
        for name in ("contrastive", "round_trip", "cross_model", "native"):
            if not getattr(self, name) >= 0:
                raise SpecError(f"{name} is {getattr(self, name)}; a weight must not be negative")
        if not self.contrastive + self.round_trip + self.cross_model > 0:
            raise SpecError("contrastive, round_trip and cross_model are all 0: nothing would be trained")
        if not self.temperature > 0:
            raise SpecError(f"temperature is {self.temperature}; it must be more than 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How the weights move: AdamW, a linear warm-up over min(steps / 10, 500) steps, then a cosine; gradients cut to a norm."""

    steps: int
    learning_rate: float
    """The highest."""
    batch_size: int = 256
    """Places in texts per step: the candidates of each other in InfoNCE."""
    floor_ratio: float = 0.01
    """The rate at the beginning of the warm-up and at the end, as a part of the highest."""
    weight_decay: float = 0.01
    """Of matrices."""
    max_gradient_norm: float = 1.0
    dropout: float = 0.0
    """In Project, while training."""
    heldout_percent: int = 20
    """Of texts (by a hash of each), which training never sees."""
    shuffled: bool = False
    """The control: every model's rows are shuffled by themselves, so no two states of a batch belong together."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise SpecError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if self.batch_size < 2:
            raise SpecError(f"batch_size is {self.batch_size}; InfoNCE of one pair is 0 whatever the models do, so it must be at least 2")
        if not self.learning_rate > 0:
            raise SpecError(f"learning_rate is {self.learning_rate}; it must be more than 0")
        for name in ("floor_ratio", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise SpecError(f"{name} is {getattr(self, name)}; it must be at least 0 and less than 1")
        for name in ("weight_decay", "max_gradient_norm"):
            if getattr(self, name) < 0:
                raise SpecError(f"{name} is {getattr(self, name)}; it must not be negative")
        if not 0 < self.heldout_percent < 100:
            raise SpecError(f"heldout_percent is {self.heldout_percent}; both sides need texts, so it must be between 1 and 99")

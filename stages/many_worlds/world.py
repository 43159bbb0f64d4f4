"""A substrate with the adapters of several models, and what a training step makes of it.

There is one way from a model to another: Read_t(read(write(Project_s(h)))). Contrastive, round trip and cross-model losses all go through
the substrate, so a gradient reaches every parameter, the Gaussians and the log variances too.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stages.errors import InputError
from stages.many_worlds.adapter import Adapter
from stages.many_worlds.losses import distance, info_nce, native_preservation
from stages.many_worlds.settings import Objective
from stages.many_worlds.substrate import Substrate

COLUMNS = ("loss", "contrastive", "round_trip", "cross_model", "native", "gradient_norm", "learning_rate")
"""What is kept of every step; a loss that does not count in the training is 0."""


@dataclass(frozen=True, slots=True)
class AdapterShape:
    """What an adapter is made for: states of `hidden` numbers, rank `rank`."""

    hidden: int
    rank: int


class World(nn.Module):
    """The substrate, the adapters by model, and the temperature of the contrastive loss.

    Args:
        shapes: model -> shape, in an order that is the world's own.
        scale: first output scale of Project and Read.
        temperature: of the contrastive loss; trained (as its logarithm) only where the objective says so.
    """

    def __init__(
        self, dim: int, gaussians: int, shapes: Mapping[str, AdapterShape], *, seed: int, scale: float, dropout: float, temperature: float
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.dim, self.gaussians = dim, gaussians
        self.substrate = Substrate(dim, gaussians, generator)
        self.adapters = nn.ModuleDict(
            {
                _key(name): Adapter(shape.hidden, shape.rank, dim, generator=generator, scale=scale, dropout=dropout)
                for name, shape in shapes.items()
            }
        )
        self.contrast_log_temperature = nn.Parameter(torch.tensor(temperature).log())

    @property
    def names(self) -> tuple[str, ...]:
        """The models that have adapters, in order."""
        return tuple(key.removeprefix(_key("")) for key in self.adapters)

    def adapter(self, name: str) -> Adapter:
        """The adapter of a model.

        Raises:
            InputError: there is none.
        """
        if _key(name) not in self.adapters:
            raise InputError(f"there is no adapter of {name!r}; there are {', '.join(self.names)}")
        found = self.adapters[_key(name)]
        assert isinstance(found, Adapter)
        return found

    def point(self, name: str, standard: Tensor) -> Tensor:
        """(..., d) where a model's standard states lie in the substrate: read(write(Project(h)))."""
        return self.substrate.read(self.substrate.write(*self.adapter(name).encode(standard)))

    def direction(self, points: Tensor) -> Tensor:
        """(..., d) points less the substrate's centre: what is compared by cosine, and what must not all be one direction."""
        return points - self.substrate.centre()

    def cross(self, source: str, target: str, states: Tensor) -> Tensor:
        """(..., h_target) a source's states (in its own units) as states of the target (in its own)."""
        adapter = self.adapter(target)
        return adapter.native(adapter.decode(self.point(source, self.adapter(source).standard(states))))

    def trained(self, objective: Objective, new: str) -> Iterator[tuple[str, nn.Parameter]]:
        """(name, parameter) of what a training moves: all, or the adapter of the model `new` alone. Base models are not among them."""
        for name, value in self.named_parameters():
            if name == "contrast_log_temperature":
                if objective.learn_temperature and objective.contrastive > 0:
                    yield name, value
            elif not new or name.startswith(f"adapters.{_key(new)}."):
                yield name, value

    def losses(self, standard: Mapping[str, Tensor], objective: Objective, new: str = "") -> dict[str, Tensor]:
        """The parts of the loss by name, those that count, and `loss`, their weighted sum.

        Args:
            standard: model -> (B, h) standard states for the same B inputs.
            objective: which parts count, and how much.
            new: the model whose adapter alone is trained; only what it is part of counts. Empty: all are.
        """
        names = list(standard)
        points = {name: self.point(name, standard[name]) for name in names}
        pairs = [pair for pair in itertools.combinations(names, 2) if not new or new in pair]
        parts: dict[str, Tensor] = {}
        if objective.contrastive > 0 and pairs:
            temperature = self.contrast_log_temperature.exp()
            directions = {name: self.direction(points[name]) for name in names}
            parts["contrastive"] = _mean([info_nce(directions[a], directions[b], temperature) for a, b in pairs])
        if objective.round_trip > 0:
            own = [new] if new else names
            parts["round_trip"] = _mean(
                [distance(self.adapter(n).decode(points[n]), standard[n], objective.round_trip_distance) for n in own]
            )
        if objective.cross_model > 0 and pairs:
            ways = [way for a, b in pairs for way in ((a, b), (b, a))]
            parts["cross_model"] = _mean(
                [distance(self.adapter(b).decode(points[a]), standard[b], objective.round_trip_distance) for a, b in ways]
            )
        if objective.native > 0:
            scales = [scale for n in ([new] if new else names) for scale in (self.adapter(n).project.scale, self.adapter(n).read.scale)]
            parts["native"] = _mean([native_preservation(scale) for scale in scales])
        parts["loss"] = torch.stack([getattr(objective, name) * value for name, value in parts.items()]).sum()
        return parts


def _mean(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(values)).mean()


def _key(name: str) -> str:
    """Torch refuses submodules with names such as `train`, which a model may well have."""
    return f"of:{name}"

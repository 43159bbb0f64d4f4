"""The state between two segments of a many-worlds training: all that the next step depends on, as one safetensors file.

Tensors, sorted by name: `param/`, `exp_avg/`, `exp_avg_sq/` (AdamW's moments, of what is trained), `unit/` (centre and spread of each
model's states), and `history` (steps done, columns): every step's losses, gradient norm before the cut, and rate. The header has the shapes
and the number of steps. No generator state: what is random is made anew from (seed, step).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stages.errors import InputError
from stages.many_worlds import tensor_file
from stages.many_worlds.world import COLUMNS, AdapterShape, World
from store.cas import Cas
from store.digest import Digest

FORM = "many-worlds-state/v1"


@dataclass
class State:
    """A world in training.

    Attributes:
        new: the model whose adapter alone is trained; empty for all.
        layers: model -> layer of its states.
        moments: kind (exp_avg, exp_avg_sq) -> parameter -> values; empty before the first step.
        history: one row of COLUMNS a step.
    """

    world: World
    new: str
    layers: Mapping[str, int]
    moments: dict[str, dict[str, Tensor]] = field(default_factory=lambda: {"exp_avg": {}, "exp_avg_sq": {}})
    history: list[list[float]] = field(default_factory=list)

    @property
    def step(self) -> int:
        """Steps done."""
        return len(self.history)

    def store(self, store: Cas) -> Digest:
        """Store it."""
        world = self.world
        head = {
            "columns": list(COLUMNS),
            "dim": world.dim,
            "gaussians": world.gaussians,
            "layers": dict(self.layers),
            "models": [{"name": name, "hidden": world.adapter(name).hidden, "rank": world.adapter(name).rank} for name in world.names],
            "new": self.new,
            "step": self.step,
        }
        tensors: dict[str, Tensor] = {f"param/{name}": value for name, value in world.named_parameters()}
        tensors |= {f"unit/{name}": value for name, value in world.named_buffers()}
        tensors |= {f"{kind}/{name}": value for kind, values in self.moments.items() for name, value in values.items()}
        tensors["history"] = torch.tensor(self.history, dtype=torch.float64).reshape(self.step, len(COLUMNS))
        return tensor_file.write(store, FORM, head, tensors)


def load(path: Path, device: torch.device | None = None) -> State:
    """Read a state back.

    Raises:
        InputError: it is none, or does not hold what its header says.
    """
    file = tensor_file.read(path, FORM)
    head = file.head
    shapes = {item["name"]: AdapterShape(item["hidden"], item["rank"]) for item in head["models"]}
    world = World(head["dim"], head["gaussians"], shapes, seed=0, scale=1.0, dropout=0.0, temperature=1.0)
    fill(world, {**file.under("param"), **file.under("unit")}, path.name)
    world.to(device or torch.device("cpu"))
    moments = {kind: {name: value.to(device) for name, value in file.under(kind).items()} for kind in ("exp_avg", "exp_avg_sq")}
    return State(world, head["new"], head["layers"], moments, file.tensors["history"].tolist())


def fill(module: torch.nn.Module, values: Mapping[str, Tensor], what: str) -> None:
    """Put stored values into a module, all of it and nothing else.

    Raises:
        InputError: a name or a shape differs.
    """
    own: dict[str, Any] = module.state_dict()
    if {name: value.shape for name, value in own.items()} != {name: value.shape for name, value in values.items()}:
        odd = sorted(n for n in {*own, *values} if n not in own or n not in values or own[n].shape != values[n].shape)
        raise InputError(f"{what} does not hold the parameters that its header describes: {', '.join(odd[:4])}")
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(values[name])

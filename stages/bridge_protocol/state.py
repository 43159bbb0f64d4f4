"""The state between two segments of a bridge's training: all that the next step depends on, as one safetensors file.

Tensors: `param/`, `exp_avg/`, `exp_avg_sq/` (AdamW's moments), `unit/` (the units of each source's states), and `history` (steps done,
columns). The header says what bridge it is. No generator state: what is random is made anew from (seed, step).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from stages.bridges.bridge import Bridge, Sender, build
from stages.bridges.field import Field
from stages.bridges.spec import BridgeSpec
from stages.bridges.target import BridgedTarget
from stages.many_worlds import tensor_file
from stages.many_worlds.state import fill
from stages.stage import spec_from_json, spec_to_json
from store.cas import Cas
from store.digest import Digest

FORM = "bridge-state/v1"
COLUMNS = ("loss", "gradient_norm", "learning_rate")
"""What is kept of every step; the gradient's norm is that before the cut."""


class Trained(nn.Module):
    """A bridge in training, and in the control the constant that stands in place of every source's states.

    Args:
        constant: whether the sources' states are replaced by trained numbers, `spec.soft_tokens` places of each source (one for a cache).
    """

    def __init__(self, bridge: Bridge, *, constant: bool) -> None:
        super().__init__()
        self.bridge = bridge
        places = 1 if bridge.spec.inject == "cache" else bridge.spec.soft_tokens
        widths = [len(sender.center) for sender in senders(bridge)] if constant else []
        self.constants = nn.ParameterList(nn.Parameter(torch.zeros(places, width, device=bridge._target.device)) for width in widths)

    def draw_constants(self, seed: int) -> None:
        """First values: normal, in the units of the source's states, which must be fitted."""
        generator = torch.Generator().manual_seed(seed)
        for value, sender in zip(self.constants, senders(self.bridge), strict=False):
            drawn = torch.randn(value.shape, generator=generator).to(value.device)
            with torch.no_grad():
                value.copy_(sender.center + sender.spread * drawn)

    def fields(self, given: Sequence[Field | None]) -> Sequence[Field | None]:
        """What the bridge is given: the sources' fields, or as many rows of the constant. Of a cache, at every place of the prefix."""
        if not len(self.constants):
            return given
        found: list[Field | None] = []
        for value, item in zip(self.constants, given, strict=True):
            if item is None:
                found.append(None)
                continue
            rows, places, _ = item.states.shape
            if self.bridge.spec.inject == "cache":
                found.append(Field(value.expand(rows, places, -1), item.mask))
            else:
                found.append(Field(value.expand(rows, -1, -1), torch.ones(rows, len(value), dtype=torch.bool, device=value.device)))
        return found


def senders(bridge: Bridge) -> Iterator[Sender]:
    """The bridge's, in order."""
    for sender in bridge.senders:
        assert isinstance(sender, Sender)
        yield sender


@dataclass
class State:
    """A bridge in training.

    Attributes:
        sources: names, in order.
        frozen: beginnings of names of parameters that no step moves.
        moments: kind (exp_avg, exp_avg_sq) -> parameter -> values; empty before the first step.
        history: one row of COLUMNS a step.
    """

    module: Trained
    sources: tuple[str, ...]
    constant: bool
    frozen: tuple[str, ...] = ()
    moments: dict[str, dict[str, Tensor]] = field(default_factory=lambda: {"exp_avg": {}, "exp_avg_sq": {}})
    history: list[list[float]] = field(default_factory=list)

    @property
    def bridge(self) -> Bridge:
        """The bridge."""
        return self.module.bridge

    @property
    def step(self) -> int:
        """Steps done."""
        return len(self.history)

    def trained(self) -> dict[str, nn.Parameter]:
        """Name -> parameter of what a step moves; nothing of a base model is among them."""
        return (
            {name: value for name, value in self.module.named_parameters() if not name.startswith(self.frozen)}
            if self.frozen
            else dict(self.module.named_parameters())
        )

    def store(self, store: Cas) -> Digest:
        """Store it."""
        head = {
            "bridge": spec_to_json(self.bridge.spec),
            "columns": list(COLUMNS),
            "constant": self.constant,
            "frozen": list(self.frozen),
            "sources": list(self.sources),
            "widths": [len(sender.center) for sender in senders(self.bridge)],
        }
        tensors: dict[str, Tensor] = {f"param/{name}": value for name, value in self.module.named_parameters()}
        tensors |= {f"unit/{name}": value for name, value in self.module.named_buffers()}
        tensors |= {f"{kind}/{name}": value for kind, values in self.moments.items() for name, value in values.items()}
        tensors["history"] = torch.tensor(self.history, dtype=torch.float64).reshape(self.step, len(COLUMNS))
        return tensor_file.write(store, FORM, head, tensors)


def spec_of(path: Path) -> BridgeSpec:
    """What bridge a state is of.

    Raises:
        InputError: it is no state.
    """
    found: BridgeSpec = spec_from_json(BridgeSpec, tensor_file.read_head(path, FORM)["bridge"])
    return found


def load(path: Path, target: BridgedTarget) -> State:
    """Read a state back, for the target that it was made for.

    Raises:
        InputError: it is none, or does not hold what its header says.
    """
    file = tensor_file.read(path, FORM)
    head = file.head
    bridge = build(spec_from_json(BridgeSpec, head["bridge"]), target, head["widths"], 0)
    module = Trained(bridge, constant=head["constant"])
    fill(module, {**file.under("param"), **file.under("unit")}, path.name)
    moments = {kind: {name: value.to(target.device) for name, value in file.under(kind).items()} for kind in ("exp_avg", "exp_avg_sq")}
    return State(module, tuple(head["sources"]), head["constant"], tuple(head["frozen"]), moments, file.tensors["history"].tolist())


def count(values: Mapping[str, Tensor]) -> int:
    """Numbers in all of them."""
    return sum(value.numel() for value in values.values())

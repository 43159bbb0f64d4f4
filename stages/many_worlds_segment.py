"""One segment of a many-worlds training: from the state after step i to the state after step `until`, the same bytes however it is cut.

Which places a step sees is a function of (seed, step); all else that it depends on is in the state. The models do not run here: their
states were kept by `hidden-states`.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stages.errors import InputError, SpecError, StageError
from stages.many_worlds.settings import Objective, Schedule
from stages.stage import Context, Leaf, Outcome
from store.digest import Digest

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from stages.many_worlds.state import State

MAX_WARMUP = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class ManyWorldsSegment(Schedule):
    """The settings of the whole training, and how far this segment goes."""

    until: int
    """Steps done when it ends, counted from the beginning."""
    objective: Objective = field(default_factory=Objective)

    def __post_init__(self) -> None:
        Schedule.__post_init__(self)
        if not 0 < self.until <= self.steps:
            raise SpecError(f"until is {self.until}; it must be between 1 and steps, {self.steps}")


STAGE = Leaf(
    name="many-worlds-segment",
    version=1,
    spec=ManyWorldsSegment,
    inputs=("state", "aligned"),
    outputs=("state",),
    purity="E",
    run="stages.many_worlds_segment:run",
    share=("aligned",),
)


def learning_rate(spec: Schedule, step: int) -> float:
    """The rate of a step (counted from 0): from the floor to the highest over min(steps / 10, 500) steps, then a cosine to the floor.

    >>> spec = Schedule(steps=101, learning_rate=1.0)
    >>> [round(learning_rate(spec, step), 3) for step in (0, 9, 10, 55, 100)]
    [0.109, 1.0, 1.0, 0.505, 0.01]
    """
    warmup = min(spec.steps // 10, MAX_WARMUP)
    floor = spec.floor_ratio
    if step < warmup:
        return spec.learning_rate * (floor + (1 - floor) * (step + 1) / warmup)
    gone = (step - warmup) / max(1, spec.steps - 1 - warmup)
    return spec.learning_rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * gone)))


def run(spec: ManyWorldsSegment, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Take the steps.

    Raises:
        InputError: the state is further than `until`, or of other models.
        StageError: the loss is not a number any more.
    """
    import torch

    from stages.many_worlds import state

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    key = f"many-worlds-segment:{spec.shuffled}"  # two chains may share a worker: the training and its control
    held: tuple[Digest, State] | None = context.memo.pop(key, None)
    current = held[1] if held is not None and held[0] == inputs["state"] else state.load(context.path(inputs["state"]), device)
    if current.step >= spec.until:
        raise InputError(f"state {inputs['state'].short} is at step {current.step} already; this segment ends at {spec.until}")
    rows = _rows(spec, current, inputs["aligned"], context, device)
    first, started = current.step, time.monotonic()
    optimizer = _optimizer(spec, current)
    while current.step < spec.until:
        take_step(spec, current, optimizer, rows)
        context.progress(current.step - first, spec.until - first, "steps")
    elapsed = time.monotonic() - started
    digest = current.store(context.store)
    context.memo[key] = (digest, current)
    context.note("device", device.type)
    context.note("loss", f"{current.history[first][0]:.4f} to {current.history[-1][0]:.4f}")
    context.note("steps_per_s", f"{(spec.until - first) / max(elapsed, 1e-9):.1f}")
    return Outcome({"state": digest})


def _rows(spec: ManyWorldsSegment, current: State, digest: Digest, context: Context, device: torch.device) -> dict[str, Tensor]:
    """Model -> (n, h) standard states of the training texts, in the order of the world; shuffled each by itself for the control."""
    import torch

    from stages.many_worlds import aligned
    from stages.train_data import mix

    units = hashlib.sha256(b"".join(value.cpu().numpy().tobytes() for _, value in current.world.named_buffers())).hexdigest()
    key = f"many-worlds-rows:{digest}:{units}:{spec.heldout_percent}:{spec.shuffled}:{spec.seed}"
    if key not in context.memo:
        data = aligned.load(context.folder(digest), spec.heldout_percent)
        names = current.world.names
        missing = [name for name in data.train.states if name not in names]
        if missing or (not current.new and len(names) != len(data.train.states)):
            raise InputError(f"the states are of {', '.join(data.train.states)}, the training of {', '.join(names)}")
        found = {}
        for number, name in enumerate(name for name in names if name in data.train.states):
            adapter = current.world.adapter(name)
            states = adapter.standard(data.train.states[name].to(device))
            if spec.shuffled:
                generator = torch.Generator().manual_seed(mix(spec.seed, number, 1) & 0x7FFFFFFF)
                states = states[torch.randperm(len(states), generator=generator).to(device)]
            found[name] = states
        context.memo[key] = found
    rows: dict[str, Tensor] = context.memo[key]
    if len(next(iter(rows.values()))) < spec.batch_size:
        raise SpecError(f"batch_size is {spec.batch_size}, and there are {len(next(iter(rows.values())))} training places; take more texts")
    return rows


def batch(spec: Schedule, step: int, count: int) -> Tensor:
    """(batch_size,) the rows of a step: every epoch goes through all rows once in a new order (but for the last part of a batch), so no
    two of a batch are the same.
    """
    import torch

    from stages.train_data import mix

    epoch, place = divmod(step, count // spec.batch_size)
    generator = torch.Generator().manual_seed(mix(spec.seed, epoch) & 0x7FFFFFFF)
    return torch.randperm(count, generator=generator)[place * spec.batch_size : (place + 1) * spec.batch_size]


def _optimizer(spec: ManyWorldsSegment, current: State) -> torch.optim.AdamW:
    """AdamW around the moments of the state."""
    from stages.many_worlds.optimizer import adamw

    trained = dict(current.world.trained(spec.objective, current.new))
    for name, value in current.world.named_parameters():
        value.requires_grad_(name in trained)
    rates = {"learning_rate": spec.learning_rate, "weight_decay": spec.weight_decay}
    return adamw(trained, current.moments, step=current.step, **rates)


def take_step(spec: ManyWorldsSegment, current: State, optimizer: Any, rows: Mapping[str, Tensor]) -> None:
    """One optimiser step, and its row of the history."""
    import torch

    from stages.many_worlds.world import COLUMNS
    from stages.train_data import mix

    world, step = current.world, current.step
    torch.manual_seed(mix(spec.seed, step, 2) & 0x7FFFFFFF)  # of dropout
    for name in world.names:
        world.adapter(name).project.dropout = spec.dropout
        world.adapter(name).train(not current.new or name == current.new)
    chosen = batch(spec, step, len(next(iter(rows.values())))).to(next(iter(rows.values())).device)
    rate = learning_rate(spec, step)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    parts = world.losses({name: states[chosen] for name, states in rows.items()}, spec.objective, current.new)
    torch.autograd.backward(parts["loss"])
    trained = [value for _, value in world.trained(spec.objective, current.new)]
    norm = torch.nn.utils.clip_grad_norm_(trained, spec.max_gradient_norm or math.inf)
    values = {name: float(value.detach()) for name, value in parts.items()} | {"gradient_norm": float(norm), "learning_rate": rate}
    if not all(map(math.isfinite, values.values())):
        raise StageError(
            f"step {step + 1}: the loss is {values['loss']}, the norm of the gradient {values['gradient_norm']}; the learning rate there "
            f"is {rate:g}. Lower learningRate; earlier segments are kept"
        )
    optimizer.step()
    current.history.append([values.get(name, 0.0) for name in COLUMNS])

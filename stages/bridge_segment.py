"""One segment of a bridge's training: from the state after step i to the state after step `until`, the same bytes however it is cut.

Which texts a step sees is a function of (seed, step); all else that it depends on is in the state. The sources do not run here: their
states were kept by `hidden-states`. The target runs, and nothing of it is trained.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stages.errors import InputError, SpecError, StageError
from stages.hf_model import LoadIn
from stages.many_worlds.settings import Schedule
from stages.stage import Context, Leaf, Outcome
from store.digest import Digest

if TYPE_CHECKING:
    from torch import Tensor

    from stages.bridge_protocol.readings import Text
    from stages.bridge_protocol.state import State
    from stages.bridges.target import BridgedTarget

ANNEALED = 1e-3
"""Temperature of a cache bridge's gates at the last step, from 1 at the first, as C2C lets it down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeSegment(Schedule):
    """The settings of the whole training, and how far this segment goes. `batch_size` counts texts."""

    until: int
    """Steps done when it ends, counted from the beginning."""
    load_in: LoadIn = "auto"

    def __post_init__(self) -> None:
        Schedule.__post_init__(self)
        if not 0 < self.until <= self.steps:
            raise SpecError(f"until is {self.until}; it must be between 1 and steps, {self.steps}")


STAGE = Leaf(
    name="bridge-segment",
    version=1,
    spec=BridgeSegment,
    inputs=("state", "target", "readings"),
    outputs=("state",),
    purity="E",
    run="stages.bridge_segment:run",
    share=("target", "readings"),
)


def run(spec: BridgeSegment, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Take the steps.

    Raises:
        InputError: the state is further than `until`.
        SpecError: fewer training texts than a batch holds.
        StageError: the loss is not a number any more, or the target is not what it was.
    """
    from stages.bridge_protocol import loaded, readings, state
    from stages.many_worlds.optimizer import adamw

    path = context.path(inputs["state"])
    target = loaded.target(inputs["target"], state.spec_of(path), spec.load_in, context)
    current = state.load(path, target)
    if current.step >= spec.until:
        raise InputError(f"state {inputs['state'].short} is at step {current.step} already; this segment ends at {spec.until}")
    key = f"bridge-readings:{inputs['readings']}:{current.sources}"
    if key not in context.memo:
        context.memo[key] = readings.load(context.folder(inputs["readings"]), current.sources)
    texts: Sequence[Text] = context.memo[key].train
    if len(texts) < spec.batch_size:
        raise SpecError(f"batch_size is {spec.batch_size}, and there are {len(texts)} training texts; take more texts")
    trained = current.trained()
    for name, value in current.module.named_parameters():
        value.requires_grad_(name in trained)
    rates = {"learning_rate": spec.learning_rate, "weight_decay": spec.weight_decay}
    optimizer = adamw(trained, current.moments, step=current.step, **rates)
    current.module.train()
    checksum, first, started = target.checksum(), current.step, time.monotonic()
    while current.step < spec.until:
        take_step(spec, current, target, optimizer, texts)
        context.progress(current.step - first, spec.until - first, "steps")
    if target.checksum() != checksum:
        raise StageError("the target's weights changed while a bridge was trained. This is a fault of the program; please report it")
    context.note("device", target.device.type)
    context.note("loss", f"{current.history[first][0]:.4f} to {current.history[-1][0]:.4f}")
    context.note("steps_per_s", f"{(spec.until - first) / max(time.monotonic() - started, 1e-9):.1f}")
    return Outcome({"state": current.store(context.store)})


def take_step(spec: BridgeSegment, current: State, target: BridgedTarget, optimizer: Any, texts: Sequence[Text]) -> None:
    """One optimiser step, and its row of the history."""
    import torch

    from stages.many_worlds_segment import batch, learning_rate

    step = current.step
    chosen = [texts[row] for row in batch(spec, step, len(texts)).tolist()]
    rate = learning_rate(spec, step)
    for group in optimizer.param_groups:
        group["lr"] = rate
    current.bridge.anneal(ANNEALED ** (step / max(1, spec.steps - 1)))
    optimizer.zero_grad(set_to_none=True)
    value = loss(current, target, chosen)
    parameters = [item for group in optimizer.param_groups for item in group["params"]]
    if value.requires_grad:
        torch.autograd.backward(value)
    for item in parameters:  # a shut gate lets no gradient through; a step is a step all the same, or a resumed training would differ
        item.grad = torch.zeros_like(item) if item.grad is None else item.grad
    norm = torch.nn.utils.clip_grad_norm_(parameters, spec.max_gradient_norm or math.inf)
    row = [float(value.detach()), float(norm), rate]
    if not all(map(math.isfinite, row)):
        raise StageError(
            f"step {step + 1}: the loss is {row[0]}, the norm of the gradient {row[1]}; the learning rate there is {rate:g}. Lower "
            "learningRate; earlier segments are kept"
        )
    optimizer.step()
    current.history.append(row)


def loss(current: State, target: BridgedTarget, texts: Sequence[Text]) -> Tensor:
    """() what a step makes small: the target's loss in nats per byte of the continuations, or what `objective: align` asks."""
    from stages.bridge_protocol import readings

    spec = current.bridge.spec
    ids, scored = readings.tokens(texts, target.device)
    fields = current.module.fields(readings.fields(texts, current.sources, spec))
    injection = current.bridge.inject(fields, readings.uncertainty(texts, target) if spec.gate == "uncertainty" else None)
    if spec.objective != "next-token":
        return target.align(ids, scored, injection).mean()
    nats: Tensor = target.nll(ids, scored, injection).sum() / sum(text.scored_bytes for text in texts)
    return nats

"""One segment of a training: from the state after step i to the state after step `until`.

The output is the same bytes whatever segments came before and whether the model was still in memory or read from the state: all that a step
depends on is in the state, or is made from (seed, step). Weights and moments are copied into tensors of torch's own allocation when they
are read, because a kernel may round differently where the memory is aligned differently.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stages.errors import InputError, SpecError, StageError
from stages.stage import Context, Leaf, Outcome
from stages.train import Training
from store import tree
from store.digest import Digest

if TYPE_CHECKING:
    import torch

    from stages.train_data import Order

EXPERTS_IMPLEMENTATION = "grouped_mm"
"""Of transformers: one grouped product for all experts; the fastest measured. Raise the stage's version when this changes."""
_NOTED_LOSSES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSegment(Training):
    """The settings of the whole training, and how far this segment goes."""

    until: int
    """Steps done when it ends, counted from the beginning of the training."""

    def __post_init__(self) -> None:
        Training.__post_init__(self)
        if not 0 < self.until <= self.steps:
            raise SpecError(f"until is {self.until}; it must be between 1 and steps, {self.steps}")


STAGE = Leaf(
    name="train-segment",
    version=1,
    spec=TrainSegment,
    inputs=("state", "tokens"),
    outputs=("state",),
    purity="E",
    run="stages.train_segment:run",
    share=("tokens",),
)


def learning_rate(spec: Training, step: int) -> float:
    """The rate of a step (counted from 0).

    Cosine, linear and polynomial (a square) fall from the highest rate to `floor_ratio` of it at the last step.

    >>> spec = Training(steps=101, learning_rate=1.0, warmup_ratio=0.0, floor_ratio=0.1)
    >>> [round(learning_rate(spec, step), 3) for step in (0, 50, 100)]
    [1.0, 0.55, 0.1]
    """
    warmup = 0 if spec.scheduler == "constant" else round(spec.steps * spec.warmup_ratio)
    if step < warmup:
        return spec.learning_rate * (step + 1) / warmup
    gone = (step - warmup) / max(1, spec.steps - 1 - warmup)
    part = {
        "cosine": 0.5 * (1 + math.cos(math.pi * gone)),
        "linear": 1 - gone,
        "polynomial": (1 - gone) ** 2,
    }.get(spec.scheduler, 1.0)
    return spec.learning_rate * (spec.floor_ratio + (1 - spec.floor_ratio) * part)


def run(spec: TrainSegment, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Take the steps.

    Raises:
        InputError: the state is further than `until`, or is of another model.
        StageError: the loss is not a number any more.
    """
    from stages.train_data import Order, load_tokens

    held: _Learner | None = context.memo.pop("train-segment", None)  # popped: it must not be found again should a step fail
    learner = held if held is not None and held.digest == inputs["state"] else _Learner.load(spec, inputs["state"], context)
    if learner.step >= spec.until:
        raise InputError(f"state {inputs['state'].short} is at step {learner.step} already; this segment ends at {spec.until}")
    learner.configure(spec)
    names = [entry.path for entry in tree.load(context.store, inputs["tokens"]).entries]
    order = Order(load_tokens(context.folder(inputs["tokens"]), names), spec.mixture, length=spec.sequence_length, seed=spec.seed)
    first, started, losses = learner.step, time.monotonic(), []
    while learner.step < spec.until:
        losses.append(learner.take_step(spec, order))
        context.progress(learner.step - first, spec.until - first, "steps")
    elapsed = time.monotonic() - started
    learner.digest = learner.store(context)
    context.memo["train-segment"] = learner
    tokens = (spec.until - first) * spec.batch_size * spec.gradient_accumulation * spec.sequence_length
    every = -(-len(losses) // _NOTED_LOSSES)
    context.note("device", learner.device.type)
    context.note("loss", [[first + 1 + place, f"{losses[place]:.4f}"] for place in range(every - 1, len(losses), every)])
    context.note("tokens", tokens)
    context.note("tokens_per_s", round(tokens / max(elapsed, 1e-9)))
    return Outcome({"state": learner.digest})


class _Learner:
    """A model and its optimiser at a step."""

    def __init__(self, model: Any, config: Mapping[str, Any], step: int, device: torch.device, digest: Digest) -> None:
        self.model, self.config, self.step, self.device, self.digest = model, config, step, device, digest
        self.params: dict[str, torch.nn.Parameter] = dict(model.named_parameters())
        self.moments: dict[str, dict[str, torch.Tensor]] = {}
        self.routed = "num_local_experts" in config

    @classmethod
    def load(cls, spec: TrainSegment, digest: Digest, context: Context) -> _Learner:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        from stages.train_state import read_head, read_tensors

        path = context.path(digest)
        head = read_head(path)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(**head.config),
            dtype=torch.float32,
            attn_implementation="sdpa",
            **({"experts_implementation": EXPERTS_IMPLEMENTATION} if "num_local_experts" in head.config else {}),
        ).to(device)
        learner = cls(model, head.config, head.step, device, digest)
        with torch.no_grad():
            stored = dict(read_tensors(path, "param"))
            if {name: value.shape for name, value in stored.items()} != {name: value.shape for name, value in learner.params.items()}:
                raise InputError(f"state {digest.short} does not hold the parameters of its own config")
            for name, value in stored.items():
                learner.params[name].copy_(value)
            for kind in ("exp_avg", "exp_avg_sq"):
                learner.moments[kind] = {
                    name: torch.empty_like(learner.params[name]).copy_(value) for name, value in read_tensors(path, kind)
                }
        return learner

    def configure(self, spec: TrainSegment) -> None:
        """Make the optimiser for these settings around the moments, which stay."""
        import torch

        matrices = [value for value in self.params.values() if value.ndim > 1]
        vectors = [value for value in self.params.values() if value.ndim <= 1]
        if self.routed:
            self.model.config.router_aux_loss_coef = self.model.router_aux_loss_coef = spec.router_aux_loss_coef
        self.model.train()
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": spec.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
            lr=spec.learning_rate,
            betas=(spec.adam_beta1, spec.adam_beta2),
            eps=spec.adam_epsilon,
            fused=True,
        )
        for name, value in self.params.items():
            state = {kind: self.moments[kind][name] for kind in ("exp_avg", "exp_avg_sq")}
            self.optimizer.state[value] = {"step": torch.tensor(float(self.step), device=self.device), **state}

    def take_step(self, spec: TrainSegment, order: Order) -> float:
        """One optimiser step; gives its mean loss per token in nats."""
        import torch

        from stages.train_data import mix

        torch.manual_seed(mix(spec.seed, self.step) & 0x7FFFFFFF)  # for models with dropout
        rate = learning_rate(spec, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        asked = {"output_router_logits": spec.router_aux_loss_coef > 0} if self.routed else {}
        for part in range(spec.gradient_accumulation):
            row = (self.step * spec.gradient_accumulation + part) * spec.batch_size
            ids = torch.from_numpy(order.batch(row, spec.batch_size)).to(self.device)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=spec.precision == "bf16"):
                loss = self.model(input_ids=ids, labels=ids, use_cache=False, **asked).loss
            (loss / spec.gradient_accumulation).backward()
            total += loss.item() / spec.gradient_accumulation
        if not math.isfinite(total):
            raise StageError(
                f"the loss of step {self.step + 1} is {total}; the learning rate there is {rate:g}. "
                "Lower learningRate, or raise warmupRatio; earlier segments are kept"
            )
        if spec.max_gradient_norm > 0:
            torch.nn.utils.clip_grad_norm_(self.params.values(), spec.max_gradient_norm)
        self.optimizer.step()
        self.step += 1
        return total

    def store(self, context: Context) -> Digest:
        """Store the state."""
        from stages.train_state import StateHead, write_state

        return write_state(context.store, StateHead(self.step, self.config), {"param": self.params, **self.moments})

"""The first state of a training from scratch: random weights by transformers' own rules for the architecture, zero moments, step 0."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from stages.errors import InputError
from stages.stage import Context, Leaf, Outcome
from stages.train import Architecture
from store.digest import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainInit:
    """Which model, and which of its random beginnings."""

    architecture: Architecture
    seed: int


STAGE = Leaf(
    name="train-init",
    version=1,
    spec=TrainInit,
    inputs=("tokenizer",),
    outputs=("state",),
    purity="E",
    run="stages.train_init:run",
)


def run(spec: TrainInit, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Make the model and store its state. The vocabulary is the tokenizer's, so every row can be learned."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from stages.train_state import StateHead, write_state

    tokenizer = AutoTokenizer.from_pretrained(context.folder(inputs["tokenizer"]), local_files_only=True, trust_remote_code=False)
    if tokenizer.eos_token_id is None:
        raise InputError(f"tokenizer {inputs['tokenizer'].short} has no eos_token; the model must know where a text ends")
    config: dict[str, Any] = asdict(spec.architecture)
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": config.pop("rope_theta")}
    config |= {"vocab_size": len(tokenizer), "bos_token_id": None, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(spec.seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=torch.float32)
    params = dict(model.named_parameters())
    zeros = {name: torch.zeros_like(value) for name, value in params.items()}
    context.note("parameters", sum(value.numel() for value in params.values()))
    return Outcome({"state": write_state(context.store, StateHead(0, config), {"param": params, "exp_avg": zeros, "exp_avg_sq": zeros})})

"""A training state as a model folder: configs, safetensors shards with their index, and the tokenizer's files."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass

from stages.errors import InputError, SpecError
from stages.stage import Context, Leaf, Outcome
from stages.train import Dtype
from store import tree
from store.digest import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainExport:
    """The form of the weights."""

    dtype: Dtype
    shard_bytes: int
    """Of one file, at most."""

    def __post_init__(self) -> None:
        if self.shard_bytes < 1:
            raise SpecError(f"shard_bytes is {self.shard_bytes}; it must be at least 1")


STAGE = Leaf(
    name="train-export",
    version=1,
    spec=TrainExport,
    inputs=("state", "tokenizer"),
    outputs=("model",),
    purity="E",
    run="stages.train_export:run",
)


def run(spec: TrainExport, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Cast (to nearest, ties to even) and save by transformers' own on-disk names.

    Raises:
        InputError: a weight is not finite, or too large for the dtype.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from stages.train_state import read_head, read_tensors

    path = context.path(inputs["state"])
    dtype: torch.dtype = getattr(torch, spec.dtype)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**read_head(path).config), dtype=dtype)
    params = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in read_tensors(path, "param"):
            params[name].copy_(value)
            if not torch.isfinite(params[name]).all():
                raise InputError(f"state {inputs['state'].short}: {name} holds values that {spec.dtype} cannot; the training diverged")
    folder = context.scratch / "model"
    model.save_pretrained(folder, max_shard_size=spec.shard_bytes)
    for file in sorted(context.folder(inputs["tokenizer"]).iterdir()):
        shutil.copyfile(file, folder / file.name)
    context.note("parameters", sum(value.numel() for value in params.values()))
    return Outcome({"model": tree.import_folder(context.store, folder)})

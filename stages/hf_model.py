"""Load a causal language model of any architecture that transformers knows, for its outputs alone. No code of the folder is run."""

from __future__ import annotations

import inspect
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stages.errors import InputError

if TYPE_CHECKING:
    import torch

LoadIn = Literal["auto", "checkpoint", "float32", "bfloat16", "float16"]
"""Type of the weights in memory: `checkpoint` as config.json says, `auto` the same on a GPU and float32 on a CPU."""


def held_bytes(folder: Path, load_in: LoadIn) -> int:
    """What the weights of a folder will take in memory, by the headers of its files; nothing is loaded.

    Raises:
        InputError: a file that is no safetensors file.
    """
    import torch

    from stages.safetensors_file import BITS, read_header

    if load_in == "auto":
        load_in = "checkpoint" if torch.cuda.is_available() else "float32"
    size = {"float32": 32, "bfloat16": 16, "float16": 16}.get(load_in)
    bits = 0
    for shard in sorted(folder.glob("*.safetensors")):
        with shard.open("rb") as file:
            header = read_header(file, shard.name, shard.stat().st_size)
        bits += sum(prod(item.shape) * (size or BITS[item.dtype]) for item in header.tensors)
    return bits // 8


def load(folder: Path, load_in: LoadIn) -> tuple[Any, torch.device]:
    """(model in evaluation mode, device): on a GPU when there is one.

    Raises:
        InputError: transformers cannot load it, or would fill missing weights with random numbers.
    """
    import torch
    from transformers import AutoModelForCausalLM

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if load_in == "auto":
        load_in = "float32" if device.type == "cpu" else "checkpoint"
    dtype: Any = "auto" if load_in == "checkpoint" else getattr(torch, load_in)
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, trust_remote_code=False, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise InputError(f"transformers cannot load the model: {error}") from error
    missing = sorted(report["missing_keys"])
    if missing or report["mismatched_keys"]:
        names = ", ".join(missing[:6]) or report["mismatched_keys"]
        more = f" and {len(missing) - 6} more" if len(missing) > 6 else ""
        raise InputError(f"the model lacks weights that its config.json asks for: {names}{more}. Download it again")
    return model.to(device).eval(), device


def cache_word(model: Any) -> str:
    """What a model's forward calls its key-value cache: `cache` from transformers 5.24 on, before that `past_key_values`."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"

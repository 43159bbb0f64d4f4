"""What quantising a GGUF file will give, from its header alone: the type of every tensor and the size of the file, to the byte.

Known for the types in `KINDS` and the architectures in `ARCHITECTURES`, where tests compare it with what llama.cpp writes.

Source: llama.cpp src/llama-quant.cpp (b9190): llama_tensor_get_type_impl, tensor_type_fallback, use_more_bits.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from stages.errors import SpecError
from stages.gguf_file import TYPES, GgufFile, Tensor, TensorType

KINDS = ("F16", "Q8_0", "Q4_K_M")
ARCHITECTURES = ("llama", "olmoe", "qwen3moe")

_BY_NAME: Mapping[str, TensorType] = {kind.name: kind for kind in TYPES.values()}
_FALLBACK = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
_LAYER = re.compile(r"blk\.(\d+)\.")
_EIGHT = 8


def predict_bytes(base: GgufFile, kind: str) -> int:
    """Size of the file that quantising an F16 file to `kind` gives.

    Args:
        base: the header of the F16 file.
        kind: one of `KINDS`.

    Raises:
        SpecError: a type or an architecture that is not known here.
    """
    size = base.tensors[0].offset
    for tensor, found in zip(base.tensors, predict_types(base, kind), strict=True):
        data = math.prod(tensor.shape) // found.block * found.size_bytes
        size += -(-data // base.alignment) * base.alignment
    return size


def predict_types(base: GgufFile, kind: str) -> list[TensorType]:
    """The type of every tensor of the quantised file, in the base's order.

    Raises:
        SpecError: as `predict_bytes`.
    """
    architecture = base.metadata.get("general.architecture")
    if kind not in KINDS or architecture not in ARCHITECTURES:
        raise SpecError(
            f"the size of {architecture} in {kind} cannot be predicted; known: {', '.join(ARCHITECTURES)} in {', '.join(KINDS)}"
        )
    layers = int(base.metadata[f"{architecture}.block_count"])
    tied = all(tensor.name != "output.weight" for tensor in base.tensors)
    return [_type(tensor, kind, layers=layers, experts=base.experts, tied=tied) for tensor in base.tensors]


def _type(tensor: Tensor, kind: str, *, layers: int, experts: int, tied: bool) -> TensorType:
    name = tensor.name
    kept = len(tensor.shape) < 2 or not name.endswith("weight") or name.endswith("_norm.weight") or "ffn_gate_inp.weight" in name
    if kept or kind == "F16":
        return tensor.type
    chosen = "Q8_0" if kind == "Q8_0" else _q4_k_m(name, layers=layers, experts=experts, tied=tied)
    if tensor.shape[0] % _BY_NAME[chosen].block:
        chosen = _FALLBACK.get(chosen, "F16")
        if tensor.shape[0] % _BY_NAME[chosen].block:
            chosen = "F16"
    return _BY_NAME[chosen]


def _q4_k_m(name: str, *, layers: int, experts: int, tied: bool) -> str:
    if name == "output.weight" or (tied and name == "token_embd.weight"):
        return "Q6_K"
    found = _LAYER.match(name)
    layer = int(found.group(1)) if found else -1
    more = found is not None and (layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2)
    if ".attn_v." in name:
        return "Q8_0" if experts == _EIGHT else "Q6_K" if more else "Q4_K"
    if ".attn_k." in name and experts == _EIGHT:
        return "Q8_0"
    if ".attn_output." in name and experts == _EIGHT:
        return "Q5_K"
    if ".ffn_down" in name:
        return "Q6_K" if more else "Q4_K"
    return "Q4_K"

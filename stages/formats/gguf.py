"""GGUF, the format of llama.cpp: unquantised types are converted, all others are quantised from the F16 file.

From F16 because that is what people have and publish, so the same file comes out of a downloaded F16; against F32 it changes K-quants
by less than their own error.
"""

from __future__ import annotations

from typing import Literal

from stages.formats.format import Format
from stages.gguf_convert import GgufConvert
from stages.gguf_quantize import GgufQuantize
from stages.stage import Graph, Input, Node, Ref

CONVERTED: tuple[Literal["F32", "F16", "BF16"], ...] = ("F32", "F16", "BF16")
QUANTISED = (
    "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS",
    "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K",
)  # fmt: skip
BASE: Literal["F16"] = "F16"


def graph(types: tuple[str, ...], model: Input) -> Graph:
    """One `gguf-convert` for each unquantised type (and for the base of the others), one `gguf-quantize` for each other."""
    needed = [kind for kind in CONVERTED if kind in types or (kind == BASE and set(types) & set(QUANTISED))]
    converted = {
        kind: Node(kind, "gguf-convert", GgufConvert(outtype=kind), {"model": model}, f"{kind} from safetensors") for kind in needed
    }
    quantised = [
        Node(kind, "gguf-quantize", GgufQuantize(type=kind), {"gguf-base": Ref(BASE, "gguf")}, f"{kind} from {BASE}")
        for kind in types
        if kind not in CONVERTED
    ]
    return Graph((*converted.values(), *quantised), {FORMAT.output(kind): Ref(kind, "gguf") for kind in types})


FORMAT = Format(name="gguf", types=(*CONVERTED, *QUANTISED), graph=graph)

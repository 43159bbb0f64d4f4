"""Write a GGUF file in a smaller type with llama.cpp, count the types that its tensors got, and say where the name promises others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stages import gguf_file, toolchain
from stages.errors import InputError, ToolError
from stages.gguf_file import GgufFile
from stages.stage import Context, Leaf, Outcome
from store.digest import Digest

_UNQUANTISED = ("F32", "F16", "BF16")
_EIGHT = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufQuantize:
    """What to write."""

    type: str
    """As llama-quantize names it: `Q4_K_M`."""


STAGE = Leaf(
    name="gguf-quantize",
    version=1,
    spec=GgufQuantize,
    inputs=("gguf-base",),
    outputs=("gguf",),
    purity="E",  # equal for 1 and 2 threads (tested) and for three llama.cpp releases (measured), but nobody promises it for the next
    run="stages.gguf_quantize:run",
    environment=toolchain.ENVIRONMENT,
)


def run(spec: GgufQuantize, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Quantise in scratch, check, then store.

    Raises:
        InputError: the base is not a whole GGUF file, or is quantised already.
        ToolError: llama.cpp failed; its reason is in the message.
    """
    base = context.path(inputs["gguf-base"])
    before = gguf_file.check(base, "the unquantised GGUF")
    already = sorted(set(before.tensor_types()) - set(_UNQUANTISED))
    if already:
        raise InputError(f"the base of {spec.type} already holds {', '.join(already)}: quantising twice loses twice; start from F16 or F32")
    out = context.scratch / "out.gguf"
    chain = toolchain.choose(context.tools, context.memo)
    chain.quantize(base, out, spec.type, threads=toolchain.threads())
    if not out.is_file():
        raise ToolError(f"llama.cpp said that it quantised to {spec.type}, and wrote no file")
    made = gguf_file.check(out, f"the {spec.type} file")
    for sentence in surprises(made, spec.type):
        context.warn(sentence)
    context.note("tensor_types", made.tensor_types())
    context.note("toolchain", chain.label())
    return Outcome({"gguf": context.store.take(out)})


def surprises(made: GgufFile, kind: str) -> list[str]:
    """Where a quantised file is not what its name promises, one plain sentence each.

    Two rules of llama.cpp bite silently: rows that the type's block does not divide fall back to a coarser or larger type, and files with
    exactly 8 experts get larger attention tensors. Source: llama.cpp src/llama-quant.cpp (tensor_type_fallback, `n_expert == 8`).
    """
    sentences = []
    block = 256 if "_K" in kind or kind == "IQ4_XS" else 32
    uneven = [tensor for tensor in made.tensors if len(tensor.shape) > 1 and tensor.shape[0] % block and tensor.type.name != "F32"]
    if uneven:
        got = ", ".join(sorted({tensor.type.name for tensor in uneven}))
        sentences.append(
            f"{kind}: {len(uneven)} of {sum(len(tensor.shape) > 1 for tensor in made.tensors)} matrices have rows that {block} does not "
            f"divide (such as {uneven[0].name}, rows of {uneven[0].shape[0]}), so llama.cpp wrote them as {got}; "
            f"the file is not what {kind} means elsewhere"
        )
    if made.experts == _EIGHT and kind not in ("Q8_0", *_UNQUANTISED):
        # A row-size fall-back can also give Q8_0; what counts here is what the rule alone explains.
        larger = {
            name: type_name
            for name, type_name in (("attn_k", "Q8_0"), ("attn_v", "Q8_0"), ("attn_output", "Q5_K"))
            if not kind.startswith(type_name)
            and any(f".{name}." in tensor.name and tensor.type.name == type_name and tensor not in uneven for tensor in made.tensors)
        }
        if larger:
            listed = ", ".join(f"{name} {type_name}" for name, type_name in larger.items())
            sentences.append(
                f"{kind}: the model has exactly 8 experts, for which llama.cpp makes attention larger ({listed}); with another number it "
                f"does not, so {kind} before and after pruning differ in more than the pruning: compare F16 or Q8_0 too"
            )
    return sentences

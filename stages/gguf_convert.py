"""Write a model tree as one GGUF file with llama.cpp's converter, and prove the result: whole, and with the model's own tokenizer.

The converter gets a folder that holds only weights (safetensors), configuration and tokenizer files: no pickle can be read and no code of
the model can run, whatever the converter allows. The file's bytes depend on those files alone, never on a folder's name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stages import gguf_file, tensors, toolchain
from stages.errors import InputError, ToolError
from stages.families.family import EXPERT_COUNT_KEYS
from stages.hf_tokenizer import FILES, SAMPLE, HfTokenizer, is_gpt2_pretokenizer
from stages.safetensors_file import Header
from stages.stage import Context, Leaf, Outcome
from store import canonical, tree
from store.digest import Digest

_CONFIGS = ("config.json", "generation_config.json", tensors.INDEX)
_EXPERT = re.compile(r"(.*\blayers\.\d+)\..*\bexperts\.(\d+)\.")
_FUSED = re.compile(r"(.*\blayers\.\d+)\..*\bexperts\.(?:gate_up_proj|down_proj)\Z")
_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufConvert:
    """What to write."""

    outtype: Literal["F32", "F16", "BF16"] = "F16"
    """Type of the matrices; vectors and routers stay F32."""


STAGE = Leaf(
    name="gguf-convert",
    version=1,
    spec=GgufConvert,
    inputs=("model",),
    outputs=("gguf",),
    purity="E",
    run="stages.gguf_convert:run",
    environment=toolchain.ENVIRONMENT,
)


def run(spec: GgufConvert, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Convert in scratch, check, then store.

    Raises:
        InputError: the model cannot become a GGUF that llama.cpp loads (experts differ by layer, OLMoE with grouped heads), or the file's
            tokenizer gives other ids than the model's.
        ToolError: the converter failed; its reason is in the message.
    """
    model = tree.load(context.store, inputs["model"])
    config = tensors.read_config(context.store, model)
    check_model(config, tensors.read_headers(context.store, model))
    folder = staged(context.folder(inputs["model"]), context.scratch / "model", completed(config))
    tokenizer = HfTokenizer(folder)
    chain = toolchain.choose(context.tools, context.memo)
    out = context.scratch / "out.gguf"
    chain.convert(folder, out, spec.outtype, pre="gpt-2" if is_gpt2_pretokenizer(folder) else None, add_bos=tokenizer.adds_bos)
    made = gguf_file.check(out, "the converted file")
    if made.metadata.get("tokenizer.ggml.add_bos_token") is not tokenizer.adds_bos:
        raise ToolError(
            f"the converter wrote add_bos_token {made.metadata.get('tokenizer.ggml.add_bos_token')}, expected {tokenizer.adds_bos}: "
            "this llama.cpp converter cannot be steered; take a newer one"
        )
    check_tokenizer(chain, out, tokenizer)
    context.note("tensor_types", made.tensor_types())
    context.note("toolchain", chain.label())
    return Outcome({"gguf": context.store.take(out)})


def completed(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The config as the converter needs it, or None where it is complete.

    transformers 5 does not write what its code takes for granted. DeepSeek-V3 routes by sigmoid; without `scoring_func` the converter says
    nothing, and llama.cpp then routes by softmax: no error, another model (measured: 1 % of perplexity on a tiny one).
    """
    if config.get("model_type") == "deepseek_v3" and "scoring_func" not in config:
        return {**config, "scoring_func": "sigmoid"}
    return None


def staged(source: Path, target: Path, config: Mapping[str, Any] | None = None) -> Path:
    """A folder of links to the files that the converter may see; always of one name, because converters put it into the file.

    Args:
        source: the whole model.
        target: made here.
        config: written as config.json in place of the model's own.
    """
    target.mkdir()
    for path in sorted(source.iterdir()):
        if path.name in FILES or path.name in _CONFIGS or path.name.endswith(".safetensors"):
            (target / path.name).symlink_to(path.resolve())
    if config is not None:
        (target / "config.json").unlink()
        (target / "config.json").write_bytes(canonical.dumps(config))
    return target


def check_model(config: Mapping[str, Any], headers: Mapping[str, Header]) -> None:
    """Refuse early what the converter or llama.cpp would refuse late, or not at all.

    Raises:
        InputError: layers with different numbers of experts, or a number that config.json denies; OLMoE with fewer key heads than heads.
    """
    config = {**config, **(config.get("text_config") or {})}
    if "OlmoeForCausalLM" in (config.get("architectures") or ()):
        heads, key_heads = config.get("num_attention_heads"), config.get("num_key_value_heads")
        if key_heads is not None and key_heads != heads:
            raise InputError(
                f"an OLMoE model with {heads} heads and {key_heads} key-value heads: llama.cpp converts it and then cannot load it "
                "(its q/k norms are over the whole width there). Evaluate the safetensors model, or take one with as many key-value heads"
            )
    counts = _experts(headers)
    said = next((config[key] for key in EXPERT_COUNT_KEYS if isinstance(config.get(key), int)), None)
    if not counts:
        return
    if len(set(counts.values())) > 1:
        shown = ", ".join(
            f"{layer.rpartition('.')[2]}: {count}" for layer, count in sorted(counts.items(), key=lambda item: _by_number(item[0]))[:_SHOWN]
        )
        raise InputError(
            f"layers have different numbers of experts (layer: experts {shown}). GGUF has one expert_count for all layers, so llama.cpp "
            "cannot load this: keep equally many in each layer"
        )
    count = next(iter(counts.values()))
    if said is not None and said != count:
        raise InputError(
            f"config.json says {said} experts, each layer's tensors hold {count}: the model is damaged or was pruned by halves"
        )


def _experts(headers: Mapping[str, Header]) -> dict[str, int]:
    """Layer prefix -> experts that its tensors hold."""
    seen: dict[str, set[int]] = {}
    for header in headers.values():
        for tensor in header.tensors:
            if found := _EXPERT.match(tensor.name):
                seen.setdefault(found.group(1), set()).add(int(found.group(2)))
            elif found := _FUSED.match(tensor.name):
                seen.setdefault(found.group(1), set()).update(range(tensor.shape[0]))
    return {layer: len(experts) for layer, experts in seen.items()}


def _by_number(layer: str) -> tuple[str, int]:
    head, _, number = layer.rpartition(".")
    return head, int(number)


def check_tokenizer(chain: toolchain.Toolchain, gguf: Path, tokenizer: HfTokenizer, text: str = SAMPLE) -> None:
    """Prove that the file's vocabulary turns a text into the same ids as the model's tokenizer.

    Raises:
        InputError: it does not; names the first place where they differ.
    """
    ours, theirs = tokenizer.encode(text, add_special=True), chain.tokenize(gguf, text, add_special=True)
    if ours == theirs:
        return
    at = next((number for number, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), min(len(ours), len(theirs)))
    before, mine = tokenizer.decode(ours[max(0, at - 4) : at]), tokenizer.decode(ours[at : at + 4])
    raise InputError(
        f"the GGUF tokenises differently from the model: at token {at} of the sample, after {before!r}, the model's tokenizer gives "
        f"{ours[at : at + 4]} ({mine!r}), the file {theirs[at : at + 4]}. Its pre-tokenizer is another one; a model like this "
        "would be wrong without saying so. A newer llama.cpp may know it (--llama-cpp DIR)"
    )

"""Load a model as its users will and let it predict: a published file that does not load is worth nothing, whatever its hash says.

A folder is loaded by transformers: every tensor that the architecture has must be in the files with its shape, and every tensor in the
files must be the architecture's; then the model reads a text, and its predictions must be numbers. Of a folder too large for that, the
parameters in the headers of its files are counted against those of the architecture. A GGUF file is loaded by llama.cpp and predicts the
tokens of a text. A folder of a type that a package registered under `alloy_ledger.answerers` (an ensemble) is loaded by that, tells how
likely a text is and writes on; every model inside of it is checked as a folder of its own. No code of a model's repository is run.

Source: prior art, lesson 10: a release whose q_proj was 5120x3200 loaded nowhere, and one lacked its tokenizer_config.json.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from math import prod
from pathlib import Path
from typing import Any

from stages import gguf_file, plugins, question_block, toolchain
from stages.errors import InputError
from stages.hf_tokenizer import HfTokenizer
from stages.questions import Answerer
from stages.safetensors_file import read_header
from stages.stage import Context, Leaf, Outcome
from store import canonical, tree
from store.digest import Digest

TEXT = "The river ran slowly past the mill, and nobody on the bridge could say when the wheel had last turned."
_MOST_TOKENS = 32
_SHOWN = 3
_WRITTEN_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadCheck:
    """How much is done."""

    forward_bytes: int = 4 * 2**30
    """A folder with at most so many bytes of weights is loaded and reads a text; of a larger one the parameters are counted."""


STAGE = Leaf(
    name="load-check",
    version=1,
    spec=LoadCheck,
    inputs=("subject",),
    outputs=("report",),
    purity="E",  # what loads here need not load with the next release
    run="stages.load_check:run",
    environment=toolchain.ENVIRONMENT,
)


def run(spec: LoadCheck, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Check a model tree or a GGUF blob; the report says what was found and how far it went.

    Raises:
        InputError: it does not load, or predicts what is no number; nothing is recorded then.
        ToolError: llama.cpp does not load it; its own words are in the message.
    """
    subject = inputs["subject"]
    if tree.is_tree(context.store, subject):
        place = context.folder(subject)
        if answering(place):
            load = partial(question_block.answerer, subject, context, "auto")
            report = answers(place, load, forward_bytes=spec.forward_bytes)
        else:
            report = folder(place, forward_bytes=spec.forward_bytes)
    else:
        report = gguf(context.path(subject), context.tools, context.memo)
    return Outcome({"report": context.store.put(canonical.dumps(report))})


# --- folders -------------------------------------------------------------------------------------------------------------------


def folder(path: Path, *, forward_bytes: int) -> dict[str, Any]:
    """Load a folder of safetensors files with transformers. JSON: class, parameters, tensors, bytes, how far it went, by what.

    Raises:
        InputError: anything that keeps it from loading as it is.
    """
    shards = sorted(path.glob("*.safetensors"))
    if not shards:
        raise InputError("there is no .safetensors file in the model's folder")
    tensors, elements, size = _headers(path, shards)
    tokenizer = HfTokenizer(path)
    small = size <= forward_bytes
    name, parameters = _forward(path, tokenizer) if small else _counted(path, elements)
    return {
        "kind": "transformers",
        "class": name,
        "parameters": parameters,
        "tensors": tensors,
        "sizeBytes": size,
        "vocabulary": tokenizer.size,
        "how": "forward" if small else "counted",
        "by": f"transformers {metadata.version('transformers')}",
    }


def answering(path: Path) -> str:
    """The type of a folder that an installed package answers for itself; "" where transformers loads it."""
    try:
        config = json.loads((path / "config.json").read_bytes())
    except (OSError, ValueError):
        return ""
    kind = config.get("model_type") if isinstance(config, dict) else None
    return kind if isinstance(kind, str) and kind in plugins.names("answerers") else ""


def answers(path: Path, load: Callable[[], Answerer], *, forward_bytes: int) -> dict[str, Any]:
    """Load what answers, let it read a text and write on; check every model inside by itself. JSON, as for a folder.

    Raises:
        InputError: a model that does not load as it is, a likelihood that is no number, nothing that loads at all.
    """
    inside = sorted(
        config.parent for config in path.rglob("config.json") if config.parent != path and any(config.parent.glob("*.safetensors"))
    )
    found = {str(one.relative_to(path)): folder(one, forward_bytes=forward_bytes) for one in inside}
    size = sum(report["sizeBytes"] for report in found.values())
    small = size <= forward_bytes
    if small:
        answerer, half = load(), len(TEXT) // 2
        value = answerer.loglikelihood(TEXT[:half].encode(), TEXT[half:].encode())
        if not math.isfinite(value):
            raise InputError(f"it loads, and the log-likelihood of a text is {value}")
        answerer.generate(TEXT.encode(), _WRITTEN_BYTES, [])
    return {
        "kind": "answerer",
        "class": answering(path),
        "parameters": sum(report["parameters"] for report in found.values()),
        "tensors": sum(report["tensors"] for report in found.values()),
        "sizeBytes": size,
        "models": {name: report["class"] for name, report in found.items()},
        "how": "answers" if small else "counted",
        "by": f"alloy-ledger {metadata.version('alloy-ledger')}, transformers {metadata.version('transformers')}",
    }


def _headers(path: Path, shards: list[Path]) -> tuple[int, int, int]:
    """Tensors, elements and bytes of all shards; the index, if there is one, must name exactly what is there."""
    where: dict[str, str] = {}
    elements = size = 0
    for shard in shards:
        length = shard.stat().st_size
        with shard.open("rb") as file:
            header = read_header(file, shard.name, length)
        for tensor in header.tensors:
            if tensor.name in where:
                raise InputError(f"tensor {tensor.name!r} is in {where[tensor.name]} and in {shard.name}: which one is loaded is chance")
            where[tensor.name] = shard.name
        elements += sum(prod(tensor.shape) for tensor in header.tensors)
        size += length
    index = path / "model.safetensors.index.json"
    if index.exists():
        try:
            listed = dict(json.loads(index.read_bytes())["weight_map"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{index.name} cannot be read: {error}") from error
        if listed != where:
            wrong = sorted(name for name in {*listed, *where} if listed.get(name) != where.get(name))
            first = f"{wrong[0]!r} in {listed.get(wrong[0], 'no file')}; it is in {where.get(wrong[0], 'no file')}"
            raise InputError(f"{index.name} is wrong about {len(wrong)} tensors, first {first}")
    return len(where), elements, size


def _forward(path: Path, tokenizer: HfTokenizer) -> tuple[str, int]:
    import torch
    from transformers import AutoModelForCausalLM

    try:
        model, loading = AutoModelForCausalLM.from_pretrained(
            path, local_files_only=True, trust_remote_code=False, use_safetensors=True, output_loading_info=True, dtype="auto"
        )
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, TypeError, AttributeError) as error:
        raise InputError(f"transformers does not load it: {_words(error)}") from error
    for key, words in (
        ("missing_keys", "has no weights for {} of its tensors (they would be random)"),
        ("mismatched_keys", "has {} tensors of another shape than its config says"),
        ("unexpected_keys", "has {} tensors that its config has no place for"),
    ):
        names = sorted(str(name[0] if isinstance(name, tuple) else name) for name in loading[key])
        if names:
            raise InputError(f"the model {words.format(len(names))}: {', '.join(names[:_SHOWN])}{' ..' if len(names) > _SHOWN else ''}")
    ids = tokenizer.encode(TEXT, add_special=True)[:_MOST_TOKENS]
    if not ids:
        raise InputError("its tokenizer turns a text into no tokens")
    model.eval()
    try:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    except (RuntimeError, IndexError, ValueError) as error:
        raise InputError(f"it loads, and a forward pass over {len(ids)} tokens fails: {_words(error)}") from error
    if not torch.isfinite(logits).all():
        raise InputError("it loads, and predicts NaN or infinity")
    return type(model).__name__, sum(value.numel() for value in model.parameters())


def _counted(path: Path, elements: int) -> tuple[str, int]:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, TypeError, AttributeError) as error:
        raise InputError(f"transformers does not know it: {_words(error)}") from error
    parameters = sum(value.numel() for value in model.parameters())
    # What is tied may be written once or twice.
    head = model.get_output_embeddings()
    tied = head.weight.numel() if head is not None and config.get_text_config().tie_word_embeddings else 0
    if elements not in (parameters, parameters + tied):
        raise InputError(f"{type(model).__name__} by its config has {parameters:,} parameters, and its files hold {elements:,}")
    return type(model).__name__, parameters


def _words(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


# --- GGUF ----------------------------------------------------------------------------------------------------------------------


def gguf(path: Path, tools: Mapping[str, str], memo: MutableMapping[str, Any]) -> dict[str, Any]:
    """Load a GGUF file with llama.cpp and have it predict the tokens of a text. JSON, as for a folder.

    Raises:
        InputError: it is not a whole GGUF file, or what it predicts is no number.
        ToolError: llama.cpp does not load it.
    """
    found = gguf_file.check(path)
    chain = toolchain.choose(tools, memo)
    ids = chain.tokenize(path, TEXT, add_special=False)
    if len(ids) < 2:
        raise InputError(f"its vocabulary turns a text into {len(ids)} tokens")
    while len(ids) < _MOST_TOKENS:
        ids = [*ids, *ids]
    window = toolchain.Window(_MOST_TOKENS)
    values = next(iter(chain.nll(path, [ids[:_MOST_TOKENS]], window, bos=toolchain.bos_of(chain, path), threads=toolchain.threads())))
    if not all(math.isfinite(value) for value in values):
        raise InputError("llama.cpp loads it, and what it predicts is NaN or infinite")
    return {
        "kind": "gguf",
        "class": str(found.metadata.get("general.architecture", "")),
        "parameters": sum(prod(tensor.shape) for tensor in found.tensors),
        "tensors": len(found.tensors),
        "types": found.tensor_types(),
        "experts": found.experts,
        "sizeBytes": found.size_bytes,
        "how": "tokens",
        "by": chain.label(),
    }


# --- without a ledger ----------------------------------------------------------------------------------------------------------


def main(arguments: list[str]) -> int:
    """`python -m stages.load_check FORWARD_BYTES PATH..`: one JSON line for each path, a report or `{"fault": ...}`; records nothing."""
    from stages.errors import StageError

    tools = json.loads(os.environ.get("LEDGER_TOOLS") or "{}")
    memo: dict[str, Any] = {}
    for path in map(Path, arguments[1:]):
        try:
            report = _report(path, int(arguments[0]), tools, memo)
        except StageError as error:
            report = {"fault": str(error)}
        print(json.dumps(report), flush=True)
    return 0


def _report(path: Path, forward_bytes: int, tools: Mapping[str, str], memo: MutableMapping[str, Any]) -> dict[str, Any]:
    if not path.is_dir():
        return gguf(path, tools, memo)
    if not answering(path):
        return folder(path, forward_bytes=forward_bytes)
    from stages.context import LeafContext
    from store.local import LocalCas

    with tempfile.TemporaryDirectory() as place:  # what answers takes its folder from a store
        store = LocalCas(Path(place) / "store")
        context = LeafContext(store, Path(place) / "scratch", Path(place) / "keep")
        load = partial(question_block.answerer, tree.import_folder(store, path), context, "auto")
        return answers(path, load, forward_bytes=forward_bytes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

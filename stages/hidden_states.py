"""The hidden states of one model at one layer for one block of texts: the only place where many-worlds training runs a model.

The action is named by (model, block, layer, bytes read), so whatever is trained on the states later, and how often, the model does not run
again. Nothing of the model is trained or changed: it is read, and it is an input by digest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stages.calibration import read_samples
from stages.errors import InputError, SpecError
from stages.hf_model import LoadIn
from stages.stage import Context, Leaf, Outcome
from store.digest import Digest

if TYPE_CHECKING:
    import torch

FORM = "hidden-states/v1"
LAST = -1
"""As a layer: all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HiddenStates:
    """What to keep."""

    layer: int | None = None
    """States after so many decoder layers; None for two thirds of them, floor(2 L / 3); LAST, -1, for what the output head reads."""
    max_bytes: int = 512
    """A text is cut after so many bytes (at a whole character): bytes, so that all models read the same."""
    load_in: LoadIn = "auto"
    """Type of the weights in memory, and of the states that are kept."""

    def __post_init__(self) -> None:
        if self.max_bytes < 1:
            raise SpecError(f"max_bytes is {self.max_bytes}; it must be at least 1")
        if self.layer is not None and self.layer < 1 and self.layer != LAST:
            raise SpecError(f"layer is {self.layer}; states are those after layer 1 or later, or {LAST} for the last")


STAGE = Leaf(
    name="hidden-states",
    version=1,
    spec=HiddenStates,
    inputs=("model", "samples"),
    outputs=("states",),
    purity="E",
    run="stages.hidden_states:run",
    share=("model",),
)


def two_thirds(layers: int) -> int:
    """After how many of the layers states are taken by default.

    >>> [two_thirds(layers) for layers in (1, 3, 4, 28, 32)]
    [1, 2, 2, 18, 21]
    """
    return max(1, 2 * layers // 3)


def run(spec: HiddenStates, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Read the texts one at a time, without padding, each behind the model's own beginning of a text (BOS where its tokenizer has one).

    The file has, for each text in the order of the block, one row for each place in it (in bytes) where a token ends: of several tokens
    that end there the last. `texts` (N + 1): where a text's rows begin; `ends` (T); `states` (T, h) as the model computes them.

    Raises:
        InputError: a model that does not load, a text that is longer than the model reads, states that are not numbers.
    """
    import torch

    from stages import hf_model
    from stages.hf_tokenizer import HfTokenizer
    from stages.many_worlds import positions, tensor_file

    key = f"hidden-states:{inputs['model']}:{spec.load_in}"
    if key not in context.memo:
        folder = context.folder(inputs["model"])
        context.memo[key] = (*hf_model.load(folder, spec.load_in), HfTokenizer(folder))
    model, device, tokenizer = context.memo[key]
    config = model.config.get_text_config()
    layers: int = config.num_hidden_layers
    layer = two_thirds(layers) if spec.layer is None else layers if spec.layer == LAST else spec.layer
    if layer > layers:
        raise SpecError(f"layer is {layer}, and the model has {layers} layers")
    most = getattr(config, "max_position_embeddings", None)
    prefix = [tokenizer.tokenizer.bos_token_id] if tokenizer.adds_bos else []
    samples = read_samples(context.store.read(inputs["samples"]))
    starts, read = [0], 0
    ends: list[int] = []
    kept: list[torch.Tensor] = []
    for number, sample in enumerate(samples):
        ids, places = positions.token_ends(tokenizer, positions.cut(sample.text, spec.max_bytes))
        if most is not None and len(prefix) + len(ids) > most:
            raise InputError(
                f"text {number + 1} of the block has {len(prefix) + len(ids):,} tokens in its first {spec.max_bytes:,} bytes, and the "
                f"model reads {most:,}: lower maxBytes"
            )
        last = positions.last_at(places)
        if last:
            states = _states(model, layer, torch.tensor([prefix + ids], device=device))
            kept.append(states[[len(prefix) + place for place in last.values()]].cpu())
        ends += last
        starts.append(len(ends))
        read += len(ids)
        context.progress(number + 1, len(samples), "texts")
    found = torch.cat(kept) if kept else torch.empty(0, config.hidden_size)
    if not torch.isfinite(found).all():
        raise InputError("the model's states hold NaN or infinity; load it in another type (loadIn: float32)")
    context.note("layer", f"{layer} of {layers}")
    context.note("tokens", read)
    context.note("places", len(ends))
    head = {"layer": layer, "layers": layers, "maxBytes": spec.max_bytes}
    tensors = {"texts": torch.tensor(starts), "ends": torch.tensor(ends, dtype=torch.int64), "states": found}
    return Outcome({"states": tensor_file.write(context.store, FORM, head, tensors)})


def _states(model: Any, layer: int, ids: torch.Tensor) -> torch.Tensor:
    """(tokens, h) after a layer, without the output head."""
    import torch

    with torch.inference_mode():
        found: torch.Tensor = model.base_model(input_ids=ids, use_cache=False, output_hidden_states=True).hidden_states[layer][0]
    return found

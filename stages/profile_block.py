"""Measure what every expert does on one block of calibration samples, with the model's own routing, in one forward pass per sample.

transformers sends the experts of every architecture that supports it through one function, chosen by name. The one registered here gets
`(hidden, top_k_index, top_k_weights)` (whatever sigmoid, bias, group limit or scaling made them), lets the library's own
implementation compute, and reads the outputs on their way. Nothing is hooked by name and no router is imitated.

Samples run one at a time, without padding, cut at `max_length` tokens, without a cache. Logits are bit-identical to the library's.

Source of the sums: REAP (arXiv:2510.13999) and those in `stages.strategies`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from stages.errors import InputError, SpecError, StageError
from stages.stage import Context, Leaf, Outcome
from store.digest import Digest

if TYPE_CHECKING:
    import torch

LoadIn = Literal["auto", "checkpoint", "float32", "bfloat16", "float16"]

IMPLEMENTATION = "alloy-ledger-profile"
BASE = "grouped_mm"
"""The library's implementation that computes; it is also its default."""

_CHUNK_NUMBERS = 2**18
"""Outputs are widened to float64 this many numbers at a time, so that the wide copy stays in the cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileBlock:
    """How to measure. Every field changes the sums."""

    max_length: int = 2048
    """Tokens after which a sample is cut."""
    load_in: LoadIn = "auto"
    """Type of the weights in memory: `checkpoint` as config.json says, `auto` the same on a GPU and float32 on a CPU."""


STAGE = Leaf(
    name="profile-block",
    version=1,
    spec=ProfileBlock,
    inputs=("model", "samples"),
    outputs=("profile",),
    purity="E",
    run="stages.profile_block:run",
    share=("model",),
)


# --- kernels ---------------------------------------------------------------------------------------------------------------------


class Recorder:
    """An experts implementation that adds up what it sees.

    Attributes:
        scalars: layer -> (E, 6) float64, columns in the order of `saliency.METRICS`.
        outputs: layer -> (E, d) float64, sum of unweighted outputs.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._layer_of = decoder_layers(model)
        self._module: dict[int, torch.nn.Module] = {}
        self.top_k: dict[int, int] = {}
        self.scalars: dict[int, torch.Tensor] = {}
        self.outputs: dict[int, torch.Tensor] = {}

    def clear(self) -> None:
        """Start new sums."""
        self.scalars, self.outputs = {}, {}

    def __call__(
        self, module: torch.nn.Module, hidden: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
    ) -> torch.Tensor:
        """Compute the experts of one layer for all tokens, as the library does.

        Every (token, choice) pair goes to the library's implementation as a token of its own with weight one, in the same order, so the
        same rows meet the same weights in the same products; the weighted sum over choices then is the library's own last step.

        Args:
            module: the experts of one layer.
            hidden: (T, d).
            top_k_index: (T, k) experts chosen.
            top_k_weights: (T, k) combine weights.
        """
        from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

        layer = self._layer_of.get(id(module))
        if layer is None:
            raise StageError(f"{type(module).__name__} ran, which belongs to no decoder layer: this architecture cannot be profiled yet")
        if self._module.setdefault(layer, module) is not module:
            raise StageError(f"layer {layer} has two sets of routed experts: this architecture cannot be profiled yet")
        tokens, choices = top_k_index.shape
        pairs = hidden.repeat_interleave(choices, dim=0)
        ones = pairs.new_ones(tokens * choices, 1)
        y = ALL_EXPERTS_FUNCTIONS[BASE](module, pairs, top_k_index.reshape(-1, 1), ones)
        self.top_k[layer] = choices
        experts: Any = module.num_experts
        self._add(layer, y, top_k_index.reshape(-1), top_k_weights.reshape(-1), int(experts))
        weighted = y * top_k_weights.reshape(-1, 1)
        result: torch.Tensor = weighted.view(tokens, choices, -1).sum(dim=1).to(hidden.dtype)
        return result

    def _add(self, layer: int, y: torch.Tensor, expert: torch.Tensor, weight: torch.Tensor, experts: int) -> None:
        import torch

        if layer not in self.scalars:
            self.scalars[layer] = torch.zeros(experts, 6, dtype=torch.float64, device=y.device)
            self.outputs[layer] = torch.zeros(experts, y.shape[-1], dtype=torch.float64, device=y.device)
        rows = max(1, _CHUNK_NUMBERS // y.shape[-1])
        for start in range(0, y.shape[0], rows):
            part, number = y[start : start + rows].double(), expert[start : start + rows]
            w = weight[start : start + rows].double()
            n = torch.linalg.vector_norm(part, dim=-1)
            wn = w * n
            self.outputs[layer].index_add_(0, number, part)
            self.scalars[layer].index_add_(0, number, torch.stack((torch.ones_like(n), w, n, wn, n * n, wn * wn), dim=1))


def decoder_layers(model: torch.nn.Module) -> dict[int, int]:
    """`id` of every module inside a decoder layer -> number of that layer.

    The decoder layers are the outermost module lists with as many items as the config has layers; a module's number is its place in the
    list, whatever it is called.
    """
    import torch

    config = model.config.get_text_config()  # type: ignore[union-attr,operator]
    found: dict[int, int] = {}
    inside: set[int] = set()
    for module in model.modules():
        if not isinstance(module, torch.nn.ModuleList) or id(module) in inside:
            continue
        inside |= {id(item) for item in module.modules()}
        if len(module) == config.num_hidden_layers:
            found |= {id(item): number for number, layer in enumerate(module) for item in layer.modules()}
    return found


# --- run -------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model ready to be measured."""

    model: Any
    tokenizer: Any
    recorder: Recorder
    device: Any
    dtype: str


def load(folder: Any, load_in: LoadIn) -> Loaded:
    """Load a model folder with the recorder as its experts implementation.

    Args:
        folder: path of config.json, tokenizer and safetensors files.
        load_in: see ProfileBlock.

    Raises:
        InputError: transformers cannot load it, or would fill missing weights with random numbers.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if load_in == "auto":
        load_in = "float32" if device.type == "cpu" else "checkpoint"
    dtype: Any = "auto" if load_in == "checkpoint" else getattr(torch, load_in)
    if IMPLEMENTATION not in ALL_EXPERTS_FUNCTIONS:
        ALL_EXPERTS_FUNCTIONS.register(IMPLEMENTATION, _experts)
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            experts_implementation=IMPLEMENTATION,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise InputError(f"transformers cannot load the model: {error}") from error
    missing = sorted(report["missing_keys"])
    if missing or report["mismatched_keys"]:
        raise InputError(
            f"the model lacks weights that its config.json asks for: {', '.join(missing[:6]) or report['mismatched_keys']}"
            f"{f' and {len(missing) - 6} more' if len(missing) > 6 else ''}. Download it again"
        )
    model.to(device).eval()
    recorder = Recorder(model)
    for module in model.modules():
        module.__dict__["alloy_ledger_recorder"] = recorder
    return Loaded(model, tokenizer, recorder, device, str(model.dtype).removeprefix("torch."))


def _experts(module: Any, *args: torch.Tensor) -> torch.Tensor:
    """The registered implementation: the recorder of the model that the module belongs to."""
    recorder: Recorder = module.__dict__["alloy_ledger_recorder"]
    return recorder(module, *args)


def run(spec: ProfileBlock, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Run the samples through the model and write their sums as a profile of one block."""
    import numpy as np
    import torch

    from stages import saliency
    from stages.calibration import read_samples

    if spec.max_length < 1:
        raise SpecError(f"max_length is {spec.max_length}; a sample needs at least 1 token")
    key = f"profile-block:{inputs['model'].hex}:{spec.load_in}"
    if key not in context.memo:
        context.memo[key] = load(context.folder(inputs["model"]), spec.load_in)
    loaded: Loaded = context.memo[key]
    recorder = loaded.recorder
    samples = read_samples(context.store.read(inputs["samples"]))
    domains = tuple(sorted({sample.domain for sample in samples}))
    counts = np.zeros((1, len(domains)))
    lengths = np.zeros((1, len(domains)))
    scalars: list[dict[int, torch.Tensor]] = []
    outputs: list[dict[int, torch.Tensor]] = []
    started = time.monotonic()
    done = 0
    for column, domain in enumerate(domains):
        recorder.clear()
        for sample in (item for item in samples if item.domain == domain):
            ids = loaded.tokenizer(sample.text, return_tensors="pt", truncation=True, max_length=spec.max_length)["input_ids"]
            counts[0, column] += 1
            lengths[0, column] += ids.shape[1]
            done += 1
            if ids.shape[1] == 0:
                context.warn(f"sample {done} of this block has no tokens")
                continue
            with torch.inference_mode():
                loaded.model.base_model(input_ids=ids.to(loaded.device), use_cache=False)
            context.progress(done, len(samples), "samples")
        scalars.append(recorder.scalars)
        outputs.append(recorder.outputs)
    elapsed = time.monotonic() - started
    layers = tuple(sorted(set().union(*scalars)))
    if not layers:
        raise InputError(
            f"no layer with routed experts ran in {type(loaded.model).__name__}: it is not a mixture of experts, "
            "or transformers does not route its experts through the experts interface"
        )
    for domain, part in zip(domains, scalars, strict=True):
        if part and set(part) != set(layers):
            raise StageError(f"layers {sorted(set(layers) - set(part))} did not run for domain {domain}")
    about = saliency.About(
        model=str(inputs["model"]),
        dtype=loaded.dtype,
        max_length=spec.max_length,
        layers=layers,
        experts=_one("experts", {layer: part[layer].shape[0] for part in scalars for layer in part}),
        top_k=_one("choices per token", recorder.top_k),
        hidden=_one("output sizes", {layer: part[layer].shape[1] for part in outputs for layer in part}),
        domains=domains,
        blocks=1,
    )
    stacked = np.zeros((len(domains), len(layers), about.experts, 6))
    for column, part in enumerate(scalars):
        for row, layer in enumerate(layers):
            if layer in part:
                stacked[column, row] = part[layer].cpu().numpy()
    _refuse_broken(stacked, about)
    sums = {metric: stacked[None, ..., number] for number, metric in enumerate(saliency.METRICS)}
    nothing = np.zeros((about.experts, about.hidden))
    with context.store.writer() as writer:
        rows = (part[layer].cpu().numpy() if layer in part else nothing for part in outputs for layer in layers)
        saliency.write(about, (counts, lengths), sums, rows, writer)
        profile = writer.finish()
    context.note("samples", len(samples))
    context.note("tokens", int(lengths.sum()))
    context.note("tokens_per_s", f"{lengths.sum() / max(elapsed, 1e-9):.1f}")
    return Outcome({"profile": profile})


def _one(what: str, values: Mapping[int, int]) -> int:
    """The one value that all layers share."""
    if len(set(values.values())) != 1:
        raise StageError(f"the layers differ in {what}: {dict(sorted(values.items()))}; only equal layers can be profiled yet")
    return next(iter(values.values()))


def _refuse_broken(stacked: Any, about: Any) -> None:
    """Refuse sums that are not finite, naming the first layer and expert."""
    import numpy as np

    broken = np.argwhere(~np.isfinite(stacked))
    if len(broken):
        column, row, expert, _ = (int(item) for item in broken[0])
        raise InputError(
            f"layer {about.layers[row]}, expert {expert}: its outputs on domain {about.domains[column]} are NaN or infinite. "
            "The weights are damaged, or too large for this type: import the model with check_finite, or set load_in to float32"
        )

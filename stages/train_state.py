"""The state between two training segments: one safetensors file that holds all that the next step depends on.

Tensors, all float32, sorted by name: `param/<name>`, `exp_avg/<name>` and `exp_avg_sq/<name>` (AdamW's moments) for every parameter of
the model by transformers' names; tied parameters once. The header's metadata has the number of steps done and the model's config as JSON,
so a state can be continued with nothing else at hand. There is no generator state: what is random is made anew from (seed, step).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.errors import InputError
from stages.safetensors_file import header_bytes, place, read_header
from store import canonical
from store.cas import Cas
from store.digest import Digest
from store.errors import CanonicalError

if TYPE_CHECKING:
    import torch

FORMAT = "train-state/v1"
KINDS = ("exp_avg", "exp_avg_sq", "param")


@dataclass(frozen=True, slots=True)
class StateHead:
    """What a state says of itself.

    Attributes:
        step: optimiser steps done.
        config: the model's config, as in config.json.
    """

    step: int
    config: Mapping[str, Any]


def write_state(store: Cas, head: StateHead, tensors: Mapping[str, Mapping[str, torch.Tensor]]) -> Digest:
    """Store a state; the bytes are a function of the arguments. `tensors` is kind (one of KINDS) -> parameter name -> values."""
    named = {f"{kind}/{name}": value for kind in KINDS for name, value in tensors[kind].items()}
    order = sorted(named)
    metadata = {"config": canonical.dumps(_texts(head.config)).decode(), "format": FORMAT, "step": str(head.step)}
    layout = place((name, "F32", tuple(named[name].shape)) for name in order)
    with store.writer() as writer:
        writer.write(header_bytes(layout, metadata))
        for name in order:
            writer.write(named[name].detach().cpu().contiguous().numpy().data.cast("B"))
        return writer.finish()


def read_head(path: Path) -> StateHead:
    """Read what a state says of itself.

    Raises:
        InputError: it is no state.
    """
    with path.open("rb") as file:
        metadata = read_header(file, path.name, path.stat().st_size).metadata
    if metadata.get("format") != FORMAT:
        raise InputError(f"{path.name} is not a training state: its format is {metadata.get('format')!r}, not {FORMAT!r}")
    try:
        return StateHead(int(metadata["step"]), _numbers(canonical.loads(metadata["config"].encode())))
    except (KeyError, ValueError, CanonicalError) as error:
        raise InputError(f"{path.name}: a training state whose header is damaged: {error}") from error


def read_tensors(path: Path, kind: str) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of one kind by parameter name; each is a view of the mapped file, to be copied."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        for name in sorted(file.keys()):
            if name.startswith(f"{kind}/"):
                yield name.removeprefix(f"{kind}/"), file.get_tensor(name)


def _texts(value: Any) -> Any:
    """Floats as `{"float": "<shortest decimal>"}`: canonical JSON here holds none, and 1.0 must not come back as 1."""
    if isinstance(value, float):
        return {"float": repr(value)}
    if isinstance(value, Mapping):
        return {str(key): _texts(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_texts(item) for item in value]
    return value


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return float(value["float"]) if set(value) == {"float"} else {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return value

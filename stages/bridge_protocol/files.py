"""A trained bridge as a folder: `bridge.safetensors`, and what was done to train it, `training_metadata.json`. Nothing is pickled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.errors import InputError

if TYPE_CHECKING:
    from stages.bridges.bridge import Bridge
    from stages.bridges.spec import BridgeSpec
    from stages.bridges.target import BridgedTarget

FORM = "many-worlds-bridge/v1"
WEIGHTS = "bridge.safetensors"
METADATA = "training_metadata.json"


@dataclass(frozen=True, slots=True)
class Head:
    """What a bridge says of itself.

    Attributes:
        sources: names, in order. layers: after how many layers the states of each are.
        models: name -> digest; the target's is under its name.
    """

    spec: BridgeSpec
    sources: tuple[str, ...]
    layers: tuple[int, ...]
    widths: tuple[int, ...]
    target: str
    models: Mapping[str, str]


def head(folder: Path) -> Head:
    """Read it.

    Raises:
        InputError: there is no bridge.
    """
    from stages.bridges.spec import BridgeSpec
    from stages.many_worlds import tensor_file
    from stages.stage import spec_from_json

    if not (folder / WEIGHTS).exists():
        raise InputError(f"there is no {WEIGHTS} in the folder; a bridge is the folder that many-worlds-bridge gives")
    found: Mapping[str, Any] = tensor_file.read_head(folder / WEIGHTS, FORM)
    spec = spec_from_json(BridgeSpec, found["bridge"])
    return Head(spec, tuple(found["sources"]), tuple(found["layers"]), tuple(found["widths"]), found["target"], found["models"])


def load(folder: Path, target: BridgedTarget) -> Bridge:
    """The bridge in a folder, in evaluation mode, on the target's device.

    Raises:
        InputError: a file is missing or damaged, or was made for a target of other sizes.
    """
    from stages.bridges.bridge import build
    from stages.many_worlds import tensor_file
    from stages.many_worlds.state import fill

    about = head(folder)
    made = build(about.spec, target, about.widths, 0)
    fill(made, tensor_file.read(folder / WEIGHTS, FORM).tensors, WEIGHTS)
    return made.eval()

"""A trained world as a folder: `substrate.safetensors`, one `adapter_<model>.safetensors` each, and what was done to train them as JSON.

`training_metadata.json` is of the substrate and the models trained with it, `training_metadata_<model>.json` of a model added later. Adding
one adds two files and changes no other byte, which the digests of the folder's tree show.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.errors import InputError
from store import tree
from store.cas import Cas
from store.digest import Digest
from store.errors import StoreError

if TYPE_CHECKING:
    from stages.many_worlds.world import World

SUBSTRATE_FORM = "many-worlds-substrate/v1"
ADAPTER_FORM = "many-worlds-adapter/v1"
SUBSTRATE = "substrate.safetensors"
METADATA = "training_metadata.json"


def adapter_name(model: str) -> str:
    """File of a model's adapter."""
    return f"adapter_{model}.safetensors"


def metadata_name(model: str) -> str:
    """File of what was done to add a model later."""
    return f"training_metadata_{model}.json"


@dataclass(frozen=True, slots=True)
class Member:
    """A model of a trained world, and how its states were taken: enough to name the actions that took them.

    Attributes:
        layer: as asked for; None for two thirds.
    """

    name: str
    model: Digest
    layer: int | None


@dataclass(frozen=True, slots=True)
class Trained:
    """What a substrate's folder says of its training.

    Attributes:
        metadata: `training_metadata.json`.
        members: in the order in which they came.
    """

    metadata: Mapping[str, Any]
    calibration: Digest
    members: tuple[Member, ...]


def described(store: Cas, substrate: Digest) -> Trained:
    """Read what the folder says, without its tensors.

    Raises:
        InputError: it is no substrate, or its metadata are damaged.
    """
    if not tree.is_tree(store, substrate):
        raise InputError(f"{substrate.short} is no folder; a substrate is the folder that many-worlds-substrate gives")
    entries = {entry.path: entry.digest for entry in tree.load(store, substrate).entries}
    if METADATA not in entries or SUBSTRATE not in entries:
        raise InputError(f"{substrate.short} has no {METADATA} and {SUBSTRATE}; it holds {', '.join(sorted(entries)[:8]) or 'nothing'}")
    try:
        first = json.loads(store.read(entries[METADATA]))
        calibration = Digest.parse(first["calibration"])
        members = [Member(item["name"], Digest.parse(item["digest"]), item["layer_asked"]) for item in first["models"]]
        later = [json.loads(store.read(entries[path])) for path in sorted(entries) if path.startswith("training_metadata_")]
        for metadata in sorted(later, key=lambda item: item["number"]):
            item = metadata["models"][-1]
            members.append(Member(item["name"], Digest.parse(item["digest"]), item["layer_asked"]))
    except (ValueError, KeyError, TypeError, StoreError) as error:
        raise InputError(f"substrate {substrate.short}: its training metadata are damaged: {error}") from error
    return Trained(first, calibration, tuple(members))


def load(folder: Path) -> World:
    """The world in a folder, in evaluation mode, on the CPU.

    Raises:
        InputError: a file is missing, damaged, or of another dimension.
    """
    from stages.many_worlds import state, tensor_file
    from stages.many_worlds.world import AdapterShape, World

    if not (folder / SUBSTRATE).exists():
        raise InputError(f"there is no {SUBSTRATE} in the folder")
    head = tensor_file.read_head(folder / SUBSTRATE, SUBSTRATE_FORM)
    adapters = [tensor_file.read(path, ADAPTER_FORM) for path in folder.glob("adapter_*.safetensors")]
    adapters.sort(key=lambda file: (file.head["number"], file.head["name"]))
    wrong = [file.head["name"] for file in adapters if file.head["dim"] != head["dim"]]
    if wrong:
        raise InputError(f"the adapter of {wrong[0]} is for another dimension than the substrate's {head['dim']}")
    shapes = {file.head["name"]: AdapterShape(file.head["hidden"], file.head["rank"]) for file in adapters}
    world = World(head["dim"], head["gaussians"], shapes, seed=0, scale=1.0, dropout=0.0, temperature=1.0)
    state.fill(world.substrate, tensor_file.read(folder / SUBSTRATE, SUBSTRATE_FORM).tensors, SUBSTRATE)
    for file in adapters:
        state.fill(world.adapter(file.head["name"]), file.tensors, adapter_name(file.head["name"]))
    return world.eval()

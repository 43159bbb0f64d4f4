"""A finished many-worlds training as the folder that others load, with every step's loss, and drawn."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stages.errors import InputError, SpecError
from stages.many_worlds.settings import Objective, Schedule
from stages.stage import Context, Leaf, Outcome
from store import tree
from store.digest import Digest
from store.tree import Tree, TreeEntry

if TYPE_CHECKING:
    from stages.many_worlds.state import State

_DRAWN = ("loss", "contrastive", "round_trip", "cross_model")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A model, as the recipe asked for its states."""

    name: str
    layer: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ManyWorldsExport:
    """What is written down of the training beside its weights.

    Attributes:
        models: in order; the inputs `model-<name>` are their digests. For a model that is added, it is the last.
        new: the model that is added to the input `frozen-substrate`; empty when all were trained.
        max_bytes, block_samples, load_in: how the states were taken; whoever adds a model takes its states in the same way.
    """

    models: tuple[Asked, ...]
    new: str = ""
    training: Schedule
    objective: Objective
    max_bytes: int
    block_samples: int
    load_in: str


STAGE = Leaf(
    name="many-worlds-export",
    version=1,
    spec=ManyWorldsExport,
    inputs=("state", "aligned", "calibration", "model-*", "frozen-*"),
    outputs=("substrate", "picture"),
    purity="P",
    run="stages.many_worlds_export:run",
)


def run(spec: ManyWorldsExport, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Write the files; those of a frozen substrate stay as they are, by digest.

    Raises:
        InputError: a state of other models; a file that would be overwritten.
    """
    from stages.many_worlds import aligned, files, picture, state, tensor_file

    current = state.load(context.path(inputs["state"]))
    if current.new != spec.new or current.step != spec.training.steps:
        raise InputError(
            f"state {inputs['state'].short} is of {current.new or 'all models'} at step {current.step}; "
            f"wanted is {spec.new or 'all models'} at step {spec.training.steps}"
        )
    store = context.store
    entries = {item.path: item for item in tree.load(store, inputs["frozen-substrate"]).entries} if spec.new else {}
    number = sum(path.startswith("training_metadata_") for path in entries) + 1 if spec.new else 0
    made: dict[str, Digest] = {}
    if not spec.new:
        world = current.world
        head = {"dim": world.dim, "gaussians": world.gaussians, "logVariance": [-6, 6]}
        made[files.SUBSTRATE] = tensor_file.write(store, files.SUBSTRATE_FORM, head, world.substrate.state_dict())
    for item in spec.models if not spec.new else [one for one in spec.models if one.name == spec.new]:
        adapter = current.world.adapter(item.name)
        about = {
            "baseModel": str(inputs[f"model-{item.name}"]),
            "dim": adapter.dim,
            "hidden": adapter.hidden,
            "layer": current.layers[item.name],
            "name": item.name,
            "number": number,
            "rank": adapter.rank,
        }
        made[files.adapter_name(item.name)] = tensor_file.write(store, files.ADAPTER_FORM, about, adapter.state_dict())
    rows = aligned.load(context.folder(inputs["aligned"]), spec.training.heldout_percent)
    metadata = _metadata(spec, inputs, current, len(rows.train), len(rows.held_out)) | {"number": number}
    name = files.metadata_name(spec.new) if spec.new else files.METADATA
    made[name] = store.put(json.dumps(metadata, indent=1, sort_keys=True).encode() + b"\n")
    if set(made) & set(entries):
        raise InputError(f"the substrate has {', '.join(sorted(set(made) & set(entries)))} already; give the model another name")
    entries |= {path: TreeEntry(path, digest, store.size(digest)) for path, digest in made.items()}
    history = {name: metadata["losses_history"][name] for name in _DRAWN if any(metadata["losses_history"][name])}
    title = f"Adding {spec.new}" if spec.new else f"Training the substrate of {', '.join(item.name for item in spec.models)}"
    drawn = (
        picture.losses(history, title=title) if current.step > 1 else picture.losses({n: v * 2 for n, v in history.items()}, title=title)
    )
    return Outcome({"substrate": store.put(Tree.of(entries.values()).to_bytes()), "picture": store.put(drawn.encode())})


def _metadata(spec: ManyWorldsExport, inputs: Mapping[str, Digest], current: State, train: int, held_out: int) -> dict[str, Any]:
    """What the folder says of its training: JSON, with numbers as they are."""
    from stages.many_worlds.world import COLUMNS
    from stages.stage import spec_to_json

    if {f"model-{item.name}" for item in spec.models} != {name for name in inputs if name.startswith("model-")}:
        raise SpecError(f"models are {', '.join(item.name for item in spec.models)}; given are {', '.join(sorted(inputs))}")
    world = current.world
    columns = list(zip(*current.history, strict=True))
    return {
        "calibration": str(inputs["calibration"]),
        "final_loss": current.history[-1][0],
        "losses_history": {name: list(values) for name, values in zip(COLUMNS, columns, strict=True)},
        "lr": spec.training.learning_rate,
        "models": [
            {
                "digest": str(inputs[f"model-{item.name}"]),
                "hidden_dim": world.adapter(item.name).hidden,
                "insert_layer": current.layers[item.name],
                "layer_asked": item.layer,
                "name": item.name,
                "rank": world.adapter(item.name).rank,
            }
            for item in spec.models
        ],
        "num_gaussians": world.gaussians,
        "objective": spec_to_json(spec.objective),
        "parameters": {
            "substrate": sum(value.numel() for value in world.substrate.parameters()),
            "adapters": {item.name: sum(value.numel() for value in world.adapter(item.name).parameters()) for item in spec.models},
        },
        "places": {"training": train, "held_out": held_out},
        "states": {"block_samples": spec.block_samples, "load_in": spec.load_in, "max_bytes": spec.max_bytes},
        "steps": current.step,
        "substrate_dim": world.dim,
        "training": spec_to_json(spec.training),
    }

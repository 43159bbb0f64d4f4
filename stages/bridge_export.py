"""A finished bridge as the folder that others load, with every step's loss, and drawn."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stages.bridge_texts import BridgeTexts
from stages.errors import InputError, SpecError
from stages.hf_model import LoadIn
from stages.many_worlds.settings import Schedule
from stages.stage import Context, Leaf, Outcome
from store.digest import Digest
from store.tree import Tree, TreeEntry

if TYPE_CHECKING:
    from stages.bridge_protocol.readings import Readings
    from stages.bridge_protocol.state import State


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeExport:
    """What is written down of the training beside its weights; the inputs `model-<name>` are the sources' digests."""

    sources: tuple[str, ...]
    target: str
    version: str
    training: Schedule
    texts: BridgeTexts
    load_in: LoadIn = "auto"


STAGE = Leaf(
    name="bridge-export",
    version=1,
    spec=BridgeExport,
    inputs=("state", "prompt", "target", "readings", "calibration", "model-*"),
    outputs=("bridge", "picture"),
    purity="P",
    run="stages.bridge_export:run",
)


def run(spec: BridgeExport, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Write the files.

    Raises:
        InputError: a state of another training. SpecError: models that are not the inputs.
    """
    from stages.bridge_protocol import files, loaded, readings, state
    from stages.many_worlds import picture, tensor_file
    from stages.stage import spec_to_json

    given = {name for name in inputs if name.startswith("model-")}
    if given != {f"model-{name}" for name in spec.sources}:
        raise SpecError(f"sources are {', '.join(spec.sources)}; given are {', '.join(sorted(given))}")
    target = loaded.target(inputs["target"], state.spec_of(context.path(inputs["state"])), spec.load_in, context)
    found = {name: state.load(context.path(inputs[name]), target) for name in ("state", "prompt")}
    for name, one in found.items():
        if one.constant != (name == "prompt") or one.step != spec.training.steps or one.sources != spec.sources:
            raise InputError(f"{name} {inputs[name].short} is of {', '.join(one.sources)} at step {one.step}, not of this training's end")
    current, texts = found["state"], readings.load(context.folder(inputs["readings"]), spec.sources)
    bridge, store = current.bridge, context.store
    head = {
        "bridge": spec_to_json(bridge.spec),
        "layers": [texts.layers[name] for name in spec.sources],
        "models": {spec.target: str(inputs["target"]), **{name: str(inputs[f"model-{name}"]) for name in spec.sources}},
        "sources": list(spec.sources),
        "target": spec.target,
        "widths": [len(sender.center) for sender in state.senders(bridge)],
    }
    made = {files.WEIGHTS: tensor_file.write(store, files.FORM, head, bridge.state_dict())}
    metadata = {**head, **_metadata(spec, current, found["prompt"], texts), "calibration": str(inputs["calibration"])}
    made[files.METADATA] = store.put(json.dumps(metadata, indent=1, sort_keys=True).encode() + b"\n")
    lines = {"with sources": [row[0] for row in current.history], "on a constant": [row[0] for row in found["prompt"].history]}
    if spec.training.steps == 1:
        lines = {name: values * 2 for name, values in lines.items()}
    drawn = picture.losses(lines, title=f"Training {spec.version} from {', '.join(spec.sources)} to {spec.target}")
    tree = Tree.of(TreeEntry(path, digest, store.size(digest)) for path, digest in made.items())
    return Outcome({"bridge": store.put(tree.to_bytes()), "picture": store.put(drawn.encode())})


def _metadata(spec: BridgeExport, current: State, prompt: State, texts: Readings) -> dict[str, Any]:
    """What the folder says of its training: JSON, with numbers as they are."""
    from stages.bridge_protocol import state
    from stages.stage import spec_to_json

    def losses(one: State) -> dict[str, list[float]]:
        return {name: list(values) for name, values in zip(state.COLUMNS, zip(*one.history, strict=True), strict=True)}

    parts: dict[str, int] = {}
    for name, value in current.bridge.named_parameters():
        part = ".".join(name.split(".")[: 2 if name.startswith("senders.") else 1])
        parts[part] = parts.get(part, 0) + value.numel()
    return {
        "final_loss": current.history[-1][0],
        "frozen": list(current.frozen),
        "losses_history": losses(current),
        "parameters": {"trained": state.count(current.trained()), **parts},
        "prompt_losses_history": losses(prompt),
        "prompt_parameters": state.count(prompt.trained()),
        "steps": current.step,
        "texts": {
            "heldOut": len(texts.held_out),
            "leftOut": dict(texts.left_out),
            "training": len(texts.train),
            **spec_to_json(spec.texts),
        },
        "training": spec_to_json(spec.training),
        "version": spec.version,
    }

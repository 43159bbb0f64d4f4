"""The state before the first step of a bridge's training: first weights from the seed, and the units of each source's states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stages.bridges.spec import BridgeSpec
from stages.errors import SpecError
from stages.hf_model import LoadIn
from stages.stage import Context, Leaf, Outcome
from store.digest import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeInit:
    """What is made.

    Attributes:
        constant: the control: trained numbers stand in place of every source's states.
        target: name of the target in a substrate (input `substrate`), whose Read is then taken for a residual bridge.
        freeze_substrate: nothing that was taken from the substrate is trained on.
    """

    bridge: BridgeSpec
    sources: tuple[str, ...]
    constant: bool = False
    target: str = ""
    freeze_substrate: bool = False
    load_in: LoadIn = "auto"
    seed: int = 0


STAGE = Leaf(
    name="bridge-init",
    version=1,
    spec=BridgeInit,
    inputs=("target", "readings", "substrate*"),
    outputs=("state",),
    purity="E",
    run="stages.bridge_init:run",
    share=("target",),
)


def run(spec: BridgeInit, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Make the state. Units are fitted on the training texts alone.

    Raises:
        InputError: too few texts; a substrate without one of the sources. SpecError: the bridge does not fit the target, or the substrate.
    """
    import torch

    from stages.bridge_protocol import from_substrate, loaded, readings, state
    from stages.bridges.bridge import build
    from stages.train_data import mix

    target = loaded.target(inputs["target"], spec.bridge, spec.load_in, context)
    texts = readings.load(context.folder(inputs["readings"]), spec.sources)
    widths = [int(texts.train[0].states[name].shape[1]) for name in spec.sources]
    module = state.Trained(build(spec.bridge, target, widths, spec.seed), constant=spec.constant)
    for name, sender in zip(spec.sources, state.senders(module.bridge), strict=True):
        sender.fit_units(torch.cat([text.states[name] for text in texts.train]).to(target.device))
    made = state.State(module, spec.sources, spec.constant)
    if "substrate" in inputs:
        taken = from_substrate.take(module.bridge, texts.layers, spec.target, context.folder(inputs["substrate"]))
        made.frozen = tuple(f"bridge.{name}" for name in taken) if spec.freeze_substrate else ()
        if made.frozen and all(f"bridge.{name}".startswith(made.frozen) for name, _ in module.bridge.named_parameters()):
            raise SpecError("all of this bridge comes from the substrate: with freezeSubstrate nothing would be trained")
    module.draw_constants(mix(spec.seed, 1) & 0x7FFFFFFF)
    context.note("texts", {"training": len(texts.train), "heldOut": len(texts.held_out), "leftOut": dict(texts.left_out)})
    context.note("parameters", state.count(dict(module.bridge.named_parameters())))
    return Outcome({"state": made.store(context.store)})

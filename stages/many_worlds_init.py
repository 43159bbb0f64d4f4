"""The state before the first step of a many-worlds training: first weights from the seed, and the units of each model's states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stages.errors import InputError, SpecError
from stages.stage import Context, Leaf, Outcome
from store.digest import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class ManyWorldsInit:
    """What is made.

    Attributes:
        dim, gaussians: of the substrate; with a frozen one (input `frozen-substrate`) they are its own.
        rank: of the adapters that are made here.
        new: the one model that gets an adapter; the substrate and the other adapters are then taken as they are. Empty: all do.
        output_scale: first scale of Project and Read.
        heldout_percent: units are taken from the texts that are not held out.
    """

    dim: int
    gaussians: int
    rank: int
    new: str = ""
    output_scale: float = 1.0
    temperature: float = 0.07
    heldout_percent: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("dim", "gaussians", "rank"):
            if getattr(self, name) < 1:
                raise SpecError(f"{name} is {getattr(self, name)}; it must be at least 1")


STAGE = Leaf(
    name="many-worlds-init",
    version=1,
    spec=ManyWorldsInit,
    inputs=("aligned", "frozen-*"),
    outputs=("state",),
    purity="E",
    run="stages.many_worlds_init:run",
)


def run(spec: ManyWorldsInit, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Make the state. The spread of a number that never changes is 1.

    Raises:
        InputError: too few aligned places; a frozen world that lacks a model, or has the new one.
    """
    from stages.many_worlds import aligned, files, state
    from stages.many_worlds.world import AdapterShape, World

    data = aligned.load(context.folder(inputs["aligned"]), spec.heldout_percent)
    frozen = files.load(context.folder(inputs["frozen-substrate"])) if "frozen-substrate" in inputs else None
    if (frozen is not None) != bool(spec.new):
        raise SpecError("a new model is added to a frozen substrate, and only then is there one")
    shapes = {name: AdapterShape(int(states.shape[1]), spec.rank) for name, states in data.train.states.items()}
    if frozen is not None:
        if spec.new in frozen.names:
            raise InputError(f"the substrate has an adapter of {spec.new!r} already; give the model another name")
        shapes |= {n: AdapterShape(frozen.adapter(n).hidden, frozen.adapter(n).rank) for n in frozen.names}
    dim, gaussians = (spec.dim, spec.gaussians) if frozen is None else (frozen.dim, frozen.gaussians)
    world = World(dim, gaussians, shapes, seed=spec.seed, scale=spec.output_scale, dropout=0.0, temperature=spec.temperature)
    if frozen is not None:
        world.substrate.load_state_dict(frozen.substrate.state_dict())
    for name, states in data.train.states.items():
        adapter = world.adapter(name)
        if frozen is not None and name != spec.new:
            adapter.load_state_dict(frozen.adapter(name).state_dict())
            continue
        values = states.double()
        spread = values.std(dim=0, correction=0)
        adapter.center.copy_(values.mean(dim=0))
        adapter.spread.copy_(spread.where(spread > 0, 1.0))
    context.note("places", {"training": len(data.train), "heldOut": len(data.held_out)})
    return Outcome({"state": state.State(world, spec.new, data.layers).store(context.store)})

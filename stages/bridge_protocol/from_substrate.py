"""A bridge that begins with a trained substrate: its Gaussians, the sources' Project, and the target's Read where the bridge has one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from stages.bridge_protocol.state import senders
from stages.bridges.bridge import Bridge
from stages.errors import InputError, SpecError
from stages.many_worlds import files, tensor_file
from stages.many_worlds.adapter import Read


def take(bridge: Bridge, layers: Mapping[str, int], target: str, folder: Path) -> tuple[str, ...]:
    """Put the parts of a substrate into a bridge, and the units of the sources' states with them.

    Args:
        bridge: with a substrate in its spec.
        layers: source -> layer of its states, in the order of the bridge.
        target: its name in the substrate.
        folder: of the substrate.

    Returns:
        Beginnings of the names of the parameters that were taken.

    Raises:
        SpecError: the bridge has no substrate, or one of other sizes.
        InputError: a source without an adapter, or with one for another layer.
    """
    spec = bridge.spec
    if bridge.space is None:
        raise SpecError("substratePath: this bridge has no substrate; take v1 to v8, or leave it out")
    world = files.load(folder)
    for name, own, given in (("dim", spec.dim, world.dim), ("gaussians", spec.gaussians, world.gaussians)):
        if own != given:
            raise SpecError(f"bridge: {name} is {own}, and the substrate's is {given}: write `bridge: {{{name}: {given}}}`")
    bridge.space.load_state_dict(world.substrate.state_dict())
    taken = ["space."]
    for number, ((name, layer), sender) in enumerate(zip(layers.items(), senders(bridge), strict=True)):
        found = world.adapter(name)
        trained_at = tensor_file.read_head(folder / files.adapter_name(name), files.ADAPTER_FORM)["layer"]
        if trained_at != layer:
            raise InputError(
                f"the substrate knows {name} by its states after layer {trained_at}; the bridge reads those after layer {layer}"
            )
        _fill(sender.project, found.project, f"the adapter of {name}")
        sender.center.copy_(found.center)
        sender.spread.copy_(found.spread)
        taken.append(f"senders.{number}.project.")
    if isinstance(bridge.reader, Read) and target in world.names:
        _fill(bridge.reader, world.adapter(target).read, f"the adapter of {target}")
        taken.append("reader.")
    return tuple(taken)


def _fill(own: nn.Module, given: nn.Module, what: str) -> None:
    odd = [name for name, value in given.state_dict().items() if own.state_dict()[name].shape != value.shape]
    if odd:
        sizes = tuple(given.state_dict()[odd[0]].shape), tuple(own.state_dict()[odd[0]].shape)
        raise SpecError(
            f"{what} is of another rank than the bridge ({odd[0]}: {sizes[0]}, not {sizes[1]}): write it into `bridge: {{rank: ...}}`"
        )
    own.load_state_dict(given.state_dict())

"""Drop experts from one safetensors shard by naming byte ranges: the model is never loaded and no weight is written.

The new shard is a header and ranges of the old one. Tensors of dropped experts are left out, those of kept experts get their new number,
tensors with a row per expert (router, correction bias, stacked experts) keep the rows of kept experts, everything else is the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stages.errors import InputError
from stages.families.family import Family, Role
from stages.safetensors_file import BITS, Header, Tensor, header_bytes, place
from stages.stage import Context, Leaf, Outcome
from store.cas import Part, Range
from store.digest import Digest

_LITERAL_BYTES = 128
"""Shorter ranges cost less as literals (the four bytes of a correction bias)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneShard:
    """What decides the bytes besides the plan."""

    family: str
    """Registered name of the family that says which tensors belong to experts."""


STAGE = Leaf(
    name="prune-shard",
    version=1,
    spec=PruneShard,
    inputs=("shard", "plan", "config"),
    outputs=("shard",),
    purity="P",
    run="stages.prune_shard:run",
)


@dataclass(frozen=True, slots=True)
class Pruned:
    """What becomes of a shard.

    Attributes:
        header: the new file's beginning.
        ranges: (offset, length) in the old file, in the order of the new file's data; neighbours are joined.
        counts: how many tensors were kept, renamed, sliced, dropped.
    """

    header: bytes
    ranges: tuple[tuple[int, int], ...]
    counts: Mapping[str, int]


def prune(
    header: Header, family: Family, config: Mapping[str, object], experts: int, kept: Mapping[int, tuple[int, ...]], name: str
) -> Pruned:
    """Plan a new shard from the old one's header alone.

    Args:
        header: of the old shard.
        family: says where each tensor belongs.
        config: config.json of the model.
        experts: how many each layer has.
        kept: layer -> ids of kept experts, ascending.
        name: of the shard, for messages.

    Raises:
        InputError: a layer with experts is not in the plan, or a tensor is not one row per expert.
    """
    parts: list[tuple[str, str, tuple[int, ...]]] = []
    ranges: list[tuple[int, int]] = []
    counts = {"kept": 0, "renamed": 0, "sliced": 0, "dropped": 0}

    def take(offset: int, length: int) -> None:
        if length == 0:
            return
        if ranges and sum(ranges[-1]) == offset:
            ranges[-1] = (ranges[-1][0], ranges[-1][1] + length)
        else:
            ranges.append((offset, length))

    for item in header.tensors:
        at = header.data_start + item.start
        found = family.place(item.name, config)
        if found.role in (Role.EXPERT, Role.ROWS) and found.layer not in kept:
            raise InputError(f"shard {name}: tensor {item.name} belongs to layer {found.layer}, which the plan does not know")
        if found.role is Role.BEYOND or (found.role is Role.EXPERT and found.expert not in kept[found.layer]):
            counts["dropped"] += 1
        elif found.role is Role.EXPERT:
            number = kept[found.layer].index(found.expert)
            parts.append((family.rename(item.name, found, number), item.dtype, item.shape))
            counts["kept" if number == found.expert else "renamed"] += 1
            take(at, item.size_bytes)
        elif found.role is Role.ROWS:
            row = _row_bytes(item, experts, name)
            ids = kept[found.layer]
            parts.append((item.name, item.dtype, (len(ids), *item.shape[1:])))
            counts["kept" if len(ids) == experts else "sliced"] += 1
            for expert in ids:
                take(at + expert * row, row)
        else:
            parts.append((item.name, item.dtype, item.shape))
            counts["kept"] += 1
            take(at, item.size_bytes)
    return Pruned(header_bytes(place(parts), header.metadata), tuple(ranges), counts)


def _row_bytes(item: Tensor, experts: int, name: str) -> int:
    """Bytes of one row of axis 0."""
    if not item.shape or item.shape[0] != experts:
        raise InputError(f"shard {name}: tensor {item.name} has the shape {list(item.shape)}; expected {experts} rows, one per expert")
    if item.size_bytes % experts or (item.size_bytes // experts) * experts * 8 != _bits(item):
        raise InputError(f"shard {name}: a row of {item.name} ({item.dtype}) is not a whole number of bytes")
    return item.size_bytes // experts


def _bits(item: Tensor) -> int:
    bits = BITS[item.dtype]
    for size in item.shape:
        bits *= size
    return bits


def run(spec: PruneShard, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Write the new shard as a splice of the old one."""
    from stages import plugins
    from stages.expert_select import read_plan
    from stages.tensors import parse_config, read_shard_header

    store, shard = context.store, inputs["shard"]
    family = plugins.load("families", spec.family)
    plan = read_plan(store.read(inputs["plan"]))
    config = parse_config(store.read(inputs["config"]))
    header = read_shard_header(store, shard, shard.short)
    pruned = prune(header, family, config, plan.experts, plan.kept, shard.short)
    parts: list[Part] = [pruned.header]
    written = 0
    with store.open(shard) as file:
        for offset, length in pruned.ranges:
            if length > _LITERAL_BYTES:
                parts.append(Range(shard, offset, length))
                continue
            file.seek(offset)
            parts.append(file.read(length))
            written += length
    result = store.splice(parts)
    for what, count in pruned.counts.items():
        context.note(f"tensors_{what}", count)
    context.note("weight_bytes_written", written)
    context.note("header_bytes_written", len(pruned.header))
    return Outcome({"shard": result})

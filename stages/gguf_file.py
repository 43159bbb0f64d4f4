"""Read the header of a GGUF file and prove that the file is whole: only the standard library, no tensor is read.

A file passes when every length in the header stays inside it, tensors lie one after the other without gap or overlap, and it ends where
the last of them ends. A truncated or half-written file never does.

Source: ggml docs/gguf.md (GGUF version 3; version 2 is the same for what is read here).
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from stages.errors import InputError


@dataclass(frozen=True, slots=True)
class TensorType:
    """How a tensor's numbers are stored: `block` of them in `size_bytes`."""

    name: str
    block: int
    size_bytes: int


TYPES: Mapping[int, TensorType] = {
    number: TensorType(name, block, size)
    for number, name, block, size in (
        (0, "F32", 1, 4), (1, "F16", 1, 2), (2, "Q4_0", 32, 18), (3, "Q4_1", 32, 20), (6, "Q5_0", 32, 22), (7, "Q5_1", 32, 24),
        (8, "Q8_0", 32, 34), (9, "Q8_1", 32, 40), (10, "Q2_K", 256, 84), (11, "Q3_K", 256, 110), (12, "Q4_K", 256, 144),
        (13, "Q5_K", 256, 176), (14, "Q6_K", 256, 210), (15, "Q8_K", 256, 292), (16, "IQ2_XXS", 256, 66), (17, "IQ2_XS", 256, 74),
        (18, "IQ3_XXS", 256, 98), (19, "IQ1_S", 256, 50), (20, "IQ4_NL", 32, 18), (21, "IQ3_S", 256, 110), (22, "IQ2_S", 256, 82),
        (23, "IQ4_XS", 256, 136), (24, "I8", 1, 1), (25, "I16", 1, 2), (26, "I32", 1, 4), (27, "I64", 1, 8), (28, "F64", 1, 8),
        (29, "IQ1_M", 256, 56), (30, "BF16", 1, 2), (34, "TQ1_0", 256, 54), (35, "TQ2_0", 256, 66), (39, "MXFP4", 32, 17),
        (40, "NVFP4", 64, 36), (41, "Q1_0", 128, 18), (42, "Q2_0", 64, 18),
    )
}  # fmt: skip
"""Tensor types by their number in the file (`gguf.GGML_QUANT_SIZES` of gguf 0.19.0)."""

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_MOST_DIMS = 4


@dataclass(frozen=True, slots=True)
class Tensor:
    """One entry of the tensor table.

    Attributes:
        shape: as in the file: the row length first.
        offset: of its first byte from the start of the file.
        size_bytes: of its data, without padding.
    """

    name: str
    shape: tuple[int, ...]
    type: TensorType
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class GgufFile:
    """The header of a whole GGUF file.

    Attributes:
        metadata: key -> value; arrays are lists.
    """

    version: int
    metadata: Mapping[str, Any]
    tensors: tuple[Tensor, ...]
    alignment: int
    size_bytes: int

    @property
    def experts(self) -> int:
        """Experts of each layer; 0 for a dense model."""
        return int(self.metadata.get(f"{self.metadata.get('general.architecture')}.expert_count", 0))

    def tensor_types(self) -> dict[str, int]:
        """Type name -> how many tensors really have it, sorted by name."""
        return dict(sorted(Counter(tensor.type.name for tensor in self.tensors).items()))


class _Header:
    """A reader that knows how many bytes there are, so that no length in the file can make it allocate more."""

    def __init__(self, stream: BinaryIO, size: int, name: str) -> None:
        self.stream, self.size, self.name, self.at = stream, size, name, 0

    def fault(self, what: str) -> InputError:
        return InputError(f"{self.name} is not a whole GGUF file: {what}. It is truncated or damaged; make it again. Nothing was recorded")

    def take(self, count: int, what: str) -> bytes:
        if count > self.size - self.at:
            raise self.fault(f"{what} needs {count:,} bytes at offset {self.at:,}, and the file holds {self.size:,}")
        data = self.stream.read(count)
        if len(data) != count:
            raise self.fault(f"{what} at offset {self.at:,} could not be read")
        self.at += count
        return data

    def number(self, form: str, what: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form), what))[0]

    def text(self, what: str) -> str:
        data = self.take(self.number("<Q", f"length of {what}"), what)
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            return data.decode("utf-8", "surrogateescape")  # tokens of some vocabularies are not UTF-8

    def value(self, kind: int, what: str) -> Any:
        if kind in _SCALARS:
            return self.number(_SCALARS[kind], what)
        if kind == _STRING:
            return self.text(what)
        if kind != _ARRAY:
            raise self.fault(f"{what} has the unknown type {kind}")
        inner, count = self.number("<I", what), self.number("<Q", what)
        if inner in _SCALARS:
            width = struct.calcsize(_SCALARS[inner])
            if count * width > self.size - self.at:
                raise self.fault(f"{what} claims {count:,} items, more than the file can hold")
            return list(struct.unpack(f"<{count}{_SCALARS[inner][1]}", self.take(count * width, what)))
        if inner != _STRING or count * 8 > self.size - self.at:
            raise self.fault(f"{what} claims {count:,} items of type {inner}")
        return [self.text(what) for _ in range(count)]


def short(path: Path) -> str:
    """A file's name for messages: objects of a store are named by their digest, of which twelve digits say enough."""
    return path.name if len(path.name) <= 40 else f"GGUF {path.name[:12]}"


def check(path: Path, name: str = "") -> GgufFile:
    """Read the header of a GGUF file and check that the file is whole.

    Args:
        path: the file.
        name: what to call the file in messages; its own name if empty.

    Raises:
        InputError: not GGUF, big-endian, truncated, longer than its tensors, or tensors that overlap, leave gaps or have unknown types.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        header = _Header(stream, size, name or short(path))
        magic = header.take(4, "the magic")
        if magic != b"GGUF":
            raise header.fault(f"it starts with {magic!r}, expected b'GGUF'")
        version = header.number("<I", "the version")
        if version not in (2, 3):
            raise header.fault(f"version {version}, expected 2 or 3 (little-endian)")
        count, pairs = header.number("<Q", "the number of tensors"), header.number("<Q", "the number of metadata pairs")
        metadata: dict[str, Any] = {}
        for number in range(pairs):
            key = header.text(f"metadata key {number}")
            if key in metadata:
                raise header.fault(f"metadata key {key!r} occurs twice")
            metadata[key] = header.value(header.number("<I", f"type of {key}"), key)
        table = [_table_entry(header, number) for number in range(count)]
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        raise header.fault(f"general.alignment is {alignment!r}, expected a power of two")
    if not table:
        raise header.fault("it has no tensors")
    return GgufFile(version, metadata, _placed(header, table, alignment), alignment, size)


def _table_entry(header: _Header, number: int) -> tuple[str, tuple[int, ...], TensorType, int]:
    name = header.text(f"name of tensor {number}")
    dims = header.number("<I", f"dimensions of {name}")
    if not 1 <= dims <= _MOST_DIMS:
        raise header.fault(f"tensor {name} has {dims} dimensions")
    shape = tuple(header.number("<Q", f"shape of {name}") for _ in range(dims))
    kind = header.number("<I", f"type of {name}")
    if kind not in TYPES:
        raise header.fault(f"tensor {name} has the unknown type {kind}")
    if shape[0] % TYPES[kind].block:
        raise header.fault(f"tensor {name} has rows of {shape[0]}, which blocks of {TYPES[kind].block} ({TYPES[kind].name}) do not divide")
    return name, shape, TYPES[kind], header.number("<Q", f"offset of {name}")


def _placed(header: _Header, table: list[tuple[str, tuple[int, ...], TensorType, int]], alignment: int) -> tuple[Tensor, ...]:
    start = _aligned(header.at, alignment)
    tensors: list[Tensor] = []
    expected, end, names = 0, 0, set()
    for name, shape, kind, offset in table:
        if name in names:
            raise header.fault(f"tensor {name} occurs twice")
        names.add(name)
        if offset != expected:
            raise header.fault(f"tensor {name} lies at {offset:,}, expected {expected:,}: tensors overlap or leave a gap")
        size = math.prod(shape) // kind.block * kind.size_bytes
        tensors.append(Tensor(name, shape, kind, start + offset, size))
        end, expected = start + offset + size, _aligned(offset + size, alignment)
    # Writers pad the last tensor too, or not; nothing else may follow or be missing.
    if header.size not in (end, start + expected):
        raise header.fault(f"its tensors end at byte {end:,} ({start + expected:,} with padding), and the file holds {header.size:,}")
    return tuple(tensors)


def _aligned(offset: int, alignment: int) -> int:
    return (offset + alignment - 1) // alignment * alignment

"""The safetensors format, header first, with the standard library alone: what a file says, whether it can be true, headers of new files.

A file is `u64 little-endian length of the header`, the header (JSON), the data. No tensor is read here, so checking a shard of any
size costs one small read. What is accepted is stricter than the reference reader where a lie could hide: no key twice, no
hole, no overlap, no name that could become a path.

Source: https://github.com/huggingface/safetensors (README, "Format").

>>> layout = place([("b", "F32", (2, 3)), ("a", "BF16", (4,))])
>>> [(item.name, item.start, item.stop) for item in layout]
[('b', 0, 24), ('a', 24, 32)]
>>> data = header_bytes(layout, {"format": "pt"})
>>> len(data) % 8
0
>>> import io
>>> read_header(io.BytesIO(data + bytes(32)), "model.safetensors", len(data) + 32).tensors == layout
True
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import BinaryIO

from stages.errors import InputError
from store import canonical
from store.errors import CanonicalError

BITS = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}
"""dtype -> bits of one element."""

MAX_HEADER_BYTES = 32 * 2**20
"""Far above any real shard (a million experts' tensors fit) and small enough to parse without harm."""

_ALIGNMENT = 8


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a file: `start` and `stop` count bytes from the beginning of the data, not of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def size_bytes(self) -> int:
        """Bytes of its data."""
        return self.stop - self.start


@dataclass(frozen=True)
class Header:
    """A checked header.

    Attributes:
        tensors: in the order of their data.
        metadata: the file's `__metadata__`.
        data_start: where the data begins in the file.
        size_bytes: of the whole file.
    """

    tensors: tuple[Tensor, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)
    data_start: int = 0
    size_bytes: int = 0

    @cached_property
    def by_name(self) -> Mapping[str, Tensor]:
        """Tensor name -> tensor."""
        return {item.name: item for item in self.tensors}


def read_header(file: BinaryIO, name: str, size: int) -> Header:
    """Read and check the header of a file; its data is not read.

    Args:
        file: seekable; read from its beginning.
        name: what to call the file in messages.
        size: bytes in the whole file.

    Raises:
        InputError: anything that is not exactly right; the message says what, expected, got, and what to do.
    """
    file.seek(0)
    first = file.read(8)
    if len(first) < 8:
        raise InputError(f"shard {name}: {size} bytes are too few for a safetensors file. It is truncated: download it again")
    length = int.from_bytes(first, "little")
    if length > MAX_HEADER_BYTES:
        raise InputError(
            f"shard {name}: says that its header has {length:,} bytes; at most {MAX_HEADER_BYTES:,} are read. "
            "It is not a safetensors file, or it is damaged: download it again"
        )
    if length > size - 8:
        raise InputError(
            f"shard {name}: says that its header has {length:,} bytes, file holds {size - 8:,} after the length. "
            "It is truncated: download it again"
        )
    text = file.read(length)
    if len(text) != length:
        raise InputError(f"shard {name}: the header ends after {len(text):,} of {length:,} bytes. It is truncated: download it again")
    return _check(text, name, size)


def _check(text: bytes, name: str, size: int) -> Header:
    if not text.startswith(b"{"):
        raise InputError(f"shard {name}: the header does not start with '{{'. It is not a safetensors file: download it again")
    try:
        value = canonical.loads(text)
    except CanonicalError as error:
        raise InputError(
            f"shard {name}: the header is not strict JSON ({error}). It is damaged or made by hand: download it again"
        ) from error
    metadata = value.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(item, str) for item in metadata.values()):
        raise InputError(f"shard {name}: __metadata__ must be an object of texts")
    tensors = sorted((_tensor(key, item, name) for key, item in value.items()), key=lambda item: (item.start, item.stop))
    held = size - 8 - len(text)
    end = 0
    before = "the beginning"
    for item in tensors:
        if item.start != end:
            fault = f"overlaps {before}" if item.start < end else f"leaves a hole of {item.start - end:,} bytes after {before}"
            raise InputError(
                f"shard {name}: tensor {item.name!r} {fault} (expected it to start at byte {end:,} of the data, got {item.start:,}). "
                "The header lies: do not use this file"
            )
        end, before = item.stop, repr(item.name)
    if end != held:
        raise InputError(
            f"shard {name}: header says {end:,} bytes of data, file holds {held:,}. "
            + ("It is truncated: download it again" if end > held else "Bytes that no tensor owns follow it: do not use this file")
        )
    return Header(tuple(tensors), metadata, 8 + len(text), size)


def _tensor(key: str, value: object, name: str) -> Tensor:
    where = f"shard {name}: tensor {key[:200]!r}"
    fault = unsafe_name(key)
    if fault:
        raise InputError(f"{where} {fault}. The header lies: do not use this file")
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise InputError(f"{where} must have exactly dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise InputError(f"{where} has the dtype {str(dtype)[:40]!r}; known are {', '.join(BITS)}")
    if not isinstance(shape, list) or not all(type(item) is int and item >= 0 for item in shape):
        raise InputError(f"{where} has the shape {str(shape)[:80]}; it must be a list of integers of at least 0")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(item) is int for item in offsets):
        raise InputError(f"{where} has the offsets {str(offsets)[:80]}; they must be two integers")
    start, stop = offsets
    if not 0 <= start <= stop:
        raise InputError(f"{where} has the offsets {start}, {stop}; they must not be negative and must not go backwards")
    bits = prod(shape) * BITS[dtype]
    if bits % 8 or bits // 8 != stop - start:
        raise InputError(
            f"{where} is {dtype} {shape}, which takes {-(-bits // 8):,} bytes; its offsets say {stop - start:,}. "
            "The header lies: do not use this file"
        )
    return Tensor(key, dtype, tuple(shape), start, stop)


def unsafe_name(name: str) -> str:
    """Why a tensor may not be called that, or an empty text."""
    if not name:
        return "has an empty name"
    if len(name) > 1024:
        return f"has a name of {len(name)} characters"
    if re.search(r"[\x00-\x1f\x7f]", name):
        return "has a control character in its name"
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:[\\/]", name):
        return "has a name that is an absolute path"
    if ".." in re.split(r"[/\\]", name):
        return "has a name that leaves its folder (`..`)"
    return ""


def tensor_bytes(dtype: str, shape: Iterable[int]) -> int:
    """Bytes of a tensor."""
    return prod(shape) * BITS[dtype] // 8


def place(tensors: Iterable[tuple[str, str, tuple[int, ...]]]) -> tuple[Tensor, ...]:
    """Lay tensors (name, dtype, shape) one behind the other, in the given order."""
    end = 0
    placed = []
    for name, dtype, shape in tensors:
        stop = end + tensor_bytes(dtype, shape)
        placed.append(Tensor(name, dtype, shape, end, stop))
        end = stop
    return tuple(placed)


def header_bytes(tensors: Sequence[Tensor], metadata: Mapping[str, str]) -> bytes:
    """The beginning of a new file, up to its data: length and header, padded with spaces so that the data starts at a multiple of 8.

    The bytes are a function of the arguments: metadata first (keys sorted), then the tensors in the given order, no spaces.
    """
    value: dict[str, object] = {"__metadata__": {key: metadata[key] for key in sorted(metadata)}} if metadata else {}
    for item in tensors:
        value[item.name] = {"dtype": item.dtype, "shape": list(item.shape), "data_offsets": [item.start, item.stop]}
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text

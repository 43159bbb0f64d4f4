"""The token file: int32 little-endian ids, one after another, no header, so a block of it is a slice. See docs/formats/tokens.md."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from stages.errors import InputError

BYTES_PER_TOKEN = 4


def pack(ids: Sequence[int]) -> bytes:
    """Ids as bytes."""
    return struct.pack(f"<{len(ids)}i", *ids)


def unpack(data: bytes, what: str = "token file") -> tuple[int, ...]:
    """Bytes as ids.

    Raises:
        InputError: not a whole number of ids, or an id below zero (so it is something else).
    """
    if len(data) % BYTES_PER_TOKEN:
        raise InputError(f"{what}: {len(data)} bytes are not a whole number of 4-byte ids: it is truncated, or no token file")
    ids = struct.unpack(f"<{len(data) // BYTES_PER_TOKEN}i", data)
    if ids and min(ids) < 0:
        raise InputError(f"{what}: id {min(ids)} is below zero: it is no token file")
    return ids

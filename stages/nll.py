"""The nll file: the negative log-likelihood of every scored token, and what was scored. Byte for byte: docs/formats/nll.md.

>>> block = Nll(n_ctx=4, chunks=1, bos=None, kv="F32", flash=False, resolution="token", tokens=Digest.of(b""), toolchains=(), values=(0.5,))
>>> Nll.parse(block.to_bytes()) == block
True
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from stages.errors import InputError
from stages.toolchain import Resolution, Window
from store import canonical
from store.digest import Digest
from store.errors import CanonicalError, DigestError

MAGIC = b"nll/v1\x00\n"
_FIELDS = ("bos", "chunks", "first", "flash", "kv", "n_ctx", "resolution", "tokens", "toolchains")


@dataclass(frozen=True, slots=True, kw_only=True)
class Nll:
    """What one evaluation gave, token by token.

    Attributes:
        n_ctx: tokens of a chunk; chunks: how many.
        bos: the id that stood in place of each chunk's first token, or None.
        kv, flash: as in `stages.toolchain.Window`.
        resolution: `token`, or `chunk` where each value is its chunk's mean.
        tokens: digest of the evaluated ids (chunks x n_ctx, int32 little-endian).
        toolchains: what evaluated, in words, sorted.
        values: nats, chunks x (n_ctx - 1 - n_ctx // 2) of them, in order.
    """

    n_ctx: int
    chunks: int
    bos: int | None
    kv: str
    flash: bool
    resolution: Resolution
    tokens: Digest
    toolchains: tuple[str, ...]
    values: Sequence[float]

    @property
    def settings(self) -> Mapping[str, Any]:
        """What two results must agree on to be joined or paired."""
        return {"n_ctx": self.n_ctx, "bos": self.bos, "kv": self.kv, "flash": self.flash}

    def chunk_means(self) -> list[float]:
        """Mean nll of each chunk, in nats: what two results of different resolution have in common."""
        scored = len(self.values) // self.chunks
        return [math.fsum(self.values[start : start + scored]) / scored for start in range(0, len(self.values), scored)]

    def to_bytes(self) -> bytes:
        """The file: magic, header length, canonical JSON padded to 8 bytes, float64 values.

        Raises:
            InputError: a value is not finite (the model is broken).
        """
        bad = next((number for number, value in enumerate(self.values) if not math.isfinite(value)), None)
        if bad is not None:
            raise InputError(f"the model gives nll {self.values[bad]} at scored token {bad}: its weights hold NaN or infinity, or overflow")
        header = {
            "bos": self.bos,
            "chunks": self.chunks,
            "first": Window(self.n_ctx).first,
            "flash": self.flash,
            "kv": self.kv,
            "n_ctx": self.n_ctx,
            "resolution": self.resolution,
            "tokens": str(self.tokens),
            "toolchains": list(self.toolchains),
        }
        text = canonical.dumps(header)
        text += b" " * (-len(text) % 8)
        return MAGIC + struct.pack("<Q", len(text)) + text + struct.pack(f"<{len(self.values)}d", *self.values)

    @classmethod
    def parse(cls, data: bytes) -> Nll:
        """Read a file back, checked.

        Raises:
            InputError: another kind of file, truncated, too long, or its header does not fit.
        """
        if data[:8] != MAGIC or len(data) < 16:
            raise InputError(f"not an nll file: it starts with {data[:8]!r}, expected {MAGIC!r}")
        (length,) = struct.unpack_from("<Q", data, 8)
        if length > len(data) - 16:
            raise InputError(f"nll file: header of {length} bytes in a file of {len(data)}: it is truncated")
        try:
            header = canonical.loads(data[16 : 16 + length])
            if not isinstance(header, dict) or tuple(sorted(header)) != _FIELDS or header["resolution"] not in get_args(Resolution):
                raise InputError(f"nll file: its header must have exactly the fields {', '.join(_FIELDS)}")
            window, chunks = Window(header["n_ctx"]), header["chunks"]
            if type(chunks) is not int or chunks < 1 or type(header["n_ctx"]) is not int or header["first"] != window.first:
                raise InputError("nll file: chunks, n_ctx and first do not fit together")
            tokens = Digest.parse(header["tokens"])
        except (CanonicalError, DigestError) as error:
            raise InputError(f"nll file: {error}") from error
        count = chunks * window.scored
        if len(data) != 16 + length + 8 * count:
            raise InputError(
                f"nll file: {len(data)} bytes, expected {16 + length + 8 * count} for {chunks} chunks of {window.scored} values"
            )
        values = struct.unpack_from(f"<{count}d", data, 16 + length)
        if not all(map(math.isfinite, values)):
            raise InputError("nll file: a value is not finite")
        return cls(
            n_ctx=header["n_ctx"],
            chunks=chunks,
            bos=header["bos"],
            kv=header["kv"],
            flash=header["flash"],
            resolution=header["resolution"],
            tokens=tokens,
            toolchains=tuple(header["toolchains"]),
            values=values,
        )

"""Splices: objects that are kept as a list of ranges of other objects and small literals.

The recipe is canonical JSON, `{"parts":[...],"size":n,"type":"splice/v1"}`; a part is `{"digest","length","offset"}` or `{"base64"}`.
docs/formats/store.md has it byte for byte.

>>> Recipe.of([b"ab", b"", b"c", Range(Digest.of(b"x" * 9), 2, 3), Range(Digest.of(b"x" * 9), 5, 1)]).to_bytes().decode()[:64]
'{"parts":[{"base64":"YWJj"},{"digest":"sha256:a73add1aecea03a894'
"""

from __future__ import annotations

import base64
import binascii
import io
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from store import canonical
from store.cas import Part, Range
from store.digest import Digest
from store.errors import CanonicalError, DigestError, RangeError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

LITERAL_MAX_BYTES = 1 << 16
"""Longer literals are stored as blobs of their own, so that recipes stay small and equal headers are kept once."""

_OPEN_SOURCES = 32


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a splice consists of; neighbours that touch are one part, no part is empty.

    Attributes:
        parts: in order; ranges of plain blobs, and literals.
    """

    parts: tuple[Part, ...]

    @classmethod
    def of(cls, parts: Iterable[Part]) -> Recipe:
        """The shortest recipe for these parts.

        Raises:
            RangeError: an offset or a length is negative.
        """
        kept: list[Part] = []
        for part in parts:
            if isinstance(part, Range):
                if part.offset < 0 or part.length < 0:
                    raise RangeError(f"a range of {part.digest} has offset {part.offset} and length {part.length}; neither may be negative")
                if not part.length:
                    continue
                last = kept[-1] if kept else None
                if isinstance(last, Range) and last.digest == part.digest and last.offset + last.length == part.offset:
                    kept[-1] = Range(last.digest, last.offset, last.length + part.length)
                else:
                    kept.append(part)
            elif part:
                if kept and isinstance(kept[-1], bytes):
                    kept[-1] += part
                else:
                    kept.append(bytes(part))
        return cls(tuple(kept))

    @property
    def size(self) -> int:
        """Length in bytes of what it stands for."""
        return sum(length(part) for part in self.parts)

    @property
    def sources(self) -> frozenset[Digest]:
        """The blobs that it needs."""
        return frozenset(part.digest for part in self.parts if isinstance(part, Range))

    def to_bytes(self) -> bytes:
        """The canonical JSON that is stored."""
        return canonical.dumps({"parts": [_part_to_json(part) for part in self.parts], "size": self.size, "type": "splice/v1"})

    @classmethod
    def parse(cls, data: bytes) -> Recipe:
        """Read a stored recipe strictly.

        Raises:
            CanonicalError: the bytes are not exactly what `to_bytes` would give.
        """
        value = canonical.loads(data)
        if not isinstance(value, dict) or not isinstance(value.get("parts"), list):
            raise CanonicalError("a splice recipe is an object with the fields parts, size, type")
        recipe = cls.of(_part_from_json(part) for part in value["parts"])
        if recipe.to_bytes() != data:
            raise CanonicalError("not the canonical form of a splice recipe")
        return recipe


def length(part: Part) -> int:
    """Bytes that a part stands for."""
    return part.length if isinstance(part, Range) else len(part)


def check_range(part: Range, size: int) -> None:
    """Refuse a range that reaches beyond its object of `size` bytes.

    Raises:
        RangeError.
    """
    if part.offset < 0 or part.length < 0 or part.offset + part.length > size:
        raise RangeError(f"bytes {part.offset} to {part.offset + part.length} of {part.digest} do not exist: it has {size} bytes")


def cut(parts: Iterable[Part], offset: int, count: int) -> list[Part]:
    """The parts of bytes `offset` to `offset + count` of a concatenation."""
    found: list[Part] = []
    start = 0
    for part in parts:
        size = length(part)
        first, last = max(offset - start, 0), min(offset + count - start, size)
        if first < last:
            found.append(Range(part.digest, part.offset + first, last - first) if isinstance(part, Range) else part[first:last])
        start += size
    return found


def _part_to_json(part: Part) -> dict[str, Any]:
    if isinstance(part, Range):
        return {"digest": str(part.digest), "length": part.length, "offset": part.offset}
    return {"base64": base64.b64encode(part).decode()}


def _part_from_json(value: Any) -> Part:
    try:
        if set(value) == {"base64"}:
            return base64.b64decode(value["base64"], validate=True)
        if set(value) == {"digest", "length", "offset"} and type(value["length"]) is type(value["offset"]) is int:
            return Range(Digest.parse(value["digest"]), value["offset"], value["length"])
    except (TypeError, ValueError, binascii.Error, DigestError) as error:
        raise CanonicalError(f"not a part of a splice: {error}") from error
    raise CanonicalError(f"not a part of a splice: {value!r:.80}")


class SpliceReader(io.RawIOBase):
    """Reads a splice as if it were one file; seekable."""

    def __init__(self, recipe: Recipe, opener: Callable[[Digest], io.RawIOBase]) -> None:
        super().__init__()
        self._parts = recipe.parts
        self._ends = list(accumulate(length(part) for part in recipe.parts))
        self._size = recipe.size
        self._opener = opener
        self._open: OrderedDict[Digest, io.RawIOBase] = OrderedDict()
        self._position = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """The position in bytes from the start."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move, as in any file; past the end is allowed and reads nothing."""
        position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if position < 0:
            raise ValueError(f"negative seek position {position}")
        self._position = position
        return position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read up to the end of the part that the position is in."""
        if self.closed:
            raise ValueError("I/O operation on closed file")
        view = memoryview(buffer).cast("B")
        number = bisect_right(self._ends, self._position)
        if number == len(self._parts) or not view:
            return 0
        part = self._parts[number]
        inside = self._position - (self._ends[number] - length(part))
        count = min(len(view), length(part) - inside)
        if isinstance(part, bytes):
            view[:count] = part[inside : inside + count]
        else:
            source = self._source(part.digest)
            source.seek(part.offset + inside)
            count = source.readinto(view[:count]) or 0
            if not count:
                raise RangeError(f"{part.digest} ends before byte {part.offset + inside}, which a splice needs")
        self._position += count
        return count

    def _source(self, digest: Digest) -> io.RawIOBase:
        source = self._open.pop(digest, None) or self._opener(digest)
        self._open[digest] = source
        if len(self._open) > _OPEN_SOURCES:
            self._open.popitem(last=False)[1].close()
        return source

    def close(self) -> None:
        """Close the sources too."""
        for source in self._open.values():
            source.close()
        self._open.clear()
        super().close()

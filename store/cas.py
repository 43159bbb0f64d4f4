"""The role of a content-addressed store: bytes in, their digest out; the caller never names an object.

`store.local.LocalCas` keeps files, `store.memory.MemoryCas` a dict; `store.testing.CasContract` is the suite that each must pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from store.digest import Digest


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes `offset` to `offset + length` of another object: one part of a splice."""

    digest: Digest
    offset: int
    length: int


Part = Range | bytes
"""A part of a splice: a range of an object, or a small literal."""


class Writer(Protocol):
    """An object being written; it has no name, and does not exist, before it is finished."""

    def write(self, data: bytes | memoryview, /) -> int:
        """Append bytes."""
        ...

    def finish(self) -> Digest:
        """Make the object durable under the digest of what was written. Call once."""
        ...


class Cas(Protocol):
    """Content-addressed bytes."""

    def put(self, data: bytes) -> Digest:
        """Store bytes. Idempotent; on return they are durable (fsynced) under their digest."""
        ...

    def writer(self) -> AbstractContextManager[Writer]:
        """Write a large object piece by piece; leaving the block without `finish` leaves nothing behind."""
        ...

    def add_file(self, path: Path) -> Digest:
        """Store a file that exists already: by reference where that is safe, else by copy. The file stays as it is."""
        ...

    def splice(self, parts: Sequence[Part]) -> Digest:
        """Store the concatenation of ranges of other objects and literals without writing the ranges' bytes again.

        The name is the SHA-256 of the bytes that it stands for; reading it is like reading any other object.
        """
        ...

    def read(self, digest: Digest) -> bytes:
        """The whole object, hashed on the way out.

        Raises:
            NotFoundError, CorruptError.
        """
        ...

    def open(self, digest: Digest) -> BinaryIO:
        """A seekable reader. An object whose file changed since it was last hashed is hashed again first.

        Raises:
            NotFoundError, CorruptError.
        """
        ...

    def has(self, digest: Digest) -> bool:
        """Whether the object is here (its bytes are not read)."""
        ...

    def size(self, digest: Digest) -> int:
        """Its length in bytes.

        Raises:
            NotFoundError.
        """
        ...

    def path(self, digest: Digest) -> Path:
        """A read-only file that holds the bytes, checked as in `open`, for libraries that want a path (a splice is written out once).

        Raises:
            NotFoundError, CorruptError.
        """
        ...

    def list(self) -> Iterator[Digest]:
        """Every object, in no order."""
        ...

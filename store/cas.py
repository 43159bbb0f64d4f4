"""The role of a content-addressed store: bytes in, their digest out; the caller never names an object.

`store.local.LocalCas` keeps files, `store.memory.MemoryCas` a dict; `store.testing.CasContract` is the suite that each must pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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

    def add_file(self, path: Path, tick: Callable[[int], None] | None = None) -> Digest:
        """Store a file that exists already: by reference where that is safe, else by copy. The file stays as it is.

        `tick` is called with the bytes that were just read, from whatever thread reads.

        Raises:
            PathError: not a regular file. UnstableError: somebody wrote to it meanwhile. NotFoundError: nothing there.
        """
        ...

    def take(self, path: Path) -> Digest:
        """Store a file that its writer has closed and gives away: moved where that is possible. It is gone from `path` afterwards.

        Raises:
            NotFoundError, PathError, UnwritableError.
        """
        ...

    def splice(self, parts: Sequence[Part]) -> Digest:
        """Store the concatenation of ranges of other objects and literals without writing the ranges' bytes again.

        The name is the SHA-256 of the bytes that it stands for; reading it is like reading any other object.

        Raises:
            RangeError: a part reaches beyond its object.
            NotFoundError, CorruptError: a part's object is not here, or damaged.
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

    def place(self, digest: Digest, target: Path) -> None:
        """Make `target`, which must not exist, a file with the object's bytes: by reference where a user of that file cannot harm the
        store, else by copy. It is not yet durable.

        Raises:
            NotFoundError, CorruptError, UnwritableError.
        """
        ...


class ManagedCas(Cas, Protocol):
    """A store that can also be cleaned: what it keeps, in which form, at what cost."""

    def delete(self, digest: Digest) -> None:
        """Remove an object; other objects may need it (see `store.fsck.garbage`).

        Raises:
            NotFoundError.
        """
        ...

    def stored_bytes(self, digest: Digest) -> int:
        """Bytes that deleting it would free.

        Raises:
            NotFoundError.
        """
        ...

    def is_splice(self, digest: Digest) -> bool:
        """Whether it is kept as a list of parts."""
        ...

    def parts(self, digest: Digest) -> tuple[Part, ...]:
        """The parts of a splice, in order; ranges point at plain blobs. Empty for an object that is no splice.

        Raises:
            NotFoundError. CorruptError: the recipe is damaged.
        """
        ...

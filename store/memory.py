"""The store in a dict: for tests, and for what need not outlive the process.

>>> store = MemoryCas()
>>> digest = store.put(b"abc")
>>> store.read(store.splice([Range(digest, 1, 2), b"d"]))
b'bcd'
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from store import files
from store.cas import Part, Range
from store.digest import Digest
from store.errors import CorruptError, NotFoundError, UnstableError
from store.splice import LITERAL_MAX_BYTES, Recipe, check_range, cut


class MemoryCas:
    """A `store.cas.ManagedCas` without files; `path` writes a temporary one."""

    def __init__(self) -> None:
        self._blobs: dict[Digest, bytes] = {}
        self._recipes: dict[Digest, Recipe] = {}
        self._folder: Path | None = None

    def put(self, data: bytes) -> Digest:
        """See `store.cas.Cas.put`."""
        digest = Digest.of(data)
        if not self.has(digest):
            self._blobs[digest] = bytes(data)
        return digest

    @contextmanager
    def writer(self) -> Iterator[MemoryWriter]:
        """See `store.cas.Cas.writer`."""
        yield MemoryWriter(self)

    def add_file(self, path: Path, tick: Callable[[int], None] | None = None) -> Digest:
        """See `store.cas.Cas.add_file`; always a copy."""
        pieces = []
        with io.FileIO(files.open_regular(path), "rb") as file:
            before = os.fstat(file.fileno())
            digest = files.hash_fd(file.fileno(), tick, lambda piece: pieces.append(bytes(piece)))
            if not files.same_content(before, os.fstat(file.fileno())):
                raise UnstableError(f"{path} changed while it was being stored, and was not; run again when nothing writes it")
        self.put(b"".join(pieces))
        return digest

    def take(self, path: Path) -> Digest:
        """See `store.cas.Cas.take`; a copy, then removed."""
        digest = self.add_file(path)
        path.unlink()
        return digest

    def splice(self, parts: Sequence[Part]) -> Digest:
        """See `store.cas.Cas.splice`."""
        plain: list[Part] = []
        for part in parts:
            if isinstance(part, Range):
                check_range(part, self.size(part.digest))
                plain.extend(cut(self._recipes[part.digest].parts, part.offset, part.length) if part.digest in self._recipes else [part])
            else:
                plain.append(Range(self.put(part), 0, len(part)) if len(part) > LITERAL_MAX_BYTES else part)
        recipe = Recipe.of(plain)
        data = self._joined(recipe)
        digest = Digest.of(data)
        if not recipe.sources:
            return self.put(data)
        if not self.has(digest):
            self._recipes[digest] = recipe
        return digest

    def _joined(self, recipe: Recipe) -> bytes:
        return b"".join(
            self._blob(part.digest)[part.offset : part.offset + part.length] if isinstance(part, Range) else part for part in recipe.parts
        )

    def _blob(self, digest: Digest) -> bytes:
        try:
            return self._blobs[digest]
        except KeyError as error:
            raise NotFoundError(digest) from error

    def read(self, digest: Digest) -> bytes:
        """See `store.cas.Cas.read`."""
        recipe = self._recipes.get(digest)
        data = self._blob(digest) if recipe is None else self._joined(recipe)
        if (actual := Digest.of(data)) != digest:
            raise CorruptError(digest, actual)
        return data

    def open(self, digest: Digest) -> BinaryIO:
        """See `store.cas.Cas.open`."""
        return io.BytesIO(self.read(digest))

    def has(self, digest: Digest) -> bool:
        """See `store.cas.Cas.has`."""
        if digest in self._recipes:
            return all(source in self._blobs for source in self._recipes[digest].sources)
        return digest in self._blobs

    def size(self, digest: Digest) -> int:
        """See `store.cas.Cas.size`."""
        return self._recipes[digest].size if digest in self._recipes else len(self._blob(digest))

    def path(self, digest: Digest) -> Path:
        """See `store.cas.Cas.path`; the file lives as long as the store."""
        data = self.read(digest)
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="store-"))
            weakref.finalize(self, shutil.rmtree, self._folder)
        path = self._folder / digest.hex
        # Written each time: whoever got the path before may have changed the file.
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        path.chmod(0o444)
        return path

    def list(self) -> Iterator[Digest]:
        """See `store.cas.Cas.list`."""
        yield from (*self._blobs, *self._recipes)

    def place(self, digest: Digest, target: Path) -> None:
        """See `store.cas.Cas.place`; always a copy."""
        data = self.read(digest)
        with files.writing(target), target.open("xb") as file:
            file.write(data)

    def delete(self, digest: Digest) -> None:
        """See `store.cas.ManagedCas.delete`."""
        if self._recipes.pop(digest, None) is None:
            self._blob(digest)
            del self._blobs[digest]

    def is_splice(self, digest: Digest) -> bool:
        """See `store.cas.ManagedCas.is_splice`."""
        return digest in self._recipes

    def parts(self, digest: Digest) -> tuple[Part, ...]:
        """See `store.cas.ManagedCas.parts`."""
        if digest in self._recipes:
            return self._recipes[digest].parts
        self._blob(digest)
        return ()

    def stored_bytes(self, digest: Digest) -> int:
        """See `store.cas.ManagedCas.stored_bytes`: the length of the blob, or of the recipe as LocalCas would write it."""
        recipe = self._recipes.get(digest)
        return len(self._blob(digest)) if recipe is None else len(recipe.to_bytes())


class MemoryWriter:
    """See `store.cas.Writer`."""

    def __init__(self, store: MemoryCas) -> None:
        self._store = store
        self._data = bytearray()
        self._finished = False

    def write(self, data: bytes | memoryview, /) -> int:
        """Append bytes."""
        if self._finished:
            raise ValueError("write to a finished object")
        self._data += data
        return len(data)

    def finish(self) -> Digest:
        """Store what was written."""
        if self._finished:
            raise ValueError("an object is finished once")
        self._finished = True
        return self._store.put(bytes(self._data))

"""The store on disk: `objects/<2 hex>/<62 hex>` holds exactly the bytes that hash to that name, so `sha256sum` can check it.

    objects/      blobs: read-only files, or hard links to files that were imported by reference (these keep their owner's mode)
    splices/      recipes of objects that are ranges of other objects
    materialised/ splices written out for libraries that want a path; derived, may be deleted
    stat.sqlite   what was hashed when; derived, may be deleted
    tmp/          objects being written; a folder per process, removed by the next one when its owner is dead

Promises: an object appears under its name complete and durable, or not at all. What `read`, `open` and `path` give hashed to its name when
it was last looked at, and has not been touched since by its stat (device, inode, size, mtime, ctime). A store may be used by any number of
threads and processes.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import shutil
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from store import files
from store.cas import Part, Range
from store.digest import Digest
from store.errors import (
    BusyError,
    CanonicalError,
    ChangedError,
    CorruptError,
    DigestError,
    NotFoundError,
    RangeError,
    UnstableError,
    UnwritableError,
)
from store.splice import LITERAL_MAX_BYTES, Recipe, SpliceReader, check_range, cut
from store.statcache import StatCache, settled

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

SMALL_BYTES = 1 << 16
"""Files below this are copied rather than linked: a private copy costs nothing there."""

_MODE = 0o444
_WRITE_BITS = 0o222
_READ_AHEAD_BYTES = 1 << 17
_ABSENT = (FileNotFoundError, NotADirectoryError)


class LocalCas:
    """A `store.cas.ManagedCas` in a folder.

    Nothing is created before the first write. `close` gives back the database and the scratch folder; leaving the process does too.
    """

    def __init__(self, root: Path) -> None:
        self._setup(Path(root), readonly=False)

    @classmethod
    def open_readonly(cls, root: Path) -> LocalCas:
        """A store that creates and changes nothing, not even derived files: for verifying what somebody else owns."""
        store = cls.__new__(cls)
        store._setup(Path(root), readonly=True)
        return store

    def _setup(self, root: Path, *, readonly: bool) -> None:
        self.root = root
        self.readonly = readonly
        self.stats = StatCache(root / "stat.sqlite", readonly=readonly)
        self._scratch: _Scratch | None = None
        self._lock = threading.Lock()
        self._no_clone: set[tuple[int, int]] = set()
        self._folders: set[Path] = set()

    def close(self) -> None:
        """Close the database and remove the scratch folder; the store may be used again afterwards."""
        self.stats.close()
        with self._lock:
            if self._scratch is not None:
                self._scratch.close()
                self._scratch = None

    def __enter__(self) -> LocalCas:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Where things are

    def blob_file(self, digest: Digest) -> Path:
        """Where the object is, if it is a blob."""
        return self._name("objects", digest)

    def recipe_file(self, digest: Digest) -> Path:
        """Where the object's recipe is, if it is a splice."""
        return self._name("splices", digest)

    def _name(self, area: str, digest: Digest) -> Path:
        return Path(f"{self.root}/{area}/{digest.hex[:2]}/{digest.hex[2:]}")

    # Writing

    def put(self, data: bytes) -> Digest:
        """See `store.cas.Cas.put`.

        Raises:
            UnwritableError: no space, or read-only; nothing is half-written.
        """
        digest = Digest.of(data)
        if not self._holds(digest):
            with self._aside() as (fd, name):
                self._write(fd, data)
                self._commit(fd, name, "objects", digest)
        return digest

    @contextmanager
    def writer(self) -> Iterator[LocalWriter]:
        """See `store.cas.Cas.writer`.

        Raises:
            UnwritableError: as in `put`; also from `write` and `finish`.
        """
        with self._aside() as (fd, name):
            yield LocalWriter(self, fd, name)

    def add_file(self, path: Path, tick: files.Tick | None = None) -> Digest:
        """See `store.cas.Cas.add_file`; `adopt` tells whether bytes were copied."""
        return self.adopt(path, tick)[0]

    def adopt(self, path: Path, tick: files.Tick | None = None) -> tuple[Digest, bool]:
        """Store a file that exists already, and tell whether its bytes were copied.

        In this order: a reflink where the file system can; a hard link when the file is on the same file system, is ours, and is not small;
        else a copy, hashed in the same pass. The digest is always of the descriptor that was taken in. A hard-linked object keeps the
        owner's mode and can be altered in place: that shows in its ctime, it is hashed again before it is served, and then refused.

        Raises:
            PathError: not a regular file. NotFoundError: nothing there.
            UnstableError: somebody wrote to it meanwhile; nothing was recorded.
            UnwritableError: as in `put`.
        """
        # Resolved once, so that a hard link is made to the file and not to a symbolic link.
        real = os.path.realpath(path)
        source = files.open_regular(real)
        try:
            before = os.fstat(source)
            if before.st_size >= SMALL_BYTES:
                known = self._adopt_clone(source, before, tick) or self._adopt_link(source, real, before, tick)
                if known is not None:
                    return known, False
            with self._aside() as (fd, name):
                os.lseek(source, 0, os.SEEK_SET)
                digest = files.hash_fd(source, tick, lambda piece: self._write(fd, piece))
                if not files.same_content(before, os.fstat(source)):
                    raise _unstable(real)
                if self._holds(digest):
                    return digest, False
                self._commit(fd, name, "objects", digest)
            return digest, True
        finally:
            os.close(source)

    def take(self, path: Path) -> Digest:
        """See `store.cas.Cas.take`. Moved when it is on the store's file system, else copied and removed."""
        fd = files.open_regular(os.path.realpath(path))
        try:
            stat = os.fstat(fd)
            if stat.st_dev == self._writable().device and stat.st_nlink == 1 and stat.st_uid == os.geteuid():
                os.fchmod(fd, _MODE)
                digest = files.hash_fd(fd, None)
                if self._holds(digest):
                    path.unlink()
                else:
                    self._commit(fd, path, "objects", digest)
                return digest
        finally:
            os.close(fd)
        digest = self.add_file(path)
        path.unlink()
        return digest

    def _adopt_clone(self, source: int, before: os.stat_result, tick: files.Tick | None) -> Digest | None:
        devices = (before.st_dev, self._writable().device)
        if devices in self._no_clone:
            return None
        with self._aside() as (fd, name):
            if not files.clone(source, fd):
                self._no_clone.add(devices)
                return None
            # The clone is ours alone: what is hashed is what is kept, whatever happens to the source.
            digest = files.hash_fd(fd, tick)
            if not self._holds(digest):
                self._commit(fd, name, "objects", digest)
            return digest

    def _adopt_link(self, source: int, real: str, before: os.stat_result, tick: files.Tick | None) -> Digest | None:
        scratch = self._writable()
        if before.st_dev != scratch.device or before.st_uid != os.geteuid():
            return None
        digest = self.stats.lookup(before)
        if digest is not None:
            known = True
            if tick is not None:
                tick(before.st_size)
        else:
            known = settled(before, time.time_ns())
            digest = files.hash_fd(source, tick)
            if not files.same_content(before, os.fstat(source)):
                raise _unstable(real)
            # Now, because making and removing a link below would move the ctime.
            if known and files.unchanged(before, os.fstat(source)):
                self.stats.record(before, digest)
        if self._holds(digest):
            return digest
        name = scratch.new_name()
        try:
            name.hardlink_to(real)
        except OSError:
            # Too many links, not permitted, no such thing on this file system: the copy that follows reports what is serious.
            return None
        try:
            if not os.path.samestat(name.lstat(), before):
                raise _unstable(real)
            with files.writing(self.root):
                os.fsync(source)
                target = self._target("objects", digest)
                name.rename(target)
                files.sync_folder(target.parent)
        finally:
            # Also after success: renaming one link of a file onto another link of it leaves both.
            _unlink(name)
        # Linking and renaming moved the ctime; that the rest of the stat stood still says that nobody wrote.
        now = os.fstat(source)
        if not files.same_content(before, now):
            _unlink(target)
            raise _unstable(real)
        self.stats.record(now, digest, source=real, trusted=known)
        return digest

    def splice(self, parts: Sequence[Part]) -> Digest:
        """See `store.cas.Cas.splice`. One read-and-hash pass over the ranges; ranges of splices become ranges of their blobs.

        Literals above 64 KiB become blobs of their own. An object that is here already is returned as it is.
        """
        plain: list[Part] = []
        for part in parts:
            if isinstance(part, Range):
                plain.extend(self._resolve(part))
            elif len(part) > LITERAL_MAX_BYTES:
                plain.append(Range(self.put(part), 0, len(part)))
            else:
                plain.append(part)
        recipe = Recipe.of(plain)
        if not recipe.sources:
            return self.put(b"".join(part for part in recipe.parts if isinstance(part, bytes)))
        digest = self._hash_splice(recipe)
        if not self._holds(digest):
            with self._aside() as (fd, name):
                self._write(fd, recipe.to_bytes())
                self._commit(fd, name, "splices", digest)
        return digest

    def _resolve(self, part: Range) -> list[Part]:
        check_range(part, self.size(part.digest))
        if self._name("objects", part.digest).exists():
            return [part]
        return cut(self._recipe(part.digest)[0].parts, part.offset, part.length)

    def _hash_recipe(self, digest: Digest, recipe: Recipe, sink: Callable[[memoryview], object] | None = None) -> None:
        """Hash what a stored recipe stands for.

        Raises:
            CorruptError: it stands for something else, or for bytes that its sources do not have.
        """
        try:
            actual = self._hash_splice(recipe, sink)
        except RangeError as error:
            raise CorruptError(digest, f"nothing, for its recipe is wrong ({error})") from error
        if actual != digest:
            raise CorruptError(digest, actual)

    def _hash_splice(self, recipe: Recipe, sink: Callable[[memoryview], object] | None = None) -> Digest:
        hasher = hashlib.sha256()
        buffer = memoryview(bytearray(files.BUFFER_BYTES))
        with SpliceReader(recipe, self._open_blob) as reader:
            while count := reader.readinto(buffer):
                hasher.update(buffer[:count])
                if sink is not None:
                    sink(buffer[:count])
        return Digest("sha256:" + hasher.hexdigest())

    def delete(self, digest: Digest) -> None:
        """See `store.cas.ManagedCas.delete`."""
        self._writable()
        found = False
        with files.writing(self.root):
            for area in ("objects", "splices"):
                found = _unlink(self._name(area, digest)) or found
            _unlink(self._name("materialised", digest))
        if not found:
            raise NotFoundError(digest)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep all other writers out, for removing what nothing reaches: an object that is just being made has no root yet.

        Raises:
            BusyError: some other process or instance has the store open for writing.
        """
        scratch = self._writable()
        try:
            fcntl.flock(scratch.writers, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            fcntl.flock(scratch.writers, fcntl.LOCK_SH)
            raise BusyError(f"{self.root} is being written to; try again when no run is in progress") from error
        try:
            yield
        finally:
            fcntl.flock(scratch.writers, fcntl.LOCK_SH)

    @contextmanager
    def _aside(self) -> Iterator[tuple[int, Path]]:
        """A new file in the scratch folder, open for reading and writing; removed at the end unless it was renamed."""
        name = self._writable().new_name()
        with files.writing(self.root):
            fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
        try:
            # The process's umask may have taken bits away.
            os.fchmod(fd, _MODE)
            yield fd, name
        finally:
            os.close(fd)
            _unlink(name)

    def _write(self, fd: int, data: bytes | memoryview) -> None:
        with files.writing(self.root):
            files.write_all(fd, data)

    def _commit(self, fd: int, name: Path, area: str, digest: Digest) -> None:
        """Give a finished file its name: durable bytes first, then the name, then the durable name, then the note that it was hashed."""
        with files.writing(self.root):
            os.fsync(fd)
            target = self._target(area, digest)
            name.rename(target)
            files.sync_folder(target.parent)
        # Nobody else ever had this file open, so no write can hide in the current tick of the clock.
        self.stats.record(os.fstat(fd), digest)

    def _target(self, area: str, digest: Digest) -> Path:
        target = self._name(area, digest)
        folder = target.parent
        if folder not in self._folders:
            folder.mkdir(parents=True, exist_ok=True)
            # The fan-out folder's own name must be durable too, whoever made it.
            files.sync_folder(folder.parent)
            files.sync_folder(self.root)
            self._folders.add(folder)
        return target

    def _writable(self) -> _Scratch:
        if self.readonly:
            raise UnwritableError(f"{self.root} was opened read-only; open it for writing to add or remove objects")
        with self._lock:
            # After a fork the folder belongs to the parent.
            if self._scratch is None or self._scratch.pid != os.getpid():
                with files.writing(self.root):
                    self._scratch = _Scratch(self.root / "tmp")
            return self._scratch

    # Reading

    def read(self, digest: Digest) -> bytes:
        """See `store.cas.Cas.read`. Always hashed, whatever the stat says."""
        name = self._name("objects", digest)
        if not name.exists():
            recipe, _ = self._recipe(digest)
            buffer = io.BytesIO()
            self._hash_recipe(digest, recipe, buffer.write)
            return buffer.getvalue()
        with self._open_file(name, digest) as file:
            started_ns = time.time_ns()
            data = file.readall()
            actual = Digest.of(data)
            if actual != digest:
                raise self._damage(digest, actual, file.seen)
            if self.stats.lookup(file.seen) != digest and settled(file.seen, started_ns):
                self.stats.record(file.seen, digest)
            return data

    def open(self, digest: Digest) -> BinaryIO:
        """See `store.cas.Cas.open`. A file that is written to while it is being read raises ChangedError from `read`."""
        if self._name("objects", digest).exists():
            return cast(BinaryIO, io.BufferedReader(self._open_blob(digest), _READ_AHEAD_BYTES))
        return cast(BinaryIO, io.BufferedReader(self._open_splice(digest), _READ_AHEAD_BYTES))

    def path(self, digest: Digest) -> Path:
        """See `store.cas.Cas.path`. A splice is written to `materialised/` once, and again when that file was touched."""
        name = self._name("objects", digest)
        if name.exists():
            self._open_blob(digest).close()
            return name
        recipe, _ = self._recipe(digest)
        name = self._name("materialised", digest)
        if not self._trusted(name, digest):
            with self._aside() as (fd, aside):
                self._hash_recipe(digest, recipe, lambda piece: self._write(fd, piece))
                self._commit(fd, aside, "materialised", digest)
        return name

    def place(self, digest: Digest, target: Path) -> None:
        """See `store.cas.Cas.place`.

        A reflink where possible; a hard link to a file of ours (read-only, so opening it for writing fails) that is not small; else a copy,
        hashed on the way. An object that is a user's own file is not linked again: writing to one would change the other.
        """
        name = self._name("objects", digest)
        if not name.exists():
            small = self.size(digest) < SMALL_BYTES
            if small or self.readonly or target.parent.stat().st_dev != self.root.stat().st_dev:
                with self._open_splice(digest) as reader:
                    self._copy_out(reader, digest, target)
                return
            # Written out once, and linked from there: many exports of it cost one file.
            name = self.path(digest)
        with self._open_checked(name, digest) as file:
            if not self._link_out(file, name, digest, target):
                self._copy_out(file, digest, target)

    def _link_out(self, file: _CheckedFile, name: Path, digest: Digest, target: Path) -> bool:
        if file.seen.st_size < SMALL_BYTES:
            return False
        devices = (target.parent.stat().st_dev, file.seen.st_dev)
        if devices not in self._no_clone:
            with files.writing(target):
                fd = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            try:
                if files.clone(file.fileno(), fd):
                    return True
            finally:
                os.close(fd)
            self._no_clone.add(devices)
            target.unlink()
        if file.seen.st_mode & _WRITE_BITS or self.readonly:
            return False
        try:
            target.hardlink_to(name)
        except OSError:
            # Another device, too many links, not permitted: the copy that follows reports what is serious.
            return False
        now = os.fstat(file.fileno())
        if not (os.path.samestat(target.lstat(), now) and files.same_content(file.seen, now)):
            target.unlink()
            raise ChangedError(digest, "other bytes than a moment ago", "Somebody writes to the store by other means; run `ledger fsck`")
        self.stats.record(now, digest)
        return True

    def _copy_out(self, reader: io.RawIOBase, digest: Digest, target: Path) -> None:
        hasher = hashlib.sha256()
        buffer = memoryview(bytearray(files.BUFFER_BYTES))
        with files.writing(target):
            fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            while count := reader.readinto(buffer):
                hasher.update(buffer[:count])
                with files.writing(target):
                    files.write_all(fd, buffer[:count])
            if hasher.hexdigest() != digest.hex:
                raise CorruptError(digest, f"sha256:{hasher.hexdigest()}")
        except BaseException:
            target.unlink()
            raise
        finally:
            os.close(fd)

    def has(self, digest: Digest) -> bool:
        """See `store.cas.Cas.has`. A splice is here when every blob that it needs is."""
        if self._name("objects", digest).exists():
            return True
        if not self._name("splices", digest).exists():
            return False
        return all(self._name("objects", source).exists() for source in self._recipe(digest)[0].sources)

    def size(self, digest: Digest) -> int:
        """See `store.cas.Cas.size`."""
        try:
            return self._name("objects", digest).stat().st_size
        except _ABSENT:
            return self._recipe(digest)[0].size

    def list(self) -> Iterator[Digest]:
        """See `store.cas.Cas.list`."""
        for digest in self._names("objects"):
            yield digest
        for digest in self._names("splices"):
            if not self._name("objects", digest).exists():
                yield digest

    def _names(self, area: str) -> Iterator[Digest]:
        top = self.root / area
        for first in _listed(top):
            for rest in _listed(top / first):
                try:
                    yield Digest(f"sha256:{first}{rest}")
                except DigestError:
                    # Not ours; `store.fsck` reports it.
                    continue

    def is_splice(self, digest: Digest) -> bool:
        """See `store.cas.ManagedCas.is_splice`."""
        return not self._name("objects", digest).exists() and self._name("splices", digest).exists()

    def parts(self, digest: Digest) -> tuple[Part, ...]:
        """See `store.cas.ManagedCas.parts`."""
        return () if self._name("objects", digest).exists() else self._recipe(digest)[0].parts

    def stored_bytes(self, digest: Digest) -> int:
        """See `store.cas.ManagedCas.stored_bytes`.

        Disk blocks of the blob or the recipe; 0 for a file that has other links (it was imported or exported by reference). What a reflink
        shares is counted as if it were not shared.
        """
        for area in ("objects", "splices"):
            try:
                found = self._name(area, digest).stat()
            except _ABSENT:
                continue
            return found.st_blocks * 512 if found.st_nlink == 1 else 0
        raise NotFoundError(digest)

    def check(self, digest: Digest, *, splice: bool, full: bool) -> None:
        """Compare a blob, or what a recipe stands for, with its name; without `full`, what is known by its stat is not read.

        Raises:
            CorruptError, NotFoundError (of a splice's source, too).
        """
        if not splice:
            self._open_checked(self._name("objects", digest), digest, always_hash=full).close()
        elif not full:
            self._open_splice(digest).close()
        else:
            self._hash_recipe(digest, self._recipe(digest)[0])

    def scratch(self) -> Path:
        """A new folder for unfinished work of this process; when the process dies, the next writer removes it.

        Raises:
            UnwritableError: as in `put`.
        """
        folder = self._writable().new_name()
        with files.writing(self.root):
            folder.mkdir()
        return folder

    def leftovers(self) -> Iterator[Path]:
        """Unfinished files of processes that died; the next writer removes them."""
        for folder, fd in _dead(self.root / "tmp"):
            os.close(fd)
            yield from (folder / name for name in _listed(folder))

    def _holds(self, digest: Digest) -> bool:
        """Whether the object is here, durable, and known to be whole: nothing needs to be written. What is doubtful is written anew."""
        if self._trusted(self._name("objects", digest), digest):
            return True
        if not self._trusted(self._name("splices", digest), digest):
            return False
        return all(self._trusted(self._name("objects", source), source) for source in self._recipe(digest)[0].sources)

    def _trusted(self, name: Path, digest: Digest) -> bool:
        try:
            return self.stats.lookup(name.stat()) == digest
        except _ABSENT:
            return False

    def _open_file(self, name: Path, digest: Digest) -> _CheckedFile:
        try:
            return _CheckedFile(os.open(name, os.O_RDONLY | os.O_CLOEXEC), digest)
        except _ABSENT as error:
            raise NotFoundError(digest) from error
        except OSError as error:
            raise CorruptError(
                digest, f"nothing, for they cannot be read ({error.strerror})", f"Check the mode and the disk of {name}"
            ) from error

    def _open_blob(self, digest: Digest) -> _CheckedFile:
        return self._open_checked(self._name("objects", digest), digest)

    def _open_checked(self, name: Path, digest: Digest, *, always_hash: bool = False) -> _CheckedFile:
        """A file that hashes to the digest: known by its stat, or hashed now."""
        file = self._open_file(name, digest)
        try:
            if not always_hash and self.stats.lookup(file.seen) == digest:
                return file
            started_ns = time.time_ns()
            actual = files.hash_fd(file.fileno())
            now = os.fstat(file.fileno())
            if actual != digest or not files.same_content(file.seen, now):
                raise self._damage(digest, actual, now)
            if files.unchanged(file.seen, now) and settled(now, started_ns):
                self.stats.record(now, digest)
            file.seek(0)
            return file
        except BaseException:
            file.close()
            raise

    def _open_splice(self, digest: Digest) -> SpliceReader:
        """A reader of a splice that hashes to its name: the recipe and every source known by their stats, or all of it hashed now."""
        recipe, seen = self._recipe(digest)
        if self.stats.lookup(seen) == digest:
            for source in recipe.sources:
                self._open_blob(source).close()
        else:
            started_ns = time.time_ns()
            self._hash_recipe(digest, recipe)
            if settled(seen, started_ns):
                self.stats.record(seen, digest)
        return SpliceReader(recipe, self._open_blob)

    def _recipe(self, digest: Digest) -> tuple[Recipe, os.stat_result]:
        with self._open_file(self._name("splices", digest), digest) as file:
            data = file.readall()
            try:
                return Recipe.parse(data), file.seen
            except (CanonicalError, RangeError) as error:
                raise CorruptError(digest, f"a recipe that cannot be read ({error})") from error

    def _damage(self, digest: Digest, actual: Digest, found: os.stat_result) -> CorruptError:
        source = self.stats.source(found)
        if source == "" or (source is None and not found.st_mode & _WRITE_BITS):
            return CorruptError(digest, actual)
        origin = f"{source!r}, which was imported by reference," if source else "The file that was imported by reference"
        return ChangedError(digest, actual, f"{origin} has been changed since. Restore it, or delete the object and import the file anew")


class LocalWriter:
    """See `store.cas.Writer`."""

    def __init__(self, store: LocalCas, fd: int, name: Path) -> None:
        self._store, self._fd, self._name = store, fd, name
        self._hasher = hashlib.sha256()
        self._finished = False

    def write(self, data: bytes | memoryview, /) -> int:
        """Append bytes.

        Raises:
            UnwritableError: no space, or read-only.
        """
        if self._finished:
            raise ValueError("write to a finished object")
        view = memoryview(data).cast("B")
        self._store._write(self._fd, view)
        self._hasher.update(view)
        return len(view)

    def finish(self) -> Digest:
        """Make the object durable under the digest of what was written."""
        if self._finished:
            raise ValueError("an object is finished once")
        self._finished = True
        digest = Digest("sha256:" + self._hasher.hexdigest())
        if not self._store._holds(digest):
            self._store._commit(self._fd, self._name, "objects", digest)
        return digest


class _CheckedFile(io.FileIO):
    """A stored file being read: raises when somebody writes to it meanwhile.

    Attributes:
        seen: its stat when it was opened.
    """

    def __init__(self, fd: int, digest: Digest) -> None:
        super().__init__(fd, "rb")
        self.seen = os.fstat(fd)
        self._digest = digest

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        count = super().readinto(buffer) or 0
        self._check()
        return count

    def readall(self) -> bytes:
        data = super().readall() or b""
        self._check()
        return data

    def _check(self) -> None:
        # Not the ctime: another process may link the file while this one reads it.
        if not files.same_content(self.seen, os.fstat(self.fileno())):
            raise ChangedError(self._digest, "other bytes than when it was opened", "Somebody writes to it; nothing of it may be used")


class _Scratch:
    """A folder for the unfinished files of one process, held by a lock that the kernel frees when the process dies.

    The lock file exists, locked, before the folder does, so a folder whose lock can be taken belongs to nobody.
    """

    def __init__(self, tmp: Path) -> None:
        tmp.mkdir(parents=True, exist_ok=True)
        self.pid = os.getpid()
        self.device = tmp.stat().st_dev
        # Shared by all writers; `exclusive` takes it alone.
        self.writers = os.open(tmp / "writers.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        fcntl.flock(self.writers, fcntl.LOCK_SH)
        _remove_dead(tmp)
        while True:
            folder = tmp / f"cas-{self.pid}-{os.urandom(6).hex()}"
            lock = Path(f"{folder}.lock")
            held = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            fcntl.flock(held, fcntl.LOCK_EX)
            # Between creating and locking, another process may have taken it for a dead one's.
            if os.fstat(held).st_nlink:
                break
            os.close(held)
        folder.mkdir()
        self._folder = folder
        self.close = weakref.finalize(self, _discard, folder, lock, (held, self.writers), self.pid)

    def new_name(self) -> Path:
        return self._folder / os.urandom(8).hex()


def _discard(folder: Path, lock: Path, held: tuple[int, ...], pid: int) -> None:
    if pid == os.getpid():
        shutil.rmtree(folder, ignore_errors=True)
        lock.unlink(missing_ok=True)
    for fd in held:
        os.close(fd)


def _dead(tmp: Path) -> Iterator[tuple[Path, int]]:
    """Scratch folders whose process is gone, each with a descriptor that holds its lock; the caller closes it."""
    for lock in tmp.glob("cas-*.lock"):
        try:
            fd = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            continue
        yield lock.with_suffix(""), fd


def _remove_dead(tmp: Path) -> None:
    for folder, fd in _dead(tmp):
        shutil.rmtree(folder, ignore_errors=True)
        Path(f"{folder}.lock").unlink(missing_ok=True)
        os.close(fd)


def _listed(folder: Path) -> Sequence[str]:
    try:
        return [item.name for item in folder.iterdir()]
    except _ABSENT:
        return ()


def _unlink(name: Path) -> bool:
    try:
        name.unlink()
    except FileNotFoundError:
        return False
    return True


def _unstable(path: str) -> UnstableError:
    return UnstableError(f"{path} changed while it was being stored, and was not; run again when nothing writes it")

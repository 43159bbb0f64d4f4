"""What the store asks of the file system: open a regular file, hash it, clone it, make it durable.

Buffers are 1 MiB: measured, SHA-256 is as fast as it gets there, and slower at 4 MiB. hashlib and read release the GIL, so threads scale.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from store.digest import Digest
from store.errors import NotFoundError, PathError, UnstableError, UnwritableError

BUFFER_BYTES = 1 << 20

_FICLONE = 0x40049409  # linux/fs.h: _IOW(0x94, 9, int)
_FULL = {errno.ENOSPC, errno.EDQUOT}
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}

Tick = Callable[[int], None]
"""Called with the number of bytes that were just read."""


def open_regular(path: str | Path) -> int:
    """Open a regular file for reading (links followed) and return its descriptor.

    Raises:
        PathError: it is a folder, a device, a pipe or a socket, or links go round in circles.
        NotFoundError: nothing is there.
    """
    try:
        # Not blocking: opening a pipe must not wait for its writer.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise NotFoundError(path, "the file system") from error
    except OSError as error:
        raise PathError(f"{os.fspath(path)!r} cannot be opened: {error.strerror}", (os.fspath(path),)) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise PathError(f"{os.fspath(path)!r} is not a regular file; only regular files can be stored", (os.fspath(path),))
    return fd


def hash_fd(fd: int, tick: Tick | None = None, sink: Callable[[memoryview], object] | None = None) -> Digest:
    """SHA-256 of a file from where the descriptor stands, in one pass; `sink` gets the same bytes.

    No more is read than the file had at the start, so a file that somebody appends to comes to an end; compare its stat afterwards.
    """
    hasher = hashlib.sha256()
    left = os.fstat(fd).st_size - os.lseek(fd, 0, os.SEEK_CUR)
    buffer = memoryview(bytearray(max(0, min(BUFFER_BYTES, left))))
    while left > 0 and (count := os.readv(fd, [buffer[:left]])):
        left -= count
        piece = buffer[:count]
        hasher.update(piece)
        if sink is not None:
            sink(piece)
        if tick is not None:
            tick(count)
    return Digest("sha256:" + hasher.hexdigest())


def read_small(path: str | Path, most_bytes: int) -> bytes:
    """All bytes of a file that should be small; whoever wrote it may have made it endless, or a pipe.

    Raises:
        PathError: not a regular file, or larger than `most_bytes`. NotFoundError: nothing is there.
    """
    fd = open_regular(path)
    try:
        size = os.fstat(fd).st_size
        if size > most_bytes:
            raise PathError(f"{os.fspath(path)!r} has {size:,} bytes; at most {most_bytes:,} are read", (os.fspath(path),))
        with os.fdopen(fd, "rb", closefd=False) as file:
            return file.read(size)
    finally:
        os.close(fd)


def hash_file(path: str | Path, tick: Tick | None = None) -> tuple[Digest, int]:
    """SHA-256 and size in bytes of the file at a path, which must be that file, untouched, before and after.

    Raises:
        PathError, NotFoundError: as in `open_regular`.
        UnstableError: somebody wrote to it meanwhile, or put another file in its place.
    """
    fd = open_regular(path)
    try:
        before = os.fstat(fd)
        digest = hash_fd(fd, tick)
        if not (unchanged(before, os.fstat(fd)) and is_at(before, path)):
            raise UnstableError(f"{os.fspath(path)} changed while it was being hashed; run again when nothing writes it")
        return digest, before.st_size
    finally:
        os.close(fd)


def is_at(stat: os.stat_result, path: str | Path) -> bool:
    """Whether a path still leads to a file that was opened there."""
    try:
        return os.path.samestat(stat, Path(path).stat())
    except OSError:
        return False


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write every byte."""
    view = memoryview(data).cast("B")
    while view:
        view = view[os.write(fd, view) :]


def same_content(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether nothing but the number of links can have changed between two looks at one file."""
    return (one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns) == (other.st_dev, other.st_ino, other.st_size, other.st_mtime_ns)


def unchanged(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether nothing at all happened between two looks at one file: the change time moves with every write, chmod, link and rename."""
    return same_content(one, other) and one.st_ctime_ns == other.st_ctime_ns


def clone(source: int, target: int) -> bool:
    """Share all blocks of one file with another, copy-on-write (btrfs, XFS, bcachefs); False where that is not possible."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        # Every reason (another device, no support, another system than Linux) has the same answer: some other way.
        return False
    return True


def replace_file(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Put bytes where a path is: aside, then by rename, so that a reader finds the old content or the new one, whole.

    A file that was there keeps its mode. `durable`: the bytes outlast a power cut from the rename on; else the file may be empty after one.

    Raises:
        OSError: it cannot be written; what was there is as it was.
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        with aside.open("wb") as file:
            if path.exists():
                os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode))
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def sync_folder(path: str | Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def writing(where: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write into an UnwritableError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            what = f"no space is left for {where}. Free some (`ledger gc` shows what could go) and run again; what is finished is kept"
        elif error.errno in _READ_ONLY:
            what = f"{where} may not be written ({error.strerror}). Check its owner and mode, or name another folder"
        else:
            what = f"{where} could not be written: {error.strerror or error}"
        raise UnwritableError(what) from error

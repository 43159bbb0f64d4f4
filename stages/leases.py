"""Compute once: whoever holds the lease of a key computes it, everybody else waits for the result.

A lease is a file lock, so the kernel frees it when its holder dies; there is nothing to clean up and nothing to time out.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from store.digest import Digest
from store.errors import UnwritableError

UNFINISHED = "unfinished"
"""The folder in a ledger's folder where unfinished files outlive their worker; who has the lease of an action writes its file."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to compute one key, until `give_back` or death."""

    path: Path
    descriptor: int

    @classmethod
    def take(cls, folder: Path, key: Digest) -> Lease | None:
        """Take the lease of a key; None while another process holds it."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / key.hex
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return None
            if _same_file(descriptor, path):
                return cls(path, descriptor)
            os.close(descriptor)  # its last holder removed the file between our open and our lock

    def give_back(self) -> None:
        """Let others have it."""
        self.path.unlink(missing_ok=True)
        os.close(self.descriptor)


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    here = os.fstat(descriptor)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


@contextmanager
def shared_with_gc(folder: Path) -> Iterator[None]:
    """Held by every run; `gc` takes the same lock alone, so it never deletes what a run has made and not yet recorded."""
    with lock(folder / "gc.lock", fcntl.LOCK_SH):
        yield


@contextmanager
def lock(path: Path, kind: int) -> Iterator[None]:
    """Hold a file lock (`fcntl.LOCK_SH`, `LOCK_EX`, with `LOCK_NB` to raise BlockingIOError instead of waiting)."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC):
            raise
        text = f"{path.parent} cannot be written: {error.strerror}. Nothing was run; free space, or mount it writable"
        raise UnwritableError(text) from error
    try:
        fcntl.flock(descriptor, kind)
        yield
    finally:
        os.close(descriptor)

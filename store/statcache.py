"""What was hashed when: a file whose device, inode, size, mtime and ctime are as they were then need not be read again.

The rows are derived. The file may be deleted at any time, and whatever SQLite cannot read counts as not known; the price is hashing again.
The change time (ctime) cannot be set by a program, so a file that was altered in place is noticed even when its mtime was put back.

A row is written only for a file that had been left alone for a while before it was hashed. Otherwise a write just after the hashing
could fall into the same tick of the file system's clock and leave no trace ("racy git", Documentation/technical/racy-git).
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

from store import files
from store.digest import Digest
from store.errors import UnstableError

_SETTLED_NS = 100_000_000  # ten ticks of the slowest kernel clock (100 Hz)
_SETTLED_COARSE_NS = 2_000_000_000  # file systems that keep whole seconds
_VERSION = 1
_TABLE = """CREATE TABLE IF NOT EXISTS files (
    dev INTEGER, ino INTEGER, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL,
    digest TEXT NOT NULL, source TEXT,
    PRIMARY KEY (dev, ino)
) WITHOUT ROWID"""


def settled(stat: os.stat_result, at_ns: int) -> bool:
    """Whether a file had been left alone long enough at that time (`time.time_ns`) that any later change must show in its ctime."""
    coarse = stat.st_ctime_ns % 1_000_000_000 == 0 and stat.st_mtime_ns % 1_000_000_000 == 0
    return at_ns - stat.st_ctime_ns > (_SETTLED_COARSE_NS if coarse else _SETTLED_NS)


class StatCache:
    """Digests of files by their stat, in SQLite; several threads and processes may share one file."""

    def __init__(self, path: Path, *, readonly: bool = False) -> None:
        self._path = path
        self._readonly = readonly
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._pid = 0

    def digest_of(self, file: Path, tick: files.Tick | None = None) -> Digest:
        """The SHA-256 of a file; it is read only when its stat is not known.

        Raises:
            NotFoundError: no such file. PathError: not a regular file.
            UnstableError: somebody wrote to it meanwhile.
        """
        fd = files.open_regular(file)
        try:
            before = os.fstat(fd)
            known = self.lookup(before)
            if known is not None:
                return known
            started_ns = time.time_ns()
            digest = files.hash_fd(fd, tick)
            if not (files.unchanged(before, os.fstat(fd)) and files.is_at(before, file)):
                raise UnstableError(f"{file} changed while it was being hashed; try again when nothing writes it")
            if settled(before, started_ns):
                self.record(before, digest)
            return digest
        finally:
            os.close(fd)

    def lookup(self, stat: os.stat_result) -> Digest | None:
        """The digest of the file in exactly this state, if known."""
        row = self._query("SELECT size, mtime_ns, ctime_ns, digest FROM files WHERE dev = ? AND ino = ?", stat)
        if row is None or row[:3] != (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns):
            return None
        return Digest(row[3])

    def source(self, stat: os.stat_result) -> str | None:
        """Where the file was imported from by reference, whatever its state is now; empty for other files, None when nothing is known."""
        row = self._query("SELECT source FROM files WHERE dev = ? AND ino = ?", stat)
        return None if row is None else row[0] or ""

    def record(self, stat: os.stat_result, digest: Digest, *, source: str | None = None, trusted: bool = True) -> None:
        """Remember what the file in this state hashes to. The caller vouches that it is `settled`, or written by itself alone.

        With `trusted` false only the source is remembered: no state of the file matches the row.
        """
        if self._readonly:
            return
        ctime_ns = stat.st_ctime_ns if trusted else -1
        values = (stat.st_dev, _signed(stat.st_ino), stat.st_size, stat.st_mtime_ns, ctime_ns, str(digest), source)
        with self._lock:
            try:
                with self._open() as connection:
                    connection.execute(
                        "INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (dev, ino) DO UPDATE SET size = excluded.size, "
                        "mtime_ns = excluded.mtime_ns, ctime_ns = excluded.ctime_ns, digest = excluded.digest, "
                        # A row that is refreshed for the same content keeps its origin.
                        "source = coalesce(excluded.source, CASE WHEN digest = excluded.digest THEN source END)",
                        values,
                    )
            except sqlite3.Error as error:
                self._forget(error)

    def close(self) -> None:
        """Close the database; a later call opens it again."""
        with self._lock:
            if self._connection is not None and self._pid == os.getpid():
                self._connection.close()
            self._connection = None

    def _query(self, statement: str, stat: os.stat_result) -> tuple[Any, ...] | None:
        with self._lock:
            try:
                row: tuple[Any, ...] | None = self._open().execute(statement, (stat.st_dev, _signed(stat.st_ino))).fetchone()
            except sqlite3.Error as error:
                self._forget(error)
                return None
            return row

    def _open(self) -> sqlite3.Connection:
        # A connection must not cross a fork: its locks belong to the parent.
        if self._connection is None or self._pid != os.getpid():
            self._connection, self._pid = self._connect(), os.getpid()
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        if self._readonly:
            # Nobody writes while there is no write-ahead log; reading "immutable" then creates no file beside the database.
            quiet = "" if Path(f"{self._path}-wal").exists() else "&immutable=1"
            return sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro{quiet}", uri=True, check_same_thread=False)
        connection = sqlite3.connect(self._path, timeout=10, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        # A lost row costs one hashing; nothing here is worth an fsync.
        connection.execute("PRAGMA synchronous = OFF")
        if connection.execute("PRAGMA user_version").fetchone() != (_VERSION,):
            connection.execute("BEGIN IMMEDIATE")
            # Asked again: another process may have made the table, and filled it, before this one got the lock.
            if connection.execute("PRAGMA user_version").fetchone() != (_VERSION,):
                connection.execute("DROP TABLE IF EXISTS files")
                connection.execute(_TABLE)
                connection.execute(f"PRAGMA user_version = {_VERSION}")
            connection.commit()
        return connection

    def _forget(self, error: sqlite3.Error) -> None:
        """After a failure the rows count as unknown. A file that is no database is removed, so that the next use makes it anew."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None
        if type(error) is sqlite3.DatabaseError and not self._readonly:
            for suffix in ("", "-wal", "-shm"):
                Path(f"{self._path}{suffix}").unlink(missing_ok=True)


def _signed(number: int) -> int:
    """SQLite's integers are signed; some file systems use all 64 bits of an inode number."""
    return number - (1 << 64) if number >= 1 << 63 else number

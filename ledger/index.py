"""Where is what: from a key, a subject or a material to entry numbers, and the Merkle nodes for proofs. Derived from git, never trusted.

One SQLite file beside the repository. It may be deleted, damaged, rolled back or taken from another ledger: it is caught up when the ref
moved on and built anew when it does not fit. What it answers is only a hint where to read; `ledger.log` reads the entry from git and
proves its number against the checkpoint, `ledger.lookup` checks the rest. On a read-only ledger the index lives in memory.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ledger import dsse, predicates
from ledger.errors import LedgerError, LogError
from ledger.git import Repository
from ledger.statement import Statement
from ledger.tlog import Frontier, leaf_hash, node_hash
from store.digest import Digest
from store.errors import StoreError

SCHEMA = 1
"""Raised when the tables change; an index of another schema is built anew."""

_TABLES = f"""
CREATE TABLE IF NOT EXISTS entries(number INTEGER PRIMARY KEY, oid BLOB NOT NULL, key BLOB, leaf BLOB NOT NULL, type TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS entries_key ON entries(key) WHERE key IS NOT NULL;
CREATE TABLE IF NOT EXISTS subjects(digest BLOB, number INTEGER, name TEXT, PRIMARY KEY(digest, number, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS materials(digest BLOB, number INTEGER, name TEXT, PRIMARY KEY(digest, number, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS nodes(level INTEGER, place INTEGER, hash BLOB NOT NULL, PRIMARY KEY(level, place)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meta(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
PRAGMA user_version = {SCHEMA};
"""

_UNWRITABLE = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL}
_BATCH = 2000
_CACHED_FROM, _CACHED_MOST = 16, 50_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Facts:
    """What the index keeps about one entry; of an envelope that cannot be read, only that it is there."""

    key: Digest | None
    predicate_type: str
    subjects: tuple[tuple[str, Digest], ...]
    materials: tuple[tuple[str, Digest], ...]


NOTHING = Facts(None, "", (), ())
"""Of an envelope that cannot be read."""


def facts(statement: Statement) -> Facts:
    """What the index keeps about a statement; no signature is looked at."""
    subjects = tuple(sorted(statement.subjects.items()))
    if statement.predicate_type != predicates.RUN:
        return Facts(None, statement.predicate_type, subjects, ())
    try:
        action = predicates.action_of(statement)
        return Facts(action.key, predicates.RUN, subjects, tuple(sorted(action.inputs.items())))
    except (LedgerError, StoreError):
        return Facts(None, predicates.RUN, subjects, ())


def facts_in(envelope: bytes) -> Facts:
    """The same of an envelope's bytes."""
    try:
        return facts(Statement.parse(dsse.Envelope.parse(envelope).payload))
    except (LedgerError, StoreError):
        return NOTHING


@dataclass(frozen=True, slots=True)
class Added:
    """One entry to index: where it is, its leaf, its facts."""

    oid: str
    leaf: bytes
    facts: Facts


class Index:
    """The index of one repository. Call `sync(head)` before asking; all answers are in the order of the log."""

    def __init__(self, path: Path, repository: Repository) -> None:
        self._path = path
        self._repository = repository
        self._inode = 0
        self._subtrees: dict[tuple[int, int], bytes] = {}  # large ones; the same for ever, unless the index is of another history
        self._db = self._connect()

    # opening, and opening again

    def _connect(self) -> sqlite3.Connection:
        try:
            return self._open_file()
        except sqlite3.DatabaseError as error:
            if _code(error) in _UNWRITABLE:
                return self._open_in_memory()
            if _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise LogError(f"{self._path} stays locked by another process; wait for it, or end it") from error
            return self._replace_file()

    def _open_file(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=300, isolation_level=None)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, SCHEMA):
                raise sqlite3.DatabaseError("another schema")
            if version == 0:
                db.executescript(f"BEGIN IMMEDIATE; {_TABLES} COMMIT;")
            self._inode = self._path.stat().st_ino
        except BaseException:
            db.close()
            raise
        return db

    def _open_in_memory(self) -> sqlite3.Connection:
        db = sqlite3.connect(":memory:", isolation_level=None)
        try:  # start from what is in the file, if it can be read at all
            with sqlite3.connect(f"file:{self._path}?immutable=1", uri=True) as source:
                source.backup(db)
                if db.execute("PRAGMA user_version").fetchone()[0] != SCHEMA:
                    raise sqlite3.DatabaseError("another schema")
        except sqlite3.DatabaseError:
            db.close()
            db = sqlite3.connect(":memory:", isolation_level=None)
            db.executescript(_TABLES)
        return db

    def _replace_file(self) -> sqlite3.Connection:
        """Delete the file, unless another process just did, and begin an empty one."""
        guard = os.open(self._repository.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(guard, fcntl.LOCK_EX)
            try:
                if self._inode not in (0, self._path.stat().st_ino):
                    return self._open_file()
            except (FileNotFoundError, sqlite3.DatabaseError):
                self._inode = 0
            for suffix in ("", "-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            return self._open_file()
        except OSError:
            return self._open_in_memory()
        except sqlite3.DatabaseError as error:
            if _code(error) in _UNWRITABLE:
                return self._open_in_memory()
            raise LogError(f"{self._path} can neither be used nor replaced: {error}. Delete it and run again") from error
        finally:
            os.close(guard)

    def rebuild(self) -> None:
        """Forget everything and read it from git again."""
        self._renew()
        self.sync(self._repository.head())

    def _renew(self) -> None:
        self._subtrees.clear()
        self._db.close()
        self._db = self._replace_file()

    def close(self) -> None:
        """Give the file back."""
        self._db.close()

    # keeping up with git

    def sync(self, head: str | None) -> None:
        """Make the index describe the log that ends at `head`.

        Raises:
            LogError: git does not hold that log.
        """
        try:
            self._catch_up(head)
        except sqlite3.DatabaseError as error:
            if _code(error) in _UNWRITABLE:
                self._db.close()
                self._db = self._open_in_memory()
            else:
                self._renew()
            self._catch_up(head)

    def _catch_up(self, head: str | None) -> None:
        if _tip(self._db) == head:
            return
        with self._transaction() as db:
            tip = _tip(db)
            if tip == head:
                return
            if (
                head
                and db.execute("SELECT 1 FROM entries WHERE oid = ?", (bytes.fromhex(head),)).fetchone()
                and head != self._repository.head()
            ):
                return  # another process is ahead of the head that was asked about; everything up to it is here
            path, joined = self._path_from(tip, head)
            if not joined:
                self._subtrees.clear()
                _clear(db)
            number, batch = _count(db), list[Added]()
            for oid in path:
                raw = self._repository.read_entry(oid)
                batch.append(Added(oid, leaf_hash(raw.envelope), facts_in(raw.envelope)))
                if len(batch) == _BATCH:
                    _insert(db, number, batch)
                    number += len(batch)
                    batch.clear()
            _insert(db, number, batch)
            _set_tip(db, head)

    def _path_from(self, tip: str | None, head: str | None) -> tuple[list[str], bool]:
        """Commits after `tip` up to `head`, oldest first, and True; when `tip` is not among head's ancestors, all of them and False."""
        path: list[str] = []
        at = head
        while at is not None and at != tip:
            path.append(at)
            parents = self._repository.read_commit(at).parents
            at = parents[0] if parents else None
        path.reverse()
        return path, at == tip

    def extend(self, old: str | None, added: Sequence[Added]) -> None:
        """Take in entries that were just appended after `old`; a failure is repaired by the next `sync`."""
        try:
            with self._transaction() as db:
                if _tip(db) == old:
                    _insert(db, _count(db), added)
                    _set_tip(db, added[-1].oid)
        except sqlite3.DatabaseError:
            self._renew()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # asking

    def _ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return question(self._db)
        except sqlite3.DatabaseError:
            self.rebuild()
            return question(self._db)

    def _rows(self, sql: str, *values: object) -> list[Any]:
        return self._ask(lambda db: db.execute(sql, values).fetchall())

    def by_key(self, key: Digest) -> list[tuple[int, str]]:
        """(number, commit id) of the entries of an action."""
        return _places(self._rows("SELECT number, oid FROM entries WHERE key = ? ORDER BY number", bytes.fromhex(key.hex)))

    def by_subject(self, digest: Digest) -> list[tuple[int, str]]:
        """(number, commit id) of the entries that say something about an object."""
        return _places(self._rows(_OF.format("subjects"), bytes.fromhex(digest.hex)))

    def by_material(self, digest: Digest) -> list[tuple[int, str]]:
        """(number, commit id) of the entries of actions that took an object as an input."""
        return _places(self._rows(_OF.format("materials"), bytes.fromhex(digest.hex)))

    def by_type(self, predicate_type: str) -> list[tuple[int, str]]:
        """(number, commit id) of the entries whose statement is of a type."""
        return _places(self._rows("SELECT number, oid FROM entries WHERE type = ? ORDER BY number", predicate_type))

    def range(self, start: int, stop: int) -> list[tuple[int, str]]:
        """(number, commit id) of entries `start` to `stop`, the latter not included."""
        return _places(self._rows("SELECT number, oid FROM entries WHERE number >= ? AND number < ? ORDER BY number", start, stop))

    def actions(self) -> list[tuple[int, Digest, str]]:
        """(number, key, commit id) of every action in the log."""
        rows = self._rows("SELECT number, key, oid FROM entries WHERE key IS NOT NULL ORDER BY number")
        return [(number, Digest.parse("sha256:" + key.hex()), oid.hex()) for number, key, oid in rows]

    def repeated(self, most: int) -> tuple[int, int, list[Digest]]:
        """How many actions there are; how many of them have more than one entry, and the keys of the newest `most` of these."""
        total = int(self._rows("SELECT count(DISTINCT key) FROM entries")[0][0])
        again = "FROM entries WHERE key IS NOT NULL GROUP BY key HAVING count(*) > 1"
        count = int(self._rows(f"SELECT count(*) FROM (SELECT 1 {again})")[0][0])
        keys = self._rows(f"SELECT key {again} ORDER BY max(number) DESC LIMIT ?", most)
        return total, count, [Digest.parse("sha256:" + key.hex()) for (key,) in keys]

    def subjects(self) -> list[Digest]:
        """Every digest that an entry is about, sorted."""
        return [Digest.parse("sha256:" + digest.hex()) for (digest,) in self._rows("SELECT DISTINCT digest FROM subjects ORDER BY digest")]

    def contents(self, size: int) -> bytes:
        """SHA-256 over a line `<number> <commit id> <key or ->` for each of the first `size` entries."""
        hasher = hashlib.sha256()
        for start in range(0, size, _BATCH):
            rows = self._rows(
                "SELECT number, oid, key FROM entries WHERE number >= ? AND number < ? ORDER BY number", start, min(start + _BATCH, size)
            )
            for number, oid, key in rows:
                hasher.update(f"{number} {oid.hex()} {'sha256:' + key.hex() if key else '-'}\n".encode())
        return hasher.digest()

    @property
    def size(self) -> int:
        """Number of entries."""
        return self._ask(_count)

    # Merkle nodes: level 0 are the leaves, (level, place) covers the leaves place * 2**level up to (place + 1) * 2**level

    def subtree(self, start: int, stop: int) -> bytes:
        """RFC 6962 root of the leaves `start` to `stop` (start a multiple of the largest power of two below the length).

        Raises:
            LogError: the index holds no such leaves.
        """
        count = stop - start
        if count < _CACHED_FROM:
            return self._subtree(start, stop)
        known = self._subtrees.get((start, stop))
        if known is None:
            if len(self._subtrees) >= _CACHED_MOST:
                self._subtrees.clear()
            known = self._subtrees[start, stop] = self._subtree(start, stop)
        return known

    def _subtree(self, start: int, stop: int) -> bytes:
        count = stop - start
        if count & (count - 1) == 0:
            level = count.bit_length() - 1
            rows = self._rows("SELECT hash FROM nodes WHERE level = ? AND place = ?", level, start >> level)
            if not rows:
                raise LogError(f"the index holds no node for entries {start} to {stop - 1}; delete {self._path} and run again")
            return bytes(rows[0][0])
        middle = start + (1 << (count - 1).bit_length() - 1)
        return node_hash(self.subtree(start, middle), self.subtree(middle, stop))

    def _peaks(self, size: int) -> list[bytes]:
        hashes, start = [], 0
        for level in range(size.bit_length() - 1, -1, -1):
            if size >> level & 1:
                hashes.append(self.subtree(start, start + (1 << level)))
                start += 1 << level
        return hashes

    def frontier(self, size: int) -> Frontier:
        """The frontier of the tree of the first `size` leaves."""
        return Frontier(size, tuple(self._peaks(size)))

    def consistency_path(self, old: int, new: int) -> list[bytes]:
        """RFC 6962 consistency proof between the trees of the first `old` and the first `new` leaves."""
        return self._consistency(old, 0, new, True) if 0 < old < new else []

    def _consistency(self, old: int, start: int, stop: int, whole: bool) -> list[bytes]:
        if old == stop:
            return [] if whole else [self.subtree(start, stop)]
        middle = start + (1 << (stop - start - 1).bit_length() - 1)
        if old <= middle:
            return [*self._consistency(old, start, middle, whole), self.subtree(middle, stop)]
        return [*self._consistency(old, middle, stop, False), self.subtree(start, middle)]

    def inclusion_path(self, number: int, size: int) -> list[bytes]:
        """RFC 6962 audit path of a leaf in the tree of the first `size` leaves."""
        return self._path_in(number, 0, size)

    def _path_in(self, number: int, start: int, stop: int) -> list[bytes]:
        if stop - start == 1:
            return []
        middle = start + (1 << (stop - start - 1).bit_length() - 1)
        if number < middle:
            return [*self._path_in(number, start, middle), self.subtree(middle, stop)]
        return [*self._path_in(number, middle, stop), self.subtree(start, middle)]


_OF = "SELECT DISTINCT entries.number, oid FROM {0} JOIN entries USING(number) WHERE digest = ? ORDER BY entries.number"


def _places(rows: Iterable[Any]) -> list[tuple[int, str]]:
    return [(number, oid.hex()) for number, oid in rows]


def _tip(db: sqlite3.Connection) -> str | None:
    row = db.execute("SELECT value FROM meta WHERE name = 'tip'").fetchone()
    return row[0] or None if row else None


def _set_tip(db: sqlite3.Connection, head: str | None) -> None:
    db.execute("INSERT OR REPLACE INTO meta VALUES('tip', ?)", (head or "",))


def _count(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT coalesce(max(number), -1) + 1 FROM entries").fetchone()[0])


def _clear(db: sqlite3.Connection) -> None:
    for table in ("entries", "subjects", "materials", "nodes", "meta"):
        db.execute(f"DELETE FROM {table}")


def _insert(db: sqlite3.Connection, number: int, added: Sequence[Added]) -> None:
    rows, subjects, materials, nodes = [], [], [], []
    made: dict[tuple[int, int], bytes] = {}
    for at, one in enumerate(added, number):
        key = bytes.fromhex(one.facts.key.hex) if one.facts.key else None
        rows.append((at, bytes.fromhex(one.oid), key, one.leaf, one.facts.predicate_type))
        subjects += [(bytes.fromhex(digest.hex), at, name) for name, digest in one.facts.subjects]
        materials += [(bytes.fromhex(digest.hex), at, name) for name, digest in one.facts.materials]
        level, place, value = 0, at, one.leaf
        while True:
            made[level, place] = value
            nodes.append((level, place, value))
            if place % 2 == 0:
                break
            left = made.get((level, place - 1))
            if left is None:
                left = db.execute("SELECT hash FROM nodes WHERE level = ? AND place = ?", (level, place - 1)).fetchone()[0]
            level, place, value = level + 1, place // 2, node_hash(left, value)
    db.executemany("INSERT INTO entries VALUES(?, ?, ?, ?, ?)", rows)
    db.executemany("INSERT OR IGNORE INTO subjects VALUES(?, ?, ?)", subjects)
    db.executemany("INSERT OR IGNORE INTO materials VALUES(?, ?, ?)", materials)
    db.executemany("INSERT INTO nodes VALUES(?, ?, ?)", nodes)


def _code(error: sqlite3.Error) -> int:
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return (code or sqlite3.SQLITE_ERROR) & 0xFF

"""The only module that touches git: raw objects in and out of one bare repository, and its one ref.

Rules of this module:

- Objects are read raw, by id, from this repository's own files, and their SHA-1 is computed again. Replace refs, grafts, shallow
  marks and alternates have no effect on what is read; `Repository.overrides` names those that exist, so that a verifier can say so.
- Objects are written first and fsynced; the ref moves last, by compare-and-swap through git's own lock file. A crash between any
  two steps leaves unreachable objects at most.
- A group of objects becomes one pack: three fsyncs whatever it holds, where loose objects need two each. Small packs are joined into larger
  ones, sixteen at a time, so that their number grows with the logarithm of the log.

Objects are written here and not through libgit2, which writes a pack only of objects that are there already, and fsyncs by global or
per-repository settings only; they are read through pygit2, which knows deltas. Remotes are another module's affair.

>>> object_id("blob", b"hello\\n")
'ce013625030ba8dba906f756967f9e9ca394464a'
"""

from __future__ import annotations

import binascii
import hashlib
import os
import re
import secrets
import struct
import time
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from ledger.errors import LogError

REF = "refs/heads/ledger"
"""The one ref of a ledger."""

ENVELOPE, CHECKPOINT = "entry.dsse.json", "checkpoint"
"""The two files in the tree of every entry."""

JOINED = 16
"""As many packs of about one size are joined into one."""

JOINED_BYTES = 2 * 2**20
"""Larger packs are left alone: joining holds them all in memory."""

STALE_AFTER_S = 60.0
"""Age after which a lock that another git program took on the ref counts as left by a killed one (a living one needs milliseconds)."""

_OVERRIDES = ("objects/info/alternates", "objects/info/http-alternates", "info/grafts", "shallow", "commondir")

_NUMBERS = {"commit": 1, "tree": 2, "blob": 3}
_KINDS = {number: kind for kind, number in _NUMBERS.items()} | {4: "tag"}
_ID = re.compile(r"[0-9a-f]{40}\Z")

_CONFIG = """\
[core]
\trepositoryformatversion = 0
\tfilemode = true
\tbare = true
[receive]
\tdenyNonFastForwards = true
\tdenyDeletes = true
"""


# --- objects as bytes ----------------------------------------------------------------------------------------------------------


def object_id(kind: str, data: bytes) -> str:
    """The 40 hex digits by which git names an object."""
    return hashlib.sha1(b"%s %d\0" % (kind.encode(), len(data)) + data, usedforsecurity=False).hexdigest()


def tree_bytes(files: Mapping[str, str]) -> bytes:
    """A tree of plain files: name -> blob id."""
    return b"".join(b"100644 %s\0%s" % (name.encode(), bytes.fromhex(files[name])) for name in sorted(files))


def parse_tree(data: bytes) -> dict[str, str]:
    """Name -> blob id of a tree that holds plain files only, in git's order, each name once.

    Raises:
        LogError: anything else.
    """
    files: dict[str, str] = {}
    rest = data
    while rest:
        head, nul, tail = rest.partition(b"\0")
        mode, space, name = head.partition(b" ")
        if not nul or not space or mode != b"100644" or len(tail) < 20:
            raise LogError(f"tree holds something else than plain files: {head[:60]!r}")
        files[name.decode("utf-8", "backslashreplace")] = tail[:20].hex()
        rest = tail[20:]
    if tree_bytes(files) != data:
        raise LogError("tree is not in git's order, or names a file twice")
    return files


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit object, taken apart.

    Attributes:
        tree: id of its tree.
        parents: ids, in order.
        author, committer: `name <mail> seconds +0000`.
        message: the text after the header.
        signature: the armoured SSH signature, or None.
        signed: the bytes that the signature covers: the commit without its `gpgsig` header.
    """

    tree: str
    parents: tuple[str, ...]
    author: str
    committer: str
    message: str
    signature: str | None
    signed: bytes


def unsigned_commit(tree: str, parent: str | None, who: str, message: str) -> bytes:
    """The bytes that a commit's signature covers. `who` is `name <mail> seconds +0000`, author and committer alike."""
    above = f"parent {parent}\n" if parent else ""
    return f"tree {tree}\n{above}author {who}\ncommitter {who}\n\n{message}\n".encode()


def signed_commit(unsigned: bytes, signature: str) -> bytes:
    """Put an armoured signature into a commit as its `gpgsig` header."""
    head, _, message = unsigned.partition(b"\n\n")
    return head + b"\ngpgsig " + signature.rstrip("\n").replace("\n", "\n ").encode() + b"\n\n" + message


def parse_commit(data: bytes) -> Commit:
    """Take a commit apart; only headers that this module writes are accepted, in that order.

    Raises:
        LogError: a header is missing, unknown, or out of place.
    """
    head, blank, message = data.partition(b"\n\n")
    lines = head.split(b"\n")
    if not blank:
        raise LogError("commit has no message")
    fields: list[tuple[bytes, bytes]] = []
    signature: list[bytes] = []
    kept: list[bytes] = []
    for line in lines:
        name, space, value = line.partition(b" ")
        if name == b"" and space and fields and fields[-1][0] == b"gpgsig":
            signature.append(value)
            continue
        fields.append((name, value))
        if name == b"gpgsig":
            signature.append(value)
        else:
            kept.append(line)
    parents = tuple(value for name, value in fields if name == b"parent")
    expected = [b"tree", *[b"parent"] * len(parents), b"author", b"committer"]
    names = [name for name, _ in fields]
    if names not in (expected, [*expected, b"gpgsig"]):
        raise LogError(f"commit has the headers {b' '.join(names)[:200]!r}; an entry has tree, parent, author, committer, gpgsig")
    try:
        texts = [value.decode() for _, value in fields]
        text, armour = message.decode(), b"\n".join(signature).decode("ascii")
    except UnicodeDecodeError as error:
        raise LogError(f"commit is not UTF-8: {error}") from error
    ids = texts[: 1 + len(parents)]
    if not all(_ID.match(name) for name in ids):
        raise LogError("commit names its tree or parent by something that is no object id")
    return Commit(
        tree=texts[0],
        parents=tuple(ids[1:]),
        author=texts[1 + len(parents)],
        committer=texts[2 + len(parents)],
        message=text,
        signature=armour + "\n" if signature else None,
        signed=b"\n".join(kept) + b"\n\n" + message,
    )


@dataclass(frozen=True, slots=True)
class RawEntry:
    """A commit with the bytes of its two files; well formed, nothing else checked."""

    oid: str
    commit: Commit
    envelope: bytes
    checkpoint: bytes


# --- the repository ------------------------------------------------------------------------------------------------------------


class Repository:
    """One bare git repository with one ref. Reading needs no lock; writers hold the ledger's own lock (see `ledger.log`)."""

    def __init__(self, path: Path) -> None:
        if not (path / "HEAD").is_file() or not (path / "objects").is_dir():
            raise LogError(
                f"{path} is no git repository; a ledger keeps its log there. Restore it, or clone it from where it was pushed to"
            )
        config = path / "config"
        settings = config.read_text(errors="replace").lower() if config.is_file() else ""
        if "objectformat" in settings or "refstorage" in settings:
            raise LogError(f"{path} uses SHA-256 object names or the reftable format, which this program cannot read")
        self.path = path

    @classmethod
    def create(cls, path: Path, description: str) -> Repository:
        """Make an empty one, aside and then by rename.

        Raises:
            LogError: something of that name exists.
        """
        if path.exists():
            raise LogError(f"{path} exists already")
        aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
        for folder in ("objects/info", "objects/pack", "refs/heads", "refs/tags", "info"):
            (aside / folder).mkdir(parents=True)
        for name, text in {"HEAD": f"ref: {REF}\n", "config": _CONFIG, "description": description + "\n"}.items():
            _write_durably(aside / name, text.encode(), 0o644)
        try:
            aside.rename(path)
        except OSError as error:
            raise LogError(f"cannot make {path}: {error.strerror}") from error
        _fsync_folder(path.parent)
        return cls(path)

    @property
    def description(self) -> str:
        """The first line of git's `description` file, or nothing."""
        file = self.path / "description"
        return file.read_text(errors="replace").partition("\n")[0] if file.is_file() else ""

    def overrides(self) -> list[str]:
        """What would make other git programs show another history than the one that is read here; empty is good."""
        found = [name for name in _OVERRIDES if (self.path / name).exists()]
        if (self.path / "HEAD").is_symlink() or (self.path / "HEAD").read_bytes().strip() != f"ref: {REF}".encode():
            found.append("HEAD")
        folder = self.path / "refs/replace"
        if folder.is_dir():
            found += sorted(str(file.relative_to(self.path)) for file in folder.rglob("*") if file.is_file())
        return found + sorted(name for name in self._packed_refs() if name.startswith("refs/replace/"))

    # reading

    def head(self) -> str | None:
        """The commit that the ref names, or None while there is no entry.

        Raises:
            LogError: the ref does not hold an object id.
        """
        try:
            text = (self.path / REF).read_text()
        except FileNotFoundError:
            return self._packed_refs().get(REF)
        if not _ID.match(text[:40]) or text[40:] not in ("", "\n"):
            raise LogError(f"{self.path / REF} holds {text[:60]!r}; expected an object id. Restore it from a copy or a remote")
        return text[:40]

    def _packed_refs(self) -> dict[str, str]:
        file = self.path / "packed-refs"
        if not file.is_file():
            return {}
        pairs = (line.split(" ", 1) for line in file.read_text().splitlines() if line[:1] not in ("#", "^") and " " in line)
        return {name: oid for oid, name in pairs if _ID.match(oid)}

    @cached_property
    def _foreign_errors(self) -> tuple[type[Exception], ...]:
        import pygit2

        return pygit2.GitError, KeyError, ValueError

    @cached_property
    def _odb(self) -> Any:
        import pygit2  # 0.07 s, and not every command reads the log

        odb = pygit2.Odb()  # of these two backends only: opened by path, it would follow alternates
        objects = str(self.path / "objects")
        odb.add_backend(pygit2.OdbBackendPack(objects), 2)
        odb.add_backend(pygit2.OdbBackendLoose(objects, 1, False), 1)
        return odb

    def read(self, oid: str, kind: str) -> bytes:
        """The bytes of an object, whose id was computed from them again.

        Raises:
            LogError: it is missing, damaged, or of another kind.
        """
        try:
            number, data = self._odb.read(oid)
        except self._foreign_errors:
            del self._odb  # another process may have joined the packs that were open
            try:
                number, data = self._odb.read(oid)
            except self._foreign_errors as error:
                raise LogError(f"{kind} {oid[:12]} cannot be read from {self.path}: {error}") from error
        if _KINDS.get(number) != kind:
            raise LogError(f"object {oid[:12]} is a {_KINDS.get(number)}; expected a {kind}")
        actual = object_id(kind, data)
        if actual != oid:
            raise LogError(f"{kind} {oid[:12]} is damaged: its bytes hash to {actual[:12]}")
        return bytes(data)

    def read_commit(self, oid: str) -> Commit:
        """A commit with at most one parent.

        Raises:
            LogError: it cannot be read, is no entry's commit, or has two parents.
        """
        try:
            commit = parse_commit(self.read(oid, "commit"))
        except LogError as error:
            raise LogError(f"commit {oid[:12]}: {error}") from error
        if len(commit.parents) > 1:
            raise LogError(
                f"commit {oid[:12]} has {len(commit.parents)} parents; the log is one line, an entry has one. Somebody merged into it"
            )
        return commit

    def read_entry(self, oid: str) -> RawEntry:
        """A commit and its two files.

        Raises:
            LogError: an object cannot be read, or the tree holds something else than the two files.
        """
        commit = self.read_commit(oid)
        try:
            files = parse_tree(self.read(commit.tree, "tree"))
            if set(files) != {ENVELOPE, CHECKPOINT}:
                raise LogError(f"tree holds {', '.join(sorted(files)) or 'nothing'}; expected exactly {CHECKPOINT} and {ENVELOPE}")
            return RawEntry(oid, commit, self.read(files[ENVELOPE], "blob"), self.read(files[CHECKPOINT], "blob"))
        except LogError as error:
            raise LogError(f"commit {oid[:12]}: {error}") from error

    # writing

    def write(self, objects: Sequence[tuple[str, bytes]]) -> None:
        """Store objects `(kind, bytes)`; on return they are durable. Writing one that exists is harmless."""
        entries = {}
        for kind, data in objects:
            packed = _pack_header(_NUMBERS[kind], len(data)) + zlib.compress(data, 1)
            entries[bytes.fromhex(object_id(kind, data))] = packed
        self._write_pack(entries)

    def _write_pack(self, entries: Mapping[bytes, bytes]) -> Path:
        """One version 2 pack of whole objects (20-byte id -> header and compressed data) and its version 2 index (gitformat-pack)."""
        body = struct.pack(">4sII", b"PACK", 2, len(entries)) + b"".join(entries.values())
        if len(body) >= 2**31:
            raise LogError("group is larger than 2 GiB; append it in parts")
        rows, position = [], 12
        for name, packed in entries.items():
            rows.append((name, binascii.crc32(packed), position))
            position += len(packed)
        rows.sort()
        trailer = hashlib.sha1(body, usedforsecurity=False).digest()
        counts = Counter(name[0] for name, _, _ in rows)
        index = struct.pack(">4sI256I", b"\xfftOc", 2, *accumulate(counts[first] for first in range(256)))
        index += b"".join(name for name, _, _ in rows)
        index += b"".join(struct.pack(">I", crc) for _, crc, _ in rows)
        index += b"".join(struct.pack(">I", offset) for _, _, offset in rows) + trailer
        index += hashlib.sha1(index, usedforsecurity=False).digest()
        folder = self.path / "objects" / "pack"
        for suffix, data in (("pack", body + trailer), ("idx", index)):  # a pack counts once its index is there
            aside = folder / f"tmp_{suffix}_{secrets.token_hex(6)}"  # a name that git's own prune knows
            _write_durably(aside, data, 0o444)
            aside.rename(folder / f"pack-{trailer.hex()}.{suffix}")
        _fsync_folder(folder)
        return folder / f"pack-{trailer.hex()}.idx"

    def join_packs(self) -> None:
        """Where there are many packs of about one size, make one of them. The caller holds the ledger's lock.

        Only packs of whole objects are joined, those that `write` makes; what `git gc` packed with deltas, or keeps, stays as it is, and so
        do large packs. Entries are copied as they are stored, after their checksums; a damaged pack is left for the verifier to find.
        """
        sizes: dict[int, list[Path]] = {}
        names = [file.name for file in (self.path / "objects" / "pack").iterdir()]
        kept = Counter(name.partition(".")[0] for name in names)
        for name in names:
            if name.startswith("pack-") and name.endswith(".idx") and kept[name[:-4]] == 2:
                index = self.path / "objects" / "pack" / name
                if index.with_suffix(".pack").stat().st_size > JOINED_BYTES:
                    continue
                with index.open("rb") as file:
                    count = int.from_bytes(file.read(1032)[-4:], "big")
                sizes.setdefault((max(count // 4, 1).bit_length() - 1) // (JOINED.bit_length() - 1), []).append(index)
        for indexes in sizes.values():
            if len(indexes) < JOINED:
                continue
            whole = {index: entries for index in indexes if (entries := _whole_entries(index)) is not None}
            if len(whole) < JOINED:
                continue
            joined = self._write_pack({name: packed for entries in whole.values() for name, packed in entries.items()})
            for index in whole:
                if index != joined:
                    index.unlink()  # first: a pack without its index is garbage, an index without its pack a fault
                    index.with_suffix(".pack").unlink()

    def advance(self, old: str | None, new: str) -> None:
        """Move the ref from `old` to `new`, durably, or not at all. The caller holds the ledger's lock.

        Uses git's own protocol (`<ref>.lock`, made exclusively, then renamed), so that stock git in the same repository is safe too.
        The lock is a hard link to `ledger.new`: one that is left over and is the same file came from a killed writer of ours, and since
        no other of ours can run now, it is removed. One of another program is waited for.

        Raises:
            LogError: the ref names something else than `old`, or another program keeps it locked.
        """
        ref = self.path / REF
        lock, mine = ref.with_name(ref.name + ".lock"), self.path / "ledger.new"
        ref.parent.mkdir(parents=True, exist_ok=True)
        if _same_file(lock, mine):
            lock.unlink()
        mine.unlink(missing_ok=True)
        _write_durably(mine, new.encode() + b"\n", 0o644)
        _link_exclusively(mine, lock)
        actual = self.head()
        if actual != old:
            lock.unlink()
            mine.unlink()
            raise LogError(f"the log moved meanwhile: {REF} is {actual}, expected {old}. Nothing was recorded; run again")
        lock.rename(ref)
        mine.unlink()
        _fsync_folder(ref.parent)


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except FileNotFoundError:
        return False


def _link_exclusively(mine: Path, lock: Path) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            return lock.hardlink_to(mine)
        except FileExistsError:
            try:
                age = time.time() - lock.stat().st_mtime
            except FileNotFoundError:
                continue
            if abs(age) > STALE_AFTER_S:  # also one from the future: the clock was set back
                lock.unlink(missing_ok=True)
            elif time.monotonic() > deadline:
                raise LogError(f"{lock} is held by another git program; wait for it, then run again") from None
            else:
                time.sleep(0.05)


def _whole_entries(index: Path) -> dict[bytes, bytes] | None:
    """The entries of a pack, 20-byte id -> header and compressed data; None when one is a delta, or anything is not as its index says."""
    table, pack = index.read_bytes(), index.with_suffix(".pack").read_bytes()
    count = int.from_bytes(table[1028:1032], "big")
    crcs, offsets = 1032 + 20 * count, 1032 + 24 * count
    if table[:8] != b"\xfftOc\0\0\0\x02" or len(table) != 1032 + 28 * count + 40 or len(pack) >= 2**31:
        return None
    starts = struct.unpack(f">{count}I", table[offsets : offsets + 4 * count])
    ends = dict(pairwise([*sorted(starts), len(pack) - 20]))
    entries = {}
    for number, start in enumerate(starts):
        packed = pack[start : ends[start]]
        crc = int.from_bytes(table[crcs + 4 * number : crcs + 4 * number + 4], "big")
        if binascii.crc32(packed) != crc or (packed[0] >> 4) & 7 not in _KINDS:
            return None
        entries[table[1032 + 20 * number : 1052 + 20 * number]] = packed
    return entries


def _pack_header(number: int, size: int) -> bytes:
    first = (number << 4) | (size & 15)
    size >>= 4
    out = bytearray()
    while size:
        out.append(first | 0x80)
        first = size & 0x7F
        size >>= 7
    out.append(first)
    return bytes(out)


def _write_durably(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

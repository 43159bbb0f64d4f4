"""A folder as a value: sorted names, each with the digest and size of its content.

A tree is a blob of canonical JSON, `{"entries":[{"digest","path","size"},...],"type":"tree/v1"}`, sorted by the code points of `path`.
Names are POSIX relative paths that mean the same one file on every file system: nothing that climbs out, no two names that a
case-insensitive or normalising file system would take for one, none that Windows reserves. Empty folders, modes and times are not kept.

Links in a folder that is imported: one to a regular file inside the folder counts as that file; one that leaves the folder, goes to a
folder, dangles or goes round in circles is refused. Entries of a tree are files: an entry whose bytes look like a tree is not followed.

>>> check_names(["model/config.json", "model/Config.json"])
Traceback (most recent call last):
    ...
store.errors.PathError: 'model/Config.json' cannot be in a tree: it is the same file as 'model/config.json' where case does not count
"""

from __future__ import annotations

import fcntl
import glob
import os
import re
import shutil
import stat
import threading
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from store import canonical, files
from store.cas import Cas
from store.digest import Digest
from store.errors import CanonicalError, DigestError, NotFoundError, PathError, TreeError

MAX_ENTRIES = 100_000
MAX_TREE_BYTES = 1 << 26
"""No tree is larger; so nothing larger needs to be read to see whether it is one."""

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all, by one thread at a time."""

Skip = Callable[[str], bool]
"""Says of a path, as the tree would name it (folders too, without a slash at the end), whether to leave it out."""

_HEAD = b'{"entries":['
_RESERVED = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])[ ]*(?:\..*)?\Z", re.IGNORECASE | re.DOTALL)
_MAX_NAME_BYTES = 255
_MAX_PATH_BYTES = 4096


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """One file: its path in the tree, its content, its size in bytes."""

    path: str
    digest: Digest
    size: int


@dataclass(frozen=True)
class Tree:
    """A folder's content; a value: two trees with the same entries are equal and have the same digest.

    Attributes:
        entries: sorted by path; the constructor refuses anything else.

    Raises:
        PathError: a name that must not be in a tree.
        TreeError: not sorted, a size that is negative or not exact in JSON, too many entries.
    """

    entries: tuple[TreeEntry, ...]

    def __post_init__(self) -> None:
        paths = [entry.path for entry in self.entries]
        check_names(paths)
        if paths != sorted(paths):
            raise TreeError("the entries of a tree must be sorted by path; use Tree.of to sort them")
        for entry in self.entries:
            if type(entry.size) is not int or not 0 <= entry.size < 1 << 53:
                raise TreeError(f"{entry.path!r} has the size {entry.size!r}; a size is an integer from 0 to 2**53 - 1")

    @classmethod
    def of(cls, entries: Iterable[TreeEntry]) -> Tree:
        """A tree of these entries, in whatever order they come."""
        return cls(tuple(sorted(entries, key=lambda entry: entry.path)))

    @classmethod
    def parse(cls, data: bytes) -> Tree:
        """Read a tree strictly: every byte is as `to_bytes` would write it.

        Raises:
            TreeError: it is not a tree. PathError: a name that must not be in a tree.
        """
        try:
            value = canonical.loads(data)
            tree = cls(tuple(_entry(item) for item in value["entries"])) if isinstance(value, dict) and "entries" in value else None
        except (CanonicalError, DigestError, TypeError) as error:
            raise TreeError(f"not a tree: {error}") from error
        if tree is None or tree.to_bytes() != data:
            raise TreeError('not a tree: the bytes are not canonical JSON of {"entries", "type": "tree/v1"}')
        return tree

    def to_bytes(self) -> bytes:
        """The canonical JSON that is stored and hashed."""
        entries = [{"digest": str(entry.digest), "path": entry.path, "size": entry.size} for entry in self.entries]
        return canonical.dumps({"entries": entries, "type": "tree/v1"})

    @cached_property
    def digest(self) -> Digest:
        """The digest of its bytes."""
        return Digest.of(self.to_bytes())

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(entry.size for entry in self.entries)

    def entry(self, path: str) -> TreeEntry:
        """The entry of that path.

        Raises:
            NotFoundError: the tree has no such file.
        """
        for entry in self.entries:
            if entry.path == path:
                return entry
        raise NotFoundError(path, f"the tree {self.digest.short}")


def _entry(value: Any) -> TreeEntry:
    if not isinstance(value, dict) or set(value) != {"digest", "path", "size"}:
        raise TreeError("not a tree: an entry has exactly the fields digest, path, size")
    if not isinstance(value["path"], str) or type(value["size"]) is not int:
        raise TreeError("not a tree: a path is text and a size an integer")
    return TreeEntry(value["path"], Digest.parse(value["digest"]), value["size"])


def check_names(paths: Sequence[str]) -> None:
    """Refuse names that are not safe, or not one file each on every file system.

    Raises:
        PathError: with every name that is at fault.
        TreeError: more than `MAX_ENTRIES` names.
    """
    if len(paths) > MAX_ENTRIES:
        raise TreeError(f"{len(paths)} files are too many for one tree (at most {MAX_ENTRIES}); is this the right folder?")
    twice = {path for path, count in Counter(paths).items() if count > 1} if len(set(paths)) < len(paths) else set()
    faults: dict[str, str] = {}
    owners: dict[str, tuple[str, bool]] = {}
    for path in sorted(paths, reverse=True):
        fault = _fault(path)
        if fault is not None:
            faults[path] = fault
            continue
        # Each folder on the way counts as a name, too: `A/x` and `a/y` share a folder where case does not count.
        for end in [*(place for place, sign in enumerate(path) if sign == "/"), len(path)]:
            name, is_folder = path[:end], end < len(path)
            other, was_folder = owners.setdefault(_folded(name), (name, is_folder))
            if other != name:
                twins = unicodedata.normalize("NFC", other) == unicodedata.normalize("NFC", name)
                where = "where Unicode is normalised" if twins else "where case does not count"
                faults[path] = f"{'it is' if name == path else f'{name!r} is'} the same file as {other!r} {where}"
            elif is_folder != was_folder:
                faults[path] = f"{name!r} is both a file and a folder"
            elif path in twice:
                faults[path] = "it is given twice"
    if faults:
        lines = [f"{path!r} cannot be in a tree: {fault}" for path, fault in sorted(faults.items())]
        more = f"\n({len(lines) - 20} more names are refused)" if len(lines) > 20 else ""
        raise PathError("\n".join(lines[:20]) + more, tuple(sorted(faults)))


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def _fault(path: str) -> str | None:
    """What is wrong with one name, or None."""
    if not path:
        return "it is empty"
    if path.startswith("/"):
        return "it is absolute"
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        return "it is not UTF-8"
    if len(encoded) > _MAX_PATH_BYTES:
        return f"it is longer than {_MAX_PATH_BYTES} bytes"
    if "\\" in path:
        return "it has a backslash"
    if ":" in path:
        return "it has a colon, which is a drive or a stream on Windows"
    if any(ord(sign) < 32 or ord(sign) == 127 for sign in path):
        return "it has a control character"
    for name in path.split("/"):
        if not name:
            return "a part of it is empty"
        if name in (".", ".."):
            return f"{name!r} is not a name"
        if name[-1] in ". ":
            return f"{name!r} ends in a dot or a space, which Windows drops"
        if _RESERVED.match(name):
            return f"{name!r} is reserved on Windows"
        if len(name.encode()) > _MAX_NAME_BYTES:
            return f"a part of it is longer than {_MAX_NAME_BYTES} bytes"
    return None


def is_tree(cas: Cas, digest: Digest) -> bool:
    """Whether an object is a tree, by its content.

    Raises:
        NotFoundError, CorruptError.
    """
    return load_if_tree(cas, digest) is not None


def load_if_tree(cas: Cas, digest: Digest) -> Tree | None:
    """Read a tree from a store, or None for an object that is something else.

    Raises:
        NotFoundError, CorruptError.
    """
    if cas.size(digest) > MAX_TREE_BYTES:
        return None
    # Opening it checks its bytes: a tree that was damaged must not pass for something else, or what it needs would count as garbage.
    with cas.open(digest) as file:
        if file.read(len(_HEAD)) != _HEAD:
            return None
    try:
        return load(cas, digest)
    except (TreeError, PathError):
        return None


def load(cas: Cas, digest: Digest) -> Tree:
    """Read a tree from a store.

    Raises:
        NotFoundError, CorruptError.
        TreeError: the object is something else. PathError: it has names that must not become paths.
    """
    if (size := cas.size(digest)) > MAX_TREE_BYTES:
        raise TreeError(f"{digest} is not a tree: it has {size} bytes")
    try:
        return Tree.parse(cas.read(digest))
    except TreeError as error:
        raise TreeError(f"{digest} is {error}") from error


def import_folder(cas: Cas, folder: Path, *, progress: Progress | None = None, jobs: int = 0, skip: Skip | None = None) -> Digest:
    """Store a folder's files (by reference where that is safe) and its tree.

    `jobs` files are hashed at once; 0 stands for one per core.

    Raises:
        PathError: names, links or special files that must not be in a tree: all of them, before anything is stored.
        UnstableError: a file changed meanwhile. UnwritableError: no space, or read-only.
    """

    def store(path: Path, tick: files.Tick) -> tuple[Digest, int]:
        digest = cas.add_file(path, tick)
        return digest, cas.size(digest)

    return cas.put(_each(folder, store, progress, jobs, skip).to_bytes())


def hash_folder(folder: Path, *, progress: Progress | None = None, jobs: int = 0, skip: Skip | None = None) -> Tree:
    """The tree that `import_folder` would store, without storing anything.

    Raises:
        PathError, UnstableError: as in `import_folder`.
    """
    return _each(folder, _hash_file, progress, jobs, skip)


def export(cas: Cas, tree: Digest, target: Path, *, progress: Progress | None = None) -> None:
    """Make a folder of a tree: complete under its name, or not there at all.

    Files are reflinks, hard links to read-only objects, or copies (see `place` of the store): opening a hard-linked file for writing fails,
    and a program that changes it all the same is noticed when the object is next read.

    Raises:
        NotFoundError, CorruptError, TreeError.
        PathError: something other than an empty folder is at `target`, or the tree has names that must not become paths.
        UnwritableError: no space, or read-only; nothing is left there.
    """
    content = load(cas, tree)
    target = Path.cwd() / target
    if target.is_symlink() or (target.exists() and not (target.is_dir() and not any(target.iterdir()))):
        raise PathError(f"{target} exists already; export to another name, or remove it first", (str(target),))
    with files.writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        aside, lock = _new_aside(target)
    try:
        done = 0
        made = {aside}
        for entry in content.entries:
            file = aside / entry.path
            with files.writing(target):
                for folder in reversed(file.relative_to(aside).parents):
                    if aside / folder not in made:
                        (aside / folder).mkdir()
                        made.add(aside / folder)
            cas.place(entry.digest, file)
            with files.writing(target):
                _sync(file)
            done += entry.size
            if progress is not None:
                progress(done, content.size)
        with files.writing(target):
            for folder in made:
                files.sync_folder(folder)
            aside.rename(target)
            files.sync_folder(target.parent)
    finally:
        # After success the name is gone, and nothing happens here.
        shutil.rmtree(aside, ignore_errors=True)
        os.close(lock)


def _new_aside(target: Path) -> tuple[Path, int]:
    """An empty folder beside the target, locked while its process lives; those of dead processes are removed."""
    prefix = f".{target.name[:200]}.partial-"
    for left in target.parent.glob(f"{glob.escape(prefix)}*"):
        try:
            fd = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)
        except BlockingIOError:
            continue
        finally:
            os.close(fd)
    while True:
        aside = target.parent / f"{prefix}{os.urandom(6).hex()}"
        aside.mkdir()
        try:
            fd = os.open(aside, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        fcntl.flock(fd, fcntl.LOCK_EX)
        # Between making and locking, another process may have taken it for a dead one's.
        if aside.exists():
            return aside, fd
        os.close(fd)


def _sync(file: Path) -> None:
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _hash_file(path: Path, tick: files.Tick) -> tuple[Digest, int]:
    return files.hash_file(path, tick)


def _each(
    folder: Path,
    work: Callable[[Path, files.Tick], tuple[Digest, int]],
    progress: Progress | None,
    jobs: int,
    skip: Skip | None,
) -> Tree:
    """Digest and size of every file of a folder, in parallel: hashing releases the GIL."""
    # Here, because it loads logging, and most users of trees only read them.
    from concurrent.futures import Future, ThreadPoolExecutor

    found = _scan(folder, skip)
    total = sum(size for _, size in found.values())
    done = 0
    lock = threading.Lock()

    def tick(count: int) -> None:
        nonlocal done
        with lock:
            done += count
            if progress is not None:
                progress(done, total)

    with ThreadPoolExecutor(jobs or len(os.sched_getaffinity(0))) as pool:
        # Large files first: the last one to finish decides how long it takes.
        order = sorted(found, key=lambda path: -found[path][1])
        waiting: dict[str, Future[tuple[Digest, int]]] = {path: pool.submit(work, found[path][0], tick) for path in order}
        try:
            return Tree.of(TreeEntry(path, *future.result()) for path, future in waiting.items())
        finally:
            # After a failure nothing new is begun.
            for future in waiting.values():
                future.cancel()


def _scan(folder: Path, skip: Skip | None) -> dict[str, tuple[Path, int]]:
    """Every file: its path in the tree -> the regular file that has its content, and that file's size."""
    try:
        top = folder.resolve(strict=True)
    except FileNotFoundError as error:
        raise NotFoundError(folder, "the file system") from error
    if not top.is_dir():
        raise PathError(f"{os.fspath(folder)!r} is not a folder", (os.fspath(folder),))
    found: dict[str, tuple[Path, int]] = {}
    faults: dict[str, str] = {}
    folders = [""]
    while folders:
        prefix = folders.pop()
        with os.scandir(top / prefix) as items:
            for item in items:
                path = prefix + item.name
                if skip is not None and skip(path):
                    continue
                if item.is_dir(follow_symlinks=False):
                    folders.append(path + "/")
                elif item.is_symlink():
                    real, fault = _follow(top, Path(item.path))
                    if fault is not None:
                        faults[path] = fault
                    else:
                        found[path] = (real, real.stat().st_size)
                elif item.is_file(follow_symlinks=False):
                    found[path] = (Path(item.path), item.stat(follow_symlinks=False).st_size)
                else:
                    faults[path] = f"it is a {_kind(item.stat(follow_symlinks=False).st_mode)}"
                if len(found) + len(faults) > MAX_ENTRIES:
                    raise TreeError(f"{folder} has more than {MAX_ENTRIES} files; is this the right folder?")
    if faults:
        lines = [f"{path!r} cannot be imported: {fault}" for path, fault in sorted(faults.items())]
        raise PathError("\n".join(lines), tuple(sorted(faults)))
    check_names(list(found))
    return found


def _follow(top: Path, link: Path) -> tuple[Path, str | None]:
    """Where a symbolic link leads, and what is wrong with that, or None."""
    try:
        real = link.resolve(strict=True)
    except FileNotFoundError:
        return link, f"it is a link to {str(link.readlink())!r}, where nothing is"
    except (OSError, RuntimeError):
        return link, "it is a link that goes round in circles"
    if not real.is_relative_to(top):
        return link, f"it is a link out of the folder, to {str(real)!r}; copy that file into the folder first"
    if real.is_dir():
        return link, f"it is a link to the folder {str(real.relative_to(top))!r}; links to folders are not followed"
    if not real.is_file():
        return link, f"it is a link to a {_kind(real.stat().st_mode)}"
    return real, None


def _kind(mode: int) -> str:
    names = {stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket", stat.S_IFCHR: "device", stat.S_IFBLK: "device"}
    return names.get(stat.S_IFMT(mode), "special file")

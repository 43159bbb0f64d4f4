"""Stored bytes against their names, and what nothing reaches.

Roots are given, so this needs no ledger: `reachable` follows trees to their files and splices to the blobs that they are made of.

>>> from store.memory import MemoryCas
>>> cas = MemoryCas()
>>> kept, lost = cas.put(b"kept"), cas.put(b"lost")
>>> [(digest == lost, size) for digest, size in garbage(cas, [kept])]
[(True, 4)]
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from store import tree
from store.cas import ManagedCas, Range
from store.digest import Digest
from store.errors import ChangedError, CorruptError, DigestError, NotFoundError, StoreError
from store.local import LocalCas

if TYPE_CHECKING:
    from concurrent.futures import Future

Kind = Literal["damaged", "changed", "missing", "misnamed", "stray"]
"""damaged: its bytes do not hash to its name. changed: the same, because a file that was imported by reference was written to.
missing: something that is here, or a root, needs it. misnamed: a file where only objects belong. stray: left by a process that died."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault of a store.

    Attributes:
        digest: the object; None for a misnamed or stray file.
        path: the file, if there is one.
        text: what is wrong and what to do, for people.
        dependents: objects of this store that need the object: splices, trees, and trees that hold such splices.
    """

    kind: Kind
    digest: Digest | None
    path: Path | None
    text: str
    dependents: tuple[Digest, ...] = ()


def check(
    cas: LocalCas, *, jobs: int = 0, full: bool = False, roots: Iterable[Digest] = (), progress: tree.Progress | None = None
) -> Iterator[Finding]:
    """Every fault of a store, as it is found.

    Args:
        cas: the store; it is not changed.
        jobs: objects hashed at once; 0 stands for one per core.
        full: hash everything; otherwise what is known by its stat is not read again.
        roots: objects that must be here, with all that they need.
        progress: called with bytes done and bytes in all, after each object.
    """
    # Here, because it loads logging, and most users of this module want to know what is reachable.
    from concurrent.futures import ThreadPoolExecutor

    total, done = _stored_size(cas), 0
    dependents = _Dependents(cas)
    bad: set[Digest] = set()
    yield from _strays(cas)
    with ThreadPoolExecutor(jobs or len(os.sched_getaffinity(0))) as pool:
        # Splices after all blobs, so that a splice of a damaged blob is named with it, once.
        for area in ("objects", "splices"):
            waiting: list[tuple[Digest, Future[StoreError | None]]] = []
            for path, digest in _files(cas, area):
                if digest is None:
                    yield Finding("misnamed", None, path, f"{path} is not the name of an object; move it away")
                elif area == "objects" or not bad.intersection(_sources(cas, digest)):
                    waiting.append((digest, pool.submit(_check_one, cas, area, digest, full)))
            for digest, future in waiting:
                error = future.result()
                if progress is not None:
                    done += _size(cas, digest)
                    progress(done, total)
                if error is None:
                    continue
                if isinstance(error, NotFoundError):
                    # Of a splice's source, or of an object that somebody has just deleted.
                    missing = Digest.parse(error.digest)
                    if area == "splices" and missing != digest and missing not in bad:
                        bad.add(missing)
                        yield Finding("missing", missing, None, f"{missing} is gone, and a splice is made of it", dependents.of(missing))
                    continue
                bad.add(digest)
                kind: Kind = "changed" if isinstance(error, ChangedError) else "damaged"
                path = cas.blob_file(digest) if area == "objects" else cas.recipe_file(digest)
                yield Finding(kind, digest, path, str(error), dependents.of(digest))
    for digest in sorted(_closure(cas, roots, skip_damaged=True)):
        if digest not in bad and not cas.has(digest):
            yield Finding("missing", digest, None, str(NotFoundError(digest)), dependents.of(digest))


def _check_one(cas: LocalCas, area: str, digest: Digest, full: bool) -> StoreError | None:
    try:
        cas.check(digest, splice=area == "splices", full=full)
    except (CorruptError, NotFoundError) as error:
        return error
    return None


def _sources(cas: LocalCas, digest: Digest) -> set[Digest]:
    try:
        return {part.digest for part in cas.parts(digest) if isinstance(part, Range)}
    except StoreError:
        # The check of the splice itself reports this.
        return set()


def _files(cas: LocalCas, area: str) -> Iterator[tuple[Path, Digest | None]]:
    """Every file of an area, with the digest that its name means, if it means one."""
    top = cas.root / area
    if not top.is_dir():
        return
    for first in sorted(top.iterdir()):
        for path in sorted(first.iterdir()) if first.is_dir() and not first.is_symlink() else [first]:
            try:
                digest = Digest(f"sha256:{first.name}{path.name}") if path is not first and len(first.name) == 2 else None
            except DigestError:
                digest = None
            yield path, digest if path.is_file() and not path.is_symlink() else None


def _size(cas: LocalCas, digest: Digest) -> int:
    try:
        return cas.size(digest)
    except (NotFoundError, CorruptError):
        return 0


def _stored_size(cas: LocalCas) -> int:
    return sum(_size(cas, digest) for digest in cas.list())


def _strays(cas: LocalCas) -> Iterator[Finding]:
    for path in cas.leftovers():
        yield Finding("stray", None, path, f"{path} was left by a process that died; the next run removes it")


class _Dependents:
    """Who needs which object. Reading every tree and recipe costs, so it is done when the first fault is found."""

    def __init__(self, cas: LocalCas) -> None:
        self._cas = cas
        self._needed_by: dict[Digest, set[Digest]] | None = None

    def of(self, digest: Digest) -> tuple[Digest, ...]:
        if self._needed_by is None:
            self._needed_by = {}
            for other in self._cas.list():
                for needed in _needs(self._cas, other, sniff=True, skip_damaged=True):
                    self._needed_by.setdefault(needed, set()).add(other)
        found: set[Digest] = set()
        waiting = [digest]
        while waiting:
            for other in self._needed_by.get(waiting.pop(), set()) - found:
                found.add(other)
                waiting.append(other)
        return tuple(sorted(found))


def _needs(cas: ManagedCas, digest: Digest, *, sniff: bool, skip_damaged: bool) -> Iterator[Digest]:
    """What an object is made of; with `sniff`, also the files of an object that is a tree."""
    try:
        yield from {part.digest for part in cas.parts(digest) if isinstance(part, Range)}
        content = tree.load_if_tree(cas, digest) if sniff else None
    except NotFoundError:
        # Nothing can be said of what is not here.
        return
    except CorruptError:
        if skip_damaged:
            return
        raise
    yield from (entry.digest for entry in content.entries) if content is not None else ()


def _closure(cas: ManagedCas, roots: Iterable[Digest], *, skip_damaged: bool) -> set[Digest]:
    found = set(roots)
    for digest in tuple(found):
        found.update(_needs(cas, digest, sniff=True, skip_damaged=skip_damaged))
    for digest in tuple(found):
        found.update(_needs(cas, digest, sniff=False, skip_damaged=skip_damaged))
    return found


def reachable(cas: ManagedCas, roots: Iterable[Digest]) -> set[Digest]:
    """The roots, the files of those that are trees, and the blobs of those that are splices; whether or not they are here.

    The files of a tree are files: one whose bytes look like a tree is not followed.

    Raises:
        CorruptError: a root is damaged, so nobody can tell what it reaches; nothing must be deleted before that is settled.
    """
    return _closure(cas, roots, skip_damaged=False)


def garbage(cas: ManagedCas, roots: Iterable[Digest]) -> Sequence[tuple[Digest, int]]:
    """What no root reaches, with the bytes that deleting it would free; splices first, so that deleting in this order strands none.

    Delete inside `LocalCas.exclusive`, with roots that were listed inside it: an object that is just being made has no root yet.
    """
    kept = reachable(cas, roots)
    lost = sorted(digest for digest in cas.list() if digest not in kept)
    return [(digest, cas.stored_bytes(digest)) for digest in sorted(lost, key=lambda digest: not cas.is_splice(digest))]

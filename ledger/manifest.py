"""The files of a publication as its alloy lists them: `results.integrity.fileHashes`, and an inventory compared with it.

An alloy says such things about itself. They count once somebody trusted signed the alloy's bytes (a release), or once the reader told
beforehand which bytes he expects; `ledger.claims` decides that.

Format: docs/formats/alloy.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ledger.errors import ProofError
from ledger.hub import lfs_pointer_oid
from ledger.inventory import Inventory, Unread, some
from ledger.report import Row, printable
from store.digest import Digest
from store.errors import StoreError
from store.tree import check_names

_OID, _XET = re.compile(r"[0-9a-f]{40}\Z"), re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True)
class Listed:
    """One file as an alloy lists it.

    Attributes:
        path: in the repository. size: in bytes; None in older alloys.
        oid: git's id of the blob, or of the pointer of a file in LFS; None where it was not known.
        xet: the Xet hash; None likewise.
    """

    path: str
    digest: Digest
    size: int | None = None
    oid: str | None = None
    xet: str | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """An inventory beside a manifest: the findings, the paths that are as listed, and those that are not."""

    rows: tuple[Row, ...]
    equal: frozenset[str]
    differing: frozenset[str]


def parse(value: Any) -> dict[str, Listed]:
    """Path -> what `fileHashes` says of it; unknown keys of an item are passed over.

    Raises:
        ProofError: an item has another form, or a name is no path of a file, or two names are the same file somewhere.
    """
    found: dict[str, Listed] = {}
    if not isinstance(value, list):
        raise ProofError("fileHashes is no list")
    for item in value:
        try:
            path, size, oid, xet = item["filename"], item.get("size"), item.get("gitOid"), item.get("xetHash")
            digest = Digest.parse(f"sha256:{item['sha256']}")
        except (KeyError, TypeError, AttributeError, StoreError) as error:
            raise ProofError(f"fileHashes holds {printable(str(item))}, which is no file with its sha256") from error
        fits = isinstance(path, str) and (size is None or (type(size) is int and size >= 0))
        if not fits or not _is(oid, _OID) or not _is(xet, _XET) or path in found:
            raise ProofError(f"fileHashes holds {printable(str(item))}, which is not of its form, or there twice")
        found[path] = Listed(path, digest, size, oid, xet)
    try:
        check_names(list(found))
    except StoreError as error:
        raise ProofError(f"fileHashes: {error}") from error
    return found


def compare(manifest: Mapping[str, Listed], present: Inventory, alloy: str) -> Comparison:
    """Look for every listed file; `alloy` is the name of the list, for messages."""
    here = {file.path: file for file in present.files}
    unread = {file.path: file for file in present.unread}
    rows: list[Row] = []
    equal, differing, missing, dark = set[str](), set[str](), list[str](), list[str]()
    for path, listed in sorted(manifest.items()):
        file = here.get(path)
        if file is not None and (file.digest != listed.digest or listed.size not in (None, file.size)):
            differing.add(path)
            size = "" if listed.size is None else f"{listed.size:,} bytes, "
            text = f"{path} is not what {alloy} lists: expected {size}{listed.digest}; got {file.size:,} bytes, {file.digest}{present.how}"
            rows.append(Row("failed", text, "It was replaced since; take the file from where it is as listed"))
        elif file is not None:
            equal.add(path)
        elif path not in unread:
            missing.append(path)
        elif listed.size not in (None, unread[path].size) or not _may_be(listed, unread[path]):
            differing.add(path)
            expected, got = f"{listed.size} bytes, git id {listed.oid}", f"{unread[path].size:,} bytes, git id {unread[path].oid}"
            text = f"{path} is not what {alloy} lists: expected {expected}; got {got}{present.how}"
            rows.append(Row("failed", text, "It was replaced since; take the file from where it is as listed"))
        else:
            dark.append(path)
    if equal:
        text = f"{len(equal)} of {len(manifest)} files in the list of {alloy} are here with their SHA-256 and size{present.how}"
        if git := sorted(equal & present.by_git):
            text += (
                f"; of {len(git)} of them ({some(git, 3)}) by git's id, a SHA-1, of which only the maker of both files could make two alike"
            )
        rows.append(Row("proven", text))
    if missing and present.complete:
        text = f"{some(missing)}: listed by {alloy}, and not there"
        rows.append(Row("failed", text, "It was deleted or renamed since; what is missing may matter to what is loaded"))
    elif missing:
        rows.append(Row("unverified", f"{len(missing)} files that {alloy} lists are not here: {some(missing, 3)}"))
    if dark:
        text = f"{some(dark)}: of the size that {alloy} lists; of the content only a git id is listed, and {alloy} gives none to compare"
        rows.append(Row("unverified", text, "--full reads the files"))
    return Comparison(tuple(rows), frozenset(equal), frozenset(differing))


def _may_be(listed: Listed, file: Unread) -> bool:
    """Whether a file of which only a git id is known can be the listed one; an id of a pointer says nothing of a file that has none."""
    pointer = listed.size is not None and listed.oid == lfs_pointer_oid(listed.digest, listed.size)
    return listed.oid in (None, file.oid) or pointer


def _is(value: Any, form: re.Pattern[str]) -> bool:
    return value is None or (isinstance(value, str) and form.match(value) is not None)

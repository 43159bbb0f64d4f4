"""What a Hub may answer: which listings are believed, and whose the hashes are."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ledger import hub as module
from ledger.errors import HubError
from ledger.hub import Listing, git_blob_oid, is_commit, lfs_pointer, lfs_pointer_oid
from store.digest import Digest

REPO = "acme/tiny"


def answer(**changes: Any) -> dict[str, Any]:
    value: dict[str, Any] = {"id": REPO, "sha": "a" * 40, "siblings": [], "createdAt": "2027-01-15T08:00:01.000Z", "private": False}
    return {**value, **changes}


HOSTILE = ("../x", "/etc/x", "a//b", "a\\b", "CON", "a\n", "")


def file(**changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"rfilename": "x.gguf", "size": 5, "blobId": "b" * 40, "lfs": {"sha256": "c" * 64, "size": 5, "pointerSize": 134}}
    return {**row, **changes}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "lists no files"),
        (answer(siblings={}), "lists no files"),
        (answer(sha="main"), "which is no commit"),
        (answer(sha=None), "which is no commit"),
        (answer(sha="A" * 40), "which is no commit"),
        (answer(id="evil/tiny"), "the Hub answers for 'evil/tiny'"),
        (answer(siblings=[file(rfilename=None)]), "something without a name"),
        (answer(siblings=["x"]), "something without a name"),
        (answer(siblings=[file(size=-1, lfs=None)]), "the size -1"),
        (answer(siblings=[file(size=5.0, lfs=None)]), r"the size 5\.0"),
        (answer(siblings=[file(size=True, lfs=None)]), "the size True"),
        (answer(siblings=[file(size=2**60, lfs=None)]), "the size 1152"),
        (answer(siblings=[file(size=None, lfs=None)]), "the size None"),
        (answer(siblings=[file(size=6)]), "two sizes"),
        (answer(siblings=[file(blobId="B" * 40)]), "which is none"),
        (answer(siblings=[file(blobId=None)]), "which is none"),
        (answer(siblings=[file(lfs={"sha256": "c" * 63, "size": 5})]), "the SHA-256 'c"),
        (answer(siblings=[file(lfs={"sha256": "c" * 64 + "\n", "size": 5})]), "the SHA-256 'c"),
        (answer(siblings=[file(lfs="c" * 64)]), "the SHA-256 None"),
        (answer(siblings=[file(), file()]), "it is given twice"),
        *((answer(siblings=[file(rfilename=name)]), "must not become paths") for name in HOSTILE),
        (answer(siblings=[file(), file(rfilename="X.gguf")]), "the same file"),
    ],
)
def test_a_listing_that_cannot_be_used_is_refused(value: Any, words: str) -> None:
    """Every field of an answer is checked before anything is done with it, and the message says which."""
    with pytest.raises(HubError, match=words):
        Listing.parse(REPO, value)


def test_too_many_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """More files than a tree may have are refused."""
    monkeypatch.setattr(module, "MAX_FILES", 3)
    with pytest.raises(HubError, match="lists 4 files; at most 3"):
        Listing.parse(REPO, answer(siblings=[file(rfilename=f"{number}") for number in range(4)]))


@pytest.mark.parametrize("created", [None, 5, "x" * 50, "2027\x1b[31m", "\u202e2027"])
def test_a_date_that_is_none_is_left_out(created: Any) -> None:
    """What is only shown is shown clean, or not."""
    assert Listing.parse(REPO, answer(createdAt=created, _id="../")) == Listing(REPO, "a" * 40, (), "", False)


# --- hashes --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"hello\n", b"\0" * 1000])
def test_git_ids_are_git_s(content: bytes, tmp_path: Path) -> None:
    """What the Hub lists for small files is what plain git says, and for large ones git's id of the pointer."""

    def git(data: bytes) -> str:
        return subprocess.run(["git", "hash-object", "--stdin"], input=data, capture_output=True, check=True).stdout.decode().strip()

    assert git_blob_oid(content) == git(content)
    digest = Digest.of(content)
    assert lfs_pointer_oid(digest, len(content)) == git(lfs_pointer(digest, len(content)))


@pytest.mark.parametrize("text", [None, "main", "a" * 39, "A" * 40, "g" * 40, hashlib.sha256(b"").hexdigest()])
def test_only_forty_digits_are_a_commit(text: str | None) -> None:
    """Branches, tags, prefixes and other hashes may mean something else tomorrow."""
    assert not is_commit(text)
    assert is_commit("a" * 40)

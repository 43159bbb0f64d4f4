"""ledger.manifest and ledger.inventory: an alloy's list of files, and an inventory compared with it."""

from __future__ import annotations

from typing import Any

import pytest

from ledger.errors import ProofError
from ledger.hub import git_blob_oid, lfs_pointer_oid
from ledger.inventory import Inventory, Unread, risky
from ledger.manifest import Listed, compare, parse
from store.digest import Digest
from store.tree import TreeEntry

A, B = Digest.of(b"a"), Digest.of(b"b")
OID = git_blob_oid(b"a")


def item(**changes: Any) -> dict[str, Any]:
    return {"filename": "config.json", "sha256": A.hex, "size": 1, "gitOid": OID, "xetHash": "0" * 64} | changes


def test_a_list_is_read_with_and_without_what_newer_alloys_say() -> None:
    """Sizes, git ids and Xet hashes are optional; further keys are passed over."""
    assert parse([item(note=1)]) == {"config.json": Listed("config.json", A, 1, OID, "0" * 64)}
    assert parse([{"filename": "a", "sha256": A.hex}]) == {"a": Listed("a", A)}
    assert parse([]) == {}


@pytest.mark.parametrize(
    "value",
    [
        {},
        7,
        [7],
        [{}],
        [item(filename=7)],
        [item(sha256="x")],
        [item(sha256=f"sha256:{A.hex}")],
        [item(size=-1)],
        [item(size=True)],
        [item(size="1")],
        [item(gitOid="x")],
        [item(gitOid=7)],
        [item(xetHash="X" * 64)],
        [item(), item()],
        [item(), item(filename="Config.json")],
        [item(filename="../x")],
    ],
)
def test_a_list_of_another_form_is_refused(value: Any) -> None:
    """Two readers could read it differently."""
    with pytest.raises(ProofError, match="fileHashes"):
        parse(value)


def statuses(present: Inventory, *listed: Listed) -> list[str]:
    return [row.status for row in compare({one.path: one for one in listed}, present, "the list").rows]


def test_every_file_is_equal_differs_is_missing_or_cannot_be_told() -> None:
    """A file that is not there fails only where it would have to be; of a git id that may be another file's nothing is concluded."""
    one = Listed("x", A, 1, OID)
    here = TreeEntry("x", A, 1)
    assert statuses(Inventory([here]), one) == ["proven"]
    assert statuses(Inventory([TreeEntry("x", B, 1)]), one) == ["failed"]
    assert statuses(Inventory([TreeEntry("x", A, 2)]), one) == ["failed"]
    assert statuses(Inventory([]), one) == ["unverified"]
    assert statuses(Inventory([], complete=True), one) == ["failed"]
    assert statuses(Inventory([], [Unread("x", 2, OID)]), one) == ["failed"]
    assert statuses(Inventory([], [Unread("x", 1, git_blob_oid(b"b"))]), one) == ["failed"]
    assert statuses(Inventory([], [Unread("x", 1, git_blob_oid(b"b"))]), Listed("x", A, 1)) == ["unverified"]
    pointer = Listed("x", A, 1, lfs_pointer_oid(A, 1))
    assert statuses(Inventory([], [Unread("x", 1, git_blob_oid(b"b"))]), pointer) == ["unverified"]


def test_what_is_known_by_git_alone_is_named() -> None:
    """SHA-1 is not taken for more than it is."""
    (row,) = compare({"x": Listed("x", A, 1, OID)}, Inventory([TreeEntry("x", A, 1)], by_git=frozenset({"x"})), "the list").rows
    assert "of 1 of them (x) by git's id, a SHA-1" in row.text


def test_a_file_is_a_risk_by_its_name_and_by_what_lies_beside_it() -> None:
    """Weights always, code beside weights, all but documents beside weights that are no GGUF."""
    paths = ["m/a.safetensors", "m/code.py", "m/config.json", "m/README.md", "g/b.gguf", "g/c.json", "g/d.py", "e/f.py"]
    assert risky(paths, paths) == ["m/a.safetensors", "m/code.py", "m/config.json", "g/b.gguf", "g/d.py"]

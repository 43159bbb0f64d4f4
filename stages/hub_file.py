"""One file of a Hub repository, into the store: the unit of resume of an import.

Purity P: the spec names the content, by SHA-256 for a file in LFS or Xet and else by git's blob id, and bytes that do not hash to it are
deleted and refused. Where they come from (the address of the Hub, a cache before it, bytes that the store has already) changes nothing.

An interrupted download is kept in `.ledger/unfinished` and continued by whoever does the same action next, in this process or another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ledger.hf_hub import HfHub
from ledger.hub import HubFile
from stages.errors import InputError
from stages.stage import Context, Leaf, Outcome
from store.digest import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedFile:
    """Which file: where it is listed, and as what."""

    repo: str
    commit: str
    path: str
    size: int
    """Bytes."""
    oid: str
    """Git's id of the blob: of its pointer for a file in LFS or Xet."""
    sha256: str | None = None
    """64 hex digits, for a file in LFS or Xet."""


STAGE = Leaf(
    name="hub-file",
    version=1,
    spec=FetchedFile,
    inputs=(),
    outputs=("file",),
    purity="P",
    run="stages.hub_file:run",
    network=True,
)


def run(spec: FetchedFile, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Download it, unless the store has these very bytes."""
    expected = None if spec.sha256 is None else Digest(f"sha256:{spec.sha256}")
    if expected is not None and context.store.has(expected):
        context.note("downloaded_bytes", 0)
        return Outcome({"file": expected})
    hub = HfHub()
    # Named by the action's own fields: its lease keeps everybody else from this place.
    place = context.unfinished(Digest.of(f"{spec.repo}@{spec.commit}/{spec.path}".encode()).hex)
    before = place.stat().st_size if place.exists() else 0
    file = HubFile(spec.path, spec.size, spec.oid, expected)
    found = hub.fetch(spec.repo, spec.commit, file, place, lambda done, total: context.progress(done, total, "bytes"))
    if context.store.take(place) != found:
        raise InputError(f"{spec.path}: its bytes changed between the download and the store; does something else write {place}?")
    context.note("endpoint", hub.endpoint)
    context.note("downloaded_bytes", spec.size - before if before <= spec.size else spec.size)
    return Outcome({"file": found})

"""What a repository of the Hub holds at one commit: names, sizes and hashes, and what tells the repository from a later one of its name.

The listing is the first action of an import from the Hub; every file that is downloaded is checked against it.

Purity P: a commit's id is git's hash over all names, all small files and the SHA-256 of all large ones, so a listing of one commit is the
same anywhere. Two things are the Hub's word and no hash's: when the repository was made, and the SHA-256 of a large file where it differs
from git's own pointer, which is refused here. A repository that is made again under its name and given the same commit has another
`created` or `identity`: a rerun contradicts the recorded listing then, and is meant to. Git's hash is SHA-1: whoever writes to a repository
could make two small files of one id; what was downloaded is bound by its SHA-256 from `hub-file` on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ledger.errors import HubError
from ledger.hf_hub import HfHub
from ledger.hub import Listing, is_commit
from stages.errors import InputError
from stages.stage import Context, Leaf, Outcome
from store import canonical
from store.digest import Digest
from store.errors import CanonicalError

TYPE = "hub-listing/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class HubListing:
    """Which commit is listed."""

    repo: str
    """`org/name`."""
    commit: str
    """40 hex digits: a branch was resolved before."""


STAGE = Leaf(
    name="hub-listing",
    version=1,
    spec=HubListing,
    inputs=("repository",),
    outputs=("listing",),
    purity="P",
    run="stages.hub_listing:run",
    network=True,
)


def repository(repo: str) -> bytes:
    """The object that stands for a repository: its locator. Whatever was listed of it is found by this input."""
    return f"hf:{repo}\n".encode()


def to_bytes(listing: Listing) -> bytes:
    """A listing as canonical JSON."""
    files: list[dict[str, Any]] = []
    for file in listing.files:
        hashed = {} if file.sha256 is None else {"sha256": file.sha256.hex}
        files.append({"path": file.path, "size": file.size, "oid": file.oid, **hashed})
    facts = {"repo": listing.repo, "commit": listing.commit, "created": listing.created, "identity": listing.identity}
    return canonical.dumps({"type": TYPE, **facts, "files": files})


def parse(data: bytes) -> Listing:
    """Read back what `to_bytes` gave.

    Raises:
        InputError: it is anything else.
    """
    try:
        value = canonical.loads(data)
        siblings = [
            {"rfilename": item["path"], "size": item["size"], "blobId": item["oid"], "lfs": item if "sha256" in item else None}
            for item in value["files"]
        ]
        answer = {"id": value["repo"], "sha": value["commit"], "createdAt": value["created"], "_id": value["identity"]}
        listing = Listing.parse(value["repo"], {**answer, "siblings": siblings})
        if to_bytes(listing) == data:
            return listing
    except (CanonicalError, HubError, KeyError, TypeError) as error:
        raise InputError(f"not a listing of a Hub repository: {error!r}") from error
    raise InputError(f"not a listing of a Hub repository: its bytes are not canonical JSON of {TYPE}")


def run(spec: HubListing, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Ask the Hub once."""
    if not is_commit(spec.commit):
        raise InputError(f"commit {spec.commit!r} of {spec.repo} must be 40 lowercase hex digits")
    if context.store.read(inputs["repository"]) != repository(spec.repo):
        raise InputError(f"the input repository of {spec.repo} is of another one")
    hub = HfHub()
    listing = hub.listing(spec.repo, spec.commit)
    contradicted = [file.path for file in listing.files if not file.pointer_agrees]
    if contradicted:
        raise InputError(
            f"{spec.repo} at {spec.commit}: the Hub contradicts itself about {', '.join(contradicted[:5])}"
            f"{' and more' if contradicted[5:] else ''}: the SHA-256 in its listing is not the one in git's pointer. Nothing was downloaded"
        )
    context.note("endpoint", hub.endpoint)
    context.note("files_listed", len(listing.files))
    return Outcome({"listing": context.store.put(to_bytes(listing))})

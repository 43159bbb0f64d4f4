"""The files of an ensemble, in a folder or in a repository of the Hub: every member's are hashed before anything is made of them.

No library of models is loaded here, and no file of an ensemble is run. A member is taken when its files are, together, the tree that
`config.json` names, whether they lie in the folder, in the ensemble's own repository, or in a repository of the member's own at a commit.
What comes from the Hub is kept in a cache by that digest, and hashed again whenever it is used.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ledger.hf_hub import HfHub
from ledger.hub import HubFile, Listing
from stages import ensemble_tree, hub_model
from stages.ensemble_tree import CONFIG, FOLDER, EnsembleConfig, Member
from stages.errors import InputError
from store import files
from store.digest import Digest
from store.errors import PathError, StoreError, TreeError
from store.tree import Tree, TreeEntry

MAX_CONFIG_BYTES = 1 << 20


@dataclass(frozen=True)
class Source:
    """An ensemble whose members are known to be those that it names.

    Attributes:
        folders: of each member, in order; they hold the files of its tree and no others.
    """

    config: EnsembleConfig
    folders: tuple[Path, ...]


def cache_folder(given: str | os.PathLike[str] | None = None) -> Path:
    """Where members from the Hub are kept: `alloy-ledger/members` in the given folder, else in $HF_HOME, else in ~/.cache/huggingface."""
    home = given or os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    return Path(home) / "alloy-ledger" / "members"


def from_folder(folder: Path, cache: Path, hub: HfHub) -> Source:
    """The ensemble of a folder. Beside `members/` others may have put files (a README, say), which are not read.

    Raises:
        InputError: no ensemble, or one that was changed: a member whose files are not those of its digest, a file for transformers that is
            another than it was made with. All of them are told.
        HubError: a member that lies on the Hub cannot be fetched.
    """
    try:
        config = EnsembleConfig.parse(files.read_small(folder / CONFIG, MAX_CONFIG_BYTES))
    except (OSError, StoreError) as error:
        raise InputError(f"{folder}: not the folder of an ensemble: {error}") from error
    here = [member for member in config.members if member.repo is None]
    faults = ensemble_tree.shipped_faults(
        {name: files.hash_file((folder / name).resolve())[0] for name in ensemble_tree.shipped() if (folder / name).is_file()}
    )
    for member in here:
        found = digest_of(folder / FOLDER / member.name)
        if found != member.digest:
            faults.append(f"member {member.name}: its files are {found.short if found else 'missing'}, expected {member.digest.short}")
    known = {member.name for member in here}
    if (folder / FOLDER).is_dir():
        faults += [f"{FOLDER}{item.name}: of no member" for item in sorted((folder / FOLDER).iterdir()) if item.name not in known]
    if faults:
        raise InputError(f"{folder}: " + "; ".join(faults) + ". It was changed after it was made: take the original")
    places = [
        folder / FOLDER / member.name if member.repo is None else _from_own_repository(member, cache, hub) for member in config.members
    ]
    return Source(config, tuple(places))


def from_hub(repo: str, revision: str | None, cache: Path, hub: HfHub) -> Source:
    """The ensemble of a repository at a revision, which is resolved to one commit; of its files only the members' are fetched.

    Raises:
        InputError: as `from_folder`.
        HubError: there is no such repository, or its bytes are not those that it lists.
    """
    listing = hub.listing(repo, revision)
    config = EnsembleConfig.parse(hub.read(repo, listing.commit, CONFIG, limit=MAX_CONFIG_BYTES))
    places = []
    for member in config.members:
        if member.repo is not None:
            places.append(_from_own_repository(member, cache, hub))
            continue
        start = ensemble_tree.folder(member.name)
        chosen = {file.path.removeprefix(start): file for file in listing.files if file.path.startswith(start)}
        places.append(_cached(member, cache, hub, listing, chosen))
    return Source(config, tuple(places))


def digest_of(folder: Path) -> Digest | None:
    """The digest of a folder's files as a tree; None where there is none. Links are followed: what is hashed is what is read there.

    Raises:
        PathError, TreeError: names that no tree has. UnstableError: a file changed meanwhile.
    """
    if not folder.is_dir():
        return None
    paths = sorted(path for path in folder.rglob("*") if not path.is_dir())
    if not all(path.is_file() for path in paths):
        raise PathError(f"{folder} has something that is no file", (str(folder),))
    return Tree.of(TreeEntry(path.relative_to(folder).as_posix(), *files.hash_file(path.resolve())) for path in paths).digest


def _from_own_repository(member: Member, cache: Path, hub: HfHub) -> Path:
    """A member whose files are in a repository of its own: those that `import-model` would take of it."""
    assert member.repo is not None
    found = _in_cache(member, cache)
    if found is not None:
        return found
    listing = hub.listing(member.repo, member.commit)
    paths = hub_model.choose(member.repo, [file.path for file in listing.files], allow_code=False)
    return _cached(member, cache, hub, listing, {path: listing.file(path) for path in paths})


def _in_cache(member: Member, cache: Path) -> Path | None:
    """A member's folder, where it was fetched before and is as it was then."""
    place = cache / member.digest.hex
    return place if digest_of(place) == member.digest else None


def _cached(member: Member, cache: Path, hub: HfHub, listing: Listing, chosen: Mapping[str, HubFile]) -> Path:
    """Fetch a member unless it is here; it gets its name in the cache when all its bytes are known to be right."""
    with _lock(cache, member):
        found = _in_cache(member, cache)
        if found is not None:
            return found
        place, aside = cache / member.digest.hex, cache / f"{member.digest.hex}.partial"
        entries = []
        for path, file in sorted(chosen.items()):
            digest = hub.fetch(listing.repo, listing.commit, file, aside / path)
            entries.append(TreeEntry(path, digest, file.size))
        try:
            got = Tree.of(entries).digest
        except (PathError, TreeError) as error:
            raise InputError(f"member {member.name}: {listing.repo} at {listing.commit}: {error}") from error
        if got != member.digest or digest_of(aside) != got:
            shutil.rmtree(aside, ignore_errors=True)
            raise InputError(
                f"member {member.name}: {listing.repo} at {listing.commit} has {got.short if entries else 'no files of it'}, expected "
                f"{member.digest.short}: it is another model than the ensemble was made of. Nothing of it was loaded, and it was deleted"
            )
        if place.exists():
            shutil.rmtree(place)  # somebody changed it
        aside.rename(place)
        return place


@contextmanager
def _lock(cache: Path, member: Member) -> Iterator[None]:
    """One process at a time fetches a member."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{member.digest.hex}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

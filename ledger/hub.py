"""The role of a Hub, and what it speaks of: repositories, commits, files with their hashes, listings.

Nothing that a Hub answers is believed beyond what is checked here: names are as a tree's (`store.tree.check_names`), hashes have the
form of hashes, sizes are exact. `ledger.hf_hub` asks a real one.

Reading costs exactly the requests that each method states, so that an audit can say what it cost; `requests` and `weight_bytes` count.

>>> git_blob_oid(b"hello\\n")
'ce013625030ba8dba906f756967f9e9ca394464a'
>>> lfs_pointer_oid(Digest.of(b""), 0)
'fc8e42b32efb9a9bf3ae0234a18a948e499490f8'
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ledger.errors import HubError, HubNotFoundError
from ledger.locator import is_repository
from store.digest import Digest
from store.errors import PathError, TreeError
from store.tree import MAX_ENTRIES, check_names

MAX_FILES = MAX_ENTRIES
"""A repository with more files is refused; the Hub itself advises against 100,000."""

_COMMIT = re.compile(r"[0-9a-f]{40}\Z")
_HEX64 = re.compile(r"[0-9a-f]{64}\Z")

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file as the Hub lists it.

    Attributes:
        path: as in a tree: relative, no `..`.
        oid: git's id of the blob, 40 hex digits; for a file in LFS or Xet, of its pointer.
        sha256: of the content, only for files in LFS or Xet. The uploader declared it; nobody checked it before `fetch`.
        xet: the Xet hash, where it was asked for (`Hub.xet`).
    """

    path: str
    size: int
    oid: str
    sha256: Digest | None
    xet: str | None = None

    @property
    def pointer_agrees(self) -> bool:
        """Whether the listed SHA-256 is the one in git's own object: False where the Hub's two answers contradict each other.

        True for a file that has no pointer. The commit's hash covers the pointer, so a change of the SHA-256 alone is seen here.
        """
        return self.sha256 is None or self.oid == lfs_pointer_oid(self.sha256, self.size)


@dataclass(frozen=True, slots=True)
class Listing:
    """What a repository holds at one commit.

    Attributes:
        commit: 40 hex digits; a branch was resolved to it by the same answer that lists the files.
        files: sorted by path.
        created: when the repository was made (ISO 8601), empty if the Hub does not say. identity: the Hub's own id of it, or empty.
            A repository that was deleted and made again under the same name differs in both.
    """

    repo: str
    commit: str
    files: tuple[HubFile, ...]
    created: str
    private: bool
    identity: str = ""

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)

    @classmethod
    def parse(cls, repo: str, value: Any) -> Listing:
        """Check what a Hub answered about a repository.

        Raises:
            HubError: something in it is not what it must be.
            HubNotFoundError: it is of another repository.
        """
        if not isinstance(value, dict) or not isinstance(value.get("siblings"), list):
            raise HubError(f"{repo}: the Hub's answer lists no files")
        name, commit, siblings = value.get("id"), value.get("sha"), value["siblings"]
        if name != repo:
            raise HubNotFoundError(
                f"{repo}: the Hub answers for {name!r:.200}: the repository was renamed or moved, or somebody else's. "
                "Name that one if it is what you mean"
            )
        if not isinstance(commit, str) or not _COMMIT.match(commit):
            raise HubError(f"{repo}: the Hub says it is at commit {commit!r:.100}, which is no commit")
        if len(siblings) > MAX_FILES:
            raise HubError(f"{repo}: the Hub lists {len(siblings):,} files; at most {MAX_FILES:,} are taken")
        files = tuple(sorted((_file(repo, item) for item in siblings), key=lambda file: file.path))
        try:
            check_names([file.path for file in files])
        except (PathError, TreeError) as error:
            raise HubError(f"{repo}: the Hub lists names that must not become paths:\n{error}") from error
        created, identity = value.get("createdAt"), value.get("_id")
        return cls(
            repo,
            commit,
            files,
            created=created if isinstance(created, str) and len(created) <= 40 and created.isascii() and created.isprintable() else "",
            private=value.get("private") is True,
            identity=identity if isinstance(identity, str) and re.fullmatch(r"[0-9a-f]{1,64}", identity) else "",
        )

    def file(self, path: str) -> HubFile:
        """The file of that path.

        Raises:
            HubNotFoundError: none is listed.
        """
        for file in self.files:
            if file.path == path:
                return file
        raise HubNotFoundError(f"{self.repo} has no {path} at commit {self.commit}")


class Hub(Protocol):
    """A place that models are published at. `HfHub` talks to the real one, and to any server that speaks like it."""

    requests: int
    """HTTP requests made for reading, redirects and second attempts included."""
    weight_bytes: int
    """Bytes received of files that hold weights."""

    def listing(self, repo: str, revision: str | None = None) -> Listing:
        """What a repository holds at a revision (a branch, a tag, a commit; None: `main`). One request.

        Raises:
            HubNotFoundError: no such repository or revision, or the Hub answers for a repository of another name.
            HubMismatchError: a commit was asked for and another one was answered.
            HubError: the answer is none that can be used, or does not end. HubUnreachableError: there is none.
        """
        ...

    def xet(self, repo: str, commit: str, paths: Sequence[str]) -> Mapping[str, str]:
        """Path -> Xet hash of those that have one. One request for every thousand paths.

        Raises:
            HubNotFoundError: a path is not there. HubError, HubUnreachableError: as above.
        """
        ...

    def read(self, repo: str, commit: str, path: str, *, limit: int) -> bytes:
        """A small file, unchecked: compare it with its listing. One request.

        Raises:
            HubError: it has more than `limit` bytes. HubNotFoundError, HubMismatchError, HubUnreachableError: as above.
        """
        ...

    def read_range(self, repo: str, commit: str, path: str, start: int, length: int) -> bytes:
        """`length` bytes of a file from byte `start`, unchecked. One request.

        Raises:
            HubError: the Hub gives other bytes than these. HubNotFoundError, HubMismatchError, HubUnreachableError: as above.
        """
        ...

    def fetch(self, repo: str, commit: str, file: HubFile, into: Path, progress: Progress | None = None) -> Digest:
        """Download a listed file; every byte is hashed. What `into` holds already is kept, hashed first, and continued.

        Raises:
            HubMismatchError: other bytes than listed; `into` is deleted.
            HubUnreachableError: it was cut off; `into` keeps what arrived. HubError, HubNotFoundError: as above.
            UnwritableError: the disk is full, or may not be written.
        """
        ...

    def exists(self, repo: str) -> bool:
        """Whether there is such a repository for this token. One request."""
        ...

    def refusal(self, repo: str) -> str:
        """Why the token may not write to a repository, as far as the Hub says so beforehand; "" when nothing speaks against it.

        One request; none without a token.

        Raises:
            HubError, HubUnreachableError: the Hub gives no answer that can be used.
        """
        ...

    def create(self, repo: str, *, private: bool) -> None:
        """Make an empty repository.

        Raises:
            HubConflictError: it is there already. HubError: the token does not allow it.
        """
        ...

    def commit(self, repo: str, files: Mapping[str, Path | bytes], *, parent: str, message: str, delete: Sequence[str] = ()) -> str:
        """Add, replace and delete files on `main` in one commit, which is there as a whole or not at all; gives its id.

        Raises:
            HubConflictError: `main` is not at `parent`. PathError: a name that must not be published.
            HubError, HubNotFoundError, HubUnreachableError: as above.
        """
        ...


def git_blob_oid(data: bytes) -> str:
    """Git's id of some bytes (SHA-1, 40 hex digits): what the Hub lists for a file that is not in LFS."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def lfs_pointer(sha256: Digest, size: int) -> bytes:
    """The text that git keeps in place of a file in LFS (git-lfs specification, version 1)."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256.hex}\nsize {size}\n".encode()


def lfs_pointer_oid(sha256: Digest, size: int) -> str:
    """Git's id of that text: what the Hub lists as the id of a file in LFS."""
    return git_blob_oid(lfs_pointer(sha256, size))


def xet_hash(path: Path) -> str | None:
    """The Xet hash of a file (64 hex digits), computed here without any upload; None where hf_xet is not installed."""
    try:
        from hf_xet import hash_files
    except ImportError:
        return None
    return str(hash_files([str(path)])[0].hash)


def check_repo(repo: str) -> str:
    """A name of the form `org/name`, as it was given.

    Raises:
        HubError: it is anything else.
    """
    if not is_repository(repo):
        raise HubError(f"{repo!r} is not the name of a repository: it must be org/name, of letters, digits, '.', '_' and '-'")
    return repo


def is_commit(revision: str | None) -> bool:
    """Whether a revision names one commit for good: 40 lowercase hex digits."""
    return revision is not None and bool(_COMMIT.match(revision))


def check_commit(commit: str) -> str:
    """A commit, as it was given.

    Raises:
        HubError: it is anything else.
    """
    if not is_commit(commit):
        raise HubError(f"{commit!r:.100} is not a commit: it must be 40 lowercase hex digits")
    return commit


def parse_xet(repo: str, commit: str, asked: Sequence[str], value: Any) -> dict[str, str]:
    """Check what a Hub answered about the paths it was asked for: path -> Xet hash of those that have one.

    Raises:
        HubError: something in it is not what it must be.
        HubNotFoundError: a path is not there.
    """
    if not isinstance(value, list) or len(value) > len(asked) or not all(isinstance(item, dict) for item in value):
        raise HubError(f"{repo}: the Hub's answer about {len(asked)} paths cannot be used")
    missing = sorted(set(asked) - {str(item.get("path")) for item in value})
    if missing:
        raise HubNotFoundError(f"{repo} has no {missing[0]} at commit {commit}{f', nor {len(missing) - 1} more' if missing[1:] else ''}")
    hashes = {item["path"]: item["xetHash"] for item in value if item.get("xetHash") is not None}
    wrong = [path for path, text in hashes.items() if not isinstance(text, str) or not _HEX64.match(text)]
    if wrong:
        raise HubError(f"{repo}: the Hub gives {wrong[0]!r} the Xet hash {hashes[wrong[0]]!r:.100}, which is none")
    return hashes


def _file(repo: str, item: Any) -> HubFile:
    """One file of a listing, or HubError."""
    if not isinstance(item, dict) or not isinstance(item.get("rfilename"), str):
        raise HubError(f"{repo}: the Hub lists something without a name")
    path, size, oid, lfs = item["rfilename"], item.get("size"), item.get("blobId"), item.get("lfs")
    digest = None
    if lfs is not None:
        sha256 = lfs.get("sha256") if isinstance(lfs, dict) else None
        if not isinstance(sha256, str) or not _HEX64.match(sha256):
            raise HubError(f"{repo}: the Hub gives {path!r:.300} the SHA-256 {sha256!r:.100}, which is none")
        if lfs.get("size") != size:
            raise HubError(f"{repo}: the Hub gives {path!r:.300} two sizes: {size!r:.40} and {lfs.get('size')!r:.40} bytes")
        digest = Digest(f"sha256:{sha256}")
    if type(size) is not int or not 0 <= size < 1 << 53:
        raise HubError(f"{repo}: the Hub gives {path!r:.300} the size {size!r:.40}")
    if not isinstance(oid, str) or not _COMMIT.match(oid):
        raise HubError(f"{repo}: the Hub gives {path!r:.300} the git id {oid!r:.100}, which is none")
    return HubFile(path, size, oid, digest)

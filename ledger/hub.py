"""The Hub: what it lists, single reads, downloads that are hashed as they arrive, and one commit at a time.

Nothing that a Hub answers is believed beyond what this module checks: names are as a tree's (`store.tree.check_names`), hashes have the
form of hashes, sizes are exact, a listing ends, and a file is only taken when its SHA-256, or its git blob id, is the listed one.
huggingface_hub itself accepts wrong bytes of the right size.

Reading costs exactly the requests that each method states, so that an audit can say what it cost; `requests` and `weight_bytes` count.
Addresses: $HF_ENDPOINT (else huggingface.co), and the token of $HF_TOKEN or of `hf auth login`, both read when they are used.

>>> git_blob_oid(b"hello\\n")
'ce013625030ba8dba906f756967f9e9ca394464a'
>>> lfs_pointer_oid(Digest.of(b""), 0)
'fc8e42b32efb9a9bf3ae0234a18a948e499490f8'
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import quote

from ledger.errors import HubConflictError, HubError, HubMismatchError, HubNotFoundError, HubUnreachableError
from store import canonical
from store.digest import Digest
from store.errors import CanonicalError, PathError, TreeError
from store.files import writing
from store.tree import MAX_ENTRIES, check_names

if TYPE_CHECKING:
    from httpx2 import Response

HUB = "https://huggingface.co"
MAX_FILES = MAX_ENTRIES
"""A repository with more files is refused; the Hub itself advises against 100,000."""
MAX_ANSWER_BYTES = 1 << 26
"""No answer of the Hub's API is read beyond this: a listing that never ends is refused."""

WEIGHTS = (".safetensors", ".gguf", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx")
"""Ends of the names of files that hold weights: the bytes that `weight_bytes` counts."""

_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}\Z")
_COMMIT = re.compile(r"[0-9a-f]{40}\Z")
_HEX64 = re.compile(r"[0-9a-f]{64}\Z")
_PATHS_AT_ONCE = 1000
_CHUNK_BYTES = 1 << 20
_CONNECT_S, _SILENCE_S, _SLOWEST = 10.0, 30.0, 4096
"""Seconds to connect, seconds without a byte, bytes a second below which (after `_SILENCE_S`) an answer counts as none."""
_PAUSES_S = (0.3, 1.5)
"""Between attempts at what may pass: a fault of the server's, a cut."""
_PASSING = (408, 425, 429, 500, 502, 503, 504)

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""

T = TypeVar("T")


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


@contextmanager
def _bars() -> Iterator[None]:
    """huggingface_hub's progress bars, on a terminal alone."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if sys.stderr.isatty() or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def check_repo(repo: str) -> str:
    """A name of the form `org/name`, as it was given.

    Raises:
        HubError: it is anything else.
    """
    if not _REPO.match(repo) or ".." in repo or "--" in repo or repo.endswith((".git", ".ipynb")):
        raise HubError(f"{repo!r} is not the name of a repository: it must be org/name, of letters, digits, '.', '_' and '-'")
    return repo


def is_commit(revision: str | None) -> bool:
    """Whether a revision names one commit for good: 40 lowercase hex digits."""
    return revision is not None and bool(_COMMIT.match(revision))


class HfHub:
    """The Hub behind an address, through huggingface_hub.

    Args:
        endpoint: default: $HF_ENDPOINT, else https://huggingface.co. token: default: $HF_TOKEN, else that of `hf auth login`.
        silence_s: seconds without a byte after which an answer counts as none.
    """

    def __init__(self, endpoint: str | None = None, token: str | None = None, *, silence_s: float = _SILENCE_S) -> None:
        self._endpoint, self._token, self._silence_s = endpoint, token, silence_s
        self._lock = threading.Lock()
        self.requests = 0
        self.weight_bytes = 0

    @property
    def endpoint(self) -> str:
        """The address that is asked now, without a slash at the end."""
        return (self._endpoint or os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")

    # --- reading -------------------------------------------------------------------------------------------------------------

    def listing(self, repo: str, revision: str | None = None) -> Listing:
        """See `Hub.listing`."""
        address = f"/api/models/{check_repo(repo)}/revision/{quote(revision or 'main', safe='')}?blobs=true"
        value = self._json(address, repo, f"revision {revision or 'main'}")
        found = Listing.parse(repo, value)
        if is_commit(revision) and found.commit != revision:
            raise HubMismatchError(
                f"{repo}: asked for commit {revision}, the Hub answered with {found.commit}. Nothing of it is used",
                expected=str(revision),
                got=found.commit,
            )
        return found

    def xet(self, repo: str, commit: str, paths: Sequence[str]) -> Mapping[str, str]:
        """See `Hub.xet`."""
        hashes: dict[str, str] = {}
        for start in range(0, len(paths), _PATHS_AT_ONCE):
            asked = list(paths[start : start + _PATHS_AT_ONCE])
            address = f"/api/models/{check_repo(repo)}/paths-info/{_commit(commit)}"
            value = self._json(address, repo, f"commit {commit}", form={"paths": asked, "expand": "false"})
            hashes |= _xet_hashes(repo, commit, asked, value)
        return hashes

    def read(self, repo: str, commit: str, path: str, *, limit: int) -> bytes:
        """See `Hub.read`."""

        def once() -> bytes:
            with self._open(_resolve(repo, commit, path), repo, path) as response:
                _same_commit(response, repo, commit, path)
                return self._body(response, limit, f"{path} of {repo}", path)

        return self._attempts(once)

    def read_range(self, repo: str, commit: str, path: str, start: int, length: int) -> bytes:
        """See `Hub.read_range`."""
        if start < 0 or length < 1:
            raise HubError(f"{path} of {repo}: no range of {length} bytes starts at {start}")

        def once() -> bytes:
            headers = {"Range": f"bytes={start}-{start + length - 1}"}
            with self._open(_resolve(repo, commit, path), repo, path, headers=headers) as response:
                _same_commit(response, repo, commit, path)
                said = response.headers.get("content-range", "")
                if response.status_code != 206 or not said.startswith(f"bytes {start}-{start + length - 1}/"):
                    raise HubError(
                        f"{path} of {repo}: asked for bytes {start} to {start + length - 1}, the Hub answered with "
                        f"{said or 'the whole file'!r}: the file is shorter than listed, or this Hub serves no ranges"
                    )
                data = self._body(response, length, f"{path} of {repo}", path)
            if len(data) != length:
                raise HubUnreachableError(f"{path} of {repo}: {len(data)} of {length} bytes arrived; try again")
            return data

        return self._attempts(once)

    def exists(self, repo: str) -> bool:
        """See `Hub.exists`."""
        try:
            self._json(f"/api/models/{check_repo(repo)}", repo, "")
        except HubNotFoundError:
            return False
        return True

    # --- downloading ---------------------------------------------------------------------------------------------------------

    def fetch(self, repo: str, commit: str, file: HubFile, into: Path, progress: Progress | None = None) -> Digest:
        """See `Hub.fetch`."""
        continued = into.exists() and into.stat().st_size > 0
        try:
            return self._fetch(repo, commit, file, into, progress)
        except HubMismatchError:
            if not continued:
                raise
        # What was here before may be at fault (a machine that lost power), so the whole is asked for once more.
        return self._fetch(repo, commit, file, into, progress)

    def _fetch(self, repo: str, commit: str, file: HubFile, into: Path, progress: Progress | None) -> Digest:
        into.parent.mkdir(parents=True, exist_ok=True)
        hashes = _Hashes(file)
        with writing(into), into.open("a+b") as out:
            out.seek(0)
            while hashes.done <= file.size and (piece := out.read(_CHUNK_BYTES)):
                hashes.update(piece)
            if hashes.done > file.size:
                hashes = _Hashes(file)
                out.truncate(0)
            failures, told = 0, hashes.done
            began, first = time.monotonic(), hashes.done
            while hashes.done < file.size:
                before = hashes.done
                cut = HubUnreachableError(f"{file.path} of {repo}: the Hub stopped sending")
                try:
                    for chunk in self._pieces(repo, commit, file, hashes):
                        out.write(chunk)
                        hashes.update(chunk)
                        if progress is not None and (hashes.done - told >= _CHUNK_BYTES or hashes.done == file.size):
                            told = hashes.done
                            progress(told, file.size)
                except HubUnreachableError as error:
                    cut = error
                if hashes.done < file.size:
                    failures = 0 if hashes.done > before else failures + 1
                    # One that is cut again and again may crawl as little as one that is not.
                    patience_s = (1 + len(_PAUSES_S)) * (self._silence_s + max(_PAUSES_S)) + (hashes.done - first) / _SLOWEST
                    crawls = time.monotonic() - began > patience_s
                    if failures > len(_PAUSES_S) or crawls or isinstance(cut.__cause__, _dead()):
                        kept = f"{hashes.done:,} of {file.size:,} bytes are kept; run again to go on" if hashes.done else "Nothing arrived"
                        if not hashes.done:
                            into.unlink()
                        raise HubUnreachableError(f"{cut}. {kept}") from cut
                    time.sleep(_PAUSES_S[max(0, failures - 1)])
        fault = hashes.fault()
        if fault is not None:
            what, expected, got = fault
            into.unlink()
            raise HubMismatchError(
                f"{file.path} of {repo} at {commit}: the Hub served other bytes than it lists.\n"
                f"  expected {what}{expected}\n  got      {what}{got}\n"
                "The download was deleted. Try again; if it stays so, the file on the Hub is damaged or was tampered with: do not use it",
                expected=expected,
                got=got,
            )
        return hashes.digest

    def _pieces(self, repo: str, commit: str, file: HubFile, hashes: _Hashes) -> Iterator[bytes]:
        """The bytes of a file from where `hashes` stands; no more than it should have. A server that starts anew is asked for no more."""
        start = hashes.done
        headers = {"Range": f"bytes={start}-"} if start else {}
        with self._open(_resolve(repo, commit, file.path), repo, file.path, headers=headers) as response:
            _same_commit(response, repo, commit, file.path)
            skip = 0
            if start and response.status_code == 200:
                skip = start  # it does not serve ranges: what is here already is passed over, since the whole is hashed anyway
            elif start and not response.headers.get("content-range", "").startswith(f"bytes {start}-"):
                raise HubError(f"{file.path} of {repo}: asked for bytes from {start}, got {response.headers.get('content-range')!r}")
            left = file.size - start
            for chunk in self._chunks(response, file.path):
                piece = chunk[skip:]
                skip -= min(skip, len(chunk))
                if len(piece) > left:
                    hashes.longer = True
                    yield piece[:left]
                    return
                left -= len(piece)
                if piece:
                    yield piece

    # --- writing -------------------------------------------------------------------------------------------------------------

    def refusal(self, repo: str) -> str:
        """See `Hub.refusal`."""
        if "Authorization" not in self._headers():
            return "there is no token"
        try:
            said = self._json("/api/whoami-v2", check_repo(repo), "")
        except HubNotFoundError:
            return f"{self.endpoint} does not know the token"
        return _may_not_write(said if isinstance(said, dict) else {}, repo)

    def create(self, repo: str, *, private: bool) -> None:
        """See `Hub.create`."""
        from huggingface_hub import HfApi

        with self._api_faults(repo, "create the repository", parent=""):
            HfApi(endpoint=self.endpoint, token=self._token).create_repo(check_repo(repo), private=private)

    def commit(self, repo: str, files: Mapping[str, Path | bytes], *, parent: str, message: str, delete: Sequence[str] = ()) -> str:
        """See `Hub.commit`."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

        check_names([*files, *delete])
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd(path_in_repo=path, path_or_fileobj=str(content) if isinstance(content, Path) else content)
            for path, content in sorted(files.items())
        ]
        operations += [CommitOperationDelete(path_in_repo=path) for path in sorted(delete)]
        with self._api_faults(repo, "commit", parent=_commit(parent)), _bars():
            api = HfApi(endpoint=self.endpoint, token=self._token)
            made = api.create_commit(check_repo(repo), operations, commit_message=message, parent_commit=parent)
        return _commit(str(made.oid))

    @contextmanager
    def _api_faults(self, repo: str, doing: str, *, parent: str) -> Iterator[None]:
        """Errors of huggingface_hub's own calls, as ours."""
        import httpx2
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

        try:
            yield
        except HfHubHTTPError as error:
            status = error.response.status_code
            if status in (409, 412):
                gone = f"its branch is no longer at {parent}: somebody else committed. Look at what changed, then publish again"
                raise HubConflictError(
                    f"{self.endpoint}/{repo}: cannot {doing}: {gone if parent else 'there is one of this name already'}", parent=parent
                ) from error
            words = _words(error)
            if status in (401, 403, 404):
                shown = f"{self.endpoint}/{repo}: cannot {doing}: refused ({words or status})"
                raise HubError(f"{shown}: set HF_TOKEN to a token that may write there") from error
            raise _refusal(status, error.response.headers, repo, f"cannot {doing}", self.endpoint, words) from error
        except (httpx2.HTTPError, OfflineModeIsEnabled) as error:
            raise self._unreachable(error) from error
        except RuntimeError as error:  # what huggingface_hub and hf_xet raise when the upload of one file fails
            cause = error.__cause__ or error
            raise HubUnreachableError(f"{self.endpoint}/{repo}: cannot {doing}: {error} ({cause}). Nothing was committed") from error

    # --- requests ------------------------------------------------------------------------------------------------------------

    def _json(self, address: str, repo: str, what: str, *, form: Mapping[str, Any] | None = None) -> Any:
        def once() -> Any:
            with self._open(address, repo, what, form=form) as response:
                data = self._body(response, MAX_ANSWER_BYTES, f"the answer about {repo}", "")
                address_now = str(response.url)
            try:
                return canonical.loads(data)
            except CanonicalError as error:
                raise HubError(f"{address_now} answered what is not JSON ({error}); is {self.endpoint} a Hub?") from error

        return self._attempts(once)

    def _attempts(self, once: Callable[[], T]) -> T:
        for pause in _PAUSES_S:
            try:
                return once()
            except HubUnreachableError as error:
                if isinstance(error.__cause__, _dead()):
                    raise
            time.sleep(pause)
        return once()

    @contextmanager
    def _open(
        self, address: str, repo: str, what: str, *, headers: Mapping[str, str] | None = None, form: Mapping[str, Any] | None = None
    ) -> Iterator[Response]:
        """One request; the answer's body is not read yet."""
        import httpx2
        from huggingface_hub.errors import OfflineModeIsEnabled
        from huggingface_hub.utils import get_session

        client = get_session()
        response = None
        try:
            request = client.build_request(
                "GET" if form is None else "POST",
                self.endpoint + address,
                headers={**self._headers(), **(headers or {})},
                data=form,
                timeout=httpx2.Timeout(self._silence_s, connect=min(_CONNECT_S, self._silence_s)),
            )
            response = client.send(request, stream=True)
            with self._lock:
                self.requests += 1 + len(response.history)
            if response.status_code >= 400:
                raise _refusal(response.status_code, response.headers, repo, what, self.endpoint, "")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise HubError(f"{response.url} answers in the form {response.headers['content-encoding']!r}, which was not asked for")
            yield response
        except (httpx2.HTTPError, httpx2.InvalidURL, OfflineModeIsEnabled) as error:
            raise self._unreachable(error) from error
        finally:
            if response is not None:
                response.close()

    def _headers(self) -> dict[str, str]:
        """Ours, since huggingface_hub's own ask the Hub for a list of agents first."""
        from huggingface_hub import constants, get_token

        # Identity, so that sizes, ranges and bounds are those of the bytes themselves.
        headers = {"User-Agent": "alloy-ledger", "Accept-Encoding": "identity"}
        token = self._token or (None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token())
        return headers | ({"Authorization": f"Bearer {token}"} if token else {})

    def _unreachable(self, error: Exception) -> HubUnreachableError:
        from huggingface_hub.errors import OfflineModeIsEnabled

        if isinstance(error, OfflineModeIsEnabled):
            return HubUnreachableError(f"{self.endpoint} is not asked, because HF_HUB_OFFLINE is set; unset it to use the network")
        words = str(error) or type(error).__name__
        if isinstance(error, _dead()):
            return HubUnreachableError(f"{self.endpoint} cannot be reached ({words}); look at the network, or at HF_ENDPOINT")
        return HubUnreachableError(f"{self.endpoint} was reached, and the connection broke off ({words})")

    def _chunks(self, response: Response, path: str) -> Iterator[bytes]:
        """The body as it comes, unless it comes too slowly to ever end."""
        began, got = time.monotonic(), 0
        weights = path.lower().endswith(WEIGHTS)
        for chunk in response.iter_raw():  # as it arrives, so that nothing is lost when it is cut
            if weights:
                with self._lock:
                    self.weight_bytes += len(chunk)
            yield chunk
            got += len(chunk)
            if time.monotonic() - began > self._silence_s + got / _SLOWEST:
                raise HubUnreachableError(f"{self.endpoint} sends less than {_SLOWEST:,} bytes a second; try again later")

    def _body(self, response: Response, limit: int, what: str, path: str) -> bytes:
        said = response.headers.get("content-length", "")
        parts: list[bytes] = []
        got = 0
        if not (said.isdecimal() and int(said[:20]) > limit):
            for chunk in self._chunks(response, path):
                parts.append(chunk)
                got += len(chunk)
                if got > limit:
                    break
            else:
                if said.isdecimal() and got < int(said[:20]):
                    raise HubUnreachableError(f"{what}: {got:,} of {said} bytes arrived; try again")
                return b"".join(parts)
        raise HubError(f"{what} has more than {limit:,} bytes{f' ({int(said[:20]):,})' if said.isdecimal() else ''}; no more is read")


class _Hashes:
    """The hashes of a download on its way."""

    def __init__(self, file: HubFile) -> None:
        self.done = 0
        self.longer = False
        self._file = file
        self._sha256 = hashlib.sha256()
        self._git = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False) if file.sha256 is None else None

    def update(self, data: bytes) -> None:
        self.done += len(data)
        self._sha256.update(data)
        if self._git is not None:
            self._git.update(data)

    @property
    def digest(self) -> Digest:
        return Digest(f"sha256:{self._sha256.hexdigest()}")

    def fault(self) -> tuple[str, str, str] | None:
        """What differs from the listing (kind, expected, got), or None."""
        if self.longer:
            return "", f"{self._file.size:,} bytes", "more"
        if self._git is not None:
            got = self._git.hexdigest()
            return None if got == self._file.oid else ("git oid ", self._file.oid, got)
        return None if self.digest == self._file.sha256 else ("", str(self._file.sha256), str(self.digest))


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


def _xet_hashes(repo: str, commit: str, asked: Sequence[str], value: Any) -> dict[str, str]:
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


def _commit(commit: str) -> str:
    if not is_commit(commit):
        raise HubError(f"{commit!r:.100} is not a commit: it must be 40 lowercase hex digits")
    return commit


def _resolve(repo: str, commit: str, path: str) -> str:
    return f"/{check_repo(repo)}/resolve/{_commit(commit)}/{quote(path)}"


def _same_commit(response: Response, repo: str, commit: str, path: str) -> None:
    """Refuse an answer that says it is of another commit; storage that the Hub redirects to says nothing."""
    for answer in (*response.history, response):
        said = answer.headers.get("x-repo-commit", commit)
        if said != commit:
            raise HubMismatchError(
                f"{path} of {repo}: asked for commit {commit}, the Hub answered with {said:.100}. Nothing of it is used",
                expected=commit,
                got=said,
            )


def _dead() -> tuple[type[BaseException], ...]:
    """Errors after which asking again at once is no use: nobody is there, or nobody may be asked."""
    import httpx2
    from huggingface_hub.errors import OfflineModeIsEnabled

    return httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.UnsupportedProtocol, httpx2.InvalidURL, OfflineModeIsEnabled


def _words(error: Exception) -> str:
    """What the server said, on one line."""
    said = getattr(error, "server_message", None)
    return " ".join(str(said).split())[:300] if said else ""


def _may_not_write(said: Mapping[str, Any], repo: str) -> str:
    """Why an account and its token, as `whoami-v2` describes them, may not write to a repository; whatever is not said speaks for it."""
    name, orgs, auth = said.get("name"), said.get("orgs"), said.get("auth")
    token = auth.get("accessToken") if isinstance(auth, dict) else None
    token = token if isinstance(token, dict) else {}
    if token.get("role") == "read":
        return f"the token of {name!r:.100} may only read"
    fine = token.get("fineGrained")
    scopes = fine.get("scoped") if isinstance(fine, dict) else None
    if token.get("role") == "fineGrained" and isinstance(scopes, list) and "repo.write" not in str(fine):
        return f"the fine-grained token of {name!r:.100} may write to no repository"
    owner = repo.partition("/")[0]
    if isinstance(orgs, list) and owner != name:
        roles = {one.get("name"): one.get("roleInOrg") for one in orgs if isinstance(one, dict)}
        if owner not in roles:
            return f"the token is of {name!r:.100}, who is no member of {owner}"
        if roles[owner] == "read":
            return f"the token is of {name!r:.100}, who may only read in {owner}"
    return ""


def _refusal(status: int, headers: Mapping[str, str], repo: str, what: str, endpoint: str, words: str) -> HubError:
    """An error status as the error that says what to do."""
    code = headers.get("x-error-code", "")
    words = words or " ".join(headers.get("x-error-message", "").split())[:300]
    place = f"{endpoint}/{repo}"
    if code == "GatedRepo" or status == 403:
        return HubError(f"{place}: refused ({words or status}): accept its terms on its page, and set HF_TOKEN to a token that may read it")
    if code == "RevisionNotFound":
        return HubNotFoundError(f"{place} has no {what}")
    if code == "EntryNotFound":
        return HubNotFoundError(f"{place} has no {what} at this commit")
    if status in (401, 404):
        return HubNotFoundError(f"{place} is not there, or is private: look at the name, or set HF_TOKEN to a token that may read it")
    if status == 416:
        return HubError(f"{place}: {what} is shorter than it is listed")
    if status in _PASSING:
        return HubUnreachableError(f"{place}: the Hub answers with {status}{f' ({words})' if words else ''}; try again in a while")
    return HubError(f"{place}: {what}: the Hub answers with {status}{f' ({words})' if words else ''}")

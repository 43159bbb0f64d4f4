"""The Hub over HTTP: single reads, downloads that are hashed as they arrive, and one commit at a time.

What it answers goes through the checks of `ledger.hub`; besides, an answer ends, comes in time, is of the commit that was asked for, and
a file is only taken when its SHA-256, or its git blob id, is the listed one. huggingface_hub itself accepts wrong bytes of the right size.

Addresses: $HF_ENDPOINT (else huggingface.co), and the token of $HF_TOKEN or of `hf auth login`, both read when they are used.

>>> HfHub("https://mirror.example/").endpoint
'https://mirror.example'
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from ledger.errors import HubConflictError, HubError, HubMismatchError, HubNotFoundError, HubUnreachableError
from ledger.hub import HubFile, Listing, Progress, check_commit, check_repo, is_commit, parse_xet
from ledger.inventory import WEIGHTS
from store import canonical
from store.digest import Digest
from store.errors import CanonicalError
from store.files import writing
from store.tree import check_names

if TYPE_CHECKING:
    from httpx2 import Response

HUB = "https://huggingface.co"
MAX_ANSWER_BYTES = 1 << 26
"""No answer of the Hub's API is read beyond this: a listing that never ends is refused."""


_PATHS_AT_ONCE = 1000
_CHUNK_BYTES = 1 << 20
_CONNECT_S, _SILENCE_S, _SLOWEST = 10.0, 30.0, 4096
"""Seconds to connect, seconds without a byte, bytes a second below which (after `_SILENCE_S`) an answer counts as none."""
_PAUSES_S = (0.3, 1.5)
"""Between attempts at what may pass: a fault of the server's, a cut."""
_PASSING = (408, 425, 429, 500, 502, 503, 504)

T = TypeVar("T")


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
            address = f"/api/models/{check_repo(repo)}/paths-info/{check_commit(commit)}"
            value = self._json(address, repo, f"commit {commit}", form={"paths": asked, "expand": "false"})
            hashes |= parse_xet(repo, commit, asked, value)
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
        with self._api_faults(repo, "commit", parent=check_commit(parent)), _bars():
            api = HfApi(endpoint=self.endpoint, token=self._token)
            made = api.create_commit(check_repo(repo), operations, commit_message=message, parent_commit=parent)
        return check_commit(str(made.oid))

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


def _resolve(repo: str, commit: str, path: str) -> str:
    return f"/{check_repo(repo)}/resolve/{check_commit(commit)}/{quote(path)}"


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

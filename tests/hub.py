"""A Hub on this machine: what huggingface_hub, `ledger.hf_hub` and the verify page ask a Hub for, and a Hub that lies.

Routes, traps and lies are described in docs/loopback-hub.md. Repositories are git's own: a commit's id is the hash of a git commit
over a git tree of blobs and LFS pointers. Everything is in memory, and times come from a counter, so the same pushes give the same ids.

Run by hand: `python -m tests.hub --port 8800 examples/tiny-moe/model=acme/tiny-moe`.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

TOKEN = "hf_loopback"
PAGE = 1000
"""Entries in one answer about a tree."""

_LFS_NAMES = re.compile(
    r"\.(7z|arrow|bin|bz2|ckpt|ftz|gguf|gz|h5|joblib|mlmodel|model|msgpack|npy|npz|onnx|ot|parquet|pb|pickle|pkl|pt|pth|rar|safetensors"
    r"|tar|tflite|tgz|wasm|xz|zip|zst)\Z"
)
_LFS_BYTES = 10 * 2**20
_GITATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n*.gguf filter=lfs diff=lfs merge=lfs -text\n"
_PIECE_BYTES = 1 << 16
_EXPOSED = "X-Repo-Commit, X-Error-Code, X-Linked-Etag, X-Linked-Size, ETag, Link, Content-Range"


@dataclass(frozen=True)
class Request:
    """A request that was answered: `range` as it was asked for, `sent` bytes of body."""

    method: str
    path: str
    query: str
    range: str
    status: int
    sent: int


@dataclass
class Lies:
    """What this Hub does wrong. Paths are of files in any repository; everything is off.

    Attributes:
        wrong_bytes: files that are served with one byte changed; whatever is listed of them stays as it was.
        endless_bytes: files that are served without end.
        wrong_sha256: files whose listed `lfs.oid` is another one; git's id of the pointer stays true.
        wrong_oid: files whose listed git id is another one.
        wrong_size: files that are listed as one byte longer.
        wrong_xet: files whose listed `xetHash` is another one.
        moved_revision: every question about a commit is answered from the newest commit, which the answer names.
        moving: somebody commits to `main` after every listing.
        renamed: the answer about a repository is about this other one (`org/name`).
        endless_listing: listings never end: the body of one, and the pages of a tree.
        hostile_names: these names are listed beside the real ones.
        stale_parent: somebody commits to `main` just before every commit.
        recreated: every repository says that it was made later, with another id.
        no_ranges: ranges are not served: every answer is the whole file.
        cut: downloads end after so many bytes of body; `cuts` times, or always (-1).
        slow_s: seconds before every piece of a download.
        errors: so many of the next requests are answered with 503.
    """

    wrong_bytes: set[str] = field(default_factory=set)
    endless_bytes: set[str] = field(default_factory=set)
    wrong_sha256: set[str] = field(default_factory=set)
    wrong_oid: set[str] = field(default_factory=set)
    wrong_size: set[str] = field(default_factory=set)
    wrong_xet: set[str] = field(default_factory=set)
    moved_revision: bool = False
    moving: bool = False
    renamed: str = ""
    endless_listing: bool = False
    hostile_names: tuple[str, ...] = ()
    stale_parent: bool = False
    recreated: bool = False
    no_ranges: bool = False
    cut: int | None = None
    cuts: int = -1
    slow_s: float = 0.0
    errors: int = 0


@dataclass(frozen=True)
class _Blob:
    """A file: its content, and whether git holds a pointer in its place."""

    content: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def pointer(self) -> bytes:
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.content)}\n".encode()

    @property
    def oid(self) -> str:
        return _git("blob", self.pointer if self.lfs else self.content)

    @property
    def xet(self) -> str:
        from hf_xet import hash_files

        with tempfile.NamedTemporaryFile() as file:
            file.write(self.content)
            file.flush()
            return str(hash_files([file.name])[0].hash)


@dataclass(frozen=True)
class _Commit:
    oid: str
    files: Mapping[str, _Blob]
    title: str


@dataclass
class _Repo:
    name: str
    identity: str
    created: str
    private: bool
    commits: list[_Commit] = field(default_factory=list)

    def at(self, revision: str) -> _Commit | None:
        if revision in ("main", "refs/heads/main"):
            return self.commits[-1]
        return next((commit for commit in reversed(self.commits) if commit.oid == revision), None)


def _git(kind: str, data: bytes) -> str:
    return hashlib.sha1(f"{kind} {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()


def _git_tree(files: Mapping[str, _Blob]) -> str:
    """Git's id of a folder of files."""
    below: dict[str, dict[str, _Blob]] = {}
    entries: dict[str, tuple[str, str]] = {}
    for path, blob in files.items():
        name, _, rest = path.partition("/")
        if rest:
            below.setdefault(name, {})[rest] = blob
        else:
            entries[name] = ("100644", blob.oid)
    entries |= {name: ("40000", _git_tree(inner)) for name, inner in below.items()}
    # Git sorts folders as if their names ended in a slash.
    order = sorted(entries, key=lambda name: name.encode() + (b"/" if name in below else b""))
    return _git("tree", b"".join(f"{entries[name][0]} {name}\0".encode() + bytes.fromhex(entries[name][1]) for name in order))


class LoopbackHub:
    """A Hub for as long as the `with` block lasts.

    Attributes:
        log: every request that was answered. lies: what it does wrong. account: what it says of whoever has the token.

    >>> with LoopbackHub() as hub:
    ...     commit = hub.put("acme/tiny", {"config.json": b"{}"})
    >>> len(commit)
    40
    """

    def __init__(self, port: int = 0) -> None:
        self.log: list[Request] = []
        self.lies = Lies()
        self.account: dict[str, object] = {"name": "loopback", "type": "user", "auth": {"accessToken": {"role": "write"}}}
        self._repos: dict[str, _Repo] = {}
        self._lfs: dict[str, bytes] = {}
        self._ticks = 0
        self._lock = threading.RLock()
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = _Server(("127.0.0.1", port), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> LoopbackHub:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """Close it: whoever asks now finds nobody."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    # --- what tests do to it without asking over the network ---------------------------------------------------------------------

    def put(self, repo: str, files: Mapping[str, bytes | None], *, private: bool = False) -> str:
        """Commit files (None deletes one) to `main`; makes the repository if there is none. Gives the commit."""
        with self._lock:
            if repo not in self._repos:
                self.create(repo, private=private)
            blobs = {path: None if content is None else _Blob(content, is_lfs(path, content)) for path, content in files.items()}
            return self.commit(repo, blobs, "put")

    def create(self, repo: str, *, private: bool = False) -> None:
        """A repository with one commit that holds `.gitattributes`, as the Hub makes it."""
        when = self._tick()
        identity = hashlib.sha256(f"{repo} {when}".encode()).hexdigest()[:24]
        self._repos[repo] = _Repo(repo, identity, _date(when), private)
        self.commit(repo, {".gitattributes": _Blob(_GITATTRIBUTES, False)}, "initial commit")

    def delete(self, repo: str) -> None:
        """Delete a repository; one that is made again under its name is another one."""
        del self._repos[repo]

    def commit(self, repo: str, changes: Mapping[str, _Blob | None], title: str) -> str:
        """One more commit on `main`."""
        with self._lock:
            kept = self._repos[repo]
            files = {**(kept.commits[-1].files if kept.commits else {}), **changes}
            present = {path: blob for path, blob in sorted(files.items()) if blob is not None}
            self._lfs |= {blob.sha256: blob.content for blob in present.values() if blob.lfs}
            parent = f"parent {kept.commits[-1].oid}\n" if kept.commits else ""
            who = f"loopback <hub@localhost> {self._tick()} +0000"
            text = f"tree {_git_tree(present)}\n{parent}author {who}\ncommitter {who}\n\n{title}\n"
            kept.commits.append(_Commit(_git("commit", text.encode()), present, title))
            return kept.commits[-1].oid

    def head(self, repo: str) -> str:
        """The commit that `main` is at."""
        return self._repos[repo].commits[-1].oid

    def files(self, repo: str) -> dict[str, bytes]:
        """What `main` holds, as it really is."""
        return {path: blob.content for path, blob in self._repos[repo].commits[-1].files.items()}

    def weight_bytes(self) -> int:
        """Bytes of files in LFS that were sent."""
        return sum(item.sent for item in self.log if "/resolve/" in item.path and is_lfs(item.path, b""))

    def _tick(self) -> int:
        self._ticks += 1
        return 1_600_000_000 + self._ticks

    def has(self, repo: str) -> bool:
        """Whether there is such a repository."""
        return repo in self._repos

    def repo(self, name: str) -> _Repo:
        """A repository; KeyError where there is none of that name."""
        return self._repos[name]

    def stored(self, sha256: str) -> bytes | None:
        """An uploaded object, or None."""
        return self._lfs.get(sha256)

    def store(self, sha256: str, content: bytes) -> bool:
        """Take an object if it is what it is called."""
        if hashlib.sha256(content).hexdigest() != sha256:
            return False
        self._lfs[sha256] = content
        return True


def is_lfs(path: str, content: bytes) -> bool:
    """Whether the Hub would keep a file in LFS: by its name, its size, or because it is not text. Empty files never are."""
    return bool(_LFS_NAMES.search(path)) or len(content) > _LFS_BYTES or b"\0" in content[:512]


def _date(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(seconds))


def _other(hexadecimal: str) -> str:
    """Another hash of the same form."""
    return ("1" if hexadecimal[0] == "0" else "0") + hexadecimal[1:]


class _Server(ThreadingHTTPServer):
    daemon_threads = True


class _Refusal(Exception):
    def __init__(self, status: int, code: str, words: str) -> None:
        self.status, self.code, self.words = status, code, words
        super().__init__(words)


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    hub: LoopbackHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: Any) -> None:
        """Requests are in `hub.log`."""

    def handle(self) -> None:
        try:
            super().handle()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # whoever asked has gone

    # --- receiving ---------------------------------------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        url = urlsplit(self.path)
        self._place, self._query = url.path, parse_qs(url.query)
        body = self._body()
        try:
            if self.hub.lies.errors:
                self.hub.lies.errors -= 1
                raise _Refusal(503, "", "the Hub has a fault")
            for method, pattern, answer in _ROUTES:
                if (self.command in method) and (match := re.fullmatch(pattern, url.path)):
                    return answer(self, *map(unquote, match.groups()), **({"body": body} if self.command in ("POST", "PUT") else {}))
            raise _Refusal(404, "", f"no route {self.command} {url.path}")
        except _Refusal as refusal:
            headers = {"X-Error-Code": refusal.code} if refusal.code else {}
            self._json({"error": refusal.words}, refusal.status, {**headers, "X-Error-Message": refusal.words})

    do_GET = do_HEAD = do_POST = do_PUT = do_OPTIONS = _dispatch

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        data = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    # --- sending -----------------------------------------------------------------------------------------------------------------

    def _head(self, status: int, length: int | None, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Access-Control-Allow-Headers", "authorization, content-type, range")
        self.send_header("Access-Control-Expose-Headers", _EXPOSED)
        for name, value in headers.items():
            self.send_header(name, value)
        if length is None:
            self.send_header("Connection", "close")
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def _note(self, status: int, sent: int) -> None:
        asked = self.headers.get("Range", "")
        self.hub.log.append(Request(self.command, unquote(self._place), urlsplit(self.path).query, asked, status, sent))

    def _json(self, value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        data = json.dumps(value).encode()
        self._note(status, 0 if self.command == "HEAD" else len(data))
        self._head(status, len(data), {"Content-Type": "application/json; charset=utf-8", **(headers or {})})
        if self.command != "HEAD":
            self.wfile.write(data)

    def _endless(self, start: str, pieces: Iterator[str]) -> None:
        """A body without end; it ends when whoever asked hangs up."""
        self._note(200, -1)
        self._head(200, None, {"Content-Type": "application/json; charset=utf-8"})
        self.wfile.write(start.encode())
        for piece in pieces:
            self.wfile.write(piece.encode())

    # --- who asks for what -------------------------------------------------------------------------------------------------------

    def _allowed(self) -> bool:
        return self.headers.get("Authorization", "") == f"Bearer {TOKEN}"

    def _repo(self, name: str, *, write: bool = False) -> _Repo:
        name = self.hub.lies.renamed or name
        if not self.hub.has(name) or (self.hub.repo(name).private and not self._allowed()):
            raise _Refusal(404 if self._allowed() else 401, "RepoNotFound", "Repository not found")
        if write and not self._allowed():
            raise _Refusal(403, "", "this token may not write here")
        return self.hub.repo(name)

    def _commit(self, repo: _Repo, revision: str) -> _Commit:
        commit = repo.at("main" if self.hub.lies.moved_revision else revision)
        if commit is None:
            raise _Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def _size(self, path: str, blob: _Blob) -> int:
        return len(blob.content) + (path in self.hub.lies.wrong_size)

    def _sha256(self, path: str, blob: _Blob) -> str:
        return _other(blob.sha256) if path in self.hub.lies.wrong_sha256 else blob.sha256

    def _oid(self, path: str, blob: _Blob) -> str:
        return _other(blob.oid) if path in self.hub.lies.wrong_oid else blob.oid

    def _row(self, path: str, blob: _Blob) -> dict[str, object]:
        """A file in the answers about trees and paths."""
        row: dict[str, object] = {"type": "file", "oid": self._oid(path, blob), "size": self._size(path, blob), "path": path}
        if blob.lfs:
            row["lfs"] = {"oid": self._sha256(path, blob), "size": self._size(path, blob), "pointerSize": len(blob.pointer)}
            row["xetHash"] = _other(blob.xet) if path in self.hub.lies.wrong_xet else blob.xet
        return row

    # --- reading -----------------------------------------------------------------------------------------------------------------

    def options(self, _: str) -> None:
        """What a browser asks before it asks."""
        self._note(204, 0)
        self._head(204, 0, {"Access-Control-Allow-Methods": "GET, HEAD, POST"})

    def whoami(self) -> None:
        """Who the token is of."""
        if not self._allowed():
            raise _Refusal(401, "", "Invalid credentials in Authorization header")
        self._json(self.hub.account)

    def info(self, name: str, revision: str = "main") -> None:
        """A repository at a revision; with `blobs`, the hashes of its files, but no Xet hash."""
        repo = self._repo(name)
        commit = self._commit(repo, revision)
        siblings: list[dict[str, object]] = []
        for path, blob in commit.files.items():
            item: dict[str, object] = {"rfilename": path}
            if "blobs" in self._query:
                item |= {"size": self._size(path, blob), "blobId": self._oid(path, blob)}
                if blob.lfs:
                    size, sha256 = self._size(path, blob), self._sha256(path, blob)
                    item["lfs"] = {"sha256": sha256, "size": size, "pointerSize": len(blob.pointer)}
            siblings.append(item)
        siblings += [{"rfilename": path, "size": 1, "blobId": "0" * 40} for path in self.hub.lies.hostile_names]
        lied = self.hub.lies.recreated
        value = {
            "_id": _other(repo.identity) if lied else repo.identity,
            "id": repo.name,
            "modelId": repo.name,
            "author": repo.name.partition("/")[0],
            "sha": commit.oid,
            "createdAt": _date(1_900_000_000) if lied else repo.created,
            "private": repo.private,
            "gated": False,
            "disabled": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
        }
        if self.hub.lies.endless_listing:
            start = json.dumps(value)[:-1] + ', "siblings": ['
            row = json.dumps({"rfilename": "x" * 4000, "size": 1, "blobId": "0" * 40}) + ","
            return self._endless(start, iter(lambda: row, ""))
        self._json({**value, "siblings": siblings})
        if self.hub.lies.moving:
            self.hub.put(repo.name, {"moved.txt": str(len(repo.commits)).encode()})

    def refs(self, name: str) -> None:
        """Its branches."""
        branch = {"name": "main", "ref": "refs/heads/main", "targetCommit": self._repo(name).commits[-1].oid}
        self._json({"branches": [branch], "converts": [], "tags": []})

    def commits(self, name: str, revision: str) -> None:
        """Its history, newest first."""
        repo = self._repo(name)
        found = self._commit(repo, revision)
        past = repo.commits[: repo.commits.index(found) + 1]
        rows = [{"id": commit.oid, "title": commit.title, "message": "", "authors": [], "date": repo.created} for commit in past]
        self._json(rows[::-1])

    def tree(self, name: str, revision: str, folder: str = "") -> None:
        """The files under a folder, a page at a time; `recursive` or not, folders are not listed."""
        commit = self._commit(self._repo(name), revision)
        rows = [(path, blob) for path, blob in commit.files.items() if not folder or path.startswith(f"{folder}/")]
        start = 0 if self.hub.lies.endless_listing else int(self._query.get("cursor", ["0"])[0])
        more = self.hub.lies.endless_listing or start + PAGE < len(rows)
        following = f"{self.hub.endpoint}{quote(self._place)}?recursive=True&cursor={start + PAGE}"
        page = [self._row(path, blob) for path, blob in rows[start : start + PAGE]]
        self._json(page, headers={"Link": f'<{following}>; rel="next"'} if more else {})

    def paths_info(self, name: str, revision: str, body: bytes) -> None:
        """Chosen files. Those that are not there are left out without a word."""
        commit = self._commit(self._repo(name), revision)
        form = self.headers.get("Content-Type", "").startswith("application/x-www-form-urlencoded")
        asked = parse_qs(body.decode()).get("paths", []) if form else json.loads(body)["paths"]
        self._json([self._row(path, commit.files[path]) for path in asked if path in commit.files])

    def resolve(self, name: str, revision: str, path: str) -> None:
        """A file's bytes, or a range of them. Served here: a redirect to the same host would be followed by HEAD and lose the commit."""
        commit = self._commit(self._repo(name), revision)
        blob = commit.files.get(path)
        if blob is None:
            raise _Refusal(404, "EntryNotFound", "Entry not found")
        lies = self.hub.lies
        content = blob.content
        if path in lies.wrong_bytes and content:
            middle = len(content) // 2
            content = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        etag = self._sha256(path, blob) if blob.lfs else self._oid(path, blob)
        headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{etag}"', "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        if blob.lfs:
            headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(content))}
        if path in lies.endless_bytes:
            self._note(200, -1)
            self._head(200, None, headers)
            while True:
                self.wfile.write(content or b"\0")
        status, start, end = 200, 0, len(content)
        if not lies.no_ranges and (asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))):
            start, end = int(asked[1]), min(end, int(asked[2] or end) + 1)
            if start >= len(content):
                self._note(416, 0)
                return self._head(416, 0, {**headers, "Content-Range": f"bytes */{len(content)}"})
            status = 206
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
        self._send(status, content[start:end], headers)

    def _send(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        lies, length = self.hub.lies, len(content)
        if lies.cut is not None and lies.cuts and self.command == "GET" and length > lies.cut:
            lies.cuts -= 1
            content = content[: lies.cut]
            self.close_connection = True
        self._note(status, 0 if self.command == "HEAD" else len(content))
        self._head(status, length, headers)
        if self.command == "HEAD":
            return
        for start in range(0, len(content), _PIECE_BYTES):
            time.sleep(lies.slow_s)
            self.wfile.write(content[start : start + _PIECE_BYTES])
        self.wfile.flush()

    # --- writing -----------------------------------------------------------------------------------------------------------------

    def create(self, body: bytes) -> None:
        """A new repository."""
        asked = json.loads(body)
        name = f"{asked.get('organization') or 'loopback'}/{asked['name']}"
        if not self._allowed():
            raise _Refusal(401, "", "Invalid credentials in Authorization header")
        if self.hub.has(name):
            return self._json({"error": "You already created this model repo", "url": f"{self.hub.endpoint}/{name}"}, 409)
        self.hub.create(name, private=asked.get("visibility") == "private" or asked.get("private") is True)
        self._json({"url": f"{self.hub.endpoint}/{name}", "name": name, "id": name})

    def validate_yaml(self, body: bytes) -> None:
        """The head of a README, which is found good."""
        self._json({"errors": [], "warnings": []})

    def preupload(self, name: str, revision: str, body: bytes) -> None:
        """Which files go to LFS."""
        commit = self._commit(self._repo(name, write=True), revision)
        answers = []
        for file in json.loads(body)["files"]:
            known = commit.files.get(file["path"])
            lfs = file["size"] > _LFS_BYTES or is_lfs(file["path"], base64.b64decode(file["sample"]))
            oid = None if known is None else known.sha256 if known.lfs else known.oid
            answers.append({"path": file["path"], "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False, "oid": oid})
        self._json({"files": answers, "commitOid": commit.oid})

    def lfs_batch(self, name: str, body: bytes) -> None:
        """Which objects are to be uploaded, and where."""
        self._repo(name, write=True)
        objects: list[dict[str, object]] = []
        for item in json.loads(body)["objects"]:
            answer: dict[str, object] = {"oid": item["oid"], "size": item["size"], "authenticated": True}
            if self.hub.stored(item["oid"]) is None:
                answer["actions"] = {"upload": {"href": f"{self.hub.endpoint}/lfs/{item['oid']}"}}
            objects.append(answer)
        self._json({"transfer": "basic", "objects": objects})

    def lfs_put(self, sha256: str, body: bytes) -> None:
        """An object's bytes."""
        if not self.hub.store(sha256, body):
            raise _Refusal(400, "", "the bytes have another SHA-256")
        self._json({})

    def commit(self, name: str, revision: str, body: bytes) -> None:
        """One commit, as a whole or not at all."""
        repo = self._repo(name, write=True)
        header, changes = self._changes(repo, body)
        if self.hub.lies.stale_parent:
            self.hub.put(name, {"somebody.txt": str(len(repo.commits)).encode()})
        with self.hub._lock:
            parent = header.get("parentCommit")
            if revision != "main" or (parent and repo.commits[-1].oid != parent):
                raise _Refusal(412, "", "A commit has happened since. Please refresh and try again.")
            oid = self.hub.commit(name, changes, header["summary"])
        self._json({"success": True, "commitOid": oid, "commitUrl": f"{self.hub.endpoint}/{name}/commit/{oid}", "hookOutput": ""})

    def _changes(self, repo: _Repo, body: bytes) -> tuple[dict[str, Any], dict[str, _Blob | None]]:
        header: dict[str, Any] = {}
        changes: dict[str, _Blob | None] = {}
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header":
                header = value
            elif item["key"] == "file":
                changes[value["path"]] = _Blob(base64.b64decode(value["content"]), False)
            elif item["key"] == "lfsFile":
                content = self.hub.stored(value["oid"])
                if content is None:
                    raise _Refusal(400, "", f"the LFS object of {value['path']} was not uploaded")
                changes[value["path"]] = _Blob(content, True)
            elif item["key"] == "deletedFile":
                changes[value["path"]] = None
            elif item["key"] == "deletedFolder":
                changes |= {path: None for path in repo.commits[-1].files if path.startswith(value["path"].rstrip("/") + "/")}
        return header, changes


_MODEL = r"/api/models/([^/]+/[^/]+)"
_ROUTES: tuple[tuple[tuple[str, ...], str, Callable[..., None]], ...] = (
    (("OPTIONS",), r"(/.*)", _Handler.options),
    (("GET",), r"/api/whoami-v2", _Handler.whoami),
    (("GET",), _MODEL, _Handler.info),
    (("GET",), _MODEL + r"/revision/([^/]+)", _Handler.info),
    (("GET",), _MODEL + r"/refs", _Handler.refs),
    (("GET",), _MODEL + r"/commits/([^/]+)", _Handler.commits),
    (("GET",), _MODEL + r"/tree/([^/]+)", _Handler.tree),
    (("GET",), _MODEL + r"/tree/([^/]+)/(.+)", _Handler.tree),
    (("POST",), _MODEL + r"/paths-info/([^/]+)", _Handler.paths_info),
    (("GET", "HEAD"), r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", _Handler.resolve),
    (("POST",), r"/api/repos/create", _Handler.create),
    (("POST",), r"/api/validate-yaml", _Handler.validate_yaml),
    (("POST",), _MODEL + r"/preupload/([^/]+)", _Handler.preupload),
    (("POST",), r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    (("PUT",), r"/lfs/([0-9a-f]{64})", _Handler.lfs_put),
    (("POST",), _MODEL + r"/commit/([^/]+)", _Handler.commit),
)


def read_folder(folder: Path) -> dict[str, bytes]:
    """A folder's files by their paths in it."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def main(arguments: list[str] | None = None) -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m tests.hub", description="A Hub on this machine, which can lie.")
    parser.add_argument("folders", nargs="*", metavar="FOLDER=org/name", help="put a folder into a repository")
    parser.add_argument("--port", type=int, default=0, help="default: any that is free")
    parser.add_argument(
        "--lie", action="append", default=[], metavar="NAME[=VALUE]", help=f"a field of Lies: {', '.join(Lies.__dataclass_fields__)}"
    )
    parser.add_argument("--private", action="store_true", help="the repositories are private")
    asked = parser.parse_args(arguments)
    with LoopbackHub(asked.port) as hub:
        for text in asked.folders:
            folder, _, repo = text.partition("=")
            print(f"{repo} is at {hub.put(repo, read_folder(Path(folder)), private=asked.private)}")
        for text in asked.lie:
            name, _, value = text.partition("=")
            if name not in Lies.__dataclass_fields__:
                parser.error(f"--lie {name}: no such lie; there are {', '.join(Lies.__dataclass_fields__)}")
            before = getattr(hub.lies, name)
            if bool(value) == isinstance(before, bool):
                parser.error(f"--lie {name}: this lie takes no value" if value else f"--lie {name}=VALUE: this lie needs a value")
            kinds: dict[type, Callable[[str], object]] = {bool: bool, float: float, str: str, int: int, type(None): int}
            kinds |= {set: lambda text: set(text.split(",")), tuple: lambda text: tuple(text.split(","))}
            setattr(hub.lies, name, kinds[type(before)](value))
        print(f"export HF_ENDPOINT={hub.endpoint} HF_TOKEN={TOKEN} HF_HUB_DISABLE_XET=1", flush=True)
        seen = 0
        try:
            while True:
                time.sleep(0.2)
                for request in hub.log[seen:]:
                    print(
                        f"{request.status} {request.method} {request.path} {request.range} {request.sent} byte{'s' * (request.sent != 1)}",
                        flush=True,
                    )
                    seen += 1
        except KeyboardInterrupt:
            print("stopped")


if __name__ == "__main__":
    main()

"""A digest for every MiB of the large files of a publication, so that somebody who reads a few MiB of them can compare what he read.

`<name>.chunks` is published beside the alloy, whose `results.integrity.fileHashes` lists it like any other file: who signs the alloy signs
the chunks. Deterministic: the same files have the same bytes of chunks.

Source: the bound is that of sampling without return, from below. Format: docs/formats/chunks.md.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ledger.errors import ProofError
from store import canonical, files
from store.digest import Digest
from store.errors import CanonicalError, DigestError, StoreError, UnstableError
from store.tree import check_names

ENDING: Final = ".chunks"
CHUNK_BYTES: Final = 2**20
MAX_BYTES: Final = 256 * 2**20
"""Of a file of chunks: 8 TiB of weights have as many."""

_FORMAT: Final = "urn:alloy-ledger:chunks:v1"
_MAX_HEADER_BYTES: Final = 16 * 2**20
_DIGEST_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class ChunkedFile:
    """The chunks of one file.

    Attributes:
        sha256: of the whole file. size: of it in bytes.
        digests: SHA-256 of each chunk, 32 bytes each, one after the other.
    """

    path: str
    sha256: Digest
    size: int
    digests: bytes

    @property
    def count(self) -> int:
        """How many chunks it has; none when it is empty."""
        return len(self.digests) // _DIGEST_BYTES

    def bounds(self, number: int) -> tuple[int, int]:
        """Where a chunk starts, and its length, in bytes; all have `CHUNK_BYTES` but the last."""
        start = number * CHUNK_BYTES
        return start, min(CHUNK_BYTES, self.size - start)

    def fits(self, number: int, data: bytes) -> bool:
        """Whether bytes are those of a chunk."""
        expected = self.digests[number * _DIGEST_BYTES : (number + 1) * _DIGEST_BYTES]
        return len(data) == self.bounds(number)[1] and hashlib.sha256(data).digest() == expected


def chunks_of(published: Mapping[str, Path]) -> bytes:
    """The bytes of `<name>.chunks` for files that are published under the given names; each file is read once.

    Raises:
        PathError: two names that some system takes for one, or one that is no path of a file; or no regular file is there.
        UnstableError: a file was written to meanwhile.
    """
    check_names(list(published))
    header: list[dict[str, Any]] = []
    digests: list[bytes] = []
    for name, path in sorted(published.items()):
        fd = files.open_regular(path)
        try:
            before = os.fstat(fd)
            whole = hashlib.sha256()
            size = 0
            while piece := _read(fd, CHUNK_BYTES):
                whole.update(piece)
                digests.append(hashlib.sha256(piece).digest())
                size += len(piece)
            if not files.unchanged(before, os.fstat(fd)):
                raise UnstableError(f"{path} changed while it was being hashed; run again when nothing writes it")
        finally:
            os.close(fd)
        header.append({"path": name, "sha256": whole.hexdigest(), "size": size})
    return canonical.dumps({"chunkBytes": CHUNK_BYTES, "files": header, "format": _FORMAT}) + b"\n" + b"".join(digests)


def parse(data: bytes) -> Mapping[str, ChunkedFile]:
    """Path -> its chunks. Nothing is verified here: that these are the attested chunks is told by the digest of `data`.

    Raises:
        ProofError: it is no file of chunks, or has more or fewer digests than its files have chunks.
    """
    header, gap, digests = data[:_MAX_HEADER_BYTES].partition(b"\n")
    try:
        value = canonical.loads(header)
        if not gap or not isinstance(value, dict) or value.get("format") != _FORMAT or value.get("chunkBytes") != CHUNK_BYTES:
            raise ProofError(f"no file of chunks: its first line is no JSON with the format {_FORMAT} and chunks of {CHUNK_BYTES:,} bytes")
        listed = [(str(item["path"]), Digest.parse(f"sha256:{item['sha256']}"), item["size"]) for item in value["files"]]
        check_names([path for path, _, _ in listed])
    except (CanonicalError, DigestError, KeyError, TypeError) as error:
        raise ProofError(f"no file of chunks: {error!r}") from error
    except StoreError as error:
        raise ProofError(f"no file of chunks: {error}") from error
    if any(type(size) is not int or size < 0 for _, _, size in listed):
        raise ProofError("no file of chunks: a size is no count of bytes")
    digests = data[len(header) + 1 :]
    expected = sum(-(-size // CHUNK_BYTES) for _, _, size in listed)
    if len(digests) != expected * _DIGEST_BYTES:
        raise ProofError(f"the files listed have {expected:,} chunks; the digests are {len(digests):,} bytes, expected {32 * expected:,}")
    found: dict[str, ChunkedFile] = {}
    start = 0
    for path, sha256, size in listed:
        end = start + -(-size // CHUNK_BYTES) * _DIGEST_BYTES
        found[path] = ChunkedFile(path, sha256, size, digests[start:end])
        start = end
    return found


def _read(fd: int, count: int) -> bytes:
    """As many bytes as there are up to a count: the system may give fewer at a time."""
    pieces: list[bytes] = []
    while count and (piece := os.read(fd, count)):
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


def seen(samples: int, damaged: float) -> float:
    """The probability that at least one of so many random chunks is damaged, when that fraction of all chunks is.

    >>> round(seen(300, 0.01), 3)
    0.951
    """
    return float(1 - (1 - damaged) ** samples)

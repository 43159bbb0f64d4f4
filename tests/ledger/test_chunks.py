"""ledger.chunks: what a reader of a few MiB compares them with."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from ledger.chunks import CHUNK_BYTES, chunks_of, parse, seen
from ledger.errors import ProofError
from store.digest import Digest
from store.errors import PathError, StoreError


@pytest.fixture
def weights(tmp_path: Path) -> dict[str, Path]:
    contents = {"b.gguf": bytes(range(256)) * (CHUNK_BYTES // 128) + b"tail", "a/model.safetensors": b"small", "empty.bin": b""}
    for name, data in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return {name: tmp_path / name for name in contents}


def test_every_chunk_of_every_file_is_told_from_any_other(weights: dict[str, Path]) -> None:
    """The last chunk is as long as what is left; other bytes, other lengths and other places do not fit."""
    found = parse(chunks_of(weights))
    assert {path: one.count for path, one in found.items()} == {"a/model.safetensors": 1, "b.gguf": 3, "empty.bin": 0}
    data = weights["b.gguf"].read_bytes()
    one = found["b.gguf"]
    assert (one.sha256, one.size) == (Digest.of(data), len(data))
    for number in range(one.count):
        start, length = one.bounds(number)
        piece = data[start : start + length]
        assert one.fits(number, piece)
        assert not one.fits(number, piece[:-1])
        assert not one.fits(number, piece[:-1] + b"?")
    assert one.bounds(2) == (2 * CHUNK_BYTES, 4)
    assert not one.fits(2, data[:CHUNK_BYTES])


def test_the_bytes_are_those_that_the_format_says(weights: dict[str, Path]) -> None:
    """One line of canonical JSON, then the digests; the order in which the files are named does not matter."""
    data = chunks_of({"x.gguf": weights["a/model.safetensors"]})
    digest = hashlib.sha256(b"small")
    listed = f'{{"path":"x.gguf","sha256":"{digest.hexdigest()}","size":5}}'
    header = f'{{"chunkBytes":1048576,"files":[{listed}],"format":"urn:alloy-ledger:chunks:v1"}}'
    assert data == header.encode() + b"\n" + digest.digest()
    assert chunks_of(weights) == chunks_of(dict(reversed(weights.items())))


def test_every_change_of_one_byte_is_refused_or_changes_what_is_expected(weights: dict[str, Path]) -> None:
    """No damage passes as the same list."""
    data = chunks_of({"x.gguf": weights["a/model.safetensors"]})
    whole = parse(data)
    for place in range(len(data)):
        changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        try:
            assert parse(changed) != whole
        except ProofError:
            continue


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}\n",
        b"\x80\n",
        b'{"chunkBytes":1048576,"files":[],"format":"urn:alloy-ledger:chunks:v1"}',
        b'{"chunkBytes":1048576,"files":[],"format":"urn:alloy-ledger:chunks:v2"}\n',
        b'{"chunkBytes":1048576,"files":[{}],"format":"urn:alloy-ledger:chunks:v1"}\n',
        b'{"chunkBytes":1048576,"files":[],"format":"urn:alloy-ledger:chunks:v1"}\n' + 32 * b"x",
        b'{"chunkBytes":1048576,"files":[{"path":"../x","sha256":"%s","size":0}],"format":"urn:alloy-ledger:chunks:v1"}\n' % (64 * b"a"),
        b'{"chunkBytes":1048576,"files":[{"path":"x","sha256":"%s","size":-1}],"format":"urn:alloy-ledger:chunks:v1"}\n' % (64 * b"a"),
        b'{"chunkBytes":1048576,"files":[{"path":"x","sha256":"%s","size":1}],"format":"urn:alloy-ledger:chunks:v1"}\n' % (64 * b"a"),
        b'{"chunkBytes":1048576,"files":[{"path":"x","sha256":"%s","size":true}],"format":"urn:alloy-ledger:chunks:v1"}\n' % (64 * b"a"),
    ],
)
def test_what_is_no_list_of_chunks_is_refused(data: bytes) -> None:
    """Of whatever form."""
    with pytest.raises(ProofError):
        parse(data)


def test_names_and_places_of_files_are_checked(tmp_path: Path) -> None:
    """A name that leads out of its folder, and a folder, are refused."""
    (tmp_path / "x").write_bytes(b"x")
    with pytest.raises(StoreError):
        chunks_of({"../x": tmp_path / "x"})
    with pytest.raises(PathError):
        chunks_of({"x": tmp_path})


def test_the_bound_is_that_of_the_page() -> None:
    """300 samples see damage of 1 % with 95 %; all that is damaged is always seen."""
    assert f"{seen(300, 0.01):.1%}" == "95.1%"
    assert seen(1, 1.0) == 1
    assert seen(0, 0.5) == 0

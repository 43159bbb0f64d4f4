import dataclasses
import struct
from pathlib import Path

import pytest

from stages.errors import InputError
from stages.nll import Nll
from stages.tokens import pack, unpack
from store.digest import Digest

EXAMPLE = Nll(
    n_ctx=8,
    chunks=2,
    bos=1,
    kv="F32",
    flash=False,
    resolution="token",
    tokens=Digest.of(b"t"),
    toolchains=("cyllama 0.2.18",),
    values=(0.5, 1.25, 2.0, 3.0, 0.0, 7.5),
)


def test_an_nll_file_reads_back() -> None:
    """Values and everything that says what they are survive the round trip; values start at a multiple of 8 bytes."""
    data = EXAMPLE.to_bytes()
    assert Nll.parse(data) == EXAMPLE
    assert (len(data) - 8 * len(EXAMPLE.values)) % 8 == 0


def test_every_truncation_of_an_nll_file_is_refused() -> None:
    """A cut file is never taken for a shorter one, nor one with bytes behind it."""
    data = EXAMPLE.to_bytes()
    for length in range(len(data)):
        with pytest.raises(InputError):
            Nll.parse(data[:length])
    with pytest.raises(InputError, match="bytes, expected"):
        Nll.parse(data + bytes(8))


def test_a_broken_model_is_not_written_down() -> None:
    """NaN and infinity are refused, with the place."""
    with pytest.raises(InputError, match="scored token 4"):
        dataclasses.replace(EXAMPLE, values=(0.5, 1.0, 1.0, 1.0, float("nan"), 1.0)).to_bytes()


@pytest.mark.parametrize(
    ("old", "new"), [(b'"chunks":2', b'"chunks":3'), (b'"first":4', b'"first":3'), (b'"n_ctx"', b'"n_ctY"'), (b"token", b"tokem")]
)
def test_a_header_that_does_not_fit_is_refused(old: bytes, new: bytes) -> None:
    """Fields that are unknown or contradict the length are refused."""
    with pytest.raises(InputError, match="nll file"):
        Nll.parse(EXAMPLE.to_bytes().replace(old, new, 1))


def test_tokens_are_int32_little_endian() -> None:
    """The token file is the ids and nothing else; a block is a slice."""
    assert pack([1, 258]) == b"\x01\0\0\0\x02\x01\0\0"
    assert unpack(pack([1, 2, 3])[4:8]) == (2,)


@pytest.mark.parametrize(("data", "words"), [(b"abc", "whole number"), (b"\xff\xff\xff\xff", "below zero")])
def test_other_files_are_not_tokens(data: bytes, words: str) -> None:
    """A length that is no multiple of four, or a negative id, is another kind of file."""
    with pytest.raises(InputError, match=words):
        unpack(data)


def test_a_value_that_is_not_finite_is_refused() -> None:
    """In a file as well as in memory."""
    with pytest.raises(InputError, match="not finite"):
        Nll.parse(EXAMPLE.to_bytes()[:-8] + struct.pack("<d", float("inf")))


def test_the_documents_example_is_this_format() -> None:
    """The dump and the digest in docs/formats/nll.md are those of the file that they describe."""
    text = (Path(__file__).parents[2] / "docs" / "formats" / "nll.md").read_text()
    dump = text.split("```")[1]
    data = bytes.fromhex("".join(line[6:53] for line in dump.strip().splitlines()))
    assert data == EXAMPLE.to_bytes()
    assert Digest.of(data).hex in text

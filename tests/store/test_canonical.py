import hashlib
import itertools
import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from store import canonical
from store.errors import CanonicalError

VECTORS = Path(__file__).parents[1] / "vectors" / "jcs"
NAMES = sorted(path.stem for path in (VECTORS / "input").iterdir())

# Whole floats beyond 2**53 are written as integers, which are then refused; such floats do not occur in what is hashed here.
floats = st.floats(-(2.0**53) + 1, 2.0**53 - 1) | st.floats(0, 1)
scalars = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | floats | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(max_codepoint=127)), inner),
    max_leaves=20,
)


@pytest.mark.parametrize("name", NAMES)
def test_public_vectors(name: str) -> None:
    """Each public RFC 8785 input gives the published bytes, compared as bytes and as hex."""
    value = canonical.loads((VECTORS / "input" / f"{name}.json").read_bytes())
    data = canonical.dumps(value)
    assert data == (VECTORS / "output" / f"{name}.json").read_bytes()
    assert data == bytes.fromhex((VECTORS / "outhex" / f"{name}.txt").read_text())


def test_all_vectors_are_here() -> None:
    """The vectors are the six of the source."""
    assert NAMES == ["arrays", "french", "structures", "unicode", "values", "weird"]


@given(values)
def test_canonical_bytes_read_back_as_the_value(value: Any) -> None:
    """Reading canonical bytes and writing them again changes nothing."""
    data = canonical.dumps(value)
    assert canonical.dumps(canonical.loads(data)) == data
    assert json.loads(data) == value


@given(plain)
def test_the_fast_way_gives_the_same_bytes(value: Any) -> None:
    """Values without floats are encoded by Python's own encoder, to the bytes that rfc8785 gives."""
    assert canonical._is_plain(value)
    assert canonical.dumps(value) == rfc8785.dumps(value)


@given(st.dictionaries(st.text(), st.integers(0, 9)))
def test_order_does_not_matter(value: dict[str, int]) -> None:
    """The bytes do not depend on the order of insertion; keys sort by UTF-16 units, as RFC 8785 wants."""
    data = canonical.dumps(value)
    assert data == canonical.dumps(dict(reversed(value.items())))
    assert list(canonical.loads(data)) == sorted(value, key=lambda key: key.encode("utf-16-be"))


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, 2**53, -(2**53), {1: 2}, "\ud800", {"\udfff": 1}, ["\ud800"], {1, 2}, b"x"]
)
def test_what_json_cannot_carry_is_refused(value: Any) -> None:
    """NaN, infinities, inexact integers, keys that are not text, lone surrogates and other types have no canonical form."""
    with pytest.raises(CanonicalError):
        canonical.dumps(value)


def test_endless_values_are_refused() -> None:
    """A list that holds itself, and JSON nested too deeply, are errors of ours and not crashes."""
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(CanonicalError):
        canonical.dumps(endless)
    with pytest.raises(CanonicalError):
        canonical.loads(b"[" * 100_000 + b"]" * 100_000)


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf{}",
        b'{"a":1,"a":2}',
        b'[{"b":{"a":1,"a":1}}]',
        b"NaN",
        b"[Infinity]",
        b"-Infinity",
        b"1e400",
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b'"\\ud800"',
        b'{"\\udc00x":1}',
        b"",
        b"{",
        b"{} {}",
        b"'a'",
        b'"\n"',
        b"[1,]",
        b"0" + b"9" * 5000,
        "{}".encode("utf-16"),
    ],
)
def test_loose_json_is_refused(data: bytes) -> None:
    """A byte order mark, a key twice, NaN, overflow, bad UTF-8, half a character and everything else that is not strict JSON is refused."""
    with pytest.raises(CanonicalError):
        canonical.loads(data)


def test_escaped_pairs_are_characters() -> None:
    """A surrogate pair that is written as two escapes is one character."""
    assert canonical.loads(b'"\\ud83d\\ude00"') == "😀"


# --- numbers ---------------------------------------------------------------------------------------------------------------------------


def numbers(first: list[str]) -> Iterator[float]:
    """The endless sequence of the source's number generator: edge cases, 2,000 neighbours of the smallest normal number, then hashes."""
    for bits in [int(text, 16) for text in first] + [(1 << 52) + step for step in range(2000)]:
        yield struct.unpack(">d", bits.to_bytes(8, "big"))[0]
    block = bytes(32)
    while True:
        block = hashlib.sha256(block).digest()
        yield from (number for number in struct.unpack("<4d", block) if number != 0 and math.isfinite(number))


@pytest.mark.parametrize("lines", [1_000, 10_000])
def test_numbers_are_written_as_ecmascript_does(lines: int) -> None:
    """Whole files of numbers and their canonical form have the published SHA-256."""
    published = json.loads((VECTORS / "numbers.json").read_text())
    hashed = hashlib.sha256()
    for number in itertools.islice(numbers(published["first"]), lines):
        bits = int.from_bytes(struct.pack(">d", number), "big")
        hashed.update(b"%x,%b\n" % (bits, canonical.dumps(number)))
    assert hashed.hexdigest() == published["sha256"][str(lines)]

import random
import tempfile
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.cas import ManagedCas, Part, Range
from store.digest import Digest
from store.errors import RangeError
from store.local import LocalCas
from store.memory import MemoryCas
from store.splice import Recipe, cut, length

DATA = random.Random(3).randbytes(500)
OTHER = random.Random(4).randbytes(300)
SOURCES = {Digest.of(DATA): DATA, Digest.of(OTHER): OTHER}

ranges = st.sampled_from(sorted(SOURCES)).flatmap(
    lambda digest: st.tuples(st.integers(0, len(SOURCES[digest])), st.integers(0, len(SOURCES[digest]))).map(
        lambda ends: Range(digest, min(ends), abs(ends[0] - ends[1]))
    )
)
parts = st.lists(ranges | st.binary(max_size=40), max_size=12)


def joined(some: list[Part]) -> bytes:
    return b"".join(SOURCES[part.digest][part.offset :][: part.length] if isinstance(part, Range) else part for part in some)


@given(parts)
def test_a_recipe_reads_back(some: list[Part]) -> None:
    """`parse` undoes `to_bytes`; the shortest form is reached at once and stands for the same bytes."""
    recipe = Recipe.of(some)
    assert Recipe.parse(recipe.to_bytes()) == recipe
    assert Recipe.of(recipe.parts) == recipe
    assert joined(list(recipe.parts)) == joined(some)
    assert recipe.size == len(joined(some))
    assert all(length(part) for part in recipe.parts)
    assert not any(isinstance(one, bytes) and isinstance(two, bytes) for one, two in pairwise(recipe.parts))


@given(parts, st.data())
def test_a_cut_is_a_slice(some: list[Part], data: st.DataObject) -> None:
    """`cut` of parts stands for the slice of what the parts stand for."""
    whole = joined(some)
    start = data.draw(st.integers(0, len(whole)))
    count = data.draw(st.integers(0, len(whole) - start))
    assert joined(cut(some, start, count)) == whole[start : start + count]


def both(folder: str) -> list[ManagedCas]:
    return [MemoryCas(), LocalCas(Path(folder))]


@settings(max_examples=15)
@given(parts, st.lists(st.tuples(st.integers(0, 900), st.integers(0, 200)), max_size=8))
def test_every_store_reads_the_concatenation(some: list[Part], looks: list[tuple[int, int]]) -> None:
    """For any parts, any store gives the digest, the bytes, and the right bytes at every place; nested once more, too."""
    with tempfile.TemporaryDirectory() as folder:
        for cas in both(folder):
            cas.put(DATA)
            cas.put(OTHER)
            digest = cas.splice(some)
            whole = joined(some)
            assert digest == Digest.of(whole)
            assert cas.read(digest) == whole
            with cas.open(digest) as file:
                for start, count in looks:
                    file.seek(start)
                    assert file.read(count) == whole[start : start + count]
            outer = cas.splice([b"(", Range(digest, 0, len(whole)), b")"])
            assert cas.read(outer) == b"(" + whole + b")"
            assert all(not cas.is_splice(part.digest) for part in cas.parts(outer) if isinstance(part, Range))


def test_many_sources_are_read(tmp_path: Path) -> None:
    """A splice of more objects than are kept open at once reads whole, forwards and backwards."""
    cas = LocalCas(tmp_path)
    some: list[Part] = [Range(cas.put(bytes([number]) * 10), 3, 5) for number in range(100)]
    whole = b"".join(bytes([number]) * 5 for number in range(100))
    with cas.open(cas.splice(some)) as file:
        assert file.read() == whole
        for place in range(495, -1, -5):
            file.seek(place)
            assert file.read(5) == whole[place : place + 5]


def test_a_closed_reader_reads_nothing(tmp_path: Path) -> None:
    """Reading after `close`, and seeking before the start, are errors as with any file."""
    cas = LocalCas(tmp_path)
    digest = cas.splice([b"x", Range(cas.put(DATA), 0, 9)])
    file = cas.open(digest)
    assert file.readable()
    assert file.seekable()
    with pytest.raises(ValueError, match="negative"):
        file.seek(-1)
    file.close()
    with pytest.raises(ValueError, match="closed"):
        file.read()


def test_negative_ranges_are_refused() -> None:
    """A recipe has no negative offset or length."""
    with pytest.raises(RangeError, match="negative"):
        Recipe.of([Range(Digest.of(b""), -1, 2)])

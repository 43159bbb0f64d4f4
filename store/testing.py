"""CasContract: what every store must do, as tests. A store's own tests subclass it, and tell it how to look and reach inside.

class TestMemoryCas(CasContract):
def make(self, folder): return MemoryCas()
def inside(self, cas, digest): ...
def plant(self, cas, digest, data): ...
"""

from __future__ import annotations

import os
import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import pytest

from store.cas import ManagedCas, Part, Range
from store.digest import Digest
from store.errors import CorruptError, NotFoundError, PathError, RangeError, UnwritableError
from store.splice import LITERAL_MAX_BYTES

BIG = random.Random(7).randbytes(300_001)
"""More than one buffer, no multiple of anything, the same in every run."""

ABSENT = Digest.of(b"never stored")


class CasContract(ABC):
    """The promises of `store.cas.ManagedCas`."""

    @abstractmethod
    def make(self, folder: Path) -> ManagedCas:
        """An empty store."""

    @abstractmethod
    def inside(self, cas: ManagedCas, digest: Digest) -> bytes | None:
        """The bytes that are kept for a blob, not by way of the store; None if there are none."""

    @abstractmethod
    def plant(self, cas: ManagedCas, digest: Digest, data: bytes) -> None:
        """Replace the bytes that are kept for a blob, not by way of the store."""

    @pytest.fixture
    def cas(self, tmp_path: Path) -> ManagedCas:
        """An empty store."""
        return self.make(tmp_path / "store")

    @pytest.mark.parametrize("data", [b"", b"a", BIG], ids=["empty", "one byte", "big"])
    def test_what_is_put_is_read(self, cas: ManagedCas, data: bytes) -> None:
        """`put` gives the digest of the bytes; `read`, `open`, `path`, `size` and `has` agree on them."""
        digest = cas.put(data)
        assert digest == Digest.of(data)
        assert cas.read(digest) == data
        with cas.open(digest) as file:
            assert file.read() == data
        assert cas.path(digest).read_bytes() == data
        assert cas.size(digest) == len(data)
        assert cas.has(digest)
        assert self.inside(cas, digest) == data

    def test_putting_twice_is_putting_once(self, cas: ManagedCas) -> None:
        """`put` is idempotent."""
        assert cas.put(b"x") == cas.put(b"x")
        assert list(cas.list()) == [Digest.of(b"x")]

    @pytest.mark.parametrize(
        "use",
        [
            lambda cas, folder: cas.read(ABSENT),
            lambda cas, folder: cas.open(ABSENT),
            lambda cas, folder: cas.size(ABSENT),
            lambda cas, folder: cas.path(ABSENT),
            lambda cas, folder: cas.place(ABSENT, folder / "x"),
            lambda cas, folder: cas.delete(ABSENT),
            lambda cas, folder: cas.parts(ABSENT),
            lambda cas, folder: cas.stored_bytes(ABSENT),
            lambda cas, folder: cas.splice([Range(ABSENT, 0, 1)]),
            lambda cas, folder: cas.add_file(folder / "nothing"),
        ],
        ids=["read", "open", "size", "path", "place", "delete", "parts", "stored_bytes", "splice", "add_file"],
    )
    def test_what_is_not_there_is_not_found(self, cas: ManagedCas, tmp_path: Path, use: Callable[[ManagedCas, Path], object]) -> None:
        """Every use of an absent object raises NotFoundError and leaves nothing."""
        with pytest.raises(NotFoundError):
            use(cas, tmp_path)
        assert not (tmp_path / "x").exists()
        assert not cas.has(ABSENT)
        assert not cas.is_splice(ABSENT)
        assert list(cas.list()) == []

    def test_a_writer_stores_what_was_written(self, cas: ManagedCas) -> None:
        """Pieces given to a writer become one object when it is finished."""
        with cas.writer() as writer:
            assert writer.write(BIG[:100_000]) == 100_000
            writer.write(memoryview(BIG)[100_000:])
            digest = writer.finish()
        assert cas.read(digest) == BIG
        assert digest == Digest.of(BIG)

    def test_an_unfinished_writer_leaves_nothing(self, cas: ManagedCas) -> None:
        """Leaving the block without `finish`, also by an error, stores nothing."""

        def fail() -> None:
            with cas.writer() as writer:
                writer.write(b"half")
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fail()
        with cas.writer() as writer:
            writer.write(b"half")
        assert list(cas.list()) == []

    def test_a_finished_writer_is_finished(self, cas: ManagedCas) -> None:
        """After `finish`, neither writing nor finishing again is possible."""
        with cas.writer() as writer:
            writer.finish()
            with pytest.raises(ValueError, match="finished"):
                writer.write(b"more")
            with pytest.raises(ValueError, match="finished"):
                writer.finish()

    @pytest.mark.parametrize("data", [b"", b"small", BIG], ids=["empty", "small", "big"])
    def test_a_file_is_added_and_stays(self, cas: ManagedCas, tmp_path: Path, data: bytes) -> None:
        """`add_file` stores a file's bytes, reports what it read, and changes neither the file's bytes nor its mode nor its time."""
        path = tmp_path / "file"
        path.write_bytes(data)
        path.chmod(0o640)
        before = path.stat()
        seen: list[int] = []
        digest = cas.add_file(path, seen.append)
        assert (digest, cas.read(digest), sum(seen)) == (Digest.of(data), data, len(data))
        after = path.stat()
        assert (after.st_mode, after.st_mtime_ns, after.st_size) == (before.st_mode, before.st_mtime_ns, before.st_size)

    def test_a_link_is_added_as_what_it_leads_to(self, cas: ManagedCas, tmp_path: Path) -> None:
        """A symbolic link given to `add_file` stands for its target."""
        (tmp_path / "file").write_bytes(BIG)
        (tmp_path / "link").symlink_to("file")
        assert cas.read(cas.add_file(tmp_path / "link")) == BIG

    def test_take_moves_a_file_in(self, cas: ManagedCas, tmp_path: Path) -> None:
        """`take` stores the bytes and leaves nothing behind, whether or not they were here before."""
        for _ in range(2):
            path = tmp_path / "made"
            path.write_bytes(BIG)
            digest = cas.take(path)
            assert not path.exists()
            assert cas.read(digest) == BIG
        with pytest.raises(NotFoundError):
            cas.take(tmp_path / "nothing")

    def test_only_regular_files_are_added(self, cas: ManagedCas, tmp_path: Path) -> None:
        """A folder, a pipe and a circle of links are refused by name, at once."""
        (tmp_path / "folder").mkdir()
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "circle").symlink_to("circle")
        for name in ("folder", "pipe", "circle"):
            with pytest.raises(PathError, match=name):
                cas.add_file(tmp_path / name)

    def test_a_splice_reads_as_its_concatenation(self, cas: ManagedCas) -> None:
        """A splice is named by, and reads as, the bytes that it stands for; it costs far less than they do."""
        one, two = cas.put(BIG), cas.put(b"0123456789" * 10_000)
        expected = b"head" + BIG[1000:250_000] + b"" + b"4567" + BIG[:7]
        digest = cas.splice([b"head", Range(one, 1000, 249_000), b"", Range(two, 4, 4), Range(one, 9, 0), Range(one, 0, 7)])
        assert digest == Digest.of(expected)
        assert cas.read(digest) == expected
        assert cas.size(digest) == len(expected)
        assert cas.path(digest).read_bytes() == expected
        assert cas.is_splice(digest)
        assert cas.has(digest)
        assert digest in set(cas.list())
        assert cas.parts(digest) == (b"head", Range(one, 1000, 249_000), Range(two, 4, 4), Range(one, 0, 7))
        assert cas.stored_bytes(digest) <= 4096
        assert self.inside(cas, digest) is None

    def test_a_splice_is_seekable(self, cas: ManagedCas) -> None:
        """Random seeks and reads of a splice give what they give in the concatenation."""
        source = cas.put(BIG)
        parts: list[Part] = [Range(source, 5, 70_000), b"literal", Range(source, 0, 3), Range(source, 200_000, 90_000)]
        expected = BIG[5:70_005] + b"literal" + BIG[:3] + BIG[200_000:290_000]
        chance = random.Random(1)
        with cas.open(cas.splice(parts)) as file:
            for _ in range(200):
                start, count = chance.randrange(len(expected) + 10), chance.choice([0, 1, 17, 4096, 100_000])
                assert file.seek(start) == start
                assert file.read(count) == expected[start : start + count]
            assert file.seek(-5, os.SEEK_END) == len(expected) - 5
            assert file.read() == expected[-5:]
            assert file.tell() == len(expected)

    def test_a_splice_of_splices_is_made_of_blobs(self, cas: ManagedCas) -> None:
        """Ranges of splices become ranges of plain blobs, merged where they touch."""
        source = cas.put(BIG)
        inner = cas.splice([b"ab", Range(source, 10, 100)])
        outer = cas.splice([Range(inner, 1, 51), Range(inner, 52, 50), b"cd", b"ef"])
        assert cas.parts(outer) == (b"b", Range(source, 10, 100), b"cdef")
        cas.delete(inner)
        assert cas.read(outer) == b"b" + BIG[10:110] + b"cdef"

    def test_a_splice_that_is_here_already_is_itself(self, cas: ManagedCas) -> None:
        """A splice that equals a stored object, or has no ranges, is a plain blob."""
        source = cas.put(BIG)
        assert cas.splice([Range(source, 0, 100_000), Range(source, 100_000, len(BIG) - 100_000)]) == source
        literal = cas.splice([b"only ", b"literals"])
        nothing = cas.splice([Range(source, 5, 0)])
        assert [cas.is_splice(digest) for digest in (source, literal, nothing)] == [False, False, False]
        assert (cas.read(literal), cas.read(nothing)) == (b"only literals", b"")
        assert cas.parts(source) == ()

    def test_putting_what_a_splice_stands_for_keeps_the_splice(self, cas: ManagedCas, tmp_path: Path) -> None:
        """The bytes of a splice are here already: `put`, a writer and `add_file` write nothing."""
        data = b"x" + BIG[:200_000]
        digest = cas.splice([b"x", Range(cas.put(BIG), 0, 200_000)])
        (tmp_path / "file").write_bytes(data)
        assert cas.put(data) == cas.add_file(tmp_path / "file") == digest
        with cas.writer() as writer:
            writer.write(data)
            assert writer.finish() == digest
        assert cas.is_splice(digest)

    def test_long_literals_become_blobs(self, cas: ManagedCas) -> None:
        """A literal above the limit is kept once, as a blob."""
        header = BIG[: LITERAL_MAX_BYTES + 1]
        source = cas.put(b"weights")
        digest = cas.splice([header, Range(source, 0, 7)])
        assert cas.parts(digest) == (Range(Digest.of(header), 0, len(header)), Range(source, 0, 7))
        assert cas.read(digest) == header + b"weights"

    @pytest.mark.parametrize(("offset", "length"), [(0, 6), (5, 1), (-1, 2), (2, -1), (6, 0)])
    def test_a_range_must_exist(self, cas: ManagedCas, offset: int, length: int) -> None:
        """A range beyond its object, of a blob or a splice, is refused with the object's size."""
        blob = cas.put(b"12345")
        splice = cas.splice([Range(blob, 0, 3), b"xy"])
        for source in (blob, splice):
            with pytest.raises(RangeError, match="5 bytes"):
                cas.splice([Range(source, offset, length)])

    def test_a_splice_without_its_source_is_not_here(self, cas: ManagedCas) -> None:
        """When a blob is gone, its splices are neither here nor readable, and the error names the blob."""
        source = cas.put(BIG)
        digest = cas.splice([b"x", Range(source, 0, 100_000)])
        cas.delete(source)
        assert not cas.has(digest)
        for use in (cas.read, cas.path, lambda digest: cas.open(digest).read()):
            with pytest.raises(NotFoundError) as caught:
                use(digest)
            assert caught.value.digest == str(source)

    @pytest.mark.parametrize("size", [5, 300_001], ids=["small", "big"])
    def test_damage_is_never_served(self, cas: ManagedCas, tmp_path: Path, size: int) -> None:
        """Bytes that do not hash to their name raise CorruptError from every way of reading, also through a splice."""
        data = BIG[:size]
        digest = cas.put(data)
        splice = cas.splice([b"x", Range(digest, 0, size)])
        self.plant(cas, digest, data[:-1] + bytes([data[-1] ^ 1]))
        uses: list[Callable[[], object]] = [
            lambda: cas.read(digest),
            lambda: cas.open(digest),
            lambda: cas.path(digest),
            lambda: cas.place(digest, tmp_path / "out"),
            lambda: cas.read(splice),
            lambda: cas.open(splice).read(),
            lambda: cas.path(splice),
            lambda: cas.place(splice, tmp_path / "out"),
        ]
        for use in uses:
            with pytest.raises(CorruptError):
                use()
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("size", [5, 300_000], ids=["small", "big"])
    def test_placed_files_are_the_object(self, cas: ManagedCas, tmp_path: Path, size: int) -> None:
        """`place` makes a file with the bytes, of a blob or a splice, and refuses a name that is taken."""
        blob = cas.put(BIG)
        for digest in (cas.put(BIG[:size]), cas.splice([b"x", Range(blob, 0, size)])):
            target = tmp_path / digest.hex
            cas.place(digest, target)
            assert target.read_bytes() == cas.read(digest)
            with pytest.raises(UnwritableError, match="exist"):
                cas.place(digest, target)
            assert target.read_bytes() == cas.read(digest)

    def test_a_placed_file_is_not_the_store(self, cas: ManagedCas, tmp_path: Path) -> None:
        """Removing a placed file, or replacing it, leaves the object as it was."""
        digest = cas.put(BIG)
        for _ in range(2):
            cas.place(digest, tmp_path / "out")
            (tmp_path / "out").unlink()
            (tmp_path / "out").write_bytes(b"other")
            assert cas.read(digest) == BIG
            (tmp_path / "out").unlink()

    def test_deleting_removes_one_object(self, cas: ManagedCas) -> None:
        """`delete` removes that object alone, blob or splice; it can be stored again."""
        one, two = cas.put(BIG), cas.put(b"two")
        splice = cas.splice([b"x", Range(one, 0, 9)])
        cas.path(splice)
        cas.delete(splice)
        assert set(cas.list()) == {one, two}
        with pytest.raises(NotFoundError):
            cas.read(splice)
        cas.delete(two)
        assert set(cas.list()) == {one}
        assert cas.put(b"two") == two
        assert cas.read(two) == b"two"

    def test_paths_are_read_only(self, cas: ManagedCas) -> None:
        """The files that `path` names have no write permission."""
        blob = cas.put(BIG)
        for digest in (blob, cas.splice([b"x", Range(blob, 0, 9)])):
            assert cas.path(digest).stat().st_mode & 0o222 == 0

    def test_stored_bytes_say_what_deleting_frees(self, cas: ManagedCas) -> None:
        """A blob counts with about its length."""
        assert len(BIG) <= cas.stored_bytes(cas.put(BIG)) <= len(BIG) + 65_536

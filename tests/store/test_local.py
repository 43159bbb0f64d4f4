import errno
import hashlib
import multiprocessing
import os
import random
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.cas import Range
from store.digest import Digest
from store.errors import BusyError, ChangedError, CorruptError, NotFoundError, StoreError, UnstableError, UnwritableError
from store.local import SMALL_BYTES, LocalCas
from store.testing import BIG

ROOT = Path(__file__).parents[2]


@pytest.fixture
def cas(tmp_path: Path) -> LocalCas:
    return LocalCas(tmp_path / "store")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    yield from _mounted(tmp_path / "disk", ["-t", "tmpfs", "-o", "size=1m", "tmpfs"])


def _mounted(folder: Path, what: list[str]) -> Iterator[Path]:
    folder.mkdir()
    done = subprocess.run(["mount", *what, str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"needs the right to mount a small file system (run as root): {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def all_files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and not path.name.startswith("stat.sqlite")}


def old(path: Path, data: bytes = BIG) -> Path:
    """A file that was written long before it is imported."""
    path.write_bytes(data)
    time.sleep(0.15)
    return path


class TestLayout:
    def test_an_object_is_exactly_its_bytes(self, cas: LocalCas) -> None:
        """A blob is a read-only file named by its SHA-256 with a fan-out of two digits, whatever the umask; sha256sum agrees."""
        before = os.umask(0o077)
        try:
            digest = cas.put(BIG)
        finally:
            os.umask(before)
        path = cas.root / "objects" / digest.hex[:2] / digest.hex[2:]
        assert cas.blob_file(digest) == path
        assert stat.S_IMODE(path.stat().st_mode) == 0o444
        assert subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout.split()[0] == digest.hex

    def test_nothing_is_made_before_the_first_write(self, tmp_path: Path) -> None:
        """Asking an empty store creates no folder."""
        cas = LocalCas(tmp_path / "store")
        assert not cas.has(Digest.of(b""))
        assert list(cas.list()) == []
        assert not cas.root.exists()

    def test_other_files_are_not_objects(self, cas: LocalCas) -> None:
        """`list` passes over files whose names are not digests."""
        digest = cas.put(b"x")
        (cas.blob_file(digest).parent / "note.txt").write_text("")
        (cas.root / "objects" / "README").write_text("")
        assert list(cas.list()) == [digest]

    def test_closing_leaves_only_the_content(self, cas: LocalCas) -> None:
        """After `close` no scratch folder is left, and the store works on."""
        digest = cas.put(b"x")
        cas.close()
        assert all_files(cas.root) == {f"objects/{digest.hex[:2]}/{digest.hex[2:]}", "tmp/writers.lock"}
        with cas:
            assert cas.read(cas.put(b"y")) == b"y"


class TestDamage:
    def test_every_single_byte_change_is_caught(self, cas: LocalCas) -> None:
        """Whichever byte of a small object changes, and however, reading it fails; also when its times are put back."""
        digest = cas.put(b"content!")
        path = cas.blob_file(digest)
        before = path.stat()
        path.chmod(0o644)
        for place in range(8):
            for value in range(256):
                data = bytearray(b"content!")
                if data[place] == value:
                    continue
                data[place] = value
                with path.open("r+b") as file:
                    file.write(data)
                os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
                with pytest.raises(CorruptError):
                    cas.read(digest)
                if value.bit_count() == 1:
                    with pytest.raises(CorruptError):
                        cas.open(digest)
        path.write_bytes(b"content!")
        assert cas.read(digest) == b"content!"

    @pytest.mark.parametrize("change", ["truncated", "grown", "emptied"])
    def test_other_lengths_are_caught(self, cas: LocalCas, change: str) -> None:
        """A truncated, grown or emptied object is damaged."""
        digest = cas.put(BIG)
        path = cas.blob_file(digest)
        path.chmod(0o644)
        path.write_bytes({"truncated": BIG[:-1], "grown": BIG + b"\0", "emptied": b""}[change])
        for use in (cas.read, cas.open, cas.path):
            with pytest.raises(CorruptError) as caught:
                use(digest)
            assert caught.value.digest == str(digest)

    def test_putting_again_heals(self, cas: LocalCas, tmp_path: Path) -> None:
        """`put`, a writer and `add_file` replace an object that is damaged."""
        digest = cas.put(BIG)
        source = old(tmp_path / "file")

        def by_writer() -> None:
            with cas.writer() as writer:
                writer.write(BIG)
                writer.finish()

        for heal in (lambda: cas.put(BIG), by_writer, lambda: cas.add_file(source)):
            path = cas.blob_file(digest)
            path.chmod(0o644)
            path.write_bytes(b"damaged")
            heal()
            assert cas.read(digest) == BIG
            cas.delete(digest)
            cas.put(BIG)

    def test_a_recipe_that_was_tampered_with_is_caught(self, cas: LocalCas) -> None:
        """Whichever byte of a splice's recipe changes, reading the splice fails."""
        source = cas.put(BIG)
        digest = cas.splice([b"head", Range(source, 1000, 2000), b"tail", Range(source, 7, 11)])
        path = cas.recipe_file(digest)
        good = path.read_bytes()
        path.chmod(0o644)
        for place in range(len(good)):
            for value in {good[place] ^ 1, good[place] ^ 0x20, ord("0"), ord(" ")} - {good[place]}:
                with path.open("r+b") as file:
                    file.write(good[:place] + bytes([value]) + good[place + 1 :])
                with pytest.raises((CorruptError, NotFoundError)):
                    cas.open(digest).read()
                with pytest.raises((CorruptError, NotFoundError)):
                    cas.read(digest)
        path.write_bytes(good)
        assert len(cas.read(digest)) == 2019

    def test_recipes_have_one_form(self, cas: LocalCas) -> None:
        """The recipe's bytes are as docs/formats/store.md says; other JSON of the same meaning is refused."""
        source = cas.put(b"0123456789")
        digest = cas.splice([b"head", Range(source, 2, 5)])
        path = cas.recipe_file(digest)
        form = f'{{"parts":[{{"base64":"aGVhZA=="}},{{"digest":"{source}","length":5,"offset":2}}],"size":9,"type":"splice/v1"}}'
        assert path.read_text() == form
        path.chmod(0o644)
        for other in (
            form.replace('"parts"', ' "parts"'),
            form.replace("aGVhZA==", "aGVhZB=="),
            form.replace('"size":9', '"size":8'),
            form.replace("v1", "v2"),
            form.replace('"length":5,"offset":2', '"length":5.0,"offset":2'),
            form.replace('"length":5,"offset":2', '"length":-5,"offset":2'),
            form.replace('{"base64":"aGVhZA=="}', '{"base64":"aGVh"},{"base64":"ZA=="}'),
            form.replace('{"base64":"aGVhZA=="}', '{"base64":7}'),
            form.replace('{"base64":"aGVhZA=="}', "7"),
            form.replace(str(source), "sha256:1"),
            form + "\n",
            "[]",
        ):
            path.write_text(other)
            with pytest.raises(CorruptError, match="recipe"):
                cas.read(digest)

    def test_a_recipe_of_other_bytes_is_caught_everywhere(self, cas: LocalCas) -> None:
        """A recipe in perfect form that stands for other bytes is refused by every way of reading and by both kinds of check."""
        source = cas.put(BIG)
        digest = cas.splice([b"head", Range(source, 2, 70_000)])
        path = cas.recipe_file(digest)
        path.chmod(0o644)
        path.write_text(path.read_text().replace('"offset":2', '"offset":3'))
        uses = [cas.read, cas.open, cas.path]
        uses += [lambda digest, full=full: cas.check(digest, splice=True, full=full) for full in (True, False)]  # type: ignore[misc]
        for use in uses:
            with pytest.raises(CorruptError):
                use(digest)

    def test_a_touched_recipe_is_hashed_once(self, cas: LocalCas) -> None:
        """A splice whose recipe was touched is hashed again when it is opened, and known afterwards."""
        digest = cas.splice([b"x", Range(cas.put(BIG), 0, 9)])
        cas.recipe_file(digest).touch()
        time.sleep(0.15)
        assert cas.stats.lookup(cas.recipe_file(digest).stat()) is None
        cas.open(digest).close()
        assert cas.stats.lookup(cas.recipe_file(digest).stat()) == digest

    def test_a_splice_is_only_as_good_as_its_source(self, cas: LocalCas) -> None:
        """A damaged source is named, whether or not the damage lies in the range; once it is whole again, so is the splice."""
        source = cas.put(BIG)
        digest = cas.splice([b"x", Range(source, 0, 100)])
        path = cas.blob_file(source)
        path.chmod(0o644)
        path.write_bytes(BIG[:-1] + b"!")
        for use in (cas.read, cas.path, cas.open):
            with pytest.raises(CorruptError) as caught:
                use(digest)
            assert caught.value.digest == str(source)
        cas.put(BIG)
        assert cas.read(digest) == b"x" + BIG[:100]

    def test_a_materialised_splice_is_checked(self, cas: LocalCas) -> None:
        """A materialised file that was altered is written anew; it is no object of the store."""
        source = cas.put(BIG)
        digest = cas.splice([b"x", Range(source, 0, 100)])
        path = cas.path(digest)
        assert cas.path(digest) == path
        path.chmod(0o644)
        path.write_bytes(b"other")
        assert cas.path(digest).read_bytes() == b"x" + BIG[:100]
        assert set(cas.list()) == {source, digest}

    def test_an_unreadable_object_is_damaged(self, cas: LocalCas) -> None:
        """What the operating system refuses to read is reported as damage with the file's name."""
        digest = cas.put(b"x")
        cas.blob_file(digest).unlink()
        cas.blob_file(digest).symlink_to(cas.blob_file(digest).name)
        with pytest.raises(NotFoundError):
            cas.read(digest)
        cas.blob_file(digest).unlink()
        cas.blob_file(digest).mkdir()
        with pytest.raises(CorruptError):
            cas.read(digest)

    def test_a_write_during_reading_is_noticed(self, cas: LocalCas) -> None:
        """A reader whose file is written to raises instead of giving bytes of two states."""
        digest = cas.put(BIG * 4)
        path = cas.blob_file(digest)
        with cas.open(digest) as file:
            file.read(10)
            path.chmod(0o644)
            with path.open("r+b") as other:
                other.seek(800_000)
                other.write(b"!")
            file.seek(700_000)
            with pytest.raises(ChangedError):
                file.read(300_000)


class TestByReference:
    def test_a_file_on_the_same_file_system_is_not_copied(self, cas: LocalCas, tmp_path: Path) -> None:
        """A file is imported without copying, keeps its mode, and costs the store nothing."""
        path = old(tmp_path / "file")
        path.chmod(0o664)
        digest, copied = cas.adopt(path)
        assert not copied
        assert stat.S_IMODE(path.stat().st_mode) == 0o664
        if path.stat().st_nlink == 2:
            assert cas.blob_file(digest).samefile(path)
            assert cas.stored_bytes(digest) == 0

    def test_small_files_are_copied(self, cas: LocalCas, tmp_path: Path) -> None:
        """Below 64 KiB the object is a copy of its own; importing the file again copies nothing."""
        path = old(tmp_path / "file", BIG[: SMALL_BYTES - 1])
        digest, copied = cas.adopt(path)
        assert copied
        assert path.stat().st_nlink == 1
        assert cas.adopt(path) == (digest, False)

    def test_a_changed_file_is_reported_and_never_served(self, cas: LocalCas, tmp_path: Path) -> None:
        """When a file imported by reference is altered in place, even with its mtime put back, reading names the file and gives nothing."""
        path = old(tmp_path / "file")
        digest = cas.add_file(path)
        if not cas.blob_file(digest).samefile(path):
            pytest.skip("this file system makes reflinks, so nothing can change")
        before = path.stat()
        with path.open("r+b") as file:
            file.write(b"!")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        for use in (cas.open, cas.path, cas.read):
            with pytest.raises(ChangedError, match="imported by reference") as caught:
                use(digest)
            assert str(path) in str(caught.value)
        (cas.root / "stat.sqlite").unlink()
        with pytest.raises(ChangedError, match="imported by reference"):
            LocalCas(cas.root).read(digest)

    def test_a_file_that_is_written_right_after_the_import_is_caught(self, cas: LocalCas, tmp_path: Path) -> None:
        """Also a change within the same tick of the clock as the hashing is seen: such a file is not trusted by its stat."""
        for turn in range(30):
            path = tmp_path / f"file{turn}"
            path.write_bytes(BIG + bytes([turn]))
            digest = cas.add_file(path)
            with path.open("r+b") as file:
                file.write(b"!!")
            with pytest.raises(ChangedError):
                cas.open(digest)

    def test_replacing_or_removing_the_file_harms_nothing(self, cas: LocalCas, tmp_path: Path) -> None:
        """Editors write a new file and rename it; the object then has the old bytes to itself."""
        path = old(tmp_path / "file")
        digest = cas.add_file(path)
        (tmp_path / "new").write_bytes(b"new")
        (tmp_path / "new").rename(path)
        with cas.open(digest) as file:
            assert file.read() == BIG
        assert cas.stored_bytes(digest) >= len(BIG)

    def test_importing_again_does_not_read(self, cas: LocalCas, tmp_path: Path) -> None:
        """An unchanged file that was imported is known by its stat, and the object stays trusted."""
        path = old(tmp_path / "file")
        digest = cas.add_file(path)
        cas.open(digest).close()
        for _ in range(3):
            assert cas.adopt(path) == (digest, False)
            assert cas.stats.lookup(cas.blob_file(digest).stat()) == digest

    def test_a_file_that_changes_while_it_is_read_is_refused(self, cas: LocalCas, tmp_path: Path) -> None:
        """A write during the import raises UnstableError, and nothing is stored; by reference and by copy."""
        for size in (3_000_000, 1000):
            path = old(tmp_path / "file", b"x" * size)

            def disturb(_: int, path: Path = path) -> None:
                with path.open("ab") as file:
                    file.write(b"!")

            with pytest.raises(UnstableError, match="file"):
                cas.adopt(path, disturb)
            assert list(cas.list()) == []

    def test_a_file_that_is_replaced_while_it_is_read_is_refused(self, cas: LocalCas, tmp_path: Path) -> None:
        """What was hashed is what is linked: another file that took the name meanwhile is not stored."""
        path = old(tmp_path / "file")
        other = old(tmp_path / "other", BIG[::-1])

        def swap(_: int) -> None:
            if other.exists():
                other.rename(path)

        with pytest.raises(UnstableError, match="file"):
            cas.adopt(path, swap)
        assert list(cas.list()) == []

    def test_a_file_that_is_known_is_not_read(self, cas: LocalCas, tmp_path: Path) -> None:
        """A file that the stat records know is linked unread; the progress counts it all the same."""
        cas.put(b"x")
        path = old(tmp_path / "file")
        assert cas.stats.digest_of(path) == Digest.of(BIG)
        seen: list[int] = []
        assert cas.adopt(path, seen.append) == (Digest.of(BIG), False)
        assert seen == [len(BIG)]
        assert cas.read(Digest.of(BIG)) == BIG

    def test_what_cannot_be_linked_is_copied(self, cas: LocalCas, tmp_path: Path) -> None:
        """Through a bind mount the device is the same, but links are refused: bytes are copied, in and out."""
        (tmp_path / "here").mkdir()
        for folder in _mounted(tmp_path / "mounted", ["--bind", str(tmp_path / "here")]):
            digest, copied = cas.adopt(old(folder / "file"))
            assert copied
            cas.place(digest, folder / "out")
            assert (folder / "out").read_bytes() == BIG
            assert (folder / "out").stat().st_nlink == 1

    def test_other_file_systems_are_copied_from(self, tmp_path: Path, small_disk: Path) -> None:
        """A file of another device is copied, and an export to another device too."""
        cas = LocalCas(tmp_path / "store")
        (small_disk / "file").write_bytes(BIG)
        digest, copied = cas.adopt(small_disk / "file")
        assert copied
        cas.place(digest, small_disk / "out")
        assert (small_disk / "out").read_bytes() == BIG
        splice = cas.splice([b"x", Range(digest, 0, 200_000)])
        cas.place(splice, small_disk / "splice")
        assert (small_disk / "splice").read_bytes() == b"x" + BIG[:200_000]
        assert not (cas.root / "materialised").exists()

    def test_a_users_file_is_not_linked_out_again(self, cas: LocalCas, tmp_path: Path) -> None:
        """Placing an object that is a user's own writable file makes a copy, so that editing it leaves the user's file alone."""
        path = old(tmp_path / "file")
        digest = cas.add_file(path)
        cas.place(digest, tmp_path / "out")
        (tmp_path / "out").write_bytes(b"edited")
        assert path.read_bytes() == BIG
        assert cas.read(digest) == BIG

    def test_a_placed_blob_is_read_only_or_its_own(self, cas: LocalCas, tmp_path: Path) -> None:
        """A large placed file that shares its bytes cannot be opened for writing by its owner; the object stays trusted."""
        digest = cas.put(BIG)
        cas.place(digest, tmp_path / "out")
        if (tmp_path / "out").samefile(cas.blob_file(digest)):
            assert (tmp_path / "out").stat().st_mode & 0o222 == 0
        assert cas.stats.lookup(cas.blob_file(digest).stat()) == digest


class TestStat:
    def test_an_unchanged_object_is_not_hashed_again(self, cas: LocalCas) -> None:
        """`open` and `path` of an object that was just written, or just hashed, go by its stat, in other instances too."""
        digest = cas.put(BIG)
        other = LocalCas(cas.root)
        assert other.stats.lookup(other.blob_file(digest).stat()) == digest
        time.sleep(0.15)
        cas.blob_file(digest).touch()
        assert other.stats.lookup(other.blob_file(digest).stat()) is None
        time.sleep(0.15)
        other.open(digest).close()
        assert cas.stats.lookup(cas.blob_file(digest).stat()) == digest

    def test_reading_makes_it_known(self, cas: LocalCas) -> None:
        """`read` hashes always, and records what it saw."""
        digest = cas.put(b"x")
        cas.blob_file(digest).touch()
        time.sleep(0.15)
        cas.read(digest)
        assert cas.stats.lookup(cas.blob_file(digest).stat()) == digest

    def test_deleting_the_database_costs_only_time(self, cas: LocalCas) -> None:
        """Without stat.sqlite, or with one that is no database, everything is hashed again and works."""
        digest = cas.put(BIG)
        cas.close()
        for content in (None, b"not a database" * 1000, b""):
            (cas.root / "stat.sqlite").unlink()
            if content is not None:
                (cas.root / "stat.sqlite").write_bytes(content)
            with LocalCas(cas.root) as other, other.open(digest) as file:
                assert file.read() == BIG
                assert other.put(b"y") == Digest.of(b"y")
                assert (cas.root / "stat.sqlite").read_bytes()[:6] == b"SQLite"


class TestRefusal:
    def test_a_full_disk_is_said_and_nothing_is_half_written(self, small_disk: Path, tmp_path: Path) -> None:
        """Without space, every way of writing raises UnwritableError, leaves no file, and earlier objects are whole."""
        cas = LocalCas(small_disk / "store")
        kept = cas.put(BIG)
        (tmp_path / "file").write_bytes(BIG * 4)
        before = all_files(cas.root)

        def by_writer() -> None:
            with cas.writer() as writer:
                for _ in range(8):
                    writer.write(BIG)
                writer.finish()

        for write in (lambda: cas.put(BIG * 4), by_writer, lambda: cas.add_file(tmp_path / "file")):
            with pytest.raises(UnwritableError, match="no space is left"):
                write()
            assert all_files(cas.root) == before
        splice = cas.splice([Range(kept, 0, 299_000), Range(kept, 1, 299_000), Range(kept, 2, 299_000)])
        with pytest.raises(UnwritableError, match="no space is left"):
            cas.path(splice)
        with pytest.raises(UnwritableError, match="no space is left"):
            cas.place(splice, small_disk / "out")
        assert not (small_disk / "out").exists()
        assert cas.read(kept) == BIG
        assert cas.read(cas.put(b"small")) == b"small"

    def test_a_read_only_file_system_is_said(self, tmp_path: Path) -> None:
        """A store on a read-only file system can be read; writing says what to do."""
        with LocalCas(tmp_path / "store") as cas:
            digest = cas.put(BIG)
            splice = cas.splice([b"x", Range(digest, 0, 9)])
        for folder in _mounted(tmp_path / "mounted", ["--bind", "-o", "ro", str(tmp_path / "store")]):
            for store in (LocalCas(folder), LocalCas.open_readonly(folder)):
                assert store.read(digest) == BIG
                with store.open(splice) as file:
                    assert file.read() == b"x" + BIG[:9]
                with pytest.raises(UnwritableError, match=r"read-only|may not be written"):
                    store.put(b"new")
                with pytest.raises(UnwritableError, match=r"read-only|may not be written"):
                    store.delete(digest)

    def test_open_readonly_creates_nothing(self, tmp_path: Path) -> None:
        """A read-only store trusts stats that are recorded, but neither reading nor failing to write leaves a trace."""
        with LocalCas(tmp_path / "store") as cas:
            digest = cas.put(BIG)
            splice = cas.splice([b"x", Range(digest, 0, 9)])
        before = {path: path.stat().st_mtime_ns for path in cas.root.rglob("*")}
        store = LocalCas.open_readonly(cas.root)
        assert store.stats.lookup(store.blob_file(digest).stat()) == digest
        with store.open(digest) as file:
            assert file.read() == store.read(digest) == store.path(digest).read_bytes() == BIG
        assert store.read(splice) == b"x" + BIG[:9]
        store.place(splice, tmp_path / "out")
        for write in (
            lambda: store.put(b"new"),
            lambda: store.add_file(tmp_path / "out"),
            lambda: store.splice([b"y", Range(digest, 0, 9)]),
            lambda: store.path(splice),
            lambda: store.delete(digest),
        ):
            with pytest.raises(UnwritableError, match="opened read-only"):
                write()
        store.close()
        assert {path: path.stat().st_mtime_ns for path in cas.root.rglob("*")} == before

    def test_a_folder_without_permission_is_said(self, tmp_path: Path) -> None:
        """A store in a folder that the user may not write says to check owner and mode."""
        (tmp_path / "theirs").mkdir(mode=0o555)
        if os.access(tmp_path / "theirs", os.W_OK):
            pytest.skip("root may write everywhere")
        with pytest.raises(UnwritableError, match="owner and mode"):
            LocalCas(tmp_path / "theirs" / "store").put(b"x")

    def test_other_refusals_of_the_system_are_said(self, tmp_path: Path) -> None:
        """A store whose folder is a file says so instead of a traceback."""
        (tmp_path / "store").write_text("a file")
        with pytest.raises(UnwritableError, match="could not be written"):
            LocalCas(tmp_path / "store").put(b"x")

    def test_errors_of_the_callers_block_stay_what_they_are(self, cas: LocalCas) -> None:
        """An OSError raised by the caller while it writes is not taken for the store's."""

        def fail() -> None:
            with cas.writer() as writer:
                writer.write(b"x")
                raise OSError(errno.ENOSPC, "the caller's own")

        with pytest.raises(OSError, match="the caller's own"):
            fail()


class TestManyProcesses:
    def test_many_threads_may_write_the_same_object(self, cas: LocalCas) -> None:
        """Writers of one object do not disturb each other or the readers."""
        failures: list[Exception] = []

        def work(number: int) -> None:
            try:
                for turn in range(10):
                    digest = cas.put(BIG[turn:])
                    assert cas.read(digest) == BIG[turn:]
            except (StoreError, AssertionError) as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len(list(cas.list())) == 10

    def test_a_forked_process_writes_on_its_own(self, cas: LocalCas) -> None:
        """After a fork, parent and child have their own scratch folders and database connections."""
        cas.put(b"before")
        child = multiprocessing.get_context("fork").Process(target=cas.put, args=(b"from the child",))
        child.start()
        child.join()
        assert child.exitcode == 0
        assert cas.read(Digest.of(b"from the child")) == b"from the child"
        assert cas.read(cas.put(b"after")) == b"after"

    def test_a_killed_writer_leaves_no_half_object(self, tmp_path: Path) -> None:
        """Kill -9 at random moments of writing: every object that exists is whole, and the next writer removes the leftovers."""
        code = (
            "import sys, itertools; from pathlib import Path; from store.local import LocalCas\n"
            "cas = LocalCas(Path(sys.argv[1])); print('ready', flush=True)\n"
            "for n in itertools.count(int(sys.argv[2]) * 1000):\n"
            "    digest = cas.put(n.to_bytes(8) * 40_000)\n"
            "    print(digest, flush=True)\n"
        )
        chance = random.Random(5)
        promised = set()
        for turn in range(20):
            child = subprocess.Popen(
                [sys.executable, "-c", code, tmp_path / "store", str(turn)], cwd=ROOT, stdout=subprocess.PIPE, text=True
            )
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            promised.add(Digest(child.stdout.readline().strip()))
            time.sleep(chance.random() * 0.03)
            child.send_signal(signal.SIGKILL)
            promised |= {Digest(line.strip()) for line in child.stdout.read().splitlines() if len(line) == 71}
            child.stdout.close()
            assert child.wait() == -signal.SIGKILL
        cas = LocalCas(tmp_path / "store")
        found = set(cas.list())
        assert promised <= found
        assert len(promised) >= 20
        for digest in found:
            assert hashlib.sha256(cas.blob_file(digest).read_bytes()).hexdigest() == digest.hex
        cas.put(b"next")
        cas.close()
        assert all_files(cas.root / "tmp") == {"writers.lock"}

    def test_living_writers_keep_their_files(self, cas: LocalCas) -> None:
        """Another writer that starts does not remove what a living one is writing."""
        with cas.writer() as writer:
            writer.write(b"half")
            other = LocalCas(cas.root)
            other.put(b"other")
            assert list(other.leftovers()) == []
            writer.write(b" and half")
            assert cas.read(writer.finish()) == b"half and half"

    def test_only_one_is_exclusive(self, cas: LocalCas) -> None:
        """`exclusive` is refused while somebody else has the store open for writing, and keeps new writers out."""
        other = LocalCas(cas.root)
        other.put(b"x")
        with pytest.raises(BusyError, match="being written"), cas.exclusive():
            pass
        other.close()
        with cas.exclusive():
            late = threading.Thread(target=other.put, args=(b"late",))
            late.start()
            time.sleep(0.05)
            assert not cas.has(Digest.of(b"late"))
            cas.delete(Digest.of(b"x"))
        late.join()
        assert cas.has(Digest.of(b"late"))


class TestReflinks:
    """On btrfs, XFS and the like. Where there is none, copying stands in for FICLONE: also then the object has bytes of its own."""

    @pytest.fixture
    def cloning(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """The sizes of what was cloned."""
        sizes: list[int] = []

        def clone(source: int, target: int) -> bool:
            data = os.pread(source, 1 << 30, 0)
            os.pwrite(target, data, 0)
            sizes.append(len(data))
            return True

        monkeypatch.setattr("store.files.clone", clone)
        return sizes

    def test_a_clone_is_taken_before_a_link(self, cas: LocalCas, tmp_path: Path, cloning: list[int]) -> None:
        """With reflinks an imported file is independent of its object, read-only there, and not counted as copied."""
        path = old(tmp_path / "file")
        digest, copied = cas.adopt(path)
        assert (copied, cloning) == (False, [len(BIG)])
        assert stat.S_IMODE(cas.blob_file(digest).stat().st_mode) == 0o444
        path.write_bytes(b"edited")
        with cas.open(digest) as file:
            assert file.read() == BIG
        assert cas.adopt(old(path)) == (digest, False)

    def test_a_clone_goes_out(self, cas: LocalCas, tmp_path: Path, cloning: list[int]) -> None:
        """With reflinks a placed file is writable and independent."""
        digest = cas.put(BIG)
        cas.place(digest, tmp_path / "out")
        assert cloning == [len(BIG)]
        (tmp_path / "out").write_bytes(b"edited")
        assert cas.read(digest) == BIG

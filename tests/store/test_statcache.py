import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from store.digest import Digest
from store.errors import NotFoundError, PathError, UnstableError
from store.statcache import StatCache, settled

ROOT = Path(__file__).parents[2]


@pytest.fixture
def cache(tmp_path: Path) -> StatCache:
    return StatCache(tmp_path / "stat.sqlite")


def reads(cache: StatCache, path: Path) -> tuple[Digest, int]:
    """The digest, and how many bytes had to be read for it."""
    ticks: list[int] = []
    return cache.digest_of(path, ticks.append), sum(ticks)


def test_an_unchanged_file_is_read_once(cache: StatCache, tmp_path: Path) -> None:
    """The second look at a settled file reads nothing, also from another instance and under another name."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    time.sleep(0.15)
    assert reads(cache, path) == (Digest.of(b"content"), 7)
    assert reads(cache, path) == (Digest.of(b"content"), 0)
    assert reads(StatCache(tmp_path / "stat.sqlite"), path) == (Digest.of(b"content"), 0)
    (tmp_path / "link").symlink_to(path)
    assert reads(cache, tmp_path / "link") == (Digest.of(b"content"), 0)


def test_any_change_is_seen(cache: StatCache, tmp_path: Path) -> None:
    """A change of the same length, with the mtime put back, is seen by the ctime; another file under the name too."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    time.sleep(0.15)
    cache.digest_of(path)
    before = path.stat()
    path.write_bytes(b"CONTENT")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert cache.digest_of(path) == Digest.of(b"CONTENT")
    (tmp_path / "other").write_bytes(b"another")
    (tmp_path / "other").rename(path)
    assert cache.digest_of(path) == Digest.of(b"another")


def test_a_file_that_was_just_written_is_not_trusted(cache: StatCache, tmp_path: Path) -> None:
    """A file hashed in the very moment of its writing is read again: a later write might not show in its times."""
    path = tmp_path / "file"
    for turn in range(20):
        path.write_bytes(b"%04d" % turn)
        assert cache.digest_of(path) == Digest.of(b"%04d" % turn)
    path.write_bytes(b"x")
    assert reads(cache, path)[1] == 1
    assert reads(cache, path)[1] == 1


def test_settling_takes_longer_where_the_clock_is_coarse(tmp_path: Path) -> None:
    """Times that are whole seconds tell of a file system that keeps no finer ones: two seconds are waited there."""

    class Stat:
        st_ctime_ns = st_mtime_ns = 5_000_000_000

    class Fine:
        st_ctime_ns, st_mtime_ns = 5_000_000_001, 5_000_000_000

    assert not settled(Stat(), 6_900_000_000)  # type: ignore[arg-type]
    assert settled(Stat(), 7_100_000_000)  # type: ignore[arg-type]
    assert settled(Fine(), 6_900_000_000)  # type: ignore[arg-type]
    assert not settled(Fine(), 4_000_000_000)  # type: ignore[arg-type]


def test_a_file_that_changes_meanwhile_is_refused(cache: StatCache, tmp_path: Path) -> None:
    """A write during hashing raises UnstableError."""
    path = tmp_path / "file"
    path.write_bytes(bytes(3_000_000))

    def disturb(_: int) -> None:
        with path.open("r+b") as file:
            file.write(b"!")

    with pytest.raises(UnstableError, match="file"):
        cache.digest_of(path, disturb)


def test_what_is_no_file_is_said(cache: StatCache, tmp_path: Path) -> None:
    """Nothing, and a folder, have no digest."""
    with pytest.raises(NotFoundError):
        cache.digest_of(tmp_path / "nothing")
    with pytest.raises(PathError, match="not a regular file"):
        cache.digest_of(tmp_path)


def test_a_database_that_cannot_be_used_costs_only_time(tmp_path: Path) -> None:
    """In a folder that does not exist, or read-only without a database, digests are right and nothing is created."""
    path = tmp_path / "file"
    path.write_bytes(b"x")
    time.sleep(0.15)
    for cache in (StatCache(tmp_path / "no" / "stat.sqlite"), StatCache(tmp_path / "none.sqlite", readonly=True)):
        for _ in range(2):
            assert reads(cache, path) == (Digest.of(b"x"), 1)
    assert {item.name for item in tmp_path.iterdir()} == {"file"}


def test_a_readonly_cache_reads_beside_a_writer(cache: StatCache, tmp_path: Path) -> None:
    """While another process has the database open, a read-only cache sees its rows."""
    path = tmp_path / "file"
    path.write_bytes(b"x")
    time.sleep(0.15)
    cache.digest_of(path)
    beside = StatCache(tmp_path / "stat.sqlite", readonly=True)
    assert reads(beside, path) == (Digest.of(b"x"), 0)
    beside.close()
    cache.close()
    other = StatCache(tmp_path / "stat.sqlite", readonly=True)
    other.record(path.stat(), Digest.of(b"wrong"))
    assert reads(other, path) == (Digest.of(b"x"), 0)
    other.close()
    assert {item.name for item in tmp_path.iterdir()} == {"file", "stat.sqlite"}


def test_many_processes_share_it(tmp_path: Path) -> None:
    """Four processes that start at once on a new database all record, and none fails."""
    for number in range(40):
        (tmp_path / f"f{number}").write_bytes(b"%d" % number)
    time.sleep(0.15)
    code = (
        "import sys; from pathlib import Path; from store.statcache import StatCache\n"
        "cache = StatCache(Path('stat.sqlite'))\n"
        "for n in range(int(sys.argv[1]), 40, 4): cache.digest_of(Path(f'f{n}'))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    children = [subprocess.Popen([sys.executable, "-c", code, str(n)], cwd=tmp_path, env=environment) for n in range(4)]
    assert [child.wait() for child in children] == [0, 0, 0, 0]
    cache = StatCache(tmp_path / "stat.sqlite")
    assert [reads(cache, tmp_path / f"f{n}")[1] for n in range(40)] == [0] * 40


def test_large_inode_numbers_are_kept(cache: StatCache, tmp_path: Path) -> None:
    """An inode number of 64 bits, as some file systems give, is no problem."""

    class Stat:
        st_dev, st_ino, st_size, st_mtime_ns, st_ctime_ns = 1, 2**64 - 5, 3, 4, 5

    cache.record(Stat(), Digest.of(b"x"), source="/a/file")  # type: ignore[arg-type]
    assert cache.lookup(Stat()) == Digest.of(b"x")  # type: ignore[arg-type]
    assert cache.source(Stat()) == "/a/file"  # type: ignore[arg-type]

"""ledger.git: raw objects, one ref, durable and in order. Stock git is the judge."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from ledger.errors import LogError
from ledger.git import JOINED, REF, Repository, object_id, parse_commit, parse_tree, signed_commit, tree_bytes, unsigned_commit

WHO = "alice <ledger@localhost> 1700000000 +0000"


def stock(repository: Repository, *words: str) -> str:
    """What the git program prints."""
    ran = subprocess.run(["git", "--git-dir", str(repository.path), *words], capture_output=True, text=True, check=True)
    return ran.stdout


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository.create(tmp_path / "log.git", "ledger/test")


def commit_with(repository: Repository, parent: str | None, text: bytes) -> str:
    """Write a commit with one file; gives its id."""
    tree = tree_bytes({"a": object_id("blob", text)})
    commit = unsigned_commit(object_id("tree", tree), parent, WHO, "message")
    repository.write([("blob", text), ("tree", tree), ("commit", commit)])
    return object_id("commit", commit)


def test_fresh_repository_is_one_that_git_accepts(repository: Repository) -> None:
    """An empty repository passes fsck, is bare, and its HEAD is the ledger's ref."""
    assert stock(repository, "rev-parse", "--is-bare-repository").strip() == "true"
    assert stock(repository, "symbolic-ref", "HEAD").strip() == REF
    assert repository.head() is None
    assert repository.description == "ledger/test"


@pytest.mark.parametrize("count", [1, 2, 700])
def test_written_objects_are_read_by_us_and_by_git(repository: Repository, count: int) -> None:
    """Every object comes back under its id, and git's own fsck and verify-pack find nothing to say."""
    objects = [("blob", b"%d " % number * number) for number in range(count)]
    repository.write(objects)
    repository.write(objects)
    for kind, data in objects:
        assert repository.read(object_id(kind, data), "blob") == data
    assert "error" not in stock(repository, "fsck", "--full", "--strict", "--unreachable")
    (pack,) = (repository.path / "objects/pack").glob("*.pack")
    stock(repository, "verify-pack", str(pack))


def test_sizes_of_any_length_are_packed(repository: Repository) -> None:
    """Sizes that need several bytes in a pack's header, and none at all, are written as git reads them."""
    objects = [("blob", b"x" * size) for size in (0, 1, 15, 16, 2047, 2048, 300_000)]
    repository.write(objects)
    assert all(len(stock(repository, "cat-file", "blob", object_id(*one))) == len(one[1]) for one in objects)


def packs(repository: Repository) -> list[Path]:
    return sorted((repository.path / "objects/pack").glob("pack-*.pack"))


def test_small_packs_are_joined(repository: Repository) -> None:
    """However many groups are written, the packs stay few, lose nothing, and a reader that had the old ones open goes on."""
    reader = Repository(repository.path)
    first = commit_with(repository, None, b"0")
    assert reader.read(first, "commit")
    parent, most = first, 0
    for number in range(1, 300):
        parent = commit_with(repository, parent, b"%d" % number)
        repository.join_packs()
        most = max(most, len(packs(repository)))
    repository.advance(None, parent)
    assert most < 3 * JOINED
    assert stock(repository, "rev-list", "--count", REF).strip() == "300"
    assert stock(repository, "fsck", "--full", "--strict") == ""
    assert [reader.read(object_id("blob", b"%d" % number), "blob") for number in range(300)] == [b"%d" % number for number in range(300)]


def test_only_our_own_sound_packs_are_joined(repository: Repository) -> None:
    """Packs with deltas, kept packs and damaged packs are left as they are; the rest is joined once there are enough."""
    parent = None
    for number in range(JOINED + 2):
        parent = commit_with(repository, parent, b"x" * 4000 + b"%d" % number)
    damaged, kept = packs(repository)[:2]
    data = damaged.read_bytes()
    damaged.chmod(0o644)
    damaged.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])
    kept.with_suffix(".keep").touch()
    repository.join_packs()
    assert len(packs(repository)) == 3
    assert {damaged, kept} < set(packs(repository))
    damaged.write_bytes(data)
    repository.advance(None, parent or "")
    stock(repository, "gc", "--quiet")
    assert stock(repository, "fsck", "--full", "--strict") == ""


def test_reading_what_is_not_there_says_which(repository: Repository) -> None:
    """A missing object is an error that names it."""
    with pytest.raises(LogError, match="blob aaaaaaaaaaaa cannot be read"):
        repository.read("a" * 40, "blob")


def test_reading_another_kind_is_refused(repository: Repository) -> None:
    """A blob is not taken for a commit."""
    repository.write([("blob", b"x")])
    with pytest.raises(LogError, match="is a blob; expected a commit"):
        repository.read(object_id("blob", b"x"), "commit")


def test_ref_moves_by_compare_and_swap(repository: Repository) -> None:
    """The ref moves only from where the caller thinks that it is."""
    first = commit_with(repository, None, b"1")
    second = commit_with(repository, first, b"2")
    repository.advance(None, first)
    assert repository.head() == first
    with pytest.raises(LogError, match="moved meanwhile"):
        repository.advance(None, second)
    assert repository.head() == first
    repository.advance(first, second)
    assert stock(repository, "rev-parse", REF).strip() == second
    assert not (repository.path / f"{REF}.lock").exists()


def test_ref_is_found_after_git_packed_it(repository: Repository) -> None:
    """`git gc` moves the ref into packed-refs and the objects into a pack with deltas; both are still read, and the ref still moves."""
    first = commit_with(repository, None, b"1" * 5000)
    second = commit_with(repository, first, b"1" * 5000 + b"2")
    repository.advance(None, second)
    stock(repository, "gc", "--quiet")
    assert not (repository.path / REF).exists()
    again = Repository(repository.path)
    assert again.head() == second
    assert again.read(object_id("blob", b"1" * 5000), "blob") == b"1" * 5000
    third = commit_with(again, second, b"3")
    again.advance(second, third)
    assert again.head() == third


def test_lock_left_by_a_killed_writer_of_ours_is_removed_at_once(repository: Repository) -> None:
    """A stale lock that is the same file as `ledger.new` came from one of our own writers, of which none can live now."""
    first = commit_with(repository, None, b"1")
    (repository.path / "ledger.new").write_text(first + "\n")
    os.link(repository.path / "ledger.new", repository.path / f"{REF}.lock")
    began = time.monotonic()
    repository.advance(None, first)
    assert time.monotonic() - began < 5
    assert repository.head() == first


def test_lock_of_another_program_is_waited_for(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """A young lock that is not ours is respected, an old one is taken for the leaving of a killed git."""
    first = commit_with(repository, None, b"1")
    lock = repository.path / f"{REF}.lock"
    lock.write_text("")
    ticks = iter(range(0, 1000, 6))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(ticks)))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(LogError, match="held by another git program"):
        repository.advance(None, first)
    os.utime(lock, (1, 1))
    repository.advance(None, first)
    assert repository.head() == first


def test_damaged_ref_is_an_error(repository: Repository) -> None:
    """A ref that holds no object id is said, not taken for an empty log."""
    (repository.path / REF).write_text("garbage\n")
    with pytest.raises(LogError, match="expected an object id"):
        repository.head()


def test_overrides_are_named(repository: Repository) -> None:
    """Replace refs (loose or packed), grafts, shallow marks and alternates are found."""
    assert repository.overrides() == []
    first = commit_with(repository, None, b"1")
    second = commit_with(repository, None, b"2")
    stock(repository, "replace", first, second)
    (repository.path / "info/grafts").write_text(f"{first} {second}\n")
    (repository.path / "shallow").write_text(f"{first}\n")
    (repository.path / "objects/info/alternates").write_text("/elsewhere\n")
    assert repository.overrides() == ["objects/info/alternates", "info/grafts", "shallow", f"refs/replace/{first}"]
    stock(repository, "pack-refs", "--all")
    assert f"refs/replace/{first}" in repository.overrides()


def test_replaced_and_alternate_objects_are_not_read(repository: Repository, tmp_path: Path) -> None:
    """What replace refs and alternates offer is never what we read."""
    first, second = commit_with(repository, None, b"1"), commit_with(repository, None, b"2")
    stock(repository, "replace", first, second)
    assert parse_commit(Repository(repository.path).read(first, "commit")).tree != parse_commit(repository.read(second, "commit")).tree
    other = Repository.create(tmp_path / "other.git", "x")
    other.write([("blob", b"elsewhere")])
    (repository.path / "objects/info/alternates").write_text(f"{other.path}/objects\n")
    with pytest.raises(LogError, match="cannot be read"):
        Repository(repository.path).read(object_id("blob", b"elsewhere"), "blob")


def test_commit_round_trip() -> None:
    """A signed commit is taken apart into what was put in, and into the bytes that the signature covers."""
    unsigned = unsigned_commit("a" * 40, "b" * 40, WHO, "prune 8→6")
    commit = parse_commit(signed_commit(unsigned, "-----BEGIN\nabc\n-----END\n"))
    assert (commit.tree, commit.parents, commit.author, commit.committer) == ("a" * 40, ("b" * 40,), WHO, WHO)
    assert commit.message == "prune 8→6\n"
    assert commit.signature == "-----BEGIN\nabc\n-----END\n"
    assert commit.signed == unsigned
    assert parse_commit(unsigned).signature is None


@pytest.mark.parametrize(
    "damage",
    [
        (b"author", b"encoding x\nauthor"),
        (b"committer", b"commiter"),
        (b"tree ", b"tree\t"),
        (b"\n\n", b"\n"),
        (b"tree " + b"a" * 40, b"tree " + b"A" * 40),
        (b"alice", b"\xff"),
    ],
)
def test_commit_with_anything_unexpected_is_refused(damage: tuple[bytes, bytes]) -> None:
    """Headers that we do not write, in whatever order, are not passed over."""
    data = unsigned_commit("a" * 40, None, WHO, "m").replace(*damage, 1)
    with pytest.raises(LogError):
        parse_commit(data)


@pytest.mark.parametrize(
    "data",
    [
        b"100755 a\0" + bytes(20),
        b"40000 a\0" + bytes(20),
        b"100644 a\0" + bytes(19),
        b"100644 b\0" + bytes(20) + b"100644 a\0" + bytes(20),
        b"100644 a\0" + bytes(20) + b"100644 a\0" + bytes(20),
        b"100644",
    ],
)
def test_tree_of_anything_but_sorted_plain_files_is_refused(data: bytes) -> None:
    """Modes, order, repetition and truncation are faults."""
    with pytest.raises(LogError):
        parse_tree(data)


def test_sha256_and_reftable_repositories_are_refused(tmp_path: Path) -> None:
    """A repository in a format that we would misread is refused with the reason."""
    subprocess.run(["git", "init", "-q", "--bare", "--object-format=sha256", str(tmp_path / "r.git")], check=True)
    with pytest.raises(LogError, match="SHA-256 object names"):
        Repository(tmp_path / "r.git")


def test_nothing_there_and_something_there_are_errors(tmp_path: Path) -> None:
    """Opening nothing and creating over something are refused."""
    with pytest.raises(LogError, match="no git repository"):
        Repository(tmp_path / "log.git")
    Repository.create(tmp_path / "log.git", "x")
    with pytest.raises(LogError, match="exists already"):
        Repository.create(tmp_path / "log.git", "x")

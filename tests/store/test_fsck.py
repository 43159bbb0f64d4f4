import subprocess
import sys
import time
from pathlib import Path

import pytest

from store import fsck, tree
from store.cas import Range
from store.digest import Digest
from store.errors import CorruptError
from store.local import LocalCas
from store.memory import MemoryCas
from store.testing import BIG
from store.tree import Tree, TreeEntry

ROOT = Path(__file__).parents[2]


class Content:
    """A store with a blob, a splice of it, a tree of both, and something that nothing needs."""

    def __init__(self, folder: Path) -> None:
        self.cas = LocalCas(folder / "store")
        self.blob = self.cas.put(BIG)
        self.splice = self.cas.splice([b"header", Range(self.blob, 0, 1000)])
        entries = [TreeEntry("a", self.blob, len(BIG)), TreeEntry("b", self.splice, 1006)]
        self.tree = self.cas.put(Tree.of(entries).to_bytes())
        self.lost = self.cas.put(b"lost")

    def found(self, *, full: bool = True, roots: tuple[Digest, ...] = ()) -> list[tuple[str, Digest | None, tuple[Digest, ...]]]:
        return [(item.kind, item.digest, item.dependents) for item in fsck.check(self.cas, jobs=2, full=full, roots=roots)]


@pytest.fixture
def content(tmp_path: Path) -> Content:
    return Content(tmp_path)


def overwrite(path: Path, data: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(data)


@pytest.mark.parametrize("full", [True, False])
def test_a_whole_store_has_no_findings(content: Content, full: bool) -> None:
    """Nothing is found in a store that is whole, roots included, and progress ends at the total."""
    seen: list[tuple[int, int]] = []
    assert list(fsck.check(content.cas, full=full, roots=[content.tree], progress=lambda *at: seen.append(at))) == []
    assert seen[-1][0] == seen[-1][1]
    assert list(fsck.check(LocalCas(content.cas.root / "nowhere"), full=full)) == []


@pytest.mark.parametrize("full", [True, False])
def test_damage_is_named_with_what_depends_on_it(content: Content, full: bool) -> None:
    """A damaged blob is named once, with the splices and trees that need it."""
    overwrite(content.cas.blob_file(content.blob), BIG[:-1])
    assert content.found(full=full) == [("damaged", content.blob, tuple(sorted([content.splice, content.tree])))]


def test_only_full_checks_see_what_no_stat_tells(content: Content) -> None:
    """A disk that changed bytes without telling (here: a row that lies) is found by a full check."""
    path = content.cas.blob_file(content.lost)
    overwrite(path, b"LOST")
    content.cas.stats.record(path.stat(), content.lost)
    assert content.found(full=False) == []
    assert content.found(full=True) == [("damaged", content.lost, ())]


def test_every_single_byte_change_is_found(content: Content) -> None:
    """Whichever byte of a small blob, of a tree or of a recipe changes, a check finds it."""
    for path in (content.cas.blob_file(content.lost), content.cas.blob_file(content.tree), content.cas.recipe_file(content.splice)):
        good = path.read_bytes()
        path.chmod(0o644)
        for place in range(len(good)):
            with path.open("r+b") as file:
                file.write(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
            assert len(content.found(full=False)) == 1, place
        path.write_bytes(good)
        assert content.found(full=False) == []


def test_several_faults_are_all_named(content: Content) -> None:
    """A damaged tree, a damaged recipe, a lost source, misnamed files: each is a finding of its kind with its path."""
    cas = content.cas
    other = cas.put(b"other" * 100)
    spliced = cas.splice([b"x", Range(other, 0, 5)])
    cas.delete(other)
    overwrite(cas.blob_file(content.tree), b"{}")
    overwrite(cas.recipe_file(content.splice), b"{}")
    (cas.root / "objects" / "README").write_text("")
    (cas.root / "objects" / "ab").mkdir(exist_ok=True)
    (cas.root / "objects" / "ab" / "cd").write_text("")
    (cas.root / "splices" / "abc").mkdir()
    (cas.root / "splices" / "abc" / ("0" * 61)).write_text("")
    found = list(fsck.check(cas))
    kinds = sorted((item.kind, item.digest) for item in found if item.digest)
    assert kinds == sorted([("damaged", content.tree), ("damaged", content.splice), ("missing", other)])
    assert next(item for item in found if item.digest == other).dependents == (spliced,)
    assert {str(item.path) for item in found if item.kind == "misnamed"} == {
        str(cas.root / name) for name in ("objects/README", "objects/ab/cd", f"splices/abc/{'0' * 61}")
    }
    assert all(item.text for item in found)


def test_a_changed_import_is_told_from_damage(content: Content, tmp_path: Path) -> None:
    """A file imported by reference that was written to is `changed`, and the text names it."""
    path = tmp_path / "weights"
    path.write_bytes(BIG * 2)
    time.sleep(0.15)
    digest = content.cas.add_file(path)
    if not content.cas.blob_file(digest).samefile(path):
        pytest.skip("this file system makes reflinks, so nothing can change")
    with path.open("r+b") as file:
        file.write(b"!")
    (finding,) = fsck.check(content.cas)
    assert (finding.kind, finding.digest) == ("changed", digest)
    assert str(path) in finding.text


def test_roots_must_be_here(content: Content) -> None:
    """What a root needs and is not here is missing, with what needs it."""
    content.cas.delete(content.splice)
    absent = Digest.of(b"absent")
    assert content.found() == []
    assert content.found(roots=(content.tree, absent)) == sorted(
        [("missing", content.splice, (content.tree,)), ("missing", absent, ())], key=lambda item: str(item[1])
    )


def test_leftovers_of_a_killed_process_are_stray(content: Content) -> None:
    """Files that a killed writer left are listed; those of living writers are not."""
    code = (
        "import os, sys; from pathlib import Path; from store.local import LocalCas\n"
        "with LocalCas(Path(sys.argv[1])).writer() as writer: writer.write(b'half'); os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, content.cas.root], cwd=ROOT, check=False)
    with content.cas.writer() as writer:
        writer.write(b"living")
        (finding,) = fsck.check(content.cas)
        assert (finding.kind, finding.digest) == ("stray", None)
        assert finding.path is not None
        assert finding.path.read_bytes() == b"half"
    with LocalCas(content.cas.root) as other:
        other.put(b"next")
    assert list(fsck.check(content.cas)) == []


def test_reachability_goes_through_trees_and_splices(content: Content) -> None:
    """A tree reaches its files, and those that are splices their blobs; the rest is garbage with its size."""
    cas = content.cas
    assert fsck.reachable(cas, [content.tree]) == {content.tree, content.splice, content.blob}
    assert fsck.reachable(cas, [content.splice]) == {content.splice, content.blob}
    assert fsck.reachable(cas, []) == set()
    assert fsck.garbage(cas, [content.tree]) == [(content.lost, cas.stored_bytes(content.lost))]
    assert {digest for digest, _ in fsck.garbage(cas, [content.splice])} == {content.lost, content.tree}


def test_garbage_goes_in_an_order_that_strands_nothing(content: Content) -> None:
    """Splices come before the blobs that they need."""
    order = [digest for digest, _ in fsck.garbage(content.cas, [])]
    assert order[0] == content.splice
    assert set(order) == set(content.cas.list())


def test_files_that_look_like_trees_are_not_followed() -> None:
    """A file of a tree whose bytes are themselves a tree reaches nothing; as a root it does."""
    cas = MemoryCas()
    leaf = cas.put(b"leaf")
    inner = cas.put(Tree.of([TreeEntry("leaf", leaf, 4)]).to_bytes())
    outer = cas.put(Tree.of([TreeEntry("inner", inner, cas.size(inner))]).to_bytes())
    assert fsck.reachable(cas, [outer]) == {outer, inner}
    assert fsck.reachable(cas, [outer, inner]) == {outer, inner, leaf}


def test_a_damaged_root_stops_the_collection(content: Content) -> None:
    """When a root tree is damaged nobody knows what it needs, so nothing is called garbage; a missing one reaches only itself."""
    absent = Digest.of(b"absent")
    assert absent in fsck.reachable(content.cas, [absent, content.tree])
    overwrite(content.cas.blob_file(content.tree), b"{}")
    with pytest.raises(CorruptError):
        fsck.garbage(content.cas, [content.tree])


def test_collected_stores_stay_whole(content: Content, tmp_path: Path) -> None:
    """After deleting the garbage, everything that the roots need is readable."""
    with content.cas.exclusive():
        for digest, _ in fsck.garbage(content.cas, [content.tree]):
            content.cas.delete(digest)
    tree.export(content.cas, content.tree, tmp_path / "out")
    assert (tmp_path / "out" / "b").read_bytes() == b"header" + BIG[:1000]
    assert list(fsck.check(content.cas, full=True, roots=[content.tree])) == []

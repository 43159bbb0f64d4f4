"""A store into which somebody wrote, and ledgers whose notes would make us write where we should not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from store import files, fsck, tree
from store.cas import Range
from store.digest import Digest
from store.errors import CorruptError, NotFoundError, UnstableError
from store.local import LocalCas
from store.statcache import StatCache
from tests.cli.conftest import Desk


def rewrite(file: Path, data: bytes) -> None:
    file.chmod(0o644)
    file.write_bytes(data)


@pytest.fixture
def spliced(tmp_path: Path) -> tuple[LocalCas, Digest, Digest]:
    """A store with one splice: (store, the splice, its source)."""
    store = LocalCas(tmp_path / "store")
    source = store.put(b"0123456789" * 10_000)
    return store, store.splice([b"head", Range(source, 10, 20)]), source


@pytest.mark.parametrize(
    ("old", "new"),
    [('"offset":10', '"offset":11'), ('"length":20', '"length":200020'), ('"offset":10', '"offset":10000000')],
)
def test_recipe_that_lies(spliced: tuple[LocalCas, Digest, Digest], old: str, new: str) -> None:
    """A recipe that stands for other bytes, or for bytes that are nowhere, is damage: by every way to read it, and for fsck."""
    store, digest, _ = spliced
    recipe = json.loads(store.recipe_file(digest).read_bytes().replace(old.encode(), new.encode()))
    recipe["size"] = 4 + recipe["parts"][1]["length"]
    rewrite(store.recipe_file(digest), json.dumps(recipe, sort_keys=True, separators=(",", ":")).encode())
    for read in (store.read, store.open, store.path, lambda name: store.check(name, splice=True, full=False)):
        with pytest.raises(CorruptError):
            read(digest)
    assert [(item.kind, item.digest) for item in fsck.check(store)] == [("damaged", digest)]


def test_materialised_copy_that_was_replaced(spliced: tuple[LocalCas, Digest, Digest]) -> None:
    """The file that stands for a splice is derived: one that somebody wrote is made anew, whatever its size and mtime."""
    store, digest, _ = spliced
    file = store.path(digest)
    rewrite(file, b"x" * file.stat().st_size)
    assert store.path(digest).read_bytes() == b"head" + b"0123456789" * 2


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", "a//b", "C:x", "a\\b", "nul", "a\n"])
def test_tree_that_climbs_out(tmp_path: Path, path: str) -> None:
    """A stored tree with such a name is no tree, so nothing of it is written anywhere."""
    store = LocalCas(tmp_path / "store")
    file = store.put(b"x")
    lie = json.dumps(
        {"entries": [{"digest": str(file), "path": path, "size": 1}], "type": "tree/v1"}, separators=(",", ":"), ensure_ascii=False
    )
    digest = store.put(lie.encode())
    assert not tree.is_tree(store, digest)
    with pytest.raises(Exception, match="cannot be in a tree"):
        tree.export(store, digest, tmp_path / "out")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["store"]


def test_run_whose_outputs_have_paths_for_names(done: Desk) -> None:
    """`runs/` comes with a ledger and is signed by nobody: what it calls an output becomes the name of one file, never a path."""
    digest = done.ok("show", "shouting", "--json").json["outputs"][0]["digest"]
    outputs = {"quant[../../..]": {"gguf-../../x": digest}, "prune[/../../y]": {"model": digest}, ".": {"gguf-/tmp/z": digest}}
    run = {"recipe": "trap", "state": "done", "startedOn": "9", "outputs": outputs}
    (done.ledger / "runs/trap.json").write_text(json.dumps(run))
    before = {path for path in done.root.rglob("*") if "trapped" not in path.parts}
    done.ok("export", "trap", "trapped")
    made = sorted(path.name for path in (done.folder / "trapped").iterdir())
    assert made == ["model-_.._.._y", "trap-.._.._..-.._.._x.gguf", "trap-_tmp_z.gguf"]
    made_elsewhere = {path for path in done.root.rglob("*") if "trapped" not in path.parts} - before
    assert all(path.name.startswith("stat.sqlite") for path in made_elsewhere)


def test_file_that_is_replaced_while_it_is_hashed(tmp_path: Path) -> None:
    """The digest is of the file that lies there when the hashing ends, or there is none: written to, renamed over, or removed."""
    target, other = tmp_path / "model.gguf", tmp_path / "other"

    def during(change: Callable[[], object]) -> files.Tick:
        def tick(_: int) -> None:
            if target.exists():
                change()

        return tick

    def written() -> None:
        with target.open("r+b") as file:
            file.write(b"evil")

    def renamed() -> None:
        other.write_bytes(b"e" * 3_000_000)
        other.rename(target)

    for change in (written, renamed, target.unlink):
        target.write_bytes(b"x" * 3_000_000)
        for hashed in (files.hash_file, StatCache(tmp_path / "stat.sqlite").digest_of):
            with pytest.raises((UnstableError, NotFoundError)):
                hashed(target, during(change))
            target.write_bytes(b"x" * 3_000_000)

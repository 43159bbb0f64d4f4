"""What is kept and what goes: export, pin, gc, fsck."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.names import Run, deliverables
from stages.leases import shared_with_gc
from store import tree
from store.digest import Digest
from store.local import LocalCas
from tests.cli.conftest import Desk


def objects(desk: Desk) -> set[str]:
    return {path.parent.name + path.name for path in (desk.ledger / "objects").rglob("*") if path.is_file()}


def model(desk: Desk) -> Digest:
    """A model tree in the store, given to the finished run as its model, and two GGUF files."""
    folder = desk.root / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights" * 20_000)
    store = LocalCas(desk.ledger)
    digest = tree.import_folder(store, folder)
    record = next((desk.ledger / "runs").glob("*.json"))
    value = json.loads(record.read_text())
    value["outputs"]["import-model"] = {"model": str(store.put(b"the source"))}
    value["outputs"]["expert-prune"] = {"model": str(digest)}
    value["outputs"]["quant"] = {f"gguf-{tier}": str(store.put(b"GGUF" + tier.encode())) for tier in ("F16", "Q8_0")}
    record.write_text(json.dumps(value))
    return digest


def test_export_a_recipe(done: Desk) -> None:
    """RECIPE gives a folder with the last model and every GGUF under names that tell what they are."""
    digest = model(done)
    said = done.ok("export", "shouting", "out")
    assert sorted(str(path.relative_to(done.folder / "out")) for path in (done.folder / "out").rglob("*") if path.is_file()) == [
        "model/config.json", "model/model.safetensors", "shouting-F16.gguf", "shouting-Q8_0.gguf",
    ]  # fmt: skip
    assert tree.hash_folder(done.folder / "out/model").digest == digest
    assert said.out.splitlines()[-1] == "next: ledger verify out/model · ledger verify out/shouting-F16.gguf"
    assert not list(done.folder.glob(".out*"))


def test_export_one_thing(done: Desk) -> None:
    """An output, a digest or a pin becomes the folder or file that was named; into a folder it keeps its own name."""
    digest = model(done)
    done.ok("export", "shouting:expert-prune.model", "m")
    assert (done.folder / "m/config.json").read_text() == "{}"
    done.ok("export", "shouting:gguf-F16", "x.gguf")
    assert (done.folder / "x.gguf").read_bytes() == b"GGUFF16"
    (done.folder / "there").mkdir()
    done.ok("export", "shouting:quant.gguf-Q8_0", "there")
    assert (done.folder / "there/shouting-Q8_0.gguf").is_file()
    done.ok("export", str(digest), "by-digest", "--json")
    done.ok("pin", "shouting:model", "--name", "best")
    done.ok("export", "best", "by-pin")
    assert tree.hash_folder(done.folder / "by-pin").digest == tree.hash_folder(done.folder / "by-digest").digest == digest


def test_export_never_replaces(done: Desk) -> None:
    """Something that exists at the destination is left alone: exit code 1, nothing written."""
    model(done)
    (done.folder / "out").mkdir()
    (done.folder / "out/mine.txt").write_text("mine")
    (done.folder / "file").write_text("mine")
    for target, destination in (("shouting", "out"), ("shouting:model", "out"), ("shouting:gguf-F16", "file"), ("shouting", "file")):
        said = done.type("export", target, destination)
        assert (said.code, "nothing was written" in said.err) == (1, True), (target, said)
    assert [path.name for path in (done.folder / "out").iterdir()] == ["mine.txt"]
    assert (done.folder / "file").read_text() == "mine"
    assert done.type("export", "nothing", "somewhere").code == 2


def test_a_damaged_object_is_never_exported(done: Desk) -> None:
    """Exit code 4, the object is named, and nothing is left at the destination."""
    digest = done.ok("show", "0", "--json").json["outputs"]["text"]
    file = done.ledger / "objects" / digest[7:9] / digest[9:]
    file.chmod(0o644)
    file.write_bytes(b"JELLO!!! 0")
    said = done.type("export", digest, "out.txt")
    assert (said.code, digest in said.err) == (4, True)
    assert not (done.folder / "out.txt").exists()


def test_variants_have_files_of_their_own() -> None:
    """The models of a matrix are told apart by their variant."""
    one, two = Digest.of(b"1"), Digest.of(b"2")
    outputs = {"prune[keep=7]": {"model": one}, "prune[keep=6]": {"model": two}, "quant[keep=6]": {"gguf-F16": two}}
    run = Run("id", "name", "done", "", None, outputs, (), {})
    assert deliverables(run) == {"model-keep=6": two, "model-keep=7": one, "name-keep=6-F16.gguf": two}


def test_pins(done: Desk) -> None:
    """A pin keeps an object under a name; names are not reused for other objects, and what is not there cannot be pinned."""
    assert done.ok("pin").out.startswith("nothing is pinned")
    done.ok("pin", "shouting:acme-shout.text", "--name", "first")
    done.ok("pin", "shouting:acme-shout.text", "--name", "first")
    assert done.type("pin", "shouting:acme-fan.total", "--name", "first").code == 2
    assert done.ok("pin", "--json").json["pins"].keys() == {"first"}
    assert "pinned as first" in done.ok("show", "first").out
    for name in ("../x", "", "beef"):
        assert done.type("pin", "shouting", f"--name={name}").code in (0, 2)
    assert not (done.ledger / "x").exists()
    assert done.type("pin", "0" * 64).code == 2
    done.ok("unpin", "first")
    assert done.type("unpin", "first").code == 2


def test_gc_shows_first_and_deletes_when_told(done: Desk) -> None:
    """What no trusted entry and no pin needs is shown, and deleted with --delete alone; everything else stays."""
    store = LocalCas(done.ledger)
    lost, kept = store.put(b"lost"), store.put(b"pinned")
    store.close()
    done.ok("pin", str(kept), "--name", "mine")
    before = objects(done)
    said = done.ok("gc")
    assert "would delete 1 object" in said.out
    assert objects(done) == before
    facts = done.ok("gc", "--delete", "--json").json
    assert [item["digest"] for item in facts["objects"]] == [str(lost)]
    assert before - objects(done) == {lost.hex}
    assert done.ok("gc").out == "nothing to delete: everything in the store is needed\n"
    assert "6 found" in done.ok("run", "recipe.yaml").out


def test_gc_clears_away_downloads_that_were_cut_off(done: Desk) -> None:
    """What an import from the Hub left in the middle of a file is shown with its size, and goes when told."""
    unfinished = done.ledger / "unfinished"
    unfinished.mkdir()
    (unfinished / "abc").write_bytes(b"x" * 5000)
    assert done.ok("gc").out == "would delete 1 unfinished download, 5.0 kB; nothing was touched\nnext: ledger gc --delete\n"
    assert done.ok("gc", "--delete").out == "deleted 1 unfinished download, 5.0 kB\n"
    assert list(unfinished.iterdir()) == []


def test_gc_of_intermediates_keeps_results_and_changes_no_run(done: Desk) -> None:
    """What a run made on the way goes; its results stay, and the next run still finds everything."""
    before = len(objects(done))
    facts = done.ok("gc", "--intermediates", "--delete", "--json").json
    assert 0 < len(facts["objects"]) < before
    assert "6 found" in done.ok("run", "recipe.yaml").out
    assert done.ok("gc", "--intermediates").out == "nothing to delete: everything in the store is needed\n"


def test_gc_keeps_only_what_the_policy_trusts(done: Desk) -> None:
    """Entries of keys that are not trusted any more keep nothing."""
    done.ok("key", "new", "bob")
    line = done.ok("key", "export", "bob").out
    (done.ledger / "policy.yaml").write_text(f"version: 1\nkeys:\n  {line}rules:\n  - keys: [bob]\n")
    assert len(done.ok("gc", "--json").json["objects"]) == 7


def test_gc_never_runs_beside_a_run(done: Desk) -> None:
    """While a run is in progress --delete is refused: what the run made may not be recorded yet. Showing is fine."""
    LocalCas(done.ledger).put(b"lost")
    before = objects(done)
    with shared_with_gc(done.ledger / "runs"):
        said = done.type("gc", "--delete")
        assert (said.code, "a run is in progress" in said.err) == (1, True)
        done.ok("gc")
    assert objects(done) == before


def test_gc_spares_the_blobs_of_a_splice(done: Desk) -> None:
    """An object that is stored as ranges of another keeps that other."""
    from store.cas import Range

    store = LocalCas(done.ledger)
    source = store.put(b"0123456789" * 10_000)
    splice = store.splice([Range(source, 0, 70_000), b"end"])
    store.close()
    done.ok("pin", str(splice), "--name", "ranges")
    assert done.ok("gc", "--delete", "--json").json["objects"] == []
    assert LocalCas(done.ledger).read(splice).endswith(b"end")


def test_fsck_of_a_sound_ledger(done: Desk) -> None:
    """Every object and entry is as its name says."""
    assert done.ok("fsck").out == "7 objects and 7 entries: all as their names and checkpoints say\n"
    assert done.ok("fsck", "--full", "--json").json["ok"] is True


@pytest.mark.parametrize("damage", [b"JELLO!!! 0", b"", b"HELLO!!! 0 and more"])
def test_fsck_names_damage_and_what_depends_on_it(done: Desk, damage: bytes) -> None:
    """A damaged object is exit code 4, named with the entries that speak of it."""
    digest = done.ok("show", "0", "--json").json["outputs"]["text"]
    file = done.ledger / "objects" / digest[7:9] / digest[9:]
    file.chmod(0o644)
    file.write_bytes(damage)
    said = done.type("fsck")
    assert said.code == 4
    assert digest in said.out
    assert "entry 0: acme-shout" in said.out
    facts = done.type("fsck", "--json").json
    assert (facts["ok"], [item["digest"] for item in facts["findings"]]) == (False, [digest])


def test_fsck_misses_what_is_pinned_and_gone(done: Desk) -> None:
    """A pinned object that is not there is a fault."""
    done.ok("pin", "shouting:acme-shout.text", "--name", "first")
    digest = done.ok("pin", "--json").json["pins"]["first"]
    Path(done.ledger / "objects" / digest[7:9] / digest[9:]).unlink()
    said = done.type("fsck")
    assert (said.code, "missing" in said.out) == (4, True)


def test_fsck_sees_a_damaged_log(done: Desk) -> None:
    """A log that lost its newest entry is exit code 4."""
    import subprocess

    subprocess.run(["git", "-C", str(done.ledger / "log.git"), "update-ref", "refs/heads/ledger", "refs/heads/ledger~1"], check=True)
    said = done.type("fsck")
    assert said.code == 4, said

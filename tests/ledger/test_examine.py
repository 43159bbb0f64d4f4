"""ledger.examine: by which of several folders and runs an object is explained when the same bytes are in all of them."""

from __future__ import annotations

from pathlib import Path

from ledger import bundle
from ledger.claims import Carried, Claims
from ledger.examine import examine_target, holding
from ledger.locator import Expected
from ledger.report import Report, Row
from ledger.testing import append_runs, unsafe_log, unsafe_policy
from store import canonical, tree
from store.actions import Action
from store.digest import Digest
from store.memory import MemoryCas
from store.tree import Tree, TreeEntry

POLICY = unsafe_policy("alice")
BASE = Digest.of(b"base")


def proven(rows: tuple[Row, ...] | list[Row]) -> str:
    return "\n".join(row.text for row in rows if row.status == "proven")


def folder(*files: bytes) -> Tree:
    return Tree(tuple(TreeEntry(f"{data.decode()}.json", Digest.of(data), len(data)) for data in sorted(files)))


def save(path: Path, weights: bytes) -> Path:
    path.mkdir()
    (path / "config.json").write_bytes(b"{}")
    (path / "model.safetensors").write_bytes(weights)
    return path


def test_the_folder_that_is_published_is_the_first_of_those_that_hold_a_file() -> None:
    """Most of its files are listed; then the largest; then the order in which they are known."""
    config = Digest.of(b"config")
    step, control, model = folder(b"config", b"plan"), folder(b"config", b"random", b"tokens"), folder(b"config", b"pruned", b"tokens")
    listed = {Digest.of(data) for data in (b"config", b"pruned", b"tokens")}
    assert holding(config, [folder(b"other"), step, control, model], listed) == [model, control, step]
    assert holding(config, [step, control, model]) == [control, model, step]
    assert holding(Digest.of(b"nobody"), [step, control, model]) == []


def test_a_file_of_several_recorded_folders_is_told_by_the_first_that_was_made(tmp_path: Path) -> None:
    """A control run leaves the same configuration beside other weights: the older folder is followed, and that there is another is said."""
    for name, order in (("one", ("reap", "random")), ("two", ("random", "reap"))):
        store, place = MemoryCas(), tmp_path / name
        place.mkdir()
        log = unsafe_log(place)
        for strategy in order:
            made = tree.import_folder(store, save(place / strategy, strategy.encode()))
            append_runs(log, [(Action("prune", 1, {"strategy": strategy}, {"model": BASE}), {"model": made})])
        said = proven(examine_target(place / "reap" / "config.json", log, POLICY, store=store).rows)
        assert "config.json, these 2 bytes, are the file config.json of the folder" in said
        assert "1 other attested folder holds the same bytes" in said
        assert (f"strategy {order[0]}" in said, f"strategy {order[1]}" in said) == (True, False)


def test_a_file_of_an_alloy_is_told_by_the_folder_that_the_alloy_lists(tmp_path: Path) -> None:
    """The control run is older, and its folder among the alloy's results: the file is still traced to the published model."""
    store, log = MemoryCas(), unsafe_log(tmp_path)
    made = {}
    for strategy in ("random", "reap"):
        made[strategy] = tree.import_folder(store, save(tmp_path / strategy, strategy.encode()))
        append_runs(log, [(Action("prune", 1, {"strategy": strategy}, {"model": BASE}), {"model": made[strategy]})])
    lines, receipt = bundle.export(log, list(made.values()), store=store)
    files = [
        {"filename": path.name, "sha256": Digest.of(path.read_bytes()).hex, "size": path.stat().st_size}
        for path in sorted((tmp_path / "reap").iterdir())
    ]
    alloy = {
        "name": "tiny",
        "results": {
            "artifacts": [{"stage": f"prune[{name}]", "output": "model", "digest": str(digest)} for name, digest in made.items()],
            "integrity": {"fileHashes": files},
        },
        "receipt": {"ledger": receipt},
    }
    data = canonical.dumps(alloy)
    carried = Carried("tiny.alloy.json", data, b"".join(line + b"\n" for line in lines), None)
    claims = Claims("tiny.alloy.json", carried, POLICY, expected=Expected(Digest.of(data).hex))
    rows = claims.about(Digest.of(b"{}"), "config.json, 2 bytes,")
    assert rows is not None
    assert f"of the folder {made['reap'].short} (2 files); 1 other attested folder holds the same bytes" in proven(rows)
    assert "strategy random" not in proven(rows)


def test_an_object_that_two_runs_gave_names_the_other_too(tmp_path: Path) -> None:
    """One run is followed, and that the same bytes came out of another is said in the same row; of many, how many."""
    log, gguf = unsafe_log(tmp_path), Digest.of(b"GGUF")

    def report() -> Report:
        return examine_target(gguf, log, POLICY)

    append_runs(log, [(Action("quantize", 1, {"tier": "Q8_0"}, {"model": BASE}), {"gguf": gguf})])
    assert "the same bytes" not in proven(report().rows)
    append_runs(log, [(Action("copy", 1, {"tier": "any"}, {"model": BASE}), {"gguf": gguf})])
    assert "came out of quantize (tier Q8_0) (entry 0, signed by alice); the same bytes also came out of copy (tier any)" in proven(
        report().rows
    )
    append_runs(log, [(Action("copy", 1, {"tier": "more"}, {"model": BASE}), {"gguf": gguf})])
    assert "the same bytes also came out of 2 other runs" in proven(report().rows)

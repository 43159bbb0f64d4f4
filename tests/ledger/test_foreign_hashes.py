"""ledger.foreign_hashes: what an alloy of others states, told apart by the conventions that were published."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ledger.alloy import file_hash, legacy_model_hash, model_hash, receiptless_hash
from ledger.foreign import ForeignAlloy, load
from ledger.foreign_hashes import hashes
from ledger.foreign_report import examine_foreign
from ledger.hub import HubFile, Listing
from ledger.locator import Expected
from store.digest import Digest
from tests.ledger.test_foreign import EXECUTED, FORGED, MLX, OLMOE, edited
from tests.reports import texts


def _state_model_hash(stated: Digest, value: dict[str, Any]) -> None:
    value["results"]["integrity"]["modelHash"] = str(stated)


def verdicts(alloy: ForeignAlloy, **sources: Any) -> dict[str, str]:
    return {claim.where: claim.verdict for claim in hashes(alloy, **sources)}


@pytest.mark.parametrize(
    ("path", "digits"),
    [
        (OLMOE, "bba0a92ff0c8bebb3cb8cefd3702e492e60597282d70c14a489b0504ae20cf0b"),
        (FORGED, "f88ce36c70be721294ff8f34117a4369d55889a50f51cd25e9c9136cd725199b"),
        (MLX, "6ca79c62b879cd4ca09612461516202c5f5a82ccef15f3c66cf7ab3902f263ea"),
    ],
)
def test_published_codes_are_of_the_bytes_as_served(path: Path, digits: str) -> None:
    """Writing the file again, even unchanged, may give another hash."""
    assert load(path.read_bytes()).file_hash.hex == digits


def test_the_canonical_model_hash_over_three_gguf_files_is_the_published_one() -> None:
    """The three files of qwen3-coder-30b-a3b-compacted-19b-256k give the modelHash that was published with them."""
    hexes = {
        "Q4_K_M": "28e705c629bb9cfa2907bf53c3baadd31e6bafad4bb24ea3038dcf4b1dd0a5c8",
        "Q5_K_M": "0e40e39bb0f052ab6758206678e4192b79370bc3e8534c0f44a50eaa254fe24c",
        "Q8_0": "2064ffba3ddeb89bf14b1bc5759845181ad72b532db68d473cdc887c627acbe3",
    }
    named = [(f"qwen3-coder-30b-a3b-compacted-19b-256k.{kind}.gguf", Digest.parse(f"sha256:{digits}")) for kind, digits in hexes.items()]
    assert model_hash(named).hex == "cb345eb6831a9e9412549975a05971cd66e347e3c1f866b4ff0257d9e52a1046"


def test_the_canonical_model_hash_over_eleven_shards_is_the_published_one() -> None:
    """It follows from the list in the same file, which is said; a single changed digit contradicts it."""
    (claim,) = [claim for claim in hashes(load(MLX.read_bytes())) if claim.where.endswith("modelHash")]
    assert claim.stated == "deff5ceac01ef81d2e6082bd14ac51fdc2c43e1900d7801b620aaeeda385e31b"
    assert (claim.verdict, claim.why, claim.by) == ("equal", "canonical, over the 11 .safetensors files that the alloy lists", "file")

    def flip(value: dict[str, Any]) -> None:
        value["results"]["integrity"]["fileHashes"][4]["sha256"] = 64 * "0"

    report = examine_foreign(edited(MLX, flip), None)
    assert "modelHash is deff5cea" in texts(report, "failed")
    assert report.exit_code == 3


def test_the_legacy_model_hash_is_recognised_over_the_bytes(tmp_path: Path) -> None:
    """Of shards that are here, the older convention is told from the canonical one; other bytes follow neither."""
    shards = {"model-00001-of-00002.safetensors": b"one", "model-00002-of-00002.safetensors": b"two"}
    for name, data in shards.items():
        (tmp_path / name).write_bytes(data)
    legacy = legacy_model_hash({name: tmp_path / name for name in shards})
    assert legacy == Digest.of(b"onetwo")
    canonical = model_hash([(name, Digest.of(data)) for name, data in shards.items()])
    for stated, words in ((legacy, "legacy"), (canonical, "canonical")):
        alloy = load(edited(FORGED, partial(_state_model_hash, stated)))
        (claim,) = [claim for claim in hashes(alloy, folder=tmp_path) if claim.where.endswith("modelHash")]
        assert (claim.verdict, claim.why.split(",")[0], claim.by) == ("equal", words, "folder")
    assert verdicts(load(FORGED.read_bytes()), folder=tmp_path)["results.integrity.modelHash"] == "differs"
    assert verdicts(load(FORGED.read_bytes()))["results.integrity.modelHash"] == "open"


def test_a_receipt_hash_is_of_the_file_without_the_receipt() -> None:
    """One published file has two codes: of its bytes, and in its own receipt of the rest of its content."""
    alloy = load(FORGED.read_bytes())
    assert receiptless_hash(alloy.raw).hex == alloy.raw["receipt"]["alloyHash"].removeprefix("sha256:")
    found = verdicts(alloy)
    assert found["receipt.alloyHash"] == found["receipt.verifyUrl"] == "equal"
    report = examine_foreign(FORGED, Expected("857b4ca12cb7108d"))
    assert "without its receipt" in report.rows[0].text
    assert (report.rows[0].status, report.exit_code) == ("unverified", 3)


def test_a_changed_score_contradicts_the_receipt() -> None:
    """Where a file hashes itself, a change of anything but the receipt is seen."""
    data = edited(FORGED, lambda value: value["results"].update(finalPerplexity=1.5))
    report = examine_foreign(data, None)
    assert (report.verdict, report.exit_code) == ("FAILED", 3)
    assert "receipt.alloyHash is 857b4ca1" in texts(report, "failed")


def test_what_cannot_be_computed_says_what_it_needs() -> None:
    """Program, dataset, card and record hashes are left open with the reason; what is no hash at all is called that."""
    claims = {claim.where: claim for claim in hashes(load(EXECUTED.read_bytes()))}
    assert {claim.verdict for claim in claims.values()} == {"open"}
    assert "the program file that ran" in claims["results.integrity.code.binaryHash"].why
    assert "published texts disagree" in claims["results.integrity.alloyHash"].why
    for where in ("results.integrity.modelHash", "results.benchmarks[0].resultHash", "results.integrity.certifications[0].adapterHash"):
        assert "no SHA-256" in claims[where].why


def test_records_and_the_card_are_hashed_where_they_lie(tmp_path: Path) -> None:
    """A path in an alloy is followed inside of its folder and nowhere else."""
    (tmp_path / "eval/humaneval").mkdir(parents=True)
    (tmp_path / "eval/humaneval/student_samples.jsonl").write_bytes(b"{}\n")
    (tmp_path / "secret").write_bytes(b"secret")

    def rewrite(value: dict[str, Any]) -> None:
        first, second = value["results"]["benchmarks"]
        first["resultHash"] = str(Digest.of(b"{}\n"))
        second["samplesPath"], second["resultHash"] = "../secret", str(Digest.of(b"secret"))

    (tmp_path / "inner").mkdir()
    (tmp_path / "eval").rename(tmp_path / "inner/eval")
    alloy = load(edited(OLMOE, rewrite))
    found = verdicts(alloy, folder=tmp_path / "inner")
    assert found["results.benchmarks[0].resultHash"] == "equal"
    assert found["results.benchmarks[1].resultHash"] == "open"
    assert verdicts(load(OLMOE.read_bytes()), folder=tmp_path / "inner")["results.benchmarks[0].resultHash"] == "differs"


def test_other_files_beside_an_alloy_fail_only_where_the_folder_is_named(tmp_path: Path) -> None:
    """An alloy may lie anywhere, beside any README; who names the folder says that all of it is the model's."""
    (tmp_path / "README.md").write_text("something else")
    (tmp_path / "a.alloy.json").write_bytes(FORGED.read_bytes())
    beside = examine_foreign(tmp_path / "a.alloy.json", None)
    assert "README.md here has sha256:" in texts(beside, "unverified")
    assert not texts(beside, "failed")
    assert "receipt.cardHash" in texts(examine_foreign(tmp_path / "a.alloy.json", None, folder=tmp_path), "failed")


def listing(change: Callable[[list[HubFile]], list[HubFile]] = list) -> Listing:
    """What the Hub would list for the eleven shards."""
    items = json.loads(MLX.read_bytes())["results"]["integrity"]["fileHashes"]
    files = [HubFile(item["filename"], item["size"], 40 * "0", Digest.parse(f"sha256:{item['sha256']}")) for item in items]
    return Listing("org/mlx", 40 * "c", tuple(change(files)), "2026-04-08", False)


def test_the_hubs_list_settles_the_canonical_hash_and_not_the_bytes() -> None:
    """Equal lists are told as what the Hub lists; a replaced or missing shard is found."""
    report = examine_foreign(MLX.read_bytes(), Expected(file_hash(MLX.read_bytes()).hex), listing(), name="mlx.alloy.json")
    assert (report.exit_code, report.verdict.partition(";")[0]) == (0, "UNSIGNED: this alloy is the expected one")
    proven = texts(report, "proven")
    assert "canonical, over the 11 .safetensors files that the Hub lists for org/mlx" in proven
    assert "fileHashes (11 of them): computed again and equal" in proven

    replaced = listing(lambda files: [*files[:-1], HubFile(files[-1].path, 5, 40 * "0", Digest.of(b"evil!"))])
    report = examine_foreign(MLX.read_bytes(), Expected(file_hash(MLX.read_bytes()).hex), replaced)
    assert (report.exit_code, report.verdict) == (3, "FAILED")
    assert "fileHashes[10]" in texts(report, "failed")
    assert "the weight files that the Hub lists" in texts(report, "failed")
    missing = listing(lambda files: files[1:])
    assert "lists no model-00001" in texts(examine_foreign(MLX.read_bytes(), None, missing), "failed")


def test_the_hash_of_an_alloy_says_nothing_of_weights_that_it_does_not_hash(tmp_path: Path) -> None:
    """An expected alloy beside weights or code of which it has no hash, in a folder or a repository, is not worth exit code 0."""
    whole = Expected(file_hash(OLMOE.read_bytes()).hex)
    (tmp_path / "olmoe.alloy.json").write_bytes(OLMOE.read_bytes())
    assert examine_foreign(tmp_path / "olmoe.alloy.json", whole, folder=tmp_path).exit_code == 0
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/evil.bin").write_bytes(b"evil")
    report = examine_foreign(tmp_path / "olmoe.alloy.json", whole, folder=tmp_path)
    assert (report.exit_code, report.verdict.partition(",")[0]) == (3, "UNSIGNED: nobody signed this folder")
    assert "sub/evil.bin: no hash in the alloy is of these bytes" in texts(report, "unverified")

    more = listing(lambda files: [*files, HubFile("modeling_evil.py", 5, 40 * "0", None)])
    report = examine_foreign(MLX.read_bytes(), Expected(file_hash(MLX.read_bytes()).hex), more)
    assert (report.exit_code, report.verdict.partition(",")[0]) == (3, "UNSIGNED: nobody signed this repository")
    assert "modeling_evil.py" in texts(report, "unverified")


def test_what_changes_how_a_legacy_model_is_loaded_is_named(tmp_path: Path) -> None:
    """An adapter's configuration or a chat template beside weights: no hash in the alloy is of it, and it is named; documents are not."""
    whole = Expected(file_hash(OLMOE.read_bytes()).hex)
    (tmp_path / "forge-alloy.json").write_bytes(OLMOE.read_bytes())
    for name in ("model.safetensors", "adapter_config.json", "chat_template.jinja", "README.md"):
        (tmp_path / name).write_bytes(b"anything")
    said = texts(examine_foreign(tmp_path / "forge-alloy.json", whole, folder=tmp_path), "unverified")
    assert "adapter_config.json, chat_template.jinja: can change how the model is loaded" in said
    assert "model.safetensors: no hash in the alloy is of these bytes" in said
    assert "README.md" not in said
    assert "forge-alloy.json:" not in said


def test_weights_here_are_covered_by_a_hash_over_them(tmp_path: Path) -> None:
    """By the model's hash, or by the list of files, in the folder or in its `model/`."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model/a.safetensors").write_bytes(b"weights")
    hashed = model_hash([("a.safetensors", Digest.of(b"weights"))])
    data = edited(OLMOE, lambda value: value["results"]["integrity"].update(modelHash=str(hashed)))
    (tmp_path / "x.alloy.json").write_bytes(data)
    assert examine_foreign(tmp_path / "x.alloy.json", Expected(file_hash(data).hex), folder=tmp_path).exit_code == 0
    (tmp_path / "model/a.safetensors").write_bytes(b"other")
    assert examine_foreign(tmp_path / "x.alloy.json", Expected(file_hash(data).hex), folder=tmp_path).verdict == "FAILED"


def test_a_legacy_hash_is_not_judged_by_a_list() -> None:
    """A list cannot give the hash of all bytes, so that is left open and not called a contradiction."""
    found = [claim for claim in hashes(load(FORGED.read_bytes()), listing=listing()) if claim.where.endswith("modelHash")]
    assert [claim.verdict for claim in found] == ["open"]
    assert "may be the older one" in found[0].why

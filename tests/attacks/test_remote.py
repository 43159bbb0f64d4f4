"""Repositories on the Hub of somebody who wants `VERIFIED` for what was never attested: rows of the attack matrix, each by its number."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ledger.remote import Depth
from ledger.sightings import Sightings
from store.digest import Digest
from tests.hub import LoopbackHub
from tests.publications import CONFIG, GGUF, REPO, Published, audit, policy, publish
from tests.reports import texts


def test_01_two_files_of_one_size_are_swapped(hub: LoopbackHub, tmp_path: Path) -> None:
    """Both are attested, each under its own name; the listing alone shows it."""
    shards = {"model-00001-of-00002.safetensors": b"shard 1", "model-00002-of-00002.safetensors": b"shard 2"}
    made = publish(tmp_path, more=shards)
    first, second = shards
    hub.put(REPO, made.files | {first: shards[second], second: shards[first]})
    report = audit(hub)
    assert report.exit_code == 3
    assert f"{first} is not what the alloy that alice released lists" in texts(report, "failed")
    assert f"{second} is not what the alloy that alice released lists" in texts(report, "failed")


def test_01_the_right_publication_in_the_wrong_repository(hub: LoopbackHub, made: Published) -> None:
    """A copy under another name fails though every byte is attested and the hash is the expected one: it is released elsewhere."""
    hub.put("acme-models/tiny", made.files)
    report = audit(hub, f"hf:acme-models/tiny@{made.alloy}")
    assert report.exit_code == 3
    assert f"was released at hf:{REPO}, and this is hf:acme-models/tiny" in texts(report, "failed")


def test_02_an_older_publication_is_served(hub: LoopbackHub, made: Published, tmp_path: Path) -> None:
    """The hash of the newer one's QR is not met; without a QR an earlier audit is what tells."""
    newer = publish(tmp_path / "newer", change=lambda alloy: alloy["results"].update(completedAt="2024-01-01T00:00:00Z"))
    sightings = Sightings(tmp_path / "state", hub.endpoint)
    hub.put(REPO, made.files)
    audit(hub, depth=Depth(sightings=sightings))
    hub.put(REPO, newer.files)
    audit(hub, depth=Depth(sightings=sightings))
    hub.put(REPO, made.files)
    assert audit(hub, f"hf:{REPO}@{newer.alloy}").exit_code == 3
    assert "an older publication is served" in texts(audit(hub, depth=Depth(sightings=sightings)), "failed")


def test_05_the_alloy_of_one_run_with_the_attestations_of_another(hub: LoopbackHub, made: Published, tmp_path: Path) -> None:
    """Both by a trusted key, both about the same weights: the release names the alloy that belongs to it."""
    other = publish(tmp_path, change=lambda alloy: alloy["results"].update(completedAt="2024-01-01T00:00:00Z"))
    hub.put(REPO, made.files | {"tiny.alloy.json": other.files["tiny.alloy.json"]})
    report = audit(hub)
    assert report.exit_code == 3
    assert f"alice released another tiny.alloy.json: {made.alloy}; here it is {other.alloy}" in texts(report, "failed")


def test_05_an_alloy_that_was_edited_after_its_release(hub: LoopbackHub, made: Published) -> None:
    """A number, a file's git id, a note: the release is of other bytes, and leaving the release out takes the list of files away."""
    value = json.loads(made.files["tiny.alloy.json"])
    evil = b'{"model_type": "EVIL"}\n'
    from ledger.hub import git_blob_oid

    for item in value["results"]["integrity"]["fileHashes"]:
        if item["filename"] == CONFIG:
            item["gitOid"] = git_blob_oid(evil)
    edited = json.dumps(value, indent=2).encode()
    hub.put(REPO, made.files | {"tiny.alloy.json": edited, CONFIG: evil})
    assert "alice released another" in texts(audit(hub), "failed")
    lines = made.files["tiny.attestations.jsonl"].splitlines(keepends=True)
    hub.put(REPO, {"tiny.attestations.jsonl": b"".join(lines[:-1]), "tiny.tlog-proof": None})
    report = audit(hub)
    assert "(all 2 files" not in texts(report, "proven")
    assert "nobody trusted signed a release of it" in texts(report, "unverified")


def test_18_two_files_whose_hashes_begin_alike(hub: LoopbackHub, made: Published) -> None:
    """Fewer than 256 bits never verify, however many they are and whoever signed; one digit off fails."""
    hub.put(REPO, made.files)
    stranger = policy("bob", models=False)
    for digits in (8, 16, 32, 63):
        report = audit(hub, f"hf:{REPO}@sha256:{made.alloy.hex[:digits]}", trusting=stranger)
        assert report.exit_code == 3
        assert "expected" not in texts(report, "proven")
        signed = audit(hub, f"hf:{REPO}@sha256:{made.alloy.hex[:digits]}")
        assert (signed.verdict, signed.exit_code) == ("NOT VERIFIED", 3)
        file = Digest.of(made.files[GGUF]).hex[:digits]
        assert audit(hub, f"hf:{REPO}/{GGUF}@sha256:{file}").verdict == "NOT VERIFIED"
    wrong = made.alloy.hex[:-1] + ("0" if made.alloy.hex[-1] != "0" else "1")
    assert audit(hub, f"hf:{REPO}@sha256:{wrong}").exit_code == 3


@pytest.mark.parametrize(
    "name", [".cache/model.safetensors", ".git-x/pytorch_model.bin", "a/b/.hidden.gguf", "modeling.py", "adapter_config.json", "x.PKL"]
)
def test_24_a_file_where_verifiers_do_not_look(hub: LoopbackHub, made: Published, name: str) -> None:
    """No path is passed over: whatever a loader could take fails, at every level."""
    hub.put(REPO, made.files | {name: b"smuggled"})
    for depth in (Depth(), Depth(full=True)) if name == "modeling.py" else (Depth(),):
        report = audit(hub, depth=depth)
        assert report.exit_code == 3
        assert name in texts(report, "failed")


@pytest.mark.parametrize("name", [".gitattributes", "notes.md", "picture.svg"])
def test_24_a_file_that_nobody_loads_is_named(hub: LoopbackHub, made: Published, name: str) -> None:
    """It fails nothing, and it is in the table."""
    hub.put(REPO, made.files | {name: b"words"})
    report = audit(hub)
    assert report.exit_code == 0
    assert name in texts(report, "unverified")


def test_27_the_hub_lists_the_right_hash_and_serves_other_bytes(hub: LoopbackHub, made: Published) -> None:
    """A listing cannot show it, and says so; the Xet hash, samples and reading all do."""
    hub.put(REPO, made.files)
    hub.lies.wrong_bytes = {GGUF}
    listing = audit(hub)
    assert "none of them was read" in texts(listing, "unverified")
    assert listing.verdict != "VERIFIED"
    assert audit(hub, depth=Depth(spot=300)).exit_code == 3
    assert audit(hub, depth=Depth(full=True)).exit_code == 3
    hub.lies.wrong_bytes = set()
    hub.lies.wrong_xet = {GGUF}
    assert audit(hub, depth=Depth(spot=1)).exit_code == 3


def test_27_the_hub_lists_a_wrong_hash(hub: LoopbackHub, made: Published) -> None:
    """It disagrees with the release, and with git's own object."""
    hub.put(REPO, made.files)
    hub.lies.wrong_sha256 = {GGUF}
    assert len([row for row in audit(hub).rows if row.status == "failed" and GGUF in row.text]) == 2


def test_28_a_name_that_was_taken_over(hub: LoopbackHub, made: Published, tmp_path: Path) -> None:
    """The repository is another one since the last audit, whatever lies in it now."""
    sightings = Sightings(tmp_path / "state", hub.endpoint)
    hub.put(REPO, made.files)
    audit(hub, depth=Depth(sightings=sightings))
    hub.delete(REPO)
    hub.put(REPO, made.files)
    report = audit(hub, depth=Depth(sightings=sightings))
    assert report.exit_code == 3
    assert "was deleted and made anew" in texts(report, "failed")


def test_28_main_moves_to_what_nobody_attested(hub: LoopbackHub, made: Published) -> None:
    """The commit that was audited still verifies by its name; main does not."""
    commit = hub.put(REPO, made.files)
    hub.put(REPO, {GGUF: b"x" * len(made.files[GGUF])})
    assert audit(hub, f"hf:{REPO}@{commit}").exit_code == 0
    assert audit(hub).exit_code == 3


def test_statements_of_strangers_are_worth_nothing_however_many(hub: LoopbackHub, tmp_path: Path) -> None:
    """A whole publication by an unknown key, with a release, a log and a signature of its own: nothing is proven."""
    mallory = publish(tmp_path, signer="mallory")
    hub.put(REPO, mallory.files)
    for depth in (Depth(), Depth(full=True)):
        report = audit(hub, depth=depth, trusting=policy("alice", models=False))
        assert (report.verdict, report.exit_code) == ("NOT VERIFIED", 3)


def test_the_proof_of_another_release(hub: LoopbackHub, made: Published, tmp_path: Path) -> None:
    """A proof that belongs to no statement that is there fails."""
    other = publish(tmp_path, change=lambda alloy: alloy.update(version="2.0.0"))
    hub.put(REPO, made.files | {"tiny.tlog-proof": other.files["tiny.tlog-proof"]})
    assert "is about a statement that tiny.attestations.jsonl does not have" in texts(audit(hub, depth=Depth(full=True)), "failed")


def test_every_changed_byte_of_what_travels_fails(hub: LoopbackHub, made: Published) -> None:
    """Spread over the alloy and its attestations: none verifies with the expected hash, none keeps the release."""
    for name in ("tiny.alloy.json", "tiny.attestations.jsonl"):
        data = made.files[name]
        for place in range(0, len(data), len(data) // 6):
            changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
            hub.put(REPO, made.files | {name: changed})
            report = audit(hub, f"hf:{REPO}@{made.alloy}")
            assert report.exit_code == 3 or "alice signed the release" not in texts(report, "proven"), (name, place)
            if name == "tiny.alloy.json":
                assert report.exit_code == 3
            assert Digest.of(changed) != made.alloy

"""ledger.published, ledger.examine, ledger.bundle: what a stranger can prove about objects, with the ledger and without it."""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ledger import bundle, predicates, statement
from ledger.alloy import recipe_hash
from ledger.bundle import Bundle, Receipt
from ledger.entries import UNPLACED
from ledger.errors import EnvelopeError, ProofError
from ledger.examine import Examination
from ledger.locator import Expected
from ledger.log import Log
from ledger.memory import Memory
from ledger.policy import Policy
from ledger.predicates import EVALUATION
from ledger.testing import UnsafeSigner, append_runs, run_payload, unsafe_log, unsafe_policy
from ledger.verify import attestations_of, published, verify_alloy, verify_artifact, verify_beside
from store import canonical, files, tree
from store.actions import Action
from store.digest import Digest
from store.memory import MemoryCas
from tests.publications import policy as trusting
from tests.publications import publish
from tests.reports import texts

POLICY = unsafe_policy("alice")
METRICS = {
    "benchmark": "perplexity",
    "dataset": {"digest": {"sha256": "5c" * 32}},
    "metrics": {"perplexity": "43.3", "stderrClustered": "1.2"},
}


@dataclass
class World:
    """A little forge: corpus and base model -> profile -> pruned model -> GGUF -> evaluation, with everything published in a folder."""

    folder: Path
    log: Log
    store: MemoryCas
    corpus: Digest
    base: Digest
    pruned: Digest
    gguf: Digest
    report: Digest

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def alloy(self) -> Path:
        return self.out / "tiny.alloy.json"

    def edit(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Change the alloy's JSON."""
        value = json.loads(self.alloy.read_text())
        change(value)
        self.alloy.write_text(json.dumps(value, indent=2))


@pytest.fixture
def world(tmp_path: Path) -> World:
    out = tmp_path / "out"
    for name, content in {
        "model/config.json": b"{}",
        "model/model.safetensors": b"pruned weights",
        "corpus/text.txt": b"corpus",
        "tiny-Q4_K_M.gguf": b"GGUF bytes",
        "README.md": b"# tiny",
    }.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(content)
    store = MemoryCas()
    (tmp_path / "base").mkdir()
    (tmp_path / "base/config.json").write_bytes(b"{}")
    (tmp_path / "base/model.safetensors").write_bytes(b"all the weights")
    base, pruned = tree.import_folder(store, tmp_path / "base"), tree.import_folder(store, out / "model")
    corpus, gguf = store.put(b"corpus"), store.put(b"GGUF bytes")
    comparison = {"rows": ["one"]}
    report = store.put(canonical.dumps(comparison))
    profile = Action("profile-merge", 1, {"metric": "reap"}, {"model": base, "corpus": corpus})
    prune = Action("expert-prune", 1, {"keep": 6}, {"model": base, "profile": Digest.of(b"profile")})
    quant = Action("quantize", 1, {"tier": "Q4_K_M"}, {"model": pruned})
    compare = Action("compare", 1, {}, {"gguf": gguf})
    log = unsafe_log(tmp_path)
    append_runs(log, [(Action("unrelated", 1, {}, {}), {"x": Digest.of(b"unrelated")})])
    append_runs(log, [(profile, {"profile": Digest.of(b"profile")}), (prune, {"model": pruned}), (quant, {"gguf": gguf})])
    log.append([statement.make({"gguf": gguf}, EVALUATION, METRICS)], ["evaluation"])
    append_runs(log, [(compare, {"report": report})])
    lines, receipt = bundle.export(log, [pruned, gguf, report], store=store)
    artifacts = [
        {"stage": "prune", "output": "model", "digest": str(pruned)},
        {"stage": "quant", "output": "gguf-Q4_K_M", "digest": str(gguf), "sizeBytes": 10},
        {"stage": "compare", "output": "report", "digest": str(report)},
    ]
    results = {
        "artifacts": artifacts,
        "benchmarks": [{"subject": "gguf", "digest": str(gguf), "entry": 4, **METRICS}],
        "comparison": comparison,
        "integrity": {"fileHashes": [{"filename": "model.safetensors", "sha256": Digest.of(b"pruned weights").hex, "size": 14}]},
    }
    (out / "tiny.attestations.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    (out / "tiny.alloy.json").write_text(json.dumps({"name": "tiny", "results": results, "receipt": {"ledger": receipt}}, indent=2))
    return World(tmp_path, log, store, corpus, base, pruned, gguf, report)


# --- with the ledger -------------------------------------------------------------------------------------------------------------


def test_file_is_explained_back_to_its_sources(world: World) -> None:
    """A GGUF's table says what made it, from what, what was measured, what nobody confirmed and what nobody knows."""
    report = verify_artifact(world.out / "tiny-Q4_K_M.gguf", world.log, POLICY)
    assert report.verdict == "VERIFIED with 3 claims unconfirmed"
    proven = texts(report, "proven")
    assert "tiny-Q4_K_M.gguf, these 10 bytes, came out of quantize (tier Q4_K_M) (entry 3, signed by alice)" in proven
    assert "from expert-prune (keep 6) (entry 2, signed by alice" in proven
    assert "from profile-merge (metric reap) (entry 1, signed by alice" in proven
    assert "perplexity 43.3 ± 1.2 on 5c5c5c5c.. was attested by alice for tiny-Q4_K_M.gguf, these 10 bytes (entry 4)" in proven
    assert "these entries are in log ledger/test of 6 entries, whose checkpoint alice signed" in proven
    assert "that 3 runs and 1 evaluation went as attested: alice alone says so" in texts(report, "attested")
    unknown = texts(report, "unverified")
    assert f"where {world.base.short} (model of expert-prune) came from" in unknown
    assert f"where {world.corpus.short} (corpus of profile-merge) came from" in unknown


def test_folder_and_digest_are_found_too(world: World) -> None:
    """A folder counts as its tree; a digest needs no bytes."""
    for target in (world.out / "model", world.pruned):
        assert "came out of expert-prune (keep 6)" in texts(verify_artifact(target, world.log, POLICY), "proven")


def test_changed_file_is_never_verified(world: World) -> None:
    """Bytes that no trusted statement mentions fail, and the reason says what may have happened."""
    (world.out / "tiny-Q4_K_M.gguf").write_bytes(b"GGUF bytez")
    report = verify_artifact(world.out / "tiny-Q4_K_M.gguf", world.log, POLICY)
    assert (report.verdict, report.exit_code) == ("FAILED", 3)
    assert "are in no trusted statement" in texts(report, "failed")


def test_changed_folder_says_which_files_differ(world: World) -> None:
    """With the store, a folder is compared with the recorded one: differing, missing and extra files are all named."""
    model = world.out / "model"
    (model / "extra.py").write_bytes(b"import os")
    (model / "model.safetensors").write_bytes(b"poisoned")
    failed = texts(verify_artifact(model, world.log, POLICY, store=world.store), "failed")
    assert "model.safetensors differs from that in the folder " in failed
    assert f"expected 14 bytes, {Digest.of(b'pruned weights').short}; got 8 bytes, {Digest.of(b'poisoned').short}" in failed
    assert "extra.py is not in the folder " in failed
    (model / "extra.py").unlink()
    (model / "model.safetensors").unlink()
    assert "model.safetensors is missing" in texts(verify_artifact(model, world.log, POLICY, store=world.store), "failed")


def test_file_of_a_recorded_folder_is_found_in_it(world: World) -> None:
    """A shard alone is recognised as part of the model that it belongs to."""
    report = verify_artifact(world.out / "model/model.safetensors", world.log, POLICY, store=world.store)
    assert "are the file model.safetensors of the folder" in texts(report, "proven")
    assert report.exit_code == 0
    assert verify_artifact(world.out / "model/model.safetensors", world.log, POLICY).exit_code == 3


def test_input_that_nobody_vouches_for_fails(world: World) -> None:
    """What runs took from outside is said to be that, and is not verified."""
    report = verify_artifact(world.out / "corpus/text.txt", world.log, POLICY)
    assert "were only taken as an input, by profile-merge" in texts(report, "failed")


def test_nothing_counts_under_a_policy_that_trusts_others(world: World) -> None:
    """The same ledger under another reader's policy proves nothing, and says whose statements do not count."""
    report = verify_artifact(world.gguf, world.log, unsafe_policy("bob"))
    assert report.exit_code == 3
    assert any("2 entries that do not count speak of them" in row.hint for row in report.rows)


def test_second_key_confirms(world: World) -> None:
    """Runs that two keys made with equal outputs are confirmed; the rest is counted as unconfirmed."""
    bob = Log.open(world.folder / ".ledger", signer=UnsafeSigner("bob"), memory=Memory(world.folder / "bob"))
    quant = Action("quantize", 1, {"tier": "Q4_K_M"}, {"model": world.pruned})
    append_runs(bob, [(quant, {"gguf": world.gguf})])
    report = verify_artifact(world.gguf, bob, unsafe_policy("alice", "bob"))
    assert "1 of 3 runs are confirmed by a second key" in texts(report, "proven")
    append_runs(bob, [(quant, {"gguf": Digest.of(b"other")})])
    assert "has two trusted results that differ in gguf" in texts(verify_artifact(world.gguf, bob, unsafe_policy("alice", "bob")), "failed")


def test_file_taken_out_of_a_folder_is_no_gap(world: World) -> None:
    """A stage that takes one file of a folder is connected with what made the folder, here and offline; without lists it is a gap."""
    shard = Action("prune-shard", 1, {}, {"shard": Digest.of(b"pruned weights")})
    out = Digest.of(b"shard out")
    append_runs(world.log, [(shard, {"shard": out})])
    with_lists = verify_artifact(out, world.log, POLICY, store=world.store)
    assert "from expert-prune (keep 6)" in texts(with_lists, "proven")
    assert Digest.of(b"pruned weights").short not in texts(with_lists, "unverified")
    assert Digest.of(b"pruned weights").short in texts(verify_artifact(out, world.log, POLICY), "unverified")
    lines, receipt = bundle.export(world.log, [out, world.gguf], store=world.store)
    evidence = Bundle(b"\n".join(lines), Receipt.parse(receipt), POLICY)
    examination = Examination(evidence, POLICY, evidence.receipt.trees.values)
    assert [made.action.stage for made in examination.makers(Digest.of(b"pruned weights"))] == ["expert-prune"]


def test_import_is_proven_and_what_was_before_it_is_not_known(world: World) -> None:
    """A source that an import took in unchanged has a finding of its own, and it says who took it in."""
    taken = Action("import-model", 1, {"source": "org/base"}, {"folder": world.base})
    append_runs(world.log, [(taken, {"model": world.base})])
    report = verify_artifact(world.folder / "base", world.log, POLICY)
    assert report.verdict == "VERIFIED with 1 claim unconfirmed"
    what = "folder base, these 2 files and 17 bytes"
    assert f"import-model of 'org/base' took in {what} and gave it on unchanged (entry 6, signed by alice)" in texts(report, "proven")
    assert f"where {what} came from before import-model of 'org/base' took it in" in texts(report, "unverified")


def test_circle_of_runs_is_a_gap(tmp_path: Path) -> None:
    """Where runs each need what the other gave, the way back ends, and the reason is said."""
    one, two = Digest.of(b"one"), Digest.of(b"two")
    log = unsafe_log(tmp_path)
    append_runs(log, [(Action("pack", 1, {}, {"in": one}), {"out": two}), (Action("unpack", 1, {}, {"in": two}), {"out": one})])
    report = verify_artifact(two, log, unsafe_policy("alice"))
    assert "came from; each maker of it needs what it gave: unpack" in texts(report, "unverified")


def test_circle_through_a_folder(world: World) -> None:
    """A file whose only maker is a run that took it into a folder is a gap with a reason, not a fault of the program."""
    file, other = Digest.of(b"shard"), Digest.of(b"plan")
    (world.folder / "made").mkdir()
    (world.folder / "made/shard.safetensors").write_bytes(b"shard")
    made = tree.import_folder(world.store, world.folder / "made")
    assemble = Action("prune-assemble", 1, {}, {"shard": file})
    append_runs(world.log, [(assemble, {"model": made}), (Action("plan", 1, {}, {"shard": file}), {"plan": other})])
    report = verify_artifact(other, world.log, POLICY, store=world.store)
    assert report.exit_code == 0
    assert f"where {file.short} (shard of plan) came from before prune-assemble took it in" in texts(report, "unverified")


# --- without it ------------------------------------------------------------------------------------------------------------------


def test_alloy_verifies_offline(world: World) -> None:
    """With the two files and what lies beside them, everything is proven that the ledger would prove, and places in the log too."""
    report = verify_alloy(world.out, POLICY)
    assert report.exit_code == 0, report
    proven = texts(report, "proven")
    assert "model/ (all 2 files, 16 bytes) came out of expert-prune (keep 6) (entry 2, signed by alice" in proven
    assert "tiny-Q4_K_M.gguf, 10 bytes, came out of quantize" in proven
    assert "a file here was an input of what is attested: corpus/text.txt" in proven
    assert "the 1 evaluations that tiny.alloy.json repeats are those that were signed" in proven
    assert "the comparison in tiny.alloy.json is the attested report" in proven
    assert "5 of 5 statements are entries of log ledger/test (6 entries, checkpoint signed by alice)" in proven
    assert "README.md: named by no attestation" in texts(report, "unverified")
    assert "1 of 3 results were not found here" in texts(report, "unverified")
    assert published(world.out) == published(world.alloy) == [world.alloy]


def test_bundle_holds_the_closure_and_nothing_else(world: World) -> None:
    """Every statement about the objects and about what they were made from travels; unrelated entries do not."""
    lines = attestations_of(world.alloy).read_bytes().splitlines()
    assert lines == [entry.envelope for entry in world.log.entries(1)]
    received = unsafe_log(world.folder / "other", origin="ledger/other")
    assert [entry.envelope for entry in received.append_foreign(bundle.parse_lines(attestations_of(world.alloy).read_bytes()))] == lines


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model/model.safetensors", b"poisoned", "model/model.safetensors differs from that in"),
        ("model/config.json", b"[]", "model/config.json differs from that in"),
        ("model/modeling.py", b"import os", "model/modeling.py, 9 bytes, is named by no trusted statement"),
        ("model/model-00002.safetensors", b"more", "model/model-00002.safetensors, 4 bytes, is named by no trusted statement"),
        ("tiny-Q4_K_M.gguf", b"GGUF bytez", "tiny-Q4_K_M.gguf, 10 bytes, is named by no trusted statement"),
        ("pytorch_model.bin", b"pickle", "pytorch_model.bin, 6 bytes, is named by no trusted statement"),
    ],
)
def test_changed_or_smuggled_file_fails(world: World, name: str, content: bytes, message: str) -> None:
    """Altered files and files that a loader would pick up fail by name."""
    (world.out / name).write_bytes(content)
    report = verify_alloy(world.out, POLICY)
    assert report.exit_code == 3
    assert message in texts(report, "failed")


def test_missing_file_of_a_model_fails(world: World) -> None:
    """A model folder that lost a file is not that model."""
    (world.out / "model/model.safetensors").unlink()
    assert "model/model.safetensors is missing" in texts(verify_alloy(world.out, POLICY), "failed")


def lie_about_perplexity(value: dict[str, Any]) -> None:
    value["results"]["benchmarks"][0]["metrics"]["perplexity"] = "12.0"


def lie_in_the_comparison(value: dict[str, Any]) -> None:
    value["results"]["comparison"]["rows"] = ["two"]


def name_another_file(value: dict[str, Any]) -> None:
    value["results"]["integrity"]["fileHashes"][0]["sha256"] = "0" * 64


def name_another_artifact(value: dict[str, Any]) -> None:
    value["results"]["artifacts"][0]["digest"] = str(Digest.of(b"other"))


def name_nothing(value: dict[str, Any]) -> None:
    value["results"]["artifacts"] = []


def edit_a_listing(value: dict[str, Any]) -> None:
    next(iter(value["receipt"]["ledger"]["trees"].values()))[0]["size"] += 1


def move_an_entry(value: dict[str, Any]) -> None:
    value["receipt"]["ledger"]["entries"][0]["number"] += 1


def forge_the_checkpoint(value: dict[str, Any]) -> None:
    value["receipt"]["ledger"]["checkpoint"] = value["receipt"]["ledger"]["checkpoint"].replace("\n6\n", "\n7\n")


def hide_a_line(value: dict[str, Any]) -> None:
    value["receipt"]["ledger"]["entries"].append({"envelopeDigest": str(Digest.of(b"x")), "inclusionProof": [], "number": 0})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lie_about_perplexity, "gives a result of perplexity that no trusted statement gives"),
        (lie_in_the_comparison, "is not what a trusted run reported"),
        (name_another_file, "lists a file"),
        (name_another_artifact, "are in no trusted statement"),
        (name_nothing, "names no artifact"),
        (edit_a_listing, "the alloy was edited"),
        (move_an_entry, "the inclusion proof of entry"),
        (forge_the_checkpoint, "the receipt's checkpoint is not signed as it says"),
        (hide_a_line, "1 envelopes that the receipt names are not in the file"),
    ],
)
def test_edited_alloy_fails(world: World, change: Callable[[dict[str, Any]], None], message: str) -> None:
    """What the alloy repeats must be what was signed, and its receipt must prove what it says."""
    world.edit(change)
    report = verify_alloy(world.alloy, POLICY)
    assert report.exit_code == 3
    assert message in texts(report, "failed")


def test_every_changed_byte_of_the_attestations_is_noticed(world: World) -> None:
    """Each single-byte change of the envelopes' file fails: by signature, by form, or because the receipt names other bytes."""
    file = attestations_of(world.alloy)
    data = file.read_bytes()
    receipt = Receipt.parse(json.loads(world.alloy.read_text())["receipt"]["ledger"])
    for place in range(0, len(data), 7):
        changed = Bundle(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :], receipt, POLICY)
        assert changed.problems, place
    file.write_bytes(data[: len(data) // 2])
    assert verify_alloy(world.alloy, POLICY).exit_code == 3


def test_key_for_named_artifacts_proves_them_without_a_log(world: World) -> None:
    """A policy that trusts a key for some artifacts only, as a shipped one does, verifies those; places in the log stay unknown."""
    digests = [world.pruned, world.gguf, world.report, Digest.of(b"profile")]
    artifacts = ", ".join(f'"{digest}"' for digest in digests)
    rule = f'{{keys: [alice], predicates: ["*"], artifacts: [{artifacts}]}}'
    policy = Policy.parse(f'version: 1\nkeys: {{alice: "{UnsafeSigner("alice").public}"}}\nrules: [{rule}]\n')
    report = verify_alloy(world.out, policy)
    assert report.exit_code == 0, report
    assert "when it was said: the checkpoint is not signed by a key" in texts(report, "unverified")
    assert verify_alloy(world.out, unsafe_policy("bob")).exit_code == 3


def test_alloy_without_a_receipt_or_attestations(world: World) -> None:
    """Without a receipt the statements still count, and their time is unknown; without attestations nothing is proven."""
    world.edit(lambda value: value.pop("receipt"))
    report = verify_alloy(world.out, POLICY)
    assert report.exit_code == 0
    assert "has no receipt of a log" in texts(report, "unverified")
    attestations_of(world.alloy).unlink()
    assert verify_alloy(world.out, POLICY).exit_code == 3
    assert verify_alloy(world.alloy, POLICY).exit_code == 3
    world.alloy.write_text("[]")
    attestations_of(world.alloy).write_text("")
    assert "an alloy is a JSON object" in texts(verify_alloy(world.out, POLICY), "failed")


def test_alloy_in_a_working_folder(world: World) -> None:
    """An alloy file alone is verified wherever it lies: what else lies there is not judged, and links and dot-folders are not followed."""
    out = world.out
    (out / ".venv/lib").mkdir(parents=True)
    (out / ".venv/python3").symlink_to("/usr/bin/env")
    (out / ".venv/lib/weights.pt").write_bytes(b"GGUF bytes")
    (out / "dangling").symlink_to("nowhere")
    (out / "round").symlink_to("round")
    (out / "other").mkdir()
    (out / "other/other.gguf").write_bytes(b"of another recipe")
    (out / "other/model.safetensors").write_bytes(b"14 other bytes")
    (out / "other/modeling.py").write_bytes(b"import os")
    os.mkfifo(out / "pipe.safetensors")
    (out / "barred").mkdir(mode=0)
    report = verify_alloy(world.alloy, POLICY)
    assert report.exit_code == 0, report
    proven, unchecked = texts(report, "proven"), texts(report, "unverified")
    assert "model/ (all 2 files, 16 bytes) came out of expert-prune" in proven
    assert "tiny-Q4_K_M.gguf, 10 bytes, came out of quantize" in proven
    assert "other/model.safetensors: as large as a file that is attested, with other bytes; not judged here" in unchecked
    assert ".venv" not in proven + unchecked
    assert "other.gguf" not in proven + unchecked


def test_only_files_of_an_attested_size_are_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside an alloy file gigabytes may lie: what has no size that the attestations name is not opened."""
    for size in range(40):
        (world.out / f"{size}.bin").write_bytes(b"x" * size)
    opened: list[str] = []
    hash_file = files.hash_file

    def watched(path: Path) -> tuple[Digest, int]:
        opened.append(path.name)
        return hash_file(path)

    monkeypatch.setattr(files, "hash_file", watched)
    assert verify_alloy(world.alloy, POLICY).exit_code == 0
    sizes = {len(b"{}"), len(b"pruned weights"), len(b"all the weights"), len(b"GGUF bytes")}
    assert {name for name in opened if name.endswith(".bin")} == {f"{size}.bin" for size in sizes}


def test_alloys_of_one_folder_are_judged_together(world: World) -> None:
    """A file needs one alloy that names it, not all; one that none names fails once."""
    other = Action("quantize", 1, {"tier": "Q8_0"}, {"model": world.pruned})
    gguf = world.store.put(b"GGUF of the other alloy")
    append_runs(world.log, [(other, {"gguf": gguf})])
    lines, receipt = bundle.export(world.log, [gguf], store=world.store)
    results = {"artifacts": [{"stage": "quant", "output": "gguf-Q8_0", "digest": str(gguf), "sizeBytes": 23}]}
    (world.out / "more.attestations.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    (world.out / "more.alloy.json").write_text(json.dumps({"name": "more", "results": results, "receipt": {"ledger": receipt}}))
    (world.out / "more-Q8_0.gguf").write_bytes(b"GGUF of the other alloy")
    report = verify_alloy(world.out, POLICY)
    assert report.exit_code == 0, report
    assert "more-Q8_0.gguf, 23 bytes, came out of quantize (tier Q8_0)" in texts(report, "proven")
    (world.out / "evil.gguf").write_bytes(b"evil")
    assert texts(verify_alloy(world.out, POLICY), "failed").count("evil.gguf, 4 bytes, is named by no trusted statement") == 1


def test_file_beside_an_alloy_is_judged_alone(world: World) -> None:
    """What the attestations say of one file does not depend on what else lies there; what they do not name, they do not prove."""
    (world.out / "evil.gguf").write_bytes(b"evil")
    (world.out / "model/model.safetensors").write_bytes(b"poisoned")
    report = verify_beside(world.out / "tiny-Q4_K_M.gguf", world.gguf, POLICY)
    assert report is not None
    assert report.exit_code == 0, report
    assert "tiny-Q4_K_M.gguf, these 10 bytes, came out of quantize" in texts(report, "proven")
    (world.out / "shard.safetensors").write_bytes(b"pruned weights")
    shard = verify_beside(world.out / "shard.safetensors", Digest.of(b"pruned weights"), POLICY)
    assert shard is not None
    assert "are the file model.safetensors of the folder" in texts(shard, "proven")
    assert verify_beside(world.out / "evil.gguf", Digest.of(b"evil"), POLICY) is None
    assert verify_beside(world.out / "corpus/text.txt", world.corpus, POLICY) is None


@pytest.mark.parametrize("name", [".git", ".venv", ".cache/huggingface", "model/.ipynb_checkpoints"])
def test_dot_folders_of_a_published_folder_are_named(world: World, name: str) -> None:
    """No dot-folder is judged, at any depth, links out of it included; each is named."""
    (world.out / name).mkdir(parents=True)
    (world.out / name / "weights.pt").write_bytes(b"x")
    (world.out / name / "python3").symlink_to("/usr/bin/env")
    report = verify_alloy(world.out, POLICY)
    assert report.exit_code == 0, report
    assert f"{name.removesuffix('/huggingface')}: not looked into" in texts(report, "unverified")


def test_recipe_hash_is_computed_again(world: World) -> None:
    """The hash of the recipe must be that of the recipe and the materials that stand there; what no run took is listed."""
    recipe = {"name": "tiny", "version": "1.0.0", "stages": [{"type": "train", "learningRate": 0.001}]}
    materials = {"corpus.txt": str(world.corpus), "unused.txt": str(Digest.of(b"unused"))}
    world.edit(lambda value: value.update(recipe, materials=materials, recipeHash=str(recipe_hash(recipe, materials))))
    report = verify_alloy(world.alloy, POLICY)
    assert report.exit_code == 0, report
    assert "recipeHash is that of the recipe as it stands there" in texts(report, "self-reported")
    assert "unused.txt: named by the recipe, and taken by no trusted run" in texts(report, "unverified")
    world.edit(lambda value: value["stages"][0].update(learningRate=0.002))
    assert "its recipe and materials give" in texts(verify_alloy(world.alloy, POLICY), "failed")
    world.edit(lambda value: value.update(materials=7))
    assert "its recipeHash cannot be computed" in texts(verify_alloy(world.alloy, POLICY), "failed")


def test_actions_are_attested_runs(world: World) -> None:
    """Each action that the alloy lists must have its trusted run among the attestations."""
    keys = [str(predicates.action_of(entry.statement).key) for entry in world.log.entries(1, 4)]
    world.edit(lambda value: value["results"].update(actions=keys))
    proven = texts(verify_alloy(world.alloy, POLICY), "proven")
    assert "a trusted run is attested of each of the 3 actions that tiny.alloy.json lists, and 1 more runs are attested" in proven
    for lie in ([*keys, str(Digest.of(b"never run"))], [*keys, 7], {"a": 1}):
        world.edit(lambda value, lie=lie: value["results"].update(actions=lie))  # type: ignore[misc]
        assert verify_alloy(world.alloy, POLICY).exit_code == 3, lie


def test_unproven_places_are_not_taken_on_trust(world: World) -> None:
    """Entries whose receipt is not anchored by a trusted key have no number."""
    data = attestations_of(world.alloy).read_bytes()
    receipt = Receipt.parse(json.loads(world.alloy.read_text())["receipt"]["ledger"])
    assert [entry.number for entry in Bundle(data, receipt, POLICY).entries] == [1, 2, 3, 4, 5]
    assert {entry.number for entry in Bundle(data, receipt, unsafe_policy("bob")).entries} == {UNPLACED}
    assert {entry.number for entry in Bundle(data).entries} == {UNPLACED}


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        {"entries": [{}]},
        {"entries": [], "checkpoint": 1},
        {"entries": [{"number": True, "inclusionProof": [], "envelopeDigest": "sha256:" + "0" * 64}]},
        {"entries": [{"number": 0, "inclusionProof": ["?"], "envelopeDigest": "sha256:" + "0" * 64}]},
        {"entries": [], "trees": {"x": []}},
        {"entries": [], "trees": {"sha256:" + "0" * 64: [{"path": "../x", "size": 1, "digest": "sha256:" + "0" * 64}]}},
    ],
)
def test_malformed_receipts_are_refused(value: Any) -> None:
    """A receipt of any other form is an error with a reason."""
    with pytest.raises(ProofError):
        Receipt.parse(value)


def test_envelope_with_a_line_break_cannot_be_exported(tmp_path: Path) -> None:
    """Received envelopes may hold line breaks; a file of lines cannot carry them, and says so."""
    log = unsafe_log(tmp_path)
    payload = run_payload(Action("x", 1, {}, {}), {"x": Digest.of(b"x")})
    from ledger import dsse

    envelope = dsse.sign(payload, UnsafeSigner("alice"))
    log.append_foreign([b" " + envelope[:1] + b"\n" + envelope[1:]])
    with pytest.raises(EnvelopeError, match="entry 0 holds a line break"):
        bundle.export(log, [Digest.of(b"x")])
    assert b64encode(payload) in envelope


# --- a publication that was downloaded ---------------------------------------------------------------------------------------------


def downloaded(folder: Path) -> Path:
    made = publish(folder / "made")
    out = folder / "copy"
    out.mkdir()
    for name, data in made.files.items():
        (out / name).write_bytes(data)
    return out


def test_downloaded_publication_is_proven_by_its_release(tmp_path: Path) -> None:
    """Release, place in the log, the alloy's list, and the signature over everything, README too; what is missing fails nothing."""
    out = downloaded(tmp_path)
    report = verify_alloy(out, trusting("alice"))
    proven = texts(report, "proven")
    assert "alice signed the release of tiny 1.0.0 at hf:acme/tiny" in proven
    assert "the statement is entry 3 of the 4 of the log ledger/test" in proven
    assert "4 of 4 files in the list of the alloy that alice released are here with their SHA-256 and size" in proven
    assert "all 8 files are the ones that alice-models signed in model.sig" in proven
    assert "README.md" not in texts(report, "unverified")
    assert "the rest of tiny.alloy.json" in texts(report, "attested")
    (out / "README.md").unlink()
    (out / "model.safetensors").unlink()
    (out / "config.json").unlink()
    report = verify_alloy(out, trusting("alice"))
    assert report.exit_code == 0
    assert "3 files that alice-models signed in model.sig are not here" in texts(report, "unverified")
    assert "2 files in the list" not in texts(report, "failed")


def test_downloaded_publication_with_a_changed_file_fails(tmp_path: Path) -> None:
    """A configuration by the release, a document by the signature over everything."""
    out = downloaded(tmp_path)
    for name in ("config.json", "README.md"):
        before = (out / name).read_bytes()
        (out / name).write_bytes(before.replace(b"tiny", b"TINY"))
        assert name in texts(verify_alloy(out, trusting("alice")), "failed")
        (out / name).write_bytes(before)
    assert verify_alloy(out, trusting("alice")).exit_code == 0


def test_expected_alloy_that_nobody_trusted_signed_is_unsigned(tmp_path: Path) -> None:
    """The bytes are the expected ones, of the files that it lists too; nobody is believed."""
    out = downloaded(tmp_path)
    expected = Expected(files.hash_file(out / "tiny.alloy.json")[0].hex)
    report = verify_alloy(out, trusting("bob", models=False), expected)
    assert report.exit_code == 0
    assert report.verdict.startswith("UNSIGNED")
    (out / "config.json").write_bytes(b"{}")
    assert verify_alloy(out, trusting("bob", models=False), expected).exit_code == 3
    assert verify_alloy(out, trusting("bob", models=False)).verdict == "NOT VERIFIED"
    assert verify_alloy(out, trusting("alice"), Expected("0" * 64)).exit_code == 3


# --- one changed shard -----------------------------------------------------------------------------------------------------------


def _sharded(tmp_path: Path) -> Path:
    """A run's results: an alloy and, in a subfolder, a model of two shards that holds an attested tokenizer as well."""
    model, tokenizer = tmp_path / "out/m", tmp_path / "tokenizer"
    for name in ("config.json", "model-1.safetensors", "model-2.safetensors", "tokenizer.json"):
        model.mkdir(parents=True, exist_ok=True)
        (model / name).write_bytes(f"bytes of {name}".encode())
    tokenizer.mkdir()
    (tokenizer / "tokenizer.json").write_bytes(b"bytes of tokenizer.json")
    store, log = MemoryCas(), unsafe_log(tmp_path)
    made, words = tree.import_folder(store, model), tree.import_folder(store, tokenizer)
    prune = Action("expert-prune", 1, {"keep": 6}, {"model": Digest.of(b"base")})
    append_runs(log, [(Action("tokenizer-of-model", 1, {}, {"model": Digest.of(b"base")}), {"tokenizer": words}), (prune, {"model": made})])
    lines, receipt = bundle.export(log, [made, words], store=store)
    artifacts = [{"stage": stage, "output": stage, "digest": str(digest)} for stage, digest in {"prune": made, "tokenizer": words}.items()]
    (tmp_path / "out/tiny.attestations.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    value = {"name": "tiny", "results": {"artifacts": artifacts}, "receipt": {"ledger": receipt}}
    (tmp_path / "out/tiny.alloy.json").write_text(json.dumps(value))
    return tmp_path / "out"


@pytest.mark.parametrize("target", [".", "tiny.alloy.json"])
def test_one_changed_shard_is_named_alone(tmp_path: Path, target: str) -> None:
    """With what was expected and got, though a part of its folder is attested by itself; the files beside it are as attested."""
    out = _sharded(tmp_path)
    assert verify_alloy(out / target, POLICY).exit_code == 0
    (out / "m/model-2.safetensors").write_bytes(b"bytes of model-3.safetensors")
    report = verify_alloy(out / target, POLICY)
    expected, got = (Digest.of(f"bytes of model-{number}.safetensors".encode()).short for number in (2, 3))
    (row,) = [row for row in report.rows if row.status == "failed"]
    assert row.text.startswith("m/model-2.safetensors differs from that in the folder ")
    assert row.text.endswith(f": expected 28 bytes, {expected}; got 28 bytes, {got}")
    assert "3 other files in m/ are as in the folder" in texts(report, "proven")
    assert "model-2" not in texts(report, "unverified")


@pytest.mark.parametrize("target", [".", "tiny.alloy.json"])
def test_a_strange_file_beside_a_changed_shard_is_named_too(tmp_path: Path, target: str) -> None:
    """Nothing that can change the model hides behind the comparison; a note does not fail."""
    out = _sharded(tmp_path)
    (out / "m/model-2.safetensors").write_bytes(b"bytes of model-3.safetensors")
    (out / "m/evil.bin").write_bytes(b"evil")
    (out / "m/notes.md").write_bytes(b"notes")
    failed = texts(verify_alloy(out / target, POLICY), "failed")
    assert "m/evil.bin is not in the folder" in failed
    assert "m/model-2.safetensors differs" in failed
    assert "notes.md" not in failed


@pytest.mark.parametrize("target", [".", "tiny.alloy.json"])
def test_a_strange_file_beside_a_whole_model_fails(tmp_path: Path, target: str) -> None:
    """There is no folder that this one nearly is, so the file is named as it was."""
    out = _sharded(tmp_path)
    (out / "m/evil.bin").write_bytes(b"evil")
    assert "m/evil.bin" in texts(verify_alloy(out / target, POLICY), "failed")

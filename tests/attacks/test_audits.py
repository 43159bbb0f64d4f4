"""Pictures, repositories and folders of somebody who wants `VERIFIED` for them: what an afternoon of trying found in audits."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cli.targets import Asked, report_on
from ledger import bundle, oms, qr
from ledger.bundle import MAX_LINES, Bundle
from ledger.errors import EnvelopeError, HubUnreachableError, QrError
from ledger.hf_hub import HfHub
from ledger.policy import Policy
from ledger.proof import Proof
from ledger.remote import Depth
from ledger.testing import UnsafeSigner, append_runs, unsafe_log, unsafe_policy
from ledger.verify import verify_alloy
from ledger.vsa import VERIFIER, Summary
from store import tree
from store.actions import Action
from store.digest import Digest
from store.memory import MemoryCas
from tests.hub import LoopbackHub
from tests.ledger.test_published import World
from tests.publications import ALICE, CONFIG, GGUF, MODEL_KEY, REPO, Published, audit, policy, publish, written
from tests.reports import texts

NO_HASH = "sha256:" + "0" * 64


# --- what lies in a repository besides the release --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["chat_template.jinja", "adapter_config.json", "generation_config.json", "adapter_model.safetensors"])
def test_a_small_file_as_long_as_an_attested_one(hub: LoopbackHub, made: Published, name: str) -> None:
    """Of a small file the Hub lists no SHA-256; spaces give it any size, and no size makes it part of a release."""
    for size in sorted({len(data) for data in made.files.values() if len(data) < 1000}):
        hub.put(REPO, made.files | {name: b"{}".ljust(size)})
        report = audit(hub)
        assert report.exit_code == 3, size
        assert name in texts(report, "failed")


@pytest.mark.parametrize(
    "name",
    ["preset.ini", "template", "system", "params", "Modelfile", "custom_generate/generate.py", "additional_chat_templates/license.jinja"],
)
def test_a_file_that_some_loader_takes_from_elsewhere_in_the_repository(hub: LoopbackHub, made: Published, name: str) -> None:
    """llama.cpp takes preset.ini in place of the GGUF files, ollama a template and a prompt, transformers code in a folder of its own."""
    gguf = "/" not in name
    files = {path: data for path, data in made.files.items() if not (gguf and path in (CONFIG, "model.safetensors"))}
    hub.put(REPO, files | {name: b"evil"})
    report = audit(hub)
    assert report.exit_code == 3
    assert f"{name}, 4 bytes, is not in the list of the alloy that alice released" in texts(report, "failed")


@pytest.mark.parametrize("name", ["preset.ini", "template", "params", "Q4/system"])
def test_a_preset_beside_gguf_files_in_a_folder(world: World, name: str) -> None:
    """The same in a folder where nothing but GGUF files lies; above them too."""
    world.edit(lambda value: value["results"]["integrity"].update(fileHashes=[]))
    (world.out / "Q4").mkdir()
    (world.out / "tiny-Q4_K_M.gguf").rename(world.out / "Q4/tiny-Q4_K_M.gguf")
    assert verify_alloy(world.out, unsafe_policy("alice")).exit_code == 0
    (world.out / name).write_bytes(b"evil")
    report = verify_alloy(world.out, unsafe_policy("alice"))
    assert report.exit_code == 3
    assert name in texts(report, "failed")


def test_something_else_that_is_attested_beside_a_release(hub: LoopbackHub, tmp_path: Path) -> None:
    """What a trusted statement names is not part of what was released for that: here the GGUF under a name of another quality."""
    made = publish(tmp_path)
    hub.put(REPO, made.files | {"tiny-F16.gguf": made.files[GGUF], f"old/{CONFIG}": b"", "old/model.safetensors": b"pruned weights"})
    report = audit(hub)
    assert report.exit_code == 3
    assert "tiny-F16.gguf, 3,145,735 bytes, is attested and not in the list of the alloy that alice released" in texts(report, "failed")


def test_the_base_poured_over_what_was_made_from_it(tmp_path: Path) -> None:
    """Both folders are attested and agree on the configuration; a loader takes model.safetensors, the base, before the made shards."""
    log, store = unsafe_log(tmp_path), MemoryCas()
    shared = {"config.json": b"{}", "tokenizer.json": b"{}"}
    base = {**shared, "model.safetensors": b"base", "a.txt": b"a", "b.txt": b"b"}
    healed = {**shared, "model-00001-of-00002.safetensors": b"one", "model-00002-of-00002.safetensors": b"two"}
    source, result = (tree.import_folder(store, written(tmp_path / name, files)) for name, files in (("base", base), ("healed", healed)))
    append_runs(log, [(Action("heal", 1, {}, {"model": source}), {"model": result})])
    lines, receipt = bundle.export(log, [result], store=store)
    artifacts = [{"stage": "heal", "output": "model", "digest": str(result)}]
    alloy = {"name": "tiny", "results": {"artifacts": artifacts}, "receipt": {"ledger": receipt}}
    carrying = {"x.alloy.json": json.dumps(alloy).encode(), "x.attestations.jsonl": b"".join(line + b"\n" for line in lines)}
    out = written(tmp_path / "out", healed | carrying)
    assert verify_alloy(out, unsafe_policy("alice")).exit_code == 0
    report = verify_alloy(written(out, base), unsafe_policy("alice"))
    assert report.exit_code == 3
    assert "model.safetensors, 4 bytes, is a piece of the folder" in texts(report, "failed")


def test_other_weights_where_an_alloy_lists_its_own(made: Published, tmp_path: Path) -> None:
    """Who names the alloy file alone is not told that the weights beside it *are not here* when others lie there under their name."""
    out = written(tmp_path, made.files | {"model.safetensors": b"evil weights of another size"})
    report = verify_alloy(out / "tiny.alloy.json", ALICE)
    assert report.exit_code == 3
    assert "model.safetensors is not what the alloy that alice released lists" in texts(report, "failed")


# --- signatures -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule",
    [
        {"keys": ["models", "alice"], "threshold": 2},
        {"keys": ["models"], "stages": ["quant-*"]},
        {"keys": ["models"], "predicates": ["urn:alloy-ledger:evaluation:*"]},
        {"keys": ["models"], "artifacts": ["tiny*"]},
    ],
)
def test_model_signature_by_a_key_that_is_trusted_for_less(hub: LoopbackHub, rule: dict[str, Any]) -> None:
    """One of two keys that must agree, or a key for one stage, vouches for no folder by `model.sig`."""
    files = {"model.safetensors": b"evil", "config.json": b"{}"}
    signature = oms.sign({path: Digest.of(data) for path, data in files.items()}, MODEL_KEY, name="evil")
    hub.put("acme/evil", files | {"model.sig": signature})
    keys = {"models": str(MODEL_KEY.public), "alice": str(UnsafeSigner("alice").public)}
    for rules, code in (([rule], 3), ([{"keys": ["models"]}], 0)):
        trusting = Policy.parse(json.dumps({"version": 1, "keys": keys, "rules": rules}))
        assert audit(hub, "hf:acme/evil", trusting=trusting, depth=Depth(full=True)).exit_code == code


@pytest.mark.parametrize("alone", [False, True])
def test_summary_that_something_failed_vouches_for_it(made: Published, tmp_path: Path, alone: bool) -> None:
    """A trusted key signed that a file did not pass; among attestations that made the file one that a trusted statement names."""
    evil, signer = b"evil", UnsafeSigner("alice")
    when, whose = "2024-01-01T00:00:00Z", f"{VERIFIER}{signer.public}"
    summary = Summary("hf:evil/x", {"x.gguf": Digest.of(evil)}, whose, when, ("policy", Digest.of(b"")), {}, False, ())
    files = {} if alone else publish(tmp_path / "made", released=False).files
    if alone:
        artifacts = [{"stage": "quant", "output": "gguf", "digest": str(Digest.of(evil))}]
        files["tiny.alloy.json"] = json.dumps({"name": "tiny", "results": {"artifacts": artifacts}}).encode()
    files["tiny.attestations.jsonl"] = files.get("tiny.attestations.jsonl", b"") + summary.sign(signer) + b"\n"
    report = verify_alloy(written(tmp_path / "out", files | {GGUF: evil}), ALICE)
    assert report.exit_code == 3
    assert not any("evil" in row.text or "verification_summary" in row.text for row in report.rows if row.status == "proven")


# --- what somebody expected -------------------------------------------------------------------------------------------------------


def test_expected_hash_that_is_not_compared(hub: LoopbackHub, made: Published, world: World, tmp_path: Path) -> None:
    """`--expect` counts for a proof in a picture, a verification summary, and a small file of which the Hub lists no SHA-256."""
    hub.put(REPO, made.files)
    signer = UnsafeSigner("alice")
    proof, summary = tmp_path / "proof.png", tmp_path / "x.alloy.json"
    proof.write_bytes(qr.png(Proof.from_text(made.files["tiny.tlog-proof"]).to_qr("https://verify.example/")))
    summary.write_bytes(Summary.of(audit(hub), ALICE, signer, resource=f"hf:{REPO}", now="2024-01-01T00:00:00Z").sign(signer))
    for target, right in ((proof, str(made.alloy)), (summary, str(Digest.of(summary.read_bytes())))):
        assert report_on(str(target), ALICE, None, Asked(expect=right)).exit_code == 0
        assert report_on(str(target), ALICE, None, Asked(expect=NO_HASH)).exit_code == 3
    assert "expected sha256:0000" in texts(audit(hub, f"hf:{REPO}/README.md@{NO_HASH}"), "failed")
    report = audit(hub, f"hf:{REPO}/README.md@{Digest.of(made.files['README.md'])}")
    assert "has the expected hash" in texts(report, "proven")


def picture(path: Path, *codes: str) -> str:
    """A picture with these codes side by side."""
    images = [Image.open(BytesIO(qr.png(text))).convert("L") for text in codes]
    wide = Image.new("L", (sum(one.width + 50 for one in images), max(one.height for one in images)), 255)
    for place, one in enumerate(images):
        wide.paste(one, (sum(before.width + 50 for before in images[:place]), 0))
    wide.save(path)
    return str(path)


def test_two_codes_of_strangers_are_not_more_than_one(hub: LoopbackHub, tmp_path: Path) -> None:
    """Each is *unsigned*, with its own hash in its own code; together they were `VERIFIED`."""
    codes = []
    for name in ("one", "two"):
        evil = publish(tmp_path / name, signer="mallory", target=f"evil/{name}")
        hub.put(f"evil/{name}", evil.files)
        codes.append(f"https://verify.example/#hf:evil/{name}@{evil.alloy}")
    report = report_on(picture(tmp_path / "two.png", *codes), policy("alice", models=False), None, Asked())
    assert report.verdict.startswith("UNSIGNED")


def test_what_a_code_says_is_shown_of_that_code(hub: LoopbackHub, made: Published, tmp_path: Path) -> None:
    """The text of another code in the picture stood as what led to a verified repository."""
    hub.put(REPO, made.files)
    good = f"https://verify.example/#hf:{REPO}@{made.alloy}"
    report = report_on(picture(tmp_path / "two.png", "A stranger's text, audited by all", good), ALICE, None, Asked())
    assert f"a code in two.png says: {good}" in texts(report, "proven")
    assert "stranger" not in texts(report, "proven")


def test_a_code_too_many(tmp_path: Path) -> None:
    """Not one of them is left out in silence."""
    one = Image.open(BytesIO(qr.png("hf:a/b"))).convert("L").resize((130, 130))
    sheet = Image.new("L", (3 * 130, 3 * 130), 255)
    for place in range(9):
        sheet.paste(one, (place % 3 * 130, place // 3 * 130))
    sheet.save(tmp_path / "sheet.png")
    with pytest.raises(QrError, match="shows 9 codes; at most 8"):
        qr.read(tmp_path / "sheet.png")


@pytest.mark.parametrize("size", [(65_536, 1), (1, 65_536), (40_000, 2)])
def test_a_picture_that_is_a_line(tmp_path: Path, size: tuple[int, int]) -> None:
    """Few pixels, and more in a row than the decoder takes: refused, no fault."""
    Image.new("L", size, 255).save(tmp_path / "line.png")
    with pytest.raises(QrError, match="in one direction"):
        qr.read(tmp_path / "line.png")


# --- without end ------------------------------------------------------------------------------------------------------------------


def test_attestations_of_many_lines() -> None:
    """A few MB of nothing but line ends and letters took gigabytes; and whatever is wrong is told in a few rows."""
    with pytest.raises(EnvelopeError, match="lines; at most"):
        Bundle(b"x\n" * (MAX_LINES + 1), None, ALICE)
    problems = Bundle(b"xx\n" * 1000, None, ALICE).problems
    assert len(problems) == 21
    assert problems[-1] == "and 980 more like these"


@pytest.mark.parametrize("change", [lambda item: item.update(subject=[]), lambda item: item.update(subject={"a": 1})])
def test_a_result_of_no_text(world: World, change: Callable[[dict[str, Any]], None]) -> None:
    """What can be in no set ended with a traceback."""
    world.edit(lambda value: change(value["results"]["benchmarks"][0]))
    assert "no trusted statement gives" in texts(verify_alloy(world.out, unsafe_policy("alice")), "failed")


@pytest.mark.parametrize("whole", [False, True])
def test_an_answer_that_crawls(hub: LoopbackHub, made: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool) -> None:
    """A byte now and then is no answer, however large it may become: what arrived counts, not what may. Nor is one download for ever."""
    commit = hub.put(REPO, made.files)
    hub.lies.slow_s = 0.05
    monkeypatch.setattr("ledger.hf_hub._SLOWEST", 10**9)
    monkeypatch.setattr("ledger.hf_hub._PAUSES_S", (0.01, 0.01))
    ask = HfHub(silence_s=0.1)
    file = ask.listing(REPO).file(GGUF)
    with pytest.raises(HubUnreachableError, match="bytes a second"):
        _ = ask.fetch(REPO, commit, file, tmp_path / "x") if whole else ask.read(REPO, commit, GGUF, limit=2**40)

"""`offline`: a proof from a picture, a file or a text, and whether a file is the one that it is about; no network and no ledger."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from PIL import Image

from cli.errors import UsageError
from cli.offline import offline
from ledger import dsse, note, qr, tlog
from ledger.errors import ProofError, QrError
from ledger.locator import VERIFY_PAGE, verify_url
from ledger.policy import Policy
from ledger.proof import Proof
from ledger.publication import Publication
from ledger.testing import UnsafeSigner, unsafe_policy
from store.digest import Digest

VECTORS = Path(__file__).parents[1] / "vectors" / "proof"
ALICE = UnsafeSigner("alice")
TRUSTING = unsafe_policy("alice")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection fails."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def publication(tmp_path: Path) -> Path:
    """A published folder: the alloy, a weight file and a picture that it lists, the proof in both forms, and both codes."""
    folder = tmp_path / "out"
    (folder / "assets").mkdir(parents=True)
    (folder / "tiny-F16.gguf").write_bytes(b"GGUF weights")
    (folder / "assets" / "loss.svg").write_bytes(b"<svg/>")
    names = ["assets/loss.svg", "tiny-F16.gguf"]
    listed = [{"filename": name, "sha256": Digest.of((folder / name).read_bytes()).hex} for name in names]
    alloy = json.dumps({"name": "tiny", "results": {"integrity": {"fileHashes": listed}}}).encode()
    (folder / "tiny.alloy.json").write_bytes(alloy)
    proof = release(Digest.of(alloy))
    (folder / "tiny.tlog-proof").write_bytes(proof.to_text())
    (folder / "proof-qr.png").write_bytes(qr.png(proof.to_qr(VERIFY_PAGE)))
    (folder / "verify-qr.png").write_bytes(qr.png(verify_url("example/tiny", Digest.of(alloy), VERIFY_PAGE)))
    return folder


def release(alloy: Digest, signer: UnsafeSigner = ALICE) -> Proof:
    said = Publication(event="released", target="hf:example/tiny", name="tiny", version="1.0.0", alloy=("tiny.alloy.json", alloy))
    envelope = dsse.sign(said.payload(), signer)
    leaves = [tlog.leaf_hash(b"first"), tlog.leaf_hash(envelope)]
    signed = note.sign_checkpoint(note.Checkpoint("example.com/log", 2, tlog.root(leaves)), signer)
    return Proof(envelope, 1, 2, tlog.inclusion_proof(leaves, 1), signed)


def found(target: object, file: Path | None, policy: Policy = TRUSTING) -> tuple[int, str, str]:
    """Exit code, status of the first finding, its text."""
    report = offline(str(target), file, policy)
    return report.exit_code, report.rows[0].status, report.rows[0].text


# --- the proof -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["picture", "file", "text", "text in a file"])
def test_a_proof_is_taken_in_every_form(kind: str, publication: Path) -> None:
    """QR picture, `.tlog-proof`, what a phone reads from the QR, and that in a file."""
    text = qr.read_one(publication / "proof-qr.png")
    (publication / "qr.txt").write_text(text + "\n")
    targets = {
        "picture": str(publication / "proof-qr.png"),
        "file": str(publication / "tiny.tlog-proof"),
        "text": text,
        "text in a file": str(publication / "qr.txt"),
    }
    code, status, said = found(targets[kind], publication / "tiny.alloy.json")
    assert (code, status) == (0, "proven")
    assert said.startswith("tiny.alloy.json, these ")


def test_without_a_file_the_proof_alone_is_judged(publication: Path) -> None:
    """Verified, but for what it says about the Hub and what was not given."""
    report = offline(str(publication / "proof-qr.png"), None, TRUSTING)
    assert [row.status for row in report.rows] == ["proven", "proven", "attested", "unverified"]
    assert (report.verdict, report.exit_code) == ("VERIFIED with 2 claims unconfirmed", 0)
    assert report.subjects == {"tiny.alloy.json": Digest.of((publication / "tiny.alloy.json").read_bytes())}
    assert report.inputs == {"proof": Digest.of((publication / "tiny.tlog-proof").read_bytes())}
    assert "none was given" in report.rows[-1].text


def test_the_example_of_the_documentation() -> None:
    """Its policy, its picture and its file."""
    code, status, _ = found(VECTORS / "released.png", VECTORS / "tiny-6e.alloy.json", Policy.load(VECTORS / "policy.yaml"))
    assert (code, status) == (0, "proven")


# --- the file ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tiny-F16.gguf", "assets/loss.svg"])
def test_a_file_that_the_stated_alloy_lists_is_proven(name: str, publication: Path) -> None:
    """By the alloy beside it or above it."""
    code, status, said = found(publication / "proof-qr.png", publication / name)
    assert (code, status) == (0, "proven")
    assert "tiny.alloy.json lists" in said
    report = offline(str(publication / "proof-qr.png"), publication / name, TRUSTING)
    assert report.subjects == {Path(name).name: Digest.of((publication / name).read_bytes())}


def test_a_listed_file_under_another_name_is_proven_with_its_name(publication: Path) -> None:
    """The name that was listed is said."""
    (publication / "renamed.bin").write_bytes(b"GGUF weights")
    code, status, said = found(publication / "proof-qr.png", publication / "renamed.bin")
    assert (code, status) == (0, "proven")
    assert "is tiny-F16.gguf under another name" in said


def test_other_bytes_under_a_listed_name_fail(publication: Path) -> None:
    """Also those of another listed file."""
    for data in (b"GGUF weightz", b"<svg/>"):
        (publication / "tiny-F16.gguf").write_bytes(data)
        code, status, said = found(publication / "proof-qr.png", publication / "tiny-F16.gguf")
        assert (code, status) == (3, "failed")
        assert "lists it with sha256:" in said


def test_a_file_that_is_listed_nowhere_fails(publication: Path, tmp_path: Path) -> None:
    """Beside the alloy, and far from it."""
    for place in (publication / "extra.bin", tmp_path / "far.gguf"):
        place.write_bytes(b"something else")
        code, status, _ = found(publication / "proof-qr.png", place)
        assert (code, status) == (3, "failed")


def test_an_edited_alloy_fails_and_vouches_for_nothing(publication: Path) -> None:
    """Neither itself nor what it lists is what was stated."""
    alloy = publication / "tiny.alloy.json"
    alloy.write_bytes(alloy.read_bytes().replace(b'"tiny"', b'"tinY"'))
    for file in (alloy, publication / "tiny-F16.gguf"):
        code, status, said = found(publication / "proof-qr.png", file)
        assert (code, status) == (3, "failed")
        assert "is not what the statement is about" in said


@pytest.mark.parametrize("alloy", [b"[]", b"{}", b'{"results":{"integrity":{"fileHashes":[7]}}}', b"\xff"])
def test_an_alloy_that_lists_nothing_vouches_for_nothing(alloy: bytes, publication: Path) -> None:
    """Although it is the one that was stated."""
    (publication / "tiny.alloy.json").write_bytes(alloy)
    (publication / "tiny.tlog-proof").write_bytes(release(Digest.of(alloy)).to_text())
    code, status, said = found(publication / "tiny.tlog-proof", publication / "tiny-F16.gguf")
    assert (code, status) == (3, "failed")
    assert "lists no files" in said


def test_a_strangers_proof_makes_no_file_proven(publication: Path) -> None:
    """The file fits, the statement counts for nothing: not verified, and no line says proven."""
    alloy = Digest.of((publication / "tiny.alloy.json").read_bytes())
    (publication / "tiny.tlog-proof").write_bytes(release(alloy, UnsafeSigner("mallory")).to_text())
    for file in ("tiny.alloy.json", "tiny-F16.gguf"):
        report = offline(str(publication / "tiny.tlog-proof"), publication / file, TRUSTING)
        assert (report.verdict, report.exit_code) == ("NOT VERIFIED", 3)
        assert {row.status for row in report.rows} == {"unverified"}


# --- what is no proof ----------------------------------------------------------------------------------------------------------------


def test_the_other_code_is_no_proof_and_says_where_the_proof_is(publication: Path) -> None:
    """The one with the location needs the network."""
    with pytest.raises(UsageError, match=r"it says https://.*#hf:example/tiny@sha256:.*proof-qr\.png"):
        offline(str(publication / "verify-qr.png"), None, TRUSTING)


def test_of_both_codes_in_one_picture_the_proof_is_taken(publication: Path, tmp_path: Path) -> None:
    """As on a photograph of the card; of two proofs none."""
    other = Image.open(publication / "verify-qr.png").convert("L")
    proof = Image.open(publication / "proof-qr.png").convert("L")
    both = Image.new("L", (proof.width + other.width + 100, max(proof.height, other.height)), 255)
    both.paste(other, (0, 0))
    both.paste(proof, (other.width + 100, 0))
    both.save(tmp_path / "both.png")
    assert found(tmp_path / "both.png", publication / "tiny.alloy.json")[:2] == (0, "proven")
    second = qr.png(release(Digest.of(b"other")).to_qr(VERIFY_PAGE))
    (tmp_path / "second.png").write_bytes(second)
    with Image.open(tmp_path / "second.png") as opened:
        both = Image.new("L", (2 * proof.width + 200, proof.height + 100), 255)
        both.paste(opened.convert("L"), (proof.width + 100, 0))
    both.paste(proof, (0, 0))
    both.save(tmp_path / "two.png")
    with pytest.raises(UsageError, match="shows 2 proofs"):
        offline(str(tmp_path / "two.png"), None, TRUSTING)


@pytest.mark.parametrize("target", ["nowhere.png", "hf:org/name", "x" * 5000, "proof:", "proof:12x", "a\0b", "\x1b[32mproven"])
def test_what_is_neither_a_file_nor_a_proof_is_said(target: str) -> None:
    """With nothing in it that a terminal obeys."""
    with pytest.raises((UsageError, ProofError)) as caught:
        offline(target, None, TRUSTING)
    assert "\x1b" not in str(caught.value)


def test_damaged_inputs_are_said(publication: Path, tmp_path: Path) -> None:
    """A picture without a code, a proof that was cut off, other files, a folder in place of a file."""
    Image.new("L", (100, 100), 255).save(tmp_path / "blank.png")
    with pytest.raises(QrError, match="no QR code"):
        offline(str(tmp_path / "blank.png"), None, TRUSTING)
    with pytest.raises(ProofError):
        offline(str(publication / "tiny.alloy.json"), None, TRUSTING)
    with pytest.raises(ProofError, match="damaged or was cut off"):
        offline(qr.read_one(publication / "proof-qr.png")[:-40], None, TRUSTING)
    for place in (publication, publication / "nowhere"):
        with pytest.raises(UsageError, match="is not a file"):
            offline(str(publication / "tiny.tlog-proof"), place, TRUSTING)

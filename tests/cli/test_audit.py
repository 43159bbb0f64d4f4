"""`ledger verify` of places on the Hub, of pictures and texts of codes, with expected hashes, and its signed summaries."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import pytest

from ledger import qr
from ledger.locator import verify_url
from ledger.proof import Proof
from store.digest import Digest
from tests.cli.conftest import Desk, Said
from tests.hub import LoopbackHub
from tests.publications import CONFIG, GGUF, REPO, Published, policy


@pytest.fixture
def reader(desk: Desk, hub: LoopbackHub, made: Published) -> Desk:
    """Somebody with a policy and no ledger; the publication is on the Hub."""
    hub.put(REPO, made.files)
    (desk.folder / "policy.json").write_text(json.dumps(policy("alice").to_json()))
    return desk


def verify(desk: Desk, *arguments: str | Path) -> Said:
    return desk.type("verify", *arguments, "--policy", "policy.json")


@pytest.mark.parametrize(
    "form", ["hf:{repo}@{digest}", "https://example.org/v/#hf:{repo}@{digest}", "https://huggingface.co/{repo}#{digest}"]
)
def test_a_place_is_named_in_many_ways(reader: Desk, made: Published, form: str) -> None:
    """As a locator, as the text of the QR whatever its page is, as the address on the Hub."""
    said = verify(reader, form.format(repo=REPO, digest=made.alloy))
    assert (said.code, said.err) == (0, "")
    assert f"tiny.alloy.json has the expected hash, {made.alloy}" in said.out
    assert "3 requests to the Hub, 0 bytes of weights read" in said.out
    assert said.out.splitlines()[-1].startswith("VERIFIED with ")


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_the_picture_of_a_code_leads_to_its_place(reader: Desk, made: Published, ending: str) -> None:
    """Taken as it lies here; what it says is shown."""
    from PIL import Image

    (reader.folder / "code.png").write_bytes(qr.png(verify_url(REPO, made.alloy)))
    Image.open(reader.folder / "code.png").convert("L").save(reader.folder / f"photo.{ending}")
    said = verify(reader, f"photo.{ending}")
    assert said.code == 0
    assert f"a code in photo.{ending} says: https://alloy-ledger.github.io/verify/#hf:{REPO}@{made.alloy}" in said.out


def test_every_code_of_a_picture_is_tried(reader: Desk, made: Published) -> None:
    """One that leads to something else fails the whole; one that leads nowhere is said."""
    from PIL import Image

    texts = [verify_url(REPO, made.alloy), verify_url("acme/other", made.alloy), "https://example.org/#shop"]
    for name, chosen in {"two.png": texts[:2], "shop.png": [texts[0], texts[2]], "only.png": [texts[2]]}.items():
        pictures = []
        for number, text in enumerate(chosen):
            (reader.folder / f"{number}.png").write_bytes(qr.png(text))
            pictures.append(Image.open(reader.folder / f"{number}.png").convert("L"))
        sheet = Image.new("L", (sum(one.width for one in pictures) + 100, max(one.height for one in pictures)), 255)
        left = 0
        for one in pictures:
            sheet.paste(one, (left, 0))
            left += one.width + 50
        sheet.save(reader.folder / name)
    assert verify(reader, "two.png").code != 0
    shop = verify(reader, "shop.png")
    assert shop.code == 0
    assert "a code in shop.png leads nowhere that is known here" in shop.out
    assert verify(reader, "only.png").code == 3


def test_the_code_with_the_whole_proof_is_checked_without_asking(reader: Desk, made: Published, hub: LoopbackHub) -> None:
    """It says nothing about a place, and everything about a statement."""
    proof = Proof.from_text(made.files["tiny.tlog-proof"])
    (reader.folder / "proof.png").write_bytes(qr.png(proof.to_qr("https://example.org/")))
    said = verify(reader, "proof.png")
    assert said.code == 0
    assert "signed a statement (urn:alloy-ledger:publication:v1) about tiny.alloy.json" in said.out
    assert not hub.log


def test_a_picture_without_a_code_is_a_usage_error_or_a_file(reader: Desk) -> None:
    """Nobody is told that a photo of nothing was verified."""
    from PIL import Image

    Image.new("L", (50, 50), 255).save(reader.folder / "white.png")
    assert verify(reader, "white.png").code in (1, 2)
    digest = Digest.of((reader.folder / "white.png").read_bytes())
    assert verify(reader, "white.png", "--expect", str(digest)).code == 0


def test_what_is_expected_is_said_once(reader: Desk, made: Published) -> None:
    """`--expect` goes with a place that brings no other hash; prefixes are called that."""
    assert verify(reader, f"hf:{REPO}", "--expect", str(made.alloy)).code == 0
    assert verify(reader, f"hf:{REPO}", "--expect", made.alloy.hex).code == 0
    assert verify(reader, f"hf:{REPO}", "--expect", "0" * 64).code == 3
    assert "64 bits" in verify(reader, f"hf:{REPO}", "--expect", made.alloy.hex[:16]).out
    both = verify(reader, f"hf:{REPO}@{made.alloy}", "--expect", "0" * 64)
    assert both.code == 2
    assert "which is it?" in both.err
    assert verify(reader, f"hf:{REPO}", "--expect", "xyz").code == 2


def test_files_here_are_compared_with_what_is_expected(reader: Desk, made: Published) -> None:
    """An alloy, a folder with one, and a file of which nothing else is known."""
    out = reader.folder / "out"
    out.mkdir()
    for name, data in made.files.items():
        (out / name).write_bytes(data)
    for target in ("out", "out/tiny.alloy.json"):
        assert f"has the expected hash, {made.alloy}" in verify(reader, target, "--expect", str(made.alloy)).out
        assert verify(reader, target, "--expect", str(made.alloy)).code == 0
        assert verify(reader, target, "--expect", "0" * 64).code == 3
        assert "Never" not in verify(reader, target, "--expect", made.alloy.hex[:16]).out
    assert verify(reader, f"out/{CONFIG}", "--expect", str(Digest.of(made.files[CONFIG]))).code == 0
    (reader.folder / "alone.bin").write_bytes(b"alone")
    assert verify(reader, "alone.bin", "--expect", str(Digest.of(b"alone"))).code == 0
    assert verify(reader, "alone.bin", "--expect", Digest.of(b"alone").hex[:16]).code == 3
    assert verify(reader, "alone.bin").code == 2


def test_samples_and_everything_are_read_on_request(reader: Desk, hub: LoopbackHub, made: Published) -> None:
    """`--spot` and `--full` catch what the listing hides; `--into` keeps what was read."""
    hub.lies.wrong_bytes = {GGUF}
    assert verify(reader, f"hf:{REPO}").code == 0
    assert verify(reader, f"hf:{REPO}", "--spot", "300").code == 3
    assert verify(reader, f"hf:{REPO}", "--full").code == 3
    hub.lies.wrong_bytes = set()
    assert verify(reader, f"hf:{REPO}", "--full", "--into", "kept").code == 0
    assert (reader.folder / "kept" / GGUF).read_bytes() == made.files[GGUF]


def test_the_facts_as_json(reader: Desk, made: Published) -> None:
    """Each claim with its status, what it rests on, and how thoroughly it was looked at."""
    said = verify(reader, f"hf:{REPO}@{made.alloy}", "--json")
    assert said.json["subjects"] == {"tiny.alloy.json": str(made.alloy)}
    assert said.json["levels"] == ["ALLOY_LISTING"]
    assert {row["status"] for row in said.json["rows"]} <= {"proven", "attested", "self-reported", "unverified", "failed"}
    assert said.json["exit_code"] == 0


def test_a_summary_is_signed_and_verifies_again(reader: Desk, made: Published, hub: LoopbackHub) -> None:
    """By the reader's key; for others it is what he attests, and a failure stays one."""
    carol = reader.ok("key", "new", "carol", "--json").json
    assert verify(reader, f"hf:{REPO}@{made.alloy}", "--vsa", "good.vsa.json").code == 0
    hub.lies.wrong_sha256 = {GGUF}
    assert verify(reader, f"hf:{REPO}@{made.alloy}", "--vsa", "bad.vsa.json").code == 3
    public = next(text for text in json.dumps(carol).split('"') if text.startswith("ed25519:"))
    trusting = {"version": 1, "keys": {"carol": public}, "rules": [{"keys": ["carol"]}]}
    (reader.folder / "carol.json").write_text(json.dumps(trusting))
    said = reader.type("verify", "good.vsa.json", "--policy", "carol.json")
    assert said.code == 0
    assert "carol signed that he verified hf:acme/tiny@" in said.out
    assert "attested" in said.out
    assert reader.type("verify", "bad.vsa.json", "--policy", "carol.json").code == 3
    assert verify(reader, "good.vsa.json").code == 3


def test_a_dead_network_is_exit_code_1(reader: Desk, hub: LoopbackHub) -> None:
    """No verdict, one message."""
    hub.stop()
    said = verify(reader, f"hf:{REPO}")
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("error: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("hf:acme", ),
        ("https://huggingface.co/datasets/a/b",),
        ("0123456789abcdef",),
        ("sha256:" + "0" * 64,),
        ("https://example.org/alloy.json",),
        ("policy.json", "--spot", "3"),
        (f"hf:{REPO}", "--into", "x"),
        (f"hf:{REPO}", "--spot", "3", "--full"),
        (f"hf:{REPO}", "policy.json"),
        (f"hf:{REPO}", "--key", "me"),
        ("--offline",),
        ("x.png", "--offline", "--spot", "3"),
    ],
)  # fmt: skip
def test_what_means_nothing_is_a_usage_error(reader: Desk, hub: LoopbackHub, arguments: tuple[str, ...]) -> None:
    """Nothing is passed over in silence, and nobody is asked."""
    said = verify(reader, *arguments)
    assert (said.code, said.out) == (2, "")
    assert not hub.log


def test_options_about_a_target_need_one(done: Desk) -> None:
    """Without a target the ledger is verified, and it expects nothing."""
    assert done.type("verify", "--expect", "0" * 64).code == 2
    assert done.type("verify", "--full").code == 0


def test_a_later_audit_says_what_changed(reader: Desk, hub: LoopbackHub) -> None:
    """It is remembered in the state folder, outside of every ledger."""
    verify(reader, f"hf:{REPO}")
    hub.put(REPO, {"README.md": b"# new\n"})
    assert "1 file replaced (README.md)" in verify(reader, f"hf:{REPO}").out
    assert any((reader.root / "state/ledger/repositories").iterdir())
    hub.lies.recreated = True
    assert verify(reader, f"hf:{REPO}").code == 3


def test_alloys_of_others_here(reader: Desk) -> None:
    """Without attestations: never verified, whatever lies in the folder."""
    foreign = json.dumps({"name": "old", "version": "1.0.0", "source": {"baseModel": "m"}, "stages": [{"type": "quant"}]}).encode()
    (reader.folder / "old").mkdir()
    (reader.folder / "old/old.alloy.json").write_bytes(foreign)
    for target in ("old", "old/old.alloy.json"):
        said = verify(reader, target)
        assert said.code == 3
        assert said.out.splitlines()[-1].startswith("UNSIGNED")
    assert verify(reader, "old/old.alloy.json", "--expect", str(Digest.of(foreign))).code == 0
    assert verify(reader, "old/old.alloy.json", "--expect", Digest.of(foreign).hex[:16]).code == 3
    quoted = quote("hf:acme/none", safe="")
    assert verify(reader, f"https://example.org/#{quoted}").code == 1


# --- one file of a download ------------------------------------------------------------------------------------------------------


@pytest.fixture
def download(reader: Desk, made: Published) -> Path:
    """Everything that was published, in a folder, with a picture whose bytes are signed though its folder holds no alloy."""
    from ledger import oms
    from tests.publications import MODEL_KEY

    files = made.files | {"assets/picture.svg": b"<svg/>"}
    files["model.sig"] = oms.sign({name: Digest.of(data) for name, data in files.items() if name != "model.sig"}, MODEL_KEY, name="tiny")
    for name, data in files.items():
        (reader.folder / "dl" / name).parent.mkdir(parents=True, exist_ok=True)
        (reader.folder / "dl" / name).write_bytes(data)
    return reader.folder / "dl"


@pytest.mark.parametrize("name", ["README.md", "assets/picture.svg", "tiny.attestations.jsonl"])
def test_a_document_is_judged_by_the_signature_over_all_files(reader: Desk, download: Path, name: str) -> None:
    """It is one of those that `model.sig` signs; one that was changed fails, and with no key for such signatures nobody knows."""
    (reader.folder / "bare.json").write_text(json.dumps(policy("alice", models=False).to_json()))
    said = verify(reader, f"dl/{name}")
    assert (said.code, said.out.splitlines()[-1]) == (0, "VERIFIED")
    assert "that alice-models signed in model.sig" in said.out
    stranger = reader.type("verify", f"dl/{name}", "--policy", "bare.json")
    assert (stranger.code, stranger.out.splitlines()[-1]) == (3, "NOT VERIFIED")
    (download / name).write_bytes(b"changed")
    said = verify(reader, f"dl/{name}")
    assert (said.code, said.out.splitlines()[-1]) == (3, "FAILED")
    assert f"alice-models signed {name} with sha256:" in said.out


def test_what_nobody_signed_fails_unless_it_is_a_document(reader: Desk, download: Path) -> None:
    """A note or a picture is not verified; weights fail, and whatever else something may load."""
    for name, verdict in {
        "NOTES.md": "NOT VERIFIED",
        "new.png": "NOT VERIFIED",
        "evil.bin": "FAILED",
        "adapter_config.json": "FAILED",
    }.items():
        for folder in ("signed", "unsigned"):
            (download / name).write_bytes(b"anything")
            said = verify(reader, f"dl/{name}")
            assert (said.code, said.out.splitlines()[-1]) == (3, verdict), (name, folder)
            (download / "model.sig").unlink(missing_ok=True)
    (download / CONFIG).write_bytes(b"{}")
    said = verify(reader, f"dl/{CONFIG}")
    assert f"{CONFIG}, 2 bytes, is not what the alloy that alice released lists: expected sha256:" in said.out


def test_the_signature_file_stands_for_its_folder(reader: Desk, download: Path) -> None:
    """All files in it are verified, by the signature and by the alloy, or by the signature alone."""
    said = verify(reader, "dl/model.sig")
    assert said.code == 0
    assert "so the folder in which it lies was verified" in said.out
    assert "all 9 files are the ones that alice-models signed in model.sig" in said.out
    assert "alice signed the release of tiny 1.0.0" in said.out
    (download / CONFIG).write_bytes(b"{}")
    assert verify(reader, "dl/model.sig").code == 3


def test_a_proof_is_checked_as_its_picture_is(reader: Desk, download: Path) -> None:
    """`--offline` need not be said for a file that can be nothing else."""
    said = verify(reader, "dl/tiny.tlog-proof")
    assert said.code == 0
    assert said.out == verify(reader, "dl/tiny.tlog-proof", "--offline").out
    (download / "tiny.tlog-proof").write_bytes(b"no proof")
    assert verify(reader, "dl/tiny.tlog-proof").code == 3


def test_one_file_on_the_hub_is_judged_like_one_here(reader: Desk, hub: LoopbackHub) -> None:
    """A README that was read is what `model.sig` signs, or fails; a note that nobody signed is not verified; weights fail."""
    assert verify(reader, f"hf:{REPO}/README.md", "--full").code == 0
    hub.put(REPO, {"NOTES.md": b"notes", "evil.bin": b"evil"})
    assert verify(reader, f"hf:{REPO}/NOTES.md", "--full").out.splitlines()[-1] == "NOT VERIFIED"
    assert verify(reader, f"hf:{REPO}/model.sig", "--full").out.splitlines()[-1] == "NOT VERIFIED"
    assert verify(reader, f"hf:{REPO}/evil.bin", "--full").out.splitlines()[-1] == "FAILED"
    hub.put(REPO, {"README.md": b"changed"})
    assert verify(reader, f"hf:{REPO}/README.md", "--full").out.splitlines()[-1] == "FAILED"


def test_an_alloy_of_others_beside_an_attested_one(reader: Desk, download: Path) -> None:
    """It gets the verdict that it gets alone: unsigned, and no failure; a configuration that looks like an alloy is still a stray."""
    foreign = json.dumps({"name": "old", "version": "1.0.0", "source": {"baseModel": "m"}, "stages": [{"type": "quant"}]})
    for name, verdict in {"old.alloy.json": "UNSIGNED: nobody signed this alloy", "adapter_config.json": "FAILED"}.items():
        (download / name).write_text(foreign)
        said = verify(reader, f"dl/{name}")
        assert said.code == 3
        assert said.out.splitlines()[-1].startswith(verdict)


# --- codes that are a hash and no place ------------------------------------------------------------------------------------------


def test_a_code_of_64_bits_says_what_they_prove(reader: Desk, download: Path, made: Published, hub: LoopbackHub) -> None:
    """And how to go on; a second argument is compared with it, and is not verified by it, whoever signed."""
    legacy = f"https://cambriantech.github.io/forge-alloy/verify/#{made.alloy.hex[:16]}"
    (reader.folder / "legacy.png").write_bytes(qr.png(legacy))
    for target in ("legacy.png", legacy):
        said = verify(reader, target)
        assert (said.code, said.out.splitlines()[-1]) == (3, "NOT VERIFIED")
        assert "are 64 bits: an accident does not meet them" in said.out
        assert f"ledger verify FILE --expect {made.alloy.hex[:16]}" in said.out
        assert verify(reader, target, "dl/tiny.alloy.json").out.splitlines()[-1] == "NOT VERIFIED"
        assert verify(reader, target, f"dl/{CONFIG}").out.splitlines()[-1] == "FAILED"
        assert verify(reader, target, "dl").code == 2
        assert verify(reader, target, "dl/none").code == 2
    assert not hub.log


def test_a_code_of_a_whole_hash_is_compared_with_a_file(reader: Desk, download: Path, made: Published) -> None:
    """All 256 bits of it are worth what `--expect` is."""
    (reader.folder / "code.png").write_bytes(qr.png(f"https://example.org/#{made.alloy.hex}"))
    assert f"tiny.alloy.json has the expected hash, {made.alloy}" in verify(reader, "code.png", "dl/tiny.alloy.json").out
    assert verify(reader, "code.png").code == 3


def test_a_second_argument_goes_with_such_a_code_alone(reader: Desk, download: Path, made: Published) -> None:
    """Beside a place, a proof, a file or a folder it would be passed over in silence."""
    proof = Proof.from_text(made.files["tiny.tlog-proof"]).to_qr("https://example.org/")
    (reader.folder / "place.png").write_bytes(qr.png(verify_url(REPO, made.alloy)))
    for target in (f"hf:{REPO}", "place.png", proof, "dl", f"dl/{CONFIG}"):
        said = verify(reader, target, f"dl/{CONFIG}")
        assert (said.code, said.out) == (2, ""), target
        assert "one TARGET at a time" in said.err


def test_the_digits_of_a_whole_proof_are_not_printed(reader: Desk, made: Published) -> None:
    """Nobody reads them; that it is one is said, and how long it is."""
    proof = Proof.from_text(made.files["tiny.tlog-proof"]).to_qr("https://example.org/")
    (reader.folder / "proof.png").write_bytes(qr.png(proof))
    digits = proof.partition("proof:")[2]
    first = verify(reader, "proof.png").out.splitlines()[0]
    assert first.endswith(f"a code in proof.png says: https://example.org/#proof:.., a whole proof in {len(digits):,} digits")

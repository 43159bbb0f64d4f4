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
from tests.publications import CONFIG, GGUF, REPO, Published, policy, publish


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return publish(tmp_path_factory.mktemp("publication"))


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

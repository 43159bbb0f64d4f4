"""`ledger publish`: one commit with everything, or none; every fault told before it; what the Hub lists is compared with what was sent."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.main import main
from ledger import oms, qr
from ledger.alloy import recipe_hash, records
from ledger.hf_hub import HfHub
from ledger.hub import Listing, git_blob_oid
from ledger.key_store import KeyStore
from ledger.keys import ECDSA_P256
from ledger.log import Log
from ledger.policy import Policy
from ledger.predicates import KEY_EVENT, RUN, KeyEvent
from ledger.proof import Proof
from ledger.publication import PUBLICATION, Publication
from ledger.statement import make
from stages.compare import rounded
from store.digest import Digest
from tests.cli.conftest import Desk, Said, settle
from tests.hub import TOKEN, LoopbackHub
from tests.shop import Shop

REPO = "acme/little"
TO = f"hf:{REPO}"
GGUFS = {"little-3x1.7M-3e-v1.0-F16.gguf", "little-3x1.7M-3e-v1.0-Q8_0.gguf"}
MODEL = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
OURS = {f"little-3e.{ending}" for ending in ("alloy.json", "attestations.jsonl", "chunks", "tlog-proof")} | {
    "README.md", "verify-qr.png", "proof-qr.png", "model.sig", "assets/perplexity.svg", "assets/difference.svg",
}  # fmt: skip


@pytest.fixture
def open_shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Shop]:
    """Makes a machine on which a recipe was finished."""

    def make_one(**settings: Any) -> Shop:
        settle(tmp_path, monkeypatch)
        monkeypatch.delenv("LEDGER_VERIFY_PAGE", raising=False)
        shop = Shop(tmp_path, **settings)
        shop.keys.new("alice-model", None, ECDSA_P256)
        return shop

    return make_one


@pytest.fixture
def shop(open_shop: Callable[..., Shop]) -> Shop:
    """The usual one."""
    return open_shop()


@pytest.fixture
def typing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    """Whoever types commands there."""
    return Desk(tmp_path, capsys)


def publish(typing: Desk, *more: str | Path, target: str | Path = "little-3e") -> Said:
    """Type it."""
    return typing.type("publish", target, "--to", TO, *more)


def publications(shop: Shop) -> list[Publication]:
    """What the log says of publications."""
    return [Publication.of(entry.statement) for entry in shop.log.entries() if entry.statement.predicate_type == PUBLICATION]


def listed(hub: LoopbackHub) -> Listing:
    """What the Hub lists."""
    return HfHub().listing(REPO)


def record_paths(shop: Shop) -> set[str]:
    """Where the records of the evaluations go, as the alloy names them."""
    return set(records(json.loads(shop.alloy.read_text())))


def edit(shop: Shop, **fields: Any) -> None:
    """Change fields of the recipe in the alloy, as if it had been run so."""
    value = json.loads(shop.alloy.read_text()) | fields
    value["recipeHash"] = str(recipe_hash(value, value["materials"]))
    shop.alloy.write_text(json.dumps(value, indent=2))


# --- what is published ---------------------------------------------------------------------------------------------------------


def test_everything_goes_in_one_commit(shop: Shop, hub: LoopbackHub, typing: Desk) -> None:
    """Model, GGUF files by the convention's names, records of the evaluations, card, alloy, attestations, proof, QR codes, model.sig."""
    said = publish(typing)
    assert said.code == 0, said
    assert set(hub.files(REPO)) - {".gitattributes"} == MODEL | GGUFS | OURS | record_paths(shop)
    assert len([request for request in hub.log if request.method == "POST" and "/commit/" in request.path]) == 1
    assert f"ledger verify {TO} --expect sha256:" in said.out


def test_it_is_stated_before_and_after(shop: Shop, hub: LoopbackHub, typing: Desk) -> None:
    """Released: this alloy for this place. Published: this commit, so many files compared."""
    publish(typing)
    released, published = publications(shop)
    files = hub.files(REPO)
    assert released.event == "released"
    assert released.alloy == ("little-3e.alloy.json", released.alloy[1])
    assert released.alloy[1] == Digest.of(files["little-3e.alloy.json"])
    assert (published.event, published.revision, published.files) == ("published", hub.head(REPO), len(files) - 1)


def test_the_alloy_lists_every_file_that_is_loaded(shop: Shop, hub: LoopbackHub, typing: Desk) -> None:
    """With SHA-256, size, git id as the Hub lists it, and Xet hash; and the publications with the Hub's address, the earlier ones kept."""
    publish(typing)
    alloy = json.loads(hub.files(REPO)["little-3e.alloy.json"])
    listing = listed(hub)
    hashes = {item["filename"]: item for item in alloy["results"]["integrity"]["fileHashes"]}
    assert record_paths(shop)
    assert set(hashes) == MODEL | GGUFS | {"little-3e.chunks"} | record_paths(shop)
    for path in set(hashes):
        kept = listing.file(path).sha256 is not None and path not in MODEL | GGUFS  # in LFS, which nobody knew beforehand
        assert hashes[path]["gitOid"] == (git_blob_oid(hub.files(REPO)[path]) if kept else listing.file(path).oid)
        assert hashes[path]["size"] == listing.file(path).size
    assert [one["target"] for one in alloy["receipt"]["publications"]] == [TO]
    assert alloy["receipt"]["publications"][0]["url"] == publications(shop)[1].url == f"{hub.endpoint}/{REPO}"
    assert alloy["receipt"]["verifyUrl"].endswith(f"#{TO}")
    edit(shop, version="1.0.1")
    assert publish(typing).code == 0
    again = json.loads(hub.files(REPO)["little-3e.alloy.json"])["receipt"]["publications"]
    assert again[:-1] == alloy["receipt"]["publications"]
    assert len(again) == 2


def test_the_proofs_that_travel_are_valid(shop: Shop, hub: LoopbackHub, typing: Desk, tmp_path: Path) -> None:
    """The proof is that of the release, its QR says the same, the other QR names repository and hash, and model.sig covers every file."""
    publish(typing)
    files = {path: data for path, data in hub.files(REPO).items() if path != ".gitattributes"}
    released = publications(shop)[0]
    proof = Proof.from_text(files["little-3e.tlog-proof"])
    assert proof.number == 19
    assert all(row.status in ("proven", "attested") for row in proof.check(shop.policy))
    for name in ("verify-qr.png", "proof-qr.png"):
        (tmp_path / name).write_bytes(files[name])
    assert qr.read(tmp_path / "verify-qr.png") == (f"https://alloy-ledger.github.io/verify/#{TO}@{released.alloy[1]}",)
    assert Proof.from_qr(qr.read(tmp_path / "proof-qr.png")[0]) == proof
    key = KeyStore.default().load("alice-model", None).public
    signed = oms.verify(files["model.sig"], [key])
    assert set(signed.files) == set(files) - {"model.sig"}


def test_what_is_published_verifies(shop: Shop, hub: LoopbackHub, typing: Desk) -> None:
    """`ledger verify hf:org/name --expect` finds nothing wrong, with its own metadata requests only."""
    said = publish(typing)
    command = said.out.splitlines()[-2].removeprefix("next: ledger ").split()
    checked = typing.type(*command)
    assert checked.code == 0, checked
    assert "VERIFIED" in checked.out


def test_publishing_the_same_again_changes_nothing(shop: Shop, hub: LoopbackHub, typing: Desk) -> None:
    """It says so; no commit, no entry, and what it shows is what is there, though a signature made anew would differ."""
    publish(typing)
    head, size = hub.head(REPO), shop.log.size
    said = publish(typing)
    assert said.code == 0
    assert "nothing changed" in said.out
    assert (hub.head(REPO), shop.log.size) == (head, size)
    shown = {one["path"]: one["sha256"] for one in publish(typing, "--json").json["files"]}
    assert shown == {path: Digest.of(data).hex for path, data in hub.files(REPO).items() if path != ".gitattributes"}
    assert "--as policy" not in said.out


def test_it_ends_with_how_readers_come_to_trust_it(shop: Shop, hub: LoopbackHub, typing: Desk) -> None:
    """The command that it names prints a policy under which the publication verifies."""
    last = publish(typing).out.splitlines()[-1]
    assert "give it to them elsewhere than in the repository" in last
    command = last.partition(": ledger ")[2].partition(" > ")[0].replace("YOUR-NAME", "acme").split()
    Path("policy.json").write_text(typing.ok(*command).out)
    assert list(Policy.load(Path("policy.json")).keys) == ["acme", "acme-model"]
    assert typing.type("verify", TO, "--policy", "policy.json").code == 0


def test_a_new_version_replaces_the_old_one_whole(shop: Shop, hub: LoopbackHub, typing: Desk) -> None:
    """Files of the earlier publication that are no longer part of it go in the same commit."""
    publish(typing)
    edit(shop, version="2.0.0")
    said = publish(typing)
    assert said.code == 0, said
    names = set(hub.files(REPO))
    assert not names & GGUFS
    assert {name for name in names if name.endswith(".gguf")} == {name.replace("v1.0", "v2.0") for name in GGUFS}
    assert typing.type("verify", TO).code == 0


def test_a_page_and_a_privacy_are_chosen(shop: Shop, hub: LoopbackHub, typing: Desk, tmp_path: Path) -> None:
    """--verify-page stands in the QR, and --private makes a private repository."""
    assert publish(typing, "--verify-page", "https://example.org/check/", "--private").code == 0
    (tmp_path / "qr.png").write_bytes(hub.files(REPO)["verify-qr.png"])
    assert qr.read(tmp_path / "qr.png")[0].startswith("https://example.org/check/#hf:")
    assert listed(hub).private


def test_the_recipe_s_publish_stage_says_where(open_shop: Callable[..., Shop], hub: LoopbackHub, typing: Desk) -> None:
    """Without --to its org and template count, and so do its tags and its privacy."""
    stage = {"type": "publish", "org": "acme", "repoNameTemplate": "{base}-{domain}-{name}", "tags": ["tiny"], "private": True}
    open_shop(recipe={"stages": [*[{"type": "quant", "quantTypes": ["F16"]}], stage], "domains": ["prose"]})
    assert typing.type("publish", "little-3e").code == 0
    files = hub.files("acme/model-prose-little-3e")
    assert b"\n- tiny\n" in files["README.md"]


def test_without_a_place_it_asks_for_one(shop: Shop, typing: Desk) -> None:
    """Neither --to nor a stage: a usage error that says what to write."""
    said = typing.type("publish", "little-3e")
    assert (said.code, "--to hf:ORG/NAME" in said.err) == (2, True)


@pytest.mark.parametrize("to", ["hf:acme", "hf:acme/x@main", "hf:acme/x/y", "https://example.org/x", "hf:acme/../x"])
def test_a_place_that_is_none_is_refused(shop: Shop, typing: Desk, to: str) -> None:
    """A revision, a path, another site: nothing is guessed."""
    assert typing.type("publish", "little-3e", "--to", to).code in (1, 2)


@pytest.mark.parametrize("form", ["alloy", "folder", "folder without alloy"])
def test_an_alloy_or_an_exported_folder_is_as_good_as_the_recipe(shop: Shop, hub: LoopbackHub, typing: Desk, form: str) -> None:
    """The same files are published, whatever was named."""
    target: Path = shop.alloy
    if form != "alloy":
        typing.ok("export", "little-3e", "out")
        target = Path("out")
        if form == "folder":
            (target / shop.alloy.name).write_bytes(shop.alloy.read_bytes())
    said = publish(typing, target=target)
    assert said.code == 0, said
    assert set(hub.files(REPO)) - {".gitattributes"} == MODEL | GGUFS | OURS | record_paths(shop)


def test_json_says_the_same(shop: Shop, hub: LoopbackHub, typing: Desk) -> None:
    """One object with every file and the outcome."""
    value = publish(typing, "--json").json
    assert {item["path"] for item in value["files"]} == MODEL | GGUFS | OURS | record_paths(shop)
    assert value["outcome"]["commit"] == hub.head(REPO)
    assert value["alloy"]["digest"] == str(publications(shop)[0].alloy[1])


def test_a_run_publishes_only_when_it_is_told_to_and_where(desk: Desk) -> None:
    """`ledger run --publish` needs a publish stage, and says so before it does any work."""
    said = desk.type("run", "recipe.yaml", "--publish")
    assert (said.code, "has no publish stage" in said.err, desk.ledger.exists()) == (2, True, False)


@pytest.mark.slow
def test_a_real_run_is_published_and_verified(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typing: Desk) -> None:
    """The example's main job, told to publish: its files load, its card has its numbers, and an audit finds nothing wrong."""
    settle(tmp_path, monkeypatch)
    example = Path(__file__).parents[2] / "examples/tiny-moe"
    for name in ("model", "corpus"):
        shutil.copytree(example / name, name)
    recipe = (example / "recipe.yaml").read_text()
    Path("recipe.yaml").write_text(recipe.replace("acceptance", "  - {type: publish, org: acme}\nacceptance"))
    said = typing.type("run", "recipe.yaml", "--publish")
    assert said.code == 0, said
    assert typing.type("verify", "hf:acme/tiny-moe-6e", "--full").code == 0
    card = hub.files("acme/tiny-moe-6e")["README.md"].decode()
    report = json.loads(Path("tiny-moe-6e.alloy.json").read_text())["results"]["comparison"]
    for row in report["rows"]:
        assert rounded(float(row["perplexity"]), float(row["stderrClustered"])) in card
    assert "nothing changed" in typing.ok("publish", "tiny-moe-6e").out


# --- dry run -------------------------------------------------------------------------------------------------------------------


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below, with its time and bytes; SQLite's own side files are no content, nor is what is remembered of files read."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(("-wal", "-shm")) and path.name != "stat.sqlite"
    }


def test_a_dry_run_shows_everything_and_changes_nothing(
    shop: Shop, hub: LoopbackHub, typing: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The preview is the repository as it would be, but for what needs a signature; ledger and Hub are as they were. It needs no token."""
    monkeypatch.delenv("HF_TOKEN")
    typing.type("status")  # whatever reading makes (an index of SQLite's) is there
    before, requests = snapshot(shop.ledger), len(hub.log)
    said = publish(typing, "--dry-run")
    assert said.code == 0, said
    assert snapshot(shop.ledger) == before
    assert all(request.method == "GET" for request in hub.log[requests:])
    assert not hub.has(REPO)
    shown = Path("little-3e-preview")
    assert {str(path.relative_to(shown)) for path in shown.rglob("*") if path.is_file()} == (
        MODEL | GGUFS | OURS | record_paths(shop) | {".ledger-preview.json"}
    ) - {"proof-qr.png", "model.sig", "little-3e.tlog-proof"}
    assert "# little-3e" in (shown / "README.md").read_text()
    assert "nothing was signed or uploaded" in said.out
    assert "this needed no token; publishing does: set HF_TOKEN" in said.out
    assert "your token may write" not in said.out
    assert not list(Path().glob(".*partial*"))


def test_a_preview_replaces_nothing_that_is_not_one(shop: Shop, hub: LoopbackHub, typing: Desk) -> None:
    """A folder with anything in it is left alone, and so is a link."""
    Path("mine").mkdir()
    Path("mine/notes").write_text("mine")
    Path("link").symlink_to("mine")
    for name in ("mine", "link"):
        said = publish(typing, "--dry-run", "--preview", name)
        assert (said.code, [path.name for path in Path("mine").iterdir()]) == (1, ["notes"])


def test_a_preview_is_replaced_by_a_newer_one(shop: Shop, hub: LoopbackHub, typing: Desk) -> None:
    """As long as nobody worked on it: a file that was added, changed or taken away keeps it."""
    card = Path("little-3e-preview/README.md")
    assert publish(typing, "-n").code == 0
    edit(shop, description="Now described.")
    assert publish(typing, "-n").code == 0
    assert "Now described." in card.read_text()
    for change, undo in (
        (lambda: card.with_name("notes").write_text("mine"), lambda: card.with_name("notes").unlink()),
        (lambda: card.rename("aside"), lambda: Path("aside").rename(card)),
        (lambda: card.write_text("mine"), lambda: None),
    ):
        change()
        said = publish(typing, "-n")
        assert (said.code, "is no preview as it was made here" in said.err) == (1, True)
        undo()
    assert card.read_text() == "mine"


def test_a_dry_run_over_a_publication_deletes_only_what_publishing_would(shop: Shop, hub: LoopbackHub, typing: Desk) -> None:
    """What needs a signature is missing in the preview, and will be there; files of another version go."""
    publish(typing)
    assert "deleted" not in publish(typing, "-n").out
    edit(shop, version="2.0.0")
    assert set(publish(typing, "-n", "--json").json["deleted"]) == GGUFS


def test_a_dry_run_tells_the_faults_too_and_shows_the_card(open_shop: Callable[..., Shop], hub: LoopbackHub, typing: Desk) -> None:
    """The same table, exit code 1, and the preview, where the files are here as attested."""
    shop = open_shop(recipe={"license": None})
    said = publish(typing, "--dry-run")
    assert (said.code, Path("little-3e-preview/README.md").exists()) == (1, True)
    assert "FAILED  licence  the recipe has no `license`" in said.out
    assert "refused: 1 fault; nothing was uploaded\npreview little-3e-preview (card: README.md): what it would be" in said.out
    assert publish(typing, "-n", "--json").json["card"].endswith("README.md")
    shutil.rmtree("little-3e-preview")
    value = json.loads(shop.alloy.read_text()) | {"version": "9.9.9"}
    shop.alloy.write_text(json.dumps(value))
    said = publish(typing, "-n")
    assert (said.code, Path("little-3e-preview").exists()) == (1, False)


# --- refusals ------------------------------------------------------------------------------------------------------------------


def refused(shop: Shop, hub: LoopbackHub, said: Said, *words: str) -> None:
    """It was refused with these words, nothing was uploaded, and nothing was released."""
    assert said.code == 1, said
    for word in words:
        assert word in said.out, (word, said.out)
    assert not hub.has(REPO)
    assert publications(shop) == []


@pytest.mark.parametrize(
    ("token", "account", "words"),
    [
        (None, None, "there is no token"),
        ("hf_old", None, "does not know the token"),
        (TOKEN, {"name": "acme", "auth": {"accessToken": {"role": "read"}}}, "the token of 'acme' may only read"),
        (TOKEN, {"name": "eve", "orgs": []}, "no member of acme"),
    ],
)
def test_a_token_that_may_not_write(
    open_shop: Callable[..., Shop],
    hub: LoopbackHub,
    typing: Desk,
    monkeypatch: pytest.MonkeyPatch,
    token: str | None,
    account: dict[str, object] | None,
    words: str,
) -> None:
    """It is told with the other faults, before anything is signed or made: no entry, no key, no load check, nothing on the Hub."""
    shop = open_shop(loads=False, recipe={"license": None})
    for name in ("alice-model", "alice-model.pub"):
        (shop.root / "keys" / name).unlink()
    monkeypatch.delenv("HF_TOKEN")
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    hub.account = account or hub.account
    size = shop.log.size
    said = publish(typing)
    refused(shop, hub, said, words, "Set HF_TOKEN to a token that may write", "no `license`", f"may not write to {REPO}")
    assert "every file was loaded" not in said.out
    assert shop.log.size == size
    assert {path.name for path in (shop.root / "keys").iterdir()} == {"alice", "alice.pub"}


def test_no_licence(open_shop: Callable[..., Shop], hub: LoopbackHub, typing: Desk) -> None:
    """Nobody may use what has none; --licence mends it."""
    refused(open_shop(recipe={"license": None}), hub, publish(typing), "licence", "no `license`")
    assert publish(typing, "--licence", "mit").code == 0


def test_acceptance_criteria_that_fail(open_shop: Callable[..., Shop], hub: LoopbackHub, typing: Desk) -> None:
    """An increase beyond the limit, with its numbers and the limit."""
    refused(open_shop(shifts={"F16": 0.02, "Q8_0": 0.3}), hub, publish(typing), "acceptance", "Q8_0.gguf", "at most +10 %: it is +3")


def test_acceptance_criteria_that_nothing_evaluated(open_shop: Callable[..., Shop], hub: LoopbackHub, typing: Desk) -> None:
    """A file without an evaluation has not met them."""
    refused(open_shop(evaluated=("F16",)), hub, publish(typing), "Q8_0.gguf", "it was not evaluated")


def test_no_tokenizer(open_shop: Callable[..., Shop], hub: LoopbackHub, typing: Desk) -> None:
    """A folder that turns no text into tokens."""
    refused(open_shop(tokenizer=False), hub, publish(typing), "the tokenizer", "no text becomes tokens")


def test_a_number_in_the_author_s_words_that_is_not_attested(open_shop: Callable[..., Shop], hub: LoopbackHub, typing: Desk) -> None:
    """Description, summary and limitations are looked through."""
    words = {"description": "Runs 4.6x faster", "userSummary": "perplexity 12", "limitations": ["loses 3.1 points"]}
    refused(open_shop(recipe=words), hub, publish(typing), "'4.6x'", "'12'", "limitations[0]")


def test_weights_that_differ(shop: Shop, hub: LoopbackHub, typing: Desk) -> None:
    """One byte of one exported file: its name, the attested hash and the one that is there."""
    typing.ok("export", "little-3e", "out")
    path = Path("out/little-3e-Q8_0.gguf")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.unlink()
    path.write_bytes(data)
    refused(shop, hub, publish(typing, target=Path("out")), "Q8_0.gguf", f"expected {shop.files['Q8_0']} as attested, got sha256:")


def test_a_file_that_is_missing(shop: Shop, hub: LoopbackHub, typing: Desk) -> None:
    """A part of an exported folder was deleted."""
    typing.ok("export", "little-3e", "out")
    Path("out/model/tokenizer.json").unlink()
    refused(shop, hub, publish(typing, target=Path("out")), "tokenizer.json", "it is not here")


def test_a_stored_file_that_was_damaged(shop: Shop, hub: LoopbackHub, typing: Desk) -> None:
    """The store's own bytes are read to their end too."""
    digest = shop.files["F16"]
    path = shop.store.path(digest)
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    said = publish(typing)
    assert said.code in (1, 4)
    assert digest.hex[:12] in said.out + said.err
    assert not hub.has(REPO)


def test_files_that_do_not_load(open_shop: Callable[..., Shop], hub: LoopbackHub, typing: Desk) -> None:
    """Each is loaded in a worker; the reasons of transformers and of llama.cpp are told, and nothing of it is recorded."""
    shop = open_shop(loads=False)
    size = shop.log.size
    refused(shop, hub, publish(typing), "the folder:", "F16.gguf:", "Q8_0.gguf:")
    assert shop.log.size == size


def revoke(shop: Shop, first: int) -> None:
    """Alice revokes her own key from an entry on."""
    event = KeyEvent(event="revoked", key=shop.signer.public, from_entry=first, reason="stolen")
    shop.log.append([make(event.subjects(), KEY_EVENT, event.predicate())], ["revoked"])


def test_an_entry_whose_key_was_revoked(shop: Shop, hub: LoopbackHub, typing: Desk) -> None:
    """What was signed after it does not count, whoever publishes; it is said which entry, and why."""
    bob = shop.keys.new("bob", None)
    keys = {"alice": str(shop.signer.public), "bob": str(bob.public)}
    policy = {"version": 1, "keys": keys, "rules": [{"keys": list(keys)}]}
    (shop.ledger / "policy.yaml").write_text(json.dumps(policy))
    revoke(shop, 4)
    said = publish(typing, "--key", "bob")
    refused(shop, hub, said, "statements", "signed by alice, whose key does not count there", "revoked")


def test_a_comparison_that_says_what_no_evaluation_says(
    shop: Shop, hub: LoopbackHub, typing: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number of the card without an evaluation behind it."""
    from stages import publish_facts

    monkeypatch.setattr(publish_facts, "_told", lambda evidence, item: None if item["tier"] == "Q8_0" else told(evidence, item))
    refused(shop, hub, publish(typing), "numbers", "no trusted evaluation of")


def told(evidence: Any, item: Any) -> Any:
    """The evaluation of a file, whatever it says."""
    from ledger.predicates import EVALUATION

    return next(one for one in evidence.counting(Digest.parse(item["digest"])) if one.statement.predicate_type == EVALUATION)


def test_an_alloy_that_was_edited(shop: Shop, hub: LoopbackHub, typing: Desk) -> None:
    """Another version written over it: the recipe's hash says so."""
    value = json.loads(shop.alloy.read_text()) | {"version": "9.9.9"}
    shop.alloy.write_text(json.dumps(value))
    refused(shop, hub, publish(typing), "the recipe in the alloy", "was edited")


def test_all_faults_are_told_together(open_shop: Callable[..., Shop], hub: LoopbackHub, typing: Desk) -> None:
    """One table, one exit code, each with what to do; and what is fine is said as well."""
    shop = open_shop(recipe={"license": None, "description": "10.5 % better"}, shifts={"F16": 0.5, "Q8_0": 0.5}, tokenizer=False)
    said = publish(typing)
    refused(shop, hub, said, "5 faults", "licence", "numbers", "acceptance", "files", "ok      every file here hashes")
    assert said.out.count("→") >= 5
    value = publish(typing, "--json").json
    assert {fault["check"] for fault in value["refused"]} == {"licence", "numbers", "acceptance", "files"}


def test_a_key_that_nobody_trusts(shop: Shop, hub: LoopbackHub, typing: Desk) -> None:
    """A release by it would count for nothing, so there is none."""
    shop.keys.new("mallory", None)
    refused(shop, hub, publish(typing, "--key", "mallory"), "the key mallory", "not trusted")


def test_an_ed25519_key_signs_no_model(shop: Shop, hub: LoopbackHub, typing: Desk) -> None:
    """Model Signing knows none: said before anything is done."""
    said = publish(typing, "--model-key", "alice")
    assert (said.code, "P-256" in said.err or "p256" in said.err, hub.has(REPO)) == (2, True, False)


def test_a_model_key_is_made_when_there_is_none(shop: Shop, hub: LoopbackHub, typing: Desk) -> None:
    """The first publication makes it, says so, and the next one uses it."""
    for name in ("alice-model", "alice-model.pub"):
        (shop.root / "keys" / name).unlink()
    assert "made alice-model" in publish(typing).out
    assert "nothing changed" in publish(typing).out


def test_a_repository_with_files_of_others(shop: Shop, hub: LoopbackHub, typing: Desk) -> None:
    """A publication vouches for every file beside it, so a stranger's are neither kept nor deleted."""
    hub.put(REPO, {"pytorch_model.bin": b"pickle", "notes.txt": b"x"})
    head = hub.head(REPO)
    said = publish(typing)
    assert (said.code, hub.head(REPO)) == (1, head)
    assert "notes.txt, pytorch_model.bin" in said.out
    assert publications(shop) == []


# --- a Hub that lies, or is busy -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lie", "path", "words"),
    [
        ("wrong_sha256", "model.safetensors", "sha256:"),
        ("wrong_oid", "config.json", "git id"),
        ("wrong_oid", "README.md", "git id"),
        ("wrong_size", "little-3e.alloy.json", "bytes, got"),
        ("wrong_xet", "little-3x1.7M-3e-v1.0-F16.gguf", "Xet hash"),
    ],
)
def test_a_listing_that_differs(shop: Shop, hub: LoopbackHub, typing: Desk, lie: str, path: str, words: str) -> None:
    """Exit code 3 with the file, expected and got; it is not stated as published until the Hub lists what was sent."""
    getattr(hub.lies, lie).add(path)
    said = publish(typing)
    assert said.code == 3, said
    assert path in said.err
    assert words in said.err
    assert [one.event for one in publications(shop)] == ["released"]
    getattr(hub.lies, lie).clear()
    again = publish(typing)
    assert again.code == 0, again
    assert [one.event for one in publications(shop)] == ["released", "published"]


def test_somebody_else_commits_meanwhile(shop: Shop, hub: LoopbackHub, typing: Desk) -> None:
    """A stale parent is refused with what to do; their commit stands, and none of ours."""
    hub.lies.stale_parent = True
    said = publish(typing)
    assert said.code == 1
    assert "somebody else committed" in said.err
    assert set(hub.files(REPO)) == {".gitattributes", "somebody.txt"}
    assert [one.event for one in publications(shop)] == ["released"]


def test_a_hub_that_is_not_there(shop: Shop, hub: LoopbackHub, typing: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """No release is signed when nobody answers."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    said = publish(typing)
    assert said.code == 1
    assert publications(shop) == []


# --- kill -9 -------------------------------------------------------------------------------------------------------------------


def requests_of(hub: LoopbackHub, since: int) -> int:
    return len(hub.log) - since


def killed_after(hub: LoopbackHub, requests: int, pause_s: float) -> bool:
    """Publish in a process of its own, and kill it once the Hub has answered so many requests and a little time has passed.

    Returns:
        whether it was killed before it was done.
    """
    since = len(hub.log)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            from huggingface_hub.utils import close_session

            close_session()
            code = main(["publish", "little-3e", "--to", TO])
        finally:
            os._exit(code)
    while requests_of(hub, since) < requests:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert os.waitstatus_to_exitcode(status) == 0
            return False
        time.sleep(0.001)
    time.sleep(pause_s)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


MOMENTS = [(requests, 0.02 * (requests % 2)) for requests in range(1, 14)]
"""When to kill: after so many requests, at once or a little later. The last ones are after the last request."""


def test_a_kill_at_any_moment_leaves_the_old_commit_or_the_new_one(shop: Shop, hub: LoopbackHub, typing: Desk) -> None:
    """Whatever was cut short, the repository is as it was or as it should be; running again finishes it; the log stays whole."""
    assert publish(typing).code == 0
    old = hub.files(REPO)
    kills = 0
    for number, (requests, pause_s) in enumerate(MOMENTS, 1):
        edit(shop, version=f"1.{number}.0")
        kills += killed_after(hub, requests, pause_s)
        now = hub.files(REPO)
        version = json.loads(now["little-3e.alloy.json"])["version"]
        assert now == old or version == f"1.{number}.0", (requests, pause_s)
        names = {name for name in now if name.endswith(".gguf")}
        assert {name.partition("-v")[2].partition("-")[0] for name in names} == {version.removesuffix(".0")}
        again = publish(typing)
        assert again.code == 0, (requests, pause_s, again)
        old = hub.files(REPO)
        assert json.loads(old["little-3e.alloy.json"])["version"] == f"1.{number}.0"
        stated = publications(shop)
        assert stated[-1].event == "published"
        assert stated[-1].revision == hub.head(REPO)
        assert len([one for one in stated if one.event == "released" and one.version == f"1.{number}.0"]) == 1
    assert kills > 5
    assert Log.open(shop.ledger).size == shop.log.size
    assert typing.type("verify", TO).code == 0


# --- witnesses -----------------------------------------------------------------------------------------------------------------


def test_a_witness_of_one_s_own_sees_the_release(shop: Shop, hub: LoopbackHub, typing: Desk, tmp_path: Path) -> None:
    """Where the policy wants a log that was seen lately, and the witness is here, the proof that travels is one that it has cosigned."""
    typing.ok("key", "new", "watcher")
    typing.ok("key", "trust", "watcher", "watcher", "--witness", "30d", "--yes")
    assert publish(typing, "--key", "alice").code == 0
    proof = Proof.from_text(hub.files(REPO)["little-3e.tlog-proof"])
    assert [row.text for row in proof.check(shop.policy) if row.status == "failed"] == []
    (tmp_path / "proof-qr.png").write_bytes(hub.files(REPO)["proof-qr.png"])
    assert typing.type("verify", "--offline", tmp_path / "proof-qr.png").code == 0
    assert typing.type("verify", TO).code == 0
    assert "nothing changed" in publish(typing, "--key", "alice").out


def test_a_witness_elsewhere_is_asked_for(
    shop: Shop, hub: LoopbackHub, typing: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it the proof counts as frozen; once its cosignature was taken, publishing again puts it into the repository."""
    away = KeyStore(tmp_path / "away").new("watcher", None)
    typing.ok("key", "trust", "watcher", str(away.public), "--witness", "30d", "--yes")
    assert publish(typing).code == 0
    (tmp_path / "qr.png").write_bytes(hub.files(REPO)["proof-qr.png"])
    assert typing.type("verify", "--offline", tmp_path / "qr.png").code == 3
    Path("request").write_text(typing.ok("witness", "--request", "0").out)
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("LEDGER_KEYS", str(tmp_path / "away"))
        elsewhere.setenv("XDG_STATE_HOME", str(tmp_path / "away-state"))
        typing.ok("witness", "request", "--out", "cosigned")
    typing.ok("witness", "--take", "cosigned")
    assert "updated" in publish(typing).out
    (tmp_path / "qr.png").write_bytes(hub.files(REPO)["proof-qr.png"])
    assert typing.type("verify", "--offline", tmp_path / "qr.png").code == 0
    said = typing.type("verify", TO)
    assert said.code == 0, said
    assert "nothing changed" in publish(typing).out


# --- confirmations -------------------------------------------------------------------------------------------------------------


def test_the_card_says_how_often_it_was_confirmed(shop: Shop, hub: LoopbackHub, typing: Desk) -> None:
    """A second key states the same runs with the same outputs: the next publication is a new one, whose card counts it."""
    publish(typing)
    assert b"confirmed by nobody else yet" in hub.files(REPO)["README.md"]
    bob = shop.keys.new("bob", None)
    keys = {"alice": str(shop.signer.public), "bob": str(bob.public)}
    (shop.ledger / "policy.yaml").write_text(json.dumps({"version": 1, "keys": keys, "rules": [{"keys": list(keys)}]}))
    payloads = [entry.signed.payload for entry in shop.log.entries() if entry.statement.predicate_type == RUN]
    Log.open(shop.ledger, signer=bob).append(payloads, ["again"] * len(payloads))
    said = publish(typing, "--key", "alice")
    assert said.code == 0, said
    card = hub.files(REPO)["README.md"]
    assert b"confirmed by 1 other key" in card
    assert b"nobody else" not in card
    assert typing.type("verify", TO).code == 0


def test_a_file_that_the_alloy_calls_by_another_type(shop: Shop, hub: LoopbackHub, typing: Desk) -> None:
    """Names of files come from the runs that made them, so labels that were exchanged are seen."""
    value = json.loads(shop.alloy.read_text())
    for item in value["results"]["artifacts"]:
        if item["stage"] == "quant":
            item["output"] = {"gguf-F16": "gguf-Q8_0", "gguf-Q8_0": "gguf-F16"}[item["output"]]
    shop.alloy.write_text(json.dumps(value))
    refused(shop, hub, publish(typing), "the F16 file", "made it as Q8_0")


def test_a_card_that_changed_is_published_anew_under_the_same_release(
    shop: Shop, hub: LoopbackHub, typing: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer program words the card otherwise: the release stays the one that was signed, and the new commit is stated."""
    from stages import card

    publish(typing)
    render = card.render
    monkeypatch.setattr(card, "render", lambda facts: render(facts) + "\nworded anew\n")
    assert "updated" in publish(typing).out
    assert "nothing changed" in publish(typing).out
    stated = publications(shop)
    assert [one.event for one in stated] == ["released", "published", "published"]
    assert stated[-1].revision == hub.head(REPO)

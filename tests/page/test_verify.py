"""The verify page and files that are dropped on it: what is good is green, what was changed is red, what nobody vouches for is grey."""

from __future__ import annotations

import json
import time
from base64 import b64decode, b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ledger.keys import Signer
from ledger.policy import Policy
from ledger.predicates import KeyEvent
from ledger.testing import UnsafeSigner, unsafe_policy
from ledger.verify import verify_alloy
from ledger.vsa import VERIFIER, Summary
from store.digest import Digest
from tests.page.chromium import Page
from tests.page.conftest import Site
from tests.page.csp import PAGE
from tests.page.look import check, rows, text, verdict
from tests.page.publication import POLICY, STRANGER, WEIGHTS, Published, publish

ROOT = Path(__file__).parents[2]
ALLOYS = ROOT / "tests/vectors/alloys"
TINY_MOE = ROOT / "examples/tiny-moe"
WINDOWS = [(390, 844), (1280, 800)]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """A publication that no test changes."""
    return publish(tmp_path_factory.mktemp("good"))


@pytest.fixture
def published(tmp_path: Path) -> Published:
    """One of a test's own."""
    return publish(tmp_path)


# --- good ------------------------------------------------------------------------------------------------------------------------


def test_a_publication_with_a_policy_is_green(page: Page, good: Published) -> None:
    """Everything dropped at once, as a folder: release, results, files, place and hashes are proven, and what nobody confirmed is said."""
    page.call("policy => { byId('policy').value = policy; }", POLICY)
    page.drop([good.folder])
    assert verdict(page) == "good"
    assert text(page, "#verdict-word") == "Verified"
    proven, attested = rows(page, "proven"), rows(page, "attested")
    assert "alice released exactly this alloy file as tiny 1.0.0, for hf:org/tiny" in proven
    assert "4 files that you dropped, 10,318 bytes, are byte for byte as the alloy lists them" in proven
    assert "The results lead back, run by run, over 6 runs of 4 kinds that alice signed" in proven
    assert "1 statement is an entry of the log" in proven
    assert "The modelHash follows from the 3 weight files that the alloy lists" in proven
    assert "The recipeHash is that of the recipe as it stands in the alloy" in proven
    assert "2 numbers are as alice signed them" in attested
    assert "That 6 runs went as stated: alice alone says so" in attested
    assert "no hash was given beforehand" in rows(page, "unverified")
    assert rows(page, "failed") == ""
    assert verify_alloy(good.folder, unsafe_policy("alice")).verdict.startswith("VERIFIED")


def test_the_expected_hash_is_proven_too(page: Page, good: Published) -> None:
    """With the text of the QR in the box, dropped files are compared with it."""
    assert check(page, good.three, policy=POLICY, where=good.locator) == "good"
    assert "The alloy file is byte for byte the one that the link names" in rows(page, "proven")


def test_the_example_verifies_with_the_shipped_policy(page: Page) -> None:
    """examples/tiny-moe has no release: its results are signed, and its name is its own word."""
    files = [TINY_MOE / "tiny-moe.alloy.json", TINY_MOE / "tiny-moe.attestations.jsonl", *sorted((TINY_MOE / "model").iterdir())]
    assert check(page, files, policy=(ROOT / "ledger/trusted/tiny-moe.yaml").read_text()) == "good"
    assert "66 statements are signed by tiny-moe-example" in rows(page, "proven")
    assert "39.5 ± 1.2" in text(page, "#results")
    assert "self-reported" in text(page, ".facts")
    assert "The files themselves" not in rows(page)


def test_a_proof_alone_says_what_was_released(page: Page, good: Published) -> None:
    """The whole proof of a QR is checked without a network; what it is about is not here, which is said."""
    code = (good.folder.parent / "proof.txt").read_text()
    assert check(page, policy=POLICY, where=code) == "good"
    assert f"alice released the alloy file tiny.alloy.json (sha256:{good.digest.hex[:12]}" in rows(page, "proven")
    assert "none of them is here" in rows(page, "unverified")
    assert check(page, policy=STRANGER, where=code) == "grey"
    assert check(page, policy=POLICY, where=code[:-1]) == "bad"
    assert check(page, policy=POLICY, where=code[:-9] + "000000000") == "bad"
    assert check(page, [good.proof], policy=POLICY) == "good"


def test_the_published_proof_is_read(page: Page) -> None:
    """The vectors of docs/formats/proof.md, as text and as what the QR holds."""
    folder = ROOT / "tests/vectors/proof"
    policy = (folder / "policy.yaml").read_text()
    assert check(page, policy=policy, where=(folder / "released.qr.txt").read_text()) == "good"
    assert check(page, [folder / "released.tlog-proof"], policy=policy) == "good"


def test_a_browser_without_ed25519_sees_the_same(page: Page, good: Published) -> None:
    """By the page's own arithmetic the findings are word for word those of WebCrypto."""
    check(page, good.three, policy=POLICY)
    before = rows(page)
    page.evaluate("void (ownEd25519 = Promise.resolve(false))")
    assert check(page, good.three, policy=POLICY) == "good"
    assert rows(page) == before


def test_a_page_on_the_disk_checks_dropped_files(tab: Callable[..., Page], good: Published) -> None:
    """A copy of the file, opened as one, needs no server."""
    page = tab(PAGE.as_uri())
    page.call("policy => { byId('policy').value = policy; }", POLICY)
    page.drop([*good.three, good.folder / "tiny-Q4_K_M.gguf"])
    assert verdict(page) == "good"


def test_the_policy_may_come_after_the_files(page: Page, good: Published) -> None:
    """What is grey becomes green while the policy is typed, and grey again when it goes; nothing is hashed anew."""
    assert check(page, good.three) == "grey"
    type_policy = "policy => { byId('policy').value = policy; byId('policy').dispatchEvent(new Event('input')); }"
    page.call(type_policy, POLICY)
    page.wait("document.querySelector('#verdict')?.dataset.verdict === 'good'")
    page.call(type_policy, "version: 7")
    page.wait("document.querySelector('#verdict')?.dataset.verdict === 'grey'")
    assert "version: 1" in text(page, "#policy-wrong")


# --- grey ------------------------------------------------------------------------------------------------------------------------


def test_without_a_policy_nothing_is_green(page: Page, good: Published) -> None:
    """Not a chip, not a border: signatures verify under a key that nobody said to trust. Even the expected hash is shown without colour."""
    greens = "['--proven', '--proven-tint'].map(name => getComputedStyle(document.documentElement).getPropertyValue(name).trim())"
    look = """greens => {
      const probe = document.body.appendChild(document.createElement("i"));
      const wanted = new Set(greens.map(one => { probe.style.color = one; return getComputedStyle(probe).color; }));
      probe.remove();
      const colours = one => (s => [s.color, s.backgroundColor, s.borderTopColor, s.fill, s.stroke])(getComputedStyle(one));
      return [...document.querySelectorAll("#report, #report *")].filter(one => colours(one).some(colour => wanted.has(colour))).length;
    }"""
    for where in ("", good.locator):
        assert check(page, [*good.three, good.folder / "tiny-Q4_K_M.gguf"], where=where) == "grey"
        assert page.call(look, page.evaluate(greens)) == 0
    assert (
        "10 statements are signed by ed25519:vqhSRPChUKIBgmQcUWZ0tnNjN/v2Kp26LBjAsmdt/9I=, whom you have not said that you trust"
        in rows(page, "unverified")
    )
    assert check(page, good.three, policy=POLICY) == "good"
    assert page.call(look, page.evaluate(greens)) > 0


def test_a_policy_that_trusts_others_leaves_it_grey(page: Page, good: Published) -> None:
    """Nothing counts, and nothing is wrong."""
    assert check(page, good.three, policy=STRANGER) == "grey"
    assert "Nothing here is signed by a key that you trust" in text(page, "#verdict")
    assert "An unknown key released exactly this alloy file" in rows(page, "unverified")


def test_a_policy_among_the_files_is_not_used(page: Page, published: Published) -> None:
    """Whoever sends a model could send a policy that trusts him."""
    (published.folder / "policy.json").write_text(POLICY)
    assert check(page, [*published.three, published.folder / "policy.json"]) == "grey"
    assert "policy.json: a policy that came with the files is not used" in rows(page, "unverified")


@pytest.mark.parametrize("name", sorted(path.name for path in ALLOYS.glob("*.json")))
def test_alloys_of_others_are_shown_and_never_green(page: Page, name: str) -> None:
    """Every published alloy opens; with its whole hash too it is nobody's word, and with 64 bits of it nothing."""
    path = ALLOYS / name
    digest = Digest.of(path.read_bytes()).hex
    assert check(page, [path], policy=POLICY) == "grey"
    assert text(page, "#verdict-word") == "Unsigned"
    assert check(page, [path], policy=POLICY, where=f"sha256:{digest}") == "grey"
    assert "byte for byte the one that the link names" in rows(page, "proven")
    assert check(page, [path], policy=POLICY, where=f"https://cambriantech.github.io/forge-alloy/verify/#{digest[:16]}") == "grey"
    assert "begins with the 64 bits that the link gives" in rows(page, "unverified")
    assert "2^32 tries" in rows(page, "unverified")
    assert check(page, [path], policy=POLICY, where="0" * 16) == "bad"


def test_a_prefix_is_not_green_even_where_all_is_signed(page: Page, good: Published) -> None:
    """63 of 64 digits are not the hash."""
    for digits in (8, 16, 63):
        assert check(page, good.three, policy=POLICY, where=good.digest.hex[:digits]) == "grey"
        assert "the link expects" not in rows(page)


def test_zero_is_a_number_and_a_top_level_score_is_shown(page: Page, tmp_path: Path) -> None:
    """The page that came before showed a dash for both."""
    path = tmp_path / "x.alloy.json"
    path.write_text(
        json.dumps(
            {
                "name": "x",
                "results": {
                    "benchmarks": [{"name": "humaneval", "score": 0.0, "baseScore": 40.9}, {"name": "mmlu", "metrics": {"accuracy": 0}}]
                },
            }
        )
    )
    assert check(page, [path]) == "grey"
    assert page.evaluate("[...document.querySelectorAll('#results tbody td.number')].map(td => td.textContent)") == ["0", "40.9", "0", "–"]


def test_an_ensemble_shows_its_parts(page: Page, tmp_path: Path) -> None:
    """The form of combined models keeps its hashes at the top and names its models by role."""
    path = tmp_path / "many.alloy.json"
    source = {"target": {"baseModel": "org/target", "frozen": True}, "specialists": [{"baseModel": "org/one"}, {"baseModel": "org/two"}]}
    path.write_text(
        json.dumps({"name": "many", "type": "many-worlds-ensemble", "source": source, "integrity": {"modelHash": "sha256:" + "a" * 64}})
    )
    assert check(page, [path]) == "grey"
    assert "from org/targetwith org/onewith org/two" in text(page, ".facts")
    assert "lists no weight files" in rows(page, "self-reported")


def test_a_signature_with_its_own_key_inside_proves_nothing(page: Page, tmp_path: Path) -> None:
    """forge-alloy's page showed SIGNED for its presence."""
    path = tmp_path / "x.alloy.json"
    signature = {"algorithm": "ES256", "publicKey": "abc", "value": "def"}
    path.write_text(json.dumps({"name": "x", "results": {"integrity": {"trustLevel": "enclave", "signature": signature}}}))
    assert check(page, [path], policy=POLICY) == "grey"
    assert "such a key proves nothing" in rows(page, "unverified")


# --- bad -------------------------------------------------------------------------------------------------------------------------


def swap(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert data.count(old) >= 1
    path.write_bytes(data.replace(old, new, 1))


def results(value: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = value["results"]
    return found


def ledger(value: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = value["receipt"]["ledger"]
    return found


def swap_shards(value: dict[str, Any]) -> None:
    files = results(value)["integrity"]["fileHashes"]
    one, two = (file for file in files if "safetensors" in file["filename"])
    one["sha256"], two["sha256"] = two["sha256"], one["sha256"]


def swap_subjects(value: dict[str, Any]) -> None:
    one, two = results(value)["benchmarks"]
    one["subject"], two["subject"] = two["subject"], one["subject"]


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a better number": (lambda value: results(value)["benchmarks"][0]["metrics"].update(perplexity="41.0"), "gives this number"),
    "a better score": (lambda value: results(value)["benchmarks"][0].update(score=41.0), "does not follow from what was signed"),
    "a better delta": (lambda value: results(value)["benchmarks"][0].update(delta=-1.0), "a delta that does not follow"),
    "another record": (lambda value: results(value)["benchmarks"][0].update(resultHash="sha256:" + "0" * 64), "resultHash that does not"),
    "numbers under each other's names": (swap_subjects, "no trusted statement gives this number"),
    "another entry": (lambda value: results(value)["benchmarks"][0].update(entry=3), "no trusted statement gives this number"),
    "an edited comparison": (lambda value: results(value)["comparison"]["rows"][0].update(perplexity="99"), "what a signed run reported"),
    "another result": (lambda value: results(value)["artifacts"][0].update(digest="sha256:" + "1" * 64), "is in no trusted statement"),
    "no results": (lambda value: results(value).update(artifacts=[]), "The alloy names no results"),
    "another size": (lambda value: results(value)["artifacts"][1].update(sizeBytes=11), "another size than it has"),
    "an unsigned number": (lambda value: results(value)["benchmarks"].append({"name": "humaneval", "score": 99.0}), "gives this number"),
    "an action that nobody ran": (lambda value: results(value).update(actions=["sha256:" + "2" * 64]), "no trusted run is attested"),
    "another file": (lambda value: results(value)["integrity"]["fileHashes"][3].update(sha256="3" * 64), "no trusted statement covers"),
    "swapped shards": (swap_shards, "which no trusted statement covers"),
    "a file twice": (lambda value: results(value)["integrity"]["fileHashes"].append(results(value)["integrity"]["fileHashes"][0]), "twice"),
    "a file outside": (lambda value: results(value)["integrity"]["fileHashes"][0].update(filename="../x"), "no path of one file"),
    "another modelHash": (lambda value: results(value)["integrity"].update(modelHash="sha256:" + "4" * 64), "The modelHash is"),
    "another recipe": (lambda value: value["stages"][0].update(keepExpertsPerLayer=7), "The recipeHash is"),
    "another recipeHash": (lambda value: value.update(recipeHash="sha256:" + "5" * 64), "The recipeHash is"),
    "an edited list of files": (lambda value: next(iter(ledger(value)["trees"].values()))[0].update(size=1), "the alloy was edited"),
    "a moved entry": (lambda value: ledger(value)["entries"][0].update(number=7), "leads to another root"),
    "another root": (
        lambda value: ledger(value).update(checkpoint=ledger(value)["checkpoint"].replace("\n10\n", "\n11\n")),
        "is not signed by alice, as it says",
    ),
    "a lost statement": (
        lambda value: ledger(value)["entries"].append({"envelopeDigest": "sha256:" + "6" * 64, "inclusionProof": [], "number": 1}),
        "not among the attestations",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "words"), CHANGES.values(), ids=CHANGES)
def test_an_edited_alloy_fails(page: Page, tmp_path: Path, change: Callable[[dict[str, Any]], None], words: str) -> None:
    """Without a release too, where only the results are signed; and with one, whose digest it no longer has."""
    bare = publish(tmp_path, released=False)
    assert check(page, [bare.alloy, bare.attestations], policy=POLICY) == "good"
    bare.edit(change)
    assert check(page, [bare.alloy, bare.attestations], policy=POLICY) == "bad"
    assert words in rows(page, "failed")
    assert "Failed" in text(page, "#verdict")


def test_any_edit_of_a_released_alloy_fails(page: Page, published: Published) -> None:
    """A word that no run signed is bound by the release."""
    published.edit(lambda value: value.update(description="Better than all others"))
    assert check(page, published.three, policy=POLICY) == "bad"
    assert "is of another alloy file" in rows(page, "failed")


def test_an_edited_package_fails_without_a_policy_too(page: Page, published: Published) -> None:
    """Whoever signed it: what came together must agree."""
    published.edit(lambda value: results(value)["benchmarks"][0]["metrics"].update(perplexity="41.0"))
    assert check(page, published.three) == "bad"


def test_no_changed_byte_of_what_travels_is_green(page: Page, good: Published) -> None:
    """Bytes all over the alloy, the attestations and the proof, one at a time; with the last byte cut off, and with one more."""
    found = page.call(
        """async (alloy, attestations, proof, policy) => {
          const bytes = text => unbase64(text, "it"), tones = {};
          const files = { alloy: bytes(alloy), attestations: bytes(attestations), proof: bytes(proof) };
          const tone = async changed => {
            const given = {
              locator: null, listing: null, files: [], others: [], proofs: [{ name: "tiny.tlog-proof", bytes: changed.proof }],
              alloy: { name: "tiny.alloy.json", bytes: changed.alloy },
              attestations: { name: "tiny.attestations.jsonl", bytes: changed.attestations },
            };
            const report = await examine(given, Policy.parse(policy));
            const placed = report.rows.filter(row => row.status === "proven" && row.text.includes(", whose checkpoint ")).length;
            return report.verdict.tone === "good" && placed < 2 ? "good without a place" : report.verdict.tone;
          };
          tones.none = await tone(files);
          for (const [name, bytes] of Object.entries(files)) {
            for (let at = 0; at < bytes.length; at += Math.ceil(bytes.length / 90)) {
              for (const bit of [1, 32]) {
                const copy = bytes.slice();
                copy[at] ^= bit;
                tones[`${name} ${at} ${bit}`] = await tone({ ...files, [name]: copy });
              }
            }
            tones[`${name} cut`] = await tone({ ...files, [name]: bytes.slice(0, -1) });
            tones[`${name} longer`] = await tone({ ...files, [name]: joined(bytes, Uint8Array.of(32)) });
          }
          return tones;
        }""",
        *(b64encode(path.read_bytes()).decode() for path in good.three),
        POLICY,
    )
    assert found.pop("none") == "good"
    # A file of lines may lack its last line break: every statement in it is whole.
    assert found.pop("attestations cut") == "good"
    # A signature line of the proof's checkpoint that names another key is somebody else's: the release then has no proven place.
    assert {name for name, tone in found.items() if tone == "good without a place"} <= {name for name in found if name.startswith("proof")}
    assert {name: tone for name, tone in found.items() if tone not in ("bad", "good without a place")} == {}
    assert len(found) > 400


def test_the_wrong_hash_fails(page: Page, good: Published) -> None:
    """Whatever is signed: it is not what the link names."""
    assert check(page, good.three, policy=POLICY, where="sha256:" + "0" * 64) == "bad"
    assert "the link expects sha256:000000000000" in rows(page, "failed")


@pytest.mark.parametrize("name", sorted(WEIGHTS))
def test_a_changed_file_fails(page: Page, published: Published, name: str) -> None:
    """One byte, the size kept; and one byte less."""
    path = published.folder / name
    data = path.read_bytes()
    for content in (data[:-1] + bytes([data[-1] ^ 1]), data[:-1]):
        path.write_bytes(content)
        assert check(page, [*published.three, path], policy=POLICY) == "bad"
        assert path.name in rows(page, "failed")


@pytest.mark.parametrize(
    "name", ["model/pytorch_model.bin", "model/modeling.py", "model/chat_template.jinja", "other.gguf", "X.SAFETENSORS"]
)
def test_a_file_that_a_loader_would_take_and_nobody_names_fails(page: Page, published: Published, name: str) -> None:
    """Beside good weights, in a folder that is dropped whole."""
    (published.folder / name).write_bytes(b"smuggled")
    page.call("policy => { byId('policy').value = policy; }", POLICY)
    page.drop([published.folder])
    assert verdict(page) == "bad"
    assert f"{name}, 8 bytes, is named by nothing here" in rows(page, "failed")


def test_a_part_of_what_is_signed_does_not_carry_other_weights(page: Page, tmp_path: Path) -> None:
    """An alloy that names one genuine result and lists no file, with weights of somebody else's beside it."""
    one = publish(tmp_path, released=False)
    one.edit(lambda value: results(value).update(artifacts=results(value)["artifacts"][3:], benchmarks=[], integrity={}))
    one.edit(lambda value: (value.update(name="famous-model"), value.pop("recipeHash")))
    assert check(page, [one.alloy, one.attestations], policy=POLICY) == "good"
    assert "self-reported" in text(page, ".facts")
    weights = one.folder / "famous-model-Q8_0.gguf"
    weights.write_bytes(b"GGUF of mine")
    assert check(page, [one.alloy, one.attestations, weights], policy=POLICY) == "bad"
    assert "famous-model-Q8_0.gguf, 12 bytes, is named by nothing here" in rows(page, "failed")
    assert check(page, [*publish(tmp_path / "more").three[2:], weights], policy=POLICY) == "bad"


def test_two_files_of_one_name_are_swapped(page: Page, tmp_path: Path) -> None:
    """Both are listed, each in its folder; the folder that is dropped holds theirs."""
    more = {"model/vae/config.json": b'{"a": 1}', "model/text/config.json": b'{"b": 2}'}
    listed = [{"filename": path, "sha256": Digest.of(data).hex, "size": len(data)} for path, data in more.items()]
    one = publish(tmp_path / "tiny", change=lambda value: results(value)["integrity"]["fileHashes"].extend(listed))
    (tmp_path / "box").mkdir()
    inside = one.folder.rename(tmp_path / "box/tiny")
    page.call("policy => { byId('policy').value = policy; }", POLICY)
    for contents, tone in ((more.values(), "good"), (reversed(more.values()), "bad")):
        for path, content in zip(more, contents, strict=True):
            (inside / path).parent.mkdir(exist_ok=True)
            (inside / path).write_bytes(content)
        page.evaluate("byId('report').replaceChildren()")
        page.drop([tmp_path / "box"])
        assert verdict(page) == tone
    assert "vae/config.json has the SHA-256" in rows(page, "failed")


def test_summary_that_a_file_failed_vouches_for_it(page: Page, tmp_path: Path) -> None:
    """A trusted key signed that the file did not pass; its subject is no file that somebody trusted vouches for."""
    signer, weights = UnsafeSigner("alice"), tmp_path / "evil.gguf"
    weights.write_bytes(b"GGUF evil")
    subjects, whose = {"evil.gguf": Digest.of(b"GGUF evil")}, f"{VERIFIER}{signer.public}"
    summary = Summary("hf:evil/x", subjects, whose, "2024-01-01T00:00:00Z", ("policy", Digest.of(b"")), {}, False, ())
    (tmp_path / "x.attestations.jsonl").write_bytes(summary.sign(signer) + b"\n")
    assert check(page, [tmp_path / "x.attestations.jsonl", weights], policy=POLICY) != "good"


def test_attestations_of_many_lines_are_not_read(page: Page, good: Published, tmp_path: Path) -> None:
    """Line ends and letters cost a thousand times their size."""
    lines = tmp_path / "tiny.attestations.jsonl"
    lines.write_bytes(b"x\n" * 3 + b"\n" * 200_000)
    assert check(page, [good.alloy, lines], policy=POLICY) == "bad"
    assert "more than 200000 lines" in text(page, "#report")


def test_a_signed_file_under_the_name_of_another_fails(page: Page, tmp_path: Path) -> None:
    """Without a list of files a folder's signed list binds the names: a tokenizer's settings are no model's."""
    copies = {path.name: path.read_bytes() for path in (TINY_MOE / "model").iterdir()}
    copies["config.json"] = copies["tokenizer_config.json"]
    for name, content in copies.items():
        (tmp_path / name).write_bytes(content)
    files = [TINY_MOE / "tiny-moe.alloy.json", TINY_MOE / "tiny-moe.attestations.jsonl", *sorted(tmp_path.iterdir())]
    assert check(page, files, policy=(ROOT / "ledger/trusted/tiny-moe.yaml").read_text()) == "bad"
    assert "config.json, 233 bytes, is named by nothing here" in rows(page, "failed")


def test_a_file_that_nothing_signed_names_is_not_verified_by_its_company(page: Page, good: Published, tmp_path: Path) -> None:
    """Genuine statements beside it say nothing of it; a README beside them changes nothing."""
    (tmp_path / "setup.zip").write_bytes(b"PK")
    assert check(page, [*good.three, good.folder / "README.md"], policy=POLICY) == "good"
    for company in (good.three, good.three[1:], good.three[2:]):
        assert check(page, [*company, tmp_path / "setup.zip"], policy=POLICY) == "grey"
        assert "says anything of the files that you dropped" in text(page, "#verdict")


def test_a_hash_is_that_of_one_of_the_dropped_files(page: Page, good: Published, tmp_path: Path) -> None:
    """It does not say of which; without an alloy one must have it, and the others are not compared with it."""
    files = [good.folder / "README.md", good.folder / "tiny-Q4_K_M.gguf"]
    where = str(Digest.of(files[1].read_bytes()))
    assert check(page, files, policy=POLICY, where=where) == "grey"
    assert "tiny-Q4_K_M.gguf, these 10,244 bytes, is byte for byte the one that the link names" in rows(page, "proven")
    assert check(page, files[:1], policy=POLICY, where=where) == "bad"
    assert "The file that you dropped does not have the SHA-256" in rows(page, "failed")
    assert check(page, [*good.three, *files], policy=POLICY, where=where) == "good"
    assert check(page, files[1:], policy=POLICY, where=f"https://example.org/x.gguf#{where}") == "grey"


def test_a_line_that_is_there_twice_says_nothing_more(page: Page, published: Published) -> None:
    """Attestations are a set."""
    lines = published.attestations.read_bytes().splitlines(keepends=True)
    published.attestations.write_bytes(b"".join([*lines, lines[0]]))
    assert check(page, published.three, policy=POLICY) == "good"
    assert "10 statements are signed by alice" in rows(page, "proven")


def test_bytes_under_another_name_are_said(page: Page, published: Published) -> None:
    """A shard that has another's name is not as listed."""
    one, two = (published.folder / f"model/model-0000{n}-of-00002.safetensors" for n in (1, 2))
    first = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(first)
    assert check(page, [*published.three, one, two], policy=POLICY) == "bad"
    assert "model-00001-of-00002.safetensors has the SHA-256" in rows(page, "failed")


def test_attestations_of_another_model_fail(page: Page, good: Published, tmp_path: Path) -> None:
    """Mix and match: each is genuine, and they are about different things."""
    other = publish(tmp_path, change=lambda value: value.update(description="another"))
    (tmp_path / "mix").mkdir()
    for path in (good.alloy, other.attestations, other.proof):
        (tmp_path / "mix" / path.name).write_bytes(path.read_bytes())
    assert check(page, sorted((tmp_path / "mix").iterdir()), policy=POLICY) == "bad"
    assert "is of another alloy file" in rows(page, "failed")


def test_an_envelope_that_names_a_victims_key_fails(page: Page, published: Published) -> None:
    """The keyid is a hint: signed by mallory, it says that alice signed it."""
    from ledger.dsse import sign

    lines = published.attestations.read_bytes().splitlines()
    payload = json.loads(lines[0])
    forged = json.loads(sign(b64decode(payload["payload"]), UnsafeSigner("mallory")))
    forged["signatures"][0]["keyid"] = str(UnsafeSigner("alice").public)
    published.attestations.write_bytes(b"\n".join([*lines, json.dumps(forged).encode()]) + b"\n")
    assert check(page, published.three, policy=POLICY) == "bad"
    assert "its signature is not that of ed25519:vqhSRPCh.. (alice), as it says" in rows(page, "failed")


def test_another_payload_type_fails(page: Page, published: Published) -> None:
    """A signature over something else than a statement."""
    from ledger.dsse import sign

    published.attestations.write_bytes(
        published.attestations.read_bytes() + sign(b"{}", UnsafeSigner("alice"), payload_type="text/plain") + b"\n"
    )
    assert check(page, published.three, policy=POLICY) == "bad"
    assert "another type" in rows(page, "failed")


# --- policies --------------------------------------------------------------------------------------------------------------------


def event(name: str, kind: str, start: int, successor: str | None = None) -> KeyEvent:
    key = UnsafeSigner(name).public
    return KeyEvent(event=kind, key=key, from_entry=start, successor=UnsafeSigner(successor).public if successor else None, reason="lost")


def test_a_revoked_key_counts_for_nothing_where_its_place_is_its_own_word(page: Page, tmp_path: Path) -> None:
    """Alice's key was lost: her log places nothing any more, so nothing of it counts, and the event is told."""
    revoked = publish(tmp_path, events=(event("alice", "revoked", 9),))
    lines = [*revoked.attestations.read_bytes().splitlines()]
    assert any(b"key-event" in b64decode(json.loads(line)["payload"]) for line in lines)
    assert check(page, revoked.three, policy=POLICY) == "grey"
    assert "The key alice was revoked from entry 9 on" in rows(page, "proven")


def test_a_successor_is_not_trusted_for_being_one(page: Page, tmp_path: Path) -> None:
    """It is named, and the reader's policy decides."""
    moved = publish(tmp_path, events=(event("alice", "superseded", 9, "carol"),))
    assert check(page, moved.three, policy=POLICY) == "grey"
    assert f"its successor, {UnsafeSigner('carol').public}, counts for nothing here" in rows(page, "unverified").replace("Its", "its")


def test_strangers_cannot_revoke(page: Page, tmp_path: Path) -> None:
    """An event about alice that mallory signed takes nothing away."""
    from ledger.dsse import sign
    from ledger.predicates import KEY_EVENT
    from ledger.statement import make

    one = publish(tmp_path)
    said = event("alice", "revoked", 0)
    line = sign(make(said.subjects(), KEY_EVENT, said.predicate()), UnsafeSigner("mallory"))
    one.attestations.write_bytes(one.attestations.read_bytes() + line + b"\n")
    assert check(page, one.three, policy=POLICY) == "good"


def test_a_rule_for_two_keys_wants_two(page: Page, good: Published) -> None:
    """One of two is not enough; nor is one holder with two keys."""
    policy = unsafe_policy("alice", "bob").to_json()
    policy["rules"][0]["threshold"] = 2
    assert check(page, good.three, policy=json.dumps(policy)) == "grey"
    assert "the policy asks for more keys" in rows(page, "unverified")


@pytest.mark.parametrize(("age_s", "tone"), [(3600, "good"), (40 * 86400, "bad"), (-7200, "bad"), (None, "bad")])
def test_a_policy_with_witnesses_wants_a_fresh_checkpoint(page: Page, tmp_path: Path, age_s: int | None, tone: str) -> None:
    """Seen an hour ago is fresh; forty days ago, in two hours, or by nobody is not: newer entries may be kept back."""
    witness: tuple[Signer, int] | None = None if age_s is None else (UnsafeSigner("walter"), int(time.time()) - age_s)
    one = publish(tmp_path, released=False, witness=witness)
    policy = unsafe_policy("alice", "walter").to_json() | {"checkpoints": {"witnesses": ["walter"], "maxAge": "30d"}}
    policy["rules"] = [{"keys": ["alice"]}]
    assert Policy.parse(json.dumps(policy)).checkpoints is not None
    assert check(page, [one.alloy, one.attestations], policy=json.dumps(policy)) == tone
    assert ("walter saw the log" in rows(page, "proven")) == (tone == "good")
    assert ("Too few of the witnesses" in rows(page, "failed")) == (tone == "bad")


def test_a_key_for_single_artifacts_proves_no_place(page: Page, good: Published) -> None:
    """As the shipped one: its checkpoints place nothing."""
    policy = unsafe_policy("alice").to_json()
    digests = json.loads(good.alloy.read_bytes())["results"]["artifacts"]
    policy["rules"] = [{"keys": ["alice"], "artifacts": [one["digest"] for one in digests], "predicates": ["*"]}]
    check(page, good.three, policy=json.dumps(policy))
    assert "nobody signed it whom you trust with a log" in rows(page, "unverified")


# --- large things ----------------------------------------------------------------------------------------------------------------


def test_a_large_file_is_hashed_in_pieces(page: Page, published: Published) -> None:
    """32 MB that are sparse on the disk; a bar shows how far it is."""
    path = published.folder / "large.bin"
    with path.open("wb") as file:
        file.truncate(32 * 2**20 + 5)
        file.seek(2**24)
        file.write(b"something")
    digest = Digest.of(path.read_bytes())
    assert check(page, [path], where=str(digest), policy=POLICY) == "grey"
    assert "is byte for byte the one that the link names" in rows(page, "proven")
    assert page.evaluate("byId('bar').max === 32 * 2 ** 20 + 5 && byId('bar').value === byId('bar').max")
    assert page.evaluate("byId('busy').hidden")


def test_work_can_be_stopped(page: Page, published: Published) -> None:
    """Nothing follows from what did not end."""
    path = published.folder / "large.bin"
    with path.open("wb") as file:
        file.truncate(2 * 2**30)
    page.evaluate("byId('report').replaceChildren()")
    page.choose([path], "#files")
    page.wait("!byId('busy').hidden")
    page.evaluate("byId('stop').click()")
    assert verdict(page) == "grey"
    assert "Stopped before the end" in rows(page, "unverified")


# --- what it looks like ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), WINDOWS)
def test_nothing_sticks_out(tab: Callable[..., Page], site: Site, good: Published, width: int, height: int) -> None:
    """On a telephone and on a desk the page is as wide as its window, and the verdict is on the first screen."""
    page = tab(site.page(), width=width, height=height)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert check(page, [*good.three, good.folder / "tiny-Q4_K_M.gguf"], policy=POLICY) == "good"
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("byId('verdict').getBoundingClientRect().bottom + scrollY") < height
    assert page.evaluate("document.activeElement.id") == "verdict-word"


def test_status_is_told_by_a_sign_and_a_word_and_not_by_colour_alone(page: Page, good: Published) -> None:
    """Each chip has its picture and its word."""
    check(page, good.three, policy=POLICY)
    chips = page.evaluate(
        "[...document.querySelectorAll('.chip')].map(one => [one.querySelector('use').getAttribute('href'), one.textContent])"
    )
    assert chips
    assert all(sign == f"#s-{word}" for sign, word in chips)
    assert {word for _, word in chips} >= {"proven", "attested", "unverified"}


def test_it_works_with_the_keyboard_alone(page: Page) -> None:
    """Type, press Enter; the verdict has the focus, and the next stop comes after it."""
    page.evaluate("byId('where').focus()")
    page.call("text => { byId('where').value = text; }", "f" * 16)
    page.press("Enter", "Enter", 13)
    assert verdict(page) == "grey"
    assert page.evaluate("document.activeElement.id") == "verdict-word"
    page.press("Tab", "Tab", 9)
    assert page.evaluate("document.querySelector('main').contains(document.activeElement)")


def test_paper_shows_everything(page: Page, good: Published) -> None:
    """What is folded is opened for printing, and the form is left out."""
    check(page, good.three, policy=POLICY)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.send("Emulation.setEmulatedMedia", {"media": "print"})
    assert page.evaluate("[...document.querySelectorAll('.group')].every(one => one.open)")
    assert page.evaluate("getComputedStyle(byId('ask')).display") == "none"

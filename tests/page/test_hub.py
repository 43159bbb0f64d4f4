"""The verify page and the Hub: what it asks for, what it compares, and every lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from store.digest import Digest
from tests.hub import Lies, LoopbackHub
from tests.page.chromium import Page
from tests.page.conftest import Site, opened
from tests.page.look import check, rows, text, verdict
from tests.page.publication import POLICY, REPO, Published, publish

ALLOYS = Path(__file__).parents[1] / "vectors/alloys"
Q4 = "tiny-Q4_K_M.gguf"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return publish(tmp_path_factory.mktemp("good"))


@pytest.fixture(scope="module")
def server() -> Iterator[LoopbackHub]:
    """One Hub for all of these; each test finds it without repositories and without lies."""
    with LoopbackHub() as hub:
        yield hub


@pytest.fixture
def hub(server: LoopbackHub, good: Published) -> LoopbackHub:
    """With the good publication."""
    for name in list(server._repos):
        server.delete(name)
    server.lies = Lies()
    server.log.clear()
    server.put(REPO, dict(good.files()))
    return server


@pytest.fixture
def page(reused: Page, site: Site, hub: LoopbackHub) -> Iterator[Page]:
    """The verify page, whose Hub is the one on this machine."""
    yield from opened(reused, site.page(hub.endpoint))


def forgive(page: Page) -> None:
    """Answers that are no success are logged by the browser as errors; they are meant here."""
    page.complaints[:] = [one for one in page.complaints if "Failed to load resource" not in one]


def test_a_repository_is_checked_by_its_listing(page: Page, hub: LoopbackHub, good: Published) -> None:
    """Five requests and no byte of weights: sha256, size, git oid and Xet hash of each file, at one commit."""
    assert check(page, policy=POLICY, where=good.locator) == "good"
    proven = rows(page, "proven")
    assert "The alloy file is byte for byte the one that the link names" in proven
    assert f"4 files in the Hub's listing at commit {hub.head(REPO)[:12]} match the alloy by sha256, size, git oid, xetHash" in proven
    assert "(5 requests, no weight bytes)1 small file by git's id alone" in proven
    assert "the bytes behind the listing" in rows(page, "unverified").lower()
    assert len(hub.log) == 5
    assert hub.weight_bytes() == 0
    assert hub.head(REPO) in text(page, ".facts")
    assert page.evaluate("document.querySelector('.facts a').href") == f"{hub.endpoint}/{REPO}/tree/{hub.head(REPO)}"
    assert page.evaluate("document.querySelector('.facts a').rel") == "noopener noreferrer"
    assert page.evaluate("[...document.querySelectorAll('#listed td .chip')].map(one => one.textContent)") == ["proven"] * 4


def test_whether_a_file_is_in_lfs_is_the_hub_s_choice(page: Page, hub: LoopbackHub, good: Published) -> None:
    """A file that is listed by git's id of its bytes, and that the Hub keeps in LFS, is compared by its SHA-256, and so is the reverse."""
    blobs = hub.repo(REPO).commits[-1].files
    turned = {path: replace(blob, lfs=not blob.lfs) for path, blob in blobs.items() if path in ("model/config.json", Q4)}
    hub.commit(REPO, {"model/config.json": turned["model/config.json"]}, "kept in LFS")
    assert check(page, policy=POLICY, where=good.locator) == "good"
    assert "4 files in the Hub's listing" in rows(page, "proven")
    hub.commit(REPO, turned, "weights outside of LFS")
    assert check(page, policy=POLICY, where=good.locator) == "good"
    assert f"{Q4}: the Hub lists no hash that could be compared" in rows(page, "unverified")


def test_a_link_is_checked_when_it_is_opened(tab: Callable[..., Page], site: Site, hub: LoopbackHub, good: Published) -> None:
    """The QR opens the page, and the page begins; without a policy it ends grey, and offers to say whom one trusts."""
    page = tab(f"{site.page(hub.endpoint)}#{good.locator}")
    assert verdict(page) == "grey"
    assert "These are the bytes that the link names" in text(page, "#verdict")
    assert page.evaluate("byId('where').value") == good.locator
    page.evaluate("document.querySelector('#verdict button').click()")
    assert page.evaluate("document.activeElement.id") == "policy"
    page.evaluate(f"void (location.hash = '#hf%3Aorg%2Fnone%40sha256%3A{'0' * 64}')")
    page.wait("document.querySelector('#verdict')?.dataset.verdict === 'bad'")
    assert "it is not there, or it is not public" in rows(page, "failed")
    forgive(page)


def test_the_forms_of_a_place_lead_to_the_same(page: Page, hub: LoopbackHub, good: Published) -> None:
    """A branch, a commit, an address of the Hub, a page of somebody else."""
    commit = hub.head(REPO)
    for where in (
        f"hf:{REPO}@main",
        f"hf:{REPO}@{commit}",
        f"https://huggingface.co/{REPO}/blob/{commit}/tiny.alloy.json",
        f"https://x.org/v/#{good.locator}",
    ):
        assert check(page, policy=POLICY, where=where) == "good"


def test_a_proof_leads_to_what_was_released(page: Page, good: Published) -> None:
    """The offline code proves the release; one press then looks at the release's place, with the release's hash."""
    assert check(page, policy=POLICY, where=(good.folder.parent / "proof.txt").read_text()) == "good"
    page.evaluate("document.querySelector('#verdict button').click()")
    page.wait("document.querySelector('#listed') && !running")
    assert verdict(page) == "good"
    assert page.evaluate("byId('where').value") == good.locator


LIES: dict[str, tuple[Callable[[Lies], object], str]] = {
    "another sha256": (lambda lies: lies.wrong_sha256.add(Q4), "with a sha256 that is not the one in its commit"),
    "another git oid": (lambda lies: lies.wrong_oid.add("model/config.json"), "with git oid"),
    "another size": (lambda lies: lies.wrong_size.add(Q4), "with size 10,245; expected 10,244"),
    "another Xet hash": (lambda lies: lies.wrong_xet.add(Q4), "with xetHash"),
    "other bytes of the alloy": (lambda lies: lies.wrong_bytes.add("tiny.alloy.json"), "the Hub sent other bytes of tiny.alloy.json"),
    "other attestations": (lambda lies: lies.wrong_bytes.add("tiny.attestations.jsonl"), "sent other bytes of tiny.attestations.jsonl"),
    "another proof": (lambda lies: lies.wrong_bytes.add("tiny.tlog-proof"), "the Hub sent other bytes of tiny.tlog-proof"),
    "another repository": (lambda lies: setattr(lies, "renamed", "evil/tiny"), "the Hub answers about"),
    "a listing without end": (lambda lies: setattr(lies, "endless_listing", True), "which this page does not read"),
    "hostile names": (lambda lies: setattr(lies, "hostile_names", ("<img src=x onerror=alert(1)>.gguf",)), "which nothing here names"),
}  # fmt: skip


@pytest.mark.parametrize(("lie", "words"), LIES.values(), ids=LIES)
def test_a_lying_hub_fails(page: Page, hub: LoopbackHub, good: Published, lie: Callable[[Lies], object], words: str) -> None:
    """Whatever it lies about, it contradicts what was signed, or itself."""
    if "evil" in repr(hub.lies) or words.startswith("the Hub answers"):
        hub.put("evil/tiny", {"README.md": b"x"})
    lie(hub.lies)
    assert check(page, policy=POLICY, where=good.locator) == "bad"
    assert words.lower() in rows(page, "failed").lower()
    assert page.evaluate("document.querySelector('#report img')") is None


def test_another_commit_than_asked_for_fails(page: Page, hub: LoopbackHub, good: Published) -> None:
    """A revision that moved: the answer names the newest commit."""
    old = hub.head(REPO)
    hub.put(REPO, {"notes.txt": b"new"})
    hub.lies.moved_revision = True
    assert check(page, policy=POLICY, where=f"hf:{REPO}@{old}@{good.digest}") == "bad"
    assert f"commit {old} was asked for" in rows(page, "failed").lower()


def test_changed_repositories_fail(page: Page, hub: LoopbackHub, good: Published) -> None:
    """A weight replaced, deleted, added; a template added beside safetensors; the alloy replaced by an older one."""
    files = good.files()
    for change, words in (
        ({Q4: files[Q4][:-1] + b"x"}, "the Hub lists tiny-Q4_K_M.gguf with sha256"),
        ({Q4: None}, "tiny-Q4_K_M.gguf is not in org/tiny at this commit"),
        ({"model/pytorch_model.bin": b"pickle"}, "org/tiny holds model/pytorch_model.bin, which nothing here names"),
        ({"model/chat_template.jinja": b"{{ x }}"}, "org/tiny holds model/chat_template.jinja"),
        ({"model/config.json": b'{"model_type":"mixtraL"}'}, "the Hub lists model/config.json with git oid"),
        ({"tiny.alloy.json": files["tiny.alloy.json"] + b"\n"}, "the link expects sha256:"),
    ):
        hub.delete(REPO)
        hub.put(REPO, {**files, **change})
        assert check(page, policy=POLICY, where=good.locator) == "bad", change
        assert words.lower() in rows(page, "failed").lower()


@pytest.mark.parametrize(
    "name",
    [
        "model/chat_template.jinja",
        "model/adapter_config.json",
        "model/custom_generate/generate.py",
        "model/additional_chat_templates/license.jinja",
        "preset.ini",
        "template",
        "params",
    ],
)
def test_a_small_file_of_any_size_beside_a_release_fails(page: Page, hub: LoopbackHub, good: Published, name: str) -> None:
    """The Hub lists no SHA-256 of it, and spaces make it as long as a file that was signed; what a release lists is all of it."""
    size = len(good.files()["model/config.json"])
    hub.put(REPO, {name: b"{}".ljust(size)})
    assert check(page, policy=POLICY, where=good.locator) == "bad"
    assert f"holds {name}, which nothing here names" in rows(page, "failed")


def test_documents_may_be_added(page: Page, hub: LoopbackHub, good: Published) -> None:
    """A card and pictures change no model."""
    hub.put(REPO, {"README.md": b"# better words\n", "assets/loss.svg": b"<svg/>", "LICENSE": b"mit", "verify-qr.png": b"png"})
    assert check(page, policy=POLICY, where=good.locator) == "good"


def test_a_copy_under_another_name_fails(page: Page, hub: LoopbackHub, good: Published) -> None:
    """Right bytes, wrong repository: whoever owns that name can change it tomorrow."""
    hub.put("0rg/tiny", dict(good.files()))
    assert check(page, policy=POLICY, where=f"hf:0rg/tiny@{good.digest}") == "bad"
    assert "it was released for hf:org/tiny, and this is hf:0rg/tiny" in rows(page, "failed").lower()


def test_a_policy_may_be_published_but_not_by_whom_it_judges(page: Page, hub: LoopbackHub, good: Published) -> None:
    """It is fetched from the Hub; taken from the repository that is checked, it is not used."""
    hub.put("org/keys", {"policy.json": POLICY.encode()})
    hub.put(REPO, {"policy.json": POLICY.encode()})
    for place, tone in (("hf:org/keys/policy.json", "good"), (f"hf:{REPO}/policy.json", "grey")):
        page.call("text => { byId('policy').value = ''; byId('policy-where').value = text; byId('policy-fetch').click(); }", place)
        page.wait("byId('policy').value !== '' && policyRepo !== null")
        page.call("where => { byId('where').value = where; byId('report').replaceChildren(); byId('go').click(); }", good.locator)
        assert verdict(page) == tone
    assert "a publisher cannot say whom you trust" in rows(page, "unverified")


def test_of_several_alloys_the_expected_one_is_looked_at(page: Page, hub: LoopbackHub, good: Published) -> None:
    """And the other is named."""
    hub.put(REPO, {"another.alloy.json": b'{"name": "another"}'})
    assert check(page, policy=POLICY, where=good.locator) == "good"
    assert "another.alloy.json is another alloy in org/tiny" in rows(page, "unverified")


def test_an_old_publication_is_read_and_stays_grey(page: Page, hub: LoopbackHub) -> None:
    """forge-alloy's: an alloy without signatures, found by name, with a prefix for a hash."""
    alloy = (ALLOYS / "olmoe-1b-7b-compacted-5b.alloy.json").read_bytes()
    hub.put("old/olmoe", {"olmoe-1b-7b-compacted-5b.alloy.json": alloy, "model.safetensors": b"weights"})
    digest = Digest.of(alloy).hex
    where = f"https://huggingface.co/old/olmoe/blob/main/olmoe-1b-7b-compacted-5b.alloy.json#sha256:{digest[:16]}"
    assert check(page, policy=POLICY, where=where) == "grey"
    assert "2^32 tries" in rows(page, "unverified")
    assert "36" in text(page, "#results")
    assert check(page, policy=POLICY, where=f"hf:old/olmoe@sha256:{digest}") == "grey"
    assert text(page, "#verdict-word") == "Unsigned"


def test_one_file_of_a_repository(page: Page, hub: LoopbackHub, good: Published) -> None:
    """The hash is the file's: the Hub's word for it stays unverified, another word fails, and the dropped file is proven."""
    digest = Digest.of((good.folder / Q4).read_bytes())
    where = f"hf:{REPO}/{Q4}@{digest}"
    assert check(page, policy=POLICY, where=where) == "good"
    assert f"The Hub lists {Q4} with the SHA-256 that the link expects; its bytes were not looked at" in rows(page, "unverified")
    assert check(page, policy=POLICY, where=f"hf:{REPO}/{Q4}@sha256:{'0' * 64}") == "bad"
    assert check(page, [*good.three, good.folder / Q4], policy=POLICY, where=where) == "good"
    assert f"{Q4}, these 10,244 bytes, is byte for byte the one that the link names" in rows(page, "proven")


def test_a_hub_that_answers_nothing_leaves_it_grey(page: Page, hub: LoopbackHub, good: Published) -> None:
    """A fault of the server's, an answer cut off: nothing follows."""
    hub.lies.errors = 99
    assert check(page, policy=POLICY, where=good.locator) == "grey"
    assert "the Hub answers 503" in rows(page, "unverified")
    hub.lies.errors = 0
    hub.put("org/empty", {"README.md": b"x"})
    assert check(page, policy=POLICY, where="hf:org/empty") == "grey"
    assert check(page, policy=POLICY, where=f"hf:org/empty@sha256:{'0' * 64}") == "bad"
    forgive(page)


def test_other_places_are_not_asked(page: Page, hub: LoopbackHub) -> None:
    """No address but the Hub's, no go-between; what to do instead is said."""
    before = len(page.requests)
    for where in ("https://example.org/a.alloy.json#sha256:" + "a" * 64, "github:forge-alloy@" + "b" * 16, "c" * 64):
        assert check(page, policy=POLICY, where=where) == "grey"
        assert any(words in rows(page, "unverified") for words in ("drop it here", "Drop the file here", "proves nothing about a model"))
    assert page.requests[before:] == []
    assert hub.log == []


def test_no_cookie_and_no_origin_page_is_sent(page: Page, hub: LoopbackHub, good: Published) -> None:
    """The requests say nothing about who asks, and go to the Hub alone."""
    check(page, policy=POLICY, where=good.locator)
    hosts = {url.split("/")[2] for url in page.requests if url.startswith("http")}
    assert hosts == {hub.endpoint.split("/")[2], page.evaluate("location.host")}
    assert page.evaluate("document.cookie + localStorage.length + sessionStorage.length") == "00"

"""Asking a Hub: what is believed, what each question costs, and what every lie is answered with."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ledger import hf_hub
from ledger.errors import HubConflictError, HubError, HubMismatchError, HubNotFoundError, HubUnreachableError, VerificationError
from ledger.hf_hub import HfHub
from ledger.hub import git_blob_oid, lfs_pointer_oid, xet_hash
from store.digest import Digest
from store.errors import PathError
from tests.hub import LoopbackHub

REPO = "acme/tiny"
WEIGHTS = bytes(range(256)) * 2000
FILES = {"config.json": b'{"model_type": "mixtral"}', "model.safetensors": WEIGHTS, "empty.txt": b""}


@pytest.fixture
def head(hub: LoopbackHub) -> str:
    return hub.put(REPO, FILES)


# --- listings ------------------------------------------------------------------------------------------------------------------


def test_a_listing_resolves_a_branch_and_names_every_file_in_one_request(hub: LoopbackHub, head: str) -> None:
    """Commit, sizes, git ids, SHA-256 of large files, and what tells the repository from a later one: one GET, no file."""
    ask = HfHub()
    listing = ask.listing(REPO)
    assert (listing.repo, listing.commit, listing.private) == (REPO, head, False)
    assert [file.path for file in listing.files] == [".gitattributes", "config.json", "empty.txt", "model.safetensors"]
    weights, config = listing.file("model.safetensors"), listing.file("config.json")
    assert (weights.size, weights.sha256, weights.oid) == (
        len(WEIGHTS),
        Digest.of(WEIGHTS),
        lfs_pointer_oid(Digest.of(WEIGHTS), len(WEIGHTS)),
    )
    assert (config.sha256, config.oid) == (None, git_blob_oid(FILES["config.json"]))
    assert weights.pointer_agrees
    assert config.pointer_agrees
    assert listing.created.startswith("2020-")
    assert len(listing.identity) == 24
    assert (ask.requests, ask.weight_bytes, len(hub.log)) == (1, 0, 1)
    with pytest.raises(HubNotFoundError, match=r"acme/tiny has no other\.gguf at commit"):
        listing.file("other.gguf")


def test_an_older_commit_can_be_listed(hub: LoopbackHub, head: str) -> None:
    """A commit stays what it was when the branch moves on."""
    hub.put(REPO, {"config.json": None, "more.txt": b"x"})
    assert {file.path for file in HfHub().listing(REPO, head).files} == {".gitattributes", *FILES}


@pytest.mark.parametrize(
    ("repo", "revision", "words"),
    [
        ("acme/other", None, "acme/other is not there, or is private: look at the name, or set HF_TOKEN"),
        (REPO, "v2", "acme/tiny has no revision v2"),
        (REPO, "0" * 40, "acme/tiny has no revision 0000"),
    ],
)
def test_what_is_not_there(head: str, repo: str, revision: str | None, words: str) -> None:
    """A repository and a revision have their own messages."""
    with pytest.raises(HubNotFoundError, match=words):
        HfHub().listing(repo, revision)


def test_a_private_repository_needs_a_token(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one it is not there; the token is read when it is used, and one that is given goes first."""
    hub.put(REPO, FILES, private=True)
    assert HfHub().listing(REPO).private
    token = os.environ["HF_TOKEN"]
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubNotFoundError, match="or is private"):
        HfHub().listing(REPO)
    assert not HfHub().exists(REPO)
    assert HfHub(token=token).exists(REPO)


@pytest.mark.parametrize("repo", ["", "tiny", "a/b/c", "../b", "a/..", "a/b--c", "a/b.git", "a b/c", "a/b?x=1", "a/" + "b" * 200])
def test_a_name_that_is_none_is_not_asked_for(hub: LoopbackHub, repo: str) -> None:
    """Names become parts of addresses: only org/name of plain letters is let through."""
    with pytest.raises(HubError, match="is not the name of a repository"):
        HfHub().listing(repo)
    assert hub.log == []


def test_an_answer_that_is_no_hub_s(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page in place of JSON is named with the address that gave it."""
    hub.put("acme/page", {"index.html": b"<html>"})
    commit = hub.head("acme/page")
    monkeypatch.setattr(hf_hub, "check_repo", lambda repo: repo)
    with pytest.raises(HubError, match="answered what is not JSON"):
        HfHub(f"{hub.endpoint}/acme/page/resolve/{commit}/index.html?").listing(REPO)


# --- single reads --------------------------------------------------------------------------------------------------------------


def test_reads_cost_one_request_each_and_count_weights(hub: LoopbackHub, head: str) -> None:
    """No HEAD before a GET; bytes of weights are counted apart."""
    ask = HfHub()
    assert ask.read(REPO, head, "config.json", limit=100) == FILES["config.json"]
    assert ask.read_range(REPO, head, "model.safetensors", 1000, 10) == WEIGHTS[1000:1010]
    assert ask.read_range(REPO, head, "model.safetensors", len(WEIGHTS) - 3, 3) == WEIGHTS[-3:]
    assert [(item.method, item.range) for item in hub.log] == [
        ("GET", ""),
        ("GET", "bytes=1000-1009"),
        ("GET", f"bytes={len(WEIGHTS) - 3}-{len(WEIGHTS) - 1}"),
    ]
    assert (ask.requests, ask.weight_bytes) == (3, 13)


def test_a_read_stops_at_its_limit(hub: LoopbackHub, head: str) -> None:
    """One byte too many is refused by its stated length, and a body without end after the limit."""
    size = len(FILES["config.json"])
    assert len(HfHub().read(REPO, head, "config.json", limit=size)) == size
    with pytest.raises(HubError, match=rf"config\.json of acme/tiny has more than {size - 1} bytes \({size}\)"):
        HfHub().read(REPO, head, "config.json", limit=size - 1)
    hub.lies.endless_bytes = {"config.json"}
    with pytest.raises(HubError, match="has more than 1,000 bytes; no more is read"):
        HfHub().read(REPO, head, "config.json", limit=1000)


@pytest.mark.parametrize(("start", "length"), [(len(WEIGHTS), 1), (len(WEIGHTS) - 1, 2)])
def test_a_range_beyond_the_end(head: str, start: int, length: int) -> None:
    """A file that is shorter than it was listed shows when a range of it is asked for."""
    with pytest.raises(HubError, match="shorter than"):
        HfHub().read_range(REPO, head, "model.safetensors", start, length)


def test_a_hub_that_serves_no_ranges(hub: LoopbackHub, head: str) -> None:
    """The whole file is not taken for a range of it."""
    hub.lies.no_ranges = True
    with pytest.raises(HubError, match="the whole file"):
        HfHub().read_range(REPO, head, "model.safetensors", 5, 10)


@pytest.mark.parametrize(("start", "length"), [(-1, 5), (0, 0)])
def test_no_range_at_all(hub: LoopbackHub, start: int, length: int) -> None:
    """Nothing is asked for."""
    with pytest.raises(HubError, match="no range"):
        HfHub().read_range(REPO, "a" * 40, "x", start, length)
    assert hub.log == []


def test_an_answer_of_another_commit_is_refused(hub: LoopbackHub, head: str) -> None:
    """A Hub that answers from the newest commit, whatever was asked for, is caught by each question."""
    file = HfHub().listing(REPO).file("model.safetensors")
    newer = hub.put(REPO, {"config.json": b"[]"})
    hub.lies.moved_revision = True
    asks: list[Callable[[], object]] = [
        lambda: HfHub().listing(REPO, head),
        lambda: HfHub().read(REPO, head, "config.json", limit=100),
        lambda: HfHub().read_range(REPO, head, "model.safetensors", 0, 5),
        lambda: HfHub().fetch(REPO, head, file, Path("never-written")),
    ]
    for ask in asks:
        with pytest.raises(HubMismatchError, match=f"asked for commit {head}, the Hub answered with {newer}") as caught:
            ask()
        assert (caught.value.expected, caught.value.got) == (head, newer)
        assert isinstance(caught.value, VerificationError)
    Path("never-written").unlink(missing_ok=True)


def test_reading_needs_a_commit(hub: LoopbackHub) -> None:
    """A branch may move between two reads, so it is refused."""
    for ask in (lambda: HfHub().read(REPO, "main", "x", limit=1), lambda: HfHub().xet(REPO, "main", ["x"])):
        with pytest.raises(HubError, match="'main' is not a commit"):
            ask()
    assert hub.log == []


def test_xet_hashes_are_the_hub_s_and_hf_xet_s(hub: LoopbackHub, head: str, tmp_path: Path) -> None:
    """One request gives them for files that have one; computed here without any upload they are the same."""
    ask = HfHub()
    (tmp_path / "x").write_bytes(WEIGHTS)
    assert ask.xet(REPO, head, ["model.safetensors", "config.json"]) == {"model.safetensors": xet_hash(tmp_path / "x")}
    assert ask.requests == 1
    with pytest.raises(HubNotFoundError, match=r"has no gone\.gguf at commit"):
        ask.xet(REPO, head, ["model.safetensors", "gone.gguf"])


# --- downloads -----------------------------------------------------------------------------------------------------------------


def fetch(path: str, into: Path, **hub: Any) -> Digest:
    ask = HfHub(**hub)
    listing = ask.listing(REPO)
    return ask.fetch(REPO, listing.commit, listing.file(path), into)


@pytest.mark.parametrize("path", FILES)
def test_a_download_gives_the_digest_of_what_arrived(head: str, tmp_path: Path, path: str) -> None:
    """Large, small and empty files."""
    assert fetch(path, tmp_path / "deep" / "x") == Digest.of(FILES[path])
    assert (tmp_path / "deep" / "x").read_bytes() == FILES[path]


def test_a_download_goes_on_where_it_was_cut(hub: LoopbackHub, head: str, tmp_path: Path) -> None:
    """What is there is hashed and kept: only the rest is asked for, and progress counts from there."""
    (tmp_path / "x").write_bytes(WEIGHTS[:300_000])
    seen: list[tuple[int, int]] = []
    ask = HfHub()
    listing = ask.listing(REPO)
    assert ask.fetch(REPO, head, listing.file("model.safetensors"), tmp_path / "x", lambda *item: seen.append(item)) == Digest.of(WEIGHTS)
    assert (hub.log[-1].range, hub.log[-1].sent) == ("bytes=300000-", len(WEIGHTS) - 300_000)
    assert seen[-1] == (len(WEIGHTS), len(WEIGHTS))


def test_a_whole_file_is_not_asked_for_again(hub: LoopbackHub, head: str, tmp_path: Path) -> None:
    """A process that died between the last byte and the store costs a hash."""
    (tmp_path / "x").write_bytes(WEIGHTS)
    assert fetch("model.safetensors", tmp_path / "x") == Digest.of(WEIGHTS)
    assert len(hub.log) == 1


@pytest.mark.parametrize("before", [b"\0" * 300_000, b"\0" * (len(WEIGHTS) + 1), WEIGHTS + b"more", b"\0" * len(WEIGHTS)])
def test_a_damaged_beginning_is_replaced(head: str, tmp_path: Path, before: bytes) -> None:
    """Holes that a power cut left, or bytes of something else: the download is begun anew, and comes out right."""
    (tmp_path / "x").write_bytes(before)
    assert fetch("model.safetensors", tmp_path / "x") == Digest.of(WEIGHTS)
    assert (tmp_path / "x").read_bytes() == WEIGHTS


def test_cuts_are_mended_by_themselves(hub: LoopbackHub, head: str, tmp_path: Path) -> None:
    """As long as each attempt brings something, no attempt is the last, and no byte is sent twice."""
    hub.lies.cut = 100_000
    assert fetch("model.safetensors", tmp_path / "x") == Digest.of(WEIGHTS)
    assert hub.weight_bytes() == len(WEIGHTS)


def test_a_hub_without_ranges_starts_anew_and_is_skipped(hub: LoopbackHub, head: str, tmp_path: Path) -> None:
    """The beginning that is here already is passed over."""
    (tmp_path / "x").write_bytes(WEIGHTS[:300_000])
    hub.lies.no_ranges = True
    assert fetch("model.safetensors", tmp_path / "x") == Digest.of(WEIGHTS)


def test_a_hub_that_gives_nothing_leaves_nothing(hub: LoopbackHub, head: str, tmp_path: Path) -> None:
    """After a few attempts without a byte it is given up; an empty file is no trace."""
    hub.lies.cut = 0
    with pytest.raises(HubUnreachableError, match=r"the connection broke off .*\. Nothing arrived"):
        fetch("model.safetensors", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_what_arrived_is_kept_when_the_hub_goes_away(hub: LoopbackHub, head: str, tmp_path: Path) -> None:
    """The message says how much is kept, and the same call later goes on from there."""
    listing = HfHub().listing(REPO)
    hub.lies.cut = 200_000

    def pull_the_plug(done: int, total: int) -> None:
        hub.lies.cut, hub.lies.errors = None, 3

    (tmp_path / "x").write_bytes(WEIGHTS[:100])
    original = hf_hub._CHUNK_BYTES
    hf_hub._CHUNK_BYTES = 1000
    try:
        with pytest.raises(HubUnreachableError, match=r"answers with 503.*20\d,\d\d\d of 512,000 bytes are kept; run again to go on"):
            HfHub().fetch(REPO, head, listing.file("model.safetensors"), tmp_path / "x", pull_the_plug)
    finally:
        hf_hub._CHUNK_BYTES = original
    hub.lies.errors = 0
    assert fetch("model.safetensors", tmp_path / "x") == Digest.of(WEIGHTS)


def test_a_fault_that_passes_is_asked_again(hub: LoopbackHub, head: str) -> None:
    """One 503 is not the end of an audit; every attempt is counted."""
    hub.lies.errors = 1
    ask = HfHub()
    assert ask.listing(REPO).commit == head
    assert ask.requests == 2


def test_a_slow_hub_is_given_up(hub: LoopbackHub, head: str, tmp_path: Path) -> None:
    """Silence ends an attempt; nothing waits for ever."""
    hub.lies.slow_s = 0.5
    with pytest.raises(HubUnreachableError, match="broke off"):
        HfHub(silence_s=0.1).read(REPO, head, "config.json", limit=100)


def test_a_hub_that_drips_is_given_up(hub: LoopbackHub, head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that come too slowly to ever end count as silence, although each comes in time."""
    hub.lies.slow_s = 0.05
    monkeypatch.setattr(hf_hub, "_SLOWEST", 10**9)
    with pytest.raises(HubUnreachableError, match="bytes a second"):
        HfHub(silence_s=0.2).read(REPO, head, "model.safetensors", limit=len(WEIGHTS))


# --- nobody there --------------------------------------------------------------------------------------------------------------


def test_a_dead_network_is_one_clear_message(hub: LoopbackHub, head: str) -> None:
    """It is not asked again and again."""
    hub.stop()
    ask = HfHub()
    with pytest.raises(HubUnreachableError, match=rf"{hub.endpoint} cannot be reached .*; look at the network, or at HF_ENDPOINT"):
        ask.listing(REPO)
    assert ask.requests == 0


def test_offline_is_said(hub: LoopbackHub, head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever set HF_HUB_OFFLINE is reminded of it; nothing is sent."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubUnreachableError, match="HF_HUB_OFFLINE is set"):
        HfHub().listing(REPO)
    assert hub.log == []


@pytest.mark.parametrize("endpoint", ["ftp://127.0.0.1", "nonsense", "http://[", "http://127.0.0.1:99999"])
def test_an_address_that_is_none(hub: LoopbackHub, endpoint: str) -> None:
    """HF_ENDPOINT is named."""
    with pytest.raises(HubUnreachableError, match="HF_ENDPOINT"):
        HfHub(endpoint).listing(REPO)


def test_the_address_is_read_when_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """HF_ENDPOINT counts whenever it was set, and a slash at its end does not."""
    ask = HfHub()
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    assert ask.endpoint == "https://huggingface.co"
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/")
    assert ask.endpoint == "https://mirror.example"
    assert HfHub("https://other.example").endpoint == "https://other.example"


# --- writing -------------------------------------------------------------------------------------------------------------------


def test_one_commit_holds_every_file(hub: LoopbackHub, tmp_path: Path) -> None:
    """Bytes and files, small and large, in one commit after the parent; the listing then says what was sent."""
    (tmp_path / "w").write_bytes(WEIGHTS)
    ask = HfHub()
    ask.create("acme/new", private=True)
    parent = ask.listing("acme/new").commit
    made = ask.commit(
        "acme/new", {"README.md": b"# hi", "deep/a.gguf": tmp_path / "w", "empty": b""}, parent=parent, message="acme/new 1.0.0"
    )
    listing = ask.listing("acme/new")
    assert listing.commit == made != parent
    assert hub.files("acme/new") == {**hub.files("acme/new"), "README.md": b"# hi", "deep/a.gguf": WEIGHTS, "empty": b""}
    assert listing.file("deep/a.gguf").sha256 == Digest.of(WEIGHTS)
    assert len([item for item in hub.log if item.path.endswith("/commit/main")]) == 1


def test_a_stale_parent_changes_nothing(hub: LoopbackHub, head: str) -> None:
    """Somebody else's commit came first: theirs stays, ours is refused as a whole, and the error says where main was expected."""
    hub.lies.stale_parent = True
    with pytest.raises(HubConflictError, match=f"its branch is no longer at {head}") as caught:
        HfHub().commit(REPO, {"config.json": b"mine"}, parent=head, message="x")
    assert caught.value.parent == head
    assert hub.files(REPO)["config.json"] == FILES["config.json"]


def test_what_may_not_be_written(hub: LoopbackHub, head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is taken, a token that may not write, names that are no paths: each before anything is there."""
    with pytest.raises(HubConflictError, match="one of this name already"):
        HfHub().create(REPO, private=False)
    with pytest.raises(PathError, match=r"'\.\./x' cannot be in a tree"):
        HfHub().commit(REPO, {"../x": b""}, parent=head, message="x")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(HubError, match="set HF_TOKEN to a token that may"):
        HfHub().commit(REPO, {"x": b""}, parent=head, message="x")
    with pytest.raises(HubError, match="HF_TOKEN"):
        HfHub().create("acme/mine", private=False)
    assert hub.head(REPO) == head


ACCOUNTS: list[tuple[dict[str, Any], str]] = [
    ({"name": "acme", "auth": {"accessToken": {"role": "write"}}}, ""),
    ({"name": "acme", "auth": {"accessToken": {"role": "read"}}}, "may only read"),
    ({"name": "acme", "auth": {"accessToken": {"role": "fineGrained", "fineGrained": {"scoped": []}}}}, "may write to no repository"),
    ({"name": "acme", "auth": {"accessToken": {"role": "fineGrained", "fineGrained": {"scoped": [{"permissions": ["repo.write"]}]}}}}, ""),
    ({"name": "eve", "orgs": []}, "no member of acme"),
    ({"name": "eve", "orgs": [{"name": "acme", "roleInOrg": "read"}]}, "may only read in acme"),
    ({"name": "eve", "orgs": [{"name": "acme", "roleInOrg": "contributor"}]}, ""),
    ({"name": "eve"}, ""),
]


@pytest.mark.parametrize(("account", "words"), ACCOUNTS)
def test_whether_a_token_may_write_is_asked_beforehand(hub: LoopbackHub, account: dict[str, Any], words: str) -> None:
    """One request: a token that reads only, one of somebody who is no member; what the Hub does not say speaks for it."""
    hub.account = account
    said = HfHub().refusal("acme/tiny")
    assert (words in said, bool(said)) == (True, bool(words))
    assert [request.path for request in hub.log] == ["/api/whoami-v2"]


def test_without_a_token_nobody_is_asked(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """No request; a token that the Hub does not know is told from none."""
    assert "does not know the token" in HfHub(token="hf_old").refusal("acme/tiny")
    asked = len(hub.log)
    monkeypatch.delenv("HF_TOKEN")
    assert HfHub().refusal("acme/tiny") == "there is no token"
    assert len(hub.log) == asked


def test_writing_without_a_network(hub: LoopbackHub, head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same clear messages as for reading."""
    hub.stop()
    with pytest.raises(HubUnreachableError, match="cannot be reached"):
        HfHub().create("acme/new", private=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubUnreachableError, match="HF_HUB_OFFLINE is set"):
        HfHub().commit(REPO, {"x": b""}, parent=head, message="x")

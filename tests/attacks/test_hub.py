"""A Hub, or somebody on the way to it, gives us other things than it should: rows 6, 25, 27 and 28 of the attack matrix."""

from __future__ import annotations

from pathlib import Path

import pytest

from ledger import hf_hub
from ledger import hub as values
from ledger.errors import HubError, HubMismatchError, HubNotFoundError
from ledger.hf_hub import HfHub
from ledger.hub import xet_hash
from tests.cli.conftest import Desk
from tests.hub import LoopbackHub
from tests.stages.test_hub_model import FILES, REPO, SHARDS

SHARD = next(iter(SHARDS))


@pytest.fixture
def head(hub: LoopbackHub) -> str:
    return hub.put(REPO, FILES)


def recipe(desk: Desk, source: str) -> Path:
    path = desk.folder / "recipe.yaml"
    path.write_text(f"name: x\nversion: 1.0.0\nstages:\n  - {{type: import-model, folder: {source!r}}}\n")
    return path


# --- 6: endless data -----------------------------------------------------------------------------------------------------------


def test_row_6_listing_that_never_ends(hub: LoopbackHub, desk: Desk, head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read up to a bound, in the runner before anything is planned; nothing is recorded."""
    monkeypatch.setattr(hf_hub, "MAX_ANSWER_BYTES", 1 << 20)
    hub.lies.endless_listing = True
    said = desk.type("run", "-j", "1", recipe(desk, REPO))
    assert (said.code, "has more than 1,048,576 bytes; no more is read" in said.err) == (1, True)
    assert desk.ok("log").out.count("\n") <= 1


def test_row_6_listing_of_too_many_files(hub: LoopbackHub, head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a tree may hold are refused, however short their names."""
    monkeypatch.setattr(values, "MAX_FILES", 5)
    with pytest.raises(HubError, match=r"lists \d+ files; at most 5 are taken"):
        HfHub().listing(REPO)


def test_row_6_file_that_never_ends(hub: LoopbackHub, desk: Desk, head: str, tmp_path: Path) -> None:
    """No more than the listed size is ever written, and the file is refused."""
    hub.lies.endless_bytes = {SHARD}
    listed = HfHub().listing(REPO).file(SHARD)
    with pytest.raises(HubMismatchError, match="got      more"):
        HfHub().fetch(REPO, head, listed, tmp_path / "x")
    assert not (tmp_path / "x").exists()
    said = desk.type("run", "-j", "1", recipe(desk, f"{REPO}@{head}"))
    assert (said.code, "the Hub served other bytes than it lists" in said.err) == (1, True)


def test_row_6_range_that_never_ends(hub: LoopbackHub, head: str) -> None:
    """An answer to a range is read up to the range's length."""
    hub.lies.endless_bytes = {SHARD}
    with pytest.raises(HubError, match="the whole file"):
        HfHub().read_range(REPO, head, SHARD, 0, 10)


# --- 25: partial downloads and corruption of the same size -----------------------------------------------------------------------


@pytest.mark.parametrize("path", [SHARD, "config.json", "tokenizer.json"])
def test_row_25_same_size_and_one_byte_changed(hub: LoopbackHub, desk: Desk, head: str, path: str) -> None:
    """Of weights by SHA-256, of small files by git's id: the run fails, and no entry says that the file is what it is not."""
    hub.lies.wrong_bytes = {path}
    said = desk.type("run", "-j", "1", recipe(desk, f"{REPO}@{head}"))
    assert said.code == 1
    assert f"{path} of {REPO} at {head}: the Hub served other bytes than it lists" in said.err
    assert path not in desk.ok("log").out
    assert "import-model: sha256" not in desk.ok("log").out


def test_row_25_every_beginning_of_a_file_is_continued(hub: LoopbackHub, head: str, tmp_path: Path) -> None:
    """A download that was cut anywhere comes out whole; a beginning with one wrong byte comes out right all the same."""
    listed = HfHub().listing(REPO).file(SHARD)
    whole = SHARDS[SHARD]
    for end in (1, 1000, len(whole) - 1, len(whole)):
        for beginning in (whole[:end], bytes([whole[0] ^ 1]) + whole[1:end]):
            (tmp_path / "x").write_bytes(beginning)
            HfHub().fetch(REPO, head, listed, tmp_path / "x")
            assert (tmp_path / "x").read_bytes() == whole


def test_row_25_truncated_answers(hub: LoopbackHub, head: str) -> None:
    """A body that ends early is not taken for the whole."""
    hub.lies.cut = 5
    with pytest.raises(HubError, match="broke off"):
        HfHub().read(REPO, head, "config.json", limit=1000)
    with pytest.raises(HubError, match="broke off"):
        HfHub().read_range(REPO, head, SHARD, 0, 100)


# --- 27: the advertised SHA-256 is not that of the bytes ---------------------------------------------------------------------------


def test_row_27_declared_hash_of_other_bytes(hub: LoopbackHub, desk: Desk, head: str) -> None:
    """Listing and pointer agree with each other, as the uploader declared them; what is served does not, and is refused."""
    hub.lies.wrong_bytes = {SHARD}
    assert HfHub().listing(REPO).file(SHARD).pointer_agrees
    assert desk.type("run", "-j", "1", recipe(desk, f"{REPO}@{head}")).code == 1


def test_row_27_hash_in_the_listing_that_is_not_the_pointer_s(hub: LoopbackHub, desk: Desk, head: str) -> None:
    """Two answers of the Hub contradict each other: nothing is downloaded."""
    hub.lies.wrong_sha256 = {SHARD}
    said = desk.type("run", "-j", "1", recipe(desk, f"{REPO}@{head}"))
    assert (said.code, "the Hub contradicts itself" in said.err) == (1, True)
    assert hub.weight_bytes() == 0


def test_row_27_what_an_audit_compares(hub: LoopbackHub, head: str, tmp_path: Path) -> None:
    """Where the stored bytes are others, the Xet hash differs from the attested one, and so does the range that covers them."""
    (tmp_path / "x").write_bytes(SHARDS[SHARD])
    assert HfHub().xet(REPO, head, [SHARD])[SHARD] == xet_hash(tmp_path / "x")
    hub.lies.wrong_bytes = hub.lies.wrong_xet = {SHARD}
    assert HfHub().xet(REPO, head, [SHARD])[SHARD] != xet_hash(tmp_path / "x")
    middle = len(SHARDS[SHARD]) // 2
    assert HfHub().read_range(REPO, head, SHARD, middle, 1) != SHARDS[SHARD][middle : middle + 1]


# --- 28: names that come to mean something else ------------------------------------------------------------------------------------


def test_row_28_branch_that_moves_between_two_requests(hub: LoopbackHub, desk: Desk, head: str) -> None:
    """It is resolved once; every file comes from that commit, which the person is told and the statements hold."""
    hub.lies.moving = True
    said = desk.ok("run", "-j", "1", recipe(desk, REPO))
    assert f"{REPO} main is now commit {head}; write {REPO}@{head} to stay with it" in said.out
    assert {item.path.split("/")[4] for item in hub.log if "/resolve/" in item.path} == {head}


def test_row_28_commit_that_is_answered_from_another(hub: LoopbackHub, desk: Desk, head: str) -> None:
    """A Hub that ignores the commit is caught, with both named."""
    newer = hub.put(REPO, {"config.json": b'{"model_type": "evil"}'})
    hub.lies.moved_revision = True
    said = desk.type("run", "-j", "1", recipe(desk, f"{REPO}@{head}"))
    assert (said.code, f"asked for commit {head}, the Hub answered with {newer}" in said.err) == (1, True)


def test_row_28_repository_that_was_made_again(hub: LoopbackHub, desk: Desk, head: str) -> None:
    """A moving revision is imported with a warning; the pinned commit is not in the new repository, and is found here all the same."""
    desk.ok("run", "-j", "1", recipe(desk, REPO))
    hub.delete(REPO)
    hub.put(REPO, {**FILES, "config.json": b'{"model_type": "evil"}'})
    said = desk.ok("run", "-j", "1", recipe(desk, REPO))
    assert f"{REPO} is not the repository that entry 0 lists" in said.out
    with pytest.raises(HubNotFoundError, match="has no revision"):
        HfHub().listing(REPO, head)
    assert "nothing done" in desk.ok("run", "-j", "1", recipe(desk, f"{REPO}@{head}")).out


def test_row_28_same_content_in_a_repository_that_was_made_again(hub: LoopbackHub, desk: Desk, head: str) -> None:
    """It differs by when it was made and by the Hub's own id, whatever its files are."""
    desk.ok("run", "-j", "1", recipe(desk, REPO))
    hub.lies.recreated = True
    assert "is not the repository that entry 0 lists" in desk.ok("run", "-j", "1", recipe(desk, REPO)).out


def test_row_28_answer_about_another_repository(hub: LoopbackHub, desk: Desk, head: str) -> None:
    """A renamed repository, or one that somebody took over, is not followed silently."""
    hub.put("evil/tiny", FILES)
    hub.lies.renamed = "evil/tiny"
    said = desk.type("run", "-j", "1", recipe(desk, REPO))
    assert (said.code, "the Hub answers for 'evil/tiny': the repository was renamed or moved, or somebody else's" in said.err) == (1, True)


@pytest.mark.parametrize("name", ["../../.ssh/authorized_keys", "/etc/passwd", "a\\b.safetensors", "Config.json", "aux.json", "x\x1b[2J"])
def test_row_28_names_that_climb_out(hub: LoopbackHub, desk: Desk, head: str, name: str) -> None:
    """A listing with one name that must not become a path is refused as a whole, and shown as text."""
    hub.lies.hostile_names = (name,)
    said = desk.type("run", "-j", "1", recipe(desk, REPO))
    assert (said.code, "the Hub lists names that must not become paths" in said.err) == (1, True)
    assert "\x1b" not in said.err
    assert not [item for item in hub.log if "/resolve/" in item.path]

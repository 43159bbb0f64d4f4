"""ledger.remote: what an audit of a repository on the Hub says, what it costs, and what it remembers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ledger.errors import HubError, HubMismatchError, HubNotFoundError, HubUnreachableError, LocatorError
from ledger.hf_hub import HfHub
from ledger.policy import Policy
from ledger.publication import Publication
from ledger.remote import Depth
from ledger.report import Report
from ledger.sightings import Sightings
from store.digest import Digest
from tests.hub import LoopbackHub
from tests.publications import ALICE, CONFIG, GGUF, REPO, Published, audit, policy, publish
from tests.reports import texts

STRANGER = policy("bob", models=False)
TIME = "2027-02-01T00:00:00Z"


# --- the listing -----------------------------------------------------------------------------------------------------------------


def test_a_listing_costs_three_requests_and_no_byte_of_weights(hub: LoopbackHub, published: Published) -> None:
    """What the client says that it cost is what the Hub saw; the alloy's list, the release and the provenance are proven by it."""
    report = audit(hub, f"hf:{REPO}@{published.alloy}")
    assert report.exit_code == 0
    assert [request.method for request in hub.log] == ["GET"] * 3
    assert hub.weight_bytes() == 0
    proven = texts(report, "proven")
    assert "3 requests to the Hub, 0 bytes of weights read" in proven
    assert f"alice signed the release of tiny 1.0.0 at hf:{REPO}: this tiny.alloy.json, {published.alloy}" in proven
    assert "tiny.alloy.json has the expected hash" in proven
    assert "4 of 4 files in the list of the alloy that alice released are here" in proven
    assert "tiny-Q4_K_M.gguf, 3,145,735 bytes as the Hub lists them, came out of gguf-quantize" in proven
    assert "the rest of tiny.alloy.json, which alice released as a whole" in texts(report, "attested")


def test_what_a_listing_does_not_show_is_said(hub: LoopbackHub, published: Published) -> None:
    """Bytes, Xet hashes, SHA-1's limits, and files that only `model.sig` covers: each with what would settle it."""
    report = audit(hub)
    rows = {row.text: row.hint for row in report.rows if row.status == "unverified"}
    assert "--spot 300" in next(hint for text, hint in rows.items() if "the bytes behind the listing" in text)
    assert "--spot or --full" in next(hint for text, hint in rows.items() if "Xet hash" in text)
    assert "model.sig" in next(hint for text, hint in rows.items() if "README.md" in text)
    assert f"of 1 of them ({CONFIG}) by git's id, a SHA-1" in texts(report, "proven")
    assert report.verdict.startswith("VERIFIED with ")


def test_the_target_of_the_report_is_the_commit_that_was_audited(hub: LoopbackHub, published: Published) -> None:
    """A branch is resolved once; whoever reads the report can ask for the same again."""
    commit = hub.head(REPO)
    assert audit(hub).target == f"hf:{REPO}@{commit}"
    assert audit(hub, f"hf:{REPO}@{commit}").exit_code == 0


@pytest.mark.parametrize("path", [GGUF, CONFIG])
def test_one_file_is_explained_alone(hub: LoopbackHub, published: Published, path: str) -> None:
    """The other files may be as they are."""
    hub.put(REPO, {"other.safetensors": b"of somebody"})
    report = audit(hub, f"hf:{REPO}/{path}@{Digest.of(published.files[path])}")
    assert report.exit_code == 0
    assert "has the expected hash" in texts(report, "proven")
    assert f"are {path} in the list of the alloy that alice released" in texts(report, "proven")
    assert report.subjects == {path: Digest.of(published.files[path])}
    wrong = audit(hub, f"hf:{REPO}/{path}@sha256:{'0' * 64}")
    assert wrong.exit_code == 3


def test_one_file_that_is_not_attested_fails(hub: LoopbackHub, published: Published) -> None:
    """Whatever lies beside it; of a small one only a git id is listed, which is said."""
    hub.put(REPO, {"other.safetensors": b"of somebody", GGUF: b"x" * len(published.files[GGUF])})
    assert "is named by no trusted statement" in texts(audit(hub, f"hf:{REPO}/other.safetensors"), "failed")
    assert "is not what the alloy that alice released lists" in texts(audit(hub, f"hf:{REPO}/{GGUF}"), "failed")
    readme = audit(hub, f"hf:{REPO}/README.md")
    assert (readme.verdict, readme.exit_code) == ("NOT VERIFIED", 3)
    assert "lists only a git id" in texts(readme, "unverified")


def test_of_a_small_file_nobody_calls_the_git_id_a_sha256(hub: LoopbackHub, published: Published) -> None:
    """Attested by its git id, or by nobody: what is open of it is one row, and says which hash the Hub lists."""
    for path in (CONFIG, "README.md"):
        report = audit(hub, f"hf:{REPO}/{path}")
        (row,) = [row for row in report.rows if row.text.startswith(f"the bytes of {path}")]
        assert (row.status, row.hint) == ("unverified", "--full reads it")
        assert "only a git id of it" in row.text
        assert "uploader declared" not in texts(report, "unverified")
    assert "uploader declared" in texts(audit(hub, f"hf:{REPO}/{GGUF}"), "unverified")


@pytest.mark.parametrize("path", [GGUF, CONFIG, "README.md"])
def test_one_file_that_is_served_wrong_fails_when_it_is_read(hub: LoopbackHub, published: Published, path: str) -> None:
    """What is listed proves nothing then: the one row says what was expected and what came."""
    hub.lies.wrong_bytes = {path}
    report = audit(hub, f"hf:{REPO}/{path}", depth=Depth(full=True))
    assert (report.verdict, report.exit_code) == ("FAILED", 3)
    assert f"{path}: the Hub served other bytes than it lists: expected " in texts(report, "failed")
    assert path not in texts(report, "proven")


def test_a_file_that_is_served_wrong_is_not_called_absent(hub: LoopbackHub, published: Published) -> None:
    """README.md is there, and what arrived was refused: one row about it, in one sentence, beside what `model.sig` proves of the others."""
    hub.lies.wrong_bytes = {"README.md"}
    report = audit(hub, depth=Depth(full=True))
    assert report.exit_code == 3
    (said,) = texts(report, "failed").splitlines()
    assert said.startswith("README.md: the Hub served other bytes than it lists: expected ")
    assert said.count("README.md") == 1
    assert "7 of 8 files are the ones that alice-models signed in model.sig" in texts(report, "proven")


# --- who is trusted, what is expected ----------------------------------------------------------------------------------------------


def test_signatures_by_nobody_trusted_verify_nothing(hub: LoopbackHub, published: Published) -> None:
    """Nothing contradicts, nothing is proven; it is said who signed and what would settle it."""
    report = audit(hub, trusting=STRANGER)
    assert (report.verdict, report.exit_code) == ("NOT VERIFIED", 3)
    row = next(row for row in report.rows if "none of the 4 statements" in row.text)
    assert "ed25519:" in row.text
    assert "--policy FILE" in row.hint
    assert "--expect sha256:HEX" in row.hint
    assert not any(row.status == "proven" and not row.aside for row in report.rows)


def test_expected_bytes_that_nobody_trusted_signed_are_unsigned(hub: LoopbackHub, published: Published) -> None:
    """The alloy and its files are those that were meant; what it says is self-reported."""
    report = audit(hub, f"hf:{REPO}@{published.alloy}", trusting=STRANGER)
    assert report.exit_code == 0
    assert report.verdict.startswith("UNSIGNED: ")
    assert "4 of 4 files in the list of the alloy with the expected hash" in texts(report, "proven")
    assert "everything that tiny.alloy.json says" in texts(report, "self-reported")


@pytest.mark.parametrize("digits", [8, 16, 63])
def test_a_prefix_never_verifies(hub: LoopbackHub, published: Published, digits: int) -> None:
    """Met, it is called a prefix and counts for nothing; not met, it fails."""
    report = audit(hub, f"hf:{REPO}@sha256:{published.alloy.hex[:digits]}", trusting=STRANGER)
    assert (report.verdict, report.exit_code) == ("NOT VERIFIED", 3)
    assert f"{4 * digits} bits" in texts(report, "unverified")
    assert audit(hub, f"hf:{REPO}@sha256:{'0' * digits}").exit_code == 3


def test_an_expected_hash_that_is_not_met_fails_whoever_signed(hub: LoopbackHub, published: Published) -> None:
    """A later publication than that of the QR; and a hash of a file is told from that of the alloy."""
    report = audit(hub, f"hf:{REPO}@sha256:{'0' * 64}")
    assert report.exit_code == 3
    assert "expected sha256:0000" in texts(report, "failed")
    row = next(row for row in audit(hub, f"hf:{REPO}@{Digest.of(published.files[GGUF])}").rows if row.status == "failed")
    assert row.hint == f"{GGUF} is listed with that hash; name it: hf:{REPO}/{GGUF}"


def test_an_alloy_that_nobody_released_is_what_it_was_before_there_were_releases(hub: LoopbackHub, tmp_path: Path) -> None:
    """Its weights are attested, its list of files is its own word; of small files only one's own store, or reading them, tells more."""
    made = publish(tmp_path, released=False)
    hub.put(REPO, made.files)
    report = audit(hub)
    unverified = texts(report, "unverified")
    assert "nobody trusted signed a release of it" in unverified
    assert f"as far as is listed: of {CONFIG} only a git id is" in unverified
    assert report.exit_code == 0
    assert "(all 2 files, 37 bytes" in texts(audit(hub, depth=Depth(store=made.store)), "proven")
    hub.put(REPO, {CONFIG: b'{"model_type": "TINY"}\n'})
    assert "(all 2 files" not in texts(audit(hub, depth=Depth(store=made.store)), "proven")
    assert audit(hub, depth=Depth(full=True)).exit_code == 3


def test_a_policy_that_wants_witnesses_costs_one_more_request(hub: LoopbackHub, published: Published) -> None:
    """Cosignatures come after the alloy, so they are read with the proof; without any the log counts as frozen."""
    frozen = Policy.parse(json.dumps(ALICE.to_json() | {"checkpoints": {"witnesses": ["alice"], "threshold": 1}}), source="test policy")
    report = audit(hub, trusting=frozen)
    assert len(hub.log) == 4
    assert report.exit_code == 3
    assert "witness" in texts(report, "failed")


# --- the bytes -------------------------------------------------------------------------------------------------------------------


def test_samples_are_compared_with_the_published_chunks(hub: LoopbackHub, published: Published) -> None:
    """As many ranges as were asked for, one request each; the bound is printed; Xet hashes are compared too."""
    report = audit(hub, depth=Depth(spot=2, seed=b"1"))
    proven = texts(report, "proven")
    assert "2 of 5 chunks (1 MiB each) of 2 files" in proven
    assert "damage of 1 % of them would have been seen with 2.0%" in proven
    assert "the Hub stores 3 of the files under the Xet hashes of the attested bytes" in proven
    assert len([request for request in hub.log if request.range]) == 2
    assert report.levels == ("ALLOY_LISTING", "ALLOY_SPOT_2")
    every = audit(hub, depth=Depth(spot=300))
    assert "all 5 chunks of 2 files" in texts(every, "proven")
    assert report.exit_code == every.exit_code == 0


def test_samples_are_compared_with_the_readers_own_store(hub: LoopbackHub, tmp_path: Path) -> None:
    """Where no chunks are published, the bytes that one has are as good; where one has none either, that is said."""
    made = publish(tmp_path, released=False)
    hub.put(REPO, made.files)
    report = audit(hub, depth=Depth(spot=300, store=made.store))
    assert "all 5 chunks of 2 files" in texts(report, "proven")
    hub.lies.wrong_bytes = {GGUF}
    assert f"of {GGUF} are not the attested ones" in texts(audit(hub, depth=Depth(spot=300, store=made.store)), "failed")
    alone = audit(hub, depth=Depth(spot=300))
    assert f"{GGUF}: not sampled" in texts(alone, "unverified")


def test_everything_is_read_and_hashed(hub: LoopbackHub, published: Published, tmp_path: Path) -> None:
    """Nothing is kept unless a folder is named; the place of the release and the signature over all files are verified too."""
    said: list[tuple[str, int, int]] = []
    report = audit(hub, depth=Depth(full=True, progress=lambda *done: said.append(done)))
    proven = texts(report, "proven")
    assert "files, 3,1" in proven
    assert "were downloaded, and are what the Hub lists" in proven
    assert "all 8 files are the ones that alice-models signed in model.sig" in proven
    assert "the statement is entry 3 of the 4 of the log ledger/test" in proven
    assert (GGUF, 3145735, 3145735) in said
    assert report.exit_code == 0
    assert report.levels == ("ALLOY_LISTING", "ALLOY_BYTES")
    assert not any(tmp_path.iterdir())
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / GGUF).write_bytes(published.files[GGUF][:1000])
    assert audit(hub, depth=Depth(full=True, into=kept)).exit_code == 0
    assert {path.name: path.read_bytes() for path in kept.iterdir() if path.name in published.files} == published.files


def test_a_signature_over_all_files_by_an_unknown_key_counts_for_nothing(hub: LoopbackHub, published: Published) -> None:
    """It is said, and fails nothing, like one that is none; one that is by a trusted key and does not fit fails."""
    report = audit(hub, trusting=policy("alice", models=False), depth=Depth(full=True))
    assert "model.sig" in texts(report, "unverified")
    assert report.exit_code == 0
    hub.put(REPO, {"README.md": b"# other\n"})
    assert "README.md: not the bytes that were signed in model.sig" in texts(audit(hub, depth=Depth(full=True)), "failed")
    hub.put(REPO, {"model.sig": b"{}"})
    assert "model.sig counts for nothing here: not a Sigstore bundle" in texts(audit(hub, depth=Depth(full=True)), "unverified")


# --- other repositories ------------------------------------------------------------------------------------------------------------


def test_a_repository_without_alloy_says_nothing(hub: LoopbackHub) -> None:
    """Not verified, and the hint says how one file is compared with a hash that one has."""
    hub.put(REPO, {GGUF: b"weights"})
    report = audit(hub)
    assert (report.verdict, report.exit_code) == ("NOT VERIFIED", 3)
    assert "no alloy and no attestations" in texts(report, "unverified")
    assert audit(hub, f"hf:{REPO}/{GGUF}@{Digest.of(b'weights')}").exit_code == 0
    assert audit(hub, f"hf:{REPO}/{GGUF}").exit_code == 3


def test_an_alloy_of_others_gets_its_honest_verdict(hub: LoopbackHub) -> None:
    """Never green: without a full hash exit code 3, with one the bytes are the expected ones and unsigned."""
    foreign = json.dumps({"name": "tiny", "version": "1.0.0", "source": {"baseModel": "m"}, "stages": [{"type": "quant"}]}).encode()
    hub.put(REPO, {"tiny.alloy.json": foreign, GGUF: b"weights"})
    assert audit(hub).exit_code == 3
    assert audit(hub, f"hf:{REPO}@{Digest.of(foreign)}").exit_code == 3  # whose weights are these?
    hub.put(REPO, {GGUF: None})
    assert audit(hub, f"hf:{REPO}@sha256:{Digest.of(foreign).hex[:16]}").exit_code == 3
    pinned = audit(hub, f"hf:{REPO}@{Digest.of(foreign)}", depth=Depth(full=True))
    assert (pinned.exit_code, pinned.verdict[:8]) == (0, "UNSIGNED")
    assert "were downloaded" in texts(pinned, "proven")


def test_several_alloys_share_a_repository(hub: LoopbackHub, published: Published, tmp_path: Path) -> None:
    """Each answers for its files; two more requests for each."""
    other = publish(tmp_path, name="other")
    hub.put(REPO, other.files)
    hub.log.clear()
    report = audit(hub)
    assert len(hub.log) == 5
    assert report.exit_code == 0
    assert report.subjects == {"other.alloy.json": other.alloy, "tiny.alloy.json": published.alloy}
    assert audit(hub, f"hf:{REPO}/tiny.alloy.json@{published.alloy}").subjects == {"tiny.alloy.json": published.alloy}


@pytest.mark.parametrize("text", ["sha256:" + "0" * 64, "https://example.org/a.alloy.json", "github:forge-alloy@0123456789abcdef"])
def test_what_is_on_no_hub_is_refused(hub: LoopbackHub, text: str) -> None:
    """A hash alone names no place, and other places have no listing; nothing is asked."""
    with pytest.raises(LocatorError, match="name the repository too"):
        audit(hub, text)
    assert not hub.log


def test_a_dead_network_is_no_verdict(hub: LoopbackHub, published: Published) -> None:
    """Nobody answers, or with a fault, or with what never ends: an error, never a finding."""
    with pytest.raises(HubNotFoundError):
        audit(hub, "hf:acme/none")
    with pytest.raises(HubNotFoundError):
        audit(hub, f"hf:{REPO}@nope")
    with pytest.raises(HubNotFoundError):
        audit(hub, f"hf:{REPO}/none.gguf")
    hub.lies.endless_listing = True
    with pytest.raises(HubError):
        audit(hub)
    hub.stop()
    with pytest.raises(HubUnreachableError):
        audit(hub)


# --- what changed since ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def watch(tmp_path: Path, hub: LoopbackHub) -> Callable[[], Report]:
    """Audit again, and remember."""
    sightings = Sightings(tmp_path / "state", hub.endpoint)
    return lambda: audit(hub, depth=Depth(sightings=sightings, now=TIME))


def test_a_later_audit_says_what_moved(hub: LoopbackHub, published: Published, watch: Callable[[], Report]) -> None:
    """Both commits, and how many files were replaced, added and removed."""
    before = hub.head(REPO)
    watch()
    assert f"main is where it was in your audit of {TIME}" in texts(watch(), "proven")
    after = hub.put(REPO, {"README.md": b"# new\n", "LICENSE": b"MIT\n"})
    report = watch()
    text = f"since your audit of {TIME}: main moved from {before} to {after}, 1 file replaced (README.md), 1 file added (LICENSE)"
    assert text in texts(report, "unverified")
    assert report.exit_code == 0
    assert "moved" not in texts(watch(), "unverified")


def test_a_repository_that_was_made_anew_fails_until_somebody_says_why(
    hub: LoopbackHub, published: Published, watch: Callable[[], Report]
) -> None:
    """The name is the same, and may be somebody else's by now; the audit before it stays the one to compare with."""
    watch()
    hub.lies.recreated = True
    for _ in range(2):
        report = watch()
        assert report.exit_code == 3
        assert f"{REPO} was deleted and made anew" in texts(report, "failed")


def test_an_older_revision_that_is_served_again_fails(
    hub: LoopbackHub, made: Published, watch: Callable[[], Report], tmp_path: Path
) -> None:
    """As the same commit, or as a new one with an alloy that had been replaced: both are rollbacks."""
    hub.put(REPO, made.files)
    watch()
    newer = publish(tmp_path / "newer", change=lambda alloy: alloy.update(note="newer"))
    hub.put(REPO, newer.files)
    assert watch().exit_code == 0
    hub.put(REPO, made.files)
    report = watch()
    assert report.exit_code == 3
    assert "tiny.alloy.json is again one that had been replaced before" in texts(report, "failed")


def test_main_that_goes_back_to_an_earlier_commit_fails(hub: LoopbackHub, published: Published, tmp_path: Path) -> None:
    """A branch that was force-pushed to what it was."""
    sightings = Sightings(tmp_path / "state", hub.endpoint)
    first = HfHub(hub.endpoint).listing(REPO)
    hub.put(REPO, {"README.md": b"# new\n"})
    sightings.remember(first, "main", TIME)
    sightings.remember(HfHub(hub.endpoint).listing(REPO), "main", TIME)
    last = sightings.last(REPO, "main")
    assert last is not None
    from ledger.sightings import since

    (row,) = since(last, first, "main", tmp_path)
    assert (row.status, "an older revision is served" in row.text) == ("failed", True)


def test_what_cannot_be_remembered_is_said(hub: LoopbackHub, published: Published, tmp_path: Path) -> None:
    """The audit stands; and what is remembered and cannot be read counts as nothing."""
    (tmp_path / "file").write_text("")
    report = audit(hub, depth=Depth(sightings=Sightings(tmp_path / "file/below", hub.endpoint), now=TIME))
    assert "cannot remember this audit" in texts(report, "unverified")
    assert report.exit_code == 0
    sightings = Sightings(tmp_path / "state", hub.endpoint)
    for junk in (b"{}", b"[", b'{"commit":"","commits":{},"created":"","files":[],"identity":"","replaced":[],"seenOn":""}'):
        sightings.file(REPO, "main").parent.mkdir(exist_ok=True)
        sightings.file(REPO, "main").write_bytes(junk)
        assert sightings.last(REPO, "main") is None


def test_what_ones_own_ledger_published_is_compared(hub: LoopbackHub, published: Published) -> None:
    """The commit that was read back, one that moved, and a repository that is younger than its publication."""
    commit = hub.head(REPO)
    said = Publication(
        event="published", target=f"hf:{REPO}", name="tiny", version="1.0.0", alloy=("tiny.alloy.json", published.alloy),
        revision=commit, url="https://example.org", files=9, compared_on="2030-01-01T00:00:00Z",
    )  # fmt: skip
    assert "main is at the commit that was read back" in texts(audit(hub, depth=Depth(publications=[(4, said)])), "proven")
    readme = audit(hub, f"hf:{REPO}/README.md", depth=Depth(publications=[(4, said)]))
    assert readme.verdict == "NOT VERIFIED"  # where a branch is says nothing of a file that nobody attests
    moved = replace(said, revision="0" * 40)
    assert f"main moved since it was published: from {'0' * 40} to {commit}" in texts(
        audit(hub, depth=Depth(publications=[(4, moved)])), "unverified"
    )
    younger = replace(said, compared_on="2020-01-01T00:00:00Z")
    assert "it was made anew" in texts(audit(hub, depth=Depth(publications=[(4, younger)])), "failed")


# --- a Hub that lies ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lie", "depth", "message"),
    [
        ({"wrong_sha256": {GGUF}}, Depth(), "is not what the alloy that alice released lists"),
        ({"wrong_sha256": {GGUF}}, Depth(), "another SHA-256 than its own git object holds"),
        ({"wrong_oid": {GGUF}}, Depth(), "attested is"),
        ({"wrong_oid": {CONFIG}}, Depth(), f"{CONFIG} is not what the alloy that alice released lists"),
        ({"wrong_size": {GGUF}}, Depth(), "expected 3,145,735 bytes"),
        ({"wrong_xet": {GGUF}}, Depth(spot=1), "the Hub stores it under the Xet hash"),
        ({"wrong_xet": {GGUF}}, Depth(full=True), "the Hub stores it under the Xet hash"),
        ({"wrong_bytes": {GGUF}}, Depth(spot=300), f"of {GGUF} are not the attested ones"),
        ({"wrong_bytes": {GGUF}}, Depth(full=True), "served other bytes than it lists"),
        ({"wrong_bytes": {CONFIG}}, Depth(full=True), "served other bytes than it lists"),
        ({"wrong_bytes": {"tiny.alloy.json"}}, Depth(), "is served with other bytes than listed"),
        ({"wrong_bytes": {"tiny.attestations.jsonl"}}, Depth(), "is served with other bytes than listed"),
        ({"wrong_bytes": {"tiny.chunks"}}, Depth(spot=5), "is served with other bytes than listed"),
        ({"endless_bytes": {"tiny.alloy.json"}}, Depth(), "no more is read"),
        ({"endless_bytes": {GGUF}}, Depth(full=True), "other bytes than it lists"),
        (
            {"hostile_names": ("evil.safetensors",)},
            Depth(),
            "evil.safetensors, 1 bytes, is not in the list of the alloy that alice released",
        ),
    ],
)
def test_every_lie_of_the_hub_fails(hub: LoopbackHub, published: Published, lie: dict[str, Any], depth: Depth, message: str) -> None:
    """At the level that can see it, with the file's name."""
    for name, value in lie.items():
        setattr(hub.lies, name, value)
    report = audit(hub, depth=depth)
    assert report.exit_code == 3
    assert message in texts(report, "failed")


@pytest.mark.parametrize("lie", [{"hostile_names": ("../../etc/passwd",)}, {"renamed": "evil/tiny"}])
def test_a_listing_that_cannot_be_used_is_refused(hub: LoopbackHub, published: Published, lie: dict[str, Any]) -> None:
    """Names that lead out of a folder, and the answer about another repository."""
    for name, value in lie.items():
        setattr(hub.lies, name, value)
    with pytest.raises(HubError):
        audit(hub)


def test_a_commit_that_is_answered_with_another_is_refused(hub: LoopbackHub, published: Published) -> None:
    """A revision that was named is that revision, or nothing."""
    commit = hub.head(REPO)
    hub.put(REPO, {"README.md": b"# new\n"})
    hub.lies.moved_revision = True
    with pytest.raises(HubMismatchError):
        audit(hub, f"hf:{REPO}@{commit}")


def test_a_commit_that_is_unknown_there_fails(hub: LoopbackHub, published: Published) -> None:
    """History was rewritten, or it is another repository by now; where it is now is said."""
    report = audit(hub, f"hf:{REPO}@{'0' * 40}")
    assert report.exit_code == 3
    assert f"is at {hub.head(REPO)}" in texts(report, "failed")


def test_main_may_move_while_it_is_audited(hub: LoopbackHub, published: Published) -> None:
    """Everything is read at the commit that the listing named."""
    hub.lies.moving = True
    assert audit(hub, depth=Depth(full=True)).exit_code == 0

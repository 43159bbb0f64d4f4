"""Logs, indexes and policies of somebody who wants `VERIFIED`, or a cache hit, for what nobody trusted said."""

from __future__ import annotations

import json
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from ledger import bundle, dsse, note
from ledger.audit import audit_folder
from ledger.entries import UNPLACED
from ledger.errors import UntrustedError
from ledger.log import Log
from ledger.lookup import accept, find
from ledger.memory import Memory
from ledger.note import Checkpoint
from ledger.policy import Policy
from ledger.report import Report
from ledger.statement import Statement
from ledger.testing import UnsafeSigner, append_runs, chain_of_runs, run_payload, unsafe_log, unsafe_policy
from ledger.verify import verify_alloy, verify_artifact, verify_log
from store.actions import Action
from store.digest import Digest
from tests.ledger.test_published import World
from tests.reports import texts

POLICY = unsafe_policy("alice")
EVIL = Digest.of(b"evil")
PRUNE = Action("expert-prune", 1, {"keep": 6}, {})


def poison(ledger: Path, table: str, digest: Digest, number: int) -> None:
    """Write a row of the index, as anybody can who may write to the ledger's folder."""
    with sqlite3.connect(ledger / "index.sqlite") as db:
        db.execute(f"INSERT INTO {table} VALUES(?, ?, 'model')", (bytes.fromhex(digest.hex), number))
    db.close()


@pytest.mark.parametrize("table", ["subjects", "materials"])
def test_index_that_points_at_another_entry(world: World, table: str) -> None:
    """An entry that the index names is about what was asked for, or it is none of the answers."""
    poison(world.folder / ".ledger", table, EVIL, 3)
    assert world.log.by_subject(EVIL) == world.log.by_material(EVIL) == []
    poison(world.folder / ".ledger", table, EVIL, 3)
    (world.folder / "evil.gguf").write_bytes(b"evil")
    report = verify_artifact(world.folder / "evil.gguf", world.log, POLICY)
    assert report.exit_code == 3
    assert "are in no trusted statement" in texts(report, "failed")


def test_index_that_gives_another_action_s_result(tmp_path: Path) -> None:
    """A key that the index gives to another entry is no hit, and the index is made anew."""
    log = unsafe_log(tmp_path)
    append_runs(log, chain_of_runs(3))
    with sqlite3.connect(tmp_path / ".ledger/index.sqlite") as db:
        db.execute("UPDATE entries SET key = ? WHERE number = 1", (bytes.fromhex(PRUNE.key.hex),))
    db.close()
    assert log.lookup(PRUNE.key) == []
    assert find(log, POLICY, PRUNE) is None
    assert find(log, POLICY, chain_of_runs(3)[1][0]) is not None


# --- a key that was stolen, and is trusted up to entry 1199 ---------------------------------------------------------------------------


@pytest.fixture
def retired() -> Policy:
    old, alice = UnsafeSigner("old").public, UnsafeSigner("alice").public
    return Policy.parse(
        f'version: 1\nkeys: {{old: {{key: "{old}", until: 1200}}, alice: "{alice}"}}\nrules: [{{keys: [old]}}, {{keys: [alice]}}]\n'
    )


def forged(folder: Path, signer: str) -> Log:
    """A log that was made today, with a statement of the stolen key at entry 0, seen on a machine that knows nothing of it."""
    log = unsafe_log(folder, signer=signer, origin="ledger/forged")
    log.append_foreign([dsse.sign(run_payload(PRUNE, {"model": EVIL}), UnsafeSigner("old"))])
    log.close()
    return Log.open(folder / ".ledger", memory=Memory(folder / "a stranger's machine"))


def publish(log: Log, folder: Path) -> Path:
    lines, receipt = bundle.export(log, [EVIL])
    (folder / "out").mkdir()
    (folder / "out/x.attestations.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    artifacts = [{"stage": "expert-prune", "output": "model", "digest": str(EVIL)}]
    (folder / "out/x.alloy.json").write_text(json.dumps({"results": {"artifacts": artifacts}, "receipt": {"ledger": receipt}}))
    return folder / "out"


@pytest.mark.parametrize("signer", ["old", "mallory"])
def test_stolen_key_in_a_log_of_its_own(tmp_path: Path, retired: Policy, signer: str) -> None:
    """A place in a log proves nothing when only the stolen key, or a stranger, vouches for the log: not for objects, alloys or ledgers."""
    log = forged(tmp_path, signer)
    reports: list[Report] = [verify_artifact(EVIL, log, retired), verify_log(log, retired), verify_alloy(publish(log, tmp_path), retired)]
    assert [report.exit_code for report in reports] == [3, 3, 3]
    assert "sha256:" + EVIL.hex in texts(reports[0], "failed")
    assert "lets sign a log" in texts(reports[1], "failed")
    assert log.memory.checkpoint("ledger/forged") is None


def test_retired_key_in_a_log_that_is_known(tmp_path: Path, retired: Policy) -> None:
    """What the retired key signed before counts: where another key signed the log since, or where the log was accepted before."""
    log = forged(tmp_path, "old")
    log.memory.accept(*_checkpoint(log))
    assert verify_artifact(EVIL, log, retired).exit_code == 0
    assert verify_log(log, retired).exit_code == 0
    log.close()
    append_runs(Log.open(tmp_path / ".ledger", signer=UnsafeSigner("alice"), memory=Memory(tmp_path / "state")), chain_of_runs(1))
    log = Log.open(tmp_path / ".ledger", memory=Memory(tmp_path / "another stranger's machine"))
    for report in (verify_artifact(EVIL, log, retired), verify_log(log, retired), verify_alloy(publish(log, tmp_path), retired)):
        assert report.exit_code == 0, report


def test_what_was_accepted_at_a_place_is_not_accepted_without_one(tmp_path: Path, retired: Policy) -> None:
    """What is remembered about an entry is about its place too."""
    entry = forged(tmp_path, "old").entry(0)
    assert accept(entry, retired).signers == ("old",)
    with pytest.raises(UntrustedError):
        accept(replace(entry, number=UNPLACED), retired)


def _checkpoint(log: Log) -> tuple[Checkpoint, bytes]:
    signed = log.checkpoint
    assert signed is not None
    return note.parse_note(signed).checkpoint, signed


# --- policies -------------------------------------------------------------------------------------------------------------------------


def test_subject_that_is_named_like_a_digest() -> None:
    """A key that is trusted for one digest cannot get its trust by calling something else by that digest."""
    good = Digest.of(b"good")
    rule = f'{{keys: [old], artifacts: ["{good}"]}}'
    policy = Policy.parse(f'version: 1\nkeys: {{old: "{UnsafeSigner("old").public}"}}\nrules: [{rule}]\n')
    signers = frozenset([UnsafeSigner("old").public])
    assert policy.judge(Statement.parse(run_payload(PRUNE, {"model": good})), signers, position=0) == ("old",)
    with pytest.raises(UntrustedError):
        policy.judge(Statement.parse(run_payload(PRUNE, {str(good): EVIL})), signers, position=0)


# --- the repository -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [("HEAD", "ref: refs/heads/prettier\n"), ("commondir", "../other\n"), ("objects/info/http-alternates", "https://example.org/\n")],
)
def test_repository_that_shows_others_something_else(tmp_path: Path, name: str, text: str) -> None:
    """What makes `git log`, which the documentation recommends, show another history is a failure."""
    log = unsafe_log(tmp_path)
    append_runs(log, chain_of_runs(2))
    (log.repository.path / name).write_text(text)
    report = verify_log(log, POLICY)
    assert report.exit_code == 3
    assert f"{name} in the log's repository makes other programs show another history" in texts(report, "failed")


def test_ledger_that_was_swapped_for_another(tmp_path: Path) -> None:
    """Another log of the same signer in the same place is refused: an older copy, a fork of equal size, one of another origin."""
    log = unsafe_log(tmp_path)
    append_runs(log, chain_of_runs(2))
    shutil.copytree(tmp_path / ".ledger", tmp_path / "older")
    append_runs(log, chain_of_runs(3)[2:])
    log.close()
    append_runs(
        Log.open(tmp_path / "older", signer=UnsafeSigner("alice"), memory=Memory(tmp_path / "elsewhere")), [(PRUNE, {"model": EVIL})]
    )
    other = Log.create(tmp_path / "other", signer=UnsafeSigner("alice"), memory=Memory(tmp_path / "elsewhere"))
    append_runs(other, chain_of_runs(3))
    other.close()
    for name in ("older", "other"):
        shutil.rmtree(tmp_path / ".ledger")
        shutil.copytree(tmp_path / name, tmp_path / ".ledger")
        report = audit_folder(tmp_path / ".ledger", POLICY, memory=Memory(tmp_path / "state"))
        assert report.exit_code == 3
        assert "Evidence: accepted: ledger/test 3" in texts(report, "failed")

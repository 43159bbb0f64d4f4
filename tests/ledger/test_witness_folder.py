"""Cosigned checkpoints beside a log: kept, carried by receipts and proofs, and wanted by policies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ledger import bundle, cosign, witness_folder
from ledger.errors import RewrittenError
from ledger.log import Log
from ledger.note import Checkpoint, parse_note, sign_checkpoint
from ledger.proof import Proof
from ledger.testing import UNSAFE_TIME, UnsafeSigner, append_runs, reopened, unsafe_log, unsafe_policy
from ledger.tlog import EMPTY_ROOT
from ledger.verify import verify_alloy, verify_artifact, verify_log
from tests.ledger.test_cosign import DAY, NOTE, W1, W2, policy
from tests.ledger.test_standing import publish
from tests.ledger.test_witness import RUNS, witness
from tests.reports import texts


@pytest.fixture
def seen_log(tmp_path: Path) -> Log:
    """A log of five entries, of which w1 saw three."""
    log = unsafe_log(tmp_path)
    append_runs(log, RUNS[:3])
    witness_folder.keep(log, witness(tmp_path).cosign_log(log))
    append_runs(log, RUNS[3:5])
    return log


def test_files_say_no_more_than_needed(seen_log: Log, tmp_path: Path) -> None:
    """A newer word of the same witness replaces the file, another witness's joins the one of its size."""

    def names() -> list[str]:
        return sorted(path.name for path in (tmp_path / ".ledger/witnessed").iterdir())

    assert names() == ["3"]
    witness_folder.keep(seen_log, witness(tmp_path, W2).cosign_log(seen_log))
    assert names() == ["3", "5"]
    witness_folder.keep(seen_log, witness(tmp_path, W1).cosign_log(seen_log))
    assert names() == ["5"]
    newest = witness_folder.newest(seen_log)
    assert newest is not None
    assert [one.name for one in cosign.read(parse_note(newest), policy())] == ["w1", "w2"]


def test_receipts_and_proofs_carry_the_witnessed_checkpoint_where_it_covers_them(seen_log: Log) -> None:
    """Entries that no witness has seen are proven against the newest one."""
    witnessed = witness_folder.newest(seen_log)
    for number, expected in ((0, witnessed), (2, witnessed), (3, seen_log.checkpoint)):
        proof = Proof.of(seen_log, number)
        assert proof.checkpoint == expected
        assert all(row.status == "proven" for row in proof.check(unsafe_policy("alice")))
    assert bundle.export(seen_log, [RUNS[2][1]["model"]])[1]["checkpoint"].encode() == witnessed
    assert bundle.export(seen_log, [RUNS[4][1]["model"]])[1]["checkpoint"].encode() == seen_log.checkpoint


def test_a_witnessed_checkpoint_of_an_older_key_is_not_carried(tmp_path: Path) -> None:
    """After a rotation the old key may prove no places; the newest checkpoint does."""
    log = unsafe_log(tmp_path)
    append_runs(log, RUNS[:2])
    witness_folder.keep(log, witness(tmp_path).cosign_log(log))
    append_runs(reopened(tmp_path, signer="bob"), RUNS[2:3])
    assert witness_folder.newest(log) is None
    assert Proof.of(log, 0).checkpoint == log.checkpoint


def test_a_checkpoint_of_another_log_is_not_kept(seen_log: Log, tmp_path: Path) -> None:
    """Nor one that the log does not extend."""
    fork = unsafe_log(tmp_path / "fork")
    append_runs(fork, RUNS[5:9])
    with pytest.raises(RewrittenError):
        witness_folder.keep(seen_log, fork.checkpoint or b"")
    with pytest.raises(RewrittenError):
        witness_folder.keep(seen_log, NOTE)


# --- in audits ---------------------------------------------------------------------------------------------------------------------


def test_a_frozen_log_fails(seen_log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole log and one object, as soon as what the witnesses saw is too old; without `checkpoints` nothing is asked."""
    for at, code in ((UNSAFE_TIME + 29 * DAY, 0), (UNSAFE_TIME + 31 * DAY, 3)):
        monkeypatch.setattr("time.time", lambda at=at: float(at))
        for report in (verify_log(seen_log, policy()), verify_artifact(RUNS[0][1]["model"], seen_log, policy())):
            assert report.exit_code == code, report
            if code == 0:
                assert "w1 saw this log at 3 entries, 29 d ago, and it was the same" in texts(report, "proven")
                assert "the 2 entries since then: no witness has seen it yet" in texts(report, "unverified")
            else:
                assert "Newer entries, a revocation too, may be kept from you" in texts(report, "failed")
        assert verify_log(seen_log, unsafe_policy("alice")).exit_code == 0


def test_an_alloy_with_an_old_checkpoint_fails_where_a_fresh_one_is_wanted(
    seen_log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The receipt carries what the witness saw; one that nobody saw is as old as can be."""
    monkeypatch.setattr("time.time", lambda: float(UNSAFE_TIME + DAY))
    good = publish(seen_log, tmp_path / "good", RUNS[2][1]["model"], policy())
    assert verify_alloy(good, policy()).exit_code == 0
    unseen = publish(seen_log, tmp_path / "unseen", RUNS[4][1]["model"], policy())
    assert (verify_alloy(unseen, policy()).exit_code, verify_alloy(unseen, unsafe_policy("alice")).exit_code) == (3, 0)
    monkeypatch.setattr("time.time", lambda: float(UNSAFE_TIME + 31 * DAY))
    assert verify_alloy(good, policy()).exit_code == 3
    receipt = json.loads(good.read_text())["receipt"]["ledger"]["checkpoint"]
    without = good.read_text().replace(json.dumps(receipt)[1:-1], json.dumps(receipt.rpartition("— w1")[0])[1:-1])
    good.write_text(without)
    monkeypatch.setattr("time.time", lambda: float(UNSAFE_TIME + DAY))
    assert verify_alloy(good, policy()).exit_code == 3


def test_a_log_that_a_witness_saw_otherwise_fails_with_both_checkpoints(seen_log: Log, tmp_path: Path) -> None:
    """Rolled back for a reader who has never seen it, or another log in its place: the witnessed note is the evidence."""
    old = unsafe_log(tmp_path / "old")
    append_runs(old, RUNS[:2])
    (tmp_path / "old/.ledger/witnessed").mkdir()
    (tmp_path / "old/.ledger/witnessed/3").write_bytes(witness_folder.newest(seen_log) or b"")
    report = verify_log(old, policy(max_age_s=None))
    assert report.exit_code == 3
    assert "does not begin with the 3 entries of a checkpoint that was seen of it" in texts(report, "failed")
    for signed in (witness_folder.newest(seen_log), old.checkpoint):
        assert " ".join((signed or b"").decode().split("\n\n")[0].split()) in texts(report, "failed")


def test_files_that_anybody_can_write_make_no_verdict(seen_log: Log, tmp_path: Path) -> None:
    """Junk, and a checkpoint by nobody known: said, and that is all. A line that is not the witness's own signature fails."""
    folder = tmp_path / ".ledger/witnessed"
    (folder / "junk").write_bytes(b"\xff")
    (folder / "eve").write_bytes(sign_checkpoint(Checkpoint("ledger/test", 99, EMPTY_ROOT), UnsafeSigner("eve")))
    (folder / ".hidden").write_bytes(b"")
    (folder / "folder").mkdir()
    report = verify_log(seen_log, policy(max_age_s=None))
    assert report.exit_code == 0
    assert "junk in witnessed is no checkpoint of it" in texts(report, "unverified")
    assert "eve in witnessed is no checkpoint of it" in texts(report, "unverified")
    good = folder / "3"
    lines = good.read_bytes().splitlines(keepends=True)
    lines[-1] = lines[-1][:-8] + (b"AAAAAAA\n" if lines[-1][-8:-1] != b"AAAAAAA" else b"BBBBBBB\n")
    good.write_bytes(b"".join(lines))
    assert verify_log(seen_log, policy(max_age_s=None)).exit_code == 3

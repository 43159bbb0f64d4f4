"""A witness: it follows a log that grows, and refuses every other one in its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from ledger import cosign, witness_folder
from ledger.errors import LogError, NoteError, RewrittenError
from ledger.memory import Memory
from ledger.note import Checkpoint, parse_note, sign_checkpoint
from ledger.testing import UNSAFE_TIME, UnsafeSigner, append_runs, chain_of_runs, unsafe_log
from ledger.tlog import EMPTY_ROOT
from ledger.witness import Witness
from ledger.witness import request as requested
from tests.ledger.test_cosign import ALICE, NOTE, W1, W2, policy

RUNS = chain_of_runs(9)


def witness(folder: Path, signer: UnsafeSigner = W1, at: int = UNSAFE_TIME) -> Witness:
    return Witness(signer, Memory(folder / f"state of {signer.name}"), clock=lambda: float(at))


def test_a_witness_follows_a_log_that_grows(tmp_path: Path) -> None:
    """Each newest checkpoint, and the same one again with a new time."""
    log = unsafe_log(tmp_path)
    with pytest.raises(LogError, match="is empty; there is nothing to witness"):
        witness(tmp_path).cosign_log(log)
    for count in range(3):
        append_runs(log, RUNS[count : count + 1])
        cosigned = witness(tmp_path, at=UNSAFE_TIME + count).cosign_log(log)
        assert [(one.size, one.time) for one in cosign.read(parse_note(cosigned), policy())] == [(count + 1, UNSAFE_TIME + count)]
    again = witness(tmp_path, at=UNSAFE_TIME + 99).cosign_log(log)
    assert cosign.read(parse_note(again), policy())[0].time == UNSAFE_TIME + 99


def test_a_fork_of_equal_size_and_a_rollback_are_refused_with_both_checkpoints(tmp_path: Path) -> None:
    """Nothing is signed; the evidence is the two notes; the right log goes on."""
    log = unsafe_log(tmp_path, origin="ledger/one")
    append_runs(log, RUNS[:3])
    first = witness(tmp_path).cosign_log(log)
    for name, runs in (("fork", RUNS[3:6]), ("longer fork", RUNS[3:9]), ("rollback", RUNS[:2])):
        other = unsafe_log(tmp_path / name, origin="ledger/one")
        append_runs(other, runs)
        with pytest.raises(RewrittenError, match=r"w1 cosigns no fork and no rollback.*Keep both checkpoints as evidence") as caught:
            witness(tmp_path).cosign_log(other)
        assert (caught.value.accepted, caught.value.found) == (first, other.checkpoint)
    append_runs(log, RUNS[3:4])
    witness(tmp_path).cosign_log(log)


def test_one_witness_s_word_is_not_another_s(tmp_path: Path) -> None:
    """Each key remembers by itself, so a new witness starts with whatever it sees first."""
    log, other = unsafe_log(tmp_path, origin="ledger/one"), unsafe_log(tmp_path / "fork", origin="ledger/one")
    append_runs(log, RUNS[:2])
    append_runs(other, RUNS[2:4])
    memory = Memory(tmp_path / "shared")
    Witness(W1, memory).cosign_log(log)
    Witness(W2, memory).cosign_log(other)
    with pytest.raises(RewrittenError):
        Witness(W2, memory).cosign_log(log)


def test_what_was_cosigned_is_remembered_before_it_is_given_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When it cannot be remembered, nobody gets it."""
    log = unsafe_log(tmp_path)
    append_runs(log, RUNS[:1])
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LogError, match="nothing was cosigned"):
        Witness(W1, Memory(tmp_path / "file")).cosign_log(log)


def test_a_checkpoint_travels_to_a_witness_with_its_proof(tmp_path: Path) -> None:
    """A bare note is enough the first time and for the same size; then the proof from there on is needed, and the right one."""
    log, far = unsafe_log(tmp_path), witness(tmp_path / "far")
    append_runs(log, RUNS[:3])
    assert log.checkpoint is not None
    assert cosign.read(parse_note(far.cosign_note(log.checkpoint)), policy())[0].size == 3
    far.cosign_note(log.checkpoint)
    append_runs(log, RUNS[3:8])
    for request in (log.checkpoint, requested(log, 2), requested(log, 3).replace(b"old 3", b"old 4")):
        with pytest.raises(RewrittenError, match="not proven to extend"):
            far.cosign_note(request)
    cosigned = far.cosign_note(requested(log, 3))
    path = witness_folder.keep(log, cosigned)
    assert path.read_bytes() == cosigned
    assert witness_folder.newest(log) == cosigned


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"old x\n\n" + NOTE, "starts with `old`"),
        (b"old 03\n\n" + NOTE, "starts with `old`"),
        (b"old 1\n!\n\n" + NOTE, "not base64"),
        (b"old 1\nAAAA\n\n" + NOTE, "has not 32 bytes"),
        (b"old 1\n" + b"A" * 44 + b"\n" * 1, "not a signed note|has not 32 bytes|not base64"),
        (b"hello", "not a signed note"),
    ],
)
def test_requests_that_are_none_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    """With what is wrong."""
    with pytest.raises(NoteError, match=message):
        witness(tmp_path).cosign_note(data)


def test_an_absurd_size_is_refused_and_bars_nobody(tmp_path: Path) -> None:
    """The log's own key states 2**62 entries: no witness believes it uncounted, and the honest log goes on."""
    log = unsafe_log(tmp_path, origin="ledger/one")
    append_runs(log, RUNS[:2])
    far = witness(tmp_path)
    far.cosign_note(log.checkpoint or b"")
    absurd = sign_checkpoint(Checkpoint("ledger/one", 2**62, EMPTY_ROOT), ALICE)
    with pytest.raises(NoteError, match="cannot be counted here"):
        far.cosign_note(absurd)
    append_runs(log, RUNS[2:3])
    far.cosign_note(requested(log, 2))
    with pytest.raises(LogError, match="a proof from 99 on is impossible"):
        requested(log, 99)

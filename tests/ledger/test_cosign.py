"""Cosigned checkpoints: made as C2SP says, verified, kept beside the log, and wanted by policies."""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode
from dataclasses import replace
from pathlib import Path

import pytest

from ledger import bundle, cosign, note
from ledger.cosign import Witness
from ledger.errors import FrozenError, LogError, NoteError, RewrittenError, SignatureError
from ledger.keys import P256Signer
from ledger.log import Log
from ledger.memory import Memory
from ledger.note import Checkpoint, parse_note, sign_checkpoint
from ledger.policy import Policy, Witnesses
from ledger.proof import Proof
from ledger.testing import UNSAFE_TIME, UnsafeSigner, append_runs, chain_of_runs, reopened, unsafe_log, unsafe_policy
from ledger.tlog import EMPTY_ROOT
from ledger.verify import verify_alloy, verify_artifact, verify_log
from tests.ledger.test_keys import p256
from tests.ledger.test_standing import publish
from tests.reports import texts

ALICE, W1, W2 = (UnsafeSigner(name) for name in ("alice", "w1", "w2"))
NOTE = sign_checkpoint(Checkpoint("example.com/log", 3, hashlib.sha256(b"root").digest()), ALICE)
RUNS = chain_of_runs(9)
DAY = 86_400


def policy(*, threshold: int = 1, max_age_s: int | None = 30 * DAY) -> Policy:
    base = unsafe_policy("alice", "w1", "w2")
    return replace(base, checkpoints=Witnesses(("w1", "w2"), threshold, max_age_s))


def witness(folder: Path, signer: UnsafeSigner = W1, at: int = UNSAFE_TIME) -> Witness:
    return Witness(signer, Memory(folder / f"state of {signer.name}"), clock=lambda: float(at))


# --- one note ----------------------------------------------------------------------------------------------------------------------


def test_a_cosignature_is_as_the_specification_says() -> None:
    """Key hash over 0x04, eight bytes of time, and a signature over `cosignature/v1`, the time and the text: computed here by hand."""
    cosigned = cosign.sign(NOTE, W1, when=1_679_315_147)
    assert cosigned.startswith(NOTE)
    dash, name, blob = cosigned[len(NOTE) :].decode().rstrip("\n").split(" ")
    raw = b64decode(blob)
    assert (dash, name, len(raw)) == ("—", "w1", 76)
    assert raw[:4] == hashlib.sha256(b"w1\n\x04" + W1.public.raw).digest()[:4]
    assert raw[4:12] == (1_679_315_147).to_bytes(8, "big")
    text = NOTE.decode().partition("\n\n")[0] + "\n"
    W1.public.verify(raw[12:], f"cosignature/v1\ntime 1679315147\n{text}".encode())
    assert note.verify_note(parse_note(cosigned), [ALICE.public]) == {ALICE.public}
    assert [(one.name, one.time, one.size) for one in cosign.read(parse_note(cosigned), policy())] == [("w1", 1_679_315_147, 3)]


def test_a_witness_s_newer_word_replaces_its_older_one() -> None:
    """And another's stays; two notes of one text are merged line by line."""
    once = cosign.sign(cosign.sign(NOTE, W1, when=1), W2, when=2)
    again = cosign.sign(once, W1, when=3)
    assert [(one.name, one.time) for one in cosign.read(parse_note(again), policy())] == [("w1", 3), ("w2", 2)]
    both = cosign.merge(cosign.sign(NOTE, W1, when=1), cosign.sign(NOTE, W2, when=2))
    assert both == once
    newest = cosign.merge(once, again)
    assert [(one.name, one.time) for one in cosign.read(parse_note(newest), policy())] == [("w1", 3), ("w2", 2)]
    other = sign_checkpoint(Checkpoint("example.com/log", 4, EMPTY_ROOT), ALICE)
    with pytest.raises(NoteError, match="different texts"):
        cosign.merge(NOTE, other)


def test_every_changed_byte_of_a_cosignature_is_refused_or_another_s() -> None:
    """Time, key hash and signature are bound; a line that is not w1's any more counts for nothing."""
    cosigned = cosign.sign(NOTE, W1, when=1_679_315_147)
    for at in range(len(NOTE) + 6, len(cosigned) - 1):
        for flip in (1, 2):
            changed = cosigned[:at] + bytes([cosigned[at] ^ flip]) + cosigned[at + 1 :]
            try:
                assert cosign.read(parse_note(changed), policy()) == ()
            except (NoteError, SignatureError):
                continue
    moved = cosigned.replace(b"\n3\n", b"\n4\n")
    with pytest.raises(SignatureError):
        cosign.read(parse_note(moved), policy())


def test_a_cosignature_is_no_signature_of_the_log_and_the_other_way_round() -> None:
    """The log's key cosigning under its origin proves no origin; a plain signature under a witness's name proves no time."""
    as_log = cosign.sign(NOTE, UnsafeSigner("w1"), when=5).partition(b"\n\n")
    text, line = as_log[0].decode(), as_log[2].decode().splitlines()[-1]
    only = parse_note(f"{text}\n\n{line}\n".encode())
    with pytest.raises(SignatureError):
        note.verify_note(only, [W1.public], name="w1")
    plain = sign_checkpoint(replace(parse_note(NOTE).checkpoint, origin="w1"), W1)
    assert cosign.read(parse_note(plain), policy()) == ()
    for origin in ("cosignature/v1", "cosignature/v2"):
        with pytest.raises(NoteError, match="must not start like other signed bytes"):
            Checkpoint(origin, 1, EMPTY_ROOT)


def test_only_ed25519_witnesses() -> None:
    """As the specification has it; and only on checkpoints."""
    private, _ = p256()
    with pytest.raises(NoteError, match="a witness signs with an Ed25519 key; oms is ecdsa-p256"):
        cosign.sign(NOTE, P256Signer("oms", private), when=1)
    with pytest.raises(NoteError):
        cosign.sign(NOTE, W1, when=-1)
    with pytest.raises(NoteError):
        cosign.sign(b"hello\n\n\xe2\x80\x94 x AAAAAAAA\n", W1, when=1)


# --- fresh or frozen ---------------------------------------------------------------------------------------------------------------


def seen(name: str, age_s: int, size: int = 5) -> cosign.Cosignature:
    return cosign.Cosignature(name, UnsafeSigner(name).public, UNSAFE_TIME - age_s, size)


def test_a_policy_says_how_old_and_how_many() -> None:
    """One of two within 30 days; both; any time."""
    judged = cosign.judge([seen("w1", 29 * DAY)], policy(), now=UNSAFE_TIME)
    assert (judged[0], [one.name for one in judged[1]]) == (5, ["w1"])
    with pytest.raises(FrozenError, match=r"\(1 of w1, w2\) have seen this log in the last 30 d: the last was w1, 31 d ago"):
        cosign.judge([seen("w1", 31 * DAY)], policy(), now=UNSAFE_TIME)
    with pytest.raises(FrozenError, match="none of them ever did"):
        cosign.judge([], policy(), now=UNSAFE_TIME)
    with pytest.raises(FrozenError, match="2 of w1, w2"):
        cosign.judge([seen("w1", 1), seen("w1", 2)], policy(threshold=2), now=UNSAFE_TIME)
    assert cosign.judge([seen("w1", 10**9)], policy(max_age_s=None), now=UNSAFE_TIME)[0] == 5


def test_what_enough_witnesses_have_seen_is_the_smaller_size() -> None:
    """Two of two: w1 saw 9 entries, w2 5, so both saw 5."""
    assert cosign.judge([seen("w1", 1, 9), seen("w2", 1, 5)], policy(threshold=2), now=UNSAFE_TIME)[0] == 5
    assert cosign.judge([seen("w1", 1, 9), seen("w2", 1, 5)], policy(), now=UNSAFE_TIME)[0] == 9


def test_a_clock_far_ahead_makes_nothing_fresh() -> None:
    """A few minutes are a clock; a year would keep a frozen log fresh for a year."""
    assert cosign.judge([seen("w1", -200)], policy(), now=UNSAFE_TIME)[0] == 5
    with pytest.raises(FrozenError, match="ahead of this clock"):
        cosign.judge([seen("w1", -365 * DAY)], policy(), now=UNSAFE_TIME)


def test_a_witness_that_was_cut_off_and_a_stranger_see_nothing() -> None:
    """`until` beside its name ends a witness; others on the note are passed over."""
    cosigned = cosign.sign(cosign.sign(NOTE, W1, when=UNSAFE_TIME), UnsafeSigner("eve"), when=UNSAFE_TIME)
    cut = replace(policy(), spans={"w1": Policy.parse(f"version: 1\nkeys: {{a: {{key: '{W1.public}', until: 9}}}}").spans["a"]})
    assert cosign.read(parse_note(cosigned), cut) == ()
    assert len(cosign.read(parse_note(cosigned), policy())) == 1


# --- the witness -------------------------------------------------------------------------------------------------------------------


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
    for request in (log.checkpoint, cosign.request(log, 2), cosign.request(log, 3).replace(b"old 3", b"old 4")):
        with pytest.raises(RewrittenError, match="not proven to extend"):
            far.cosign_note(request)
    cosigned = far.cosign_note(cosign.request(log, 3))
    path = cosign.keep(log, cosigned)
    assert path.read_bytes() == cosigned
    assert cosign.newest(log) == cosigned


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
    far.cosign_note(cosign.request(log, 2))
    with pytest.raises(LogError, match="a proof from 99 on is impossible"):
        cosign.request(log, 99)


# --- beside the log ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def seen_log(tmp_path: Path) -> Log:
    """A log of five entries, of which w1 saw three."""
    log = unsafe_log(tmp_path)
    append_runs(log, RUNS[:3])
    cosign.keep(log, witness(tmp_path).cosign_log(log))
    append_runs(log, RUNS[3:5])
    return log


def test_files_say_no_more_than_needed(seen_log: Log, tmp_path: Path) -> None:
    """A newer word of the same witness replaces the file, another witness's joins the one of its size."""

    def names() -> list[str]:
        return sorted(path.name for path in (tmp_path / ".ledger/witnessed").iterdir())

    assert names() == ["3"]
    cosign.keep(seen_log, witness(tmp_path, W2).cosign_log(seen_log))
    assert names() == ["3", "5"]
    cosign.keep(seen_log, witness(tmp_path, W1).cosign_log(seen_log))
    assert names() == ["5"]
    newest = cosign.newest(seen_log)
    assert newest is not None
    assert [one.name for one in cosign.read(parse_note(newest), policy())] == ["w1", "w2"]


def test_receipts_and_proofs_carry_the_witnessed_checkpoint_where_it_covers_them(seen_log: Log) -> None:
    """Entries that no witness has seen are proven against the newest one."""
    witnessed = cosign.newest(seen_log)
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
    cosign.keep(log, witness(tmp_path).cosign_log(log))
    append_runs(reopened(tmp_path, signer="bob"), RUNS[2:3])
    assert cosign.newest(log) is None
    assert Proof.of(log, 0).checkpoint == log.checkpoint


def test_a_checkpoint_of_another_log_is_not_kept(seen_log: Log, tmp_path: Path) -> None:
    """Nor one that the log does not extend."""
    fork = unsafe_log(tmp_path / "fork")
    append_runs(fork, RUNS[5:9])
    with pytest.raises(RewrittenError):
        cosign.keep(seen_log, fork.checkpoint or b"")
    with pytest.raises(RewrittenError):
        cosign.keep(seen_log, NOTE)


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
    (tmp_path / "old/.ledger/witnessed/3").write_bytes(cosign.newest(seen_log) or b"")
    report = verify_log(old, policy(max_age_s=None))
    assert report.exit_code == 3
    assert "does not begin with the 3 entries of a checkpoint that was seen of it" in texts(report, "failed")
    for signed in (cosign.newest(seen_log), old.checkpoint):
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

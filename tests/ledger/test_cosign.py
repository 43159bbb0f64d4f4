"""Cosigned checkpoints: made as C2SP says, verified, and judged by policies."""

from __future__ import annotations

import hashlib
from base64 import b64decode
from dataclasses import replace

import pytest

from ledger import cosign, note
from ledger.errors import FrozenError, NoteError, SignatureError
from ledger.keys import P256Signer
from ledger.note import Checkpoint, parse_note, sign_checkpoint
from ledger.policy import Policy, Witnesses
from ledger.testing import UNSAFE_TIME, UnsafeSigner, unsafe_policy
from ledger.tlog import EMPTY_ROOT
from tests.ledger.test_keys import p256

ALICE, W1, W2 = (UnsafeSigner(name) for name in ("alice", "w1", "w2"))
NOTE = sign_checkpoint(Checkpoint("example.com/log", 3, hashlib.sha256(b"root").digest()), ALICE)
DAY = 86_400


def policy(*, threshold: int = 1, max_age_s: int | None = 30 * DAY) -> Policy:
    base = unsafe_policy("alice", "w1", "w2")
    return replace(base, checkpoints=Witnesses(("w1", "w2"), threshold, max_age_s))


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

"""Signed notes and checkpoints: one form, and every byte of it counts."""

from __future__ import annotations

from base64 import b64decode, b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import NoteError, SignatureError
from ledger.keys import PublicKey
from ledger.note import MAX_NOTE_BYTES, MAX_SIGNATURES, Checkpoint, Note, key_hash, parse_note, sign_checkpoint, verify_note
from ledger.testing import UnsafeSigner
from ledger.tlog import leaf_hash, root

ALICE, BOB = UnsafeSigner("alice"), UnsafeSigner("bob")
CHECKPOINT = Checkpoint("example.com/log", 2, root([leaf_hash(b"a"), leaf_hash(b"b")]))
NOTE = sign_checkpoint(CHECKPOINT, ALICE)
P256 = PublicKey("ecdsa-p256", bytes.fromhex("036b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"))


def signature_line(text: str, signer: UnsafeSigner, name: str) -> str:
    return f"— {name} {b64encode(key_hash(name, signer.public) + signer.sign(text.encode())).decode()}\n"


def test_a_note_that_others_made_verifies() -> None:
    """The example of golang.org/x/mod/sumdb/note: key hash, text and signature."""
    text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
    line = "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
    key = PublicKey("ed25519", b64decode("ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")[1:])  # after the algorithm byte
    assert key_hash("PeterNeumann", key).hex() == "c74f20a3"
    note = parse_note(f"{text}\n{line}\n".encode())
    assert note.text == text
    assert verify_note(note, [key], name="PeterNeumann") == {key}
    with pytest.raises(SignatureError):
        verify_note(note, [key])


def test_a_checkpoint_as_text() -> None:
    """Origin, decimal size, base64 root, an empty line, an em dash."""
    head = b64encode(CHECKPOINT.root).decode()
    assert CHECKPOINT.text() == f"example.com/log\n2\n{head}\n"
    assert NOTE.decode() == CHECKPOINT.text() + "\n" + signature_line(CHECKPOINT.text(), ALICE, "example.com/log")


@given(
    st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="+"), min_size=1, max_size=9),
    st.integers(0, 2**63 - 1),
    st.binary(min_size=32, max_size=32),
    st.lists(st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=5), max_size=2),
)
def test_round_trip(origin: str, size: int, top: bytes, extensions: list[str]) -> None:
    """A checkpoint comes back from its signed note, further lines of other logs included."""
    checkpoint = Checkpoint(origin, size, top, tuple(extensions))
    assert Checkpoint.parse(checkpoint.text()) == checkpoint
    note = parse_note(sign_checkpoint(checkpoint, ALICE))
    assert verify_note(note, [BOB.public, ALICE.public]) == {ALICE.public}
    assert note.checkpoint == checkpoint


# --- every byte --------------------------------------------------------------------------------------------------------------------


def accepted(data: bytes) -> bool:
    try:
        note = parse_note(data)
        verify_note(note, [ALICE.public])
        note.checkpoint  # noqa: B018 — reading it is the last check
    except SignatureError:
        return False
    return True


def test_every_single_byte_change_is_refused() -> None:
    """All 255 other values of every byte, every deletion, every doubling."""
    assert accepted(NOTE)
    for at in range(len(NOTE)):
        for value in range(256):
            bent = NOTE[:at] + bytes([value]) + NOTE[at + 1 :]
            assert accepted(bent) is (bent == NOTE), (at, value)
        assert not accepted(NOTE[:at] + NOTE[at + 1 :])
        assert not accepted(NOTE[: at + 1] + NOTE[at:])


def test_every_proper_substring_is_refused() -> None:
    """No part of a note is a note."""
    for start in range(len(NOTE)):
        for stop in range(start, len(NOTE) + 1):
            if stop - start < len(NOTE):
                assert not accepted(NOTE[start:stop])


def test_whatever_stands_before_or_after_is_refused() -> None:
    """Spaces, line ends, another note."""
    for more in (b" ", b"\n", b"\r\n", b"\0", NOTE, b"x\n"):
        assert not accepted(NOTE + more)
        assert not accepted(more + NOTE)


# --- who signed --------------------------------------------------------------------------------------------------------------------


def test_several_keys_and_witnesses() -> None:
    """Each key that signed under the origin's name counts once; other names, other keys and ECDSA keys are passed over."""
    text = CHECKPOINT.text()
    lines = signature_line(text, ALICE, "witness.example/w") + signature_line(text, BOB, "example.com/log")
    note = parse_note(NOTE + lines.encode())
    assert verify_note(note, [ALICE.public, BOB.public, P256]) == {ALICE.public, BOB.public}
    assert verify_note(note, [BOB.public]) == {BOB.public}
    with pytest.raises(
        SignatureError, match=r"no signature by any of 1 known keys; it is signed by example\.com/log\+[0-9a-f]{8}, witness"
    ):
        verify_note(note, [UnsafeSigner("carol").public])
    with pytest.raises(SignatureError, match="any of 0 known keys"):
        verify_note(note, [P256])


def test_a_line_in_the_name_of_a_known_key_must_be_its_signature() -> None:
    """A good signature beside it does not help; nor may one key sign twice."""
    text, forged = CHECKPOINT.text(), signature_line("another text\n", BOB, "example.com/log")
    with pytest.raises(SignatureError, match="not a valid signature"):
        verify_note(parse_note(NOTE + forged.encode()), [ALICE.public, BOB.public])
    with pytest.raises(SignatureError, match="signed twice by ed25519:"):
        verify_note(parse_note(NOTE + signature_line(text, ALICE, "example.com/log").encode()), [ALICE.public])


def test_a_signature_under_another_origin_is_refused() -> None:
    """The name is part of the key hash, and the origin of the text."""
    text = CHECKPOINT.text()
    for name in ("example.com/other", "Example.com/log"):
        with pytest.raises(SignatureError):
            verify_note(parse_note(f"{text}\n{signature_line(text, ALICE, name)}".encode()), [ALICE.public])


# --- the form ----------------------------------------------------------------------------------------------------------------------

TEXT, LINE = NOTE.decode().split("\n\n")
MALFORMED = {
    "text, an empty line": b"",
    "empty line and signature lines": TEXT.encode(),
    "and signature lines are expected": f"{TEXT}\n{LINE}".encode(),
    "each line with its newline": f"{TEXT}\n\n{LINE[:-1]}".encode(),
    "empty line and": f"\n\n{LINE}".encode(),
    "em dash": f"{TEXT}\n\n- {LINE[2:]}".encode(),
    r"em dash \(U\+2014\)": f"{TEXT}\n\n– {LINE[2:]}".encode(),
    "starts with an em dash": f"{TEXT}\n\n{LINE}one more line\n".encode(),
    "control characters": NOTE.replace(b"\n", b"\r\n"),
    "line ends CRLF": NOTE.replace(b"\n", b"\t\n", 1),
    "name of a note": f"{TEXT}\n\n—  {LINE[2:]}".encode(),
    "text without spaces": f"{TEXT}\n\n— a+b AAAAAAA=\n".encode(),
    "not base64": f"{TEXT}\n\n— name AAAA AAAA\n".encode(),
    "is not base64": f"{TEXT}\n\n— name ÄÄÄÄ\n".encode(),
    "not canonical": f"{TEXT}\n\n— name AAAAAAB=\n".encode(),
    "4-byte key hash and a signature; got 4": f"{TEXT}\n\n— name AAAAAA==\n".encode(),
    "got 0 bytes": f"{TEXT}\n\n— name \n".encode(),
    "not a signed note: 'utf-8'": b"\xff" + NOTE,
    "must not start like another signed thing: 'DSSEv1'": f"DSSEv1 1 a 1 b\n\n{LINE}".encode(),
    "must not start like another signed thing: 'SSHSIG'": f"SSHSIG\n\n{LINE}".encode(),
    "at most 1048576": b"x" * (MAX_NOTE_BYTES + 1),
    "at most 64 are read": f"{TEXT}\n\n{LINE * (MAX_SIGNATURES + 1)}".encode(),
}


@pytest.mark.parametrize("message", MALFORMED)
def test_malformed_notes_are_refused(message: str) -> None:
    """Each for its own reason."""
    with pytest.raises(NoteError, match=message):
        parse_note(MALFORMED[message])


ROOT = b64encode(b"r" * 32).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "log\n1\n",
        f"log\n1\n{ROOT}",
        f"log\n01\n{ROOT}\n",
        f"log\n+1\n{ROOT}\n",
        f"log\n-1\n{ROOT}\n",
        f"log\n\n{ROOT}\n",
        f"log\n١\n{ROOT}\n",
        f"log\n1 \n{ROOT}\n",
        f"log\n{2**63}\n{ROOT}\n",
        f"log\n{10**30}\n{ROOT}\n",
        f"\n1\n{ROOT}\n",
        f"two words\n1\n{ROOT}\n",
        f"a+b\n1\n{ROOT}\n",
        f"DSSEv1\n1\n{ROOT}\n",
        f"SSHSIG.example\n1\n{ROOT}\n",
        "log\n1\nAAAA\n",
        f"log\n1\n{ROOT[:-2]}J=\n",
        f"log\n1\n{ROOT}\n\n",
        f"log\n1\n{ROOT}\n\nmore\n",
        f"log\n1\n{ROOT}\na\x07b\n",
    ],
)
def test_texts_that_are_no_checkpoints_are_refused(text: str) -> None:
    """Leading zeros, signs, other digits, an empty line, a root that is no hash, an origin that could be something else."""
    with pytest.raises(NoteError):
        Checkpoint.parse(text)


def test_an_impossible_checkpoint_cannot_be_made() -> None:
    """Nor signed with a key that signs no notes."""
    for origin, size, top in (
        ("log", -1, b"r" * 32),
        ("log", 2**63, b"r" * 32),
        ("log", 1, b"r"),
        ("", 1, b"r" * 32),
        ("\ud800", 1, b"r" * 32),
    ):
        with pytest.raises(NoteError):
            Checkpoint(origin, size, top)

    class Ecdsa(UnsafeSigner):
        def __init__(self) -> None:
            super().__init__("p256")
            self.public = P256

    with pytest.raises(NoteError, match="signed with an Ed25519 key; p256 is ecdsa-p256"):
        sign_checkpoint(CHECKPOINT, Ecdsa())


def test_a_note_that_is_no_checkpoint_has_none() -> None:
    """Another text, validly signed, is still not read as one."""
    text = "hello\n"
    note = parse_note(f"{text}\n{signature_line(text, ALICE, 'hello')}".encode())
    assert verify_note(note, [ALICE.public]) == {ALICE.public}
    with pytest.raises(NoteError, match="an origin, a size and a root"):
        note.checkpoint  # noqa: B018 — reading it raises
    assert isinstance(note, Note)

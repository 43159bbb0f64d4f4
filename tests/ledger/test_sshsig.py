"""SSH signatures: the bytes of ssh-keygen, and no byte that can change."""

from __future__ import annotations

import subprocess
from base64 import b64decode, b64encode
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st

from ledger import sshsig
from ledger.errors import SignatureError
from ledger.key_store import KeyStore
from ledger.keys import P256Signer, PublicKey
from ledger.openssh import ssh_public_blob, ssh_string
from ledger.sshsig import allowed_signers, sign, verify
from ledger.testing import UnsafeSigner

ALICE, BOB = UnsafeSigner("alice"), UnsafeSigner("bob")
MESSAGE = b"tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n\na commit\n"
ARMORED = sign(MESSAGE, ALICE)
PRIVATE_P256 = ec.derive_private_key(2**255 + 11, ec.SECP256R1())  # OpenSSH refuses short ones
P256 = PublicKey(
    "ecdsa-p256", PRIVATE_P256.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)
)


def by_ssh_keygen(key: Path, message: bytes, *options: str, namespace: str = "git") -> str:
    command = ["ssh-keygen", "-q", "-Y", "sign", *options, "-f", str(key), "-n", namespace]
    return subprocess.run(command, input=message, check=True, capture_output=True).stdout.decode()


def checked_by_ssh_keygen(folder: Path, armored: str, message: bytes, namespace: str = "git", who: str = "alice") -> bool:
    (folder / "allowed").write_text(allowed_signers({"alice": ALICE.public, "bob": BOB.public, "p256": P256}))
    (folder / "signature").write_text(armored)
    command = ["ssh-keygen", "-Y", "verify", "-f", str(folder / "allowed"), "-I", who, "-n", namespace, "-s", str(folder / "signature")]
    return subprocess.run(command, input=message, capture_output=True).returncode == 0


# --- as OpenSSH does it ------------------------------------------------------------------------------------------------------------


def test_our_signature_is_byte_for_byte_that_of_ssh_keygen(tmp_path: Path) -> None:
    """For git and for another namespace, for short, long and empty messages."""
    signer = KeyStore(tmp_path).new("alice", None)
    for message, namespace in ((MESSAGE, "git"), (b"", "git"), (b"x" * 100_000, "file")):
        assert sign(message, signer, namespace) == by_ssh_keygen(tmp_path / "alice", message, namespace=namespace)


def test_signatures_of_ssh_keygen_verify_here_with_both_hashes(tmp_path: Path) -> None:
    """SHA-512 is its default; SHA-256 by option; Ed25519 and ECDSA P-256."""
    signer = KeyStore(tmp_path).new("alice", None)
    pem = PRIVATE_P256.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
    (tmp_path / "p256").write_bytes(pem)
    (tmp_path / "p256").chmod(0o600)
    for name, key in (("alice", signer.public), ("p256", P256)):
        for hashing in ("sha256", "sha512"):
            armored = by_ssh_keygen(tmp_path / name, MESSAGE, "-O", f"hashalg={hashing}")
            assert verify(MESSAGE, armored, [BOB.public, P256, signer.public]) == key


def test_ssh_keygen_accepts_ours_with_the_exported_allowed_signers(tmp_path: Path) -> None:
    """And refuses another message or namespace."""
    assert checked_by_ssh_keygen(tmp_path, ARMORED, MESSAGE)
    assert not checked_by_ssh_keygen(tmp_path, ARMORED, MESSAGE + b"x")
    assert not checked_by_ssh_keygen(tmp_path, sign(MESSAGE, ALICE, "file"), MESSAGE, "file")


def test_allowed_signers_has_a_line_for_each_key_and_only_for_git() -> None:
    """Sorted by name; no validity dates, which a back-dated commit passes."""
    lines = allowed_signers({"bob": BOB.public, "alice": ALICE.public, "p256": P256}).splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["alice", 'namespaces="git"', "ssh-ed25519"],
        ["bob", 'namespaces="git"', "ssh-ed25519"],
        ["p256", 'namespaces="git"', "ecdsa-sha2-nistp256"],
    ]
    assert b64decode(lines[0].split()[3]) == ssh_public_blob(ALICE.public)
    assert allowed_signers({}) == ""


# --- ours alone --------------------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=99), st.sampled_from(["git", "file", "a@b"]))
def test_round_trip(message: bytes, namespace: str) -> None:
    """The key that signed is found among others."""
    assert verify(message, sign(message, ALICE, namespace), [BOB.public, P256, ALICE.public], namespace) == ALICE.public


def test_every_single_byte_change_and_truncation_is_refused() -> None:
    """All other ASCII characters and some beyond at every place, every deletion, every doubling, every cut at either end."""
    assert verify(MESSAGE, ARMORED, [ALICE.public]) == ALICE.public
    bent = []
    for at in range(len(ARMORED)):
        bent += [ARMORED[:at] + chr(value) + ARMORED[at + 1 :] for value in (*range(128), 0xE9, 0x2014) if chr(value) != ARMORED[at]]
        bent += [ARMORED[:at], ARMORED[at + 1 :], ARMORED[:at] + ARMORED[at + 1 :]]
        bent += [ARMORED[:at] + ARMORED[at] * 2 + ARMORED[at + 1 :]]
    for text in bent:
        if text != ARMORED:
            with pytest.raises(SignatureError):
                verify(MESSAGE, text, [ALICE.public, BOB.public])


def test_every_single_byte_change_of_the_message_is_refused() -> None:
    """It is signed by its hash."""
    for at in range(len(MESSAGE)):
        with pytest.raises(SignatureError, match="not a valid signature"):
            verify(MESSAGE[:at] + bytes([MESSAGE[at] ^ 1]) + MESSAGE[at + 1 :], ARMORED, [ALICE.public])


def test_another_namespace_is_refused() -> None:
    """A signature of a file is none of a commit."""
    with pytest.raises(SignatureError, match="made for b'file'; expected 'git'"):
        verify(MESSAGE, sign(MESSAGE, ALICE, "file"), [ALICE.public])


def test_an_unknown_key_is_refused_and_shown() -> None:
    """The embedded key is never trusted for being there."""
    with pytest.raises(SignatureError, match="key that is not known here: AAAAC3NzaC1lZDI1NTE5"):
        verify(MESSAGE, ARMORED, [BOB.public])
    with pytest.raises(SignatureError, match="not known here"):
        verify(MESSAGE, ARMORED, [])


def test_a_namespace_is_needed() -> None:
    """A signature for nothing in particular is made for nobody."""
    with pytest.raises(SignatureError, match="needs a namespace"):
        sign(MESSAGE, ALICE, "")


def test_a_p256_key_signs_as_ssh_does(tmp_path: Path) -> None:
    """ecdsa-sha2-nistp256: verified here and by ssh-keygen, and no changed byte passes."""
    armored = sign(MESSAGE, P256Signer("p256", PRIVATE_P256))
    assert verify(MESSAGE, armored, [ALICE.public, P256]) == P256
    for at in range(0, len(armored), 7):
        with pytest.raises(SignatureError):
            verify(MESSAGE, armored[:at] + chr(ord(armored[at]) ^ 1) + armored[at + 1 :], [P256])
    assert checked_by_ssh_keygen(tmp_path, armored, MESSAGE, who="p256")
    assert not checked_by_ssh_keygen(tmp_path, armored, MESSAGE + b"x", who="p256")


def block(
    *,
    magic: bytes = b"SSHSIG\0\0\0\1",
    key: bytes = ssh_public_blob(ALICE.public),
    reserved: bytes = b"",
    hashing: bytes = b"sha512",
    inner: bytes | None = None,
    tail: bytes = b"",
) -> str:
    """An armoured signature with one thing wrong."""
    if inner is None:
        inner = ssh_string(b"ssh-ed25519") + ssh_string(ALICE.sign(sshsig._signed(MESSAGE, b"git", b"sha512")))
    return sshsig._armor(
        magic + ssh_string(key) + ssh_string(b"git") + ssh_string(reserved) + ssh_string(hashing) + ssh_string(inner) + tail
    )


def test_blocks_with_one_thing_wrong_are_refused() -> None:
    """Another version, reserved bytes, an unknown hash, another kind of signature, bytes too many at any level."""
    assert verify(MESSAGE, block(), [ALICE.public]) == ALICE.public
    raw = ssh_string(ALICE.sign(sshsig._signed(MESSAGE, b"git", b"sha512")))
    for message, armored in {
        "version 1": block(magic=b"SSHSIG\0\0\0\2"),
        "not an SSH signature of version": block(magic=b"SSHKEY\0\0\0\1"),
        "reserved bytes": block(reserved=b"x"),
        "unknown hash b'sha1'": block(hashing=b"sha1"),
        "of kind b'ssh-rsa'; its key makes b'ssh-ed25519'": block(inner=ssh_string(b"ssh-rsa") + raw),
        "1 bytes too many": block(tail=b"x"),
        "2 bytes too many": block(inner=ssh_string(b"ssh-ed25519") + raw + b"xx"),
        "cut short": block(inner=ssh_string(b"ssh-ed25519")),
        "not known here": block(key=ssh_public_blob(ALICE.public) + b"x"),
    }.items():
        with pytest.raises(SignatureError, match=message):
            verify(MESSAGE, armored, [ALICE.public])


def mpint(number: int) -> bytes:
    return ssh_string(number.to_bytes(number.bit_length() // 8 + 1, "big"))


def test_an_ecdsa_signature_has_one_form() -> None:
    """Both r and s as shortest positive mpints; zero, negative, padded ones and bytes too many are refused."""
    r, s = decode_dss_signature(PRIVATE_P256.sign(sshsig._signed(MESSAGE, b"git", b"sha512"), ec.ECDSA(SHA256())))
    kind, key = ssh_string(b"ecdsa-sha2-nistp256"), ssh_public_blob(P256)
    assert verify(MESSAGE, block(key=key, inner=kind + ssh_string(mpint(r) + mpint(s))), [ALICE.public, P256]) == P256
    padded = ssh_string(b"\0" + mpint(r)[4:])
    negative = ssh_string(b"\xff" * 32)
    for numbers in (padded + mpint(s), negative + mpint(s), ssh_string(b"") + mpint(s), ssh_string(b"\0") + mpint(s)):
        with pytest.raises(SignatureError, match="not a positive mpint in its shortest form"):
            verify(MESSAGE, block(key=key, inner=kind + ssh_string(numbers)), [P256])
    with pytest.raises(SignatureError, match="bytes too many"):
        verify(MESSAGE, block(key=key, inner=kind + ssh_string(mpint(r) + mpint(s) + b"x")), [P256])
    with pytest.raises(SignatureError, match="not a valid signature"):
        verify(MESSAGE, block(key=key, inner=kind + ssh_string(mpint(s) + mpint(r))), [P256])


def test_armour_of_another_form_is_refused() -> None:
    """Other line lengths, CRLF, no final newline, characters that are no base64."""
    body = "".join(ARMORED.splitlines()[1:-1])
    head, tail = "-----BEGIN SSH SIGNATURE-----\n", "-----END SSH SIGNATURE-----\n"
    for text in (
        head + body + "\n" + tail,
        ARMORED.replace("\n", "\r\n"),
        ARMORED[:-1],
        ARMORED + "\n",
        head + tail,
        "",
        head + "é\n" + tail,
    ):
        with pytest.raises(SignatureError):
            verify(MESSAGE, text, [ALICE.public])
    assert b64encode(b64decode(body)).decode() == body

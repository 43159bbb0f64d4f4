"""Public keys: one text each, no weak ones; a signature of one use is none of another."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256

from ledger import dsse, keys, sshsig
from ledger.errors import NoteError, PublicKeyError, SignatureError
from ledger.keys import Ed25519Signer, PublicKey
from ledger.note import Checkpoint, parse_note, sign_checkpoint
from ledger.testing import UnsafeSigner

VECTORS = Path(__file__).parents[1] / "vectors" / "ed25519" / "wycheproof.json"
RFC8032 = "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="


def p256() -> tuple[ec.EllipticCurvePrivateKey, PublicKey]:
    private = ec.derive_private_key(7, ec.SECP256R1())
    point = private.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)
    return private, PublicKey("ecdsa-p256", point)


# --- verifying ---------------------------------------------------------------------------------------------------------------------


def test_all_wycheproof_vectors() -> None:
    """88 valid signatures are accepted and 63 invalid ones refused, each by our own door."""
    counts = {"valid": 0, "invalid": 0}
    for group in json.loads(VECTORS.read_text())["testGroups"]:
        key = PublicKey("ed25519", bytes.fromhex(group["publicKey"]["pk"]))
        for test in group["tests"]:
            signature, message = bytes.fromhex(test["sig"]), bytes.fromhex(test["msg"])
            counts[test["result"]] += 1
            if test["result"] == "valid":
                key.verify(signature, message)
            else:
                with pytest.raises(SignatureError):
                    key.verify(signature, message)
    assert counts == {"valid": 88, "invalid": 63}


def test_rfc_8032_test_1() -> None:
    """The first vector of RFC 8032 section 7.1, signed and verified."""
    private = Ed25519PrivateKey.from_private_bytes(bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"))
    signer = Ed25519Signer("rfc", private)
    assert str(signer.public) == RFC8032
    assert signer.sign(b"").hex().startswith("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155")
    signer.public.verify(signer.sign(b""), b"")
    assert repr(signer) == "<Ed25519Signer rfc ed25519:11qYAYKx..>"


def test_every_changed_byte_of_a_signature_is_refused() -> None:
    """Any one byte of 64, and any other length."""
    signer = UnsafeSigner("alice")
    signature = signer.sign(b"message")
    for at in range(64):
        with pytest.raises(SignatureError, match="not a valid signature by ed25519:"):
            signer.public.verify(signature[:at] + bytes([signature[at] ^ 1]) + signature[at + 1 :], b"message")
    for bent in (b"", signature[:63], signature + b"\0"):
        with pytest.raises(SignatureError):
            signer.public.verify(bent, b"message")


def test_ecdsa_p256_is_accepted_for_verifying() -> None:
    """DER with SHA-256; a changed message, a raw r and s, or DER with a byte too many is refused."""
    private, public = p256()
    signature = private.sign(b"message", ec.ECDSA(SHA256()))
    public.verify(signature, b"message")
    PublicKey.parse(str(public)).verify(signature, b"message")
    for bent, message in ((signature, b"massage"), (signature + b"\0", b"message"), (b"\1" * 64, b"message"), (b"", b"message")):
        with pytest.raises(SignatureError):
            public.verify(bent, message)


# --- public keys -------------------------------------------------------------------------------------------------------------------


def test_a_key_has_one_text() -> None:
    """Text, value and hash agree; two parses are one key, and the short form is only for people."""
    key = PublicKey.parse(RFC8032)
    assert str(key) == RFC8032
    assert {key, PublicKey.parse(RFC8032)} == {key}
    assert eval(repr(key), {"PublicKey": PublicKey}) == key
    assert key.short == "ed25519:11qYAYKx.."


@pytest.mark.parametrize(
    "text",
    [
        "",
        "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
        RFC8032 + "\n",
        " " + RFC8032,
        RFC8032[:-1],  # no padding
        RFC8032[:-2] + "p=",  # spare bits: the same 32 bytes in other letters
        RFC8032.replace("/", "_"),
        RFC8032.replace("ed25519", "Ed25519"),
        RFC8032.replace("ed25519", "ecdsa-p256"),
        "ed25519:" + b64encode(b"x" * 31).decode(),
        "ed25519:" + b64encode(b"x" * 33).decode(),
        "ed25519:A",
        "rsa:AAAA",
        "ecdsa-p256:" + b64encode(b"\x02" + b"\xff" * 32).decode(),
        "ecdsa-p256:" + b64encode(b"\x04" + b"\x11" * 32).decode(),
        "ecdsa-p256:" + b64encode(b"\x00" * 33).decode(),
    ],
)
def test_other_texts_are_refused(text: str) -> None:
    """Another form of the same bytes, another length, no point of the curve."""
    with pytest.raises(PublicKeyError):
        PublicKey.parse(text)


def test_an_unknown_algorithm_is_refused() -> None:
    """The message lists the known ones."""
    with pytest.raises(PublicKeyError, match="known: ed25519, ecdsa-p256"):
        PublicKey("rsa", b"")


# An independent, slow Edwards curve: affine addition as RFC 8032 states it.
P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P


def add(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    product = D * a[0] * b[0] * a[1] * b[1]
    x = (a[0] * b[1] + b[0] * a[1]) * pow(1 + product, -1, P)
    y = (a[1] * b[1] + a[0] * b[0]) * pow(1 - product, -1, P)
    return x % P, y % P


def points_of(y: int) -> list[tuple[int, int]]:
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    return [(x, y), (-x % P, y)] if (x * x - square) % P == 0 else []


def encode(x: int, y: int) -> bytes:
    return (y | (x & 1) << 255).to_bytes(32, "little")


def test_every_key_of_small_order_is_refused() -> None:
    """All eight points whose order divides 8, found here by adding; OpenSSL alone would take them all."""
    candidates = (point for y in sorted(keys._SMALL_ORDER_Y) for point in points_of(y))
    order_8 = next(point for point in candidates if add(add(point, point), add(point, point)) == (0, P - 1))
    torsion, point = set(), (0, 1)
    for _ in range(8):
        torsion.add(point)
        point = add(point, order_8)
    assert len(torsion) == 8
    assert {y for _, y in torsion} == keys._SMALL_ORDER_Y
    for x, y in torsion:
        for sign in (0, 1):
            with pytest.raises(PublicKeyError, match="small order"):
                PublicKey("ed25519", encode(x ^ sign, y))


def test_non_canonical_points_and_points_off_the_curve_are_refused() -> None:
    """A y of p or more says the same point twice; about half of all y have no point."""
    for y in range(P, 2**255):
        for sign in (0, 1):
            with pytest.raises(PublicKeyError, match="canonical"):
                PublicKey("ed25519", encode(sign, y))
    accepted = 0
    for y in range(2, 60):
        raw = encode(0, y)
        if points_of(y):
            PublicKey("ed25519", raw)
            accepted += 1
        else:
            with pytest.raises(PublicKeyError, match="not a point"):
                PublicKey("ed25519", raw)
    assert 10 < accepted < 50


# --- one key, three uses -----------------------------------------------------------------------------------------------------------


def test_no_signed_bytes_of_one_kind_can_be_another() -> None:
    """What is signed for an envelope, a commit and a checkpoint starts differently, so no signature moves between them."""
    signed: list[bytes] = []

    class Recorder(UnsafeSigner):
        def sign(self, message: bytes) -> bytes:
            signed.append(message)
            return super().sign(message)

    signer = Recorder("alice")
    dsse.sign(b"payload", signer)
    sshsig.sign(b"payload", signer)
    sign_checkpoint(Checkpoint("example.com/log", 0, b"\0" * 32), signer)
    envelope, ssh, note = signed
    assert envelope.startswith(b"DSSEv1 ")
    assert ssh.startswith(b"SSHSIG\0\0\0")
    assert note.startswith(b"example.com/log\n")
    for start in ("DSSEv1", "SSHSIG"):
        with pytest.raises(NoteError, match="must not start"):
            Checkpoint(start + "/log", 0, b"\0" * 32)
        with pytest.raises(NoteError, match="must not start"):
            parse_note(f"{start} 1\n2\n3\n\n— {start} AAAAAAA=\n".encode())

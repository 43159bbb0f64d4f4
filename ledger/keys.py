"""Keys: public ones as text that cannot be taken for another, and whoever signs with a private one.

A public key is written `ed25519:<base64 of 32 bytes>` or `ecdsa-p256:<base64 of the compressed point, 33 bytes>`. One key has one
text, so that counting distinct keys is counting distinct texts. Either kind signs statements; a log and its checkpoints are signed with
Ed25519 (C2SP knows no other here), Model Signing bundles with P-256 (OMS knows no Ed25519).

One Ed25519 key signs three kinds of bytes here, and none of them can be taken for another:
  - a DSSE envelope's PAE starts with `DSSEv1 ` (`ledger.dsse`);
  - an SSH signature covers a block that starts with `SSHSIG` and a four-byte length (`ledger.sshsig`);
  - a checkpoint's text starts with its origin, and an origin that starts with `DSSEv1` or `SSHSIG` is refused (`ledger.note`).

>>> PublicKey.parse("ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=").short
'ed25519:11qYAYKx..'
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from ledger.errors import PublicKeyError, SignatureError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ED25519 = "ed25519"
ECDSA_P256 = "ecdsa-p256"

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}\Z")
"""A key's name: it is a file name, a word in a policy and a principal in `allowed_signers`, so it has no spaces and no wildcards."""

_PUBLIC_FORM = re.compile(r"(ed25519|ecdsa-p256):([A-Za-z0-9+/]+={0,2})\Z")
_LENGTHS = {ED25519: 32, ECDSA_P256: 33}


@dataclass(frozen=True)
class PublicKey:
    """A public key that may be trusted: a point of its curve, canonically encoded, not of small order.

    Attributes:
        algorithm: `ed25519` or `ecdsa-p256`.
        raw: 32 bytes (RFC 8032), or 33 bytes (SEC 1 compressed point).

    Raises:
        PublicKeyError: the bytes are anything else.
    """

    algorithm: str
    raw: bytes

    def __post_init__(self) -> None:
        if self.algorithm not in _LENGTHS:
            raise PublicKeyError(f"unknown key algorithm {self.algorithm!r}; known: ed25519, ecdsa-p256")
        if len(self.raw) != _LENGTHS[self.algorithm]:
            raise PublicKeyError(f"an {self.algorithm} key has {_LENGTHS[self.algorithm]} bytes; got {len(self.raw)}")
        if self.algorithm == ED25519:
            _check_ed25519_point(self.raw)
        else:
            _ = self._ecdsa  # OpenSSL refuses what is not a point

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        """Read the text that `str()` gives.

        Raises:
            PublicKeyError: any other text, or a key that must not be trusted.
        """
        match = _PUBLIC_FORM.match(text)
        if match is None:
            raise PublicKeyError(f"not a public key: {text!r} (expected ed25519:<base64 of 32 bytes>)")
        try:
            raw = b64decode(match[2], validate=True)
        except binascii.Error as error:
            raise PublicKeyError(f"not a public key: {text!r} ({error})") from error
        if b64encode(raw).decode() != match[2]:
            raise PublicKeyError(f"not a public key: {text!r} (its base64 is not canonical)")
        return cls(match[1], raw)

    def verify(self, signature: bytes, message: bytes) -> None:
        """Check a raw signature: 64 bytes for Ed25519 (RFC 8032), DER with SHA-256 for ECDSA P-256.

        The caller has put the message into one of the three forms above; nothing else may be verified with these keys.

        Raises:
            SignatureError: it is not this key's signature of this message.
        """
        from cryptography.exceptions import InvalidSignature

        try:
            if self.algorithm == ED25519:
                self._ed25519.verify(signature, message)
            else:
                from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
                from cryptography.hazmat.primitives.hashes import SHA256

                self._ecdsa.verify(signature, message, ECDSA(SHA256()))
        except InvalidSignature as error:
            raise SignatureError(f"not a valid signature by {self.short}") from error

    @property
    def short(self) -> str:
        """For messages only, like `ed25519:11qYAYKx..`; it identifies nothing."""
        return f"{self.algorithm}:{b64encode(self.raw).decode()[:8]}.."

    @property
    def uncompressed(self) -> bytes:
        """The 65 bytes of the uncompressed point (SEC 1); only P-256 has one."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        return self._ecdsa.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    @cached_property
    def _ed25519(self) -> Ed25519PublicKey:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        return Ed25519PublicKey.from_public_bytes(self.raw)

    @cached_property
    def _ecdsa(self) -> EllipticCurvePublicKey:
        from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey

        try:
            return EllipticCurvePublicKey.from_encoded_point(SECP256R1(), self.raw)
        except ValueError as error:
            raise PublicKeyError(f"not a point of P-256: {self.raw.hex()}") from error

    def __str__(self) -> str:
        return f"{self.algorithm}:{b64encode(self.raw).decode()}"

    def __repr__(self) -> str:
        return f"PublicKey.parse({str(self)!r})"


class Signer(Protocol):
    """Whoever can sign: a key in memory, a key in a file, an agent."""

    @property
    def name(self) -> str:
        """The key's name, for people and for commit authorship."""
        ...

    @property
    def public(self) -> PublicKey:
        """What verifies the signatures."""
        ...

    def sign(self, message: bytes) -> bytes:
        """The raw signature of bytes in one of the three forms above."""
        ...


class Ed25519Signer:
    """A private key in memory."""

    def __init__(self, name: str, private: Ed25519PrivateKey) -> None:
        self.name = name
        self._private = private
        self.public = PublicKey(ED25519, private.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """64 bytes (RFC 8032); the same for the same message."""
        return self._private.sign(message)

    def __repr__(self) -> str:
        return f"<Ed25519Signer {self.name} {self.public.short}>"


class P256Signer:
    """An ECDSA P-256 private key in memory."""

    def __init__(self, name: str, private: EllipticCurvePrivateKey) -> None:
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        self.name = name
        self._private = private
        self.public = PublicKey(ECDSA_P256, private.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint))

    def sign(self, message: bytes) -> bytes:
        """DER, with SHA-256; another one each time."""
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
        from cryptography.hazmat.primitives.hashes import SHA256

        return self._private.sign(message, ECDSA(SHA256()))

    def __repr__(self) -> str:
        return f"<P256Signer {self.name} {self.public.short}>"


def signer_of(name: str, private: object) -> Ed25519Signer | P256Signer | None:
    """A signer with a private key as `cryptography` has it; None for kinds that are not used here."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if isinstance(private, Ed25519PrivateKey):
        return Ed25519Signer(name, private)
    if isinstance(private, EllipticCurvePrivateKey) and isinstance(private.curve, SECP256R1):
        return P256Signer(name, private)
    return None


# --- Ed25519 points ------------------------------------------------------------------------------------------------------------

_P = 2**255 - 19
_D = -121665 * pow(121666, -1, _P) % _P
_Y_OF_ORDER_8 = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
_SMALL_ORDER_Y = frozenset((0, 1, _P - 1, _Y_OF_ORDER_8, _P - _Y_OF_ORDER_8))
"""y of the eight points whose order divides 8 (orders 4, 1, 2, 8, 8); the test finds them by adding."""


def _check_ed25519_point(raw: bytes) -> None:
    """Refuse what OpenSSL takes at face value: under a key of small order, one signature is valid for many messages.

    Source: RFC 8032 section 5.1.3.
    """
    value = int.from_bytes(raw, "little")
    y, sign = value & (2**255 - 1), value >> 255
    if y >= _P:
        raise PublicKeyError(f"not a canonical Ed25519 public key: {raw.hex()}")
    if y in _SMALL_ORDER_Y:
        raise PublicKeyError(f"an Ed25519 public key of small order, under which anybody can sign: {raw.hex()}")
    # Every y of the remaining ones with x = 0 would be of small order, so the sign bit needs no rule of its own.
    u, v = (y * y - 1) % _P, (_D * y * y + 1) % _P
    if pow(u * v % _P, (_P - 1) // 2, _P) != 1:  # u/v is a square exactly when u*v is (Euler)
        raise PublicKeyError(f"not a point of Ed25519: {raw.hex()} (sign bit {sign})")

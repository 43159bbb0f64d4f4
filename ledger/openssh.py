"""Public keys and signatures as OpenSSH writes them: fields with their length before them, and the texts made of these.

Reading leaves nothing over, and takes no number in another form than its shortest.

Source: RFC 4251 section 5, RFC 5656 section 3.1, RFC 8709.
"""

from __future__ import annotations

import binascii
import hashlib
import struct
from base64 import b64decode, b64encode

from ledger.errors import KeyFileError, PublicKeyError
from ledger.keys import ECDSA_P256, ED25519, PublicKey


def ssh_string(data: bytes) -> bytes:
    """A length as 4 bytes, big-endian, then the bytes (RFC 4251 section 5)."""
    return struct.pack(">I", len(data)) + data


def ssh_public_blob(public: PublicKey) -> bytes:
    """The public key as ssh writes it inside keys and signatures."""
    if public.algorithm == ED25519:
        return ssh_string(b"ssh-ed25519") + ssh_string(public.raw)
    return ssh_string(b"ecdsa-sha2-nistp256") + ssh_string(b"nistp256") + ssh_string(public.uncompressed)


def ssh_public_line(public: PublicKey) -> str:
    """`ssh-ed25519 AAAA...`, as in a `.pub` file, without a comment."""
    kind = "ssh-ed25519" if public.algorithm == ED25519 else "ecdsa-sha2-nistp256"
    return f"{kind} {b64encode(ssh_public_blob(public)).decode()}"


class SshReader:
    """Reads the fields of an ssh block one after another and lets nothing be left over.

    Raises:
        KeyFileError: from any method, when the block is shorter or longer than its fields say.
    """

    def __init__(self, data: bytes, what: object) -> None:
        self._data, self._at, self._what = data, 0, what

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        if self._at + count > len(self._data):
            raise KeyFileError(self._what, f"cut short: {count} bytes expected at offset {self._at}, {len(self._data) - self._at} left")
        self._at += count
        return self._data[self._at - count : self._at]

    def integer(self) -> int:
        """The next 4 bytes as a number."""
        return int.from_bytes(self.take(4), "big")

    def string(self) -> bytes:
        """The next field with its length before it."""
        return self.take(self.integer())

    def end(self) -> None:
        """Nothing more may follow."""
        if self._at != len(self._data):
            raise KeyFileError(self._what, f"{len(self._data) - self._at} bytes too many")


def ssh_public_key(blob: bytes, what: object) -> PublicKey:
    """The key that `ssh_public_blob` writes.

    Raises:
        KeyFileError: another kind of key, or no key; `what` names where it was found.
    """
    reader = SshReader(blob, what)
    kind = reader.string()
    try:
        if kind == b"ssh-ed25519":
            public = PublicKey(ED25519, reader.string())
        elif kind == b"ecdsa-sha2-nistp256":
            if reader.string() != b"nistp256":
                raise KeyFileError(what, "an ecdsa-sha2-nistp256 key that names another curve")
            public = _from_point(reader.string())
        else:
            raise KeyFileError(
                what, f"a key of kind {kind[:40].decode('ascii', 'replace')!r}; ssh-ed25519 and ecdsa-sha2-nistp256 sign here"
            )
    except PublicKeyError as error:
        raise KeyFileError(what, f"holds an unusable public key: {error}") from error
    reader.end()
    return public


def _from_point(point: bytes) -> PublicKey:
    """A P-256 key from its uncompressed point, 65 bytes; what is not on the curve is refused."""
    if len(point) != 65 or point[0] != 4:
        raise PublicKeyError(f"not an uncompressed point of P-256: {point[:4].hex()}.. of {len(point)} bytes")
    public = PublicKey(ECDSA_P256, bytes([2 | point[64] & 1]) + point[1:33])
    if ssh_public_blob(public)[-65:] != point:
        raise PublicKeyError(f"not a point of P-256: {point.hex()}")
    return public


def ssh_public_text(line: str) -> PublicKey:
    """The key of a line `ssh-ed25519 AAAA... comment`, as in a `.pub` file.

    Raises:
        KeyFileError: it is no such line.
    """
    kind, _, rest = line.strip().partition(" ")
    try:
        blob = b64decode(rest.split(" ")[0], validate=True)
    except (binascii.Error, ValueError) as error:
        raise KeyFileError("ssh public key", f"not a line of a .pub file: {error}") from error
    if SshReader(blob, "ssh public key").string() != kind.encode():
        raise KeyFileError("ssh public key", f"the line says {kind!r}, the key in it is of another kind")
    return ssh_public_key(blob, "ssh public key")


def fingerprint(public: PublicKey) -> str:
    """`SHA256:` and 43 letters, as `ssh-keygen -l` shows a key."""
    return "SHA256:" + b64encode(hashlib.sha256(ssh_public_blob(public)).digest()).decode().rstrip("=")


def ecdsa_to_ssh(der: bytes) -> bytes:
    """A DER signature as ssh writes it: r and s as mpints (RFC 5656 section 3.1.2)."""
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    return b"".join(ssh_string(number.to_bytes(number.bit_length() // 8 + 1, "big")) for number in decode_dss_signature(der))


def ecdsa_from_ssh(blob: bytes, what: object) -> bytes:
    """The DER signature that `ecdsa_to_ssh` wrote.

    Raises:
        KeyFileError: other bytes than two positive mpints, each in its shortest form.
    """
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

    reader = SshReader(blob, what)
    numbers = []
    for data in (reader.string(), reader.string()):
        value = int.from_bytes(data, "big")
        if not value or data != value.to_bytes(value.bit_length() // 8 + 1, "big"):
            raise KeyFileError(what, "a number in the signature is not a positive mpint in its shortest form")
        numbers.append(value)
    reader.end()
    return encode_dss_signature(*numbers)

"""SSH signatures, as `ssh-keygen -Y sign` makes them and `git verify-commit` accepts them, in process.

What is signed is `SSHSIG`, the namespace, a reserved field, the hash's name and the hash of the message, so a signature for one purpose is
none for another, and none of it can be an envelope (`DSSEv1 `) or a checkpoint.

Source: OpenSSH PROTOCOL.sshsig; RFC 4251 section 5, RFC 8709 (Ed25519), RFC 5656 (ECDSA).
"""

from __future__ import annotations

import binascii
import hashlib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping

from ledger.errors import KeyFileError, SignatureError
from ledger.keys import ED25519, PublicKey, Signer
from ledger.openssh import SshReader, ecdsa_from_ssh, ecdsa_to_ssh, ssh_public_blob, ssh_public_line, ssh_string

_BEGIN, _END = "-----BEGIN SSH SIGNATURE-----\n", "-----END SSH SIGNATURE-----\n"
_WIDTH = 70
_HASHES = (b"sha256", b"sha512")


def sign(message: bytes, signer: Signer, namespace: str = "git") -> str:
    """The armoured signature, with its final newline; byte for byte what `ssh-keygen -Y sign` prints for the same Ed25519 key.

    Raises:
        SignatureError: the namespace is empty.
    """
    if not namespace:
        raise SignatureError("an SSH signature needs a namespace, such as git")
    raw = signer.sign(_signed(message, namespace.encode(), b"sha512"))
    ours = signer.public.algorithm == ED25519
    signature = ssh_string(_kind(signer.public)) + ssh_string(raw if ours else ecdsa_to_ssh(raw))
    return _armor(
        b"SSHSIG"
        + (1).to_bytes(4, "big")
        + ssh_string(ssh_public_blob(signer.public))
        + ssh_string(namespace.encode())
        + ssh_string(b"")
        + ssh_string(b"sha512")
        + ssh_string(signature)
    )


def verify(message: bytes, armored: str, keys: Iterable[PublicKey], namespace: str = "git") -> PublicKey:
    """Which of the keys signed the message for this namespace.

    The armour must be in the one form that ssh-keygen writes (70 columns, final newline), so no byte of it can change unseen.

    Raises:
        SignatureError: malformed, made for another namespace, by a key that is not among `keys`, or not a signature of this message.
    """
    try:
        return _verify(message, _dearmor(armored), keys, namespace)
    except KeyFileError as error:
        raise SignatureError(str(error)) from error


def allowed_signers(keys: Mapping[str, PublicKey]) -> str:
    """The file with which git and ssh-keygen check signatures: a line for each key, for the namespace `git`, sorted by name.

    No validity dates: they are compared with the commit's own date, which its author chooses.
    """
    return "".join(f'{name} namespaces="git" {ssh_public_line(keys[name])}\n' for name in sorted(keys))


def _verify(message: bytes, blob: bytes, keys: Iterable[PublicKey], namespace: str) -> PublicKey:
    reader = SshReader(blob, "SSH signature")
    if reader.take(6) != b"SSHSIG" or reader.integer() != 1:
        raise SignatureError("not an SSH signature of version 1")
    public, made_for, reserved, algorithm, inner = (reader.string() for _ in range(5))
    reader.end()
    if made_for != namespace.encode():
        raise SignatureError(f"the SSH signature is made for {made_for!r}; expected {namespace!r}")
    # PROTOCOL.sshsig lets a verifier ignore the reserved field; it is signed as empty by every tool, so anything else is an edit.
    if reserved or algorithm not in _HASHES:
        raise SignatureError(f"the SSH signature has reserved bytes or the unknown hash {algorithm!r} (known: sha256, sha512)")
    key = next((key for key in keys if ssh_public_blob(key) == public), None)
    if key is None:
        raise SignatureError(f"the SSH signature is by a key that is not known here: {b64encode(public).decode()}")
    key.verify(_raw_signature(inner, key), _signed(message, made_for, algorithm))
    return key


def _raw_signature(inner: bytes, key: PublicKey) -> bytes:
    reader = SshReader(inner, "SSH signature")
    kind, signature = reader.string(), reader.string()
    reader.end()
    if kind != _kind(key):
        raise SignatureError(f"the SSH signature is of kind {kind!r}; its key makes {_kind(key)!r}")
    return signature if key.algorithm == ED25519 else ecdsa_from_ssh(signature, "SSH signature")


def _kind(key: PublicKey) -> bytes:
    return b"ssh-ed25519" if key.algorithm == ED25519 else b"ecdsa-sha2-nistp256"


def _signed(message: bytes, namespace: bytes, algorithm: bytes) -> bytes:
    hashed = hashlib.new(algorithm.decode(), message).digest()
    return b"SSHSIG" + ssh_string(namespace) + ssh_string(b"") + ssh_string(algorithm) + ssh_string(hashed)


def _armor(blob: bytes) -> str:
    text = b64encode(blob).decode()
    lines = (text[start : start + _WIDTH] + "\n" for start in range(0, len(text), _WIDTH))
    return _BEGIN + "".join(lines) + _END


def _dearmor(armored: str) -> bytes:
    if not armored.startswith(_BEGIN) or not armored.endswith(_END):
        raise SignatureError(f"not an SSH signature: it starts with {_BEGIN.strip()}, ends with {_END.strip()}, and then a newline")
    try:
        blob = b64decode(armored[len(_BEGIN) : -len(_END)].replace("\n", "").encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise SignatureError(f"not an SSH signature: {error}") from error
    if _armor(blob) != armored:
        raise SignatureError("not an SSH signature in the form that ssh-keygen writes (70 columns, canonical base64)")
    return blob

"""Keys: public ones as text that cannot be taken for another, private ones in files that ssh tools read too.

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
import hashlib
import os
import re
import stat
import struct
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from ledger.errors import KeyFileError, PassphraseError, PublicKeyError, SignatureError

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


def _signer(name: str, private: object) -> Ed25519Signer | P256Signer | None:
    """A signer with a private key as `cryptography` has it; None for kinds that are not used here."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if isinstance(private, Ed25519PrivateKey):
        return Ed25519Signer(name, private)
    if isinstance(private, EllipticCurvePrivateKey) and isinstance(private.curve, SECP256R1):
        return P256Signer(name, private)
    return None


class KeyStore:
    """A folder of private keys: one file for each, named as the key, in OpenSSH format, and `<name>.pub` beside it.

    The folder is made on the first `new`, readable by its owner alone. A key file that others could read is refused, and so is a folder
    inside a ledger, which is copied and shared as a whole.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def default(cls, environ: Mapping[str, str] = os.environ) -> KeyStore:
        """The store in `$LEDGER_KEYS`, else in `~/.config/ledger/keys`."""
        named = environ.get("LEDGER_KEYS")
        return cls(Path(named) if named else Path.home() / ".config" / "ledger" / "keys")

    def new(self, name: str, passphrase: str | None, algorithm: str = ED25519) -> Signer:
        """Make a key. On return both files are durable; an existing key is never replaced.

        Args:
            name: letters, digits and `._@-`, at most 64.
            passphrase: encrypts the file (bcrypt KDF, AES-256-CTR); None leaves it unencrypted.
            algorithm: `ed25519`, or `ecdsa-p256`, which signs statements and Model Signing bundles but no log.

        Raises:
            KeyFileError: the name cannot be used, or is taken, or the folder cannot be written.
        """
        from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        if passphrase == "":
            raise PassphraseError(self._path(name), "an empty passphrase protects nothing; give one, or none")
        private = Ed25519PrivateKey.generate() if algorithm == ED25519 else generate_private_key(SECP256R1())
        return self._keep(name, private, passphrase)

    def import_key(self, name: str, data: bytes, passphrase: str | None, source: object) -> tuple[PublicKey, bool]:
        """Take in a private key that another tool made: as `new`, the source stays where it is.

        A file of OpenSSH is kept byte for byte, with its encryption and without asking for its passphrase. PEM (PKCS #8, SEC 1) is written
        as OpenSSH writes it, under the same passphrase.

        Args:
            name: what it is called here.
            data: the file's bytes.
            passphrase: of encrypted PEM.
            source: the file, for messages.

        Returns:
            the public key, and whether the file is encrypted.

        Raises:
            PassphraseError: PEM is encrypted, and the passphrase is missing or wrong.
            KeyFileError: it is no private key, or one of another kind than Ed25519 and ECDSA P-256; or as in `new`.
        """
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        if data.lstrip().startswith(_OPENSSH):
            public, encrypted = _read_header(source, data)
            if not encrypted:
                _unlocked(name, source, data, None, public)
            self._write(name, data, public)
            return public, encrypted
        locked = b"ENCRYPTED" in data
        if locked and not passphrase:
            raise PassphraseError(source, "the key is encrypted; give its passphrase (LEDGER_PASSPHRASE, or when asked)")
        try:
            private = load_pem_private_key(data, passphrase.encode() if locked and passphrase else None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            if locked:
                raise PassphraseError(source, "wrong passphrase (or the file is damaged)") from error
            raise KeyFileError(source, f"not a private key of OpenSSH, nor PEM: {error}") from error
        if _signer(name, private) is None:
            raise KeyFileError(source, f"a key of another kind ({type(private).__name__}); Ed25519 and ECDSA P-256 sign here")
        signer = self._keep(name, cast("Ed25519PrivateKey | EllipticCurvePrivateKey", private), passphrase if locked else None)
        return signer.public, locked

    def _keep(self, name: str, private: Ed25519PrivateKey | EllipticCurvePrivateKey, passphrase: str | None) -> Signer:
        from cryptography.hazmat.primitives import serialization

        encryption = serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else serialization.NoEncryption()
        data = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, encryption)
        signer = _signer(name, private)
        assert signer is not None  # both kinds are ours
        self._write(name, data, signer.public)
        return signer

    def _write(self, name: str, data: bytes, public: PublicKey) -> None:
        path = self._path(name)
        self._refuse_shared()
        if name.endswith(".pub"):
            raise KeyFileError(path, "a key's name cannot end in .pub; public keys are kept under such names")
        public_path = path.with_name(f"{name}.pub")
        if public_path.exists():
            raise KeyFileError(path, f"{public_path.name} is there already, a key of that name may be elsewhere; choose another name")
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write_new(path, data, 0o600)
            _write_new(public_path, f"{ssh_public_line(public)} {name}\n".encode(), 0o644)
        except FileExistsError as error:
            raise KeyFileError(path, f"a key named {name!r} exists already; choose another name, keys are never replaced") from error
        except OSError as error:
            raise KeyFileError(path, f"cannot write the key: {error.strerror}") from error

    def list(self) -> list[tuple[str, PublicKey, bool]]:
        """Every key as (name, public key, whether its file is encrypted), sorted by name. Needs no passphrase.

        Raises:
            KeyFileError: a file in the folder is no key, or is open to others.
        """
        if not self.folder.is_dir():
            return []
        names = sorted(path.name for path in self.folder.iterdir() if path.suffix != ".pub" and not path.name.startswith("."))
        keys = []
        for name in names:
            public, encrypted = _read_header(self.folder / name, self._read(name))
            keys.append((name, public, encrypted))
        return keys

    def load(self, name: str, passphrase: str | None) -> Signer:
        """Unlock a key.

        Args:
            name: as given to `new`.
            passphrase: ignored when the file is not encrypted.

        Raises:
            PassphraseError: the file is encrypted, and the passphrase is missing or wrong.
            KeyFileError: there is no such key, it is open to others, or it is of another kind.
        """
        path, data = self._path(name), self._read(name)
        public, encrypted = _read_header(path, data)
        if encrypted and not passphrase:
            raise PassphraseError(path, f"the key {name!r} is encrypted; give its passphrase (LEDGER_PASSPHRASE, or when asked)")
        return _unlocked(name, path, data, passphrase if encrypted else None, public)

    def _path(self, name: str) -> Path:
        if not NAME.match(name):
            raise KeyFileError(
                self.folder, f"{name!r} cannot name a key: letters, digits and ._@- only, at most 64, first a letter or digit"
            )
        return self.folder / name

    def _refuse_shared(self) -> None:
        folder = self.folder.resolve()
        ledger = next((one for one in (folder, *folder.parents) if one.name == ".ledger" or (one / "log.git").exists()), None)
        if ledger is not None:
            raise KeyFileError(
                self.folder,
                f"private keys do not belong into a ledger ({ledger}), which is copied and shared; move them out, and set LEDGER_KEYS to "
                "their folder, or unset it",
            )

    def _read(self, name: str) -> bytes:
        path = self._path(name)
        self._refuse_shared()
        try:
            with path.open("rb") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                if mode & 0o077:
                    raise KeyFileError(path, f"mode {mode:04o} lets others read this private key; run: chmod 600 {path}")
                return file.read(1 << 20)
        except FileNotFoundError as error:
            raise KeyFileError(
                path, f"no key named {name!r}; `ledger key list` says what is there, `ledger key new {name}` makes it"
            ) from error
        except OSError as error:
            raise KeyFileError(path, f"cannot read the key: {error.strerror}") from error


# --- OpenSSH forms -------------------------------------------------------------------------------------------------------------


def ssh_string(data: bytes) -> bytes:
    """A length as 4 bytes, big-endian, then the bytes (RFC 4251 section 5)."""
    return struct.pack(">I", len(data)) + data


def ssh_public_blob(public: PublicKey) -> bytes:
    """The public key as ssh writes it inside keys and signatures."""
    if public.algorithm == ED25519:
        return ssh_string(b"ssh-ed25519") + ssh_string(public.raw)
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    point = public._ecdsa.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return ssh_string(b"ecdsa-sha2-nistp256") + ssh_string(b"nistp256") + ssh_string(point)


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


_OPENSSH = b"-----BEGIN OPENSSH PRIVATE KEY-----"


def _read_header(path: object, data: bytes) -> tuple[PublicKey, bool]:
    """Public key and whether encrypted, from the part of an OpenSSH private key file that is always in the clear."""
    lines = data.strip().split(b"\n")
    if lines[0].strip() != _OPENSSH or lines[-1].strip() != b"-----END OPENSSH PRIVATE KEY-----":
        raise KeyFileError(path, "not an OpenSSH private key file (it must start with -----BEGIN OPENSSH PRIVATE KEY-----)")
    try:
        blob = b64decode(b"".join(line.strip() for line in lines[1:-1]), validate=True)
    except binascii.Error as error:
        raise KeyFileError(path, f"not an OpenSSH private key file: {error}") from error
    reader = SshReader(blob, path)
    if reader.take(15) != b"openssh-key-v1\0":
        raise KeyFileError(path, "not an OpenSSH private key file of version 1")
    cipher = reader.string()
    reader.string()  # KDF
    reader.string()  # KDF options
    if reader.integer() != 1:
        raise KeyFileError(path, "holds not exactly one key")
    return ssh_public_key(reader.string(), path), cipher != b"none"


def _unlocked(name: str, path: object, data: bytes, passphrase: str | None, public: PublicKey) -> Signer:
    """The signer of an OpenSSH private key file whose header names `public`."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    try:
        private = load_ssh_private_key(data, passphrase.encode() if passphrase else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        # With a wrong passphrase the two check words of the decrypted part differ; damage inside that part looks the same.
        if passphrase:
            raise PassphraseError(path, f"wrong passphrase for the key {name!r} (or the file is damaged)") from error
        raise KeyFileError(path, f"not a usable OpenSSH private key: {error}") from error
    # `cryptography` has compared the header's kind and public key with the copies beside the seed, but not with the seed itself.
    signer = _signer(name, private)
    if signer is None or signer.public != public:
        raise KeyFileError(path, f"damaged: it holds another private key than that of {public.short}, which it names")
    return signer


def _write_new(path: Path, data: bytes, mode: int) -> None:
    """Make a file that did not exist, all of it or nothing, durably.

    Raises:
        FileExistsError: it existed; it is left as it was.
    """
    aside = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(aside, path)  # unlike a rename, this never replaces
    finally:
        aside.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


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

"""Private keys as files that ssh tools read too, in a folder that their owner alone can read."""

from __future__ import annotations

import binascii
import os
import stat
from base64 import b64decode
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ledger.errors import KeyFileError, PassphraseError
from ledger.keys import ED25519, NAME, PublicKey, Signer, signer_of
from ledger.openssh import SshReader, ssh_public_key, ssh_public_line

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_OPENSSH = b"-----BEGIN OPENSSH PRIVATE KEY-----"


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
        if signer_of(name, private) is None:
            raise KeyFileError(source, f"a key of another kind ({type(private).__name__}); Ed25519 and ECDSA P-256 sign here")
        signer = self._keep(name, cast("Ed25519PrivateKey | EllipticCurvePrivateKey", private), passphrase if locked else None)
        return signer.public, locked

    def _keep(self, name: str, private: Ed25519PrivateKey | EllipticCurvePrivateKey, passphrase: str | None) -> Signer:
        from cryptography.hazmat.primitives import serialization

        encryption = serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else serialization.NoEncryption()
        data = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, encryption)
        signer = signer_of(name, private)
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


# --- files ---------------------------------------------------------------------------------------------------------------------


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
    signer = signer_of(name, private)
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

"""Private keys: files that ssh tools read and others cannot."""

from __future__ import annotations

import stat
import subprocess
from base64 import b64decode, b64encode
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger import dsse
from ledger.errors import KeyFileError, PassphraseError, SignatureError
from ledger.key_store import KeyStore
from ledger.keys import ECDSA_P256
from ledger.openssh import fingerprint, ssh_public_line, ssh_public_text, ssh_string
from ledger.testing import UnsafeSigner
from tests.ledger.test_keys import p256


def test_a_new_key_is_listed_and_loaded(tmp_path: Path) -> None:
    """Private file 0600 in a folder 0700, public text beside it, the same key back."""
    store = KeyStore(tmp_path / "keys")
    assert store.list() == []
    signer = store.new("alice", None)
    assert store.list() == [("alice", signer.public, False)]
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "keys" / "alice").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "keys" / "alice.pub").read_text() == f"{ssh_public_line(signer.public)} alice\n"
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == ["alice", "alice.pub"]
    loaded = store.load("alice", None)
    assert (loaded.name, loaded.public) == ("alice", signer.public)
    assert loaded.sign(b"x") == signer.sign(b"x")
    assert store.load("alice", "not needed").public == signer.public


def test_an_encrypted_key_needs_its_passphrase(tmp_path: Path) -> None:
    """Listed without it; refused when it is missing, empty or wrong; opened by the right one, also beyond ASCII."""
    store = KeyStore(tmp_path)
    signer = store.new("alice", "korrekt Pferd ✓")
    assert store.list() == [("alice", signer.public, True)]
    for passphrase in (None, "", "wrong"):
        with pytest.raises(PassphraseError) as caught:
            store.load("alice", passphrase)
        assert "wrong" in str(caught.value) or "is encrypted" in str(caught.value)
    assert store.load("alice", "korrekt Pferd ✓").public == signer.public
    with pytest.raises(PassphraseError, match="empty passphrase"):
        store.new("bob", "")


def test_a_key_is_never_replaced(tmp_path: Path) -> None:
    """A taken name, or one whose public half is still there, is refused; nothing changes and nothing is left over."""
    store = KeyStore(tmp_path)
    before = store.new("alice", None).public
    with pytest.raises(KeyFileError, match="is there already"):
        store.new("alice", None)
    (tmp_path / "alice.pub").unlink()
    with pytest.raises(KeyFileError, match=r"exists already.*never replaced"):
        store.new("alice", None)
    (tmp_path / "bob.pub").write_text("from another machine")
    with pytest.raises(KeyFileError, match="a key of that name may be elsewhere"):
        store.new("bob", None)
    assert store.list() == [("alice", before, False)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alice", "bob.pub"]


@pytest.mark.parametrize("name", ["", ".hidden", "../up", "a/b", "a b", "a*", "a,b", "ä", "x" * 65, "a\n", "alice.pub"])
def test_names_that_are_no_names_are_refused(tmp_path: Path, name: str) -> None:
    """Nothing outside the folder, nothing that a shell, a policy or allowed_signers would read otherwise."""
    with pytest.raises(KeyFileError):
        KeyStore(tmp_path).new(name, None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610])
def test_a_private_key_that_others_can_use_is_refused(tmp_path: Path, mode: int) -> None:
    """The message says which command repairs it."""
    store = KeyStore(tmp_path)
    store.new("alice", None)
    (tmp_path / "alice").chmod(mode)
    with pytest.raises(KeyFileError, match=f"mode 0{mode:o} lets others .* chmod 600"):
        store.load("alice", None)
    with pytest.raises(KeyFileError):
        store.list()


def test_a_missing_key_says_what_to_do(tmp_path: Path) -> None:
    """With the commands that list and make keys."""
    with pytest.raises(KeyFileError, match=r"no key named 'alice'; `ledger key list` .* `ledger key new alice`"):
        KeyStore(tmp_path).load("alice", None)
    (tmp_path / "folder").mkdir(mode=0o700)
    with pytest.raises(KeyFileError, match="cannot read the key: Is a directory"):
        KeyStore(tmp_path).list()


def test_an_unwritable_folder_is_a_key_file_error(tmp_path: Path) -> None:
    """A file stands where the folder should be."""
    (tmp_path / "keys").write_text("not a folder")
    with pytest.raises(KeyFileError, match="cannot write the key"):
        KeyStore(tmp_path / "keys" / "deeper").new("alice", None)


def test_the_default_store_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """$LEDGER_KEYS, else ~/.config/ledger/keys."""
    assert KeyStore.default({"LEDGER_KEYS": str(tmp_path)}).folder == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path))
    assert KeyStore.default({}).folder == tmp_path / ".config" / "ledger" / "keys"


def damaged(path: Path, blob: bytes) -> None:
    text = b64encode(blob).decode()
    path.write_text(f"-----BEGIN OPENSSH PRIVATE KEY-----\n{text}\n-----END OPENSSH PRIVATE KEY-----\n")


def private_blob(path: Path) -> bytes:
    return b64decode("".join(path.read_text().split("\n")[1:-2]))


def test_damaged_key_files_are_refused(tmp_path: Path) -> None:
    """Every truncation of a file, and a byte changed anywhere in it, is refused or changes nothing."""
    store = KeyStore(tmp_path)
    public = store.new("alice", None).public
    path, blob = tmp_path / "alice", private_blob(tmp_path / "alice")
    for at in range(len(blob)):
        damaged(path, blob[:at])
        with pytest.raises(KeyFileError):
            store.load("alice", None)
        damaged(path, blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :])
        try:
            assert store.load("alice", None).public == public
        except KeyFileError:
            continue


def test_files_that_are_other_keys_are_refused(tmp_path: Path) -> None:
    """PEM of another kind, base64 that is none, another version, two keys, another algorithm, a weak key, a header that lies."""
    store = KeyStore(tmp_path)
    path = tmp_path / "alice"
    store.new("alice", None)
    good = private_blob(path)
    header = b"openssh-key-v1\0" + ssh_string(b"none") + ssh_string(b"none") + ssh_string(b"")
    blob = ssh_string(b"ssh-ed25519") + ssh_string(UnsafeSigner("other").public.raw)
    weak = ssh_string(b"ssh-ed25519") + ssh_string(b"\0" * 32)
    cases = {
        "not an OpenSSH private key file of version 1": b"openssh-key-v2\0" + good[15:],
        "not exactly one key": header + b"\0\0\0\2" + ssh_string(blob) + ssh_string(blob),
        "of kind 'ssh-rsa'; ssh-ed25519 and ecdsa-sha2-nistp256 sign here": header + b"\0\0\0\1" + ssh_string(ssh_string(b"ssh-rsa")),
        "names another curve": header + b"\0\0\0\1" + ssh_string(ssh_string(b"ecdsa-sha2-nistp256") + ssh_string(b"nistp384")),
        "unusable public key": header + b"\0\0\0\1" + ssh_string(weak),
        "1 bytes too many": header + b"\0\0\0\1" + ssh_string(blob + b"x"),
        "cut short": header + b"\0\0\0\1" + ssh_string(blob[:-1]),
    }
    for message, data in cases.items():
        damaged(path, data)
        with pytest.raises(KeyFileError, match=message):
            store.load("alice", None)
    path.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n!\n-----END OPENSSH PRIVATE KEY-----\n")
    with pytest.raises(KeyFileError, match="not an OpenSSH private key file"):
        store.load("alice", None)
    path.write_text("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n")
    with pytest.raises(KeyFileError, match="must start with"):
        store.load("alice", None)
    path.write_bytes(b"")
    with pytest.raises(KeyFileError, match="must start with"):
        store.load("alice", None)


def test_a_header_that_names_another_key_is_refused(tmp_path: Path) -> None:
    """The public key in the clear is what `list` shows, so it must be the private key's."""
    store = KeyStore(tmp_path)
    signer = store.new("alice", None)
    blob, other = private_blob(tmp_path / "alice"), UnsafeSigner("other").public.raw
    damaged(tmp_path / "alice", blob.replace(signer.public.raw, other, 1))
    with pytest.raises(KeyFileError, match=r"not a usable OpenSSH private key.*mismatch"):
        store.load("alice", None)


def test_a_p256_key_is_kept_like_the_other_kind(tmp_path: Path) -> None:
    """Made, listed, encrypted, loaded; what it signs verifies, and not for another message."""
    store = KeyStore(tmp_path)
    for name, passphrase in (("plain", None), ("locked", "sesame")):
        signer = store.new(name, passphrase, ECDSA_P256)
        assert repr(signer) == f"<P256Signer {name} {signer.public.short}>"
        again = store.load(name, passphrase)
        assert again.public == signer.public
        signer.public.verify(again.sign(b"message"), b"message")
        with pytest.raises(SignatureError):
            signer.public.verify(again.sign(b"message"), b"massage")
        envelope = dsse.Envelope.parse(dsse.sign(b"{}", again))
        assert dsse.verify(envelope, [signer.public]) == {signer.public}
    assert [(name, public.algorithm, locked) for name, public, locked in store.list()] == [
        ("locked", "ecdsa-p256", True),
        ("plain", "ecdsa-p256", False),
    ]
    with pytest.raises(PassphraseError, match="wrong passphrase"):
        store.load("locked", "open")


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
@pytest.mark.parametrize("passphrase", [None, "sesame"])
def test_a_key_of_openssh_is_imported_with_its_encryption(tmp_path: Path, kind: str, passphrase: str | None) -> None:
    """Byte for byte, without asking for the passphrase, private here, and the source is left alone."""
    command = ["ssh-keygen", "-q", "-t", kind, "-b", "256", "-N", passphrase or "", "-f", str(tmp_path / "id")]
    subprocess.run(command, check=True)
    store = KeyStore(tmp_path / "keys")
    data = (tmp_path / "id").read_bytes()
    public, locked = store.import_key("mine", data, None, tmp_path / "id")
    assert locked is (passphrase is not None)
    assert (tmp_path / "keys/mine").read_bytes() == data == (tmp_path / "id").read_bytes()
    assert stat.S_IMODE((tmp_path / "keys/mine").stat().st_mode) == 0o600
    assert ssh_public_text((tmp_path / "id.pub").read_text()) == public == store.load("mine", passphrase).public
    shown = subprocess.run(["ssh-keygen", "-l", "-f", str(tmp_path / "id")], check=True, capture_output=True, text=True).stdout
    assert fingerprint(public) in shown
    with pytest.raises(KeyFileError, match="is there already"):
        store.import_key("mine", data, None, tmp_path / "id")


@pytest.mark.parametrize("passphrase", [None, "sesame"])
def test_a_pem_key_is_imported_under_its_passphrase(tmp_path: Path, passphrase: str | None) -> None:
    """PKCS #8 of both kinds and SEC 1, as openssl writes them; a wrong or missing passphrase is said."""
    store = KeyStore(tmp_path)
    locked = serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else serialization.NoEncryption()
    ecdsa, edwards = p256()[0], Ed25519PrivateKey.generate()
    pems = {
        "p256": ecdsa.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked),
        "sec1": ecdsa.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, locked),
        "edwards": edwards.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked),
    }
    for name, pem in pems.items():
        if passphrase:
            with pytest.raises(PassphraseError, match="give its passphrase"):
                store.import_key(name, pem, None, "key.pem")
            with pytest.raises(PassphraseError, match="wrong passphrase"):
                store.import_key(name, pem, "open", "key.pem")
        public, encrypted = store.import_key(name, pem, passphrase, "key.pem")
        assert encrypted is (passphrase is not None)
        assert store.load(name, passphrase).public == public
    assert store.load("p256", passphrase).public == store.load("sec1", passphrase).public == p256()[1]


def test_other_files_are_not_imported(tmp_path: Path) -> None:
    """A public key, text, another curve; nothing is written."""
    store = KeyStore(tmp_path / "keys")
    other = ec.generate_private_key(ec.SECP384R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for data, message in ((b"hello", "nor PEM"), (ssh_public_line(p256()[1]).encode(), "nor PEM"), (other, "another kind")):
        with pytest.raises(KeyFileError, match=message):
            store.import_key("mine", data, None, "somewhere")
    assert not (tmp_path / "keys").exists()


def test_ssh_keygen_reads_our_files_and_we_read_its(tmp_path: Path) -> None:
    """Both ways, with and without a passphrase."""
    store = KeyStore(tmp_path)
    for name, passphrase in (("plain", None), ("locked", "sesame")):
        signer = store.new(name, passphrase)
        command = ["ssh-keygen", "-y", "-P", passphrase or "", "-f", str(tmp_path / name)]
        shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert shown.split()[:2] == ssh_public_line(signer.public).split()
        theirs = f"ssh-{name}"
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase or "", "-C", "them", "-f", str(tmp_path / theirs)]
        subprocess.run(command, check=True)
        loaded = store.load(theirs, passphrase)
        assert (tmp_path / f"{theirs}.pub").read_text().split()[:2] == ssh_public_line(loaded.public).split()
    assert [(name, locked) for name, _, locked in store.list()] == [
        ("locked", True),
        ("plain", False),
        ("ssh-locked", True),
        ("ssh-plain", False),
    ]

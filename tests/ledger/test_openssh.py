"""Public keys as OpenSSH writes them: one form each, and nothing left over."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from ledger.errors import KeyFileError
from ledger.openssh import SshReader, ssh_public_blob, ssh_public_key, ssh_public_line, ssh_public_text, ssh_string
from tests.ledger.test_keys import p256


def test_an_ssh_public_key_has_one_form() -> None:
    """A point that is not on the curve, a compressed one, a line that says another kind, text that is none."""
    good = ssh_public_blob(p256()[1])
    off = good[:-1] + bytes([good[-1] ^ 2])
    for blob, message in ((off, "not a point"), (good[:-69] + ssh_string(p256()[1].raw), "not an uncompressed point")):
        with pytest.raises(KeyFileError, match=message):
            ssh_public_key(blob, "key")
    for line in ("ssh-ed25519", "ssh-ed25519 !", "ssh-rsa " + ssh_public_line(p256()[1]).split()[1]):
        with pytest.raises(KeyFileError):
            ssh_public_text(line)


def test_the_public_line_of_an_ecdsa_key(tmp_path: Path) -> None:
    """As ssh writes it: curve name and uncompressed point."""
    private, public = p256()
    line = private.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    assert ssh_public_line(public) == line.decode()


def test_the_reader_lets_nothing_be_left_over() -> None:
    """A block that is longer or shorter than its fields say is refused."""
    reader = SshReader(ssh_string(b"ab") + b"\0\0\0\7", "block")
    assert (reader.string(), reader.integer()) == (b"ab", 7)
    reader.end()
    with pytest.raises(KeyFileError, match="cut short"):
        reader.take(1)
    with pytest.raises(KeyFileError, match="2 bytes too many"):
        SshReader(b"ab", "block").end()

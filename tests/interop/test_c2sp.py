"""C2SP, with a reader of its own: written from the specifications, it shares no code with the ledger and reads logs with plain git.

Sources: https://c2sp.org/signed-note, https://c2sp.org/tlog-checkpoint, https://c2sp.org/tlog-proof, RFC 6962 section 2.1.
"""

from __future__ import annotations

import base64
import hashlib
import subprocess
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ledger.key_store import KeyStore
from ledger.log import Log
from ledger.memory import Memory
from ledger.proof import Proof
from ledger.testing import append_runs, chain_of_runs

ENTRIES = 13


class Refused(Exception):
    """What the independent reader does not accept."""


def verifier_key(name: str, public: bytes) -> str:
    """A note verifier key `<name>+<hash>+<base64>`, as tools take it."""
    digest = hashlib.sha256(name.encode() + b"\n" + b"\x01" + public).hexdigest()[:8]
    return f"{name}+{digest}+{base64.b64encode(bytes([1]) + public).decode()}"


def open_note(message: bytes, vkey: str) -> str:
    """The text of a signed note, once the key's signature on it was verified."""
    name, digest, encoded = vkey.split("+", 2)
    key = base64.b64decode(encoded)
    if key[0] != 1 or hashlib.sha256(name.encode() + b"\n" + key).hexdigest()[:8] != digest:
        raise Refused("not an Ed25519 verifier key")
    text, gap, signatures = message.decode().rpartition("\n\n")
    if not gap or not signatures.endswith("\n"):
        raise Refused("no signatures")
    text += "\n"
    good = False
    for line in signatures[:-1].split("\n"):
        dash, who, blob = line.split(" ")
        raw = base64.b64decode(blob, validate=True)
        if dash != "\u2014":
            raise Refused("not a signature line")
        if who == name and raw[:4].hex() == digest:
            try:
                Ed25519PublicKey.from_public_bytes(key[1:]).verify(raw[4:], text.encode())
            except InvalidSignature as error:
                raise Refused("a signature by the key is wrong") from error
            good = True
    if not good:
        raise Refused("not signed by the key")
    return text


def read_checkpoint(text: str) -> tuple[str, int, bytes]:
    """(origin, size, root)."""
    origin, size, root = text.split("\n")[:3]
    if not origin or str(int(size)) != size or len(base64.b64decode(root, validate=True)) != 32:
        raise Refused("not a checkpoint")
    return origin, int(size), base64.b64decode(root)


def merkle_root(entries: list[bytes]) -> bytes:
    """MTH of RFC 6962 section 2.1, as it is defined."""
    if not entries:
        return hashlib.sha256(b"").digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    k = 1
    while 2 * k < len(entries):
        k *= 2
    return hashlib.sha256(b"\x01" + merkle_root(entries[:k]) + merkle_root(entries[k:])).digest()


def root_by_path(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """The root that a path of section 2.1.1 leads to: from the top down, which is not how the ledger does it."""
    if not 0 <= index < size:
        raise Refused("no such entry")
    if size == 1:
        if path:
            raise Refused("the path is too long")
        return leaf
    if not path:
        raise Refused("the path is too short")
    k = 1
    while 2 * k < size:
        k *= 2
    if index < k:
        return hashlib.sha256(b"\x01" + root_by_path(leaf, index, k, path[:-1]) + path[-1]).digest()
    return hashlib.sha256(b"\x01" + path[-1] + root_by_path(leaf, index - k, size - k, path[:-1])).digest()


def check_proof(data: bytes, vkey: str) -> tuple[int, bytes]:
    """(index, extra data) of a tlog-proof whose leaf is its extra data."""
    head, gap, checkpoint = data.decode().partition("\n\n")
    lines = head.split("\n")
    if not gap or lines[0] != "c2sp.org/tlog-proof@v1" or not lines[1].startswith("extra ") or not lines[2].startswith("index "):
        raise Refused("not a tlog-proof")
    extra, index = base64.b64decode(lines[1][6:], validate=True), int(lines[2][6:])
    origin, size, root = read_checkpoint(open_note(checkpoint.encode(), vkey))
    leaf = hashlib.sha256(b"\x00" + extra).digest()
    if origin != vkey.split("+")[0] or root_by_path(leaf, index, size, [base64.b64decode(line) for line in lines[3:]]) != root:
        raise Refused("the path does not lead to the root")
    return index, extra


# --- a ledger, read by it ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> tuple[Log, str]:
    """A log in a repository, and the verifier key of its signer."""
    folder = tmp_path_factory.mktemp("ledger")
    signer = KeyStore(folder / "keys").new("alice", None)
    log = Log.create(folder / ".ledger", signer=signer, origin="example.com/log", memory=Memory(folder / "state"))
    append_runs(log, chain_of_runs(ENTRIES))
    return log, verifier_key("example.com/log", signer.public.raw)


def git(log: Log, *arguments: str) -> bytes:
    return subprocess.run(["git", "--git-dir", str(log.repository.path), *arguments], check=True, capture_output=True).stdout


def test_every_checkpoint_of_a_ledger_is_accepted(ledger: tuple[Log, str]) -> None:
    """Read with `git show`: each is signed, and states the root of exactly the envelopes up to its own."""
    log, vkey = ledger
    commits = git(log, "rev-list", "--reverse", "ledger").decode().split()
    envelopes = [git(log, "show", f"{oid}:entry.dsse.json") for oid in commits]
    for number, oid in enumerate(commits):
        origin, size, root = read_checkpoint(open_note(git(log, "show", f"{oid}:checkpoint"), vkey))
        assert (origin, size, root) == ("example.com/log", number + 1, merkle_root(envelopes[: number + 1]))
    assert len(commits) == ENTRIES


def test_every_inclusion_proof_is_accepted(ledger: tuple[Log, str]) -> None:
    """Of each entry; not for its neighbour."""
    log, vkey = ledger
    for proof in log.inclusion_proofs(range(ENTRIES)):
        _, size, root = read_checkpoint(open_note(proof.checkpoint, vkey))
        leaf = hashlib.sha256(b"\x00" + log.entry(proof.number).envelope).digest()
        assert root_by_path(leaf, proof.number, size, list(proof.hashes)) == root
        with pytest.raises((Refused, AssertionError)):
            assert root_by_path(leaf, (proof.number + 1) % ENTRIES, size, list(proof.hashes)) == root


def test_every_proof_file_is_accepted(ledger: tuple[Log, str], tmp_path: Path) -> None:
    """`.tlog-proof` as written to disk: the index and the envelope come out."""
    log, vkey = ledger
    for number in range(ENTRIES):
        (tmp_path / "x.tlog-proof").write_bytes(Proof.of(log, number).to_text())
        assert check_proof((tmp_path / "x.tlog-proof").read_bytes(), vkey) == (number, log.entry(number).envelope)


def test_what_is_changed_is_refused_by_it(ledger: tuple[Log, str]) -> None:
    """So it did check: another key, another index, another envelope, another root."""
    log, vkey = ledger
    text = Proof.of(log, 4).to_text()
    other = KeyStore(log.folder.parent / "other").new("mallory", None).public.raw
    root = read_checkpoint(open_note(log.checkpoint or b"", vkey))[2]
    for data, key in (
        (text, verifier_key("example.com/log", other)),
        (text, verifier_key("example.com/other", other)),
        (text.replace(b"index 4", b"index 5"), vkey),
        (text.replace(b"extra ", b"extra AAAA"), vkey),
        (text.replace(base64.b64encode(root), base64.b64encode(bytes(32))), vkey),
    ):
        with pytest.raises(Refused):
            check_proof(data, key)

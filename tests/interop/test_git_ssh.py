"""git and OpenSSH: they verify what we sign, and we verify what they sign. Both programs are needed; nothing is skipped."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ledger import sshsig
from ledger.audit import log_signers
from ledger.errors import SignatureError
from ledger.git import Repository
from ledger.key_store import KeyStore
from ledger.keys import PublicKey
from ledger.log import Log
from ledger.memory import Memory
from ledger.openssh import ssh_public_text
from ledger.policy import Policy
from ledger.testing import append_runs, chain_of_runs


def run(*command: object, stdin: bytes = b"", cwd: Path | None = None, check: bool = True) -> subprocess.CompletedProcess[bytes]:
    """Run a program with nobody's configuration but its own defaults."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(cwd or "/nowhere"), "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
    return subprocess.run(list(map(str, command)), input=stdin, cwd=cwd, env=environment, capture_output=True, check=check, timeout=60)


@pytest.fixture
def signed_log(tmp_path: Path) -> tuple[Log, Path]:
    """A log of four entries by a key of the key store, and the exported allowed_signers."""
    signer = KeyStore(tmp_path / "keys").new("alice", None)
    log = Log.create(tmp_path / ".ledger", signer=signer, memory=Memory(tmp_path / "state"))
    append_runs(log, chain_of_runs(3))
    append_runs(log, chain_of_runs(4)[3:])
    allowed = tmp_path / "allowed_signers"
    allowed.write_text(sshsig.allowed_signers({"ledger@localhost": signer.public}))
    return log, allowed


# --- git reads ours ------------------------------------------------------------------------------------------------------------------


def git(log: Log, allowed: Path, *arguments: object, check: bool = True) -> subprocess.CompletedProcess[bytes]:
    options = ("--git-dir", log.repository.path, "-c", f"gpg.ssh.allowedSignersFile={allowed}")
    return run("git", *options, *arguments, cwd=allowed.parent, check=check)


def test_git_verifies_every_commit_of_a_ledger(signed_log: tuple[Log, Path]) -> None:
    """With the exported allowed_signers; `git log` shows each as good, by the key of the ledger."""
    log, allowed = signed_log
    oids = [entry.commit for entry in log.entries()]
    for oid in oids:
        assert b'Good "git" signature for ledger@localhost' in git(log, allowed, "verify-commit", oid).stderr
    shown = git(log, allowed, "log", "--format=%H %G? %GS", "ledger").stdout.decode().splitlines()
    assert shown == [f"{oid} G ledger@localhost" for oid in reversed(oids)]
    git(log, allowed, "fsck", "--full", "--strict")


def test_git_refuses_a_key_that_is_not_exported(signed_log: tuple[Log, Path], tmp_path: Path) -> None:
    """So it did check the signature against the file."""
    log, allowed = signed_log
    allowed.write_text(sshsig.allowed_signers({"ledger@localhost": KeyStore(tmp_path / "other").new("mallory", None).public}))
    assert git(log, allowed, "verify-commit", "ledger", check=False).returncode != 0


# --- ssh-keygen reads ours -----------------------------------------------------------------------------------------------------------


def checked(allowed: Path, message: bytes, armored: str, namespace: str = "git", who: str = "ledger@localhost") -> bool:
    signature = allowed.parent / "signature"
    signature.write_text(armored)
    return (
        run("ssh-keygen", "-Y", "verify", "-f", allowed, "-I", who, "-n", namespace, "-s", signature, stdin=message, check=False).returncode
        == 0
    )


def split(commit: bytes) -> tuple[bytes, str]:
    """What of a raw commit is signed, and its `gpgsig`, as git's own format has them."""
    head, gap, message = commit.partition(b"\n\n")
    kept, signature = [], []
    for line in head.split(b"\n"):
        if line.startswith(b"gpgsig "):
            signature.append(line.removeprefix(b"gpgsig "))
        elif signature and line.startswith(b" "):
            signature.append(line[1:])
        else:
            kept.append(line)
    return b"\n".join(kept) + gap + message, b"\n".join(signature).decode() + "\n"


def test_ssh_keygen_verifies_the_signature_of_every_commit(signed_log: tuple[Log, Path]) -> None:
    """Taken out of the commits that plain git prints; not for a changed commit."""
    log, allowed = signed_log
    for entry in log.entries():
        signed, armored = split(git(log, allowed, "cat-file", "commit", entry.commit).stdout)
        assert checked(allowed, signed, armored)
        assert not checked(allowed, signed.replace(b"+0000", b"+0100", 1), armored)
        assert not checked(allowed, signed, armored, namespace="file")


@pytest.mark.parametrize("algorithm", ["ed25519", "ecdsa-p256"])
def test_ssh_keygen_verifies_both_kinds_of_our_keys(algorithm: str, tmp_path: Path) -> None:
    """For the namespace of files too; and it reads our key files, and makes the same public line of them."""
    keys = KeyStore(tmp_path / "keys")
    signer = keys.new("alice", None, algorithm)
    allowed = tmp_path / "allowed_signers"
    allowed.write_text(sshsig.allowed_signers({"alice": signer.public}).replace('namespaces="git"', 'namespaces="git,file"'))
    for namespace in ("git", "file"):
        assert checked(allowed, b"a file\n", sshsig.sign(b"a file\n", signer, namespace), namespace, "alice")
    printed = run("ssh-keygen", "-y", "-f", keys.folder / "alice").stdout.decode()
    assert ssh_public_text(printed) == signer.public


# --- we read theirs ------------------------------------------------------------------------------------------------------------------


def made_by_ssh_keygen(folder: Path, *kind: str) -> tuple[Path, PublicKey]:
    key = folder / "theirs"
    run("ssh-keygen", "-q", *kind, "-N", "", "-C", "someone@example.com", "-f", key)
    return key, ssh_public_text(key.with_name("theirs.pub").read_text())


@pytest.mark.parametrize("kind", [("-t", "ed25519"), ("-t", "ecdsa", "-b", "256")], ids=["ed25519", "ecdsa-p256"])
@pytest.mark.parametrize("hashing", ["sha256", "sha512"])
def test_we_verify_files_that_ssh_keygen_signed(kind: tuple[str, ...], hashing: str, tmp_path: Path) -> None:
    """With a key that ssh-keygen made; not another message, namespace or key."""
    key, public = made_by_ssh_keygen(tmp_path, *kind)
    other = KeyStore(tmp_path / "keys").new("alice", None).public
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"weights" * 10_000)
    run("ssh-keygen", "-q", "-Y", "sign", "-O", f"hashalg={hashing}", "-f", key, "-n", "file", file)
    armored = (tmp_path / "model.safetensors.sig").read_text()
    assert sshsig.verify(file.read_bytes(), armored, [other, public], "file") == public
    for message, keys, namespace in (
        (b"other", [public], "file"),
        (file.read_bytes(), [public], "git"),
        (file.read_bytes(), [other], "file"),
    ):
        with pytest.raises(SignatureError):
            sshsig.verify(message, armored, keys, namespace)


@pytest.mark.parametrize("kind", [("-t", "ed25519"), ("-t", "ecdsa", "-b", "256")], ids=["ed25519", "ecdsa-p256"])
def test_we_verify_a_commit_that_git_signed(kind: tuple[str, ...], tmp_path: Path) -> None:
    """`git commit -S` with an OpenSSH key; our reader finds the same signed bytes and the same signature."""
    key, public = made_by_ssh_keygen(tmp_path, *kind)
    folder = tmp_path / "repository"
    run("git", "init", "-q", "--bare", folder)
    tree = run("git", "--git-dir", folder, "mktree").stdout.decode().strip()
    identity = ("-c", "user.name=Someone", "-c", "user.email=someone@example.com", "-c", "gpg.format=ssh", "-c", f"user.signingkey={key}")
    oid = run("git", "--git-dir", folder, *identity, "commit-tree", "-S", "-m", "hello", tree, cwd=tmp_path).stdout.decode().strip()
    commit = Repository(folder).read_commit(oid)
    assert commit.signature is not None
    assert (commit.signed, commit.signature) == split(run("git", "--git-dir", folder, "cat-file", "commit", oid).stdout)
    assert sshsig.verify(commit.signed, commit.signature, [public]) == public
    with pytest.raises(SignatureError):
        sshsig.verify(commit.signed + b"x", commit.signature, [public])


def test_a_key_of_ssh_keygen_signs_a_ledger(tmp_path: Path) -> None:
    """The user's own OpenSSH key, taken as it is: its ledger is verified by git and by us."""
    key, public = made_by_ssh_keygen(tmp_path, "-t", "ed25519")
    keys = KeyStore(tmp_path / "keys")
    keys.import_key("mine", key.read_bytes(), None, key)
    log = Log.create(tmp_path / ".ledger", signer=keys.load("mine", None), memory=Memory(tmp_path / "state"))
    append_runs(log, chain_of_runs(2))
    allowed = tmp_path / "allowed_signers"
    allowed.write_text(f"ledger@localhost {key.with_name('theirs.pub').read_text()}")
    git(log, allowed, "verify-commit", "ledger")
    policy = Policy.parse(f'version: 1\nkeys: {{mine: "{public}"}}\nrules: [{{keys: [mine]}}]\n')
    assert log_signers(log.repository, log.entry(1).commit, 1, policy) == {"mine"}

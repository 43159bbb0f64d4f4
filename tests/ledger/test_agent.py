"""ssh-agent: keys of the user's that sign without being imported; the agent itself is not trusted."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger import dsse, sshsig
from ledger.agent import Agent
from ledger.errors import KeyFileError, SignatureError
from ledger.openssh import fingerprint, ssh_public_blob, ssh_public_text, ssh_string
from ledger.testing import UnsafeSigner

ALICE = UnsafeSigner("alice")


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """A real ssh-agent with an Ed25519, a P-256 and an RSA key."""
    for kind, comment in (("ed25519", "me@laptop"), ("ecdsa", "work key"), ("rsa", "old")):
        command = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", comment, "-f", str(tmp_path / kind)]
        subprocess.run(command, check=True)
    running = subprocess.Popen(["ssh-agent", "-D", "-a", str(tmp_path / "agent")], stdout=subprocess.DEVNULL)
    try:
        environment = os.environ | {"SSH_AUTH_SOCK": str(tmp_path / "agent")}
        for _ in range(200):
            added = subprocess.run(["ssh-add", *(str(tmp_path / kind) for kind in ("ed25519", "ecdsa", "rsa"))], env=environment)
            if added.returncode == 0:
                break
        yield Agent(tmp_path / "agent")
    finally:
        running.terminate()
        running.wait()


def test_keys_of_an_agent_are_listed_and_sign(agent: Agent, tmp_path: Path) -> None:
    """Ed25519 and P-256 by comment or fingerprint, for envelopes and for commits; RSA is passed over."""
    held = {one.comment: one.public for one in agent.identities()}
    assert held == {
        comment: ssh_public_text((tmp_path / f"{kind}.pub").read_text())
        for kind, comment in (("ed25519", "me@laptop"), ("ecdsa", "work key"))
    }
    assert [one.spelled for one in agent.identities()] == ["ssh-agent:me@laptop", "ssh-agent:work key"]
    assert [one.name for one in agent.identities()] == ["me@laptop", "work-key"]
    for name, public in held.items():
        for spelled in (f"ssh-agent:{name}", f"ssh-agent:{fingerprint(public)}"):
            signer = agent.find(spelled)
            assert dsse.verify(dsse.Envelope.parse(dsse.sign(b"{}", signer)), [public]) == {public}
            assert sshsig.verify(b"a commit", sshsig.sign(b"a commit", signer), [public]) == public
    with pytest.raises(KeyFileError, match=r"no key named 'nobody'; it holds me@laptop SHA256:.*, work key SHA256:"):
        agent.find("ssh-agent:nobody")


def answering(path: Path, *answers: bytes) -> Agent:
    """Something that answers like an agent, once for each answer, whatever it is asked."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()

    def serve() -> None:
        with server:
            for answer in answers:
                channel, _ = server.accept()
                with channel:
                    channel.recv(65536)
                    channel.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    return Agent(path)


def signed(signature: bytes) -> bytes:
    return ssh_string(bytes([14]) + ssh_string(ssh_string(b"ssh-ed25519") + ssh_string(signature)))


def test_an_agent_that_lies_signs_nothing(tmp_path: Path) -> None:
    """A signature of something else, none, another answer, too long an answer, half an answer: an error, never a signature."""
    agent = answering(
        tmp_path / "agent",
        signed(ALICE.sign(b"another message")),
        ssh_string(bytes([5])),
        ssh_string(bytes([12]) + b"\0\0\0\0"),
        b"\xff\xff\xff\xff",
        b"\0\0\0\x09\x0e",
        signed(ALICE.sign(b"message")),
    )
    with pytest.raises(SignatureError, match="returned something that is not a valid signature"):
        agent.sign(ALICE.public, b"message")
    for message in ("refused", "answered 12; expected 14", "an answer of 4294967295 bytes", "hung up after 1 of 9 bytes"):
        with pytest.raises(KeyFileError, match=message):
            agent.sign(ALICE.public, b"message")
    ALICE.public.verify(agent.sign(ALICE.public, b"message"), b"message")


def test_two_keys_of_one_comment_must_be_told_apart(tmp_path: Path) -> None:
    """By their fingerprints, which the message shows."""
    bob = UnsafeSigner("bob")
    both = b"".join(ssh_string(ssh_public_blob(one.public)) + ssh_string(b"me") for one in (ALICE, bob))
    agent = answering(tmp_path / "agent", *[ssh_string(bytes([12]) + (2).to_bytes(4, "big") + both)] * 2)
    with pytest.raises(KeyFileError, match=r"2 keys named 'me'"):
        agent.find("ssh-agent:me")
    assert agent.find(f"ssh-agent:{fingerprint(bob.public)}").public == bob.public


def test_no_agent_is_said(tmp_path: Path) -> None:
    """No variable: none. A socket that is not there: an error with what to look at."""
    assert Agent.default({}) is None
    found = Agent.default({"SSH_AUTH_SOCK": str(tmp_path / "gone")})
    assert found is not None
    with pytest.raises(KeyFileError, match=r"No such file.*SSH_AUTH_SOCK"):
        found.identities()

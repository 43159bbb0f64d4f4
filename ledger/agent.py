"""Keys that stay in an ssh-agent: list them, and sign with one.

The agent (`$SSH_AUTH_SOCK`) signs any bytes that it is given, so a key of the user's, on a card too, signs statements, commits and
checkpoints without ever leaving it. The agent is not trusted: what it returns is verified before anybody sees it.

Source: draft-ietf-sshm-ssh-agent (the ssh-agent protocol), sections 3 and 4; RFC 8709 (Ed25519), RFC 5656 (ECDSA).
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ledger.errors import KeyFileError, SignatureError
from ledger.keys import ED25519, PublicKey
from ledger.openssh import SshReader, ecdsa_from_ssh, fingerprint, ssh_public_blob, ssh_public_key, ssh_string

PREFIX = "ssh-agent:"
"""Before a comment or a fingerprint, where a key can be named."""

_FAILURE, _REQUEST_IDENTITIES, _IDENTITIES, _SIGN_REQUEST, _SIGNATURE = 5, 11, 12, 13, 14
_MAX_ANSWER = 2**20
_WAIT_S = 120.0
"""A card waits for a finger, an agent for a passphrase."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A key that an agent holds, of a kind that signs here."""

    comment: str
    public: PublicKey

    @property
    def name(self) -> str:
        """The comment as a key may be named in a policy: other characters become `-`."""
        return re.sub(r"[^A-Za-z0-9._@-]", "-", self.comment).lstrip("._@-")[:64] or "agent"

    @property
    def spelled(self) -> str:
        """How to name it: `ssh-agent:me@laptop`."""
        return PREFIX + (self.comment or fingerprint(self.public))


class Agent:
    """An ssh-agent behind a socket.

    Every method raises KeyFileError when it cannot be reached, does not answer as agents do, or refuses.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def default(cls, environ: Mapping[str, str] = os.environ) -> Agent | None:
        """The one at `$SSH_AUTH_SOCK`; None when there is none."""
        named = environ.get("SSH_AUTH_SOCK")
        return cls(Path(named)) if named else None

    def identities(self) -> list[Identity]:
        """The Ed25519 and ECDSA P-256 keys that it holds, in its order; others are passed over."""
        answer = self._ask(bytes([_REQUEST_IDENTITIES]), _IDENTITIES)
        found: list[Identity] = []
        for _ in range(answer.integer()):
            blob, comment = answer.string(), answer.string()
            try:
                found.append(Identity(comment.decode(errors="replace"), ssh_public_key(blob, self.path)))
            except KeyFileError:
                continue  # RSA, a security key, a certificate
        answer.end()
        return found

    def find(self, spelled: str) -> AgentSigner:
        """The signer named by `ssh-agent:COMMENT` or `ssh-agent:SHA256:...`.

        Raises:
            KeyFileError: no key has that comment or fingerprint, or several have.
        """
        wanted = spelled.removeprefix(PREFIX)
        held = self.identities()
        found = [one for one in held if wanted in (one.comment, fingerprint(one.public), str(one.public))]
        if len(found) != 1:
            what = "no key" if not found else f"{len(found)} keys"
            listed = ", ".join(f"{one.comment} {fingerprint(one.public)}" for one in held) or "none that signs here"
            raise KeyFileError(f"ssh-agent {self.path}", f"{what} named {wanted!r}; it holds {listed}")
        return AgentSigner(found[0].name, found[0].public, self)

    def sign(self, public: PublicKey, message: bytes) -> bytes:
        """The raw signature by one of its keys: 64 bytes, or DER.

        Raises:
            SignatureError: what came back is not this key's signature of this message.
        """
        request = bytes([_SIGN_REQUEST]) + ssh_string(ssh_public_blob(public)) + ssh_string(message) + (0).to_bytes(4, "big")
        answer = self._ask(request, _SIGNATURE)
        inner = SshReader(answer.string(), self.path)
        answer.end()
        inner.string()  # the kind; the key says it
        signature = inner.string()
        inner.end()
        raw = signature if public.algorithm == ED25519 else ecdsa_from_ssh(signature, self.path)
        try:
            public.verify(raw, message)
        except SignatureError as error:
            raise SignatureError(f"the ssh-agent {self.path} returned something that is {error}; nothing was recorded") from error
        return raw

    def _ask(self, request: bytes, expected: int) -> SshReader:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
                channel.settimeout(_WAIT_S)
                channel.connect(str(self.path))
                channel.sendall(ssh_string(request))
                length = int.from_bytes(_receive(channel, 4), "big")
                if not 1 <= length <= _MAX_ANSWER:
                    raise KeyFileError(f"ssh-agent {self.path}", f"an answer of {length} bytes")
                answer = _receive(channel, length)
        except OSError as error:
            raise KeyFileError(f"ssh-agent {self.path}", f"cannot be asked: {error.strerror or error}; is $SSH_AUTH_SOCK right?") from error
        if answer[0] == _FAILURE:
            raise KeyFileError(f"ssh-agent {self.path}", "refused (is the agent locked, or was its question declined?)")
        if answer[0] != expected:
            raise KeyFileError(f"ssh-agent {self.path}", f"answered {answer[0]}; expected {expected}")
        return SshReader(answer[1:], self.path)


class AgentSigner:
    """A key that signs without leaving its agent."""

    def __init__(self, name: str, public: PublicKey, agent: Agent) -> None:
        self.name, self.public, self._agent = name, public, agent

    def sign(self, message: bytes) -> bytes:
        """The raw signature; the agent may ask its user first."""
        return self._agent.sign(self.public, message)

    def __repr__(self) -> str:
        return f"<AgentSigner {self.name} {self.public.short}>"


def _receive(channel: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = channel.recv(count - len(data))
        if not piece:
            raise ConnectionError(f"it hung up after {len(data)} of {count} bytes")
        data += piece
    return data

"""Everything that can go wrong between a key and a proof.

    LedgerError
    ├── PublicKeyError           a text or bytes that name no acceptable public key
    ├── KeyFileError             a private key file that is missing, open to others, or not a key
    │   └── PassphraseError      the file is encrypted: no passphrase, or the wrong one
    ├── PolicyError              the policy file says something impossible (exit code 2)
    ├── LocatorError             a text that says neither where something is nor its hash (exit code 2)
    ├── QrError                  a picture in which no QR code can be read, or a text that fits none
    ├── LogError                 the log cannot be read or written
    │   ├── MovedError           another process appended first; try again
    │   └── RewrittenError       (also a VerificationError) history is not an extension of what was accepted before
    ├── HubError                 the Hub cannot be asked, or answers what cannot be used
    │   ├── HubUnreachableError  no network, no answer in time, a fault of the Hub's: try again
    │   ├── HubNotFoundError     no such repository, revision or file under this name, or not for this token
    │   ├── HubConflictError     a commit was refused: somebody else's came first
    │   └── HubMismatchError     (also a VerificationError) bytes or a revision that are not what the Hub said they are
    └── VerificationError        exit code 3
        ├── AlloyError           a file that is no alloy, or no chain of commits, of anybody's
        ├── StatementError       signed or not, the statement does not say what it must
        ├── SignatureError       no valid signature
        │   ├── EnvelopeError    not a DSSE envelope at all
        │   └── NoteError        not a signed note, or not a checkpoint
        ├── UntrustedError       validly signed, but the policy does not accept these keys for this
        ├── ContradictionError   trusted statements disagree
        ├── FrozenError          no witness that the policy wants has seen the log lately
        └── ProofError           an inclusion or consistency proof does not prove it

A failed verification is never a ValueError, so no `except ValueError` around a parser can hide one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping


class LedgerError(Exception):
    """Base of everything that this package raises."""


class PublicKeyError(LedgerError):
    """A text or bytes that name no public key that may be trusted: wrong form, not a point, or of small order."""


class KeyFileError(LedgerError):
    """A private key cannot be used.

    Attributes:
        path: the file or folder, as text.
    """

    def __init__(self, path: object, problem: str) -> None:
        self.path = str(path)
        super().__init__(f"{path}: {problem}")


class PassphraseError(KeyFileError):
    """The key file is encrypted, and no passphrase or a wrong one was given."""


class PolicyError(LedgerError):
    """The policy cannot be used as it is written.

    Attributes:
        line: where in the file, counted from 1; None when no one line is to blame.
    """

    def __init__(self, source: object, problem: str, line: int | None = None) -> None:
        self.line = line
        super().__init__(f"{source}:{line}: {problem}" if line is not None else f"{source}: {problem}")


class LocatorError(LedgerError):
    """A text that says neither where something is nor which hash it must have."""


class QrError(LedgerError):
    """A picture in which no QR code can be read, or a text that fits into none."""


class LogError(LedgerError):
    """The log cannot be read or written."""


class MovedError(LogError):
    """Another process appended first, so what was to be recorded would stand at another place."""


class VerificationError(LedgerError):
    """What was to be verified is not proven."""


class AlloyError(VerificationError):
    """Bytes that are no alloy and no chain of commits: not ours, and not of anybody's published format."""


class StatementError(VerificationError):
    """A statement that does not say what it must, or says it in a form that two readers could read differently."""


class SignatureError(VerificationError):
    """No valid signature by any of the given keys."""


class EnvelopeError(SignatureError):
    """Bytes that are not a DSSE envelope."""


class NoteError(SignatureError):
    """Bytes that are not a signed note, or a text that is not a checkpoint."""


class ProofError(VerificationError):
    """A Merkle proof that does not lead to the given root."""


class UntrustedError(VerificationError):
    """Validly signed, but not by keys that the policy accepts for this.

    Attributes:
        signers: the text of each key that signed (`ed25519:...`), sorted.
    """

    def __init__(self, message: str, *, signers: Iterable[str] = ()) -> None:
        self.signers = tuple(sorted(signers))
        super().__init__(message)


class ContradictionError(VerificationError):
    """Trusted statements give different outputs for one action.

    Attributes:
        claims: who said so -> output name -> digest, as text.
    """

    def __init__(self, message: str, *, claims: Mapping[str, Mapping[str, str]] | None = None) -> None:
        self.claims = {who: dict(outputs) for who, outputs in (claims or {}).items()}
        super().__init__(message)


class FrozenError(VerificationError):
    """Too few of the witnesses that the policy wants have seen this log, or too long ago: newer entries may be kept from the reader."""


class RewrittenError(LogError, VerificationError):
    """The log is not an extension of the one that was accepted before: it was rewritten, rolled back or forked.

    Attributes:
        accepted: the checkpoint note that was accepted before; found: the one that is there now. Together they are the evidence.
    """

    def __init__(self, message: str, *, accepted: bytes = b"", found: bytes = b"") -> None:
        self.accepted, self.found = accepted, found
        super().__init__(message)


class HubError(LedgerError):
    """The Hub cannot be asked, refuses, or answers what cannot be used."""


class HubUnreachableError(HubError):
    """There is no network, no answer in time, or the Hub has a fault of its own: what passes may be tried again."""


class HubNotFoundError(HubError):
    """No such repository, revision or file, not under this name, or not for this token."""


class HubConflictError(HubError):
    """A commit was refused because the branch is no longer where the commit was to follow.

    Attributes:
        parent: the commit that was expected there.
    """

    def __init__(self, message: str, *, parent: str) -> None:
        self.parent = parent
        super().__init__(message)


class HubMismatchError(HubError, VerificationError):
    """What the Hub served is not what it listed, or not of the revision that was asked for.

    Attributes:
        expected, got: as text; a hash, a size or a commit.
    """

    def __init__(self, message: str, *, expected: str, got: str) -> None:
        self.expected, self.got = expected, got
        super().__init__(message)

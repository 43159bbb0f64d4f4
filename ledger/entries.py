"""One entry of a log as it is passed around, wherever it was read: from git, or from a bundle that travels."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from ledger import dsse
from ledger.statement import Statement
from store.digest import Digest

UNPLACED = -1
"""The number of an entry whose place in the log is not proven."""


@dataclass(frozen=True)
class Entry:
    """One entry.

    Attributes:
        number: its place in the log, from 0; `UNPLACED` when that is not proven.
        commit: id of its commit; empty when it was not read from git.
        envelope: the DSSE envelope, byte for byte.
        checkpoint: the signed note that was made with it.
        message: the readable line. when: the commit's time in Unix seconds; whoever signed may have written any time.
    """

    number: int
    commit: str
    envelope: bytes
    checkpoint: bytes
    message: str = ""
    when: int = 0
    accepted: dict[int, tuple[object, object]] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What `ledger.lookup.accept` found, by policy: neither an entry nor a policy ever changes, and a run asks several times."""

    @cached_property
    def signed(self) -> dsse.Envelope:
        """The envelope, read. Nothing is verified here.

        Raises:
            EnvelopeError: it cannot be read.
        """
        return dsse.Envelope.parse(self.envelope)

    @cached_property
    def statement(self) -> Statement:
        """What the entry says. Nothing is verified here.

        Raises:
            EnvelopeError, StatementError: it says nothing that can be read.
        """
        return Statement.parse(self.signed.payload)

    @cached_property
    def digest(self) -> Digest:
        """SHA-256 of the envelope's bytes."""
        return Digest.of(self.envelope)

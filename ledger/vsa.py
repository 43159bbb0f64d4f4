"""A verification summary: the reader's own signed word that he verified something, how thoroughly, by which policy, with which result.

Others who trust that reader may take it instead of verifying again; this program shows it as attested, never as proven: what was proven
was proven to somebody else.

Source: SLSA verification summary attestation v1 (https://slsa.dev/spec/v1.1/verification_summary). Format: docs/formats/vsa.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ledger import dsse, lookup, statement
from ledger.entries import UNPLACED, Entry
from ledger.errors import StatementError, VerificationError
from ledger.keys import Signer
from ledger.policy import Policy
from ledger.report import Report, Row, printable
from ledger.statement import Statement
from store import canonical
from store.digest import Digest
from store.errors import CanonicalError, DigestError

VSA: Final = "https://slsa.dev/verification_summary/v1"
VERIFIER: Final = "urn:alloy-ledger:verifier:"
"""Before the key of who verified: the id of a verifier."""

MAX_BYTES: Final = 4 * 2**20

_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Summary:
    """What a summary says. Whether its signer counts is the reader's question.

    Attributes:
        resource: what was verified, a URI. subjects: its files, name -> digest.
        verifier: who verified, a URI. verified_on: when, UTC, by his clock.
        policy: name and digest of the policy.
        inputs: what it rests on: name -> digest.
        passed: the result. levels: how thoroughly it was looked at.
    """

    resource: str
    subjects: Mapping[str, Digest]
    verifier: str
    verified_on: str
    policy: tuple[str, Digest]
    inputs: Mapping[str, Digest]
    passed: bool
    levels: tuple[str, ...]

    @classmethod
    def of(cls, report: Report, policy: Policy, signer: Signer, *, resource: str, now: str) -> Summary:
        """The summary of a report; `now` is UTC, `2026-11-23T10:00:00Z`.

        Raises:
            StatementError: the report is about nothing that has a digest.
        """
        if not report.subjects:
            raise StatementError(
                f"a summary is about files with a digest, and {report.target} has none; name an alloy, a file or a repository"
            )
        levels = report.levels if report.exit_code == 0 else ()
        digest = Digest.of(canonical.dumps(policy.to_json()))
        called = policy.source.rpartition("/")[2]  # where it lies here is nobody's business
        return cls(
            resource,
            report.subjects,
            f"{VERIFIER}{signer.public}",
            now,
            (called, digest),
            report.inputs,
            not report.exit_code,
            levels,
        )

    def predicate(self) -> dict[str, Any]:
        """The statement's predicate."""
        return {
            "inputAttestations": [{"digest": {"sha256": digest.hex}, "uri": name} for name, digest in sorted(self.inputs.items())],
            "policy": {"digest": {"sha256": self.policy[1].hex}, "uri": self.policy[0]},
            "resourceUri": self.resource,
            "slsaVersion": "1.1",
            "timeVerified": self.verified_on,
            "verificationResult": "PASSED" if self.passed else "FAILED",
            "verifiedLevels": list(self.levels),
            "verifier": {"id": self.verifier},
        }

    def sign(self, signer: Signer) -> bytes:
        """The envelope.

        Raises:
            StatementError: a name that cannot be in a statement.
        """
        return dsse.sign(statement.make(self.subjects, VSA, self.predicate()), signer)

    @classmethod
    def read(cls, said: Statement) -> Summary:
        """Read one back. Fields that are not known here are passed over, as its specification asks.

        Raises:
            StatementError: it is no summary, or a field is missing or of another form.
        """
        if said.predicate_type != VSA:
            raise StatementError(f"no verification summary: the predicateType is {said.predicate_type!r}")
        value = said.predicate
        try:
            verifier, resource, result = value["verifier"]["id"], value["resourceUri"], value["verificationResult"]
            levels, when = value["verifiedLevels"], value["timeVerified"]
            policy = str(value["policy"]["uri"]), Digest.parse(f"sha256:{value['policy']['digest']['sha256']}")
            inputs = {str(item["uri"]): Digest.parse(f"sha256:{item['digest']['sha256']}") for item in value.get("inputAttestations", [])}
        except (KeyError, TypeError, AttributeError, DigestError) as error:
            raise StatementError(f"the verification summary cannot be read: {error!r}") from error
        texts = (verifier, resource, result, when, *(levels if isinstance(levels, list) else [None]))
        if not all(isinstance(text, str) for text in texts) or result not in ("PASSED", "FAILED") or not _UTC.match(when):
            raise StatementError(
                "the verification summary has a verifier, a resource, a time in UTC, a result and a list of levels, as text"
            )
        return cls(resource, said.subjects, verifier, when, policy, inputs, result == "PASSED", tuple(levels))


def summed_up(said: Statement, who: str, what: str, number: int | None = None) -> Row:
    """A summary that came among other statements about something, as a finding: somebody's word, and against it where it failed."""
    try:
        passed = Summary.read(said).passed
    except StatementError as error:
        return Row("failed", f"what {who} signed about {what} is no verification summary: {error}", entry=number)
    if not passed:
        return Row("failed", f"{who} verified {what} and attests that it did not pass", "Ask who signed that what was wrong", number)
    return Row("attested", f"that {what} passed a verification: {who} says so, and nothing of it was verified here", entry=number)


def is_summary(data: bytes) -> bool:
    """Whether bytes are an envelope around a verification summary, whoever signed it."""
    if len(data) > MAX_BYTES or not data.lstrip().startswith(b"{"):
        return False
    try:
        return Statement.parse(dsse.Envelope.parse(data).payload).predicate_type == VSA
    except (VerificationError, CanonicalError, DigestError):
        return False


def examine_summary(data: bytes, policy: Policy, name: str) -> Report:
    """What a summary that somebody made proves: that he said so."""
    entry = Entry(UNPLACED, "", data.strip(), b"")
    try:
        trusted = lookup.accept(entry, policy)
        summary = Summary.read(trusted.statement)
    except VerificationError as error:
        return Report(
            name,
            (Row("unverified", f"{name} counts for nothing here: {error}", f"If you trust its signer, add the key to {policy.source}"),),
        )
    who = " and ".join(trusted.signers)
    about = ", ".join(f"{printable(name, 80)} ({digest})" for name, digest in sorted(summary.subjects.items()))
    what = printable(summary.resource)
    levels = f", at {', '.join(printable(level, 40) for level in summary.levels)}" if summary.levels else ""
    by = f"by the policy {printable(summary.policy[0], 80)} ({summary.policy[1].short})"
    rows = [Row("proven", f"{who} signed that he verified {what} on {summary.verified_on} {by}: {about}")]
    expected = {f"{VERIFIER}{policy.keys[one]}" for one in trusted.signers}
    if summary.verifier not in expected:
        rows.append(Row("failed", f"it says that {printable(summary.verifier)} verified, and {who} signed it"))
    if summary.passed:
        hint = f"`ledger verify {what}` verifies it here" if what.startswith("hf:") else ""
        rows.append(Row("attested", f"that it passed{levels}: {who} says so, and nothing of it was verified here", hint))
    else:
        rows.append(Row("failed", f"{who} attests that it did not pass"))
    return Report(name, tuple(rows), summary.subjects)

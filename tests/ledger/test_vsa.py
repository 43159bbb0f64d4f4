"""ledger.vsa: what a reader verified, signed by himself; and what that is worth to others."""

from __future__ import annotations

import json
from base64 import b64decode
from dataclasses import replace
from typing import Any

import pytest

from ledger import dsse, statement
from ledger.errors import StatementError
from ledger.report import Report, Row
from ledger.statement import Statement
from ledger.testing import UnsafeSigner, unsafe_policy
from ledger.vsa import VERIFIER, VSA, Summary, examine_summary, is_summary
from store.digest import Digest

ALICE, BOB = UnsafeSigner("alice"), UnsafeSigner("bob")
POLICY = unsafe_policy("alice")
WHEN = "2026-11-23T10:00:00Z"
REPORT = Report(
    "hf:acme/tiny@" + "0" * 40, (Row("proven", "all of it"),), {"tiny.alloy.json": Digest.of(b"alloy")},
    {"tiny.attestations.jsonl": Digest.of(b"lines")}, ("ALLOY_LISTING",),
)  # fmt: skip


def summary(report: Report = REPORT) -> Summary:
    return Summary.of(report, POLICY, ALICE, resource=report.target, now=WHEN)


def test_a_summary_is_what_slsa_says() -> None:
    """The fields of a verification summary v1, under their names; what is signed can be read back."""
    envelope = summary().sign(ALICE)
    said = json.loads(b64decode(json.loads(envelope)["payload"]))
    assert said["predicateType"] == "https://slsa.dev/verification_summary/v1"
    assert said["subject"] == [{"digest": {"sha256": Digest.of(b"alloy").hex}, "name": "tiny.alloy.json"}]
    assert said["predicate"] == {
        "inputAttestations": [{"digest": {"sha256": Digest.of(b"lines").hex}, "uri": "tiny.attestations.jsonl"}],
        "policy": {"digest": {"sha256": summary().policy[1].hex}, "uri": "test policy"},
        "resourceUri": REPORT.target,
        "slsaVersion": "1.1",
        "timeVerified": WHEN,
        "verificationResult": "PASSED",
        "verifiedLevels": ["ALLOY_LISTING"],
        "verifier": {"id": f"{VERIFIER}{ALICE.public}"},
    }
    assert Summary.read(Statement.parse(dsse.Envelope.parse(envelope).payload)) == summary()


def test_a_summary_verifies_again_as_what_its_signer_says() -> None:
    """That he signed it is proven; that it passed is attested, for it was not verified here."""
    report = examine_summary(summary().sign(ALICE) + b"\n", POLICY, "tiny.vsa.json")
    assert [row.status for row in report.rows] == ["proven", "attested"]
    assert report.exit_code == 0
    assert "alice says so, and nothing of it was verified here" in report.rows[1].text


def test_a_failure_is_passed_on() -> None:
    """It has no levels, and whoever takes the summary for an answer gets the same one."""
    failed = summary(replace(REPORT, rows=(Row("failed", "no"),)))
    assert (failed.passed, failed.levels) == (False, ())
    assert examine_summary(failed.sign(ALICE), POLICY, "x").exit_code == 3


def test_a_summary_by_somebody_else_counts_for_nothing() -> None:
    """By an unknown key, with a changed byte, or in the name of another verifier."""
    stranger = Summary.of(REPORT, POLICY, BOB, resource="hf:a/b", now=WHEN).sign(BOB)
    report = examine_summary(stranger, POLICY, "x")
    assert (report.verdict, report.exit_code) == ("NOT VERIFIED", 3)
    changed = summary().sign(ALICE).replace(b'"sig":"', b'"sig":"A')
    assert examine_summary(changed, POLICY, "x").exit_code == 3
    in_his_name = replace(summary(), verifier=f"{VERIFIER}{BOB.public}").sign(ALICE)
    assert "alice signed it" in next(row.text for row in examine_summary(in_his_name, POLICY, "x").rows if row.status == "failed")


def test_a_report_about_nothing_in_particular_has_no_summary() -> None:
    """A whole ledger has no digest."""
    with pytest.raises(StatementError, match="name an alloy, a file or a repository"):
        summary(Report("ledger", ()))


@pytest.mark.parametrize(
    "change",
    [
        {"verifier": {}},
        {"resourceUri": 7},
        {"verificationResult": "MAYBE"},
        {"timeVerified": "yesterday"},
        {"policy": {"uri": "x", "digest": {"sha256": "x"}}},
        {"verifiedLevels": "all"},
        {"verifiedLevels": [7]},
        {"inputAttestations": [{}]},
        {"inputAttestations": 7},
    ],
)
def test_a_summary_that_says_it_otherwise_is_refused(change: dict[str, Any]) -> None:
    """Unknown fields are passed over, as the specification asks; known ones have their form."""
    payload = statement.make(REPORT.subjects, VSA, summary().predicate() | {"more": "later"})
    assert Summary.read(Statement.parse(payload)) == summary()
    wrong = statement.make(REPORT.subjects, VSA, summary().predicate() | change)
    with pytest.raises(StatementError):
        Summary.read(Statement.parse(wrong))
    assert examine_summary(dsse.sign(wrong, ALICE), POLICY, "x").exit_code == 3


def test_a_summary_is_known_by_its_content() -> None:
    """Whoever signed it, and whatever the file is called."""
    assert is_summary(summary().sign(ALICE))
    other = dsse.sign(statement.make(REPORT.subjects, "urn:x", {}), ALICE)
    assert not any(is_summary(data) for data in (b"", b"{}", b"GGUF", b"{" * 1000, other))

"""ledger.verify and ledger.report: the front door, light to open, and what a verdict is made of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ledger.report import Report, Row, Status, entries, printable
from ledger.testing import append_runs, chain_of_runs, unsafe_log, unsafe_policy
from ledger.verify import verify_artifact, verify_log
from store.digest import Digest


def test_verifying_loads_no_ml_library_and_no_network() -> None:
    """Importing everything that verifies loads neither torch nor numpy, nor a library for remotes."""
    heavy = {"torch", "numpy", "transformers", "git", "rich", "requests", "pygit2"}
    code = f"import sys, ledger.verify, ledger.lookup; print(sorted({heavy} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("statuses", "verdict", "code"),
    [
        ([], "NOT VERIFIED", 3),
        (["unverified"], "NOT VERIFIED", 3),
        (["attested", "self-reported"], "NOT VERIFIED", 3),
        (["failed"], "FAILED", 3),
        (["proven"], "VERIFIED", 0),
        (["proven", "attested"], "VERIFIED with 1 claim unconfirmed", 0),
        (["proven", "attested", "self-reported", "unverified"], "VERIFIED with 3 claims unconfirmed", 0),
        (["proven", "failed", "attested"], "FAILED", 3),
    ],
)
def test_verdict_follows_from_the_rows(statuses: list[Status], verdict: str, code: int) -> None:
    """One failed row fails; without a proven row nothing is verified; what is open is counted."""
    report = Report("x", tuple(Row(status, "text") for status in statuses))
    assert (report.verdict, report.exit_code) == (verdict, code)


def test_what_is_about_something_else_verifies_nothing() -> None:
    """A proven row about the log that entries come from says nothing about the target."""
    log = Row("proven", "these entries are in a log", aside=True)
    assert Report("x", (Row("unverified", "where it came from"), log)).exit_code == 3
    assert Report("x", (Row("proven", "made by a run"), log)).verdict == "VERIFIED"


def test_numbers_and_texts_of_others_are_shown_safely() -> None:
    """Entry numbers are shortened to ranges; control characters and endless texts of others never reach a terminal."""
    assert entries([3]) == "entry 3"
    assert entries([3, 4, 5, 9]) == "entries 3-5, 9"
    assert entries([1, 3, 5, 7, 9, 11]) == "entries 1, 3, 5, 7 and 2 more ranges"
    assert printable("a\x1b[31m\nb") == "a?[31m?b"
    assert len(printable("x" * 1000)) == 202


def test_verifying_changes_nothing_but_what_is_derived(tmp_path: Path) -> None:
    """The log's repository is the same, byte for byte, after it was verified."""
    log = unsafe_log(tmp_path)
    append_runs(log, chain_of_runs(3))

    def content() -> dict[str, bytes]:
        return {str(file): file.read_bytes() for file in (tmp_path / ".ledger/log.git").rglob("*") if file.is_file()}

    before = content()
    assert verify_log(log, unsafe_policy("alice"), full=True).verdict == "VERIFIED"
    assert verify_artifact(Digest.of(b"model 2"), log, unsafe_policy("alice")).exit_code == 0
    assert content() == before

"""What a report of the verifier says, as tests read it."""

from __future__ import annotations

from ledger.report import Report


def texts(report: Report, status: str) -> str:
    """The texts of the rows of one status, a line each."""
    return "\n".join(row.text for row in report.rows if row.status == status)

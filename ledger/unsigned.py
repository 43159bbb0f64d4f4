"""What can be said of bytes that nobody signed: whether they are the expected ones, and what a cut hash proves. Never a green verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ledger.report import Report, Row
from store.digest import Digest

if TYPE_CHECKING:
    from ledger.locator import Expected

MAX_BYTES = 64 * 2**20
"""A file that is larger is neither an alloy nor a chain of commits."""


@dataclass(frozen=True, slots=True)
class UnsignedReport(Report):
    """Findings about something that nobody signed: it is never verified.

    Attributes:
        pinned: it has the full hash that was expected. Only that is worth exit code 0, and it is said of what is hashed alone.
        what: the file, in the verdict: `alloy`.
    """

    pinned: bool = False
    what: str = "alloy"

    @property
    def verdict(self) -> str:
        """`FAILED`, or `UNSIGNED: ...`."""
        if any(row.status == "failed" for row in self.rows):
            return "FAILED"
        if self.pinned:
            return f"UNSIGNED: this {self.what} is the expected one; nobody whom you trust signed what it says"
        return f"UNSIGNED: nobody signed this {self.what}, and no full hash says which one was expected"

    @property
    def exit_code(self) -> int:
        """0 when the bytes are pinned and nothing contradicts, else 3."""
        return 0 if self.pinned and self.verdict.startswith("UNSIGNED") else 3


def bytes_row(data: bytes, expected: Expected | None, what: str) -> Row:
    """What an expected hash, whole or cut, says about some bytes."""
    digest = Digest.of(data)
    size = f"{what.rpartition('/')[2]}, these {len(data):,} bytes,"
    if expected is None:
        text = f"{size} have the SHA-256 {digest}; nothing says which was expected"
        return Row("unverified", text, "--expect sha256:HEX, from the code or the page where you found it")
    if not expected.matches(digest):
        text = f"{size} have the SHA-256 {digest}; expected was {expected}"
        return Row("failed", text, "It was changed, replaced by a later version, or is another file than the code was made for")
    if expected.full:
        return Row("proven", f"{size} are the expected ones: {digest}")
    return Row("unverified", f"{size} have a SHA-256 that begins as expected. {prefix_text(expected)}", "Ask its author for all 64 digits")


def prefix_text(expected: Expected) -> str:
    """What the first digits of a hash prove, in plain words."""
    bits = 4 * len(expected.hex)
    return (
        f"The {len(expected.hex)} digits {expected.hex} are {bits} bits: an accident does not meet them. "
        f"A stranger needs about 2^{bits} tries for another file that does, and its author about 2^{bits // 2} for two files with one code"
        + (", which takes one machine minutes to hours" if bits <= 64 else "")
        + ", so they say which file is meant and do not prove that this is it"
    )

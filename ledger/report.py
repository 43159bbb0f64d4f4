"""What a verification found, as rows that a person understands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from store.digest import Digest

Status = Literal["proven", "attested", "self-reported", "unverified", "failed"]


@dataclass(frozen=True, slots=True)
class Row:
    """One finding.

    Attributes:
        status: `proven` was checked here and now. `attested` is signed by somebody trusted, and nobody confirmed it. `self-reported` is
            what something says about itself, signed by nobody. `unverified` could be checked and was not, or nobody trusted says it.
            `failed` contradicts what somebody signed or what was expected, or is vouched for by nobody.
        text: a sentence for people. hint: what to do about it. entry: the number of the entry it rests on.
        aside: it is about something else than the target, like the log that the entries come from: alone it verifies nothing.
        step: a word or two when it is one step of the way back to the sources, which may be told in one line with the others.
        bars: while it is open nothing is called verified, whatever else is proven: somebody expected something that cannot be checked.
    """

    status: Status
    text: str
    hint: str = ""
    entry: int | None = None
    aside: bool = False
    step: str = ""
    bars: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """All findings about one target, in the order in which they explain each other.

    Attributes:
        subjects: what the findings are about, for a verification summary: name -> digest. Empty when it has no digest of its own.
        inputs: what they rest on: name -> digest of attestations and the like.
        levels: how thoroughly it was looked at: see docs/auditing.md.
    """

    target: str
    rows: tuple[Row, ...]
    subjects: Mapping[str, Digest] = field(default_factory=dict)
    inputs: Mapping[str, Digest] = field(default_factory=dict)
    levels: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """`VERIFIED`, `VERIFIED with n claims unconfirmed`, `NOT VERIFIED`, or `FAILED`.

        One failed row is enough to fail. Without any proven one about the target nothing is verified, though nothing contradicts it either;
        nor is it with one that bars.
        """
        counts = Counter(row.status for row in self.rows)
        if counts["failed"]:
            return "FAILED"
        if not any(row.status == "proven" and not row.aside for row in self.rows) or any(row.bars for row in self.rows):
            return "NOT VERIFIED"
        if unconfirmed := counts["attested"] + counts["self-reported"] + counts["unverified"]:
            return f"VERIFIED with {unconfirmed} claim{'s' if unconfirmed > 1 else ''} unconfirmed"
        return "VERIFIED"

    @property
    def exit_code(self) -> int:
        """0, or 3 when the verdict is FAILED or NOT VERIFIED."""
        return 0 if self.verdict.startswith("VERIFIED") else 3


def printable(text: str, limit: int = 200) -> str:
    """Text of others, safe on a terminal: one line, no control characters, not endless."""
    shown = "".join(char if char.isprintable() else "?" for char in text)
    return shown if len(shown) <= limit else shown[:limit] + ".."


def entries(numbers: list[int]) -> str:
    """`entry 3`, `entries 3-5, 9`; numbers in ascending order."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    texts = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    rest = len(texts) - 4
    more = f" and {rest} more range{'s' if rest > 1 else ''}" if rest > 0 else ""
    return f"entr{'y' if len(numbers) == 1 else 'ies'} {', '.join(texts[:4])}{more}"

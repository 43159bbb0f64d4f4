"""The same facts as text for people or as JSON for programs, and how numbers look in the text.

Whatever a ledger or a file says may be written by a stranger, so control characters never reach the terminal: a line is one line,
and only colours that this module put there are colours.

>>> size(17_213_440), duration(0.21), duration(100), count(41212), short("sha256:90aa0c27" + "0" * 56)
('17.2 MB', '0.2 s', '1 min 40 s', '41,212', '90aa0c27')
>>> clean("a\\x1b[32mproven\\nb")
'a\\\\x1b[32mproven\\\\x0ab'
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TextIO

Style = Literal["red", "green", "yellow", "dim", "bold"]

_CODES: Mapping[Style, str] = {"red": "31", "green": "32", "yellow": "33", "dim": "2", "bold": "1"}
_OURS = re.compile(r"(\x1b\[(?:0|1|2|31|32|33)m)")
# C0, DEL, C1, line and paragraph separators; what makes a line read backwards; what is there and not seen, so that two names look alike.
_CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
    "\xad\u115f\u1160\u180e\u200b-\u200d\u2060-\u2064\u3164\ufeff\uffa0\U000e0000-\U000e007f]"
)


def clean(text: object) -> str:
    """Text from anywhere, safe for a terminal and on one line: control characters become visible escapes."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}" if ord(found[0]) < 256 else f"\\u{ord(found[0]):04x}", str(text))


def wants_color(stream: TextIO) -> bool:
    """Colours are for a terminal whose owner did not say no (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class Output:
    """Where a command's facts go.

    Attributes:
        json: one JSON object instead of text.
        color: whether `paint` paints.
    """

    def __init__(self, *, json: bool = False, stream: TextIO | None = None, errors: TextIO | None = None) -> None:
        self.json = json
        self.stream = sys.stdout if stream is None else stream
        self.errors = sys.stderr if errors is None else errors
        self.color = not json and wants_color(self.stream)

    def paint(self, text: object, *styles: Style) -> str:
        """The text in a style; plain where colours are not wanted."""
        body = clean(text)
        return "".join(f"\x1b[{_CODES[style]}m" for style in styles) + body + "\x1b[0m" if self.color and styles and body else body

    def line(self, text: str = "") -> None:
        """One line of text; silent with `--json`."""
        if not self.json:
            self.stream.write(self._safe(text) + "\n")

    def lines(self, texts: Iterable[str]) -> None:
        """Several lines of text."""
        for text in texts:
            self.line(text)

    def aside(self, text: str) -> None:
        """One line beside the answer (a warning, what was set up); on standard error with `--json`, so that the JSON stays whole."""
        (self.errors if self.json else self.stream).write(self._safe(text) + "\n")

    def object(self, facts: Any) -> None:
        """One JSON object on one line; silent without `--json`."""
        if self.json:
            self.stream.write(dumps(facts) + "\n")

    def show(self, facts: Any, text: Callable[[], Iterable[str]] | Iterable[str]) -> None:
        """The facts, in the form that was asked for."""
        self.object(facts)
        if not self.json:
            self.lines(text() if callable(text) else text)

    def _safe(self, text: str) -> str:
        if not self.color:
            return clean(text)
        return "".join(piece if _OURS.fullmatch(piece) else clean(piece) for piece in _OURS.split(text))


# --- JSON ----------------------------------------------------------------------------------------------------------------------


def dumps(value: Any) -> str:
    """JSON on one line: dataclasses as objects, digests whole, paths as text, times in ISO 8601; safe for a terminal like `clean`."""
    text = json.dumps(value, default=_plain, ensure_ascii=False, separators=(", ", ": "))
    return _CONTROL.sub(lambda found: json.dumps(found[0])[1:-1], text)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): item for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return list(value)
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value)


# --- numbers and names in text -------------------------------------------------------------------------------------------------


def size(size_bytes: int) -> str:
    """Bytes in the unit that keeps three digits, decimal as disks and the Hub count them.

    >>> [size(n) for n in (0, 999, 1000, 4_102_344, 275_000_000_000)]
    ['0 bytes', '999 bytes', '1.0 kB', '4.1 MB', '275 GB']
    """
    if size_bytes < 1000:
        return f"{size_bytes} byte{'' if size_bytes == 1 else 's'}"
    value = float(size_bytes)
    for unit in ("kB", "MB", "GB", "TB", "PB"):
        value /= 1000
        if value < 999.95 or unit == "PB":
            break
    return f"{value:.0f} {unit}" if value >= 99.95 else f"{value:.1f} {unit}"


def duration(seconds: float) -> str:
    """A length of time, in the two units that matter.

    >>> [duration(s) for s in (0.004, 0.3, 21.44, 59.97, 100, 3600, 93784)]
    ['0.0 s', '0.3 s', '21.4 s', '1 min 0 s', '1 min 40 s', '1 h 0 min', '1 d 2 h']
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def ago(then: datetime, now: datetime) -> str:
    """How long ago, roughly; a time that is ahead of this clock says so.

    >>> from datetime import timedelta, timezone
    >>> noon = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
    >>> ago(noon - timedelta(hours=2, minutes=10), noon), ago(noon, noon), ago(noon + timedelta(hours=1), noon)
    ('2 h ago', 'just now', '1 h ahead of this clock')
    """
    seconds = int((now - then).total_seconds())
    if -5 < seconds < 5:
        return "just now"
    unit, number = next((name, abs(seconds) // length) for name, length in _AGES if abs(seconds) >= length)
    return f"{number} {unit} {'ago' if seconds > 0 else 'ahead of this clock'}"


_AGES = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))


def count(number: int) -> str:
    """A count with separators."""
    return f"{number:,}"


def many(number: int, singular: str, plural: str = "") -> str:
    """A count with its noun.

    >>> many(1, "entry", "entries"), many(31, "entry", "entries"), many(2, "action")
    ('1 entry', '31 entries', '2 actions')
    """
    return f"{count(number)} {singular if number == 1 else plural or singular + 's'}"


def short(digest: object, digits: int = 8) -> str:
    """The first hex digits of a digest or key, for people; JSON has it whole."""
    return str(digest).removeprefix("sha256:")[:digits]


def place(path: Path) -> str:
    """A path as a person would type it here: relative to the working folder, or from `~`."""
    full = path.absolute()
    for base, start in ((Path.cwd(), ""), (Path.home(), "~/")):
        if full.is_relative_to(base) and base != Path(base.anchor):
            return start + str(full.relative_to(base)) if full != base else (start.rstrip("/") or ".")
    return str(full)


Align = Literal["<", ">"]


def table(rows: Sequence[Sequence[str]], align: str = "") -> list[str]:
    """Columns as wide as their widest cell, two spaces apart, no trailing blanks.

    Args:
        rows: the same number of cells each; a cell may hold colours.
        align: `<` or `>` for each column; `<` where nothing is said.

    >>> table([["base", "17.0 MB"], ["pruned", "5.4 MB"]], "<>")
    ['base    17.0 MB', 'pruned   5.4 MB']
    """
    if not rows:
        return []
    widths = [max(_width(row[column]) for row in rows) for column in range(len(rows[0]))]
    sides = align.ljust(len(widths), "<")
    return ["  ".join(_pad(cell, width, side) for cell, width, side in zip(row, widths, sides, strict=True)).rstrip() for row in rows]


def _width(cell: str) -> int:
    return len(_OURS.sub("", cell))


def _pad(cell: str, width: int, side: str) -> str:
    blanks = " " * (width - _width(cell))
    return blanks + cell if side == ">" else cell + blanks

r"""A calibration set: JSON lines, one sample a line, `{"text": "...", "domain": "prose"}` (or `content`; the domain may be missing).

It is cut into blocks of consecutive samples, each an object of its own, so a larger set with the same beginning shares its blocks.

>>> list(blocks(['{"text": "a"}\n', '{"content": "b", "domain": "code", "id": 7}\n', "\n", '{"text": "c"}'], 2))
[b'{"domain":"all","text":"a"}\n{"domain":"code","text":"b"}\n', b'{"domain":"all","text":"c"}\n']
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from stages.errors import InputError, SpecError
from store import canonical
from store.errors import CanonicalError

NO_DOMAIN = "all"
"""Domain of samples that name none."""

_MAX_DOMAIN = 64


@dataclass(frozen=True, slots=True)
class Sample:
    """One text and its domain."""

    text: str
    domain: str


def parse_line(line: str | bytes, number: int) -> Sample | None:
    """One line of a calibration set; None for a blank one.

    Args:
        line: with or without its end.
        number: of the line, from 1, for messages.

    Raises:
        InputError: it is not an object with a text.
    """
    data = line.encode() if isinstance(line, str) else line
    if not data.strip():
        return None
    try:
        value = canonical.loads(data)
    except CanonicalError as error:
        raise InputError(f"calibration set, line {number}: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f'calibration set, line {number}: expected an object like {{"text": "..."}}, got a {type(value).__name__}')
    text = value.get("text", value.get("content"))
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"calibration set, line {number}: has no text (expected a text under `text` or `content`, got {text!r})")
    domain = value.get("domain", NO_DOMAIN)
    if not isinstance(domain, str) or not 0 < len(domain) <= _MAX_DOMAIN or not domain.isprintable():
        raise InputError(f"calibration set, line {number}: its domain must be 1 to {_MAX_DOMAIN} printable characters, got {domain!r}")
    return Sample(text, domain)


def blocks(lines: Iterable[str | bytes], size: int) -> Iterator[bytes]:
    """Cut a calibration set into blocks of `size` samples, the last one shorter; each is canonical JSON lines of domain and text.

    Args:
        lines: of the file, in order.
        size: samples per block.

    Raises:
        InputError: a line is wrong, or there is no sample at all. SpecError: `size` is less than 1.
    """
    if size < 1:
        raise SpecError(f"a block of {size} samples holds nothing; it must be at least 1")
    held: list[bytes] = []
    empty = True
    for number, line in enumerate(lines, 1):
        sample = parse_line(line, number)
        if sample is None:
            continue
        empty = False
        held.append(canonical.dumps({"domain": sample.domain, "text": sample.text}) + b"\n")
        if len(held) == size:
            yield b"".join(held)
            held = []
    if empty:
        raise InputError('the calibration set is empty: it needs at least one line like {"text": "..."}')
    if held:
        yield b"".join(held)


def read_samples(data: bytes) -> list[Sample]:
    """The samples of a block.

    Raises:
        InputError: a line is wrong, or there is none.
    """
    found = [sample for number, line in enumerate(data.split(b"\n"), 1) if (sample := parse_line(line, number)) is not None]
    if not found:
        raise InputError("the block of samples is empty")
    return found

"""Where a text is cut: the source reads what stands before, the target is scored on what comes after.

The cut is the first place at or after a wished-for byte at which a token of the target ends. The wish is drawn, by SHA-256 of the text's
first bytes, from prompt_bytes / 2 to prompt_bytes. A text is used only where the tokens of the prefix alone are the first tokens of the
whole; the cut is then a function of the prefix alone: it is the first such place in the prefix's own tokens.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from stages.many_worlds import positions

if TYPE_CHECKING:
    from stages.hf_tokenizer import HfTokenizer

LeftOut = Literal["short", "seam"]
"""Why a text is not used: it ends too early, or one token of the target would span the cut."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A text of which the target reads a beginning and is scored on the rest.

    Attributes:
        ids: tokens of prefix and continuation, without special ones; the first `prefix_tokens` are the prefix's.
        ends: after how many bytes each ends; -1 where nobody can tell.
        prefix: bytes that the source reads. continuation: bytes that are scored.
    """

    ids: tuple[int, ...]
    ends: tuple[int, ...]
    prefix_tokens: int
    prefix: bytes
    continuation: bytes


def wish(data: bytes, prompt_bytes: int) -> int:
    """From how many bytes on a text may be cut; of its first prompt_bytes / 2 bytes alone.

    >>> wish(b"def add(a, b):", 40), wish(b"The river ran slowly past", 40), wish(b"The river ran slowly past the mill", 40)
    (33, 25, 25)
    """
    half = prompt_bytes // 2
    drawn = int.from_bytes(hashlib.sha256(data[:half]).digest()[:8], "big")
    return half + drawn % (prompt_bytes - half + 1)


def cut(tokenizer: HfTokenizer, text: str, prompt_bytes: int, continuation_bytes: int) -> Cut | LeftOut:
    """Cut a text, or say why not. At least half of `continuation_bytes` are scored, and no character is torn.

    Raises:
        InputError: a tokenizer that does not say which token comes from where.
    """
    data = positions.cut(text, 2 * (prompt_bytes + continuation_bytes))  # what is far behind the end could not change the tokens before it
    wanted = wish(data, prompt_bytes)
    ids, ends = positions.token_ends(tokenizer, data)
    places = {end: number for end, number in positions.last_at(ends).items() if _is_whole(data, end)}
    begin = min((end for end in places if end >= wanted), default=None)
    if begin is None:
        return "short"
    stop = max((end for end in places if begin < end <= begin + continuation_bytes), default=begin)
    prefix = data[:begin]
    if stop - begin < max(1, continuation_bytes // 2) or not prefix.decode().strip():
        return "short"
    alone, _ = positions.token_ends(tokenizer, prefix)
    count = places[begin] + 1
    if alone != ids[:count] or begin > 2 * prompt_bytes:
        return "seam"
    read = places[stop] + 1
    return Cut(tuple(ids[:read]), tuple(ends[:read]), count, prefix, data[begin:stop])


def _is_whole(data: bytes, end: int) -> bool:
    """Whether no character goes on over this place."""
    return end == len(data) or data[end] & 0xC0 != 0x80

"""Where two models have read the same: places in a text, counted in bytes.

A causal model's state behind a token is a function of the bytes up to that token's end, whatever its tokenizer cut before. So two models
are compared at byte p of a text exactly if each has a token that ends at p: both have then read the first p bytes and nothing else. A place
that lies inside a token of either model belongs to no pair. Nothing is interpolated and no token stands for its first part.

>>> ends_by_text(["Ġa", "Ã", "©"], " aé".encode())
[2, 3, 4]
>>> [shared([[2, 3, 4], [1, 2, 4]])]
[[2, 4]]
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from stages.byte_lm.vocabulary import BLANK, byte_alphabet
from stages.errors import InputError

if TYPE_CHECKING:
    from stages.hf_tokenizer import HfTokenizer

PERCENT = 100
_ALPHABET = byte_alphabet()


def cut(text: str, max_bytes: int) -> bytes:
    """The beginning of a text, of at most so many bytes and of whole characters."""
    data = text.encode()
    end = min(max_bytes, len(data))
    while 0 < end < len(data) and data[end] & 0xC0 == 0x80:  # the next byte goes on with a character
        end -= 1
    return data[:end]


def token_ends(tokenizer: HfTokenizer, data: bytes) -> tuple[list[int], list[int]]:
    """(ids, ends): the tokens of a text without special ones, and after how many bytes of the text each ends; -1 where nobody can tell.

    Byte-level and SentencePiece tokens spell the text out; the ends are then exact, inside of characters too, and are taken only when the
    tokens put together are the text. Other tokenizers give the characters that each token came from. Where they leave out characters
    between two tokens (blanks that were trimmed), it is not known which of the two read them, and the end before the gap is -1.

    Raises:
        InputError: a slow tokenizer that keeps no account of what came from where.
    """
    text = data.decode()
    inner = tokenizer.tokenizer
    if not inner.is_fast:
        raise InputError(f"{type(inner).__name__} does not say which token comes from where; save the model with its tokenizer.json")
    made = inner(text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True, verbose=False)
    ids: list[int] = made["input_ids"]
    exact = ends_by_text(inner.convert_ids_to_tokens(ids), data)
    return ids, ends_by_offsets(made["offset_mapping"], text) if exact is None else exact


def ends_by_text(names: Sequence[str], data: bytes) -> list[int] | None:
    """Ends of tokens (by name, as the tokenizer writes them) that spell `data` out, in either of two spellings; None when they do not."""
    for spell, lead in ((_byte_level, b""), (_sentencepiece, b""), (_sentencepiece, b" ")):
        pieces = [spell(name) for name in names]
        if None in pieces or b"".join(piece for piece in pieces if piece) != lead + data:
            continue
        ends, end = [], -len(lead)
        for piece in pieces:
            end += len(piece or b"")
            ends.append(max(end, 0))
        return ends
    return None


def _byte_level(name: str) -> bytes | None:
    return bytes(_ALPHABET[char] for char in name) if all(char in _ALPHABET for char in name) else None


def _sentencepiece(name: str) -> bytes | None:
    if len(name) == 6 and name.startswith("<0x") and name.endswith(">"):
        return bytes([int(name[3:5], 16)])
    return name.replace(BLANK, " ").encode()


def ends_by_offsets(offsets: Sequence[tuple[int, int]], text: str) -> list[int]:
    """Ends in bytes from spans of characters; -1 before a gap, and where a later token of the same character ends there too."""
    at = [0]
    for char in text:
        at.append(at[-1] + len(char.encode()))
    nexts = [*(start for start, _ in offsets[1:]), len(text)]
    return [at[stop] if following == stop else -1 for (_, stop), following in zip(offsets, nexts, strict=True)]


def last_at(ends: Sequence[int]) -> dict[int, int]:
    """End -> number of the last token that ends there; ends of 0 (nothing was read) and -1 are left out."""
    return {end: number for number, end in enumerate(ends) if end > 0}


def shared(ends: Sequence[Sequence[int]]) -> list[int]:
    """The places where every model has a token's end, ascending."""
    return sorted(set(ends[0]).intersection(*ends[1:])) if ends else []


def key_of(data: bytes) -> int:
    """64 bits of SHA-256, as a signed integer: a name for a text, or for the first bytes of one."""
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big", signed=True)


def prefix_keys(data: bytes, ends: Sequence[int]) -> list[int]:
    """`key_of(data[:end])` of ascending ends, in one pass."""
    state, at, keys = hashlib.sha256(), 0, []
    for end in ends:
        state.update(data[at:end])
        at = end
        keys.append(int.from_bytes(state.copy().digest()[:8], "big", signed=True))
    return keys


def is_held_out(text_key: int, percent: int) -> bool:
    """Whether a text is kept from training: a function of the text alone, so the same text is on the same side in every corpus."""
    return text_key % PERCENT < percent

"""Where a tokenizer cuts a text before BPE, and when two texts are cut alike.

The cutting is done by the tokenizer's own pre-tokenizer, whatever it is. To ask it seldom, characters that none of its patterns can tell
apart are replaced by one of their kind: what it does with `the` it does with `cow`. Kinds are made finer than any pattern: the Unicode
category, whether ASCII, blank and line ends by themselves, and whatever else the patterns name.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from stages.byte_lm.vocabulary import Vocabulary, pretokenizers

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_MARKS = "'’"
_REACH = 2
"""Patterns name letters no further behind these than this (contractions); elsewhere letters of one category are alike."""


@dataclass(frozen=True, slots=True)
class Cut:
    """How a text is cut.

    Attributes:
        borders: places (characters) where a piece begins, without 0.
        single: pieces (by their first place) that are added tokens: one token, whatever BPE would say.
    """

    borders: tuple[int, ...]
    single: frozenset[int] = frozenset()


class Pieces:
    """The cutting of one tokenizer."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._whole = vocabulary.kind == "sentencepiece"
        self._cutter = vocabulary.backend.pre_tokenizer
        added = sorted(vocabulary.added, key=len, reverse=True)
        self._added = re.compile("|".join(map(re.escape, added))) if added else None
        self._patterns = [] if self._whole else _patterns(vocabulary)
        text = self._text = "".join([*self._patterns, *added])
        plain = re.sub(r"\\[pP]\{[^}]*\}|\\.|\(\?[a-z]*[:=!<]+|\{[\d,]*\}", " ", text)
        plain = re.sub(r"[A-Za-z0-9]-[A-Za-z0-9]", " ", plain)
        letters = {char for char in plain if char.isalnum()} | {char for content in added for char in content if char.isalnum()}
        self._letters = {form for char in letters for form in (char, char.lower(), char.upper())}
        """Letters that are named themselves."""
        after_mark = not added and all(_named_after_a_mark(pattern) for pattern in self._patterns)
        self._everywhere = bool(self._letters) and not after_mark
        counted = re.findall(r"(\\[pP]\{[^}]*\}|\\.|\]|\)|.)\{\d", text)
        self._runs = all(item in (r"\p{N}", r"\d", r"\p{Nd}") for item in counted) and not self._everywhere
        """Whether a run of letters is cut as any longer one is."""
        self._ranges = [(a, b) for a, b in re.findall(r"(.)-(.)", text) if not (a.isascii() and b.isascii())]
        scripts = {name for name in re.findall(r"\\[pP]\{\^?([^}]*)\}", text) if len(name) > 2}
        self._scripts = sorted(scripts)
        self._kinds: dict[str, str] = {}
        self._first: dict[tuple[object, ...], str] = {}
        self._cuts: dict[str, Cut] = {}
        self._examples: dict[bytes, dict[str, list[str]]] = {}
        for code in range(0x21, 0x7F):
            self._kind(chr(code), False)  # so that letters that are not named stand for those that are
        firsts = {text.decode()[0] for text in vocabulary.texts if text and _is_utf8(text)}
        self._nexts = {
            exactly: () if self._whole else tuple(sorted({self._kind(char, exactly) for char in firsts})) for exactly in (False, True)
        }
        self._unsure = {char for char in self._nexts[True] if self._moved_by_more(char)}

    @property
    def never(self) -> bool:
        """Whether a text is one piece always."""
        return self._whole

    def cut(self, text: str) -> Cut:
        """Where a text that begins at the beginning of a piece is cut."""
        if self._whole:
            return Cut(())
        found = self._cuts.get(text)
        if found is None:
            if len(self._cuts) > 1 << 18:
                self._cuts.clear()
            found = self._cuts[text] = self._cut(text)
        return found

    def _cut(self, text: str) -> Cut:
        borders: list[int] = []
        single: list[int] = []
        start = 0
        for match in self._added.finditer(text) if self._added else ():
            borders += self._split(text[start : match.start()], start)
            borders.append(match.start())
            single.append(match.start())
            start = match.end()
        borders += self._split(text[start:], start)
        return Cut(tuple(item for item in borders if item), frozenset(single))

    def _split(self, text: str, offset: int) -> list[int]:
        if not text:
            return []
        if self._cutter is None:
            return [offset]
        # A part may be no character of its own (bytes of one character are never parted): only where parts begin matters.
        return sorted({offset + begin for _, (begin, _) in self._cutter.pre_tokenize_str(text)})

    def _moved_by_more(self, char: str) -> bool:
        """Whether what follows this character can move borders before its end, as a letter after two blanks does."""
        for before in ("", char, " ", "x", "x" + char, "1"):
            text = before + char
            borders = self.cut(text).borders
            if any(tuple(item for item in self.cut(text + more).borders if item < len(text)) != borders for more in self._nexts[True]):
                return True
        return False

    def unsure(self, text: str) -> bool:
        """Whether it depends on the next character how the end of this text is cut."""
        if self._whole or not text:
            return False
        return self._kind(text[-1], True) in self._unsure or any(mark in text[-3:] for mark in _MARKS)

    def nexts(self, *, exactly: bool) -> tuple[str, ...]:
        """One character of each kind that a token can begin with."""
        return self._nexts[exactly]

    def marked(self, text: str) -> bool:
        """Whether letters that patterns name matter right behind this text."""
        return self._everywhere or (bool(self._letters) and any(mark in text[-_REACH:] for mark in _MARKS))

    def alike(self, text: str, *, exactly: bool = False) -> tuple[str, tuple[int, ...]]:
        """A text that is cut alike, and where each of its characters stands in the given one.

        Args:
            text: which begins where a piece begins, or behind another text.
            exactly: whether that other text is `marked`.
        """
        kinds = [
            self._kind(char, (exactly and place < _REACH) or self.marked(text[max(0, place - _REACH) : place]))
            for place, char in enumerate(text)
        ]
        if not self._runs:
            return "".join(kinds), tuple(range(len(text)))
        kept: list[int] = []
        for number, char in enumerate(kinds):
            if 1 < number < len(kinds) - 1 and kinds[number - 1] == kinds[number - 2] == char == kinds[number + 1] and char.isalpha():
                continue  # inside a run: two at its beginning and one at its end stay
            kept.append(number)
        return "".join(kinds[number] for number in kept), tuple(kept)

    def _kind(self, char: str, exactly: bool) -> str:
        named = char.casefold() in self._letters
        if exactly and named:
            return char
        found = self._kinds.get(char)
        if found is None:
            if char in " \r\n" or (not named and char in self._text):
                found = char
            else:
                key = (
                    unicodedata.category(char),
                    char.isascii(),
                    char in "\t\v\f\x85" or "\x1c" <= char <= "\x1f",  # engines differ on which controls are blanks
                    "\x1c" <= char <= "\x1f",
                    *(a <= char <= b for a, b in self._ranges),
                    *(self._in_script(name, char) for name in self._scripts),
                    char if char in self._letters and not char.isascii() else "",
                    _MARKS.find(char),
                )
                # A named letter stands for no other: it must not appear where there was none.
                found = self._first.get(key) or char
                if not named:
                    self._first[key] = found
            self._kinds[char] = found
        return found

    def _in_script(self, name: str, char: str) -> bool:
        import regex  # transformers brings it

        return regex.fullmatch(rf"\p{{{name}}}", char) is not None

    def completions(self, start: bytes) -> dict[str, list[str]]:
        """Kind -> characters whose UTF-8 bytes begin with `start` (not whole ones).

        All of them up to U+FFFF; beyond, a few of every 64.
        """
        found = self._examples.get(start)
        if found is None:
            codes = _codes(start)
            chars = [chr(code) for code in codes if code < 0x40000 or code & 63 < 4]
            groups: dict[tuple[str, int], list[str]] = {}
            for char, category in zip(chars, map(unicodedata.category, chars), strict=True):
                if category != "Cs":
                    groups.setdefault((category, ord(char) >> 6 if codes.start > 0xFFFF else 0), []).append(char)
            found = self._examples[start] = {}
            for group in groups.values():
                several = self._ranges or self._scripts or codes.start < 0x3000
                for char in group[:4] if codes.start > 0xFFFF else group:
                    found.setdefault(self._kind(char if several else group[0], False), []).append(char)
        return found


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _codes(start: bytes) -> range:
    """Code points whose UTF-8 begins with these bytes."""
    first = start[0]
    size, lowest = (2, 0x80) if first < 0xE0 else (3, 0x800) if first < 0xF0 else (4, 0x10000)
    code = first & (0x7F >> size)
    for byte in start[1:]:
        code = code << 6 | byte & 0x3F
    shift = 6 * (size - len(start))
    return range(max(code << shift, lowest), min((code + 1) << shift, 0x110000))


def _patterns(vocabulary: Vocabulary) -> list[str]:
    patterns = []
    for step in pretokenizers(vocabulary.settings):
        if step["type"] == "Split":
            pattern = step["pattern"]
            patterns.append(pattern["Regex"] if "Regex" in pattern else re.escape(pattern["String"]))
        elif step["type"] == "ByteLevel" and step.get("use_regex", True):
            patterns.append(_GPT2)
    return patterns


def _named_after_a_mark(pattern: str) -> bool:
    """Whether letters are named only in alternatives that begin with an apostrophe, as in `'s|'t` or `'(?i:[sdmt]|ll)`."""
    plain = re.sub(r"'\(\?i:[^()]*\)|\(\?i:'[^()]*\)", " ", pattern)
    plain = re.sub(r"'[a-zA-Z]{1,2}(?=\||\)|$)", " ", plain)
    plain = re.sub(r"\\[pP]\{[^}]*\}|\\.|\(\?[a-z]*[:=!<]+|\{[\d,]*\}|[A-Za-z0-9]-[A-Za-z0-9]", " ", plain)
    return not any(char.isalnum() for char in plain)

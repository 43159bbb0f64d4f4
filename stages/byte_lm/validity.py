"""Which token can come next, so that the tokens stay what the tokenizer itself makes of their text.

A sequence of tokens is whole when encoding the text that it spells gives it back, pre-tokenizer included. It is, if and only if every
border between pieces is a border between tokens and every two neighbours inside a piece can stand side by side (`stages.byte_lm.merges`).
What can come next is what begins a whole sequence: a text can also go on where it cannot end. Two single blanks are no text's tokens where
there is a token for both, but they begin those of two blanks and a letter, of which GPT-2 leaves one blank to the letter.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from stages.byte_lm.merges import Merges
from stages.byte_lm.pieces import Cut, Pieces
from stages.byte_lm.vocabulary import Vocabulary

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_KEPT = 2
"""Pieces that are remembered behind the end: what is added can move borders in the last one, and join it with the one before."""


@dataclass(frozen=True, slots=True)
class Place:
    """What the tokens so far leave open.

    Attributes:
        tail: the last pieces, as far as their characters are complete; they begin where a piece begins.
        partial: bytes of an unfinished character after them.
        tokens: (id, first byte counted from the beginning of `tail`) of the tokens in them.
        size: bytes of `tail` and `partial`.
        open: False where a text cannot end: inside a character, after the tokenizer's own lead, where only more text makes these tokens.
    """

    tail: str = ""
    partial: bytes = b""
    tokens: tuple[tuple[int, int], ...] = ()
    size: int = 0
    open: bool = True


class Rule(Protocol):
    """Which tokens may follow."""

    def root(self) -> Place:
        """Before the first token."""
        ...

    def after(self, place: Place, token: int) -> Place:
        """After one more."""
        ...

    def allowed(self, place: Place) -> NDArray[np.bool_]:
        """(N,) over `Vocabulary.order`. May not be changed."""
        ...


class AllTokenisations:
    """Every sequence of tokens: the probability of a text is then that of all ways to write it. For short texts only."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        import numpy as np

        self._all: NDArray[np.bool_] = np.ones(len(vocabulary.order), dtype=np.bool_)

    def root(self) -> Place:
        """See `Rule`."""
        return Place()

    def after(self, place: Place, token: int) -> Place:
        """See `Rule`."""
        return place

    def allowed(self, place: Place) -> NDArray[np.bool_]:
        """See `Rule`."""
        return self._all


@dataclass(frozen=True, slots=True)
class _Form:
    """A way to see a token as characters: itself, or with a character that completes its last bytes, or with one that follows.

    Attributes:
        place: of the token in `Vocabulary.order`.
        text: in which no border may be, ...
        more: ... and what follows it.
    """

    place: int
    text: str
    more: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """Tokens that leave the text before them cut in the same way.

    Attributes:
        borders: characters of the tail where pieces begin; `len(tail)` among them where the token begins a piece.
        single: the token is an added one, a piece by itself.
        mask: (N,) which.
    """

    borders: tuple[int, ...]
    single: bool
    mask: NDArray[np.bool_]


class ValidTokenisations:
    """The sequences that the tokenizer itself makes."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        import numpy as np

        self.vocabulary, self.merges, self.pieces = vocabulary, Merges(vocabulary), Pieces(vocabulary)
        order = vocabulary.order
        self._pairs: dict[int, NDArray[np.bool_]] = {}
        self._groups: dict[tuple[str, bytes, bool, bool], tuple[_Group, ...]] = {}
        self._chains: dict[tuple[int, bytes], bool] = {}
        self._witnesses: dict[tuple[int, bytes], tuple[str, ...]] = {}
        self._added: NDArray[np.bool_] = np.isin(order, sorted(vocabulary.added.values()))
        self._reachable: NDArray[np.bool_] = self.merges.reachable[order]
        self._chars = self.merges.chars
        self._forms: dict[bool, list[_Form]] = {}
        self._nexts: dict[str, list[int]] | None = None
        self._open_ends: dict[str, NDArray[np.bool_]] = {}
        # With ignore_merges a piece that is a token is that token, even where merges would not make it.
        whole = bool(vocabulary.model.get("ignore_merges")) and not self.pieces.never
        self._only_whole: dict[str, int] = {
            vocabulary.texts[i].decode(): i
            for i in order[~(self._reachable | self._added)].tolist()
            if whole and _is_text(vocabulary.texts[i])
        }
        self._alone: NDArray[np.bool_] = self._reachable | np.isin(order, sorted(self._only_whole.values()))

    # --- places ------------------------------------------------------------------------------------------------------------------

    def root(self) -> Place:
        """Before the first token."""
        return Place()

    def after(self, place: Place, token: int) -> Place:
        """After a token that is allowed there."""
        data = place.partial + self.vocabulary.texts[token]
        whole, partial = _complete(data)
        tail, size = place.tail + whole, place.size + len(self.vocabulary.texts[token])
        tokens = (*place.tokens, (token, place.size))
        if self.pieces.never:
            # One piece: only the last token matters. No text has the lead alone: the empty one has no token at all.
            text = self.vocabulary.texts[token]
            lead_alone = not place.tokens and text == self.vocabulary.lead
            return Place("", partial, ((token, 0),), len(text), not partial and not lead_alone)
        starts = _byte_starts(tail)
        borders = self.pieces.cut(tail).borders
        firsts = {first for _, first in tokens}
        right = not partial and self._fits(tokens, [starts[border] for border in borders], firsts)
        if len(borders) >= _KEPT:
            dropped = starts[borders[-_KEPT]]
            if dropped in firsts:
                tokens = tuple((number, first - dropped) for number, first in tokens if first >= dropped)
                tail, size = tail[borders[-_KEPT] :], size - dropped
        return Place(tail, partial, tokens, size, right and not self._must_go_on(tail, tokens))

    def _must_go_on(self, tail: str, tokens: Sequence[tuple[int, int]]) -> bool:
        """Whether the last piece is written by merges where, if it ended here, it would be one token by itself."""
        if not self._only_whole:
            return False
        borders = self.pieces.cut(tail).borders
        last = tail[borders[-1] if borders else 0 :]
        return last in self._only_whole and self._only_whole[last] != tokens[-1][0]

    # --- what may follow ---------------------------------------------------------------------------------------------------------

    def allowed(self, place: Place) -> NDArray[np.bool_]:
        """(N,) over `Vocabulary.order`."""
        mask = self._mask(place, more=False)
        if self.vocabulary.lead and not place.tokens:
            # Every text begins with the lead.
            span = self.vocabulary.span(self.vocabulary.lead)
            mask[: 0 if span is None else span.low] = False
            mask[0 if span is None else span.high :] = False
        # What follows is asked for only where it can matter: it is many questions.
        if self._undecided(place, mask):
            mask |= self._mask(place, more=True)
        return mask

    def _undecided(self, place: Place, mask: NDArray[np.bool_]) -> bool:
        """Whether some token was not found right, and might be if more text follows."""
        if self.pieces.never:
            return False
        behind = place.tail[-2:]
        if behind not in self._open_ends:
            unsure = [self._ends_unsure(behind, data) for data in self.vocabulary.sorted_texts]
            self._open_ends[behind] = self._alone & unsure
        return bool((self._open_ends[behind] & ~mask).any())

    def _ends_unsure(self, behind: str, data: bytes) -> bool:
        text, _ = _complete_or_none(data)
        return bool(text) and self.pieces.unsure((behind + (text or ""))[-3:])

    def _mask(self, place: Place, *, more: bool) -> NDArray[np.bool_]:
        import numpy as np

        groups, offsets = self._grouped(place, more=more)
        mask: NDArray[np.bool_] = np.zeros(len(self.vocabulary.order), dtype=np.bool_)
        firsts = {first for _, first in place.tokens} | {place.size}
        ends_whole = self._must_go_on(place.tail, place.tokens) if place.tokens and not place.partial else False
        for group in groups:
            borders = tuple(offsets[border] for border in group.borders)
            joined = not place.tokens or (place.size if not place.partial else -1) in borders
            if not self._fits(place.tokens, borders, firsts) or (joined and ends_whole):
                continue
            if group.single:
                if joined:
                    mask |= group.mask & self._added
            elif joined:
                mask |= group.mask & self._alone
            else:
                mask |= group.mask & self._pair(place.tokens[-1][0])
        return mask

    def _fits(self, tokens: Sequence[tuple[int, int]], borders: Sequence[int], firsts: AbstractSet[int]) -> bool:
        """Whether tokens are right where the pieces begin at these bytes."""
        if any(border not in firsts for border in borders):
            return False
        return all(
            first in borders or bool(self._pair(left)[self.vocabulary.place[right]])
            for (left, _), (right, first) in itertools.pairwise(tokens)
        )

    def _pair(self, token: int) -> NDArray[np.bool_]:
        row = self._pairs.get(token)
        if row is None:
            row = self._pairs[token] = self.merges.right_of(token)[self.vocabulary.order]
        return row

    def _grouped(self, place: Place, *, more: bool) -> tuple[tuple[_Group, ...], Sequence[int]]:
        """Groups for texts like this one, and at which byte each character (of the text that stands for it) begins."""
        exactly = self.pieces.marked(place.tail)
        text, kept = self.pieces.alike(place.tail)
        key = (text, place.partial, exactly, more)
        known = self._groups.get(key)
        if known is None:
            known = self._groups[key] = self._make(*key)
        starts = _byte_starts(place.tail)
        return known, [starts[number] for number in kept] + [len(place.tail.encode())]

    def _make(self, tail: str, partial: bytes, exactly: bool, more: bool) -> tuple[_Group, ...]:
        import numpy as np

        found: dict[tuple[tuple[int, ...], bool], list[int]] = {}
        seen: dict[tuple[str, str], tuple[tuple[int, ...], bool, bool] | None] = {}
        for form in self._all_forms(tail, partial, exactly, more):
            key = (form.text, form.more)
            if key not in seen:
                seen[key] = self._behaviour(tail, form.text, form.more, bool(partial))
            behaviour = seen[key]
            if behaviour is None or (form.more and not behaviour[2] and not self._goes_on(form.place, form.more)):
                continue
            found.setdefault(behaviour[:2], []).append(form.place)
        groups = []
        for (borders, single), places in sorted(found.items()):
            mask = np.zeros(len(self.vocabulary.order), dtype=np.bool_)
            mask[places] = True
            groups.append(_Group(borders, single, mask))
        return tuple(groups)

    def _behaviour(self, tail: str, text: str, more: str, partial: bool) -> tuple[tuple[int, ...], bool, bool] | None:
        """The borders in the tail, whether the token is a piece by itself, whether what follows begins a piece.

        None where a border would fall inside the token.
        """
        cut: Cut = self.pieces.cut(tail + text + more)
        inside, end = len(tail), len(tail) + len(text)
        if any(inside < border < end for border in cut.borders):
            return None
        single = not partial and inside in cut.single
        return tuple(border for border in cut.borders if border <= inside), single, end in cut.borders

    def _goes_on(self, number: int, more: str) -> bool:
        """Whether a token can be followed in the same piece by one that begins with a character of this kind."""
        if self._nexts is None:
            kinds: dict[str, list[int]] = {}
            for place, data in enumerate(self.vocabulary.sorted_texts):
                text, rest = _complete_or_none(data)
                for char in [text[0]] if text else self.pieces.completions(rest) if rest else ():
                    for exactly in (False, True):
                        kinds.setdefault(self.pieces.alike(char, exactly=exactly)[0], []).append(place)
            self._nexts = kinds
        places = self._nexts.get(more, [])
        return bool(self._pair(int(self.vocabulary.order[number]))[places].any())

    def _all_forms(self, tail: str, partial: bytes, exactly: bool, more: bool) -> Iterator[_Form]:
        """Every token as characters, in texts that are cut alike."""
        if partial:
            forms = self._completing(partial)
        else:
            if exactly not in self._forms:
                self._forms[exactly] = list(self._whole_forms(exactly))
            forms = iter(self._forms[exactly])
        if not more:
            yield from forms
            return
        for form in forms:
            end = (tail[-2:] + form.text)[-3:]
            if self.pieces.unsure(end):
                for char in self.pieces.nexts(exactly=self.pieces.marked(end)):
                    yield _Form(form.place, form.text, char)

    def _whole_forms(self, exactly: bool) -> Iterator[_Form]:
        """Tokens that begin where a character does."""
        for number, data in enumerate(self.vocabulary.sorted_texts):
            text, rest = _complete_or_none(data)
            if text is None:
                continue
            for end in self._witness(number, rest) if rest else ("",):
                yield _Form(number, self.pieces.alike(text + end, exactly=exactly)[0])

    def _completing(self, partial: bytes) -> Iterator[_Form]:
        """Tokens that go on inside a character."""
        for number, data in enumerate(self.vocabulary.sorted_texts):
            if not 0x80 <= data[0] <= 0xBF:
                continue
            text, rest = _complete_or_none(partial + data)
            if text is None or not self._may_be_bytes(text, partial):
                continue
            for end in self._witness(number, rest) if rest else ("",):
                yield _Form(number, text + end)

    def _may_be_bytes(self, text: str, partial: bytes) -> bool:
        """A character that has a token is not written in bytes (SentencePiece)."""
        return not (partial and text and text[0] in self._chars)

    def _witness(self, number: int, rest: bytes) -> tuple[str, ...]:
        """For a token that ends in `rest`, inside a character: a character of every kind that can complete it."""
        token = int(self.vocabulary.order[number])
        key = (token, rest)
        found = self._witnesses.get(key)
        if found is None:
            kinds = self.pieces.completions(rest)
            ways = (next((c for c in chars if self._completable(token, rest, c)), None) for chars in kinds.values())
            found = self._witnesses[key] = tuple(char for char in ways if char is not None)
        return found

    def _completable(self, token: int, rest: bytes, char: str) -> bool:
        return char not in self._chars and self._chain(token, char.encode()[len(rest) :])

    def _chain(self, token: int, data: bytes) -> bool:
        """Whether tokens can follow in the same piece that spell `data`, and perhaps more."""
        key = (token, data)
        known = self._chains.get(key)
        if known is None:
            known = self._chains[key] = self._search(token, data)
        return known

    def _search(self, token: int, data: bytes) -> bool:
        pair = self._pair(token)
        span = self.vocabulary.span(data)
        if span is not None and pair[span.low : span.high].any():
            return True
        for size in range(1, len(data)):
            span = self.vocabulary.span(data[:size])
            places = () if span is None else range(span.low, span.whole)
            if any(pair[place] and self._chain(int(self.vocabulary.order[place]), data[size:]) for place in places):
                return True
        return False


def _is_text(text: bytes) -> bool:
    whole, rest = _complete_or_none(text)
    return bool(text) and whole is not None and not rest


def _byte_starts(text: str) -> list[int]:
    """Where each character begins in UTF-8."""
    if text.isascii():
        return list(range(len(text)))
    starts, place = [], 0
    for char in text:
        starts.append(place)
        place += len(char.encode())
    return starts


def _complete(data: bytes) -> tuple[str, bytes]:
    whole, rest = _complete_or_none(data)
    assert whole is not None
    return whole, rest


def _complete_or_none(data: bytes) -> tuple[str | None, bytes]:
    """The characters, and the bytes of an unfinished one behind them; None where these bytes are no beginning of UTF-8."""
    for size in range(4):
        if size > len(data):
            break
        head, rest = data[: len(data) - size], data[len(data) - size :]
        try:
            text = head.decode()
        except UnicodeDecodeError:
            continue
        return (text, rest) if not rest or _unfinished(rest) else (None, b"")
    return None, b""


def _unfinished(rest: bytes) -> bool:
    """Whether these are the first bytes of some longer character."""
    first = rest[0]
    size = 2 if 0xC2 <= first <= 0xDF else 3 if 0xE0 <= first <= 0xEF else 4 if 0xF0 <= first <= 0xF4 else 0
    if len(rest) >= size or any(not 0x80 <= byte <= 0xBF for byte in rest[1:]):
        return False
    if len(rest) == 1:
        return True
    low, high = {0xE0: (0xA0, 0xBF), 0xED: (0x80, 0x9F), 0xF0: (0x90, 0xBF), 0xF4: (0x80, 0x8F)}.get(first, (0x80, 0xBF))
    return low <= rest[1] <= high

"""Which tokens can stand side by side inside one piece of text, so that BPE would cut it there too.

A sequence of tokens is what BPE makes of their bytes if and only if that holds for every two neighbours. (A merge across a border depends
on the two tokens at that border alone: what each of them has become by then is a history of its own, and the first merge across any border
would happen in those two alone as well.)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from stages.byte_lm.vocabulary import BLANK, Vocabulary

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_NEVER = 1 << 62


class Merges:
    """The merges of a vocabulary."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        ids: dict[str, int] = dict(vocabulary.model["vocab"])
        self._rank: dict[int, tuple[int, int, int]] = {}
        self._rights: dict[int, list[tuple[int, int]]] = {}
        self.ordered = True
        """Whether every token is made in one way, of tokens that are made before it. Then who merges first can be read off the ranks."""
        for rank, merge in enumerate(vocabulary.model["merges"]):
            left, right = merge.split(" ") if isinstance(merge, str) else merge
            if left + right not in ids:
                continue
            a, b, made = ids[left], ids[right], ids[left + right]
            if made in self._rank or any(part in self._rank and self._rank[part][0] >= rank for part in (a, b)):
                self.ordered = False
            self._rank[made] = (rank, a, b)
            self._rights.setdefault(a, []).append((rank, b))
        made_of = {part for _, a, b in self._rank.values() for part in (a, b)}
        self.ordered = self.ordered and not any(part not in self._rank and len(vocabulary.names[part]) > 1 for part in made_of)
        self._rows: dict[int, NDArray[np.bool_]] = {}

    @cached_property
    def _model(self) -> Any:
        """The BPE alone, with `ignore_merges` off."""
        from tokenizers import Tokenizer

        plain = {**self.vocabulary.settings, "model": {**self.vocabulary.model, "ignore_merges": False}}
        return Tokenizer.from_str(json.dumps(plain)).model

    def encode(self, name: str) -> list[int]:
        """BPE of one piece, written as tokens are."""
        return [token.id for token in self._model.tokenize(name)]

    @cached_property
    def reachable(self) -> NDArray[np.bool_]:
        """(V,) tokens that BPE gives for their own text."""
        import numpy as np

        vocabulary = self.vocabulary
        found = np.zeros(len(vocabulary.texts), dtype=np.bool_)
        added = set(vocabulary.added.values())
        for number in vocabulary.order.tolist():
            if self.is_byte(number):
                found[number] = vocabulary.texts[number].decode("latin-1") not in self.chars or vocabulary.texts[number][0] >= 0x80
            else:
                found[number] = number not in added and self.encode(vocabulary.names[number]) == [number]
        return found

    @cached_property
    def chars(self) -> frozenset[str]:
        """Characters that have a token of their own, in SentencePiece: they are never written in bytes."""
        if self.vocabulary.kind == "byte-level":
            return frozenset()
        names = (name for name in self.vocabulary.model["vocab"] if len(name) == 1)
        return frozenset(" " if name == BLANK else name for name in names)

    def is_byte(self, token: int) -> bool:
        """A byte of a character that the vocabulary lacks (SentencePiece): no merge has it."""
        name = self.vocabulary.names[token]
        return self.vocabulary.kind == "sentencepiece" and len(name) == 6 and name.startswith("<0x") and name.endswith(">")

    def right_of(self, token: int) -> NDArray[np.bool_]:
        """(V,) tokens that can follow `token` in the same piece."""
        row = self._rows.get(token)
        if row is None:
            row = self._rows[token] = self._by_ranks(token) if self.ordered else self._by_trying(token)
        return row

    def _by_ranks(self, token: int) -> NDArray[np.bool_]:
        """X is at the right edge of `token` until a merge of rank d(x) takes it in, y at the left edge of another until d(y): they merge
        with each other if the rank of (x, y) comes before both. Equal ranks are equal pairs, of which BPE takes the left one first.
        """
        row = self.reachable.copy()
        if not self.reachable[token]:
            row[:] = False
            return row
        for x, until in self._edge(token, right=True):
            for rank, y in self._rights.get(x, ()):  # ascending ranks
                if rank >= until:
                    break
                for other, limit in self._starting_with.get(y, ()):
                    if rank <= limit:
                        row[other] = False
        return row

    def _edge(self, token: int, *, right: bool) -> list[tuple[int, int]]:
        """What a token's edge was, and until which rank."""
        edge, until = [], _NEVER
        while True:
            edge.append((token, until))
            if token not in self._rank:
                return edge
            until, a, b = self._rank[token]
            token = b if right else a

    @cached_property
    def _starting_with(self) -> dict[int, Sequence[tuple[int, int]]]:
        """Y -> (token, rank until which y is its left edge)."""
        found: dict[int, list[tuple[int, int]]] = {}
        for token in self.vocabulary.order.tolist():
            for y, until in self._edge(token, right=False):
                found.setdefault(y, []).append((token, until))
        return {y: tuple(items) for y, items in found.items()}

    def _by_trying(self, token: int) -> NDArray[np.bool_]:
        row = self.reachable.copy()
        if not self.reachable[token]:
            row[:] = False
            return row
        if self.is_byte(token):
            return row
        names = self.vocabulary.names
        for other in self.vocabulary.order.tolist():
            if row[other] and not self.is_byte(other):
                row[other] = self.encode(names[token] + names[other]) == [token, other]
        return row

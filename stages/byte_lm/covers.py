"""The tree of tokens that cover a text: which tokens may stand where, byte after byte, before any model is asked.

A cover of the first n bytes is a sequence of tokens of which the last reaches byte n or goes beyond it. All covers share a tree. At each
byte some of its nodes still have tokens that fit what follows them (`Alive`); a token that ends exactly there is a new node.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stages.byte_lm.validity import Place, Rule
from stages.byte_lm.vocabulary import Span, Vocabulary

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(slots=True, eq=False)
class Node:
    """Tokens from the beginning to here.

    Attributes:
        token: the last one.
        position: its place in the sequence, the tokens before the text counted.
        end: bytes of text that the sequence spells.
        place: what the rule needs.
        allowed: (N,) what may follow, over `Vocabulary.order`.
        number: of the node in its tree, in the order they were made.
        log_p: log probability of the whole sequence; None until its parent was computed.
        path: columns of the cache that hold the sequence; None until it was computed.
        mass: (N,) float64 probability of each token that may follow, by `Vocabulary.order`; None before, and when it is needed no more.
        end_mass: probability that the text ends here.
        since: the byte from which it counts; see `stages.byte_lm.session`.
        last: bytes after which it was alive at last.
        orphans: sequences one token longer whose probability is not known yet.
    """

    parent: Node | None
    token: int
    position: int
    end: int
    place: Place
    allowed: NDArray[np.bool_]
    number: int
    log_p: float | None = None
    path: NDArray[np.intp] | None = None
    mass: NDArray[np.float64] | None = None
    end_mass: float = 0.0
    since: int | None = None
    last: int = 0
    orphans: list[Node] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Alive:
    """A node, and the tokens after it that fit the bytes so far."""

    node: Node
    span: Span


class Covers:
    """The covers of a growing text."""

    def __init__(self, vocabulary: Vocabulary, rule: Rule) -> None:
        self.vocabulary, self.rule = vocabulary, rule
        self._made = 0
        place = rule.root()
        # What stands before the text is computed as one chain whose last token is the root.
        self.root = self._node(None, vocabulary.start[-1], len(vocabulary.start) - 1, -len(vocabulary.lead), place)
        alive: tuple[Alive, ...] = (Alive(self.root, vocabulary.root),)
        for number, byte in enumerate(vocabulary.lead):
            alive = self.step(alive, byte, number + 1 - len(vocabulary.lead))
        self.first = alive

    def step(self, alive: tuple[Alive, ...], byte: int, end: int) -> tuple[Alive, ...]:
        """What is alive after one more byte; `end` is the number of bytes then. New nodes come last, shortest cover first."""
        going: list[Alive] = []
        born: list[Alive] = []
        for item in alive:
            span = self.vocabulary.child(item.span, byte)
            if span is None:
                continue
            allowed = item.node.allowed
            if allowed[span.whole : span.high].any():
                going.append(Alive(item.node, span))
            for place in range(span.low, span.whole):
                if allowed[place]:
                    token = int(self.vocabulary.order[place])
                    after = self.rule.after(item.node.place, token)
                    born.append(Alive(self._node(item.node, token, item.node.position + 1, end, after), self.vocabulary.root))
        return (*going, *born)

    def _node(self, parent: Node | None, token: int, position: int, end: int, place: Place) -> Node:
        self._made += 1
        return Node(parent, token, position, end, place, self.rule.allowed(place), self._made)

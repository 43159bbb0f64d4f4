"""One text through a byte-level model: the distribution of the next symbol after every byte of it.

    P(s) = sum over covers of s of the product of p(token | tokens before),    p(b | s) = P(s b) / P(s)

where p is the model's softmax over the tokens that may stand there (and the end of the text), so that P sums to one over all texts. With
a tolerance of 0 every node of the tree of covers is computed. With a larger one, nodes wait as long as all that wait hold at most that
part of the probability of what was read; then all of them are computed in one forward pass. A distribution is off by no more than the
tolerance (in total variation), and is a function of the bytes before it alone: not of how they came in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from stages.byte_lm.covers import Alive, Covers, Node
from stages.byte_lm.token_tree import TokenCache, TokenModel
from stages.byte_lm.validity import Rule
from stages.byte_lm.vocabulary import END, SYMBOLS, Vocabulary
from stages.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BRANCHES = 4096
"""Nodes of one text that may be alive at once: only all tokenisations of a longer text have more."""
_CHUNK = 1 << 22
"""Probabilities computed by one forward pass, at most."""
_AT_ONCE = 32
"""Bytes that came together whose nodes are all computed in one pass: choosing among so few saves less than a second pass costs."""


class Session:
    """A text that grows, and can be cut back.

    Attributes:
        length: bytes of the text.
        cache: of the tokens computed.
    """

    def __init__(self, model: TokenModel, vocabulary: Vocabulary, rule: Rule, tolerance: float) -> None:
        self.vocabulary, self.tolerance = vocabulary, tolerance
        self.cache = TokenCache(model)
        self.covers = Covers(vocabulary, rule)
        self.base = 0
        """The text cannot be cut back to fewer bytes."""
        self._alive: list[tuple[Alive, ...]] = [self.covers.first]
        self._first = 0
        """The length after which the first row is."""
        self._rows: list[NDArray[np.float64]] = []
        self._totals: list[float] = []
        self._since: list[Node] = []
        self._computed: list[Node] = []
        self._chunk = max(8, min(256, _CHUNK // max(1, len(vocabulary.order))))
        self.covers.root.log_p = 0.0

    @property
    def length(self) -> int:
        """Bytes of the text so far."""
        return self.base + len(self._alive) - 1

    def push(self, data: bytes) -> None:
        """Append to the text. Nothing is computed before it is asked for.

        Raises:
            InputError: what results is not the beginning of any text in UTF-8, which is all that a tokenizer can encode.
        """
        for byte in data:
            alive = self.covers.step(self._alive[-1], byte, self.length + 1)
            if not alive:
                raise InputError(f"byte {byte:#04x} cannot follow the {self.length} bytes before it: the text is not UTF-8")
            if len(alive) > BRANCHES:
                raise InputError(
                    f"the {self.length + 1} bytes have over {BRANCHES} covers alive; all tokenisations are for short texts only"
                )
            self._alive.append(alive)
            for item in alive:
                item.node.last = self.length
                if item.node.end == self.length and self._known(item.node) is None and item.node.parent is not None:
                    item.node.parent.orphans.append(item.node)

    def rows(self, start: int, stop: int) -> NDArray[np.float64]:
        """(stop - start, 257) log probabilities of the symbol after the first `start`, ..., `stop - 1` bytes.

        The first call says where rows are wanted from; those before cannot be had later.

        Raises:
            InputError: see `TokenCache.forward`.
            ValueError: they are before the first ones, or beyond the text.
        """
        import numpy as np

        if not self._rows:
            self._first = max(self.base, start)
        if not self._first <= start <= stop <= self.length + 1:
            raise ValueError(f"rows {start} to {stop} of a text whose rows are {self._first} to {self.length}")
        done = self._first + len(self._rows)
        while done < stop:
            until = min(stop, done + self._chunk)
            self._compute(done, until)
            done = until
        return np.array(self._rows[start - self._first : stop - self._first]).reshape(stop - start, SYMBOLS)

    def log_probability(self, length: int) -> float:
        """Log P(first `length` bytes), after `rows` has given that far."""
        return self._totals[length - self._first]

    def cut(self, length: int) -> None:
        """Go back to the first `length` bytes."""
        if not self.base <= length <= self.length:
            raise ValueError(f"cannot cut a text of bytes {self.base} to {self.length} back to {length}")
        del self._alive[length + 1 - self.base :]
        del self._rows[max(0, length + 1 - self._first) :]
        del self._totals[max(0, length + 1 - self._first) :]
        self._forget(length + 1)

    def again(self, length: int) -> None:
        """Compute the rows from the one after `length` bytes on anew, when they are asked for next."""
        del self._rows[max(0, length - self._first) :]
        del self._totals[max(0, length - self._first) :]
        self._forget(length)

    def mark(self) -> tuple[int, int]:
        """For `back`: where the text is now."""
        return self.length, len(self._computed)

    def back(self, mark: tuple[int, int]) -> None:
        """Undo all that came after a mark, to the bit: what comes next is computed as it was then. Not across `settle`."""
        length, count = mark
        self.cut(length)
        if count < len(self._computed):
            path = self._computed[count].path
            assert path is not None  # it was computed
            self.cache.keep(range(int(path[-1])))
            for node in self._computed[count:]:
                node.path, node.mass = None, None
            del self._computed[count:]

    def settle(self, length: int) -> None:
        """Promise never to cut back to fewer bytes, so that what only they need can be freed."""
        import numpy as np

        dropped = length - self.base
        if dropped <= 0:
            return
        del self._alive[:dropped]
        if length > self._first:
            del self._rows[: length - self._first]
            del self._totals[: length - self._first]
            self._first = length
        self.base = length
        self._since = [node for node in self._since if node.since is not None and node.since > length]
        held = {item.node: None for alive in self._alive for item in alive}
        needed: dict[Node, None] = {}
        for node in held:
            above: Node | None = node
            while above is not None and above not in needed:
                needed[above] = None
                above = above.parent
        for node in needed:
            if node not in held:
                node.mass = None
        computed = sorted((node for node in needed if node.path is not None), key=lambda node: node.number)
        if self.cache.columns <= 2 * (len(computed) + len(self.vocabulary.start)) + 64:
            return
        front = list(range(len(self.vocabulary.start) - 1))
        self.cache.keep([*front, *(int(node.path[-1]) for node in computed if node.path is not None)])
        self._computed = computed
        for number, node in enumerate(computed, start=len(front)):
            above_path = np.array(front, dtype=np.intp) if node.parent is None else node.parent.path
            assert above_path is not None  # a computed node's parent is computed
            node.path = np.append(above_path, number)

    # --- one stretch -------------------------------------------------------------------------------------------------------------

    def _compute(self, start: int, stop: int) -> None:
        """Rows `start` to `stop`. Which nodes count from where depends on rows before, so guesses are made, and made again."""
        if self.tolerance <= 0 or 1 < stop - start <= _AT_ONCE:
            self._run(item.node for place in range(start, stop) for item in self._at(place))
        elif stop - start > 1:
            self._run([self._at(stop - 1)[-1].node])  # the shortest cover: most of the probability is on its way
        while True:
            wanted: dict[Node, None] = {}
            first: int | None = None
            rows, totals = [], []
            for place in range(start, stop):
                row, total, missing = self._row(place)
                if missing and first is None:
                    first = place
                wanted |= dict.fromkeys(missing)
                rows.append(row)
                totals.append(total)
            good = len(rows) if first is None else first - start
            self._rows += rows[:good]
            self._totals += totals[:good]
            if first is None:
                return
            self._forget(first)
            start = first
            self._run(wanted)

    def _at(self, place: int) -> tuple[Alive, ...]:
        return self._alive[place - self.base]

    def _forget(self, place: int) -> None:
        """Nodes that began to count at `place` or later do not yet."""
        kept = []
        for node in self._since:
            if node.since is not None and node.since >= place:
                node.since = None
            else:
                kept.append(node)
        self._since = kept

    def _row(self, place: int) -> tuple[NDArray[np.float64], float, list[Node]]:
        """Log probabilities after `place` bytes, log P of them, and the nodes that should have been computed first."""
        import numpy as np

        alive = self._at(place)
        counted = [item for item in alive if item.node.since is not None]
        waiting = [item.node for item in alive if item.node.since is None]
        reference = max((self._log_p(item.node) for item in alive), default=0.0)
        masses = np.zeros(SYMBOLS)
        self._add(masses, counted, reference, place)
        if waiting:
            owners = {self._owner(node): None for node in waiting}
            bound = sum(math.exp(min(0.0, self._log_p(node) - reference)) for node in owners)
            if bound > self.tolerance * (masses.sum() + bound):
                for node in waiting:
                    self._count(node, place)
                # Where rows begin late, all that was known of these nodes is that they go on from the root: their own
                # probability can be too small beside its.
                nearer = max(self._log_p(item.node) for item in alive)
                if nearer != reference:
                    reference, masses = nearer, np.zeros(SYMBOLS)
                    self._add(masses, counted, reference, place)
                self._add(masses, [item for item in alive if item.node.since == place and item not in counted], reference, place)
            else:
                self._spread(masses, [item for item in alive if item.node.since is None], reference, place)
        missing = [item.node for item in alive if item.node.since is not None and item.node.mass is None]
        total = float(masses.sum())
        with np.errstate(divide="ignore"):
            row = np.log(masses / total) if total > 0 else masses
        return row, reference + (math.log(total) if total > 0 else -math.inf), missing

    def _add(self, masses: NDArray[np.float64], items: Iterable[Alive], reference: float, place: int) -> None:
        """Add up what the tokens of some nodes say of the next byte."""
        import numpy as np

        for item in items:
            node, span = item.node, item.span
            if node.mass is None:
                continue
            scale = math.exp(self._log_p(node) - reference)
            if len(span.firsts):
                masses[span.firsts] += scale * np.add.reduceat(node.mass[span.whole : span.high], span.starts)
            if place == max(node.end, 0) and node.place.open:
                masses[END] += scale * node.end_mass

    def _spread(self, masses: NDArray[np.float64], items: list[Alive], reference: float, place: int) -> None:
        """What waits counts for every symbol alike that it leaves possible, so that none of those gets probability 0."""
        import numpy as np

        owners = [self._owner(item.node) for item in items]
        for item, owner in zip(items, owners, strict=True):
            node, span = item.node, item.span
            possible = np.zeros(SYMBOLS, dtype=np.bool_)
            if len(span.firsts):
                possible[span.firsts] = np.logical_or.reduceat(node.allowed[span.whole : span.high], span.starts)
            possible[END] = place == max(node.end, 0) and node.place.open
            count = int(possible.sum())
            if count:
                share = sum(other is owner for other in owners)
                masses[possible] += math.exp(min(0.0, self._log_p(owner) - reference)) / share / count

    def _owner(self, node: Node) -> Node:
        """The nearest sequence on the way to a node that goes on from one that counts: an upper bound of the node's own probability.

        What happens to be computed already is not asked for, so that it does not matter.
        """
        while node.parent is not None and (node.parent.since is None or self._known(node) is None):
            node = node.parent
        return node

    def _count(self, node: Node | None, place: int) -> None:
        """Let a node count from here, and with it all that it goes on from."""
        while node is not None and node.since is None:
            node.since = place
            self._since.append(node)
            node = node.parent

    def _known(self, node: Node) -> float | None:
        if node.log_p is None and node.parent is not None and node.parent.mass is not None and node.parent.log_p is not None:
            probability = float(node.parent.mass[self.vocabulary.place[node.token]])
            node.log_p = node.parent.log_p + (math.log(probability) if probability > 0 else -math.inf)
        return node.log_p

    def _log_p(self, node: Node) -> float:
        known = self._known(self._owner(node))
        assert known is not None
        return known

    def _run(self, nodes: Iterable[Node]) -> None:
        """Compute nodes and whatever is above them."""
        import numpy as np

        todo: dict[Node, None] = {}
        for node in nodes:
            above: Node | None = node
            while above is not None and above.path is None and above not in todo:
                todo[above] = None
                above = above.parent
        ordered = sorted(todo, key=lambda node: node.number)
        self.cache.refuse(max((node.position for node in ordered), default=0))  # before anything counts as computed
        for begin in range(0, len(ordered), self._chunk):
            part = ordered[begin : begin + self._chunk]
            ids: list[int] = []
            positions: list[int] = []
            paths: list[NDArray[np.intp]] = []
            for node in part:
                if node.parent is None:
                    front = self.vocabulary.start[:-1]
                    ids += front
                    positions += range(len(front))
                    paths += [np.arange(number) for number in range(len(front))]
                column = self.cache.columns + len(ids)
                above_path = np.arange(len(self.vocabulary.start) - 1) if node.parent is None else node.parent.path
                assert above_path is not None
                node.path = np.append(above_path, column)
                ids.append(node.token)
                positions.append(node.position)
                paths.append(above_path)
            logits = self.cache.forward(ids, positions, paths)[len(ids) - len(part) :]
            for node, row in zip(part, logits, strict=True):
                self._known(node)
                node.mass, node.end_mass = self._masses(node, row)
                for orphan in node.orphans:
                    self._known(orphan)
                node.orphans.clear()
                if node.last < self._first:
                    node.mass = None  # only what goes on from it is of interest
            self._computed += part

    def _masses(self, node: Node, logits: NDArray[np.float32]) -> tuple[NDArray[np.float64], float]:
        """Softmax in float64 over the tokens that may follow and, where the text can end, those that end it."""
        import numpy as np

        ends = list(self.vocabulary.ends) if node.place.open else []
        chosen = np.where(node.allowed, logits[self.vocabulary.order], -np.inf).astype(np.float64)
        ending = logits[ends].astype(np.float64)
        top = max(chosen.max(initial=-np.inf), ending.max(initial=-np.inf))
        if top == -np.inf:
            return np.zeros(len(chosen)), 0.0
        mass, end = np.exp(chosen - top), np.exp(ending - top).sum()
        whole = mass.sum() + end
        return mass / whole, float(end / whole)

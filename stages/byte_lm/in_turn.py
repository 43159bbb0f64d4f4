"""An ensemble with one member in memory at a time: the same text as with all of them, for more loading.

A given text needs each member once (`score`): its distributions are stored, 257 numbers a byte, and combined afterwards. To generate, one
member writes a segment alone; each of the others is loaded and reads it; the text stands as far as the ensemble says the same, and its next
byte is the ensemble's. Then the next segment. Every round loads every member once and gives at least one byte, up to the length of a
segment and one; how many rounds there are depends on how often the ensemble disagrees with whoever wrote.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stages.byte_lm.byte_lm import ByteLm, log_likelihood, stopped
from stages.byte_lm.ensemble import PIECE, Pick, Watch, combine, greedy
from stages.byte_lm.spoken import about
from stages.byte_lm.token_tree import TooLong
from stages.byte_lm.vocabulary import END
from stages.combiners.combiner import Rule, State, check
from stages.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Loader = Callable[[], ByteLm]


@dataclass(slots=True)
class InTurn:
    """What a generation was.

    Attributes:
        state: of the combiner at the end, prompt included.
        parts: (n, M) of every symbol said, what ended the text among them.
        ended: see `stages.byte_lm.ensemble.Run`.
        loads: how often a member was loaded; rounds: of all members.
    """

    state: State
    text: bytearray = field(default_factory=bytearray)
    parts: list[NDArray[np.float64]] = field(default_factory=list)
    loads: int = 0
    rounds: int = 0
    ended: bool = False


class InTurnEnsemble:
    """An `Answerer` as `stages.byte_lm.ensemble.Ensemble` is one, with one member in memory at a time.

    Log-likelihoods are the same to the bit: every member reads the same pieces. Text is the same but for ties within float32's last bits.
    """

    def __init__(self, loaders: Sequence[Loader], rule: Rule, names: Sequence[str], *, segment: int = 64) -> None:
        """See `generate`; `names` of as many members."""
        self.loaders, self.rule, self.names, self.segment = tuple(loaders), rule, tuple(names), segment
        self._known: dict[tuple[bytes, bytes], tuple[float, Mapping[str, Any]] | InputError] = {}

    def expect(self, asked: Sequence[tuple[bytes, Sequence[bytes]]]) -> None:
        """Load each member once for all of these likelihoods. What was expected before is forgotten."""
        import numpy as np

        self._known = {}
        parts: list[list[tuple[NDArray[np.float64], list[NDArray[np.float64]]]]] = [[] for _ in asked]
        for loader in self.loaders:
            member = loader()
            for number, (prompt, continuations) in enumerate(asked):
                if (prompt, continuations[0]) in self._known:
                    continue  # an earlier member could not read it
                try:
                    parts[number].append(_told(member, prompt, continuations))
                except InputError as error:
                    # Without its traceback, whose frames would keep the member.
                    self._known |= dict.fromkeys(((prompt, text) for text in continuations), error.with_traceback(None))
            del member
            gc.collect()
        for (prompt, continuations), found in zip(asked, parts, strict=True):
            if (prompt, continuations[0]) in self._known:
                continue
            _, _, warm = combine(self.rule, self.rule.start(), np.stack([rows for rows, _ in found], axis=1), prompt)
            for number, text in enumerate(continuations):
                told: list[NDArray[np.float64]] = []
                mixed, _, state = combine(self.rule, warm, np.stack([rows[number] for _, rows in found], axis=1), text, told)
                check(self.rule, state)
                try:
                    self._known[prompt, text] = log_likelihood(mixed, text), about(self.names, told)
                except InputError as error:
                    self._known[prompt, text] = error

    def loglikelihood(self, prompt: bytes, continuation: bytes) -> float:
        """As `Ensemble.loglikelihood`; without `expect`, every member is loaded for it."""
        return self.loglikelihood_about(prompt, continuation)[0]

    def loglikelihood_about(self, prompt: bytes, continuation: bytes) -> tuple[float, Mapping[str, Any]]:
        """The same, and who spoke."""
        if not continuation:
            raise InputError("there is no continuation whose likelihood could be told")
        if (prompt, continuation) not in self._known:
            self.expect([(prompt, [continuation])])
        found = self._known[prompt, continuation]
        if isinstance(found, InputError):
            raise found
        return found

    def generate(self, prompt: bytes, max_bytes: int, stop: Sequence[bytes]) -> bytes:
        """The most likely next byte of the combination again and again."""
        return self.generate_about(prompt, max_bytes, stop)[0]

    def generate_about(self, prompt: bytes, max_bytes: int, stop: Sequence[bytes]) -> tuple[bytes, Mapping[str, Any]]:
        """The same, and who spoke."""
        run = generate(self.loaders, self.rule, prompt, max_bytes, stop, segment=self.segment)
        return bytes(run.text), about(self.names, run.parts)


def _told(member: ByteLm, prompt: bytes, continuations: Sequence[bytes]) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
    """(rows of the prompt's bytes, those of each continuation's), read in the pieces in which an `Ensemble` reads."""
    import numpy as np

    session = member.session()
    rows: list[NDArray[np.float64]] = []
    for begin in range(0, len(prompt), PIECE):
        piece = prompt[begin : begin + PIECE]
        session.push(piece)
        rows.append(session.rows(begin, begin + len(piece)))
        session.settle(begin + len(piece))
    last = session.rows(len(prompt), len(prompt) + 1)
    mark = session.mark()
    after: list[NDArray[np.float64]] = []
    for text in continuations:
        session.back(mark)
        session.push(text)
        after.append(session.rows(len(prompt), len(prompt) + len(text)))
    return np.concatenate([*rows, last])[: len(prompt)], after


def score(loaders: Sequence[Loader], texts: Sequence[bytes]) -> list[NDArray[np.float64]]:
    """Of each text, (n + 1, M, 257) log probabilities, for `stages.byte_lm.ensemble.combine`; each member is loaded once, and freed."""
    import numpy as np

    parts: list[list[NDArray[np.float64]]] = [[] for _ in texts]
    for loader in loaders:
        member = loader()
        for number, text in enumerate(texts):
            parts[number].append(member.rows(text))
        del member
        gc.collect()
    return [np.stack(part, axis=1) for part in parts]


def generate(
    loaders: Sequence[Loader],
    rule: Rule,
    prompt: bytes,
    max_bytes: int,
    stop: Sequence[bytes] = (),
    *,
    segment: int = 64,
    pick: Pick = greedy,
    watch: Watch | None = None,
) -> InTurn:
    """Generate by segments.

    Args:
        loaders: make a member; whatever it holds is freed before the next is called.
        rule: of as many members.
        prompt: UTF-8.
        max_bytes: at most.
        stop: where one of these begins, the text ends before it.
        segment: bytes that one member writes alone.
        pick: as in `stages.byte_lm.ensemble`.
        watch: likewise.

    Raises:
        InputError: the prompt is no UTF-8, or longer than a member reads.
        GuaranteeError: a proven bound did not hold.
    """
    import numpy as np

    first = score(loaders, [prompt])[0]
    _, _, state = combine(rule, rule.start(), first, prompt)
    run, rows = InTurn(state, loads=len(loaders)), first[-1]
    awake = np.ones(len(loaders), dtype=np.bool_)
    while len(run.text) < max_bytes:
        run.rounds += 1
        place = len(run.text)
        symbol = pick(rule.combine(run.state, rows, awake), place)
        guesses: list[int] = []
        found: list[NDArray[np.float64]] = []
        if symbol != END and place + 1 < max_bytes:
            text = prompt + bytes(run.text) + bytes([symbol])
            leader = int(rule.shares(run.state).argmax())
            try:
                guesses, found = _round(loaders, run, leader, text, min(segment, max_bytes - place - 1), pick, place + 1)
            except TooLong:  # somebody cannot read all of the segment
                if segment == 0:
                    break
                segment //= 2
                gc.collect()
                continue
        for step in range(len(guesses) + 1):
            mixed = rule.combine(run.state, rows, awake)
            symbol = pick(mixed, place + step)
            if step and symbol != guesses[step - 1]:
                break  # `rows` is the row of this byte: the next round begins with it
            run.parts.append(rule.parts(run.state, rows, awake))
            run.state = rule.observe(run.state, rows, mixed, symbol)
            if symbol == END:
                run.ended = True
                return _checked(rule, run)
            run.text.append(symbol)
            end = stopped(run.text, stop)
            if end is not None:
                del run.text[end:]
                return _checked(rule, run)
            if watch is not None and watch(run.text):
                return _checked(rule, run)
            if found:
                rows = found[step]
    return _checked(rule, run)


def _round(
    loaders: Sequence[Loader], run: InTurn, leader: int, text: bytes, count: int, pick: Pick, place: int
) -> tuple[list[int], list[NDArray[np.float64]]]:
    """What the leader says after a text, and the rows (M, 257) of all members after the text and after each byte of that."""
    import numpy as np

    guesses: list[int] = []
    got: dict[int, NDArray[np.float64]] = {}
    for number in (leader, *(number for number in range(len(loaders)) if number != leader)):
        member = loaders[number]()
        run.loads += 1
        if number == leader:
            guesses, got[number] = _write(member, text, count, pick, place)
        else:
            got[number] = member.rows(text + bytes(guesses), len(text))
        del member
        gc.collect()
    return guesses, [np.stack([got[number][step] for number in range(len(loaders))]) for step in range(len(guesses) + 1)]


def _checked(rule: Rule, run: InTurn) -> InTurn:
    check(rule, run.state)
    return run


def _write(member: ByteLm, text: bytes, count: int, pick: Pick, place: int) -> tuple[list[int], NDArray[np.float64]]:
    """What a member says after a text, and its rows, one more than that."""
    import numpy as np

    session, guesses = member.session(), list[int]()
    session.push(text)
    rows = [session.rows(len(text), len(text) + 1)[0]]
    while len(guesses) < count:
        guess = pick(rows[-1], place + len(guesses))
        if guess == END:
            break
        session.push(bytes([guess]))
        try:
            rows.append(session.rows(session.length, session.length + 1)[0])
        except TooLong:
            break
        guesses.append(guess)
    return guesses, np.array(rows)

"""An ensemble with one member in memory at a time: the same text as with all of them, for more loading.

A given text needs each member once (`score`): its distributions are stored, 257 numbers a byte, and combined afterwards. To generate, one
member writes a segment alone; each of the others is loaded and reads it; the text stands as far as the ensemble says the same, and its next
byte is the ensemble's. Then the next segment. Every round loads every member once and gives at least one byte, up to the length of a
segment and one; how many rounds there are depends on how often the ensemble disagrees with whoever wrote.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stages.byte_lm.byte_lm import ByteLm, stopped
from stages.byte_lm.ensemble import Pick, combine, greedy
from stages.byte_lm.token_tree import TooLong
from stages.byte_lm.vocabulary import END
from stages.combiners.combiner import Rule, State, check

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
        loads: how often a member was loaded; rounds: of all members.
    """

    state: State
    text: bytearray = field(default_factory=bytearray)
    parts: list[NDArray[np.float64]] = field(default_factory=list)
    loads: int = 0
    rounds: int = 0


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
            order = [leader, *(number for number in range(len(loaders)) if number != leader)]
            got: dict[int, NDArray[np.float64]] = {}
            for number in order:
                member = loaders[number]()
                run.loads += 1
                if number == leader:
                    guesses, got[number] = _write(member, text, min(segment, max_bytes - place - 1), pick, place + 1)
                else:
                    got[number] = member.rows(text + bytes(guesses), len(text))
                del member
                gc.collect()
            found = [np.stack([got[number][step] for number in range(len(loaders))]) for step in range(len(guesses) + 1)]
        for step in range(len(guesses) + 1):
            mixed = rule.combine(run.state, rows, awake)
            symbol = pick(mixed, place + step)
            if step and symbol != guesses[step - 1]:
                break  # `rows` is the row of this byte: the next round begins with it
            run.parts.append(rule.parts(run.state, rows, awake))
            run.state = rule.observe(run.state, rows, mixed, symbol)
            if symbol == END:
                return _checked(rule, run)
            run.text.append(symbol)
            end = stopped(run.text, stop)
            if end is not None:
                del run.text[end:]
                return _checked(rule, run)
            if found:
                rows = found[step]
    return _checked(rule, run)


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

"""Several byte-level models that speak as one, whatever their tokenizers: an `Answerer`.

All members read every byte; a combiner makes one distribution of theirs. The bytes of a prompt are combined too, so the weights are warm
before the first byte is generated.

Generation costs little more than one member's: the one with the greatest share goes ahead by some bytes, the others read what it wrote in
one forward pass, and it stands as far as the ensemble says the same. What comes out is what byte-by-byte combination gives. Members whose
share is under `skip_below` are not asked at all for a while; when they have caught up, what was said without them is known, and its price
(`Run.price`) is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stages.byte_lm.byte_lm import ByteLm, log_likelihood, stopped
from stages.byte_lm.session import Session
from stages.byte_lm.spoken import about
from stages.byte_lm.token_tree import TooLong
from stages.byte_lm.vocabulary import END, SYMBOLS
from stages.combiners.combiner import Rule, State, check
from stages.errors import InputError, SpecError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PIECE = 256
"""Bytes of a prompt that are read at once."""
GUESSING = 0.02
"""The tolerance of guesses; what they are held against is computed with the members' own."""
REST = 16
"""Bytes said one by one after guesses were wrong."""
NAP, LONGEST_NAP = 32, 512
"""Bytes for which a member without weight is not asked: at first, and at most."""

Pick = Callable[["NDArray[np.float64]", int], int]
"""The symbol to say, of log probabilities (257,), at the n-th byte of a generation."""
Watch = Callable[[bytearray], bool]
"""Told the text after every byte that was generated; True ends it there. It must not change the text."""


def greedy(row: NDArray[np.float64], place: int) -> int:
    """The most likely symbol; the lowest of several."""
    return int(row.argmax())


def sampler(seed: int, temperature: float = 1.0) -> Pick:
    """Random symbols. The n-th depends on (seed, n) and the distribution alone, so that going ahead changes nothing.

    Raises:
        SpecError: the temperature is not above 0.
    """
    import numpy as np

    if not temperature > 0:
        raise SpecError(f"temperature is {temperature}; it must be above 0 (for the most likely symbol, be greedy)")

    def pick(row: NDArray[np.float64], place: int) -> int:
        scaled = row / temperature
        chances = np.exp(scaled - scaled.max()).cumsum()
        drawn = np.random.Generator(np.random.PCG64([seed, place])).random() * chances[-1]
        return int(min(np.searchsorted(chances, drawn, side="right"), np.flatnonzero(row > -np.inf)[-1]))

    return pick


@dataclass(slots=True)
class Run:
    """What a generation or a reading was.

    Attributes:
        text: bytes generated.
        ended: the end of the text was said, rather than a stop, a watcher, the bytes allowed or a member's length ending it.
        state: of the combiner at the end: losses of all, prompt included.
        shares: (n, M) of every byte generated. parts: (n, M) of every symbol said, what ended the text among them.
        price: nats that leaving members out cost on the bytes generated, as far as they have caught up.
        asked: (M,) bytes of which each member's distribution was computed one at a time; `followed` in passes of several; `skipped` never.
    """

    state: State
    text: bytearray = field(default_factory=bytearray)
    shares: list[NDArray[np.float64]] = field(default_factory=list)
    parts: list[NDArray[np.float64]] = field(default_factory=list)
    price: float = 0.0
    asked: list[int] = field(default_factory=list)
    followed: list[int] = field(default_factory=list)
    skipped: list[int] = field(default_factory=list)
    ended: bool = False


class Ensemble:
    """Members and the rule that combines them; the first is the target."""

    def __init__(self, members: Sequence[ByteLm], rule: Rule, *, skip_below: float = 0.0, ahead: int = 16) -> None:
        """Take members that are loaded.

        Args:
            members: at least one.
            rule: of as many members.
            skip_below: members with a smaller share are skipped for a while; 0 never.
            ahead: bytes that one member may go ahead, at most; 0 for byte by byte.

        Raises:
            SpecError: numbers that make no sense.
        """
        if not members:
            raise SpecError("an ensemble needs a member")
        if not 0 <= skip_below < 1 or ahead < 0:
            raise SpecError(f"skip_below {skip_below} must be a part below 1, and ahead {ahead} not negative")
        self.members, self.rule, self.skip_below, self.ahead = tuple(members), rule, skip_below, ahead
        self._prompt: tuple[bytes, list[Session], list[tuple[int, int]], State, NDArray[np.float64]] | None = None

    def loglikelihood(self, prompt: bytes, continuation: bytes) -> float:
        """Log P(continuation | prompt) in nats; the prompt's bytes set the weights.

        Raises:
            InputError: there is no continuation, it is no UTF-8, or the text is longer than a member reads.
        """
        return self.loglikelihood_about(prompt, continuation)[0]

    def loglikelihood_about(self, prompt: bytes, continuation: bytes) -> tuple[float, Mapping[str, Any]]:
        """The same, and who spoke (`stages.byte_lm.spoken`)."""
        import numpy as np

        if not continuation:
            raise InputError("there is no continuation whose likelihood could be told")
        sessions, state, first = self._warm(prompt)
        for session in sessions:
            session.push(continuation)
        length = len(prompt)
        rows = np.stack([session.rows(length, length + len(continuation)) for session in sessions], axis=1)
        assert np.array_equal(rows[0], first)
        parts: list[NDArray[np.float64]] = []
        mixed, _, state = combine(self.rule, state, rows, continuation, parts)
        check(self.rule, state)
        return log_likelihood(mixed, continuation), about(self.names, parts)

    def generate(self, prompt: bytes, max_bytes: int, stop: Sequence[bytes]) -> bytes:
        """The most likely next byte of the combination again and again."""
        return self.generate_about(prompt, max_bytes, stop)[0]

    def generate_about(self, prompt: bytes, max_bytes: int, stop: Sequence[bytes]) -> tuple[bytes, Mapping[str, Any]]:
        """The same, and who spoke (`stages.byte_lm.spoken`)."""
        run = self.run(prompt, max_bytes, stop)
        return bytes(run.text), about(self.names, run.parts)

    @property
    def names(self) -> tuple[str, ...]:
        """What the members are called; by their places where they have no names of their own."""
        own = tuple(member.name for member in self.members)
        return own if all(own) and len(set(own)) == len(own) else tuple(str(number) for number in range(len(own)))

    def run(self, prompt: bytes, max_bytes: int, stop: Sequence[bytes] = (), pick: Pick = greedy, watch: Watch | None = None) -> Run:
        """Generate, and tell how it went.

        Raises:
            InputError: the prompt is no UTF-8, or longer than a member reads.
            GuaranteeError: a proven bound did not hold.
        """
        sessions, state, first = self._warm(prompt)
        self._prompt = None  # the sessions go on from here, and forget what they do not need
        run = _Decoder(self, sessions, state, first, pick).go(max_bytes, stop, watch)
        check(self.rule, run.state)
        return run

    def _warm(self, prompt: bytes) -> tuple[list[Session], State, NDArray[np.float64]]:
        """Sessions that have read the prompt, the state after it, and the rows (M, 257) at its end."""
        if self._prompt is None or self._prompt[0] != prompt:
            self._prompt = None
            self._prompt = (prompt, *self._read(prompt))
        _, sessions, marks, state, rows = self._prompt
        for session, mark in zip(sessions, marks, strict=True):
            session.back(mark)
        return sessions, state, rows

    def _read(self, prompt: bytes) -> tuple[list[Session], list[tuple[int, int]], State, NDArray[np.float64]]:
        import numpy as np

        sessions, state = [member.session() for member in self.members], self.rule.start()
        for begin in range(0, len(prompt), PIECE):
            piece = prompt[begin : begin + PIECE]
            for session in sessions:
                session.push(piece)
            rows = np.stack([session.rows(begin, begin + len(piece)) for session in sessions], axis=1)
            _, _, state = combine(self.rule, state, rows, piece)
            for session in sessions:
                session.settle(begin + len(piece))
        last = np.stack([session.rows(len(prompt), len(prompt) + 1)[0] for session in sessions])
        return sessions, [session.mark() for session in sessions], state, last


def combine(
    rule: Rule,
    state: State,
    rows: NDArray[np.float64],
    symbols: Sequence[int] | bytes,
    parts: list[NDArray[np.float64]] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64], State]:
    """Go through a text with the members' distributions stored: how an evaluation runs with one member in memory at a time.

    Args:
        rule: of M members.
        state: before the first symbol.
        rows: (n, M, 257) log probabilities.
        symbols: the n that came.
        parts: gets each member's part (M,) in every one of them, where it is given.

    Returns:
        (n, 257) combined log probabilities, (n, M) shares, the state after.
    """
    import numpy as np

    awake = np.ones(rows.shape[1], dtype=np.bool_)
    mixed, shares = np.empty((len(symbols), SYMBOLS)), np.empty((len(symbols), rows.shape[1]))
    for number, symbol in enumerate(symbols):
        shares[number] = rule.shares(state)
        mixed[number] = rule.combine(state, rows[number], awake)
        if parts is not None:
            parts.append(rule.parts(state, rows[number], awake))
        state = rule.observe(state, rows[number], mixed[number], symbol)
    return mixed, shares, state


@dataclass(slots=True)
class _Step:
    """One byte said: the state before it, the members' rows, what was said with whom.

    Attributes:
        rows: (M, 257); those of members asleep are filled in when they wake.
        mixed: what the symbol was chosen from.
    """

    state: State
    rows: NDArray[np.float64]
    mixed: NDArray[np.float64]
    symbol: int


class _Decoder:
    """One generation."""

    def __init__(self, owner: Ensemble, sessions: list[Session], state: State, first: NDArray[np.float64], pick: Pick) -> None:
        import numpy as np

        self.owner, self.rule, self.sessions, self.pick = owner, owner.rule, sessions, pick
        self.begin = sessions[0].length
        count = len(sessions)
        self.state, self.rows = state, first.copy()
        self.awake = np.ones(count, dtype=np.bool_)
        self.nap = [NAP] * count
        self.wake_at = [0] * count
        self.steps: list[_Step] = []
        """Of the bytes since the first member fell asleep."""
        self.kept = 0
        """The byte (of those generated) that `steps` begins with."""
        self.run = Run(state, asked=[0] * count, followed=[0] * count, skipped=[0] * count)
        self.reach, self.rest = min(4, owner.ahead), 0

    def go(self, max_bytes: int, stop: Sequence[bytes], watch: Watch | None) -> Run:
        """Say byte after byte."""
        made = self.run.text
        while len(made) < max_bytes:
            self._put_to_sleep()
            try:
                symbols = self._some(max_bytes - len(made))
            except TooLong:
                if not self._nearer():
                    break
                continue
            before = len(self.run.parts) - len(symbols)
            for number, symbol in enumerate(symbols, start=1):
                if symbol == END or len(made) == max_bytes:
                    self.run.ended = symbol == END
                    return self._end()
                made.append(symbol)
                end = stopped(made, stop)
                if end is not None:
                    del made[end:], self.run.parts[before + number :]
                    return self._end()
                if watch is not None and watch(made):
                    del self.run.parts[before + number :]
                    return self._end()
            self._wake(len(made))
        return self._end()

    def _nearer(self) -> bool:
        """At the end of what a member reads, go on byte by byte: a text ends at the same place however far one goes ahead."""
        if self.reach == 0:
            return False
        self.reach, self.rest = 0, 1 << 30
        for number in range(len(self.sessions)):
            if self.awake[number]:
                self.sessions[number].cut(self.begin + len(self.run.text))
                self.sessions[number].tolerance = self.owner.members[number].tolerance
        return True

    def _end(self) -> Run:
        import numpy as np

        for number in np.flatnonzero(~self.awake):
            self.run.skipped[number] += len(self.run.text) - (self.sessions[number].length - self.begin)
        self.run.shares = self.run.shares[: len(self.run.text)]
        self.run.state = self.state
        return self.run

    # --- the next bytes ----------------------------------------------------------------------------------------------------------

    def _some(self, most: int) -> list[int]:
        """At least one symbol, decided by all who are awake."""
        import numpy as np

        place = len(self.run.text)
        mixed = self.rule.combine(self.state, self.rows, self.awake)
        symbol = self.pick(mixed, place)
        if symbol == END or most == 1:
            self._said(symbol, mixed)
            return [symbol]
        awake = [int(number) for number in np.flatnonzero(self.awake)]
        shares = self.rule.shares(self.state)
        leader = max(awake, key=lambda number: (shares[number], -number))
        others = [number for number in awake if number != leader]
        length = self.begin + place + 1
        guesses, leading = self._lead(leader, symbol, length, min(self.reach, most - 1) if others else 0)
        ahead = bytes([symbol, *guesses])
        following = {}
        for number in others:
            session = self.sessions[number]
            session.push(ahead)
            following[number] = session.rows(length, length + len(guesses) + 1)
            counts = self.run.followed if guesses else self.run.asked
            counts[number] += len(guesses) + 1
        symbols = [symbol]
        self._said(symbol, mixed)
        for number in range(len(guesses) + 1):
            self.rows = np.full((len(self.sessions), SYMBOLS), np.nan)
            self.rows[leader] = leading[number]
            for other, found in following.items():
                self.rows[other] = found[number]
            if number == len(guesses):
                break
            mixed = self.rule.combine(self.state, self.rows, self.awake)
            symbol = self.pick(mixed, place + number + 1)
            if symbol != guesses[number]:
                for other in awake:
                    self.sessions[other].cut(length + number)
                break
            symbols.append(symbol)
            self._said(symbol, mixed)
        self._adapt(len(guesses), len(symbols) - 1)
        for other in awake:
            self.sessions[other].settle(self.begin + place + len(symbols))
        return symbols

    def _adapt(self, guessed: int, right: int) -> None:
        """Go further ahead where guesses were right, and not at all for a while where the first was wrong."""
        if guessed and right == guessed:
            self.reach = min(self.owner.ahead, self.reach * 2)
        elif guessed:
            self.reach //= 2
            self.rest = REST
        elif self.reach == 0 and self.owner.ahead:
            self.rest -= 1
            self.reach = int(self.rest <= 0)

    def _lead(self, leader: int, symbol: int, length: int, count: int) -> tuple[list[int], list[NDArray[np.float64]]]:
        """What one member alone would say after `symbol`, and its rows, one more than the guesses."""
        session, guesses = self.sessions[leader], list[int]()
        session.push(bytes([symbol]))
        asked, session.tolerance = session.tolerance, max(session.tolerance, GUESSING if count else 0.0)
        rows = [session.rows(length, length + 1)[0]]
        while len(guesses) < count:
            guess = self.pick(rows[-1], length - self.begin + len(guesses))
            if guess == END:
                break
            session.push(bytes([guess]))
            try:
                rows.append(session.rows(session.length, session.length + 1)[0])
            except TooLong:
                session.cut(session.length - 1)
                break
            guesses.append(guess)
        self.run.asked[leader] += len(rows)
        if session.tolerance == asked:
            return guesses, rows
        session.tolerance = asked
        session.again(length)
        return guesses, list(session.rows(length, length + len(guesses) + 1))

    def _said(self, symbol: int, mixed: NDArray[np.float64]) -> None:
        self.run.shares.append(self.rule.shares(self.state))
        self.run.parts.append(self.rule.parts(self.state, self.rows, self.awake))
        rows = self.rows.copy()
        rows[~self.awake] = mixed
        if not self.awake.all():
            self.steps.append(_Step(self.state, rows, mixed, symbol))
        self.state = self.rule.observe(self.state, rows, mixed, symbol)

    # --- sleep -------------------------------------------------------------------------------------------------------------------

    def _put_to_sleep(self) -> None:
        """Members of too little share are asked no more for a while, as long as somebody is awake."""
        import numpy as np

        if self.owner.skip_below <= 0:
            return
        shares = self.rule.shares(self.state)
        for number in np.argsort(shares, kind="stable"):
            if self.awake[number] and shares[number] < self.owner.skip_below and self.awake.sum() > 1:
                if self.awake.all():
                    self.steps, self.kept = [], len(self.run.text)
                self.awake[number] = False
                self.wake_at[number] = len(self.run.text) + self.nap[number]

    def _wake(self, made: int) -> None:
        """Let those whose time is over read what they missed, and go through it again with what they say of it."""
        import numpy as np

        late = [int(number) for number in np.flatnonzero(~self.awake) if self.wake_at[number] <= made]
        if not late:
            return
        for number in late:
            session = self.sessions[number]
            start = session.length - self.begin
            session.push(bytes(self.run.text[start:made]))
            # The row before the first byte that it missed was computed before it fell asleep.
            rows = session.rows(session.length - (made - start), session.length + 1)
            self.run.followed[number] += made - start
            for place in range(start, made):
                self.steps[place - self.kept].rows[number] = rows[place - start]
            self.rows[number] = rows[-1]
            session.settle(session.length)
            self.awake[number] = True
        self._again(made, late)
        shares = self.rule.shares(self.state)
        for number in late:
            self.nap[number] = min(LONGEST_NAP, 2 * self.nap[number]) if shares[number] < self.owner.skip_below else NAP

    def _again(self, made: int, late: Sequence[int]) -> None:
        """Observe the bytes since `kept` anew, now that more members have spoken of them."""
        import numpy as np

        state = self.steps[0].state
        for number, step in enumerate(self.steps):
            place = self.kept + number
            asleep = np.array([self.sessions[other].length - self.begin <= place for other in range(len(self.sessions))])
            before = float(step.mixed[step.symbol])
            mixed = self.rule.combine(state, step.rows, ~asleep)
            self.run.price += float(mixed[step.symbol]) - before
            rows = step.rows.copy()
            rows[asleep] = mixed
            self.steps[number] = _Step(state, rows, mixed, step.symbol)
            state = self.rule.observe(state, rows, mixed, step.symbol)
        self.state = state
        if self.awake.all():
            self.steps = []

"""A causal language model of transformers, read byte by byte: an `Answerer` that knows no tokens.

>>> lm = load(folder)                                                            # doctest: +SKIP
>>> lm.loglikelihood(b"The capital of France is", b" Paris")                     # doctest: +SKIP
-0.73
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stages import hf_model
from stages.byte_lm.session import Session
from stages.byte_lm.token_tree import TokenModel, TooLong
from stages.byte_lm.validity import AllTokenisations, Rule, ValidTokenisations
from stages.byte_lm.vocabulary import END, Vocabulary, of
from stages.errors import InputError
from stages.hf_model import LoadIn
from stages.hf_tokenizer import HfTokenizer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from stages.byte_lm.ensemble import Pick, Watch

CoverRule = Literal["valid", "all"]


class ByteLm:
    """One member.

    Attributes:
        name: for messages and records.
        tolerance: see `stages.byte_lm.session`.
    """

    def __init__(
        self, model: Any, tokenizer: Any, *, name: str = "", covers: CoverRule = "valid", tolerance: float = 0.0, ends: Sequence[int] = ()
    ) -> None:
        """Take a loaded model and its tokenizer.

        Args:
            model: with a language-model head.
            tokenizer: a fast one.
            name: for messages.
            covers: `valid`, or `all` tokenisations (short texts only).
            tolerance: the part of the probability that may wait to be computed.
            ends: ids that end a text beside the tokenizer's own and the generation config's.

        Raises:
            InputError: the tokenizer or the model cannot be read byte by byte.
        """
        self.name, self.tolerance = name, tolerance
        self.model = TokenModel(model)
        configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
        listed = configured if isinstance(configured, list) else [] if configured is None else [configured]
        self.vocabulary: Vocabulary = of(tokenizer, rows=self.model.rows, ends=[*listed, *ends])
        self._last = LastPrompt(self.session)
        self.rule: Rule = ValidTokenisations(self.vocabulary) if covers == "valid" else AllTokenisations(self.vocabulary)

    def session(self) -> Session:
        """An empty text."""
        return Session(self.model, self.vocabulary, self.rule, self.tolerance)

    def rows(self, text: bytes, start: int = 0) -> NDArray[np.float64]:
        """(len(text) - start + 1, 257) log probabilities of the symbol after the first `start` bytes, and so on to the end."""
        session = self.session()
        session.push(text)
        return session.rows(start, len(text) + 1)

    def read(self, prompt: bytes) -> Session:
        """A session that holds a prompt, with rows from its end on. The last one is used again where the prompt is the same."""
        return self._last.read(prompt, len(prompt))

    def loglikelihood(self, prompt: bytes, continuation: bytes) -> float:
        """Log P(continuation | prompt) in nats: of all texts that begin with the prompt, the part that goes on so.

        Raises:
            InputError: there is no continuation, it is no UTF-8, or the text is longer than the model reads.
        """
        session = self.read(prompt)
        session.push(continuation)
        return log_likelihood(session.rows(len(prompt), len(prompt) + len(continuation)), continuation)

    def generate(self, prompt: bytes, max_bytes: int, stop: Sequence[bytes]) -> bytes:
        """The most likely next byte again and again; the lower one of two alike."""
        return self.run(prompt, max_bytes, stop)[0]

    def run(
        self, prompt: bytes, max_bytes: int, stop: Sequence[bytes] = (), pick: Pick | None = None, watch: Watch | None = None
    ) -> tuple[bytes, bool]:
        """Generate: (text, whether the model ended it). `pick` and `watch` as for an ensemble; greedy without."""
        session = self.session()
        session.push(prompt)
        made = bytearray()
        while len(made) < max_bytes:
            try:
                row = session.rows(session.length, session.length + 1)[0]
            except TooLong:
                break
            symbol = int(row.argmax()) if pick is None else pick(row, len(made))
            if symbol == END:
                return bytes(made), True
            made.append(symbol)
            end = stopped(made, stop)
            if end is not None:
                return bytes(made[:end]), False
            if watch is not None and watch(made):
                break
            session.push(bytes([symbol]))
            session.settle(session.length)
        return bytes(made), False


class LastPrompt:
    """The session of the last prompt: the choices of a question share theirs."""

    def __init__(self, fresh: Callable[[], Session]) -> None:
        self._fresh = fresh
        self._known: tuple[bytes, int, Session, tuple[int, int]] | None = None

    def read(self, prompt: bytes, start: int) -> Session:
        """The session as it was when it had read the prompt and told its rows from `start` on."""
        if self._known is not None and self._known[:2] == (prompt, start):
            self._known[2].back(self._known[3])
            return self._known[2]
        self._known = None
        session = self._fresh()
        session.push(prompt)
        session.rows(start, len(prompt) + 1)
        self._known = (prompt, start, session, session.mark())
        return session


def log_likelihood(rows: NDArray[np.float64], continuation: bytes) -> float:
    """Sum up a continuation's log probabilities (nats); `rows` (n, 257) begins with the one before its first byte.

    Raises:
        InputError: there is nothing to sum, or the result is not finite.
    """
    import math

    if not continuation:
        raise InputError("there is no continuation whose likelihood could be told")
    total = math.fsum(float(rows[number, byte]) for number, byte in enumerate(continuation))
    if not math.isfinite(total):
        raise InputError(f"the log-likelihood of {continuation[:40]!r} is {total}")
    return total


def stopped(made: bytearray, stop: Sequence[bytes]) -> int | None:
    """Where generation ended: the first place at which a stop begins, once one is there."""
    places = [place for item in stop if item and (place := made.find(item, max(0, len(made) - len(item)))) >= 0]
    return min(places) if places else None


def load(folder: Path, load_in: LoadIn = "auto", *, covers: CoverRule = "valid", tolerance: float = 0.0) -> ByteLm:
    """A model folder, as a member; no code of the folder is run.

    Args:
        folder: as `save_pretrained` lays it out, with its tokenizer.
        load_in: how the weights are held; see `stages.hf_model`.
        covers: see `ByteLm`.
        tolerance: see `ByteLm`.

    Raises:
        InputError: it does not load, or cannot be read byte by byte.
    """
    model, _ = hf_model.load(folder, load_in)
    return ByteLm(model, HfTokenizer(folder).tokenizer, name=folder.name, covers=covers, tolerance=tolerance)

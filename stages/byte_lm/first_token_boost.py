"""The first-token boost, a baseline: specialists push the target's first token, and only that one.

Of each specialist's 20 most likely next tokens after the prompt, the text is encoded by the target's tokenizer, and the first id of that
gets alpha * p * 10 added to its logit. Kept with its faults, because it is what is to be beaten: single tokens lose their leading blank or
are cut to their first piece, later ones overwrite earlier ones, and raising one logit lowers all others: it can be worse than the target.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from stages.byte_lm.token_member import TokenMember, grow, split

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class FirstTokenBoost:
    """An `Answerer`. With alpha 0 it is the target."""

    def __init__(self, target: TokenMember, specialists: Sequence[TokenMember], *, alpha: float = 0.2, top_k: int = 20) -> None:
        self.target, self.specialists, self.alpha, self.top_k = target, tuple(specialists), alpha, top_k

    def boost(self, prompt: bytes) -> dict[int, float]:
        """Id of the target -> what is added to its logit at the first step."""
        import numpy as np

        total: dict[int, float] = {}
        for specialist in self.specialists:
            logits = specialist.logits(specialist.encode(prompt))[-1]
            chances = np.exp(logits - logits.max())
            chances /= chances.sum()
            found: dict[int, float] = {}
            for number in np.argsort(-chances, kind="stable")[: self.top_k].tolist():
                text = specialist.tokenizer.decode([number])
                ids = self.target.tokenizer.encode(text, add_special=False) if text else []
                if ids:
                    found[ids[0]] = float(chances[number])
            for number, chance in found.items():
                total[number] = total.get(number, 0.0) + self.alpha * chance * 10
        return total

    def loglikelihood(self, prompt: bytes, continuation: bytes) -> float:
        """Nats of the target's tokens of the continuation, the first of them boosted."""
        before, after = split(self.target, prompt, continuation)
        logits = self.target.logits([*before, *after])[len(before) : -1].copy()
        self._add(logits[0], self.boost(prompt))
        return math.fsum(float(row[number] - _log_sum(row)) for row, number in zip(logits, after, strict=True))

    def generate(self, prompt: bytes, max_bytes: int, stop: Sequence[bytes]) -> bytes:
        """The target's greedy text, its first token boosted."""
        ids, boost = self.target.encode(prompt), self.boost(prompt)
        start = len(ids)

        def step(made: bytes) -> bytes | None:
            logits = self.target.logits(ids)[-1].copy()
            if len(ids) == start:
                self._add(logits, boost)
            number = int(logits.argmax())
            if number in self.target.vocabulary.ends:
                return None
            ids.append(number)
            return self.target.vocabulary.texts[number]

        return grow(step, max_bytes, stop)

    def _add(self, logits: NDArray[np.float64], boost: dict[int, float]) -> None:
        for number, value in boost.items():
            logits[number] += value


def _log_sum(row: NDArray[np.float64]) -> float:
    import numpy as np

    top = float(row.max())
    return top + float(np.log(np.exp(row - top).sum()))

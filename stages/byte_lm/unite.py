"""UniTE's rule, a baseline: at each step, the union of every member's most likely tokens, by string.

A member's logit of a string of the union that is no token of its own is that of the first token that it cuts it into. Each member's
softmax is over the union alone; the mean decides, and every member gets the string in its own tokens. Source: arXiv:2410.03777. Where its
code and its text differ (a second token of the same string gets logit 0; ties by the order of a Python set), this follows the text: one
string is one entry, and of several alike the first in byte order is taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from stages.byte_lm.token_member import TokenMember, grow, split

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_END = b""
"""The end of the text, which every member has."""


class Unite:
    """An `Answerer`."""

    def __init__(self, members: Sequence[TokenMember], *, top_k: int = 10, weights: Sequence[float] = ()) -> None:
        self.members, self.top_k = tuple(members), top_k
        self.weights = tuple(weights) or (1 / len(self.members),) * len(self.members)

    def step(self, contexts: Sequence[Sequence[int]], also: bytes | None = None) -> dict[bytes, float]:
        """The union's strings (`b""` for the end) and their probabilities.

        Args:
            contexts: each member's tokens so far.
            also: a string that is in the union in any case.
        """
        import numpy as np

        logits = [member.logits(ids)[-1] for member, ids in zip(self.members, contexts, strict=True)]
        union = {self._text(member, number) for member, row in zip(self.members, logits, strict=True) for number in self._best(member, row)}
        strings = sorted(union | ({also} if also is not None else set()))
        mean = np.zeros(len(strings))
        for weight, member, row in zip(self.weights, self.members, logits, strict=True):
            values = np.array([row[self._id(member, row, text)] for text in strings])
            powers = np.exp(values - values.max())
            mean += weight * powers / powers.sum()
        return dict(zip(strings, mean.tolist(), strict=True))

    def loglikelihood(self, prompt: bytes, continuation: bytes) -> float:
        """Nats of the first member's tokens of the continuation; each is put into the union where it is not there by itself."""
        before, after = split(self.members[0], prompt, continuation)
        texts = self.members[0].vocabulary.texts
        done = b"".join(texts[number] for number in before)
        total = []
        for number in after:
            contexts = [member.encode(done) for member in self.members]
            total.append(math.log(self.step(contexts, texts[number])[texts[number]]))
            done += texts[number]
        return math.fsum(total)

    def generate(self, prompt: bytes, max_bytes: int, stop: Sequence[bytes]) -> bytes:
        """The union's most likely string again and again."""
        contexts = [member.encode(prompt) for member in self.members]

        def step(made: bytes) -> bytes | None:
            chances = self.step(contexts)
            best = max(chances, key=lambda text: (chances[text], [-byte for byte in text]))
            if best == _END:
                return None
            for member, ids in zip(self.members, contexts, strict=True):
                ids += [member.ids[best]] if best in member.ids else self._cut(member, best)
            return best

        return grow(step, max_bytes, stop)

    def _best(self, member: TokenMember, row: NDArray[np.float64]) -> list[int]:
        import numpy as np

        allowed = [number for number in range(len(row)) if member.vocabulary.texts[number] or number in member.vocabulary.ends]
        order = np.argsort(-row[allowed], kind="stable")[: self.top_k]
        return [allowed[place] for place in order.tolist()]

    def _text(self, member: TokenMember, number: int) -> bytes:
        return _END if number in member.vocabulary.ends else member.vocabulary.texts[number]

    def _id(self, member: TokenMember, row: NDArray[np.float64], text: bytes) -> int:
        if text == _END:
            return max(member.vocabulary.ends, key=lambda number: row[number])
        return member.ids[text] if text in member.ids else self._cut(member, text)[0]

    def _cut(self, member: TokenMember, text: bytes) -> list[int]:
        """A string in a member's tokens: as it encodes it, or byte by byte where it is no whole text."""
        try:
            text.decode()
        except UnicodeDecodeError:
            return [member.ids[bytes([byte])] for byte in text]
        return member.encode(text)

"""The first-token boost as a whole ensemble, a baseline: see `stages.byte_lm.first_token_boost`. It reads tokens, not bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stages.combiners.combiner import Combiner
from stages.errors import SpecError
from stages.hf_model import LoadIn
from stages.questions import Answerer


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstTokenBoost:
    """How loud specialists are: at most 10 alpha logits each, once."""

    alpha: float = 0.2
    """0 is the target."""
    top_k: int = 20
    """Tokens of each specialist that are looked at."""

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1 or self.top_k < 1:
            raise SpecError(f"alpha is {self.alpha} and top_k {self.top_k}; alpha is a part, between 0 and 1, and top_k at least 1")


def answerer(spec: FirstTokenBoost, folders: Sequence[Path], load_in: LoadIn) -> Answerer:
    """The target of the first folder, pushed by the others."""
    from stages.byte_lm import first_token_boost
    from stages.byte_lm.token_member import TokenMember

    target, *specialists = (TokenMember(folder, load_in) for folder in folders)
    return first_token_boost.FirstTokenBoost(target, specialists, alpha=spec.alpha, top_k=spec.top_k)


COMBINER = Combiner(name="first-token-boost", spec=FirstTokenBoost, answerer=answerer)

"""UniTE's rule as a whole ensemble, a baseline: see `stages.byte_lm.unite`. It reads tokens, not bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stages.combiners.combiner import Combiner
from stages.errors import SpecError
from stages.hf_model import LoadIn
from stages.questions import Answerer


@dataclass(frozen=True, slots=True, kw_only=True)
class Unite:
    """Equal weights, as published."""

    top_k: int = 10
    """Tokens of each member in the union."""

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise SpecError(f"top_k is {self.top_k}; it must be at least 1")


def answerer(spec: Unite, folders: Sequence[Path], load_in: LoadIn) -> Answerer:
    """All members, token strings in common."""
    from stages.byte_lm import unite
    from stages.byte_lm.token_member import TokenMember

    return unite.Unite([TokenMember(folder, load_in) for folder in folders], top_k=spec.top_k)


COMBINER = Combiner(name="unite", spec=Unite, answerer=answerer)

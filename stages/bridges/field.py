"""What one source has to say: its hidden states on the prefix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stages.errors import InputError


@dataclass(frozen=True, slots=True)
class Field:
    """States of one source at one layer, for B prefixes.

    Only the prefix may have been read: a state behind its last byte, or a state of a model that has seen more, is the answer leaking.

    Attributes:
        states: (B, P, h_source), padded on the right. For a cache bridge P counts the target's tokens (see `on_target_tokens`).
        mask: (B, P) bool, where a row has a state.

    Raises:
        InputError: shapes do not go together.
    """

    states: Tensor
    mask: Tensor

    def __post_init__(self) -> None:
        if self.states.ndim != 3 or self.mask.shape != self.states.shape[:2] or self.mask.dtype != torch.bool:
            raise InputError(
                f"a field is states (B, P, h) with a mask (B, P) of bool; got {tuple(self.states.shape)} and "
                f"{tuple(self.mask.shape)} of {self.mask.dtype}"
            )

    def to(self, device: torch.device) -> Field:
        """The same on a device, in float32."""
        return Field(self.states.to(device, torch.float32), self.mask.to(device))

    def from_end(self) -> Tensor:
        """(B, P) how many states of its row come after each: 0 for the last of the prefix."""
        return self.mask.flip(1).cumsum(1).flip(1) - self.mask.long()


def of_rows(rows: Sequence[Tensor]) -> Field:
    """The field of B prefixes of any lengths, each (P_b, h) with at least one state.

    Raises:
        InputError: a prefix without a state.
    """
    if not rows or not all(len(row) for row in rows):
        raise InputError("each prefix needs at least one state of the source: begin it with BOS, or leave the source out (None)")
    states = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    lengths = torch.tensor([len(row) for row in rows], device=states.device)
    return Field(states, torch.arange(states.shape[1], device=states.device) < lengths[:, None])


def align(source_ends: Sequence[int], target_ends: Sequence[int], *, hold: bool = False) -> list[int]:
    """For each of the target's tokens the number of the source's token that ends at the same byte, or -1.

    Of several source tokens that end there, the last. Such two tokens have read the same bytes, whatever the tokenizers cut before; the
    source's *first* token inside the target's, which C2C takes, has read less, and one that reaches beyond would have read more.

    Args:
        source_ends: after how many bytes each token ends, ascending; -1 where nobody knows (`stages.many_worlds.positions.token_ends`).
        target_ends: the same of the target.
        hold: where none ends at the same byte, take the last one that ended before: it has read less, never more.

    >>> align([2, 3, 6], [1, 3, 4, 6])
    [-1, 1, -1, 2]
    >>> align([2, 3, 6], [1, 3, 4, 6], hold=True)
    [-1, 1, 1, 2]
    """
    last = {end: number for number, end in enumerate(source_ends) if end > 0}
    if not hold:
        return [last.get(end, -1) for end in target_ends]
    known = sorted(last)
    return [max((last[end] for end in known if end <= place), default=-1) for place in target_ends]


def on_target_tokens(states: Tensor, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
    """A row of a cache bridge's field: (T, h) states and (T,) mask, from a source's (P, h) states and `align`'s numbers."""
    index = torch.tensor(list(numbers), dtype=torch.long, device=states.device)
    mask = index >= 0
    return torch.where(mask[:, None], states[index.clamp(min=0)], states.new_zeros(())), mask

"""Aligned states in memory: the rows that models are trained on, and the rows that nothing but the evaluation sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from stages import align_states
from stages.errors import InputError
from stages.many_worlds import positions, tensor_file


@dataclass(frozen=True, slots=True)
class Rows:
    """Places in texts with every model's state there.

    Attributes:
        states: model -> (n, h), as the model computed them.
        texts: (n,) keys of the texts. prefixes: (n,) keys of what was read. ends: (n,) bytes read.
    """

    states: Mapping[str, Tensor]
    texts: Tensor
    prefixes: Tensor
    ends: Tensor

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Tensor) -> Rows:
        """Some rows, in the order asked for."""
        return Rows({name: item[rows] for name, item in self.states.items()}, self.texts[rows], self.prefixes[rows], self.ends[rows])


@dataclass(frozen=True, slots=True)
class Aligned:
    """Training and held-out rows; no prefix is in both, or twice in one.

    Attributes:
        layers: model -> layer of its states.
    """

    train: Rows
    held_out: Rows
    layers: Mapping[str, int]


def load(folder: Path, heldout_percent: int) -> Aligned:
    """Read a tree of aligned blocks.

    Raises:
        InputError: there is not enough on one of the sides.
    """
    files = [tensor_file.read(path, align_states.FORM) for path in sorted(folder.glob("*.safetensors"))]
    if not files:
        raise InputError("there are no aligned states")
    head = files[0].head
    joined = {name: torch.cat([file.tensors[name] for file in files]) for name in ("texts", "prefixes", "ends")}
    states = {name: torch.cat([file.tensors[f"states/{name}"] for file in files]) for name in head["models"]}
    rows = Rows(states, joined["texts"], joined["prefixes"], joined["ends"])
    held = torch.tensor([positions.is_held_out(key, heldout_percent) for key in rows.texts.tolist()], dtype=torch.bool)
    seen: set[int] = set()
    sides = []
    for side in (~held, held):  # what training has read is not asked of the evaluation again
        chosen = []
        for row in side.nonzero().flatten().tolist():
            prefix = int(rows.prefixes[row])
            if prefix not in seen:
                seen.add(prefix)
                chosen.append(row)
        sides.append(rows.take(torch.tensor(chosen, dtype=torch.int64)))
    for side_rows, what in zip(sides, ("training", "held-out"), strict=True):
        if len(side_rows) < 2:
            raise InputError(
                f"{len(side_rows)} {what} places where {', '.join(head['models'])} have read the same bytes; at least 2 are needed. "
                "Take more texts, or longer ones (maxBytes)"
            )
    return Aligned(sides[0], sides[1], head["layers"])

"""The optimiser of many-worlds trainings: AdamW around moments that live in a state, and one step of it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def adamw(
    trained: Mapping[str, nn.Parameter], moments: Mapping[str, dict[str, Tensor]], *, step: int, learning_rate: float, weight_decay: float
) -> torch.optim.AdamW:
    """AdamW; decay is of matrices alone.

    Args:
        trained: name -> parameter, in order.
        moments: kind (exp_avg, exp_avg_sq) -> parameter -> values, changed in place by each step; zeros are put where there are none yet.
        step: steps done.
        learning_rate: of the next step.
        weight_decay: see above.
    """
    matrices = [value for value in trained.values() if value.ndim > 1]
    others = [value for value in trained.values() if value.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=learning_rate, fused=True)
    for name, value in trained.items():
        own = {kind: values.setdefault(name, torch.zeros_like(value)) for kind, values in moments.items()}
        optimizer.state[value] = {"step": torch.tensor(float(step), device=value.device), **own}
    return optimizer

"""The control in closed form: a linear map from the sources' last states to the target's, added to its hidden states.

What a residual bridge (v1, v2) has to beat: no substrate, no steps, one least-squares problem.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stages.bridges.field import Field
from stages.bridges.injection import Injection
from stages.errors import InputError
from stages.many_worlds import baselines

_TUNING = 5
"""Every fifth row chooses the penalty."""


@dataclass(frozen=True, slots=True)
class RidgeMap:
    """goal = (state - center) / spread @ weight + mean.

    Attributes:
        center, spread: (h_s,) units of the sources' states, one source after another.
        weight: (h_s, h_t).
        mean: (h_t,) of the goals.
        penalty: the one chosen.
    """

    center: Tensor
    spread: Tensor
    weight: Tensor
    mean: Tensor
    penalty: float

    def inject(self, fields: Sequence[Field], share: float) -> Injection:
        """`share` times the mapped states, added from the last token of the prefix on.

        Raises:
            InputError: fields of other widths than those it was fitted to.
        """
        states = last_states(fields)
        if states.shape[1] != len(self.center):
            raise InputError(f"the map was fitted to states of {len(self.center)} numbers, and these have {states.shape[1]}")
        added = share * ((states - self.center) / self.spread @ self.weight + self.mean)[:, None]
        return Injection(delta=lambda hidden: added.to(hidden.device).expand(-1, hidden.shape[1], -1))


def last_states(fields: Sequence[Field]) -> Tensor:
    """(B, sum of the widths) the last state of each source, side by side."""
    rows = [field.states[torch.arange(len(field.mask)), field.mask.sum(dim=1).cpu() - 1] for field in fields]
    return torch.cat([row.float().cpu() for row in rows], dim=1)


def fit(states: Tensor, goals: Tensor) -> RidgeMap:
    """Fit one, with the penalty that is best on every fifth row when fitted on the others.

    Args:
        states: (N, h_s) `last_states` of training prefixes, N at least 10.
        goals: (N, h_t) what the target's hidden states are to become (`BridgedTarget.goal`).

    Raises:
        InputError: too few rows.
    """
    if len(states) < 2 * _TUNING:
        raise InputError(f"a ridge map of {len(states)} rows; it needs at least {2 * _TUNING}")
    states, goals = states.detach().double().cpu(), goals.detach().double().cpu()
    center, spread = states.mean(dim=0), states.std(dim=0).clamp(min=torch.finfo(torch.float32).eps)
    mean = goals.mean(dim=0)
    tuning = np.arange(len(states)) % _TUNING == 0
    weight, penalty = baselines.tuned_ridge(((states - center) / spread).numpy(), (goals - mean).numpy(), tuning)
    return RidgeMap(center.float(), spread.float(), torch.from_numpy(weight).float(), mean.float(), penalty)

"""The control without any training: a ridge map from the mean of the sources' states to what the target makes of the continuation.

What it gives enters where the bridge's own injection does. Fitted on the training texts:

- soft prompts: the mean embedding of the scored tokens, as one soft token;
- residual and cross-attention: the target's mean state over the scored tokens at the layer of insertion, less its mean over texts, added;
- cache: the same of the values of every layer, added to the values of the prefix.

The penalty is tuned on a tenth of the training texts, the length of what is injected on some of them; no held-out text has a say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages import hf_model
from stages.bridge_protocol import readings
from stages.bridge_protocol.readings import Text
from stages.bridges.injection import Injection
from stages.bridges.spec import BridgeSpec
from stages.bridges.target import BridgedTarget
from stages.many_worlds import baselines

SCALES = (0.01, 0.03, 0.1, 0.3, 1.0)
"""Lengths that are tried: in parts of the target's mean embedding length, or of what the map says."""
BATCH = 16
TUNING_TEXTS = 64

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Ridge:
    """A fitted map.

    Attributes:
        weights: (h of all sources, goal). center, spread: of the inputs. mean: of the goal.
        scale: one of SCALES.
    """

    spec: BridgeSpec
    sources: tuple[str, ...]
    weights: Array
    center: Array
    spread: Array
    mean: Array
    scale: float
    penalty: float

    def injection(self, texts: Sequence[Text], target: BridgedTarget) -> Injection:
        """What it says of some texts."""
        said = (_pooled(texts, self.sources) - self.center) / self.spread @ self.weights
        if self.spec.inject == "soft-prompt":
            soft = torch.nn.functional.normalize(_tensor(said + self.mean, target), dim=1) * target.mean_norm * self.scale
            return Injection(soft=soft[:, None], place=self.spec.place)
        added = _tensor(said * self.scale, target)
        if self.spec.inject == "cache":
            shape = target.shape
            values = added.reshape(len(texts), shape.layers, shape.kv_heads, 1, shape.head_dim)
            return Injection(fuse=lambda layer, keys, old: (torch.zeros_like(keys), values[:, layer].expand_as(old)))
        return Injection(delta=lambda hidden: added[:, None].expand_as(hidden))


def fit(texts: Sequence[Text], sources: tuple[str, ...], spec: BridgeSpec, target: BridgedTarget) -> Ridge:
    """Fit on training texts."""
    inputs, goal = _pooled(texts, sources), _goals(texts, spec, target)
    center, spread, mean = inputs.mean(axis=0), inputs.std(axis=0), goal.mean(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    tuning = np.array([text.key % 10 == 0 for text in texts])
    if not 0 < tuning.sum() < len(tuning):
        tuning = np.arange(len(texts)) % 2 == 0
    weights, penalty = baselines.tuned_ridge((inputs - center) / spread, goal - mean, tuning)
    made = [Ridge(spec, sources, weights, center, spread, mean, scale, penalty) for scale in SCALES]
    some = texts[:TUNING_TEXTS]
    losses = [nats(some, target, partial(one.injection, target=target)).sum() for one in made]
    return made[int(np.argmin(losses))]


def nats(texts: Sequence[Text], target: BridgedTarget, of: Callable[[Sequence[Text]], Injection]) -> Array:
    """(n,) losses of the continuations, nats, with an injection for each batch."""
    found = []
    with torch.inference_mode():
        for start in range(0, len(texts), BATCH):
            part = texts[start : start + BATCH]
            found.append(target.nll(*readings.tokens(part, target.device), of(part)).double().cpu().numpy())
    return np.concatenate(found)


def _pooled(texts: Sequence[Text], sources: Sequence[str]) -> Array:
    """(n, h of all) mean state of each source on each prefix."""
    return np.array([np.concatenate([text.states[name].double().mean(dim=0).cpu().numpy() for name in sources]) for text in texts])


def _goals(texts: Sequence[Text], spec: BridgeSpec, target: BridgedTarget) -> Array:
    """(n, goal) see above."""
    found = []
    with torch.inference_mode():
        for start in range(0, len(texts), BATCH):
            part = texts[start : start + BATCH]
            ids, scored = readings.tokens(part, target.device)
            if spec.inject in ("residual", "cross-attention"):
                found.append(target.goal(ids, scored).double().cpu().numpy())
                continue
            rows = target.embedding[ids] if spec.inject == "soft-prompt" else _values(part, ids, target)
            weights = scored.double() / scored.sum(dim=1, keepdim=True)
            found.append((rows.double() * weights[..., None]).sum(dim=1).cpu().numpy())
    return np.concatenate(found)


def _values(texts: Sequence[Text], ids: Tensor, target: BridgedTarget) -> Tensor:
    """(B, T, layers heads head_dim) the values of every layer, side by side."""
    lengths = torch.tensor([len(text.ids) for text in texts], device=ids.device)
    mask = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
    out = target.model(input_ids=ids, attention_mask=mask.long(), use_cache=True)
    layers = getattr(out, hf_model.cache_word(target.model)).layers
    return torch.cat([layer.values.transpose(1, 2).flatten(2) for layer in layers], dim=-1)


def _tensor(values: Array, target: BridgedTarget) -> Tensor:
    return torch.from_numpy(values).float().to(target.device)

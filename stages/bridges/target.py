"""A frozen causal language model of transformers, and what an injection does to it. Its weights are read and never changed.

Rows are padded on the right. Of each row, the tokens before the first scored one are the prefix: what a bridge's sources may have read.
Additions to hidden states, and LoRA, act from the prefix's last token on (it predicts the first scored one); additions to the cache act on
the keys and values of the prefix without its last token, as that and what follows read them. Soft tokens stand at the front or at the seam;
those at the front are seen by the tokens of the prefix too, which is why nothing in the prefix can be scored.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from stages import hf_model
from stages.bridges import lora
from stages.bridges.injection import Injection, none
from stages.bridges.lora import Projections
from stages.bridges.spec import BridgeSpec
from stages.bridges.vectors import length
from stages.errors import InputError, SpecError
from stages.hidden_states import two_thirds


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of a target that a bridge depends on."""

    hidden: int
    layers: int
    vocabulary: int
    heads: int
    kv_heads: int
    head_dim: int


class BridgedTarget:
    """The target.

    Args:
        model: as `AutoModelForCausalLM` gives it; it is put into evaluation mode, and none of its parameters wants a gradient any more.
        spec: of the bridges that it is to take.

    Attributes:
        shape: its sizes.
        layer: after so many layers hidden states are added to.
        embedding: (V, h) its input embeddings, not a copy.
        mean_norm: () mean length of these. mean_embedding: (h,) their mean; both float32.

    Raises:
        SpecError: the layer is not one of the model's, or its layers are not found.
    """

    def __init__(self, model: Any, spec: BridgeSpec) -> None:
        self.model = model.eval().requires_grad_(False)
        self.spec = spec
        config = model.config.get_text_config()
        self.embedding: Tensor = model.get_input_embeddings().weight
        heads: int = config.num_attention_heads
        self.shape = Shape(
            hidden=self.embedding.shape[1],
            layers=config.num_hidden_layers,
            vocabulary=self.embedding.shape[0],
            heads=heads,
            kv_heads=getattr(config, "num_key_value_heads", None) or heads,
            head_dim=getattr(config, "head_dim", None) or self.embedding.shape[1] // heads,
        )
        self.layer = two_thirds(self.shape.layers) if spec.insert_layer is None else spec.insert_layer
        if self.layer > self.shape.layers:
            raise SpecError(f"insertLayer is {self.layer}, and the target has {self.shape.layers} layers")
        self._layers = _layers(model, self.shape.layers)
        self._most: int | None = getattr(config, "max_position_embeddings", None)
        self._cache = hf_model.cache_word(model)

    @property
    def device(self) -> torch.device:
        """Where its embeddings are."""
        return self.embedding.device

    @cached_property
    def mean_norm(self) -> Tensor:
        """() mean length of an embedding."""
        return length(self.embedding).mean()

    @cached_property
    def mean_embedding(self) -> Tensor:
        """(h,)."""
        return self.embedding.float().mean(dim=0)

    @cached_property
    def projections(self) -> list[Projections]:
        """Queries and values of the layers after the insertion, which LoRA changes.

        Raises:
            SpecError: there is no such layer, or its modules have unknown names.
        """
        if self.layer == self.shape.layers:
            raise SpecError(f"LoRA acts on the layers after the insertion, and layer {self.layer} is the last: lower insertLayer")
        shape = self.shape
        return [lora.find(layer, shape.heads, shape.kv_heads, shape.head_dim) for layer in self._layers[self.layer :]]

    def checksum(self) -> str:
        """SHA-256 over all parameters and buffers, by name: equal before and after whatever a bridge does."""
        state = hashlib.sha256()
        for name, value in sorted(self.model.state_dict().items()):
            state.update(name.encode())
            state.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return state.hexdigest()

    # --- what is likely ----------------------------------------------------------------------------------------------------------

    def nll(self, ids: Tensor, scored: Tensor, injection: Injection) -> Tensor:
        """(B,) -log P of the scored tokens of each row, in nats, summed.

        Rows that the injection leaves alone (`active` is False) have the very bits that `none()` gives for the same `ids` and `scored`.

        Args:
            ids: (B, T), padded on the right with any id; what follows the last scored token is not read.
            scored: (B, T) bool; what stands before the first of a row is its prefix.
            injection: of B rows.

        Raises:
            InputError: a row without a scored token, or without a prefix.
        """
        ids, scored, starts, lengths = self._placed(ids, scored)
        return self._chosen(injection, lambda one: self._nll(ids, scored, starts, lengths, one))

    def logits(self, ids: Tensor, starts: Tensor, injection: Injection, lengths: Tensor | None = None) -> Tensor:
        """(B, T, V): place t has the logits of the token after `ids[:, t]`.

        Args:
            ids: (B, T), padded on the right.
            starts: (B,) length of each prefix, at least 1. With soft tokens at the front, places before starts - 1 depend on them.
            injection: of B rows.
            lengths: (B,) tokens of each row; all T if not given.
        """
        known = (torch.full_like(starts, ids.shape[1]) if lengths is None else lengths).to(self.device)
        ids, starts = ids.to(self.device), starts.to(self.device)
        return self._chosen(injection, lambda one: self._logits(ids, starts, known, one))

    def align(self, ids: Tensor, scored: Tensor, injection: Injection) -> Tensor:
        """(B,) how far what is added behind the prefix lies from the mean of the target's own states over the scored tokens.

        The loss of v3 to v6, which nothing behind the layer of insertion has to pass: 1 - cosine, or with `objective: align-mse` the mean
        square through that of the goal. The states are the goal, not an input.

        Raises:
            SpecError: nothing is added to hidden states.
        """
        ids, scored, starts, lengths = self._placed(ids, scored)
        hidden, added = self._recorded(ids, starts, lengths, injection)
        goal = _mean_state(hidden, scored)
        found = added[torch.arange(len(ids), device=ids.device), starts - 1]
        if self.spec.objective == "align-mse":
            return (found - goal).square().sum(dim=-1) / goal.square().sum(dim=-1)
        return 1 - functional.cosine_similarity(found, goal, dim=-1)

    def goal(self, ids: Tensor, scored: Tensor) -> Tensor:
        """(B, h) the mean of the target's own states over the scored tokens, at the layer of insertion: what `align` steers to."""
        ids, scored, starts, lengths = self._placed(ids, scored)
        with torch.no_grad():
            hidden, _ = self._recorded(ids, starts, lengths, Injection(delta=torch.zeros_like))
        return _mean_state(hidden, scored)

    def ratio(self, ids: Tensor, scored: Tensor, injection: Injection) -> Tensor:
        """(B,) how large the injection is next to what it meets: mean length of what is added through that of what it is added to.

        Of soft tokens: their mean length through the target's mean embedding length. Of a cache: keys and values of all layers.
        """
        ids, scored, starts, lengths = self._placed(ids, scored)
        if injection.soft is not None:
            return (length(injection.soft).mean(dim=(1, 2)) / self.mean_norm).expand(len(ids))
        if injection.fuse is not None:
            return self._fused_ratio(ids, starts, lengths, injection)
        if injection.delta is None:
            return torch.zeros(len(ids), device=ids.device)
        hidden, added = self._recorded(ids, starts, lengths, injection)
        acts = (_acts(ids, starts) & (_places(ids) < lengths[:, None])).float()
        return ((length(added) / length(hidden))[..., 0] * acts).sum(dim=1) / acts.sum(dim=1)

    # --- what it says ------------------------------------------------------------------------------------------------------------

    def stream(self, ids: Tensor, injection: Injection) -> Iterator[int]:
        """Greedy tokens after one prefix, one at a time, with a key-value cache; ends where the model reads no more.

        Args:
            ids: (P,) or (1, P), P at least 1.
            injection: of one row.

        Raises:
            InputError: an empty prefix.
        """
        row = ids.reshape(1, -1).to(self.device)
        if row.shape[1] == 0:
            raise InputError("there is no prefix: begin it with BOS, or with EOS where the model has no other")
        if injection.active is not None and not bool(injection.active.all()):
            injection = none()
        read, cache = row.shape[1], None
        out, acting, soft = self._begin(row, injection)
        read += soft
        while True:
            cache = getattr(out, self._cache)
            found = int(out.logits[0, -1].argmax())
            yield found
            if self._most is not None and read >= self._most:
                return
            read += 1
            with torch.no_grad():
                out = self._call(acting, None, input_ids=row.new_tensor([[found]]), use_cache=True, **{self._cache: cache})

    def generate(self, ids: Tensor, injection: Injection, max_new: int, stop: Collection[int] = ()) -> list[int]:
        """At most `max_new` greedy tokens after one prefix; one of `stop` is the last where it comes."""
        made: list[int] = []
        if max_new < 1:
            return made
        for found in self.stream(ids, injection):
            made.append(found)
            if found in stop or len(made) == max_new:
                break
        return made

    def _begin(self, row: Tensor, injection: Injection) -> tuple[Any, Injection, int]:
        """(first output, what still acts afterwards, soft tokens read)."""
        starts = torch.tensor([row.shape[1]], device=row.device)
        with torch.no_grad():
            if injection.soft is not None:
                embeds, _ = self._with_soft(row, starts, injection)
                return self._call(none(), None, inputs_embeds=embeds, use_cache=True), none(), injection.soft.shape[1]
            if injection.fuse is not None and row.shape[1] > 1:
                first = self._call(none(), None, input_ids=row[:, :-1], use_cache=True, **{self._cache: _cache()})
                cache = self._fuse(getattr(first, self._cache), row.shape[1] - 1, starts, injection)
                return self._call(none(), None, input_ids=row[:, -1:], use_cache=True, **{self._cache: cache}), none(), 0
            acting = none() if injection.fuse is not None else injection
            return self._call(acting, _acts(row, starts), input_ids=row, use_cache=True), acting, 0

    # --- inside ------------------------------------------------------------------------------------------------------------------

    def _placed(self, ids: Tensor, scored: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(ids, scored, (B,) lengths of the prefixes, (B,) lengths of all that is read), where the model is."""
        ids, scored = ids.to(self.device), scored.to(self.device)
        return ids, scored, _starts(scored), _lengths(scored)

    def _chosen(self, injection: Injection, of: Any) -> Tensor:
        """Rows that are left alone are computed without any injection, with all others beside them, so that their bits are the target's."""
        active = injection.active
        if injection.is_none or (active is not None and not bool(active.any())):
            plain: Tensor = of(none())
            return plain
        found: Tensor = of(injection)
        if active is None or bool(active.all()):
            return found
        return torch.where(active.reshape(-1, *[1] * (found.ndim - 1)), found, of(none()))

    def _nll(self, ids: Tensor, scored: Tensor, starts: Tensor, lengths: Tensor, injection: Injection) -> Tensor:
        logits = self._logits(ids, starts, lengths, injection)[:, :-1]
        wanted = scored[:, 1:]
        losses = functional.cross_entropy(logits[wanted].float(), ids[:, 1:][wanted], reduction="none")
        rows = wanted.nonzero()[:, 0]
        return torch.zeros(len(ids), device=ids.device, dtype=torch.float64).index_add(0, rows, losses.double())

    def _logits(self, ids: Tensor, starts: Tensor, lengths: Tensor, injection: Injection) -> Tensor:
        mask = _mask(ids, lengths)
        if injection.soft is not None:
            embeds, order = self._with_soft(ids, starts, injection)
            if mask is not None:
                mask = functional.pad(_places(ids) < lengths[:, None], (injection.soft.shape[1], 0), value=True)
                mask = (
                    mask.gather(1, order) if injection.place == "front" else _places(order) < (lengths + injection.soft.shape[1])[:, None]
                )
                mask = mask.long()
            found: Tensor = self._call(none(), None, inputs_embeds=embeds, attention_mask=mask, use_cache=False).logits
            behind = injection.soft.shape[1] + _places(ids)
            if injection.place == "seam":
                behind = torch.where(_places(ids) < starts[:, None] - 1, _places(ids), behind)
            return found.gather(1, behind.expand(len(ids), -1)[..., None].expand(-1, -1, found.shape[-1]))
        if injection.fuse is not None:
            return self._fused_logits(ids, starts, lengths, injection)
        plain: Tensor = self._call(injection, _acts(ids, starts), input_ids=ids, attention_mask=mask, use_cache=False).logits
        return plain

    def _with_soft(self, ids: Tensor, starts: Tensor, injection: Injection) -> tuple[Tensor, Tensor]:
        """((B, k + T, h) embeddings, (B, k + T) the place of each in soft tokens followed by ids)."""
        assert injection.soft is not None
        count = injection.soft.shape[1]
        tokens = self.model.get_input_embeddings()(ids)
        both = torch.cat([injection.soft.to(tokens.dtype).expand(len(ids), -1, -1), tokens], dim=1)
        order = torch.arange(both.shape[1], device=ids.device).expand(len(ids), -1)
        if injection.place == "front":
            return both, order
        start = starts[:, None]
        order = torch.where(order < start, order + count, torch.where(order < start + count, order - start, order))
        return both.gather(1, order[..., None].expand_as(both)), order

    def _fused_logits(self, ids: Tensor, starts: Tensor, lengths: Tensor, injection: Injection) -> Tensor:
        mask = _mask(ids, lengths)
        with torch.no_grad():
            whole = self._call(none(), None, input_ids=ids, attention_mask=mask, use_cache=True, **{self._cache: _cache()})
        prefix = int(starts.max()) - 1
        plain: Tensor = whole.logits
        if prefix == 0:
            return plain
        cache = self._fuse(getattr(whole, self._cache), prefix, starts, injection)
        width = ids.shape[1] - int(starts.min()) + 1
        places = starts[:, None] - 1 + torch.arange(width, device=ids.device)
        held = torch.arange(prefix, device=ids.device) < starts[:, None] - 1
        tail = self._call(
            none(),
            None,
            input_ids=ids.gather(1, places.clamp(max=ids.shape[1] - 1)),
            attention_mask=torch.cat([held, places < lengths[:, None]], dim=1).long(),
            position_ids=places.clamp(max=ids.shape[1] - 1),
            use_cache=True,
            **{self._cache: cache},
        ).logits
        index = (_places(ids) - starts[:, None] + 1).clamp(min=0)
        moved = tail.gather(1, index[..., None].expand(-1, -1, tail.shape[-1]))
        return torch.where(_acts(ids, starts)[..., None], moved, plain)

    def _fuse(self, cache: Any, prefix: int, starts: Tensor, injection: Injection) -> Any:
        """A new cache of the first `prefix` places, with additions in those that belong to a row's prefix without its last token."""
        assert injection.fuse is not None
        held = (torch.arange(prefix, device=starts.device) < starts[:, None] - 1)[:, None, :, None]
        made = _cache()
        for number, layer in enumerate(cache.layers):
            keys, values = layer.keys[:, :, :prefix], layer.values[:, :, :prefix]
            if keys.shape != values.shape or keys.shape[1::2] != (self.shape.kv_heads, self.shape.head_dim):
                raise SpecError(
                    f"keys {tuple(keys.shape)} and values {tuple(values.shape)} of the target are no plain heads: no cache fusion"
                )
            key, value = injection.fuse(number, keys, values)
            made.update(
                torch.where(held, keys + key.to(keys.dtype), keys), torch.where(held, values + value.to(keys.dtype), values), number
            )
        return made

    def _fused_ratio(self, ids: Tensor, starts: Tensor, lengths: Tensor, injection: Injection) -> Tensor:
        assert injection.fuse is not None
        inner, sizes = injection.fuse, torch.zeros(2, len(ids), device=ids.device)

        def fuse(layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
            added = inner(layer, keys, values)
            held = (torch.arange(keys.shape[2], device=ids.device) < starts[:, None] - 1)[:, None].float()
            sizes[0] += sum((length(item)[..., 0] * held).sum(dim=(1, 2)) for item in added)
            sizes[1] += sum((length(item)[..., 0] * held).sum(dim=(1, 2)) for item in (keys, values))
            return added

        with torch.no_grad():
            self._logits(ids, starts, lengths, replace(injection, fuse=fuse))
        return sizes[0] / sizes[1].clamp(min=torch.finfo(torch.float32).tiny)

    def _recorded(self, ids: Tensor, starts: Tensor, lengths: Tensor, injection: Injection) -> tuple[Tensor, Tensor]:
        """(states at the layer of insertion, what is added to them), each (B, T, h)."""
        inner = injection.delta
        if inner is None:
            raise SpecError("nothing is added to hidden states")
        seen: list[Tensor] = []

        def delta(hidden: Tensor) -> Tensor:
            added = inner(hidden)
            seen.extend((hidden, added))
            return added

        self._logits(ids, starts, lengths, replace(injection, delta=delta))
        return seen[0], seen[1]

    def _call(self, injection: Injection, acts: Tensor | None, **inputs: Any) -> Any:
        with self._acting(injection, acts):
            return self.model(**inputs)

    @contextmanager
    def _acting(self, injection: Injection, acts: Tensor | None) -> Iterator[None]:
        """Hooks while the model is called, and not a moment longer; `acts` (B, S) is where they act, None everywhere."""
        handles: list[Any] = []
        try:
            if injection.delta is not None:
                handles.append(self._layers[self.layer - 1].register_forward_hook(_adding(injection.delta, acts)))
            if injection.lora is not None:
                pairs = zip(self._layers[self.layer :], self.projections, injection.lora.query, injection.lora.value, strict=True)
                for layer, place, query, value in pairs:
                    if place.layout == "apart":
                        handles.append(layer.get_submodule(place.query).register_forward_hook(_raising(query, acts)))
                        handles.append(layer.get_submodule(place.value).register_forward_hook(_raising(value, acts)))
                    else:
                        hook = _raising(_Joined(place, query, value), acts)
                        handles.append(layer.get_submodule(place.query).register_forward_hook(hook))
            yield
        finally:
            for handle in handles:
                handle.remove()


def uncertainty(target: BridgedTarget, ids: Tensor, lengths: Tensor | None = None) -> Tensor:
    """(B,) entropy of the target's softmax after each prefix, through log V: 0 where it is sure, 1 where every token is as likely.

    Args:
        target: asked without any injection.
        ids: (B, P) prefixes, padded on the right.
        lengths: (B,) of each; all P if not given.
    """
    ids = ids.to(target.device)
    lengths = torch.full((len(ids),), ids.shape[1], device=ids.device) if lengths is None else lengths.to(ids.device)
    with torch.no_grad():
        logits = target.logits(ids, lengths, none(), lengths)[torch.arange(len(ids), device=ids.device), lengths - 1]
        return normalised_entropy(logits)


def normalised_entropy(logits: Tensor) -> Tensor:
    """(...) entropy / log V of logits (..., V).

    >>> normalised_entropy(torch.zeros(2, 8)).tolist()
    [1.0, 1.0]
    """
    logs = torch.log_softmax(logits.double(), dim=-1)
    return (-(logs.exp() * logs.clamp(min=torch.finfo(logs.dtype).min)).sum(dim=-1) / math.log(logits.shape[-1])).float()


class _Joined:
    """Both of LoRA's pairs where one module gives queries, keys and values."""

    def __init__(self, place: Projections, query: nn.Module, value: nn.Module) -> None:
        self.place, self.query, self.value = place, query, value

    def __call__(self, inputs: Tensor) -> Tensor:
        return self.place.spread(self.query(inputs), self.value(inputs))


def _adding(delta: Any, acts: Tensor | None) -> Any:
    def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        added = _where(acts, hidden, delta(hidden))
        return (added, *output[1:]) if isinstance(output, tuple) else added

    return hook


def _raising(pair: Any, acts: Tensor | None) -> Any:
    def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return _where(acts, output, pair(inputs[0]))

    return hook


def _where(acts: Tensor | None, base: Tensor, added: Tensor) -> Tensor:
    found = base + added.to(base.dtype)
    return found if acts is None else torch.where(acts[..., None], found, base)


def _cache() -> Any:
    """An empty cache that keeps every place, of layers with a sliding window too: the mask sees to the window."""
    from transformers import DynamicCache

    return DynamicCache()


def _layers(model: Any, count: int) -> nn.ModuleList:
    lists = [module for module in model.base_model.children() if isinstance(module, nn.ModuleList) and len(module) == count]
    if len(lists) != 1:
        raise SpecError(f"{type(model).__name__} does not show its {count} decoder layers as one list below its base model")
    return lists[0]


def _mean_state(hidden: Tensor, scored: Tensor) -> Tensor:
    weights = scored.float() / scored.sum(dim=1, keepdim=True)
    return (hidden.float() * weights[..., None]).sum(dim=1).detach()


def _places(ids: Tensor) -> Tensor:
    return torch.arange(ids.shape[1], device=ids.device)[None]


def _acts(ids: Tensor, starts: Tensor) -> Tensor:
    """(B, T) from the last token of the prefix on."""
    return _places(ids) >= starts[:, None] - 1


def _mask(ids: Tensor, lengths: Tensor) -> Tensor | None:
    """(B, T) for the model, or None where no row is padded."""
    return None if bool((lengths == ids.shape[1]).all()) else (_places(ids) < lengths[:, None]).long()


def _starts(scored: Tensor) -> Tensor:
    if scored.dtype != torch.bool or not bool(scored.any(dim=1).all()):
        raise InputError("each row needs at least one scored token (bool)")
    starts = scored.int().argmax(dim=1)
    if bool((starts == 0).any()):
        raise InputError("a first token has nothing before it that could predict it: begin each row with BOS, or with a prefix")
    return starts


def _lengths(scored: Tensor) -> Tensor:
    return scored.shape[1] - scored.flip(1).int().argmax(dim=1)

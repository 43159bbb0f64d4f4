"""A bridge: one Project for each source, perhaps the substrate, and one reader that all sources share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.bridges import readers
from stages.bridges.field import Field
from stages.bridges.fusion import LayerFusion
from stages.bridges.injection import Delta, Fuse, Injection
from stages.bridges.lora import Lora
from stages.bridges.readers import CrossAttention, Prompt, QFormer, Soft, Vocabulary
from stages.bridges.spec import BridgeSpec
from stages.bridges.target import BridgedTarget
from stages.bridges.twin import TwinGate, TwinProject, linear
from stages.bridges.vectors import direction, length, unit
from stages.errors import InputError
from stages.many_worlds import adapter, substrate
from stages.many_worlds.adapter import HEAD_GAIN, Project, Read
from stages.many_worlds.substrate import Substrate

_STREAMS = 1 << 20
"""Seeds of one bridge's parts lie together, those of two seeds apart."""
_SPACE, _READER, _GATE, _LORA, _SOURCES = range(5)


class Sender(nn.Module):
    """From one source's states to points of d numbers: Project of an adapter, without the log variance where nothing reads it."""

    center: Tensor
    spread: Tensor

    def __init__(self, width: int, spec: BridgeSpec, generator: torch.Generator) -> None:
        super().__init__()
        self.project: nn.Module
        if spec.substrate:
            self.project = Project(width, spec.rank, spec.dim, scale=1.0, dropout=0.0, generator=generator)
        elif spec.inject == "cache":
            self.project = TwinProject(width, spec.rank, spec.dim, HEAD_GAIN, generator)
        else:
            down = linear(width, spec.rank, generator)
            self.project = nn.Sequential(down, nn.GELU(), linear(spec.rank, spec.dim, generator, gain=HEAD_GAIN, bias=True))
        self.register_buffer("center", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))

    def fit_units(self, states: Tensor) -> None:
        """Take the mean and the standard deviation of each of the h numbers from training states (N, h)."""
        with torch.no_grad():
            self.center.copy_(states.float().mean(dim=0))
            self.spread.copy_(states.float().std(dim=0).clamp(min=torch.finfo(torch.float32).eps))

    def forward(self, states: Tensor, space: Substrate | None) -> Tensor:
        """(B, P, d) of unit variance; of a cache bridge (B, P, 2 d)."""
        found = self.project((states.float() - self.center) / self.spread)
        if space is None:
            return unit(found).flatten(2)
        return unit(space.read(space.write(*found)) - space.centre())

    @staticmethod
    def count(width: int, spec: BridgeSpec) -> int:
        """Trained numbers: h r + r d + d (2 d for a cache bridge), or those of Project with both heads and the scale."""
        if spec.substrate:
            return adapter.project_count(width, spec.rank, spec.dim)
        return width * spec.rank + spec.rank * spec.dim + spec.dim * (2 if spec.inject == "cache" else 1)


class Bridge(nn.Module):
    """What a spec describes, for one target and sources of given widths. Its state dict holds what is trained, and the sources' units.

    Attributes:
        spec: as given.
        senders: one for each source, in the order of `widths`.
        space: the Gaussian substrate, or None.
    """

    def __init__(self, spec: BridgeSpec, target: BridgedTarget, widths: Sequence[int], seed: int) -> None:
        super().__init__()
        self.spec, self.seed = spec, seed
        self._target = target  # no module: its embedding is used where it is, and never stored
        shape, generator = target.shape, self._generator(_READER)
        self.senders = nn.ModuleList()
        self.space = Substrate(spec.dim, spec.gaussians, self._generator(_SPACE)) if spec.substrate else None
        self.gate = TwinGate(spec.dim, readers.GATE_INNER, self._generator(_GATE)) if self._gates_queries(spec) else None
        self.lora = Lora(target.projections, spec.lora_rank, spec.lora_alpha, self._generator(_LORA)) if spec.lora_rank else None
        self.reader: nn.Module
        self.head: nn.Module | None = None
        if spec.inject == "residual":
            self.reader = Read(shape.hidden, spec.rank, spec.dim, scale=spec.scale, generator=generator)
        elif spec.inject == "cross-attention":
            self.reader = CrossAttention(spec.dim, shape.hidden, spec.heads, spec.gate == "confidence", generator)
        elif spec.inject == "cache":
            made = (LayerFusion(spec.dim, shape.kv_heads, shape.head_dim, spec.rank, generator) for _ in range(shape.layers))
            self.reader = nn.ModuleList(made)
        elif spec.reader == "linear":
            self.reader = Soft(spec.dim, spec.soft_tokens, shape.hidden, generator)
        elif spec.reader == "prompt":
            self.reader = Prompt(spec.soft_tokens, shape.hidden, float(target.mean_norm), generator)
        else:
            self.reader = QFormer(spec.dim, spec.soft_tokens, spec.layers, spec.heads, generator)
            if spec.norm == "vocabulary":
                self.head = Vocabulary(spec.dim, shape.hidden, spec.temperature, generator)
            else:
                self.head = linear(spec.dim, shape.hidden, generator, gain=readers.SOFT_GAIN, bias=True)
        self.to(target.device)
        for width in widths if spec.reads_sources else ():
            self.add_source(width)

    @staticmethod
    def _gates_queries(spec: BridgeSpec) -> bool:
        return spec.gate == "confidence" and spec.reader == "q-former"

    def _generator(self, part: int) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed * _STREAMS + part)

    def add_source(self, width: int) -> Sender:
        """Let one more source speak. Nothing that was there before changes, and which numbers it starts with depends on its place alone."""
        sender = Sender(width, self.spec, self._generator(_SOURCES + len(self.senders)))
        self.senders.append(sender.to(self._target.device))
        return sender

    def inject(self, fields: Sequence[Field | None], uncertainty: Tensor | None = None, *, confidence: float | None = None) -> Injection:
        """What reaches the target.

        Args:
            fields: one for each source, in order; None leaves a source out. The reader `prompt` looks at none.
            uncertainty: (B,) of the target after each prefix (`stages.bridges.target.uncertainty`); an uncertainty gate needs it.
            confidence: forces the confidence gate, where there is one, to this share; 0 gives what is neutral: mean embeddings, or
                nothing added.

        Raises:
            InputError: another number of fields than of sources, a field of another width, all left out, or no uncertainty
                where it is needed.
        """
        spec = self.spec
        if spec.reader == "prompt":
            assert isinstance(self.reader, Prompt)
            return Injection(soft=self.reader.soft[None], place=spec.place)
        heard = self._heard(fields)
        share, active = self._share(uncertainty)
        if spec.inject == "soft-prompt":
            soft = self._soft(heard, confidence)
            if share is not None:
                soft = share[:, None, None] * soft + (1 - share)[:, None, None] * self._target.mean_embedding
            return Injection(soft=soft, place=spec.place, active=active)
        if spec.inject == "cache":
            return Injection(fuse=self._fuse(heard, share), active=active)
        return Injection(delta=self._delta(heard, share, confidence), lora=self.lora, active=active)

    # --- the field ---------------------------------------------------------------------------------------------------------------

    def _heard(self, fields: Sequence[Field | None]) -> list[tuple[Tensor, Tensor]]:
        """(points (B, P, d), mask (B, P)) of each source that is there."""
        if len(fields) != len(self.senders):
            raise InputError(f"the bridge has {len(self.senders)} sources, and there are {len(fields)} fields; None leaves one out")
        found = []
        for number, (sender, field) in enumerate(zip(self.senders, fields, strict=True)):
            if field is None:
                continue
            assert isinstance(sender, Sender)
            if field.states.shape[2] != len(sender.center):
                raise InputError(
                    f"source {number + 1} has states of {field.states.shape[2]} numbers; the bridge was made for {len(sender.center)}"
                )
            field = field.to(self._target.device)
            points = sender(field.states, self.space)
            if self.spec.pool != "none":
                found.append(_pooled(points, field, self.spec.pool))
                continue
            if self.spec.positions and self.spec.inject != "cache":
                points = points + readers.encode(field.from_end(), self.spec.dim)
            found.append((points, field.mask))
        if not found:
            raise InputError("all sources are left out: take stages.bridges.injection.none, or a bridge with the reader prompt")
        return found

    def _share(self, uncertainty: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """((B,) g of the uncertainty gate, (B,) where it is not 0), or (None, None)."""
        if self.spec.gate != "uncertainty":
            return None, None
        if uncertainty is None:
            raise InputError("an uncertainty gate asks for the target's uncertainty after each prefix")
        share = gate(uncertainty.to(self._target.device), self.spec.threshold)
        return share, share > 0

    def _sequence(self, heard: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """All sources one after another."""
        return torch.cat([points for points, _ in heard], dim=1), torch.cat([mask for _, mask in heard], dim=1)

    def _mean(self, heard: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """((B, P, d) mean over the sources that have a point there, (B, P) whether any has)."""
        length = max(points.shape[1] for points, _ in heard)
        total: Tensor = sum(
            (_fitted(points * mask[..., None], length) for points, mask in heard), torch.zeros((), device=self._target.device)
        )
        count = sum((_fitted(mask[..., None].float(), length) for _, mask in heard), torch.zeros((), device=self._target.device))
        return total / count.clamp(min=1), count[..., 0] > 0

    # --- the readers -------------------------------------------------------------------------------------------------------------

    def queries(self, fields: Sequence[Field | None]) -> Tensor:
        """(B, k, d) what the Q-Former's queries found, of unit variance."""
        assert isinstance(self.reader, QFormer)
        found: Tensor = self.reader(*self._sequence(self._heard(fields)))
        return found

    def weights(self, fields: Sequence[Field | None]) -> Tensor:
        """(B, k, V) of which of the target's embeddings each soft token is mixed; `norm: vocabulary` only."""
        assert isinstance(self.head, Vocabulary)
        found: Tensor = self.head(self.queries(fields), self._target.embedding, self._target.mean_norm)
        return found

    def top_tokens(self, fields: Sequence[Field | None], count: int) -> tuple[Tensor, Tensor]:
        """(ids, weights), each (B, k, count): what each soft token mostly consists of, for a tokenizer to decode."""
        found = self.weights(fields).topk(count, dim=-1)
        return found.indices, found.values

    def _soft(self, heard: Sequence[tuple[Tensor, Tensor]], confidence: float | None) -> Tensor:
        spec, target = self.spec, self._target
        if isinstance(self.reader, Soft):
            point, _ = self._mean(heard)
            return _normed(self.reader(point[:, 0]), spec, target.mean_norm)
        queries: Tensor = self.reader(*self._sequence(heard))
        soft: Tensor
        if isinstance(self.head, Vocabulary):
            soft = self.head(queries, target.embedding, target.mean_norm) @ target.embedding.float()
        else:
            assert self.head is not None
            soft = _normed(self.head(queries), spec, target.mean_norm)
        if self.gate is None:
            return soft
        share = self.gate(queries)[..., None] if confidence is None else torch.full_like(queries[..., :1], confidence)
        mixed: Tensor = share * soft + (1 - share) * target.mean_embedding
        return mixed

    def _delta(self, heard: Sequence[tuple[Tensor, Tensor]], share: Tensor | None, confidence: float | None) -> Delta:
        reader, scale = self.reader, self.spec.scale
        if isinstance(reader, Read):
            added: Tensor = reader(self._mean(heard)[0])
            return lambda hidden: _times(share, added.expand(-1, hidden.shape[1], -1))
        points, mask = self._sequence(heard)
        return lambda hidden: _times(share, reader(hidden, points, mask, confidence) * scale)

    def _fuse(self, heard: Sequence[tuple[Tensor, Tensor]], share: Tensor | None) -> Fuse:
        layers = self.reader
        assert isinstance(layers, nn.ModuleList)
        points, there = self._mean(heard)
        weight = _times(share, there[..., None].float())

        def fuse(layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
            places = keys.shape[2]
            key, value = layers[layer](_fitted(points, places), keys, values)
            here = _fitted(weight, places)[:, None]
            return key * here, value * here

        return fuse

    def anneal(self, temperature: float) -> None:
        """Set the temperature of a cache bridge's gates in training."""
        for module in self.modules():
            if isinstance(module, LayerFusion):
                module.anneal(temperature)


def gate(uncertainty: Tensor, threshold: float) -> Tensor:
    """(B,) g: exactly 0 up to the threshold, where the target is certain enough; from there straight up to 1.

    >>> gate(torch.tensor([0.0, 0.5, 0.75, 1.0]), 0.5).tolist()
    [0.0, 0.0, 0.5, 1.0]
    """
    if threshold >= 1:
        return torch.zeros_like(uncertainty)
    return ((uncertainty - threshold) / (1 - threshold)).clamp(0, 1)


def build(spec: BridgeSpec, target: BridgedTarget, widths: Sequence[int], seed: int) -> Bridge:
    """A new bridge, a function of the seed: its reader does not depend on the sources, nor a sender on the others.

    Args:
        spec: what kind.
        target: what it speaks to.
        widths: h of each source's states; the reader `prompt` has no use for any.
        seed: of all first numbers.
    """
    return Bridge(spec, target, widths, seed)


def random_substrate(bridge: Bridge, seed: int) -> Bridge:
    """The control: the trained reader behind senders (and a substrate) that were never trained, drawn from another seed."""
    widths = [len(sender.center) for sender in bridge.senders if isinstance(sender, Sender)]
    made = build(bridge.spec, bridge._target, widths, seed)
    kept = {name: value for name, value in bridge.state_dict().items() if ".project." not in name and not name.startswith("space.")}
    made.load_state_dict(kept, strict=False)
    return made.train(bridge.training)


def parameter_count(spec: BridgeSpec, target: BridgedTarget, widths: Sequence[int]) -> int:
    """Trained numbers by formula: senders, substrate, reader, gate, LoRA."""
    shape, dim = target.shape, spec.dim
    if spec.reader == "prompt":
        return spec.soft_tokens * shape.hidden
    count = sum(Sender.count(width, spec) for width in widths) + (substrate.parameter_count(dim, spec.gaussians) if spec.substrate else 0)
    if spec.inject == "residual":
        return count + adapter.read_count(shape.hidden, spec.rank, dim)
    if spec.gate == "confidence":
        count += readers.GATE_INNER * (dim + 2) + 1
    if spec.inject == "cross-attention":
        lora = Lora.count(target.projections, spec.lora_rank) if spec.lora_rank else 0
        return count + 2 * dim * (shape.hidden + dim) + lora
    if spec.inject == "cache":
        return count + shape.layers * LayerFusion.count(dim, shape.kv_heads, shape.head_dim, spec.rank)
    if spec.reader == "linear":
        return count + Soft.count(dim, spec.soft_tokens, shape.hidden)
    return count + QFormer.count(dim, spec.soft_tokens, spec.layers) + (dim + 1) * shape.hidden + int(spec.norm == "vocabulary")


def _pooled(points: Tensor, field: Field, pool: str) -> tuple[Tensor, Tensor]:
    """((B, 1, d) of unit variance, (B, 1))."""
    mask = field.mask
    weights = mask.float() if pool == "mean" else (mask & (field.from_end() == 0)).float()
    mean = (points * weights[..., None]).sum(dim=1, keepdim=True) / weights.sum(dim=1)[:, None, None].clamp(min=1)
    return unit(mean), mask.any(dim=1, keepdim=True)


def _times(share: Tensor | None, rows: Tensor) -> Tensor:
    """(B, S, h) times the (B,) shares of an uncertainty gate, where there is one."""
    return rows if share is None else share[:, None, None] * rows


def _normed(soft: Tensor, spec: BridgeSpec, norm: Tensor) -> Tensor:
    if spec.norm == "scaled":  # the k tokens of a row together: one that is longer than the others stays so
        return soft * (norm / length(soft).mean(dim=1, keepdim=True).clamp(min=torch.finfo(soft.dtype).tiny))
    if spec.norm == "pinned":
        return direction(soft - soft.mean(dim=-1, keepdim=True)) * norm
    return soft


def _fitted(rows: Tensor, length: int) -> Tensor:
    """(B, length, ...) cut, or padded with zeros."""
    return functional.pad(rows[:, :length], (0, 0, 0, max(length - rows.shape[1], 0)))

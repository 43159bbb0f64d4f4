"""Every condition under which the held-out texts are scored: the bridge, and all that it is held against."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.bridge_protocol import readings, ridge
from stages.bridge_protocol.readings import Readings, Text
from stages.bridge_protocol.report import OWN, WITHOUT
from stages.bridge_protocol.state import Trained
from stages.bridges import bridge as bridges
from stages.bridges import injection as injections
from stages.bridges.bridge import Bridge
from stages.bridges.field import Field
from stages.bridges.injection import Injection
from stages.bridges.target import BridgedTarget
from stages.errors import InputError
from stages.hf_tokenizer import HfTokenizer

Array = NDArray[np.float64]
BATCH = ridge.BATCH


@dataclass(frozen=True, slots=True)
class Bridges:
    """What is measured for one target.

    Attributes:
        own: the trained bridge. untrained: the same before its first step. prompt: the control trained on a constant.
        sources: names, in the bridges' order.
    """

    own: Bridge
    untrained: Bridge
    prompt: Trained
    sources: tuple[str, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class Injected:
    """What the bridge did, text by text.

    Attributes:
        ratio: length of what is injected in parts of what it meets.
        changed, tokens: scored tokens whose most likely token is another than the target's own; all that are scored.
        shut: texts that the gate leaves alone, whose loss is the target's to the bit.
        share: of the gate; empty where it has none per text.
    """

    ratio: Sequence[float]
    changed: int
    tokens: int
    shut: Sequence[bool]
    share: Sequence[float]


def others(texts: Sequence[Text]) -> list[Text]:
    """For each text another one, of its own domain where that has two: half a turn of the domain's texts."""
    by_domain: dict[str, list[int]] = defaultdict(list)
    for number, text in enumerate(texts):
        by_domain[text.domain].append(number)
    found = list(texts)
    for numbers in by_domain.values():
        pool = numbers if len(numbers) > 1 else list(range(len(texts)))
        for number in numbers:
            place = pool.index(number)
            found[number] = texts[pool[(place + max(1, len(pool) // 2)) % len(pool)]]
    return found


def measure(
    data: Readings, bridges_: Bridges, target: BridgedTarget, tokenizer: HfTokenizer
) -> tuple[dict[str, Array], dict[str, str], Injected, ridge.Ridge]:
    """(condition -> (n,) nats of the continuations, condition -> why it means nothing, what was injected, the ridge map)."""
    texts, sources, spec = data.held_out, bridges_.sources, bridges_.own.spec
    map_ = ridge.fit(data.train, sources, spec, target)
    swapped = {text.key: other for text, other in zip(texts, others(texts), strict=True)}
    random = bridges.random_substrate(bridges_.own, bridges_.seed + 1).eval()

    def said(bridge: Bridge, part: Sequence[Text], given: Sequence[Field | None] | None = None) -> Injection:
        certain = readings.uncertainty(part, target) if spec.gate == "uncertainty" else None
        return bridge.inject(readings.fields(part, sources, spec) if given is None else given, certain)

    def without(source: str) -> Callable[[Sequence[Text]], Injection]:
        def of(part: Sequence[Text]) -> Injection:
            given = [None if name == source else field for name, field in zip(sources, readings.fields(part, sources, spec), strict=True)]
            return said(bridges_.own, part, given)

        return of

    def of_others(part: Sequence[Text]) -> Injection:
        return said(bridges_.own, part, readings.fields(part, sources, spec, [swapped[text.key] for text in part]))

    def of_prompt(part: Sequence[Text]) -> Injection:
        return said(bridges_.prompt.bridge, part, bridges_.prompt.fields(readings.fields(part, sources, spec)))

    conditions: dict[str, Callable[[Sequence[Text]], Injection]] = {
        OWN: lambda part: said(bridges_.own, part),
        "none": lambda part: injections.none(),
        "zero": lambda part: injections.zeroed(said(bridges_.own, part)),
        "random": lambda part: injections.random_like(said(bridges_.own, part), bridges_.seed + part[0].key % 1_000_003),
        "untrained": lambda part: said(bridges_.untrained, part),
        "random-substrate": lambda part: said(random, part),
        "mean-embedding": lambda part: injections.mean_embedding(said(bridges_.own, part), target),
        "prompt": of_prompt,
        "shuffled": of_others,
        "ridge": lambda part: map_.injection(part, target),
    }
    missing = {}
    if spec.inject == "cache":
        del conditions["mean-embedding"]
        missing["mean-embedding"] = "means nothing for keys and values"
    if len(sources) > 1:
        conditions |= {f"{WITHOUT}{name}": without(name) for name in sources}
    found = {name: ridge.nats(texts, target, of) for name, of in conditions.items()}
    found["handoff"] = _handed_over(texts, sources, target, tokenizer)
    return found, missing, _injected(texts, target, conditions[OWN], bridges_.own, sources), map_


def _handed_over(texts: Sequence[Text], sources: Sequence[str], target: BridgedTarget, tokenizer: HfTokenizer) -> Array:
    """(n,) the target's loss when it has first read, source by source, prefix, what the source wrote after it, and a new line."""
    most = getattr(target.model.config.get_text_config(), "max_position_embeddings", None)
    begin = int(tokenizer.adds_bos)
    longer = []
    for text in texts:
        told = tokenizer.encode("".join(f"{text.prefix_text}{text.handoff[name]}\n" for name in sources), add_special=False)
        ids = torch.cat([text.ids[:begin], torch.tensor(told, dtype=torch.int64), text.ids[begin:]])
        if most is not None and len(ids) > most:
            raise InputError(
                f"with what {len(sources)} sources wrote a text has {len(ids):,} tokens, and the target reads {most:,}: lower promptBytes"
            )
        longer.append(replace(text, ids=ids, prefix_tokens=text.prefix_tokens + len(told)))
    return ridge.nats(longer, target, lambda part: injections.none())


def _injected(
    texts: Sequence[Text], target: BridgedTarget, of: Callable[[Sequence[Text]], Injection], bridge: Bridge, sources: Sequence[str]
) -> Injected:
    ratio: list[float] = []
    shut: list[bool] = []
    share: list[float] = []
    changed = tokens = 0
    with torch.inference_mode():
        for start in range(0, len(texts), BATCH):
            part = texts[start : start + BATCH]
            ids, scored = readings.tokens(part, target.device)
            injection = of(part)
            here = [False] * len(part) if injection.active is None else (~injection.active).tolist()
            sizes = target.ratio(ids, scored, injection).tolist()
            ratio += [0.0 if alone else size for alone, size in zip(here, sizes, strict=True)]
            shut += here
            starts = torch.tensor([text.prefix_tokens for text in part], device=ids.device)
            lengths = torch.tensor([len(text.ids) for text in part], device=ids.device)
            own, plain = (target.logits(ids, starts, one, lengths).argmax(dim=-1)[:, :-1] for one in (injection, injections.none()))
            changed += int((own != plain)[scored[:, 1:]].sum())
            tokens += int(scored.sum())
            share += _shares(part, target, bridge, sources)
    return Injected(ratio, changed, tokens, shut, share)


def _shares(part: Sequence[Text], target: BridgedTarget, bridge: Bridge, sources: Sequence[str]) -> list[float]:
    """What each text's gate says: of the uncertainty gate, or the mean over a Q-Former's queries."""
    found: Tensor
    if bridge.spec.gate == "uncertainty":
        found = bridges.gate(readings.uncertainty(part, target), bridge.spec.threshold)
    elif bridge.gate is not None:
        found = bridge.gate(bridge.queries(readings.fields(part, sources, bridge.spec))).mean(dim=1)
    else:
        return []
    values: list[float] = found.tolist()
    return values


# --- the byte ensemble -----------------------------------------------------------------------------------------------------------


def bytewise(texts: Sequence[Text], members: Sequence[str]) -> dict[str, Array]:
    """Name -> (n,) nats of the continuations read byte by byte: of the mixtures by fixed share and by Bayes, and of the first member alone.

    The weights go through the prefix first, as in `stages.byte_lm.ensemble`. Every mixture's proven bound is checked.

    Raises:
        GuaranteeError: a bound did not hold.
    """
    from stages.combiners.combiner import check, find

    found: dict[str, list[float]] = {"bytes-fixed-share": [], "bytes-bayes": [], "target": []}
    awake = np.ones(len(members), dtype=np.bool_)
    for text in texts:
        rows = np.stack([text.log_probs[name].numpy() for name in members], axis=1)[:, :, None]  # of the byte that came alone
        found["target"].append(-math.fsum(rows[text.prefix_bytes :, 0, 0]))
        for name in ("fixed-share", "bayes"):
            rule = find(name, {}, len(members))
            state, total = rule.start(), 0.0
            for place, row in enumerate(rows):
                mixed = rule.combine(state, row, awake)
                state = rule.observe(state, row, mixed, 0)
                if place >= text.prefix_bytes:
                    total -= float(mixed[0])
            check(rule, state)
            found[f"bytes-{name}"].append(total)
    return {name: np.array(values) for name, values in found.items()}


def per_byte(values: Mapping[str, Array], texts: Sequence[Text]) -> dict[str, list[float]]:
    """Condition -> nats per byte of each text."""
    lengths = np.array([text.scored_bytes for text in texts], np.float64)
    return {name: [float(item) for item in nats / lengths] for name, nats in values.items()}

"""Cut a block of texts for a bridge into what the source may read and what the target is asked. See stages/bridge_protocol/cut.py.

The prefixes are an object of their own: it is all that a source is ever given, so no state of a source can hold what comes after.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.calibration import read_samples
from stages.errors import InputError, SpecError
from stages.stage import Context, Leaf, Outcome
from store import canonical
from store.digest import Digest

FORM = "bridge-texts/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeTexts:
    """Where to cut."""

    prompt_bytes: int = 160
    """At most so many bytes before the cut, and at least half of it (to the end of a token)."""
    continuation_bytes: int = 64
    """At most so many bytes after it are scored, and at least half of it."""
    heldout_percent: int = 20
    """Of texts, by a hash of each, which no training sees."""

    def __post_init__(self) -> None:
        for name, least in (("prompt_bytes", 8), ("continuation_bytes", 2)):
            if getattr(self, name) < least:
                raise SpecError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if not 0 < self.heldout_percent < 100:
            raise SpecError(f"heldout_percent is {self.heldout_percent}; both sides need texts, so it must be between 1 and 99")


STAGE = Leaf(
    name="bridge-texts",
    version=1,
    spec=BridgeTexts,
    inputs=("model", "samples"),
    outputs=("tokens", "prefixes", "held-out"),
    purity="P",
    run="stages.bridge_texts:run",
    share=("model",),
)


def run(spec: BridgeTexts, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Cut, with the tokenizer of the target (`model`).

    `prefixes` are samples, one a text that is used, in the order of the block. `held-out` has lines `{"cut": 97, "domain": "code", "text":
    "..."}` of the texts that are held out: prefix and continuation. `tokens` has, for each text that is used, `starts` (N + 1) into `ids`
    (T), which begin with BOS where the tokenizer adds it, and `ends` (T; bytes read after each, 0 after BOS, -1 if unknown);
    `prefix_tokens`, `prefix_bytes`, `scored_bytes`, `texts` and `prefixes` (keys of 64 bits of text and prefix), `held_out`.

    Raises:
        InputError: no text of the block can be used.
    """
    import torch

    from stages.bridge_protocol.cut import Cut, cut
    from stages.hf_tokenizer import HfTokenizer
    from stages.many_worlds import positions, tensor_file

    key = f"bridge-texts:{inputs['model']}"
    if key not in context.memo:
        context.memo[key] = HfTokenizer(context.folder(inputs["model"]))
    tokenizer: HfTokenizer = context.memo[key]
    begin = [tokenizer.tokenizer.bos_token_id] if tokenizer.adds_bos else []
    left: Counter[str] = Counter()
    ids: list[int] = []
    ends: list[int] = []
    rows: list[dict[str, int]] = []
    domains: list[str] = []
    prefixes, held_out = [], []
    for sample in read_samples(context.store.read(inputs["samples"])):
        found = cut(tokenizer, sample.text, spec.prompt_bytes, spec.continuation_bytes)
        if not isinstance(found, Cut):
            left[found] += 1
            continue
        text = found.prefix + found.continuation
        text_key = positions.key_of(text)
        kept = positions.is_held_out(text_key, spec.heldout_percent)
        prefixes.append(canonical.dumps({"domain": sample.domain, "text": found.prefix.decode()}) + b"\n")
        if kept:
            held_out.append(canonical.dumps({"cut": len(found.prefix), "domain": sample.domain, "text": text.decode()}) + b"\n")
        ids += [*begin, *found.ids]
        ends += [*(0 for _ in begin), *found.ends]
        domains.append(sample.domain)
        rows.append(
            {
                "after": len(ids),
                "held_out": int(kept),
                "prefix_bytes": len(found.prefix),
                "prefix_tokens": len(begin) + found.prefix_tokens,
                "prefixes": positions.key_of(found.prefix),
                "scored_bytes": len(found.continuation),
                "texts": text_key,
            }
        )
    context.note("texts", {"used": len(rows), **{name: left[name] for name in ("short", "seam")}})
    if not rows:
        raise InputError(
            f"none of {left.total()} texts of a block can be cut: {left['short']} are shorter than {spec.prompt_bytes} + "
            f"{spec.continuation_bytes} bytes, {left['seam']} have a token over the cut. Lower promptBytes and continuationBytes, or take "
            "longer texts"
        )
    tensors = {name: torch.tensor([row[name] for row in rows], dtype=torch.int64) for name in rows[0] if name != "after"}
    tensors["starts"] = torch.tensor([0, *(row["after"] for row in rows)], dtype=torch.int64)
    tensors["ids"] = torch.tensor(ids, dtype=torch.int64)
    tensors["ends"] = torch.tensor(ends, dtype=torch.int64)
    head: dict[str, Any] = {
        "continuationBytes": spec.continuation_bytes,
        "domains": domains,
        "leftOut": {name: left[name] for name in ("short", "seam")},
        "promptBytes": spec.prompt_bytes,
    }
    store = context.store
    return Outcome(
        {
            "tokens": tensor_file.write(store, FORM, head, tensors),
            "prefixes": store.put(b"".join(prefixes)),
            "held-out": store.put(b"".join(held_out)),
        }
    )

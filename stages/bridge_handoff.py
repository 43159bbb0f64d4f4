"""What a source would write after each held-out prefix: the bridge that needs no training, as text. A control of many-worlds-bridge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stages.errors import SpecError
from stages.hf_model import LoadIn
from stages.stage import Context, Leaf, Outcome
from store import canonical
from store.digest import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeHandoff:
    """How much is written."""

    bytes: int = 64
    """At most; whole characters, up to where the model ends the text."""
    load_in: LoadIn = "auto"

    def __post_init__(self) -> None:
        if self.bytes < 1:
            raise SpecError(f"bytes is {self.bytes}; it must be at least 1")


STAGE = Leaf(
    name="bridge-handoff",
    version=1,
    spec=BridgeHandoff,
    inputs=("model", "held-out"),
    outputs=("handoff",),
    purity="E",
    run="stages.bridge_handoff:run",
    share=("model",),
)


def run(spec: BridgeHandoff, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Generate greedily from each prefix alone, as the model's own tokenizer cuts it; lines `{"text": ...}` in the order of the texts.

    Raises:
        InputError: the model does not load, or a prefix is longer than it reads.
    """
    from stages.bridge_protocol import held_out
    from stages.hf_answerer import HfAnswerer

    key = f"bridge-handoff:{inputs['model']}:{spec.load_in}"
    if key not in context.memo:
        context.memo[key] = HfAnswerer(context.folder(inputs["model"]), spec.load_in)
    answerer: HfAnswerer = context.memo[key]
    texts = held_out.read(context.store.read(inputs["held-out"]))
    lines = []
    for number, text in enumerate(texts):
        written = answerer.generate(text.prefix, spec.bytes, ()).decode(errors="ignore")
        lines.append(canonical.dumps({"text": written}) + b"\n")
        context.progress(number + 1, len(texts), "texts")
    return Outcome({"handoff": context.store.put(b"".join(lines))})

"""Measure a bridge on texts that no training saw, against every control, and state what came out. See docs/bridges.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ledger.predicates import EVALUATION
from stages.errors import InputError, StageError
from stages.hf_model import LoadIn
from stages.metrics import text
from stages.stage import Claim, Context, Leaf, Outcome
from store import canonical
from store.digest import Digest

if TYPE_CHECKING:
    from stages.bridge_protocol.conditions import Injected
    from stages.bridge_protocol.readings import Text


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeEvaluate:
    """What is measured."""

    sources: tuple[str, ...]
    target: str
    version: str
    seed: int = 0
    """Of random tokens and random senders."""
    handoff_bytes: int = 64
    """What the hand-off was asked for, to count what was read."""
    load_in: LoadIn = "auto"


STAGE = Leaf(
    name="bridge-evaluate",
    version=1,
    spec=BridgeEvaluate,
    inputs=("bridge", "untrained", "prompt", "target", "readings", "controls", "calibration"),
    outputs=("metrics", "table", "losses"),
    purity="E",
    run="stages.bridge_evaluate:run",
    share=("target", "readings"),
)


def run(spec: BridgeEvaluate, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Measure, and claim. `losses` has a line for each text: its key, its domain, nats per byte under every condition.

    Raises:
        InputError: a bridge of other models, or a control without a text.
        GuaranteeError: a proven bound of a byte ensemble did not hold.
        StageError: the target is not what it was.
    """
    from stages.bridge_protocol import conditions, files, loaded, readings, report, state
    from stages.hf_tokenizer import HfTokenizer
    from stages.stage import spec_to_json

    folder = context.folder(inputs["bridge"])
    about = files.head(folder)
    if about.sources != spec.sources or about.models[spec.target] != str(inputs["target"]):
        raise InputError(f"the bridge is from {', '.join(about.sources)} to {about.target}, or to another model of that name")
    target = loaded.target(inputs["target"], about.spec, spec.load_in, context)
    data = readings.load(context.folder(inputs["readings"]), spec.sources, context.folder(inputs["controls"]))
    trained = conditions.Bridges(
        own=files.load(folder, target),
        untrained=state.load(context.path(inputs["untrained"]), target).bridge.eval(),
        prompt=state.load(context.path(inputs["prompt"]), target).module.eval(),
        sources=spec.sources,
        seed=spec.seed,
    )
    checksum = target.checksum()
    nats, missing, injected, map_ = conditions.measure(data, trained, target, HfTokenizer(context.folder(inputs["target"])))
    bytewise = conditions.bytewise(data.held_out, (spec.target, *spec.sources))
    alone = bytewise.pop("target")
    values = conditions.per_byte({**nats, **bytewise, "target": alone}, data.held_out)
    losses = report.Losses(
        {name: values[name] for name in [report.OWN, *report.LABELS, *sorted(values)] if name in values and name != "target"},
        missing,
        values["target"],
        [item.domain for item in data.held_out],
    )
    content = report.report(losses) | {
        "benchmark": "many-worlds-bridge",
        "bridge": spec_to_json(about.spec),
        "dataset": {"digest": {"sha256": inputs["calibration"].hex}},
        "injected": _injected(spec, injected, losses, data.held_out, trained),
        "ridge": {"penalty": text(map_.penalty), "scale": text(map_.scale)},
        "sources": list(spec.sources),
        "target": spec.target,
        "texts": {
            "heldOut": len(data.held_out),
            "leftOut": dict(data.left_out),
            "scoredBytes": sum(item.scored_bytes for item in data.held_out),
            "training": len(data.train),
        },
        "settings": {"sources": list(spec.sources), "target": spec.target, "version": spec.version},
    }
    if target.checksum() != checksum:
        raise StageError("the target's weights changed while it was measured. This is a fault of the program; please report it")
    context.note("summary", content["summary"])
    lines = [
        canonical.dumps(
            {"domain": item.domain, "text": str(item.key), **{name: str(text(value[n])) for name, value in losses.values.items()}}
        )
        for n, item in enumerate(data.held_out)
    ]
    store = context.store
    outputs = {
        "metrics": store.put(canonical.dumps(content)),
        "table": store.put(report.markdown(content).encode()),
        "losses": store.put(b"".join(line + b"\n" for line in lines)),
    }
    return Outcome(outputs, (Claim({"bridge": inputs["bridge"]}, EVALUATION, content),))


def _injected(spec: BridgeEvaluate, found: Injected, losses: Any, texts: Sequence[Text], trained: Any) -> dict[str, str]:
    """What is injected, what it moves, and what is read for it: in the words of the table, numbers as text."""
    import numpy as np

    from stages.bridge_protocol.report import OWN

    ratio = np.array(found.ratio)
    prefix, scored = (sum(getattr(item, name) for item in texts) / len(texts) for name in ("prefix_bytes", "scored_bytes"))
    many = len(spec.sources)
    shown = {
        "trained numbers": f"{sum(value.numel() for value in trained.own.parameters()):,}",
        "length in parts of what it meets": f"{ratio.mean():.4g} ({ratio.min():.4g} to {ratio.max():.4g})",
        "most likely tokens that it changes": f"{found.changed:,} of {found.tokens:,} ({found.changed / found.tokens:.1%})",
        "texts that the gate leaves alone, to the bit": f"{sum(found.shut)} of {len(found.shut)}",
    }
    if found.share:
        gain = np.array(losses.values["none"]) - np.array(losses.values[OWN])
        share = np.array(found.share)
        shown["share that the gate lets through"] = f"{share.mean():.4g} ({share.min():.4g} to {share.max():.4g})"
        if share.std() > 0 and gain.std() > 0:
            shown["correlation of that share with the gain"] = f"{np.corrcoef(share, gain)[0, 1]:+.3f}"
    shown["bytes that models read for one text"] = (
        f"bridge {(many + 1) * prefix + scored:.0f}, byte ensemble {(many + 1) * (prefix + scored):.0f}, "
        f"text hand-off at most {many * (2 * prefix + 2 * spec.handoff_bytes + 1) + prefix + scored:.0f}"
    )
    return shown

"""From the losses of every held-out text under every condition to what may be said of a bridge: pure functions of numbers.

A value is a text's loss in nats per byte of its continuation; every text counts alike. The bridge is ahead of a control by the mean of
control - bridge, text by text, with Student's interval over texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from stages import statistics
from stages.metrics import text

OWN = "bridge"
WITHOUT = "without-"
LABELS = {
    "none": "the target alone (no tokens)",
    "zero": "zeros in place of what is injected",
    "random": "random numbers of the same norm",
    "untrained": "the bridge before its first step",
    "random-substrate": "its trained reader behind a random substrate",
    "mean-embedding": "the target's mean embedding",
    "prompt": "the same bridge trained on a constant, without any source",
    "shuffled": "the states of another text of the domain",
    "ridge": "a ridge map",
    "handoff": "text hand-off",
    "bytes-fixed-share": "the byte ensemble (fixed share)",
    "bytes-bayes": "the byte ensemble (Bayes)",
}
"""What every bridge is held against, in the words of the table."""
BYTE_TARGET = "the target, read byte by byte"
"""What the byte ensembles are compared with beside the bridge: the same model under the measure of theirs."""

Verdict = Literal["wins", "open", "loses"]


def label(name: str) -> str:
    """A condition in words.

    >>> label("without-code"), label("none")
    ('itself without code', 'the target alone (no tokens)')
    """
    if name == OWN:
        return "the bridge"
    return f"itself without {name.removeprefix(WITHOUT)}" if name.startswith(WITHOUT) else LABELS[name]


@dataclass(frozen=True, slots=True)
class Losses:
    """What was measured, text by text, in the same order everywhere.

    Attributes:
        values: condition -> nats per byte.
        missing: condition -> why it means nothing for this bridge.
        byte_target: nats per byte of the target, read byte by byte.
        domains: of the texts.
    """

    values: Mapping[str, Sequence[float]]
    missing: Mapping[str, str]
    byte_target: Sequence[float]
    domains: Sequence[str]


def verdict(low: float | None, high: float | None) -> Verdict:
    """How a control stands, by the interval of what the bridge is ahead by; one text alone leaves everything open.

    >>> verdict(-0.3, -0.1), verdict(-0.1, 0.2), verdict(0.1, 0.2), verdict(0.0, 0.0)
    ('wins', 'open', 'loses', 'open')
    """
    if low is None or high is None:
        return "open"
    return "wins" if high < 0 else "loses" if low > 0 else "open"


def compared(losses: Losses) -> dict[str, dict[str, str]]:
    """Condition -> its value, and by how much the bridge is ahead of it, with intervals; numbers as decimal text."""
    own = losses.values[OWN]
    found: dict[str, dict[str, str]] = {}
    for name, values in losses.values.items():
        mean = statistics.clustered_mean(values)
        shown = {"value": text(mean.mean), "low": text(mean.low), "high": text(mean.high)}
        if name != OWN:
            ahead = statistics.paired_difference(values, own)
            shown |= {"ahead": text(ahead.mean), "aheadLow": text(ahead.low), "aheadHigh": text(ahead.high)}
            shown["verdict"] = verdict(ahead.low, ahead.high)
        found[name] = {key: value for key, value in shown.items() if value is not None}
    return found


def by_domain(losses: Losses) -> list[dict[str, Any]]:
    """The bridge against the target alone, the constant and other texts' states, for each domain; its texts are a sample of their own."""
    rows = []
    for domain in sorted(set(losses.domains)):
        own = [number for number, item in enumerate(losses.domains) if item == domain]
        part = Losses(
            {name: [losses.values[name][number] for number in own] for name in (OWN, "none", "prompt", "shuffled", "bytes-fixed-share")},
            {},
            [losses.byte_target[number] for number in own],
            [domain] * len(own),
        )
        rows.append({"domain": domain, "texts": len(own), "conditions": compared(part)})
    return rows


def verdicts(conditions: Mapping[str, Mapping[str, str]]) -> list[str]:
    """What the numbers say, in words: first who beats the bridge, then what is not resolved, then what the bridge beats."""
    lines: dict[str, list[str]] = {"wins": [], "open": [], "loses": []}
    own = conditions[OWN]["value"]
    for name, item in conditions.items():
        if name == OWN:
            continue
        kind = item["verdict"]
        first, second = (item["value"], own) if kind == "wins" else (own, item["value"])
        words = {
            "wins": f"{label(name)} beats the bridge",
            "open": f"the bridge and {label(name)} cannot be told apart (not resolved)",
            "loses": f"the bridge beats {label(name)}",
        }
        lines[kind].append(f"{words[kind]}: {float(first):.4f} against {float(second):.4f} nats per byte")
    return [*lines["wins"], *lines["open"], *lines["loses"]]


def summary(conditions: Mapping[str, Mapping[str, str]]) -> str:
    """Who does better, and what the gain over the target alone is made of.

    A bridge that does not beat the target alone brings nothing; one that does not beat a constant, or the states of other texts, brings
    nothing that its sources know of the text.
    """
    stands = {name: item["verdict"] for name, item in conditions.items() if name != OWN}
    gain = {name: float(conditions["none"]["value"]) - float(item["value"]) for name, item in conditions.items()}
    winners = [label(name) for name, kind in stands.items() if kind == "wins"]
    said = [f"Better than the bridge: {', '.join(winners)}."] if winners else []
    if stands["none"] != "loses":
        return " ".join([*said, "No gain over the target alone is resolved."])
    said.append(
        f"It gains {gain[OWN]:.4f} nats per byte over the target alone; trained on a constant it gains {gain['prompt']:.4f}, given the "
        f"states of other texts {gain['shuffled']:.4f}."
    )
    empty = [label(name) for name in ("prompt", "shuffled") if stands[name] != "loses"]
    if empty:
        said.append(
            f"That any of it comes from what a source knows of the text is not shown: not resolved from {' and from '.join(empty)}."
        )
    else:
        said.append(f"What the sources know of the text is worth {gain[OWN] - gain['shuffled']:.4f} of it, resolved.")
    return " ".join(said)


def report(losses: Losses) -> dict[str, Any]:
    """All of it as JSON without floats."""
    conditions = compared(losses)
    base = statistics.clustered_mean(losses.byte_target)
    metrics = {
        "nllPerByte": conditions[OWN]["value"],
        "baseNllPerByte": conditions["none"]["value"],
        "gain": conditions["none"]["ahead"],
        **{f"gain{end}": conditions["none"][key] for end, key in (("Low", "aheadLow"), ("High", "aheadHigh")) if key in conditions["none"]},
        **{f"gainOver{_camel(name)}": item["ahead"] for name, item in conditions.items() if name not in (OWN, "none")},
    }
    return {
        "byteTarget": {"value": text(base.mean)},
        "conditions": conditions,
        "domains": by_domain(losses),
        "metrics": metrics,
        "missing": dict(losses.missing),
        "summary": summary(conditions),
        "verdicts": verdicts(conditions),
    }


def _camel(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("-"))


# --- for people ------------------------------------------------------------------------------------------------------------------


def markdown(content: Mapping[str, Any]) -> str:
    """The report as tables; what beats the bridge is said first."""
    texts, conditions = content["texts"], content["conditions"]
    lines = [
        f"{content['summary']}",
        "",
        *(f"- {line}" for line in content["verdicts"]),
        "",
        f"Nats per byte of the continuation of {texts['heldOut']} held-out texts ({texts['scoredBytes']:,} bytes). The sources "
        f"({', '.join(content['sources'])}) read what stands before the cut, as the target does. Differences are paired by text; 95 %.",
        "",
        "| condition | nats/byte | bridge is ahead by | 95 % | |",
        "|---|---|---|---|---|",
        *(_row(name, item) for name, item in conditions.items()),
        *(f"| {label(name)} | - | - | {why} | |" for name, why in content["missing"].items()),
        f"| {BYTE_TARGET} | {float(content['byteTarget']['value']):.4f} | | | |",
        "",
        "| domain | texts | target alone | byte ensemble | bridge | gain | over a constant | over other texts' states |",
        "|---|---|---|---|---|---|---|---|",
        *(_domain(row) for row in content["domains"]),
        "",
        "| what is injected | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in content["injected"].items()),
    ]
    return "\n".join([*lines, ""])


_WORDS = {"wins": "**beats the bridge**", "open": "not resolved", "loses": "beaten"}


def _interval(item: Mapping[str, str]) -> str:
    return f"{float(item['aheadLow']):+.4f} to {float(item['aheadHigh']):+.4f}" if "aheadLow" in item else ""


def _row(name: str, item: Mapping[str, str]) -> str:
    ahead = f"{float(item['ahead']):+.4f}" if "ahead" in item else ""
    return f"| {label(name)} | {float(item['value']):.4f} | {ahead} | {_interval(item)} | {_WORDS.get(item.get('verdict', ''), '')} |"


def _domain(row: Mapping[str, Any]) -> str:
    found = row["conditions"]
    values = (f"{float(found[name]['value']):.4f}" for name in ("none", "bytes-fixed-share", OWN))
    gains = (f"{float(found[name]['ahead']):+.4f} ({_interval(found[name])})" for name in ("none", "prompt", "shuffled"))
    return f"| {row['domain']} | {row['texts']} | {' | '.join((*values, *gains))} |"

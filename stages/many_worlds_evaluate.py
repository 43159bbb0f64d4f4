"""Measure a trained substrate on texts that training never saw, against closed forms on the same pairs, and state what came out.

Retrieval: of n places in held-out texts, is the one whose point lies nearest to a source model's point the same place in the target model?
Chance is 1 / n. Round trip: how much of a model's states comes back from the substrate. Cross-model: how much of the target's states the
source's points give. Each stands beside ridge, Procrustes, canonical correlation, PCA and trainings on shuffled pairs, with paired
differences clustered by text, and a sentence for every one that the substrate does not beat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ledger.predicates import EVALUATION
from stages import statistics
from stages.errors import SpecError
from stages.metrics import text
from stages.stage import Claim, Context, Leaf, Outcome
from store import canonical
from store.digest import Digest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from stages.many_worlds.aligned import Rows
    from stages.many_worlds.world import World

OWN = "substrate"
LABELS = {
    OWN: "substrate",
    "mean": "Project's mean, without the Gaussians",
    "shuffled": "substrate trained on shuffled pairs",
    "ridge": "ridge map",
    "ridge-shuffled": "ridge map of shuffled pairs",
    "procrustes": "PCA and Procrustes",
    "cca": "canonical correlation",
    "pca": "PCA of the same rank",
}
"""Every method that is measured, in the words of the table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManyWorldsEvaluate:
    """What is measured.

    Attributes:
        new: only what this model is part of; empty for all.
        places: n of the retrieval, at most; held-out places in the order of their hashes.
        fit_places: training places that the closed forms are fitted on, at most.
    """

    new: str = ""
    heldout_percent: int = 20
    places: int = 1000
    fit_places: int = 100_000

    def __post_init__(self) -> None:
        for name in ("places", "fit_places"):
            if getattr(self, name) < 2:
                raise SpecError(f"{name} is {getattr(self, name)}; it must be at least 2")


STAGE = Leaf(
    name="many-worlds-evaluate",
    version=1,
    spec=ManyWorldsEvaluate,
    inputs=("substrate", "aligned", "calibration", "control-*"),
    outputs=("metrics", "table"),
    purity="E",
    run="stages.many_worlds_evaluate:run",
)


@dataclass(frozen=True, slots=True)
class Measured:
    """One method from one model to another (or the same), row by row.

    Attributes:
        hits: (n,) whether the place was found; None where retrieval means nothing.
        errors: (n,) squared error of the states that come out; None where none do.
    """

    method: str
    source: str
    target: str
    hits: NDArray[np.bool_] | None = None
    errors: NDArray[np.float64] | None = None

    def values(self, what: str) -> NDArray[np.float64] | None:
        """(n,) what is averaged: hits as 0 and 1, or 1 - error."""
        if what == "hits":
            return None if self.hits is None else self.hits.astype(float)
        return None if self.errors is None else 1 - self.errors


def run(spec: ManyWorldsEvaluate, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Measure, and claim.

    Raises:
        InputError: a substrate without an adapter for one of the models.
    """
    from stages.many_worlds import aligned, files

    data = aligned.load(context.folder(inputs["aligned"]), spec.heldout_percent)
    world = files.load(context.folder(inputs["substrate"]))
    control = files.load(context.folder(inputs["control-shuffled"])) if "control-shuffled" in inputs else None
    train, held_out = _first(data.train, spec.fit_places), _first(data.held_out, spec.places)
    measured, alike = measure(world, control, train, held_out, spec.new)
    content = report(measured, held_out, spec.new) | {
        "benchmark": "many-worlds",
        "dataset": {"digest": {"sha256": inputs["calibration"].hex}},
        "cka": alike,
        "layers": dict(data.layers),
        "parameters": {
            "substrate": sum(value.numel() for value in world.substrate.parameters()),
            **{f"adapter-{name}": sum(value.numel() for value in world.adapter(name).parameters()) for name in data.layers},
        },
        "places": {"fitted": len(train), "heldOut": len(data.held_out), "training": len(data.train)},
        "settings": {"heldoutPercent": spec.heldout_percent, "new": spec.new},
    }
    metrics = content["metrics"]
    context.note(
        "summary", f"R@1 {float(metrics['recallAt1']):.1%} of {content['retrieval']['n']} (chance {content['retrieval']['chance']})"
    )
    table = markdown(content)
    return Outcome(
        {"metrics": context.store.put(canonical.dumps(content)), "table": context.store.put(table.encode())},
        (Claim({"substrate": inputs["substrate"]}, EVALUATION, content),),
    )


def _first(rows: Rows, most: int) -> Rows:
    """At most so many rows, by the hashes of what was read: as good as drawn by lot, and the same for everybody."""
    import torch

    return rows.take(torch.argsort(rows.prefixes, stable=True)[:most])


# --- measuring -----------------------------------------------------------------------------------------------------------------


def measure(world: World, control: World | None, train: Rows, held_out: Rows, new: str) -> tuple[list[Measured], dict[str, str]]:
    """Every method for every direction, and the linear CKA of every pair."""
    import itertools

    import torch

    from stages.many_worlds import baselines

    names = list(train.states)
    with torch.inference_mode():
        x = {name: world.adapter(name).standard(train.states[name]).double().numpy() for name in names}
        y = {name: world.adapter(name).standard(held_out.states[name]).double().numpy() for name in names}
    tuning = (train.texts % 10 == 0).numpy()  # by text, as the held-out side is: a penalty is not tuned on neighbours
    found: list[Measured] = []
    for name in [new] if new else names:
        rank = min(world.adapter(name).rank, world.dim)
        directions = baselines.principal(x[name], rank)
        found.append(Measured("pca", name, name, errors=_errors(y[name] @ directions @ directions.T, y[name])))
    alike = {}
    for a, b in itertools.combinations(names, 2):
        if new and new not in (a, b):
            continue
        alike[f"{a} {b}"] = str(text(round(baselines.cka(y[a], y[b]), 4)))
        for source, target in ((a, b), (b, a)):
            found += _closed(source, target, x, y, tuning, world.dim)
    for method, one in ((OWN, world), ("shuffled", control)):
        if one is not None:
            found += _trained(method, one, held_out, new)
    return found, alike


def _closed(source: str, target: str, x: Mapping[str, Any], y: Mapping[str, Any], tuning: NDArray[np.bool_], dim: int) -> list[Measured]:
    """What closed forms make of one direction."""
    import numpy as np

    from stages.many_worlds import baselines

    own = tuning if 0 < tuning.sum() < len(tuning) else np.arange(len(tuning)) % 10 == 0
    weights, penalty = baselines.tuned_ridge(x[source], x[target], own)
    wrong = baselines.ridge(x[source], np.roll(x[target], len(x[target]) // 2, axis=0), penalty)  # every row has another's partner
    found = []
    for method, map_ in (("ridge", weights), ("ridge-shuffled", wrong)):
        mapped = y[source] @ map_
        found.append(Measured(method, source, target, baselines.hits(mapped, y[target]), _errors(mapped, y[target])))
    for method, maps in (
        ("procrustes", baselines.procrustes(x[source], x[target], dim)),
        ("cca", baselines.tuned_canonical_correlation(x[source], x[target], dim, own)[0]),
    ):
        found.append(Measured(method, source, target, baselines.hits(y[source] @ maps.left, y[target] @ maps.right)))
    return found


def _trained(method: str, world: World, held_out: Rows, new: str) -> list[Measured]:
    """What a trained world makes of all directions."""
    import itertools

    import torch

    from stages.many_worlds import baselines

    names = list(held_out.states)
    found: list[Measured] = []
    with torch.inference_mode():
        y = {name: world.adapter(name).standard(held_out.states[name]) for name in names}
        points = {name: world.point(name, y[name]) for name in names}
        directions = {name: world.direction(points[name]).numpy() for name in names}
        means = {name: world.adapter(name).encode(y[name])[0].numpy() for name in names}
        for source, target in itertools.product(names, names):
            if new and new not in (source, target):
                continue
            errors = _errors(world.adapter(target).decode(points[source]).numpy(), y[target].numpy())
            if source == target:
                found.append(Measured(method, source, target, errors=errors))
                continue
            found.append(Measured(method, source, target, baselines.hits(directions[source], directions[target]), errors))
            if method == OWN:
                found.append(Measured("mean", source, target, baselines.hits(means[source], means[target])))
    return found


def _errors(found: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.float64]:
    """(n,) squared error of each row in parts of the mean squared distance of a row from the mean row: R2 is 1 - their mean."""
    import numpy as np

    wide = np.asarray(wanted, np.float64)
    variance = np.square(wide - wide.mean(axis=0)).sum(axis=1).mean()
    errors: NDArray[np.float64] = np.square(np.asarray(found, np.float64) - wide).sum(axis=1) / variance
    return errors


# --- reporting -----------------------------------------------------------------------------------------------------------------


def report(measured: Sequence[Measured], held_out: Rows, new: str) -> dict[str, Any]:
    """The numbers as JSON without floats: over all directions, and for each; every method against the substrate, paired."""
    texts = held_out.texts.tolist()
    ways = [one for one in measured if one.hits is not None]
    trips = [one for one in measured if one.source == one.target]
    crosses = [one for one in measured if one.source != one.target and one.errors is not None]
    overall = _compared(ways, texts, "hits")
    retrieval: dict[str, Any] = {
        "n": len(texts),
        "texts": len(set(texts)),
        "chance": text(1 / len(texts)),
        "all": overall,
        "directions": [{"source": s, "target": t, "methods": _compared(group, texts, "hits")} for (s, t), group in _by_way(ways).items()],
    }
    content: dict[str, Any] = {
        "retrieval": retrieval,
        "roundTrip": [{"model": s, "methods": _compared(group, texts, "errors")} for (s, _), group in _by_way(trips).items()],
        "crossModel": [
            {"source": s, "target": t, "methods": _compared(group, texts, "errors")} for (s, t), group in _by_way(crosses).items()
        ],
    }
    own = overall.get(OWN, {})
    content["metrics"] = {
        "recallAt1": own.get("value", text(0.0)),
        "recallAt1Low": own.get("low"),
        "recallAt1High": own.get("high"),
        "chance": retrieval["chance"],
        **{f"recallAt1{_camel(m)}": item["value"] for m, item in overall.items() if m != OWN},
        **{f"roundTripR2{_camel(m)}": _mean_of(content["roundTrip"], m) for m in (OWN, "pca") if trips},
        **{f"crossModelR2{_camel(m)}": _mean_of(content["crossModel"], m) for m in (OWN, "ridge") if crosses},
    }
    content["metrics"] = {name: value for name, value in content["metrics"].items() if value is not None}
    content["verdicts"] = verdicts(content)
    return content


def _camel(method: str) -> str:
    return "" if method == OWN else "".join(word.capitalize() for word in method.split("-"))


def _mean_of(rows: Sequence[Mapping[str, Any]], method: str) -> str | None:
    values = [float(row["methods"][method]["value"]) for row in rows if method in row["methods"]]
    return text(sum(values) / len(values)) if values else None


def _by_way(measured: Sequence[Measured]) -> dict[tuple[str, str], list[Measured]]:
    found: dict[tuple[str, str], list[Measured]] = {}
    for one in measured:
        found.setdefault((one.source, one.target), []).append(one)
    return dict(sorted(found.items()))


def _compared(group: Sequence[Measured], texts: Sequence[int], what: str) -> dict[str, dict[str, str]]:
    """Method -> value with its interval, and the substrate's advantage over it with its interval, clustered by text.

    The value is a share of hits, or R2 = 1 - mean error; an advantage is the difference of those.
    """
    rows: dict[str, list[float]] = {}
    clusters: list[int] = []
    for method in LABELS:
        parts = [part for one in group if one.method == method and (part := one.values(what)) is not None]
        if parts:
            rows[method] = [float(item) for part in parts for item in part]
            clusters = [*texts] * len(parts)
    found: dict[str, dict[str, str]] = {}
    for method, values in rows.items():
        if what == "hits":
            mean, interval = statistics.proportion([value > 0 for value in values], clusters)
            shown = {"value": text(mean.mean), "low": text(interval.low), "high": text(interval.high)}
        else:
            mean = statistics.clustered_mean(values, clusters)
            shown = {"value": text(mean.mean), "low": text(mean.low), "high": text(mean.high)}
        if method != OWN and OWN in rows:
            ahead = statistics.paired_difference(rows[OWN], values, clusters)
            shown |= {"ahead": text(ahead.mean), "aheadLow": text(ahead.low), "aheadHigh": text(ahead.high)}
        found[method] = {name: value for name, value in shown.items() if value is not None}
    return found


def verdicts(content: Mapping[str, Any]) -> list[str]:
    """What the numbers say of the substrate against each method, in words; a baseline that wins is named first."""
    lines: dict[str, list[str]] = {"wins": [], "open": [], "loses": []}

    def judge(where: str, methods: Mapping[str, Mapping[str, str]]) -> None:
        for method, item in methods.items():
            if method == OWN or "aheadLow" not in item:
                continue
            low, high = float(item["aheadLow"]), float(item["aheadHigh"])
            kind = "wins" if high < 0 else "loses" if low > 0 else "open"
            words = {
                "wins": "beats the substrate",
                "open": "and the substrate cannot be told apart",
                "loses": "is beaten by the substrate",
            }[kind]
            value = methods[OWN]["value"]
            lines[kind].append(f"{where}: {LABELS[method]} {words}, {float(item['value']):.3f} against {float(value):.3f}")

    judge("retrieval", content["retrieval"]["all"])
    for row in content["roundTrip"]:
        judge(f"round trip of {row['model']} (R2)", row["methods"])
    for row in content["crossModel"]:
        judge(f"{row['source']} to {row['target']} (R2)", row["methods"])
    return [*lines["wins"], *lines["open"], *lines["loses"]]


def markdown(content: Mapping[str, Any]) -> str:
    """The report as tables for people."""
    retrieval = content["retrieval"]
    lines = [
        f"Retrieval at rank 1 among {retrieval['n']:,} places of {retrieval['texts']} held-out texts; chance is "
        f"{float(retrieval['chance']):.4f}. Intervals are 95 %, clustered by text.",
        "",
        "| method | R@1 | 95 % | substrate is ahead by | 95 % |",
        "|---|---|---|---|---|",
        *(_row(LABELS[method], item) for method, item in retrieval["all"].items()),
        "",
        f"| R@1 | {' | '.join(LABELS[m] for m in retrieval['all'])} |",
        f"|---|{'---|' * len(retrieval['all'])}",
    ]
    for row in retrieval["directions"]:
        lines.append(f"| {row['source']} to {row['target']} | {' | '.join(_value(row['methods'], m) for m in retrieval['all'])} |")
    for title, rows, methods in (
        ("round trip, R2", content["roundTrip"], (OWN, "shuffled", "pca")),
        ("cross-model, R2", content["crossModel"], (OWN, "shuffled", "ridge", "ridge-shuffled")),
    ):
        shown = [method for method in methods if any(method in row["methods"] for row in rows)]
        if shown:
            lines += ["", f"| {title} | {' | '.join(LABELS[m] for m in shown)} |", f"|---|{'---|' * len(shown)}"]
            for row in rows:
                name = row.get("model") or f"{row['source']} to {row['target']}"
                lines.append(f"| {name} | {' | '.join(_value(row['methods'], m) for m in shown)} |")
    return "\n".join([*lines, "", *(f"- {line}" for line in content["verdicts"]), ""])


def _value(methods: Mapping[str, Mapping[str, str]], method: str) -> str:
    return f"{float(methods[method]['value']):.3f}" if method in methods else ""


def _row(label: str, item: Mapping[str, str]) -> str:
    def interval(low: str, high: str, sign: str) -> str:
        return f"{float(item[low]):{sign}.3f} to {float(item[high]):{sign}.3f}" if low in item and high in item else ""

    ahead = f"{float(item['ahead']):+.3f}" if "ahead" in item else ""
    return f"| {label} | {float(item['value']):.3f} | {interval('low', 'high', '')} | {ahead} | {interval('aheadLow', 'aheadHigh', '+')} |"

"""Compare models that answered the same questions: accuracy with its interval, and the paired difference of each to its baseline.

Where a model stands against one baseline on several benchmarks, the difference over all their questions is told, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stages import statistics
from stages.errors import InputError, SpecError
from stages.metrics import Verdict, text
from stages.question_kinds import OUTCOMES
from stages.question_merge import Record, parse_records
from stages.stage import Context, Leaf, Outcome
from store import canonical
from store.digest import Digest

ALPHA = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One model on one benchmark.

    Attributes:
        name: its inputs are `model-<name>`, `metrics-<name>` and `records-<name>`.
        variant, benchmark: what people read: `pruned`, `gsm8k`.
        baseline: name of the row that it is compared with; None for none.
    """

    name: str
    variant: str
    benchmark: str
    baseline: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionCompare:
    """The table. All its differences are one family of tests: p-values are adjusted for their number."""

    rows: tuple[Row, ...]


STAGE = Leaf(
    name="question-compare",
    version=2,
    spec=QuestionCompare,
    inputs=("model-*", "metrics-*", "records-*"),
    outputs=("report", "table"),
    purity="P",
    run="stages.question_compare:run",
)


@dataclass(frozen=True, slots=True)
class Result:
    """One evaluation: its claim, and the record of each question."""

    metrics: Mapping[str, Any]
    records: tuple[Record, ...]


def run(spec: QuestionCompare, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Write the comparison as JSON (`report`) and as Markdown (`table`).

    Raises:
        SpecError: a row that has no inputs, or a baseline that is no row.
        InputError: two rows that cannot be paired.
    """
    names = [row.name for row in spec.rows]
    wanted = {f"{kind}-{name}" for kind in ("model", "metrics", "records") for name in names}
    if not names or len(set(names)) != len(names) or wanted != set(inputs):
        raise SpecError(
            f"question-compare has rows {', '.join(names) or '(none)'} and inputs {', '.join(sorted(inputs))}: each row needs its model, "
            "metrics and records"
        )
    for row in spec.rows:
        if row.baseline is not None and row.baseline not in names:
            raise SpecError(f"row {row.name} is to be compared with {row.baseline!r}; rows are {', '.join(names)}")
    results = {
        name: Result(
            canonical.loads(context.store.read(inputs[f"metrics-{name}"])),
            parse_records(context.store.read(inputs[f"records-{name}"])),
        )
        for name in names
    }
    rows = [row_of(row, results, model=inputs[f"model-{row.name}"]) for row in spec.rows]
    together = pooled(spec.rows, results)
    tested = [row["difference"] for row in (*rows, *together) if "difference" in row]
    adjusted = statistics.holm({str(number): float(found["p"]) for number, found in enumerate(tested)})
    for number, found in enumerate(tested):
        found["pHolm"] = text(adjusted[str(number)])
        found["verdict"] = verdict(found, adjusted[str(number)])
    everything = [*rows, *together]
    shown = [list(line) for line in grid(everything)]
    report = {"benchmark": "questions", "rows": rows, "table": shown, "tests": len(adjusted), "alpha": text(ALPHA)}
    if together:
        report["pooled"] = together
    return Outcome({"report": context.store.put(canonical.dumps(report)), "table": context.store.put(table(everything).encode())})


def pooled(rows: Sequence[Row], results: Mapping[str, Result]) -> list[dict[str, Any]]:
    """The difference over all questions of several benchmarks, of every pair of variants that meets on more than one: each question counts
    once, by the headline of its benchmark, and questions of two benchmarks are never of one cluster.

    No benchmark weighs more than its questions; a gain on one may hide a loss on another, so the rows of each stay beside it.
    """
    variants = {row.name: row.variant for row in rows}
    pairs: dict[tuple[str, str], list[tuple[Row, str]]] = {}
    for row in rows:
        if row.baseline is not None:
            pairs.setdefault((row.variant, variants[row.baseline]), []).append((row, row.baseline))
    made = []
    for (variant, baseline), several in pairs.items():
        if len(several) < 2:
            continue
        own = [item for row, _ in several for item in _headline(row, results[row.name])]
        base = [item for row, name in several for item in _headline(row, results[name])]
        mean, interval = statistics.proportion([item.outcomes[_HIT] for item in own], [item.cluster for item in own])
        made.append(
            {
                "variant": variant,
                "benchmark": f"all {len(several)}",
                "benchmarks": [row.benchmark for row, _ in several],
                "baseline": baseline,
                "baselineAccuracy": text(sum(item.outcomes[_HIT] for item in base) / mean.n),
                "questions": {"counted": mean.n},
                "metrics": {"accuracy": text(mean.mean), "low": text(interval.low), "high": text(interval.high)},
                "difference": {"baseline": baseline, **difference(own, base, _HIT)},
            }
        )
    return made


_HIT = "headline"


def _headline(row: Row, result: Result) -> list[Record]:
    """Records with their headline alone, and clusters that no other benchmark has."""
    name = OUTCOMES[result.metrics["settings"]["asking"]["kind"]][0]
    return [replace(item, cluster=f"{row.benchmark}/{item.cluster}", outcomes={_HIT: item.outcomes[name]}) for item in result.records]


def row_of(row: Row, results: Mapping[str, Result], *, model: Digest) -> dict[str, Any]:
    """One row of the report: JSON, numbers as decimal text; its p-values are not adjusted yet.

    Raises:
        InputError: it cannot be paired with its baseline.
    """
    result = results[row.name]
    value: dict[str, Any] = {
        "name": row.name,
        "variant": row.variant,
        "benchmark": row.benchmark,
        "model": str(model),
        "dataset": result.metrics["dataset"],
        "questions": result.metrics["questions"],
        "metrics": result.metrics["metrics"],
    }
    if "shares" in result.metrics:
        value["shares"] = result.metrics["shares"]
    if row.baseline is not None:
        base = results[row.baseline]
        refuse_unpaired(row, result, base)
        headline, *others = OUTCOMES[result.metrics["settings"]["asking"]["kind"]]
        value["difference"] = {"baseline": row.baseline, **difference(result.records, base.records, headline)}
        if others:
            value["further"] = {name: difference(result.records, base.records, name) for name in others}
    return value


def difference(mine: Sequence[Record], other: Sequence[Record], outcome: str) -> dict[str, Any]:
    """The paired difference in one outcome: mean with clustered error, discordant questions, exact tests.

    Without a discordant question there is no interval: its width would be zero, which claims what nobody knows. `anytimeP` is that of the
    two-sided e-process over the questions in their order: it holds for whoever looked on the way.
    """
    a, b = [item.outcomes[outcome] for item in mine], [item.outcomes[outcome] for item in other]
    paired = statistics.paired_difference(a, b, [item.cluster for item in mine])
    wins, losses = statistics.discordant(a, b)
    test, ratio = statistics.mcnemar(wins, losses), statistics.odds(wins, losses)
    states = statistics.e_process(a, b)
    return {
        "outcome": outcome,
        "mean": text(paired.mean),
        "stderrClustered": text(paired.stderr) if wins + losses else None,
        "low": text(paired.low) if wins + losses else None,
        "high": text(paired.high) if wins + losses else None,
        "questions": paired.n,
        "clusters": paired.clusters,
        "wins": wins,
        "losses": losses,
        "p": text(test.p),
        "midP": text(test.mid_p),
        "anytimeP": text(states[-1].p),
        "looks": states[-1].looks,
        "oddsLow": text(ratio.low),
        "oddsHigh": None if ratio.high == float("inf") else text(ratio.high),
        "probabilityBetter": text(ratio.better),
    }


def verdict(found: Mapping[str, Any], p: float) -> Verdict:
    """`better` or `worse` where the adjusted p is at most .05; with clusters, where the clustered interval excludes zero as well."""
    if p > ALPHA:
        return "not distinguishable"
    if found["clusters"] < found["questions"] and (found["low"] is None or float(found["low"]) <= 0 <= float(found["high"])):
        return "not distinguishable"
    return "better" if found["wins"] > found["losses"] else "worse"


def refuse_unpaired(row: Row, result: Result, base: Result) -> None:
    """Refuse rows that were not asked the same.

    Raises:
        InputError: with what differs.
    """
    faults = [
        f"{name} {result.metrics[name]!r} against {base.metrics[name]!r}"
        for name in ("benchmark", "dataset", "questions", "settings")
        if result.metrics[name] != base.metrics[name]
    ]
    if not faults and [item.id for item in result.records] != [item.id for item in base.records]:
        faults = ["questions"]
    if faults:
        raise InputError(
            f"{row.name} cannot be paired with {row.baseline}: they were evaluated on different {'; '.join(faults)}. "
            "Evaluate both on one data set with one spec"
        )


_TITLES = ("", "benchmark", "accuracy [95 %]", "n", "vs base, paired", "won : lost", "p (Holm)", "")


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a Markdown table, for people."""
    titles, *body = grid(rows)
    ruler = ("---", "---", "---:", "---:", "---:", "---:", "---:", "---", "---")[: len(titles)]
    return "".join(f"| {' | '.join(line)} |\n" for line in (titles, ruler, *body))


def grid(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Titles and cells; with the mean share of each member behind, the largest first, where a row is of several that speak as one."""
    lines = [_TITLES, *(cells(row) for row in rows)]
    if not any("shares" in row for row in rows):
        return lines
    return [(*line, last) for line, last in zip(lines, ("who spoke", *(_shares(row.get("shares", {})) for row in rows)), strict=True)]


def _shares(shares: Mapping[str, str]) -> str:
    ordered = sorted(shares.items(), key=lambda item: (-float(item[1]), item[0]))
    return ", ".join(f"{name} {100 * float(share):.1f} %" for name, share in ordered)


def cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """A row's texts: variant, benchmark, accuracy with Wilson's interval, questions, difference in points, discordant, p, verdict."""
    found = row["metrics"]
    accuracy = f"{100 * float(found['accuracy']):.1f} % [{100 * float(found['low']):.1f}, {100 * float(found['high']):.1f}]"
    front = (row["variant"], row["benchmark"], accuracy, f"{row['questions']['counted']:,}")
    paired = row.get("difference")
    if paired is None:
        return *front, "", "", "", ""
    change = f"{100 * float(paired['mean']):+.1f}"
    if paired["low"] is not None:
        change += f" [{100 * float(paired['low']):+.1f}, {100 * float(paired['high']):+.1f}]"
    return *front, change, f"{paired['wins']} : {paired['losses']}", f"{float(paired['pHolm']):.2g}", paired["verdict"]

"""Compare models that were evaluated on the same tokens: a table of size, perplexity, and the paired difference of each to its baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages import metrics
from stages.errors import InputError, SpecError
from stages.nll import Nll
from stages.perplexity_merge import summary
from stages.stage import Context, Leaf, Outcome
from store import canonical
from store.digest import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One model in one type.

    Attributes:
        name: its inputs are `nll-<name>` and `gguf-<name>`.
        variant, tier: what people read: `pruned`, `Q4_K_M`.
        baseline: name of the row that it is compared with; None for none.
        max_increase_pct: how much higher than its baseline's its perplexity may be, in per cent; None for no limit.
    """

    name: str
    variant: str
    tier: str
    baseline: str | None = None
    max_increase_pct: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Compare:
    """The table."""

    rows: tuple[Row, ...]


STAGE = Leaf(
    name="compare",
    version=1,
    spec=Compare,
    inputs=("nll-*", "gguf-*"),
    outputs=("report", "table"),
    purity="P",
    run="stages.compare:run",
)


def run(spec: Compare, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Write the comparison as JSON (`report`) and as Markdown (`table`).

    Raises:
        SpecError: a row that has no inputs, or a baseline that is no row.
        InputError: two rows that cannot be paired.
    """
    names = [row.name for row in spec.rows]
    wanted = {f"{kind}-{name}" for kind in ("nll", "gguf") for name in names}
    if not names or len(set(names)) != len(names) or wanted != set(inputs):
        raise SpecError(
            f"compare has rows {', '.join(names) or '(none)'} and inputs {', '.join(sorted(inputs))}: each row needs its nll and its gguf"
        )
    for row in spec.rows:
        if row.baseline is not None and row.baseline not in names:
            raise SpecError(f"row {row.name} is to be compared with {row.baseline!r}; rows are {', '.join(names)}")
    results = {name: Nll.parse(context.store.read(inputs[f"nll-{name}"])) for name in names}
    rows = [
        row_of(row, results, digest=inputs[f"gguf-{row.name}"], size_bytes=context.store.size(inputs[f"gguf-{row.name}"]))
        for row in spec.rows
    ]
    builds = sorted({name for result in results.values() for name in result.toolchains})
    if len(builds) > 1:
        context.warn(f"this comparison mixes measurements of different builds: {', '.join(builds)}; differences below 0.1 % may be theirs")
    shown = [list(_TITLES), *(list(cells(row)) for row in rows)]
    report = {"benchmark": "perplexity", "rows": rows, "table": shown, "toolchains": builds}
    return Outcome({"report": context.store.put(canonical.dumps(report)), "table": context.store.put(table(rows).encode())})


def row_of(row: Row, results: Mapping[str, Nll], *, digest: Digest, size_bytes: int) -> dict[str, Any]:
    """One row of the report: JSON, numbers as decimal text.

    Raises:
        InputError: it cannot be paired with its baseline.
    """
    result = results[row.name]
    value = {
        "name": row.name,
        "variant": row.variant,
        "tier": row.tier,
        "digest": str(digest),
        "sizeBytes": size_bytes,
        "chunks": result.chunks,
        "scoredTokens": len(result.values),
        "tokens": str(result.tokens),
        **summary(result),
    }
    if row.baseline is not None:
        base = results[row.baseline]
        refuse_unpaired(row, result, base)
        difference = metrics.paired_difference(result.values, base.values, result.chunks)
        percent, low, high = difference.percent
        value["difference"] = {
            "baseline": row.baseline,
            "meanNllNats": metrics.text(difference.mean),
            "stderrNats": metrics.text(difference.stderr),
            "percent": metrics.text(percent),
            "low": metrics.text(low),
            "high": metrics.text(high),
            "verdict": difference.verdict,
        }
        if row.max_increase_pct is not None:
            value["acceptance"] = acceptance(row.max_increase_pct, percent, low, high)
    return value


def acceptance(limit: float, percent: float, low: float | None, high: float | None) -> dict[str, Any]:
    """Whether an increase of perplexity is within a limit: `accepted` needs the whole 95 % interval below it, `refused` the whole above.

    All numbers are in per cent. Without an interval the estimate alone decides nothing.
    """
    if high is not None and high <= limit:
        verdict = "accepted"
    elif low is not None and low > limit:
        verdict = "refused"
    else:
        verdict = "not resolved"
    return {"limitPercent": metrics.text(limit), "percent": metrics.text(percent), "verdict": verdict}


def refuse_unpaired(row: Row, result: Nll, base: Nll) -> None:
    """Refuse two results that are not of the same tokens read in the same way.

    Raises:
        InputError: says in what they differ.
    """
    faults = [f"{key} {value!r} against {base.settings[key]!r}" for key, value in result.settings.items() if value != base.settings[key]]
    if result.tokens != base.tokens:
        faults.insert(0, f"tokens {result.tokens.short} ({result.chunks} chunks) against {base.tokens.short} ({base.chunks} chunks)")
    if faults:
        raise InputError(
            f"{row.name} cannot be paired with {row.baseline}: they were evaluated on different {'; '.join(faults)}. "
            "Evaluate both with one tokenizer, one text and one spec"
        )


_TITLES = ("", "", "bytes", "perplexity", "vs base, paired", "")


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a Markdown table, for people: perplexity ± clustered standard error, difference in per cent with its 95 % interval."""
    lines = [_TITLES, ("---", "---", "---:", "---:", "---:", "---"), *(cells(row) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def cells(row: Mapping[str, Any]) -> tuple[str, str, str, str, str, str]:
    """A row's texts: variant, tier, size, perplexity, difference, verdict."""
    perplexity, stderr = float(row["perplexity"]), row["stderrClustered"]
    shown = rounded(perplexity, None if stderr is None else float(stderr))
    difference = row.get("difference")
    if difference is None:
        return row["variant"], row["tier"], size(row["sizeBytes"]), shown, "", ""
    change = f"{float(difference['percent']):+.2f} %"
    if difference["low"] is not None:
        change += f" [{float(difference['low']):+.2f}, {float(difference['high']):+.2f}]"
    words = difference["verdict"]
    if "acceptance" in row:
        told = row["acceptance"]
        words += f" · {told['verdict']} (limit {float(told['limitPercent']):+g} %)"
    return row["variant"], row["tier"], size(row["sizeBytes"]), shown, change, words


def rounded(value: float, stderr: float | None) -> str:
    """A value with as many digits as its error supports (two of the error).

    >>> rounded(41.93462, 1.13), rounded(6.2333, 0.0342), rounded(2715.6, 91.2), rounded(5.0, None)
    ('41.9 ± 1.1', '6.233 ± 0.034', '2716 ± 91', '5.000')
    """
    if stderr is None:
        return f"{value:.4g}" if value >= 1000 else f"{value:.3f}"
    places = 0
    while stderr < 9.95 and places < 6:
        stderr, places = stderr * 10, places + 1
    return f"{value:.{places}f} ± {stderr / 10**places:.{places}f}"


def size(count: int) -> str:
    """Bytes in decimal units.

    >>> size(4102344), size(999)
    ('4.1 MB', '999 B')
    """
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import pytest

from stages import compare
from stages.compare import Compare, Row
from stages.context import LeafContext
from stages.errors import InputError, SpecError
from stages.nll import Nll
from store.digest import Digest
from store.memory import MemoryCas

CHUNKS, N_CTX = 6, 42
SCORED = N_CTX - 1 - N_CTX // 2


def result(shift: float, seed: int = 0, **changes: object) -> Nll:
    """A model whose nll is the text's own difficulty plus a shift."""
    text, own = random.Random(7), random.Random(seed)
    values = tuple(abs(text.gauss(3, 1)) + shift + own.gauss(0, 0.01) for _ in range(CHUNKS * SCORED))
    base = Nll(
        n_ctx=N_CTX,
        chunks=CHUNKS,
        bos=None,
        kv="F32",
        flash=False,
        resolution="token",
        tokens=Digest.of(b"t"),
        toolchains=("one",),
        values=values,
    )
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


ROWS = (
    Row(name="base-F16", variant="base", tier="F16"),
    Row(name="base-Q4", variant="base", tier="Q4_K_M", baseline="base-F16"),
    Row(name="pruned-F16", variant="pruned", tier="F16", baseline="base-F16"),
)


def run(results: list[Nll], tmp_path: Path, rows: tuple[Row, ...] = ROWS) -> tuple[dict[str, Any], str, LeafContext]:
    store = MemoryCas()
    context = LeafContext(store, tmp_path, tmp_path)
    inputs = {f"nll-{row.name}": store.put(value.to_bytes()) for row, value in zip(rows, results, strict=True)}
    inputs |= {f"gguf-{row.name}": store.put(bytes(1000 * (number + 1))) for number, row in enumerate(rows)}
    outputs = compare.run(Compare(rows=rows), inputs, context).outputs
    return json.loads(store.read(outputs["report"])), store.read(outputs["table"]).decode(), context


def test_a_comparison_tells_size_perplexity_and_paired_difference(tmp_path: Path) -> None:
    """One row per model; worse is found, and a difference within the noise is called that."""
    report, table, context = run([result(0.0), result(0.0, seed=1), result(0.05, seed=2)], tmp_path)
    base, quantised, pruned = report["rows"]
    assert "difference" not in base
    assert quantised["difference"]["verdict"] == "not distinguishable"
    assert pruned["difference"]["verdict"] == "worse"
    assert float(pruned["difference"]["low"]) < 5.127 < float(pruned["difference"]["high"])
    assert [row["sizeBytes"] for row in report["rows"]] == [1000, 2000, 3000]
    lines = table.splitlines()
    assert len(lines) == 5
    assert lines[4].startswith("| pruned | F16 | 3.0 kB | ")
    assert lines[4].endswith("] | worse |")
    assert report["table"][3][-1] == "worse"
    assert context.warnings == []


@pytest.mark.parametrize(("limit", "verdict"), [(10.0, "accepted"), (0.0, "refused"), (5.127, "not resolved")])
def test_a_limit_is_held_against_the_whole_interval(tmp_path: Path, limit: float, verdict: str) -> None:
    """Within, beyond, and neither: a limit inside the interval is not met and not broken."""
    rows = (*ROWS[:2], dataclasses.replace(ROWS[2], max_increase_pct=limit))
    report, table, _ = run([result(0.0), result(0.0, seed=1), result(0.05, seed=2)], tmp_path, rows)
    pruned = report["rows"][2]
    assert pruned["acceptance"]["verdict"] == verdict
    assert "acceptance" not in report["rows"][1]
    assert table.splitlines()[4].endswith(f"worse · {verdict} (limit {limit:+g} %) |")


def test_a_report_is_the_same_bytes_every_time(tmp_path: Path) -> None:
    """Numbers are decimal text of ten digits."""
    results = [result(0.0), result(0.1), result(-0.1)]
    assert run(results, tmp_path)[:2] == run(results, tmp_path)[:2]
    assert len(run(results, tmp_path)[0]["rows"][0]["perplexity"]) <= 11


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tokens": Digest.of(b"other")}, "different tokens"),
        ({"bos": 1}, "bos 1 against None"),
        ({"kv": "F16"}, "kv 'F16' against 'F32'"),
        ({"chunks": 3, "values": (1.0,) * (3 * SCORED), "tokens": Digest.of(b"t3")}, r"\(3 chunks\) against .* \(6 chunks\)"),
    ],
)
def test_results_of_different_tokens_are_not_paired(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    """Another text, tokenizer, length or setting: no difference is computed."""
    with pytest.raises(InputError, match=f"base-Q4 cannot be paired with base-F16.*{words}"):
        run([result(0.0), result(0.0, **changes), result(0.0)], tmp_path)  # type: ignore[arg-type]


def test_a_row_without_inputs_or_with_an_unknown_baseline_is_refused(tmp_path: Path) -> None:
    """The message names it."""
    store = MemoryCas()
    context = LeafContext(store, tmp_path, tmp_path)
    with pytest.raises(SpecError, match="each row needs its nll and its gguf"):
        compare.run(Compare(rows=ROWS), {}, context)
    with pytest.raises(SpecError, match="compared with 'nobody'"):
        run([result(0.0)], tmp_path, (Row(name="a", variant="a", tier="F16", baseline="nobody"),))


def test_measurements_of_different_builds_are_told(tmp_path: Path) -> None:
    """They are compared, with a warning."""
    _, _, context = run([result(0.0), result(0.0, toolchains=("two",)), result(0.0)], tmp_path)
    assert "mixes measurements of different builds: one, two" in context.warnings[0]


def test_one_chunk_gives_no_error_and_no_verdict(tmp_path: Path) -> None:
    """The table leaves the interval out."""
    one = result(0.0, chunks=1, values=(3.0,) * SCORED)
    report, table, _ = run([one, one, one], tmp_path)
    assert report["rows"][1]["difference"]["verdict"] == "not distinguishable"
    assert "| 20.086 |" in table

from __future__ import annotations

import io
import json

from cli.compare import lines
from cli.output import Output
from store.local import LocalCas
from tests.cli.conftest import Desk

TITLES = ["", "", "bytes", "perplexity", "vs base, paired", ""]
BASE, PRUNED = ["base", "F16", "17.0 MB", "41.9 ± 1.1", "", ""], ["pruned", "F16", "9.0 MB", "5", "+2.4 %", "worse"]
OUTPUT = Output(stream=io.StringIO())


def test_a_comparison_is_a_table() -> None:
    """The report is shown in columns, numbers to the right; a report without rows is no table."""
    assert lines({"one": {"table": [TITLES, BASE, PRUNED[:4]]}}, OUTPUT) == [
        "               bytes  perplexity  vs base, paired",
        "base    F16  17.0 MB  41.9 ± 1.1",
        "pruned  F16   9.0 MB           5",
    ]
    assert lines({"one": {"rows": []}}, OUTPUT) == []
    assert lines({"one": {"table": [TITLES]}}, OUTPUT) == []


def test_several_recipes_share_their_base() -> None:
    """With several reports the recipe stands in front, and what two of them evaluated alike is shown once."""
    shown = lines({"six": {"table": [TITLES, BASE, PRUNED]}, "five": {"table": [TITLES, BASE, [*PRUNED[:5], "better"]]}}, OUTPUT)
    assert [line.split()[:2] for line in shown[1:]] == [["six", "base"], ["six", "pruned"], ["five", "pruned"]]


def test_reports_of_another_form_have_a_table_of_their_own() -> None:
    """Perplexities and accuracies do not share columns."""
    asked = {"table": [["", "benchmark", "accuracy [95 %]", "n"], ["base", "gsm8k", "46.7 % [38.0, 55.6]", "120"]]}
    shown = lines({"six": {"table": [TITLES, BASE]}, "asked": asked}, OUTPUT)
    assert [line.split()[:2] for line in shown] == [
        ["bytes", "perplexity"],
        ["six", "base"],
        [],
        ["benchmark", "accuracy"],
        ["asked", "base"],
    ]


def test_compare_reads_the_latest_runs(done: Desk) -> None:
    """The reports of finished runs are found by recipe; without any, or for an unknown recipe, the choices are told."""
    said = done.type("compare")
    assert (said.code, "no finished run made a comparison" in said.err) == (2, True)
    report = LocalCas(done.ledger).put(json.dumps({"table": [TITLES, BASE]}).encode())
    record = next((done.ledger / "runs").glob("*.json"))
    value = json.loads(record.read_text())
    value["outputs"]["eval"] = {"report": str(report)}
    record.write_text(json.dumps(value))
    assert done.ok("compare").out.splitlines()[1].startswith("base  F16  17.0 MB")
    assert done.ok("compare", "shouting", "--json").json["comparisons"]["shouting"]["table"] == [TITLES, BASE]
    said = done.type("compare", "whispering")
    assert (said.code, "those that did: shouting" in said.err) == (2, True)

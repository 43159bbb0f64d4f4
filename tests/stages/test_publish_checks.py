"""What keeps a model from being published, check by check."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from stages.card_facts import Result
from stages.publish_checks import acceptance, complete, free_text, licence, metric_like, names
from stages.publish_evidence import Fault
from tests.stages.test_card import FACTS, WHO, differing, row, table


def problems(faults: list[Fault]) -> list[str]:
    """What is wrong with what."""
    return [f"{fault.what}: {fault.problem}" for fault in faults]


# --- acceptance ----------------------------------------------------------------------------------------------------------------

LIMIT = {"perplexity": {"maxIncreasePct": 10}}


def test_within_the_limit_means_the_whole_interval() -> None:
    """+7.19 % up to +9.19 is within +10 %; an estimate alone decides nothing."""
    assert acceptance(LIMIT, FACTS) == []
    assert acceptance({"perplexity": {"maxIncreasePct": 8}}, FACTS)[0].problem.endswith("does not settle it")
    bare = differing(low=None, high=None)
    assert acceptance(LIMIT, replace(FACTS, tables=(table(bare),)))[0].problem.endswith("does not settle it")


def test_above_the_limit_is_refused_with_its_numbers() -> None:
    """The message has the limit, the difference and its interval."""
    fault = acceptance({"perplexity": {"maxIncreasePct": 3}}, FACTS)[0]
    assert fault.problem == "perplexity at most +3 %: it is +7.19 % [+5.19, +9.19]"


def test_what_was_not_evaluated_is_not_met() -> None:
    """No evaluation, no comparison, no file of that name: each is a failure."""
    assert "it was not evaluated" in problems(acceptance(LIMIT, replace(FACTS, tables=())))[0]
    assert "compared with no base" in problems(acceptance(LIMIT, replace(FACTS, tables=(table(row(difference=None)),))))[0]
    none = replace(FACTS, tables=(), files=FACTS.files[:1])
    assert "nothing was evaluated" in problems(acceptance(LIMIT, none))[0]


@pytest.mark.parametrize(
    "criteria",
    [
        {"benchmarks": {"humaneval": {"min": 0.5}}},
        {"hardware": {"maxVramGb": 8}},
        {"speed": {"min": 5}},
        {"perplexity": {}},
        {"benchmarks": 3},
        "none",
    ],
)
def test_a_criterion_that_nothing_measures_is_not_met(criteria: Any) -> None:
    """Unknown or unmeasured is not met, and never passed over."""
    assert len(acceptance(criteria, FACTS)) == 1


@pytest.mark.parametrize(("value", "count"), [("0.61", 0), ("0.5", 0), ("0.49", 1), ("0", 1)])
def test_a_benchmark_s_minimum_is_held_against_the_attested_score(value: str, count: int) -> None:
    """Equal is enough; a true zero is a score."""
    result = Result(file="x.gguf", benchmark="humaneval", dataset="he", metric="score", value=value, stderr=None, source=WHO)
    assert len(acceptance({"benchmarks": {"humaneval": {"min": 0.5}}}, replace(FACTS, results=(result,)))) == count


def test_an_anchor_delta_needs_a_comparison() -> None:
    """A drop against the base is a claim about two models, so one result does not meet it."""
    result = Result(file="x.gguf", benchmark="humaneval", dataset="he", metric="score", value="0.9", stderr=None, source=WHO)
    assert len(acceptance({"benchmarks": {"humaneval": {"min": 0.5, "anchorDelta": -3}}}, replace(FACTS, results=(result,)))) == 1


def test_notes_and_no_criteria_are_met() -> None:
    """Words are no criterion."""
    assert acceptance(None, FACTS) == acceptance({}, FACTS) == acceptance({"notes": "ship it", "integrity": {}}, FACTS) == []


# --- licence, files ------------------------------------------------------------------------------------------------------------


def test_a_licence_comes_from_the_recipe_the_command_line_or_a_file() -> None:
    """Each is enough, and it is said who says so; two that differ are refused."""
    assert licence(None, {"license": "mit"}, [])[0].said == "as the recipe says"
    assert licence("mit", {}, [])[0].said == "as said when it was published"
    found, faults = licence(None, {}, ["LICENSE.txt", "config.json"])
    assert (found.name, found.file, faults) == ("", "LICENSE.txt", [])
    assert licence("MIT", {"license": "mit"}, [])[1] == []
    assert len(licence("apache-2.0", {"license": "mit"}, [])[1]) == 1
    assert len(licence(None, {}, ["config.json"])[1]) == 1
    assert licence(None, {"license": "mit", "source": {"license": "llama3"}}, [])[0].base == "llama3"


def test_an_ensemble_has_a_config_and_whole_members() -> None:
    """At the top a config alone; of each member what loads it, each fault with its folder."""
    member = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    whole = ["config.json", *(f"members/{name}/{path}" for name in ("one", "two") for path in member)]
    assert complete(whole) == []
    assert problems(complete(whole[1:])) == problems(complete([path for path in member if path != "config.json"]))
    assert [fault.what for fault in complete([path for path in whole if path != "members/two/tokenizer.json"])] == [
        "members/two: the tokenizer"
    ]


def test_a_folder_has_config_tokenizer_and_weights() -> None:
    """What is missing is named."""
    whole = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    assert complete(whole) == []
    assert complete(["model.safetensors", "config.json", "vocab.json", "merges.txt"]) == []
    for missing in whole[:1] + whole[2:]:
        assert complete([path for path in whole if path != missing])
    assert len(complete(["config.json"])) == 1


def test_a_model_cannot_bring_the_publication_s_own_files() -> None:
    """A README of the base, a picture folder, or git's own files would be taken for ours, or be passed over."""
    assert names(["config.json", "additional_chat_templates/a.jinja"], ["README.md"]) == []
    for path in ("README.md", "assets/x.svg", ".gitattributes", ".git/config"):
        assert len(names([path], ["README.md"])) == 1


# --- the author's own words ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A Mixtral of 5.8 million parameters", ["5.8 million"]),
        ("4.6x faster, 20 GB, 5658 tok/s, 3 times smaller", ["4.6x", "20 GB", "5658 tok/s", "3 times"]),
        ("perplexity 42", ["42"]),
        ("scores an accuracy of 85 on HumanEval", ["85"]),
        ("PPL: 8.97; loses 3.7 points", ["8.97", "3.7"]),
        ("−13.4 points, +7%, -3.0 %, ±3 %", ["−13.4", "+7%", "-3.0 %", "±3 %"]),
        ("12.5 per cent, 5,2 %", ["12.5 per cent", "5,2 %"]),
        ("1,234.5 tokens", ["1,234.5 tokens"]),
    ],
)
def test_numbers_that_read_like_a_measurement_are_found(text: str, found: list[str]) -> None:
    """A fraction, a unit, or a metric beside it."""
    assert [item.removesuffix(" points") for item in metric_like(text)] == found


@pytest.mark.parametrize(
    "text",
    [
        "version 1.2.3, v1.5, of 2026-01-31",
        "Qwen2.5-7B, Mixtral 8x7B, llama-3.1, gpt-3.5-turbo",
        "keeps 6 of 8 experts; perplexity rises",
        "top-2 routing, 256k context, trained on 3 domains",
        "see https://example.org/1.5 and section 4",
        "",
    ],
)
def test_versions_dates_names_and_plain_counts_are_none(text: str) -> None:
    """What nobody would take for a result may be said."""
    assert metric_like(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "4.7 million parameters",
        "4,660,000 parameters",
        "perplexity 48.6 (about 49 ± 7.9)",
        "7.2 % worse, at most 10 %",
        "2.9 MB, or 2.8 MiB",
        "14,280 tokens",
    ],
)
def test_an_attested_number_may_be_repeated_rounded(text: str) -> None:
    """With fewer digits, and in another unit of the same quantity."""
    facts = replace(FACTS, tables=(table(differing(limit=10.0)),))
    assert free_text({"description": text}, facts) == []


@pytest.mark.parametrize("text", ["perplexity 48.7", "7.1 % worse", "3.0 MB", "2x faster", "170 tok/s", "5.8 million parameters", "48.6 %"])
def test_any_other_is_refused_by_name(text: str) -> None:
    """Nearly right is wrong, and a unit counts; the fault says where it stands and what it is."""
    faults = free_text({"description": "ok", "limitations[1]": text}, FACTS)
    assert [fault.what for fault in faults] == ["limitations[1]"]
    assert metric_like(text)[0] in faults[0].problem

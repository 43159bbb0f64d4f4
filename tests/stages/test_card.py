"""The model card: what it says follows from facts, and the faults of its predecessor are absent, each by a test of its own."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

from stages import card
from stages.card_facts import (
    Answered,
    Base,
    Change,
    Difference,
    Ensemble,
    Facts,
    File,
    Licence,
    Loads,
    Measured,
    Member,
    Result,
    Row,
    Source,
    Step,
    Table,
    numbers,
)

WHO = Source(entry=93, signers=("alice",))
DIGEST = "f6" * 32


def row(tier: str = "Q4_K_M", *, percent: float = 7.19, value: float = 48.57, **changes: Any) -> Row:
    """A published file as measured."""
    difference = Difference(
        baseline=f"base {tier}",
        percent=percent,
        low=percent - 2,
        high=percent + 2,
        verdict="worse",
        source=Source(entry=105, signers=("alice",)),
    )
    measured = Measured(value=value, stderr=7.9, low=35.0, high=67.4, source=WHO)
    made = Row(
        file=f"tiny-6x1.7M-v1.0-{tier}.gguf",
        variant="this model",
        tier=tier,
        size_bytes=2_948_480,
        measured=measured,
        difference=difference,
    )
    return replace(made, **changes)


def differing(**changes: Any) -> Row:
    """The same, with another paired difference to the base."""
    made = row()
    assert made.difference is not None
    return replace(made, difference=replace(made.difference, **changes))


def table(*rows: Row, **changes: Any) -> Table:
    made = Table(
        dataset="heldout.txt", digest=DIGEST, scored=14280, context=512, chunks=56, toolchains=("cyllama 0.2.18",), rows=rows or (row(),)
    )
    return replace(made, **changes)


FACTS = Facts(
    name="tiny-moe-6e",
    version="1.0.0",
    repo="org/tiny-moe-6e",
    what="The mixtral model `model`, with 6 of its 8 experts in every layer kept (strategy reap); here as GGUF in Q4\\_K\\_M.",
    description="",
    summary="",
    limitations=(),
    author="",
    tags=("alloy-ledger", "gguf", "pruned"),
    datasets=(),
    licence=Licence(name="Apache-2.0", said="as the recipe says", file=""),
    base=Base(name="model", hub="", revision="", relation="finetune", digest="94" * 32),
    library="transformers",
    files=(
        File(path="model.safetensors", size_bytes=9_328_064),
        File(path="tiny-6x1.7M-v1.0-Q4_K_M.gguf", size_bytes=2_948_480, tier="Q4_K_M"),
    ),
    tables=(table(),),
    results=(),
    loads=(Loads(what="the folder", how="forward", by="transformers 5.24.0", parameters=4_660_000, architecture="M", source=WHO),),
    steps=(Step(stage="expert-select", what="keep 6", entries=(20,), signers=("alice",), runs=1, confirmed=0),),
    alloy="tiny-moe-6e.alloy.json",
    alloy_digest="0c" * 32,
    verify_url=f"https://alloy-ledger.github.io/verify/#hf:org/tiny-moe-6e@sha256:{'0c' * 32}",
    log=("ledger/014b", 114),
    release=113,
    keys={"alice": "ed25519:As+E6x2B+5RKsYgNbs0w7sR5TA48nnADVEDS/oSnwKU="},
    model_key="ecdsa-p256:A7n2QBySZ+HRo8HHfXrK0dMrY+dGzG8UZNWEB4cPX1nA",
    proof_qr=True,
    pictures={"assets/perplexity.svg": "Perplexity on heldout.txt"},
)


def front(text: str) -> Any:
    """The YAML at the head of a card."""
    return yaml.safe_load(text.split("---\n")[1])


def tokens(text: str) -> list[Any]:
    """What a Markdown reader sees in the body, flat."""
    body = text.split("---\n", 2)[2]
    found = []
    for block in MarkdownIt("commonmark", {"html": True, "linkify": False}).enable("table").parse(body):
        found += [block, *(block.children or [])]
    return found


# --- what it says --------------------------------------------------------------------------------------------------------------


def test_it_is_a_function_of_the_facts() -> None:
    """Equal facts give equal bytes."""
    assert card.render(FACTS) == card.render(replace(FACTS))


def test_a_tier_has_its_size_its_error_its_paired_difference_and_its_entry() -> None:
    """One line of the table says all of it, with interval and verdict."""
    line = next(line for line in card.render(FACTS).splitlines() if line.startswith("| **this model**"))
    assert (
        line == "| **this model** | Q4\\_K\\_M | 2.9 MB | 48.6 ± 7.9 [35.0, 67.4] | base Q4\\_K\\_M | +7.19 % [+5.19, +9.19] | worse | 93 |"
    )


def test_the_hub_reads_its_head() -> None:
    """License, library, pipeline and tags; perplexity and its standard error in the model index, with the verify link as the source."""
    from huggingface_hub import ModelCard

    data = ModelCard(card.render(FACTS)).data
    assert (data.license, data.library_name, data.pipeline_tag) == ("apache-2.0", "transformers", "text-generation")
    results = data.eval_results
    assert results is not None
    assert [(one.metric_type, one.metric_value) for one in results] == [("perplexity", 48.57), ("perplexity_stderr", 7.9)]
    assert {one.source_url for one in results} == {FACTS.verify_url}


@pytest.mark.parametrize("relation", ["quantized", "finetune", "merge"])
def test_the_base_is_named_as_what_it_is(relation: str) -> None:
    """A base from the Hub stands in the head with its relation; a merge names all of them."""
    others = ("acme/second",) if relation == "merge" else ()
    base = Base(name="acme/base", hub="acme/base", revision="a" * 40, relation=relation, digest="94" * 32, others=others)
    head = front(card.render(replace(FACTS, base=base)))
    assert head["base_model"] == (["acme/base", "acme/second"] if others else "acme/base")
    assert head["base_model_relation"] == relation


def test_a_base_from_a_folder_is_no_base_model_of_the_hub() -> None:
    """A path is not claimed to be a repository; where it came from is said to be not proven."""
    text = card.render(FACTS)
    assert "base_model" not in front(text)
    assert "where the base model `model` came from before it was taken in" in text


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        (Licence(name="MIT", said="x", file=""), {"license": "mit"}),
        (Licence(name="My Own 2", said="x", file=""), {"license": "other", "license_name": "my-own-2"}),
        (Licence(name="", said="x", file="LICENSE"), {"license": "other", "license_name": "see-licence-file", "license_link": "LICENSE"}),
    ],
)
def test_licences_are_written_as_the_hub_knows_them(licence: Licence, expected: dict[str, str]) -> None:
    """A licence that the Hub has no name for is `other`, with a name and the file."""
    head = front(card.render(replace(FACTS, licence=licence)))
    assert {key: value for key, value in head.items() if key.startswith("license")} == expected


def test_quick_start_is_for_the_files_that_are_there() -> None:
    """Without a folder there is no transformers, without GGUF no llama.cpp; the smallest type is shown."""
    assert "from transformers" in card.render(FACTS)
    assert "llama-cli -hf org/tiny-moe-6e:Q4_K_M" in card.render(FACTS)
    only = replace(FACTS, files=FACTS.files[1:])
    assert "from transformers" not in card.render(only)
    assert "llama-cli" not in card.render(replace(FACTS, files=FACTS.files[:1]))


def test_how_to_verify_names_the_hash_and_the_keys() -> None:
    """The command with --expect, the QR's link, the keys' texts, and the offline proof where there is one."""
    text = card.render(FACTS)
    assert f"ledger verify hf:org/tiny-moe-6e --expect sha256:{FACTS.alloy_digest}" in text
    assert FACTS.keys["alice"] in text
    assert FACTS.verify_url in text
    assert "ledger verify --offline proof-qr.png" in text
    assert "proof-qr.png" not in card.render(replace(FACTS, proof_qr=False))


def test_confirmations_are_counted_and_not_claimed() -> None:
    """Nobody, one other key for all of it, and some of the runs are told apart; the numbers are signed by who signed them."""
    assert "signed with the key `alice`, confirmed by nobody else yet; the last" in card.render(FACTS)
    step = replace(FACTS.steps[0], confirmed=1, least=1, others=("bob",))
    rows = table(row(measured=replace(row().measured, source=Source(entry=93, signers=("alice",), others=("bob",)))))
    both = card.render(replace(FACTS, steps=(step,), tables=(rows,)))
    assert "confirmed by 1 other key" in both
    assert "nobody else" not in both
    assert "| alice | bob |" in both
    assert "signed with the key `alice`, confirmed by 1 other key; the last" in both
    three = replace(step, runs=3, least=0, entries=(20, 21, 22))
    some = card.render(replace(FACTS, steps=(three,)))
    assert "| alice | bob, 1 of 3 |" in some
    words = "1 of the 3 runs behind these files was done again with the same outputs, with the key `bob`"
    assert f"signed with the key `alice`; {words}, the rest is confirmed by nobody else yet" in some
    assert f"It is signed with the key `alice`. Of it, {words}; the rest was confirmed by nobody else yet" in some
    more = card.render(replace(FACTS, steps=(three,), tables=(rows,)))
    assert "1 of the 3 runs behind these files and 1 of the 1 measurements of them were done again" in more


def test_without_numbers_the_runs_are_what_is_signed() -> None:
    """No measured number is spoken of where there is none."""
    assert "Every run behind these files is in a statement signed with the key `alice`, confirmed" in card.render(replace(FACTS, tables=()))


def test_controls_and_bases_are_shown_beside_what_is_published() -> None:
    """A control has its own line, and is not taken for a file that is here."""
    control = row(file="", variant="control random", tier="F16", percent=48.84)
    text = card.render(replace(FACTS, tables=(table(row(), control),)))
    assert "| control random | F16 |" in text
    assert len(front(text)["model-index"][0]["results"]) == 1


def test_warnings_of_the_tools_are_told() -> None:
    """What a run was warned of stands under its table."""
    assert "- attention is larger" in card.render(replace(FACTS, tables=(table(notes=("attention is larger",)),)))


# --- faults of the predecessor, which must be absent ---------------------------------------------------------------------------


def test_sizes_are_those_of_the_files() -> None:
    """Hard-coded sizes of another model never appear: two other sizes change every size on the page."""
    other = (File(path="model.safetensors", size_bytes=111_000_000), File(path="x-Q4_K_M.gguf", size_bytes=222_000_000, tier="Q4_K_M"))
    rows = table(row(size_bytes=222_000_000))
    text = card.render(replace(FACTS, files=other, tables=(rows,)))
    sizes = re.findall(r"[\d.]+ [kMG]B", text)
    assert set(sizes) == {"111.0 MB", "222.0 MB"}


def test_context_is_that_of_the_measurement() -> None:
    """No context length is assumed."""
    text = card.render(replace(FACTS, tables=(table(context=2048),)))
    assert "chunks of 2,048" in text
    assert "32768" not in text
    assert "512" not in text


def test_no_words_of_trust_that_nothing_backs() -> None:
    """`every claim verified` and its kin are printed at no trust level."""
    text = card.render(FACTS).lower()
    for words in ("every claim verified", "verified ✓", "fully verified", "guaranteed", "trustless", "cryptographically proven"):
        assert words not in text
    assert "not proven" in text


@pytest.mark.parametrize("zero", ["0", "0.0", "0.000"])
def test_a_true_zero_is_shown(zero: str) -> None:
    """A score of nought is a score; it is no dash."""
    result = Result(file="x.gguf", benchmark="humaneval", dataset="he", metric="score", value=zero, stderr=None, source=WHO)
    assert f"| score | {zero} | 93 |" in card.render(replace(FACTS, results=(result,)))
    text = card.render(replace(FACTS, tables=(table(row(percent=0.0)),)))
    assert "+0.00 % [-2.00, +2.00]" in text


def test_a_lower_perplexity_is_a_negative_difference() -> None:
    """A sign stands once: `-3.00 %`, never `+-3.0 %`."""
    text = card.render(replace(FACTS, tables=(table(row(percent=-3.0)),)))
    assert "-3.00 % [-5.00, -1.00]" in text
    assert "+-" not in text


def test_the_headline_claims_no_gain() -> None:
    """The title is the name, and the sentence under it says what was done; no `+X % better`."""
    lines = card.render(FACTS).split("---\n", 2)[2].strip().splitlines()
    assert lines[0] == "# tiny-moe-6e"
    assert "%" not in lines[2]
    assert "better" not in lines[2]


def test_pruned_experts_are_counted_as_experts() -> None:
    """Nothing turns a share of heads or experts into a share of parameters."""
    assert "params" not in card.render(FACTS)


def test_a_card_without_evaluations_says_so() -> None:
    """No numbers, no table, no index; and a plain sentence."""
    text = card.render(replace(FACTS, tables=(), pictures={}))
    assert "no evaluation of these files is attested" in text
    assert "model-index" not in front(text)


def test_an_evaluation_without_error_shows_none() -> None:
    """A missing standard error or interval is left out, and is not nought."""
    bare = replace(row().measured, stderr=None, low=None, high=None)
    text = card.render(replace(FACTS, tables=(table(row(measured=bare, difference=None)),)))
    line = next(line for line in text.splitlines() if line.startswith("| **this model**"))
    assert "| 48.570 |" in line
    assert "±" not in line


# --- text of others ------------------------------------------------------------------------------------------------------------

HOSTILE = (
    "</td></table><script>alert(1)</script>\n\n# Owned\n[click](javascript:alert(1)) ![x](https://evil.example/p.png) "
    "<img src=x onerror=1> | cell | `code` <https://evil.example> https://evil.example "
    "www.evil.example a@evil.example &lt;b&gt; \x1b[31m\u202e ---\nlicense: mit"
)


def poisoned() -> Facts:
    """Every text that somebody else chose, hostile."""
    table_ = table(row(variant=HOSTILE, tier=HOSTILE), dataset=HOSTILE, toolchains=(HOSTILE,), notes=(HOSTILE,))
    result = Result(file=HOSTILE, benchmark=HOSTILE, dataset=HOSTILE, metric=HOSTILE, value=HOSTILE, stderr=HOSTILE, source=WHO)
    asked = replace(OWN, variant=HOSTILE, benchmark=HOSTILE, outcome=HOSTILE, dataset=HOSTILE, shares={HOSTILE: 1.0}, change=None)
    return replace(
        FACTS,
        name=HOSTILE,
        version=HOSTILE,
        what="A model.",
        description=HOSTILE,
        summary=f"first\n\n{HOSTILE}",
        limitations=(HOSTILE,),
        author=HOSTILE,
        tags=(HOSTILE,),
        datasets=(HOSTILE,),
        licence=Licence(name=HOSTILE, said=HOSTILE, file=HOSTILE, base=HOSTILE),
        base=Base(name=HOSTILE, hub="", revision="", relation="finetune", digest="94" * 32),
        tables=(table_,),
        results=(result,),
        answered=(asked, replace(asked, variant="", change=replace(CHANGE, baseline=HOSTILE, verdict=HOSTILE))),
        loads=(replace(FACTS.loads[0], by=HOSTILE, what=HOSTILE),),
        steps=(replace(FACTS.steps[0], stage=HOSTILE, what=HOSTILE, signers=(HOSTILE,), others=(HOSTILE,), confirmed=1),),
        keys={HOSTILE: HOSTILE},
        log=(HOSTILE, 1),
        pictures={"assets/perplexity.svg": HOSTILE},
    )


def poisoned_ensemble() -> Facts:
    """The same, of an ensemble."""
    member = Member(name=HOSTILE, digest="11" * 32, hub=HOSTILE, revision=HOSTILE, made_by=HOSTILE)
    members = (member, replace(member, hub=""))
    return replace(poisoned(), ensemble=Ensemble(combiner=HOSTILE, settings=HOSTILE, members=members))


def test_every_text_of_facts_is_among_the_poisoned() -> None:
    """A new text field must be added to the test, so that it cannot be forgotten."""
    safe = {"repo", "alloy", "alloy_digest", "verify_url", "library", "what", "model_key"}  # made or checked by ourselves
    poison = poisoned()
    for item in dataclasses.fields(Facts):
        value = getattr(poison, item.name)
        if isinstance(value, (str, tuple, dict)) and item.name not in safe | {"files"}:
            assert HOSTILE in str(value) or HOSTILE in repr(value) or repr(HOSTILE)[1:-1] in repr(value), item.name


@pytest.mark.parametrize("facts", [poisoned, poisoned_ensemble])
def test_text_of_others_stays_text(facts: Callable[[], Facts]) -> None:
    """No HTML but our picture, no link and no image but ours, no heading that is not ours; the head has no field that is not ours."""
    text = card.render(facts())
    seen = tokens(text)
    html = [token.content for token in seen if token.type in ("html_inline", "html_block")]
    assert all(content.startswith('<img src="verify-qr.png"') for content in html)
    links = {token.attrGet("href") for token in seen if token.type == "link_open"}
    assert all(not str(link).startswith(("javascript", "https://evil", "mailto")) for link in links)
    images = {token.attrGet("src") for token in seen if token.type == "image"}
    assert images == {"assets/perplexity.svg"}
    assert "\x1b" not in text
    assert "\u202e" not in text
    head = front(text)
    assert head["license"] == "other"
    assert set(head) <= {"license", "license_name", "license_link", "library_name", "pipeline_tag", "tags", "datasets", "model-index"}
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert "# Owned" not in headings


@pytest.mark.parametrize("facts", [poisoned, poisoned_ensemble])
def test_a_hostile_table_cell_adds_no_cell(facts: Callable[[], Facts]) -> None:
    """Every line of a table has as many cells as its head."""
    text = card.render(facts())
    seen = tokens(text)
    widths: list[int] = []
    for token in seen:
        if token.type == "tr_open":
            widths.append(0)
        if token.type in ("th_open", "td_open"):
            widths[-1] += 1
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(widths) == len([line for line in lines if not re.fullmatch(r"[|\s:-]+", line)]) or widths
    for line in lines:
        unescaped = re.sub(r"\\\|", "", line)
        assert unescaped.count("|") in (3, 4, 5, 7, 9, 12), line


# --- questions and ensembles -----------------------------------------------------------------------------------------------------

CHANGE = Change(
    baseline="base", mean=0.25, low=0.1, high=0.4, wins=12, losses=2, p=0.013, verdict="better", source=Source(entry=18, signers=("alice",))
)
OWN = Answered(
    variant="", benchmark="gsm8k", outcome="", dataset="set|.jsonl", questions=40, accuracy=0.0, low=0.0, high=0.0876, source=WHO,
    change=CHANGE, shares={"one": 0.75, "two": 0.25},
)  # fmt: skip
WORLDS = replace(
    FACTS,
    tables=(),
    base=Base(name="acme/two", hub="acme/two", revision="a" * 40, relation="merge", digest="94" * 32),
    files=(File(path="members/one/model.safetensors", size_bytes=10), File(path="members/two/model.safetensors", size_bytes=10)),
    loads=(Loads(what="the folder", how="answers", by="alloy-ledger 1", parameters=10, architecture="many-worlds-ensemble", source=WHO),),
    answered=(replace(OWN, variant="base", change=None, shares={}), OWN),
    ensemble=Ensemble(
        combiner="fixed-share",
        settings="share 0.01",
        members=(
            Member(name="one", digest="11" * 32, hub="", revision="", made_by="import-model"),
            Member(name="two", digest="22" * 32, hub="acme/two", revision="a" * 40, made_by="import-model"),
        ),
    ),
)


def test_an_accuracy_has_its_interval_its_paired_difference_and_its_entry() -> None:
    """A true zero is a number; the base's row has none of the differences; who said the differences stands below."""
    text = card.render(WORLDS)
    line = next(line for line in text.splitlines() if line.startswith("| **this model**"))
    assert line == (
        "| **this model** | gsm8k | set\\|.jsonl | 40 | 0.0 % [0.0, 8.8] | base | +25.0 [+10.0, +40.0] | 12 : 2 | 0.013 | better | 93 |"
    )
    assert "| base | gsm8k | set\\|.jsonl | 40 | 0.0 % [0.0, 8.8] |  |  |  |  |  | 93 |" in text
    assert "Differences: entry 18." in text
    assert "how good the model is: no evaluation" not in text
    assert (25.0, "%") in numbers(WORLDS)


def test_an_ensemble_names_its_members_and_who_spoke() -> None:
    """By digest, and by repository and commit where they came from there; the mean part of each; how to ask it."""
    text = card.render(WORLDS)
    assert f"| one | taken in from a folder | import-model | `sha256:{'11' * 32}` |" in text
    assert f"| two | acme/two at `{'a' * 12}` | import-model | `sha256:{'22' * 32}` |" in text
    assert "combined by `fixed-share` (share 0.01)" in text
    assert "| gsm8k on set\\|.jsonl | 75.0 % | 25.0 % | 93 |" in text
    assert "where `one` came from before being taken in" in text
    assert f'AutoModelForCausalLM.from_pretrained("{WORLDS.repo}", trust_remote_code=True)' in text
    assert "AutoTokenizer" not in text
    assert front(text)["base_model"] == "acme/two"

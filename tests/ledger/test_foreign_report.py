"""ledger.foreign_report: never a green verdict about an alloy that nobody signed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ledger.alloy import file_hash
from ledger.foreign import load
from ledger.foreign_hashes import hashes
from ledger.foreign_report import examine_foreign
from ledger.locator import Expected
from tests.ledger.test_foreign import ALLOYS, EXECUTED, FILES, FORGED, OLMOE, ROOT, edited
from tests.ledger.test_foreign_hashes import listing
from tests.reports import texts


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name.removesuffix(".alloy.json"))
@pytest.mark.parametrize("digits", [0, 8, 16, 63, 64])
def test_no_unsigned_file_is_ever_verified(path: Path, digits: int) -> None:
    """Without all 256 bits that somebody else gave, the exit code is 3; with them only the bytes are proven."""
    digest = file_hash(path.read_bytes())
    report = examine_foreign(path, Expected(digest.hex[:digits]) if digits else None)
    assert report.verdict.startswith("UNSIGNED")
    assert report.exit_code == (0 if digits == 64 else 3)
    proven = [row for row in report.rows if row.status == "proven"]
    assert len(proven) == (digits == 64)
    assert all(str(digest) in row.text for row in proven)


def test_a_prefix_says_what_it_proves() -> None:
    """64 bits: an accident no, a stranger hardly, the author easily."""
    told = examine_foreign(OLMOE, Expected("bba0a92ff0c8bebb")).rows[0]
    assert told.status == "unverified"
    assert all(words in told.text for words in ("64 bits", "about 2^64 tries", "its author about 2^32", "do not prove"))


def test_other_bytes_than_expected_fail() -> None:
    """Whether the expected hash is whole or cut."""
    for digits in ("bba0a92ff0c8bebc", 64 * "b"):
        report = examine_foreign(OLMOE, Expected(digits))
        assert (report.verdict, report.exit_code, report.rows[0].status) == ("FAILED", 3, "failed")


def test_a_signature_field_is_worth_nothing() -> None:
    """Trust badges for the presence of fields are not repeated: an invented signature and an enclave that is only a word change nothing."""

    def adorn(value: dict[str, Any]) -> None:
        del value["receipt"]
        signature = {"algorithm": "ES256", "publicKey": "AAAA", "value": "AAAA"}
        value["results"]["integrity"] |= {"trustLevel": "enclave", "signature": signature, "nonce": "x"}
        value["results"]["integrity"]["certifications"] = [
            {"adapter": "ul/safety", "version": "1", "domain": "safety:all", "signature": signature, "nonce": "y", "attestedAt": "now"}
        ]

    report = examine_foreign(edited(FORGED, adorn), None)
    told = texts(report, "unverified")
    assert report.verdict.startswith("UNSIGNED")
    assert "2 signature fields" in told
    assert "'enclave' is a word in the file" in told
    assert not texts(report, "proven")
    assert not texts(report, "attested")


def test_numbers_are_repeated_as_what_the_file_says() -> None:
    """Benchmarks with a true zero, wrong arithmetic and counts of tensors are shown as what they are."""

    def change(value: dict[str, Any]) -> None:
        value["results"]["benchmarks"][0].update(score=0.0, delta=5.0)
        value["results"] |= {"baselinePerplexity": 3.0, "finalPerplexity": 2.0, "improvementPct": 50.0}

    told = texts(examine_foreign(edited(OLMOE, change), None), "self-reported")
    assert "humaneval 0, its base 40.9; its delta 5 is not their difference -40.9" in told
    assert "an improvement of 50 %; these two numbers give 33.33 %" in told
    assert "16 layers lost 16 experts each, which are 256; it counts their tensors" in told
    assert "olmoe-broad-corpus-2026-04-08: negative_baseline" in told


def test_hostile_text_stays_text() -> None:
    """Control characters and endless names do not reach the terminal."""

    def change(value: dict[str, Any]) -> None:
        value["name"] = "\x1b[32mVERIFIED\x1b[0m" + "x" * 10_000
        value["results"]["benchmarks"] = [{"name": "\x1b[2J", "metrics": {"\x07": "\x1b[1m"}}]
        value["\x1b[31m"] = 1

    for row in examine_foreign(edited(FORGED, change), None).rows:
        assert row.text.isprintable()
        assert len(row.text) < 2000


@pytest.mark.parametrize("kind", [None, 3, "text", [], [[]], {"a": 1}])
@pytest.mark.parametrize(
    "key", ["benchmarks", "integrity", "hardwareVerified", "samples", "fileHashes", "certifications", "datasets", "code"]
)
def test_values_of_any_kind_are_survived(key: str, kind: Any) -> None:
    """A file may hold anything anywhere; it is named as a fault and nothing breaks."""

    def change(value: dict[str, Any]) -> None:
        (value["results"] if key in value["results"] else value["results"]["integrity"])[key] = kind

    data = edited(EXECUTED, change)
    assert examine_foreign(data, None).exit_code == 3
    hashes(load(data), listing=listing(), folder=ALLOYS)


# --- the page --------------------------------------------------------------------------------------------------------------------


def table() -> dict[str, list[str]]:
    """The table of docs/legacy.md: file -> its other cells."""
    lines = (ROOT / "docs/legacy.md").read_text().partition("| file (`.alloy.json`)")[2].partition("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in rows}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name.removesuffix(".alloy.json"))
def test_the_page_says_of_every_file_what_it_is_good_for(path: Path) -> None:
    """Recipe or executed, whether it loads as a recipe and why not, how far it is of the format, and what follows of its hashes."""
    from stages.errors import RecipeError
    from stages.recipe import load as load_recipe

    kind, recipe, places, stated = table()[path.name.removesuffix(".alloy.json")]
    alloy = load(path.read_bytes())
    assert kind.startswith("executed" if alloy.executed else "recipe")
    assert int(places) == len(alloy.faults)
    found = [claim.verdict for claim in hashes(alloy)]
    assert stated == (", ".join(f"{found.count(word)} {word}" for word in ("equal", "differs", "open") if word in found) or "none")
    if recipe == "loads":
        load_recipe(path)
        return
    with pytest.raises(RecipeError, match=re.escape(recipe.removeprefix("refused: "))):
        load_recipe(path)


def test_the_page_is_about_all_of_them() -> None:
    """No file is left out."""
    assert sorted(table()) == sorted(path.name.removesuffix(".alloy.json") for path in FILES)


def test_an_alloy_of_ours_without_its_attestations_says_what_is_missing() -> None:
    """The statements that its receipt names travel in a file of their own."""
    data = edited(OLMOE, lambda value: value["receipt"].update(ledger={"entries": []}))
    row = next(row for row in examine_foreign(data, None).rows if "who says all this" in row.text)
    assert "names the entries of a ledger" in row.text
    assert ".attestations.jsonl" in row.hint

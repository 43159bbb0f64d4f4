"""The two statements of a publication: what they hold, what is refused, and that they are small."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ledger import dsse, statement
from ledger.errors import StatementError
from ledger.publication import PUBLICATION, Publication
from ledger.statement import Statement
from ledger.testing import UnsafeSigner
from store.digest import Digest

ALLOY = ("tiny-moe-6e.alloy.json", Digest.of(b"alloy"))
RELEASED = Publication(
    event="released",
    target="hf:org/tiny-moe-6e",
    name="tiny-moe-6e",
    version="1.0.0",
    alloy=ALLOY,
    recipe_hash=Digest.of(b"recipe"),
    model_hash=Digest.of(b"model"),
)
PUBLISHED = replace(
    RELEASED,
    event="published",
    revision=40 * "a",
    url="https://huggingface.co/org/tiny-moe-6e",
    files=14,
    compared_on="2026-11-25T10:00:00Z",
)


@pytest.mark.parametrize("one", [RELEASED, PUBLISHED, replace(RELEASED, recipe_hash=None, model_hash=None)])
def test_what_is_written_is_read_back(one: Publication) -> None:
    """A publication survives its statement, byte for byte the same again."""
    found = Publication.of(Statement.parse(one.payload()))
    assert found == one
    assert found.payload() == one.payload()


def test_the_subject_is_the_alloy_file_and_nothing_else() -> None:
    """One subject: the alloy lists all other files, so nothing goes round in a circle."""
    assert dict(Statement.parse(RELEASED.payload()).subjects) == dict([ALLOY])


def test_a_release_is_small_enough_for_a_qr() -> None:
    """Its whole signed envelope, with an Ed25519 signature, leaves room for the proof in a QR of at most 2,953 bytes."""
    assert len(dsse.sign(RELEASED.payload(), UnsafeSigner("alice"))) < 1300


@pytest.mark.parametrize(
    "change",
    [
        {"event": "announced"},
        {"target": "org/tiny"},
        {"target": "hf:org/../x"},
        {"target": "hf:org"},
        {"revision": "main"},
        {"extra": "x"},
        {"name": 7},
        {"version": None},
        {"recipeHash": "sha256:12"},
        {"files": "14"},
        {"files": True},
        {"files": 0},
        {"comparedOn": "yesterday"},
        {"url": ""},
    ],
)
def test_anything_else_is_refused(change: dict[str, Any]) -> None:
    """A field that is missing, unknown or of another form makes it no publication."""
    value = {**PUBLISHED.predicate(), **change}
    with pytest.raises(StatementError):
        Publication.of(Statement.parse(statement.make(PUBLISHED.subjects(), PUBLICATION, value)))


@pytest.mark.parametrize("missing", sorted(PUBLISHED.predicate().keys() - {"recipeHash", "modelHash"}))
def test_a_missing_field_is_refused(missing: str) -> None:
    """Each field but the two hashes is needed."""
    value = {name: item for name, item in PUBLISHED.predicate().items() if name != missing}
    with pytest.raises(StatementError):
        Publication.of(Statement.parse(statement.make(PUBLISHED.subjects(), PUBLICATION, value)))


def test_a_release_that_says_it_was_read_back_is_refused() -> None:
    """What was signed before the upload cannot know the commit."""
    value = {**PUBLISHED.predicate(), "event": "released"}
    with pytest.raises(StatementError):
        Publication.of(Statement.parse(statement.make(PUBLISHED.subjects(), PUBLICATION, value)))
    with pytest.raises(StatementError):
        replace(RELEASED, revision=40 * "a")


def test_two_subjects_are_refused() -> None:
    """One publication is about one alloy."""
    subjects = {**RELEASED.subjects(), "other.alloy.json": Digest.of(b"other")}
    with pytest.raises(StatementError):
        Publication.of(Statement.parse(statement.make(subjects, PUBLICATION, RELEASED.predicate())))


def test_other_statements_are_no_publications() -> None:
    """A statement of another type is refused by name."""
    with pytest.raises(StatementError, match="not a publication"):
        Publication.of(Statement.parse(statement.make(RELEASED.subjects(), "https://example.com/x", RELEASED.predicate())))


def test_the_documented_example_is_a_publication() -> None:
    """What docs/predicates/publication.md shows is read, and is written the same."""
    page = (Path(__file__).parents[2] / "docs/predicates/publication.md").read_text(encoding="utf-8")
    value = json.loads(page.partition("```json\n")[2].partition("```")[0])
    found = Publication.of(Statement.parse(statement.make(dict([ALLOY]), PUBLICATION, value)))
    assert found.predicate() == value

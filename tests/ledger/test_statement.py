"""Statements: bytes that are kept, and a view that no two readers could see differently."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import StatementError
from ledger.statement import MAX_DEPTH, TYPE, Statement, make
from store import canonical
from store.digest import Digest

A, B = Digest.of(b"a"), Digest.of(b"b")
KIND = "https://example.com/seen/v1"
GOOD: dict[str, Any] = {
    "_type": TYPE,
    "subject": [{"name": "model", "digest": {"sha256": A.hex}}],
    "predicateType": KIND,
    "predicate": {"x": 1},
}


def parse(**changes: Any) -> Statement:
    return Statement.parse(json.dumps(GOOD | changes).encode())


names = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(names, st.binary(max_size=2).map(Digest.of), min_size=1, max_size=4), st.dictionaries(names, values, max_size=4))
def test_round_trip(subjects: dict[str, Digest], predicate: dict[str, Any]) -> None:
    """What is made is canonical, is read back as it was, and its bytes are kept."""
    payload = make(subjects, KIND, predicate)
    statement = Statement.parse(payload)
    assert canonical.dumps(canonical.loads(payload)) == payload
    assert (statement.payload, dict(statement.subjects), statement.predicate_type) == (payload, subjects, KIND)
    assert dict(statement.predicate) == predicate


def test_the_bytes_do_not_depend_on_the_order_of_subjects() -> None:
    """Sorted by name."""
    assert make({"a": A, "b": B}, KIND, {}) == make({"b": B, "a": A}, KIND, {})


def test_a_statement_is_its_bytes() -> None:
    """Equal and hashed by them, though another spelling says the same."""
    first, second = parse(), Statement.parse(json.dumps(GOOD, indent=1).encode())
    assert dict(first.subjects) == dict(second.subjects)
    assert first != second
    assert len({first, second, parse()}) == 2


def test_foreign_statements_are_read_and_their_unknown_fields_ignored() -> None:
    """More fields, more hashes beside sha256, more in a descriptor."""
    subject = {"name": "model", "digest": {"sha256": A.hex, "blake3": "zz"}, "uri": "https://example.com", "annotations": {"n": 1}}
    assert parse(subject=[subject], note="unknown").subjects["model"] == A


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_type": "https://in-toto.io/Statement/v0.1"}, "_type is 'https://in-toto.io/Statement/v0.1'; expected"),
        ({"_type": None}, "_type is None"),
        ({"predicateType": ""}, "predicateType is a URI"),
        ({"predicateType": 1}, "predicateType is a URI"),
        ({"predicateType": "a\x1b"}, "predicateType is a URI"),
        ({"predicate": None}, "is an object; got NoneType"),
        ({"predicate": []}, "is an object; got list"),
        ({"subject": []}, "at least one subject"),
        ({"subject": None}, "at least one subject"),
        ({"subject": ["model"]}, "a subject is an object; got str"),
        ({"subject": [{"digest": {"sha256": A.hex}}]}, "name of a subject is text without control characters; got None"),
        ({"subject": [{"name": "", "digest": {"sha256": A.hex}}]}, "name of a subject"),
        ({"subject": [{"name": "a\nb", "digest": {"sha256": A.hex}}]}, "name of a subject"),
        ({"subject": [{"name": "model"}]}, "subject 'model' has no usable sha256 digest: None"),
        ({"subject": [{"name": "model", "digest": []}]}, "no usable sha256"),
        ({"subject": [{"name": "model", "digest": {"sha512": "00"}}]}, "no usable sha256"),
        ({"subject": [{"name": "model", "digest": {"sha256": A.hex.upper()}}]}, "no usable sha256"),
        ({"subject": [{"name": "model", "digest": {"sha256": A.hex[:-1]}}]}, "no usable sha256"),
        ({"subject": [{"name": "model", "digest": {"sha256": A.hex + "\n"}}]}, "no usable sha256"),
        ({"subject": [{"name": "model", "digest": {"sha256": 1}}]}, "no usable sha256"),
        ({"subject": GOOD["subject"] * 2}, "two subjects are named 'model'"),
        ({"predicate": {"ppl": [1, 7.5]}}, r"statement.predicate.ppl\[1\] is the float 7.5; write it as decimal text"),
        ({"predicate": {"n": 1.0}}, "is the float 1.0"),
        ({"predicate": {"n": 2**53}}, "integer beyond"),
        ({"predicate": {"n": -(2**53)}}, "integer beyond"),
        ({"predicate": {"n": "\ud800"}}, "surrogates not allowed"),
        ({"predicate": {"\udfff": 1}}, "surrogates not allowed"),
        ({"elsewhere": {"n": 0.5}}, "statement.elsewhere.n is the float"),
    ],
)
def test_statements_that_say_nothing_or_two_things_are_refused(changes: dict[str, Any], message: str) -> None:
    """Each with the place."""
    with pytest.raises(StatementError, match=message):
        parse(**changes)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"\xef\xbb\xbf" + json.dumps(GOOD).encode(),
        json.dumps(GOOD).encode("utf-16"),
        json.dumps(GOOD).replace("{", '{"predicateType": "x", ', 1).encode(),
        json.dumps(GOOD).replace('"x": 1', '"x": NaN').encode(),
        json.dumps(GOOD).replace('"x": 1', '"x": ' + "9" * 5000).encode(),
        json.dumps(GOOD).replace('"x": 1', '"x": ' + "[" * 100_000 + "]" * 100_000).encode(),
        json.dumps(GOOD).encode() + b"x",
    ],
)
def test_bytes_that_are_not_strict_json_are_refused(payload: bytes) -> None:
    """A BOM, another encoding, a key twice, NaN, numbers and nesting without end."""
    with pytest.raises(StatementError):
        Statement.parse(payload)


def test_nesting_has_a_limit() -> None:
    """Deep enough for every statement, shallow enough for every reader."""
    value: Any = 1
    for _ in range(MAX_DEPTH - 2):
        value = [value]
    assert parse(predicate={"x": value})
    with pytest.raises(StatementError, match=f"nested deeper than {MAX_DEPTH}"):
        parse(predicate={"x": [value]})


@pytest.mark.parametrize(
    ("predicate", "message"),
    [
        ({"x": 0.5}, "statement.predicate.x is the float 0.5"),
        ({"x": b"bytes"}, "is a bytes, which is not JSON"),
        ({"x": {1: 2}}, "statement.predicate.x has the key 1, which is not text"),
        ({"x": ["\ud800"]}, r"statement.predicate.x\[0\] holds half of a surrogate pair"),
        ({"\udfff": 1}, r"statement.predicate.\(a key\) holds half of a surrogate pair"),
        ({"x": {"esc\x1b": {3}}}, r"statement.predicate.x.esc\\x1b is a set"),
    ],
)
def test_what_may_not_be_signed_is_refused_before_signing(predicate: dict[str, Any], message: str) -> None:
    """Floats, bytes, sets, keys that are not text."""
    with pytest.raises(StatementError, match=message):
        make({"model": A}, KIND, predicate)


def test_a_statement_that_could_not_be_read_back_is_not_made() -> None:
    """No subject, an unusable name, no type."""
    for subjects, kind in (({}, KIND), ({"a\n": A}, KIND), ({"a": A}, "")):
        with pytest.raises(StatementError):
            make(subjects, kind, {})

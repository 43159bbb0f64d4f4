"""A run's statement gives its action back, or is refused; nothing that decides the output can be missing, doubled or extra."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import predicates
from ledger.errors import StatementError
from ledger.predicates import (
    EVALUATION,
    KEY_EVENT,
    RUN,
    KeyEvent,
    action_of,
    byproducts_of,
    environment_digest,
    environment_of,
    run_predicate,
    stage_of,
)
from ledger.statement import Statement, make
from ledger.testing import UnsafeSigner
from store.actions import Action
from store.digest import Digest

A, B, OUT = (Digest.of(text) for text in (b"a", b"b", b"out"))
ACTION = Action("expert-prune", 2, {"keep": 6, "metric": "reap", "ratio": "0.25"}, {"profile": B, "model": A})
ENVIRONMENT = {"torch": "2.13.0+cpu", "threads": 1}
ALICE, BOB = UnsafeSigner("alice").public, UnsafeSigner("bob").public


def predicate(action: Action = ACTION, **changes: Any) -> dict[str, Any]:
    details: dict[str, Any] = {
        "purity": "E",
        "environment": ENVIRONMENT,
        "builder": "urn:alloy-ledger:runner:v1",
        "invocation": "run-1",
        "started_on": "2026-11-23T10:00:00Z",
        "finished_on": "2026-11-23T10:00:01Z",
        "byproducts": {"seconds": 0.75, "log": ["done"]},
    }
    return run_predicate(action, **(details | changes))


def statement(value: dict[str, Any], kind: str = RUN) -> Statement:
    return Statement.parse(make({"model": OUT}, kind, value))


def changed(change: Callable[[dict[str, Any]], object]) -> Statement:
    value = copy.deepcopy(predicate())
    change(value)
    return Statement.parse(json.dumps({**json.loads(make({"model": OUT}, RUN, {})), "predicate": value}).encode())


def build(value: dict[str, Any]) -> dict[str, Any]:
    definition: dict[str, Any] = value["buildDefinition"]
    return definition


# --- what is said ------------------------------------------------------------------------------------------------------------------


def test_the_action_and_its_key_come_back_from_the_signed_bytes() -> None:
    """Stage, version, spec and inputs; so the key can be recomputed by anybody."""
    got = action_of(statement(predicate()))
    assert got == ACTION
    assert got.key == ACTION.key
    assert stage_of(statement(predicate())) == "expert-prune"


kebab = st.from_regex(r"[a-z][a-z0-9]{0,4}(-[a-z0-9]{1,4}){0,2}", fullmatch=True)
plain = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=6)
spec_values = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | plain | st.lists(st.integers(0, 9), max_size=3)


@given(
    kebab,
    st.integers(1, 10**9),
    st.dictionaries(plain, spec_values, max_size=4),
    st.dictionaries(plain, st.binary(max_size=2).map(Digest.of), max_size=4),
)
def test_every_action_comes_back(stage: str, version: int, spec: dict[str, Any], inputs: dict[str, Digest]) -> None:
    """Whatever the names and values."""
    action = Action(stage, version, spec, inputs)
    assert action_of(statement(predicate(action))).key == action.key


def test_the_shape_of_a_run_is_slsa_provenance() -> None:
    """Field for field, so that other people's tools read it."""
    value = predicate()
    assert build(value) == {
        "buildType": "urn:alloy-ledger:stage:expert-prune:2",
        "externalParameters": {"keep": 6, "metric": "reap", "ratio": "0.25"},
        "internalParameters": {"environment": ENVIRONMENT, "environmentDigest": str(environment_digest(ENVIRONMENT)), "purity": "E"},
        "resolvedDependencies": [{"name": "model", "digest": {"sha256": A.hex}}, {"name": "profile", "digest": {"sha256": B.hex}}],
    }
    assert value["runDetails"] == {
        "builder": {"id": "urn:alloy-ledger:runner:v1"},
        "metadata": {"invocationId": "run-1", "startedOn": "2026-11-23T10:00:00Z", "finishedOn": "2026-11-23T10:00:01Z"},
        "byproducts": [
            {"name": "log", "mediaType": "application/json", "content": "WyJkb25lIl0="},
            {"name": "seconds", "mediaType": "application/json", "content": "MC43NQ=="},
        ],
    }


def test_the_environment_and_its_digest() -> None:
    """SHA-256 of the canonical JSON; recomputed when read; none when none was recorded."""
    assert environment_digest({"b": 1, "a": "x"}) == Digest.of(b'{"a":"x","b":1}')
    assert environment_of(statement(predicate())) == (ENVIRONMENT, environment_digest(ENVIRONMENT))
    assert environment_of(statement(predicate(environment=None, purity="P"))) == (None, None)


def test_byproducts_come_back_floats_included() -> None:
    """They are opaque bytes to the signature's rules, and decide nothing."""
    assert byproducts_of(statement(predicate())) == {"seconds": 0.75, "log": ["done"]}
    assert byproducts_of(changed(lambda value: value.pop("runDetails") and value.update(runDetails={}))) == {}


@pytest.mark.parametrize(
    ("action", "changes", "message"),
    [
        (Action("Prune", 1, {}), {}, "kebab-case"),
        (Action("prune_experts", 1, {}), {}, "kebab-case"),
        (Action("a:b", 1, {}), {}, "kebab-case"),
        (Action("prune\n", 1, {}), {}, "kebab-case"),
        (Action("prune", 0, {}), {}, "an integer from 1"),
        (Action("prune", -1, {}), {}, "an integer from 1"),
        (Action("prune", 1, {}, {"a\x1b": A}), {}, "name of a input"),
        (ACTION, {"purity": "T"}, "purity is P or E; got 'T'"),
        (ACTION, {"environment": None}, "purity E, so it must record its environment"),
        (ACTION, {"environment": {"x": 0.5}}, "environment.x is the float"),
        (ACTION, {"byproducts": {"": 1}}, "name of a byproduct"),
        (ACTION, {"byproducts": {"x": {1}}}, "byproduct 'x'"),
    ],
)
def test_what_could_not_be_read_back_is_not_written(action: Action, changes: dict[str, Any], message: str) -> None:
    """Names, versions and values that no verifier would accept."""
    with pytest.raises(StatementError, match=message):
        predicate(action, **changes)


# --- what is refused ---------------------------------------------------------------------------------------------------------------

REFUSED: dict[str, Callable[[dict[str, Any]], object]] = {
    "has an object buildDefinition": lambda v: v.pop("buildDefinition"),
    "an object buildDefinition$": lambda v: v.update(buildDefinition=[]),
    "missing: buildType": lambda v: build(v).pop("buildType"),
    "missing: externalParameters": lambda v: build(v).pop("externalParameters"),
    "missing: internalParameters": lambda v: build(v).pop("internalParameters"),
    "missing: resolvedDependencies": lambda v: build(v).pop("resolvedDependencies"),
    "unknown: vendor_flags": lambda v: build(v).update(vendor_flags=1),
    "got 'https://other.example/build'": lambda v: build(v).update(buildType="https://other.example/build"),
    "got 7": lambda v: build(v).update(buildType=7),
    r"got 'urn:alloy-ledger:stage:prune:01'": lambda v: build(v).update(buildType="urn:alloy-ledger:stage:prune:01"),
    r"got 'urn:alloy-ledger:stage:prune'": lambda v: build(v).update(buildType="urn:alloy-ledger:stage:prune"),
    r"got 'urn:alloy-ledger:stage:prune:1:2'": lambda v: build(v).update(buildType="urn:alloy-ledger:stage:prune:1:2"),
    "externalParameters are an object; got list": lambda v: build(v).update(externalParameters=[]),
    "resolvedDependencies are a list; got dict": lambda v: build(v).update(resolvedDependencies={}),
    "exactly a name and a digest": lambda v: build(v)["resolvedDependencies"].append("model"),
    "exactly a name and a digest with": lambda v: build(v)["resolvedDependencies"][0].update(uri="https://example.com"),
    "a name and a digest with exactly": lambda v: build(v)["resolvedDependencies"][0].pop("name"),
    "a digest with exactly a sha256": lambda v: build(v)["resolvedDependencies"][0].update(digest=A.hex),
    "digest with exactly a sha256": lambda v: build(v)["resolvedDependencies"][0]["digest"].update(md5="00"),
    "with exactly a sha256": lambda v: build(v)["resolvedDependencies"][0].update(digest={"sha512": "00"}),
    "no usable sha256": lambda v: build(v)["resolvedDependencies"][0].update(digest={"sha256": "00"}),
    "name of a input": lambda v: build(v)["resolvedDependencies"][0].update(name=""),
    "two inputs are named 'model'": lambda v: build(v)["resolvedDependencies"].append(build(v)["resolvedDependencies"][0]),
    "name its purity": lambda v: build(v).update(internalParameters=[]),
    "name its purity, P or E": lambda v: build(v)["internalParameters"].update(purity="X"),
    "or null for both": lambda v: build(v)["internalParameters"].pop("environment"),
    "environmentDigest, or null": lambda v: build(v)["internalParameters"].pop("environmentDigest"),
    "is an object or null; got list": lambda v: build(v)["internalParameters"].update(environment=[]),
    "is an object or null; got NoneType": lambda v: build(v)["internalParameters"].update(environment=None),
    "its environment is null": lambda v: build(v)["internalParameters"].update(environment=None, environmentDigest=None),
    "environmentDigest is None, but": lambda v: build(v)["internalParameters"].update(environmentDigest=None),
    "but the environment beside it": lambda v: build(v)["internalParameters"].update(environment={"threads": 2}),
}


@pytest.mark.parametrize("message", REFUSED)
def test_a_run_that_says_too_little_or_too_much_has_no_action(message: str) -> None:
    """Missing, given twice, of another form, or unknown."""
    with pytest.raises(StatementError, match=message):
        action_of(changed(REFUSED[message]))


def test_ignored_fields_do_not_matter() -> None:
    """Unknown fields outside of what decides the output: in runDetails, in internalParameters, beside buildDefinition."""

    def add(value: dict[str, Any]) -> None:
        value["note"] = 1
        value["runDetails"]["more"] = {"x": 1}
        build(value)["internalParameters"]["host"] = "there"

    assert action_of(changed(add)) == ACTION


@pytest.mark.parametrize("message", REFUSED)
def test_nothing_that_is_ignored_turns_a_refusal_into_a_pass(message: str) -> None:
    """A good build definition under another name, a second one in runDetails, extra fields everywhere they are allowed."""

    def add(value: dict[str, Any]) -> None:
        good = copy.deepcopy(value["buildDefinition"])
        REFUSED[message](value)
        value |= {"BuildDefinition": good, "buildDefinition ": good, "note": good}
        value["runDetails"]["buildDefinition"] = good
        if isinstance(value.get("buildDefinition"), dict) and isinstance(build(value).get("internalParameters"), dict):
            build(value)["internalParameters"]["buildDefinition"] = good

    with pytest.raises(StatementError):
        action_of(changed(add))


def test_the_order_of_inputs_does_not_matter() -> None:
    """They have names."""
    assert action_of(changed(lambda v: build(v)["resolvedDependencies"].reverse())).key == ACTION.key


def test_every_change_of_what_decides_changes_the_key_or_is_refused() -> None:
    """No field of the build definition, its environment aside, can change and leave the key as it was."""
    changes: list[Callable[[dict[str, Any]], object]] = [
        lambda v: build(v).update(buildType="urn:alloy-ledger:stage:expert-prune:3"),
        lambda v: build(v)["externalParameters"].update(keep=5),
        lambda v: build(v)["externalParameters"].update(more=None),
        lambda v: build(v)["externalParameters"].pop("keep"),
        lambda v: build(v)["resolvedDependencies"].pop(),
        lambda v: build(v)["resolvedDependencies"][0].update(name="other"),
        lambda v: build(v)["resolvedDependencies"][0].update(digest={"sha256": OUT.hex}),
    ]
    keys = {action_of(changed(change)).key for change in changes}
    assert len(keys) == len(changes)
    assert ACTION.key not in keys


def test_other_statements_are_no_runs() -> None:
    """An evaluation has no stage, no action, no byproducts."""
    other = statement({"x": 1}, EVALUATION)
    assert stage_of(other) is None
    for read in (action_of, environment_of, byproducts_of):
        with pytest.raises(StatementError, match="not a run: the predicateType is 'urn:alloy-ledger:evaluation:v1'"):
            read(other)
    with pytest.raises(StatementError, match="buildType"):
        stage_of(changed(lambda v: build(v).pop("buildType")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(runDetails=[]), "list of byproducts"),
        (lambda v: v["runDetails"].update(byproducts={}), "list of byproducts"),
        (lambda v: v["runDetails"]["byproducts"].append("x"), "a byproduct has a name"),
        (lambda v: v["runDetails"]["byproducts"][0].pop("content"), "a byproduct has a name"),
        (lambda v: v["runDetails"]["byproducts"][0].update(mediaType="text/plain"), "a byproduct has a name"),
        (lambda v: v["runDetails"]["byproducts"][0].pop("name"), "name of a byproduct"),
        (lambda v: v["runDetails"]["byproducts"][0].update(content="!"), "not base64 of JSON"),
        (lambda v: v["runDetails"]["byproducts"][0].update(content="ä"), "not base64 of JSON"),
        (lambda v: v["runDetails"]["byproducts"][0].update(content="e30"), "not base64 of JSON"),
        (lambda v: v["runDetails"]["byproducts"][0].update(content="ew=="), "not base64 of JSON"),
        (lambda v: v["runDetails"]["byproducts"].append(v["runDetails"]["byproducts"][0]), "two byproducts are named 'log'"),
    ],
)
def test_byproducts_that_we_did_not_write_are_refused(change: Callable[[dict[str, Any]], object], message: str) -> None:
    """But the action is still there: byproducts decide nothing."""
    with pytest.raises(StatementError, match=message):
        byproducts_of(changed(change))
    assert action_of(changed(change)) == ACTION


# --- key events --------------------------------------------------------------------------------------------------------------------

EVENTS = [
    KeyEvent(event="added", key=ALICE, from_entry=0),
    KeyEvent(event="revoked", key=ALICE, from_entry=1200, reason="laptop stolen"),
    KeyEvent(event="superseded", key=ALICE, from_entry=7, successor=BOB, reason="yearly"),
]


@pytest.mark.parametrize("event", EVENTS)
def test_key_events_come_back(event: KeyEvent) -> None:
    """Whose key, what, from which entry."""
    assert KeyEvent.of(Statement.parse(make(event.subjects(), KEY_EVENT, event.predicate()))) == event


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"event": "forgotten"}, "one of added, superseded, revoked; got 'forgotten'"),
        ({"from_entry": -1}, "fromEntry is an entry number; got -1"),
        ({"from_entry": True}, "fromEntry is an entry number; got True"),
        ({"from_entry": 2**53}, "fromEntry is an entry number"),
        ({"event": "superseded"}, "has a successor"),
        ({"successor": BOB}, "only that has"),
    ],
)
def test_impossible_key_events_are_refused(changes: dict[str, Any], message: str) -> None:
    """Unknown kinds, entries before the first, successors of keys that have none."""
    with pytest.raises(StatementError, match=message):
        replace(EVENTS[1], **changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"more": 1}, "a key event has event, fromEntry, key, reason"),
        ({"reason": None}, "are text"),
        ({"key": 1}, "are text"),
        ({"successor": None}, "are text"),
        ({"key": "ed25519:AAAA"}, "names an unusable key"),
        ({"key": str(BOB)}, "its subject is another"),
    ],
)
def test_key_events_of_another_form_are_refused(change: dict[str, Any], message: str) -> None:
    """Unknown fields, other kinds of values, a subject that is another key."""
    event = EVENTS[1]
    with pytest.raises(StatementError, match=message):
        KeyEvent.of(Statement.parse(make(event.subjects(), KEY_EVENT, event.predicate() | change)))


def test_a_key_event_with_a_field_missing_or_of_another_type_is_refused() -> None:
    """Nothing is assumed."""
    event = EVENTS[1]
    for name in ("event", "fromEntry", "key", "reason"):
        value = event.predicate()
        del value[name]
        with pytest.raises(StatementError, match="a key event has event, fromEntry"):
            KeyEvent.of(Statement.parse(make(event.subjects(), KEY_EVENT, value)))
    with pytest.raises(StatementError, match="not a key event"):
        KeyEvent.of(Statement.parse(make(event.subjects(), EVALUATION, event.predicate())))
    assert predicates.KEY_EVENTS == ("added", "superseded", "revoked")

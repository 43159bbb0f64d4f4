"""The text of a policy: a fresh one trusts what it says, and a change is exactly what was meant, and not a comment less."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import PolicyError, UntrustedError
from ledger.policy import Policy, Rule, Span, Witnesses
from ledger.policy_text import add_key, end_key, save, starting
from ledger.testing import UnsafeSigner
from store.digest import Digest
from tests.ledger.test_policy import MODEL, claim, run_of

ALICE, BOB, CAROL = (UnsafeSigner(name).public for name in ("alice", "bob", "carol"))

BLOCK = f"""\
# mine
version: 1   # always

keys:
  # people
  alice: "{ALICE}"     # since March
  bob: {{key: "{BOB}", from: 3}}
  # end of keys

rules:
  - stages: ["*"]      # everything
    keys: [alice]
  - keys:
      - bob
      - alice          # both
    threshold: 2
# last words
"""
FLOW = (
    f"version: 1\nkeys: {{alice: '{ALICE}', bob: {{key: '{BOB}', from: 3}}}}\n"
    "rules: [{keys: [alice]}, {keys: [bob, alice], threshold: 2}]"
)
AS_JSON = json.dumps(Policy.parse(FLOW).to_json(), indent=2)
FORMS = {"block": BLOCK, "flow": FLOW, "json": AS_JSON, "json on one line": json.dumps(Policy.parse(FLOW).to_json())}


@pytest.mark.parametrize("form", FORMS)
def test_a_key_is_ended_and_the_rest_stays(form: str) -> None:
    """The span changes, every comment is there still, and an earlier end is never put off."""
    text = FORMS[form]
    ended = end_key(text, "alice", until=7)
    before = Policy.parse(text)
    assert Policy.parse(ended) == replace(before, spans={**before.spans, "alice": Span(0, 7)})
    assert [line for line in text.splitlines() if "#" in line and "alice:" not in line] == [
        line for line in ended.splitlines() if "#" in line and "alice:" not in line
    ]
    assert Policy.parse(end_key(ended, "alice", until=9)).spans["alice"] == Span(0, 7)
    assert Policy.parse(end_key(ended, "alice", until=0)).spans["alice"] == Span(0, 0)
    assert Policy.parse(end_key(text, "bob", until=1)).spans["bob"] == Span(1, 1)


@pytest.mark.parametrize("form", FORMS)
def test_a_successor_joins_wherever_the_old_key_stands(form: str) -> None:
    """In every rule, and it counts as the same holder: two of two are still two people."""
    changed = add_key(end_key(FORMS[form], "alice", until=7), "alice-2", CAROL, first=7, replaces="alice")
    policy = Policy.parse(changed)
    assert policy.keys["alice-2"] == CAROL
    assert policy.spans["alice-2"] == Span(7)
    assert [rule.keys for rule in policy.rules] == [("alice", "alice-2"), ("bob", "alice", "alice-2")]
    assert policy.holder("alice-2") == "alice"
    assert policy.holders(("alice", "alice-2", "bob")) == 2
    if form.startswith("json"):
        assert Policy.parse(json.dumps(json.loads(changed))) == policy


@pytest.mark.parametrize("form", FORMS)
def test_a_key_is_added_with_a_rule_of_its_own(form: str) -> None:
    """For some stages and artifacts, from an entry on."""
    rule = Rule(("carol",), stages=("gguf-*",), artifacts=("model", 'it\'s "one"'))
    policy = Policy.parse(add_key(FORMS[form], "carol", CAROL, first=12, rule=rule))
    assert policy.rules[-1] == rule
    assert policy.spans["carol"] == Span(12)
    assert len(policy.rules) == 3
    plain = Policy.parse(add_key(FORMS[form], "carol", CAROL, rule=Rule(("carol",))))
    assert (plain.rules[-1], "carol" in plain.spans) == (Rule(("carol",)), False)


def test_a_successor_of_a_witness_is_one() -> None:
    """And the threshold counts both once."""
    text = FLOW + "\ncheckpoints: {witnesses: [alice, bob], threshold: 2, maxAge: 30d}\n"
    changed = Policy.parse(add_key(text, "alice-2", CAROL, first=7, replaces="alice"))
    assert changed.checkpoints == Witnesses(("alice", "alice-2", "bob"), 2, 30 * 86_400)


@pytest.mark.parametrize(
    "text", ["version: 1\n", "version: 1\nkeys: {}\nrules: []\n", '{"version": 1}', '{"version": 1, "keys": {}, "rules": []}']
)
def test_a_policy_that_trusts_nobody_gets_its_first_key(text: str) -> None:
    """Whatever is missing is made."""
    policy = Policy.parse(add_key(text, "alice", ALICE, rule=Rule(("alice",))))
    assert (dict(policy.keys), policy.rules) == ({"alice": ALICE}, (Rule(("alice",)),))


def test_names_that_yaml_reads_otherwise_are_quoted() -> None:
    """A key called `no`, or a number."""
    policy = Policy.parse(add_key(add_key(BLOCK, "no", CAROL, replaces="bob"), "12", UnsafeSigner("x").public, rule=Rule(("12",))))
    assert policy.rules[1].keys == ("bob", "no", "alice")
    assert policy.rules[2].keys == ("12",)


def test_impossible_changes_are_refused() -> None:
    """An unknown key, a name or a key that is there already."""
    with pytest.raises(PolicyError, match="no key is named 'eve'"):
        end_key(BLOCK, "eve", until=1)
    for name, key, message in (
        ("alice", CAROL, "is named 'alice' already"),
        ("other", ALICE, "the same key"),
        ("two words", CAROL, "cannot name a key"),
    ):
        with pytest.raises(PolicyError, match=message):
            add_key(BLOCK, name, key)


def test_a_form_that_cannot_be_changed_is_said(tmp_path: Path) -> None:
    """One text that is two lists (an anchor) cannot be changed in one of them: nothing is changed, and what to write is told."""
    text = f"version: 1\nkeys: {{alice: '{ALICE}', bob: '{BOB}'}}\nrules:\n- {{keys: &one [alice], stages: *one}}\n"
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    with pytest.raises(PolicyError, match="write by hand: alice-2: "):
        save(path, lambda old: add_key(old, "alice-2", CAROL, replaces="alice"))
    assert path.read_text() == text


def test_a_file_is_changed_as_a_whole(tmp_path: Path) -> None:
    """With its mode; nothing lies beside it afterwards; one that cannot be written is said."""
    path = tmp_path / "policy.yaml"
    path.write_text(BLOCK)
    path.chmod(0o600)
    before, after = save(path, lambda text: end_key(text, "alice", until=7))
    assert (before, path.read_text(), path.stat().st_mode & 0o777) == (BLOCK, after, 0o600)
    assert [item.name for item in tmp_path.iterdir()] == ["policy.yaml"]
    with pytest.raises(PolicyError, match="cannot change the policy"):
        save(tmp_path / "absent.yaml", lambda text: text)


@given(
    until=st.integers(0, 2**40),
    first=st.integers(0, 2**40),
    comment=st.text(st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp"]), max_size=20),
)
def test_any_comment_and_any_number(until: int, first: int, comment: str) -> None:
    """Comments of any letters do not move what is changed."""
    text = BLOCK.replace("# since March", f"# {comment}").replace("# people", f"# {comment}")
    policy = Policy.parse(add_key(end_key(text, "alice", until=until), "new", CAROL, first=first, replaces="alice"))
    assert (policy.spans["alice"], policy.spans["new"]) == (Span(0, until), Span(first))


# --- a fresh one -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["alice", "null", "Yes", "0x10", "1e3", "12", "a@b.example"])
def test_the_starting_policy_trusts_its_key(name: str) -> None:
    """For everything, whatever YAML would make of the name."""
    policy = Policy.parse(starting(name, ALICE))
    assert policy.keys[name] == ALICE
    assert policy.judge(run_of(), frozenset([ALICE]), position=0) == (name,)
    assert policy.judge(claim(), frozenset([ALICE]), position=0) == (name,)


def test_a_name_that_is_none_starts_no_policy() -> None:
    """The text is read back before it is given away."""
    with pytest.raises(PolicyError, match="cannot name a key"):
        starting("two words", ALICE)


def test_shipped_policies_are_part_of_the_start_and_reach_no_further(tmp_path: Path) -> None:
    """Their keys count for the artifacts that they name; with one's own key the same, the rule is not repeated."""
    (tmp_path / "examples.yaml").write_text(
        f"version: 1\nkeys: {{shipped: '{BOB}', '9': '{CAROL}'}}"
        f"\nrules: [{{keys: [shipped, '9'], artifacts: ['{MODEL}', \"it's\"], stages: ['*'], predicates: ['*']}},"
        f" {{keys: [shipped], artifacts: ['{MODEL}']}}]"
    )
    assert set(Policy.shipped(tmp_path)) == {"examples"}
    assert Policy.shipped(tmp_path / "absent") == {}
    text = starting("alice", ALICE, trusted=tmp_path)
    policy = Policy.parse(text)
    assert list(policy.keys) == ["alice", "shipped", "9"]
    assert policy.judge(run_of(), frozenset([BOB]), position=0) == ("shipped",)
    assert policy.judge(run_of("quant", **{"it's": Digest.of(b"x")}), frozenset([CAROL]), position=0) == ("9",)
    assert policy.log_keys == {"alice": ALICE}
    with pytest.raises(UntrustedError):
        policy.judge(run_of(other=Digest.of(b"other")), frozenset([BOB]), position=0)
    assert "examples.yaml" in text
    assert list(Policy.parse(starting("bob", BOB, trusted=tmp_path)).keys) == ["bob"]
    with pytest.raises(PolicyError, match="'shipped' is given twice"):
        starting("shipped", ALICE, trusted=tmp_path)

"""Policies: what is trusted, what is not and why; and files that say something impossible."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from ledger import predicates
from ledger.errors import PolicyError, StatementError, UntrustedError
from ledger.keys import PublicKey
from ledger.policy import MAX_POLICY_BYTES, Policy, Rule, Span, Witnesses
from ledger.predicates import EVALUATION, RUN
from ledger.statement import Statement, make
from ledger.testing import UnsafeSigner
from store.actions import Action
from store.digest import Digest
from tests.ledger.test_keys import p256

ALICE, BOB, CAROL, MALLORY = (UnsafeSigner(name).public for name in ("alice", "bob", "carol", "mallory"))
KEYS = f"version: 1\nkeys: {{alice: '{ALICE}', bob: '{BOB}', carol: '{CAROL}'}}\n"
MODEL = Digest.of(b"model")


def run_of(stage: str = "quant", /, **subjects: Digest) -> Statement:
    predicate = predicates.run_predicate(
        Action(stage, 1, {}), purity="P", environment=None, builder="b", invocation="i", started_on="s", finished_on="f", byproducts={}
    )
    return Statement.parse(make(subjects or {"model": MODEL}, RUN, predicate))


def claim(kind: str = EVALUATION) -> Statement:
    return Statement.parse(make({"model": MODEL}, kind, {}))


def judge(rules: str, statement: Statement, *signers: PublicKey, position: int = 0) -> tuple[str, ...]:
    return Policy.parse(KEYS + rules).judge(statement, frozenset(signers), position=position)


# --- judging -----------------------------------------------------------------------------------------------------------------------


def test_a_rule_without_patterns_trusts_its_key_for_everything() -> None:
    """Runs and claims, whatever they are about."""
    for statement in (run_of(), claim(), claim("https://example.com/other")):
        assert judge("rules: [{keys: [alice]}]", statement, ALICE, MALLORY) == ("alice",)
        with pytest.raises(UntrustedError):
            judge("rules: [{keys: [alice]}]", statement, BOB)


def test_the_names_are_those_that_count() -> None:
    """Every key of every rule that is met, sorted; not the others that signed too."""
    rules = "rules: [{keys: [carol, alice], threshold: 2}, {keys: [bob], stages: [prune]}]"
    assert judge(rules, run_of(), ALICE, BOB, CAROL) == ("alice", "carol")
    assert judge(rules, run_of("prune"), ALICE, BOB, CAROL) == ("alice", "bob", "carol")
    assert judge(rules, run_of("prune"), ALICE, BOB) == ("bob",)


def test_a_threshold_counts_different_keys() -> None:
    """Two of three; one is not enough, and strangers do not help."""
    rules = "rules: [{keys: [alice, bob, carol], threshold: 2}]"
    assert judge(rules, run_of(), ALICE, CAROL) == ("alice", "carol")
    with pytest.raises(UntrustedError, match=r"needs 2 of alice, bob, carol \(line 3\), got alice$"):
        judge(rules, run_of(), ALICE, MALLORY)


def test_two_half_met_rules_are_not_one_met_rule() -> None:
    """Thresholds are not added up."""
    with pytest.raises(UntrustedError, match=r"2 of alice, bob .*, got alice; or 2 of bob, carol .*, got carol"):
        judge("rules: [{keys: [alice, bob], threshold: 2}, {keys: [bob, carol], threshold: 2}]", run_of(), ALICE, CAROL)


@pytest.mark.parametrize(
    ("patterns", "stage", "covered"),
    [
        ('["quant"]', "quant", True),
        ('["quant"]', "quant-all", False),
        ('["expert-*", "quant"]', "expert-prune", True),
        ('["expert-?"]', "expert-prune", False),
        ('["[ab]*"]', "assemble", True),
        ('["QUANT"]', "quant", False),
    ],
)
def test_stages_are_patterns(patterns: str, stage: str, covered: bool) -> None:
    """As in a shell; case counts."""
    rules = f"rules: [{{keys: [alice], stages: {patterns}}}]"
    if covered:
        assert judge(rules, run_of(stage), ALICE) == ("alice",)
    else:
        with pytest.raises(UntrustedError, match=rf"no rule of policy covers it; one with stages: \[{stage}\]"):
            judge(rules, run_of(stage), ALICE)


def test_every_subject_must_be_covered_by_name_or_digest() -> None:
    """One artifact that the rule does not name, and the statement is not trusted."""
    both = run_of(model=MODEL, other=Digest.of(b"other"))
    for patterns in (f'["{MODEL}"]', '["model"]', f'["x", "{str(MODEL)[:20]}*"]'):
        rules = f"rules: [{{keys: [alice], artifacts: {patterns}}}]"
        assert judge(rules, run_of(), ALICE) == ("alice",)
        with pytest.raises(UntrustedError):
            judge(rules, both, ALICE)
    assert judge(f'rules: [{{keys: [alice], artifacts: ["{MODEL}", oth*]}}]', both, ALICE) == ("alice",)


def test_a_rule_for_stages_says_nothing_about_claims_unless_it_says_so() -> None:
    """Trusted to quantise is not trusted to judge quality."""
    with pytest.raises(UntrustedError, match=r"a statement of type urn:alloy-ledger:evaluation:v1 .* predicates: \[\.\.\.\]"):
        judge("rules: [{keys: [alice], stages: [quant]}]", claim(), ALICE)
    rules = 'rules: [{keys: [alice], stages: [quant], predicates: ["urn:alloy-ledger:evaluation:*"]}]'
    assert judge(rules, claim(), ALICE) == ("alice",)
    with pytest.raises(UntrustedError):
        judge(rules, claim("https://example.com/other"), ALICE)


def test_a_rule_for_predicates_covers_runs_only_when_it_names_them() -> None:
    """And then its stages count too."""
    with pytest.raises(UntrustedError):
        judge('rules: [{keys: [alice], predicates: ["urn:*"]}]', run_of(), ALICE)
    rules = f'rules: [{{keys: [alice], stages: [quant], predicates: ["{RUN}"]}}]'
    assert judge(rules, run_of(), ALICE) == ("alice",)
    with pytest.raises(UntrustedError):
        judge(rules, run_of("prune"), ALICE)


def test_a_key_counts_only_within_its_span_of_the_log() -> None:
    """From its first entry to the one before `until`; dates have no say."""
    policy = Policy.parse(
        f"version: 1\nkeys: {{alice: {{key: '{ALICE}', from: 3, until: 7}}}}\nrules: [{{keys: [alice]}}]", source="p.yaml"
    )
    assert policy.spans == {"alice": Span(3, 7)}
    for position in range(10):
        if 3 <= position < 7:
            assert policy.judge(run_of(), frozenset([ALICE]), position=position) == ("alice",)
        else:
            with pytest.raises(UntrustedError, match=f"counts from entry 3 until 7, this is entry {position}"):
                policy.judge(run_of(), frozenset([ALICE]), position=position)
    later = Policy.parse(f"version: 1\nkeys: {{alice: {{key: '{ALICE}', from: 3}}}}\nrules: [{{keys: [alice]}}]")
    with pytest.raises(UntrustedError, match="counts from entry 3, this is entry 2"):
        later.judge(run_of(), frozenset([ALICE]), position=2)
    assert later.judge(run_of(), frozenset([ALICE]), position=10**9) == ("alice",)


def test_the_refusal_names_the_signers_and_the_missing_rule() -> None:
    """Which keys signed, known or not, what the statement is, and what would be needed."""
    policy = Policy.parse(KEYS + "rules: [{keys: [alice]}]", source=".ledger/policy.yaml")
    with pytest.raises(UntrustedError) as caught:
        policy.judge(run_of(model=MODEL, zoo=MODEL), frozenset([BOB, MALLORY]), position=0)
    assert str(caught.value) == (
        f"a run of quant about model {MODEL.short} and 1 more is not trusted: signed by "
        + ", ".join(
            f"bob ({BOB.short})" if key == BOB else f"{key} (not in .ledger/policy.yaml)" for key in sorted([BOB, MALLORY], key=str)
        )
        + "; .ledger/policy.yaml needs 1 of alice (line 3), got none"
    )
    assert caught.value.signers == tuple(sorted([str(BOB), str(MALLORY)]))
    with pytest.raises(UntrustedError, match="signed by nobody"):
        policy.judge(run_of(), frozenset(), position=0)


def test_a_policy_without_rules_trusts_nobody_and_says_so() -> None:
    """Keys alone mean nothing."""
    for rules in ("", "rules: []"):
        with pytest.raises(UntrustedError, match="has no rules, so it trusts nobody"):
            judge(rules, run_of(), ALICE)


def test_a_run_without_a_stage_is_refused_and_not_taken_for_a_claim() -> None:
    """Or a broken statement would pass under a rule for claims."""
    broken = Statement.parse(make({"model": MODEL}, RUN, {"buildDefinition": {"buildType": "x"}}))
    with pytest.raises(StatementError):
        judge("rules: [{keys: [alice]}]", broken, ALICE)


def test_the_message_without_line_numbers() -> None:
    """A policy made in code has no lines."""
    policy = Policy({"alice": ALICE}, (Rule(("alice",)),))
    with pytest.raises(UntrustedError, match=r"policy needs 1 of alice, got none$"):
        policy.judge(run_of(), frozenset([BOB]), position=0)


def test_keys_for_single_artifacts_sign_no_logs() -> None:
    """Only those that some rule trusts for every artifact may."""
    policy = Policy.parse(KEYS + f'rules: [{{keys: [alice], artifacts: ["{MODEL}"]}}, {{keys: [carol, bob], threshold: 2}}]')
    assert policy.log_keys == {"bob": BOB, "carol": CAROL}


def test_a_rule_for_builders_covers_their_runs_alone() -> None:
    """The statement names another builder, or none: not covered; and claims only when the rule says so."""
    rules = "rules: [{keys: [alice], builders: [b, 'urn:*']}]"
    assert judge(rules, run_of(), ALICE) == ("alice",)
    with pytest.raises(UntrustedError):
        judge("rules: [{keys: [alice], builders: [other]}]", run_of(), ALICE)
    with pytest.raises(UntrustedError):
        judge(rules, claim(), ALICE)
    nameless = Statement.parse(make({"model": MODEL}, RUN, dict(run_of().predicate) | {"runDetails": {"builder": {"id": 7}}}))
    with pytest.raises(UntrustedError):
        judge(rules, nameless, ALICE)
    assert judge("rules: [{keys: [alice]}]", nameless, ALICE) == ("alice",)


def test_a_place_that_is_not_proven_counts_for_keys_that_count_everywhere() -> None:
    """From the first entry to no end; anything less is refused, and the message says that the place is the reason."""
    for span, counts in (("from: 0", True), ("from: 1", False), ("until: 9", False)):
        policy = Policy.parse(f"version: 1\nkeys: {{alice: {{key: '{ALICE}', {span}}}}}\nrules: [{{keys: [alice]}}]")
        if counts:
            assert policy.judge(run_of(), frozenset([ALICE]), position=None) == ("alice",)
        else:
            with pytest.raises(UntrustedError, match="its place in the log is not proven"):
                policy.judge(run_of(), frozenset([ALICE]), position=None)


def test_which_keys_prove_places() -> None:
    """Those that may sign logs, count at the newest entry, and have no end."""
    policy = Policy.parse(
        f"version: 1\nkeys: {{alice: '{ALICE}', bob: {{key: '{BOB}', until: 9}}, carol: {{key: '{CAROL}', from: 5}}}}\n"
        "rules: [{keys: [alice, bob, carol]}]"
    )
    assert policy.place_keys(5) == {ALICE: "alice"}
    assert policy.place_keys(6) == {ALICE: "alice", CAROL: "carol"}


def test_a_policy_as_json_is_the_same_policy() -> None:
    """JSON is YAML too, and nothing is lost on the way."""
    policy = Policy.parse(
        f"version: 1\nenvironment: same\n"
        f"keys: {{alice: {{key: '{ALICE}', until: 4}}, bob: {{key: '{BOB}', from: 4, replaces: alice}}, carol: '{CAROL}'}}\n"
        "checkpoints: {witnesses: [carol, bob], threshold: 2, maxAge: 36h}\n"
        "rules:\n- {keys: [alice, bob, carol], threshold: 2, stages: [a], artifacts: [b, 'c*'], builders: [d]}\n"
        "- {keys: [carol], predicates: ['*']}"
    )
    assert policy.checkpoints == Witnesses(("carol", "bob"), 2, 36 * 3600)
    text = json.dumps(policy.to_json())
    assert Policy.parse(text) == policy
    assert Policy.parse(json.dumps(Policy.parse(KEYS).to_json())) == Policy.parse(KEYS)
    endless = KEYS + "checkpoints: {witnesses: [alice]}"
    assert Policy.parse(endless).checkpoints == Witnesses(("alice",), 1, None)
    assert Policy.parse(json.dumps(Policy.parse(endless).to_json())) == Policy.parse(endless)


# --- reading -----------------------------------------------------------------------------------------------------------------------


def test_defaults_and_a_full_rule() -> None:
    """Everything, one key, any environment."""
    policy = Policy.parse(
        KEYS + "environment: same\nrules:\n- keys: [alice]\n"
        '- {keys: [bob, carol], threshold: 2, stages: [a], artifacts: [b], predicates: ["*"]}\n'
    )
    assert policy.environment == "same"
    assert Policy.parse(KEYS).environment == "any"
    assert policy.rules == (Rule(("alice",), 1, ("*",), ("*",), None), Rule(("bob", "carol"), 2, ("a",), ("b",), ("*",)))
    assert [rule.line for rule in policy.rules] == [5, 6]
    assert policy.keys == {"alice": ALICE, "bob": BOB, "carol": CAROL}


ONE = f"version: 1\nkeys: {{alice: '{ALICE}'}}\n"
IMPOSSIBLE = {
    "policy: an empty policy trusts nobody": "",
    "policy: an empty policy": "# only a comment\n",
    "policy:1: a policy is a mapping .*; got a list": "[]",
    "policy:1: a policy is a mapping .*; got 'alice'": "alice",
    "policy:1: a policy says `version: 1`": "rules: []",
    "policy:1: version 2 of the policy format is not known": "version: 2",
    "policy:1: version is a whole number from 0, .*; got 'one'": "version: one",
    "policy:1: version is a whole number from 0, .*; got '1.0'": "version: 1.0",
    "policy:1: version is a whole number from 0, .*; got '0x1'": "version: 0x1",
    "policy:1: version is a whole number from 0, .*; got '0_1'": "version: 0_1",
    "policy:2: unknown 'rule' in a policy; did you mean 'rules'.; known: version, keys, rules, environment": "version: 1\nrule: []",
    "policy:2: unknown 'zzz' in a policy; known": "version: 1\nzzz: []",
    "policy:2: 'version' is given twice in a policy": "version: 1\nversion: 1",
    "policy:2: environment is any or same; got 'some'": "version: 1\nenvironment: some",
    "policy:2: environment is text; got 'true' .put it in quotes": "version: 1\nenvironment: true",
    "policy:2: rules is a list; got a mapping": "version: 1\nrules: {}",
    "policy:2: rules is a list; got ''": "version: 1\nrules:",
    "policy:2: keys is a mapping": "version: 1\nkeys: [alice]",
    "policy:2: a name in keys is text; got '7' .put it in quotes": "version: 1\nkeys: {7: x}",
    "policy:2: 'a b' cannot name a key": f"version: 1\nkeys: {{a b: '{ALICE}'}}",
    "policy:2: key alice: not a public key: 'x'": "version: 1\nkeys: {alice: x}",
    "policy:2: key alice is text; got a list": "version: 1\nkeys: {alice: []}",
    "policy:2: key alice has no `key: ed25519": "version: 1\nkeys: {alice: {from: 1}}",
    "policy:2: unknown 'untill' in key alice; did you mean 'until'": f"version: 1\nkeys: {{alice: {{key: '{ALICE}', untill: 1}}}}",
    "policy:2: from is a whole number from 0, .*; got '-1'": f"version: 1\nkeys: {{alice: {{key: '{ALICE}', from: -1}}}}",
    "policy:2: until is a whole number from 3, .*; got '2'": f"version: 1\nkeys: {{alice: {{key: '{ALICE}', from: 3, until: 2}}}}",
    "policy:2: 'alice' is given twice in keys": f"version: 1\nkeys: {{alice: '{ALICE}', alice: '{BOB}'}}",
    "policy:4: alice and bob are the same key, which would count twice": f"version: 1\nkeys:\n  alice: '{ALICE}'\n  bob: '{ALICE}'",
    "policy:3: a rule is a mapping": ONE + "rules: [alice]",
    "policy:3: a rule names its keys": ONE + "rules: [{stages: [a]}]",
    "policy:3: the keys of a rule: an empty list": ONE + "rules: [{keys: []}]",
    "policy:3: the keys of a rule is a list; got 'alice'": ONE + "rules: [{keys: alice}]",
    "policy:3: no key is named 'alcie' in this policy; did you mean 'alice'": ONE + "rules: [{keys: [alcie]}]",
    "policy:3: no key is named 'zed' in this policy$": ONE + "rules: [{keys: [zed]}]",
    "policy:3: alice is named twice in one rule": ONE + "rules: [{keys: [alice, alice]}]",
    "policy:3: threshold is a whole number from 1, .*; got '0'": ONE + "rules: [{keys: [alice], threshold: 0}]",
    "policy:3: threshold is a whole number from 1, .*; got a list": ONE + "rules: [{keys: [alice], threshold: []}]",
    "policy:3: threshold 2 of 1 keys can never be met": ONE + "rules: [{keys: [alice], threshold: 2}]",
    "policy:3: stages: an empty list or an empty text": ONE + "rules: [{keys: [alice], stages: []}]",
    "policy:3: artifacts: an empty list or an empty text": ONE + "rules: [{keys: [alice], artifacts: ['']}]",
    "policy:3: predicates: an empty list": ONE + "rules: [{keys: [alice], predicates: []}]",
    "policy:3: an item of stages is text; got a mapping": ONE + "rules: [{keys: [alice], stages: [{}]}]",
    "policy:3: unknown 'treshold' in a rule; did you mean 'threshold'": ONE + "rules: [{keys: [alice], treshold: 1}]",
    "policy:3: a name in a rule is text; got '<<'": ONE + "rules: [{<<: {keys: [alice]}}]",
    "policy:1: a policy is a mapping .*; got a mapping": "!!null {}",
    "policy:1: a policy is a mapping .*; got 'text'": "!!map text",
    "policy:1: version is a whole number from 0, .*; got a list": "version: !!int []",
    "policy:1: a name in a policy is text; got a mapping": "{!!str {}: 1}",
    "policy:3: builders: an empty list": ONE + "rules: [{keys: [alice], builders: []}]",
    "policy:2: bob replaces 'eve', which is no key of this policy": f"version: 1\nkeys: {{bob: {{key: '{BOB}', replaces: eve}}}}",
    "policy:4: b replaces a, which replaces b": (
        f"version: 1\nkeys:\n  a: {{key: '{ALICE}', replaces: b}}\n  b: {{key: '{BOB}', replaces: a}}"
    ),
    "policy:2: a replaces a, which replaces a": f"version: 1\nkeys: {{a: {{key: '{ALICE}', replaces: a}}}}",
    "policy:3: threshold 2 can never be met: these 2 keys have 1 holder$": (
        f"version: 1\nkeys: {{alice: '{ALICE}', bob: {{key: '{BOB}', replaces: alice}}}}\nrules: [{{keys: [alice, bob], threshold: 2}}]"
    ),
    "policy:3: checkpoints name the witnesses": ONE + "checkpoints: {maxAge: 30d}",
    "policy:3: no key is named 'bob' in this policy": ONE + "checkpoints: {witnesses: [bob]}",
    "policy:3: alice is named twice in witnesses": ONE + "checkpoints: {witnesses: [alice, alice]}",
    "policy:3: the witnesses: an empty list": ONE + "checkpoints: {witnesses: []}",
    "policy:3: threshold 2 of 1 keys can never be met$": ONE + "checkpoints: {witnesses: [alice], threshold: 2}",
    "policy:3: maxAge: a whole number and s, min, h or d, like 30d; got '30'": ONE + "checkpoints: {witnesses: [alice], maxAge: '30'}",
    "policy:3: maxAge: .*; got '0d'": ONE + "checkpoints: {witnesses: [alice], maxAge: 0d}",
    "policy:3: maxAge is text; got '30' ": ONE + "checkpoints: {witnesses: [alice], maxAge: 30}",
    "policy:3: unknown 'maxage' in checkpoints; did you mean 'maxAge'": ONE + "checkpoints: {witnesses: [alice], maxage: 1d}",
    "policy:3: oms is ecdsa-p256; a witness signs with an Ed25519 key": (
        f"version: 1\nkeys: {{oms: '{p256()[1]}'}}\ncheckpoints: {{witnesses: [oms]}}"
    ),
    r"policy:3: not YAML: .*write .\*. in quotes": ONE + "rules: [{keys: [alice], stages: [*]}]",
    "policy:4: not YAML: ": ONE + "rules: [",
    "policy: not YAML: ": "version: \x00",
    "at most 1048576 are read": "#" * (MAX_POLICY_BYTES + 1),
}


@pytest.mark.parametrize("message", IMPOSSIBLE)
def test_files_that_say_something_impossible_are_refused(message: str) -> None:
    """With the line, and the nearest known name."""
    with pytest.raises(PolicyError, match=message):
        Policy.parse(IMPOSSIBLE[message])


def test_without_the_c_parser_all_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyYAML may be built without libyaml: slower, and endless nesting is still one clear error."""
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    assert Policy.parse(KEYS).keys["alice"] == ALICE
    with pytest.raises(PolicyError, match="nested without end"):
        Policy.parse("[" * 5000)
    with pytest.raises(PolicyError, match="policy:2: 'version' is given twice"):
        Policy.parse("version: 1\nversion: 1")


def test_endless_nesting_is_refused() -> None:
    """By whichever parser is there."""
    with pytest.raises(PolicyError, match="nest"):
        Policy.parse("[" * 100_000)


def test_loading_names_the_file(tmp_path: Path) -> None:
    """A missing file, one that is not UTF-8, one with an error in line 2."""
    path = tmp_path / "policy.yaml"
    with pytest.raises(PolicyError, match=r"policy\.yaml: cannot read the policy: No such file .*ledger init"):
        Policy.load(path)
    path.write_bytes(b"\xff")
    with pytest.raises(PolicyError, match="not UTF-8"):
        Policy.load(path)
    path.write_text("version: 1\nrools: []")
    with pytest.raises(PolicyError, match=re.escape(f"{path}:2: unknown 'rools'")) as caught:
        Policy.load(path)
    assert caught.value.line == 2
    path.write_text(KEYS)
    assert Policy.load(path).source == str(path)


# --- shipped -----------------------------------------------------------------------------------------------------------------------


def test_what_this_package_ships_trusts_named_artifacts_only() -> None:
    """No shipped key may speak for everything, or for a log."""
    for policy in Policy.shipped().values():
        assert policy.log_keys == {}
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", pattern) for rule in policy.rules for pattern in rule.artifacts)


def test_a_rule_for_some_predicate_types_makes_no_log_key() -> None:
    """A key for `model.sig` alone signs no checkpoints; it speaks for its own predicate type, until it has an end."""
    kind = "https://model_signing/signature/v1.0"
    policy = Policy.parse(
        KEYS + f'rules: [{{keys: [alice]}}, {{keys: [bob], predicates: ["{kind}"]}}, {{keys: [carol], predicates: ["*"]}}]'
    )
    assert set(policy.log_keys) == {"alice", "carol"}
    assert set(policy.speakers(kind)) == {"alice", "bob", "carol"}
    assert set(policy.speakers("urn:other")) == {"alice", "carol"}
    ended = Policy({"bob": BOB}, (Rule(("bob",), predicates=(kind,)),), spans={"bob": Span(0, 5)})
    assert ended.speakers(kind) == {}

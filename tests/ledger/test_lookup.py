"""ledger.lookup: only entries that prove themselves count; disagreement is never settled silently."""

from __future__ import annotations

from pathlib import Path

import pytest

from ledger import dsse, statement
from ledger.entries import UNPLACED, Entry
from ledger.errors import ContradictionError, SignatureError, StatementError, UntrustedError
from ledger.log import Log
from ledger.lookup import accept, confirmations, find, sift
from ledger.memory import Memory
from ledger.policy import Policy
from ledger.predicates import EVALUATION
from ledger.testing import UnsafeSigner, append_runs, chain_of_runs, run_payload, unsafe_log, unsafe_policy
from ledger.verify import verify_log
from store.actions import Action
from store.digest import Digest

ACTION = Action("train-segment", 2, {"steps": 100}, {"state": Digest.of(b"state")})
HERE, THERE = {"torch": "2.13", "threads": 1}, {"torch": "2.13", "threads": 2}


def environment(value: dict[str, object]) -> Digest:
    from ledger.predicates import environment_digest

    return environment_digest(value)


def by(folder: Path, name: str) -> Log:
    """The log of a folder, opened by another signer."""
    return Log.open(folder / ".ledger", signer=UnsafeSigner(name), memory=Memory(folder / f"state of {name}"))


def test_unknown_action_is_to_do(tmp_path: Path) -> None:
    """An action without entries gives None."""
    assert find(unsafe_log(tmp_path), unsafe_policy("alice"), ACTION) is None


def test_hit_carries_outputs_and_who_vouches(tmp_path: Path) -> None:
    """A trusted entry gives the outputs, the recomputed action and the signer's name in the policy."""
    log, runs = unsafe_log(tmp_path), chain_of_runs(3)
    append_runs(log, runs)
    hit = find(log, unsafe_policy("alice"), runs[2][0])
    assert hit is not None
    assert (hit.entry.number, hit.action, dict(hit.outputs), hit.signers, hit.ignored) == (2, *runs[2], ("alice",), ())


def test_untrusted_entry_is_ignored_and_said(tmp_path: Path) -> None:
    """A key that the policy does not name makes no hit, also when a trusted entry with another result stands beside it."""
    runs = chain_of_runs(1)
    append_runs(unsafe_log(tmp_path, signer="mallory"), [(runs[0][0], {"model": Digest.of(b"poison")})])
    policy = unsafe_policy("alice")
    assert find(by(tmp_path, "bob"), policy, runs[0][0]) is None
    append_runs(by(tmp_path, "alice"), runs)
    hit = find(by(tmp_path, "bob"), policy, runs[0][0])
    assert hit is not None
    assert dict(hit.outputs) == runs[0][1]
    assert [(one.entry.number, type(one.reason)) for one in hit.ignored] == [(0, SignatureError)]


def test_equal_results_of_two_keys_corroborate(tmp_path: Path) -> None:
    """Two trusted keys with equal outputs are one hit with both names."""
    runs = chain_of_runs(1)
    append_runs(unsafe_log(tmp_path), runs)
    append_runs(by(tmp_path, "bob"), runs)
    hit = find(by(tmp_path, "bob"), unsafe_policy("alice", "bob"), runs[0][0])
    assert hit is not None
    assert (hit.signers, [entry.number for entry in hit.corroborating]) == (("alice", "bob"), [1])


def test_unequal_results_are_a_contradiction_with_both_entries(tmp_path: Path) -> None:
    """Two trusted results that differ raise, naming both entries, what differs, and both values."""
    runs = chain_of_runs(1)
    other = {"model": Digest.of(b"other")}
    append_runs(unsafe_log(tmp_path), runs)
    append_runs(by(tmp_path, "bob"), [(runs[0][0], other)])
    with pytest.raises(ContradictionError, match=r"differ in model: entry 0 by alice says model .*; entry 1 by bob says") as caught:
        find(by(tmp_path, "bob"), unsafe_policy("alice", "bob"), runs[0][0])
    assert caught.value.claims == {
        "entry 0 by alice": {"model": str(runs[0][1]["model"])},
        "entry 1 by bob": {"model": str(other["model"])},
    }
    assert find(by(tmp_path, "bob"), unsafe_policy("alice"), runs[0][0]) is not None


def append_in(log: Log, where: dict[str, object], output: bytes) -> None:
    log.append([run_payload(ACTION, {"state": Digest.of(output)}, purity="E", environment=where)], ["train"])


def test_environments_may_differ_unless_one_is_demanded(tmp_path: Path) -> None:
    """Without a demand the oldest result is a hit and the others are shown; with one only that environment's counts."""
    log = unsafe_log(tmp_path)
    append_in(log, THERE, b"there")
    append_in(log, HERE, b"here")
    policy = unsafe_policy("alice")
    hit = find(log, policy, ACTION)
    assert hit is not None
    assert (hit.entry.number, hit.environment_digest, [entry.number for entry in hit.elsewhere]) == (0, environment(THERE), [1])
    here = find(log, policy, ACTION, environment_digest=environment(HERE))
    assert here is not None
    assert (here.entry.number, here.environment_digest, len(here.ignored)) == (1, environment(HERE), 1)
    assert find(log, policy, ACTION, environment_digest=environment({"torch": "3"})) is None


def test_policy_can_demand_the_same_environment(tmp_path: Path) -> None:
    """`environment: same` makes results of E stages count only where the asker says that it is; P stages count anywhere."""
    log, runs = unsafe_log(tmp_path), chain_of_runs(1)
    append_in(log, THERE, b"there")
    append_runs(log, runs)
    policy = unsafe_policy("alice", environment="same")
    assert find(log, policy, ACTION) is None
    assert find(log, policy, ACTION, environment_digest=environment(HERE)) is None
    assert find(log, policy, ACTION, environment_digest=environment(THERE)) is not None
    assert find(log, policy, runs[0][0]) is not None


def test_two_results_in_one_environment_contradict(tmp_path: Path) -> None:
    """An E stage that gave two results in one environment is not exact there."""
    log = unsafe_log(tmp_path)
    append_in(log, HERE, b"1")
    append_in(log, HERE, b"2")
    with pytest.raises(ContradictionError):
        find(log, unsafe_policy("alice"), ACTION)


class Lying:
    """A place that answers every question with the same entry."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry

    def lookup(self, key: Digest) -> list[Entry]:
        return [self.entry]


def test_wrong_answer_of_an_index_is_no_hit(tmp_path: Path) -> None:
    """The key is recomputed from the statement: a signed entry about another action does not count, whatever the index says."""
    log, runs = unsafe_log(tmp_path), chain_of_runs(2)
    entry = append_runs(log, runs)[0]
    assert find(Lying(entry), unsafe_policy("alice"), runs[0][0]) is not None
    assert find(Lying(entry), unsafe_policy("alice"), runs[1][0]) is None


def test_statement_of_another_type_is_no_hit(tmp_path: Path) -> None:
    """An evaluation that names the action is not a run of it."""
    log = unsafe_log(tmp_path)
    (entry,) = log.append([statement.make({"model": Digest.of(b"m")}, "urn:x:v1", {"action": str(ACTION.key)})], ["claim"])
    assert find(Lying(entry), unsafe_policy("alice"), ACTION) is None


def test_key_counts_by_the_entrys_place(tmp_path: Path) -> None:
    """A key that counts until an entry counts before it and not after, and not where the place is not proven."""
    log, runs = unsafe_log(tmp_path), chain_of_runs(4)
    made = append_runs(log, runs)
    key = UnsafeSigner("alice").public
    policy = Policy.parse(f'version: 1\nkeys: {{alice: {{key: "{key}", until: 2}}}}\nrules: [{{keys: [alice]}}]\n')
    assert [find(log, policy, action) is not None for action, _ in runs] == [True, True, False, False]
    with pytest.raises(UntrustedError):
        accept(Entry(UNPLACED, "", made[0].envelope, b""), policy)
    assert accept(Entry(UNPLACED, "", made[0].envelope, b""), unsafe_policy("alice")).signers == ("alice",)


def test_sift_keeps_the_reason(tmp_path: Path) -> None:
    """Entries that do not count come with why."""
    log = unsafe_log(tmp_path)
    made = append_runs(log, chain_of_runs(1))
    broken = Entry(1, "", made[0].envelope[:-1], b"")
    trusted, ignored = sift([*made, broken], unsafe_policy("alice"))
    assert [one.entry for one in trusted] == made
    assert [(one.entry, "JSON" in str(one.reason)) for one in ignored] == [(broken, True)]
    assert not issubclass(type(ignored[0].reason), StatementError)


# --- k of n ------------------------------------------------------------------------------------------------------------------------

THREE = Policy.parse(
    "version: 1\nkeys: {"
    + ", ".join(f"{name}: '{UnsafeSigner(name).public}'" for name in ("alice", "bob", "carol"))
    + "}\nrules: [{keys: [alice, bob, carol], threshold: 2}]\n",
    source="test policy",
)


def test_two_of_three_in_entries_of_their_own(tmp_path: Path) -> None:
    """One key is not enough; a second entry with equal outputs is, and both entries count then; the hit names both."""
    runs = chain_of_runs(1)
    log = unsafe_log(tmp_path)
    append_runs(log, runs)
    assert find(log, THREE, runs[0][0]) is None
    with pytest.raises(UntrustedError, match=r"needs 2 of alice, bob, carol \(line 3\), got alice"):
        accept(log.entry(0), THREE, log)
    append_runs(by(tmp_path, "bob"), runs)
    hit = find(log, THREE, runs[0][0])
    assert hit is not None
    assert (hit.entry.number, hit.signers, [one.number for one in hit.corroborating]) == (0, ("alice", "bob"), [1])
    assert accept(log.entry(0), THREE, log).signers == ("alice",)
    assert [one.signers for one in sift(log.by_subject(runs[0][1]["model"]), THREE)[0]] == [("alice",), ("bob",)]


def test_one_of_three_says_it_twice(tmp_path: Path) -> None:
    """The same key in two entries is one key, and so is it under the keyid of another."""
    runs = chain_of_runs(1)
    log = unsafe_log(tmp_path)
    append_runs(log, runs)
    append_runs(log, runs)
    victim = UnsafeSigner("mallory")
    victim.public = UnsafeSigner("bob").public
    log.append_foreign([dsse.sign(run_payload(*runs[0]), victim)])
    assert find(log, THREE, runs[0][0]) is None
    assert len(sift(log.lookup(runs[0][0].key), THREE)[1]) == 3


def test_other_outputs_do_not_help(tmp_path: Path) -> None:
    """Two keys that disagree are neither a hit nor a contradiction: none of them counts. A third one decides."""
    runs = chain_of_runs(1)
    other = [(runs[0][0], {"model": Digest.of(b"other")})]
    log = unsafe_log(tmp_path)
    append_runs(log, runs)
    append_runs(by(tmp_path, "bob"), other)
    assert find(log, THREE, runs[0][0]) is None
    append_runs(by(tmp_path, "carol"), other)
    hit = find(log, THREE, runs[0][0])
    assert hit is not None
    assert (dict(hit.outputs), hit.signers) == (other[0][1], ("bob", "carol"))


def test_results_of_different_environments_are_not_counted_together(tmp_path: Path) -> None:
    """Of an E stage the same bytes elsewhere are no confirmation that a rule counts; of a P stage they are."""
    log, bob = unsafe_log(tmp_path), by(tmp_path, "bob")
    append_in(log, HERE, b"same")
    append_in(bob, THERE, b"same")
    assert find(log, THREE, ACTION) is None
    append_in(bob, HERE, b"same")
    assert find(log, THREE, ACTION) is not None
    pure = Action("prune-shard", 1, {})
    for one, where in ((log, HERE), (bob, THERE)):
        one.append([run_payload(pure, {"model": Digest.of(b"m")}, environment=where)], ["prune"])
    assert find(log, THREE, pure) is not None


def test_each_key_counts_at_its_own_place(tmp_path: Path) -> None:
    """Bob counts up to entry 0, so what he says at entry 1 helps nobody."""
    policy = Policy.parse(
        f"version: 1\nkeys: {{alice: '{UnsafeSigner('alice').public}', bob: {{key: '{UnsafeSigner('bob').public}', until: 1}}}}\n"
        "rules: [{keys: [alice, bob], threshold: 2}]"
    )
    runs = chain_of_runs(2)
    append_runs(unsafe_log(tmp_path, signer="bob"), runs[:1])
    append_runs(by(tmp_path, "bob"), runs[1:])
    append_runs(by(tmp_path, "alice"), runs)
    log = by(tmp_path, "alice")
    assert find(log, policy, runs[0][0]) is not None
    assert find(log, policy, runs[1][0]) is None


def test_a_successor_is_no_second_person(tmp_path: Path) -> None:
    """Who changed the key and signs the same again is still one of two."""
    keys = {name: UnsafeSigner(name).public for name in ("alice", "alice-2", "bob")}
    policy = Policy.parse(
        f"version: 1\nkeys: {{alice: {{key: '{keys['alice']}', until: 1}}, bob: '{keys['bob']}', "
        f"alice-2: {{key: '{keys['alice-2']}', from: 1, replaces: alice}}}}\n"
        "rules: [{keys: [alice, alice-2, bob], threshold: 2}]"
    )
    runs = chain_of_runs(1)
    append_runs(unsafe_log(tmp_path), runs)
    append_runs(by(tmp_path, "alice-2"), runs)
    log = by(tmp_path, "bob")
    assert find(log, policy, runs[0][0]) is None
    append_runs(log, runs)
    hit = find(log, policy, runs[0][0])
    assert hit is not None
    assert hit.signers == ("alice", "alice-2", "bob")


def test_statements_of_other_kinds_count_together_when_they_say_the_same(tmp_path: Path) -> None:
    """An evaluation with the same numbers by two keys; with one number changed it is another claim."""
    model = {"model": Digest.of(b"model")}
    log = unsafe_log(tmp_path)
    log.append([statement.make(model, EVALUATION, {"perplexity": "43.3"})], ["evaluation"])
    by(tmp_path, "bob").append([statement.make(model, EVALUATION, {"perplexity": "43.4"})], ["evaluation"])
    assert sift(log.by_subject(model["model"]), THREE)[0] == []
    by(tmp_path, "bob").append([statement.make(model, EVALUATION, {"perplexity": "43.3"})], ["evaluation"])
    assert [one.entry.number for one in sift(log.by_subject(model["model"]), THREE)[0]] == [0, 2]


def test_audits_count_entries_together(tmp_path: Path) -> None:
    """A log in which two people say everything verifies under two of three, and one that one of them says is told."""
    runs = chain_of_runs(2)
    append_runs(unsafe_log(tmp_path), runs)
    append_runs(by(tmp_path, "bob"), runs[:1])
    report = verify_log(by(tmp_path, "alice"), THREE)
    texts = [row.text for row in report.rows]
    assert report.exit_code == 0
    assert any("trusts: alice 1, bob 1" in text for text in texts)
    assert any("1 entry counts for nothing here; entry 1" in text for text in texts)


def test_confirmations_are_the_keys_that_give_the_same(tmp_path: Path) -> None:
    """Nobody, one, two; environments do not matter where the bytes are equal; a contradiction is one here too."""
    log, bob = unsafe_log(tmp_path), by(tmp_path, "bob")
    policy = unsafe_policy("alice", "bob", environment="same")
    assert confirmations(log, policy, ACTION) == ()
    append_in(log, HERE, b"same")
    assert confirmations(log, policy, ACTION) == ("alice",)
    append_in(bob, THERE, b"same")
    assert confirmations(log, policy, ACTION) == ("alice", "bob")
    append_in(bob, THERE, b"other")
    with pytest.raises(ContradictionError):
        confirmations(log, policy, ACTION)


# --- builders ----------------------------------------------------------------------------------------------------------------------


def test_a_signer_who_may_not_speak_for_that_builder_is_refused(tmp_path: Path) -> None:
    """Builder impersonation: the key is trusted, for another builder."""
    runs = chain_of_runs(1)
    log = unsafe_log(tmp_path)
    append_runs(log, runs)
    for builders, found in (("urn:alloy-ledger:builder:test", True), ("urn:*:builder:*", True), ("https://farm.example/*", False)):
        policy = Policy.parse(
            f"version: 1\nkeys: {{alice: '{UnsafeSigner('alice').public}'}}\nrules: [{{keys: [alice], builders: ['{builders}']}}]"
        )
        assert (find(log, policy, runs[0][0]) is not None) is found

"""Key events narrow a reader's policy, in the order of the log, and never widen it."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ledger import bundle, standing, statement
from ledger.entries import UNPLACED, Entry
from ledger.errors import LogError, MovedError, UntrustedError
from ledger.keys import PublicKey
from ledger.log import Log
from ledger.lookup import accept, find
from ledger.memory import Memory
from ledger.policy import Policy, Span
from ledger.predicates import KEY_EVENT, KeyEvent
from ledger.testing import UnsafeSigner, append_runs, chain_of_runs, unsafe_log, unsafe_policy
from ledger.verify import verify_alloy, verify_artifact, verify_log
from store.digest import Digest
from tests.ledger.test_keys import p256
from tests.reports import texts

ALICE, BOB, EVE = (UnsafeSigner(name).public for name in ("alice", "bob", "eve"))
RUNS = chain_of_runs(8)
BOTH = unsafe_policy("alice", "bob")


def by(folder: Path, name: str) -> Log:
    """The log of a folder, opened by another signer on the same machine."""
    return Log.open(folder / ".ledger", signer=UnsafeSigner(name), memory=Memory(folder / "state"))


def revoked(key: PublicKey, start: int, **more: Any) -> KeyEvent:
    return KeyEvent(event="revoked", key=key, from_entry=start, **more)


def say(log: Log, event: KeyEvent) -> int:
    """Append an event, signed by the log's signer, and give its number."""
    return standing.announce(log, lambda _: event).number


def spans(policy: Policy) -> dict[str, tuple[int, int | None]]:
    return {name: (span.first, span.until) for name, span in policy.spans.items()}


# --- what an event does ------------------------------------------------------------------------------------------------------------


def test_a_log_without_key_events_leaves_the_policy_as_it_is(tmp_path: Path) -> None:
    """The very same object, so that nothing is judged twice."""
    log = unsafe_log(tmp_path)
    assert standing.of(log, BOTH) is BOTH
    append_runs(log, RUNS[:3])
    assert standing.of(log, BOTH) is BOTH


def test_a_revoked_key_counts_up_to_its_entry(tmp_path: Path) -> None:
    """What came before counts still; what came after is no hit; the reason is in the refusal."""
    log = unsafe_log(tmp_path)
    append_runs(log, RUNS[:2])
    append_runs(by(tmp_path, "bob"), RUNS[2:4])
    assert say(log, revoked(BOB, 3, reason="lost")) == 4
    policy = standing.of(log, BOTH)
    assert spans(policy) == {"bob": (0, 3)}
    assert find(log, policy, RUNS[2][0]) is not None
    assert find(log, policy, RUNS[3][0]) is None
    assert find(log, BOTH, RUNS[3][0]) is not None
    with pytest.raises(UntrustedError, match=r"bob \(ed25519:\S+; revoked at entry 4: counts from entry 0 until 3, this is entry 3\)"):
        accept(log.entry(3), policy)


def test_a_commit_dated_before_the_revocation_is_behind_it_all_the_same(tmp_path: Path) -> None:
    """Dates are chosen by whoever signs; a place in the log is not."""
    log = unsafe_log(tmp_path)
    say(log, revoked(BOB, 0))
    late = Log.open(tmp_path / ".ledger", signer=UnsafeSigner("bob"), clock=lambda: 1_000_000_000.0, memory=Memory(tmp_path / "state"))
    entry = append_runs(late, RUNS[:1])[0]
    assert entry.when < log.entry(0).when
    assert find(log, standing.of(log, BOTH), RUNS[0][0]) is None


def test_a_key_may_say_of_itself_that_it_counts_no_more(tmp_path: Path) -> None:
    """Though the policy trusts it for one artifact only; a key that the policy does not name changes nothing."""
    policy = Policy.parse(
        f"version: 1\nkeys: {{alice: '{ALICE}', bob: '{BOB}'}}\nrules: [{{keys: [alice]}}, {{keys: [bob], artifacts: [model]}}]"
    )
    log = unsafe_log(tmp_path)
    say(by(tmp_path, "bob"), revoked(BOB, 0))
    say(by(tmp_path, "eve"), revoked(EVE, 0))
    assert spans(standing.of(log, policy)) == {"bob": (0, 0)}
    (cut,) = standing.cuts(policy, standing.events(log))
    assert (cut.entry, cut.name, cut.by, cut.what) == (0, "bob", ("bob",), "revoked")


def test_a_stranger_and_a_key_for_other_things_revoke_nobody(tmp_path: Path) -> None:
    """Who may speak about keys is the policy's word: here a stranger, and bob, who may quantise."""
    policy = Policy.parse(
        f"version: 1\nkeys: {{alice: '{ALICE}', bob: '{BOB}'}}\nrules: [{{keys: [alice]}}, {{keys: [bob], stages: [quant]}}]"
    )
    log = unsafe_log(tmp_path)
    for name in ("eve", "bob"):
        say(by(tmp_path, name), revoked(ALICE, 0))
    assert standing.of(log, policy) is policy


def test_a_successor_is_not_trusted_for_being_named(tmp_path: Path) -> None:
    """The old key ends; the new one counts for nobody until a policy names it, and the finding says how."""
    log = unsafe_log(tmp_path)
    append_runs(log, RUNS[:1])
    say(log, KeyEvent(event="superseded", key=ALICE, successor=EVE, from_entry=2, reason="yearly"))
    say(by(tmp_path, "eve"), KeyEvent(event="added", key=EVE, from_entry=2))
    append_runs(by(tmp_path, "eve"), RUNS[1:2])
    alone = unsafe_policy("alice")
    policy = standing.of(log, alone)
    assert spans(policy) == {"alice": (0, 2)}
    assert find(log, policy, RUNS[0][0]) is not None
    assert find(log, policy, RUNS[1][0]) is None
    rows = standing.rows(alone, standing.cuts(alone, standing.events(log)))
    assert [row.status for row in rows] == ["proven", "unverified"]
    assert rows[0].text == f"alice was superseded by {EVE.short} from entry 2 on (entry 1, said by alice: 'yearly')"
    assert rows[0].hint == "Write `until: 2` beside alice in test policy"
    assert rows[1].hint == f"If you trust it: ledger key trust NAME {EVE} --replaces alice --from 2"


def test_an_event_ends_a_key_right_behind_itself_at_the_latest(tmp_path: Path) -> None:
    """A number from another log, or one far ahead, keeps no key alive."""
    log = unsafe_log(tmp_path)
    append_runs(log, RUNS[:1])
    say(log, revoked(BOB, 10**9))
    assert spans(standing.of(log, BOTH)) == {"bob": (0, 2)}


def test_a_policy_that_says_so_already_is_not_narrowed(tmp_path: Path) -> None:
    """After a rotation the owner's policy comes back as it is, and an earlier end stands."""
    log = unsafe_log(tmp_path)
    say(log, revoked(BOB, 5))
    for until in (0, 1):
        policy = Policy.parse(
            f"version: 1\nkeys: {{alice: '{ALICE}', bob: {{key: '{BOB}', until: {until}}}}}\nrules: [{{keys: [alice, bob]}}]"
        )
        assert standing.of(log, policy) is policy
        assert [cut.new for cut in standing.cuts(policy, standing.events(log))] == [False]


# --- in the order of the log -------------------------------------------------------------------------------------------------------


def test_a_key_that_was_cut_off_cuts_off_nobody(tmp_path: Path) -> None:
    """What bob says about alice behind his own revocation counts for nothing; before it, it would have."""
    log = unsafe_log(tmp_path)
    say(log, revoked(BOB, 1))
    say(by(tmp_path, "bob"), revoked(ALICE, 0))
    assert spans(standing.of(log, BOTH)) == {"bob": (0, 1)}
    other = unsafe_log(tmp_path / "other")
    say(by(tmp_path / "other", "bob"), revoked(ALICE, 1))
    say(other, revoked(BOB, 0))
    assert spans(standing.of(other, BOTH)) == {"alice": (0, 1)}


def test_two_of_three_must_agree_on_a_revocation_where_the_policy_says_so(tmp_path: Path) -> None:
    """One says it, nothing happens; a second says the same, and it counts from the first one's words."""
    keys = {name: UnsafeSigner(name).public for name in ("alice", "bob", "carol")}
    policy = Policy.parse(
        "version: 1\nkeys: {" + ", ".join(f"{name}: '{key}'" for name, key in keys.items()) + "}\n"
        f"rules: [{{keys: [alice, bob], threshold: 2, predicates: ['{KEY_EVENT}']}}, {{keys: [carol], predicates: [x]}}]\n"
    )
    log = unsafe_log(tmp_path)
    say(log, revoked(keys["carol"], 0))
    assert standing.of(log, policy) is policy
    say(by(tmp_path, "bob"), revoked(keys["carol"], 3))
    assert standing.of(log, policy) is policy, "they do not say the same"
    say(by(tmp_path, "bob"), revoked(keys["carol"], 0))
    assert spans(standing.of(log, policy)) == {"carol": (0, 0)}


# --- finding the events ------------------------------------------------------------------------------------------------------------


def test_an_index_cannot_hide_a_revocation(tmp_path: Path) -> None:
    """Events are read from git: rows taken out of the index, or the whole index, change nothing."""
    log = unsafe_log(tmp_path)
    append_runs(by(tmp_path, "bob"), RUNS[:1])
    say(log, revoked(BOB, 0))
    with sqlite3.connect(tmp_path / ".ledger/index.sqlite") as db:
        db.execute("UPDATE entries SET type = 'x' WHERE number = 1")
        db.execute("DELETE FROM subjects WHERE number = 1")
    db.close()
    assert spans(standing.of(log, BOTH)) == {"bob": (0, 0)}
    stranger = Log.open(tmp_path / ".ledger", memory=Memory(tmp_path / "elsewhere"))
    assert spans(standing.of(stranger, BOTH)) == {"bob": (0, 0)}


def test_a_search_goes_on_where_the_last_one_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only entries that are new are read again; another log under the same name is searched from its start."""
    log = unsafe_log(tmp_path)
    append_runs(log, RUNS[:3])
    say(log, revoked(BOB, 0))
    assert [entry.number for entry in standing.events(log)] == [3]
    read: list[int] = []
    entries = Log.entries

    def counted(self: Log, start: int = 0, stop: int | None = None) -> Iterator[Entry]:
        read.append(start)
        return entries(self, start, stop)

    monkeypatch.setattr(Log, "entries", counted)
    append_runs(log, RUNS[3:5])
    assert [entry.number for entry in standing.events(by(tmp_path, "alice"))] == [3]
    assert [entry.number for entry in standing.events(by(tmp_path, "alice"))] == [3]
    assert read == [4, 6]
    other = Log.create(tmp_path / "other", signer=UnsafeSigner("alice"), origin="ledger/test", memory=Memory(tmp_path / "third"))
    shutil.copytree(
        tmp_path / "state/ledger/events" if (tmp_path / "state/ledger").exists() else tmp_path / "state/events", tmp_path / "third/events"
    )
    append_runs(other, RUNS[:1])
    assert standing.events(other) == ()


def test_a_damaged_memory_of_a_search_is_no_answer(tmp_path: Path) -> None:
    """Then the log is searched again."""
    log = unsafe_log(tmp_path)
    say(log, revoked(BOB, 0))
    standing.events(log)
    (file,) = (tmp_path / "state/events").iterdir()
    for junk in (b"", b"junk", b"ledger/test\n1\nAAAA\n\n0\n", file.read_bytes().replace(b"\n\n0\n", b"\n\nx\n")):
        file.write_bytes(junk)
        assert [entry.number for entry in standing.events(by(tmp_path, "alice"))] == [0]


def test_a_damaged_event_counts_for_nothing(tmp_path: Path) -> None:
    """One with a field too many, or about another subject: passed over, and the log is whole."""
    log = unsafe_log(tmp_path)
    good = revoked(BOB, 0)
    log.append([statement.make(good.subjects(), KEY_EVENT, good.predicate() | {"more": "x"})], ["event"])
    log.append([statement.make(revoked(ALICE, 0).subjects(), KEY_EVENT, good.predicate())], ["event"])
    assert standing.of(log, BOTH) is BOTH


# --- announcing --------------------------------------------------------------------------------------------------------------------


def test_an_event_knows_its_own_place(tmp_path: Path) -> None:
    """When others append meanwhile, it is made again for the place that it gets."""
    log, other = unsafe_log(tmp_path), None
    asked: list[int] = []

    def make(number: int) -> KeyEvent:
        nonlocal other
        asked.append(number)
        if other is None:
            other = by(tmp_path, "bob")
            append_runs(other, RUNS[:1])
        return revoked(BOB, number + 1)

    entry = standing.announce(log, make)
    assert (asked, entry.number, KeyEvent.of(entry.statement).from_entry) == ([0, 1], 1, 2)
    with pytest.raises(MovedError, match="has 2 entries by now"):
        log.append([statement.make(revoked(BOB, 0).subjects(), KEY_EVENT, revoked(BOB, 0).predicate())], ["late"], at=1)


def test_an_event_can_be_signed_by_another_key_than_the_log(tmp_path: Path) -> None:
    """A P-256 key, which signs no log, says of itself that it ends."""
    from ledger.keys import P256Signer

    private, public = p256()
    policy = Policy.parse(
        f"version: 1\nkeys: {{alice: '{ALICE}', oms: '{public}'}}\nrules: [{{keys: [alice]}}, {{keys: [oms], artifacts: [x]}}]"
    )
    log = unsafe_log(tmp_path)
    entry = standing.announce(log, lambda number: revoked(public, number + 1), P256Signer("oms", private))
    assert spans(standing.of(log, policy)) == {"oms": (0, entry.number + 1)}


# --- where it is applied -----------------------------------------------------------------------------------------------------------


def test_audits_judge_by_what_is_left(tmp_path: Path) -> None:
    """The whole log and one object: what the revoked key signed since counts for nothing, and the event is a finding."""
    log = unsafe_log(tmp_path)
    append_runs(log, RUNS[:1])
    append_runs(by(tmp_path, "bob"), RUNS[1:2])
    say(log, revoked(BOB, 1, reason="stolen"))
    report = verify_log(log, BOTH)
    assert report.exit_code == 0
    assert "bob was revoked from entry 1 on (entry 2, said by alice: 'stolen')" in texts(report, "proven")
    assert "1 entry counts for nothing here; entry 1:" in texts(report, "unverified")
    gone = verify_artifact(RUNS[1][1]["model"], log, BOTH)
    assert (gone.exit_code, "are in no trusted statement" in texts(gone, "failed")) == (3, True)
    assert verify_artifact(RUNS[0][1]["model"], log, BOTH).exit_code == 0


def test_an_audit_remembers_its_search(tmp_path: Path) -> None:
    """Whoever asks next reads nothing again."""
    log = unsafe_log(tmp_path)
    say(log, revoked(BOB, 0))
    verify_log(log, BOTH)
    found = log.memory.searched("ledger/test")
    assert found is not None
    assert (found[0].size, found[1]) == (1, (0,))


def publish(log: Log, folder: Path, digest: Digest, policy: Policy) -> Path:
    lines, receipt = bundle.export(log, [digest], policy=policy)
    folder.mkdir()
    (folder / "x.attestations.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    artifacts = [{"stage": "s", "output": "model", "digest": str(digest)}]
    (folder / "x.alloy.json").write_text(json.dumps({"results": {"artifacts": artifacts}, "receipt": {"ledger": receipt}}))
    return folder / "x.alloy.json"


def test_key_events_travel_and_narrow_far_away(tmp_path: Path) -> None:
    """A reader who still trusts the revoked key learns of it from the attestations, and what they claim fails."""
    log = unsafe_log(tmp_path)
    append_runs(by(tmp_path, "bob"), RUNS[:1])
    append_runs(log, RUNS[1:2])
    say(log, revoked(EVE, 0))
    say(log, revoked(BOB, 0, reason="stolen"))
    entries = bundle.closure(log, [RUNS[1][1]["model"]], BOTH)
    assert [entry.number for entry in entries] == [0, 1, 3], "the event about a key that signed nothing of it stays at home"
    report = verify_alloy(publish(log, tmp_path / "out", RUNS[0][1]["model"], BOTH), BOTH)
    assert report.exit_code == 3
    assert "bob was revoked from entry 0 on (entry 3, said by alice: 'stolen')" in texts(report, "proven")
    assert verify_alloy(publish(log, tmp_path / "good", RUNS[1][1]["model"], BOTH), BOTH).exit_code == 0


def test_a_revoked_log_key_places_nothing_that_travels(tmp_path: Path) -> None:
    """The checkpoint of a receipt by a key that the bundle itself says is revoked proves no places."""
    log = unsafe_log(tmp_path, signer="bob")
    append_runs(log, RUNS[:1])
    say(log, KeyEvent(event="superseded", key=BOB, successor=EVE, from_entry=2))
    lines, receipt = bundle.export(log, [RUNS[0][1]["model"]])
    policy = unsafe_policy("bob")
    travelled = bundle.Bundle(b"\n".join(lines), bundle.Receipt.parse(receipt), policy)
    assert travelled.anchored_by == ()
    assert {entry.number for entry in travelled.entries} == {UNPLACED}
    assert travelled.policy is not None
    assert travelled.policy.spans["bob"] == Span(0, 2)


def test_a_log_goes_on_under_the_new_key(tmp_path: Path) -> None:
    """After a rotation, a reader who trusts both verifies everything, on a machine that has never seen the log."""
    log = unsafe_log(tmp_path)
    append_runs(log, RUNS[:2])
    say(log, KeyEvent(event="superseded", key=ALICE, successor=BOB, from_entry=3))
    say(by(tmp_path, "bob"), KeyEvent(event="added", key=BOB, from_entry=3))
    append_runs(by(tmp_path, "bob"), RUNS[2:4])
    policy = Policy.parse(
        f"version: 1\nkeys: {{alice: {{key: '{ALICE}', until: 3}}, bob: {{key: '{BOB}', from: 3, replaces: alice}}}}\n"
        "rules: [{keys: [alice, bob]}]"
    )
    fresh = Log.open(tmp_path / ".ledger", memory=Memory(tmp_path / "a stranger's machine"))
    for full in (False, True):
        report = verify_log(fresh, policy, full=full)
        assert report.exit_code == 0, report
    assert "signed by alice and bob, bind all entries up to 5" in texts(report, "proven")
    assert verify_alloy(publish(fresh, tmp_path / "out", RUNS[3][1]["model"], policy), policy).exit_code == 0


def test_a_retired_key_vouches_only_for_what_was_accepted_here(tmp_path: Path) -> None:
    """A thief of a retired key goes on from the last accepted checkpoint, at places where the key still counts: nobody vouches for them."""
    policy = Policy.parse(f"version: 1\nkeys: {{alice: {{key: '{ALICE}', until: 100}}}}\nrules: [{{keys: [alice]}}]")
    log = unsafe_log(tmp_path)
    append_runs(log, RUNS[:2])
    assert verify_log(log, policy).exit_code == 0
    thief = Log.open(tmp_path / ".ledger", signer=UnsafeSigner("alice"), memory=Memory(tmp_path / "the thief's"))
    append_runs(thief, RUNS[2:4])
    assert verify_artifact(RUNS[3][1]["model"], by(tmp_path, "alice"), policy).exit_code == 3
    assert verify_artifact(RUNS[1][1]["model"], by(tmp_path, "alice"), policy).exit_code == 0


def test_a_log_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """Rather than a policy that trusts too much."""
    log = unsafe_log(tmp_path)
    append_runs(log, RUNS[:2])
    for pack in (tmp_path / ".ledger/log.git/objects").rglob("*.pack"):
        pack.write_bytes(b"")
    with pytest.raises(LogError):
        standing.of(Log.open(tmp_path / ".ledger", memory=Memory(tmp_path / "elsewhere")), BOTH)

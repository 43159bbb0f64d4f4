"""`ledger verify --rerun`: a second person makes a ledger's runs again, in real worker processes."""

from __future__ import annotations

import json

import pytest

from ledger.key_store import KeyStore
from ledger.log import Log
from ledger.predicates import byproducts_of
from ledger.testing import run_payload
from store.digest import Digest
from tests.cli.conftest import Desk


@pytest.fixture
def both(done: Desk) -> Desk:
    """Bob has a key too, and the ledger trusts both."""
    done.ok("key", "new", "bob")
    trust(done, "bob", "keys: [alice, bob]")
    return done


def trust(desk: Desk, name: str, rule: str) -> None:
    public = {known: public for known, public, _ in KeyStore(desk.root / "keys").list()}[name]
    policy = desk.ledger / "policy.yaml"
    text = policy.read_text().replace("keys:\n", f'keys:\n  {name}: "{public}"\n', 1)
    policy.write_text(text.replace("keys: [alice]", rule, 1))


def forge(desk: Desk, number: int, lie: bytes) -> int:
    """A wrong result of the same action, signed by alice."""
    log = Log.open(desk.ledger, signer=KeyStore(desk.root / "keys").load("alice", None))
    statement = log.entry(number).statement
    from ledger.predicates import action_of

    outputs = dict.fromkeys(statement.subjects, Digest.of(lie))
    return log.append([run_payload(action_of(statement), outputs)], ["a lie"])[0].number


def test_everything_again(both: Desk) -> None:
    """All runs of the ledger come out the same: `status` and `verify` say who confirms them, and nothing is left to do."""
    said = both.ok("verify", "--rerun", "--key", "bob", "-j", "1")
    lines = said.out.splitlines()
    assert lines[0].startswith("again 6 runs by alice")
    assert lines[0].endswith("; bob signs what comes out")
    assert lines[1] == "plan  6 actions: 0 found, 6 to do"
    assert "proven         5 runs of acme-shout (entries 0-4) came out the same to the byte; confirmed by 2: alice, bob" in lines
    assert lines[-1] == "VERIFIED"
    status = both.ok("status").out.splitlines()
    assert "6 runs: 6 confirmed by a second key (alice, bob)" in status
    assert both.ok("status", "--json").json["actions"] == {
        "total": 6, "again": 6, "confirmed": 6, "contradicted": 0, "names": ["alice", "bob"],
    }  # fmt: skip
    shown = both.ok("verify", "shouting:acme-fan.total").out
    assert "6 of 6 runs are confirmed by a second key, with equal outputs: alice, bob" in shown
    assert "alone says so" not in shown
    again = both.ok("verify", "--rerun", "--key", "bob")
    assert again.out == "nothing to do: no run has one key alone behind it\n"
    assert both.ok("verify").code == 0


def test_one_run_by_its_number_or_key(both: Desk) -> None:
    """The number of an entry, or digits of a key, mean one run; a claim means the work behind it; the new entry names the old one."""
    before = both.ok("verify", "shouting:acme-fan.total").out
    assert "alice alone says so, nobody else has made them again   → ledger verify --rerun 5" in before
    key = both.ok("show", "2", "--json").json["key"]
    said = both.ok("verify", "--rerun", key[:15], "--key", "bob")
    assert "entry 2, acme-shout by alice, came out the same to the byte (entry 7 by bob): text sha256:" in said.out
    assert "; confirmed by 2: alice, bob" in said.out
    log = Log.open(both.ledger)
    assert byproducts_of(log.entry(7).statement)["rerun"]["envelope"] == str(log.entry(2).digest)
    claim = both.ok("verify", "--rerun", "6", "--key", "bob")
    assert "entry 5, acme-count by alice," in claim.out
    told = both.ok("verify", "--rerun", "#0", "--key", "bob", "--json").objects[-1]
    assert (told["exit_code"], told["reruns"][0]["outcome"], told["reruns"][0]["confirmed_by"]) == (0, "equal", ["alice", "bob"])


def test_confirming_oneself(done: Desk) -> None:
    """One's own runs are not made again unasked; when asked for they are, and it is said that this adds no voice."""
    said = done.ok("verify", "--rerun")
    assert said.out.startswith("nothing to do: 6 runs only you vouch for, as alice; another key confirms them: --key NAME.")
    said = done.ok("verify", "--rerun", "0")
    assert "confirmed by nobody else" in said.out
    assert "attested       that it went as attested: alice alone says so, and counts once" in said.out
    assert said.out.splitlines()[-1] == "VERIFIED with 1 claim unconfirmed"
    assert "6 runs: 6 by one key alone → ledger verify --rerun" in done.ok("status").out


def test_contradiction(both: Desk) -> None:
    """A false result of a trusted key: both are shown and kept, exit code 3, and everything that meets it says so."""
    number = forge(both, 1, b"a lie")
    said = both.type("verify", "--rerun", str(number), "--key", "bob")
    assert said.code == 3
    assert f"FAILED         entry {number}, acme-shout by alice, came out different (entry {number + 1} by bob): " in said.out
    assert f"text {Digest.of(b'a lie')} before, " in said.out
    assert both.type("verify", "shouting:acme-fan.total").code == 3
    assert both.type("run", "recipe.yaml", "--key", "bob").code == 3
    assert "1 run with results that differ → ledger verify" in both.ok("status").out
    rest = both.type("verify", "--rerun", "--key", "bob")
    assert rest.code == 3
    assert "has results that differ already (entry 1)" in rest.out
    honest = both.type("verify", "--rerun", "1", "--key", "bob")
    assert honest.code == 3
    assert "entry 1, acme-shout by alice, came out the same to the byte" in honest.out
    assert "has two trusted results that differ in text" in honest.out


def test_what_cannot_be_made_again(both: Desk) -> None:
    """A missing input is exit code 1, with the object and the run that makes it."""
    text = both.ok("show", "0", "--json").json["outputs"]["text"]
    (both.ledger / "objects" / text[7:9] / text[9:]).unlink()
    log = Log.open(both.ledger)
    user = next(entry.number for entry in log.entries() if text in map(str, _inputs(entry)))
    said = both.type("verify", "--rerun", str(user), "--key", "bob")
    assert said.code == 1
    assert f"could not be made again: its input text, {text}, is not in the store" in said.out
    assert "`ledger verify --rerun 0` makes it again" in said.out
    both.ok("verify", "--rerun", "0", "--key", "bob")
    both.ok("verify", "--rerun", str(user), "--key", "bob")


def _inputs(entry: object) -> list[Digest]:
    from ledger.entries import Entry
    from ledger.predicates import RUN, action_of

    assert isinstance(entry, Entry)
    return list(action_of(entry.statement).inputs.values()) if entry.statement.predicate_type == RUN else []


def test_usage(both: Desk) -> None:
    """What names no run, a key that would count for nothing, options that mean nothing: exit code 2 before anything runs."""
    assert "say which one signs: --key NAME" in both.type("verify", "--rerun", "0").err
    for target, words in (("nope", "takes the number of an entry or a KEY"), ("ffffffff", "nothing in"), ("7777", "nothing in")):
        said = both.type("verify", "--rerun", target, "--key", "bob")
        assert (said.code, words in said.err) == (2, True), said
    text = both.ok("show", "0", "--json").json["outputs"]["text"]
    assert "is an object; the run that made it can be made again: ledger verify --rerun 0" in both.type("verify", "--rerun", text).err
    both.ok("key", "new", "eve")
    said = both.type("verify", "--rerun", "0", "--key", "eve")
    assert (said.code, "so what it signs would count for nothing here" in said.err) == (2, True)
    said = both.type("verify", "--tolerance", "0.1")
    assert (said.code, "mean nothing without --rerun" in said.err) == (2, True)
    assert json.loads(both.ok("status", "--json").out)["entries"] == 7

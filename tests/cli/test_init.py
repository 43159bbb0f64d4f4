from __future__ import annotations

import stat
from pathlib import Path

import pytest

from ledger.key_store import KeyStore
from ledger.policy import Policy
from tests.cli.conftest import Desk


def test_alone_it_says_what_to_type_first(desk: Desk) -> None:
    """Without a ledger, `ledger` names the recipe that lies here as the first thing to run."""
    said = desk.ok()
    assert said.out.splitlines()[0] == "no ledger here yet"
    assert "ledger run recipe.yaml" in said.out
    assert not desk.ledger.exists()


def test_init_makes_ledger_key_and_policy(desk: Desk) -> None:
    """One step makes everything; the key is private and outside the ledger, and the policy trusts it."""
    said = desk.ok("init")
    assert said.out.startswith("made .ledger (key alice ed25519:")
    key = desk.root / "keys/alice"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    public = KeyStore(desk.root / "keys").load("alice", None).public
    assert Policy.load(desk.ledger / "policy.yaml").keys["alice"] == public
    assert (desk.ledger / ".gitignore").read_text() == "*\n"
    said = desk.type("verify")
    assert (said.code, said.out.splitlines()[-1]) == (3, "NOT VERIFIED")  # nothing is in it yet, and nothing is proven


def test_init_never_replaces(desk: Desk) -> None:
    """A second init fails and changes nothing; so does one on a folder that is something else."""
    desk.ok("init")
    before = {path: path.read_bytes() for path in desk.ledger.rglob("*") if path.is_file()}
    said = desk.type("init")
    assert (said.code, "is a ledger already; nothing was changed" in said.err) == (1, True)
    assert {path: path.read_bytes() for path in desk.ledger.rglob("*") if path.is_file()} == before
    (desk.folder / "notes").mkdir()
    (desk.folder / "notes/a.txt").write_text("mine")
    assert desk.type("init", "--ledger", "notes").code == 1
    assert [item.name for item in (desk.folder / "notes").iterdir()] == ["a.txt"]


def test_init_finishes_what_was_cut_off(desk: Desk) -> None:
    """A folder without a log is no ledger yet: the next init completes it, and keeps a policy that is there."""
    desk.ok("init")
    policy = (desk.ledger / "policy.yaml").read_text()
    for path in ("index.sqlite", "log.git"):
        target = desk.ledger / path
        _remove(target)
    for left in desk.ledger.iterdir():
        if left.name not in ("policy.yaml", ".gitignore"):
            _remove(left)
    _remove(desk.root / "state")
    desk.ok("init")
    assert (desk.ledger / "policy.yaml").read_text() == policy


def _remove(path: Path) -> None:
    import shutil

    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def test_a_key_that_is_there_is_used(desk: Desk) -> None:
    """The only key signs in a new ledger; of several, one has to be named."""
    desk.ok("key", "new", "work")
    assert desk.ok("init").out.startswith("made .ledger (your key work ")
    desk.ok("key", "new", "home")
    said = desk.type("init", "--ledger", "other")
    assert (said.code, "there are several keys: home, work; say which" in said.err) == (2, True)
    assert not (desk.folder / "other").exists()
    assert desk.ok("init", "--ledger", "other", "--key", "home", "--json").json["key"]["new"] is False


def test_a_passphrase_protects_the_key(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key is encrypted with LEDGER_PASSPHRASE; without it nothing can be signed, but everything can be read."""
    monkeypatch.setenv("LEDGER_PASSPHRASE", "correct horse")
    desk.ok("init", "--passphrase")
    assert desk.ok("key", "list", "--json").json["own"][0]["encrypted"] is True
    desk.ok("run", "recipe.yaml", "-j", "1")
    monkeypatch.setenv("LEDGER_PASSPHRASE", "wrong")
    (desk.folder / "recipe.yaml").write_text((desk.folder / "recipe.yaml").read_text().replace("marks: 3", "marks: 4"))
    said = desk.type("run", "recipe.yaml")
    assert (said.code, "wrong passphrase for the key 'alice'" in said.err) == (1, True)
    monkeypatch.delenv("LEDGER_PASSPHRASE")
    said = desk.type("run", "recipe.yaml")
    assert (said.code, "LEDGER_PASSPHRASE" in said.err) == (1, True)
    assert desk.ok("status", "--json").json["entries"] == 7
    desk.ok("verify")


def test_the_ledger_is_found_from_below_and_by_name(done: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The nearest .ledger above counts; --ledger and LEDGER_DIR name another, --ledger first."""
    deep = done.folder / "a/b"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    assert done.ok("status", "--json").json["ledger"] == str(done.ledger)
    done.ok("init", "--ledger", done.root / "second")
    monkeypatch.setenv("LEDGER_DIR", str(done.root / "second"))
    assert done.ok("status", "--json").json["entries"] == 0
    assert done.ok("status", "--ledger", done.folder, "--json").json["entries"] == 7
    said = done.type("status", "--ledger", done.root / "keys")
    assert (said.code, "is not a ledger" in said.err) == (1, True)


def test_keys_are_made_listed_and_exported(desk: Desk) -> None:
    """A key is made once, listed without its private part, and exported for policies, ssh and git."""
    public = desk.ok("key", "new", "bob", "--json").json["public"]
    assert desk.type("key", "new", "bob").code == 1
    listed = desk.ok("key", "list", "--json").json
    assert listed["own"] == [{"name": "bob", "public": public, "encrypted": False, "trusted": False}]
    assert desk.ok("key", "export", "bob").out == f'bob: "{public}"\n'
    assert desk.ok("key", "export", "bob", "--as", "ssh").out == (desk.root / "keys/bob.pub").read_text()
    assert desk.ok("key", "export", "bob", "--as", "allowed-signers").out.startswith('bob namespaces="git" ssh-ed25519 ')
    said = desk.type("key", "export", "eve")
    assert (said.code, "there is no key 'eve'; known are bob" in said.err) == (2, True)


def test_a_key_that_the_policy_does_not_name_cannot_sign_here(done: Desk) -> None:
    """When none of one's keys is trusted here, run says which keys there are and what to add."""
    (done.root / "keys/alice").unlink()
    done.ok("key", "new", "mallory")
    said = done.type("run", "recipe.yaml")
    assert said.code == 2
    assert "none of your keys (mallory ed25519:" in said.err
    assert ".ledger/policy.yaml" in said.err

"""`ledger key` and `ledger witness` as a person types them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from cli.workspace import Workspace
from ledger import oms
from ledger.key_store import KeyStore
from ledger.log import Log
from ledger.openssh import ssh_public_text
from ledger.policy import Policy, Span, Witnesses
from ledger.predicates import KeyEvent
from ledger.testing import UnsafeSigner
from ledger.verify import verify_ledger
from tests.cli.conftest import RECIPE, Desk


def policy(desk: Desk) -> Policy:
    return Policy.load(desk.ledger / "policy.yaml")


def ids(desk: Desk, kind: str, comment: str, passphrase: str = "") -> Path:
    """A key of ssh-keygen's, which these tests need."""
    path = desk.root / f"id_{kind}"
    command = ["ssh-keygen", "-q", "-t", kind, "-b", "256", "-N", passphrase, "-C", comment, "-f", str(path)]
    subprocess.run(command, check=True)
    return path


# --- one's own ---------------------------------------------------------------------------------------------------------------------


def test_a_p256_key_is_made_and_signs_no_ledger(desk: Desk) -> None:
    """It is exported as PEM, for model_signing; `init` and `run` say which kind they need."""
    public = desk.ok("key", "new", "oms", "--type", "p256", "--json").json["public"]
    assert public.startswith("ecdsa-p256:")
    assert desk.ok("key", "export", "oms", "--as", "pem").out.startswith("-----BEGIN PUBLIC KEY-----\n")
    said = desk.type("init", "--key", "oms")
    assert (said.code, "oms is an ecdsa-p256 key" in said.err, "Ed25519" in said.err) == (1, True, True)
    assert not desk.ledger.exists()
    desk.ok("init", "--key", "alice")
    assert desk.type("key", "export", "--as", "pem").code == 2


def test_an_ssh_key_is_imported_and_signs(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its passphrase kept; PEM needs it once; a file that is no key is refused."""
    path = ids(desk, "ed25519", "me@laptop", "sesame")
    said = desk.ok("key", "import", "mine", path)
    assert "imported mine, encrypted, to ~/keys/mine" in said.out
    assert (desk.root / "keys/mine").read_bytes() == path.read_bytes()
    monkeypatch.setenv("LEDGER_PASSPHRASE", "sesame")
    desk.ok("init", "--key", "mine")
    desk.ok("run", "recipe.yaml", "-j", "1")
    monkeypatch.delenv("LEDGER_PASSPHRASE")
    private = serialization.load_ssh_private_key(path.read_bytes(), b"sesame")
    encrypted = serialization.BestAvailableEncryption(b"sesame")
    pem = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encrypted)
    (desk.folder / "key.pem").write_bytes(pem)
    said = desk.type("key", "import", "again", "key.pem")
    assert (said.code, "give its passphrase" in said.err) == (1, True)
    monkeypatch.setenv("LEDGER_PASSPHRASE", "sesame")
    assert desk.ok("key", "import", "again", "key.pem", "--json").json["encrypted"] is True
    assert desk.type("key", "import", "odd", "hello.txt").code == 1


@pytest.fixture
def agent(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A machine with an ssh-agent that holds one Ed25519 and one P-256 key."""
    keys = [ids(desk, "ed25519", "me@laptop"), ids(desk, "ecdsa", "work key")]
    running = subprocess.Popen(["ssh-agent", "-D", "-a", str(desk.root / "agent")], stdout=subprocess.DEVNULL)
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(desk.root / "agent"))
        for _ in range(200):
            if subprocess.run(["ssh-add", "-q", *map(str, keys)], env=os.environ, capture_output=True).returncode == 0:
                break
        yield desk
    finally:
        running.terminate()
        running.wait()


def test_a_key_in_an_agent_signs_without_import(agent: Desk) -> None:
    """It is listed, makes a ledger, and signs from then on without being named; nothing is in the folder of keys."""
    listed = agent.ok("key", "list", "--json").json
    assert [one["name"] for one in listed["agent"]] == ["ssh-agent:me@laptop", "ssh-agent:work key"]
    assert "ssh-agent:me@laptop" in agent.ok("key", "list").out
    said = agent.type("init", "--key", "ssh-agent:work key")
    assert (said.code, "work-key is an ecdsa-p256 key" in said.err) == (1, True)
    assert "your key me@laptop" in agent.ok("init", "--key", "ssh-agent:me@laptop").out
    agent.ok("run", "recipe.yaml", "-j", "1")
    assert agent.ok("verify").out.endswith("VERIFIED\n")
    assert not (agent.root / "keys").exists()
    public = ssh_public_text((agent.root / "id_ed25519.pub").read_text())
    assert policy(agent).keys["me@laptop"] == public
    new = agent.ok("key", "rotate", "--json").json
    assert (new["old"], new["new"]) == ("me@laptop", "me@laptop-2")


def test_without_an_agent_its_keys_cannot_be_named(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable; a socket that nobody listens at shows no keys and stops no list."""
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    said = desk.type("init", "--key", "ssh-agent:me")
    assert (said.code, "there is no ssh-agent" in said.err) == (2, True)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(desk.root / "gone"))
    assert desk.ok("key", "list", "--json").json["agent"] == []


def test_the_policy_here_as_json(done: Desk) -> None:
    """For readers and for the verify page, without what the program ships; one key alone makes a policy that trusts it."""
    text = done.ok("key", "export", "--as", "policy").out
    assert list(policy(done).keys) == ["alice", "tiny-moe-example"]
    assert Policy.parse(text) == replace(policy(done), keys={"alice": policy(done).keys["alice"]}, rules=policy(done).rules[:1])
    assert "sha256:" not in text
    assert json.loads(text)["version"] == 1
    alone = Policy.parse(done.ok("key", "export", "alice", "--as", "policy").out)
    assert (list(alone.keys), [rule.keys for rule in alone.rules]) == (["alice"], [("alice",)])


def test_a_publisher_s_policy_for_readers(done: Desk) -> None:
    """A key under the name that readers know, those that it replaced, and the P-256 key, which counts for model.sig alone."""
    done.ok("key", "new", "alice-models", "--type", "p256")
    done.ok("key", "rotate", "alice")
    text = done.ok("key", "export", "alice-2", "--as", "policy", "--named", "acme").out
    found = Policy.parse(text)
    store = KeyStore(done.root / "keys")
    own = {
        called: store.load(name, None).public for called, name in (("acme-1", "alice"), ("acme", "alice-2"), ("acme-model", "alice-models"))
    }
    assert found.keys == own
    assert (found.replaces, found.spans) == ({"acme": "acme-1"}, {"acme-1": Span(0, 8), "acme": Span(8)})
    assert [(rule.keys, rule.predicates) for rule in found.rules] == [
        (("acme-1",), None), (("acme",), None), (("acme-model",), (oms.PREDICATE_TYPE,)),
    ]  # fmt: skip
    (done.root / "readers.json").write_text(text)
    done.ok("run", "recipe.yaml")  # the alloy anew, with a checkpoint of the new key's
    assert done.type("verify", "shouting.alloy.json", "--policy", done.root / "readers.json").code == 0


def test_a_name_for_readers_needs_one_key(done: Desk) -> None:
    """Which key it is must be said, and the name must be able to name one; a stranger's key comes without one's own."""
    for more in (("--named", "x"), ("alice", "--named", "x", "--as", "ssh"), ("alice", "--as", "policy", "--named", "a b")):
        assert done.type("key", "export", *more).code == 2
    done.ok("key", "new", "models", "--type", "p256")
    done.ok("key", "trust", "bob", str(UnsafeSigner("bob").public), "--yes")
    assert list(Policy.parse(done.ok("key", "export", "bob", "--as", "policy").out).keys) == ["bob"]


def test_private_keys_in_a_ledger_are_refused(done: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger is copied and shared: no key is made in one, and none is used that lies there."""
    shutil.copytree(done.root / "keys", done.ledger / "keys")
    monkeypatch.setenv("LEDGER_KEYS", str(done.ledger / "keys"))
    for command in (("key", "new", "more"), ("run", "recipe.yaml"), ("key", "list")):
        said = done.type(*command)
        assert (said.code, "private keys do not belong into a ledger" in said.err) == (1, True), said
    assert not (done.ledger / "keys/more").exists()


# --- rotate ------------------------------------------------------------------------------------------------------------------------


def test_rotation_changes_log_policy_and_signer(done: Desk) -> None:
    """The old key says so and keeps its past, the new one vouches for the log, everything verifies, and runs go on with the new key."""
    (done.ledger / "policy.yaml").write_text((done.ledger / "policy.yaml").read_text().replace("keys:\n", "keys:   # people\n", 1))
    said = done.ok("key", "rotate", "--reason", "yearly")
    assert said.out.startswith("alice is superseded by alice-2 from entry 8 on (entry 7); it keeps what it signed before\n")
    assert "  +  alice-2: {key: " in said.out
    after = policy(done)
    assert (after.spans["alice"], after.spans["alice-2"], after.replaces) == (Span(0, 8), Span(8), {"alice-2": "alice"})
    assert "# people" in (done.ledger / "policy.yaml").read_text()
    events = [KeyEvent.of(Workspace(done.ledger).log.entry(number).statement) for number in (7, 8)]
    assert [(one.event, one.from_entry, one.reason) for one in events] == [("superseded", 8, "yearly"), ("added", 8, "after alice")]
    assert done.ok("verify").out.endswith("VERIFIED\n")
    assert "all 6 found" in done.ok("run", "recipe.yaml").out
    assert done.ok("verify", "shouting.alloy.json").code == 0
    (done.folder / "hello.txt").write_text("again")
    done.ok("run", "recipe.yaml", "-j", "1")
    assert done.ok("log", "-n", "1", "--json").json["signers"] == ["alice-2"]
    assert "alice (until entry 8) and alice-2 (from entry 8) for everything" in done.ok("status").out
    listed = done.ok("key", "list").out
    assert "trusted here from entry 0 until 8" in listed
    said = done.type("run", "recipe.yaml", "--key", "alice")
    assert (said.code, "alice signs no more here: its signatures count up to entry 7" in said.err) == (2, True)


def test_rotation_to_a_key_that_is_there_and_on(done: Desk) -> None:
    """A named key takes over; the next rotation goes on from it; what is superseded cannot be handed over again."""
    done.ok("key", "new", "card")
    assert done.ok("key", "rotate", "alice", "--to", "card", "--json").json["new"] == "card"
    assert done.ok("key", "rotate", "--json").json["new"] == "card-2"
    said = done.type("key", "rotate", "card-2", "--to", "card-2")
    assert (said.code, "another key takes over" in said.err) == (2, True)
    said = done.type("key", "rotate", "nobody")
    assert (said.code, "is not on this machine" in said.err) == (2, True)
    done.ok("key", "new", "oms", "--type", "p256")
    said = done.type("key", "rotate", "--to", "oms")
    assert (said.code, "an Ed25519 key takes over from one" in said.err) == (2, True)
    assert done.ok("verify").out.endswith("VERIFIED\n")


def test_an_interrupted_rotation_is_finished(done: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after the event and before the policy: the ledger has no signer, and says what to do; run again, it goes on."""
    from ledger import policy_text

    before = (done.ledger / "policy.yaml").read_text()
    with monkeypatch.context() as patch:
        patch.setattr(policy_text, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        assert done.type("key", "rotate").code == 130
    assert (done.ledger / "policy.yaml").read_text() == before
    said = done.type("run", "recipe.yaml")
    assert (said.code, "alice signs no more here" in said.err) == (2, True)
    done.ok("key", "rotate", "alice")
    assert policy(done).spans == {"alice": Span(0, 8), "alice-2": Span(8)}
    assert done.ok("verify").out.endswith("VERIFIED\n")
    assert Workspace(done.ledger).log.size == 9


def test_a_p256_key_is_handed_over_too(done: Desk) -> None:
    """It signs its own event, and the ledger's key the log."""
    done.ok("key", "new", "oms", "--type", "p256")
    done.ok("key", "trust", "oms", "oms", "--artifacts", "model", "--yes")
    assert done.ok("key", "rotate", "oms", "--json").json["new"] == "oms-2"
    assert policy(done).spans["oms"] == Span(0, 8)
    assert policy(done).keys["oms-2"].algorithm == "ecdsa-p256"
    assert done.ok("verify").out.endswith("VERIFIED\n")


def test_a_policy_that_cannot_be_changed_stops_a_rotation_before_anything(done: Desk) -> None:
    """Nothing is recorded, and what to write by hand is said."""
    path = done.ledger / "policy.yaml"
    public = policy(done).keys["alice"]
    path.write_text(
        f"version: 1\nkeys: {{alice: '{public}'}}\nrules: [{{keys: &one [alice], artifacts: ['*'], stages: *one}}, {{keys: [alice]}}]\n"
    )
    said = done.type("key", "rotate", "alice")
    assert (said.code, "write by hand" in said.err) == (2, True)
    assert Workspace(done.ledger).log.size == 7


# --- revoke ------------------------------------------------------------------------------------------------------------------------


def test_a_revocation_shows_what_rests_on_the_key_before_and_after(done: Desk) -> None:
    """A dry run changes nothing; then log and policy say so, what was lost is done again, and the counts come first."""
    done.ok("key", "new", "bob")
    done.ok("key", "trust", "bob", "bob", "--yes")
    dry = done.ok("key", "revoke", "alice", "--reason", "stolen", "--since", "1", "--dry-run")
    assert dry.out.splitlines()[:3] == [
        "alice signed 7 statements that count, entries 0 to 6; without it from entry 1 on",
        "  lost        5 actions, 5 artifacts, 0 publications without a trusted signature (6 statements)",
        "  downstream  0 actions, 0 artifacts, 0 publications signed as before, and made of these",
    ]
    assert "nothing was recorded" in dry.out
    assert Workspace(done.ledger).log.size == 7
    found = done.ok("key", "revoke", "alice", "--reason", "stolen", "--since", "1", "--json").json
    assert (found["recorded"], found["from"], found["by"], len(found["actions"]), found["entry"]) == (True, 1, "bob", 5, 7)
    assert {item["name"] for item in found["artifacts"]} == {"text", "total"}
    assert policy(done).spans["alice"] == Span(0, 1)
    assert "5 to do" in done.ok("run", "recipe.yaml", "-j", "1").out
    assert done.ok("verify").out.splitlines()[-1] == "VERIFIED with 1 claim unconfirmed"


def test_downstream_of_a_revoked_key_is_told_apart(done: Desk) -> None:
    """What bob made of alice's results is signed as before, and rests on them; what he confirms is not lost."""
    done.ok("key", "new", "bob")
    done.ok("key", "trust", "bob", "bob", "--yes")
    (done.folder / "more.yaml").write_text(RECIPE.replace("shouting", "more").replace("width: 2", "width: 3"))
    done.ok("run", "more.yaml", "-j", "1", "--key", "bob")
    found = done.ok("key", "revoke", "alice", "--reason", "x", "--since", "0", "--dry-run", "--json").json
    assert (len(found["actions"]), len(found["downstream"]["actions"])) == (6, 3)
    assert done.ok("key", "revoke", "bob", "--reason", "x", "--since", "0", "--dry-run", "--json").json["downstream"]["actions"] == []


def test_the_last_key_revokes_itself_and_what_to_do_is_said(done: Desk) -> None:
    """From now on: nothing is lost, and the ledger waits for a successor, who then vouches for it."""
    said = done.ok("key", "revoke", "alice", "--reason", "lost the laptop")
    assert "all before entry 8, so nothing is lost" in said.out
    assert "it said so itself" in said.out
    said = done.type("run", "recipe.yaml")
    assert (said.code, "none of your keys" in said.err) == (2, True)
    done.ok("key", "new", "new")
    done.ok("key", "trust", "new", "new", "--replaces", "alice", "--from", "8", "--yes")
    (done.folder / "hello.txt").write_text("again")
    done.ok("run", "recipe.yaml", "-j", "1")
    assert done.ok("verify").out.endswith("VERIFIED\n")


def test_revocations_that_cannot_be(done: Desk) -> None:
    """Somebody whom the policy does not name; an entry that is not there; nobody here who may say it."""
    assert "names no key 'eve'" in done.type("key", "revoke", "eve", "--reason", "x").err
    assert "the log has 7 entries" in done.type("key", "revoke", "alice", "--reason", "x", "--since", "9").err
    assert done.type("key", "revoke", "alice").code == 2
    (done.root / "keys/alice").unlink()
    said = done.type("key", "revoke", "alice", "--reason", "x")
    assert (said.code, "write `until: N` beside alice" in said.err) == (2, True)
    assert Workspace(done.ledger).log.size == 7


def test_a_colleague_s_revocation_counts_though_the_policy_is_older(done: Desk) -> None:
    """Bob says in the log that alice's key is gone: her results are no hits on any machine whose policy trusts both."""
    done.ok("key", "new", "bob")
    done.ok("key", "trust", "bob", "bob", "--yes")
    before = (done.ledger / "policy.yaml").read_text()
    done.ok("key", "revoke", "alice", "--reason", "stolen", "--since", "0", "--key", "bob")
    (done.ledger / "policy.yaml").write_text(before)
    assert "6 to do" in done.ok("run", "recipe.yaml", "--dry-run").out
    assert "alice was revoked from entry 0 on (entry 7, said by bob: 'stolen')" in done.ok("verify").out
    assert "not trusted" in done.ok("log").out


# --- trust -------------------------------------------------------------------------------------------------------------------------


def test_a_key_is_shown_before_it_is_trusted(done: Desk) -> None:
    """Without --yes and without a terminal nothing is changed; with it the rule is as narrow as was said."""
    bob = UnsafeSigner("bob").public
    before = (done.ledger / "policy.yaml").read_text()
    said = done.type("key", "trust", "bob", str(bob), "--stages", "gguf-*", "--artifacts", "model", "--from", "5")
    assert said.code == 2
    for words in (str(bob), "SHA256:", "would count for runs of gguf-* about model from entry 5 on", "nothing was changed; say --yes"):
        assert words in said.err
    assert (done.ledger / "policy.yaml").read_text() == before
    done.ok("key", "trust", "bob", str(bob), "--stages", "gguf-*", "--artifacts", "model", "--from", "5", "--yes")
    rule = policy(done).rules[-1]
    assert (rule.keys, rule.stages, rule.artifacts, policy(done).spans["bob"]) == (("bob",), ("gguf-*",), ("model",), Span(5))
    assert "bob" not in policy(done).log_keys
    assert done.type("key", "trust", "bob", str(UnsafeSigner("carol").public), "--yes").code == 2


def test_a_person_at_a_terminal_is_asked(done: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """No is no, and the default."""
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    for answer, code in (("n", 130), ("", 130), ("y", 0)):
        monkeypatch.setattr("click.termui.visible_prompt_func", lambda _, answer=answer: answer)
        assert done.type("key", "trust", "bob", str(UnsafeSigner("bob").public)).code == code
    assert "bob" in policy(done).keys


def test_a_key_is_given_in_any_form_that_people_have(done: Desk) -> None:
    """A line of ssh, a .pub file, a line as `key export` prints it, a key of one's own; nothing else."""
    done.ok("key", "new", "own")
    line = (done.root / "keys/own.pub").read_text()
    exported = done.ok("key", "export", "own").out.strip()
    for number, form in enumerate((line, str(done.root / "keys/own.pub"), exported, "own")):
        said = done.type("key", "trust", f"k{number}", form)
        assert str(KeyStore(done.root / "keys").load("own", None).public) in said.err
    for form in ("hello", "ed25519:AAAA", "ssh-rsa AAAA", "hello.txt"):
        said = done.type("key", "trust", "x", form, "--yes")
        assert (said.code, "a key is ed25519:.. text" in said.err) == (2, True)


def test_a_foreign_ledger_s_policy_is_not_changed(done: Desk) -> None:
    """It was written by whoever made it; name the ledger once when it is yours."""
    shutil.rmtree(done.root / "state")
    for command in (("trust", "x", str(UnsafeSigner("x").public), "--yes"), ("rotate",), ("revoke", "alice", "--reason", "x")):
        said = done.type("key", *command)
        assert (said.code, "was not made by you on this machine" in said.err) == (2, True)


# --- witnesses ---------------------------------------------------------------------------------------------------------------------


def test_a_witness_cosigns_and_a_policy_wants_it(done: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trusted as a witness it makes no statement count; with it the ledger verifies, a month later it is frozen."""
    done.ok("key", "new", "w")
    done.ok("key", "trust", "w", "w", "--witness", "30d", "--yes")
    assert '"30d"' in (done.ledger / "policy.yaml").read_text()
    assert '"maxAge": "30d"' in done.ok("key", "export", "--as", "policy").out
    assert policy(done).checkpoints == Witnesses(("w",), 1, 30 * 86_400)
    assert all("w" not in rule.keys for rule in policy(done).rules)
    said = done.type("verify")
    assert (said.code, "none of them ever did" in said.out) == (3, True)
    assert done.ok("witness", "--key", "w").out.startswith("saw ledger/")
    assert "w saw this log at 7 entries, " in done.ok("verify").out
    now = Path("/proc/uptime").stat().st_mtime
    monkeypatch.setattr("time.time", lambda: now + 40 * 86_400)
    said = done.type("verify")
    assert (said.code, "have seen this log in the last 30 d" in said.out) == (3, True)


def test_a_witness_refuses_a_fork_with_both_checkpoints(done: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two copies of one ledger go different ways; the witness saw the first. Exit code 3, and the evidence."""
    done.ok("key", "new", "w")
    fork = done.root / "fork"
    shutil.copytree(done.ledger, fork)
    for folder, word in ((done.ledger, "one"), (fork, "two")):
        monkeypatch.setenv("XDG_STATE_HOME", str(done.root / f"machine {word}"))
        (done.folder / "hello.txt").write_text(word)
        done.ok("run", "recipe.yaml", "-j", "1", "--ledger", folder, "--key", "alice")
    monkeypatch.setenv("XDG_STATE_HOME", str(done.root / "the witness's"))
    done.ok("witness", done.ledger, "--key", "w")
    said = done.type("witness", fork, "--key", "w")
    assert said.code == 3
    assert said.out.startswith("REFUSED w cosigns no fork and no rollback")
    notes = [(Log.open(folder).checkpoint or b"").decode().splitlines()[2] for folder in (done.ledger, fork)]
    assert all(f"  {root}\n" in said.out for root in notes)
    found = done.type("witness", fork, "--key", "w", "--json").json
    assert set(found["evidence"]) == {"seen", "found"}
    assert not (fork / "witnessed").exists()


def test_a_checkpoint_travels_to_a_witness_elsewhere_and_back(done: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request, a cosigned note, and the ledger keeps it."""
    done.ok("key", "new", "w")
    (done.folder / "request").write_text(done.ok("witness", "--request", "0").out)
    monkeypatch.setenv("XDG_STATE_HOME", str(done.root / "the witness's"))
    shown = done.ok("witness", "request", "--key", "w").out
    done.ok("witness", "request", "--key", "w", "--out", "cosigned")
    assert (done.folder / "cosigned").read_text().splitlines()[:4] == shown.splitlines()[:4]
    monkeypatch.setenv("XDG_STATE_HOME", str(done.root / "state"))
    done.ok("witness", "--take", "cosigned")
    assert verify_ledger(done.ledger, policy(done)).exit_code == 0
    assert [path.name for path in (done.ledger / "witnessed").iterdir()] == ["7"]
    said = done.type("witness", "nowhere")
    assert (said.code, "is no ledger and no file" in said.err) == (2, True)
    said = done.type("witness")
    assert (said.code, "say which key witnesses" in said.err) == (2, True)


# --- nobody ------------------------------------------------------------------------------------------------------------------------


def test_a_policy_that_trusts_nobody_says_so(done: Desk) -> None:
    """In status, in a verdict, and to whoever runs: never a silent yes or no."""
    (done.ledger / "policy.yaml").write_text("version: 1\n")
    assert "trusts nobody" in done.ok("status").out
    said = done.type("verify")
    assert (said.code, "(nobody) signed this one" in said.out) == (3, True)
    said = done.type("verify", "shouting.alloy.json")
    assert said.code == 3
    assert ".ledger/policy.yaml has no rules, so it trusts nobody" in said.out
    (done.ledger / "policy.yaml").write_text("")
    said = done.type("verify")
    assert (said.code, "an empty policy trusts nobody" in said.err) == (2, True)

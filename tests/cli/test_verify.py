from __future__ import annotations

import shutil
import subprocess

import pytest

from cli.verify import in_short
from ledger.log import Log
from ledger.policy import Policy
from ledger.report import Row
from tests.cli.conftest import Desk


def statuses(desk: Desk, *arguments: str) -> tuple[int, list[str], str]:
    """Exit code, the status of each row, the verdict."""
    said = desk.type("verify", *arguments, "--json")
    return said.code, [row["status"] for row in said.json["rows"]], said.json["verdict"]


def test_the_whole_ledger(done: Desk) -> None:
    """Without a target the ledger is verified, a line for each finding, the verdict last."""
    lines = done.ok("verify").out.splitlines()
    assert lines[-1] == "VERIFIED"
    assert all(line.startswith("proven       ") for line in lines[:-1])
    assert statuses(done, "--full")[2] == "VERIFIED"


def test_an_exported_file_by_the_ledger(done: Desk) -> None:
    """A file is recognised by its bytes, whatever it is called; one changed byte is exit code 3."""
    done.ok("export", "shouting:acme-shout.text", "out.txt")
    code, rows, verdict = statuses(done, "out.txt")
    assert (code, "failed" in rows, verdict) == (0, False, "VERIFIED with 2 claims unconfirmed")
    (done.folder / "changed.txt").write_bytes((done.folder / "out.txt").read_bytes().replace(b"H", b"J"))
    assert statuses(done, "changed.txt")[0] == 3
    assert "FAILED" in done.type("verify", "changed.txt").out


def test_an_object_by_name_and_its_stored_bytes(done: Desk) -> None:
    """A digest, an abbreviation or RECIPE:OUTPUT is verified with the bytes in the store; damage there is exit code 3."""
    digest = done.ok("show", "shouting", "--json").json["outputs"][0]["digest"]
    for name in (digest, digest[7:15], "shouting:acme-shout.text"):
        assert statuses(done, name)[0] == 0
    said = done.ok("verify", digest)
    assert "its bytes in the store (1 object) hash to their names" in said.out
    object_file = done.ledger / "objects" / digest[7:9] / digest[9:]
    object_file.chmod(0o644)
    object_file.write_bytes(b"HELLO!!! 1")
    code, rows, _ = statuses(done, digest)
    assert (code, rows.count("failed")) == (3, 1)


def test_an_alloy_travels_without_its_ledger(done: Desk) -> None:
    """Alloy and attestations are verified in another folder by a policy that the reader names; a file beside them on its own."""
    done.ok("export", "shouting:acme-shout.text", "out.txt")
    away = done.root / "away"
    away.mkdir()
    for name in ("shouting.alloy.json", "shouting.attestations.jsonl", "out.txt"):
        shutil.copy(done.folder / name, away / name)
    shutil.copy(done.ledger / "policy.yaml", done.root / "mine.yaml")
    shutil.rmtree(done.ledger)
    policy = str(done.root / "mine.yaml")
    assert statuses(done, str(away / "shouting.alloy.json"), "--policy", policy)[0] == 0
    assert statuses(done, str(away / "out.txt"), "--policy", policy)[0] == 0
    (away / "stranger.txt").write_text("not what was attested")
    code, rows, verdict = statuses(done, str(away / "stranger.txt"), "--policy", policy)
    assert (code, rows, verdict) == (3, ["failed"], "FAILED")


def test_an_alloy_is_verified_right_after_its_run(done: Desk) -> None:
    """In a working folder, with a virtual environment, weights of others and a ledger in it, the alloy of a run is true at once."""
    (done.folder / ".venv").mkdir()
    (done.folder / ".venv/python3").symlink_to("/usr/bin/env")
    (done.folder / "data").mkdir()
    (done.folder / "data/other.npz").write_bytes(b"of something else")
    said = done.ok("verify", "shouting.alloy.json")
    assert "other.npz" not in said.out
    assert "recipeHash is that of the recipe as it stands there" in said.out
    assert "a trusted run is attested of each of the" in said.out


def test_a_file_beside_an_alloy_is_judged_alone(done: Desk) -> None:
    """An attested file is verified without its ledger though a stranger's weights lie beside it, and they are not."""
    done.ok("export", "shouting:acme-shout.text", "out.txt")
    policy = done.root / "mine.yaml"
    shutil.copy(done.ledger / "policy.yaml", policy)
    shutil.rmtree(done.ledger)
    (done.folder / "evil.gguf").write_bytes(b"GGUF")
    assert statuses(done, "out.txt", "--policy", str(policy))[0] == 0
    assert statuses(done, "shouting.alloy.json", "--policy", str(policy))[0] == 0
    assert statuses(done, "evil.gguf", "--policy", str(policy))[0] == 3
    assert statuses(done, ".", "--policy", str(policy))[0] == 3


def test_nobody_is_trusted_by_default(done: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a ledger and a policy only the keys that come with the program count, and they vouch for nothing of a stranger."""
    shutil.rmtree(done.ledger)
    monkeypatch.setattr(Policy, "shipped", classmethod(lambda cls: {}))
    said = done.type("verify", "shouting.alloy.json")
    assert (said.code, "whom to trust?" in said.err) == (2, True)


def test_a_policy_inside_the_target_is_never_used(done: Desk) -> None:
    """Whoever made a folder may have put a policy in it: it is refused, unless the reader names it."""
    said = done.type("verify", ".")
    assert (said.code, "lies inside ., so whoever made . may have written it" in said.err) == (2, True)
    assert done.type("verify", ".", "--policy", ".ledger/policy.yaml").code == 0


def test_a_ledger_of_somebody_else_says_whose_policy_it_is(done: Desk) -> None:
    """A policy that trusts none of one's own keys is pointed out: it may have come with the ledger."""
    (done.root / "keys/alice").unlink()
    said = done.ok("verify")
    assert "unverified     who wrote .ledger/policy.yaml: it names no key of yours" in said.out
    assert "who wrote" not in done.ok("verify", "--policy", ".ledger/policy.yaml").out


def test_another_policy_makes_other_findings(done: Desk) -> None:
    """What one reader trusts another need not: with a policy that names other keys nothing counts."""
    done.ok("key", "new", "bob")
    line = done.ok("key", "export", "bob").out
    (done.root / "bob.yaml").write_text(f"version: 1\nkeys:\n  {line}rules:\n  - keys: [bob]\n")
    code, rows, verdict = statuses(done, "--policy", str(done.root / "bob.yaml"))
    assert (code, verdict) == (3, "FAILED")
    assert "failed" in rows


def test_a_rolled_back_ledger_is_noticed_by_every_command(done: Desk) -> None:
    """A ledger that lost an entry is refused with exit code 3, by verify with both checkpoints, and status still shows the rest."""
    git = ["git", "-C", str(done.ledger / "log.git")]
    subprocess.run([*git, "update-ref", "refs/heads/ledger", "refs/heads/ledger~1"], check=True)
    said = done.type("verify")
    assert said.code == 3
    assert "was rolled back: it has 6 entries, 7 were accepted before" in said.out
    assert "Evidence: accepted: ledger/" in said.out
    status = done.type("status")
    assert status.code == 3
    assert status.out.startswith("broken: the log in ")
    assert "trusts alice for everything" in status.out
    for command in (["log"], ["run", "recipe.yaml"], ["show", "0"], ["gc"]):
        said = done.type(*command)
        assert (said.code, "rolled back" in said.err) == (3, True), command


def test_an_entry_of_an_untrusted_key_counts_for_nothing(done: Desk) -> None:
    """An entry that somebody else appended is shown as not trusted, is not found by a run, and why says so."""
    done.ok("key", "new", "eve")
    (done.folder / "recipe.yaml").write_text((done.folder / "recipe.yaml").read_text().replace("marks: 3", "marks: 4"))
    done.ok("run", "recipe.yaml", "--key", "eve", "-j", "1") if False else None
    from ledger.key_store import KeyStore
    from ledger.statement import make

    log = Log.open(done.ledger, signer=KeyStore(done.root / "keys").load("eve", None))
    old = log.entry(0).statement
    log.append([make(old.subjects, old.predicate_type, old.predicate)], ["a forged result"])
    lines = done.ok("log").out.splitlines()
    assert "not trusted" in lines[0]
    assert "a forged result" in lines[0]
    shown = done.ok("show", "7").out
    assert "not trusted: " in shown
    assert done.ok("log", "--json", "-n", "1").json["trusted"] is False


def test_commits_verify_with_plain_git(done: Desk) -> None:
    """Stock git accepts the commits with the exported allowed_signers."""
    (done.root / "signers").write_text(done.ok("key", "export", "--as", "allowed-signers").out)
    git = ["git", "-C", str(done.ledger / "log.git"), "-c", f"gpg.ssh.allowedSignersFile={done.root / 'signers'}"]
    ran = subprocess.run([*git, "verify-commit", "ledger"], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert 'Good "git" signature' in ran.stderr


@pytest.mark.parametrize("target", ["nothing-here.gguf", "4be1f00d", "other:model"])
def test_what_is_not_there(done: Desk, target: str) -> None:
    """A target that names nothing is exit code 2 and says what could be named."""
    said = done.type("verify", target)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("error: ")


def test_many_steps_back_are_told_in_one_line_unless_asked() -> None:
    """The way back of a long run is one finding; -v and --json give each step. A few steps stay as they are."""
    steps = [Row("proven", f"from stage-{number} (entry {number})", step=f"stage-{number}") for number in range(6)]
    around = [Row("proven", "it came out of quant"), *steps, Row("attested", "that it went so")]
    shown = list(in_short(around))
    assert [row.text for row in shown] == [
        "it came out of quant",
        "from stage-0, stage-1, stage-2, stage-3, stage-4, stage-5: each of these steps is signed",
        "that it went so",
    ]
    assert list(in_short(around[:4])) == around[:4]

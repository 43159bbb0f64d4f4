"""A ledger, with its policy, that came in a folder of somebody else: nothing is verified or taken from it by its own word."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

from cli.main import main
from tests.cli.conftest import RECIPE, Desk, settle


def downloaded(desk: Desk, victim: str) -> Path:
    """A folder that eve made: a ledger in which she ran the recipe, its results, and a policy that also names the victim's key."""
    import pytest

    folder = desk.root / "eve/work"
    with pytest.MonkeyPatch.context() as patch:
        settle(desk.root / "eve", patch)
        (folder / "hello.txt").write_text("hello")
        (folder / "recipe.yaml").write_text(RECIPE)
        assert main(["run", "recipe.yaml", "-j", "1"]) == 0
    policy = folder / ".ledger/policy.yaml"
    policy.write_text(policy.read_text().replace("keys:\n  alice", f'keys:\n  victim: "{victim}"\n  alice', 1))
    return folder


def test_policy_that_came_with_the_files(desk: Desk) -> None:
    """Naming the reader's public key, which everybody knows, makes a foreign policy no policy of his: verify and run refuse it."""
    victim = desk.ok("key", "new", "me").out.splitlines()[1].split('"')[1]
    os.chdir(downloaded(desk, victim))
    for command in (
        ["verify"],
        ["verify", "shouting.alloy.json"],
        ["verify", "hello.txt"],
        ["run", "recipe.yaml"],
        ["run", "recipe.yaml", "--dry-run"],
    ):
        said = desk.type(*command)
        assert (said.code, ".ledger was not made by you on this machine" in said.err) == (2, True), said
    assert "say whom you trust: --policy FILE" in desk.type("verify").err
    (desk.root / "mine.yaml").write_text(f'version: 1\nkeys: {{me: "{victim}"}}\nrules: [{{keys: [me]}}]\n')
    assert desk.type("verify", "shouting.alloy.json", "--policy", desk.root / "mine.yaml").code == 3
    assert desk.type("verify", "shouting.alloy.json").code == 2


def test_ledger_that_was_moved_is_named_once(done: Desk) -> None:
    """Who moved his own ledger says so once, by naming it."""
    shutil.move(done.folder, done.root / "moved")
    os.chdir(done.root / "moved")
    assert done.type("run", "recipe.yaml").code == 2
    done.ok("verify", "--ledger", ".ledger")
    done.ok("run", "recipe.yaml")
    done.ok("verify", "shouting.alloy.json")


def test_what_was_hashed_before_is_not_believed_about_a_file(done: Desk) -> None:
    """`stat.sqlite` lies in the ledger's folder; a file that is verified is hashed here and now."""
    done.ok("export", "shouting:acme-shout.text", "out.txt")
    digest = done.ok("show", "shouting", "--json").json["outputs"][0]["digest"]
    evil = done.folder / "evil.txt"
    evil.write_bytes(b"evil")
    found = evil.stat()
    row = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, digest, None)
    with sqlite3.connect(done.ledger / "stat.sqlite") as db:
        db.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    db.close()
    assert done.type("verify", "evil.txt").code == 3
    done.ok("verify", "out.txt")

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.cli.conftest import RECIPE, Desk


def test_the_first_run_sets_everything_up(desk: Desk) -> None:
    """One command on a fresh machine: it says in one line what it made, what it did, where things are, what to type next."""
    said = desk.ok("run", "recipe.yaml", "-j", "1")
    lines = said.out.splitlines()
    assert lines[0].startswith("no ledger here yet: made .ledger (key alice ed25519:")
    assert lines[1] == "plan  6 actions: 0 found, 6 to do"
    assert [line.split()[0] for line in lines[2:4]] == ["acme-shout", "acme-fan"]
    assert lines[4].startswith("6 results signed · ")
    assert lines[4].endswith(" · shouting.alloy.json · shouting.attestations.jsonl")
    assert lines[5].startswith("next: ledger verify shouting.alloy.json · ")
    assert said.err == ""
    assert "\x1b" not in said.out


def test_the_second_run_finds_all(done: Desk) -> None:
    """Running again finds everything, says whose it is, and signs nothing."""
    lines = done.ok("run", "recipe.yaml").out.splitlines()
    assert lines[0] == "plan  6 actions: 6 found (signed by you), 0 to do"
    assert lines[1].startswith("all 6 found, nothing done · ")
    assert done.ok("status", "--json").json["entries"] == 7


def test_another_recipe_says_what_it_shares(done: Desk) -> None:
    """A recipe that shares a part finds it, and says from which recipe."""
    wider = RECIPE.replace("name: shouting", "name: wider").replace("width: 2", "width: 3")
    (done.folder / "wider.yaml").write_text(wider)
    first = done.ok("run", "wider.yaml", "-j", "1").out.splitlines()[0]
    assert first == "plan  8 actions: 5 found (signed by you, 5 of them from shouting), 3 to do"


def test_a_typo_leaves_nothing_behind(desk: Desk) -> None:
    """A recipe that cannot be read is exit code 2 with its line and the nearest name; no ledger is made for it."""
    (desk.folder / "recipe.yaml").write_text(RECIPE.replace("version", "verison"))
    said = desk.type("run", "recipe.yaml")
    assert said.code == 2
    assert "recipe.yaml: line 2: unknown key 'verison' in the recipe; did you mean 'version'?" in said.err
    assert not desk.ledger.exists()
    assert desk.type("run", "absent.yaml").code == 2


def test_a_dry_run_does_nothing(done: Desk) -> None:
    """--dry-run counts what is found and what is to do, for each stage; nothing is recorded."""
    (done.folder / "recipe.yaml").write_text(RECIPE.replace("width: 2", "width: 3"))
    said = done.ok("run", "-n", "recipe.yaml")
    assert said.out.splitlines()[0] == "plan  8 actions: 5 found (signed by you), 3 to do"
    assert [line.split() for line in said.out.splitlines()[1:]] == [
        ["acme-shout", "1", "found"],
        ["acme-fan", "4", "found", "1", "to", "do", "2", "not", "known", "yet"],
    ]
    assert {"node": "acme-fan/count", "state": "not known yet"} in done.ok("run", "-n", "recipe.yaml", "--json").json["actions"]
    assert done.ok("status", "--json").json["entries"] == 7


def test_a_dry_run_without_a_ledger_makes_none(desk: Desk) -> None:
    """There is nothing to look in, and a dry run does not make anything."""
    said = desk.type("run", "--dry-run", "recipe.yaml")
    assert (said.code, "everything would be done" in said.err, desk.ledger.exists()) == (1, True, False)


def test_with_json_every_event_is_a_line(done: Desk) -> None:
    """--json: events as they come, the result last; what was set up goes to standard error."""
    said = done.ok("run", "recipe.yaml", "--json")
    kinds = [item["event"] for item in said.objects]
    assert kinds == ["found"] * 6 + ["planned", "result"] or kinds == ["planned"] + ["found"] * 6 + ["result"]
    assert (said.objects[-1]["found"], said.objects[-1]["done"]) == (6, 0)
    assert said.objects[-1]["outputs"]["acme-fan"]["total"].startswith("sha256:")


def test_a_failure_keeps_the_rest(desk: Desk) -> None:
    """A stage that fails is exit code 1 with its own words; what was finished is kept, and a second run starts there."""
    (desk.folder / "recipe.yaml").write_text(RECIPE + "  - {type: acme-trouble, kind: input}\n")
    said = desk.type("run", "recipe.yaml", "-j", "1")
    assert said.code == 1
    assert "acme-trouble: line 1 is not what it claims to be" in said.err
    assert "6 actions of this run are kept; run again to go on." in said.err
    assert "6 found" in desk.type("run", "recipe.yaml").out
    status = desk.ok("status")
    assert "stopped before its end; run it again to go on" in status.out


def test_ctrl_c_keeps_what_is_done(desk: Desk) -> None:
    """An interrupt ends with 130, says how many actions are kept, and the next run goes on from there."""
    slow = RECIPE + "  - {type: acme-trouble, kind: slow}\n"
    (desk.folder / "recipe.yaml").write_text(slow)
    desk.ok("init")
    command = [sys.executable, "-c", "import sys; from cli.main import main; sys.exit(main())", "run", "recipe.yaml", "-j", "1", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if '"started"' in line and "acme-trouble" in line:
                break
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        errors = process.stderr.read()
    assert process.returncode == 130, errors
    kept = re.search(r"interrupted: (\d) actions of this run are kept; run again to go on", errors)
    assert kept is not None, errors
    assert "Traceback" not in errors
    lines = desk.ok("run", "recipe.yaml", "-j", "1").out.splitlines()
    assert lines[0].startswith(f"plan  7 actions: {kept[1]} found")


@pytest.mark.parametrize("option", ["--jobs=0", "--threads=0", "--environment=other"])
def test_impossible_options_are_refused(desk: Desk, option: str) -> None:
    """Exit code 2 before anything is made."""
    assert desk.type("run", "recipe.yaml", option).code == 2
    assert not desk.ledger.exists()

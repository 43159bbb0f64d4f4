"""Looking at a ledger: status, log, show, why."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.cli.conftest import RECIPE, Desk

LEDGER = [sys.executable, "-c", "import sys; from cli.main import main; sys.exit(main())"]


def test_status(done: Desk) -> None:
    """Entries, the last run, whom the ledger trusts, what to type next; `ledger` alone says the same in short."""
    lines = done.ok("status").out.splitlines()
    assert lines[0].startswith(".ledger: 7 entries, the newest ")
    assert "7 objects, " in lines[0]
    assert lines[1].startswith("last run: shouting, ")
    assert lines[1].endswith(" done (6 done)")
    assert lines[2].startswith("trusts alice for everything")
    assert lines[2].endswith("(.ledger/policy.yaml)")
    assert lines[3] == "6 runs: 6 by one key alone → ledger verify --rerun"
    assert lines[4].startswith("next: ledger log")
    assert len(done.ok().out.splitlines()) == 4
    facts = done.ok("status", "--json").json
    assert (facts["entries"], facts["objects"], facts["broken"], facts["last_run"]["recipe"]) == (7, 7, [], "shouting")


def test_status_sees_runs_in_progress_and_killed(done: Desk) -> None:
    """A run whose process lives is in progress; one whose process is gone was killed."""
    record = done.ledger / "runs/zzz@9999-01-01T00:00:00Z-1.json"
    text = '{{"recipe": "other", "pid": {pid}, "startedOn": "9999-01-01T00:00:00Z", "state": "running", "roots": []}}'
    record.write_text(text.format(pid=os.getpid()))
    assert f"in progress: other (process {os.getpid()})" in done.ok("status").out
    with subprocess.Popen(["true"]) as gone:
        pass
    record.write_text(text.format(pid=gone.pid))
    assert "was killed; run it again to go on" in done.ok("status").out
    record.write_text("{")
    assert "last run: shouting" in done.ok("status").out


def test_status_shows_a_broken_policy(done: Desk) -> None:
    """A policy that cannot be read is told with the rest, not instead of it."""
    (done.ledger / "policy.yaml").write_text("version: 2\n")
    said = done.ok("status")
    assert said.out.startswith("broken: ")
    assert "7 objects" in said.out
    assert done.type("log").code == 2


def test_log(done: Desk) -> None:
    """Newest first: number, age, key, who vouches, what was done; -n limits, --stage chooses, --json gives each as an object."""
    lines = done.ok("log").out.splitlines()
    assert [line.split()[0] for line in lines] == [str(number) for number in range(6, -1, -1)]
    assert "alice" in lines[0]
    assert done.ok("log", "-n", "2").out.splitlines()[-1] == "5 older: ledger log -n 0"
    objects = done.ok("log", "--json", "--stage", "acme-shout").objects
    assert [item["entry"] for item in objects] == [4, 3, 2, 1, 0]
    assert all(item["key"].startswith("sha256:") and item["signers"] == ["alice"] for item in objects)
    assert done.ok("log", "--stage", "nope").out == "none of the 7 entries is a run of nope\n"


def test_show_an_entry_in_all_ways(done: Desk) -> None:
    """The number, the whole key and four digits of it show the same entry: stage, spec, inputs, outputs, notes, signer."""
    by_number = done.ok("show", "0").out
    key = done.ok("show", "0", "--json").json["key"]
    assert done.ok("show", key).out == by_number
    assert done.ok("show", key[7:15]).out == by_number
    assert done.ok("show", "#0").out == by_number
    for words in (
        "signed by alice, trusted by .ledger/policy.yaml",
        "acme-shout version 1",
        "marks   3",
        "letters  5",
        "P: the same bytes anywhere",
    ):
        assert words in by_number, words
    facts = done.ok("show", key, "--json").json["entries"][0]
    assert facts["spec"] == {"marks": 3, "number": 0}
    assert facts["byproducts"]["notes"] == {"letters": 5}


def test_show_an_object(done: Desk) -> None:
    """An object: its size, who made it, who used it. One that nobody speaks of says so."""
    digest = done.ok("show", "0", "--json").json["outputs"]["text"]
    out = done.ok("show", digest).out
    assert "a blob of 10 bytes" in out
    assert "made or described by" in out
    assert "used by" in out
    facts = done.ok("show", digest, "--json").json
    assert (facts["size_bytes"], len(facts["said"]), len(facts["used_by"])) == (10, 1, 2)
    assert "not in the store" in done.ok("show", "0" * 64).out


def test_show_the_files_of_a_tree(done: Desk) -> None:
    """A tree is shown with its files, also by an abbreviation."""
    from store import tree
    from store.local import LocalCas

    folder = done.root / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "weights").write_bytes(b"w" * 2000)
    digest = tree.import_folder(LocalCas(done.ledger), folder)
    out = done.ok("show", digest.hex[:20]).out
    assert "a tree of 2 files, 2.0 kB" in out
    assert [line.split()[0] for line in out.splitlines()[2:4]] == ["config.json", "weights"]
    assert "nothing in the ledger speaks of it" in out


def test_show_a_recipes_outputs(done: Desk) -> None:
    """RECIPE lists what the last run of it made, in the recipe's order, under names that other commands take."""
    out = done.ok("show", "shouting").out
    names = [line.split()[0] for line in out.splitlines()[1:]]
    assert names == ["shouting:acme-shout.text", "shouting:acme-fan.total", "shouting:acme-fan.text"]
    for name in names:
        done.ok("show", name)


def test_too_short_is_said_with_the_choices(done: Desk) -> None:
    """An abbreviation that fits several things lists them; one that fits none, or names nothing, says so."""
    from store.local import LocalCas

    alike = [b"157", b"251"]  # the hashes of these begin alike
    first, second = (LocalCas(done.ledger).put(data) for data in alike)
    digits = first.hex[:4]
    assert second.hex.startswith(digits)
    said = done.type("show", digits)
    assert (said.code, f"{digits} is not enough: 2 begin with it" in said.err) == (2, True)
    assert first.hex in said.err
    assert second.hex in said.err
    for name in ("ffffffffffff", "nonsense", "ab", "shouting:nope"):
        assert done.type("show", name).code == 2


def test_why_an_entry_ran(done: Desk) -> None:
    """An entry is compared with the nearest one before it; differing inputs are traced to their entries."""
    out = done.ok("why", "4").out
    assert "is entry 4: it is found, and does not run again." in out
    assert "Nearest before it: " in out
    assert "spec.number" in out
    first = done.ok("why", "0").out
    assert first.endswith("No other action of this stage was there before it.\n")


def test_why_a_changed_recipe_runs(done: Desk) -> None:
    """Each action that would run is compared with the nearest known one; only what changed differs."""
    (done.folder / "recipe.yaml").write_text(RECIPE.replace("marks: 3", "marks: 4"))
    out = done.ok("why", "recipe.yaml").out
    assert "acme-shout " in out
    assert "is not in the ledger." in out
    facts = done.ok("why", "recipe.yaml:acme-shout", "--json").json["answers"][0]
    assert [(row["field"], row["before"], row["now"]) for row in facts["fields"] if not row["same"]] == [("spec.marks", 3, 4)]
    (done.folder / "recipe.yaml").write_text(RECIPE)
    assert "nothing has to run" in done.ok("why", "recipe.yaml").out
    assert done.type("why", "recipe.yaml:nope").code == 2
    assert done.type("why", "absent.yaml").code == 2


def test_why_not_found_when_nobody_trusted_said_it(done: Desk) -> None:
    """When the ledger has the action but its signer is not trusted any more, that is the answer."""
    done.ok("key", "new", "bob")
    policy = done.ledger / "policy.yaml"
    line = done.ok("key", "export", "bob").out
    policy.write_text(f"version: 1\nkeys:\n  {line}rules:\n  - keys: [bob]\n")
    out = done.ok("why", "recipe.yaml:acme-shout").out
    assert "is in the ledger, but what is there does not count:" in out
    assert "entry 0: " in out


def test_a_closed_pipe_ends_quietly(done: Desk) -> None:
    """When the reader goes away (`ledger log | head`), the program ends with 141 and without a word."""
    with subprocess.Popen([*LEDGER, "log", "--json", "-n", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 141


READER = """
import os, shutil, sys
from cli.main import main
for command in ("status", "log", "verify", "pin"):  # as the owner, elsewhere: what nobody may read is imported now
    main([command, "--ledger", sys.argv[1]])
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
os.environ["XDG_STATE_HOME"] = sys.argv[2]
print([main(command.split()) for command in ("status", "log", "verify --policy .ledger/policy.yaml", "pin", "pin shouting")])
"""


def test_a_terminal_without_unicode_is_served(done: Desk) -> None:
    """Where the encoding has no arrows the text has question marks instead; nothing fails."""
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    for command in (["status"], ["why", "4"], ["show", "4"]):
        ran = subprocess.run([*LEDGER, *command], capture_output=True, env=environment, check=False)
        assert (ran.returncode, ran.stderr) == (0, b"")
        assert ran.stdout.isascii()


def test_a_read_only_ledger_can_be_looked_at(done: Desk) -> None:
    """Somebody who may only read can see status and log, and verify; what would write fails with a sentence; nothing changes."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        shutil.copytree(done.folder, place / "work")
        (place / "state").mkdir()
        for item in [place, *place.rglob("*")]:
            item.chmod(0o555 if item.is_dir() else 0o444)
        (place / "state").chmod(0o777)
        files = {path: path.read_bytes() for path in (place / "work").rglob("*") if path.is_file()}
        environment = os.environ | {"LEDGER_KEYS": str(place / "none")}
        command = [sys.executable, "-c", READER, str(done.ledger), str(place / "state")]
        ran = subprocess.run(command, cwd=place / "work", env=environment, capture_output=True, text=True, check=True)
        assert ran.stdout.splitlines()[-1] == "[0, 0, 0, 0, 1]", ran.stdout + ran.stderr
        assert "error: " in ran.stderr
        assert "a fault in ledger itself" not in ran.stderr
        assert {path: path.read_bytes() for path in (place / "work").rglob("*") if path.is_file()} == files
        for item in [place, *place.rglob("*")]:
            if item.is_dir():
                item.chmod(0o755)

"""Running: what is done, what is found, what is kept when something breaks, and what two runs do together."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ledger.policy import Policy
from ledger.verify import verify_log
from stages import events
from stages.errors import StageError
from stages.runner import RunFailedError
from store.digest import Digest
from tests.homes import Home

FAN = " - {type: acme-fan, text: hello.txt, width: 3, depth: 2}\n"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "hello.txt").write_text("hello")
    return Home(tmp_path)


def test_runs_everything_once(home: Home) -> None:
    """Seven actions are done and signed; the second run finds all seven and starts no worker."""
    first = home.run(FAN)
    assert (first.total, first.found, first.done) == (7, 0, 7)
    assert home.store.read(first.outputs["acme-fan"]["text"]) == b"HELLO! 0! 1"
    again = home.run(FAN)
    assert (again.total, again.found, again.done) == (7, 7, 0)
    assert not home.heard(events.Started)
    assert again.outputs == first.outputs


def test_another_recipe_reuses_what_it_shares(home: Home) -> None:
    """A wider fan finds the lanes that are there, and the plan says which recipe they are from."""
    home.run(FAN, "narrow")
    wider = home.run(FAN.replace("width: 3", "width: 5"), "wide")
    assert (wider.found, wider.done) == (6, 5)
    last = home.heard(events.Planned)[-1]
    assert isinstance(last, events.Planned)
    assert last.found_from == {"narrow": 6}
    assert last.found_by == {"unsafe-test": 6}


def test_results_that_stand_are_left_and_mended_when_touched(home: Home) -> None:
    """A run that finds everything writes the same files again only when they are not as they were left, or the log has moved on."""
    result = home.run(FAN)
    whole = result.alloy.read_bytes()
    home.run(FAN)
    stamp = result.alloy.stat().st_mtime_ns
    home.run(FAN)
    assert result.alloy.stat().st_mtime_ns == stamp
    result.alloy.write_bytes(whole.replace(b"trial", b"other"))
    result.attestations.unlink()
    home.run(FAN)
    assert result.alloy.read_bytes() == whole
    assert len(result.attestations.read_text().splitlines()) == 8
    home.run(" - {type: acme-shout, text: hello.txt, marks: 7}\n", "another")
    home.run(FAN)
    assert json.loads(result.alloy.read_text())["receipt"]["ledger"]["checkpoint"] != json.loads(whole)["receipt"]["ledger"]["checkpoint"]
    assert len(list((home.folder / ".ledger" / "runs").glob("trial@*.json"))) <= 3


def test_equal_actions_of_two_variants_run_once(home: Home) -> None:
    """The shared head of a matrix is one action."""
    result = home.run(" - {type: acme-shout, text: hello.txt}\n - {type: acme-shout, matrix: {marks: [1, 2, 3]}}\n")
    assert (result.total, result.done) == (4, 4)


def test_the_ledger_verifies_and_plain_git_reads_it(home: Home) -> None:
    """Every entry is signed and linear; a claim has an entry of its own; `git fsck` is clean."""
    home.run(FAN)
    assert home.log.size == 8
    report = verify_log(home.log, Policy.load(home.folder / ".ledger" / "policy.yaml"), full=True)
    assert not [row for row in report.rows if row.status == "failed"]
    home.git("fsck", "--strict")
    assert "acme-fan/count" in home.git("log", "--format=%s", "refs/heads/ledger")


def test_alloy_and_attestations_travel(home: Home) -> None:
    """The alloy names every artifact by digest; the attestations hold one envelope per entry of the closure."""
    result = home.run(FAN)
    alloy = json.loads(result.alloy.read_text())
    named = {item["output"]: item["digest"] for item in alloy["results"]["artifacts"]}
    assert named["total"] == str(result.outputs["acme-fan"]["total"])
    assert len(alloy["results"]["actions"]) == 7
    assert len(result.attestations.read_text().splitlines()) == 8
    assert alloy["recipeHash"].startswith("sha256:")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("input", "line 1 is not what it claims to be"),
        ("bug", "RuntimeError: an unforeseen fault"),
        ("memory", "out of memory"),
        ("killed", "the worker was killed"),
        ("undeclared", "not declared: surprise"),
    ],
)
def test_a_failure_is_one_action_with_its_name(home: Home, kind: str, message: str) -> None:
    """The others are done and kept; the message names the action and what to do next; nothing of the failed one is recorded."""
    text = f" - {{type: acme-shout, text: hello.txt}}\n - {{type: acme-trouble, text: hello.txt, kind: {kind}}}\n"
    with pytest.raises(StageError) as caught:
        home.run(text)
    assert message in str(caught.value)
    assert "acme-trouble" in str(caught.value)
    assert home.log.size == 1
    assert isinstance(caught.value, RunFailedError)
    assert "1 action of this run is kept; run again to go on" in str(caught.value)


def test_what_depends_on_a_failure_does_not_run(home: Home) -> None:
    """An action whose input failed is neither run nor failed."""
    with pytest.raises(RunFailedError) as caught:
        home.run(" - {type: acme-trouble, text: hello.txt, kind: input}\n - {type: acme-shout}\n")
    assert [node for node, _ in caught.value.failures] == ["acme-trouble"]
    assert "Nothing was recorded." in str(caught.value)


def test_missing_bytes_are_made_again(home: Home) -> None:
    """An output that was deleted is still found; when something new needs it, its maker runs again and nothing is recorded twice."""
    first = home.run(FAN)
    size = home.log.size
    inner = next(entry.statement.subjects["text"] for entry in home.log.entries() if "text" in entry.statement.subjects)
    home.store.delete(inner)
    assert home.run(FAN).done == 0
    assert not home.heard(events.Started)
    home.store.delete(first.outputs["acme-fan"]["text"])
    more = home.run(FAN + " - {type: acme-shout, marks: 2}\n")
    assert more.done == 1
    assert home.log.size == size + 1
    assert home.store.read(more.outputs["acme-shout"]["text"]) == b"HELLO! 0! 1!! 0"


def test_an_absent_result_of_the_recipe_is_made_again(home: Home) -> None:
    """What the recipe itself gives is there after every run, though nothing else needs it."""
    first = home.run(FAN)
    home.store.delete(first.outputs["acme-fan"]["total"])
    again = home.run(FAN)
    assert (again.found, again.done) == (6, 0)
    assert home.store.has(first.outputs["acme-fan"]["total"])
    assert home.run(FAN).found == 7


def test_missing_material_is_named(home: Home) -> None:
    """A recipe that names a path which is not there fails before anything runs."""
    with pytest.raises(StageError, match=r"nowhere\.txt is not there"):
        home.run(" - {type: acme-shout, text: nowhere.txt}\n")


def test_plan_runs_nothing(home: Home) -> None:
    """A dry run says for every action whether it is found, to do, or not known yet."""
    planned, rows = home.runner().plan(home.recipe(FAN))
    assert (planned.total, planned.found) == (7, 0)
    states = [state for _, state in rows]
    assert (states.count("to do"), states.count("not known yet")) == (3, 4)
    assert home.log.size == 0


def test_changed_text_changes_what_runs(home: Home) -> None:
    """A material is its bytes: editing the file makes new keys, restoring it finds the old ones."""
    home.run(FAN)
    (home.folder / "hello.txt").write_text("other")
    assert home.run(FAN).found == 0
    (home.folder / "hello.txt").write_text("hello")
    assert home.run(FAN).done == 0


def test_two_processes_compute_once(home: Home) -> None:
    """Two runs of one recipe at the same time: each slow action is done by one, found by the other."""
    home.recipe(" - {type: acme-trouble, text: hello.txt, kind: slow}\n" + FAN)
    code = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from tests.homes import Home
        from stages.recipe import load
        home = Home(Path(sys.argv[1]))
        result = home.runner().run(load(Path(sys.argv[1]) / "trial.yaml"))
        print(result.done, result.found)
        """
    )
    command = [sys.executable, "-c", code, str(home.folder)]
    root = str(Path(__file__).parents[2])
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) for _ in range(2)]
    counts = [tuple(map(int, process.communicate(timeout=60)[0].split())) for process in both]
    assert sum(done for done, _ in counts) == 8
    assert sum(found for _, found in counts) == 8
    keys = [entry.statement.predicate for entry in home.log.entries() if "buildDefinition" in entry.statement.predicate]
    assert len(keys) == 8


def test_untrusted_entries_are_no_hits(home: Home, tmp_path: Path) -> None:
    """With a policy that trusts another key alone, everything is done again."""
    home.run(FAN)
    (tmp_path / "other").mkdir()
    stranger = Home(tmp_path / "other")
    policy = (stranger.folder / ".ledger" / "policy.yaml").read_text()
    (home.folder / ".ledger" / "policy.yaml").write_text(policy)
    runner = home.runner()
    planned, _ = runner.plan(home.recipe(FAN))
    assert planned.found == 0


def test_digest_of_results_does_not_depend_on_jobs(home: Home, tmp_path: Path) -> None:
    """One worker or four: the same outputs."""
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "hello.txt").write_text("hello")
    other = Home(tmp_path / "b")
    assert home.run(FAN, jobs=1).outputs == other.run(FAN, jobs=4).outputs
    assert isinstance(home.run(FAN).outputs["acme-fan"]["total"], Digest)

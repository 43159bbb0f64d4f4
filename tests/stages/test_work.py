"""Working through a graph with an executor of the test's own: what a failure takes with it, and what it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from ledger.policy import Policy
from stages.errors import StageError
from stages.executor import Broke, Done, Job
from stages.runner import RunFailedError, Runner, RunOptions
from store.digest import Digest
from tests.homes import Home
from tests.inline import Inline

SHOUTS = " - {type: acme-shout, text: hello.txt}\n - {type: acme-shout, id: again, inputs: {text: acme-shout}}\n"


def done(job: Job, **outputs: Digest) -> Done:
    return Done(job.action.key, {name: str(digest) for name, digest in outputs.items()}, (), {}, (), None, 1.0, 2.0)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "hello.txt").write_text("hello")
    return Home(tmp_path)


def runner(home: Home, hands: Inline) -> Runner:
    policy = Policy.load(home.folder / ".ledger" / "policy.yaml")
    return Runner(
        home.folder / ".ledger", home.store, home.log, policy, options=RunOptions(jobs=1, out=home.folder / "out"), hands=lambda: hands
    )  # fmt: skip


def test_any_executor_will_do(home: Home) -> None:
    """The runner asks for nothing but the role: jobs in, digests out."""
    store = home.store
    hands = Inline(lambda job: done(job, text=store.put(store.read(job.action.inputs["text"]) + b"+")))
    result = runner(home, hands).run(home.recipe(SHOUTS))
    assert store.read(result.outputs["again"]["text"]) == b"hello++"


def test_a_maker_that_fails_the_second_time_ends_the_run(home: Home) -> None:
    """When absent bytes cannot be made again, what needs them fails with the maker; nobody waits for ever."""
    first = home.run(" - {type: acme-shout, text: hello.txt}\n")
    home.store.delete(first.outputs["acme-shout"]["text"])
    hands = Inline(lambda job: Broke(job.action.key, "no luck"))
    with pytest.raises(RunFailedError) as caught:
        runner(home, hands).run(home.recipe(SHOUTS))
    assert [(node, message) for node, message in caught.value.failures] == [("acme-shout", "no luck")]


def test_bytes_that_come_out_different_are_a_failure_and_not_recorded(home: Home) -> None:
    """The recorded digest stands; the message says what can be done."""
    first = home.run(" - {type: acme-shout, text: hello.txt}\n")
    home.store.delete(first.outputs["acme-shout"]["text"])
    store = home.store
    hands = Inline(lambda job: done(job, text=store.put(b"something else")))
    with pytest.raises(RunFailedError, match="came out different"):
        runner(home, hands).run(home.recipe(SHOUTS))
    assert home.log.size == 1


def test_a_material_that_vanished_is_taken_in_again(home: Home) -> None:
    """What the recipe names on disk is stored again when the store has lost it."""
    home.run(" - {type: acme-shout, text: hello.txt}\n")
    home.store.delete(Digest.of(b"hello"))
    store = home.store
    result = runner(home, Inline(lambda job: done(job, text=store.put(b"x")))).run(home.recipe(SHOUTS))
    assert (result.found, result.done) == (1, 1)
    assert home.store.read(Digest.of(b"hello")) == b"hello"


def test_a_circle_inside_a_composite_is_no_success(home: Home) -> None:
    """Nodes that wait for each other end the run with their names."""
    text = " - {type: acme-shout, text: hello.txt}\n - {type: acme-circle, inputs: {text: acme-shout}}\n"
    with pytest.raises(StageError, match="wait for each other"):
        home.run(text)
    assert home.log.size == 1


def test_a_plan_that_cannot_be_leaves_no_run_in_progress(home: Home) -> None:
    """An error before the work is written down as a failed run."""
    import json

    with pytest.raises(StageError, match=r"nowhere\.txt is not there"):
        home.run(" - {type: acme-shout, text: nowhere.txt}\n")
    notes = [json.loads(path.read_text())["state"] for path in (home.folder / ".ledger" / "runs").glob("*.json")]
    assert "running" not in notes

"""kill -9 of any process at any moment: what was finished stays, nothing is half there, and the result is that of an uninterrupted run."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ledger.policy import Policy
from ledger.verify import verify_log
from store import fsck
from tests.homes import Home

ROOT = Path(__file__).parents[1]
RECIPE = "name: trial\nversion: 1.0.0\nstages:\n - {type: acme-fan, text: hello.txt, width: 6, depth: 3}\n - {type: acme-shout, marks: 4}\n"
MODEL_RECIPE = """\
name: trial
version: 1.0.0
source: {baseModel: model, architecture: mixtral}
stages:
  - {type: expert-activation-profile, calibrationCorpus: calibration.jsonl}
  - {type: expert-prune, keepExpertsPerLayer: 6}
  - {type: quant, quantTypes: [F16, Q4_K_M]}
  - {type: eval, benchmarks: [{name: perplexity, dataset: held.txt, nCtx: 128}]}
"""
MODEL_ACTIONS = 38


def start(folder: Path) -> subprocess.Popen[bytes]:
    """`ledger run` in a process group of its own."""
    environment = os.environ | {"LEDGER_KEYS": str(folder / "keys"), "XDG_STATE_HOME": str(folder / "state")}
    command = [sys.executable, "-m", "cli.main", "--ledger", str(folder / ".ledger"), "run", "trial.yaml"]
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment["PYTHONPATH"]])
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def family(pid: int) -> list[int]:
    """A process and everything below it, while they live."""
    found = [pid]
    for parent in found:
        try:
            tasks = Path(f"/proc/{parent}/task").iterdir()
            found += [int(child) for task in tasks for child in (task / "children").read_text().split()]
        except FileNotFoundError:
            continue
    return found


def trivial(folder: Path) -> Home:
    """A recipe of twenty actions that take no time."""
    folder.mkdir()
    (folder / "hello.txt").write_text("hello")
    (folder / "trial.yaml").write_text(RECIPE)
    return Home(folder)


def torture(folder: Path, prepare: Callable[[Path], Home], *, actions: int, kills: int, seed: int) -> None:
    """Start runs and kill a random process of each at a random moment, until so many kills have hit; check the whole after each."""
    chance = random.Random(seed)
    folder.mkdir(exist_ok=True)
    clean = prepare(folder / "clean")
    began = time.monotonic()
    whole = start(clean.folder)
    said, _ = whole.communicate(timeout=240)
    assert whole.returncode == 0, said.decode()
    span = time.monotonic() - began
    wanted, entries = outputs(clean), clean.log.size
    assert len(wanted) == actions
    hits = round_number = 0
    while hits < kills:
        round_number += 1
        home = prepare(folder / f"round-{round_number}")
        size = 0
        for _ in range(12):
            process = start(home.folder)
            # What goes on after a kill is done sooner: a moment after its end would hit nothing. To start takes less than half of a run.
            time.sleep(chance.uniform(0.1, span * (0.4 + 0.6 * (1 - size / entries))))
            living = family(process.pid)
            if process.poll() is None:
                os.kill(chance.choice(living), signal.SIGKILL)
                hits += 1
            process.communicate(timeout=240)
            assert home.log.size >= size, "an entry was lost"
            size = home.log.size
            if process.returncode == 0:
                break
        last = start(home.folder)
        said, _ = last.communicate(timeout=240)
        assert last.returncode == 0, said.decode()
        assert outputs(home) == wanted
        sound(home)


def outputs(home: Home) -> dict[str, str]:
    """What the ledger says that every action gave: key -> outputs, each key once."""
    found: dict[str, str] = {}
    for entry in home.log.entries():
        predicate = entry.statement.predicate
        if "buildDefinition" in predicate:
            definition = predicate["buildDefinition"]
            key = str((definition["buildType"], definition["externalParameters"], definition["resolvedDependencies"]))
            assert key not in found, "an action was recorded twice"
            found[key] = str(sorted((name, str(digest)) for name, digest in entry.statement.subjects.items()))
    return found


def sound(home: Home) -> None:
    """Git and our own checks find nothing wrong, and whoever writes next clears away what the dead have left."""
    home.git("fsck", "--strict")
    report = verify_log(home.log, Policy.load(home.folder / ".ledger" / "policy.yaml"), full=True)
    assert not [row.text for row in report.rows if row.status == "failed"]
    store = home.store
    store.put(b"the next writer")
    assert not [finding.text for finding in fsck.check(store, full=True)]
    store.close()
    assert not [path.name for path in (home.folder / ".ledger" / "tmp").iterdir() if path.name.startswith(("worker", "cas"))]


@pytest.mark.timeout(280)
def test_twenty_kills(tmp_path: Path) -> None:
    """Twenty kills at random moments of runner and workers lose nothing and change nothing."""
    torture(tmp_path / "t", trivial, actions=20, kills=20, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_two_hundred_kills(tmp_path: Path) -> None:
    """Two hundred."""
    torture(tmp_path / "t", trivial, actions=20, kills=200, seed=2)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_kills_of_a_run_on_a_model(tmp_path: Path) -> None:
    """The main job on a tiny model (profile, prune, quantise, evaluate) comes out the same bytes however often it is killed."""
    from tests.tiny import corpus, make_model

    model = make_model(tmp_path / "model", hidden=256, intermediate=256, layers=1)
    texts = [{"text": f"def f{number}(x):\n    return x + {number}\n" * 6, "domain": "code"} for number in range(60)]

    def prepare(folder: Path) -> Home:
        folder.mkdir()
        shutil.copytree(model, folder / "model")
        (folder / "calibration.jsonl").write_bytes(corpus(texts))
        (folder / "held.txt").write_text("".join(f"class C{number}:\n    value = {number}\n" for number in range(200)))
        (folder / "trial.yaml").write_text(MODEL_RECIPE)
        return Home(folder)

    torture(tmp_path / "t", prepare, actions=MODEL_ACTIONS, kills=12, seed=3)

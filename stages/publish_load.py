"""Have every file of a planned publication loaded: what does not load is not published.

`load` works as a run does: in workers, with every report in the store and in the log, signed. A preview signs and stores nothing, so
`load_apart` asks a process of its own and records nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from ledger.lookup import Hit
from stages.executor import Executor
from stages.load_check import STAGE as CHECK
from stages.load_check import LoadCheck
from stages.publish_evidence import Fault
from stages.publish_plan import Plan, gather
from stages.stage import Node, spec_to_json
from stages.work import Work
from store.actions import Action
from store.digest import Digest


def load(planned: Plan, work: Work, hands: Callable[[], Executor]) -> None:
    """Have every file loaded in a worker, unless the ledger knows that it was; failures become faults.

    Args:
        planned: gets the reports.
        work: on the same log, with nothing to do yet.
        hands: makes the executor, if there is something to do.

    Raises:
        StageError, StoreError, LogError: the work could not be done at all.
    """
    subjects = {what: digest for what, digest in _loadable(planned)}
    nodes = [Node(f"load-check/{what}", CHECK.name, LoadCheck(), {"subject": digest}, what) for what, digest in subjects.items()]
    work.look_up(work.resolution.add(nodes))
    work.need({what: digest for what, digest in subjects.items()})
    if work.todo:
        work.run(hands())
    for key, users in work.resolution.users.items():
        what = users[0].removeprefix("load-check/")
        if key in work.resolution.results:
            planned.reports[what] = key, work.resolution.results[key]["report"]
    gather(planned)
    for node, message in work.failed.items():
        planned.faults.append(Fault("loads", node.removeprefix("load-check/"), message, "What does not load is not published"))


def load_apart(planned: Plan, find: Callable[[Action], Hit | None], folder: Path | None, variables: Mapping[str, str]) -> None:
    """Have every file loaded in a process of its own and record nothing, for a preview; what the ledger knows is taken from there.

    Args:
        planned: gets what was seen.
        find: what the ledger answers.
        folder: the model's folder; None when none is published.
        variables: the environment of a worker.
    """
    spec, local = LoadCheck(), {file.path: file.local for file in planned.files}
    for what, digest in _loadable(planned):
        hit = find(Action(CHECK.name, CHECK.version, spec_to_json(spec), {"subject": digest}))
        path = local.get(what, folder)
        if hit is not None:
            planned.reports[what] = hit.action.key, hit.outputs["report"]
        elif path is not None:
            command = [sys.executable, "-m", "stages.load_check", str(spec.forward_bytes), str(path)]
            ran = subprocess.run(command, capture_output=True, text=True, env=dict(variables), check=False)
            said = json.loads(ran.stdout.splitlines()[-1]) if ran.returncode == 0 and ran.stdout.strip() else {}
            if "how" in said:
                planned.seen[what] = said
            else:
                words = said.get("fault") or (ran.stderr.strip() or f"it ended with {ran.returncode}").splitlines()[-1]
                planned.faults.append(Fault("loads", what, str(words), "What does not load is not published"))


def _loadable(planned: Plan) -> list[tuple[str, Digest]]:
    folder = [("the folder", planned.chosen.model)] if planned.chosen.model is not None else []
    return [*folder, *((file.path, file.digest) for file in planned.files if file.tier)]

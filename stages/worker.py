"""The process that a leaf runs in: `python -m stages.worker ROOT REPLY_FD`, with the variables of `stages.executor`.

Requests come as JSON lines on standard input, replies go as JSON lines to the descriptor REPLY_FD; whatever libraries print goes elsewhere.
The process ends when its input ends, and dies with its parent.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ledger.errors import LedgerError
from stages.context import LeafContext
from stages.errors import StageError
from stages.leases import UNFINISHED
from stages.stage import Outcome, spec_from_json
from store.actions import Action
from store.errors import StoreError
from store.local import LocalCas


def main(arguments: list[str]) -> int:
    """Serve requests until there are no more."""
    root, reply_fd = Path(arguments[0]), int(arguments[1])
    tools = json.loads(os.environ.get("LEDGER_TOOLS") or "{}")
    _die_with_parent()

    whole = threading.Lock()

    def reply(kind: str, **fields: Any) -> None:
        data = json.dumps({"kind": kind, **fields}).encode() + b"\n"
        with whole:  # a stage may tell its progress from a thread of its own
            while data:
                data = data[os.write(reply_fd, data) :]

    store = LocalCas(root)
    home = store.scratch()
    context = LeafContext(
        store,
        home / "scratch",
        home / "keep",
        tools=tools,
        on_progress=lambda done, total, unit: reply("progress", done=done, total=total, unit=unit),
        on_warning=lambda message: reply("warning", message=message),
        lasting=root / UNFINISHED,
        memory_bytes=int(os.environ.get("LEDGER_MEMORY_BYTES") or 0) or None,
    )
    try:
        for line in sys.stdin.buffer:
            context = context.fresh(home / "scratch")
            reply(**_serve(json.loads(line), context))
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return 0


def _serve(request: Mapping[str, Any], context: LeafContext) -> dict[str, Any]:
    started = time.time()
    try:
        action = Action.from_json(request["action"])
        kind: Any = _named(request["spec"])
        spec = spec_from_json(kind, action.spec)
        environment = _named(request["environment"])() if request["environment"] else None
        outcome: Outcome = _named(request["run"])(spec, action.inputs, context)
        for name, digest in outcome.outputs.items():
            if not context.store.has(digest):
                raise StageError(f"{action.stage} says its output {name} is {digest.short}, but did not store it")
        claims = [
            {
                "subjects": {name: str(digest) for name, digest in claim.subjects.items()},
                "predicate_type": claim.predicate_type,
                "predicate": dict(claim.predicate),
            }
            for claim in outcome.claims
        ]
        return {
            "kind": "done",
            "outputs": {name: str(digest) for name, digest in outcome.outputs.items()},
            "claims": claims,
            "notes": context.notes,
            "warnings": context.warnings,
            "environment": environment,
            "started": started,
            "finished": time.time(),
        }
    except (StageError, StoreError, LedgerError) as error:
        return {"kind": "failed", "message": str(error), "trace": traceback.format_exc()}
    except ModuleNotFoundError as error:
        hint = "it runs models, which needs more packages: pip install 'alloy-ledger[models]'"
        return {"kind": "failed", "message": f"{error}; {hint}", "trace": traceback.format_exc()}
    except MemoryError:
        return {"kind": "failed", "message": "out of memory", "trace": traceback.format_exc()}
    except Exception as error:  # noqa: BLE001 - a stage is anybody's code; the runner must hear of its fault and the next action must go on
        return {"kind": "failed", "message": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}


def _named(text: str) -> Callable[..., Any]:
    module, _, name = text.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


def _die_with_parent() -> None:
    """Ask the kernel to kill this process when the runner dies (Linux), so that no orphan goes on computing."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() == 1:
            sys.exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Commands that look and verify start at once: they load no ML library, no plug-in, no terminal library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ML = {"torch", "numpy", "transformers", "safetensors", "tokenizers", "gguf", "cyllama", "huggingface_hub"}
HEAVY = ML | {"rich", "typer", "pydantic", "git"}
CODE = """
import contextlib, io, json, sys
from cli.main import main
with contextlib.redirect_stdout(io.StringIO()):
    code = main(sys.argv[1:])
print(json.dumps([code, sorted({name.partition(".")[0] for name in sys.modules}), sorted(sys.modules)]))
"""


def loaded(folder: Path, *arguments: str) -> tuple[set[str], set[str]]:
    """Top-level modules and all modules that a command loads."""
    environment = os.environ | {
        "HOME": str(folder),
        "XDG_STATE_HOME": str(folder / "state"),
        "LEDGER_KEYS": str(folder / "keys"),
        "USER": "alice",
    }
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent.parent), environment.get("PYTHONPATH", "")])
    ran = subprocess.run([sys.executable, "-c", CODE, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=True)
    code, tops, everything = json.loads(ran.stdout)
    assert code == (3 if arguments == ("verify",) else 0), ran.stderr  # a ledger without entries verifies nothing
    return set(tops), set(everything)


@pytest.mark.parametrize("command", ["--help", "status", "log", "verify", "fsck", "gc", "pin", "key list", "version", ""])
def test_looking_loads_nothing_heavy(command: str, tmp_path: Path) -> None:
    """Neither an ML library nor rich nor GitPython is imported, and nothing of stages but what says errors and locks."""
    loaded(tmp_path, "init")
    tops, everything = loaded(tmp_path, *command.split())
    assert not tops & HEAVY
    assert {name for name in everything if name.startswith("stages.")} <= {"stages.errors", "stages.leases"}


def test_help_loads_no_command(tmp_path: Path) -> None:
    """The list of commands is data: showing it imports none of them, and nothing of the ledger."""
    _, everything = loaded(tmp_path, "--help")
    assert not {name for name in everything if name.startswith(("ledger.", "store.", "stages.", "cli.run", "cli.verify"))}


def test_a_plan_loads_no_ml_library(tmp_path: Path) -> None:
    """Reading and planning a recipe imports declarations, not what runs them; on a pipe no rich either."""
    (tmp_path / "hello.txt").write_text("hello")
    (tmp_path / "recipe.yaml").write_text("name: x\nversion: 1.0.0\nstages:\n  - {type: acme-shout, text: hello.txt}\n")
    loaded(tmp_path, "init")
    tops, _ = loaded(tmp_path, "run", "-n", "recipe.yaml")
    assert not tops & HEAVY

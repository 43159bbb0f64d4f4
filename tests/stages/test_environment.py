"""The environment of E stages: complete, plain JSON, the same in every process that is set the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from stages import environment
from store import canonical

CODE = "import json, stages.environment as e; print(json.dumps(e.describe()))"


def described(**variables: str) -> dict[str, object]:
    ran = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, env=os.environ | variables, check=True)
    found: dict[str, object] = json.loads(ran.stdout)
    return found


def test_the_environment_is_json_without_floats_and_pins_the_process() -> None:
    """It can be signed; and what it says holds: deterministic algorithms, full float32 products."""
    import torch

    found = environment.describe()
    canonical.dumps(found)
    assert not any(isinstance(item, float) for item in flat(found))
    assert torch.are_deterministic_algorithms_enabled()
    assert found["deterministic"] is True
    assert found["packages"]["torch"] == torch.__version__


def flat(value: object) -> list[object]:
    if isinstance(value, dict):
        return [item for part in value.values() for item in flat(part)]
    return [value]


def test_two_processes_set_the_same_agree_and_others_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads and the choice of instructions change the environment; who names the thread count does not."""
    one = described(OMP_NUM_THREADS="1")
    assert described(OMP_NUM_THREADS="2", LEDGER_THREADS="1") == one
    monkeypatch.setenv("LEDGER_THREADS", "1")
    here = environment.describe()
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    assert environment.describe() != here

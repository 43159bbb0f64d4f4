"""Declarations of stages: light to import, true to their form."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from stages.errors import SpecError
from stages.many_worlds.settings import Objective
from stages.stage import spec_from_json

NAMES = (
    "import-model",
    "expert-activation-profile",
    "profile-block",
    "profile-merge",
    "expert-select",
    "expert-prune",
    "prune-shard",
    "prune-assemble",
)
CODE = f"""
import json, sys
from stages import plugins
for name in {NAMES!r}:
    assert plugins.load("stages", name).name == name
for name in plugins.names("families"):
    plugins.load("families", name)
import stages.tensors, stages.families, stages.calibration
print(json.dumps(sorted({{"torch", "numpy", "transformers", "safetensors"}} & set(sys.modules))))
"""


def test_declarations_import_no_ml_library() -> None:
    """The runner imports every stage and family to plan; none of them brings torch or numpy along, so pruning needs neither."""
    ran = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout) == []


@pytest.mark.parametrize(("written", "read"), [(1, 1.0), (0, 0.0), ("1e-4", 1e-4), (0.5, 0.5)])
def test_a_number_of_a_spec_may_be_written_whole_or_as_text(written: object, read: float) -> None:
    """Also inside of settings: `native: 0` is the weight 0.0."""
    found = spec_from_json(Objective, {"native": written}).native
    assert (type(found), found) == (float, read)


@pytest.mark.parametrize("written", [True, "much", None, [1.0]])
def test_what_is_no_number_is_refused_by_name(written: object) -> None:
    """`true` is no 1."""
    with pytest.raises(SpecError, match=r"native is .*must be"):
        spec_from_json(Objective, {"native": written})

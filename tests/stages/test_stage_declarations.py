"""Declarations of stages: light to import, true to their form."""

from __future__ import annotations

import json
import subprocess
import sys

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

"""What every test process starts with: one thread, no network, no progress bars of other libraries."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import sys
from pathlib import Path

# The example plug-in is found as a stranger's package is: by its .dist-info on the path, here and in worker processes.
_EXAMPLE = str(Path(__file__).parent / "example_plugin")
sys.path.insert(0, _EXAMPLE)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [_EXAMPLE, os.environ.get("PYTHONPATH", "")]))

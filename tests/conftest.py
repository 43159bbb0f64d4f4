"""What every test process starts with: one thread, no network, no progress bars of other libraries; and what many tests share."""

import gc
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub import TOKEN, LoopbackHub
from tests.publications import made, published

__all__ = ["hub", "made", "published"]

# The example plug-in is found as a stranger's package is: by its .dist-info on the path, here and in worker processes.
_EXAMPLE = str(Path(__file__).parent / "example_plugin")
sys.path.insert(0, _EXAMPLE)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [_EXAMPLE, os.environ.get("PYTHONPATH", "")]))


def pytest_collection_finish() -> None:
    """What was imported stays until the end: whoever collects garbage in a test, or Python itself, need not look through it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackHub]:
    """A Hub on this machine, which this process and those that it starts take for the Hub, with a token that may write."""
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    settings = {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN, "NO_PROXY": "127.0.0.1"}
    with LoopbackHub() as server:
        for name, value in {**settings, "HF_ENDPOINT": server.endpoint, "HF_HOME": str(tmp_path_factory.mktemp("hf"))}.items():
            monkeypatch.setenv(name, value)
        # huggingface_hub reads these when it is imported, which may have been long ago.
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.endpoint + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("ledger.hf_hub._PAUSES_S", (0.0, 0.0))  # a Hub on this machine needs no patience
        close_session()
        yield server
        close_session()

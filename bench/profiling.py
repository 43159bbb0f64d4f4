"""What profiling costs: the time of a profiled forward pass over that of a plain one, same model, same text, same experts implementation.

    python bench/profiling.py

Both are measured in one process, alternating, on samples of several lengths; the ratio is of the medians of
each pass's processor time (one thread, so other processes of the machine do not count).
"""

from __future__ import annotations

import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

TARGET = 1.2
ROUNDS = 15


def main() -> None:
    import sys

    sys.path.insert(0, str(Path(__file__).parents[1]))
    import torch

    from stages import environment
    from stages.profile_block import BASE, IMPLEMENTATION, load
    from tests.tiny import TEXT, make_model

    environment.pin(1)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(f"{machine}, torch {torch.__version__}, {torch.get_num_threads()} thread")
    print(f"{'model':34} {'tokens':>7} {'plain ms':>9} {'profiled ms':>12} {'ratio':>6}")
    worst = 0.0
    models: dict[str, dict[str, Any]] = {
        "4 layers, d 256, ff 512, 8 top-2": {"hidden": 256, "intermediate": 512, "experts": 8, "top_k": 2},
        "4 layers, d 256, ff 256, 8 top-2": {"hidden": 256, "intermediate": 256, "experts": 8, "top_k": 2},
        "4 layers, d 512, ff 384, 64 top-8": {"hidden": 512, "intermediate": 384, "experts": 64, "top_k": 8},
    }
    for title, sizes in models.items():
        with tempfile.TemporaryDirectory() as folder:
            loaded = load(make_model(Path(folder) / "m", layers=4, **sizes), "float32")
        for tokens in (128, 512, 2048):
            ids = loaded.tokenizer(" ".join(TEXT) * 40, return_tensors="pt", truncation=True, max_length=tokens)["input_ids"]
            times: dict[str, list[float]] = {BASE: [], IMPLEMENTATION: []}
            with torch.inference_mode():
                for _ in range(ROUNDS):
                    for implementation, taken in times.items():
                        loaded.model.set_experts_implementation(implementation)
                        started = time.process_time()
                        loaded.model.base_model(input_ids=ids, use_cache=False)
                        taken.append(time.process_time() - started)
            plain, profiled = (statistics.median(times[name][1:]) for name in (BASE, IMPLEMENTATION))
            worst = max(worst, profiled / plain)
            print(f"{title:34} {ids.shape[1]:7} {plain * 1e3:9.1f} {profiled * 1e3:12.1f} {profiled / plain:6.2f}")
    print(f"worst {worst:.2f}, target at most {TARGET}: {'holds' if worst <= TARGET else 'does not hold'}")


if __name__ == "__main__":
    main()

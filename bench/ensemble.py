"""What it costs to let several models speak as one: time of an ensemble's decoding against the sum of its members' own, in one process.

    python bench/ensemble.py [MODEL_FOLDER ...]

Without folders it makes three random models with tokenizers of their own. Plain greedy decoding by tokens with a key-value cache is the
peer, each member for as many bytes as the ensemble says; prompts are read before the clock starts. Times are processor seconds of this
process, medians over interleaved rounds.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import machine

from stages.byte_lm.byte_lm import ByteLm, load
from stages.byte_lm.ensemble import Ensemble, Pick
from stages.byte_lm.vocabulary import END
from stages.combiners.combiner import find
from tests.tiny import make_model

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TARGET, ROUNDS, BYTES = 1.25, 3, 160
PROMPTS = (
    b"Question: Tom has 33 coins and gets 13 more. How many coins does Tom have?\nAnswer:",
    b'def double_list(parts):\n    """Return each of parts times two."""\n',
    b"In the morning the town was quiet; the market opened late, and",
)
CASES: Mapping[str, tuple[str, Mapping[str, Any], float, int, float]] = {
    # name -> combiner, settings, tolerance, bytes ahead, skip below
    "fixed share, byte by byte, exact": ("fixed-share", {}, 0.0, 0, 0.0),
    "fixed share, byte by byte": ("fixed-share", {}, 1e-3, 0, 0.0),
    "fixed share": ("fixed-share", {}, 1e-3, 16, 0.0),
    "fixed share, exact": ("fixed-share", {}, 0.0, 16, 0.0),
    "Bayes": ("bayes", {}, 1e-3, 16, 0.0),
    "Bayes, skipping below 0.01": ("bayes", {}, 1e-3, 16, 0.01),
    "geometric, all alike": ("geometric", {}, 1e-3, 16, 0.0),
}


def endless(row: NDArray[np.float64], place: int) -> int:
    """The most likely byte, never the end: all decode as long."""
    return int(row[:END].argmax())


def plain(member: ByteLm, prompt: bytes, count: int) -> float:
    """Seconds of greedy decoding by tokens."""
    import torch
    from transformers import DynamicCache

    model, texts, cache = member.model.model, member.vocabulary.texts, DynamicCache()
    ids = member.vocabulary.backend.encode(prompt.decode(), add_special_tokens=False).ids
    ends = torch.tensor(member.vocabulary.ends)

    def forward(given: list[int]) -> int:
        logits = model(input_ids=torch.tensor([given]), use_cache=True, **{member.model.cache_name: cache}).logits[0, -1]
        logits[ends] = -torch.inf
        return int(logits.argmax())

    with torch.inference_mode():
        token = forward([*member.vocabulary.start, *ids])
        started, made = time.process_time(), len(texts[token])
        while made < count:
            token = forward([token])
            made += max(1, len(texts[token]))
        return time.process_time() - started


def together(ensemble: Ensemble, prompt: bytes, count: int) -> float:
    """Seconds of the ensemble's decoding."""
    pick: Pick = endless
    ensemble.loglikelihood(prompt, b" ")  # reads the prompt
    started = time.process_time()
    run = ensemble.run(prompt, count, (), pick)
    assert len(run.text) == count
    return time.process_time() - started


def main() -> None:
    import torch

    torch.set_num_threads(1)
    print(machine.describe())
    with tempfile.TemporaryDirectory() as place:
        folders = [Path(item) for item in sys.argv[1:]] or [
            make_model(Path(place) / f"random-{vocab}", hidden=128, intermediate=128, layers=3, vocab=vocab, seed=vocab)
            for vocab in (258, 420, 512)
        ]
        exact, near = ([load(folder, tolerance=tolerance) for folder in folders] for tolerance in (0.0, 1e-3))
        for member in exact:
            weights = sum(item.numel() for item in member.model.model.parameters())
            print(f"  {member.name:24} {len(member.vocabulary.order):6} tokens, {weights:,} weights")
        cases = {
            title: Ensemble(exact if tolerance == 0 else near, find(name, settings, len(folders)), skip_below=skip, ahead=ahead)
            for title, (name, settings, tolerance, ahead, skip) in CASES.items()
        }
        ratios: dict[str, list[float]] = {title: [] for title in cases}
        for prompt in PROMPTS:
            jobs: dict[str, Callable[[], float]] = {
                f"member {number}": partial(plain, member, prompt, BYTES) for number, member in enumerate(exact)
            }
            for title, ensemble in cases.items():
                jobs[title] = partial(together, ensemble, prompt, BYTES)
            times: dict[str, list[float]] = {title: [] for title in jobs}
            for _ in range(ROUNDS + 1):
                for title, job in jobs.items():
                    times[title].append(job())
            middle = {title: statistics.median(taken[1:]) for title, taken in times.items()}  # the first round fills caches
            own = [middle[f"member {number}"] for number in range(len(exact))]
            print(f"{prompt[:40]!r}: members alone {', '.join(f'{value * 1e3:.0f}' for value in own)} ms for {BYTES} bytes")
            for title in cases:
                ratios[title].append(middle[title] / sum(own))
                one = middle[title] / max(own)
                print(f"  {title:34} {middle[title] * 1e3:7.0f} ms  {ratios[title][-1]:5.2f} of the sum  {one:5.2f} of the slowest")
        print("geometric mean over prompts, of the sum of the members' own times:")
        for title, values in ratios.items():
            mean = statistics.geometric_mean(values)
            print(f"  {title:34} {mean:5.2f}  target {TARGET}: {'holds' if mean <= TARGET else 'does not hold'}")


if __name__ == "__main__":
    main()

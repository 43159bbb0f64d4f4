"""How the end of a worker is told, and how many fit."""

from __future__ import annotations

import pytest

from stages.executor import death


@pytest.mark.parametrize(
    ("code", "held_bytes", "by_kernel", "words"),
    [
        (-9, 24 * 2**30, True, "was killed (out of memory at 24.0 GiB)"),
        (-9, 2**30, False, "was killed by signal 9 while it held 1.0 GiB; the system does that when memory runs out"),
        (-9, 2**30 - 2**20, True, "was killed (out of memory at 1023 MiB)"),
        (-11, 0, True, "died of SIGSEGV"),
        (-40, 0, False, "died of signal 40"),
        (1, 5, False, "ended with code 1 without an answer"),
    ],
)
def test_the_end_of_a_worker_in_words(code: int, held_bytes: int, by_kernel: bool, words: str) -> None:
    """An out-of-memory kill is called that when the kernel says so, and suspected when it does not."""
    assert death(code, held_bytes, by_kernel=by_kernel) == words

"""An executor in this process, for the tests of whatever hands out jobs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from stages.executor import Job, Report


@dataclass
class Inline:
    """`answer` gives the outcome of a job at once. It knows digests only, like any other executor.

    Attributes:
        seen: every job that was submitted, in order.
    """

    answer: Callable[[Job], Report]
    seen: list[Job] = field(default_factory=list)
    waiting: list[Report] = field(default_factory=list)

    def places(self, job: Job) -> bool:
        return not self.waiting

    def loaded(self, job: Job) -> int:
        return 1

    def submit(self, job: Job) -> int:
        self.seen.append(job)
        self.waiting.append(self.answer(job))
        return 1

    def wait(self, timeout_s: float) -> list[Report]:
        told, self.waiting = self.waiting, []
        return told

    def close(self) -> None:
        self.waiting.clear()

"""Everything that can go wrong between a recipe and its results.

StageError
├── RecipeError       the person's file says something impossible (exit code 2)
├── SpecError         settings that cannot work, found before the first tensor is read (exit code 2)
├── PluginError       an entry point that is missing, named twice, or does not load (exit code 2)
├── InputError        bytes that are not what they claim: truncated, lying, hostile (exit code 1)
├── ToolError         an external tool failed; its own words are in the message (exit code 1)
├── WorkerError       a worker died or was killed (exit code 1)
└── GuaranteeError    a run broke what is proven of its method: a fault of the program (exit code 1)
"""

from __future__ import annotations


class StageError(Exception):
    """Base of everything that this package raises."""


class RecipeError(StageError):
    """The person's file says something that cannot be done; the message names the line."""


class SpecError(StageError):
    """Settings that cannot work; the message holds the arithmetic."""


class PluginError(StageError):
    """An entry point that is missing, registered by two packages, or does not load."""


class InputError(StageError):
    """An input is not what it claims to be: truncated, lying, empty, or unsafe to read."""


class ToolError(StageError):
    """An external tool failed."""


class GuaranteeError(StageError):
    """A run broke what is proven of its method, whatever the data: a fault of the program."""


class WorkerError(StageError):
    """A worker process died.

    Attributes:
        signal: the number of the signal that killed it, or None.
        peak_bytes: the most memory it was seen to hold.
    """

    def __init__(self, message: str, *, signal: int | None = None, peak_bytes: int = 0) -> None:
        self.signal, self.peak_bytes = signal, peak_bytes
        super().__init__(message)

"""What only the command line can find wrong, and the exit code of every error.

    CliError
    ├── NoLedgerError       there is no ledger where one is needed (exit code 1)
    ├── UsageError          a name that names nothing, or more than one thing (exit code 2)
    └── BusyError           something else has the ledger (exit code 1)

Exit codes: 0 done, 1 failed, 2 usage, 3 verification failed, 4 store corrupt, 130 interrupted.
"""

from __future__ import annotations


class CliError(Exception):
    """Base of what this package raises."""


class NoLedgerError(CliError):
    """There is no ledger where one is needed."""


class UsageError(CliError):
    """What was typed names nothing, or names more than one thing."""


class BusyError(CliError):
    """Another process is at work on the ledger, and this command must not run beside it."""


DONE, FAILED, USAGE, UNVERIFIED, CORRUPT, INTERRUPTED = 0, 1, 2, 3, 4, 130


def exit_code(error: BaseException) -> int | None:
    """The exit code of an error that we know; None of one that is a fault of ours."""
    from ledger.errors import LedgerError, LocatorError, PolicyError, VerificationError
    from stages.errors import PluginError, RecipeError, SpecError, StageError
    from store.errors import CorruptError, StoreError

    codes: tuple[tuple[tuple[type[BaseException], ...], int], ...] = (
        ((VerificationError,), UNVERIFIED),
        ((CorruptError,), CORRUPT),
        ((UsageError, RecipeError, SpecError, PluginError, PolicyError, LocatorError), USAGE),
        ((CliError, StageError, LedgerError, StoreError, OSError), FAILED),
    )
    return next((code for kinds, code in codes if isinstance(error, kinds)), None)

"""Is it true? What is proven about a ledger, an object, a folder or an alloy; by whom; and what is not.

This is the front door. `ledger.audit` checks whole logs and says why nothing is lost by what it leaves out, `ledger.examine` follows
objects back to their sources, `ledger.published` checks what travels without a ledger. Nothing here imports an ML library, runs foreign
code, or writes to the ledger (the index, which is derived, may be brought up to date).

Every finding is a `Row`; one that failed makes the verdict FAILED, and an object that no trusted statement mentions is FAILED too.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ledger.audit import audit, audit_folder
from ledger.examine import Hasher, examine_target
from ledger.log import Log
from ledger.memory import Memory
from ledger.policy import Policy
from ledger.published import attestations_of, examine_alloy, examine_file, examine_signature, examine_stray, published
from ledger.report import Report, Row, Status
from store.digest import Digest

if TYPE_CHECKING:
    from ledger.locator import Expected
    from store.cas import Cas

__all__ = [
    "Report", "Row", "Status", "attestations_of", "published", "verify_alloy", "verify_artifact", "verify_beside", "verify_ledger",
    "verify_log", "verify_signature", "verify_stray",
]  # fmt: skip


def verify_log(log: Log, policy: Policy, *, full: bool = False) -> Report:
    """Check every entry of an open log; with `full`, also the commit and checkpoint signature of each. See `ledger.audit`."""
    return audit(log, policy, full=full)


def verify_ledger(folder: Path, policy: Policy, *, full: bool = False, memory: Memory | None = None) -> Report:
    """As `verify_log`, for a ledger folder: a log that cannot even be opened is a finding, not an error.

    Raises:
        LogError: there is no log in the folder.
    """
    return audit_folder(folder, policy, full=full, memory=memory)


def verify_artifact(
    target: Digest | Path, log: Log, policy: Policy, *, store: Cas | None = None, digest_of: Hasher | None = None
) -> Report:
    """What a ledger proves about a digest, a file or a folder. See `ledger.examine`.

    Raises:
        StoreError: the file or folder cannot be read. LogError: the log cannot.
    """
    return examine_target(target, log, policy, store=store, digest_of=digest_of)


def verify_alloy(path: Path, policy: Policy, expected: Expected | None = None) -> Report:
    """Check an alloy, or a folder that holds one, offline, by the attestations that lie beside it. See `ledger.published`.

    `expected` is what the reader was told of the alloy file's hash.
    """
    return examine_alloy(path, policy, expected)


def verify_beside(path: Path, digest: Digest, policy: Policy) -> Report | None:
    """What travels with a file with that digest proves about it alone, offline; None when nothing there names it."""
    return examine_file(path, digest, policy)


def verify_stray(path: Path, digest: Digest, policy: Policy) -> Report | None:
    """The findings about a file of which `verify_beside` finds nothing; None when nothing lies there that could say anything of it."""
    return examine_stray(path, digest, policy)


def verify_signature(path: Path, policy: Policy) -> Report:
    """Check a `model.sig` and the folder in which it lies, offline. See `ledger.published`.

    Raises:
        StoreError: it cannot be read.
    """
    return examine_signature(path, policy)

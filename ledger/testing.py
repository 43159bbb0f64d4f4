"""For tests: keys that anybody can recompute, a clock that stands still, and a ledger built in a few words. Never for real work.

>>> UnsafeSigner("alice").public == UnsafeSigner("alice").public
True
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger import predicates, statement
from ledger.git import Repository
from ledger.keys import Ed25519Signer
from ledger.log import Entry, Log
from ledger.memory import Memory
from ledger.policy import Policy
from store.actions import Action
from store.digest import Digest

UNSAFE_TIME = 1_700_000_000
"""Where `UnsafeClock` starts: 14 November 2023, 22:13:20 UTC."""


class UnsafeSigner(Ed25519Signer):
    """A signer whose private key is the hash of its name."""

    def __init__(self, name: str) -> None:
        seed = hashlib.sha256(b"unsafe test key of " + name.encode()).digest()
        super().__init__(name, Ed25519PrivateKey.from_private_bytes(seed))


class UnsafeClock:
    """Ticks one second each time that it is read."""

    def __init__(self, start: int = UNSAFE_TIME) -> None:
        self._next = start

    def __call__(self) -> float:
        """The time; one second later at the next call."""
        now, self._next = self._next, self._next + 1
        return float(now)


def unsafe_policy(*names: str, environment: str = "any") -> Policy:
    """A policy that trusts the unsafe keys of these names for everything."""
    keys = "".join(f'  {name}: "{UnsafeSigner(name).public}"\n' for name in names)
    return Policy.parse(
        f"version: 1\nenvironment: {environment}\nkeys:\n{keys}rules:\n  - keys: [{', '.join(names)}]\n", source="test policy"
    )


def unsafe_log(folder: Path, *, signer: str = "alice", origin: str | None = "ledger/test") -> Log:
    """An empty log in `folder/.ledger`, remembered in `folder/state`."""
    return Log.create(folder / ".ledger", signer=UnsafeSigner(signer), origin=origin, clock=UnsafeClock(), memory=Memory(folder / "state"))


def reopened(folder: Path, *, signer: str | None = "alice") -> Log:
    """The log that `unsafe_log` made, opened again."""
    who = UnsafeSigner(signer) if signer else None
    return Log.open(folder / ".ledger", signer=who, clock=UnsafeClock(), memory=Memory(folder / "state"))


def loosen(repository: Repository) -> None:
    """Unpack every object into a file of its own, so that a test can damage one."""
    for pack in list((repository.path / "objects/pack").glob("*.pack")):
        data = pack.read_bytes()
        pack.unlink()
        pack.with_suffix(".idx").unlink()
        subprocess.run(["git", "--git-dir", str(repository.path), "unpack-objects", "-q"], input=data, check=True)
    repository.__dict__.pop("_odb", None)


def run_payload(
    action: Action,
    outputs: Mapping[str, Digest],
    *,
    purity: str = "P",
    environment: dict[str, Any] | None = None,
    byproducts: dict[str, Any] | None = None,
) -> bytes:
    """The statement that a run of the action gave these outputs."""
    predicate = predicates.run_predicate(
        action,
        purity=purity,
        environment=environment,
        builder="urn:alloy-ledger:builder:test",
        invocation="test/1",
        started_on="2023-11-14T22:13:20Z",
        finished_on="2023-11-14T22:13:21Z",
        byproducts=byproducts or {},
    )
    return statement.make(outputs, predicates.RUN, predicate)


def chain_of_runs(count: int) -> list[tuple[Action, dict[str, Digest]]]:
    """Actions, each taking the output of the one before; the first takes nothing."""
    made: list[tuple[Action, dict[str, Digest]]] = []
    for number in range(count):
        inputs = {"model": made[-1][1]["model"]} if made else {}
        made.append((Action(f"stage-{number % 3}", 1, {"number": number}, inputs), {"model": Digest.of(b"model %d" % number)}))
    return made


def append_runs(log: Log, runs: Sequence[tuple[Action, Mapping[str, Digest]]]) -> list[Entry]:
    """Append runs as one group."""
    lines = [f"{action.stage}: {', '.join(digest.short for digest in outputs.values())}" for action, outputs in runs]
    return log.append([run_payload(action, outputs) for action, outputs in runs], lines)

"""A ledger in a temporary folder, for the tests of whatever runs on one."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ledger import policy_text
from ledger.key_store import KeyStore
from ledger.log import Log
from ledger.policy import Policy
from stages.events import Event
from stages.recipe import Recipe, load
from stages.runner import Runner, RunOptions, RunResult
from store.local import LocalCas


@dataclass
class Home:
    """A folder with a key, a policy that trusts it, a store and a log."""

    folder: Path
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        keys = KeyStore(self.folder / "keys")
        if not (self.folder / ".ledger").exists():
            signer = keys.new("unsafe-test", None)
            (self.folder / ".ledger").mkdir()
            (self.folder / ".ledger" / "policy.yaml").write_text(policy_text.starting("unsafe-test", signer.public))
            Log.create(self.folder / ".ledger", signer=signer)

    @property
    def log(self) -> Log:
        return Log.open(self.folder / ".ledger", signer=KeyStore(self.folder / "keys").load("unsafe-test", None))

    @property
    def store(self) -> LocalCas:
        return LocalCas(self.folder / ".ledger")

    def recipe(self, text: str, name: str = "trial") -> Recipe:
        """A recipe of the given stages, in this folder."""
        path = self.folder / f"{name}.yaml"
        path.write_text(f"name: {name}\nversion: 1.0.0\nstages:\n{text}")
        return load(path)

    def runner(self, *, jobs: int = 2, listen: Callable[[Event], None] | None = None) -> Runner:
        """A runner on this ledger; what it tells is kept in `events`."""
        self.events.clear()

        def hear(event: Event) -> None:
            self.events.append(event)
            if listen is not None:
                listen(event)

        policy = Policy.load(self.folder / ".ledger" / "policy.yaml")
        options = RunOptions(jobs=jobs, out=self.folder / "out")
        return Runner(self.folder / ".ledger", self.store, self.log, policy, options=options, on_event=hear)

    def run(self, text: str, name: str = "trial", *, jobs: int = 2) -> RunResult:
        """Run a recipe of the given stages."""
        return self.runner(jobs=jobs).run(self.recipe(text, name))

    def heard(self, kind: type) -> list[Event]:
        """The events of one kind, in order."""
        return [event for event in self.events if isinstance(event, kind)]

    def git(self, *arguments: str) -> str:
        """Ask plain git about the log."""
        command = ["git", "-C", str(self.folder / ".ledger" / "log.git"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

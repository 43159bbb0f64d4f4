"""The Context that a leaf gets: the store, a scratch folder, and three ways to talk. Workers and tests use the same one."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from store import tree
from store.cas import Cas
from store.digest import Digest


def _silent(*_: Any) -> None:
    """Nobody is watching."""


@dataclass
class LeafContext:
    """A `stages.stage.Context` over a store.

    Attributes:
        keep: where exported folders live; as long as the worker. lasting: where unfinished files outlive it; default: in `keep`.
        memory_bytes: the most that weights of models may take at once.
        notes: what the leaf noted, name -> JSON value.
        warnings: what the person must be told.
    """

    store: Cas
    scratch: Path
    keep: Path
    memo: MutableMapping[str, Any] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)
    on_progress: Callable[[int, int, str], None] = _silent
    on_warning: Callable[[str], None] = _silent
    notes: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    lasting: Path | None = None
    memory_bytes: int | None = None

    def path(self, digest: Digest) -> Path:
        """A read-only file with the object's bytes."""
        return self.store.path(digest)

    def folder(self, tree_digest: Digest) -> Path:
        """A read-only folder with the tree's files, made once per worker."""
        place = self.keep / tree_digest.hex
        if not place.exists():
            self.keep.mkdir(parents=True, exist_ok=True)
            tree.export(self.store, tree_digest, place)
        return place

    def unfinished(self, name: str) -> Path:
        """A place for a file that outlives the process."""
        folder = self.lasting or self.keep / "unfinished"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name

    def progress(self, done: int, total: int, unit: str) -> None:
        """Tell the person how far it is."""
        self.on_progress(done, total, unit)

    def note(self, name: str, value: Any) -> None:
        """A byproduct for the attestation."""
        self.notes[name] = value

    def warn(self, message: str) -> None:
        """Something the person must be told; once per action and message."""
        if message not in self.warnings:
            self.warnings.append(message)
            self.on_warning(message)

    def fresh(self, scratch: Path) -> LeafContext:
        """The same worker's context for its next action: memo and folders stay, notes and scratch do not."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        scratch.mkdir(parents=True, exist_ok=True)
        return replace(self, scratch=scratch, notes={}, warnings=[])

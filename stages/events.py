"""What the runner tells whoever is watching: plain facts, in order. The terminal and `--json` render the same ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Planned:
    """The plan as far as it is known. Sent once before work starts and again whenever a composite expands.

    Attributes:
        total, found: actions known so far, and how many of them are in the ledger already.
        open: ids of composites that cannot be expanded before an action they wait for has run.
        found_by: key name -> actions found that were signed by it.
        found_from: recipe name -> actions found that an earlier run of that recipe recorded.
        groups: recipe-level stage -> actions of it known so far, in the recipe's order; whoever watches can tell when one is finished.
            An action that several stages ask for is counted for the first.
        open_groups: those of `groups` that are not wholly expanded yet.
        environments: where found results of one kind were made in several environments: digest of each -> how many.
    """

    total: int
    found: int
    open: tuple[str, ...]
    found_by: Mapping[str, int]
    found_from: Mapping[str, int]
    groups: Mapping[str, int] = field(default_factory=dict)
    open_groups: tuple[str, ...] = ()
    environments: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Found:
    """An action whose result is in the ledger. `group` is the recipe-level stage that it belongs to."""

    group: str
    node: str
    stage: str
    key: str
    outputs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Started:
    """A worker took an action."""

    group: str
    node: str
    stage: str
    key: str
    label: str
    worker: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a running action is."""

    group: str
    node: str
    key: str
    done: int
    total: int
    unit: str


@dataclass(frozen=True, slots=True)
class Warned:
    """Something that the person must be told."""

    group: str
    node: str
    message: str


@dataclass(frozen=True, slots=True)
class Finished:
    """An action is done and recorded.

    Attributes:
        notes: the byproducts that the stage gave (tokens, tokens per second, bytes written, ...).
        sizes: output name -> size in bytes.
        entry: its number in the ledger.
    """

    group: str
    node: str
    stage: str
    key: str
    outputs: Mapping[str, str]
    sizes: Mapping[str, int]
    notes: Mapping[str, Any]
    elapsed_s: float
    entry: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """Another process is computing this action; its result will be used."""

    group: str
    node: str
    key: str


@dataclass(frozen=True, slots=True)
class Failed:
    """An action failed; nothing of it was recorded."""

    group: str
    node: str
    stage: str
    key: str
    message: str


Event = Planned | Found | Started | Progress | Warned | Finished | Waiting | Failed

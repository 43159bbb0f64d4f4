"""Alloys of others: files of the published format without any signature, read as they are.

Archive mode: every key is kept, whatever it is, and what the format does not say is named (`faults`), not refused. The hashes that such a
file states are computed again in `ledger.foreign_hashes`; `ledger.foreign_report` gives the honest verdict.

>>> alloy = load(b'{"name": "x", "version": "1.0.0", "source": {"baseModel": "m"}, "stages": [{"type": "quant"}], "mood": "good"}')
>>> alloy.kind, alloy.executed, [str(fault) for fault in alloy.faults]
('alloy', False, ["mood: unknown key 'mood' in the alloy"])

Formats: docs/legacy.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ledger import alloy_format
from ledger.alloy import file_hash
from ledger.alloy_format import Fault
from ledger.errors import AlloyError
from ledger.inventory import base
from ledger.loose import as_dict
from ledger.repo_chain import CHAIN
from ledger.report import printable
from store import canonical
from store.digest import Digest
from store.errors import CanonicalError


@dataclass(frozen=True, slots=True)
class ForeignAlloy:
    """An alloy as somebody published it.

    Attributes:
        data: the bytes of the file. raw: the same as JSON, nothing dropped.
        kind: `ensemble` for frozen models that are combined, which name a target and specialists instead of a base model.
        faults: where it is not what the format says, in its order.
    """

    data: bytes
    raw: Mapping[str, Any]
    kind: Literal["alloy", "ensemble"]
    faults: tuple[Fault, ...]

    @property
    def name(self) -> str:
        """What it calls its model, for people."""
        return printable(str(self.raw.get("name", "?")), 80)

    @property
    def file_hash(self) -> Digest:
        """SHA-256 of the bytes: what the published codes and links name, cut to 16 digits."""
        return file_hash(self.data)

    @property
    def executed(self) -> bool:
        """Whether it has results; without, it is a recipe and claims nothing."""
        return isinstance(self.raw.get("results"), dict)

    @property
    def integrity(self) -> Mapping[str, Any]:
        """`results.integrity`, and of an ensemble the one at the top."""
        inner = as_dict(self.raw.get("results")).get("integrity")
        return as_dict(inner) or as_dict(self.raw.get("integrity"))

    def to_bytes(self) -> bytes:
        """The file as its publishers wrote such files: indent of 2, ASCII escapes, keys in their order, no newline at the end.

        Equal in content to `data`, but not always in bytes, so its hash is not `file_hash`.
        """
        return json.dumps(self.raw, indent=2).encode()


def load(data: bytes) -> ForeignAlloy:
    """Read a published alloy in archive mode.

    Raises:
        AlloyError: it is not JSON that everybody reads alike (a key twice, NaN, not UTF-8), or no alloy: the reason is named.
    """
    value = _parse(data)
    if not isinstance(value, dict):
        raise AlloyError("no alloy: an alloy is a JSON object")
    if value.get("type") == CHAIN:
        raise AlloyError("no alloy: it is the chain of a repository's commits")
    if not isinstance(value.get("source"), dict) or not isinstance(value.get("name"), str):
        raise AlloyError("no alloy: an alloy has a name and a source")
    ensemble = alloy_format.is_ensemble(value)
    if not ensemble and not isinstance(value.get("stages"), list):
        raise AlloyError("no alloy: an alloy has a list of stages")
    return ForeignAlloy(data, value, "ensemble" if ensemble else "alloy", tuple(alloy_format.faults(value)))


def _parse(data: bytes) -> Any:
    try:
        return canonical.loads(data)
    except CanonicalError as error:
        raise AlloyError(f"no alloy: {error}") from error


def is_chain(data: bytes) -> bool:
    """Whether the bytes are a chain of a repository's commits, well formed or not.

    Raises:
        AlloyError: they are no JSON that everybody reads alike.
    """
    value = _parse(data)
    return isinstance(value, dict) and value.get("type") == CHAIN


def find(names: Iterable[str], repo: str) -> str | None:
    """Which file of a repository is its alloy: a JSON file whose name holds the repository's and `alloy`, else `forge-alloy.json`.

    Where neither is there, as in repositories that were renamed, the only `*.alloy.json` is it; with several, none is.

    >>> find(["config.json", "tiny.alloy.json", "forge-alloy.json"], "org/tiny")
    'tiny.alloy.json'
    >>> find(["config.json", "forge-alloy.json"], "org/tiny"), find(["v2.alloy.json"], "org/tiny"), find(["a.json"], "org/tiny")
    ('forge-alloy.json', 'v2.alloy.json', None)
    """
    slug = repo.rpartition("/")[2].casefold()
    listed = sorted(names)
    files = [name for name in listed if name.casefold().endswith(".json")]
    named = [name for name in files if slug in base(name).casefold() and "alloy" in base(name).casefold()]
    exact = [name for name in named if base(name).casefold() == f"{slug}.alloy.json"]
    legacy = [name for name in files if base(name) == "forge-alloy.json"]
    others = [name for name in files if name.endswith(".alloy.json")]
    for found in (exact, named, legacy):
        if found:
            return min(found, key=lambda name: (name.count("/"), name))
    return others[0] if len(others) == 1 else None

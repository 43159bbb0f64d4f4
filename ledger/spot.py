"""Random MiBs of the weights of a repository, read from the Hub and compared with what is attested of them.

Compared is with a published list of chunks (`ledger.chunks`) or with the same bytes in one's own store. What the samples show is a bound:
see docs/formats/chunks.md.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ledger.chunks import CHUNK_BYTES, ChunkedFile, seen
from ledger.errors import HubError, HubUnreachableError
from ledger.inventory import some
from ledger.report import Row

if TYPE_CHECKING:
    from ledger.hub import Hub, Listing
    from store.cas import Cas
    from store.digest import Digest
    from store.tree import TreeEntry

_SHOWN = 5


class Reference(Protocol):
    """What ranges of one file are compared with."""

    @property
    def count(self) -> int:
        """How many chunks it has."""
        ...

    def bounds(self, number: int) -> tuple[int, int]:
        """Where a chunk starts and its length, in bytes."""
        ...

    def fits(self, number: int, data: bytes) -> bool:
        """Whether bytes are those of a chunk."""
        ...


@dataclass(frozen=True, slots=True)
class Stored:
    """A file that the reader's own store holds; its bytes are checked on the way out."""

    store: Cas
    digest: Digest
    size: int

    @property
    def count(self) -> int:
        """As `Reference.count`."""
        return -(-self.size // CHUNK_BYTES)

    def bounds(self, number: int) -> tuple[int, int]:
        """As `Reference.bounds`."""
        return number * CHUNK_BYTES, min(CHUNK_BYTES, self.size - number * CHUNK_BYTES)

    def fits(self, number: int, data: bytes) -> bool:
        """As `Reference.fits`."""
        start, length = self.bounds(number)
        with self.store.open(self.digest) as file:
            file.seek(start)
            return data == file.read(length)


def references(wanted: list[TreeEntry], chunks: Mapping[str, ChunkedFile], store: Cas | None) -> dict[str, Reference]:
    """Path -> what the file there can be compared with, of those files for which there is something; `wanted` are as attested."""
    found: dict[str, Reference] = {}
    for file in wanted:
        listed = chunks.get(file.path)
        if listed is not None and (listed.sha256, listed.size) == (file.digest, file.size):
            found[file.path] = listed
        elif store is not None and store.has(file.digest):
            found[file.path] = Stored(store, file.digest, file.size)
    return found


def sample(hub: Hub, listing: Listing, known: Mapping[str, Reference], count: int, seed: bytes | None = None) -> list[Row]:
    """Read so many chunks, drawn without return from all chunks of all files, one request each.

    `seed` makes the choice repeatable, for tests; without it the system's randomness decides, which nobody can foresee.

    Raises:
        HubUnreachableError: the network failed.
    """
    chooser = random.Random(seed) if seed is not None else random.SystemRandom()
    paths = sorted(known)
    total = sum(known[path].count for path in paths)
    chosen = sorted(chooser.sample(range(total), min(count, total)))
    rows: list[Row] = []
    wrong: list[str] = []
    first, at = 0, 0  # number of the first chunk of paths[at]
    for number in chosen:
        while number - first >= known[paths[at]].count:
            first += known[paths[at]].count
            at += 1
        one = known[paths[at]]
        start, length = one.bounds(number - first)
        where = f"bytes {start:,} to {start + length - 1:,} of {paths[at]}"
        try:
            data = hub.read_range(listing.repo, listing.commit, paths[at], start, length)
        except HubUnreachableError:
            raise
        except HubError as error:
            wrong.append(f"{where}: {error}")
            continue
        if not one.fits(number - first, data):
            wrong.append(f"{where} are not the attested ones")
    rows += [Row("failed", text, "Download it from elsewhere, and tell its owner") for text in wrong[:_SHOWN]]
    if len(wrong) > _SHOWN:
        rows.append(Row("failed", f"and {len(wrong) - _SHOWN} more of {len(chosen):,} samples"))
    if chosen and not wrong:
        whose = f"{len(paths)} file{'s' if len(paths) > 1 else ''} ({some(paths, 3)})"
        if len(chosen) == total:
            text = f"all {total:,} chunks of {whose} were read, and are the attested bytes"
        else:
            text = (
                f"{len(chosen):,} of {total:,} chunks (1 MiB each) of {whose}, drawn at random, are the attested bytes: damage of 1 % "
                f"of them would have been seen with {seen(len(chosen), 0.01):.1%}, of 10 % with {seen(len(chosen), 0.1):.1%}"
            )
        rows.append(Row("proven", text))
    return rows

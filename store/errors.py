"""Everything that can go wrong with stored bytes.

StoreError
├── DigestError          a text that is not `sha256:` and 64 lowercase hex digits
├── CanonicalError       a value that canonical JSON cannot carry
├── TreeError            bytes that are not a tree
├── RangeError           a part of a splice that reaches beyond its object
├── NotFoundError        no object of that digest here
├── CorruptError         stored bytes do not hash to their name (exit code 4)
│   └── ChangedError     a file imported by reference was changed by somebody since
├── PathError            a name that must not be a path: `..`, absolute, NUL, a case-fold clash, a link out
├── UnstableError        a file changed while it was being read; read it again when nobody writes it
├── BusyError            somebody else writes to the store just now; wait for them
└── UnwritableError      the disk is full or the store is read-only; nothing was recorded

What a caller needs to act is in attributes, not only in words.
"""

from __future__ import annotations


class StoreError(Exception):
    """Base of everything that this package raises."""


class DigestError(StoreError):
    """A text that is not `sha256:` and 64 lowercase hex digits."""


class CanonicalError(StoreError):
    """A value that canonical JSON cannot carry, or bytes that are not canonical JSON."""


class TreeError(StoreError):
    """Bytes that are not a tree in its one byte-exact form."""


class RangeError(StoreError):
    """A part of a splice that reaches beyond its object, or is empty where it must not be."""


class NotFoundError(StoreError):
    """No object of that digest is in the store.

    Attributes:
        digest: what was asked for, as text.
    """

    def __init__(self, digest: object, where: str = "the store") -> None:
        self.digest = str(digest)
        super().__init__(f"{digest} is not in {where}; pull it from a remote, or run the recipe that makes it")


class CorruptError(StoreError):
    """Stored bytes do not hash to their name.

    Attributes:
        digest: the name; actual: what the bytes hash to, or a sentence.
    """

    def __init__(self, digest: object, actual: object, hint: str = "") -> None:
        self.digest, self.actual = str(digest), str(actual)
        super().__init__(
            f"object {digest} is damaged: its bytes give {actual}. "
            + (hint or "Run `ledger fsck` for the whole damage; delete the object and run again to make it anew")
        )


class ChangedError(CorruptError):
    """A file that was imported by reference has changed since; its old bytes are gone."""


class PathError(StoreError):
    """Names that must not become paths on disk.

    Attributes:
        paths: the exact names, all of them.
    """

    def __init__(self, message: str, paths: tuple[str, ...] = ()) -> None:
        self.paths = paths
        super().__init__(message)


class UnstableError(StoreError):
    """A file changed while it was being read. Nothing was recorded; read it again when nobody writes it."""


class BusyError(StoreError):
    """Somebody else writes to the store just now."""


class UnwritableError(StoreError):
    """The store cannot be written: no space, or read-only. Nothing was recorded."""

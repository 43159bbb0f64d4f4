"""The one type for a hash: SHA-256, because git-LFS and the Hub name files by it.

A Digest is made only by hashing bytes or by parsing a text that passes every check, so a value of this type is always well formed.

>>> Digest.of(b"")
Digest('sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855')
>>> Digest.parse("sha256:ABC")
Traceback (most recent call last):
    ...
store.errors.DigestError: not a digest: 'sha256:ABC' (expected sha256: and 64 lowercase hex digits)
"""

from __future__ import annotations

import hashlib
import re

from store.errors import DigestError

_FORM = re.compile(r"sha256:[0-9a-f]{64}\Z")


class Digest:
    """The SHA-256 of some bytes; immutable, ordered by its text.

    `str()` gives `sha256:<64 hex>`, `hex` the digits alone, `short` a form for messages only: it identifies nothing.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        if not isinstance(text, str) or not _FORM.match(text):
            raise DigestError(f"not a digest: {text!r} (expected sha256: and 64 lowercase hex digits)")
        self._text = text

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Check a text and take it as a digest.

        Raises:
            DigestError: it is anything else than `sha256:` and 64 lowercase hex digits.
        """
        return cls(text)

    @classmethod
    def of(cls, data: bytes | memoryview) -> Digest:
        """Hash bytes that are in memory."""
        return cls("sha256:" + hashlib.sha256(data).hexdigest())

    @property
    def hex(self) -> str:
        """The 64 hex digits."""
        return self._text[7:]

    @property
    def short(self) -> str:
        """`sha256:` and 12 digits, for messages."""
        return self._text[:19]

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"Digest({self._text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Digest) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __lt__(self, other: Digest) -> bool:
        return self._text < other._text

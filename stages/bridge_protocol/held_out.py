"""The texts that are held out of a bridge's training, as `bridge-texts` writes them for the controls that read whole texts."""

from __future__ import annotations

from dataclasses import dataclass

from store import canonical


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A text; the target is scored on what comes after the first `cut` bytes."""

    text: bytes
    cut: int

    @property
    def prefix(self) -> bytes:
        """What the source reads."""
        return self.text[: self.cut]


def read(data: bytes) -> list[HeldOut]:
    """The lines of an object `held-out`; there may be none."""
    found = []
    for line in data.splitlines():
        value = canonical.loads(line)
        assert isinstance(value, dict)
        text, cut = value["text"], value["cut"]
        assert isinstance(text, str)
        assert isinstance(cut, int)
        found.append(HeldOut(text.encode(), cut))
    return found

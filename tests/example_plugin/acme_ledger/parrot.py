"""An answerer: a "model" that is a table of what it says to what, so that tests know every answer beforehand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from stages.hf_model import LoadIn
from stages.questions import Answerer
from stages.stage import Context
from store.digest import Digest


class Parrot:
    """Says what its table has for the longest key that the prompt ends with, and nothing else; likes what it would say, byte by byte."""

    def __init__(self, table: Mapping[str, str]) -> None:
        self._table = table

    def loglikelihood(self, prompt: bytes, continuation: bytes) -> float:
        """-1 nat for each byte of what it would not say, -0.1 for each that it would."""
        return -(0.1 if continuation.strip() == self._said(prompt).strip() else 1.0) * len(continuation)

    def generate(self, prompt: bytes, max_bytes: int, stop: Sequence[bytes]) -> bytes:
        """The table's text up to the first stop."""
        text = self._said(prompt)
        return text[: min([max_bytes, *(place for place in (text.find(word) for word in stop) if place >= 0)])]

    def _said(self, prompt: bytes) -> bytes:
        fitting = [key for key in self._table if prompt.decode().endswith(key)]
        return self._table[max(fitting, key=len)].encode() if fitting else b""


def load(model: Digest, context: Context, load_in: LoadIn) -> Answerer:
    """Of a tree whose config.json has `model_type: acme-parrot` and a table `says`."""
    return Parrot(json.loads((context.folder(model) / "config.json").read_bytes())["says"])


def save(folder: Path, says: Mapping[str, str]) -> Path:
    """Write a parrot as a model folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "acme-parrot", "says": says}))
    return folder

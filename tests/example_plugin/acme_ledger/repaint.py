"""A leaf that takes a model and gives one: it stands for any stage that changes weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stages.stage import Context, Leaf, Outcome
from store.digest import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaint:
    """Nothing to choose."""


STAGE = Leaf(
    name="acme-repaint", version=1, spec=Repaint, inputs=("model",), outputs=("model",), purity="P", run="acme_ledger.repaint:run"
)  # fmt: skip


def run(spec: Repaint, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Give the model back."""
    return Outcome({"model": inputs["model"]})

"""A leaf: text in upper case. As small as a stage can be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stages.stage import Context, Leaf, Outcome
from store.digest import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Shout:
    """How to shout."""

    marks: int = 1
    """Exclamation marks at the end."""
    number: int = 0
    """Tells equal shouts apart."""


STAGE = Leaf(
    name="acme-shout", version=1, spec=Shout, inputs=("text",), outputs=("text",), purity="P", run="acme_ledger.shout:run"
)  # fmt: skip


def run(spec: Shout, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Shout."""
    text = context.store.read(inputs["text"]).decode()
    context.note("letters", len(text))
    return Outcome({"text": context.store.put((text.upper() + "!" * spec.marks + f" {spec.number}").encode())})

"""A leaf that joins any number of inputs, and claims something about the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stages.stage import Claim, Context, Leaf, Outcome
from store.digest import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """Nothing to choose."""


STAGE = Leaf(
    name="acme-count", version=1, spec=Count, inputs=("part-*",), outputs=("total",), purity="P", run="acme_ledger.count:run"
)  # fmt: skip


def run(spec: Count, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Count the bytes of all parts."""
    total = sum(context.store.size(digest) for digest in inputs.values())
    result = context.store.put(str(total).encode())
    return Outcome({"total": result}, (Claim({"total": result}, "urn:acme:count:v1", {"bytes": total}),))

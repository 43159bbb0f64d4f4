"""Merge the profiles of blocks of a calibration set into one. Pure: float64 sums in the order of the input names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stages.stage import Context, Leaf, Outcome
from store.digest import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileMerge:
    """Nothing to choose: the inputs decide."""


STAGE = Leaf(
    name="profile-merge",
    version=1,
    spec=ProfileMerge,
    inputs=("block-*",),
    outputs=("profile",),
    purity="P",
    run="stages.profile_merge:run",
)


def run(spec: ProfileMerge, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Merge `block-*`, in the order of their names, to `profile`."""
    from stages import saliency

    with context.store.writer() as writer:
        about = saliency.merge(context.store, [inputs[name] for name in sorted(inputs)], writer)
        profile = writer.finish()
    context.note("blocks", about.blocks)
    context.note("layers", len(about.layers))
    context.note("experts", about.experts)
    return Outcome({"profile": profile})

"""Cut a calibration set into blocks of samples, each an object of its own, so that a longer set with the same beginning shares them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stages.calibration import blocks
from stages.stage import Context, Leaf, Outcome
from store.digest import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationBlocks:
    """Where to cut."""

    block_samples: int
    """Samples per block; the last may hold fewer."""


STAGE = Leaf(
    name="calibration-blocks",
    version=1,
    spec=CalibrationBlocks,
    inputs=("calibration",),
    outputs=("samples-*",),
    purity="P",
    run="stages.calibration_blocks:run",
)


def name(number: int) -> str:
    """The output of a block: `samples-00003`."""
    return f"samples-{number:05d}"


def run(spec: CalibrationBlocks, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Cut from the beginning.

    Raises:
        InputError: the set is empty, or a line of it is wrong. SpecError: a block would hold nothing.
    """
    with context.store.open(inputs["calibration"]) as lines:
        pieces = [context.store.put(block) for block in blocks(lines, spec.block_samples)]
    return Outcome({name(number): piece for number, piece in enumerate(pieces)})

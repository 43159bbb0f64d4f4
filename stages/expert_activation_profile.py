"""Profile a mixture of experts on a calibration set: cut it, one action per block of samples, one to merge.

A larger set that starts with the same samples shares its blocks: 300 samples after 200 cost 100.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stages import calibration_blocks
from stages.calibration import blocks
from stages.calibration_blocks import CalibrationBlocks
from stages.errors import SpecError
from stages.profile_block import LoadIn, ProfileBlock
from stages.profile_merge import ProfileMerge
from stages.stage import Composite, Graph, Input, Node, Ref
from store.cas import Cas
from store.digest import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertActivationProfile:
    """How to measure; all metrics come out of one pass."""

    block_samples: int = 20
    """Samples per block: the unit that is resumed, shared and resampled."""
    max_length: int = 2048
    """Tokens after which a sample is cut."""
    load_in: LoadIn = "auto"
    """Type of the weights in memory; see profile-block."""


def expand(spec: ExpertActivationProfile, inputs: Mapping[str, Input], store: Cas) -> Graph:
    """`calibration-blocks` cuts, one `profile-block` measures each block, `profile-merge` joins.

    Raises:
        InputError: the set is empty, or a line of it is wrong.
    """
    corpus = inputs["calibration"]
    if not isinstance(corpus, Digest):
        raise SpecError("the calibration set must be there before it is known how many blocks it makes")
    with store.open(corpus) as lines:
        count = sum(1 for _ in blocks(lines, spec.block_samples))
    cut = Node("blocks", "calibration-blocks", CalibrationBlocks(block_samples=spec.block_samples), {"calibration": corpus})
    measure = ProfileBlock(max_length=spec.max_length, load_in=spec.load_in)
    nodes = [
        Node(
            f"block-{number:05d}",
            "profile-block",
            measure,
            {"model": inputs["model"], "samples": Ref("blocks", calibration_blocks.name(number))},
            f"block {number + 1}/{count}",
        )
        for number in range(count)
    ]
    merge = Node("merge", "profile-merge", ProfileMerge(), {node.id: Ref(node.id, "profile") for node in nodes})
    return Graph((cut, *nodes, merge), {"profile": Ref("merge", "profile")})


STAGE = Composite(
    name="expert-activation-profile",
    spec=ExpertActivationProfile,
    inputs=("model", "calibration"),
    outputs=("profile",),
    reads=("calibration",),
    expand=expand,
    keys={"calibrationCorpus": "calibration"},
    described=(
        "metric",
        "device",
        "importanceOutput",
        "notes",
        "calibrationCorpusFile",
        "calibrationExamples",
        "calibrationTokens",
        "metricVersion",
        "implementation",
    ),
)

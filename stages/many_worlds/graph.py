"""What the two many-worlds composites share: the actions that take states, train in segments, export and evaluate. No ML library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from stages import calibration_blocks
from stages.align_states import AlignStates
from stages.calibration import blocks
from stages.calibration_blocks import CalibrationBlocks
from stages.errors import InputError, SpecError
from stages.gather_states import GatherStates
from stages.hf_model import LoadIn
from stages.hidden_states import HiddenStates
from stages.many_worlds.settings import LossType, Objective, Schedule
from stages.many_worlds_evaluate import ManyWorldsEvaluate
from stages.many_worlds_export import Asked, ManyWorldsExport
from stages.many_worlds_init import ManyWorldsInit
from stages.many_worlds_segment import ManyWorldsSegment
from stages.stage import Graph, Input, Node, Ref
from store.cas import Cas
from store.digest import Digest
from store.errors import NotFoundError


@dataclass(frozen=True, slots=True)
class Source:
    """A model that takes part: its tree, and the layer of its states (None for two thirds)."""

    name: str
    model: Input
    layer: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Taking:
    """How states are taken."""

    max_bytes: int
    block_samples: int
    load_in: LoadIn


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """One training from its first state to its evaluation.

    Attributes:
        init: first state. objective, training: of every segment. frozen: the substrate that a model is added to.
        segment_steps: steps of one action. control: train on shuffled pairs too. places: n of the evaluation.
    """

    init: ManyWorldsInit
    objective: Objective
    training: Schedule
    segment_steps: int
    control: bool
    places: int
    frozen: Input | None = None


def in_range(value: int, low: int, high: int, name: str) -> None:
    """Refuse what the format has no room for.

    Raises:
        SpecError: outside.
    """
    if not low <= value <= high:
        raise SpecError(f"{name} is {value}; it must be between {low} and {high}")


def objective(loss_type: LossType, settings: Objective) -> Objective:
    """The losses that a loss type leaves in: `contrastive` that one alone, `round_trip` likewise, `both` all."""
    if loss_type == "contrastive":
        return replace(settings, round_trip=0.0, cross_model=0.0)
    return replace(settings, contrastive=0.0, cross_model=0.0) if loss_type == "round_trip" else settings


def graph(sources: Sequence[Source], calibration: Digest, taking: Taking, chain: Chain, store: Cas) -> Graph:
    """The actions: cut, states per model and block, align, train (twice with a control), export, evaluate.

    Raises:
        InputError: the calibration set is not here, empty, or a line of it is wrong.
    """
    try:
        with store.open(calibration) as lines:
            count = sum(1 for _ in blocks(lines, taking.block_samples))
    except NotFoundError as error:
        raise InputError(f"the calibration set {calibration.short} of the substrate is not in this store: pull its ledger first") from error
    names = tuple(source.name for source in sources)
    nodes = [Node("blocks", "calibration-blocks", CalibrationBlocks(block_samples=taking.block_samples), {"calibration": calibration})]
    for number in range(count):
        samples = Ref("blocks", calibration_blocks.name(number))
        states: dict[str, Input] = {}
        for source in sources:
            node = Node(
                f"states-{source.name}-{number:05d}",
                "hidden-states",
                HiddenStates(layer=source.layer, max_bytes=taking.max_bytes, load_in=taking.load_in),
                {"model": source.model, "samples": samples},
                f"states of {source.name}, block {number + 1}/{count}",
            )
            nodes.append(node)
            states[f"states-{source.name}"] = Ref(node.id, "states")
        align = AlignStates(models=names, max_bytes=taking.max_bytes)
        nodes.append(Node(f"aligned-{number:05d}", "align-states", align, {"samples": samples, **states}, f"align {number + 1}/{count}"))
    parts: dict[str, Input] = {f"aligned-{number:05d}": Ref(f"aligned-{number:05d}", "aligned") for number in range(count)}
    nodes.append(Node("aligned", "gather-states", GatherStates(), parts))
    aligned = Ref("aligned", "aligned")
    frozen: dict[str, Input] = {} if chain.frozen is None else {"frozen-substrate": chain.frozen}
    nodes.append(Node("init", "many-worlds-init", chain.init, {"aligned": aligned, **frozen}))
    models: dict[str, Input] = {f"model-{source.name}": source.model for source in sources}
    asked = tuple(Asked(name=source.name, layer=source.layer) for source in sources)
    measured: dict[str, Input] = {"aligned": aligned, "calibration": calibration}
    for suffix, training in (("", chain.training), *((("-shuffled", replace(chain.training, shuffled=True)),) if chain.control else ())):
        state = Ref("init", "state")
        for start in range(0, training.steps, chain.segment_steps):
            until = min(start + chain.segment_steps, training.steps)
            settings = {item.name: getattr(training, item.name) for item in fields(Schedule)}
            spec = ManyWorldsSegment(until=until, objective=chain.objective, **settings)
            node = Node(
                f"steps{suffix}-{until:07d}",
                "many-worlds-segment",
                spec,
                {"state": state, "aligned": aligned},
                f"steps {start + 1} to {until}" + (", shuffled" if suffix else ""),
            )
            nodes.append(node)
            state = Ref(node.id, "state")
        export = ManyWorldsExport(
            models=asked,
            new=chain.init.new,
            training=training,
            objective=chain.objective,
            max_bytes=taking.max_bytes,
            block_samples=taking.block_samples,
            load_in=taking.load_in,
        )
        given: dict[str, Input] = {"state": state, "aligned": aligned, "calibration": calibration, **models, **frozen}
        nodes.append(Node(f"export{suffix}", "many-worlds-export", export, given))
        measured["control-shuffled" if suffix else "substrate"] = Ref(f"export{suffix}", "substrate")
    evaluate = ManyWorldsEvaluate(new=chain.init.new, heldout_percent=chain.training.heldout_percent, places=chain.places)
    nodes.append(Node("evaluate", "many-worlds-evaluate", evaluate, measured))
    made = {"substrate": Ref("export", "substrate"), "picture": Ref("export", "picture")}
    return Graph(tuple(nodes), {**made, "metrics": Ref("evaluate", "metrics"), "table": Ref("evaluate", "table")})


OUTPUTS = ("substrate", "picture", "metrics", "table")

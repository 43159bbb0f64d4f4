"""What the two many-worlds composites share: the actions that take states, train in segments, export and evaluate. No ML library."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import PurePosixPath
from typing import Any

from stages import calibration_blocks
from stages.align_states import AlignStates
from stages.calibration import blocks
from stages.calibration_blocks import CalibrationBlocks
from stages.errors import InputError, RecipeError, SpecError
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

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")


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


def check_names(names: Sequence[str]) -> None:
    """Refuse names that could not name files, or name two models.

    Raises:
        SpecError: with the name.
    """
    for name in names:
        if not NAME.match(name):
            raise SpecError(f"models: {name!r} must be letters, digits, '_' and '-', at most 64: files are named by it")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SpecError(f"models: two are called {twice[0]}; give their folders different names")


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


# --- recipes -------------------------------------------------------------------------------------------------------------------


def name_of(path: str) -> str:
    """What a model is called by the last part of its folder or Hub id; by the part before, where that is `model` (as exports are laid out).

    >>> [name_of(path) for path in ("models/tiny", "Qwen/Qwen2.5-0.5B@1a2b", "models/code/model", "model")]
    ['tiny', 'Qwen2-5-0-5B', 'code', 'model']
    """
    parts = PurePosixPath(path.partition("@")[0]).parts or ("model",)
    last = parts[-2] if parts[-1] == "model" and len(parts) > 1 and parts[-2].strip("./") else parts[-1]
    return re.sub(r"[^A-Za-z0-9_-]+", "-", last).strip("-_") or "model"


def with_floats(given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a stage, with whole numbers of the objective as the weights that they are: people write `native: 0`."""
    weights = given.get("objective")
    if not isinstance(weights, Mapping):
        return dict(given)
    plain = {key: float(value) if type(value) is int else value for key, value in weights.items()}
    return {**given, "objective": plain}


def model_of(call: Any, text: str, key: str) -> tuple[str, tuple[Node, ...], Input]:
    """(name, nodes, model) of what a recipe calls a model: the id of an earlier stage that gives one, or what import-model takes.

    Raises:
        RecipeError: the stage gives no model; a folder that is not there.
    """
    from stages import lowering
    from stages.recipe import StageEntry

    for entry, lowered in call.before:
        if entry.id == text:
            if "model" not in lowered.outputs:
                raise RecipeError(f"{call.entry.where(key)}{text} gives no model; it gives {', '.join(lowered.outputs) or 'nothing'}")
            return text, (), lowered.outputs["model"]
    name = name_of(text)
    line = call.entry.lines.get(key, call.entry.line)
    imported = StageEntry(f"{call.id}/import-{name}", "import-model", {"folder": text, "source": text}, {}, line, {"folder": line})
    made = lowering.lower_stage(replace(call, entry=imported, id=imported.id))
    return name, made.nodes, made.outputs["model"]

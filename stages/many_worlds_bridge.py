"""Train a bridge from what frozen sources make of a text to a frozen target, and measure it against all that is simpler: docs/bridges.md.

All versions are values of one spec, trained and measured under one protocol: the source reads what stands before a cut and nothing else,
the target reads the same and is scored on what comes after.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from stages import calibration_blocks, hidden_states, named_models
from stages.bridge_bytes import BridgeBytes
from stages.bridge_evaluate import BridgeEvaluate
from stages.bridge_export import BridgeExport
from stages.bridge_gather import BridgeGather
from stages.bridge_handoff import BridgeHandoff
from stages.bridge_init import BridgeInit
from stages.bridge_segment import BridgeSegment
from stages.bridge_texts import BridgeTexts
from stages.bridges.spec import VERSIONS, BridgeSpec
from stages.calibration import blocks
from stages.calibration_blocks import CalibrationBlocks
from stages.errors import InputError, RecipeError, SpecError
from stages.hf_model import LoadIn
from stages.hidden_states import HiddenStates
from stages.many_worlds.graph import in_range
from stages.many_worlds.settings import Schedule
from stages.stage import Composite, Graph, Input, Node, Ref, spec_from_json, spec_to_json
from store.cas import Cas
from store.digest import Digest
from store.errors import NotFoundError

MAX_STEPS = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ManyWorldsBridge:
    """What is trained, and how. `segment_steps` alone does not change a byte of the bridge."""

    sources: tuple[str, ...]
    """Names of the source models, in order; the input `model-<name>` is of each."""
    target: str
    """Name of the target; its input is `target`."""
    version: str = "v12"
    """One of `stages.bridges.spec.VERSIONS`."""
    bridge: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `BridgeSpec` that differ from the version's."""
    training_steps: int = 500
    learning_rate: float = 1e-3
    batch_size: int = 8
    """Texts per step."""
    weight_decay: float = 0.01
    max_gradient_norm: float = 1.0
    prompt_bytes: int = 160
    """The source and the target read at most so many bytes before the cut, and at least half of it."""
    continuation_bytes: int = 64
    """The target is scored on at most so many bytes after it, and at least half of it."""
    handoff_bytes: int = 64
    """What a source writes in the control of text hand-off."""
    heldout_percent: int = 20
    block_samples: int = 100
    freeze_substrate: bool = False
    """Nothing that is taken from the input `substrate` is trained on; without that input it means nothing."""
    load_in: LoadIn = "auto"
    segment_steps: int = 250
    seed: int = 0

    def __post_init__(self) -> None:
        named_models.check_names((*self.sources, self.target))
        if not self.sources:
            raise SpecError("sources: there are none; a bridge needs one at least")
        in_range(self.training_steps, 1, MAX_STEPS, "training_steps")
        in_range(self.segment_steps, 1, MAX_STEPS, "segment_steps")
        if self.version not in VERSIONS:
            raise SpecError(f"version: there is no {self.version!r}; there are {', '.join(VERSIONS)}")
        _ = self.resolved, self.training, self.texts  # their own checks

    @property
    def resolved(self) -> BridgeSpec:
        """The version with its changes."""
        try:
            found = spec_from_json(BridgeSpec, {**spec_to_json(VERSIONS[self.version]), **self.bridge})
        except SpecError as error:
            raise SpecError(f"bridge: {error}") from error
        if not found.reads_sources:
            raise SpecError(f"bridge: the reader {found.reader} reads no source; every report has it as a control")
        return found

    @property
    def training(self) -> Schedule:
        """The settings that every segment has."""
        own = {item.name: getattr(self, item.name) for item in fields(Schedule) if hasattr(self, item.name)}
        return Schedule(steps=self.training_steps, **own)

    @property
    def texts(self) -> BridgeTexts:
        """How texts are cut."""
        return BridgeTexts(prompt_bytes=self.prompt_bytes, continuation_bytes=self.continuation_bytes, heldout_percent=self.heldout_percent)


def expand(spec: ManyWorldsBridge, inputs: Mapping[str, Input], store: Cas) -> Graph:
    """Cut, read with every model, train with and without sources in segments, export, evaluate.

    Raises:
        SpecError: models without an input each. InputError: an empty calibration set, or a wrong line in it.
    """
    models = {name.removeprefix("model-"): model for name, model in inputs.items() if name.startswith("model-")}
    if set(models) != set(spec.sources):
        raise SpecError(f"sources are {', '.join(spec.sources)}; given are {', '.join(sorted(models)) or 'none'}")
    calibration, target, bridge = inputs["calibration"], inputs["target"], spec.resolved
    assert isinstance(calibration, Digest)  # it is among STAGE.reads
    try:
        with store.open(calibration) as lines:
            count = sum(1 for _ in blocks(lines, spec.block_samples))
    except NotFoundError as error:
        raise InputError(f"the calibration set {calibration.short} is not in this store: pull its ledger first") from error
    nodes = [Node("blocks", "calibration-blocks", CalibrationBlocks(block_samples=spec.block_samples), {"calibration": calibration})]
    readings: dict[str, Input] = {}
    controls: dict[str, Input] = {}
    layer = hidden_states.LAST if bridge.source_layer == "last" else None
    for number in range(count):
        block, of = f"{number:05d}", f"block {number + 1}/{count}"
        samples = Ref("blocks", calibration_blocks.name(number))
        nodes.append(Node(f"texts-{block}", "bridge-texts", spec.texts, {"model": target, "samples": samples}, f"cut {of}"))
        prefixes, held_out = Ref(f"texts-{block}", "prefixes"), Ref(f"texts-{block}", "held-out")
        readings[f"tokens-{block}"] = Ref(f"texts-{block}", "tokens")
        controls[f"held-out-{block}"] = held_out
        for name in spec.sources:
            states = HiddenStates(layer=layer, max_bytes=2 * spec.prompt_bytes, load_in=spec.load_in)
            given: dict[str, Input] = {"model": models[name], "samples": prefixes}
            nodes.append(Node(f"states-{name}-{block}", "hidden-states", states, given, f"states of {name}, {of}"))
            readings[f"states-{name}-{block}"] = Ref(f"states-{name}-{block}", "states")
            written = BridgeHandoff(bytes=spec.handoff_bytes, load_in=spec.load_in)
            given = {"model": models[name], "held-out": held_out}
            nodes.append(Node(f"handoff-{name}-{block}", "bridge-handoff", written, given, f"{name} writes, {of}"))
            controls[f"handoff-{name}-{block}"] = Ref(f"handoff-{name}-{block}", "handoff")
        for name, model in ((spec.target, target), *models.items()):
            given = {"model": model, "held-out": held_out}
            nodes.append(Node(f"bytes-{name}-{block}", "bridge-bytes", BridgeBytes(load_in=spec.load_in), given, f"bytes of {name}, {of}"))
            controls[f"bytes-{name}-{block}"] = Ref(f"bytes-{name}-{block}", "bytes")
    nodes.append(Node("readings", "bridge-gather", BridgeGather(), readings))
    nodes.append(Node("controls", "bridge-gather", BridgeGather(), controls))
    given = {"target": target, "readings": Ref("readings", "readings")}
    substrate = {"substrate": inputs["substrate"]} if "substrate" in inputs else {}
    return _trained(spec, given, models, calibration, substrate, nodes)


def _trained(
    spec: ManyWorldsBridge,
    given: Mapping[str, Input],
    models: Mapping[str, Input],
    calibration: Digest,
    substrate: Mapping[str, Input],
    nodes: list[Node],
) -> Graph:
    """The two trainings, on the sources' states and on a constant, and what comes of them."""
    bridge = spec.resolved
    measured: dict[str, Input] = {**given, "calibration": calibration, "controls": Ref("controls", "readings")}
    for constant in (False, True):
        suffix = "-prompt" if constant else ""
        init = BridgeInit(
            bridge=bridge,
            sources=spec.sources,
            constant=constant,
            target=spec.target if substrate else "",
            freeze_substrate=spec.freeze_substrate and bool(substrate),
            load_in=spec.load_in,
            seed=spec.seed,
        )
        nodes.append(Node(f"init{suffix}", "bridge-init", init, {**given, **substrate}))
        state = Ref(f"init{suffix}", "state")
        if not constant:
            measured["untrained"] = state
        for start in range(0, spec.training_steps, spec.segment_steps):
            until = min(start + spec.segment_steps, spec.training_steps)
            settings = {item.name: getattr(spec.training, item.name) for item in fields(Schedule)}
            segment = BridgeSegment(until=until, load_in=spec.load_in, **settings)
            label = f"steps {start + 1} to {until}" + (", without sources" if constant else "")
            node = Node(f"steps{suffix}-{until:07d}", "bridge-segment", segment, {"state": state, **given}, label)
            nodes.append(node)
            state = Ref(node.id, "state")
        measured["prompt" if constant else "trained"] = state
    export = BridgeExport(
        sources=spec.sources, target=spec.target, version=spec.version, training=spec.training, texts=spec.texts, load_in=spec.load_in
    )
    sources: dict[str, Input] = {f"model-{name}": model for name, model in models.items()}
    state_inputs = {"state": measured.pop("trained"), "prompt": measured["prompt"]}
    nodes.append(Node("export", "bridge-export", export, {**state_inputs, **given, **sources, "calibration": calibration}))
    measured["bridge"] = Ref("export", "bridge")
    evaluate = BridgeEvaluate(
        sources=spec.sources,
        target=spec.target,
        version=spec.version,
        seed=spec.seed,
        handoff_bytes=spec.handoff_bytes,
        load_in=spec.load_in,
    )
    nodes.append(Node("evaluate", "bridge-evaluate", evaluate, measured))
    made = {"bridge": Ref("export", "bridge"), "picture": Ref("export", "picture")}
    return Graph(tuple(nodes), made | {name: Ref("evaluate", name) for name in ("metrics", "table", "losses")})


OUTPUTS = ("bridge", "picture", "metrics", "table", "losses")


def lower(call: Any) -> Any:
    """The recipe form: `sourceModels` and `targetModel` are ids of earlier stages or what import-model takes, `calibrationCorpus` is a
    path, `substratePath` the id of the stage that gave a substrate, or its folder.

    Raises:
        RecipeError: as `stages.lowering.bind`; no models, or two of one name.
    """
    from stages import lowering

    entry = call.entry
    target = entry.fields.get("targetModel")
    if not isinstance(target, str):
        raise RecipeError(f"{entry.where('targetModel')}{entry.type} needs targetModel: a stage or a folder")
    own, sources = named_models.model_of(call, target, "targetModel"), named_models.models_of(call, "sourceModels")
    rest = {key: value for key, value in entry.fields.items() if key not in ("sourceModels", "targetModel", "substratePath")}
    lines = {**entry.lines, "sources": entry.lines.get("sourceModels", entry.line), "target": entry.lines.get("targetModel", entry.line)}
    given = rest | {"sources": [name for name, _, _ in sources], "target": own[0]}
    spec, paths = lowering.bind(replace(entry, fields=given, lines=lines), STAGE)
    if "calibration" not in paths:
        raise RecipeError(f"line {entry.line}: {entry.type} needs calibrationCorpus: the path of a file of JSON lines")
    inputs: dict[str, Input] = {"calibration": call.materials(paths["calibration"]), "target": own[2]}
    inputs |= {f"model-{name}": model for name, _, model in sources}
    if "substratePath" in entry.fields:
        inputs["substrate"] = _substrate(call, entry.fields["substratePath"])
    nodes = [node for _, made, _ in (own, *sources) for node in made]
    node = Node(call.id, STAGE.name, spec, inputs)
    return lowering.Lowered((*nodes, node), {name: Ref(call.id, name) for name in OUTPUTS})


def _substrate(call: Any, path: Any) -> Input:
    """What `substratePath` names."""
    earlier = {entry.id: lowered.outputs for entry, lowered in call.before}
    if not isinstance(path, str) or (path in earlier and "substrate" not in earlier[path]):
        raise RecipeError(
            f"{call.entry.where('substratePath')}substratePath is {path!r}; it must be a stage that gives a substrate, or a folder"
        )
    found: Input = earlier[path]["substrate"] if path in earlier else call.materials(path)
    return found


STAGE = Composite(
    name="many-worlds-bridge",
    spec=ManyWorldsBridge,
    inputs=("calibration", "target", "model-*", "substrate*"),
    outputs=OUTPUTS,
    reads=("calibration",),
    expand=expand,
    keys={"calibrationCorpus": "calibration"},
    described=("notes",),
    lower=lower,
)

"""Train a substrate and one adapter for each of several frozen models on the same texts. See docs/many-worlds.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from stages import named_models
from stages.errors import RecipeError, SpecError
from stages.hf_model import LoadIn
from stages.many_worlds import graph
from stages.many_worlds.settings import LossType, Objective, Schedule
from stages.many_worlds_init import ManyWorldsInit
from stages.stage import Composite, Graph, Input, Node, Ref
from store.cas import Cas
from store.digest import Digest

MAX_STEPS = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ManyWorldsSubstrate:
    """What is trained, and how. `segment_steps` alone does not change a byte of the substrate: it says how much a crash may cost."""

    models: tuple[str, ...]
    """Names of the models; the input `model-<name>` is of each."""
    substrate_dim: int = 256
    num_gaussians: int = 128
    adapter_rank: int | None = None
    """None for the substrate's dimension."""
    training_steps: int = 1000
    learning_rate: float = 1e-4
    loss_type: LossType = "both"
    insert_layers: Mapping[str, int] = field(default_factory=dict)
    """Model -> layer of its states; two thirds of the layers where none is given."""
    objective: Objective = field(default_factory=Objective)
    batch_size: int = 256
    weight_decay: float = 0.01
    max_gradient_norm: float = 1.0
    dropout: float = 0.0
    output_scale: float = 1.0
    heldout_percent: int = 20
    seed: int = 0
    max_bytes: int = 512
    """A text is cut after so many bytes."""
    block_samples: int = 20
    load_in: LoadIn = "auto"
    segment_steps: int = 200
    evaluation_places: int = 1000
    shuffled_control: bool = True
    """Train once more on pairs that do not belong together."""

    def __post_init__(self) -> None:
        named_models.check_names(self.models)
        if len(self.models) < 2:
            raise SpecError(f"source_models: {len(self.models)} given; a shared space is of at least 2 models")
        graph.in_range(self.substrate_dim, 64, 2048, "substrate_dim")
        graph.in_range(self.num_gaussians, 16, 1024, "num_gaussians")
        graph.in_range(self.rank, 8, 2048, "adapter_rank")
        graph.in_range(self.training_steps, 100, MAX_STEPS, "training_steps")
        graph.in_range(self.segment_steps, 1, MAX_STEPS, "segment_steps")
        unknown = sorted(set(self.insert_layers) - set(self.models))
        if unknown:
            raise SpecError(f"insert_layers: there is no model {unknown[0]!r}; there are {', '.join(self.models)}")
        _ = self.training  # its own checks

    @property
    def rank(self) -> int:
        """Of the adapters."""
        return self.substrate_dim if self.adapter_rank is None else self.adapter_rank

    @property
    def training(self) -> Schedule:
        """The settings that every segment has."""
        own = {item.name: getattr(self, item.name) for item in fields(Schedule) if hasattr(self, item.name)}
        return Schedule(steps=self.training_steps, **own)


def expand(spec: ManyWorldsSubstrate, inputs: Mapping[str, Input], store: Cas) -> Graph:
    """See `stages.many_worlds.graph`.

    Raises:
        SpecError: models without an input each. InputError: an empty calibration set, or a wrong line in it.
    """
    given = {name.removeprefix("model-") for name in inputs if name.startswith("model-")}
    if given != set(spec.models):
        raise SpecError(f"models are {', '.join(spec.models)}; given are {', '.join(sorted(given)) or 'none'}")
    calibration = inputs["calibration"]
    assert isinstance(calibration, Digest)  # it is among STAGE.reads
    sources = [graph.Source(name, inputs[f"model-{name}"], spec.insert_layers.get(name)) for name in spec.models]
    init = ManyWorldsInit(
        dim=spec.substrate_dim,
        gaussians=spec.num_gaussians,
        rank=spec.rank,
        output_scale=spec.output_scale,
        temperature=spec.objective.temperature,
        heldout_percent=spec.heldout_percent,
        seed=spec.seed,
    )
    chain = graph.Chain(
        init=init,
        objective=graph.objective(spec.loss_type, spec.objective),
        training=spec.training,
        segment_steps=spec.segment_steps,
        control=spec.shuffled_control,
        places=spec.evaluation_places,
    )
    taking = graph.Taking(max_bytes=spec.max_bytes, block_samples=spec.block_samples, load_in=spec.load_in)
    return graph.graph(sources, calibration, taking, chain, store)


def lower(call: Any) -> Any:
    """The recipe form: `sourceModels` are ids of earlier stages or what import-model takes, `calibrationCorpus` is a path.

    Raises:
        RecipeError: as `stages.lowering.bind`; no models, or two of one name.
    """
    from stages import lowering

    found = named_models.models_of(call, "sourceModels")
    given = call.entry.fields
    fields_ = {key: value for key, value in given.items() if key != "sourceModels"} | {"models": [name for name, _, _ in found]}
    entry = replace(call.entry, fields=fields_, lines={**call.entry.lines, "models": call.entry.lines.get("sourceModels", call.entry.line)})
    spec, paths = lowering.bind(entry, STAGE)
    if "calibration" not in paths:
        raise RecipeError(f"line {entry.line}: {entry.type} needs calibrationCorpus: the path of a file of JSON lines")
    inputs: dict[str, Input] = {"calibration": call.materials(paths["calibration"])} | {f"model-{name}": model for name, _, model in found}
    nodes = [node for _, made, _ in found for node in made]
    node = Node(call.id, STAGE.name, spec, inputs)
    return lowering.Lowered((*nodes, node), {name: Ref(call.id, name) for name in graph.OUTPUTS})


STAGE = Composite(
    name="many-worlds-substrate",
    spec=ManyWorldsSubstrate,
    inputs=("calibration", "model-*"),
    outputs=graph.OUTPUTS,
    reads=("calibration",),
    expand=expand,
    keys={"calibrationCorpus": "calibration"},
    described=("notes",),
    lower=lower,
)

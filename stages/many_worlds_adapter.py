"""Add one model to a trained substrate: its adapter is trained, nothing else changes. See docs/many-worlds.md.

The texts, and the states of the models that are there already, are those of the substrate's own training: its folder names them by digest,
so their actions are found and no earlier model runs again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from stages import named_models
from stages.errors import InputError, RecipeError, SpecError
from stages.many_worlds import files, graph
from stages.many_worlds.settings import Objective, Schedule
from stages.many_worlds_init import ManyWorldsInit
from stages.stage import Composite, Graph, Input, Node, Ref
from store.cas import Cas
from store.digest import Digest

MAX_STEPS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ManyWorldsAdapter:
    """What is trained, and how. `segment_steps` alone does not change a byte of the adapter."""

    name: str
    """Of the new model."""
    adapter_rank: int = 64
    insert_layer: int | None = None
    """Layer of its states; None for two thirds of its layers."""
    training_steps: int = 500
    learning_rate: float = 1e-4
    objective: Objective = field(default_factory=Objective)
    batch_size: int = 256
    weight_decay: float = 0.01
    max_gradient_norm: float = 1.0
    dropout: float = 0.0
    output_scale: float = 1.0
    seed: int = 0
    segment_steps: int = 200
    evaluation_places: int = 1000
    shuffled_control: bool = True
    """Train once more on pairs that do not belong together."""

    def __post_init__(self) -> None:
        named_models.check_names((self.name,))
        graph.in_range(self.adapter_rank, 8, 512, "adapter_rank")
        graph.in_range(self.training_steps, 100, MAX_STEPS, "training_steps")
        graph.in_range(self.segment_steps, 1, MAX_STEPS, "segment_steps")
        if self.objective.learn_temperature:
            raise SpecError("objective: a temperature is learned with the substrate; adding a model trains its adapter alone")
        _ = self.training(20)  # its own checks

    def training(self, heldout_percent: int) -> Schedule:
        """The settings that every segment has."""
        own = {item.name: getattr(self, item.name) for item in fields(Schedule) if hasattr(self, item.name)}
        return Schedule(steps=self.training_steps, heldout_percent=heldout_percent, **own)


def expand(spec: ManyWorldsAdapter, inputs: Mapping[str, Input], store: Cas) -> Graph:
    """See `stages.many_worlds.graph`; the control is one adapter trained on shuffled pairs.

    Raises:
        InputError: no substrate, one that has a model of this name, or one whose texts are not here.
    """
    substrate = inputs["substrate"]
    assert isinstance(substrate, Digest)  # it is among STAGE.reads
    trained = files.described(store, substrate)
    if spec.name in {member.name for member in trained.members}:
        raise InputError(f"substrate {substrate.short} has a model called {spec.name!r} already; give the folder another name")
    sources = [graph.Source(member.name, member.model, member.layer) for member in trained.members]
    sources.append(graph.Source(spec.name, inputs["model"], spec.insert_layer))
    try:
        heldout, states = int(trained.metadata["training"]["heldout_percent"]), trained.metadata["states"]
        taking = graph.Taking(**states)
        dim, gaussians = int(trained.metadata["substrate_dim"]), int(trained.metadata["num_gaussians"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"substrate {substrate.short}: its training metadata lack {error}") from error
    chain = graph.Chain(
        init=ManyWorldsInit(
            dim=dim,
            gaussians=gaussians,
            rank=spec.adapter_rank,
            new=spec.name,
            output_scale=spec.output_scale,
            temperature=spec.objective.temperature,
            heldout_percent=heldout,
            seed=spec.seed,
        ),
        objective=spec.objective,
        training=spec.training(heldout),
        segment_steps=spec.segment_steps,
        control=spec.shuffled_control,
        places=spec.evaluation_places,
        frozen=substrate,
    )
    return graph.graph(sources, trained.calibration, taking, chain, store)


def lower(call: Any) -> Any:
    """The recipe form: `targetModel` is the id of an earlier stage or what import-model takes; `substratePath` the id of the stage that
    gave the substrate, or its folder.

    Raises:
        RecipeError: as `stages.lowering.bind`; no model, no substrate.
    """
    from stages import lowering

    given = call.entry.fields
    for key in ("targetModel", "substratePath"):
        if not isinstance(given.get(key), str):
            raise RecipeError(f"{call.entry.where(key)}{call.entry.type} needs {key}: the id of an earlier stage, or a folder")
    name, made, model = named_models.model_of(call, given["targetModel"], "targetModel")
    fields_ = {"name": name} | {key: value for key, value in given.items() if key not in ("targetModel", "substratePath")}
    spec, _ = lowering.bind(replace(call.entry, fields=fields_), STAGE)
    earlier = {entry.id: lowered.outputs for entry, lowered in call.before}
    path = given["substratePath"]
    if path in earlier and "substrate" not in earlier[path]:
        raise RecipeError(f"{call.entry.where('substratePath')}{path} gives no substrate; it gives {', '.join(earlier[path]) or 'nothing'}")
    substrate = earlier[path]["substrate"] if path in earlier else call.materials(path)
    node = Node(call.id, STAGE.name, spec, {"substrate": substrate, "model": model})
    return lowering.Lowered((*made, node), {output: Ref(call.id, output) for output in graph.OUTPUTS})


STAGE = Composite(
    name="many-worlds-adapter",
    spec=ManyWorldsAdapter,
    inputs=("substrate", "model"),
    outputs=graph.OUTPUTS,
    reads=("substrate",),
    expand=expand,
    described=("notes",),
    lower=lower,
)

"""Keep those members of a team without whom something would be lost, under a budget of memory. See docs/team-search.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from stages.errors import InputError, SpecError
from stages.metrics import text
from stages.stage import Context, Input, Leaf, Node, Outcome, Ref
from stages.team import divergence, oracle
from stages.team.board import Board, read
from stages.team.prune import Worth, prune
from stages.team.report import Team
from stages.team_search import choice_rows, solutions
from store import canonical, tree
from store.digest import Digest

Measure = Literal["oracle", "nll"]
"""What a team is worth: the fraction that anyone of it gets right; or minus the NLL of its geometric mean, nats per question of choices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PopulationPrune:
    """Who stays.

    Attributes:
        benchmarks: whose records count.
        min_contribution: in the unit of the measure.
        memory_bytes: of all members' files together; None for no limit.
    """

    benchmarks: tuple[str, ...]
    measure: Measure = "oracle"
    min_contribution: float = 0.05
    memory_bytes: int | None = None

    def __post_init__(self) -> None:
        if not self.min_contribution >= 0 or (self.memory_bytes is not None and self.memory_bytes < 1):
            raise SpecError(
                f"min_contribution {self.min_contribution} must not be negative, and memory_bytes {self.memory_bytes} at least 1"
            )


def lower(call: Any) -> Any:
    """The recipe form: members, sizes and records are those of the nearest team-search stage.

    Raises:
        RecipeError: there is none; an unknown key.
    """
    from stages import lowering
    from stages.recipe import known
    from stages.team import asked

    entry = call.entry
    known(entry.fields, ("measure", "minContribution", "memoryBytes", *STAGE.described), entry.type, entry.where)
    searched, given = asked.search(call)
    spec, _ = lowering.bind(replace(entry, fields={**entry.fields, "benchmarks": list(searched.benchmarks)}), STAGE)
    team = call.nearest("team")
    inputs: dict[str, Input] = {name: item for name, item in given.items() if name.startswith(("model-", "records-"))}
    node = Node(call.id, STAGE.name, spec, {**inputs, "team": team})
    return lowering.Lowered((node,), {"team": Ref(call.id, "team")})


STAGE = Leaf(
    name="population-prune",
    version=2,
    spec=PopulationPrune,
    inputs=("team", "model-*", "records-*"),
    outputs=("team",),
    purity="P",
    run="stages.population_prune:run",
    described=("removedModels", "vramSavedGb", "notes"),
    lower=lower,
)


def run(spec: PopulationPrune, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Prune on the questions that chose the team, and write who stays (`team`) as JSON, in the order of the team.

    Raises:
        SpecError: an input is missing; nobody fits. InputError: no team; no questions with choices where `nll` is to be measured.
    """
    team = Team.parse(context.store.read(inputs["team"]))
    lost = next((name for name in team.members if f"model-{name}" not in inputs), None)
    if lost is not None:
        raise SpecError(f"there is no input model-{lost}")
    board = read(context.store, inputs, "records", team.members, spec.benchmarks)
    sizes = {name: tree.load(context.store, inputs[f"model-{name}"]).size for name in sorted(team.members)}
    found = prune(worth(board, spec.measure), sizes, budget_bytes=spec.memory_bytes, min_contribution=spec.min_contribution)
    kept = [name for name in team.members if name in found.kept]
    report: dict[str, Any] = {
        "kind": STAGE.name,
        "selectedTeam": kept,
        "best": team.best,
        "models": {name: str(inputs[f"model-{name}"]) for name in sorted(kept)},
        "measure": spec.measure,
        "questions": len(board.questions) if spec.measure == "oracle" else len(board.choices),
        "contributions": {name: text(value) for name, value in found.contributions.items()},
        "removed": [{"name": item.name, "reason": item.reason, "contribution": text(item.contribution)} for item in found.removed],
        "sizesBytes": sizes,
        "sizeBytes": found.size_bytes,
        "savedBytes": sum(sizes.values()) - found.size_bytes,
        "budgetBytes": spec.memory_bytes,
    }
    context.note("summary", f"{len(kept)} of {len(sizes)} stay: {', '.join(kept)}; {report['savedBytes']:,} bytes saved")
    return Outcome({"team": context.store.put(canonical.dumps(report))})


def worth(board: Board, measure: Measure) -> Worth:
    """What teams of a board's models are worth by a measure.

    Raises:
        InputError: `nll` without questions that have choices.
    """
    if measure == "oracle":
        return lambda team: sum(oracle.any_right(board.right, team)) / len(board.questions)
    if not board.choices:
        raise InputError(
            "measure nll needs questions with choices, whose log-likelihoods are kept; for generated answers take measure oracle"
        )
    rows = {name: choice_rows(board, name) for name in board.names}

    def of(team: tuple[str, ...]) -> float:
        mixed, _ = divergence.geometric([rows[name] for name in team])
        # Ten digits: the last bits of exp differ between machines, and who stays may not hang on them.
        return -float(f"{divergence.nll(mixed, solutions(board)):.10g}")

    return of

"""When a target should hand a question to a helper: accuracy and coverage at every threshold of its uncertainty.

See docs/team-search.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from stages.errors import InputError, RecipeError, SpecError
from stages.metrics import text
from stages.stage import Context, Input, Leaf, Node, Outcome, Ref
from stages.team import gate
from stages.team.board import Board, read
from stages.team.report import Team
from stages.team_search import mcnemar
from store import canonical
from store.digest import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class GateProfile:
    """Whose gate, on what.

    Attributes:
        benchmark: label of one with choices: uncertainty is the entropy over them.
        target: name; None for the first of the team. Helpers are the team's others.
        questions: the first so many of those that choose; None for all.
    """

    benchmark: str
    target: str | None = None
    questions: int | None = None

    def __post_init__(self) -> None:
        if self.questions is not None and self.questions < 1:
            raise SpecError(f"questions is {self.questions}; it must be at least 1")


def lower(call: Any) -> Any:
    """The recipe form: `benchmark` is one of the nearest team-search stage, `targetModel` one of its candidates.

    Raises:
        RecipeError: no such stage, benchmark or candidate; an unknown key.
    """
    from stages import lowering
    from stages.team import asked

    entry = call.entry
    searched, given = asked.search(call)
    fields = {"numProblems": 100, **entry.fields}
    if isinstance(fields.get("targetModel"), str):
        fields["targetModel"] = asked.candidate(call, fields["targetModel"], searched.candidates, "targetModel")
    spec, _ = lowering.bind(replace(entry, fields=fields), STAGE)
    if spec.benchmark not in searched.benchmarks:
        raise RecipeError(
            f"{entry.where('benchmark')}the team search has no benchmark {spec.benchmark!r}; it has {', '.join(searched.benchmarks)}"
        )
    team = call.nearest("team")
    inputs: dict[str, Input] = {name: item for name, item in given.items() if name.startswith(("records-", "heldout-"))}
    node = Node(call.id, STAGE.name, spec, {**inputs, "team": team})
    return lowering.Lowered((node,), {"gates": Ref(call.id, "gates")})


STAGE = Leaf(
    name="gate-profile",
    version=1,
    spec=GateProfile,
    inputs=("team", "records-*", "heldout-*"),
    outputs=("gates",),
    purity="P",
    run="stages.gate_profile:run",
    keys={"numProblems": "questions", "targetModel": "target"},
    described=("perSpecialistContribution", "exportPath", "notes"),
    lower=lower,
)


def run(spec: GateProfile, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Profile every helper on `records-*`, choose its threshold there, measure that one on `heldout-*`; JSON as `gates`.

    Raises:
        SpecError: an input is missing. InputError: no team; answers that are no choices.
    """
    team = Team.parse(context.store.read(inputs["team"])).members
    target = spec.target if spec.target is not None else team[0]
    helpers = [name for name in team if name != target]
    boards = [read(context.store, inputs, prefix, [target, *helpers], [spec.benchmark]) for prefix in ("records", "heldout")]
    n = min(len(boards[0].questions), spec.questions or len(boards[0].questions))
    select, heldout = (uncertainty(board, target) for board in boards)
    found: dict[str, Any] = {}
    for name in helpers:
        points = gate.profile(select[:n], boards[0].right[target][:n], boards[0].right[name][:n])
        choice = gate.chosen(points)
        confirmed = gate.point(heldout, boards[1].right[target], boards[1].right[name], choice.threshold)
        found[name] = {
            "profile": [_point(item) for item in points],
            "chosen": _point(choice),
            "heldOut": _point(confirmed) | {"against": mcnemar(confirmed.mcnemar)},
        }
    right = boards[1].right[target]
    report = {
        "kind": STAGE.name,
        "benchmark": spec.benchmark,
        "target": target,
        "uncertainty": "entropy of the choices, nats",
        "questions": {"select": n, "heldOut": len(heldout)},
        "targetAccuracy": {"select": text(sum(boards[0].right[target][:n]) / n), "heldOut": text(sum(right) / len(right))},
        "perSpecialistContribution": {
            name: text((item["heldOut"]["against"]["wins"] - item["heldOut"]["against"]["losses"]) / len(right))
            for name, item in found.items()
        },
        "helpers": found,
    }
    context.note("summary", f"{target} with {len(helpers)} helpers on {n} questions")
    return Outcome({"gates": context.store.put(canonical.dumps(report))})


def uncertainty(board: Board, name: str) -> list[float]:
    """(n,) entropy over the choices of every question, nats, to ten digits: so much is the same on every machine.

    Raises:
        InputError: a question without choices.
    """
    found = []
    for question, logs in zip(board.questions, board.logs[name], strict=True):
        if logs is None:
            raise InputError(
                f"question {question} has no choices, so its record does not tell how sure {name} was; profile a gate on choices"
            )
        found.append(float(f"{gate.entropy(logs):.10g}"))
    return found


def _point(item: gate.Point) -> dict[str, Any]:
    return {
        "threshold": text(item.threshold),
        "coverage": text(item.kept),
        "accuracy": text(item.accuracy),
        "keptAccuracy": text(item.kept_accuracy),
        "wins": item.wins,
        "losses": item.losses,
    }

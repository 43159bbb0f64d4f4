"""Search the team among several models whose members answer what the others do not, and confirm it on questions that did not choose it.

See docs/team-search.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stages import named_models, statistics
from stages.errors import GuaranteeError, InputError, RecipeError, SpecError
from stages.metrics import text
from stages.stage import Context, Input, Leaf, Node, Outcome, Ref
from stages.team import divergence, oracle, picture
from stages.team.board import Board, input_names, read
from store import canonical
from store.digest import Digest

ALPHA = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class TeamSearch:
    """Among whom, and when to stop.

    Attributes:
        candidates: names; each has inputs `model-<name>`, and per benchmark `records-<name>-<benchmark>` and `heldout-...`; `second-...`
            and `heldoutsecond-...` are records of a second sample, of all candidates or none.
        benchmarks: labels.
        min_net: a member joins for more than this, a fraction of the questions.
        max_members: None for any number.
    """

    candidates: tuple[str, ...]
    benchmarks: tuple[str, ...]
    min_net: float = 0.0
    max_members: int | None = None

    def __post_init__(self) -> None:
        if len(self.candidates) < 2:
            raise SpecError(f"candidates: {len(self.candidates)} given; a team is searched among at least 2 models")
        if not 0 <= self.min_net < 1 or (self.max_members is not None and self.max_members < 1):
            raise SpecError(f"min_net {self.min_net} must be a part below 1, and max_members {self.max_members} at least 1")


def lower(call: Any) -> Any:
    """The recipe form: `searchPool` are ids of earlier stages or what import-model takes; for the rest see `stages.team.asked`.

    Every candidate is evaluated by actions of its own, so one more candidate costs only its own answers.

    Raises:
        RecipeError: as `stages.team.asked.of`; no pool, or two models of one name.
    """
    from stages import lowering
    from stages.recipe import known
    from stages.team import asked

    entry = call.entry
    own = ("minNet", "maxMembers")
    known(entry.fields, ("searchPool", *own, *_ASKED, *STAGE.described), entry.type, entry.where)
    found = named_models.models_of(call, "searchPool")
    names = [name for name, _, _ in found]
    what = asked.of(call)
    fields = {key: entry.fields[key] for key in own if key in entry.fields} | {"candidates": names, "benchmarks": list(what.labels)}
    spec, _ = lowering.bind(replace(entry, fields=fields), STAGE)
    nodes: list[Node] = []
    inputs: dict[str, Input] = {}
    for name, made, model in found:
        evaluated, records = what.nodes(call, name, model)
        nodes += [*made, *evaluated]
        inputs |= records
    ways = entry.fields.get("divergence", "choices")
    if ways not in ("choices", "bytes"):
        raise RecipeError(f"{entry.where('divergence')}divergence is {ways!r}; it is over the choices, or over the bytes of all prompts")
    limit = entry.fields.get("divergenceBytes", 20_000)
    if type(limit) is not int or limit < 1:
        raise RecipeError(f"{entry.where('divergenceBytes')}divergenceBytes is {limit!r}; it must be a whole number of at least 1")
    if ways == "bytes":
        read, inputs["divergence"] = what.reading(call, {name: model for name, _, model in found}, limit, spec.max_members)
        nodes += read
    elif "divergenceBytes" in entry.fields:
        raise RecipeError(f"{entry.where('divergenceBytes')}divergenceBytes is for divergence: bytes")
    node = Node(call.id, STAGE.name, spec, inputs)
    return lowering.Lowered((*nodes, node), {name: Ref(call.id, name) for name in STAGE.outputs})


_ASKED = ("benchmarks", "benchmark", "dataset", "heldOut", "numProblems", "divergence", "divergenceBytes")

STAGE = Leaf(
    name="team-search",
    version=2,
    spec=TeamSearch,
    inputs=("model-*", "records-*", "heldout-*", "second-*", "heldoutsecond-*", "divergence*"),  # the last is optional
    outputs=("team", "picture"),
    purity="P",
    run="stages.team_search:run",
    described=("candidatesEvaluated", "selectedTeam", "divergenceScore", "complementaryProblems", "notes"),
    lower=lower,
)


def run(spec: TeamSearch, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Choose on `records-*`, confirm on `heldout-*`, and write the report (`team`) as JSON, and drawn (`picture`) as SVG.

    Raises:
        SpecError: an input is missing. InputError: candidates that answered other questions; a held-out question that chose.
    """
    names, benchmarks = spec.candidates, spec.benchmarks
    models = {name: inputs.get(f"model-{name}") for name in sorted(names)}
    lost = next((name for name, digest in models.items() if digest is None), None)
    if lost is not None:
        raise SpecError(f"there is no input model-{lost}")
    select, heldout = (read(context.store, inputs, prefix, names, benchmarks) for prefix in ("records", "heldout"))
    seen = sorted(question for question, content in zip(heldout.questions, heldout.content, strict=True) if content in set(select.content))
    if seen:
        raise InputError(f"{len(seen)} held-out questions are among those that choose, {seen[0]} first: nothing would be confirmed by them")
    chances = [
        _chances(board, read(context.store, inputs, prefix, names, again) if (again := _again(inputs, prefix, spec)) else None)
        for board, prefix in ((select, "second"), (heldout, "heldoutsecond"))
    ]
    growth = oracle.grow(select.right, chances[0], min_net=spec.min_net, most=spec.max_members)
    single = growth.team[0]
    confirmed = oracle.confirm(heldout.right, chances[1], growth.team, single, heldout.clusters)
    report: dict[str, Any] = {
        "kind": STAGE.name,
        "models": {name: str(digest) for name, digest in models.items()},
        "benchmarks": list(benchmarks),
        "questions": {"select": len(select.questions), "heldOut": len(heldout.questions)},
        "candidates": {name: {"select": sum(select.right[name]), "heldOut": sum(heldout.right[name])} for name in select.names},
        "pairs": [_pair(item) for item in oracle.pairs(select.right)],
        "growth": [_step(step) for step in growth.steps],
        "refused": None if growth.refused is None else _step(growth.refused),
        "selectedTeam": list(growth.team),
        "oracleGain": text(oracle.oracle_gain(select.right, growth.team)),
        "confirmation": _confirmation(confirmed, len(growth.team)),
    }
    if select.choices and heldout.choices:
        report["divergence"] = _divergence(select, growth.team)
        report["geometricTeam"] = geometric(heldout, growth.team, single)
    if "divergence" in inputs:
        report["byteDivergence"] = canonical.loads(context.store.read(inputs["divergence"]))
    context.note("summary", f"{' + '.join(growth.team)}: {confirmed.team:.1%} by anyone, {confirmed.alone:.1%} by {single} alone")
    drawn = picture.draw(report).encode()
    return Outcome({"team": context.store.put(canonical.dumps(report)), "picture": context.store.put(drawn)})


def _again(inputs: Mapping[str, Digest], prefix: str, spec: TeamSearch) -> list[str]:
    """Benchmarks of which there is a second sample of anybody; `read` refuses those that are not of all."""
    return [label for label in spec.benchmarks if input_names(prefix, spec.candidates, [label]) & set(inputs)]


def _chances(board: Board, second: Board | None) -> dict[str, list[float]]:
    """That another sample is right: by the second records where there are, else of choices by their probability.

    Empty where neither is known of some question.

    Raises:
        InputError: a second sample of other questions.
    """
    places = {} if second is None else {question: place for place, question in enumerate(second.questions)}
    strange = sorted(set(places) - set(board.questions))
    if strange:
        raise InputError(f"the second sample answers {strange[0]}, the first does not")
    if any(solution is None and question not in places for question, solution in zip(board.questions, board.solutions, strict=True)):
        return {}

    def chance(name: str, place: int) -> float:
        again = places.get(board.questions[place])
        if second is not None and again is not None:
            return float(second.right[name][again])
        logs, solution = board.logs[name][place], board.solutions[place]
        assert logs is not None
        assert solution is not None
        return min(1.0, _exp(logs[solution]))

    return {name: [chance(name, place) for place in range(len(board.questions))] for name in board.names}


def _exp(value: float) -> float:
    # Ten digits: the last bits of exp differ between machines, and no choice may hang on them.
    return float(f"{math.exp(value):.10g}")


def choice_rows(board: Board, name: str) -> list[tuple[float, ...]]:
    """(T, choices) log probabilities of a model on the questions with choices."""
    return [logs for logs in board.logs[name] if logs is not None]


def solutions(board: Board) -> list[int]:
    """(T,) the right choices."""
    return [item for item in board.solutions if item is not None]


def _divergence(board: Board, team: Sequence[str]) -> dict[str, Any]:
    """D of all pairs and of the team over the choices, with the losses that the identity joins; nats per question.

    Raises:
        GuaranteeError: the team's loss is not the mean loss of its members less D, to 1e-6.
    """
    rows = {name: choice_rows(board, name) for name in board.names}
    losses = {name: divergence.nll(rows[name], solutions(board)) for name in board.names}
    together = divergence.nll(divergence.geometric([rows[name] for name in team])[0], solutions(board))
    gained = divergence.divergence([rows[name] for name in team])
    error = together - (math.fsum(losses[name] for name in team) / len(team) - gained)
    if math.isfinite(error) and abs(error) > 1e-6:
        raise GuaranteeError(f"NLL of the team and mean NLL - D differ by {error:.3g} nats per question: a fault of the program")
    return {
        "places": len(board.choices),
        "matrix": {name: {other: text(value) for other, value in row.items()} for name, row in divergence.matrix(rows).items()},
        "nll": {name: text(value) for name, value in losses.items()},
        "team": text(gained),
        "teamNll": text(together),
    }


def geometric(board: Board, team: Sequence[str], single: str) -> dict[str, Any]:
    """What the equal-weight geometric team chooses, against one model, on the questions with choices."""
    mixed, _ = divergence.geometric([choice_rows(board, name) for name in team])
    together = [row.index(max(row)) == right for row, right in zip(mixed, solutions(board), strict=True)]
    alone = [board.right[single][place] for place in board.choices]
    test = statistics.mcnemar(*statistics.discordant(together, alone))
    difference = statistics.paired_difference(together, alone, [board.clusters[place] for place in board.choices])
    return {
        "questions": len(together),
        "accuracy": text(sum(together) / len(together)),
        "single": single,
        "singleAccuracy": text(sum(alone) / len(alone)),
        "against": mcnemar(test) | {"difference": mean(difference)},
    }


# --- as JSON -------------------------------------------------------------------------------------------------------------------


def mcnemar(test: statistics.McNemar) -> dict[str, Any]:
    """Wins, losses, and p as decimal text."""
    return {"wins": test.wins, "losses": test.losses, "p": text(test.p)}


def mean(found: statistics.Mean) -> dict[str, Any]:
    """A mean with its interval, as decimal text."""
    return {"mean": text(found.mean), "low": text(found.low), "high": text(found.high), "clusters": found.clusters}


def _pair(item: oracle.Pair) -> dict[str, Any]:
    return {
        "a": item.a,
        "b": item.b,
        "bothRight": item.both_right,
        "aOnly": item.a_only,
        "bOnly": item.b_only,
        "bothWrong": item.both_wrong,
        "complementary": item.complementary,
        "potential": item.potential,
        "diversity": text(item.diversity),
        "gain": text(item.gain),
    }


def _step(step: oracle.Step) -> dict[str, Any]:
    return {"name": step.name, "gain": text(step.gain), "control": text(step.control), "net": text(step.net)}


def _confirmation(found: oracle.Confirmation, members: int) -> dict[str, Any]:
    """`confirmed`: the oracle beats the single member and, with its interval, as many samples of it; null: no control was measured."""
    beyond = None if found.against_control is None else bool(found.against_control.mean > 0 and found.against_control.resolved)
    gained = found.against_single.p <= ALPHA and members > 1
    return {
        "single": found.single,
        "anyone": text(found.team),
        "alone": text(found.alone),
        "against": mcnemar(found.against_single),
        "control": text(found.control),
        "againstControl": None if found.against_control is None else mean(found.against_control),
        "confirmed": (gained and beyond) if beyond is not None or not gained else None,
    }

"""The recipe form `many-worlds-population`, written out as the stages that it stands for. Pure: a mapping in, mappings out.

    {type: many-worlds-population, target: a, search_pool: [b, c], benchmark: gsm8k, dataset: choose.jsonl, heldOut: report.jsonl}

becomes an ensemble of one for each model, so that all are asked byte by byte; `team-search`, which chooses on `dataset`;
`population-prune`; the best single model alone; the ensemble of the target and whom it is left with; and `eval`, which pairs the two on
`heldOut`. It may be one stage, or a whole recipe whose `type` it is. Keys may be written in either way (`search_pool`, `searchPool`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from stages import named_models
from stages.errors import RecipeError

TYPE = "many-worlds-population"
_PLAIN = {
    "target": "target",
    "targetModel": "target",
    "search_pool": "searchPool",
    "num_eval_problems": "numProblems",
    "num_problems": "numProblems",
    "numEvalProblems": "numProblems",
    "top_k": "topK",
    "min_contribution": "minContribution",
    "memory_bytes": "memoryBytes",
    "held_out": "heldOut",
    "blend_strategy": "blendStrategy",
}
_SEARCH = ("minNet", "maxMembers", "divergence", "divergenceBytes")
_ENSEMBLE = ("alpha", "topK", "blendStrategy", "combiner", "settings", "skipBelow", "tolerance")
_DATA = ("dataset", "heldOut")
KEYS = (
    *("target", "searchPool", "benchmark", "benchmarks", "numProblems", "minContribution", "memoryBytes", "output", "notes"),
    *_DATA,
    *_SEARCH,
    *_ENSEMBLE,
)
"""What the form may say. `output` and `notes` change nothing: where results go is said when a recipe is run."""


def plain(key: str) -> str:
    """A key as it is called here.

    >>> plain("search_pool"), plain("alpha")
    ('searchPool', 'alpha')
    """
    return _PLAIN.get(key, key)


def stages(given: Mapping[str, Any], where: Callable[[str], str], taken: frozenset[str] = frozenset()) -> list[dict[str, Any]]:
    """The stages that a population stands for.

    Args:
        given: its keys, without those that every stage has.
        where: `line 7: ` of a key as it is written.
        taken: ids of the recipe's other stages; a model that is one of them is meant.

    Raises:
        RecipeError: an unknown key, one twice, one missing; or questions for choosing and for reporting that are not two data sets.
    """
    from stages.recipe import known

    written = {plain(key): key for key in given}
    if len(written) < len(given):
        twice = next(key for key in given if written[plain(key)] != key)
        raise RecipeError(f"{where(twice)}{twice} and {written[plain(twice)]} of {TYPE} are one key: leave one out")
    known([key for key in given if plain(key) not in KEYS], (*KEYS, *_PLAIN), TYPE, where)
    own = {name: given[key] for name, key in written.items()}

    def at(name: str) -> str:
        return where(written.get(name, "type"))

    target, pool = own.get("target"), own.get("searchPool")
    if not isinstance(target, str) or not isinstance(pool, list) or not pool or not all(isinstance(item, str) for item in pool):
        raise RecipeError(f"{at('searchPool')}{TYPE} needs target, a model, and search_pool, a list of at least one")
    members = {_id(item, taken): item for item in (target, *pool)}
    if len(members) <= len(pool):
        raise RecipeError(f"{at('searchPool')}two models of {TYPE} are of one name; give their folders different names")
    asked = _benchmarks(own, at)
    search = {"type": "team-search", "searchPool": list(members), "benchmarks": asked, "numProblems": own.get("numProblems", 50)}
    prune = {"type": "population-prune", "minContribution": own.get("minContribution", 0.01)}
    blend = {"type": "many-worlds-ensemble", "id": "population", "targetModel": next(iter(members)), "team": "population-prune"}
    report = [
        {key: value for key, value in item.items() if key not in (*_DATA, "secondSample")} | {"dataset": item["heldOut"]} for item in asked
    ]
    return [
        *({"type": "many-worlds-ensemble", "id": name, "targetModel": item, "specialists": []} for name, item in members.items()),
        {**search, **{key: own[key] for key in _SEARCH if key in own}},
        {**prune, **({"memoryBytes": own["memoryBytes"]} if "memoryBytes" in own else {})},
        {"type": "many-worlds-ensemble", "id": "best-single", "team": "team-search", "take": "best"},
        {**blend, **{key: own[key] for key in _ENSEMBLE if key in own}},
        {"type": "eval", "compareTo": "best-single", "benchmarks": report},
    ]


def _id(model: str, taken: frozenset[str]) -> str:
    """What a model is called in the recipe: as its folder is, and otherwise where a stage has that id."""
    name = named_models.name_of(model)
    return f"{name}-alone" if name in {*taken, "population", "best-single", "team-search", "population-prune", "eval"} else name


def _benchmarks(own: Mapping[str, Any], at: Callable[[str], str]) -> list[dict[str, Any]]:
    """Benchmarks, each with the data set that chooses and the one that reports."""
    listed = own.get("benchmarks")
    if listed is None:
        listed = [{"name": own.get("benchmark")} | {key: own[key] for key in _DATA if key in own}]
    elif {"benchmark", *_DATA} & set(own):
        raise RecipeError(f"{at('benchmarks')}{TYPE} takes benchmarks, or benchmark with dataset and heldOut, not both")
    if not isinstance(listed, list) or not listed or not all(isinstance(item, Mapping) for item in listed):
        raise RecipeError(f"{at('benchmarks')}{TYPE} needs benchmarks: a list of mappings with name, dataset and heldOut")
    found = []
    for item in listed:
        name = item.get("name")
        if not isinstance(name, str):
            raise RecipeError(f"{at('benchmark')}{TYPE} needs benchmark, a name such as gsm8k")
        given = [key for key in _DATA if isinstance(item.get(key), str)]
        if len(given) < 2 or item["dataset"] == item["heldOut"]:
            says = "both are one file" if len(given) == 2 else f"given is {given[0]}" if given else "neither is given"
            raise RecipeError(
                f"{at('dataset')}{TYPE} needs two data sets of {name}: dataset, on which the team is chosen, and heldOut, on which it is "
                f"reported; {says}. A gain on the questions that chose proves nothing: put the questions into two files"
            )
        found.append(dict(item))
    return found

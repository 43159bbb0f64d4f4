"""ledger.alloy_format: the format as data, and what is said of everything that is not of it."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest

from ledger.alloy_format import OBJECTS, STAGE_KEYS, STAGES, faults, stage_faults, where

GOOD: dict[str, Any] = {
    "name": "x",
    "version": "1.0.0",
    "source": {"baseModel": "m", "architecture": "mixtral", "isMoE": True},
    "stages": [{"type": "prune", "strategy": "entropy", "level": 0.3}],
    "cycles": 3,
    "results": {"integrity": {"trustLevel": "self-attested", "modelHash": "sha256:" + 64 * "0"}},
}


def told(value: dict[str, Any], *, written: bool = True, stages: bool = True) -> list[str]:
    return [str(fault) for fault in faults(value, written=written, stages=stages)]


def test_a_good_one_has_no_faults() -> None:
    """Neither as a recipe nor as a whole."""
    assert told(GOOD) == told(GOOD, written=False, stages=False) == []


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        (("stages", 0, "level"), 0.95, "stages[0].level: must be at least 0 and at most 0.9; it is 0.95"),
        (("stages", 0, "level"), True, "stages[0].level: must be a number; it is True"),
        (("stages", 0, "type"), "purne", "stages[0].type: unknown stage type 'purne'; did you mean 'prune'?"),
        (("stages", 0), 7, "stages[0]: each stage is an object with a type"),
        (("stages", 0), {"type": "prune"}, "stages[0]: prune needs strategy"),
        (("stages",), [], "stages: there must be at least one stage"),
        (("cycles",), 0, "cycles: must be at least 1; it is 0"),
        (("cycles",), 1.5, "cycles: must be a whole number; it is 1.5"),
        (("version",), "1.0", "version: '1.0' is not of the form 1.2.3"),
        (("source", "isMoE"), "yes", "source.isMoE: must be true or false; it is 'yes'"),
        (("source", "architecure"), "x", "source.architecure: unknown key 'architecure' in source; did you mean 'architecture'?"),
        (("results", "integrity", "modelHash"), "sha256:xyz", "results.integrity.modelHash: must be sha256: and 64 hex digits"),
        (("results", "integrity", "trustLevel"), "total", "results.integrity.trustLevel: must be self-attested, verified, enclave"),
        (("results", "integrity", "fileHashes"), [{"filename": "a", "sha256": "sha256:0"}], "fileHashes[0].sha256: must be 64 hex digits"),
        (("hardware",), None, "hardware: null; leave the key out where there is nothing to say"),
    ],
)
def test_every_fault_says_where_and_what(path: tuple[str | int, ...], value: Any, text: str) -> None:
    """With the nearest known name, the range, or what was expected there."""
    changed = copy.deepcopy(GOOD)
    place: Any = changed
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    assert any(text in fault for fault in told(changed)), told(changed)


def test_what_a_run_wrote_is_left_out_where_a_recipe_is_judged() -> None:
    """Also when it is nonsense."""
    assert told({**GOOD, "results": 7, "receipt": [], "materials": None}, written=False) == []


def test_keys_of_a_stage_are_left_to_who_runs_it_but_for_their_form() -> None:
    """A plug-in's own stage has keys of its own, and all are camelCase."""
    plugged = {**GOOD, "stages": [{"type": "acme-shout", "marks": 3, "_note": ""}, {"type": "prune", "anything": 1}]}
    assert told(plugged, stages=False) == ["stages[0]._note: unknown key '_note' in acme-shout; did you mean 'notes'?"]


def test_keys_of_a_matrix_count_as_given() -> None:
    """A required key may vary."""
    assert list(stage_faults({"type": "prune", "strategy": "entropy", "matrix": {"level": [0.1, 0.2]}})) == []


def test_faults_are_not_endless() -> None:
    """A hostile file gives a hundred at most."""
    assert len(faults({**GOOD, **{f"k{number}": 1 for number in range(5000)}})) == 100


VALUES: tuple[Any, ...] = (None, True, 1, 0.5, "x", [], [1], {}, {"a": 1}, [[]], [{}], 1e300)
WORDS = {"text", "number", "whole", "truth", "any", "sha256", "hex"}


@pytest.mark.parametrize(
    "kind", sorted(set(itertools.chain(*(table.values() for table in (*STAGES.values(), *OBJECTS.values(), STAGE_KEYS)))))
)
def test_every_kind_in_the_tables_is_one(kind: str) -> None:
    """A word, a choice, or the name of an object that there is."""
    name = kind.rstrip("!?").strip("[]{}").partition("(")[0]
    assert name in WORDS or "|" in name or name in STAGES or (name.startswith("@") and name[1:] in OBJECTS)


@pytest.mark.parametrize("type_", STAGES)
def test_any_value_may_stand_anywhere(type_: str) -> None:
    """A fault is told for it, and nothing breaks."""
    for key, value in itertools.product(STAGES[type_], VALUES):
        list(stage_faults({"type": type_, key: value}))
    for key, value in itertools.product(OBJECTS["alloy"], VALUES):
        faults({**GOOD, key: value})


def test_a_path_reads_as_people_write_it() -> None:
    """Keys with dots, positions in brackets."""
    assert where(("results", "benchmarks", 0, "score")) == "results.benchmarks[0].score"

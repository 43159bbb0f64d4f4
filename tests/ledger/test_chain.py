"""ledger.chain: the whole way back, every step once, every gap."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ledger.chain import Made, trace
from store.actions import Action
from store.digest import Digest


def d(name: str) -> Digest:
    return Digest.of(name.encode())


def made(stage: str, inputs: str, outputs: str, entry: int = 0) -> Made:
    """A run; names are single letters."""
    return Made(Action(stage, 1, {}, {name: d(name) for name in inputs}), {name: d(name) for name in outputs}, ("alice",), entry)


def finder(*runs: Made):  # type: ignore[no-untyped-def]
    return lambda digest: [run for run in runs if digest in run.outputs.values()]


def test_diamond_is_walked_once_and_in_order() -> None:
    """Shared sources appear once, makers before users, the maker of the object last."""
    source, left, right, join = made("source", "", "s"), made("left", "s", "l"), made("right", "s", "r"), made("join", "lr", "j")
    found = trace(d("j"), finder(join, right, left, source))
    assert [step.action.stage for step in found.steps] == ["source", "left", "right", "join"]
    assert found.gaps == ()
    assert [step.action.stage for step in found.sources] == ["source"]


def test_all_gaps_are_reported() -> None:
    """Each unexplained input is named once, with who took it and under which name."""
    found = trace(d("z"), finder(made("last", "xyw", "z"), made("mid", "uv", "y")))
    assert sorted((gap.name, gap.wanted_by.stage if gap.wanted_by else "") for gap in found.gaps) == [
        ("u", "mid"),
        ("v", "mid"),
        ("w", "last"),
        ("x", "last"),
    ]


def test_unknown_object_is_its_own_gap() -> None:
    """Nothing known: one gap, no steps."""
    found = trace(d("z"), finder())
    assert [(gap.digest, gap.name, gap.wanted_by) for gap in found.gaps] == [(d("z"), "", None)]


def test_circle_is_a_gap_and_no_endless_walk() -> None:
    """Two objects each made from the other explain nothing; nor does one that was made from itself."""
    found = trace(d("a"), finder(made("there", "b", "a"), made("back", "a", "b")))
    assert [(gap.digest, gap.circular) for gap in found.gaps] == [(d("b"), True)]
    assert trace(d("a"), finder(made("same", "a", "a"))).gaps[0].circular


def test_maker_outside_the_circle_is_preferred() -> None:
    """A second maker that does not need the object explains it."""
    found = trace(d("a"), finder(made("convert", "b", "a"), made("back", "a", "b"), made("source", "", "b", 3)))
    assert [step.action.stage for step in found.steps] == ["source", "convert"]


def test_long_chains_need_no_recursion() -> None:
    """A training of many segments is followed to its start."""
    runs = {d("0"): made("init", "", "0")}
    for number in range(1, 5000):
        action = Action("segment", 1, {"n": number}, {"state": d(str(number - 1))})
        runs[d(str(number))] = Made(action, {"state": d(str(number))}, ("alice",), number)
    found = trace(d("4999"), lambda digest: [runs[digest]] if digest in runs else [])
    assert len(found.steps) == 5000


@given(st.lists(st.tuples(st.integers(0, 12), st.frozensets(st.integers(0, 12), max_size=4)), max_size=25), st.integers(0, 12))
def test_every_input_is_a_step_or_a_gap(edges: list[tuple[int, frozenset[int]]], start: int) -> None:
    """In any graph, cyclic ones too: each step's inputs were made by an earlier step or are gaps, and no step is given twice."""
    runs = [
        Made(Action("x", 1, {"n": number}, {str(name): d(str(name)) for name in inputs}), {"o": d(str(output))}, (), number)
        for number, (output, inputs) in enumerate(edges)
    ]
    found = trace(d(str(start)), finder(*runs))
    explained = {gap.digest for gap in found.gaps}
    for step in found.steps:
        assert set(step.action.inputs.values()) <= explained
        explained |= set(step.outputs.values())
    assert d(str(start)) in explained
    assert len({step.action.key for step in found.steps}) == len(found.steps)

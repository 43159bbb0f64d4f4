"""Graphs on their way to digests: what is known when, and what shares a result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from stages.errors import RecipeError, StageError
from stages.graph import Resolution, check_names
from stages.stage import Composite, Graph, Input, Leaf, Node, Ref, Stage
from store.cas import Cas
from store.digest import Digest
from store.memory import MemoryCas

A, B, C = (Digest.of(text) for text in (b"a", b"b", b"c"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """A spec with one field."""

    n: int = 0


def _pair(spec: Plain, inputs: Mapping[str, Input], store: Cas) -> Graph:
    first = Node("first", "leaf", Plain(n=1), {"x": inputs["x"]})
    second = Node("second", "leaf", Plain(n=2), {"x": Ref("first", "y")})
    return Graph((first, second), {"y": Ref("second", "y"), "through": inputs["x"]})


def _circle(spec: Plain, inputs: Mapping[str, Input], store: Cas) -> Graph:
    nodes = (Node("a", "leaf", Plain(), {"x": Ref("b", "y")}), Node("b", "leaf", Plain(), {"x": Ref("a", "y")}))
    return Graph(nodes, {"y": Ref("a", "y")})


def _ghost(spec: Plain, inputs: Mapping[str, Input], store: Cas) -> Graph:
    return Graph((Node("a", "leaf", Plain(), {"x": Ref("ghost", "y")}),), {"y": Ref("a", "y")})


def _nested(spec: Plain, inputs: Mapping[str, Input], store: Cas) -> Graph:
    return Graph((Node("inner", "pair", Plain(), {"x": inputs["x"]}),), {"y": Ref("inner", "y")})


STAGES: dict[str, Stage] = {
    "leaf": Leaf(name="leaf", version=1, spec=Plain, inputs=("x",), outputs=("y",), purity="P", run="nowhere:run"),
    "pair": Composite(name="pair", spec=Plain, inputs=("x",), outputs=("y", "through"), reads=(), expand=_pair),
    "reader": Composite(name="reader", spec=Plain, inputs=("x",), outputs=("y", "through"), reads=("x",), expand=_pair),
    "circle": Composite(name="circle", spec=Plain, inputs=("x",), outputs=("y",), reads=(), expand=_circle),
    "ghost": Composite(name="ghost", spec=Plain, inputs=("x",), outputs=("y",), reads=(), expand=_ghost),
    "nested": Composite(name="nested", spec=Plain, inputs=("x",), outputs=("y",), reads=(), expand=_nested),
}


def resolution() -> Resolution:
    return Resolution(STAGES.__getitem__, MemoryCas())


def test_a_leaf_with_digests_is_an_action_at_once() -> None:
    """Its key is that of the action made of stage, version, spec and inputs."""
    state = resolution()
    (key,) = state.add([Node("one", "leaf", Plain(n=3), {"x": A})])
    assert state.actions[key].spec == {"n": 3}
    assert state.actions[key].inputs == {"x": A}


def test_results_make_the_next_action_known() -> None:
    """A chain becomes known one result at a time."""
    state = resolution()
    (first,) = state.add([Node("one", "leaf", Plain(), {"x": A}), Node("two", "leaf", Plain(), {"x": Ref("one", "y")})])
    assert [node.id for node in state.waiting()] == ["two"]
    (second,) = state.finish(first, {"y": B})
    assert state.actions[second].inputs == {"x": B}
    assert state.leaves() == 2


def test_composites_expand_with_what_is_not_known_yet() -> None:
    """A composite that need not read an input passes the reference on, through any depth."""
    state = resolution()
    (source,) = state.add([Node("src", "leaf", Plain(), {"x": A}), Node("top", "nested", Plain(), {"x": Ref("src", "y")})])
    assert state.closed() == ()
    assert {node.id for node in state.waiting()} == {"top/inner/first", "top/inner/second"}
    (first,) = state.finish(source, {"y": B})
    (second,) = state.finish(first, {"y": C})
    state.finish(second, {"y": A})
    assert state.resolve(Ref("top", "y")) == A


def test_a_composite_that_reads_waits() -> None:
    """It stays closed until the input that decides its graph is a digest."""
    state = resolution()
    (source,) = state.add([Node("src", "leaf", Plain(), {"x": A}), Node("top", "reader", Plain(), {"x": Ref("src", "y")})])
    assert state.closed() == ("top",)
    (first,) = state.finish(source, {"y": B})
    assert state.closed() == ()
    assert state.node(first).id == "top/first"
    assert state.resolve(Ref("top", "through")) == B


def test_equal_actions_share_one_result() -> None:
    """Two nodes that ask for the same thing have one key, and both get its outputs; a later third one too."""
    state = resolution()
    keys = state.add([Node("one", "leaf", Plain(), {"x": A}), Node("two", "leaf", Plain(), {"x": A})])
    assert len(keys) == 1
    state.finish(keys[0], {"y": B})
    assert state.resolve(Ref("one", "y")) == state.resolve(Ref("two", "y")) == B
    state.add([Node("three", "leaf", Plain(), {"x": A})])
    assert state.resolve(Ref("three", "y")) == B
    assert state.leaves() == 1


def test_wrong_names_are_refused() -> None:
    """A reference to nothing, an id used twice, an output that is not declared, an input that is missing."""
    with pytest.raises(RecipeError, match="refers to 'ghost'"):
        resolution().add([Node("one", "leaf", Plain(), {"x": Ref("ghost", "y")})])
    with pytest.raises(RecipeError, match="two nodes are called 'one'"):
        resolution().add([Node("one", "leaf", Plain(), {"x": A}), Node("one", "leaf", Plain(), {"x": B})])
    state = resolution()
    assert state.add([Node("one", "leaf", Plain(), {}), Node("two", "leaf", Plain(), {"x": A})]) != []
    assert "missing x" in str(state.faults["one"])
    state = resolution()
    (key,) = state.add([Node("one", "leaf", Plain(), {"x": A})])
    with pytest.raises(StageError, match="missing y; not declared: z"):
        state.finish(key, {"z": B})


def test_starred_names_stand_for_any_number() -> None:
    """`part-*` admits none, one and many, and nothing else."""
    check_names("inputs", [], ["part-*"])
    check_names("inputs", ["part-1", "part-2", "model"], ["part-*", "model"])
    with pytest.raises(StageError, match="not declared: other"):
        check_names("inputs", ["other"], ["part-*"])


def test_a_composite_that_refers_to_what_it_does_not_make_is_a_fault_of_its_own() -> None:
    """The fault is kept under its node; everything else becomes known."""
    state = resolution()
    keys = state.add([Node("bad", "ghost", Plain(), {"x": A}), Node("good", "leaf", Plain(), {"x": A})])
    assert len(keys) == 1
    assert "refers to 'bad/ghost', which it does not make" in str(state.faults["bad"])


def test_nodes_that_wait_for_each_other_stay_waiting() -> None:
    """A circle inside a composite never becomes known, and says so when asked."""
    state = resolution()
    assert state.add([Node("bad", "circle", Plain(), {"x": A})]) == []
    assert {node.id for node in state.waiting()} == {"bad/a", "bad/b"}

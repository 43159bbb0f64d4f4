"""Recipes become graphs: how keys, chains, ids and paths find their place."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.errors import RecipeError
from stages.lowering import Plan, camel, lower
from stages.recipe import parse
from stages.stage import Ref
from store.digest import Digest

TEXT = Digest.of(b"text")


def lowered(text: str) -> Plan:
    return lower(parse("name: x\nstages:\n" + text), lambda path: Digest.of(str(path).encode()))


def test_keys_are_the_camel_case_of_fields_and_inputs() -> None:
    """A path given for an input is a material; a value is a field of the spec."""
    plan = lowered(" - {type: acme-shout, marks: 3, text: hello.txt}")
    (node,) = plan.graph.nodes
    assert node.spec.marks == 3
    assert node.inputs["text"] == Digest.of(b"hello.txt") == plan.materials["hello.txt"]
    assert camel("keep_experts") == "keepExperts"


def test_a_chain_wires_to_the_nearest_earlier_output() -> None:
    """The second stage takes the first one's `text` without being told."""
    plan = lowered(" - {type: acme-shout, text: a}\n - {type: acme-shout}")
    assert plan.graph.nodes[1].inputs["text"] == Ref("acme-shout", "text")


def test_inputs_name_any_stage() -> None:
    """`inputs` may point backwards past others, or forwards; ids make a graph of the list."""
    plan = lowered(
        " - {type: acme-shout, id: last, inputs: {text: first}}\n - {type: acme-shout, id: first, text: a}\n"
        " - {type: acme-fan, width: 2, inputs: {text: last.text}}"
    )
    assert plan.groups == ("first", "last", "acme-fan")
    assert {node.id: node.inputs["text"] for node in plan.graph.nodes}["acme-fan"] == Ref("last", "text")


def test_matrix_variants_are_chains_of_their_own() -> None:
    """Each variant has nodes of its own; equal ones will share their action by key."""
    plan = lowered(" - {type: acme-shout, text: a}\n - {type: acme-shout, matrix: {marks: [1, 2]}}")
    assert [node.id for node in plan.graph.nodes] == [
        "acme-shout[marks=1]", "acme-shout-2[marks=1]", "acme-shout[marks=2]", "acme-shout-2[marks=2]",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (" - {type: acme-shuot, text: a}", "line 3: no stage is called 'acme-shuot'; did you mean 'acme-shout'?"),
        (" - {type: acme-shout, text: a, mraks: 2}", "line 3: unknown key 'mraks' in acme-shout; did you mean 'marks'?"),
        (" - {type: acme-shout, text: a, marks: many}", "line 3: acme-shout: marks is 'many'; it must be int"),
        (" - {type: acme-shout, text: a, marks: true}", "line 3: acme-shout: marks is True; it must be int"),
        (" - {type: acme-shout}", "line 3: acme-shout needs text: no earlier stage gives one"),
        (" - {type: acme-shout, text: 3}", "line 3: text of acme-shout must be a path, not 3"),
        (" - {type: acme-fan, text: a}", "line 3: acme-fan needs width"),
        (" - {type: acme-trouble, text: a, kind: odd}", "kind is 'odd'; it must be one of killed"),
        (" - {type: acme-shout, id: a, inputs: {text: b}}\n - {type: acme-shout, id: b, inputs: {text: a}}", "circle: a -> b -> a"),
        (" - {type: acme-shout, inputs: {text: ghost}}", "input text of acme-shout names 'ghost'"),
        (" - {type: acme-shout, id: a, text: t}\n - {type: acme-shout, inputs: {text: a.sound}}", "a gives no 'sound'; it gives text"),
        (" - {type: acme-shout, id: b, text: a}\n - {type: acme-shout, inputs: {txet: b}}", "unknown key 'txet' in the inputs of acme-sh"),
    ],
)
def test_refusals_name_the_line_and_the_remedy(text: str, message: str) -> None:
    """Everything that a chain cannot mean is refused before anything runs."""
    with pytest.raises(RecipeError) as caught:
        lowered(text)
    assert message in str(caught.value)


def test_relative_paths_are_relative_to_the_recipe() -> None:
    """`corpus/a` in `x/recipe.yaml` is `x/corpus/a`; an absolute path stays."""
    from dataclasses import replace

    seen: list[Path] = []

    def material(path: Path) -> Digest:
        seen.append(path)
        return TEXT

    recipe = replace(parse("name: x\nstages: [{type: acme-shout, text: c/a}, {type: acme-shout, text: /abs}]"), folder=Path("x"))
    lower(recipe, material)
    assert seen == [Path("x/c/a"), Path("/abs")]


def test_stages_that_nothing_runs_are_named_together_before_anything_is_looked_up() -> None:
    """They are part of the format, so the recipe loads; running it says which stages, and what is wrong with them, in one go."""

    def material(path: Path) -> Digest:
        raise AssertionError(f"{path} was looked up")

    stages = " - {type: context-extend, targetLength: 512}\n - {type: deliver}\n - {type: qaunt}"
    text = f"name: x\nsource: {{baseModel: far/away}}\nstages:\n{stages}"
    with pytest.raises(RecipeError) as caught:
        lower(parse(text), material)
    told = str(caught.value).splitlines()
    assert told[0] == "line 4: targetLength: must be at least 1024; it is 512"
    assert "context-extend needs method" in told[1]
    assert "line 4: nothing installed runs the stage 'context-extend'" in told[2]
    assert "line 5: nothing installed runs the stage 'deliver'" in told[3]
    assert "line 6: no stage is called 'qaunt'; did you mean 'quant'?" in told[4]

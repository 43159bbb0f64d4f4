"""What the recipe's `publish` stage means."""

from __future__ import annotations

import pytest

from stages.errors import RecipeError, SpecError
from stages.lowering import lower
from stages.publish import Publish
from stages.recipe import parse
from store.digest import Digest


@pytest.mark.parametrize(
    ("template", "alloy", "expected"),
    [
        ("{name}", {"name": "tiny"}, "acme/tiny"),
        ("{base}-{domain}-forged", {"source": {"baseModel": "org/Base.1"}}, "acme/Base.1-general-forged"),
        ("{base}-{domain}", {"source": {"baseModel": "../my model"}, "domains": ["prose"]}, "acme/my-model-prose"),
        ("{name}-{variant}", {"name": "t"}, "acme/t-keep-6"),
    ],
)
def test_a_repository_s_name_is_made_of_what_is_known(template: str, alloy: dict[str, object], expected: str) -> None:
    """The fields are filled in, and what a name cannot hold becomes a dash."""
    assert Publish(org="acme", repo_name_template=template).repo(alloy, "keep=6") == expected


def test_what_cannot_be_had_is_refused() -> None:
    """A publication without its alloy, with a card of other numbers, or with a field that nobody knows."""
    with pytest.raises(SpecError):
        Publish(org="acme", include_alloy=False)
    with pytest.raises(SpecError):
        Publish(org="acme", card_from_benchmarks=False)
    with pytest.raises(SpecError, match=r"\{quality\}"):
        Publish(org="acme", repo_name_template="{quality}")


def recipe(stage: str) -> str:
    return f"name: x\nversion: 1.0.0\nsource: {{baseModel: m}}\nstages:\n  - {{type: quant, quantTypes: [F16]}}\n  - {stage}\n"


def test_a_recipe_with_a_publish_stage_loads_and_does_no_work_for_it() -> None:
    """The fields of the published format are known; the stage gives no node and no output."""
    text = recipe("{type: publish, org: acme, repoNameTemplate: '{base}-{domain}-forged', includeAlloy: true, tags: [a], private: false}")
    plan = lower(parse(text), lambda path: Digest.of(str(path).encode()))
    assert plan.outputs["publish"] == {}
    assert not [node for node in plan.graph.nodes if node.stage == "publish"]


@pytest.mark.parametrize(
    "stage", ["{type: publish}", "{type: publish, org: acme, repo: x}", "{type: publish, org: acme, includeAlloy: false}"]
)
def test_a_publish_stage_that_cannot_be_is_refused_with_its_line(stage: str) -> None:
    """Before anything is run."""
    with pytest.raises((RecipeError, SpecError), match="line 6"):
        lower(parse(recipe(stage)), lambda path: Digest.of(str(path).encode()))

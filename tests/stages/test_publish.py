"""What is published of a run, and what the recipe's `publish` stage means."""

from __future__ import annotations

import pytest

from stages.errors import InputError, RecipeError, SpecError
from stages.lowering import lower
from stages.publish import Publish, outputs_of
from stages.publish_facts import Chosen, choose, count_words, datasets_of
from stages.recipe import parse
from store.digest import Digest

A, B, C, D, E = (Digest.of(letter.encode()) for letter in "abcde")


def test_the_last_model_and_the_last_file_of_each_type_are_chosen() -> None:
    """What was only imported, and what an evaluation made of the base, is never published."""
    outputs = [
        ("import-model", "model", A), ("quant", "gguf-F16", B), ("expert-prune", "model", C),
        ("quant-2", "gguf-F16", D), ("eval", "base-gguf-F16", E), ("eval", "report", E),
    ]  # fmt: skip
    assert choose(outputs, None) == Chosen("", C, {"F16": D})


def test_a_recipe_that_only_quantises_has_no_folder() -> None:
    """Its GGUF files alone are published; the base's folder is not ours."""
    assert choose([("import-model", "model", A), ("quant", "gguf-F16", B)], None) == Chosen("", None, {"F16": B})


def test_a_repository_holds_one_variant() -> None:
    """Of a matrix one must be named; it gets its own files, and what is outside of the matrix."""
    outputs = [("import-model", "model", A), ("train", "model", E)]
    outputs += [(f"expert-prune[keep={keep}]", "model", digest) for keep, digest in ((6, B), (5, C))]
    outputs += [(f"quant[keep={keep}]", "gguf-F16", digest) for keep, digest in ((6, D), (5, E))]
    with pytest.raises(SpecError, match="keep=5, keep=6"):
        choose(outputs, None)
    with pytest.raises(SpecError, match="no variant 'keep=4'"):
        choose(outputs, "keep=4")
    assert choose(outputs, "keep=6") == Chosen("keep=6", B, {"F16": D})


def test_nothing_to_publish_is_said() -> None:
    """A run that made no model, and an alloy without results."""
    with pytest.raises(SpecError, match="nothing to publish"):
        choose([("import-model", "model", A), ("eval", "report", B)], None)
    without: list[dict[str, object]] = [{}, {"results": {}}, {"results": {"artifacts": []}}]
    for alloy in without:
        with pytest.raises(InputError, match="no results"):
            outputs_of(alloy)
    with pytest.raises(InputError, match="cannot be read"):
        outputs_of({"results": {"artifacts": [{"stage": "x"}]}})


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


def test_large_counts_and_datasets_have_words() -> None:
    """Parameters for people; a dataset by the last part of its path."""
    assert count_words(999_999) == "999,999"
    assert datasets_of({"corpus/heldout.txt": str(A)}) == {A.hex: "heldout.txt"}

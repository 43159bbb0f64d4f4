"""Recipes: what is accepted, and the words of every refusal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stages.errors import RecipeError
from stages.recipe import load, parse

GOOD = """\
name: mixtral-tiny-6e
version: 1.0.0
source: {baseModel: model, architecture: mixtral}
stages:
  - {type: expert-activation-profile, calibrationCorpus: corpus/calibration.jsonl}
  - {type: expert-prune, keepExpertsPerLayer: 6, strategy: reap}
"""


def test_reads_names_fields_and_lines() -> None:
    """Each stage keeps its keys and the line that each stands on."""
    recipe = parse(GOOD)
    assert (recipe.name, recipe.version, recipe.source["baseModel"]) == ("mixtral-tiny-6e", "1.0.0", "model")
    prune = recipe.stages[1]
    assert prune.fields == {"keepExpertsPerLayer": 6, "strategy": "reap"}
    assert prune.where("strategy") == "line 6: "


def test_json_is_a_recipe_too() -> None:
    """The same recipe as JSON gives the same stages."""
    import yaml

    assert parse(json.dumps(yaml.safe_load(GOOD))).stages[1].fields == parse(GOOD).stages[1].fields


def test_stages_of_one_type_get_numbers_and_ids_are_kept() -> None:
    """Ids are the type, numbered from the second on, and never one that a person gave."""
    text = "name: x\nstages: [{type: quant}, {type: quant}, {type: eval, id: quant-3}, {type: quant}]"
    assert [stage.id for stage in parse(text).stages] == ["quant", "quant-2", "quant-3", "quant-3-"]


def test_matrix_makes_every_combination() -> None:
    """Two axes of two and three values are six variants with the values filled in."""
    text = "name: x\nstages:\n - {type: a, matrix: {k: [1, 2]}}\n - {type: b, matrix: {q: [x, y, z]}}"
    variants = parse(text).variants
    assert len(variants) == 6
    assert [dict(stage.fields) for stage in variants["k=2-q=y"]] == [{"k": 2}, {"q": "y"}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\nstages: [{type: a}]\nsorce: {}", "line 3: unknown key 'sorce' in the recipe; did you mean 'source'?"),
        ("name: x\nstages: [{type: a}]\nsource:\n  baseModle: m", "line 4: unknown key 'baseModle' in source; did you mean 'baseModel'?"),
        ("name: x\nname: y\nstages: []", "line 2: key 'name' is given twice"),
        ("name: x", "the recipe has no stages"),
        ("stages: [{type: a}]", "the recipe has no name"),
        ("name: ../x\nstages: [{type: a}]", "line 1: name '../x' must be letters"),
        ("name: x\nversion: one\nstages: [{type: a}]", "line 2: version 'one' is not of the form 1.2.3"),
        ("name: x\nstages: []", "line 2: stages must be a list of at least one stage"),
        ("name: x\nstages:\n - {kind: a}", "line 3: each stage is a mapping with a type"),
        ("name: x\nstages:\n - {type: a, id: b}\n - {type: a, id: b}", "two stages have the id 'b'"),
        ("name: x\nstages:\n - {type: a, matrix: {k: 1}}", "line 3: matrix of a must map keys to lists of values"),
        ("name: x\nstages:\n - {type: a, k: 1, matrix: {k: [1]}}", "line 3: k of a is given both a value and a matrix"),
        ("name: x\nstages:\n - {type: a, inputs: [b]}", "line 3: inputs of a must map input names to stage ids"),
        ("name: x\nstages: [", "not YAML"),
        ("- 1", "a recipe is a mapping"),
        ("name: x\n1: 2\nstages: [{type: a}]", "line 2: key 1 must be text"),
    ],
)
def test_refusals_name_the_line_and_the_remedy(text: str, message: str) -> None:
    """Every fault of a file is refused in words that say where it is."""
    with pytest.raises(RecipeError) as caught:
        parse(text)
    assert message in str(caught.value)


def test_all_unknown_keys_are_reported_at_once() -> None:
    """Two typos give two lines, not one after the other."""
    with pytest.raises(RecipeError) as caught:
        parse("name: x\nverison: 1.0.0\nstges: []\nstages: [{type: a}]")
    assert len(str(caught.value).splitlines()) == 2


def test_load_names_the_file(tmp_path: Path) -> None:
    """A missing or undecodable file is a RecipeError with its path."""
    with pytest.raises(RecipeError, match=r"nowhere\.yaml: cannot read"):
        load(tmp_path / "nowhere.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"name: \xff")
    with pytest.raises(RecipeError, match="not UTF-8"):
        load(tmp_path / "latin.yaml")
    (tmp_path / "good.yaml").write_text(GOOD)
    assert load(tmp_path / "good.yaml").folder == tmp_path


# --- alloys are recipes ------------------------------------------------------------------------------------------------------------

ALLOYS = Path(__file__).parents[1] / "vectors" / "alloys"
REFUSED = {
    "05-qwen3-vl-4b-code-ui": "line 27: unknown key '_note' in train; did you mean 'notes'?",
    "qwen3.5-4b-code-128k-forged": "line 16: source.revision: null; leave the key out",
}


@pytest.mark.parametrize("path", sorted(ALLOYS.glob("*.json")), ids=lambda path: path.name.removesuffix(".alloy.json"))
def test_alloys_that_others_published_load_as_recipes(path: Path) -> None:
    """Those that the format allows, executed ones too; of the two others each says where it breaks it."""
    name = path.name.removesuffix(".alloy.json")
    if name in REFUSED:
        with pytest.raises(RecipeError) as caught:
            load(path)
        assert REFUSED[name] in str(caught.value)
        return
    recipe, value = load(path), json.loads(path.read_text())
    assert recipe.raw == value
    assert [stage.type for stage in recipe.stages] == [stage["type"] for stage in value["stages"]]


def test_what_a_run_wrote_is_not_part_of_the_recipe() -> None:
    """Results of others may have any form: whoever runs the recipe again makes his own."""
    text = GOOD.replace("stages:", "results: {anything: [null]}\nreceipt: {}\nmaterials: {}\nstages:")
    assert [stage.fields for stage in parse(text).stages] == [stage.fields for stage in parse(GOOD).stages]


def test_an_ensemble_is_a_recipe_of_one_stage() -> None:
    """It names its members in its source; where it has no stages, combining them is the one."""
    source = (
        '{"target": {"baseModel": "a/t", "frozen": true}, "specialists": [{"baseModel": "a/one"}, {"baseModel": "a/two", "role": "code"}]}'
    )
    recipe = parse(f'{{"name": "worlds", "version": "1.0.0", "type": "many-worlds-ensemble", "source": {source}}}')
    (stage,) = recipe.stages
    assert (stage.type, stage.fields) == ("many-worlds-ensemble", {"targetModel": "a/t", "specialists": ["a/one", "a/two"]})
    with pytest.raises(RecipeError, match="an ensemble names its specialists"):
        parse('{"name": "w", "type": "many-worlds-ensemble", "source": {"target": {"baseModel": "t"}}}')
    with pytest.raises(RecipeError, match="an ensemble has a target and specialists instead"):
        parse(f'{{"name": "w", "source": {source[:-1]}, "baseModel": "m"}}}}')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cycles: 0", "line 2: cycles: must be at least 1; it is 0"),
        ("tags: code", "line 2: tags: must be a list; it is 'code'"),
        ("searchStrategy: {}", "line 2: unknown key 'searchStrategy' in the recipe"),
        ("source: {baseModel: m, totalExperts: many}", "line 2: source.totalExperts: must be a whole number; it is 'many'"),
        ("hardware:\n  minVramGb: null", "line 3: hardware.minVramGb: null; leave the key out"),
        ("acceptanceCriteria: {perplexity: {maxIncrease: 3}}", "unknown key 'maxIncrease' in acceptanceCriteria.perplexity; did you mean"),
        ("derivedFrom: {repo: a/b, alloyHash: null}\nlicence: mit", "line 3: unknown key 'licence' in the recipe; did you mean 'license'?"),
    ],
)
def test_the_format_is_strict_about_what_describes_a_recipe(text: str, message: str) -> None:
    """Kinds, ranges and names of everything that is written down, whether or not it changes what is computed."""
    with pytest.raises(RecipeError) as caught:
        parse(f"name: x\n{text}\nstages: [{{type: a}}]")
    assert message in str(caught.value)


def test_json_is_read_as_json() -> None:
    """Tabs, escapes and exponents mean what JSON says, and a key given twice is refused with its line."""
    text = '{\n\t"name": "x",\n\t"description": "\\ud83d\\ude00",\n\t"stages": [{"type": "train", "learningRate": 1e-05}]\n}'
    recipe = parse(text)
    assert (recipe.stages[0].fields["learningRate"], recipe.raw["description"]) == (1e-05, "\U0001f600")
    with pytest.raises(RecipeError, match="line 3: key 'name' is given twice"):
        parse('{\n "name": "x",\n "name": "y", "stages": [{"type": "a"}]}')

"""The hashes of an alloy: each means one thing, and the published convention is met."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ledger.published import model_hash
from stages.recipe import parse
from stages.results import recipe_hash
from store.digest import Digest

ALLOYS = Path(__file__).parents[1] / "vectors" / "alloys"
RECIPE = "name: x\nversion: 1.0.0\nstages: [{type: train, learningRate: 0.001, corpus: c}]\n"


def test_model_hash_is_the_published_one() -> None:
    """Eleven published shards give the modelHash that was published with them, whatever order they come in."""
    integrity = json.loads((ALLOYS / "qwen3.5-27b-code-forged-mlx-4bit.alloy.json").read_text())["results"]["integrity"]
    files = [(item["filename"], Digest.parse("sha256:" + item["sha256"].removeprefix("sha256:"))) for item in integrity["fileHashes"]]
    files = [(name, digest) for name, digest in files if name.endswith(".safetensors")]
    assert str(model_hash(files)) == integrity["modelHash"]
    assert model_hash(files[::-1]) == model_hash(files)


def test_model_hash_over_nothing_is_refused() -> None:
    """An empty list of weights has no hash that could be mistaken for a model's."""
    with pytest.raises(ValueError, match="no weight files"):
        model_hash([])


def test_recipe_hash_covers_what_was_asked_for() -> None:
    """It changes with a setting and with a material, and not with a description or the form of the file."""
    materials = {"c": Digest.of(b"corpus")}
    asked = recipe_hash(parse(RECIPE), materials)
    assert recipe_hash(parse(RECIPE + "description: other words\n"), materials) == asked
    assert recipe_hash(parse(RECIPE.replace("0.001", "1.0e-3")), materials) == asked
    assert recipe_hash(parse(RECIPE.replace("0.001", "0.002")), materials) != asked
    assert recipe_hash(parse(RECIPE), {"c": Digest.of(b"changed")}) != asked

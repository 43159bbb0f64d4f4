"""The hashes of an alloy: each means one thing, and the published convention is met."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ledger import predicates, statement
from ledger.alloy import model_hash, recipe_hash
from ledger.log import Log
from ledger.policy import Policy
from ledger.testing import UnsafeSigner
from ledger.verify import verify_alloy
from stages.recipe import parse
from stages.results import weight_files
from store import tree
from store.digest import Digest
from store.memory import MemoryCas
from tests.homes import Home

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
    materials = {"c": str(Digest.of(b"corpus"))}
    asked = recipe_hash(parse(RECIPE).raw, materials)
    assert recipe_hash(parse(RECIPE + "description: other words\n").raw, materials) == asked
    assert recipe_hash(parse(RECIPE.replace("0.001", "1.0e-3")).raw, materials) == asked
    assert recipe_hash(parse(RECIPE.replace("0.001", "0.002")).raw, materials) != asked
    assert recipe_hash(parse(RECIPE).raw, {"c": str(Digest.of(b"changed"))}) != asked


def test_weight_files_are_named_as_they_are_exported() -> None:
    """Shards lie in the folder of their model, GGUF files carry the recipe's name, and no variant hides another."""
    store = MemoryCas()
    models = {}
    for keep in (6, 7):
        shard, config = store.put(b"%d experts" % keep), store.put(b"{}")
        entries = [tree.TreeEntry("config.json", config, 2), tree.TreeEntry("model.safetensors", shard, 9)]
        models[keep] = store.put(tree.Tree.of(entries).to_bytes())
    ggufs = {keep: store.put(b"GGUF%d" % keep) for keep in models}
    outputs = {f"prune[keep={keep}]": {"model": digest} for keep, digest in models.items()}
    outputs |= {f"quant[keep={keep}]": {"gguf-F16": digest} for keep, digest in ggufs.items()}
    outputs["import-model"] = {"model": store.put(b"not a tree")}
    assert weight_files("tiny", outputs, store) == [
        ("model-keep=6/model.safetensors", Digest.of(b"6 experts"), 9),
        ("model-keep=7/model.safetensors", Digest.of(b"7 experts"), 9),
        ("tiny-keep=6-F16.gguf", ggufs[6], 5),
        ("tiny-keep=7-F16.gguf", ggufs[7], 5),
    ]


def test_evaluation_of_a_stranger_is_no_result(tmp_path: Path) -> None:
    """What an untrusted key states about an output gets neither into the alloy nor into its attestations, so it verifies."""
    home = Home(tmp_path)
    (tmp_path / "hello.txt").write_text("hello")
    stages = "  - {type: acme-shout, text: hello.txt, marks: 3}\n"
    made = home.run(stages)
    digest = made.outputs["acme-shout"]["text"]
    eve = Log.open(tmp_path / ".ledger", signer=UnsafeSigner("eve"))
    claim = {"benchmark": "perplexity", "metrics": {"perplexity": "1.0"}}
    eve.append([statement.make({"text": digest}, predicates.EVALUATION, claim)], ["a stranger's number"])
    again = home.run(stages)
    alloy = json.loads(again.alloy.read_text())
    assert alloy["results"]["benchmarks"] == []
    assert len(again.attestations.read_bytes().splitlines()) == len(alloy["results"]["actions"]) == 1
    assert alloy["recipeHash"] == str(recipe_hash(alloy, alloy["materials"]))
    policy = Policy.load(tmp_path / ".ledger" / "policy.yaml")
    assert verify_alloy(again.alloy, policy).exit_code == 0

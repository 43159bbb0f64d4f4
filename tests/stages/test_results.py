"""The hashes of an alloy: each means one thing, and the published convention is met."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from acme_ledger import parrot

from ledger import alloy, alloy_format, hub, predicates, statement
from ledger.alloy import model_hash, recipe_hash
from ledger.log import Log
from ledger.policy import Policy
from ledger.testing import UnsafeSigner, append_runs, unsafe_log, unsafe_policy
from ledger.verify import verify_alloy
from stages.lowering import Plan
from stages.recipe import load, parse
from stages.results import weight_files, write
from stages.stage import Graph
from store import canonical, tree
from store.actions import Action
from store.digest import Digest
from store.local import LocalCas
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
    value = json.loads(again.alloy.read_text())
    assert value["results"]["benchmarks"] == []
    assert len(again.attestations.read_bytes().splitlines()) == len(value["results"]["actions"]) == 1
    assert value["recipeHash"] == str(recipe_hash(value, value["materials"]))
    policy = Policy.load(tmp_path / ".ledger" / "policy.yaml")
    assert verify_alloy(again.alloy, policy).exit_code == 0


def test_an_evaluation_that_another_recipe_asked_for_fails_no_alloy(tmp_path: Path) -> None:
    """It stands among the results, and without its record, whose run does not travel with this alloy; so the alloy verifies."""
    home = Home(tmp_path)
    model = parrot.save(tmp_path / "m", {"1 + 1 =": " #### 2"})
    (model / "tokenizer.json").write_text("{}")
    header = b'{"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}'
    (model / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    (tmp_path / "set.jsonl").write_text('{"id": "a", "question": "1 + 1 =", "answer": "2"}\n')
    stages = " - {type: import-model, folder: m}\n - {type: eval, benchmarks: [{name: numeric-answer, dataset: set.jsonl, maxBytes: 8}]}\n"
    home.run(stages, jobs=1)
    made = home.run(stages.replace("maxBytes: 8", "maxBytes: 9"), name="other", jobs=1)
    rows = json.loads(made.alloy.read_text())["results"]["benchmarks"]
    assert ["resultHash" in row for row in rows] == [False, True]
    assert verify_alloy(made.alloy, Policy.load(tmp_path / ".ledger" / "policy.yaml")).exit_code == 0


# --- what follows from an evaluation -------------------------------------------------------------------------------------------------


@pytest.fixture
def evaluated(tmp_path: Path) -> Path:
    """The alloy of a run that evaluated a base model and a pruned one, signed by alice."""
    log, store = unsafe_log(tmp_path), LocalCas(tmp_path / ".ledger")
    files = {name: store.put(name.encode()) for name in ("base", "pruned", "corpus", "tokens")}
    outputs: dict[str, dict[str, Digest]] = {"quant": {"gguf-F16": files["pruned"]}, "eval": {"base-gguf-F16": files["base"]}}
    rows: list[dict[str, Any]] = []
    keys: dict[Digest, str] = {}
    for name, perplexity in (("base", "41.9"), ("pruned", "43.25")):
        action = Action("perplexity-merge", 1, {"n_ctx": 4}, {"gguf": files[name]})
        record = store.put(f"record of {name}".encode())
        metrics = store.put(f"metrics of {name}".encode())
        claim = {
            "action": str(action.key),
            "benchmark": "perplexity",
            "dataset": {"digest": {"sha256": files["corpus"].hex}},
            "metrics": {"perplexity": perplexity, "stderrClustered": "1.1"},
            "settings": {"nCtx": 4},
        }
        append_runs(log, [(action, {"metrics": metrics, "nll": record})])
        log.append([statement.make({"gguf": files[name]}, predicates.EVALUATION, claim)], ["evaluation"])
        keys[action.key] = "2023-11-14T22:13:21Z"
        outputs["eval"][f"metrics-{name}"] = metrics
        rows.append({"name": name, "digest": str(files[name]), **({"difference": {"baseline": "base"}} if name == "pruned" else {})})
    compare = Action("compare", 1, {}, {f"gguf-{name}": files[name] for name in ("base", "pruned")})
    outputs["eval"]["report"] = store.put(canonical.dumps({"benchmark": "perplexity", "rows": rows}))
    append_runs(log, [(compare, {"report": outputs["eval"]["report"]})])
    recipe = parse("name: tiny\nversion: 1.0.0\nstages: [{type: quant}]")
    made, _ = write(
        recipe, Plan(Graph((), {}), (), {}), outputs, keys, store=store, log=log, policy=unsafe_policy("alice"), out=tmp_path / "out"
    )  # fmt: skip
    return made


def test_results_have_a_score_a_baseline_and_the_hash_of_their_record(evaluated: Path) -> None:
    """As published alloys have them, beside what was signed; the difference is exact, and the hash is that of the run's own record."""
    rows = {row["subject"]: row for row in json.loads(evaluated.read_text())["results"]["benchmarks"]}
    pruned, base = rows["gguf-F16"], rows["base-gguf-F16"]
    assert [pruned[key] for key in ("name", "metric", "score", "baseScore", "delta")] == ["perplexity", "perplexity", 43.25, 41.9, 1.35]
    assert pruned["resultHash"] == str(Digest.of(b"record of pruned"))
    assert pruned["baseResultHash"] == base["resultHash"] == str(Digest.of(b"record of base"))
    assert pruned["samplesPath"] == f"eval/perplexity-{Digest.of(b'record of pruned').hex[:12]}.nll"
    assert "baseScore" not in base
    assert alloy.records(json.loads(evaluated.read_text())) == {
        pruned["samplesPath"]: Digest.of(b"record of pruned"), base["samplesPath"]: Digest.of(b"record of base"),
    }  # fmt: skip
    report = verify_alloy(evaluated, unsafe_policy("alice"))
    assert report.exit_code == 0
    assert "resultHash of 2 of them is the record of each item that the trusted run gave" in [row.text for row in report.rows]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("score", 40.0), ("baseScore", 99.0), ("delta", -1.35), ("resultHash", "sha256:" + 64 * "0"), ("name", "humaneval"),
        ("baseResultHash", str(Digest.of(b"record of pruned"))), ("samplesPath", "../../etc/passwd"), ("metric", "accuracy"),
    ],
)  # fmt: skip
def test_what_follows_from_an_evaluation_is_computed_again(evaluated: Path, key: str, value: object) -> None:
    """A score that is not the signed number, or a record that the run did not give, fails."""
    changed = json.loads(evaluated.read_text())
    next(row for row in changed["results"]["benchmarks"] if row["subject"] == "gguf-F16")[key] = value
    evaluated.write_text(json.dumps(changed))
    report = verify_alloy(evaluated, unsafe_policy("alice"))
    assert report.exit_code == 3
    assert any(row.status == "failed" and f"the {key} " in row.text for row in report.rows)


def test_alloys_of_our_own_are_of_the_format_and_recipes_again(evaluated: Path) -> None:
    """Nothing in them is unknown to it, and what is asked for again has the same recipeHash."""
    value = json.loads(evaluated.read_text())
    assert alloy_format.faults(value, stages=False) == []
    recipe = load(evaluated)
    assert str(recipe_hash(recipe.raw, value["materials"])) == value["recipeHash"]
    assert alloy.receiptless_hash(value) != alloy.file_hash(evaluated.read_bytes())


def test_a_key_in_an_alloy_that_the_format_does_not_have_fails(evaluated: Path) -> None:
    """Somebody put it there; the nearest known name is offered, and a key given twice is no JSON at all."""
    value = json.loads(evaluated.read_text())
    value["results"]["integrity"]["trustLevle"] = "enclave"
    evaluated.write_text(json.dumps(value))
    report = verify_alloy(evaluated, unsafe_policy("alice"))
    assert report.exit_code == 3
    assert any("unknown key 'trustLevle' in results.integrity; did you mean 'trustLevel'?" in row.text for row in report.rows)
    evaluated.write_text(evaluated.read_text().replace('"name": "tiny"', '"name": "tiny", "name": "tiny"', 1))
    assert any("key given twice: 'name'" in row.text for row in verify_alloy(evaluated, unsafe_policy("alice")).rows)


def test_listed_files_are_hashed_as_the_hub_names_them(tmp_path: Path) -> None:
    """SHA-256, size, git's id (of the pointer for what surely goes to LFS, else of the bytes), and the Xet hash."""
    for name, data in {"model.safetensors": b"weights", "config.json": b"{}", "picture.png": b"png"}.items():
        (tmp_path / name).write_bytes(data)
    listed = alloy.file_hashes({path.name: path for path in tmp_path.iterdir()})
    assert [item["filename"] for item in listed] == ["config.json", "model.safetensors", "picture.png"]
    config, weights, picture = listed
    assert (weights["sha256"], weights["size"]) == (Digest.of(b"weights").hex, 7)
    assert weights["gitOid"] == hub.lfs_pointer_oid(Digest.of(b"weights"), 7)
    assert config["gitOid"] == hub.git_blob_oid(b"{}")
    assert "xetHash" not in config
    assert picture["gitOid"] == hub.git_blob_oid(b"png")
    assert weights.get("xetHash") == hub.xet_hash(tmp_path / "model.safetensors")

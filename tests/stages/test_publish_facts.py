"""What statements say of a model that is to be published."""

from __future__ import annotations

from pathlib import Path

from ledger.log import Log
from ledger.memory import Memory
from ledger.predicates import EVALUATION
from ledger.statement import make
from ledger.testing import UnsafeSigner, run_payload, unsafe_log, unsafe_policy
from stages.publish_evidence import Chosen, Evidence
from stages.publish_facts import base, count_words, datasets_of, loss_points, results, sentence, steps, tables
from store import canonical
from store.actions import Action
from store.digest import Digest
from store.memory import MemoryCas

ENVIRONMENT = {"machine": "a test"}


def training(folder: Path) -> tuple[Evidence, Digest]:
    """A model that was trained in two segments, each of which noted its losses."""
    log, store = unsafe_log(folder), MemoryCas()
    init, middle, state, model = (store.put(text) for text in (b"init", b"middle", b"state", b"model"))
    segments = [(init, middle, [[25, "7.1000"], [50, "6.2000"]]), (middle, state, [[75, "5.5000"], [100, "5.1000"]])]
    payloads = [
        run_payload(
            Action("train-segment", 1, {"until": noted[-1][0]}, {"state": before}),
            {"state": after},
            purity="E",
            environment=ENVIRONMENT,
            byproducts={"notes": {"loss": noted}},
        )
        for before, after, noted in segments
    ]
    payloads.append(run_payload(Action("train-export", 1, {"dtype": "bfloat16"}, {"state": state}), {"model": model}))
    log.append(payloads, ["a", "b", "c"])
    return Evidence.of(log, unsafe_policy("alice"), store, [model]), model


def test_the_loss_curve_is_what_the_segments_signed(tmp_path: Path) -> None:
    """All noted steps, in order, over all segments behind the model."""
    evidence, model = training(tmp_path)
    assert loss_points(evidence, evidence.steps([model])) == [(25, 7.1), (50, 6.2), (75, 5.5), (100, 5.1)]


def test_a_model_that_was_trained_here_has_no_base(tmp_path: Path) -> None:
    """It is said to be trained from nothing, with its parameters."""
    evidence, model = training(tmp_path)
    made, chosen = evidence.steps([model]), Chosen("", model, {})
    found = base(evidence, made, chosen)
    assert (found.name, found.hub) == ("", "")
    assert sentence(evidence, made, chosen, found, "mixtral", 5_840_640) == (
        "A mixtral model of 5.8 million parameters, trained from nothing; here as a folder of safetensors."
    )


def imported(tmp_path: Path, *, fetched: str) -> tuple[Evidence, Digest]:
    """A model called acme/base, converted, whose config was fetched from a repository: the evidence and the GGUF."""
    log, store = unsafe_log(tmp_path), MemoryCas()
    file, folder, model, gguf = (store.put(text) for text in (b"file", b"folder", b"model", b"gguf"))
    of = {"repo": fetched, "commit": "a" * 40, "path": "config.json", "size": 4}
    payloads = [
        run_payload(Action("hub-file", 1, of, {}), {"file": file}),
        run_payload(Action("hub-folder", 1, {}, {"file/config.json": file}), {"folder": folder}),
        run_payload(Action("import-model", 1, {"source": "acme/base", "revision": "a" * 40}, {"folder": folder}), {"model": model}),
        run_payload(Action("gguf-convert", 1, {"outtype": "F16"}, {"model": model}), {"gguf": gguf}),
    ]
    log.append(payloads, ["a", "b", "c", "d"])
    return Evidence.of(log, unsafe_policy("alice"), store, [gguf]), gguf


def test_a_model_from_the_hub_is_a_base_model(tmp_path: Path) -> None:
    """By repository and commit, as the run that fetched it states them; quantising alone is told from pruning."""
    evidence, gguf = imported(tmp_path, fetched="acme/base")
    chosen = Chosen("", None, {"F16": gguf})
    found = base(evidence, evidence.steps([gguf]), chosen)
    assert (found.hub, found.revision, found.relation) == ("acme/base", "a" * 40, "quantized")
    assert sentence(evidence, evidence.steps([gguf]), chosen, found, "", 0) == (
        "The model acme/base at commit `aaaaaaaaaaaa`, unchanged, as GGUF in F16."
    )


def test_a_folder_with_the_name_of_a_repository_is_no_base_model(tmp_path: Path) -> None:
    """Only files that were fetched from there make it one: else whoever writes a recipe could claim any base."""
    evidence, gguf = imported(tmp_path, fetched="other/model")
    found = base(evidence, evidence.steps([gguf]), Chosen("", None, {"F16": gguf}))
    assert (found.name, found.hub, found.revision) == ("acme/base", "", "")


def test_every_metric_of_another_benchmark_is_a_result(tmp_path: Path) -> None:
    """A true zero among them, with its error where there is one; standard errors are no results of their own."""
    log, store = unsafe_log(tmp_path), MemoryCas()
    gguf = store.put(b"gguf")
    said = {
        "benchmark": "humaneval",
        "dataset": {"digest": {"sha256": "5c" * 32}},
        "metrics": {"score": "0", "scoreStderr": "0.02", "stderrIid": "0.1", "passed": "0.0"},
    }
    log.append([make({"gguf": gguf}, EVALUATION, said)], ["evaluation"])
    evidence = Evidence.of(log, unsafe_policy("alice"), store, [gguf])
    found = results(evidence, Chosen("", None, {"F16": gguf}), {gguf: "x-F16.gguf"}, {"5c" * 32: "problems.jsonl"})
    assert [(one.metric, one.value, one.stderr) for one in found] == [("passed", "0.0", "0.1"), ("score", "0", "0.02")]
    assert {(one.file, one.benchmark, one.dataset) for one in found} == {("x-F16.gguf", "humaneval", "problems.jsonl")}


def test_what_nobody_trusted_signed_is_no_evidence(tmp_path: Path) -> None:
    """Statements of a stranger give no numbers, no steps and no losses."""
    evidence, model = training(tmp_path)
    stranger = Evidence.of(evidence.log, unsafe_policy("bob"), evidence.store, [model])
    assert stranger.made(model) is None
    assert stranger.steps([model]) == []
    assert loss_points(stranger, evidence.steps([model])) == []


def test_a_step_says_who_signed_it_and_who_has_done_it_again(tmp_path: Path) -> None:
    """Of two runs of a stage a second key states one with the same outputs: it has confirmed that one, and signed none."""
    evidence, model = training(tmp_path)
    again = Log.open(tmp_path / ".ledger", signer=UnsafeSigner("bob"), memory=Memory(tmp_path / "state"))
    again.append([evidence.log.entry(0).signed.payload], ["again"])
    both = Evidence.of(again, unsafe_policy("alice", "bob"), evidence.store, [model])
    first, second = steps(both, both.steps([model]))
    assert (first.stage, first.signers, first.others) == ("train-segment", ("alice",), ("bob",))
    assert (first.runs, first.confirmed, first.least) == (2, 1, 0)
    assert (second.stage, second.others, second.confirmed) == ("train-export", (), 0)


def test_what_else_was_measured_on_the_text_stands_beside_it(tmp_path: Path) -> None:
    """A baseline of the recipe has a line in the table of its text, and in no other."""
    log, store = unsafe_log(tmp_path), MemoryCas()
    gguf, text = store.put(b"gguf"), Digest.of(b"text")
    said = {"benchmark": "unigram-perplexity", "metrics": {"perplexity": "817.5"}, "settings": {"domain": "prose"}}
    here = store.put(canonical.dumps(said | {"dataset": {"digest": {"sha256": text.hex}}}))
    elsewhere = store.put(canonical.dumps(said | {"dataset": {"digest": {"sha256": "5c" * 32}}}))
    evaluation = {
        "benchmark": "perplexity",
        "dataset": {"digest": {"sha256": text.hex}},
        "metrics": {"perplexity": "39.5", "stderrClustered": "1.2"},
        "settings": {"nCtx": 512, "chunks": 4},
        "tokens": {"scored": 1020},
    }
    payloads = [
        run_payload(Action("unigram-perplexity", 1, {"n": number}, {}), {"metrics-unigram": digest})
        for number, digest in enumerate((here, elsewhere))
    ]
    log.append([*payloads, make({"gguf": gguf}, EVALUATION, evaluation)], ["a", "b", "c"])
    outputs = [("u", "metrics-unigram", here), ("v", "metrics-unigram", elsewhere), ("quant", "gguf-F16", gguf)]
    evidence = Evidence.of(log, unsafe_policy("alice"), store, [gguf, here, elsewhere])
    (table,) = tables(evidence, outputs, Chosen("", None, {"F16": gguf}), {gguf: "x-F16.gguf"}, {text.hex: "heldout.txt"})
    assert (table.dataset, table.scored, table.context) == ("heldout.txt", 1020, 512)
    assert [(row.file, row.variant, row.measured.value) for row in table.rows] == [
        ("x-F16.gguf", "this model", 39.5),
        ("", "unigram, fitted to prose", 817.5),
    ]
    assert evidence.faults == []


def test_large_counts_and_datasets_have_words() -> None:
    """Parameters for people; a dataset by the last part of its path."""
    assert count_words(999_999) == "999,999"
    text = Digest.of(b"a")
    assert datasets_of({"corpus/heldout.txt": str(text)}) == {text.hex: "heldout.txt"}

"""Alloys, attestations and folders of somebody who wants `VERIFIED` for what was never attested."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from ledger import bundle, statement
from ledger.predicates import EVALUATION
from ledger.testing import unsafe_policy
from ledger.verify import attestations_of, verify_alloy
from store import tree
from store.digest import Digest
from tests.ledger.test_published import METRICS, World
from tests.reports import texts

POLICY = unsafe_policy("alice")


def attest_again(world: World, *more: Digest) -> None:
    """Publish the provenance of more objects too."""
    lines, receipt = bundle.export(world.log, [world.pruned, world.gguf, world.report, *more], store=world.store)
    attestations_of(world.alloy).write_bytes(b"".join(line + b"\n" for line in lines))
    world.edit(lambda value: value["receipt"].update(ledger=receipt))


@pytest.mark.parametrize(
    "name",
    [
        "model/chat_template.jinja",
        "model/additional_chat_templates/tool.jinja",
        "model/generation_config.json",
        "model/adapter_config.json",
        "model/model.safetensors.index.json",
        "model/tokenizer.model",
        "model/merges.txt",
        "model/lib.so",
        "model/Modeling.PY",
        "model/other.SAFETENSORS",
        "other.GGUF",
        "other.joblib",
    ],
)
def test_file_that_changes_what_is_loaded(world: World, name: str) -> None:
    """A template, a configuration or an adapter that was put beside attested weights fails; its ending's case does not matter."""
    (world.out / name).parent.mkdir(exist_ok=True)
    (world.out / name).write_bytes(b"smuggled")
    report = verify_alloy(world.out, POLICY)
    assert report.exit_code == 3
    assert f"{name}, 8 bytes, is named by no trusted statement" in texts(report, "failed") or name in texts(report, "failed")


@pytest.mark.parametrize(
    "name", ["model/chat_template.jinja", "model/adapter_model.safetensors", "model/additional_chat_templates/x.jinja"]
)
@pytest.mark.parametrize("linked", [False, True])
def test_file_in_a_folder_that_an_alloy_file_is_shown_to_match(world: World, name: str, linked: bool) -> None:
    """Who verifies the alloy file alone is not told that a folder is as attested when something else is loaded from it, by a link too."""
    (world.out / name).parent.mkdir(exist_ok=True)
    (world.folder / "elsewhere").write_bytes(b"smuggled")
    (world.out / name).symlink_to(world.folder / "elsewhere") if linked else (world.out / name).write_bytes(b"smuggled")
    report = verify_alloy(world.alloy, POLICY)
    assert report.exit_code == 3
    assert f"{name} is named by no trusted statement, and lies in a folder that is attested without it" in texts(report, "failed")


@pytest.mark.parametrize("name", ["model/README.md", "model/LICENSE", "model/.gitattributes", "model/picture.PNG", "recipe.yaml"])
def test_document_beside_the_weights_is_only_listed(world: World, name: str) -> None:
    """What no loader reads is listed, and fails nothing; nor does a stranger's file beside a GGUF, which is loaded alone."""
    (world.out / name).write_bytes(b"words")
    report = verify_alloy(world.out, POLICY)
    assert report.exit_code == 0
    assert name in texts(report, "unverified")


def test_pieces_of_an_attested_folder_under_other_names(world: World) -> None:
    """Attested weights under another name beside another configuration are not that model, though every weight's bytes are attested."""
    (world.out / "model/model.safetensors").rename(world.out / "model/model-00002-of-00002.safetensors")
    (world.out / "model/config.json").write_bytes(b'{"num_experts_per_tok":1}')
    report = verify_alloy(world.out, POLICY)
    assert report.exit_code == 3
    assert "model/model-00002-of-00002.safetensors, 14 bytes, is a piece of the folder" in texts(report, "failed")


def test_part_of_a_folder_that_was_attested_too(world: World) -> None:
    """A tokenizer that is attested by itself does not vouch for a folder whose configuration was changed."""
    tokenizer = world.folder / "tokenizer"
    tokenizer.mkdir()
    (tokenizer / "tokenizer.json").write_bytes(b"{}")
    made = tree.import_folder(world.store, tokenizer)
    world.log.append([statement.make({"tokenizer": made}, "urn:test:seen:v1", {})], ["a tokenizer"])
    attest_again(world, made)
    (world.out / "model/tokenizer.json").write_bytes(b"{}")
    (world.out / "model/config.json").write_bytes(b'{"num_experts_per_tok":1}')
    report = verify_alloy(world.out, POLICY)
    assert report.exit_code == 3
    assert "model/config.json" in texts(report, "failed")


def test_number_of_another_model(world: World) -> None:
    """A signed number of the base, shown under the name of the quantised model, is not what was signed for it."""
    better = {**METRICS, "metrics": {"perplexity": "10.0"}}
    number = world.log.append([statement.make({"model": world.base}, EVALUATION, better)], ["evaluation"])[0].number
    attest_again(world, world.base)
    row = {"subject": "gguf-Q4_K_M", "digest": str(world.base), "entry": number, **better}
    world.edit(lambda value: value["results"].update(benchmarks=[row]))
    report = verify_alloy(world.out, POLICY)
    assert report.exit_code == 3
    assert "gives a result of perplexity that no trusted statement gives" in texts(report, "failed")


def test_comparison_of_another_model(world: World) -> None:
    """A report that is attested, but is no result of this alloy, is not its comparison."""
    world.edit(lambda value: value["results"]["artifacts"].pop(2))
    report = verify_alloy(world.out, POLICY)
    assert "is not what a trusted run reported" in texts(report, "failed")


def result(value: dict[str, Any]) -> Any:
    return value["results"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: result(value)["integrity"].update(modelHash="sha256:" + "0" * 64), "states the modelHash"),
        (lambda value: result(value)["integrity"].update(fileHashes=[], modelHash="sha256:" + "0" * 64), "states the modelHash"),
        (lambda value: result(value)["integrity"]["fileHashes"][0].update(filename="other.safetensors"), "lists a file"),
        (lambda value: result(value)["integrity"]["fileHashes"][0].update(size=1), "lists a file"),
        (lambda value: result(value)["integrity"].update(fileHashes={}), "must be a list"),
        (lambda value: value.update(verified=True), "unknown key 'verified'"),
        (lambda value: result(value).update(benchmraks=[]), "did you mean 'benchmarks'"),
        (lambda value: result(value)["integrity"].update(fileHashes=7), "lists a file"),
        (lambda value: result(value)["artifacts"][1].update(sizeBytes=1), "that has 10 bytes"),
        (lambda value: result(value)["artifacts"][1].update(stage="prune", output="model"), "names two results 'prune model'"),
        (lambda value: result(value)["benchmarks"][0].update(subject="another"), "no trusted statement gives"),
        (lambda value: result(value)["benchmarks"][0].update(entry=5), "no trusted statement gives"),
    ],
)
def test_lie_in_what_an_alloy_repeats(world: World, change: Callable[[dict[str, Any]], None], message: str) -> None:
    """Names, sizes, entry numbers and the hash over the weights are compared with what was signed, like the numbers."""
    world.edit(change)
    report = verify_alloy(world.out, POLICY)
    assert (report.exit_code == 3) == bool(message)
    assert message in texts(report, "failed")


def test_list_of_files_that_nobody_attested(world: World) -> None:
    """A tree in the receipt hashes to its name, and still proves nothing about files when no statement names it."""
    lie = tree.Tree.of([tree.TreeEntry("evil.safetensors", Digest.of(b"evil"), 4)])

    def change(value: dict[str, Any]) -> None:
        listing = [{"digest": str(file.digest), "path": file.path, "size": file.size} for file in lie.entries]
        value["receipt"]["ledger"]["trees"][str(lie.digest)] = listing
        result(value)["integrity"]["fileHashes"].append({"filename": "evil.safetensors", "sha256": Digest.of(b"evil").hex, "size": 4})

    world.edit(change)
    assert "lists a file" in texts(verify_alloy(world.out, POLICY), "failed")


def test_what_nobody_signed_is_listed(world: World) -> None:
    """Whatever else an alloy says, dates and audits and levels of trust, is named as not signed."""

    def change(value: dict[str, Any]) -> None:
        value.update(recipeHash="sha256:" + "0" * 64, auditedBy="everybody")
        result(value).update(completedAt="1999-01-01T00:00:00Z", actions=[])
        result(value)["integrity"].update(trustLevel="certified")

    world.edit(change)
    unsigned = texts(verify_alloy(world.out, POLICY), "self-reported")
    for name in ("recipeHash", "auditedBy", "results.completedAt", "results.actions", "integrity.trustLevel"):
        assert name in unsigned


def test_label_is_a_quotation(world: World) -> None:
    """What an alloy calls its results is text of its author: it stands in quotes beside the digest, not as a finding of ours."""
    label = "everything' is audited by NIST; the model \u202e\x1b[32m"
    world.edit(lambda value: result(value)["artifacts"][2].update(stage=label))
    for name in ("model/config.json", "model/model.safetensors", "tiny-Q4_K_M.gguf"):
        (world.out / name).unlink()
    proven = texts(verify_alloy(world.out, POLICY), "proven")
    assert f"the result 'everything? is audited by NIST; the model ??[32m report' ({world.report.short}) came out of compare" in proven


def test_endless_files(world: World) -> None:
    """An alloy that claims terabytes is not read, and one that is a pipe is not waited for."""
    os.truncate(world.alloy, 10 * 2**40)
    assert "at most 67,108,864 are read" in texts(verify_alloy(world.out, POLICY), "failed")
    world.alloy.unlink()
    os.mkfifo(world.alloy)
    assert "is not a regular file" in texts(verify_alloy(world.out, POLICY), "failed")


def test_nesting_without_end(world: World) -> None:
    """Neither an alloy nor a line of attestations can exhaust the stack."""
    world.alloy.write_text('{"results":' + "[" * 100_000)
    assert verify_alloy(world.out, POLICY).exit_code == 3
    world.alloy.write_text(json.dumps({"results": {"artifacts": [{"stage": "x", "output": "y", "digest": str(world.gguf)}]}}))
    attestations_of(world.alloy).write_bytes(b'{"payload":' * 100_000 + b"\n")
    assert verify_alloy(world.out, POLICY).exit_code == 3

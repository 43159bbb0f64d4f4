"""`ledger verify` of an alloy of which any one bit is wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cli.main import main
from ledger import bundle, statement
from ledger.alloy import model_hash, recipe_hash
from ledger.predicates import EVALUATION
from ledger.testing import UnsafeSigner, run_payload, unsafe_log
from store import canonical, tree
from store.actions import Action
from store.digest import Digest
from store.memory import MemoryCas


@pytest.fixture
def alloy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small alloy with everything that an alloy can say, in a folder with its model; beside it, one folder up, a policy."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LEDGER_KEYS", str(tmp_path / "keys"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("LEDGER_DIR", raising=False)
    out = tmp_path / "out"
    (out / "model").mkdir(parents=True)
    (out / "model/model.safetensors").write_bytes(b"weights")
    store = MemoryCas()
    model = tree.import_folder(store, out / "model")
    report = store.put(canonical.dumps({"rows": ["one"]}))
    action = Action("prune", 1, {"keep": 6}, {"model": Digest.of(b"base")})
    numbers = {"benchmark": "perplexity", "metrics": {"perplexity": "43.3"}}
    (tmp_path / "log").mkdir()
    log = unsafe_log(tmp_path / "log")
    log.append(
        [run_payload(action, {"model": model, "report": report}), statement.make({"model": model}, EVALUATION, numbers)],
        ["prune", "evaluation"],
    )
    log.close()
    lines, receipt = bundle.export(log, [model, report], store=store)
    weights = Digest.of(b"weights")
    recipe = {"name": "tiny", "version": "1.0.0", "stages": [{"type": "prune", "keep": 6}]}
    materials = {"base": str(Digest.of(b"base"))}
    results = {
        "actions": [str(action.key)],
        "artifacts": [
            {"stage": "prune", "output": "model", "digest": str(model), "sizeBytes": store.size(model)},
            {"stage": "prune", "output": "report", "digest": str(report), "sizeBytes": store.size(report)},
        ],
        "benchmarks": [{"subject": "model", "digest": str(model), "entry": 1, **numbers}],
        "comparison": {"rows": ["one"]},
        "integrity": {
            "fileHashes": [{"filename": "model/model.safetensors", "sha256": weights.hex, "size": 7}],
            "modelHash": str(model_hash([("model/model.safetensors", weights)])),
        },
    }
    value = {**recipe, "materials": materials, "recipeHash": str(recipe_hash(recipe, materials)), "results": results}
    (out / "tiny.alloy.json").write_text(json.dumps({**value, "receipt": {"ledger": receipt}}))
    (out / "tiny.attestations.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    rules = "rules: [{keys: [alice]}]\n"
    (tmp_path / "policy.yaml").write_text(f'version: 1\nkeys: {{alice: "{UnsafeSigner("alice").public}"}}\n{rules}')
    monkeypatch.chdir(tmp_path)
    return out / "tiny.alloy.json"


def proven(capsys: pytest.CaptureFixture[str], target: Path) -> tuple[int, set[str]]:
    """The exit code, and what is shown as proven, without entry numbers and without what is quoted from the alloy."""
    capsys.readouterr()
    code = main(["verify", str(target), "--policy", "policy.yaml", "--json"])
    said = capsys.readouterr()
    assert code in (0, 3), said
    assert "fault in ledger itself" not in said.err
    rows = json.loads(said.out)["rows"]
    texts = {re.sub(r"entr(y|ies) [\d, -]+, | \(entry \d+\)|'[^']*'", "", row["text"]) for row in rows if row["status"] == "proven"}
    return code, texts


def flipped(data: bytes, place: int) -> bytes:
    """One bit of one byte wrong: another one in each byte, and over the whole file each of the eight."""
    return data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :]


def test_a_flip_in_an_envelope_always_fails(alloy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whichever byte of the attestations is wrong, the exit code is 3."""
    file = alloy.with_name("tiny.attestations.jsonl")
    data = file.read_bytes()
    assert proven(capsys, alloy)[0] == 0
    for place in range(len(data)):
        file.write_bytes(flipped(data, place))
        assert proven(capsys, alloy)[0] == 3, (place, data[place : place + 20])


def test_a_flip_in_an_alloy_proves_nothing_new(alloy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whichever byte of the alloy is wrong, there is no traceback; it fails, or all that is shown as proven was proven before."""
    data = alloy.read_bytes()
    code, before = proven(capsys, alloy)
    assert (code, len(before)) == (0, 8), before
    passed = 0
    for place in range(len(data)):
        alloy.write_bytes(flipped(data, place))
        code, after = proven(capsys, alloy)
        passed += code == 0
        assert code == 3 or after <= before, (place, data[place : place + 20], after - before)
    assert passed < len(data) / 4

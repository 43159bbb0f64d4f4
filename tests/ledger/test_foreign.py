"""ledger.foreign: alloys that others published, kept as they are."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ledger.alloy import file_hash
from ledger.errors import AlloyError
from ledger.foreign import find, load
from ledger.foreign_hashes import hashes
from ledger.foreign_report import examine_foreign
from tests.reports import texts

ROOT = Path(__file__).parents[2]
ALLOYS = ROOT / "tests/vectors/alloys"
FILES = sorted(ALLOYS.glob("*.json"))
OLMOE, FORGED, MLX = (
    ALLOYS / f"{name}.alloy.json" for name in ("olmoe-1b-7b-compacted-5b", "qwen3.5-4b-code-forged", "qwen3.5-27b-code-forged-mlx-4bit")
)
EXECUTED = ALLOYS / "qwen3.5-4b-code-balanced-executed.alloy.json"

ENSEMBLE: dict[str, Any] = {
    "name": "many-worlds-avengers-v1",
    "version": "1.0.0",
    "type": "many-worlds-ensemble",
    "source": {
        "target": {"baseModel": "microsoft/phi-2", "role": "target", "frozen": True},
        "specialists": [{"baseModel": "Qwen/Qwen3-1.7B", "role": "code", "frozen": True}],
    },
    "stages": [{"type": "many-worlds-ensemble", "targetModel": "microsoft/phi-2", "specialists": ["Qwen/Qwen3-1.7B"], "alpha": 0.2}],
    "integrity": {"trustLevel": "self-attested", "code": {"runner": "x", "version": "1", "binaryHash": "sha256:" + 64 * "a"}},
}


def edited(path: Path, change: Callable[[dict[str, Any]], object]) -> bytes:
    value = json.loads(path.read_bytes())
    change(value)
    return json.dumps(value, indent=2).encode()


# --- archive mode ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name.removesuffix(".alloy.json"))
def test_every_file_is_kept_whole(path: Path) -> None:
    """All thirteen load, unknown keys and nulls included, and what is written again is deeply equal."""
    alloy = load(path.read_bytes())
    assert alloy.raw == json.loads(path.read_bytes()) == json.loads(alloy.to_bytes())
    assert alloy.file_hash == file_hash(path.read_bytes())
    assert load(alloy.to_bytes()).raw == alloy.raw


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"[]", "an alloy is a JSON object"),
        (b'{"name": "x", "name": "y", "source": {}, "stages": []}', "key given twice: 'name'"),
        (b'{"name": "x", "source": {}, "stages": [NaN]}', "NaN is not JSON"),
        (b'\xef\xbb\xbf{"name": "x"}', "byte order mark"),
        (b'{"name": "x", "source": {"baseModel": "m"}}', "an alloy has a list of stages"),
        (b'{"stages": []}', "an alloy has a name and a source"),
        (b'{"type": "repo-attestation", "name": "x"}', "the chain of a repository's commits"),
        (b"\xff\xfe", "not strict JSON"),
        (b'{"a":' * 3000, "not strict JSON"),
    ],
)
def test_what_is_no_alloy_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    """Also what two readers could read differently; nothing that is no alloy is shown as one."""
    with pytest.raises(AlloyError, match=re.escape(reason)):
        load(data)
    report = examine_foreign(data, None)
    assert (report.verdict, report.exit_code) == ("FAILED", 3) or "commits" in reason


def test_an_ensemble_is_an_alloy_of_another_form() -> None:
    """It names a target and specialists, carries its integrity at the top, and needs no stages."""
    alloy = load(json.dumps(ENSEMBLE).encode())
    assert (alloy.kind, alloy.faults, alloy.integrity["trustLevel"]) == ("ensemble", (), "self-attested")
    assert {claim.where: claim.verdict for claim in hashes(alloy)} == {"integrity.code.binaryHash": "open"}
    without = {key: value for key, value in ENSEMBLE.items() if key not in ("stages", "type")}
    assert load(json.dumps(without).encode()).kind == "ensemble"
    told = texts(examine_foreign(json.dumps(ENSEMBLE).encode(), None), "unverified")
    assert "combines 2 models that it does not hold: microsoft/phi-2, Qwen/Qwen3-1.7B" in told


@pytest.mark.parametrize(
    ("names", "repo", "found"),
    [
        (["README.md", "olmoe.alloy.json", "other.alloy.json"], "org/olmoe", "olmoe.alloy.json"),
        (["forge-alloy.json", "config.json"], "org/qwen3.5-2b-general-forged", "forge-alloy.json"),
        (["a/tiny.alloy.json", "tiny-gguf.alloy.json", "forge-alloy.json"], "org/Tiny", "a/tiny.alloy.json"),
        (["v2-7b-coder-compensated.alloy.json"], "org/qwen2.5-coder-7b-compacted", "v2-7b-coder-compensated.alloy.json"),
        (["one.alloy.json", "two.alloy.json"], "org/three", None),
        (["tiny.json", "tiny.alloy.txt"], "org/tiny", None),
    ],
)
def test_the_alloy_of_a_repository_is_found_by_its_name(names: list[str], repo: str, found: str | None) -> None:
    """The one with the repository's name, else the legacy name, else the only one; never a guess among several."""
    assert find(names, repo) == find(reversed(names), repo) == found

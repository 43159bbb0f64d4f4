"""`ledger verify` of alloys and chains that nobody signed: read, computed again, and never green."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Desk

VECTORS = Path(__file__).parents[1] / "vectors"
OLMOE = "olmoe-1b-7b-compacted-5b.alloy.json"
HASH = "bba0a92ff0c8bebb3cb8cefd3702e492e60597282d70c14a489b0504ae20cf0b"
END = "959d8f0e29bcde1dc26d1ad37eaa887b80ca5c2fdf9657e7a2becde3361013ed"


@pytest.fixture
def files(desk: Desk) -> Path:
    """Everything in a folder where no ledger is."""
    for path in (*sorted((VECTORS / "alloys").glob("*.json")), VECTORS / "chain/chain.json"):
        shutil.copy(path, desk.folder)
    return desk.folder


def test_every_published_alloy_gets_an_honest_verdict(desk: Desk, files: Path) -> None:
    """Each is UNSIGNED with exit code 3, whatever it says of itself, and nothing in it is called proven."""
    for path in sorted(files.glob("*.alloy.json")):
        said = desk.type("verify", path.name, "--json")
        report = json.loads(said.out)
        assert (said.code, report["verdict"].partition(":")[0]) == (3, "UNSIGNED"), path.name
        assert "proven" not in {row["status"] for row in report["rows"]}, path.name


@pytest.mark.parametrize(
    ("target", "expected", "code", "verdict"),
    [
        (OLMOE, HASH, 0, "UNSIGNED: this alloy is the expected one"),
        (OLMOE, f"sha256:{HASH}", 0, "UNSIGNED: this alloy is the expected one"),
        (OLMOE, HASH[:16], 3, "UNSIGNED: nobody signed this alloy"),
        (OLMOE, HASH[:15] + "0", 3, "FAILED"),
        ("qwen3.5-4b-code-forged.alloy.json", "857b4ca12cb7108d", 3, "UNSIGNED: nobody signed this alloy"),
        ("chain.json", END, 0, "UNSIGNED: this chain is the expected one"),
        ("chain.json", END[:16], 3, "UNSIGNED: nobody signed this chain"),
        ("chain.json", END[::-1], 3, "FAILED"),
    ],
)
def test_what_was_expected_decides(desk: Desk, files: Path, target: str, expected: str, code: int, verdict: str) -> None:
    """All 64 digits pin the bytes, or the commits; fewer are called a prefix; others fail."""
    said = desk.type("verify", target, "--expect", expected)
    assert (said.code, said.out.splitlines()[-1].startswith(verdict)) == (code, True), said.out
    assert ("64 bits" in said.out) == (len(expected) == 16 and verdict != "FAILED")


def test_a_folder_with_weights_that_the_alloy_does_not_hash(desk: Desk, files: Path) -> None:
    """The right alloy beside any weights is not worth exit code 0."""
    (files / "model").mkdir()
    shutil.copy(files / OLMOE, files / "model")
    (files / "model/any.gguf").write_bytes(b"GGUF")
    said = desk.type("verify", "model", "--expect", HASH)
    assert said.code == 3
    assert "any.gguf: no hash in the alloy is of these bytes" in said.out


def test_a_tampered_chain(desk: Desk, files: Path) -> None:
    """The stored end is still the expected one, and the stage is named."""
    value = json.loads((files / "chain.json").read_text())
    value["stages"][60]["commit"] = 40 * "0"
    (files / "chain.json").write_text(json.dumps(value))
    said = desk.type("verify", "chain.json", "--expect", END[:16])
    assert said.code == 3
    assert "stage 61 of 115" in said.out

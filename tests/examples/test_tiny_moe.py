"""The example: its corpus is what its README says, its recipes can be planned, and its card holds only numbers that were measured."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from stages import recipe
from stages.safetensors_file import header_bytes, place

EXAMPLE = Path(__file__).parents[2] / "examples" / "tiny-moe"
HERE = EXAMPLE / "corpus"
DOMAINS = ("prose", "python", "tables")


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_corpus_is_as_its_readme_says() -> None:
    """Every file that the README lists has the size and the SHA-256 written there, and no file is missing from it."""
    rows = re.findall(r"^\| (\S+) \| ([\d,]+) \| `([0-9a-f]{64})` \|$", (HERE / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    listed = {name: (int(size.replace(",", "")), digest) for name, size, digest in rows}
    held = {
        path.relative_to(HERE).as_posix(): (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in HERE.rglob("*")
        if path.is_file() and path.name != "README.md"
    }
    assert listed == held


@pytest.mark.parametrize("name", ["recipe.yaml", "recipe-5e.yaml", "recipe-more.yaml", "train.yaml"])
def test_recipes_are_valid(name: str) -> None:
    """Each recipe parses, and every path in it but the model's is there."""
    loaded = recipe.load(EXAMPLE / name)
    for stage in loaded.stages:
        for key in ("calibrationCorpus", "dataset", "text"):
            if key in stage.fields:
                assert (EXAMPLE / stage.fields[key]).exists()


def test_longer_calibration_begins_with_the_shorter() -> None:
    """The superset is a prefix superset, in whole blocks of 20 samples, so that the profile of the first 300 is found."""
    shorter, longer = ((HERE / f"{name}.jsonl").read_text(encoding="utf-8") for name in ("calibration", "calibration-more"))
    assert longer.startswith(shorter)
    assert shorter.count("\n") == 300
    assert longer.count("\n") == 360


def test_example_corpus_keeps_heldout_and_calibration_apart_from_training() -> None:
    """No run of 200 bytes of a held-out or calibration text occurs in the training text, nor do the two share one.

    Such a run would hold a whole 100-byte block, so blocks are looked for and each one found is widened.
    """
    training = "".join((HERE / "train" / f"{domain}.txt").read_text(encoding="utf-8") for domain in DOMAINS).encode()
    heldout = [(HERE / f"heldout-{domain}.txt").read_bytes() for domain in DOMAINS]
    samples = [json.loads(line) for line in (HERE / "calibration-more.jsonl").read_text(encoding="utf-8").splitlines()]
    calibration = [sample["text"].encode() for sample in samples]
    assert longest_shared_run([*heldout, *calibration], training) < 200
    assert longest_shared_run(calibration, b"\0".join(heldout)) < 200


def longest_shared_run(texts: list[bytes], other: bytes) -> int:
    """The longest run of bytes (of at least 199) that a text shares with `other`, or 0."""
    places: dict[bytes, list[tuple[int, int]]] = {}
    for number, text in enumerate(texts):
        for start in range(0, len(text) - 99, 100):
            places.setdefault(text[start : start + 100], []).append((number, start))
    longest = 0
    for at in range(len(other) - 99):
        for number, start in places.get(other[at : at + 100], ()):
            text, left, right = texts[number], 0, 100
            while start + left > 0 and at + left > 0 and text[start + left - 1] == other[at + left - 1]:
                left -= 1
            while start + right < len(text) and at + right < len(other) and text[start + right] == other[at + right]:
                right += 1
            longest = max(longest, right - left)
    return longest


def test_any_prefix_of_the_example_calibration_mixes_the_domains() -> None:
    """Every three lines in a row hold one sample of each domain."""
    domains = [json.loads(line)["domain"] for line in (HERE / "calibration.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(domains) >= 300
    assert all(sorted(domains[start : start + 3]) == list(DOMAINS) for start in range(0, len(domains) - 2, 3))


# --- the card ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the example with a model of one small tensor."""
    (tmp_path / "corpus").mkdir()
    for domain in DOMAINS:
        shutil.copy(HERE / f"heldout-{domain}.txt", tmp_path / "corpus")
    for name in ("card.md", "train.yaml"):
        shutil.copy(EXAMPLE / name, tmp_path)
    (tmp_path / "model").mkdir()
    config = {
        "dtype": "bfloat16",
        "hidden_size": 2,
        "num_experts_per_tok": 2,
        "num_hidden_layers": 1,
        "num_local_experts": 8,
        "vocab_size": 9,
    }
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    (tmp_path / "model" / "model.safetensors").write_bytes(header_bytes(place([("a", "BF16", (2, 3))]), {"format": "pt"}) + bytes(12))
    return tmp_path


def measured() -> list[dict[str, Any]]:
    """Metrics as the stages write them, with invented numbers."""
    metrics: list[dict[str, Any]] = []
    for domain in DOMAINS:
        data = {"digest": {"sha256": hashlib.sha256((HERE / f"heldout-{domain}.txt").read_bytes()).hexdigest()}}
        tokens = {"scored": 1000, "training": 5000}
        model = {"perplexity": "40.5", "stderrClustered": "1.25"}
        metrics.append({"benchmark": "perplexity", "dataset": data, "metrics": model, "settings": {"nCtx": 512}, "tokens": tokens})
        for fitted, value in (("", "800"), (domain, "405")):
            settings = {"nCtx": 512, "domain": fitted}
            baseline = {"perplexity": value}
            metrics.append(
                {"benchmark": "unigram-perplexity", "dataset": data, "metrics": baseline, "settings": settings, "tokens": tokens}
            )
    return metrics


def test_card_holds_the_measured_numbers(folder: Path) -> None:
    """Each domain has one row, with the model's perplexity, its error and both ratios."""
    text = script("make_card").render(folder, measured())
    for domain in DOMAINS:
        assert f"| {domain} | 1,000 | 40.5 ± 1.2 | 800 | 19.8 | 405 | 10.0 |" in text
    assert "6 parameters" in text
    assert "$" not in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda metrics: metrics[:-1], "no metrics for: own on tables"),
        (lambda metrics: [*metrics, metrics[0]], "given twice"),
        (lambda metrics: [{**metrics[0], "dataset": {"digest": {"sha256": "0" * 64}}}], "not a metric of this card"),
        (lambda metrics: [{**metrics[0], "tokens": {"scored": 7, "training": 5000}}, *metrics[1:]], "not made alike"),
    ],
)
def test_card_refuses_what_does_not_belong(folder: Path, change: Any, message: str) -> None:
    """A metric of another text, one that is missing, or one made otherwise stops the card instead of getting into it."""
    with pytest.raises(SystemExit, match=message):
        script("make_card").render(folder, change(measured()))

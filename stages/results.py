"""What a run leaves beside the ledger: `<name>.alloy.json` (recipe, results, hashes, receipt) and `<name>.attestations.jsonl`.

Both travel with the model; `ledger verify <name>.alloy.json` needs nothing else. Four hashes have four names and are never mixed up:
`recipeHash` (canonical JSON of what was asked for), `modelHash` (canonical list of weight files), `resultHash` (the bytes of one
evaluation's per-item record), and the file's own SHA-256, which a file cannot contain.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ledger import bundle, predicates
from ledger.log import Log
from ledger.published import model_hash
from stages.lowering import Plan
from stages.recipe import Recipe
from stages.record import plain
from store import canonical, tree
from store.digest import Digest
from store.local import LocalCas

WEIGHTS = (".safetensors", ".gguf")
"""File names that count as weights for `modelHash`."""

_ASKED = ("name", "version", "source", "stages", "cycles", "search", "calibrationCorpora")


def write(
    recipe: Recipe,
    plan: Plan,
    outputs: Mapping[str, Mapping[str, Digest]],
    finished: Mapping[Digest, str],
    *,
    store: LocalCas,
    log: Log,
    out: Path,
) -> tuple[Path, Path, Digest | None]:
    """Write the alloy and the attestations of a finished run, each aside first and then renamed.

    `finished` maps the key of every action to when it was finished (UTC, as its statement says).

    Returns:
        their paths, and the digest of the comparison report if the recipe made one.
    """
    report = next((digest for named in reversed(list(outputs.values())) for name, digest in named.items() if name == "report"), None)
    shown = {digest for named in outputs.values() for digest in named.values()}
    lines, receipt = bundle.export(log, sorted(shown), store=store)
    alloy = {key: value for key, value in recipe.raw.items() if key not in ("results", "receipt")}
    alloy["recipeHash"] = str(recipe_hash(recipe, plan.materials))
    alloy["results"] = _results(outputs, finished, report, store=store, log=log)
    alloy["receipt"] = {"publications": [], "issuedAt": alloy["results"]["completedAt"], "ledger": receipt}
    out.mkdir(parents=True, exist_ok=True)
    alloy_path, attestations_path = out / f"{recipe.name}.alloy.json", out / f"{recipe.name}.attestations.jsonl"
    _write(attestations_path, b"".join(line + b"\n" for line in lines))
    _write(alloy_path, json.dumps(alloy, indent=2, ensure_ascii=False).encode() + b"\n")
    return alloy_path, attestations_path, report


def recipe_hash(recipe: Recipe, materials: Mapping[str, Digest]) -> Digest:
    """SHA-256 of the canonical JSON of what was asked for: the fields that decide the work, and the digests of what they name on disk."""
    asked = {key: plain(recipe.raw[key]) for key in _ASKED if key in recipe.raw}
    return Digest.of(canonical.dumps({**asked, "materials": {name: str(digest) for name, digest in sorted(materials.items())}}))


def _results(
    outputs: Mapping[str, Mapping[str, Digest]], finished: Mapping[Digest, str], report: Digest | None, *, store: LocalCas, log: Log
) -> dict[str, Any]:
    artifacts = [
        {"stage": group, "output": name, "digest": str(digest), "sizeBytes": _size(store, digest)}
        for group, named in outputs.items()
        for name, digest in named.items()
    ]
    files = _weight_files(outputs, store)
    integrity: dict[str, Any] = {
        "trustLevel": "self-attested",
        "code": {"runner": "alloy-ledger", "version": _version()},
        "fileHashes": [{"filename": name, "sha256": digest.hex, "size": size} for name, digest, size in files],
        "attestedAt": max(finished.values(), default=""),
    }
    if files:
        integrity["modelHash"] = str(model_hash([(name, digest) for name, digest, _ in files]))
    results: dict[str, Any] = {
        "completedAt": max(finished.values(), default=""),
        "actions": [str(key) for key in finished],
        "artifacts": artifacts,
        "benchmarks": _benchmarks(outputs, log),
        "integrity": integrity,
    }
    if report is not None:
        results["comparison"] = canonical.loads(store.read(report))
    return results


def _benchmarks(outputs: Mapping[str, Mapping[str, Digest]], log: Log) -> list[dict[str, Any]]:
    """Every evaluation that the ledger states of an output of this run, in the order of the outputs."""
    rows: list[dict[str, Any]] = []
    seen: set[Digest] = set()
    for named in outputs.values():
        for name, digest in named.items():
            if digest in seen:
                continue
            seen.add(digest)
            for entry in log.by_subject(digest):
                if entry.statement.predicate_type == predicates.EVALUATION:
                    rows.append({"subject": name, "digest": str(digest), "entry": entry.number, **entry.statement.predicate})
    return rows


def _weight_files(outputs: Mapping[str, Mapping[str, Digest]], store: LocalCas) -> list[tuple[str, Digest, int]]:
    """The weight files of the last model and of every GGUF that the recipe made."""
    files: dict[str, tuple[Digest, int]] = {}
    models = [digest for named in outputs.values() for name, digest in named.items() if name == "model"]
    if models and store.has(models[-1]):
        for item in tree.load(store, models[-1]).entries:
            if item.path.endswith(WEIGHTS):
                files[item.path] = (item.digest, item.size)
    for named in outputs.values():
        for name, digest in named.items():
            if name.startswith("gguf-") and store.has(digest):
                files[f"{name[5:]}.gguf"] = (digest, store.size(digest))
    return [(name, digest, size) for name, (digest, size) in sorted(files.items())]


def _size(store: LocalCas, digest: Digest) -> int:
    return store.size(digest) if store.has(digest) else 0


def _version() -> str:
    from importlib.metadata import version

    return version("alloy-ledger")


def _write(path: Path, data: bytes) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with aside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)

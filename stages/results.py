"""What a run leaves beside the ledger: `<name>.alloy.json` (recipe, results, hashes, receipt) and `<name>.attestations.jsonl`.

Both travel with the model; `ledger verify <name>.alloy.json` needs nothing else. Different hashes have different names and are never
mixed up: `recipeHash` (canonical JSON of what was asked for), `modelHash` (canonical list of weight files), `resultHash` (the record of
each item of one evaluation, an output of its run), and the file's own SHA-256, which a file cannot contain.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ledger import bundle, lookup, predicates, witness_folder
from ledger.alloy import HASHED, MEASURED, PLACE, Evaluation, baselines, deliverables, measured, model_hash, plain, recipe_hash, record_of
from ledger.log import Log
from ledger.policy import Policy
from ledger.statement import Statement
from stages.lowering import Plan
from stages.recipe import Recipe
from store import canonical, tree
from store.cas import Cas
from store.digest import Digest
from store.files import replace_file
from store.local import LocalCas


def write(
    recipe: Recipe,
    plan: Plan,
    outputs: Mapping[str, Mapping[str, Digest]],
    finished: Mapping[Digest, str],
    *,
    store: LocalCas,
    log: Log,
    policy: Policy,
    out: Path,
) -> tuple[Path, Path]:
    """Write the alloy and the attestations of a finished run, each aside first and then renamed.

    `finished` maps the key of every action to when it was finished (UTC, as its statement says). What does not count under the policy
    is not written: it would count for nothing when the alloy is verified.

    Returns:
        their paths.
    """
    shown = {digest for named in outputs.values() for digest in named.values()}
    for key in finished:  # of some actions nothing is shown
        shown |= {digest for one in lookup.sift(log.lookup(key), policy)[0] for digest in one.statement.subjects.values()}
    lines, receipt = bundle.export(log, sorted(shown), store=store, policy=policy)
    alloy = {key: value for key, value in recipe.raw.items() if key not in ("results", "receipt")}
    alloy["materials"] = {name: str(digest) for name, digest in sorted(plan.materials.items())}
    alloy["recipeHash"] = str(recipe_hash(recipe.raw, alloy["materials"]))
    alloy["results"] = results_of(recipe.name, outputs, finished, store=store, log=log, policy=policy)
    alloy["receipt"] = {"publications": [], "issuedAt": alloy["results"]["completedAt"], "ledger": receipt}
    out.mkdir(parents=True, exist_ok=True)
    alloy_path, attestations_path = places(recipe, out)
    replace_file(attestations_path, b"".join(line + b"\n" for line in lines))
    replace_file(alloy_path, json.dumps(alloy, indent=2, ensure_ascii=False).encode() + b"\n")
    return alloy_path, attestations_path


def places(recipe: Recipe, out: Path) -> tuple[Path, Path]:
    """Where the alloy and the attestations of a recipe go."""
    return out / f"{recipe.name}.alloy.json", out / f"{recipe.name}.attestations.jsonl"


def report_of(outputs: Mapping[str, Mapping[str, Digest]]) -> Digest | None:
    """The latest comparison that the recipe made."""
    return next((digest for named in reversed(list(outputs.values())) for name, digest in named.items() if name == "report"), None)


def decided_by(recipe: Recipe, plan: Plan, keys: Iterable[Digest], *, log: Log, policy: bytes) -> Digest:
    """What decides the two files to the byte: when it is unchanged, so are they."""
    return Digest.of(
        canonical.dumps(
            {
                "recipe": plain(recipe.raw),
                "materials": {name: str(digest) for name, digest in plan.materials.items()},
                "actions": [str(key) for key in keys],
                "head": log.head,
                "witnessed": str(Digest.of(witness_folder.newest(log) or b"")),
                "policy": str(Digest.of(policy)),
                "version": _version(),
            }
        )
    )


def results_of(
    recipe: str,
    outputs: Mapping[str, Mapping[str, Digest]],
    finished: Mapping[Digest, str],
    *,
    store: LocalCas,
    log: Log,
    policy: Policy,
) -> dict[str, Any]:
    """`results` of an alloy: what a run made and measured, as far as it counts under the policy.

    `outputs` maps a recipe stage to what it gave, `finished` the key of every action to when it was finished (UTC).
    """
    artifacts = [
        {"stage": group, "output": name, "digest": str(digest), "sizeBytes": _size(store, digest)}
        for group, named in outputs.items()
        for name, digest in named.items()
    ]
    files = weight_files(recipe, outputs, store)
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
        "benchmarks": [],
        "integrity": integrity,
    }
    report = report_of(outputs)
    if report is not None:
        results["comparison"] = canonical.loads(store.read(report))
    results["benchmarks"] = _benchmarks(outputs, results.get("comparison"), frozenset(finished), log, policy)
    return results


def _benchmarks(
    outputs: Mapping[str, Mapping[str, Digest]], comparison: Any, own: frozenset[Digest], log: Log, policy: Policy
) -> list[dict[str, Any]]:
    """Every evaluation of an output of this run that counts, in the order of the outputs: what follows from it, and what was signed.

    `own` are the keys of this run's actions: only their runs travel with the alloy.
    """
    found: list[tuple[Evaluation, dict[str, Any]]] = []
    seen: set[Digest] = set()
    for named in outputs.values():
        for name, digest in named.items():
            if digest in seen:
                continue
            seen.add(digest)
            for one in lookup.sift(log.by_subject(digest), policy)[0]:
                said = one.statement.predicate
                # One that has such keys itself could not be told from what follows from it; the attestations have it.
                if one.statement.predicate_type == predicates.EVALUATION and not {*MEASURED, *PLACE} & set(said):
                    evaluation = Evaluation(digest=digest, predicate=said, record=_record(one.statement, own, log, policy))
                    found.append((evaluation, {"subject": name, "digest": str(digest), "entry": one.entry.number, **said}))
    evaluations, bases = [evaluation for evaluation, _ in found], baselines(comparison)
    return [{**measured(evaluation, evaluations, bases), **row} for evaluation, row in found]


def _record(said: Statement, own: frozenset[Digest], log: Log, policy: Policy) -> tuple[str, Digest] | None:
    """The record of each item of an evaluation: the output of its run, if that counts.

    An evaluation that another recipe asked for has none here: its run is not among the attestations, so nothing would follow from it.
    """
    key = predicates.computed_by(said)
    runs = lookup.sift(log.lookup(key), policy)[0] if key is not None and key in own else []
    return record_of(runs[0].statement.subjects) if runs else None


def weight_files(recipe: str, outputs: Mapping[str, Mapping[str, Digest]], store: Cas) -> list[tuple[str, Digest, int]]:
    """(path, digest, size in bytes) of the weight files that a run made, each where `ledger export` puts it; sorted by path."""
    files: list[tuple[str, Digest, int]] = []
    for name, digest in deliverables(recipe, flat(outputs)).items():
        if not store.has(digest):
            continue
        if name.endswith(HASHED):
            files.append((name, digest, store.size(digest)))
        elif tree.is_tree(store, digest):
            inside = tree.load(store, digest).entries
            files += [(f"{name}/{item.path}", item.digest, item.size) for item in inside if item.path.endswith(HASHED)]
    return sorted(files)


def flat(outputs: Mapping[str, Mapping[str, Digest]]) -> Iterator[tuple[str, str, Digest]]:
    """(stage, output name, digest) of everything that a run made, in order."""
    return ((stage, name, digest) for stage, named in outputs.items() for name, digest in named.items())


def _size(store: LocalCas, digest: Digest) -> int:
    return store.size(digest) if store.has(digest) else 0


def _version() -> str:
    from importlib.metadata import version

    return version("alloy-ledger")

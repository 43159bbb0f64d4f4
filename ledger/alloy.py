"""What an alloy says about itself, as functions of what it says: its hashes, and the names of the files that were made.

Whoever writes an alloy uses them, and so does whoever checks it. Four hashes have four names (docs/formats/alloy.md): `recipe_hash` of what
was asked for, `file_hash` of the file's bytes, `model_hash` of the list of weights, and `resultHash` of an evaluation's record. The two
others, `legacy_model_hash` and `receiptless_hash`, are conventions of older files that are recognised and never written.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from store import canonical, files
from store.digest import Digest

HASHED = (".safetensors", ".gguf")
"""File names that count as weights for `modelHash`."""

MEASURED = ("name", "metric", "score", "baseScore", "delta", "resultHash", "samplesPath", "baseResultHash", "baseSamplesPath")
"""The keys of `results.benchmarks[]` that follow from what was signed, and from nothing else: see `measured`."""

PLACE = ("subject", "digest", "entry")
"""The keys of `results.benchmarks[]` that say what was measured, and where that is signed. All others are of the signed predicate."""

_REGULAR_BYTES = 10 * 2**20
"""The Hub takes no larger file outside of LFS."""

ASKED = ("name", "version", "source", "stages", "cycles", "search", "calibrationCorpora")
"""The fields of a recipe that decide the work."""


def recipe_hash(recipe: Mapping[str, Any], materials: Mapping[str, str]) -> Digest:
    """SHA-256 of the canonical JSON of what was asked for: the fields that decide the work, and the digests of what they name on disk.

    `recipe` may have other fields; they do not count. `materials` maps a path, as the recipe writes it, to a digest.

    Raises:
        CanonicalError: a value that has no canonical JSON.
    """
    asked = {key: plain(recipe[key]) for key in ASKED if key in recipe}
    return Digest.of(canonical.dumps({**asked, "materials": dict(sorted(materials.items()))}))


def plain(value: Any) -> Any:
    """JSON without floats, as whatever is signed or hashed demands: a number with a fraction becomes its shortest decimal text."""
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def model_hash(files: Sequence[tuple[str, Digest]]) -> Digest:
    """SHA-256 of the canonical list of weight files: `{"filename", "sha256"}` sorted by name, compact JSON; sizes do not count.

    Source: the published convention of forge-alloy; its two published vectors are in the tests.

    Raises:
        ValueError: there is no weight file to hash.
    """
    if not files:
        raise ValueError("no weight files: a modelHash over nothing would say nothing")
    listing = [{"filename": name, "sha256": digest.hex} for name, digest in sorted(files)]
    return Digest.of(json.dumps(listing, separators=(",", ":"), sort_keys=True).encode())


def file_hash(data: bytes) -> Digest:
    """SHA-256 of an alloy file as it is served. No file can contain its own, so it is given by whoever points at the file."""
    return Digest.of(data)


def result_hash(record: Path) -> Digest:
    """SHA-256 of the record of each item of one evaluation: the file at `samplesPath`, read to its end.

    Raises:
        StoreError: it cannot be read.
    """
    return files.hash_file(record)[0]


def legacy_model_hash(shards: Mapping[str, Path]) -> Digest:
    """SHA-256 of all weight bytes, one shard after the other in the order of their names: what older files mean by modelHash.

    It needs every byte, and two models whose shards are cut elsewhere have the same. `shards` are safetensors files by name.

    Raises:
        ValueError: there is no shard. OSError: one cannot be read.
    """
    if not shards:
        raise ValueError("no weight files: a modelHash over nothing would say nothing")
    total = hashlib.sha256()
    for _, path in sorted(shards.items()):
        with path.open("rb") as file:
            while piece := file.read(2**20):
                total.update(piece)
    return Digest.parse("sha256:" + total.hexdigest())


def receiptless_hash(alloy: Mapping[str, Any]) -> Digest:
    """SHA-256 of an alloy without its `receipt`, as Python writes it with an indent of 2: what one published file means by alloyHash."""
    return Digest.of(json.dumps({key: value for key, value in alloy.items() if key != "receipt"}, indent=2).encode())


def file_hashes(
    published: Mapping[str, Path],
    *,
    lfs: Callable[[str, int], bool | None] | None = None,
    known: Mapping[str, tuple[Digest, int]] | None = None,
) -> list[dict[str, Any]]:
    """`results.integrity.fileHashes` of the files of a publication, sorted by name: `{filename, sha256, size, gitOid, xetHash}`.

    Args:
        published: name in the repository -> file.
        lfs: whether the Hub keeps a file of that name and size in bytes in LFS, None when it is not known; default: `kept_in_lfs`. Then
            gitOid is of the bytes, which is what the Hub lists if it keeps the file outside; if not, it lists the SHA-256.
        known: name -> digest and size of those that were hashed already.

    Raises:
        StoreError: a file cannot be read.
    """
    from ledger import hub

    told = kept_in_lfs if lfs is None else lfs
    listed: list[dict[str, Any]] = []
    for name, path in sorted(published.items()):
        digest, size = (known or {}).get(name) or files.hash_file(path)
        item: dict[str, Any] = {"filename": name, "sha256": digest.hex, "size": size}
        large = told(name, size)
        item["gitOid"] = hub.lfs_pointer_oid(digest, size) if large else hub.git_blob_oid(path.read_bytes())
        if large is not False and (xet := hub.xet_hash(path)) is not None:
            item["xetHash"] = xet
        listed.append(item)
    return listed


def kept_in_lfs(name: str, size: int) -> bool | None:
    """What is known of the Hub's choice without asking it: weights and whatever is large go to LFS, and small texts do not.

    >>> kept_in_lfs("a.gguf", 5), kept_in_lfs("config.json", 700), kept_in_lfs("picture.png", 700), kept_in_lfs("eval/x.nll", 2**24)
    (True, False, None, True)
    """
    if name.endswith(HASHED) or size > _REGULAR_BYTES:
        return True
    small = size < 2**20 and name.rpartition("/")[2].endswith((".json", ".jsonl", ".txt", ".jinja", ".yaml", ".md"))
    return False if small else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One evaluation as it was signed.

    Attributes:
        digest: of what was measured.
        predicate: what the statement says (docs/predicates/evaluation.md).
        record: what the run named by its `action` gave beside the metrics: output name and digest of the record of each item; None when
            that run is not there.
    """

    digest: Digest
    predicate: Mapping[str, Any]
    record: tuple[str, Digest] | None = None

    @property
    def score(self) -> tuple[str, str] | None:
        """The metric that counts and its value as decimal text: the one that is called as the benchmark, else the only one."""
        metrics = self.predicate.get("metrics")
        if not isinstance(metrics, Mapping):
            return None
        name = str(self.predicate.get("benchmark"))
        name = name if name in metrics else next(iter(metrics)) if len(metrics) == 1 else ""
        value = metrics.get(name)
        try:
            return (name, value) if isinstance(value, str) and Decimal(value).is_finite() else None
        except InvalidOperation:
            return None

    @property
    def asked(self) -> dict[str, Any]:
        """What two evaluations must agree on to be compared: all but the numbers, and who computed them."""
        return {key: value for key, value in self.predicate.items() if key not in ("action", "metrics", "toolchains")}

    @property
    def samples_path(self) -> str | None:
        """Where the record is put beside the model; named by its content, so none hides another."""
        if self.record is None:
            return None
        output, digest = self.record
        return f"eval/{file_name(str(self.predicate.get('benchmark', 'benchmark')))}-{digest.hex[:12]}.{file_name(output)}"


def record_of(outputs: Mapping[str, Digest]) -> tuple[str, Digest] | None:
    """The record among the outputs of a run that evaluates: the one beside `metrics`, if there is one.

    >>> record_of({"metrics": Digest.of(b"1"), "nll": Digest.of(b"2")})[0], record_of({"metrics": Digest.of(b"1")})
    ('nll', None)
    """
    others = [(name, digest) for name, digest in sorted(outputs.items()) if name != "metrics"]
    return others[0] if len(others) == 1 else None


def baselines(comparison: Any) -> dict[str, str]:
    """What each model of a comparison is compared with: digest -> digest, as texts; nothing of what has another form."""
    rows = comparison.get("rows") if isinstance(comparison, Mapping) else None
    named = (
        {row["name"]: row for row in rows if isinstance(row, Mapping) and isinstance(row.get("name"), str)}
        if isinstance(rows, list)
        else {}
    )
    found: dict[str, str] = {}
    for row in named.values():
        difference = row.get("difference")
        base = named.get(difference.get("baseline")) if isinstance(difference, Mapping) else None
        if base is not None and isinstance(row.get("digest"), str) and isinstance(base.get("digest"), str):
            found[row["digest"]] = base["digest"]
    return found


def measured(one: Evaluation, all_: Iterable[Evaluation], bases: Mapping[str, str]) -> dict[str, Any]:
    """The keys `MEASURED` of one evaluation, as far as they are known. Whoever writes an alloy uses it, and whoever checks one.

    Args:
        one: the evaluation.
        all_: those among which the one of its baseline is looked for: of the model that `bases` names, by the same benchmark on the same
            data with the same settings.
        bases: see `baselines`.
    """
    row: dict[str, Any] = {"name": str(one.predicate.get("benchmark", ""))}
    base = next((each for each in all_ if str(each.digest) == bases.get(str(one.digest)) and each.asked == one.asked), None)
    if one.score is not None:
        row |= {"metric": one.score[0], "score": float(one.score[1])}
        if base is not None and base.score is not None and base.score[0] == one.score[0]:
            row |= {"baseScore": float(base.score[1]), "delta": float(Decimal(one.score[1]) - Decimal(base.score[1]))}
    for prefix, each in (("", one), ("base", base)):
        if each is not None and each.record is not None:
            keys = ("resultHash", "samplesPath") if not prefix else ("baseResultHash", "baseSamplesPath")
            row |= {keys[0]: str(each.record[1]), keys[1]: each.samples_path}
    return row


def records(alloy: Mapping[str, Any]) -> dict[str, Digest]:
    """Where the records of an alloy's evaluations belong beside the model: path -> digest of the file.

    Raises:
        StoreError: a hash has another form.
    """
    results = alloy.get("results")
    rows = results.get("benchmarks", []) if isinstance(results, Mapping) else []
    pairs = (("samplesPath", "resultHash"), ("baseSamplesPath", "baseResultHash"))
    return {row[path]: Digest.parse(row[digest]) for row in rows for path, digest in pairs if path in row and digest in row}


def deliverables(recipe: str, outputs: Iterable[tuple[str, str, Digest]]) -> dict[str, Digest]:
    """What a run made that others load: file or folder name -> digest. The last model of each variant, and every GGUF.

    `outputs` are (stage, output name, digest) in the order of the run; a stage of a matrix ends with its variant in brackets.

    >>> one, two = Digest.of(b"1"), Digest.of(b"2")
    >>> list(deliverables("tiny", [("prune[keep=6]", "model", one), ("quant", "gguf-F16", one), ("quant-2", "gguf-F16", two)]))
    ['model-keep=6', 'tiny-F16-6b86b273ff34.gguf', 'tiny-F16.gguf']
    """
    models: dict[str, Digest] = {}
    ggufs: dict[tuple[str, Digest], None] = {}
    for stage, output, digest in outputs:
        variant = stage.partition("[")[2].removesuffix("]")
        if output == "model" and not stage.startswith("import-model"):
            models[f"model-{variant}" if variant else "model"] = digest
        elif output.startswith("gguf-"):
            ggufs["-".join(filter(None, (recipe, variant, output.removeprefix("gguf-")))), digest] = None
    found: dict[str, Digest] = {}
    for name, digest, ending in [*((name, digest, "") for name, digest in models.items()), *((*gguf, ".gguf") for gguf in reversed(ggufs))]:
        called = file_name(name)
        if found.get(called + ending, digest) != digest:
            called += f"-{digest.hex[:12]}"  # of two things that would have one name, the later one gets it
        found[called + ending] = digest
    return dict(sorted(found.items()))


def file_name(text: str) -> str:
    """A name of one file, from text that a recipe or a foreign ledger chose: nothing that is a path stays one.

    >>> file_name("tiny-Q4_K_M.gguf"), file_name("model-corpus=a/b.txt"), file_name("../../.bashrc"), file_name("model-../x")
    ('tiny-Q4_K_M.gguf', 'model-corpus=a_b.txt', '_.._.bashrc', 'model-.._x')
    """
    return re.sub(r"[^\w.=+,@-]", "_", text).lstrip(".") or "_"

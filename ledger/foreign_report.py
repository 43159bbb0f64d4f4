"""The honest verdict about an alloy of others, which nobody signed: never that of a verified artifact.

What it says of itself is shown as its own words, and its hashes as far as they could be computed again (`ledger.foreign_hashes`).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ledger import alloy_format
from ledger.alloy import file_hash, receiptless_hash
from ledger.errors import AlloyError
from ledger.foreign import ForeignAlloy, is_chain, load
from ledger.foreign_hashes import HashClaim, hashes
from ledger.inventory import ALLOY, ATTESTATIONS, CODE, WEIGHTS, base, ends, risky, some
from ledger.loose import as_dict, as_list
from ledger.repo_chain import examine_chain
from ledger.report import Report, Row, printable
from ledger.unsigned import MAX_BYTES, UnsignedReport, bytes_row, prefix_text
from store import files

if TYPE_CHECKING:
    from ledger.hub import Listing
    from ledger.locator import Expected

_SHOWN = 6


def examine_foreign(
    source: Path | bytes, expected: Expected | None, listing: Listing | None = None, *, name: str = "", folder: Path | None = None
) -> Report:
    """The honest verdict about an alloy that carries no attestations, or about a repository's chain of commits (`ledger.repo_chain`).

    Args:
        source: the file, or its bytes. What the alloy names beside the file is hashed too, and told where it is equal; a chain in
            `.attestation/` is compared with the repository that it lies in.
        expected: the hash from a code, a link, or the person; cut ones are accepted and called that.
        listing: what the Hub lists for its repository. Whether the bytes behind it were read is for who asked the Hub to say.
        name: what it is called in the report; default: the file's name.
        folder: where its repository's files lie: each that the alloy names must be as it says.

    Raises:
        StoreError: the file cannot be read.
    """
    data = files.read_small(source, MAX_BYTES) if isinstance(source, Path) else source
    target = name or (str(source) if isinstance(source, Path) else "alloy")
    named = folder is not None
    if isinstance(source, Path):
        folder = folder or source.parent
        clone = source.absolute().parent.parent
    try:
        if is_chain(data):
            inside = isinstance(source, Path) and source.absolute().parent.name == ".attestation" and (clone / ".git").is_dir()
            return examine_chain(data, expected, repository=clone if inside else None, name=target)
        alloy = load(data)
    except AlloyError as error:
        text = f"{error}; its SHA-256 is {file_hash(data)}"
        return UnsignedReport(target, (Row("failed", text, "Ask for the file that was published"),), what="file")
    claims = hashes(alloy, listing=listing, folder=folder, weights=named)
    pinned = expected is not None and expected.full and expected.matches(alloy.file_hash)
    first = _without_receipt(alloy, expected, target) or bytes_row(data, expected, target)
    rows = [first, _signature_row(alloy), *_hash_rows(claims, pinned=pinned, named=named), *_claim_rows(alloy), _history_row(alloy)]
    rows += _fault_rows(alloy)
    weights, others = _loose(claims, listing, folder if named else None, base(target))
    if others:
        text = f"{some([printable(name, 80) for name in others])}: can change how the model is loaded or what it is asked, and no hash in"
        rows.append(Row("unverified", f"{text} the alloy is of {'them' if len(others) > 1 else 'it'}", "Ask its author for their hashes"))
    if weights:
        text = f"{some([printable(name, 80) for name in weights])}: no hash in the alloy is of these bytes"
        rows.append(Row("unverified", f"{text}, and a model may be loaded from them", "Ask its author for their hashes"))
        return UnsignedReport(target, tuple(rows), what="repository" if listing is not None else "folder")
    return UnsignedReport(target, tuple(rows), pinned=pinned)


def _without_receipt(alloy: ForeignAlloy, expected: Expected | None, what: str) -> Row | None:
    """One published file has two codes: one of its bytes, and one, in its own verifyUrl, of its content without the receipt."""
    without = receiptless_hash(alloy.raw)
    if expected is None or expected.matches(alloy.file_hash) or not expected.matches(without) or "receipt" not in alloy.raw:
        return None
    text = f"{base(what)}: its content without its receipt, written with an indent of 2, has the SHA-256 {without}, which is as expected"
    text += f"; its bytes have {alloy.file_hash}, and of the receipt nothing is known"
    return Row(
        "unverified",
        text if expected.full else f"{text}. {prefix_text(expected)}",
        f"--expect {alloy.file_hash}, if its author confirms it",
    )


def _signature_row(alloy: ForeignAlloy) -> Row:
    """That nobody signed it, whatever fields it has."""
    fields = [f"{label} by {printable(str(as_dict(item).get('algorithm', '?')), 20)}" for label, item in _signatures(alloy)]
    level = alloy.integrity.get("trustLevel")
    text = "who says all this: no signature that can be checked travels with it"
    if fields:
        several = "fields" if len(fields) > 1 else "field"
        text += f"; it has {len(fields)} signature {several} ({some(fields)}), and no rule to check one by"
    if level is not None:
        text += f"; its trustLevel {printable(str(level), 30)!r} is a word in the file"
    if isinstance(as_dict(alloy.raw.get("receipt")).get("ledger"), dict):
        text += "; its receipt names the entries of a ledger, and the signed statements that they are were not found beside it"
        return Row("unverified", text, "Take its .attestations.jsonl from where it was published, and put it beside it")
    return Row("unverified", text, "Ask its author for attestations (docs/legacy.md)")


def _signatures(alloy: ForeignAlloy) -> list[tuple[str, Any]]:
    found = [("integrity.signature", alloy.integrity["signature"])] if "signature" in alloy.integrity else []
    for number, item in enumerate(as_list(alloy.integrity.get("certifications"))):
        if "signature" in as_dict(item):
            found.append((f"certifications[{number}]", item["signature"]))
    return found


def _hash_rows(claims: Sequence[HashClaim], *, pinned: bool, named: bool) -> list[Row]:
    """The findings about hashes. Where the folder was not `named`, other files than the alloy's may lie there, and contradict nothing."""
    rows: list[Row] = []
    loose: list[HashClaim] = []
    for claim in claims:
        if claim.verdict == "differs" and claim.by == "folder" and not named:
            loose.append(claim)
        elif claim.verdict == "differs":
            text = f"{claim.where} is {claim.stated}, but {claim.why}"
            rows.append(Row("failed", text, "It was changed after it was made, or was never right"))
    for group in _groups([claim for claim in claims if claim.verdict == "equal"]):
        text = f"{_names(group)}: computed again and equal: {_reasons(group)}"
        if group[0].by == "file":
            rows.append(Row("self-reported", f"{text}. The file agrees with itself, which says nothing about who wrote it", aside=True))
        else:
            rows.append(Row("proven" if pinned else "self-reported", text, aside=True))
    for group in _groups([claim for claim in claims if claim.verdict == "open"]):
        rows.append(Row("unverified", f"{_names(group)}: {_reasons(group)}"))
    for group in _groups(loose):
        text = f"{_names(group)}: {_reasons(group)}, which is another file or another version, and not judged here"
        rows.append(Row("unverified", text, "Name the folder to `ledger verify`, if it is the model's"))
    return rows


def _groups(claims: Sequence[HashClaim]) -> list[list[HashClaim]]:
    """Neighbours that differ only by a number or a file name together, so that eleven shards make one row."""
    return [list(group) for _, group in itertools.groupby(claims, key=lambda claim: (claim.by, _series(claim.where), _series(claim.why)))]


def _reasons(claims: Sequence[HashClaim]) -> str:
    return claims[0].why + (" and so on" if len({claim.why for claim in claims}) > 1 else "")


def _series(text: str) -> str:
    """A text without what counts up in it."""
    return re.sub(r"\[\d+\]", "[]", re.sub(r"(?<=the file )\S+|(?<=lists )\S+(?= of )|\S+(?= here has)", "...", text))


def _names(claims: Sequence[HashClaim]) -> str:
    first = f"{claims[0].where} {claims[0].stated[:19]}.."
    return first if len(claims) == 1 else f"{_series(claims[0].where).replace('[]', '')} ({len(claims)} of them)"


def _claim_rows(alloy: ForeignAlloy) -> list[Row]:
    """What it says of itself, in its own words, and whether its arithmetic holds."""
    results = as_dict(alloy.raw.get("results"))
    if not alloy.executed and not as_list(alloy.raw.get("priorMetricBaselines")):
        return [Row("self-reported", f"{alloy.name} is a recipe: it has no results, so it claims none")]
    rows: list[Row] = []
    for item in map(as_dict, as_list(results.get("benchmarks"))):
        rows.append(Row("self-reported", f"{_benchmark(item)}; its samples were not scored again"))
    before, after, gain = (results.get(key) for key in ("baselinePerplexity", "finalPerplexity", "improvementPct"))
    if isinstance(before, (int, float)) and isinstance(after, (int, float)):
        text = f"perplexity {before:g} before and {after:g} after"
        if isinstance(gain, (int, float)):
            computed = (before - after) / before * 100 if before else 0.0
            holds = abs(computed - gain) <= 0.05 + 0.001 * abs(computed)
            text += f", an improvement of {gain:g} %" + ("" if holds else f"; these two numbers give {computed:.2f} %")
        rows.append(Row("self-reported", text))
    for item in map(as_dict, as_list(results.get("hardwareVerified"))):
        said = " · ".join(f"{key} {printable(str(value), 40)}" for key, value in item.items() if key != "device" and value is not None)
        rows.append(Row("self-reported", f"it ran on {printable(str(item.get('device', '?')), 60)}" + (f" ({said})" if said else "")))
    for item in map(as_dict, as_list(alloy.integrity.get("certifications"))):
        who, what = printable(str(item.get("adapter", "?")), 60), printable(str(item.get("domain", "?")), 60)
        rows.append(Row("self-reported", f"a certification of {what} by {who}: a text in this file that nobody's key is under"))
    code = as_dict(alloy.integrity.get("code"))
    if code:
        text = f"made by {printable(str(code.get('runner', '?')), 60)} {printable(str(code.get('version', '')), 20)}".rstrip()
        commit = code.get("commit")
        rows.append(Row("self-reported", text + (f" at commit {printable(str(commit), 40)}" if commit else "")))
    for item in map(as_dict, as_list(as_dict(alloy.raw.get("receipt")).get("publications"))):
        where, when = printable(str(item.get("url", item.get("target", "?")))), printable(str(item.get("publishedAt", "?")), 40)
        rows.append(Row("self-reported", f"published at {where}, {when}"))
    for item in map(as_dict, as_list(alloy.raw.get("priorMetricBaselines"))):
        which, outcome = printable(str(item.get("id", item.get("name", "?"))), 60), printable(str(item.get("outcome", "?")), 40)
        rows.append(Row("self-reported", f"an earlier run {which}: {outcome}"))
    rows += _tensor_counts(alloy)
    return rows


def _benchmark(item: Mapping[str, Any]) -> str:
    name = printable(str(item.get("name", item.get("benchmark", "?"))), 40) + (
        f" ({printable(str(item['subset']), 30)})" if item.get("subset") else ""
    )
    if _number(item.get("score")):
        score, base, delta = item["score"], item.get("baseScore"), item.get("delta")
        text = f"{name} {score:g}"
        if _number(base):
            text += f", its base {base:g}"
            if _number(delta) and abs(score - base - delta) > 1e-6 + 0.051:
                text += f"; its delta {delta:g} is not their difference {score - base:g}"
        correction = as_dict(item.get("scoreCorrection"))
        if correction:
            text += f", corrected from {printable(str(correction.get('previousValue', '?')), 20)}"
        return text
    values = " · ".join(f"{printable(str(key), 30)} {printable(str(value), 40)}" for key, value in as_dict(item.get("metrics")).items())
    return f"{name}: {values or 'no number'}"


def _tensor_counts(alloy: ForeignAlloy) -> list[Row]:
    """The published counts of dropped experts are counts of tensors."""
    source = as_dict(alloy.raw.get("source"))
    rows: list[Row] = []
    for stage in map(as_dict, as_list(alloy.raw.get("stages"))):
        layers, dropped = source.get("numLayers"), stage.get("expertsDropped")
        kept, before = stage.get("keepExpertsPerLayer"), stage.get("originalExpertsPerLayer")
        if (
            type(layers) is int
            and type(dropped) is int
            and type(kept) is int
            and type(before) is int
            and layers * (before - kept) < dropped
        ):
            text = f"{dropped:,} experts dropped: {layers} layers lost {before - kept} experts each, which are {layers * (before - kept):,}"
            rows.append(Row("self-reported", text + "; it counts their tensors"))
    return rows


def _history_row(alloy: ForeignAlloy) -> Row:
    """That its stages are a text."""
    stages = as_list(alloy.raw.get("stages"))
    kinds = [printable(str(as_dict(item).get("type", "?")), 40) for item in stages]
    listed = f" ({some(kinds)})" if kinds else ""
    told = "planned" if not alloy.executed else "told"
    count = f"{len(stages)} stages{listed} are" if len(stages) != 1 else f"1 stage{listed} is"
    text = f"a chain of custody: there is none. {count} {told}, and no input or output of them is named by a hash"
    derived = as_dict(alloy.raw.get("derivedFrom")).get("repo")
    if derived is not None:
        text += f"; it was derived from {printable(str(derived), 80)}, whose numbers it repeats for other bytes"
    if alloy.kind == "ensemble":
        source = as_dict(alloy.raw.get("source"))
        members = [source.get("target"), *as_list(source.get("specialists"))]
        names = ", ".join(printable(str(as_dict(member).get("baseModel", member)), 60) for member in members[:_SHOWN])
        text += f"; it combines {len(members)} models that it does not hold: {names}"
    return Row("unverified", text)


def _fault_rows(alloy: ForeignAlloy) -> list[Row]:
    if not alloy.faults:
        return []
    places: dict[str, list[str]] = {}
    for fault in alloy.faults:
        places.setdefault(fault.text, []).append(alloy_format.where(fault.path) or "the alloy")
    said = [printable(f"{some(where)}: {text}") for text, where in places.items()]
    more = f"; and {len(said) - _SHOWN} more" if len(said) > _SHOWN else ""
    return [Row("self-reported", f"not as the format has it, and kept as it is: {'; '.join(said[:_SHOWN])}{more}")]


def _loose(claims: Sequence[HashClaim], listing: Listing | None, folder: Path | None, alloy: str) -> tuple[list[str], list[str]]:
    """Files of a repository that no hash in the alloy is of: those that can be, or run with, a model's weights; others that a loader reads.

    `alloy` is the name of its own file.
    """
    present = [file.path for file in listing.files] if listing is not None else []
    if folder is not None:
        inside = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
        present += [path.as_posix() for path in inside if ".git" not in path.parts]
    covered = {name for claim in claims if claim.verdict == "equal" and claim.by != "file" for name in claim.files}
    free = [path for path in risky(present, present) if path not in covered and not ends(path, (ALLOY, ATTESTATIONS)) and path != alloy]
    heavy = {path for path in present if ends(path, (*WEIGHTS, CODE)) and path not in covered}
    return sorted(heavy), sorted(set(free) - heavy)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)

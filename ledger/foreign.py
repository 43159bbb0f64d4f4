"""Alloys of others: files of the published format without any signature, read as they are and judged honestly.

Archive mode: every key is kept, whatever it is, and what the format does not say is named (`faults`), not refused. The hashes that such a
file states are computed again as far as what is here allows, by each convention that was ever published, and told apart; presence of a
field proves nothing. `examine_foreign` gives the report; its verdict is never that of a verified artifact.

>>> alloy = load(b'{"name": "x", "version": "1.0.0", "source": {"baseModel": "m"}, "stages": [{"type": "quant"}], "mood": "good"}')
>>> alloy.kind, alloy.executed, [str(fault) for fault in alloy.faults]
('alloy', False, ["mood: unknown key 'mood' in the alloy"])

Formats and conventions: docs/legacy.md.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ledger import alloy_format
from ledger.alloy import WEIGHTS, file_hash, legacy_model_hash, model_hash, receiptless_hash
from ledger.alloy_format import Fault
from ledger.errors import AlloyError
from ledger.inventory import ALLOY, ATTESTATIONS, CODE, base, ends, risky, some
from ledger.inventory import WEIGHTS as RISKY
from ledger.repo_chain import CHAIN, examine_chain
from ledger.report import Report, Row, printable
from ledger.unsigned import MAX_BYTES, UnsignedReport, bytes_row, prefix_text
from store import canonical, files
from store.digest import Digest
from store.errors import CanonicalError, StoreError

if TYPE_CHECKING:
    from ledger.hub import Listing
    from ledger.locator import Expected

Verdict = Literal["equal", "differs", "open"]
"""Computed again and equal; computed again and different; cannot be computed from what is here, or is no hash at all."""

_SHA256 = re.compile(r"(?:sha256:)?([0-9a-f]{64})\Z")
_SHOWN = 6


@dataclass(frozen=True, slots=True)
class ForeignAlloy:
    """An alloy as somebody published it.

    Attributes:
        data: the bytes of the file. raw: the same as JSON, nothing dropped.
        kind: `ensemble` for frozen models that are combined, which name a target and specialists instead of a base model.
        faults: where it is not what the format says, in its order.
    """

    data: bytes
    raw: Mapping[str, Any]
    kind: Literal["alloy", "ensemble"]
    faults: tuple[Fault, ...]

    @property
    def name(self) -> str:
        """What it calls its model, for people."""
        return printable(str(self.raw.get("name", "?")), 80)

    @property
    def file_hash(self) -> Digest:
        """SHA-256 of the bytes: what the published codes and links name, cut to 16 digits."""
        return file_hash(self.data)

    @property
    def executed(self) -> bool:
        """Whether it has results; without, it is a recipe and claims nothing."""
        return isinstance(self.raw.get("results"), dict)

    @property
    def integrity(self) -> Mapping[str, Any]:
        """`results.integrity`, and of an ensemble the one at the top."""
        inner = _dict(self.raw.get("results")).get("integrity")
        return _dict(inner) or _dict(self.raw.get("integrity"))

    def to_bytes(self) -> bytes:
        """The file as its publishers wrote such files: indent of 2, ASCII escapes, keys in their order, no newline at the end.

        Equal in content to `data`, but not always in bytes, so its hash is not `file_hash`.
        """
        return json.dumps(self.raw, indent=2).encode()


@dataclass(frozen=True, slots=True)
class HashClaim:
    """One hash that an alloy states.

    Attributes:
        where: its place in the file. stated: what is written there.
        verdict: see `Verdict`. why: by which convention it is equal, with what it differs, or what would be needed.
        by: what it was computed from. From the `file` alone, an equal one says only that the file agrees with itself.
        files: paths in the repository whose bytes it is about, when it is equal.
    """

    where: str
    stated: str
    verdict: Verdict
    why: str
    by: Literal["file", "listing", "folder"] = "file"
    files: tuple[str, ...] = ()


def load(data: bytes) -> ForeignAlloy:
    """Read a published alloy in archive mode.

    Raises:
        AlloyError: it is not JSON that everybody reads alike (a key twice, NaN, not UTF-8), or no alloy: the reason is named.
    """
    value = _parse(data)
    if not isinstance(value, dict):
        raise AlloyError("no alloy: an alloy is a JSON object")
    if value.get("type") == CHAIN:
        raise AlloyError("no alloy: it is the chain of a repository's commits")
    if not isinstance(value.get("source"), dict) or not isinstance(value.get("name"), str):
        raise AlloyError("no alloy: an alloy has a name and a source")
    ensemble = alloy_format.is_ensemble(value)
    if not ensemble and not isinstance(value.get("stages"), list):
        raise AlloyError("no alloy: an alloy has a list of stages")
    return ForeignAlloy(data, value, "ensemble" if ensemble else "alloy", tuple(alloy_format.faults(value)))


def _parse(data: bytes) -> Any:
    try:
        return canonical.loads(data)
    except CanonicalError as error:
        raise AlloyError(f"no alloy: {error}") from error


def find(names: Iterable[str], repo: str) -> str | None:
    """Which file of a repository is its alloy: a JSON file whose name holds the repository's and `alloy`, else `forge-alloy.json`.

    Where neither is there, as in repositories that were renamed, the only `*.alloy.json` is it; with several, none is.

    >>> find(["config.json", "tiny.alloy.json", "forge-alloy.json"], "org/tiny")
    'tiny.alloy.json'
    >>> find(["config.json", "forge-alloy.json"], "org/tiny"), find(["v2.alloy.json"], "org/tiny"), find(["a.json"], "org/tiny")
    ('forge-alloy.json', 'v2.alloy.json', None)
    """
    slug = repo.rpartition("/")[2].casefold()
    listed = sorted(names)
    files = [name for name in listed if name.casefold().endswith(".json")]
    named = [name for name in files if slug in base(name).casefold() and "alloy" in base(name).casefold()]
    exact = [name for name in named if base(name).casefold() == f"{slug}.alloy.json"]
    legacy = [name for name in files if base(name) == "forge-alloy.json"]
    others = [name for name in files if name.endswith(".alloy.json")]
    for found in (exact, named, legacy):
        if found:
            return min(found, key=lambda name: (name.count("/"), name))
    return others[0] if len(others) == 1 else None


# --- the hashes that it states ---------------------------------------------------------------------------------------------------


def hashes(alloy: ForeignAlloy, *, listing: Listing | None = None, folder: Path | None = None, weights: bool = True) -> list[HashClaim]:
    """Every hash that an alloy states, computed again as far as possible.

    Args:
        alloy: the file.
        listing: what the Hub lists for the repository; its SHA-256 are what the uploader declared.
        folder: where the files of the repository lie, if they do. What a path in the alloy leads to outside of it is not read.
        weights: whether to hash all weights in the folder for modelHash, which may be hundreds of gigabytes.
    """
    raw, integrity = alloy.raw, alloy.integrity
    place = "results.integrity" if _dict(_dict(raw.get("results")).get("integrity")) else "integrity"
    claims = [
        *_of_the_file(alloy),
        *_model_hash(alloy, place, listing, folder if weights else None),
        *_file_hashes(alloy, place, listing, folder),
    ]
    for number, item in enumerate(_list(_dict(raw.get("results")).get("benchmarks"))):
        for key, path in (("resultHash", "samplesPath"), ("baseResultHash", "baseSamplesPath")):
            if key in _dict(item):
                where = f"results.benchmarks[{number}].{key}"
                claims.append(_record(where, item[key], item.get(path), folder, listing))
    receipt = _dict(raw.get("receipt"))
    if "cardHash" in receipt:
        claims.append(_record("receipt.cardHash", receipt["cardHash"], "README.md", folder, listing))
    code = _dict(integrity.get("code"))
    needs = {
        "binaryHash": "the program file that ran, which is not published with it",
        "sourceHash": "the sources at that commit, and which of them count",
        "environmentHash": "the environment, and how it is hashed",
    }
    claims += [_open(f"{place}.code.{key}", code[key], needs[key]) for key in needs if key in code]
    for number, item in enumerate(_list(integrity.get("datasets"))):
        if "hash" in _dict(item):
            claims.append(_open(f"{place}.datasets[{number}].hash", item["hash"], "the dataset, and how it is hashed"))
    for number, item in enumerate(_list(integrity.get("certifications"))):
        if "adapterHash" in _dict(item):
            claims.append(_open(f"{place}.certifications[{number}].adapterHash", item["adapterHash"], "the adapter"))
    for where, value in (
        (f"{place}.parentAlloyHash", integrity.get("parentAlloyHash")),
        ("derivedFrom.alloyHash", _dict(raw.get("derivedFrom")).get("alloyHash")),
    ):
        if value is not None:
            claims.append(_open(where, value, "the file of the model that it was derived from"))
    for number, item in enumerate(_list(raw.get("calibrationCorpora"))):
        if isinstance(_dict(item).get("sha256"), str):
            claims.append(_record(f"calibrationCorpora[{number}].sha256", item["sha256"], item.get("path"), folder, listing))
    return claims


def _of_the_file(alloy: ForeignAlloy) -> list[HashClaim]:
    """Hashes of the alloy itself. No file can contain its own, so those that are equal leave something out."""
    receipt = _dict(alloy.raw.get("receipt"))
    without = receiptless_hash(alloy.raw)
    claims: list[HashClaim] = []
    if "alloyHash" in receipt:
        stated = _hex(receipt["alloyHash"])
        if stated is None:
            claims.append(_open("receipt.alloyHash", receipt["alloyHash"], ""))
        elif stated == without.hex:
            claims.append(_claim("receipt.alloyHash", stated, "equal", "the file without its receipt, written with an indent of 2"))
        else:
            text = f"the file without its receipt has {without}, and with it {alloy.file_hash}"
            claims.append(_claim("receipt.alloyHash", stated, "differs", text))
    if isinstance(url := receipt.get("verifyUrl"), str) and (match := re.search(r"[#@:]([0-9a-f]{8,64})\Z", url)):
        digits = match[1]
        if without.hex.startswith(digits):
            text = f"the first {len(digits)} digits of the hash of the file without its receipt"
            claims.append(_claim("receipt.verifyUrl", digits, "equal", text))
        elif alloy.file_hash.hex.startswith(digits):
            text = f"the first {len(digits)} digits of the hash of this file"
            claims.append(_claim("receipt.verifyUrl", digits, "equal", text))
        else:
            text = f"the file has {alloy.file_hash}, and without its receipt {without}"
            claims.append(_claim("receipt.verifyUrl", digits, "differs", text))
    if (inner := alloy.integrity.get("alloyHash")) is not None:
        known = {"the file without its receipt": without.hex}
        equal = next((name for name, value in known.items() if value == _hex(inner)), None)
        where = "results.integrity.alloyHash"
        if equal is not None:
            claims.append(_claim(where, str(inner), "equal", equal))
        else:
            claims.append(_open(where, inner, "to know what it is of: published texts disagree, and a file cannot contain its own hash"))
    return claims


def _model_hash(alloy: ForeignAlloy, place: str, listing: Listing | None, folder: Path | None) -> list[HashClaim]:
    """Check modelHash by both conventions: canonical over a list of files, legacy over all their bytes."""
    value = alloy.integrity.get("modelHash")
    if value is None:
        return []
    where, stated = f"{place}.modelHash", _hex(value)
    if stated is None:
        return [_open(where, value, "")]
    claims: list[HashClaim] = []
    listed = _listed(alloy)
    if listed:
        equal = next((kind for kind, _, group in _kinds(listed) if model_hash(group).hex == stated), None)
        if equal is not None:
            text = f"canonical, over the {equal} files that the alloy lists"
            claims.append(_claim(where, stated, "equal", text))
        else:
            claims.append(_claim(where, stated, "differs", f"the files that the alloy lists give {model_hash(listed)}"))
    if listing is not None:
        there = [(file.path, file.sha256) for file in listing.files if file.sha256 is not None and file.path.endswith(WEIGHTS)]
        found = next(((kind, names) for kind, names, group in _kinds(there) if model_hash(group).hex == stated), None)
        if found is not None:
            text = f"canonical, over the {found[0]} files that the Hub lists for {listing.repo} at {listing.commit[:12]}"
            claims.append(_claim(where, stated, "equal", text, "listing", found[1]))
        elif listed and there:
            text = f"the weight files that the Hub lists for {listing.repo} at {listing.commit[:12]} give {model_hash(there)}"
            claims.append(_claim(where, stated, "differs", text, "listing"))
        elif not listed:
            text = "all weight bytes: it is not the canonical hash of what the Hub lists, and may be the older one, over the bytes"
            claims.append(_open(where, value, text))
    local = _weights(folder) if folder is not None else {}
    if local:
        digests = [(name, files.hash_file(path)[0]) for name, path in sorted(local.items())]
        tensors = {name: path for name, path in local.items() if name.endswith(".safetensors")}
        found = next(((kind, names) for kind, names, group in _kinds(digests) if model_hash(group).hex == stated), None)
        if found is not None:
            claims.append(_claim(where, stated, "equal", f"canonical, over the {found[0]} files here", "folder", found[1]))
        elif tensors and legacy_model_hash({base(name): path for name, path in tensors.items()}).hex == stated:
            text = f"legacy, over the bytes of the {len(tensors)} .safetensors files here, one after the other"
            claims.append(_claim(where, stated, "equal", text, "folder", tensors))
        else:
            text = f"the weight files here give {model_hash(digests)}" + (
                f" (canonical) and {legacy_model_hash(tensors)} (legacy)" if tensors else ""
            )
            claims.append(_claim(where, stated, "differs", text, "folder"))
    if not claims:
        text = "the weights, or the Hub's list of them: the alloy lists no files; older ones hash all weight bytes one after the other"
        claims.append(_open(where, value, text))
    return claims


def _kinds(named: Sequence[tuple[str, Digest]]) -> list[tuple[str, list[str], list[tuple[str, Digest]]]]:
    """The sets of files that a modelHash may be over, one kind of weights or all, by path or base name: label, paths, what is hashed."""
    found: list[tuple[str, list[str], list[tuple[str, Digest]]]] = []
    for ending in (".safetensors", ".gguf", WEIGHTS):
        group = [(name, digest) for name, digest in named if name.endswith(ending)]
        label = f"{len(group)} {ending if isinstance(ending, str) else 'weight'}"
        if group:
            paths = [name for name, _ in group]
            found += [(label, paths, group), (label, paths, [(base(name), digest) for name, digest in group])]
    return found


def _listed(alloy: ForeignAlloy) -> list[tuple[str, Digest]]:
    """The weight files of `fileHashes` as far as they can be read."""
    found: list[tuple[str, Digest]] = []
    for item in _list(alloy.integrity.get("fileHashes")):
        name, digits = _dict(item).get("filename"), _hex(_dict(item).get("sha256"))
        if isinstance(name, str) and digits is not None and name.endswith(WEIGHTS):
            found.append((name, Digest.parse(f"sha256:{digits}")))
    return found


def _file_hashes(alloy: ForeignAlloy, place: str, listing: Listing | None, folder: Path | None) -> list[HashClaim]:
    """Each listed file against what the Hub lists, and against what is here."""
    claims: list[HashClaim] = []
    for number, item in enumerate(_list(alloy.integrity.get("fileHashes"))):
        entry = _dict(item)
        where, stated, name = f"{place}.fileHashes[{number}]", _hex(entry.get("sha256")), entry.get("filename")
        if stated is None or not isinstance(name, str):
            claims.append(_open(where, entry.get("sha256"), ""))
            continue
        shown, size = printable(name, 80), entry.get("size")
        judged = False
        if listing is not None:
            there = next((file for file in listing.files if file.path == name), None)
            label = f"the Hub lists {shown} of {listing.repo}"
            if there is None:
                judged = True
                claims.append(_claim(where, stated, "differs", f"the Hub lists no {shown} in {listing.repo}", "listing"))
            elif there.sha256 is not None:
                judged = True
                fits = there.sha256.hex == stated and size in (None, there.size)
                text = f"{label} with {'the same sha256 and size' if fits else f'{there.sha256} and {there.size:,} bytes'}"
                claims.append(_claim(where, stated, "equal" if fits else "differs", text, "listing", [name]))
        path = _inside(folder, name)
        if path is not None:
            judged = True
            length = path.stat().st_size
            digest = files.hash_file(path)[0] if size in (None, length) else None
            fits = digest is not None and digest.hex == stated
            text = f"{shown} here has {'these bytes' if fits else f'{length:,} bytes' if digest is None else str(digest)}"
            claims.append(_claim(where, stated, "equal" if fits else "differs", text, "folder", [name]))
        if not judged:
            claims.append(_open(where, stated, f"the file {shown}"))
    return claims


def _record(where: str, stated: Any, path: Any, folder: Path | None, listing: Listing | None) -> HashClaim:
    """The hash of one file that the alloy names by its path."""
    digits = _hex(stated)
    if digits is None:
        return _open(where, stated, "")
    if not isinstance(path, str):
        return _open(where, stated, "the file, whose path is not given")
    shown = printable(path, 80)
    here = _inside(folder, path)
    if here is not None:
        digest = files.hash_file(here)[0]
        if digest.hex == digits:
            return _claim(where, digits, "equal", f"the bytes of {shown} here", "folder")
        return _claim(where, digits, "differs", f"{shown} here has {digest}", "folder")
    there = next((file for file in listing.files if file.path == path), None) if listing is not None else None
    if there is not None and there.sha256 is not None:
        fits = there.sha256.hex == digits
        text = f"the Hub lists {shown} with {'the same sha256' if fits else str(there.sha256)}"
        return _claim(where, digits, "equal" if fits else "differs", text, "listing")
    return _open(where, stated, f"the file {shown}")


def _claim(
    where: str, stated: str, verdict: Verdict, why: str, by: Literal["file", "listing", "folder"] = "file", files: Iterable[str] = ()
) -> HashClaim:
    return HashClaim(where, printable(stated, 80), verdict, why, by, tuple(files))


def _open(where: str, stated: Any, needed: str) -> HashClaim:
    """A hash that cannot be computed again: for want of something, or because it is no hash."""
    if _hex(stated) is None:
        return HashClaim(where, printable(str(stated), 80), "open", "it is no SHA-256: sha256: and 64 hex digits are")
    return HashClaim(where, printable(str(stated), 80), "open", f"computing it needs {needed}")


# --- the report ------------------------------------------------------------------------------------------------------------------


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


def is_chain(data: bytes) -> bool:
    """Whether the bytes are a chain of a repository's commits, well formed or not.

    Raises:
        AlloyError: they are no JSON that everybody reads alike.
    """
    value = _parse(data)
    return isinstance(value, dict) and value.get("type") == CHAIN


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
    fields = [f"{label} by {printable(str(_dict(item).get('algorithm', '?')), 20)}" for label, item in _signatures(alloy)]
    level = alloy.integrity.get("trustLevel")
    text = "who says all this: no signature that can be checked travels with it"
    if fields:
        several = "fields" if len(fields) > 1 else "field"
        text += f"; it has {len(fields)} signature {several} ({some(fields)}), and no rule to check one by"
    if level is not None:
        text += f"; its trustLevel {printable(str(level), 30)!r} is a word in the file"
    if isinstance(_dict(alloy.raw.get("receipt")).get("ledger"), dict):
        text += "; its receipt names the entries of a ledger, and the signed statements that they are were not found beside it"
        return Row("unverified", text, "Take its .attestations.jsonl from where it was published, and put it beside it")
    return Row("unverified", text, "Ask its author for attestations (docs/legacy.md)")


def _signatures(alloy: ForeignAlloy) -> list[tuple[str, Any]]:
    found = [("integrity.signature", alloy.integrity["signature"])] if "signature" in alloy.integrity else []
    for number, item in enumerate(_list(alloy.integrity.get("certifications"))):
        if "signature" in _dict(item):
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
    results = _dict(alloy.raw.get("results"))
    if not alloy.executed and not _list(alloy.raw.get("priorMetricBaselines")):
        return [Row("self-reported", f"{alloy.name} is a recipe: it has no results, so it claims none")]
    rows: list[Row] = []
    for item in map(_dict, _list(results.get("benchmarks"))):
        rows.append(Row("self-reported", f"{_benchmark(item)}; its samples were not scored again"))
    before, after, gain = (results.get(key) for key in ("baselinePerplexity", "finalPerplexity", "improvementPct"))
    if isinstance(before, (int, float)) and isinstance(after, (int, float)):
        text = f"perplexity {before:g} before and {after:g} after"
        if isinstance(gain, (int, float)):
            computed = (before - after) / before * 100 if before else 0.0
            holds = abs(computed - gain) <= 0.05 + 0.001 * abs(computed)
            text += f", an improvement of {gain:g} %" + ("" if holds else f"; these two numbers give {computed:.2f} %")
        rows.append(Row("self-reported", text))
    for item in map(_dict, _list(results.get("hardwareVerified"))):
        said = " · ".join(f"{key} {printable(str(value), 40)}" for key, value in item.items() if key != "device" and value is not None)
        rows.append(Row("self-reported", f"it ran on {printable(str(item.get('device', '?')), 60)}" + (f" ({said})" if said else "")))
    for item in map(_dict, _list(alloy.integrity.get("certifications"))):
        who, what = printable(str(item.get("adapter", "?")), 60), printable(str(item.get("domain", "?")), 60)
        rows.append(Row("self-reported", f"a certification of {what} by {who}: a text in this file that nobody's key is under"))
    code = _dict(alloy.integrity.get("code"))
    if code:
        text = f"made by {printable(str(code.get('runner', '?')), 60)} {printable(str(code.get('version', '')), 20)}".rstrip()
        commit = code.get("commit")
        rows.append(Row("self-reported", text + (f" at commit {printable(str(commit), 40)}" if commit else "")))
    for item in map(_dict, _list(_dict(alloy.raw.get("receipt")).get("publications"))):
        where, when = printable(str(item.get("url", item.get("target", "?")))), printable(str(item.get("publishedAt", "?")), 40)
        rows.append(Row("self-reported", f"published at {where}, {when}"))
    for item in map(_dict, _list(alloy.raw.get("priorMetricBaselines"))):
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
        correction = _dict(item.get("scoreCorrection"))
        if correction:
            text += f", corrected from {printable(str(correction.get('previousValue', '?')), 20)}"
        return text
    values = " · ".join(f"{printable(str(key), 30)} {printable(str(value), 40)}" for key, value in _dict(item.get("metrics")).items())
    return f"{name}: {values or 'no number'}"


def _tensor_counts(alloy: ForeignAlloy) -> list[Row]:
    """The published counts of dropped experts are counts of tensors."""
    source = _dict(alloy.raw.get("source"))
    rows: list[Row] = []
    for stage in map(_dict, _list(alloy.raw.get("stages"))):
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
    stages = _list(alloy.raw.get("stages"))
    kinds = [printable(str(_dict(item).get("type", "?")), 40) for item in stages]
    listed = f" ({some(kinds)})" if kinds else ""
    told = "planned" if not alloy.executed else "told"
    count = f"{len(stages)} stages{listed} are" if len(stages) != 1 else f"1 stage{listed} is"
    text = f"a chain of custody: there is none. {count} {told}, and no input or output of them is named by a hash"
    derived = _dict(alloy.raw.get("derivedFrom")).get("repo")
    if derived is not None:
        text += f"; it was derived from {printable(str(derived), 80)}, whose numbers it repeats for other bytes"
    if alloy.kind == "ensemble":
        source = _dict(alloy.raw.get("source"))
        members = [source.get("target"), *_list(source.get("specialists"))]
        names = ", ".join(printable(str(_dict(member).get("baseModel", member)), 60) for member in members[:_SHOWN])
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


# --- small things ----------------------------------------------------------------------------------------------------------------


def _hex(value: Any) -> str | None:
    """The 64 digits of a SHA-256, however it is written; None when it is none."""
    match = _SHA256.match(value) if isinstance(value, str) else None
    return match[1] if match else None


def _weights(folder: Path) -> dict[str, Path]:
    """The weight files of a folder, in it or else in its `model/`: path from the folder -> file."""
    for place in (folder, folder / "model"):
        found = {
            path.relative_to(folder).as_posix(): path
            for path in sorted(place.iterdir() if place.is_dir() else ())
            if path.name.endswith(WEIGHTS) and path.is_file()
        }
        if found:
            return found
    return {}


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
    heavy = {path for path in present if ends(path, (*RISKY, CODE)) and path not in covered}
    return sorted(heavy), sorted(set(free) - heavy)


def _inside(folder: Path | None, name: str) -> Path | None:
    """The file of that name in a folder, if it is there and really in it."""
    if folder is None or "\0" in name:
        return None
    try:
        path = (folder / name).resolve()
        return path if path.is_relative_to(folder.resolve()) and path.is_file() else None
    except OSError as error:
        raise StoreError(f"{printable(name, 80)} in {folder} cannot be read: {error.strerror}") from error


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)

"""The hashes that an alloy of others states, computed again as far as what is here allows, by each convention that was ever published.

Which convention a hash follows is told with it, and so is what would be needed for one that cannot be computed here. Presence of a field
proves nothing, and a hash that follows from the file alone says only that the file agrees with itself.

Conventions: docs/legacy.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ledger.alloy import HASHED, legacy_model_hash, model_hash, receiptless_hash
from ledger.foreign import ForeignAlloy
from ledger.inventory import base
from ledger.loose import as_dict, as_list
from ledger.report import printable
from store import files
from store.digest import Digest
from store.errors import StoreError

if TYPE_CHECKING:
    from ledger.hub import Listing

Verdict = Literal["equal", "differs", "open"]
"""Computed again and equal; computed again and different; cannot be computed from what is here, or is no hash at all."""

_SHA256 = re.compile(r"(?:sha256:)?([0-9a-f]{64})\Z")


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


def hashes(alloy: ForeignAlloy, *, listing: Listing | None = None, folder: Path | None = None, weights: bool = True) -> list[HashClaim]:
    """Every hash that an alloy states, computed again as far as possible.

    Args:
        alloy: the file.
        listing: what the Hub lists for the repository; its SHA-256 are what the uploader declared.
        folder: where the files of the repository lie, if they do. What a path in the alloy leads to outside of it is not read.
        weights: whether to hash all weights in the folder for modelHash, which may be hundreds of gigabytes.
    """
    raw, integrity = alloy.raw, alloy.integrity
    place = "results.integrity" if as_dict(as_dict(raw.get("results")).get("integrity")) else "integrity"
    claims = [
        *_of_the_file(alloy),
        *_model_hash(alloy, place, listing, folder if weights else None),
        *_file_hashes(alloy, place, listing, folder),
    ]
    for number, item in enumerate(as_list(as_dict(raw.get("results")).get("benchmarks"))):
        for key, path in (("resultHash", "samplesPath"), ("baseResultHash", "baseSamplesPath")):
            if key in as_dict(item):
                where = f"results.benchmarks[{number}].{key}"
                claims.append(_record(where, item[key], item.get(path), folder, listing))
    receipt = as_dict(raw.get("receipt"))
    if "cardHash" in receipt:
        claims.append(_record("receipt.cardHash", receipt["cardHash"], "README.md", folder, listing))
    code = as_dict(integrity.get("code"))
    needs = {
        "binaryHash": "the program file that ran, which is not published with it",
        "sourceHash": "the sources at that commit, and which of them count",
        "environmentHash": "the environment, and how it is hashed",
    }
    claims += [_open(f"{place}.code.{key}", code[key], needs[key]) for key in needs if key in code]
    for number, item in enumerate(as_list(integrity.get("datasets"))):
        if "hash" in as_dict(item):
            claims.append(_open(f"{place}.datasets[{number}].hash", item["hash"], "the dataset, and how it is hashed"))
    for number, item in enumerate(as_list(integrity.get("certifications"))):
        if "adapterHash" in as_dict(item):
            claims.append(_open(f"{place}.certifications[{number}].adapterHash", item["adapterHash"], "the adapter"))
    for where, value in (
        (f"{place}.parentAlloyHash", integrity.get("parentAlloyHash")),
        ("derivedFrom.alloyHash", as_dict(raw.get("derivedFrom")).get("alloyHash")),
    ):
        if value is not None:
            claims.append(_open(where, value, "the file of the model that it was derived from"))
    for number, item in enumerate(as_list(raw.get("calibrationCorpora"))):
        if isinstance(as_dict(item).get("sha256"), str):
            claims.append(_record(f"calibrationCorpora[{number}].sha256", item["sha256"], item.get("path"), folder, listing))
    return claims


def _of_the_file(alloy: ForeignAlloy) -> list[HashClaim]:
    """Hashes of the alloy itself. No file can contain its own, so those that are equal leave something out."""
    receipt = as_dict(alloy.raw.get("receipt"))
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
        there = [(file.path, file.sha256) for file in listing.files if file.sha256 is not None and file.path.endswith(HASHED)]
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
    for ending in (".safetensors", ".gguf", HASHED):
        group = [(name, digest) for name, digest in named if name.endswith(ending)]
        label = f"{len(group)} {ending if isinstance(ending, str) else 'weight'}"
        if group:
            paths = [name for name, _ in group]
            found += [(label, paths, group), (label, paths, [(base(name), digest) for name, digest in group])]
    return found


def _listed(alloy: ForeignAlloy) -> list[tuple[str, Digest]]:
    """The weight files of `fileHashes` as far as they can be read."""
    found: list[tuple[str, Digest]] = []
    for item in as_list(alloy.integrity.get("fileHashes")):
        name, digits = as_dict(item).get("filename"), _hex(as_dict(item).get("sha256"))
        if isinstance(name, str) and digits is not None and name.endswith(HASHED):
            found.append((name, Digest.parse(f"sha256:{digits}")))
    return found


def _file_hashes(alloy: ForeignAlloy, place: str, listing: Listing | None, folder: Path | None) -> list[HashClaim]:
    """Each listed file against what the Hub lists, and against what is here."""
    claims: list[HashClaim] = []
    for number, item in enumerate(as_list(alloy.integrity.get("fileHashes"))):
        entry = as_dict(item)
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
            if path.name.endswith(HASHED) and path.is_file()
        }
        if found:
            return found
    return {}


def _inside(folder: Path | None, name: str) -> Path | None:
    """The file of that name in a folder, if it is there and really in it."""
    if folder is None or "\0" in name:
        return None
    try:
        path = (folder / name).resolve()
        return path if path.is_relative_to(folder.resolve()) and path.is_file() else None
    except OSError as error:
        raise StoreError(f"{printable(name, 80)} in {folder} cannot be read: {error.strerror}") from error

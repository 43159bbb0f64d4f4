"""What travels: an alloy and its attestations, with the files beside them, checked without the ledger.

The envelopes are checked against the policy, their places against the receipt, and the numbers in the alloy against what was signed.

Of a folder with alloys every file is judged too: what attestations name must have the attested bytes, and what can change a model must
be named by one of the alloys. An alloy file alone may lie anywhere, in a working folder say, so there only what it means is looked for,
and nothing else is judged. Any other file is judged by what the alloys beside it say of it, and by nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ledger import oms
from ledger.bundle import MAX_BUNDLE_BYTES
from ledger.claims import Carried, Claims, companion
from ledger.inventory import ALLOY, ATTESTATIONS, LOOKED_INTO, PROOF, SIGNATURE, WEIGHTS, Inventory, base, changes, ends, some
from ledger.judge import changed, document, judge, model_signature, signature_over
from ledger.locator import Expected
from ledger.policy import Policy
from ledger.proof import MAX_PROOF_BYTES
from ledger.report import Report, Row
from ledger.unsigned import UnsignedReport, prefix_text
from store import files, tree
from store.digest import Digest
from store.errors import NotFoundError, StoreError
from store.tree import TreeEntry

MAX_ALLOY_BYTES = 64 * 2**20

_ABOVE = 4
"""Folders from a file's own upward in which its `model.sig` is looked for."""

MAX_LOOKED_AT = 200_000
"""Files among which those of an alloy are looked for: it may lie in a home folder."""


def published(path: Path) -> list[Path]:
    """The alloys at a path: itself, or those in a folder that have their attestations beside them."""
    if path.is_dir():
        return [alloy for alloy in sorted(path.glob(f"*{ALLOY}")) if attestations_of(alloy).is_file()]
    return [path] if path.name.endswith(ALLOY) else []


def expectation(expected: Expected, got: Mapping[str, Digest]) -> Row:
    """An expected hash beside those of some files: failed when none is as expected; a prefix proves nothing and bars the verdict.

    >>> expectation(Expected("0" * 64), {"x": Digest.of(b"")}).status
    'failed'
    """
    met = [name for name, digest in got.items() if expected.matches(digest)]
    if not met:
        found = "; ".join(f"{name} has {digest}" for name, digest in got.items()) or "nothing here has a hash that could be it"
        return Row("failed", f"expected {expected}; {found}", "It was replaced since, or the expected hash is of something else")
    if expected.full:
        return Row("proven", f"{met[0]} has the expected hash, {got[met[0]]}")
    text = f"{met[0]} begins as expected. {prefix_text(expected)}; whatever is signed, nothing is called verified by it"
    return Row("unverified", text, "Ask its author for all 64 digits; or leave the hash out, and what is signed decides alone", bars=True)


def attestations_of(alloy: Path) -> Path:
    """Where the envelopes of an alloy are: `<name>.attestations.jsonl` beside it."""
    return alloy.with_name(alloy.name.removesuffix(ALLOY) + ATTESTATIONS)


def read(alloy: Path, policy: Policy, expected: Expected | None = None) -> Claims:
    """An alloy with what lies beside it; a file that is missing or too large is one of its findings."""
    try:
        data = files.read_small(alloy, MAX_ALLOY_BYTES)
        lines = files.read_small(attestations_of(alloy), MAX_BUNDLE_BYTES)
        try:
            proof = files.read_small(alloy.with_name(companion(alloy.name, PROOF)), MAX_PROOF_BYTES)
        except NotFoundError:
            proof = None
    except (StoreError, OSError) as error:
        row = Row("failed", f"{alloy.name}: {error}", "Take both files again from where they were published")
        return Claims(alloy.name, None, policy, problems=[row])
    return Claims(alloy.name, Carried(alloy.name, data, lines, proof), policy, expected=expected)


def examine_alloy(path: Path, policy: Policy, expected: Expected | None = None) -> Report:
    """Check an alloy, or a folder with some, by the attestations that lie beside them; see the module.

    `expected` is what the reader was told of an alloy file's hash.
    """
    alloys = published(path)
    if not alloys:
        text = f"{path} has no {ALLOY[1:]} with its {ATTESTATIONS[1:]} beside it"
        return Report(str(path), (Row("failed", text, "Ask for both; they travel together"),))
    judged = [read(alloy, policy, expected) for alloy in alloys]
    rows = _judge_all(path, judged, policy) if path.is_dir() else _look_for(path.parent, judged[0])
    every = (*_expectation(judged, expected), *rows, *(row for one in judged for row in one.findings()))
    return told(str(path), every, judged)


def told(target: str, rows: Sequence[Row], alloys: Sequence[Claims], levels: tuple[str, ...] = ()) -> Report:
    """The report about alloys and what lies with them: unsigned, where the expected hash is all that there is to go by."""
    subjects = {one.name: one.digest for one in alloys if one.digest is not None}
    inputs = {name: digest for one in alloys for name, digest in one.evidence.items()}
    if any(one.vouched for one in alloys) and not any(one.counts for one in alloys):
        return UnsignedReport(target, tuple(rows), subjects, inputs, levels, pinned=True)
    return Report(target, tuple(rows), subjects, inputs, levels)


def _expectation(alloys: Sequence[Claims], expected: Expected | None) -> list[Row]:
    """What an expected hash says of alloys; one that is whole and met is a finding of the alloy's own."""
    if expected is None or (expected.full and any(one.digest is not None and expected.matches(one.digest) for one in alloys)):
        return []
    return [expectation(expected, {one.name: one.digest for one in alloys if one.digest is not None})]


def examine_file(path: Path, digest: Digest, policy: Policy) -> Report | None:
    """What the attestations beside a file prove about it, or the `model.sig` beside or above it, whatever else lies there.

    `digest` is the file's. None when none of them is about it.
    """
    for alloy in published(path.parent):
        one = read(alloy, policy)
        if (rows := one.about(digest, f"{path.name}, these {path.stat().st_size:,} bytes,")) is not None:
            return Report(str(path), tuple(rows), {path.name: digest}, one.evidence)
    row = _signed_by(path, digest, policy)
    return Report(str(path), (row,), {path.name: digest}) if row is not None and row.status != "unverified" else None


def examine_stray(path: Path, digest: Digest, policy: Policy) -> Report | None:
    """The findings about a file that `examine_file` finds nothing about; None when neither an attested alloy nor a `model.sig` is there.

    It fails when it is not what an alloy there lists under its name, and when it is more than a document. A README or a picture that nobody
    signed is unverified, and so is what carries signatures itself.
    """
    alloys = [read(one, policy) for one in published(path.parent)]
    names = [one.name for one in alloys]
    listed = next((one for one in alloys if path.name in one.listed), None)
    rows: list[Row] = []
    row = _signed_by(path, digest, policy)
    what = f"{path.name}, {path.stat().st_size:,} bytes, is named by no trusted statement of {', '.join(names)} ({digest})"
    alloy = companion(path.name.removesuffix(ATTESTATIONS), ALLOY)
    if alloy in names:
        text = f"{path.name}, {path.stat().st_size:,} bytes, carries the statements about {alloy}, which are judged with it"
        rows.append(Row("unverified", text, f"ledger verify {path.with_name(alloy)}"))
    elif listed is not None:
        text = f"{path.name}, {path.stat().st_size:,} bytes, is not what {listed.vouched} lists: expected "
        rows.append(Row("failed", f"{text}{listed.listed[path.name].digest}; got {digest}", "Take it from where it was published"))
    elif names and not document(path.name):
        rows.append(Row("failed", what, "Take it from where it was published, or delete it"))
    elif names:
        hint = f"A {SIGNATURE} beside it may be over it" if row is None else ""
        rows.append(Row("unverified", f"{what}; no model is loaded from it", hint))
    rows += [row] if row is not None else []
    return Report(str(path), tuple(rows), {path.name: digest}) if rows else None


def _signed_by(path: Path, digest: Digest, policy: Policy) -> Row | None:
    """What the nearest `model.sig`, beside a file or a little above it, says of it; None when there is none."""
    for folder in list(path.absolute().parents)[:_ABOVE]:
        if (folder / SIGNATURE).is_file():
            try:
                bundle = files.read_small(folder / SIGNATURE, oms.MAX_BUNDLE_BYTES)
            except StoreError as error:
                return Row("unverified", f"{SIGNATURE} cannot be read: {error}")
            inside = path.absolute().relative_to(folder).as_posix()
            return signature_over(bundle, inside, digest, f"{path.name}, {path.stat().st_size:,} bytes,", policy)
    return None


def examine_signature(path: Path, policy: Policy) -> Report:
    """A `model.sig`: the folder in which it lies, every file of it, by the signature and by the alloys there.

    Raises:
        StoreError: it cannot be read.
    """
    folder = path.absolute().parent
    text = f"{path.name} is a signature over all files of a folder; so the folder in which it lies was verified"
    first = Row("proven", text, aside=True)
    if published(folder):
        report = examine_alloy(folder, policy)
        return replace(report, target=str(path), rows=(first, *report.rows))
    return Report(str(path), (first, *_judge_all(folder, [], policy)), {path.name: files.hash_file(path)[0]})


def _judge_all(folder: Path, alloys: Sequence[Claims], policy: Policy) -> list[Row]:
    """The findings about a folder that no single alloy answers for: each file must be named by one of them."""
    travelling = {companion(one.name, ending) for one in alloys for ending in (ALLOY, ATTESTATIONS, PROOF)} | {SIGNATURE}
    signature = folder / SIGNATURE
    hidden: set[str] = set()

    def skip(name: str) -> bool:
        if base(name).startswith(".") and (folder / name).is_dir():
            hidden.add(name)
        return name in hidden or name in travelling

    try:
        present = Inventory(tree.hash_folder(folder, skip=skip).entries)
        bundle = files.read_small(signature, oms.MAX_BUNDLE_BYTES) if signature.is_file() else None
        carriers = _small(folder, travelling - {SIGNATURE}) if bundle is not None else []
    except StoreError as error:
        return [Row("failed", str(error))]
    signed, covered = list[Row](), frozenset[str]()
    if bundle is not None:
        signed, covered = model_signature(bundle, replace(present, files=[*present.files, *carriers]), policy)
    rows = [*judge(present, alloys, signed=covered), *signed]
    if hidden:
        rows.append(Row("unverified", f"{some(sorted(hidden))}: not looked into"))
    return rows


def _small(folder: Path, names: Iterable[str]) -> list[TreeEntry]:
    """Those files of some names that are there, and no larger than anything that carries a proof."""
    found = []
    for name in sorted(names):
        path = folder / name
        if path.is_file() and path.stat().st_size <= MAX_BUNDLE_BYTES:
            digest, size = files.hash_file(path)
            found.append(TreeEntry(name, digest, size))
    return found


def _look_for(folder: Path, alloy: Claims) -> list[Row]:
    """Match the files at and below a folder that an alloy can mean, told by their size. Others are not even read."""
    sizes = alloy.sizes()
    found: list[TreeEntry] = []
    strange: list[str] = []
    rows: list[Row] = []
    for number, (path, size) in enumerate(_walk(folder)):
        if number == MAX_LOOKED_AT:
            rows.append(Row("unverified", f"more than {MAX_LOOKED_AT:,} files lie at and below {alloy.name}: the rest was not looked at"))
            break
        if size not in sizes and path not in alloy.listed:
            continue
        try:
            digest, size = files.hash_file(folder / path)
        except (StoreError, OSError):
            continue  # nothing is claimed of it
        if digest in alloy.content or path in alloy.listed:  # one that lies where it is listed must be what is listed
            found.append(TreeEntry(path, digest, size))
        elif ends(path, WEIGHTS):
            strange.append(path)
    covered, settled = alloy.match(Inventory(found, whole=False))
    for where in sorted(settled):
        loose = [path for path in _beside(folder, where) if path not in covered]
        told_of, judged = _changed(folder, where, loose, alloy) if loose else ([], set[str]())
        rows += [*told_of, *(_risk(path) for path in loose if path not in judged)]
        strange = [path for path in strange if path not in judged]
    if strange:
        text = f"{some(strange)}: as large as a file that is attested, with other bytes; not judged here"
        rows.append(Row("unverified", text, "Name the file or its folder to `ledger verify`"))
    return rows


def _changed(folder: Path, where: str, loose: Sequence[str], alloy: Claims) -> tuple[list[Row], set[str]]:
    """What `ledger.judge.changed` finds in a folder of which only a part is as attested; `loose` are the paths that nothing explains."""
    names = {path.removeprefix(where) for path in loose} | {file.path for one in alloy.trees.values() for file in one.entries}
    here: dict[str, TreeEntry] = {}
    for name in sorted(names):
        path = folder / where / name
        if path.is_symlink() or not path.is_file():
            continue  # what is no file of this folder is told of by whoever names it
        try:
            digest, size = files.hash_file(path)
        except (StoreError, OSError):
            continue
        here[name] = TreeEntry(name, digest, size)
    strange = {name: file for name, file in here.items() if where + name in loose}
    return changed(where, here, strange, alloy.trees.values())


def _beside(folder: Path, where: str) -> list[str]:
    """What in a folder changes the model that is loaded from it, whatever it is: links too, which a loader follows."""
    inside = where.removesuffix("/")
    names = [where + item.name for item in os.scandir(folder / inside) if not item.is_dir()]
    for inner in (where + name for name in LOOKED_INTO if (folder / where / name).is_dir()):
        names += [f"{inner}/{item.name}" for item in os.scandir(folder / inner)]
    loaded = {inside} if any(ends(name, WEIGHTS) and not ends(name, (".gguf",)) for name in names) else set[str]()
    return sorted(
        name for name in names if not ends(name, (ALLOY, ATTESTATIONS)) and (ends(name, WEIGHTS) or changes(name, {inside}, loaded))
    )


def _risk(path: str) -> Row:
    text = f"{path} is named by no trusted statement, and lies in a folder that is attested without it; a model may be loaded from it"
    return Row("failed", text, "Take the folder from where it was published, or delete the file")


def _walk(folder: Path) -> Iterator[tuple[str, int]]:
    """(path, size) of the regular files at and below a folder, nearest first; no links, no dot-folders, nothing that is barred."""
    folders = [""]
    for prefix in folders:  # grows meanwhile
        try:
            with os.scandir(folder / prefix) as items:
                here = sorted(items, key=lambda item: item.name)
        except OSError:
            continue
        for item in here:
            try:
                if item.is_dir(follow_symlinks=False):
                    folders += [] if item.name.startswith(".") else [f"{prefix}{item.name}/"]
                elif item.is_file(follow_symlinks=False):
                    yield prefix + item.name, item.stat(follow_symlinks=False).st_size
            except OSError:
                continue

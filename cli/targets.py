"""What a TARGET of `ledger verify` is, and the report about it: a place on the Hub, a picture of a code, a path, a digest, an output."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from cli.errors import UsageError
from cli.names import find_object
from cli.output import clean, many

if TYPE_CHECKING:
    from cli.workspace import Workspace
    from ledger.locator import Expected, Locator
    from ledger.policy import Policy
    from ledger.publication import Publication
    from ledger.report import Report, Row
    from store.digest import Digest


@dataclass(frozen=True, slots=True)
class Asked:
    """How thoroughly to look.

    Attributes:
        expect: the hash that somebody was told; None: the target may bring one.
        spot: random MiB to read from the Hub. full: everything. into: where to keep what is read.
        file: what a code that is a hash and no place is compared with.
    """

    expect: str | None = None
    spot: int = 0
    full: bool = False
    into: Path | None = None
    file: Path | None = None


def report_on(target: str, policy: Policy, workspace: Workspace | None, asked: Asked) -> Report:
    """The findings about a target.

    Raises:
        UsageError, LocatorError: it is nothing that is known here. And whatever the verification raises.
    """
    from ledger.locator import is_locator, parse, parse_expected

    expected = parse_expected(asked.expect) if asked.expect is not None else None
    if is_locator(target):
        return _located(target, expected, policy, workspace, asked)
    path = Path(target)
    if asked.file is not None and not _is_picture(path):
        raise _second(asked.file)
    if path.exists():
        return _here(path, expected, policy, workspace, asked)
    if workspace is None:
        if _is_bare(target):
            parse(target)  # says what is wrong with it
            raise UsageError(
                f"{target}: a hash alone says what to expect and not where it is; name the place, as hf:org/name --expect {target}"
            )
        raise UsageError(f"{target} is not there, and without a ledger here only files, folders and places on the Hub can be verified")
    digest, _ = find_object(workspace, target)
    from ledger import verify as check

    report = check.verify_artifact(digest, workspace.log, policy, store=workspace.store)
    rows = [*_expected(expected, {f"object {digest.short}": digest}), *report.rows, *_stored(workspace, digest, full=asked.full)]
    return replace(report, rows=tuple(rows))


def _is_picture(path: Path) -> bool:
    from ledger import qr

    return path.is_file() and qr.is_picture(path)


def _second(file: Path) -> UsageError:
    return UsageError(f"{clean(file)}: one TARGET at a time; a second one goes with --offline, or with a code that holds a hash alone")


def _is_bare(text: str) -> bool:
    digits = text.removeprefix("sha256:").lower()
    return 8 <= len(digits) <= 64 and all(digit in "0123456789abcdef" for digit in digits)


# --- places on the Hub -----------------------------------------------------------------------------------------------------------


def _located(text: str, expected: Expected | None, policy: Policy, workspace: Workspace | None, asked: Asked) -> Report:
    from ledger.errors import LocatorError
    from ledger.hf_hub import HfHub
    from ledger.locator import HubSource, parse
    from ledger.proof import Proof, is_packed
    from ledger.remote import Depth, audit_remote
    from ledger.report import Report
    from ledger.sightings import Sightings

    if is_packed(text):
        if asked.file is not None:
            raise _second(asked.file)
        proof = Proof.from_qr(text)
        return Report(clean(text[:100]), (*_expected(expected, proof.subjects), *proof.check(policy)), proof.subjects)
    locator = parse(text)
    if expected is not None and locator.expected is not None and expected != locator.expected:
        raise LocatorError(f"{clean(text[:200])} says {locator.expected} itself, and --expect says {expected}; which is it?")
    if expected is not None:
        locator = replace(locator, expected=expected, legacy=not expected.full)
    if locator.expected is not None and not isinstance(locator.source, HubSource):
        return _hash_alone(locator, locator.expected, policy, workspace, asked.file)
    if asked.file is not None:
        raise _second(asked.file)
    hub = HfHub()
    if workspace is not None and policy is workspace.written:
        policy = workspace.policy  # what the key events of one's own log took away counts for nothing elsewhere either
    depth = Depth(
        spot=asked.spot,
        full=asked.full,
        into=asked.into,
        store=workspace.store if workspace is not None else None,
        publications=_publications(workspace, policy) if workspace is not None else (),
        sightings=Sightings.default(hub.endpoint),
        progress=_progress if sys.stderr.isatty() else None,
    )
    return audit_remote(locator, hub, policy, depth)


def _hash_alone(locator: Locator, expected: Expected, policy: Policy, workspace: Workspace | None, file: Path | None) -> Report:
    """A code of forge-alloy, which says a hash and no place that is looked at: about a file of the reader's, or what it would prove."""
    from ledger.report import Report, Row
    from ledger.unsigned import prefix_text

    if file is not None:
        if not file.is_file():  # no folder: a ledger in it, found from here, would bring its own policy
            raise UsageError(f"{clean(file)} is not a file; a hash is of one")
        return _here(file, expected, policy, workspace, Asked())
    where = f"and {locator.source}, which is on no Hub" if locator.source is not None else "and no place"
    text = f"it says {expected} {where}, so nothing was looked at" + (f". {prefix_text(expected)}" if not expected.full else "")
    hint = f"Name the file that it came with: ledger verify FILE --expect {expected.hex}"
    return Report(clean(locator.text[:100]), (Row("unverified", text, hint),))


def _publications(workspace: Workspace, policy: Policy) -> list[tuple[int, Publication]]:
    """What one's own ledger says was published and read back."""
    from ledger import publication

    entries = workspace.log.by_type(publication.PUBLICATION)
    return [(one.entry.number, said) for one, said in publication.counting(entries, policy) if said.event == publication.PUBLISHED]


def _progress(path: str, done: int, total: int) -> None:
    """One line that is written over; it ends when the file does."""
    sys.stderr.write(f"\r\x1b[K{clean(path)}  {done / 1e6:,.1f} of {total / 1e6:,.1f} MB" + ("\r\x1b[K" if done >= total else ""))
    sys.stderr.flush()


# --- files and folders here ------------------------------------------------------------------------------------------------------


def _here(path: Path, expected: Expected | None, policy: Policy, workspace: Workspace | None, asked: Asked) -> Report:
    """A file or a folder: by what it is, by the attestations that travel with it where they name it, else by the ledger here."""
    from ledger import foreign_report, qr, vsa
    from ledger import verify as check
    from store import files

    if path.is_file() and qr.is_picture(path) and (report := _picture(path, expected, policy, workspace, asked)) is not None:
        return report
    if asked.spot or asked.into is not None:
        raise UsageError("--spot and --into are about reading from the Hub, and a file here is read as a whole anyway")
    if path.is_file() and path.stat().st_size <= vsa.MAX_BYTES and vsa.is_summary(data := path.read_bytes()):
        report = vsa.examine_summary(data, policy, path.name)
        return replace(report, rows=(*_expected(expected, {path.name: files.hash_file(path)[0]}), *report.rows))
    if check.published(path) and not (path.is_file() and not check.attestations_of(path).is_file()):
        return check.verify_alloy(path, policy, expected)

    @cache
    def hashed(file: Path) -> Digest:  # here and now: what was hashed before is known from the ledger's own folder, where others may write
        return files.hash_file(file)[0]

    rows = _expected(expected, {path.name: hashed(path)}) if path.is_file() else []
    alloy = _foreign_alloy(path)
    if path.is_file() and (workspace is None or not workspace.log.by_subject(hashed(path))):
        travelling = _travelling(path, hashed(path), policy, stray=workspace is None and not (alloy and "alloy" in path.name.casefold()))
        if travelling is not None:
            return replace(travelling, rows=(*rows, *travelling.rows))
    if alloy is not None and (workspace is None or not path.is_file() or not workspace.log.by_subject(hashed(path))):
        return foreign_report.examine_foreign(alloy, expected, folder=path if path.is_dir() else None)
    if workspace is None and rows:
        text = f"who made {path.name}, and from what: no attestations lie beside it, and no ledger is here"
        return check.Report(str(path), (*rows, check.Row("unverified", text)), {path.name: hashed(path)})
    if workspace is None:
        raise UsageError(f"nothing says what {path} is: no ledger is here, and no .alloy.json with its .attestations.jsonl beside it")
    report = check.verify_artifact(path, workspace.log, policy, store=workspace.store, digest_of=hashed)
    if not path.is_file():
        rows = _expected(expected, report.subjects)
    return replace(report, rows=(*rows, *report.rows))


def _travelling(path: Path, digest: Digest, policy: Policy, *, stray: bool) -> Report | None:
    """What lies beside a file says of it, or is the file itself; None when nothing does, and `stray` files are not to be judged."""
    from cli.offline import offline
    from ledger import verify as check
    from ledger.inventory import PROOF, SIGNATURE

    if path.name.endswith(PROOF):
        return offline(str(path), None, policy)
    if path.name == SIGNATURE:
        return check.verify_signature(path, policy)
    found = check.verify_beside(path, digest, policy)
    if found is None and stray:
        return check.verify_stray(path, digest, policy)
    return found


def _foreign_alloy(path: Path) -> Path | None:
    """An alloy without attestations, or a chain of commits: the file itself, or that of a folder or a clone."""
    from ledger import foreign
    from ledger.errors import AlloyError
    from ledger.unsigned import MAX_BYTES
    from store import files
    from store.errors import StoreError

    if path.is_dir():
        name = foreign.find([item.name for item in path.iterdir() if item.is_file()], path.resolve().name)
        path = path / (name or ".attestation/chain.json")
    if not path.is_file() or path.suffix.casefold() != ".json":
        return None
    try:
        data = files.read_small(path, MAX_BYTES)
        if not foreign.is_chain(data):
            foreign.load(data)
    except (AlloyError, StoreError):
        return path if path.name.endswith(".alloy.json") else None  # then the report says what is wrong with it
    return path


def _expected(expected: Expected | None, got: Mapping[str, Digest]) -> list[Row]:
    from ledger.published import expectation

    return [expectation(expected, got)] if expected is not None else []


def _picture(path: Path, expected: Expected | None, policy: Policy, workspace: Workspace | None, asked: Asked) -> Report | None:
    """What the codes in a picture lead to; None when it shows none and is a file like any other that may be attested."""
    from ledger import qr
    from ledger.errors import LocatorError, QrError
    from ledger.report import Report, Row

    try:
        texts = qr.read(path)
    except QrError:
        if workspace is not None and expected is None and not workspace.log.by_subject(_digest(path)):
            raise
        if workspace is None and expected is None:
            raise
        return None
    found: list[tuple[str, Report]] = []
    strange: list[Row] = []
    for text in texts:
        try:
            found.append((text, _located(text, expected, policy, workspace, asked)))
        except LocatorError as error:
            strange.append(Row("unverified", f"a code in {path.name} leads nowhere that is known here: {error}"))
    if not found:
        return Report(str(path), tuple(strange))
    if len(found) == 1:
        ((text, one),) = found
        return replace(one, rows=(Row("proven", f"a code in {path.name} says: {_said(text)}", aside=True), *one.rows, *strange))
    return _together(path, found, strange)


def _said(text: str) -> str:
    """What a code says, for a message; of a packed proof no more than that it is one, for nobody reads its digits."""
    from ledger.proof import FRAGMENT, is_packed
    from ledger.report import printable

    if is_packed(text):
        page, _, digits = text.strip().rpartition(FRAGMENT)
        return f"{printable(page, 200)}{FRAGMENT}.., a whole proof in {len(digits):,} digits"
    return printable(text, 300)


def _digest(path: Path) -> Digest:
    from store import files

    return files.hash_file(path)[0]


def _together(path: Path, found: Sequence[tuple[str, Report]], strange: Sequence[Row]) -> Report:
    """Several codes of one picture: all of them must verify, and where one is nobody's word, all are."""
    from ledger.report import Report, Row
    from ledger.unsigned import UnsignedReport

    rows: list[Row] = []
    for text, one in found:
        rows += [Row("proven", f"a code in {path.name} says: {_said(text)}", aside=True), *one.rows]
        if one.exit_code:
            rows.append(Row("failed", f"what this code leads to: {one.verdict}"))
    subjects = {name: digest for _, one in found for name, digest in one.subjects.items()}
    inputs = {name: digest for _, one in found for name, digest in one.inputs.items()}
    if any(isinstance(one, UnsignedReport) for _, one in found):
        return UnsignedReport(str(path), (*rows, *strange), subjects, inputs, found[0][1].levels, pinned=True)
    return Report(str(path), (*rows, *strange), subjects, inputs, found[0][1].levels)


# --- objects in the store --------------------------------------------------------------------------------------------------------


def _stored(workspace: Workspace, digest: Digest, *, full: bool) -> list[Row]:
    """Whether the store holds the bytes of an object and of its files, and whether they are those bytes."""
    from ledger.verify import Row
    from store import tree
    from store.errors import CorruptError, NotFoundError

    store = workspace.store
    rows: list[Row] = []
    absent = 0
    objects = [digest]
    try:
        if store.has(digest) and tree.is_tree(store, digest):
            objects += sorted({item.digest for item in tree.load(store, digest).entries})
    except CorruptError as error:
        return [Row("failed", str(error))]
    for each in objects:
        try:
            store.check(each, splice=store.is_splice(each), full=full)
        except NotFoundError:
            absent += 1
        except CorruptError as error:
            rows.append(Row("failed", str(error)))
    if absent:
        rows.append(Row("unverified", f"the bytes of {many(absent, 'object')}: not in the store", "run the recipe that makes them"))
    if len(objects) > absent and all(row.status != "failed" for row in rows):
        text = f"its bytes in the store ({many(len(objects) - absent, 'object')}) hash to their names"
        rows.append(Row("proven", text, aside=True))
    return rows

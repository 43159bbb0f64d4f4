"""An audit of a repository on the Hub: at most three requests and no byte of weights, unless the reader asks for more.

| level | reads | shows |
|---|---|---|
| listing (default) | the listing at one commit, the alloy, its attestations | the Hub lists what is attested: SHA-256, size, git id |
| `spot` | so many random MiB of the weights too, and the Xet hashes | the bytes behind it are those, up to a stated bound |
| `full` | everything | they are |

A listed SHA-256 is what the uploader declared; the Hub may never have checked it. So the bytes behind a listing stay *unverified* until
they are read. The listing itself is judged by the code that judges folders (`ledger.judge`).

Page: docs/auditing.md.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ledger import chunks, manifest, oms, spot
from ledger.bundle import MAX_BUNDLE_BYTES
from ledger.claims import Carried, Claims, companion
from ledger.errors import (
    HubError,
    HubMismatchError,
    HubNotFoundError,
    HubUnreachableError,
    LocatorError,
    LogError,
    ProofError,
)
from ledger.foreign import find
from ledger.foreign_report import examine_foreign
from ledger.hub import Hub, HubFile, git_blob_oid, is_commit, lfs_pointer_oid
from ledger.inventory import ALLOY, ATTESTATIONS, PROOF, SIGNATURE, WEIGHTS, Inventory, Unread, ends, some
from ledger.judge import document, judge, model_signature, signature_over
from ledger.locator import Expected, HubSource, Locator
from ledger.manifest import Listed
from ledger.policy import Policy
from ledger.proof import MAX_PROOF_BYTES
from ledger.published import MAX_ALLOY_BYTES, expectation, told
from ledger.report import Report, Row
from ledger.sightings import Sightings, since
from store.digest import Digest
from store.files import hash_file
from store.tree import TreeEntry

if TYPE_CHECKING:
    from ledger.publication import Publication
    from store.cas import Cas

MAX_ALLOYS = 4
"""Alloys of one repository that are read; each costs two requests."""

_LISTED = " as the Hub lists them"

Progress = Callable[[str, int, int], None]
"""Called with a path, its bytes done and its bytes in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """How thoroughly to look, and with what of one's own.

    Attributes:
        spot: random MiB of the weights to read. full: read everything. into: keep what is read there, and continue from what is there.
        store: one's own objects, to compare with. publications: what one's own ledger says was published.
        sightings: what was seen before; None: nothing is compared with, nor remembered.
        seed: of the samples, for tests. progress: told of downloads. now: UTC, for what is remembered; default: the clock.
    """

    spot: int = 0
    full: bool = False
    into: Path | None = None
    store: Cas | None = None
    publications: Sequence[tuple[int, Publication]] = ()
    sightings: Sightings | None = None
    seed: bytes | None = None
    progress: Progress | None = None
    now: str = ""


def audit_remote(locator: Locator, hub: Hub, policy: Policy, depth: Depth = Depth()) -> Report:
    """What is proven about a repository, or one file of it, without its weights.

    Raises:
        LocatorError: the locator names no place on the Hub.
        HubUnreachableError, HubNotFoundError, HubError: nothing can be said, for nobody answered, or with nothing that can be used.
        HubMismatchError: the Hub answered for another commit than it was asked for.
    """
    if not isinstance(locator.source, HubSource):
        where = f"{locator.source} is on no Hub" if locator.source is not None else "a hash alone says what to expect and not where it is"
        raise LocatorError(f"{locator.text[:200]!r}: {where}; name the repository too, as hf:org/name, or the downloaded file or folder")
    return _Audit(locator.source, locator.expected, hub, policy, depth).report()


@dataclass
class _Audit:
    """One audit, as it goes on."""

    source: HubSource
    expected: Expected | None
    hub: Hub
    policy: Policy
    depth: Depth
    rows: list[Row] = field(default_factory=list)
    read: dict[str, bytes] = field(default_factory=dict)
    """Small files that were read, and have the listed git id or SHA-256."""
    hashed: dict[str, Digest] = field(default_factory=dict)
    """Files whose every byte was read."""

    def report(self) -> Report:
        before = self.hub.requests, self.hub.weight_bytes
        try:
            self.listing = self.hub.listing(self.source.repo, self.source.revision)
        except HubNotFoundError as error:
            if not is_commit(self.source.revision):
                raise
            return self._unknown_commit(error)
        if self.source.path is not None:
            self.listing.file(self.source.path)  # says that it is not there
        self.rows.append(Row("proven", f"audited is {self.source.repo} at commit {self.listing.commit}", aside=True))
        self.rows += self._contradictions()
        self.rows += self._history()
        one_file = self.source.path if self.source.path is not None and not self.source.path.endswith(ALLOY) else None
        alloys = self._alloys()
        if not alloys and one_file is None:
            report = self._foreign()
        else:
            rows = self._file(one_file, alloys) if one_file is not None else self._repository(alloys)
            report = self._finish(rows, alloys, one_file)
        asked, weights = self.hub.requests - before[0], self.hub.weight_bytes - before[1]
        cost = f"{asked} request{'s' if asked != 1 else ''} to the Hub, {weights:,} bytes of weights read"
        report = replace(report, rows=(*report.rows, Row("proven", cost, aside=True)))
        return replace(report, rows=(*report.rows, *self._remember(report)))

    # what the listing says by itself

    def _unknown_commit(self, error: HubNotFoundError) -> Report:
        """A commit that somebody named and the Hub does not know: the history was rewritten, or it is another repository by now."""
        now = self.hub.listing(self.source.repo)
        text = f"{error}; the repository, created {now.created or 'nobody says when'}, is at {now.commit}"
        hint = "Its history was rewritten, it was made anew under this name, or the commit never was there"
        return Report(str(self.source), (Row("failed", text, hint),))

    def _contradictions(self) -> list[Row]:
        wrong = [file.path for file in self.listing.files if not file.pointer_agrees]
        if not wrong:
            return []
        text = f"{some(wrong)}: the Hub lists another SHA-256 than its own git object holds; one of its answers is false"
        return [Row("failed", text, "Do not use it; --full shows what is served")]

    @property
    def _branch(self) -> str:
        return self.source.revision or "main"

    def _history(self) -> list[Row]:
        """What changed since it was published by the reader himself, or audited before."""
        rows: list[Row] = []
        own = [(number, one) for number, one in self.depth.publications if one.repo == self.source.repo and one.revision]
        if own and not is_commit(self.source.revision):
            number, one = own[-1]
            if self.listing.created and self.listing.created[:19] + "Z" > one.compared_on:
                seen = f"your ledger saw it published on {one.compared_on}"
                text = f"{one.target} was created {self.listing.created}, after {seen}: it was made anew"
                rows.append(Row("failed", text, "Whoever got hold of the name can have made it", number))
            elif one.revision == self.listing.commit:
                text = f"{self._branch} is at the commit that was read back when it was published"
                rows.append(Row("proven", text, entry=number, aside=True))
            else:
                text = f"{self._branch} moved since it was published: from {one.revision} to {self.listing.commit}"
                rows.append(Row("unverified", text, f"`ledger verify hf:{one.repo}@{one.revision}` audits what was published", number))
        sightings = self.depth.sightings
        last = sightings.last(self.source.repo, self._branch) if sightings is not None else None
        if sightings is not None and last is not None:
            rows += since(last, self.listing, self._branch, sightings.file(self.source.repo, self._branch))
        return rows

    def _remember(self, report: Report) -> list[Row]:
        """Keep what was seen; when something failed, what was seen before stays the one to compare with."""
        sightings = self.depth.sightings
        if sightings is None or any(row.status == "failed" for row in report.rows):
            return []
        try:
            now = self.depth.now or time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            sightings.remember(self.listing, self._branch, now)
        except LogError as error:
            return [Row("unverified", str(error))]
        return []

    # what is read

    def _alloys(self) -> list[Claims]:
        """The alloys that have their attestations beside them; the one that was named, or those at the top."""
        names = {file.path for file in self.listing.files}
        paths = [path for path in sorted(names) if path.endswith(ALLOY) and companion(path, ATTESTATIONS) in names]
        if self.source.path is not None and self.source.path.endswith(ALLOY):
            paths = [path for path in paths if path == self.source.path]
        else:
            paths = [path for path in paths if "/" not in path]
        for path in paths[MAX_ALLOYS:]:
            self.rows.append(
                Row("unverified", f"{path}: one alloy more than the {MAX_ALLOYS} that are read", f"hf:{self.source.repo}/{path}")
            )
        return [self._claims(path) for path in paths[:MAX_ALLOYS]]

    def _claims(self, path: str) -> Claims:
        proof = companion(path, PROOF)
        try:
            alloy = self._small(path, MAX_ALLOY_BYTES)
            attestations = self._small(companion(path, ATTESTATIONS), MAX_BUNDLE_BYTES)
            # Witnesses cosign after the alloy is made, so a policy that wants them needs the proof: one more request.
            wanted = self.depth.full or self.policy.checkpoints is not None
            placed = self._small(proof, MAX_PROOF_BYTES) if wanted and self._has(proof) else None
        except HubUnreachableError:
            raise
        except HubError as error:
            row = Row("failed", " ".join(str(error).split()), "Ask its owner; the Hub may be at fault")
            return Claims(path, None, self.policy, problems=[row])
        expected = self.expected if self._about_alloys else None
        return Claims(path, Carried(path, alloy, attestations, placed), self.policy, expected=expected)

    @property
    def _about_alloys(self) -> bool:
        """Whether the expected hash is that of an alloy file."""
        return self.source.path is None or self.source.path.endswith(ALLOY)

    def _has(self, path: str) -> bool:
        return any(file.path == path for file in self.listing.files)

    def _small(self, path: str, limit: int) -> bytes:
        """A file, compared with its listing.

        Raises:
            HubMismatchError: it is not what is listed. HubError: it is too large, or cannot be had.
        """
        file = self.listing.file(path)
        if path not in self.read:
            data = self.hub.read(self.listing.repo, self.listing.commit, path, limit=limit)
            if file.sha256 is not None and Digest.of(data) != file.sha256:
                raise HubMismatchError(
                    f"{path} is served with other bytes than listed", expected=str(file.sha256), got=str(Digest.of(data))
                )
            if file.sha256 is None and git_blob_oid(data) != file.oid:
                raise HubMismatchError(
                    f"{path} is served with other bytes than listed: expected git id {file.oid}, got {git_blob_oid(data)}",
                    expected=file.oid,
                    got=git_blob_oid(data),
                )
            self.read[path] = data
        return self.read[path]

    def _inventory(self, alloys: Sequence[Claims]) -> Inventory:
        """The listing as an inventory: of small files, the bytes that an attested git id belongs to."""
        known = {(one.oid, one.size): one.digest for alloy in alloys for one in alloy.listed.values() if one.oid is not None}
        files: list[TreeEntry] = []
        unread: list[Unread] = []
        by_git: set[str] = set()
        for file in self.listing.files:
            if file.path in self.hashed:
                files.append(TreeEntry(file.path, self.hashed[file.path], file.size))
            elif file.sha256 is not None:
                files.append(TreeEntry(file.path, file.sha256, file.size))
            elif file.path in self.read:
                files.append(TreeEntry(file.path, Digest.of(self.read[file.path]), file.size))
            elif (digest := known.get((file.oid, file.size)) or self._stored(file, alloys)) is not None:
                files.append(TreeEntry(file.path, digest, file.size))
                by_git.add(file.path)
            else:
                unread.append(Unread(file.path, file.size, file.oid))
        how = "" if len(self.hashed) == len(self.listing.files) else _LISTED
        return Inventory(files, unread, whole=True, complete=True, by_git=frozenset(by_git), how=how)

    def _stored(self, file: HubFile, alloys: Sequence[Claims]) -> Digest | None:
        """The attested file of that name and size whose bytes one's own store has, if they have the listed git id."""
        store = self.depth.store
        if store is None:
            return None
        attested = [one for alloy in alloys for tree in alloy.trees.values() for one in tree.entries if one.size == file.size]
        alike = [one.digest for one in attested if file.path == one.path or file.path.endswith(f"/{one.path}")]
        return next((digest for digest in alike if store.has(digest) and git_blob_oid(store.read(digest)) == file.oid), None)

    # the findings

    def _repository(self, alloys: Sequence[Claims]) -> list[Row]:
        rows = self._expectation(alloys)
        rows += self._wrong_place(alloys)
        if self.depth.full:
            rows += self._everything()
        present = self._inventory(alloys)
        carrying = {companion(one.name, ending) for one in alloys for ending in (ALLOY, ATTESTATIONS, PROOF)} | {SIGNATURE}
        signed, covered = self._model_signature(present) if self.depth.full else ([], frozenset[str]())
        hint = f"--full reads {SIGNATURE}, which is over every file" if self._has(SIGNATURE) and not self.depth.full else ""
        judged = replace(
            present,
            files=[file for file in present.files if file.path not in carrying],
            unread=[file for file in present.unread if file.path not in carrying],
        )
        found = judge(judged, alloys, signed=covered, hint=hint)
        for one in alloys:
            rows += one.findings()
        rows += [*signed, *found]
        rows += self._hub_hashes({path: listed for one in alloys for path, listed in one.listed.items()})
        if self.depth.spot and not self.depth.full:
            rows += self._samples(present, alloys)
        return rows

    def _file(self, path: str, alloys: Sequence[Claims]) -> list[Row]:
        """The findings about one file of the repository, whatever else lies there."""
        file = self.listing.file(path)
        if self.depth.full:
            if wrong := self._download(file):
                return wrong
        elif self.expected is not None and file.sha256 is None:  # only its bytes say which SHA-256 it has
            try:
                self._small(path, MAX_ALLOY_BYTES)
            except HubUnreachableError:
                raise
            except HubError as error:
                return [Row("failed", " ".join(str(error).split()), "Ask its owner; the Hub may be at fault")]
        present = self._inventory(alloys)
        digest = next((one.digest for one in present.files if one.path == path), None)
        how = "" if path in self.hashed else _LISTED
        what = f"{path}, {file.size:,} bytes{how},"
        rows: list[Row] = self._wrong_place(alloys)
        alone = replace(
            present,
            files=[one for one in present.files if one.path == path],
            unread=[one for one in present.unread if one.path == path],
        )
        for claims in alloys:
            if path in claims.listed:
                compared = manifest.compare({path: claims.listed[path]}, alone, claims.vouched).rows
                rows += [row for row in compared if row.status != "proven"]  # what is proven is said below, with where it came from
        if digest is None:
            return rows  # what is open is said where all that was not read is
        if self.expected is not None:
            rows.append(expectation(self.expected, {f"{path}{how}": digest}))
        found = [about for one in alloys if (about := one.about(digest, what)) is not None]
        rows += [row for about in found for row in about]
        if not found and any(row.status == "failed" for row in rows):
            pass  # it is said already why
        elif not found and any(one.counts or one.vouched for one in alloys):
            rows += self._stray(path, digest, what)
        elif not found:
            rows.append(Row("unverified", f"nobody trusted says anything of {what.rstrip(',')} ({digest})", "--expect sha256:HEX"))
            rows += [row for one in alloys for row in one.findings()]
        rows += self._hub_hashes(dict((path, one.listed[path]) for one in alloys if path in one.listed))
        if self.depth.spot and not self.depth.full:
            rows += self._samples(alone, alloys)
        return rows

    def _stray(self, path: str, digest: Digest, what: str) -> list[Row]:
        """A file that no alloy names: signed in `model.sig`, or failed when it is more than a document."""
        bundle, wrong = self._signature() if self.depth.full and path != SIGNATURE else (None, [])
        signed = [signature_over(bundle, path, digest, what, self.policy)] if bundle is not None else wrong
        if any(row.status != "unverified" for row in signed):
            return signed
        text = f"{what} is named by no trusted statement ({digest})"
        carrying = path.endswith((ATTESTATIONS, PROOF, SIGNATURE))
        if not carrying and not document(path):
            return [Row("failed", text, "Take it from where it was published"), *signed]
        whole = f"ledger verify hf:{self.source.repo} --full checks it with all files"
        return [Row("unverified", f"{text}; no model is loaded from it", whole), *signed]

    def _expectation(self, alloys: Sequence[Claims]) -> list[Row]:
        if self.expected is None or (self.expected.full and any(one.digest and self.expected.matches(one.digest) for one in alloys)):
            return []  # the alloy says that it is met
        row = expectation(self.expected, {one.name: one.digest for one in alloys if one.digest is not None})
        if row.status != "failed":
            return [row]
        met = [file.path for file in self.listing.files if file.sha256 is not None and self.expected.matches(file.sha256)]
        if met:
            return [replace(row, hint=f"{met[0]} is listed with that hash; name it: hf:{self.source.repo}/{met[0]}")]
        hint = "It was replaced since the hash was given, or it is another repository; an older revision is named hf:org/name@COMMIT"
        return [replace(row, hint=hint)]

    def _wrong_place(self, alloys: Sequence[Claims]) -> list[Row]:
        """An alloy that was released for another repository, a copy or a name that looks alike; or for none."""
        rows = []
        for one in alloys:
            targets = sorted({said.target for _, said in one.releases})
            if targets and f"hf:{self.source.repo}" not in targets:
                text = f"{one.name} was released at {some(targets)}, and this is hf:{self.source.repo}: a copy by whoever owns that name"
                rows.append(Row("failed", text, f"Audit {targets[0]}; or download this one and verify the folder"))
            elif one.counts and not targets:
                text = f"whether {one.name} was meant to be here as it is: nobody trusted signed a release of it"
                rows.append(Row("unverified", text, "--expect sha256:HEX, from whoever published it, settles its bytes"))
        return rows

    def _hub_hashes(self, listed: Mapping[str, Listed]) -> list[Row]:
        """Compare git's ids with the attested ones, and Xet hashes where they were asked for."""
        rows: list[Row] = []
        here = {file.path: file for file in self.listing.files}
        for path, one in listed.items():
            file = here.get(path)
            if file is None or file.sha256 != one.digest or one.oid is None or file.size != one.size:
                continue
            if one.oid == lfs_pointer_oid(one.digest, file.size) and file.oid != one.oid:
                rows.append(
                    Row("failed", f"{path}: the Hub lists the git id {file.oid}; attested is {one.oid}", "--full shows what is served")
                )
        wanted = {path: one.xet for path, one in listed.items() if one.xet is not None and path in here and here[path].sha256 is not None}
        if not wanted:
            return rows
        if not (self.depth.spot or self.depth.full):
            text = (
                f"the Xet hash{'es' if len(wanted) > 1 else ''} of {some(sorted(wanted), 3)}, by which the Hub stores: not in this listing"
            )
            return [*rows, Row("unverified", text, "--spot or --full ask for them, with one more request")]
        found = self.hub.xet(self.listing.repo, self.listing.commit, sorted(wanted))
        wrong = [path for path, xet in wanted.items() if found.get(path, xet) != xet]
        for path in wrong:
            text = f"{path}: the Hub stores it under the Xet hash {found[path]}; that of the attested bytes is {wanted[path]}"
            rows.append(Row("failed", text, "The Hub lists the right SHA-256 and holds other bytes; --full shows what is served"))
        equal = len([path for path in wanted if path in found]) - len(wrong)
        if equal:
            rows.append(Row("proven", f"the Hub stores {equal} of the files under the Xet hashes of the attested bytes"))
        if missing := sorted(set(wanted) - set(found)):
            rows.append(Row("unverified", f"{some(missing, 3)}: the Hub gives no Xet hash"))
        return rows

    # the bytes

    def _samples(self, present: Inventory, alloys: Sequence[Claims]) -> list[Row]:
        """Random chunks of what is attested, and what could not be sampled."""
        attested = {digest for one in alloys for digest in one.content}
        large = [
            file for file in present.files if file.digest in attested and file.path not in self.read and file.path not in present.by_git
        ]
        rows: list[Row] = []
        known: dict[str, chunks.ChunkedFile] = {}
        for path in sorted({path for one in alloys for path in one.listed if path.endswith(chunks.ENDING)}):
            try:
                data = self._small(path, chunks.MAX_BYTES)
                if not any(path in one.listed and one.listed[path].digest == Digest.of(data) for one in alloys):
                    continue  # the comparison with the list has failed it already
                known |= chunks.parse(data)
            except HubUnreachableError:
                raise
            except (HubError, ProofError) as error:
                rows.append(Row("failed", f"{path}: {error}"))
        references = spot.references(large, known, self.depth.store)
        rows += spot.sample(self.hub, self.listing, references, self.depth.spot, self.depth.seed)
        others = [file.path for file in large if file.path not in references and ends(file.path, WEIGHTS)]
        if others:
            text = f"{some(others)}: not sampled, for digests of its parts are not attested, and your store does not have it"
            rows.append(Row("unverified", text, "--full reads all of it"))
        return rows

    def _everything(self) -> list[Row]:
        """Download and hash every file."""
        wrong = [row for file in self.listing.files for row in self._download(file)]
        if wrong:
            return wrong
        size = sum(file.size for file in self.listing.files)
        return [
            Row("proven", f"all {len(self.listing.files)} files, {size:,} bytes, were downloaded, and are what the Hub lists", aside=True)
        ]

    def _download(self, file: HubFile) -> list[Row]:
        """Read all bytes of one file; what is wrong with them."""
        tell = self.depth.progress

        def progress(done: int, total: int) -> None:
            if tell is not None:
                tell(file.path, done, total)

        try:
            if self.depth.into is not None:
                into = self.depth.into / file.path
                into.parent.mkdir(parents=True, exist_ok=True)
                self.hub.fetch(self.listing.repo, self.listing.commit, file, into, progress)
                self.hashed[file.path] = hash_file(into)[0]
                return []
            with tempfile.TemporaryDirectory(prefix="ledger-audit-") as folder:
                into = Path(folder) / "file"
                self.hub.fetch(self.listing.repo, self.listing.commit, file, into, progress)
                self.hashed[file.path] = hash_file(into)[0]
                return []
        except HubUnreachableError:
            raise
        except HubMismatchError as error:
            text = f"{file.path}: the Hub served other bytes than it lists: expected {error.expected}, got {error.got}"
            return [Row("failed", text, "Do not use it. Try again; if it stays so, tell its owner")]
        except HubError as error:
            return [Row("failed", " ".join(str(error).split()), "Tell its owner; another copy may be good")]

    def _model_signature(self, present: Inventory) -> tuple[list[Row], frozenset[str]]:
        """What `model.sig` proves, and which files need no other proof then; nothing when there is none."""
        bundle, wrong = self._signature()
        return (wrong, frozenset()) if bundle is None else model_signature(bundle, present, self.policy)

    def _signature(self) -> tuple[bytes | None, list[Row]]:
        """The bytes of `model.sig`; None when there is none, or with what is wrong with it."""
        if not self._has(SIGNATURE):
            return None, []
        try:
            return self._small(SIGNATURE, oms.MAX_BUNDLE_BYTES), []
        except HubUnreachableError:
            raise
        except HubError as error:
            return None, [Row("failed", " ".join(str(error).split()), "Ask its owner; the Hub may be at fault")]

    # the end

    def _foreign(self) -> Report:
        """A repository without attestations: what its alloy says, if it has one."""
        path = self.source.path or find([file.path for file in self.listing.files], self.source.repo)
        target = str(replace(self.source, revision=self.listing.commit))
        if path is None:
            rows = [*self.rows, *self._expectation([]), *self._bytes()]
            rows.append(
                Row(
                    "unverified",
                    f"{self.source.repo} has no alloy and no attestations: nobody says anything of its files here",
                    "hf:org/name/FILE --expect sha256:HEX compares one file with a hash that you have",
                )
            )
            return Report(target, tuple(rows))
        try:
            data = self._small(path, MAX_ALLOY_BYTES)
        except HubUnreachableError:
            raise
        except HubError as error:
            return Report(target, (*self.rows, Row("failed", f"{path}: {error}", "Ask its owner; the Hub may be at fault")))
        found = examine_foreign(data, self.expected, self.listing, name=path)
        rows = [*self.rows, *found.rows]
        rows += self._bytes()
        subjects = {path: Digest.of(data)}
        return replace(found, target=target, rows=tuple(rows), subjects=subjects, levels=self._levels())

    def _bytes(self) -> list[Row]:
        """Of a repository without attestations: everything that it serves, if that was wanted, and the signature over it."""
        if not self.depth.full:
            return [self._unread()]
        return [*self._everything(), *self._model_signature(self._inventory([]))[0]]

    def _finish(self, rows: Sequence[Row], alloys: Sequence[Claims], one_file: str | None) -> Report:
        target = str(replace(self.source, revision=self.listing.commit))
        every = [*self.rows, *rows, self._unread(one_file)] if not self._all_read(one_file) else [*self.rows, *rows]
        if one_file is None:
            return told(target, every, alloys, self._levels())
        digest = next((file.digest for file in self._inventory(alloys).files if file.path == one_file), None)
        inputs = {name: digest for one in alloys for name, digest in one.evidence.items()}
        return Report(target, tuple(every), {one_file: digest} if digest is not None else {}, inputs, self._levels())

    def _all_read(self, one_file: str | None) -> bool:
        return self.depth.full or (one_file is not None and one_file in self.hashed)

    def _levels(self) -> tuple[str, ...]:
        if self.depth.full:
            return ("ALLOY_LISTING", "ALLOY_BYTES")
        return ("ALLOY_LISTING", f"ALLOY_SPOT_{self.depth.spot}") if self.depth.spot else ("ALLOY_LISTING",)

    def _unread(self, one_file: str | None = None) -> Row:
        what = one_file or "the listing"
        if one_file is not None and (file := self.listing.file(one_file)).sha256 is None:
            text = f"the bytes of {one_file}: the Hub lists only a git id of it, {file.oid}, which is a SHA-1, and they were not read"
            return Row("unverified", text, "--full reads it")
        if self.depth.spot:
            return Row("unverified", f"the bytes behind {what} that were not sampled", "--full reads all of them")
        text = f"the bytes behind {what}: the Hub's SHA-256 is what the uploader declared, and none of them was read"
        return Row("unverified", text, "--spot 300 reads some, --full all of them")

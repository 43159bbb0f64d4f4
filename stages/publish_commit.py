"""Bring a release to the Hub: one commit, compare what is there with what was meant, state it.

The order is: one commit -> the listing is read back and compared -> `published` statement. A kill between any two steps leaves the
repository at its old commit or at the new one; running again commits, or sees that it is there.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from ledger import inventory, oms, publication
from ledger.errors import HubMismatchError, HubNotFoundError, VerificationError
from ledger.hub import Hub, Listing
from ledger.proof import Proof
from ledger.publication import PUBLISHED, Publication
from stages import card, record
from stages.publish_evidence import Fault
from stages.publish_plan import Plan
from stages.publish_release import Clock, Entry, Release, derived, history, is_picture, proof_qr
from store import canonical
from store.digest import Digest
from store.local import LocalCas

_KEPT = (".gitattributes",)
"""What the Hub itself puts into a repository."""

_MAX_FOREIGN = 8
_MAX_PROOF_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a publication came to.

    Attributes:
        commit: the repository is at. changed: whether this run made it. created: whether the repository is new.
        compared: how many files were compared. number: entry of the statement that it was published.
    """

    commit: str
    changed: bool
    created: bool
    compared: int
    number: int


def look(planned: Plan, place: Hub, store: LocalCas) -> tuple[Listing | None, list[Fault]]:
    """What is in the repository now (None: there is none), and the fault that others have put files there.

    Raises:
        HubError: the Hub gives no answer that can be used.
    """
    try:
        listing = place.listing(planned.order.repo)
    except HubNotFoundError:
        return None, []
    ours = {file.path for file in planned.files} | {"README.md"} | derived(planned.stem)
    _, before = history(planned, store)
    for _, said, alloy in before:
        ours |= derived(said.alloy[0].removesuffix(inventory.ALLOY))
        ours |= {str(item.get("filename")) for item in alloy["results"]["integrity"]["fileHashes"]}
    strange = [file.path for file in listing.files if file.path not in ours and file.path not in _KEPT and not is_picture(file.path)]
    if not strange:
        return listing, []
    shown = ", ".join(strange[:_MAX_FOREIGN]) + (f" and {len(strange) - _MAX_FOREIGN} more" if len(strange) > _MAX_FOREIGN else "")
    hint = "Delete them on the Hub, or publish to a repository of its own: a publication vouches for every file beside it"
    return listing, [Fault("repository", listing.repo, f"it holds files that are not of this publication: {shown}", hint)]


def outdated(made: Release, listing: Listing | None) -> tuple[str, ...]:
    """Files of an earlier publication that are no part of this one; they are deleted in the same commit."""
    paths = {one.path for one in made.entries} | set(_KEPT)
    if made.number is None:  # a preview has not what needs a signature; the publication will
        paths |= {inventory.SIGNATURE, card.PROOF_QR, made.plan.stem + inventory.PROOF}
    return tuple(file.path for file in listing.files if file.path not in paths) if listing is not None else ()


def held(made: Release, listing: Listing, place: Hub) -> Release | None:
    """The release as the repository holds it already; None when it does not, or not exactly.

    What is signed anew each time (`model.sig`), and what grows with the log (the proof, its QR), counts when it is valid for this release,
    and is given as it is there.
    """
    listed = {file.path: file for file in listing.files if file.path not in _KEPT}
    own = {one.path: one for one in made.entries}
    proof_path = made.plan.stem + inventory.PROOF
    loose = {inventory.SIGNATURE, proof_path, card.PROOF_QR}
    if set(listed) != set(own) or any(one.differs(listed[path]) for path, one in own.items() if path not in loose):
        return None
    try:
        data = place.read(listing.repo, listing.commit, proof_path, limit=_MAX_PROOF_BYTES)
        proof = Proof.from_text(data)
        if made.proof is None or (proof.envelope, proof.number) != (made.proof.envelope, made.proof.number):
            return None
        if any(row.status in ("failed", "unverified") for row in proof.check(made.plan.evidence.policy)):
            return None
        there = {path: one for path, one in own.items() if path != inventory.SIGNATURE}
        there[proof_path] = _bytes(proof_path, data)
        picture = proof_qr(proof, made.plan.order.page)
        if picture is not None:
            there[card.PROOF_QR] = _bytes(card.PROOF_QR, picture)
        if any(there[path].differs(listed[path]) for path in loose & set(there)):
            return None
        if made.model_key is not None:
            bundle = place.read(listing.repo, listing.commit, inventory.SIGNATURE, limit=oms.MAX_BUNDLE_BYTES)
            if dict(oms.verify(bundle, [made.model_key]).files) != {path: one.digest for path, one in there.items()}:
                return None
            there[inventory.SIGNATURE] = _bytes(inventory.SIGNATURE, bundle)
    except (VerificationError, HubNotFoundError):
        return None
    return replace(made, entries=tuple(there[path] for path in sorted(there)), proof=proof)


def _bytes(path: str, data: bytes) -> Entry:
    return Entry(path, data, Digest.of(data), len(data))


def publish(made: Release, place: Hub, listing: Listing | None, *, private: bool, there: bool = False, clock: Clock = time.time) -> Outcome:
    """Make the repository hold this release: one commit, unless it does already; then read it back, compare, and state it.

    Args:
        made: signed.
        place: where to.
        listing: what `look` found, without a fault; a commit that was made since is refused.
        there: the repository holds it already: it is what `held` gave.
        private: of a repository that is made.
        clock: seconds since the epoch.

    Raises:
        HubConflictError: somebody else committed meanwhile; nothing was published.
        HubMismatchError: the Hub lists something else than was sent. HubError: it gives no answer, or refuses.
    """
    repo = made.plan.order.repo
    created = listing is None
    if listing is None:
        place.create(repo, private=private)
        listing = place.listing(repo)
    commit = listing.commit
    changed = not there
    if changed:
        message = f"{made.plan.name} {made.plan.version}: {made.alloy[1].short}"
        files = {one.path: one.content for one in made.entries}
        commit = place.commit(repo, files, parent=listing.commit, message=message, delete=outdated(made, listing))
    already = None if changed else _stated(made, commit)
    if already is not None:
        return Outcome(commit=commit, changed=False, created=False, compared=len(made.entries), number=already)
    compared = len(made.entries) if not changed else compare(made, place, commit)
    alloy = canonical.loads(made.entry(made.alloy[0]).bytes())
    said = Publication(
        event=PUBLISHED,
        target=f"hf:{repo}",
        name=made.plan.name,
        version=made.plan.version,
        alloy=made.alloy,
        recipe_hash=Digest.parse(alloy["recipeHash"]) if "recipeHash" in alloy else None,
        model_hash=Digest.parse(alloy["results"]["integrity"]["modelHash"]),
        revision=commit,
        url=made.plan.url,
        files=compared,
        compared_on=record.utc(clock()),
    )
    number = made.plan.evidence.log.append([said.payload()], [said.line()])[0].number
    return Outcome(commit=commit, changed=changed, created=created, compared=compared, number=number)


def _stated(made: Release, commit: str) -> int | None:
    """The entry that says that this release was published as this commit."""
    log = made.plan.evidence.log
    for one, said in publication.counting(log.by_subject(made.alloy[1]), made.plan.evidence.policy):
        if said.event == PUBLISHED and said.target == f"hf:{made.plan.order.repo}" and said.revision == commit:
            return one.entry.number
    return None


def compare(made: Release, place: Hub, commit: str) -> int:
    """Read the listing of a commit back and compare every file: size, SHA-256, git id, and the Xet hash where the Hub gives one.

    Returns:
        how many files were compared.

    Raises:
        HubMismatchError: naming the first file that differs, with expected and got, and how many more do.
        HubError: the Hub gives no answer that can be used.
    """
    repo = made.plan.order.repo
    listing = place.listing(repo, commit)
    listed = {file.path: file for file in listing.files}
    stored = [path for path, file in listed.items() if file.sha256 is not None and path in {one.path for one in made.entries}]
    xets = place.xet(repo, commit, stored) if stored else {}
    wrong: list[tuple[str, str]] = []
    for one in made.entries:
        file = listed.get(one.path)
        if file is not None and one.path in xets:
            file = replace(file, xet=xets[one.path])
        if problem := one.differs(file):
            wrong.append((one.path, problem))
    extra = sorted(set(listed) - {one.path for one in made.entries} - set(_KEPT))
    wrong += [(path, "expected no such file") for path in extra]
    if wrong:
        path, problem = wrong[0]
        more = f"; {len(wrong) - 1} more files differ: {', '.join(name for name, _ in wrong[1:6])}" if len(wrong) > 1 else ""
        raise HubMismatchError(
            f"{repo} at commit {commit} does not hold what was sent: {path}: {problem}{more}. It is not stated as published. "
            "Publish again; if it stays so, the Hub, or something between, changes files",
            expected=problem,
            got=path,
        )
    return len(made.entries)

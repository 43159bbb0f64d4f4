"""Release a planned publication: sign it, and make everything that is derived from it.

The order is: alloy (lists every file that is loaded, by hash) -> `released` statement about the alloy -> its proof -> QR codes -> card ->
`model.sig` over all of it; then `stages.publish_commit` brings it to the Hub. Nothing refers to what is made after it, so every hash is of
something finished. Running again finds the release that was signed, and makes the same documents from it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ledger import chunks, hub, inventory, locator, lookup, oms, predicates, publication, qr, witness_folder
from ledger.alloy import HASHED, file_hashes, model_hash
from ledger.errors import QrError
from ledger.hub import HubFile
from ledger.lookup import Trusted
from ledger.proof import Proof
from ledger.publication import PUBLICATION, PUBLISHED, RELEASED, Publication
from stages import card, pictures, publish_facts, record, results
from stages.card_facts import Facts
from stages.pictures import Bar
from stages.publish_evidence import Evidence
from stages.publish_plan import Plan, gather, keys_of
from store import canonical
from store.digest import Digest
from store.errors import CanonicalError, NotFoundError

if TYPE_CHECKING:
    from ledger.keys import PublicKey, Signer
    from ledger.log import Log
    from ledger.witness import Witness
    from store.local import LocalCas

Content = Path | bytes
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the repository as it will be.

    Attributes:
        content: the file, or its bytes. xet: the Xet hash, where it was computed.
    """

    path: str
    content: Content
    digest: Digest
    size: int
    xet: str | None = None

    @property
    def oid(self) -> str:
        """Git's id of its bytes, for a file that is not in LFS."""
        return hub.git_blob_oid(self.bytes())

    def bytes(self) -> bytes:
        """All of it; only of what is not in LFS, and so small."""
        return self.content if isinstance(self.content, bytes) else self.content.read_bytes()

    def differs(self, file: HubFile | None) -> str:
        """How a listed file differs from this one; "" when it does not."""
        if file is None:
            return "it is not there"
        if file.size != self.size:
            return f"expected {self.size:,} bytes, got {file.size:,}"
        if file.sha256 is not None:
            if file.sha256 != self.digest:
                return f"expected {self.digest}, got {file.sha256}"
            if not file.pointer_agrees:
                return f"expected git id {hub.lfs_pointer_oid(self.digest, self.size)} of its LFS pointer, got {file.oid}"
            if self.xet is not None and file.xet is not None and file.xet != self.xet:
                return f"expected Xet hash {self.xet}, got {file.xet}"
            return ""
        return "" if file.oid == self.oid else f"expected git id {self.oid}, got {file.oid}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Everything that goes into the commit.

    Attributes:
        entries: sorted by path. delete: paths of an earlier publication that are no longer part of it.
        number: entry of the release; None in a preview. reused: it was signed before. alloy: name and digest.
        verify_url: what the QR holds. proof: of the release.
    """

    plan: Plan
    entries: tuple[Entry, ...]
    alloy: tuple[str, Digest]
    verify_url: str
    number: int | None = None
    reused: bool = False
    proof: Proof | None = None
    model_key: PublicKey | None = None

    def entry(self, path: str) -> Entry:
        """The file of that path, which is there."""
        return next(one for one in self.entries if one.path == path)


# --- the alloy -----------------------------------------------------------------------------------------------------------------


def alloy_bytes(planned: Plan, *, store: LocalCas, scratch: Path, when: str, earlier: Sequence[Mapping[str, Any]]) -> bytes:
    """The alloy as it is published: the recipe, results made anew from the ledger, every loaded file by hash, the receipt.

    Args:
        planned: without faults.
        store: where results are read.
        scratch: an empty folder for what is hashed as a file.
        when: it is issued, UTC.
        earlier: the publications before this one, which stay.
    """
    evidence = planned.evidence
    outputs: dict[str, dict[str, Digest]] = {}
    for stage, output, digest in planned.outputs:
        outputs.setdefault(stage, {})[output] = digest
    for what, (_, report) in planned.reports.items():
        outputs.setdefault("publish", {})[f"load-check {what}"] = report
    keys = dict.fromkeys([*keys_of(planned.alloy), *(key for key, _ in planned.reports.values())])
    finished = {key: _finished(evidence, key) for key in keys}
    alloy = {name: value for name, value in planned.alloy.items() if name not in ("results", "receipt")}
    if planned.licence.name and not alloy.get("license"):
        alloy["license"] = planned.licence.name
    told = results.results_of(planned.name, outputs, finished, store=store, log=evidence.log, policy=evidence.policy)
    published = {file.path: file.local for file in planned.files if file.local is not None}
    known = {file.path: (file.digest, file.size) for file in planned.files}
    if planned.chunks:
        name = planned.stem + chunks.ENDING
        (scratch / "chunks").write_bytes(planned.chunks)
        published[name], known[name] = scratch / "chunks", (Digest.of(planned.chunks), len(planned.chunks))
    told["integrity"]["fileHashes"] = file_hashes(published, known=known)
    weights = [(file.path, file.digest) for file in planned.files if file.path.endswith(HASHED)]
    told["integrity"]["modelHash"] = str(model_hash(weights))
    alloy["results"] = told
    target = f"hf:{planned.order.repo}"
    this = {"target": target, "url": planned.url, "publishedAt": when}
    alloy["receipt"] = {
        "publications": [*earlier, this],
        "verifyUrl": f"{planned.order.page}#{target}",
        "issuedAt": when,
        "ledger": dict(evidence.receipt),
    }
    return json.dumps(alloy, indent=2, ensure_ascii=False).encode() + b"\n"


def _finished(evidence: Evidence, key: Digest) -> str:
    """When a trusted run of an action was finished, by its statement."""
    for one in lookup.sift(evidence.log.lookup(key), evidence.policy)[0]:
        if metadata := predicates.metadata_of(one.statement):
            return str(metadata.get("finishedOn", ""))
    return ""


def core(alloy: Mapping[str, Any]) -> Any:
    """What two releases of the same thing have in common: all but when, where to, and how large the log was."""
    receipt = alloy.get("receipt")
    receipt = receipt if isinstance(receipt, Mapping) else {}
    ledger = receipt.get("ledger")
    ledger = ledger if isinstance(ledger, Mapping) else {}
    envelopes = [item.get("envelopeDigest") for item in ledger.get("entries", []) if isinstance(item, Mapping)]
    return [
        {name: value for name, value in alloy.items() if name != "receipt"},
        sorted(map(str, envelopes)),
        ledger.get("trees"),
        receipt.get("verifyUrl"),
    ]


def history(planned: Plan, store: LocalCas) -> tuple[list[Mapping[str, Any]], list[tuple[Trusted, Publication, Any]]]:
    """The publications that happened before, as receipts name them; and every trusted release to this place whose alloy is here."""
    evidence = planned.evidence
    statements = publication.counting(evidence.log.by_type(PUBLICATION), evidence.policy)
    receipts: list[Any] = [planned.alloy.get("receipt")]
    releases: list[tuple[Trusted, Publication, Any]] = []
    for one, said in statements:
        try:
            alloy = canonical.loads(store.read(said.alloy[1]))
        except (NotFoundError, CanonicalError):
            # Its alloy is gone from the store; that it was published is not.
            alloy = {"receipt": {"publications": [{"target": said.target, "url": said.url, "publishedAt": said.compared_on}]}}
            if said.event == RELEASED:
                continue
        if said.event == PUBLISHED and said.name == planned.name:
            receipts.append(alloy.get("receipt"))
        if said.event == RELEASED and said.target == f"hf:{planned.order.repo}":
            releases.append((one, said, alloy))
    known: dict[tuple[str, str], Mapping[str, Any]] = {}
    for receipt in receipts:
        listed = receipt.get("publications") if isinstance(receipt, Mapping) else None
        for item in listed if isinstance(listed, list) else []:
            if isinstance(item, Mapping):
                known.setdefault((str(item.get("target")), str(item.get("publishedAt"))), item)
    return list(known.values()), releases


# --- the release ---------------------------------------------------------------------------------------------------------------


def release(
    planned: Plan,
    facts: Facts,
    *,
    store: LocalCas,
    scratch: Path,
    model_signer: Signer | None,
    witnesses: Sequence[Witness] = (),
    clock: Clock = time.time,
) -> Release:
    """Sign the release, unless the same was signed before, and make every document.

    Args:
        planned: without faults; its log can append.
        facts: of the card.
        store: keeps the alloy.
        scratch: an empty folder.
        model_signer: of a P-256 key, for `model.sig`; None leaves it out.
        witnesses: cosign the log as it is before and after the release, so that its proof is one that somebody has seen.
        clock: seconds since the epoch.

    Raises:
        StatementError, LogError, PublicKeyError: it cannot be signed. RewrittenError: a witness has seen another log.
    """
    log = planned.evidence.log
    if witnesses:
        _cosign(log, witnesses)
        gather(planned)
    name = f"{planned.stem}{inventory.ALLOY}"
    earlier, before = history(planned, store)
    when = record.utc(clock())
    data = alloy_bytes(planned, store=store, scratch=scratch, when=when, earlier=earlier)
    alloy = canonical.loads(data)
    wanted = core(alloy)
    same = next(((one, said) for one, said, held in reversed(before) if core(held) == wanted and said.alloy[0] == name), None)
    if same is not None:
        number, digest = same[0].entry.number, same[1].alloy[1]
        data = store.read(digest)
    else:
        digest = store.put(data)
        statement = Publication(
            event=RELEASED,
            target=f"hf:{planned.order.repo}",
            name=planned.name,
            version=planned.version,
            alloy=(name, digest),
            recipe_hash=Digest.parse(alloy["recipeHash"]) if "recipeHash" in alloy else None,
            model_hash=Digest.parse(alloy["results"]["integrity"]["modelHash"]),
        )
        number = log.append([statement.payload()], [statement.line()])[0].number
    _cosign(log, witnesses)
    proof = Proof.of(log, number)
    made = _documents(planned, facts, data, proof, model_signer)
    return replace(made, number=number, reused=same is not None, proof=proof)


def _cosign(log: Log, witnesses: Sequence[Witness]) -> None:
    for one in witnesses:
        witness_folder.keep(log, one.cosign_log(log))


def previewable(planned: Plan) -> bool:
    """Whether a preview can be made in spite of its faults: every file is here as attested, and none has the name of another."""
    known = all(one.check not in ("bytes", "statements") for one in planned.faults)
    here = {file.path for file in planned.files if file.local is not None}
    named = any(file.path.endswith(HASHED) for file in planned.files) and len(here) == len(planned.files)
    return known and named and here.isdisjoint({"README.md"} | derived(planned.stem)) and not any(is_picture(path) for path in here)


def preview(planned: Plan, facts: Facts, *, store: LocalCas, scratch: Path, clock: Clock = time.time) -> Release:
    """The same without signing anything: no release, so neither its proof nor `model.sig`."""
    earlier, _ = history(planned, store)
    data = alloy_bytes(planned, store=store, scratch=scratch, when=record.utc(clock()), earlier=earlier)
    return _documents(planned, facts, data, None, None)


def _documents(planned: Plan, facts: Facts, alloy: bytes, proof: Proof | None, model_signer: Signer | None) -> Release:
    """Every file of the repository, made from the alloy and the proof of its release."""
    stem, page = planned.stem, planned.order.page
    name, digest = f"{stem}{inventory.ALLOY}", Digest.of(alloy)
    url = locator.verify_url(planned.order.repo, digest, page)
    lines = [*planned.evidence.lines, *([proof.envelope] if proof is not None else [])]
    made: dict[str, bytes] = {
        name: alloy,
        stem + inventory.ATTESTATIONS: b"".join(line + b"\n" for line in lines),
        card.VERIFY_QR: qr.png(url),
    }
    if planned.chunks:
        made[stem + chunks.ENDING] = planned.chunks
    if proof is not None:
        made[stem + inventory.PROOF] = proof.to_text()
        packed = proof_qr(proof, page)
        if packed is not None:
            made[card.PROOF_QR] = packed
    drawn = draw(planned, facts)
    made |= {path: picture.encode() for path, (picture, _) in drawn.items()}
    facts = replace(
        facts,
        alloy=name,
        alloy_digest=digest.hex,
        verify_url=url,
        # As large as when it was released: the same release has the same card, however the log grew since.
        log=(planned.evidence.log.origin, proof.number + 1 if proof is not None else planned.evidence.log.size),
        release=proof.number if proof is not None else None,
        model_key=str(model_signer.public) if model_signer is not None else None,
        proof_qr=card.PROOF_QR in made,
        pictures={path: words for path, (_, words) in drawn.items()},
    )
    made["README.md"] = card.render(facts).encode()
    xets = {item["filename"]: item.get("xetHash") for item in canonical.loads(alloy)["results"]["integrity"]["fileHashes"]}
    entries = [Entry(path, content, Digest.of(content), len(content), xets.get(path)) for path, content in made.items()]
    entries += [
        Entry(file.path, file.local, file.digest, file.size, xets.get(file.path)) for file in planned.files if file.local is not None
    ]
    if model_signer is not None:
        bundle = oms.sign({one.path: one.digest for one in entries}, model_signer, name=planned.name)
        entries.append(Entry(inventory.SIGNATURE, bundle, Digest.of(bundle), len(bundle)))
    return Release(
        plan=planned,
        entries=tuple(sorted(entries, key=lambda one: one.path)),
        alloy=(name, digest),
        verify_url=url,
        model_key=model_signer.public if model_signer is not None else None,
    )


def proof_qr(proof: Proof, page: str) -> bytes | None:
    """The picture that holds the whole proof; None when it is too long for one."""
    try:
        return qr.png(proof.to_qr(page))
    except QrError:
        return None  # many witnesses: the proof is beside the alloy all the same


def draw(planned: Plan, facts: Facts) -> dict[str, tuple[str, str]]:
    """Path -> (SVG, what it shows) of the pictures that there are numbers for."""
    drawn: dict[str, tuple[str, str]] = {}
    for number, table in enumerate(facts.tables):
        suffix = f"-{number}" if number else ""
        bars = [
            Bar(f"{row.variant} {row.tier}", row.measured.value, row.measured.low, row.measured.high, own=bool(row.file))
            for row in table.rows
        ]
        title = f"Perplexity on {table.dataset}, {table.scored:,} tokens"
        unit = "perplexity with its 95 % interval; further left is better"
        drawn[card.PERPLEXITY.format(suffix)] = pictures.intervals(bars, title=title, unit=unit), title
        changes = [(row, row.difference) for row in table.rows if row.difference is not None]
        if changes:
            bars = [
                Bar(f"{row.variant} {row.tier}", change.percent, change.low, change.high, own=bool(row.file)) for row, change in changes
            ]
            limit = next((change.limit for _, change in changes if change.limit is not None), None)
            marks = [(0.0, "no difference"), *([(limit, f"limit {limit:+g} %")] if limit is not None else [])]
            title = f"Perplexity against the base of the same type, on {table.dataset}"
            unit = "paired difference in per cent with its 95 % interval; further left is better"
            drawn[card.DIFFERENCE.format(suffix)] = pictures.intervals(bars, title=title, unit=unit, marks=marks, signed=True), title
    points = publish_facts.loss_points(planned.evidence, planned.made)
    if len(points) > 1:
        drawn[card.LOSS] = pictures.loss(points, title="Loss of the training"), "Loss of the training, as its segments noted it"
    return drawn


def derived(stem: str) -> set[str]:
    """What a publication makes itself, but for pictures."""
    endings = (inventory.ALLOY, inventory.ATTESTATIONS, inventory.PROOF, chunks.ENDING)
    return {stem + ending for ending in endings} | {inventory.SIGNATURE, card.PROOF_QR, card.VERIFY_QR}


def is_picture(path: str) -> bool:
    """Whether a file is one that `draw` makes, by its path."""
    return path.startswith("assets/") and path.endswith(".svg") and path.count("/") == 1

"""`ledger verify --offline`: what a proof proves that came in a picture, a text or a file. No network, no ledger, the policy alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cli.errors import UsageError
from cli.output import clean

if TYPE_CHECKING:
    from ledger.policy import Policy
    from ledger.proof import Proof
    from ledger.report import Report


def offline(target: str, file: Path | None, policy: Policy) -> Report:
    """Check a proof, and whether a file is the one that it is about.

    Args:
        target: a picture with the proof's QR, a `.tlog-proof`, or the text of the QR.
        file: the alloy that was stated, or a file that the alloy beside or above it lists; None to judge the proof alone.
        policy: whom to trust.

    Raises:
        UsageError: the target or the file is none of these. QrError: no code can be read in the picture. ProofError: it is no proof.
        StoreError: a file cannot be read.
    """
    from ledger.proof import examine_file
    from ledger.report import Report, Row
    from store import files
    from store.digest import Digest

    proof = _proof(target)
    inputs = {"proof": Digest.of(proof.to_text())}
    rows = proof.check(policy)
    if file is None:
        text = "whether a file of yours is the one that the statement is about: none was given"
        rows = (*rows, Row("unverified", text, "name it too: ledger verify --offline PROOF FILE"))
        return Report(_shown(target), rows, proof.subjects, inputs)
    if not file.is_file():
        raise UsageError(
            f"{clean(file)} is not a file; name the alloy, or one file that it lists. For a folder: ledger verify {clean(file)}"
        )
    digest, _ = files.hash_file(file)
    said = {row.status for row in rows if not row.aside}
    found = examine_file(file, digest, proof, believed="proven" in said and "failed" not in {row.status for row in rows})
    return Report(str(file), (*found, *rows), {file.name: digest}, inputs)


def _proof(target: str) -> Proof:
    from ledger import qr
    from ledger.proof import FRAGMENT, MAX_PROOF_BYTES, Proof, is_packed
    from store import files

    if is_packed(target):
        return Proof.from_qr(target)
    path = Path(target)
    if len(target) > 4096 or not path.is_file():
        raise UsageError(f"{_shown(target)} is no file, and no text of a proof's QR (a URL that ends in #{FRAGMENT} and digits)")
    if not qr.is_picture(path):
        data = files.read_small(path, MAX_PROOF_BYTES)
        text = data.decode("utf-8", "replace")
        return Proof.from_qr(text) if is_packed(text) else Proof.from_text(data)
    texts = qr.read(path)
    proofs = [text for text in texts if is_packed(text)]
    if len(proofs) > 1:
        raise UsageError(f"{path} shows {len(proofs)} proofs; cut out the one that is meant")
    if not proofs:
        raise UsageError(
            f"what can be read in {path} is no proof; it says {clean(texts[0][:200])}. With network: ledger verify {path}. Without: "
            "proof-qr.png, which lies beside it, holds the whole proof"
        )
    return Proof.from_qr(proofs[0])


def _shown(target: str) -> str:
    return clean(target if len(target) <= 100 else target[:100] + "..")

"""Public test suites, as data in tests/vectors: every case of each, and each exception from it named with its reason."""

from __future__ import annotations

import json
from base64 import b64decode
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ledger import note, oms, tlog
from ledger.errors import LedgerError, NoteError, ProofError, PublicKeyError, SignatureError
from ledger.keys import ECDSA_P256, ED25519, PublicKey

VECTORS = Path(__file__).parents[1] / "vectors"


def load(name: str) -> Any:
    return json.loads((VECTORS / name).read_text())


# --- signatures ----------------------------------------------------------------------------------------------------------------------


def judged(vector: dict[str, Any]) -> str:
    """What becomes of an Ed25519 vector: its key or its signature is refused, or it is accepted."""
    try:
        key = PublicKey(ED25519, bytes.fromhex(vector["key"]))
    except PublicKeyError:
        return "key"
    try:
        key.verify(bytes.fromhex(vector["sig"]), vector["msg"].encode())
    except SignatureError:
        return "signature"
    return "accepted"


def expected(flags: set[str]) -> str:
    """The one rule for edge cases of Ed25519.

    A key of small order, in whatever encoding, could sign anything, so it is never a key. A point R that is not canonically encoded is
    refused as RFC 8032 demands, and a signature that holds only after multiplication by the cofactor, as most verifiers do. What is left
    differs by components of small order that the signer chose himself: only he can make such signatures, and no other message is signed.
    """
    if "low_order_A" in flags:
        return "key"
    return "signature" if flags & {"non_canonical_R", "low_order_residue"} else "accepted"


def test_edge_cases_of_ed25519() -> None:
    """All 914 of CCTV, by one rule; a non-canonical A among them is always one of small order."""
    vectors = load("ed25519/cctv.json")
    found = Counter[str]()
    for vector in vectors:
        flags = set(vector["flags"] or ())
        assert judged(vector) == expected(flags), vector
        assert "non_canonical_A" not in flags or "low_order_A" in flags
        found[judged(vector)] += 1
    assert found == {"key": 526, "signature": 302, "accepted": 86}


def test_all_wycheproof_vectors_of_p256() -> None:
    """The 174 valid signatures verify, the 310 others do not: malleable encodings, zeros, numbers beyond the order, garbage."""
    found = Counter[tuple[str, bool]]()
    for group in load("ecdsa-p256/wycheproof.json")["testGroups"]:
        point = bytes.fromhex(group["publicKey"]["uncompressed"])
        key = PublicKey(ECDSA_P256, bytes([2 | point[64] & 1]) + point[1:33])
        for case in group["tests"]:
            try:
                key.verify(bytes.fromhex(case["sig"]), bytes.fromhex(case["msg"]))
                accepted = True
            except SignatureError:
                accepted = False
            assert accepted == (case["result"] == "valid"), case
            found[case["result"], accepted] += 1
    assert found == {("valid", True): 174, ("invalid", False): 310}


# --- the Merkle tree -----------------------------------------------------------------------------------------------------------------


def raw(text: str | None) -> bytes:
    return b64decode(text or "")


def probe(kind: str, case: dict[str, Any]) -> None:
    """Run one probe of transparency-dev/merkle.

    Its subtree proofs are of a later draft; where the subtree is a tree of its own they are ordinary proofs, and are tried as such.
    """
    proof = [raw(item) for item in case["proof"] or []]
    if kind == "inclusion":
        tlog.verify_inclusion(raw(case["leafHash"]), case["leafIdx"], case["treeSize"], proof, raw(case["root"]))
    elif kind == "subtreeinclusion":
        if case["leafIdx"] < case["start"]:
            raise ProofError("the leaf is not in the subtree")
        size = case["end"] - case["start"]
        tlog.verify_inclusion(raw(case["leafHash"]), case["leafIdx"] - case["start"], size, proof, raw(case["root"]))
    elif kind == "consistency":
        tlog.verify_consistency(case["size1"], raw(case["root1"]), case["size2"], raw(case["root2"]), proof)
    else:
        tlog.verify_consistency(case["end"], raw(case["root1"]), case["size"], raw(case["root2"]), proof)


SHORT_ROOTS = {f"{kind}/additional/sizes-are-equal-one-and-proof-is-empty" for kind in ("consistency", "subtreeconsistency")}
"""A root of 12 bytes is taken there when the sizes are equal; here every root has 32."""


def test_merkle_probes() -> None:
    """All inclusion and consistency probes, and the subtree ones that say something about whole trees."""
    tried = Counter[tuple[str, bool]]()
    for name, case in load("merkle/probes.json").items():
        kind = name.partition("/")[0]
        if kind == "subtreeconsistency" and (case["start"] != 0 or case["end"] == 0):
            continue  # of a subtree that does not begin at the first leaf, or of none: RFC 6962 has no such operation
        try:
            probe(kind, case)
            refused = False
        except ProofError:
            refused = True
        assert refused == (case["wantErr"] or name in SHORT_ROOTS), (name, case)
        tried[kind, refused] += 1
    assert sum(tried.values()) >= 400
    assert all(tried[kind, refused] for kind in ("inclusion", "consistency", "subtreeinclusion") for refused in (True, False))


# --- Sigstore bundles ----------------------------------------------------------------------------------------------------------------

SIGSTORE = load("sigstore/cases.json")


@pytest.mark.parametrize("name", sorted(SIGSTORE))
def test_no_sigstore_bundle_passes_for_a_signed_model(name: str) -> None:
    """49 of the 70 must fail everywhere; the others sign the hash of a file, or with a certificate: no signature of a model either."""
    case = SIGSTORE[name]
    try:
        keys = [oms.EcKey(case.get("key", SIGSTORE["managed-key-happy-path"]["key"]).encode())]
    except PublicKeyError:
        assert name == "managed-key-wrong-key_fail"  # its key is no PEM at all
        keys = []
    with pytest.raises(LedgerError):
        oms.verify(case["bundle"].encode(), keys)


def test_managed_keys_of_sigstore_sign_what_they_say() -> None:
    """The key of the two good cases verifies the bytes of the artifact, and no others."""
    artifact = (VECTORS / "sigstore" / "a.txt").read_bytes()
    for name in ("managed-key-happy-path", "managed-key-and-trusted-root"):
        case = SIGSTORE[name]
        signature = b64decode(json.loads(case["bundle"])["messageSignature"]["signature"])
        key = oms.EcKey(case["key"].encode())
        key.verify(signature, artifact)
        with pytest.raises(SignatureError, match="not a valid signature"):
            key.verify(signature, artifact + b"x")


def test_inclusion_proofs_of_rekor() -> None:
    """Real logs of up to 650 million entries: our tree accepts every proof but the two that were damaged."""
    found: dict[bool, list[str]] = {True: [], False: []}
    for name, case in SIGSTORE.items():
        try:
            (entry,) = json.loads(case["bundle"])["verificationMaterial"]["tlogEntries"]
            proof = entry["inclusionProof"]
            leaf, root = tlog.leaf_hash(b64decode(entry["canonicalizedBody"])), b64decode(proof["rootHash"])
        except (ValueError, KeyError):
            continue  # the case is about a bundle without them
        try:
            hashes = [b64decode(item) for item in proof.get("hashes", [])]
            tlog.verify_inclusion(leaf, int(proof["logIndex"]), int(proof["treeSize"]), hashes, root)
            found[True].append(name)
        except ProofError:
            found[False].append(name)
    assert len(found[True]) >= 60
    assert all(name.endswith("_fail") for name in found[False])
    assert "inclusion-proof-corrupted-hash_fail" in found[False]


def test_checkpoints_of_rekor() -> None:
    """Those of Rekor v2 are read as C2SP writes them, with their cosignatures; those without an origin, size or root are refused."""
    refused = []
    for name, case in SIGSTORE.items():
        if not name.startswith("rekor2-") or name == "rekor2-no-inclusion-proof_fail":
            continue
        proof = json.loads(case["bundle"])["verificationMaterial"]["tlogEntries"][0]["inclusionProof"]
        try:
            checkpoint = note.parse_note(proof["checkpoint"]["envelope"].encode()).checkpoint
        except NoteError:
            refused.append(name)
            continue
        assert (checkpoint.size, checkpoint.root) == (int(proof["treeSize"]), b64decode(proof["rootHash"]))
    assert refused == [f"rekor2-checkpoint-missing-{what}_fail" for what in ("log-signature", "origin", "root-hash", "size")]

"""in-toto and DSSE both ways: the packages `in-toto-attestation` and `securesystemslib` read ours, and we read theirs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from google.protobuf import json_format
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
from in_toto_attestation.v1.statement import Statement as TheirStatement
from securesystemslib.dsse import Envelope as TheirEnvelope
from securesystemslib.exceptions import VerificationError as TheirError
from securesystemslib.signer import CryptoSigner, SSlibKey

from ledger import dsse, oms, predicates, statement
from ledger.dsse import Envelope
from ledger.errors import SignatureError
from ledger.keys import ECDSA_P256, ED25519, Ed25519Signer, P256Signer, PublicKey, Signer
from ledger.predicates import KeyEvent
from ledger.publication import PUBLICATION, Publication
from ledger.statement import Statement
from ledger.testing import UnsafeSigner, chain_of_runs, run_payload
from store.digest import Digest

ALICE = UnsafeSigner("alice")
EVENT = KeyEvent(event="revoked", key=ALICE.public, from_entry=7, reason="lost")
RELEASE = Publication(event="released", target="hf:org/tiny", name="tiny", version="1.0.0", alloy=("tiny.alloy.json", Digest.of(b"{}")))
SIGNER_P256 = P256Signer("carol", ec.derive_private_key(2**200 + 7, ec.SECP256R1()))

PAYLOADS = {
    "run": run_payload(*chain_of_runs(2)[1], byproducts={"seconds": 1.5}),
    "run in an environment": run_payload(*chain_of_runs(1)[0], purity="E", environment={"torch": "2.13", "threads": 1}),
    "key event": statement.make(EVENT.subjects(), predicates.KEY_EVENT, EVENT.predicate()),
    "publication": RELEASE.payload(),
    "evaluation": statement.make({"tiny-Q4_K_M.gguf": Digest.of(b"gguf")}, predicates.EVALUATION, {"perplexity": "42.9", "samples": 48}),
    "names": statement.make({"é/ü 1.txt": Digest.of(b"1"), "b": Digest.of(b"2")}, "https://example.com/seen/v1", {"by": None}),
}


def theirs(payload: bytes) -> Any:
    """A payload as the protocol buffer of in-toto; unknown fields are an error."""
    return json_format.Parse(payload, statement_pb2.Statement())


# --- statements ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(PAYLOADS))
def test_in_toto_reads_our_statements(kind: str) -> None:
    """Type, subjects, predicate type and predicate are as we read them; its validation finds nothing."""
    ours, read = Statement.parse(PAYLOADS[kind]), theirs(PAYLOADS[kind])
    TheirStatement.copy_from_pb(read).validate()
    assert {item.name: item.digest["sha256"] for item in read.subject} == {name: digest.hex for name, digest in ours.subjects.items()}
    assert read.predicate_type == ours.predicate_type
    assert json_format.MessageToDict(read.predicate) == json.loads(json.dumps(dict(ours.predicate)))


def test_in_toto_reads_the_statement_of_a_model_signature() -> None:
    """The payload of `model.sig`."""
    bundle = oms.sign({"a": Digest.of(b"a")}, SIGNER_P256, name="tiny")
    read = theirs(Envelope.parse(json.dumps(json.loads(bundle)["dsseEnvelope"]).encode()).payload)
    TheirStatement.copy_from_pb(read).validate()


def test_we_read_statements_of_in_toto() -> None:
    """Its own JSON, spaced and ordered in its own way."""
    subject = ResourceDescriptor(name="tiny", digest={"sha256": Digest.of(b"x").hex, "gitBlob": "0" * 40})
    made = TheirStatement([subject.pb], "https://slsa.dev/verification_summary/v1", {"verifier": {"id": "https://example.com"}, "ok": True})
    made.validate()
    found = Statement.parse(json_format.MessageToJson(made.pb).encode())
    assert dict(found.subjects) == {"tiny": Digest.of(b"x")}
    assert (found.predicate_type, found.predicate["ok"]) == ("https://slsa.dev/verification_summary/v1", True)


# --- envelopes -----------------------------------------------------------------------------------------------------------------------


def their_key(public: PublicKey, keyid: str) -> SSlibKey:
    if public.algorithm == ED25519:
        return SSlibKey.from_crypto(ed25519.Ed25519PublicKey.from_public_bytes(public.raw), keyid)
    return SSlibKey.from_crypto(ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public.raw), keyid)


@pytest.mark.parametrize("signer", [ALICE, SIGNER_P256], ids=["ed25519", "ecdsa-p256"])
@pytest.mark.parametrize("kind", sorted(PAYLOADS))
def test_securesystemslib_verifies_our_envelopes(kind: str, signer: Signer) -> None:
    """The payload is ours; a changed payload, another type and another key are refused."""
    envelope = dsse.sign(PAYLOADS[kind], signer)
    keys = [their_key(signer.public, str(signer.public))]
    read = TheirEnvelope.from_dict(json.loads(envelope))
    assert list(read.verify(keys, 1)) == [str(signer.public)]
    assert (read.payload, read.payload_type) == (PAYLOADS[kind], "application/vnd.in-toto+json")
    assert read.pae() == dsse.pae(dsse.PAYLOAD_TYPE, PAYLOADS[kind])
    for fault in ({"payload": b"{}"}, {"payload_type": "text/plain"}):
        broken = TheirEnvelope.from_dict(json.loads(envelope))
        vars(broken).update(fault)
        with pytest.raises(TheirError):
            broken.verify(keys, 1)
    with pytest.raises(TheirError):
        read.verify([their_key(UnsafeSigner("mallory").public, str(signer.public))], 1)


@pytest.mark.parametrize("kind", [ED25519, ECDSA_P256])
def test_we_verify_envelopes_of_securesystemslib(kind: str) -> None:
    """Signed by its signer with its key id, in its JSON; with a second signature by somebody unknown."""
    private = ed25519.Ed25519PrivateKey.generate() if kind == ED25519 else ec.generate_private_key(ec.SECP256R1())
    public = Ed25519Signer("x", private).public if isinstance(private, ed25519.Ed25519PrivateKey) else P256Signer("x", private).public
    made = TheirEnvelope(PAYLOADS["publication"], dsse.PAYLOAD_TYPE, {})
    made.sign(CryptoSigner(private))
    made.sign(CryptoSigner(ed25519.Ed25519PrivateKey.generate()))
    envelope = Envelope.parse(json.dumps(made.to_dict(), indent=2).encode())
    assert dsse.verify(envelope, [ALICE.public, public]) == {public}
    assert Statement.parse(envelope.payload).predicate_type == PUBLICATION
    with pytest.raises(SignatureError):
        dsse.verify(envelope, [ALICE.public])

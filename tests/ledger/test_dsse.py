"""The envelope: the protocol's own vector, and no byte that can change unseen."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode, urlsafe_b64encode
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from ledger import dsse
from ledger.dsse import MAX_ENVELOPE_BYTES, MAX_SIGNATURES, PAYLOAD_TYPE, Envelope, pae, sign, verify
from ledger.errors import EnvelopeError, SignatureError
from ledger.keys import PublicKey
from ledger.testing import UnsafeSigner

VECTOR = json.loads((Path(__file__).parents[1] / "vectors" / "dsse" / "protocol-example.json").read_text())
ALICE, BOB, CAROL = (UnsafeSigner(name) for name in ("alice", "bob", "carol"))
PAYLOAD = '{"bytes":"not characters: é — 😀","?":">>>???~~~"}'.encode()


def envelope(payload: bytes, *signers: UnsafeSigner, kind: str = PAYLOAD_TYPE, **changes: Any) -> bytes:
    """An envelope as somebody else's program might write it."""
    signatures = [{"sig": b64encode(signer.sign(pae(kind, payload))).decode()} for signer in signers]
    return json.dumps({"payloadType": kind, "payload": b64encode(payload).decode(), "signatures": signatures} | changes).encode()


# --- what is signed ----------------------------------------------------------------------------------------------------------------


def test_the_protocols_own_vector() -> None:
    """PAE and ECDSA P-256 signature of protocol.md; the signature there is raw r and s, ours are DER."""
    body, example = VECTOR["payload_utf8"].encode(), VECTOR["ecdsa_p256_sha256"]
    assert pae(VECTOR["payloadType"], body) == VECTOR["pae_utf8"].encode()
    numbers = ec.EllipticCurvePublicNumbers(int(example["x"]), int(example["y"]), ec.SECP256R1())
    key = PublicKey("ecdsa-p256", numbers.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint))
    raw = b64decode(example["sig_base64"])
    der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    text = envelope(body, kind=VECTOR["payloadType"], signatures=[{"keyid": "66301bbf", "sig": b64encode(der).decode()}])
    parsed = Envelope.parse(text)
    assert verify(parsed, [ALICE.public, key], payload_type=VECTOR["payloadType"]) == {key}


def test_lengths_count_bytes() -> None:
    """An umlaut counts two."""
    assert pae("ä", "ö".encode()) == "DSSEv1 2 ä 2 ö".encode()


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), st.binary(max_size=8), st.text(max_size=0), st.binary(max_size=8))
def test_two_contents_never_have_one_pae(kind: str, body: bytes, other: str, tail: bytes) -> None:
    """No byte can move from one field to the next."""
    texts = {pae(kind, body), pae(kind, body + tail), pae(kind + "x", body), pae(other, kind.encode() + body)}
    assert len(texts) == len({(kind, body), (kind, body + tail), (kind + "x", body), (other, kind.encode() + body)})


@given(st.binary(max_size=200))
def test_round_trip(payload: bytes) -> None:
    """What was signed is what is read, the bytes are kept, and the keyid is the key's text."""
    data = sign(payload, ALICE)
    parsed = Envelope.parse(data)
    assert (parsed.raw, parsed.payload, parsed.payload_type) == (data, payload, PAYLOAD_TYPE)
    assert parsed.signatures[0].keyid == str(ALICE.public)
    assert verify(parsed, [BOB.public, ALICE.public]) == {ALICE.public}


# --- who signed --------------------------------------------------------------------------------------------------------------------


def test_the_signers_are_counted_by_key() -> None:
    """The same key twice, also under two keyids, is one signer; strangers count for nothing."""
    parsed = Envelope.parse(envelope(PAYLOAD, ALICE, ALICE, BOB, CAROL))
    assert verify(parsed, [ALICE.public, ALICE.public, BOB.public]) == {ALICE.public, BOB.public}
    sig = b64encode(ALICE.sign(pae(PAYLOAD_TYPE, PAYLOAD))).decode()
    twice = envelope(PAYLOAD, signatures=[{"keyid": "one", "sig": sig}, {"keyid": "two", "sig": sig}])
    assert verify(Envelope.parse(twice), [ALICE.public, BOB.public]) == {ALICE.public}


def test_a_keyid_proves_nothing() -> None:
    """A stranger's signature under a trusted key's id is a stranger's; a trusted one under a stranger's id is trusted."""
    sig = {signer: b64encode(signer.sign(pae(PAYLOAD_TYPE, PAYLOAD))).decode() for signer in (ALICE, BOB)}
    forged = envelope(PAYLOAD, signatures=[{"keyid": str(ALICE.public), "sig": sig[BOB]}])
    with pytest.raises(SignatureError, match=f"by any of 1 known keys.*'{ALICE.public.short[:15]}"):
        verify(Envelope.parse(forged), [ALICE.public])
    assert verify(Envelope.parse(forged), [ALICE.public, BOB.public]) == {BOB.public}
    for keyid in (str(BOB.public), "", None):
        assert verify(Envelope.parse(envelope(PAYLOAD, signatures=[{"keyid": keyid, "sig": sig[ALICE]}])), [ALICE.public, BOB.public]) == {
            ALICE.public
        }


def test_no_signer_is_an_error_that_shows_the_hints() -> None:
    """No keys, or a hint that is missing, very long, or meant for a terminal."""
    with pytest.raises(SignatureError, match="any of 0 known keys"):
        verify(Envelope.parse(sign(PAYLOAD, ALICE)), [])
    sigs = [{"sig": "AA=="}, {"sig": "AA==", "keyid": "k" * 99}, {"sig": "AA==", "keyid": "\x1b[2J"}]
    with pytest.raises(SignatureError, match=r"signed by nobody it names, 'k{60}\.\.', '\\x1b\[2J'"):
        verify(Envelope.parse(envelope(PAYLOAD, signatures=sigs)), [ALICE.public])


def test_another_payload_type_is_refused_though_the_signature_is_good() -> None:
    """Bytes signed as something else are no statement."""
    parsed = Envelope.parse(sign(PAYLOAD, ALICE, payload_type="text/plain"))
    with pytest.raises(SignatureError, match=r"'text/plain'; expected 'application/vnd\.in-toto"):
        verify(parsed, [ALICE.public])
    assert verify(parsed, [ALICE.public], payload_type="text/plain") == {ALICE.public}


def test_a_signature_for_another_type_or_payload_is_refused() -> None:
    """Type and payload are both signed."""
    sig = [{"sig": b64encode(ALICE.sign(pae("text/plain", PAYLOAD))).decode()}]
    for payload in (PAYLOAD, PAYLOAD + b" "):
        with pytest.raises(SignatureError):
            verify(Envelope.parse(envelope(payload, signatures=sig)), [ALICE.public])


# --- the form ----------------------------------------------------------------------------------------------------------------------


def test_both_alphabets_are_accepted_and_unknown_fields_ignored_but_kept() -> None:
    """As protocol.md demands."""
    text = json.loads(envelope(PAYLOAD, ALICE))
    assert {"+", "/"} & set(text["payload"])
    text |= {"payload": urlsafe_b64encode(PAYLOAD).decode(), "extra": {"payload": "x"}}
    data = json.dumps(text, indent=2).encode()
    parsed = Envelope.parse(data)
    assert parsed.raw == data
    assert parsed.payload == PAYLOAD
    assert verify(parsed, [ALICE.public]) == {ALICE.public}


GOOD = json.loads(envelope(PAYLOAD, ALICE))
TEXT = json.dumps(GOOD)
BAD = {
    "not strict JSON": b"{",
    "key given twice: 'payload'": TEXT.replace("{", '{"payload": "AAAA", ', 1).encode(),
    "key given twice: 'sig'": TEXT.replace('{"sig"', '{"sig": "AA==", "sig"').encode(),
    "byte order mark": b"\xef\xbb\xbf" + TEXT.encode(),
    "can't decode": TEXT.replace("vnd", "v\udcff").encode("utf-8", "surrogateescape"),
    "is a JSON object; got list": b"[]",
    "is a JSON object; got nothing": b"null",
    "payload is text; got nothing": json.dumps({**GOOD, "payload": None}).encode(),
    "payload is text; got int": json.dumps({**GOOD, "payload": 1}).encode(),
    "payloadType is text": json.dumps({**GOOD, "payloadType": []}).encode(),
    "surrogates not allowed": json.dumps({**GOOD, "payloadType": "\ud800"}).encode(),
    "1 to 64 signatures; got list of length 0": json.dumps({**GOOD, "signatures": []}).encode(),
    "1 to 64 signatures; got list of length 65": json.dumps({**GOOD, "signatures": GOOD["signatures"] * (MAX_SIGNATURES + 1)}).encode(),
    "1 to 64 signatures; got dict": json.dumps({**GOOD, "signatures": {}}).encode(),
    "1 to 64 signatures; got nothing": json.dumps({**GOOD, "signatures": None}).encode(),
    "signature 0 is not an object but str": json.dumps({**GOOD, "signatures": ["x"]}).encode(),
    "sig is text; got nothing": json.dumps({**GOOD, "signatures": [{}]}).encode(),
    "keyid of signature 0 is not text but int": json.dumps({**GOOD, "signatures": [{"sig": "AA==", "keyid": 1}]}).encode(),
    "payload is not base64": json.dumps({**GOOD, "payload": "AAA"}).encode(),
    "payload is not base64: 'ascii'": json.dumps({**GOOD, "payload": "ÄÄÄÄ"}).encode(),
    "base64 of the payload is not canonical": json.dumps({**GOOD, "payload": "AB=="}).encode(),
    "payload is not base64: Only": json.dumps({**GOOD, "payload": "AAAA\n"}).encode(),
    "base64 of the payload is not canonic": json.dumps({**GOOD, "payload": "+A_A"}).encode(),
    "signature 0 is not base64": json.dumps({**GOOD, "signatures": [{"sig": "A==="}]}).encode(),
}


@pytest.mark.parametrize("message", BAD)
def test_malformed_envelopes_are_refused(message: str) -> None:
    """Each for its own reason, which is told."""
    with pytest.raises(EnvelopeError, match=message):
        Envelope.parse(BAD[message])


def test_absurd_sizes_are_refused_before_parsing_and_before_writing() -> None:
    """So no envelope can be signed that no reader would take."""
    with pytest.raises(EnvelopeError, match=r"at most 16777216 are read"):
        Envelope.parse(b" " * (MAX_ENVELOPE_BYTES + 1))
    with pytest.raises(EnvelopeError, match="make byproducts smaller"):
        sign(b"x" * (MAX_ENVELOPE_BYTES * 3 // 4), ALICE)


# --- every single-byte change ------------------------------------------------------------------------------------------------------


def stands_for(data: bytes, *signers: UnsafeSigner) -> tuple[bytes, str, frozenset[PublicKey]]:
    """Payload, type and signers of an envelope that verifies."""
    parsed = Envelope.parse(data)
    return parsed.payload, parsed.payload_type, verify(parsed, [signer.public for signer in signers])


def test_every_single_byte_change_fails_or_changes_nothing() -> None:
    """All 255 other values of every byte, every deletion, every doubling, of an envelope as we write it.

    What passes differs only in the hint, in the alphabet of base64, in white space or in the name of an unread field.
    """
    data = sign(b'{"a": "statement"}', ALICE)
    meaning = stands_for(data, ALICE)
    survivors = 0
    for at in range(len(data)):
        changed = [data[:at] + bytes([value]) + data[at + 1 :] for value in range(256)]
        for bent in (*changed, data[:at] + data[at + 1 :], data[: at + 1] + data[at:]):
            if bent == data:
                continue
            try:
                assert stands_for(bent, ALICE) == meaning
            except SignatureError:
                continue
            survivors += 1
    assert survivors < 256 * (len(str(ALICE.public)) + len("keyid") + 4) + len(data)


def test_a_changed_byte_in_one_of_two_signatures_costs_only_that_signer() -> None:
    """Payload and type stay, and nobody is added."""
    data = envelope(b"{}", ALICE, BOB)
    payload, kind, signers = stands_for(data, ALICE, BOB)
    for at in range(len(data)):
        for flip in (1, 2, 4, 8, 16, 32, 64, 128):
            try:
                bent = stands_for(data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :], ALICE, BOB)
            except SignatureError:
                continue
            assert bent[:2] == (payload, kind)
            assert bent[2] <= signers


def test_every_truncation_is_refused() -> None:
    """A cut envelope is no JSON."""
    data = sign(PAYLOAD, ALICE)
    for end in range(len(data)):
        with pytest.raises(EnvelopeError):
            Envelope.parse(data[:end])


def test_envelopes_are_equal_when_their_bytes_are() -> None:
    """The raw bytes are a leaf of the log."""
    data = sign(PAYLOAD, ALICE)
    assert Envelope.parse(data) == Envelope.parse(data)
    assert Envelope.parse(data) != Envelope.parse(data + b"\n")
    assert dsse.PAYLOAD_TYPE == "application/vnd.in-toto+json"

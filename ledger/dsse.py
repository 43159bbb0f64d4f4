"""The DSSE envelope: payload bytes, their type, and signatures over both with their lengths.

What is signed is the PAE, `DSSEv1 SP len(type) SP type SP len(body) SP body` with lengths in bytes, so no byte can move from one
field to another. A keyid is a hint that says which key to try first; it proves nothing. Read the payload from the envelope that was
verified, and only after `verify`; the envelope's own bytes are kept as they came (`raw`), because they are a leaf of the log's Merkle tree.

>>> pae("http://example.com/HelloWorld", b"hello world")
b'DSSEv1 29 http://example.com/HelloWorld 11 hello world'

Source: secure-systems-lab/dsse, protocol.md and envelope.md, v1.0.2.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ledger.errors import EnvelopeError, SignatureError
from ledger.keys import PublicKey, Signer
from store import canonical
from store.errors import CanonicalError

PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_ENVELOPE_BYTES = 16 * 2**20
MAX_SIGNATURES = 64


def pae(payload_type: str, body: bytes) -> bytes:
    """The bytes that are signed. Lengths are decimal and count bytes, not characters."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(body), body)


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature of an envelope: the raw bytes, and the hint about who made it."""

    sig: bytes
    keyid: str | None = None


@dataclass(frozen=True, slots=True)
class Envelope:
    """A parsed envelope. Nothing in it is verified.

    Attributes:
        raw: the bytes as they came.
        payload: decoded once; what is verified is what is read.
        payload_type: a media type.
        signatures: one or more, in file order.
    """

    raw: bytes
    payload: bytes = field(compare=False)
    payload_type: str = field(compare=False)
    signatures: tuple[Signature, ...] = field(compare=False)

    @classmethod
    def parse(cls, data: bytes) -> Envelope:
        """Read an envelope: strict JSON, standard or URL-safe base64 with its padding and without spare bits.

        Unknown fields are ignored; they are in `raw`, and nothing is read from them.

        Raises:
            EnvelopeError: not strict JSON, a field is missing or of another kind, or it is absurdly large.
        """
        if len(data) > MAX_ENVELOPE_BYTES:
            raise EnvelopeError(f"an envelope of {len(data)} bytes; at most {MAX_ENVELOPE_BYTES} are read")
        try:
            value = canonical.loads(data)
        except CanonicalError as error:
            raise EnvelopeError(f"not a DSSE envelope: {error}") from error
        if not isinstance(value, dict):
            raise EnvelopeError(f"a DSSE envelope is a JSON object; got {_kind(value)}")
        signatures = value.get("signatures")
        if not isinstance(signatures, list) or not 1 <= len(signatures) <= MAX_SIGNATURES:
            raise EnvelopeError(f"a DSSE envelope has a list of 1 to {MAX_SIGNATURES} signatures; got {_kind(signatures)}")
        return cls(
            raw=data,
            payload=_base64(_text(value, "payload"), "payload"),
            payload_type=_text(value, "payloadType"),
            signatures=tuple(_signature(item, number) for number, item in enumerate(signatures)),
        )


def sign(payload: bytes, signer: Signer, *, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """An envelope with one signature, as canonical JSON bytes.

    Raises:
        EnvelopeError: the payload is so large that no reader would take the envelope.
    """
    envelope = canonical.dumps(
        {
            "payload": b64encode(payload).decode(),
            "payloadType": payload_type,
            "signatures": [{"keyid": str(signer.public), "sig": b64encode(signer.sign(pae(payload_type, payload))).decode()}],
        }
    )
    if len(envelope) > MAX_ENVELOPE_BYTES:
        raise EnvelopeError(f"a statement of {len(payload)} bytes fits no envelope ({MAX_ENVELOPE_BYTES} bytes); make byproducts smaller")
    return envelope


def verify(envelope: Envelope, keys: Iterable[PublicKey], *, payload_type: str = PAYLOAD_TYPE) -> frozenset[PublicKey]:
    """The keys among `keys` that signed the payload; each once, however many signatures it made.

    Signatures by other keys are passed over: an envelope may carry them, and they count for nothing.

    Raises:
        SignatureError: none of the keys signed it, or the payload is of another type.
    """
    if envelope.payload_type != payload_type:
        raise SignatureError(f"the envelope's payload is {envelope.payload_type!r}; expected {payload_type!r}")
    candidates, message = dict.fromkeys(keys), pae(envelope.payload_type, envelope.payload)
    signers = set()
    for signature in envelope.signatures:
        # The hint only orders the tries: sorted() is stable and False comes first.
        for key in sorted(candidates, key=lambda key: str(key) != signature.keyid):
            try:
                key.verify(signature.sig, message)
            except SignatureError:
                continue
            signers.add(key)
            break
    if not signers:
        hints = ", ".join(_hint(signature.keyid) for signature in envelope.signatures)
        raise SignatureError(f"no valid signature by any of {len(candidates)} known keys; the envelope says it was signed by {hints}")
    return frozenset(signers)


def _hint(keyid: str | None) -> str:
    return "nobody it names" if not keyid else ascii(keyid if len(keyid) <= 60 else keyid[:60] + "..")


def _signature(value: Any, number: int) -> Signature:
    if not isinstance(value, dict):
        raise EnvelopeError(f"signature {number} is not an object but {_kind(value)}")
    keyid = value.get("keyid")
    if keyid is not None and not isinstance(keyid, str):
        raise EnvelopeError(f"the keyid of signature {number} is not text but {_kind(keyid)}")
    return Signature(_base64(_text(value, "sig"), f"signature {number}"), keyid)


def _text(value: dict[str, Any], name: str) -> str:
    if not isinstance(value.get(name), str):
        raise EnvelopeError(f"a DSSE envelope's {name} is text; got {_kind(value.get(name))}")
    text: str = value[name]
    return text


def _kind(value: Any) -> str:
    return (
        "nothing"
        if value is None
        else f"{type(value).__name__} of length {len(value)}"
        if isinstance(value, list)
        else type(value).__name__
    )


def _base64(text: str, what: str) -> bytes:
    """One text for one value in each alphabet: padding is required, and the bits beyond the last byte are zero."""
    altchars = b"-_" if "-" in text or "_" in text else b"+/"
    try:
        data = b64decode(text.encode("ascii"), altchars=altchars, validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise EnvelopeError(f"the {what} is not base64: {error}") from error
    if b64encode(data, altchars=altchars).decode() != text:
        raise EnvelopeError(f"the base64 of the {what} is not canonical")
    return data

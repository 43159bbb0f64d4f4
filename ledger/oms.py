"""`model.sig`: a signature over all files of a model in the OpenSSF Model Signing format v1.0, which other tools verify.

It is a Sigstore bundle (JSON) around a DSSE envelope with one signature, around an in-toto statement that lists every file with its
SHA-256. Signed with a P-256 key: the format has no Ed25519. Read here are such bundles by a key that the caller names; certificates and
Sigstore's keyless signatures are refused.

The format's own digest of a model is over the digests of the files alone, without their names, so a renamed file can keep it; and its tools
pass over what lies in `.git`. Here names and digests are compared one by one (`compare`), and whatever was passed over is listed.

Source: ossf/model-signing-spec, spec/v1.0.md; sigstore/protobuf-specs, sigstore_bundle.proto. Format: docs/formats/model-signing.md.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from ledger import dsse, statement
from ledger.dsse import PAYLOAD_TYPE, Envelope
from ledger.errors import EnvelopeError, PublicKeyError, SignatureError, StatementError
from ledger.keys import ECDSA_P256, PublicKey, Signer
from ledger.report import Row, printable
from ledger.statement import Statement
from store import canonical
from store.digest import Digest
from store.errors import CanonicalError, DigestError, StoreError
from store.tree import check_names

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

FILE = "model.sig"
MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
MAX_BUNDLE_BYTES = 16 * 2**20

UNSIGNABLE = (".git", ".gitattributes", ".github", ".gitignore")
"""Names at the top that the format leaves out of every signature; verifiers of others do not look at them at all."""

_SHOWN = 10


class Key(Protocol):
    """Whoever's signature is looked for: a `PublicKey`, or an `EcKey` of somebody who signs with another curve."""

    @property
    def short(self) -> str:
        """For messages."""
        ...

    def verify(self, signature: bytes, message: bytes, /) -> None:
        """Check a DER signature, with the hash that belongs to the curve.

        Raises:
            SignatureError: it is not this key's.
        """
        ...


@dataclass(frozen=True)
class EcKey:
    """An elliptic-curve key in PEM, as the format's own tools read it: P-256 (SHA-256), P-384 (SHA-384) or P-521 (SHA-512).

    Raises:
        PublicKeyError: it is none.
    """

    pem: bytes

    def __post_init__(self) -> None:
        _ = self._key

    @cached_property
    def _key(self) -> EllipticCurvePublicKey:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        try:
            key = load_pem_public_key(self.pem)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise PublicKeyError(f"not a public key in PEM: {error}") from error
        if not isinstance(key, EllipticCurvePublicKey) or key.curve.name not in ("secp256r1", "secp384r1", "secp521r1"):
            raise PublicKeyError("a model is signed with a P-256, P-384 or P-521 key; this PEM holds another kind")
        return key

    @property
    def short(self) -> str:
        """Curve and fingerprint, for messages only."""
        return f"{self._key.curve.name}:{fingerprint(self.pem)[:8]}.."

    def verify(self, signature: bytes, message: bytes) -> None:
        """As `Key.verify`."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
        from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512

        kinds: dict[str, SHA256 | SHA384 | SHA512] = {"secp256r1": SHA256(), "secp384r1": SHA384(), "secp521r1": SHA512()}
        try:
            self._key.verify(signature, message, ECDSA(kinds[self._key.curve.name]))
        except InvalidSignature as error:
            raise SignatureError(f"not a valid signature by {self.short}") from error


def pem(public: PublicKey) -> bytes:
    """A P-256 key as PEM, for `model_signing verify key --public_key`.

    Raises:
        PublicKeyError: it is of another kind.
    """
    if public.algorithm != ECDSA_P256:
        raise PublicKeyError(f"a model is signed with a P-256 key, the format has no Ed25519; {public.short} is {public.algorithm}")
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    point = EllipticCurvePublicKey.from_encoded_point(SECP256R1(), public.raw)
    return point.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def fingerprint(pem: bytes) -> str:
    """The hint that says which key a bundle is by: hex SHA-256 of the PEM text, as the format's first tool writes it."""
    return hashlib.sha256(pem).hexdigest()


# --- signing -------------------------------------------------------------------------------------------------------------------


def sign(files: Mapping[str, Digest], signer: Signer, *, name: str, ignored: Iterable[str] = (FILE,)) -> bytes:
    """The bundle of a model.

    Args:
        files: path -> SHA-256 of every file, but for the signature itself.
        signer: of a P-256 key; its raw signature is DER.
        name: of the model, the folder's name.
        ignored: paths that are in the folder and not signed, the signature's own among them.

    Raises:
        StatementError: no file, a path that cannot be signed, or one that is also ignored.
        PublicKeyError: the key is of another kind.
    """
    hint = fingerprint(pem(signer.public))
    left_out = sorted(set(ignored))
    _check_paths(files)
    for path in files:
        if path.split("/")[0] in UNSIGNABLE or any(path == other or path.startswith(other + "/") for other in left_out):
            raise StatementError(f"{path} cannot be in {FILE}: verifiers pass over it. Leave it out of what is signed")
    resources = [{"algorithm": "sha256", "digest": files[path].hex, "name": path} for path in sorted(files)]
    serialization = {"allow_symlinks": False, "hash_type": "sha256", "ignore_paths": left_out, "method": "files"}
    payload = statement.make(
        {name: _root([files[path] for path in sorted(files)])}, PREDICATE_TYPE, {"resources": resources, "serialization": serialization}
    )
    envelope = {
        "payload": b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": "", "sig": b64encode(signer.sign(dsse.pae(PAYLOAD_TYPE, payload))).decode()}],
    }
    material = {"publicKey": {"hint": hint}, "tlogEntries": []}
    return canonical.dumps({"dsseEnvelope": envelope, "mediaType": MEDIA_TYPE, "verificationMaterial": material})


# --- verifying -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Signed:
    """What somebody signed.

    Attributes:
        files: path -> SHA-256. key: whose signature it is. name: what the signer calls the model; informative only.
        ignored: paths that the signer says he left out.
    """

    files: Mapping[str, Digest]
    key: Key
    name: str
    ignored: tuple[str, ...]


def verify(bundle: bytes, keys: Iterable[Key]) -> Signed:
    """The files that a bundle lists, after its signature by one of these keys was verified.

    Raises:
        EnvelopeError: it is no Sigstore bundle around an envelope with one signature, or is signed by other means than a key.
        SignatureError: none of the keys signed it.
        StatementError: what was signed is not a list of files of this format, or not one that can be checked here.
    """
    envelope = _envelope(bundle)
    key = _signer(envelope, list(keys))
    _refuse_ranges(envelope.payload)
    said = Statement.parse(envelope.payload)
    if said.predicate_type != PREDICATE_TYPE:
        raise StatementError(f"not a model's signature: the predicateType is {said.predicate_type!r}; expected {PREDICATE_TYPE!r}")
    if len(said.subjects) != 1:
        raise StatementError(f"a model's signature has one subject; got {len(said.subjects)}")
    ((name, root),) = said.subjects.items()
    ignored = _serialization(said.predicate.get("serialization"))
    listed = _resources(said.predicate.get("resources"))
    if _root(listed.values()) != root:
        raise StatementError(f"the files of {name!r} give the digest {_root(listed.values()).short}, but its subject has {root.short}")
    files = {name: listed["."]} if set(listed) == {"."} else listed  # how the first tools wrote a model that is one file
    _check_paths(files)
    return Signed(files, key, name, ignored)


def compare(
    signed: Signed, present: Mapping[str, Digest], *, passed_over: Iterable[str] = (), unread: Iterable[str] = ()
) -> tuple[Row, ...]:
    """Compare a model's files with what was signed, name by name.

    Every file that is there must be signed, and every signed file must be there. Nothing is left out because the signer left it out: a path
    in `Signed.ignored` fails like any other unless the caller passes over it too.

    Args:
        signed: what `verify` gave.
        present: path -> SHA-256 of what was looked at.
        passed_over: paths, or folders, that the caller did not look at, or will not count; each is listed among the findings.
        unread: paths that are there and could not be read, of which the caller says more.
    """
    dark = frozenset(unread)
    over = sorted(set(passed_over))
    present = {path: digest for path, digest in present.items() if not _below(path, over)}
    rows: list[Row] = []
    for paths, fault, hint in (
        (signed.files.keys() - present.keys() - dark, f"signed in {FILE} and not there", "Take it again from where it was published"),
        (present.keys() - signed.files.keys(), f"not signed in {FILE}", "Delete it if it does not belong to the model"),
        (
            {path for path in present.keys() & signed.files.keys() if present[path] != signed.files[path]},
            f"not the bytes that were signed in {FILE}",
            "Take it again from where it was published",
        ),
    ):
        for path in sorted(paths)[:_SHOWN]:
            digests = f" ({present[path]}; signed: {signed.files[path]})" if path in present and path in signed.files else ""
            rows.append(Row("failed", f"{printable(path)}: {fault}{digests}", hint))
        if len(paths) > _SHOWN:
            rows.append(Row("failed", f"and {len(paths) - _SHOWN} more files: {fault}"))
    if not rows:
        which = f"all {len(present)} files" if dark.isdisjoint(signed.files) else f"{len(present)} of {len(signed.files)} files"
        rows.append(Row("proven", f"{which} are the ones that {signed.key.short} signed in {FILE}, under the same names"))
    unseen = [path for path in over if path != FILE]
    if unseen:
        rows.append(Row("unverified", f"{', '.join(map(printable, unseen[:_SHOWN]))}: passed over, no signature covers it"))
    return tuple(rows)


def _below(path: str, folders: Iterable[str]) -> bool:
    return any(path == folder or path.startswith(folder + "/") for folder in folders)


def _envelope(bundle: bytes) -> Envelope:
    if len(bundle) > MAX_BUNDLE_BYTES:
        raise EnvelopeError(f"a bundle of {len(bundle):,} bytes; at most {MAX_BUNDLE_BYTES:,} are read")
    try:
        value = canonical.loads(bundle)
    except CanonicalError as error:
        raise EnvelopeError(f"not a Sigstore bundle: {error}") from error
    if not isinstance(value, dict):
        raise EnvelopeError(f"not a Sigstore bundle: it is a JSON object; got {type(value).__name__}")
    if value.get("mediaType") != MEDIA_TYPE:
        raise EnvelopeError(
            f"not a Sigstore bundle that is known here: the mediaType is {value.get('mediaType')!r}; expected {MEDIA_TYPE!r}"
        )
    fields = {"dsseEnvelope", "mediaType", "verificationMaterial"}
    if "messageSignature" in value:
        raise EnvelopeError("the bundle signs the hash of one file; a model's signature is an envelope with a list of files")
    if set(value) != fields:
        got = ", ".join(sorted(map(printable, value)))
        raise EnvelopeError(f"a model's bundle has exactly {', '.join(sorted(fields))}; got {got}")
    material = value["verificationMaterial"]
    if not isinstance(material, dict):
        raise EnvelopeError("a bundle's verificationMaterial is an object")
    others = sorted(material.keys() & {"certificate", "x509CertificateChain"})
    if others:
        raise EnvelopeError(
            f"the bundle is signed with a certificate ({others[0]}); here only signatures by keys are verified. Use `model_signing verify`"
        )
    public = material.get("publicKey")
    if not isinstance(public, dict) or not any(isinstance(public.get(field), str) and public[field] for field in ("hint", "rawBytes")):
        raise EnvelopeError("a bundle's verificationMaterial says which key signed: a publicKey with a hint")
    if not isinstance(value["dsseEnvelope"], dict):
        raise EnvelopeError("a bundle's dsseEnvelope is an object")
    envelope = Envelope.parse(json.dumps(value["dsseEnvelope"]).encode())
    if len(envelope.signatures) != 1:
        raise EnvelopeError(f"the envelope of a bundle has exactly one signature; got {len(envelope.signatures)}")
    return envelope


def _signer(envelope: Envelope, keys: list[Key]) -> Key:
    if envelope.payload_type != PAYLOAD_TYPE:
        raise SignatureError(f"the bundle's payload is {envelope.payload_type!r}; expected {PAYLOAD_TYPE!r}")
    message = dsse.pae(envelope.payload_type, envelope.payload)
    for key in keys:
        try:
            key.verify(envelope.signatures[0].sig, message)
        except SignatureError:
            continue
        return key
    known = ", ".join(key.short for key in keys[:_SHOWN]) or "none were given"
    raise SignatureError(f"the bundle is not signed by any of the {len(keys)} known keys ({known})")


def _refuse_ranges(payload: bytes) -> None:
    """Say that a model was signed in pieces before its statement is refused for the float that the format's tool writes as their size."""
    try:
        value = canonical.loads(payload)
        method = value["predicate"]["serialization"]["method"]
    except (CanonicalError, KeyError, TypeError):
        return  # `Statement.parse` says what is wrong with it
    if method != "files":
        raise StatementError(f"the model was signed by {method!r}; here whole files are compared. Use `model_signing verify`")


def _serialization(value: Any) -> tuple[str, ...]:
    """What the signer left out, once the rest is as it can be checked here."""
    if not isinstance(value, dict):
        raise StatementError("a model's signature has an object `serialization` that says how its files were hashed")
    if value.get("method") != "files":
        raise StatementError("a model's serialization says its method: files")
    if value.get("hash_type") != "sha256":
        raise StatementError(f"the files were hashed with {value.get('hash_type')!r}; here SHA-256 is compared. Use `model_signing verify`")
    if not isinstance(value.get("allow_symlinks"), bool):
        raise StatementError("a model's serialization says whether links were followed: allow_symlinks is true or false")
    ignored = value.get("ignore_paths", [])
    if not isinstance(ignored, list) or not all(isinstance(path, str) for path in ignored):
        raise StatementError("a model's ignore_paths are a list of texts")
    return tuple(ignored)


def _resources(value: Any) -> dict[str, Digest]:
    if not isinstance(value, list) or not value:
        raise StatementError("a model's signature lists at least one file in `resources`")
    listed: dict[str, Digest] = {}
    for item in value:
        if not isinstance(item, dict) or not all(isinstance(item.get(field), str) for field in ("name", "digest", "algorithm")):
            raise StatementError("each of a model's resources has a name, a digest and an algorithm")
        if item["algorithm"] != "sha256":
            raise StatementError(f"{item['name']!r} was hashed with {item['algorithm']!r}; expected sha256")
        if item["name"] in listed:
            raise StatementError(f"two of a model's resources are named {item['name']!r}")
        try:
            listed[item["name"]] = Digest.parse(f"sha256:{item['digest']}")
        except DigestError as error:
            raise StatementError(f"the digest of {item['name']!r} is not one of SHA-256: {error}") from error
    return listed


def _check_paths(files: Mapping[str, Digest]) -> None:
    if not files:
        raise StatementError("a model has at least one file")
    try:
        check_names(list(files))
    except StoreError as error:
        raise StatementError(f"a model's files: {error}") from error


def _root(digests: Iterable[Digest]) -> Digest:
    """The format's own digest of a model: SHA-256 over the raw digests of its files in order (spec section 6.5.1)."""
    return Digest.of(b"".join(bytes.fromhex(digest.hex) for digest in digests))

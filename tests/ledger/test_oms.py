"""Model signatures: what we sign, what others signed, and every way in which a model's files can differ from what was signed."""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from ledger import dsse, oms, statement
from ledger.errors import EnvelopeError, LedgerError, PublicKeyError, SignatureError, StatementError
from ledger.keys import P256Signer
from ledger.publication import PUBLICATION
from ledger.testing import UnsafeSigner
from store import tree
from store.digest import Digest

VECTORS = Path(__file__).parents[1] / "vectors" / "oms"
SIGNER = P256Signer("carol", ec.derive_private_key(2**200 + 7, ec.SECP256R1()))
OTHER = P256Signer("dave", ec.derive_private_key(2**201 + 9, ec.SECP256R1()))
FILES = {name: Digest.of(name.encode()) for name in ("a-b", "a/b", "config.json", "weights/model-00001.safetensors")}
BUNDLE = oms.sign(FILES, SIGNER, name="tiny")
HISTORICAL_KEY = oms.EcKey((VECTORS / "historical" / "signing-key-pub.pem").read_bytes())


def payload_of(bundle: bytes) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(b64decode(json.loads(bundle)["dsseEnvelope"]["payload"]))
    return value


def signed(payload: dict[str, Any] | bytes, *, payload_type: str = dsse.PAYLOAD_TYPE) -> bytes:
    """A bundle of a payload of any kind, with a valid signature."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    bundle = json.loads(BUNDLE)
    sig = b64encode(SIGNER.sign(dsse.pae(payload_type, body))).decode()
    bundle["dsseEnvelope"] = {"payload": b64encode(body).decode(), "payloadType": payload_type, "signatures": [{"sig": sig}]}
    return json.dumps(bundle).encode()


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    """Our bundle with its statement changed, and signed again."""
    payload = payload_of(BUNDLE)
    change(payload)
    return signed(payload)


# --- what we sign --------------------------------------------------------------------------------------------------------------------


def test_a_bundle_gives_back_what_was_signed() -> None:
    """Files, key and name; our own signature is among the paths left out."""
    found = oms.verify(BUNDLE, [OTHER.public, SIGNER.public])
    assert (found.files, found.key, found.name, found.ignored) == (FILES, SIGNER.public, "tiny", ("model.sig",))


def test_a_bundle_has_the_form_of_the_specification() -> None:
    """Media type, hint, one signature with an empty keyid, sorted resources, and the root digest of section 6.5.1."""
    bundle, payload = json.loads(BUNDLE), payload_of(BUNDLE)
    hint = hashlib.sha256(oms.pem(SIGNER.public)).hexdigest()
    assert bundle["mediaType"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
    assert bundle["verificationMaterial"] == {"publicKey": {"hint": hint}, "tlogEntries": []}
    assert [item["keyid"] for item in bundle["dsseEnvelope"]["signatures"]] == [""]
    assert payload["predicateType"] == "https://model_signing/signature/v1.0"
    names = [item["name"] for item in payload["predicate"]["resources"]]
    assert names == sorted(FILES)
    digests = b"".join(bytes.fromhex(FILES[name].hex) for name in names)
    assert payload["subject"] == [{"name": "tiny", "digest": {"sha256": hashlib.sha256(digests).hexdigest()}}]
    assert payload["predicate"]["serialization"] == {
        "method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": ["model.sig"],
    }  # fmt: skip


@pytest.mark.parametrize(
    "path", [".git/config", ".gitattributes", ".github/x", ".gitignore", "model.sig", "../x", "/x", "a//b", "./a", "a/../b", "x\0y"]
)
def test_what_verifiers_pass_over_or_misread_is_not_signed(path: str) -> None:
    """A path that the format leaves out would be signed and never looked at; one that is not canonical could be two files."""
    with pytest.raises(StatementError):
        oms.sign({**FILES, path: Digest.of(b"x")}, SIGNER, name="tiny")


def test_nothing_is_signed_for_no_files_or_with_another_kind_of_key() -> None:
    """An empty model has no signature, and the format has no Ed25519."""
    with pytest.raises(StatementError, match="at least one file"):
        oms.sign({}, SIGNER, name="tiny")
    with pytest.raises(PublicKeyError, match="the format has no Ed25519"):
        oms.sign(FILES, UnsafeSigner("alice"), name="tiny")


# --- what others signed --------------------------------------------------------------------------------------------------------------


def test_vectors_of_the_specification() -> None:
    """The one that a key signed is read; the other two valid ones are refused as signed by certificates; the invalid ones as damaged."""
    found = oms.verify((VECTORS / "valid/key.bundle.json").read_bytes(), [HISTORICAL_KEY])
    assert sorted(found.files) == ["signme-1", "signme-2"]
    for name in ("valid/certificate", "valid/sigstore", "invalid/missing-tlog-entries"):
        with pytest.raises(EnvelopeError, match="signed with a certificate"):
            oms.verify((VECTORS / f"{name}.bundle.json").read_bytes(), [HISTORICAL_KEY])
    for name in ("empty", "missing-envelope", "missing-verification-material"):
        with pytest.raises(EnvelopeError):
            oms.verify((VECTORS / f"invalid/{name}.bundle.json").read_bytes(), [HISTORICAL_KEY])


def test_the_invalid_payload_of_the_specification_is_refused_even_when_its_signature_is_valid() -> None:
    """Its signature is of nobody known; signed by somebody trusted, it is refused for its predicate type."""
    bundle = (VECTORS / "invalid-payload/wrong-predicate.bundle.json").read_bytes()
    with pytest.raises(SignatureError):
        oms.verify(bundle, [HISTORICAL_KEY])
    with pytest.raises(StatementError, match="not a model's signature"):
        oms.verify(signed(payload_of(bundle)), [SIGNER.public])


FOLDERS = sorted(path.name for path in (VECTORS / "historical").iterdir() if path.is_dir())


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_that_earlier_tools_signed(name: str) -> None:
    """Those signed with a key are proven, file by file; those with certificates are refused with the word that says why."""
    folder = VECTORS / "historical" / name
    bundle = (folder / "model.sig").read_bytes()
    if not name.endswith("-elliptic-key"):
        with pytest.raises(EnvelopeError, match="signed with a certificate"):
            oms.verify(bundle, [HISTORICAL_KEY])
        return
    found = oms.verify(bundle, [SIGNER.public, HISTORICAL_KEY])
    present = {entry.path: entry.digest for entry in tree.hash_folder(folder).entries}
    assert found.key == HISTORICAL_KEY
    rows = oms.compare(found, present, passed_over=["model.sig", *(["ignore-me"] if "ignore-me" in present else [])])
    assert [row.status for row in rows] == ["proven", *(["unverified"] if "ignore-me" in present else [])]


def test_all_historical_folders_are_here() -> None:
    """Thirteen, four of them signed with a key."""
    assert len(FOLDERS) == 13
    assert sum(name.endswith("-elliptic-key") for name in FOLDERS) == 4


# --- a bundle that is not what it should be ------------------------------------------------------------------------------------------


def test_every_changed_byte_is_refused() -> None:
    """Of the whole file, with two kinds of change each; but for the hint, which says which key to try and proves nothing."""
    value = json.loads(BUNDLE)
    hint = value["verificationMaterial"]["publicKey"]["hint"].encode()
    start = BUNDLE.index(hint)
    for place in range(len(BUNDLE)):
        if start <= place < start + len(hint):
            continue
        for flip in (0x01, 0x20):
            broken = BUNDLE[:place] + bytes([BUNDLE[place] ^ flip]) + BUNDLE[place + 1 :]
            try:
                found = oms.verify(broken, [SIGNER.public])
            except LedgerError:
                continue
            assert (found.files, found.name) == (FILES, "tiny")
            assert place_is_free(value, broken), (place, BUNDLE[place : place + 20])


def place_is_free(value: dict[str, Any], broken: bytes) -> bool:
    """Whether a change touched only names of fields that nothing is read from: `tlogEntries` and `keyid`."""
    other = json.loads(broken)
    other["verificationMaterial"] = value["verificationMaterial"]
    for signature in other["dsseEnvelope"]["signatures"]:
        for key in set(signature) - {"sig"}:
            del signature[key]
        signature["keyid"] = ""
    return bool(other == value)


@pytest.mark.parametrize("length", [0, 1, 100, len(BUNDLE) // 2, len(BUNDLE) - 1])
def test_a_part_of_a_bundle_is_refused(length: int) -> None:
    """A bundle that was cut short is none."""
    with pytest.raises(EnvelopeError):
        oms.verify(BUNDLE[:length], [SIGNER.public])


def edit(bundle: dict[str, Any], path: str, value: object) -> bytes:
    place: Any = bundle
    *way, last = path.split(".")
    for name in way:
        place = place[name]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return json.dumps(bundle).encode()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("mediaType", "application/vnd.dev.sigstore.bundle.v0.9+json"),
        ("mediaType", None),
        ("messageSignature", {"signature": ""}),
        ("extra", 1),
        ("verificationMaterial", []),
        ("verificationMaterial.publicKey", None),
        ("verificationMaterial.publicKey", {"hint": ""}),
        ("verificationMaterial.certificate", {"rawBytes": "AA=="}),
        ("verificationMaterial.x509CertificateChain", {"certificates": []}),
        ("dsseEnvelope", "x"),
        ("dsseEnvelope.signatures", []),
        ("dsseEnvelope.payloadType", "application/json"),
    ],
)
def test_a_bundle_of_another_form_is_refused(path: str, value: object) -> None:
    """Each field must have the form of the format; one that is left out or says something else is refused."""
    with pytest.raises(SignatureError):
        oms.verify(edit(json.loads(BUNDLE), path, value), [SIGNER.public])


def test_an_envelope_with_two_signatures_is_refused() -> None:
    """Sigstore bundles have exactly one, so which of two counts is nobody's to choose."""
    bundle = json.loads(BUNDLE)
    bundle["dsseEnvelope"]["signatures"] *= 2
    with pytest.raises(EnvelopeError, match="exactly one signature"):
        oms.verify(json.dumps(bundle).encode(), [SIGNER.public])


def test_a_field_given_twice_is_refused() -> None:
    """Two readers could take different ones."""
    with pytest.raises(EnvelopeError, match="twice"):
        oms.verify(BUNDLE.replace(b'{"dsseEnvelope"', b'{"mediaType":"x","dsseEnvelope"', 1), [SIGNER.public])


def test_keys_that_did_not_sign_are_named() -> None:
    """An attacker's bundle with the victim's hint is not the victim's."""
    forged = oms.sign(FILES, OTHER, name="tiny")
    hint = json.loads(BUNDLE)["verificationMaterial"]["publicKey"]["hint"]
    forged = edit(json.loads(forged), "verificationMaterial.publicKey.hint", hint)
    with pytest.raises(SignatureError, match=r"not signed by any of the 1 known keys \(ecdsa-p256:"):
        oms.verify(forged, [SIGNER.public])
    with pytest.raises(SignatureError, match="none were given"):
        oms.verify(BUNDLE, [])


# --- a statement that is validly signed, and is none of this format ------------------------------------------------------------------


def serialization(**fields: object) -> Callable[[dict[str, Any]], object]:
    return lambda payload: payload["predicate"]["serialization"].update(fields)


def resource(**fields: object) -> Callable[[dict[str, Any]], object]:
    return lambda payload: payload["predicate"]["resources"][0].update(fields)


def twice(payload: dict[str, Any]) -> None:
    resources = payload["predicate"]["resources"]
    resources.append(resources[0])


@pytest.mark.parametrize(
    "change",
    [
        serialization(method="shards"),
        serialization(hash_type="blake3"),
        serialization(allow_symlinks="false"),
        serialization(ignore_paths="model.sig"),
        resource(algorithm="blake2b"),
        resource(digest="00"),
        resource(digest=Digest.of(b"other").hex),  # the root no longer fits
        resource(name="../a-b"),
        resource(name="A/b"),
        resource(name=7),
        twice,
        lambda payload: payload["predicate"].update(resources=[]),
        lambda payload: payload["predicate"].pop("serialization"),
        lambda payload: payload["subject"].append({"name": "other", "digest": {"sha256": Digest.of(b"").hex}}),
        lambda payload: payload.update(_type="https://in-toto.io/Statement/v0.1"),
        lambda payload: payload.update(predicateType="https://model_signing/Digests/v0.1"),
    ],
)
def test_a_statement_of_another_form_is_refused(change: Callable[[dict[str, Any]], object]) -> None:
    """Although its signature is valid."""
    with pytest.raises(StatementError):
        oms.verify(changed(change), [SIGNER.public])


def test_an_envelope_of_the_ledger_is_no_model_signature() -> None:
    """A key that signs both kinds cannot be made to say one with the other."""
    with pytest.raises(StatementError):
        oms.verify(signed(statement.make({"tiny": Digest.of(b"")}, PUBLICATION, {"event": "released"})), [SIGNER.public])
    with pytest.raises(SignatureError):
        oms.verify(signed(b"{}", payload_type="text/plain"), [SIGNER.public])


def test_a_key_that_is_no_elliptic_curve_key_is_refused() -> None:
    """What is no key, and a key of another kind."""
    with pytest.raises(PublicKeyError):
        oms.EcKey(b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    with pytest.raises(PublicKeyError, match="P-256, P-384 or P-521"):
        oms.EcKey(b"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n")


# --- comparing -----------------------------------------------------------------------------------------------------------------------

SIGNED = oms.verify(BUNDLE, [SIGNER.public])


def test_the_signed_files_are_proven() -> None:
    """And nothing else is said when only the signature itself was passed over."""
    (row,) = oms.compare(SIGNED, {**FILES, "model.sig": Digest.of(b"s")}, passed_over=["model.sig"])
    assert (row.status, "all 4 files" in row.text) == ("proven", True)


@pytest.mark.parametrize(
    ("present", "text"),
    [
        ({**FILES, "extra.py": Digest.of(b"")}, "extra.py: not signed"),
        ({**FILES, "a-b": Digest.of(b"other")}, "a-b: not the bytes that were signed"),
        ({name: digest for name, digest in FILES.items() if name != "a/b"}, "a/b: signed in model.sig and not there"),
        ({**FILES, ".git/hooks/x": Digest.of(b"")}, ".git/hooks/x: not signed"),
        ({**FILES, ".gitattributes": Digest.of(b"")}, ".gitattributes: not signed"),
    ],
)
def test_each_difference_fails_with_the_name(present: dict[str, Digest], text: str) -> None:
    """A file more, one less, other bytes, and what the format's own tools do not look at."""
    rows = oms.compare(SIGNED, present)
    assert [row.status for row in rows] == ["failed"]
    assert text in rows[0].text


def test_renamed_files_fail_although_the_root_digest_stays() -> None:
    """The format's digest of the whole does not cover names; two files that swap theirs keep their order."""
    renamed = {("a-c" if name == "a-b" else name): digest for name, digest in FILES.items()}
    roots = [payload_of(oms.sign(files, SIGNER, name="tiny"))["subject"] for files in (FILES, renamed)]
    assert roots[0] == roots[1]
    assert [row.status for row in oms.compare(SIGNED, renamed)] == ["failed", "failed"]


def test_what_the_signer_ignored_is_not_ignored_here() -> None:
    """Only the caller passes over something, and then it is listed."""
    lenient = oms.verify(oms.sign(FILES, SIGNER, name="tiny", ignored=["model.sig", ".cache"]), [SIGNER.public])
    present = {**FILES, ".cache/x": Digest.of(b"")}
    assert [row.status for row in oms.compare(lenient, present)] == ["failed"]
    rows = oms.compare(lenient, present, passed_over=[".cache"])
    assert [(row.status, row.text) for row in rows[1:]] == [("unverified", ".cache: passed over, no signature covers it")]


def test_many_differences_are_counted() -> None:
    """Ten are named."""
    rows = oms.compare(SIGNED, FILES | {f"x{number}": Digest.of(b"") for number in range(15)})
    assert len(rows) == 11
    assert "5 more files" in rows[-1].text

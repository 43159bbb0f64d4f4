"""OpenSSF Model Signing both ways, with the command-line tool of the format's authors: what one signs the other verifies."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ledger import oms
from ledger.errors import StatementError
from ledger.key_store import KeyStore
from ledger.keys import P256Signer
from store import tree
from store.digest import Digest

SCHEMAS = Path(__file__).parents[1] / "vectors" / "oms" / "schemas"
PRIVATE = ec.derive_private_key(2**220 + 5, ec.SECP256R1())
SIGNER = P256Signer("carol", PRIVATE)


def tool(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `model_signing`."""
    command = [sys.executable, "-m", "model_signing", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model folder whose names sort differently as text and as paths, with an empty file and names that are not ASCII."""
    folder = tmp_path / "tiny model"
    for name in (
        "a-b",
        "a/b",
        "config.json",
        "weights/model-00001-of-00002.safetensors",
        "weights/model-00002-of-00002.safetensors",
        "é/ü.txt",
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() * 100)
    (folder / "empty").write_bytes(b"")
    return folder


def files(folder: Path) -> dict[str, Digest]:
    return {entry.path: entry.digest for entry in tree.hash_folder(folder).entries}


@pytest.fixture
def signed(model: Path) -> Path:
    """The same, with our `model.sig` in it, and the public key beside it."""
    (model / oms.FILE).write_bytes(oms.sign(files(model), SIGNER, name=model.name))
    (model.parent / "public.pem").write_bytes(oms.pem(SIGNER.public))
    return model


def verified_by_the_tool(folder: Path, *options: str) -> bool:
    key, signature = folder.parent / "public.pem", folder / oms.FILE
    ran = tool("verify", "key", folder, "--signature", signature, "--public_key", key, *options)
    assert "Traceback" not in ran.stderr, ran.stderr
    return ran.returncode == 0


# --- ours, read by the tool ----------------------------------------------------------------------------------------------------------


def test_the_tool_verifies_our_signature(signed: Path) -> None:
    """With and without its own exception for git's files, and with a key that the key store made."""
    assert verified_by_the_tool(signed)
    assert verified_by_the_tool(signed, "--no-ignore-git-paths")
    mine = KeyStore(signed.parent / "keys").new("dave", None, "ecdsa-p256")
    (signed / oms.FILE).unlink()
    (signed / oms.FILE).write_bytes(oms.sign(files(signed), mine, name=signed.name))
    assert not verified_by_the_tool(signed)
    (signed.parent / "public.pem").write_bytes(oms.pem(mine.public))
    assert verified_by_the_tool(signed)


@pytest.mark.parametrize("fault", ["changed", "extra", "missing", "renamed", "signature"])
def test_the_tool_refuses_what_is_not_what_we_signed(fault: str, signed: Path) -> None:
    """So it did read our list."""
    if fault == "changed":
        (signed / "config.json").write_bytes(b"{}")
    elif fault == "extra":
        (signed / "extra.py").write_bytes(b"")
    elif fault == "missing":
        (signed / "empty").unlink()
    elif fault == "renamed":
        (signed / "a-b").rename(signed / "a-c")
    else:
        path = signed / oms.FILE
        sig = json.loads(path.read_bytes())["dsseEnvelope"]["signatures"][0]["sig"]
        path.write_bytes(path.read_bytes().replace(sig[:20].encode(), sig[1:20].encode() + b"A"))
    assert not verified_by_the_tool(signed)


def test_our_bundle_fits_the_schemas_of_the_specification(signed: Path) -> None:
    """Bundle, envelope, statement and predicate."""
    bundle = json.loads((signed / oms.FILE).read_bytes())
    schemas = {schema["$id"]: schema for schema in (json.loads(path.read_text()) for path in SCHEMAS.iterdir())}
    assert faults(bundle, schemas["https://model_signing/bundle/v1.0/schema"], schemas) == []
    payload = json.loads(b64decode(bundle["dsseEnvelope"]["payload"]))
    assert faults(payload, schemas["https://model_signing/statement/v1.0/schema"], schemas) == []
    payload["predicate"]["resources"][0]["digest"] = "XY"
    assert faults(payload, schemas["https://model_signing/statement/v1.0/schema"], schemas) != []


_KINDS = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool, "null": type(None)}
_KNOWN = {
    *("$schema", "$id", "$defs", "$ref", "title", "description", "type", "required", "properties", "additionalProperties", "enum", "const"),
    *("pattern", "items", "anyOf", "minItems", "maxItems", "minLength", "minProperties", "exclusiveMinimum", "if", "then", "else"),
}


def faults(value: Any, schema: dict[str, Any], schemas: dict[str, Any], root: dict[str, Any] | None = None) -> list[str]:
    """What a value lacks of a JSON schema; only what these four schemas use is known, anything else is a fault."""
    root = root or schema
    found = [f"unknown keyword {word}" for word in set(schema) - _KNOWN]
    if "$ref" in schema:
        name = schema["$ref"]
        if name.startswith("#/$defs/"):
            return found + faults(value, root["$defs"][name.removeprefix("#/$defs/")], schemas, root)
        return found + faults(value, schemas[name], schemas)
    kinds = schema.get("type", [])
    if kinds and not any(isinstance(value, _KINDS[kind]) for kind in (kinds if isinstance(kinds, list) else [kinds])):
        return [*found, f"{value!r} is no {kinds}"]
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{value!r} is not in {schema['enum']}")
    if "const" in schema and value != schema["const"]:
        found.append(f"{value!r} is not {schema['const']!r}")
    if isinstance(value, str):
        found += [f"{value!r} does not match"] if "pattern" in schema and not re.search(schema["pattern"], value) else []
        found += [f"{value!r} is too short"] if len(value) < schema.get("minLength", 0) else []
    if isinstance(value, list):
        found += ["too few or too many"] if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)) else []
        found += [fault for item in value for fault in faults(item, schema.get("items", {}), schemas, root)]
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        found += ["too few fields"] if len(value) < schema.get("minProperties", 0) else []
        found += [f"{name} is missing" for name in schema.get("required", ()) if name not in value]
        if schema.get("additionalProperties") is False:
            found += [f"{name} is unknown" for name in value if name not in properties]
        found += [fault for name, item in value.items() for fault in faults(item, properties.get(name, {}), schemas, root)]
    if "anyOf" in schema and all(faults(value, one, schemas, root) for one in schema["anyOf"]):
        found.append("none of the choices fits")
    if "if" in schema:
        branch = "else" if faults(value, schema["if"], schemas, root) else "then"
        found += faults(value, schema.get(branch, {}), schemas, root)
    return found


# --- the tool's, read by us ----------------------------------------------------------------------------------------------------------


def signed_by_the_tool(model: Path, private: ec.EllipticCurvePrivateKey, *options: object) -> bytes:
    pem = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (model.parent / "private.pem").write_bytes(pem)
    signature = model / oms.FILE
    ran = tool("sign", "key", model, "--signature", signature, "--private_key", model.parent / "private.pem", *options)
    assert ran.returncode == 0, ran.stderr
    return signature.read_bytes()


def test_we_verify_the_tools_signature(model: Path) -> None:
    """File by file; its signature lies in the folder and is passed over, nothing else is."""
    found = oms.verify(signed_by_the_tool(model, PRIVATE), [SIGNER.public])
    assert (found.key, found.name) == (SIGNER.public, model.name)
    assert [row.status for row in oms.compare(found, files(model), passed_over=[oms.FILE])] == ["proven"]
    (model / "config.json").write_bytes(b"{}")
    (model / "extra.py").write_bytes(b"")
    (model / "empty").unlink()
    assert [row.status for row in oms.compare(found, files(model), passed_over=[oms.FILE])] == ["failed"] * 3


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()], ids=["P-384", "P-521"])
def test_we_verify_signatures_of_the_formats_other_curves(curve: ec.EllipticCurve, model: Path) -> None:
    """By a key in PEM."""
    private = ec.generate_private_key(curve)
    bundle = signed_by_the_tool(model, private)
    pem = private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    found = oms.verify(bundle, [SIGNER.public, oms.EcKey(pem)])
    assert [row.status for row in oms.compare(found, files(model), passed_over=[oms.FILE])] == ["proven"]


def test_what_the_tool_passes_over_fails_here(model: Path) -> None:
    """A file in `.git`, and one that the signer said to ignore: the tool says that all is well."""
    bundle = signed_by_the_tool(model, PRIVATE, "--ignore-paths", model / "cache")
    (model.parent / "public.pem").write_bytes(oms.pem(SIGNER.public))
    for hidden in (".git/hooks/post-checkout", "cache/payload.bin"):
        path = model / hidden
        path.parent.mkdir(parents=True)
        path.write_bytes(b"anything")
    assert verified_by_the_tool(model)
    found = oms.verify(bundle, [SIGNER.public])
    rows = oms.compare(found, files(model), passed_over=[oms.FILE])
    assert [(row.status, row.text.split(":")[0]) for row in rows] == [
        ("failed", ".git/hooks/post-checkout"),
        ("failed", "cache/payload.bin"),
    ]
    told = oms.compare(found, files(model), passed_over=[oms.FILE, ".git", "cache"])
    assert [row.status for row in told] == ["proven", "unverified"]
    assert ".git, cache" in told[1].text


def test_signatures_over_pieces_of_files_are_refused_and_not_misread(model: Path) -> None:
    """The tool can sign ranges of bytes; here whole files are compared, and the message names the tool."""
    import model_signing

    untyped: Any = model_signing
    pem = PRIVATE.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (model.parent / "private.pem").write_bytes(pem)
    config = untyped.signing.Config().use_elliptic_key_signer(private_key=model.parent / "private.pem")
    config.set_hashing_config(untyped.hashing.Config().use_shard_serialization(shard_size=64)).sign(model, model.parent / "shards.sig")
    with pytest.raises(StatementError, match=r"signed by 'shards'.*Use `model_signing verify`"):
        oms.verify((model.parent / "shards.sig").read_bytes(), [SIGNER.public])

"""A little publication as a Hub gets it: weights, an alloy, attestations with the release, its place in the log, chunks, a signature.

Made with the functions that `ledger publish` uses, without a model, so that audits can be tried on every kind of damage.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, derive_private_key

from ledger import bundle, oms, statement
from ledger.alloy import file_hashes, model_hash
from ledger.chunks import CHUNK_BYTES, chunks_of
from ledger.hf_hub import HfHub
from ledger.keys import P256Signer
from ledger.locator import parse
from ledger.log import Log
from ledger.policy import Policy
from ledger.predicates import EVALUATION
from ledger.proof import Proof
from ledger.publication import Publication
from ledger.remote import Depth, audit_remote
from ledger.report import Report
from ledger.testing import UnsafeSigner, append_runs, unsafe_log
from store import tree
from store.actions import Action
from store.digest import Digest
from store.memory import MemoryCas
from tests.hub import LoopbackHub, is_lfs

REPO = "acme/tiny"
GGUF, CONFIG = "tiny-Q4_K_M.gguf", "config.json"
MODEL_KEY = P256Signer("alice-models", derive_private_key(0xA11CE, SECP256R1()))
METRICS = {"benchmark": "perplexity", "dataset": {"digest": {"sha256": "5c" * 32}}, "metrics": {"perplexity": "43.3", "stderr": "1.2"}}


def policy(*names: str, models: bool = True) -> Policy:
    """Trusts the unsafe Ed25519 keys of these names, and the P-256 key that signs models."""
    keys = {name: str(UnsafeSigner(name).public) for name in names} | ({"alice-models": str(MODEL_KEY.public)} if models else {})
    return Policy.parse(json.dumps({"version": 1, "keys": keys, "rules": [{"keys": list(keys)}]}), source="test policy")


ALICE = policy("alice")


@dataclass
class Published:
    """What was made.

    Attributes:
        files: name in the repository -> bytes. log, store: of who published it.
    """

    files: dict[str, bytes]
    log: Log
    store: MemoryCas

    @property
    def alloy(self) -> Digest:
        """Of the alloy file: what the QR says."""
        return Digest.of(next(data for path, data in self.files.items() if path.endswith(".alloy.json")))


def publish(
    folder: Path,
    *,
    name: str = "tiny",
    signer: str = "alice",
    target: str = REPO,
    released: bool = True,
    change: Callable[[dict[str, Any]], object] = lambda alloy: None,
    more: Mapping[str, bytes] | None = None,
) -> Published:
    """Make one; `change` edits the alloy before it is released, and `more` are further files that it lists.

    One that is not released is what a run leaves beside its models: its alloy lists the weights alone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log, store = unsafe_log(folder, signer=signer), MemoryCas()
    gguf = bytes(range(256)) * (3 * CHUNK_BYTES // 256) + b"the end"
    files = {GGUF: gguf, CONFIG: b'{"model_type": "tiny"}\n', "model.safetensors": b"pruned weights", **(more or {})}
    (folder / "model").mkdir()
    for path in (CONFIG, "model.safetensors"):
        (folder / "model" / path).write_bytes(files[path])
    base, model, made = store.put(b"base"), tree.import_folder(store, folder / "model"), store.put(gguf)
    prune = Action("expert-prune", 1, {"keep": 6}, {"model": base})
    quant = Action("gguf-quantize", 1, {"type": "Q4_K_M"}, {"model": model})
    append_runs(log, [(prune, {"model": model}), (quant, {"gguf": made})])
    log.append([statement.make({"gguf": made}, EVALUATION, METRICS)], ["evaluation"])
    lines, receipt = bundle.export(log, [model, made], store=store)
    (folder / "out").mkdir()
    for path, data in files.items():
        (folder / "out" / path).write_bytes(data)
    weights = {path: folder / "out" / path for path in files if path.endswith((".gguf", ".safetensors"))}
    if released:
        files[f"{name}.chunks"] = chunks_of(weights)
        (folder / "out" / f"{name}.chunks").write_bytes(files[f"{name}.chunks"])
    listed = {path: folder / "out" / path for path in files} if released else weights
    hashes = file_hashes(listed, lfs=lambda path, size: is_lfs(path, files[path]))
    value: dict[str, Any] = {
        "name": name,
        "version": "1.0.0",
        "results": {
            "completedAt": "2023-11-14T22:13:21Z",
            "artifacts": [
                {"stage": "prune", "output": "model", "digest": str(model)},
                {"stage": "quant", "output": "gguf-Q4_K_M", "digest": str(made), "sizeBytes": len(gguf)},
            ],
            "benchmarks": [{"subject": "gguf", "digest": str(made), "entry": 2, **METRICS}],
            "integrity": {
                "fileHashes": hashes,
                "modelHash": str(model_hash([(path, Digest.of(files[path])) for path in weights])),
                "trustLevel": "self-attested",
            },
        },
        "receipt": {"publications": [], "ledger": receipt},
    }
    change(value)
    files[f"{name}.alloy.json"] = json.dumps(value, indent=2).encode()
    if released:
        release = Publication(
            event="released",
            target=f"hf:{target}",
            name=name,
            version="1.0.0",
            alloy=(f"{name}.alloy.json", Digest.of(files[f"{name}.alloy.json"])),
        )
        (entry,) = log.append([release.payload()], [release.line()])
        lines.append(entry.envelope)
        files[f"{name}.tlog-proof"] = Proof.of(log, entry.number).to_text()
    files[f"{name}.attestations.jsonl"] = b"".join(line + b"\n" for line in lines)
    files["README.md"] = b"# A tiny model\n"
    files["model.sig"] = oms.sign({path: Digest.of(data) for path, data in files.items()}, MODEL_KEY, name=name)
    return Published(files, log, store)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """One for all tests of a module, none of which changes it."""
    return publish(tmp_path_factory.mktemp("publication"))


@pytest.fixture
def published(hub: LoopbackHub, made: Published) -> Published:
    """The same, in its repository on the Hub."""
    hub.put(REPO, made.files)
    return made


def audit(hub: LoopbackHub, text: str = f"hf:{REPO}", *, trusting: Policy = ALICE, depth: Depth | None = None) -> Report:
    """What an audit of a repository on this Hub says."""
    return audit_remote(parse(text), HfHub(hub.endpoint), trusting, depth or Depth())


def written(folder: Path, files: Mapping[str, bytes]) -> Path:
    """The folder, with these files written into it: what somebody has who downloaded them."""
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder

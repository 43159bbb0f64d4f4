"""A whole publication in a folder, made by hand in a second: what `ledger publish` puts on the Hub, as far as the verify page reads it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ledger import bundle, statement
from ledger.alloy import Evaluation as Measured
from ledger.alloy import file_hashes, measured, model_hash, recipe_hash
from ledger.cosign import sign as cosign
from ledger.keys import Signer
from ledger.log import Log
from ledger.predicates import EVALUATION, KEY_EVENT, KeyEvent
from ledger.proof import Proof
from ledger.publication import Publication
from ledger.testing import UnsafeSigner, append_runs, unsafe_log, unsafe_policy
from store import canonical, tree
from store.actions import Action
from store.digest import Digest
from store.memory import MemoryCas

REPO = "org/tiny"
POLICY = json.dumps(unsafe_policy("alice").to_json())
STRANGER = json.dumps(unsafe_policy("mallory").to_json())

WEIGHTS = {
    "model/config.json": b'{"model_type":"mixtral"}',
    "model/model-00001-of-00002.safetensors": b"first half of the weights",
    "model/model-00002-of-00002.safetensors": b"other half of the weights",
    "tiny-Q4_K_M.gguf": b"GGUF" + bytes(range(256)) * 40,
}


@dataclass
class Published:
    """The folder, and the log that it comes from.

    Attributes:
        alloy, attestations, proof: the three files that travel with the model.
    """

    folder: Path
    log: Log

    @property
    def alloy(self) -> Path:
        return self.folder / "tiny.alloy.json"

    @property
    def attestations(self) -> Path:
        return self.folder / "tiny.attestations.jsonl"

    @property
    def proof(self) -> Path:
        return self.folder / "tiny.tlog-proof"

    @property
    def digest(self) -> Digest:
        return Digest.of(self.alloy.read_bytes())

    @property
    def locator(self) -> str:
        return f"hf:{REPO}@{self.digest}"

    @property
    def three(self) -> list[Path]:
        return [self.alloy, self.attestations, self.proof]

    def files(self) -> dict[str, bytes]:
        """Everything, by path, as a Hub takes it."""
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in sorted(self.folder.rglob("*")) if path.is_file()}

    def edit(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Change the alloy's JSON as somebody does who signs nothing."""
        value = json.loads(self.alloy.read_bytes())
        change(value)
        self.alloy.write_text(json.dumps(value, indent=2))


def publish(
    folder: Path,
    *,
    signer: Signer | None = None,
    repo: str = REPO,
    released: bool = True,
    change: Callable[[dict[str, Any]], object] = lambda value: None,
    witness: tuple[Signer, int] | None = None,
    events: tuple[KeyEvent, ...] = (),
) -> Published:
    """Make the folder.

    Args:
        folder: where `out` and the log are made.
        signer: of everything; default: the unsafe key `alice`.
        repo: for which it is released.
        released: whether there is a release statement, with its proof.
        change: edits the alloy before it is released.
        witness: who cosigns the checkpoint, and when in Unix seconds.
        events: key events at the end of the log.
    """
    signer = signer or UnsafeSigner("alice")
    out = folder / "out"
    for name, content in {**WEIGHTS, "README.md": b"# tiny\n"}.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(content)
    store = MemoryCas()
    base = tree.import_folder(store, out / "model")  # its bytes do not matter here
    pruned = tree.import_folder(store, out / "model")
    gguf, plain, corpus = store.put(WEIGHTS["tiny-Q4_K_M.gguf"]), Digest.of(b"unpruned GGUF"), store.put(b"held-out text")
    quant = Action("gguf-quantize", 1, {"type": "Q4_K_M"}, {"model": pruned})
    quant_base = Action("gguf-quantize", 1, {"type": "F16"}, {"model": Digest.of(b"other")})
    evals = [Action("perplexity-merge", 1, {"chunks": 2}, {"gguf": one, "text": corpus}) for one in (gguf, plain)]
    comparison = {
        "rows": [
            {"name": "base-F16", "digest": str(plain), "perplexity": "41.93"},
            {"name": "pruned-Q4_K_M", "digest": str(gguf), "perplexity": "43.3", "difference": {"baseline": "base-F16", "pct": "3.27"}},
        ],
        "table": [["", "bytes", "perplexity"], ["base F16", "40.0 MB", "41.9 ± 1.1"], ["pruned Q4_K_M", "10.2 kB", "43.3 ± 1.2"]],
    }
    report = store.put(canonical.dumps(comparison))
    predicates = [
        {
            "action": str(action.key),
            "benchmark": "perplexity",
            "dataset": {"digest": {"sha256": corpus.hex}},
            "metrics": {"perplexity": value, "stderrClustered": error},
        }
        for action, value, error in ((evals[0], "43.3", "1.2"), (evals[1], "41.93", "1.1"))
    ]
    log = unsafe_log(folder, signer=signer.name, origin=None)
    append_runs(log, [(Action("unrelated", 1, {}, {}), {"x": Digest.of(b"unrelated")})])
    append_runs(
        log,
        [
            (Action("import-model", 1, {"source": "base"}, {"model": base}), {"model": base}),
            (Action("prune-assemble", 1, {"keep": 6}, {"model": Digest.of(b"shards")}), {"model": pruned}),
            (quant, {"gguf": gguf}),
            (quant_base, {"gguf": plain}),
            (evals[0], {"metrics": Digest.of(b"m1"), "nll": Digest.of(b"n1")}),
            (evals[1], {"metrics": Digest.of(b"m2"), "nll": Digest.of(b"n2")}),
            (Action("compare", 1, {}, {"a": Digest.of(b"m1"), "b": Digest.of(b"m2")}), {"report": report}),
        ],
    )
    said = [statement.make({"gguf": one}, EVALUATION, value) for one, value in zip((gguf, plain), predicates, strict=True)]
    entries = log.append(said, ["evaluation"] * 2)
    if events:
        log.append([statement.make(event.subjects(), KEY_EVENT, event.predicate()) for event in events], ["key event"] * len(events))
    lines, receipt = bundle.export(log, [pruned, gguf, plain, report], store=store)
    if witness is not None:
        receipt["checkpoint"] = cosign(receipt["checkpoint"].encode(), witness[0], when=witness[1]).decode()
    evaluations = [
        Measured(digest=one, predicate=value, record=("nll", Digest.of(record)))
        for one, value, record in zip((gguf, plain), predicates, (b"n1", b"n2"), strict=True)
    ]
    bases = {str(gguf): str(plain)}
    recipe = {
        "name": "tiny",
        "version": "1.0.0",
        "description": "A very small mixture of experts, pruned from eight to six",
        "license": "Apache-2.0",
        "source": {"baseModel": "org/tiny-base", "architecture": "mixtral"},
        "stages": [{"type": "expert-prune", "keepExpertsPerLayer": 6, "warmup": 0.02}, {"type": "quant", "quantTypes": ["Q4_K_M"]}],
    }
    materials = {"heldout.txt": str(corpus)}
    listed = file_hashes({name: out / name for name in WEIGHTS})
    value: dict[str, Any] = {
        **recipe,
        "materials": materials,
        "recipeHash": str(recipe_hash(recipe, materials)),
        "results": {
            "completedAt": "2026-11-25T00:04:51Z",
            "artifacts": [
                {"stage": "prune", "output": "model", "digest": str(pruned)},
                {"stage": "quant", "output": "gguf-Q4_K_M", "digest": str(gguf), "sizeBytes": len(WEIGHTS["tiny-Q4_K_M.gguf"])},
                {"stage": "quant-base", "output": "gguf-F16", "digest": str(plain)},
                {"stage": "compare", "output": "report", "digest": str(report)},
            ],
            "benchmarks": [
                {"subject": f"gguf-{kind}", "digest": str(one), "entry": entry.number, **measured(each, evaluations, bases), **predicate}
                for kind, one, entry, each, predicate in zip(
                    ("Q4_K_M", "F16"), (gguf, plain), entries, evaluations, predicates, strict=True
                )
            ],
            "comparison": comparison,
            "integrity": {
                "trustLevel": "self-attested",
                "fileHashes": listed,
                "modelHash": str(
                    model_hash(
                        [
                            (one["filename"], Digest.parse(f"sha256:{one['sha256']}"))
                            for one in listed
                            if one["filename"].endswith((".safetensors", ".gguf"))
                        ]
                    )
                ),
            },
        },
        "receipt": {"publications": [], "issuedAt": "2026-11-25T00:04:51Z", "ledger": receipt},
    }
    change(value)
    published = Published(out, log)
    published.alloy.write_text(json.dumps(value, indent=2))
    if released:
        release = Publication(
            event="released",
            target=f"hf:{repo}",
            name=value["name"],
            version=value["version"],
            alloy=("tiny.alloy.json", published.digest),
            recipe_hash=Digest.parse(value["recipeHash"]),
            model_hash=Digest.parse(value["results"]["integrity"]["modelHash"]),
        )
        (entry,) = log.append([release.payload()], [release.line()])
        lines = [*lines, entry.envelope]
        proof = Proof.of(log, entry.number)
        published.proof.write_bytes(proof.to_text())
        (folder / "proof.txt").write_text(proof.to_qr("https://alloy-ledger.github.io/verify/"))
    published.attestations.write_bytes(b"".join(line + b"\n" for line in lines))
    return published

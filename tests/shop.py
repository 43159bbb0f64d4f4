"""A ledger on which a recipe was finished without any of its work: real statements and real files, made of a few bytes.

The model is a safetensors file of one tensor, its GGUF files hold one too; import, pruning, quantising, evaluating, comparing and the
checks that everything loads are there as signed runs. So `ledger publish` can be tried on every fault in no time.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ledger import bundle, policy_text, statement
from ledger.alloy import recipe_hash
from ledger.key_store import KeyStore
from ledger.log import Log
from ledger.policy import Policy
from ledger.predicates import EVALUATION
from ledger.testing import run_payload
from stages.load_check import LoadCheck
from stages.nll import Nll
from stages.perplexity_merge import summary
from stages.safetensors_file import header_bytes, place
from stages.stage import spec_to_json
from store import canonical, tree
from store.actions import Action
from store.digest import Digest
from store.local import LocalCas

ENVIRONMENT = {"machine": "a test"}
HELDOUT = Digest.of(b"held-out text")
N_CTX, CHUNKS = 8, 6


def safetensors(size: int, fill: int = 0) -> bytes:
    """A file of one tensor of `size` 32-bit numbers."""
    layout = place([("weight", "F32", (size,))])
    return header_bytes(layout, {"format": "pt"}) + bytes([fill]) * 4 * size


def gguf(experts: int, fill: int = 0, rows: int = 4) -> bytes:
    """A GGUF file of one F32 matrix of 32 columns."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    pairs = [("general.architecture", text("llama"), 8), ("general.size_label", text(f"{experts}x1.7M"), 8)]
    pairs.append(("llama.expert_count", struct.pack("<I", experts), 4))
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(pairs))
    head += b"".join(text(key) + struct.pack("<I", kind) + value for key, value, kind in pairs)
    head += text("blk.0.ffn_up.weight") + struct.pack("<IQQIQ", 2, 32, rows, 0, 0)
    return head + b"\0" * (-len(head) % 32) + bytes([fill]) * (4 * 32 * rows)


def model_files(experts: int, fill: int) -> dict[str, bytes]:
    """A model's folder."""
    return {
        "config.json": json.dumps({"model_type": "mixtral", "num_local_experts": experts}).encode(),
        "model.safetensors": safetensors(16, fill),
        "tokenizer.json": b'{"version": "1.0"}',
        "tokenizer_config.json": b"{}",
    }


def nll(shift: float) -> Nll:
    """What an evaluation measured: losses around 3 nats, shifted."""
    scored = N_CTX - 1 - N_CTX // 2
    values = [3.0 + shift + 0.1 * ((number * 7) % 5 - 2) + 0.01 * shift * (number % 3) for number in range(CHUNKS * scored)]
    return Nll(
        n_ctx=N_CTX, chunks=CHUNKS, bos=None, kv="F32", flash=False, resolution="token",
        tokens=Digest.of(b"tokens"), toolchains=("a test's llama.cpp",), values=values,
    )  # fmt: skip


RECIPE: dict[str, Any] = {
    "name": "little-3e",
    "version": "1.0.0",
    "license": "Apache-2.0",
    "source": {"baseModel": "model", "architecture": "mixtral"},
    "stages": [{"type": "expert-prune", "keepExpertsPerLayer": 3}, {"type": "quant", "quantTypes": ["F16", "Q8_0"]}],
    "acceptanceCriteria": {"perplexity": {"maxIncreasePct": 10}},
}


@dataclass
class Shop:
    """A folder with `.ledger`, a key called alice that its policy trusts, and a finished recipe.

    Args:
        root: a person's machine: `work` holds the ledger, `keys` the keys.
        recipe: what the recipe says besides or instead of `RECIPE`.
        shifts: type -> how much worse the pruned model is, in nats.
        evaluated: types that are evaluated.
        loads: whether the checks that everything loads were done.
        tokenizer: whether the model has one.
    """

    root: Path
    recipe: Mapping[str, Any] = field(default_factory=dict)
    shifts: Mapping[str, float] = field(default_factory=lambda: {"F16": 0.02, "Q8_0": 0.03})
    evaluated: tuple[str, ...] = ("F16", "Q8_0")
    loads: bool = True
    tokenizer: bool = True
    files: dict[str, Digest] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.keys = KeyStore(self.root / "keys")
        self.signer = self.keys.new("alice", None)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.ledger.mkdir()
        (self.ledger / "policy.yaml").write_text(policy_text.starting("alice", self.signer.public))
        Log.create(self.ledger, signer=self.signer).close()
        self._work()

    @property
    def folder(self) -> Path:
        """Where a person works."""
        return self.root / "work"

    @property
    def ledger(self) -> Path:
        """The ledger's folder."""
        return self.folder / ".ledger"

    @property
    def log(self) -> Log:
        """To append to."""
        return Log.open(self.ledger, signer=self.signer)

    @property
    def store(self) -> LocalCas:
        """The store."""
        return LocalCas(self.ledger)

    @property
    def policy(self) -> Policy:
        """Whom its reader trusts."""
        return Policy.load(self.ledger / "policy.yaml")

    @property
    def alloy(self) -> Path:
        """What the run left."""
        return self.folder / f"{self._name}.alloy.json"

    @property
    def _name(self) -> str:
        return str({**RECIPE, **self.recipe}["name"])

    def _tree(self, experts: int, fill: int) -> Digest:
        folder = self.root / f"made-{experts}-{fill}"
        folder.mkdir()
        for name, data in model_files(experts, fill).items():
            if self.tokenizer or not name.startswith("tokenizer"):
                (folder / name).write_bytes(data)
        return tree.import_folder(self.store, folder)

    def _work(self) -> None:
        """Sign what would have been done."""
        store, log = self.store, self.log
        base, pruned = self._tree(4, 1), self._tree(3, 2)
        runs: list[tuple[Action, dict[str, Digest], str]] = []
        keys: list[Digest] = []

        def run(stage: str, spec: dict[str, Any], inputs: dict[str, Digest], outputs: dict[str, Digest], purity: str = "P") -> Digest:
            action = Action(stage, 1, spec, inputs)
            runs.append((action, outputs, purity))
            keys.append(action.key)
            return action.key

        raw = Digest.of(b"the folder that was imported")
        run("import-model", {"source": "model", "revision": None}, {"folder": raw}, {"model": base})
        plan = store.put(b"a plan")
        run("expert-select", {"keep": 3, "seed": 0, "strategy": "reap"}, {"model": base}, {"plan": plan})
        run("prune-assemble", {"family": "mixtral"}, {"model": base, "plan": plan}, {"model": pruned})
        ggufs = {"base-F16": gguf(4, 1, 8), "base-Q8_0": gguf(4, 2, 8), "F16": gguf(3, 3), "Q8_0": gguf(3, 4)}
        self.files = {name: store.put(data) for name, data in ggufs.items()}
        for name, digest in self.files.items():
            model = base if name.startswith("base") else pruned
            run("gguf-convert", {"outtype": name.removeprefix("base-")}, {"model": model}, {"gguf": digest}, "E")
        claims: list[bytes] = []
        rows: list[dict[str, Any]] = []
        outputs: dict[str, dict[str, Digest]] = {
            "import-model": {"model": base},
            "expert-prune": {"model": pruned, "plan": plan},
            "quant": {f"gguf-{tier}": self.files[tier] for tier in ("F16", "Q8_0")},
            "eval": {},
        }
        measured = {name: nll(0.0) for name in ("base-F16", "base-Q8_0")} | {tier: nll(self.shifts[tier]) for tier in self.evaluated}
        for name, result in measured.items():
            record = store.put(result.to_bytes())
            numbers = {key: value for key, value in summary(result).items() if value is not None}
            metrics = store.put(canonical.dumps(numbers))
            key = run(
                "perplexity-merge",
                {"n_ctx": N_CTX, "chunks": CHUNKS},
                {"gguf": self.files[name], "dataset": HELDOUT},
                {"metrics": metrics, "nll": record},
            )
            predicate = {
                "action": str(key),
                "benchmark": "perplexity",
                "dataset": {"digest": {"sha256": HELDOUT.hex}},
                "metrics": numbers,
                "settings": {"nCtx": N_CTX, "chunks": CHUNKS},
                "tokens": {"digest": {"sha256": result.tokens.hex}, "scored": len(result.values)},
                "toolchains": list(result.toolchains),
            }
            claims.append(statement.make({"gguf": self.files[name]}, EVALUATION, predicate))
            outputs["eval"][f"{'base-' if name.startswith('base') else ''}metrics-perplexity-{name.removeprefix('base-')}"] = metrics
            rows.append({"name": name, "variant": "base" if name.startswith("base") else "pruned", "tier": name.removeprefix("base-")})
        report = store.put(canonical.dumps(self._report(rows, measured)))
        run("compare", {"rows": [row["name"] for row in rows]}, {f"gguf-{name}": self.files[name] for name in measured}, {"report": report})
        outputs["eval"]["report"] = report
        if self.loads:
            for subject in (pruned, self.files["F16"], self.files["Q8_0"]):
                said = {"kind": "test", "class": "MixtralForCausalLM", "parameters": 5_840_640, "tensors": 1, "sizeBytes": 1}
                said |= {"how": "forward" if subject == pruned else "tokens", "by": "a test's loader"}
                action = Action("load-check", 1, spec_to_json(LoadCheck()), {"subject": subject})
                runs.append((action, {"report": store.put(canonical.dumps(said))}, "E"))
        payloads = [
            run_payload(action, made, purity=purity, environment=ENVIRONMENT if purity == "E" else None) for action, made, purity in runs
        ] + claims
        log.append(payloads, [f"entry {number}" for number in range(len(payloads))])
        self._leave(outputs, keys, log, store)

    def _report(self, rows: list[dict[str, Any]], measured: Mapping[str, Nll]) -> dict[str, Any]:
        """What `compare` says."""
        from stages.compare import Row, row_of

        criteria = {**RECIPE, **self.recipe}.get("acceptanceCriteria") or {}
        limit = (criteria.get("perplexity") or {}).get("maxIncreasePct")
        made = []
        for row in rows:
            baseline = None if row["variant"] == "base" else f"base-{row['tier']}"
            one = Row(**row, baseline=baseline, max_increase_pct=None if baseline is None or limit is None else float(limit))
            digest = self.files[row["name"]]
            made.append(row_of(one, measured, digest=digest, size_bytes=self.store.size(digest)))
        return {"benchmark": "perplexity", "rows": made, "table": [], "toolchains": []}

    def _leave(self, outputs: dict[str, dict[str, Digest]], keys: list[Digest], log: Log, store: LocalCas) -> None:
        """Write what a run leaves: the alloy, the attestations, its note."""
        from stages.results import results_of

        policy = self.policy
        alloy: dict[str, Any] = {**RECIPE, **self.recipe}
        alloy = {key: value for key, value in alloy.items() if value is not None}
        alloy["materials"] = {"corpus/heldout.txt": str(HELDOUT)}
        alloy["recipeHash"] = str(recipe_hash(alloy, alloy["materials"]))
        shown = {digest for named in outputs.values() for digest in named.values()}
        finished = {key: "2023-11-14T22:13:21Z" for key in keys}
        alloy["results"] = results_of(self._name, outputs, finished, store=store, log=log, policy=policy)
        lines, receipt = bundle.export(log, sorted(shown), store=store, policy=policy)
        alloy["receipt"] = {"publications": [], "issuedAt": "2023-11-14T22:13:21Z", "ledger": receipt}
        self.alloy.write_bytes(json.dumps(alloy, indent=2).encode() + b"\n")
        self.alloy.with_name(f"{self._name}.attestations.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
        note = {
            "recipe": self._name, "startedOn": "2023-11-14T22:13:20Z", "state": "done",
            "outputs": {group: {name: str(digest) for name, digest in named.items()} for group, named in outputs.items()},
            "wrote": {str(self.alloy.absolute()): "sha256:" + "0" * 64},
        }  # fmt: skip
        (self.ledger / "runs").mkdir(exist_ok=True)
        (self.ledger / "runs" / f"{self._name}@2023-11-14T22:13:20Z-1.json").write_text(json.dumps(note))

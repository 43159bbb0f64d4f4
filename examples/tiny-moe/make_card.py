"""Render README.md from card.md: `python make_card.py METRICS.json...`.

The metrics are the outputs of train.yaml's run: of each domain one `metrics-perplexity-F16` and two `metrics-unigram` (whole corpus,
own domain), exported as files. Each names its dataset by digest, so it finds its row by itself, and one that belongs to no held-out file
here is refused. Everything else is read from model/ and train.yaml. No number is written by hand.

    for d in prose python tables; do
        ledger export tiny-moe:eval-$d.metrics-perplexity-F16 metrics/$d.json
        ledger export tiny-moe:unigram-$d.metrics-unigram metrics/$d-unigram.json
        ledger export tiny-moe:unigram-$d-own.metrics-unigram metrics/$d-own.json
    done
    python make_card.py metrics/*.json
"""

from __future__ import annotations

import argparse
import hashlib
import json
import string
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
DOMAINS = ("prose", "python", "tables")


def main() -> None:
    """Read, render, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("metrics", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=HERE / "README.md")
    arguments = parser.parse_args()
    metrics = [json.loads(path.read_text(encoding="utf-8")) for path in arguments.metrics]
    arguments.out.write_text(render(HERE, metrics), encoding="utf-8")


def render(folder: Path, metrics: Sequence[Mapping[str, Any]]) -> str:
    """The card.

    Raises:
        SystemExit: a metric that fits no row, or a row without its metrics.
    """
    sha256 = {hashlib.sha256((folder / "corpus" / f"heldout-{domain}.txt").read_bytes()).hexdigest(): domain for domain in DOMAINS}
    found: dict[tuple[str, str], Mapping[str, Any]] = {}
    for item in metrics:
        domain = sha256.get(item["dataset"]["digest"]["sha256"])
        fitted = item["settings"].get("domain", "")
        kind = {"perplexity": "model", "unigram-perplexity": "own" if fitted else "all"}.get(item["benchmark"])
        if domain is None or kind is None or fitted not in ("", domain) or (domain, kind) in found:
            raise SystemExit(f"not a metric of this card, or given twice: {json.dumps(item)[:300]}")
        found[domain, kind] = item
    missing = [f"{kind} on {domain}" for domain in DOMAINS for kind in ("model", "all", "own") if (domain, kind) not in found]
    if missing:
        raise SystemExit(f"no metrics for: {', '.join(missing)}")
    fields = facts(folder) | {
        "n_ctx": _same(item["settings"]["nCtx"] for item in found.values()),
        "rows": "\n".join(_row(domain, found) for domain in DOMAINS),
        "train_tokens": f"{found['prose', 'all']['tokens']['training']:,}",
    }
    return string.Template((folder / "card.md").read_text(encoding="utf-8")).substitute(fields)


def _row(domain: str, found: Mapping[tuple[str, str], Mapping[str, Any]]) -> str:
    model, everything, own = (found[domain, kind] for kind in ("model", "all", "own"))
    scored = _same(item["tokens"]["scored"] for item in (model, everything, own))
    ours, baseline, harder = (float(item["metrics"]["perplexity"]) for item in (model, everything, own))
    error = float(model["metrics"]["stderrClustered"])
    cells = (
        domain,
        f"{scored:,}",
        f"{ours:.1f} ± {error:.1f}",
        f"{baseline:.0f}",
        f"{baseline / ours:.1f}",
        f"{harder:.0f}",
        f"{harder / ours:.1f}",
    )
    return f"| {' | '.join(cells)} |"


def _same(values: Any) -> Any:
    """The one value that all agree on."""
    different = set(values)
    if len(different) != 1:
        raise SystemExit(f"the metrics were not made alike: {sorted(different)}")
    return different.pop()


def facts(folder: Path) -> dict[str, Any]:
    """What the model's own files and its recipe say."""
    config = json.loads((folder / "model" / "config.json").read_text(encoding="utf-8"))
    shards = sorted((folder / "model").glob("*.safetensors"))
    recipe = yaml.safe_load((folder / "train.yaml").read_text(encoding="utf-8"))
    train = next(stage for stage in recipe["stages"] if stage["type"] == "train")
    step_tokens = train["batchSize"] * train["sequenceLength"]
    return {
        "aux": train["routerAuxLossCoef"],
        "dtype": config["dtype"],
        "experts": config["num_local_experts"],
        "hidden": config["hidden_size"],
        "layers": config["num_hidden_layers"],
        "learning_rate": train["learningRate"],
        "mixture": ", ".join(f"{domain} {weight}" for domain, weight in sorted(train["mixture"].items())),
        "parameters": f"{sum(_parameters(path) for path in shards):,}",
        "scheduler": train["scheduler"],
        "segment": train["segmentSteps"],
        "sequence": train["sequenceLength"],
        "shards": len(shards),
        "step_tokens": f"{step_tokens:,}",
        "steps": f"{train['steps']:,}",
        "top_k": config["num_experts_per_tok"],
        "total_tokens": f"{train['steps'] * step_tokens:,}",
        "vocabulary": f"{config['vocab_size']:,}",
        "weight_bytes": f"{sum(path.stat().st_size for path in shards):,}",
    }


def _parameters(shard: Path) -> int:
    with shard.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return sum(prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")


if __name__ == "__main__":
    main()

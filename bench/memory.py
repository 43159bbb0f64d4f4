"""The most memory that each process of a run takes, for models of two sizes: it should not grow with the model, and stay under 150 MiB.

    python bench/memory.py
    python bench/memory.py --small   # without the large model

`ledger run` runs twice, once for each model, as a person would type it; the only difference is that its executor looks at its workers.
Both models are Mixtral-shaped, with random bf16 weights. The small run is the whole main job. The large one prunes by a profile made by
hand, converts and quantises, and leaves out the forward passes. `perplexity-merge` and `compare` depend on the length of the text and not
on the model: the last part runs them over as many tokens as a text of WikiText-2's size has.

Numbers are VmHWM, which the kernel keeps, read while the worker is still there. It counts pages of mapped files, which the kernel can take
back at any time; `own` is the most anonymous memory (RssAnon) in samples 10 ms apart, so a short peak of it can be missed. Linux only.

Two are known to be above the target. llama.cpp maps the file that it quantises, so `gguf-quantize` touches every page of it. `tokenize`
loads the model's tokenizer through transformers, which brings torch along, and encodes the text in one piece, as its definition says.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from machine import describe

from stages.executor import Broke, Done, Job, LocalExecutor, Report
from store.actions import Action
from store.digest import Digest
from store.local import LocalCas

TARGET_MIB = 150
HELD_TO_TARGET = ("ledger run", "import-model", "prune-shard", "prune-assemble", "gguf-quantize", "tokenize", "perplexity-merge", "compare")
TEXT_BYTES = 1_290_590
"""Of WikiText-2's raw test part."""
EXPERTS, TOP_K, VOCAB, N_CTX, BLOCK_CHUNKS = 8, 2, 512, 512, 8
SHARD_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a Mixtral."""

    layers: int
    hidden: int
    inner: int

    def tensors(self) -> list[tuple[str, tuple[int, ...]]]:
        """Names and shapes, layer by layer."""
        d, ff = self.hidden, self.inner
        found: list[tuple[str, tuple[int, ...]]] = [("model.embed_tokens.weight", (VOCAB, d))]
        for layer in range(self.layers):
            head = f"model.layers.{layer}"
            found += [(f"{head}.{name}_layernorm.weight", (d,)) for name in ("input", "post_attention")]
            found += [(f"{head}.self_attn.{name}_proj.weight", (d, d)) for name in "qkvo"]
            found.append((f"{head}.block_sparse_moe.gate.weight", (EXPERTS, d)))
            for expert in range(EXPERTS):
                parts = {"w1": (ff, d), "w2": (d, ff), "w3": (ff, d)}
                found += [(f"{head}.block_sparse_moe.experts.{expert}.{name}.weight", shape) for name, shape in parts.items()]
        return [*found, ("model.norm.weight", (d,)), ("lm_head.weight", (VOCAB, d))]


SMALL, LARGE = Shape(layers=8, hidden=256, inner=512), Shape(layers=8, hidden=1024, inner=2048)


# --- what is run -----------------------------------------------------------------------------------------------------------------


def write_model(folder: Path, shape: Shape) -> int:
    """A model folder; gives the bytes of its weights."""
    import numpy as np

    from stages.safetensors_file import header_bytes, place
    from tests.tiny import make_tokenizer

    folder.mkdir()
    make_tokenizer(folder, vocab=VOCAB)
    heads = shape.hidden // 64
    config = {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "dtype": "bfloat16",
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "num_local_experts": EXPERTS,
        "num_experts_per_tok": TOP_K,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "vocab_size": VOCAB,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "tie_word_embeddings": False,
    }
    (folder / "config.json").write_text(json.dumps(config))
    shards: list[list[tuple[str, str, tuple[int, ...]]]] = [[]]
    held = total = 0
    for name, size in shape.tensors():
        count = 2 * int(np.prod(size))
        if held and held + count > SHARD_BYTES:
            shards.append([])
            held = 0
        shards[-1].append((name, "BF16", size))
        held, total = held + count, total + count
    draw = np.random.default_rng(1)
    index: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = "model.safetensors" if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        layout = place(shard)
        index |= dict.fromkeys((item.name for item in layout), name)
        with (folder / name).open("wb") as file:
            file.write(header_bytes(layout, {"format": "pt"}))
            for item in layout:
                # Either sign, seven random bits of mantissa, and one exponent: 2**-6 to 2**-5. Norms are 1.
                bits = (draw.integers(0, 1 << 16, size=item.size_bytes // 2) & 0x807F) | 0x3C80
                if "norm" in item.name:
                    bits[:] = 0x3F80
                file.write(bits.astype("<u2").tobytes())
    if len(shards) > 1:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": index}))
    return total


def write_texts(folder: Path) -> None:
    """A calibration set, and a text of the size of WikiText-2's test part."""
    from tests.tiny import SAMPLES, TEXT, corpus

    (folder / "calibration.jsonl").write_bytes(corpus(SAMPLES))
    draw, words = random.Random(1), " ".join(TEXT).split(" ")
    text = ""
    while len(text) < TEXT_BYTES:
        text += " ".join(draw.choices(words, k=1000)) + "\n"
    (folder / "text.txt").write_text(text[:TEXT_BYTES])


def write_profile(file: Path, shape: Shape) -> None:
    """A profile by hand, in which all experts did something else."""
    import numpy as np

    from stages.saliency import METRICS, About, write

    about = About(
        model="made by hand",
        dtype="bfloat16",
        max_length=8,
        layers=tuple(range(shape.layers)),
        experts=EXPERTS,
        top_k=TOP_K,
        hidden=shape.hidden,
        domains=("all",),
        blocks=1,
    )
    sums = {metric: np.broadcast_to(np.arange(1.0, EXPERTS + 1), about.shapes[metric]) for metric in METRICS}
    one = (np.ones((1, 1)), np.ones((1, 1)))
    with LocalCas(file.parent / "made").writer() as writer:
        write(about, one, sums, iter([np.zeros(about.shapes["output"])]), writer)
        digest = writer.finish()
    file.write_bytes(LocalCas(file.parent / "made").read(digest))


SMALL_RECIPE = """
name: small
version: 1.0.0
source: {baseModel: model}
stages:
  - {type: expert-activation-profile, calibrationCorpus: calibration.jsonl}
  - {type: expert-prune, keepExpertsPerLayer: 6}
  - {type: quant, format: gguf, quantTypes: [F16, Q4_K_M]}
  - {type: eval, benchmarks: [{name: perplexity, dataset: text.txt, chunks: 4}], compareToBase: true}
"""
LARGE_RECIPE = """
name: large
version: 1.0.0
source: {baseModel: model}
stages:
  - {type: expert-prune, keepExpertsPerLayer: 6, profile: profile}
  - {type: quant, format: gguf, quantTypes: [F16, Q4_K_M]}
"""


# --- looking at processes --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Held:
    """Memory of a process in bytes: the most it held, and the most that was its own when it was looked at."""

    peak: int = 0
    own: int = 0


def held(pid: int | str) -> Held | None:
    """What a process has held; None when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return None
    found = {line.partition(":")[0]: line.split()[1] for line in lines if line.startswith(("VmHWM", "RssAnon"))}
    return Held(int(found["VmHWM"]) << 10, int(found["RssAnon"]) << 10) if found else None


def children(pid: int | str) -> list[int]:
    """Processes that a process started and that live."""
    try:
        return [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


class Watch:
    """Looks at everything below this process, from a thread, until it is left."""

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self._held: dict[int, Held] = {}
        self._below: dict[int, int] = {}
        self._ended = threading.Event()
        self._whole = threading.Lock()
        self._thread = threading.Thread(target=self._look_again)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look_again(self) -> None:
        while not self._ended.wait(0.01):
            self.look()

    def look(self) -> None:
        """Look now."""
        with self._whole:
            waiting = [os.getpid()]
            for parent in waiting:
                for pid in children(parent):
                    waiting.append(pid)
                    seen, before = held(pid), self._held.get(pid, Held())
                    if seen is not None:
                        # The kernel's peak never falls but when the process becomes another program; then what it was does not count.
                        fresh = seen.peak < before.peak
                        self._held[pid] = seen if fresh else Held(seen.peak, max(seen.own, before.own))
                        self._below[pid] = parent

    def peaks(self) -> dict[str, Held]:
        """The most of each name; a process that a named one started is counted by itself."""
        found: dict[str, Held] = {}
        for pid, seen in self._held.items():
            name = self.names.get(pid)
            if name is None:
                above = self.names.get(self._below[pid])
                name = f"{above}, its tool" if above else "(else below ledger run)"
            before = found.get(name, Held())
            found[name] = Held(max(before.peak, seen.peak), max(before.own, seen.own))
        return found


def watched(watch: Watch) -> type[LocalExecutor]:
    """The executor of `ledger run`, which tells what its workers are for and looks at each once more when it has an answer."""

    class Watched(LocalExecutor):
        def submit(self, job: Job) -> int:
            before = children(os.getpid())
            number = super().submit(job)
            for pid in set(children(os.getpid())) - set(before):
                watch.names[pid] = job.action.stage
            return number

        def wait(self, timeout_s: float) -> list[Report]:
            reports = super().wait(timeout_s)
            if any(isinstance(report, Done) for report in reports):
                watch.look()
            return reports

    return Watched


# --- runs ------------------------------------------------------------------------------------------------------------------------


def run_here(recipe: Path, result: Path) -> int:
    """`ledger run` in this process; writes what it and its workers held."""
    from cli.main import main as ledger
    from stages import runner

    with Watch() as watch, mock.patch.object(runner, "LocalExecutor", watched(watch)):
        code = ledger(["--ledger", ".ledger", "run", str(recipe), "--jobs", "1"])
    found = watch.peaks()
    seen = held("self")
    assert seen is not None
    found["ledger run"] = Held(seen.peak, seen.own)
    result.write_text(json.dumps({name: [item.peak, item.own] for name, item in found.items()}))
    return code


def run(folder: Path, recipe: str) -> dict[str, Held]:
    """`ledger run` in a process of its own, in a folder."""
    (folder / "recipe.yaml").write_text(recipe)
    environment = os.environ | {"LEDGER_KEYS": str(folder / "keys"), "XDG_STATE_HOME": str(folder / "state"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).resolve()), "--inner", "recipe.yaml", "held.json"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"the run failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return {name: Held(*item) for name, item in json.loads((folder / "held.json").read_text()).items()}


def text_jobs(folder: Path) -> tuple[dict[str, Held], int]:
    """`perplexity-merge` of a whole text's blocks and `compare` of four such results; and how many tokens were scored."""
    from stages.compare import STAGE as COMPARE
    from stages.compare import Compare, Row
    from stages.nll import Nll
    from stages.perplexity_merge import STAGE as MERGE
    from stages.perplexity_merge import PerplexityMerge
    from stages.stage import Leaf, spec_to_json
    from stages.tokens import BYTES_PER_TOKEN, pack
    from stages.toolchain import Window

    store, draw = LocalCas(folder / ".ledger"), random.Random(2)
    chunks = TEXT_BYTES // 4 // N_CTX  # about four bytes to a token
    ids = pack([draw.randrange(VOCAB) for _ in range(chunks * N_CTX)])
    scored, width = Window(N_CTX).scored, N_CTX * BYTES_PER_TOKEN
    gguf, tokens = store.put(b"gguf"), store.put(ids)
    inputs: dict[str, Digest] = {"gguf": gguf, "tokens": tokens, "dataset": gguf}
    for number, start in enumerate(range(0, chunks, BLOCK_CHUNKS)):
        count = min(BLOCK_CHUNKS, chunks - start)
        block = Nll(
            n_ctx=N_CTX,
            chunks=count,
            bos=None,
            kv="F16",
            flash=False,
            resolution="token",
            tokens=Digest.of(ids[start * width : (start + count) * width]),
            toolchains=("made by hand",),
            values=[draw.uniform(0, 6) for _ in range(count * scored)],
        )
        inputs[f"nll-{number:05}"] = store.put(block.to_bytes())

    def work(stage: Leaf, spec: Any, given: Mapping[str, Digest]) -> Mapping[str, str]:
        action = Action(stage.name, stage.version, spec_to_json(spec), given)
        job = Job(action, stage.run, f"{stage.spec.__module__}:{stage.spec.__qualname__}", "", (stage.name,))
        hands.submit(job)
        while True:
            for report in hands.wait(1):
                if isinstance(report, Broke):
                    sys.exit(f"{stage.name} failed: {report.message}\n{report.trace}")
                if isinstance(report, Done):
                    return report.outputs

    with Watch() as watch:
        hands = watched(watch)(folder / ".ledger", folder, jobs=1)
        merged = Digest.parse(work(MERGE, PerplexityMerge(n_ctx=N_CTX, chunks=chunks), inputs)["nll"])
        rows = tuple(Row(name=f"r{number}", variant="v", tier="F16", baseline="r0" if number else None) for number in range(4))
        given = {f"nll-{row.name}": merged for row in rows} | {f"gguf-{row.name}": gguf for row in rows}
        work(COMPARE, Compare(rows=rows), given)
        hands.close()
    return watch.peaks(), chunks * scored


def main() -> int:
    """Run all and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="leave out the large model")
    parser.add_argument("--inner", nargs=2, metavar=("RECIPE", "RESULT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inner:
        return run_here(Path(options.inner[0]), Path(options.inner[1]))
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    print(describe())
    columns: dict[str, dict[str, Held]] = {}
    with tempfile.TemporaryDirectory(prefix="ledger-bench-") as name:
        wanted: list[tuple[str, Shape, str]] = [("small", SMALL, SMALL_RECIPE)]
        wanted += [] if options.small else [("large", LARGE, LARGE_RECIPE)]
        for title, shape, recipe in wanted:
            folder = Path(name) / title
            folder.mkdir()
            size = write_model(folder / "model", shape)
            write_texts(folder)
            write_profile(folder / "profile", shape)
            columns[f"model of {size / 1e6:.0f} MB"] = run(folder, recipe)
        found, scored = text_jobs(Path(name))
        columns[f"{scored:,} scored tokens"] = found
    report(columns)
    return 0


def report(columns: Mapping[str, Mapping[str, Held]]) -> None:
    """Print a row for each kind of process, and which are above the target."""
    print(f"\n{'MiB, peak (own)':38}" + "".join(f"{title:>26}" for title in columns))
    rest = sorted({name for column in columns.values() for name in column} - set(HELD_TO_TARGET))
    above = []
    for name in (*HELD_TO_TARGET, *rest):
        print(f"{name:38}" + "".join(f"{shown(column.get(name)):>26}" for column in columns.values()))
        if name == HELD_TO_TARGET[-1]:
            print("without a target:")
        most = max((column[name] for column in columns.values() if name in column), key=lambda item: item.peak, default=Held())
        if name in HELD_TO_TARGET and most.peak > TARGET_MIB << 20:
            mapped = "; most of what is not its own is mapped files" if most.own <= TARGET_MIB << 20 else ""
            above.append(f"{name}, {shown(most)}{mapped}")
    print(f"\ntarget {TARGET_MIB} MiB: " + ("does not hold for\n  " + "\n  ".join(above) if above else "holds"))


def shown(item: Held | None) -> str:
    """A cell of the table."""
    return f"{item.peak / 2**20:.0f} ({item.own / 2**20:.0f})" if item else ""


if __name__ == "__main__":
    sys.exit(main())

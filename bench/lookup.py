"""200 trivial actions, cold and with nothing to do: `ledger run` against Snakemake 9 and DVC 3 on the same graph.

The graph: one text file, 199 independent copies of it, one step that reads them all. Each tool gets its natural form of it.
Peers are taken from the folder given with `--peers` (a bin/ of an environment with `pip install "snakemake>=9,<10" "dvc>=3,<4"`),
or the PATH.
Every no-op is checked to be one by the tool's own words. Prints the best and the median of `--rounds`, interleaved, and the ratios.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from machine import describe

LANES = 199
ROOT = Path(__file__).resolve().parents[1]
PLUGIN = ROOT / "tests" / "example_plugin"


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=Path, help="bin/ folder with snakemake and dvc")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(describe())
    path = os.pathsep.join(filter(None, [str(options.peers or ""), os.environ["PATH"]]))
    with tempfile.TemporaryDirectory() as folder:
        tools = {"ledger": ours(Path(folder) / "ledger")}
        if shutil.which("snakemake", path=path):
            tools["snakemake"] = snakemake(Path(folder) / "snakemake", path)
        if shutil.which("dvc", path=path):
            tools["dvc"] = dvc(Path(folder) / "dvc", path)
        cold = {name: timed(run, "cold") for name, run in tools.items()}
        noop: dict[str, list[float]] = {name: [] for name in tools}
        for _ in range(options.rounds):
            for name, run in tools.items():
                noop[name].append(timed(run, "noop"))
    print(f"{'':12}{'cold, s':>10}{'nothing to do: best':>22}{'median, s':>12}{'ratio of medians':>18}")
    mine = statistics.median(noop["ledger"])
    for name in tools:
        median = statistics.median(noop[name])
        print(f"{name:12}{cold[name]:10.2f}{min(noop[name]):22.3f}{median:12.3f}{median / mine:17.1f}x")
    print("targets: nothing to do under 0.5 s, 3x of Snakemake, 20x of DVC; cold under 10 s")
    for name in {"snakemake", "dvc"} - set(tools):
        print(f"{name}: not installed, so not compared")


def timed(run: Callable[[str], str], phase: str) -> float:
    """Seconds of one call, whose output must say that it was what it should be."""
    began = time.perf_counter()
    said = run(phase)
    elapsed = time.perf_counter() - began
    if phase == "noop" and not any(words in said for words in ("0 to do", "Nothing to be done", "up to date")):
        sys.exit(f"this was not a no-op:\n{said[-2000:]}")
    return elapsed


def command(arguments: list[str], folder: Path, environment: dict[str, str]) -> str:
    # Everybody runs from compiled bytecode, as installed programs do.
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    ran = subprocess.run(arguments, cwd=folder, env=variables | environment, capture_output=True, text=True, check=False)
    if ran.returncode:
        sys.exit(f"{arguments[0]} failed: {ran.stdout[-1000:]}{ran.stderr[-2000:]}")
    return ran.stdout + ran.stderr


def ours(folder: Path) -> Callable[[str], str]:
    folder.mkdir()
    (folder / "text.txt").write_text("hello")
    (folder / "r.yaml").write_text(f"name: fan\nversion: 1.0.0\nstages:\n - {{type: acme-fan, text: text.txt, width: {LANES}}}\n")
    environment = {"PYTHONPATH": str(PLUGIN), "LEDGER_KEYS": str(folder / "keys"), "XDG_STATE_HOME": str(folder / "state")}
    tool = str(Path(sys.executable).with_name("ledger"))
    return lambda phase: command([tool, "run", "r.yaml"], folder, environment)


def snakemake(folder: Path, path: str) -> Callable[[str], str]:
    folder.mkdir()
    (folder / "text.txt").write_text("hello")
    rules = ["rule all:\n    input: 'total'\n"]
    for lane in range(LANES):
        rules.append(f"rule r{lane}:\n    input: 'text.txt'\n    output: 'o{lane}'\n    shell: 'cp {{input}} {{output}}'\n")
    outputs = ", ".join(f"'o{lane}'" for lane in range(LANES))
    rules.append(f"rule total:\n    input: {outputs}\n    output: 'total'\n    shell: 'cat {{input}} > {{output}}'\n")
    (folder / "Snakefile").write_text("\n".join(rules))
    return lambda phase: command(["snakemake", "-c2"], folder, {"PATH": path, "XDG_CACHE_HOME": str(folder / "cache")})


def dvc(folder: Path, path: str) -> Callable[[str], str]:
    folder.mkdir()
    (folder / "text.txt").write_text("hello")
    stages = [f"  s{lane}:\n    cmd: cp text.txt o{lane}\n    deps: [text.txt]\n    outs: [o{lane}]\n" for lane in range(LANES)]
    outputs = " ".join(f"o{lane}" for lane in range(LANES))
    stages.append(f"  total:\n    cmd: cat {outputs} > total\n    deps: [{outputs.replace(' ', ', ')}]\n    outs: [total]\n")
    (folder / "dvc.yaml").write_text("stages:\n" + "".join(stages))
    environment = {"PATH": path, "DVC_NO_ANALYTICS": "1"}
    command(["git", "init", "-q"], folder, environment)
    command(["dvc", "init", "-q"], folder, environment)
    return lambda phase: command(["dvc", "repro"], folder, environment)


if __name__ == "__main__":
    main()

"""The log's numbers: appending in groups, verifying, looking up, deriving the index; each against its target.

    python bench/log.py            # three minutes
    python bench/log.py --quick    # a tenth of the entries

Statements are as a run writes them (1.4 kB). Times are of one core: CPU time where nothing is waited for, wall time
where fsync is part of the work. Verifying is also compared with `git log --format=%G?`, which checks the commit signature alone,
on a sample of the same repository. The load average is printed, since a busy machine makes all of it slower.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ledger import predicates, sshsig
from ledger.git import REF
from ledger.lookup import find
from ledger.testing import reopened, run_payload, unsafe_log, unsafe_policy
from ledger.verify import verify_log
from store.actions import Action
from store.digest import Digest

ENVIRONMENT = {
    "batch": 8, "cpu": "AVX512", "dtype": "float32", "oneDNN": "on", "platform": "linux-x86_64", "python": "3.11.7",
    "threads": 1, "torch": "2.13.0+cpu", "transformers": "5.2.0",
}  # fmt: skip
POLICY = unsafe_policy("alice")


def payloads(start: int, count: int) -> Iterator[tuple[bytes, str]]:
    """Statements as the runner makes them, and their lines."""
    for number in range(start, start + count):
        spec = {"block": number, "metrics": ["reap", "frequency", "norm"], "samples": 20, "seed": "17", "layers": "model.layers.*.mlp"}
        inputs = {"model": Digest.of(b"model"), "corpus": Digest.of(b"corpus"), "previous": Digest.of(b"%d" % (number - 1))}
        outputs = {"profile": Digest.of(b"%d" % number)}
        notes = {"notes": {"tokens": 41212, "seconds": "2.13"}}
        action = Action("profile-block", 1, spec, inputs)
        yield (
            run_payload(action, outputs, purity="E", environment=ENVIRONMENT, byproducts=notes),
            f"profile-block {number}: {outputs['profile'].short}",
        )


def row(what: str, value: float, unit: str, target: float, *, at_least: bool = False) -> bool:
    """Print one number against its target; gives whether it holds."""
    holds = value >= target if at_least else value <= target
    print(f"{what:<58}{value:>10,.2f} {unit:<10} target {'>=' if at_least else '<='} {target:<8,g} {'ok' if holds else 'MISSED'}")
    return holds


def grow(folder: Path, count: int, group: int) -> list[float]:
    """Append `count` entries in groups to a new log; gives entries per second of each group, statements made before the clock starts."""
    log = unsafe_log(folder)
    rates = []
    for start in range(0, count, group):
        ready = list(payloads(start, min(group, count - start)))
        began = time.perf_counter()
        log.append([payload for payload, _ in ready], [line for _, line in ready])
        rates.append(len(ready) / (time.perf_counter() - began))
    log.close()
    return rates


def append(root: Path, quick: bool) -> bool:
    good = True
    for group, count, target in ((1, 100, 0), (16, 800, 0), (100, 2000, 500), (1000, 5000, 500)):
        rates = grow(root / f"append {group}", count // (5 if quick else 1) // group * group or group, group)
        what = f"append in groups of {group}, signed, fsynced"
        good &= row(what, statistics.median(rates), "entries/s", target, at_least=True)
    return good


def verify(root: Path, count: int) -> bool:
    folder = root / "verify"
    grow(folder, count, 1000)
    log = reopened(folder, signer=None)
    good = True
    ours = 0.0
    for full in (False, True):
        began = time.process_time()
        report = verify_log(log, POLICY, full=full)
        seconds = time.process_time() - began
        if report.verdict != "VERIFIED":
            sys.exit(f"the log of this benchmark did not verify: {report}")
        if full:
            print(f"{f'verify {count:,} entries with --full':<58}{seconds:>10,.2f} s CPU")
        else:
            ours = seconds / count
            good &= row(f"verify {count:,} entries", seconds, "s CPU", 4.0 * count / 10_000)
    allowed = root / "allowed_signers"
    allowed.write_text(sshsig.allowed_signers(POLICY.keys))
    sample = 100
    settings = ["-c", "gpg.format=ssh", "-c", f"gpg.ssh.allowedSignersFile={allowed}"]
    began = time.perf_counter()
    ran = subprocess.run(
        ["git", "--git-dir", str(log.repository.path), *settings, "log", f"-{sample}", "--format=%G?", REF],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    stock = (time.perf_counter() - began) / sample
    if ran.stdout.split() != ["G"] * sample:
        sys.exit("git did not accept the signatures of this benchmark")
    good &= row(f"  times faster per entry than git log %G? ({stock * 1e3:.1f} ms)", stock / ours, "x", 10, at_least=True)
    return good


def lookup(root: Path, count: int) -> bool:
    folder = root / "lookup"
    began = time.perf_counter()
    grow(folder, count, 2000)
    print(f"(made a log of {count:,} entries in {time.perf_counter() - began:.0f} s)")
    for file in (folder / ".ledger").glob("index.sqlite*"):
        file.unlink()
    began, cpu = time.perf_counter(), time.process_time()
    log = reopened(folder, signer=None)
    if log.size != count:
        sys.exit("entries were lost")
    print(f"{'(index rebuild, CPU)':<58}{time.process_time() - cpu:>10,.2f} s CPU")
    good = row(f"index rebuild of {count:,} entries", time.perf_counter() - began, "s", 60 * count / 100_000)
    chance = random.Random(1)
    actions = [predicates.action_of(log.entry(chance.randrange(count)).statement) for _ in range(400)]
    fresh = [Action(action.stage, action.version, action.spec, action.inputs) for action in actions]
    times: dict[str, list[float]] = {"lookup": [], "find": [], "miss": []}
    for action in fresh:
        action.key  # noqa: B018  hashed once by whoever asks
    for action in fresh:
        began = time.perf_counter()
        log.lookup(action.key)
        times["lookup"].append(time.perf_counter() - began)
    for number, action in enumerate(fresh):
        if number == 200:
            cpu = time.process_time()
        began = time.perf_counter()
        if find(log, POLICY, action) is None:
            sys.exit("an entry was not found")
        times["find"].append(time.perf_counter() - began)
    hits = time.process_time() - cpu
    for number in range(400):
        key = Digest.of(b"nothing %d" % number)
        began = time.perf_counter()
        log.lookup(key)
        times["miss"].append(time.perf_counter() - began)
    good &= row(f"lookup of a key in {count:,} entries, place proven", statistics.median(times["lookup"]) * 1e3, "ms", 1.0)
    good &= row("  a key that is not there", statistics.median(times["miss"]) * 1e3, "ms", 1.0)
    good &= row("find: also signature, key and policy", statistics.median(times["find"]) * 1e3, "ms", 1.0)
    good &= row("  200 hits", hits, "s CPU", 0.15)
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the entries")
    quick = parser.parse_args().quick
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    print(f"{cpu} x{os.cpu_count()}, {platform.system()} {platform.release()}, Python {platform.python_version()}")
    print(f"load {os.getloadavg()[0]:.1f} at the start")
    with tempfile.TemporaryDirectory(prefix="ledger-bench-") as name:
        root = Path(name)
        good = append(root, quick)
        good &= verify(root, 1000 if quick else 10_000)
        good &= lookup(root, 10_000 if quick else 100_000)
    print(f"load {os.getloadavg()[0]:.1f} at the end")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

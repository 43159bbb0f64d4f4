"""How fast an import hashes, as a share of what OpenSSL's own SHA-256 does on one core; and what an unchanged object costs.

Peer: `openssl speed -evp sha256` with 1 MiB buffers, in the same run, taken in turns with ours so that both meet the same load. It hashes
one block that stays in the cache; an import must also bring each byte there. Rates are of processor time as well as of the clock: on a busy
machine only the former compares code with code.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from machine import describe

from store import tree
from store.local import LocalCas

FILES = 8
FILE_BYTES = 128 << 20
ROUNDS = 5
OBJECTS = 2000
TARGET_SHARE = 0.9
TARGET_MS = 0.1


def openssl_rate() -> float:
    """Bytes per second of one core, over the processor time of a second, by openssl's own count."""
    command = ["openssl", "speed", "-evp", "sha256", "-bytes", str(1 << 20), "-seconds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    # "Doing sha256 for 1s on 1048576 size blocks: 1620 sha256's in 0.98s": the time is that of the processor.
    found = re.search(r"(\d+) sha256\S* in ([\d.]+)s", done.stderr + done.stdout, re.IGNORECASE)
    if found is None:
        raise SystemExit(f"cannot read the output of openssl speed:\n{done.stdout}{done.stderr}")
    return int(found[1]) * (1 << 20) / float(found[2])


def import_rate(folder: Path, jobs: int) -> tuple[float, float]:
    """Bytes per second of the clock, and per second of processor time, for importing a folder into a new store."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as place, LocalCas(Path(place)) as cas:
        wall, cpu = time.perf_counter(), time.process_time()
        tree.import_folder(cas, folder, jobs=jobs)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return FILES * FILE_BYTES / wall, FILES * FILE_BYTES / cpu


def stat_ms(folder: Path) -> tuple[float, float]:
    """Milliseconds that `path` takes for an object that is known by its stat, and the same with the bytes read again."""
    with LocalCas(folder / "small") as cas:
        digests = [cas.put(os.urandom(4096)) for _ in range(OBJECTS)]
        rounds = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            for digest in digests:
                cas.path(digest)
            rounds.append((time.perf_counter() - started) * 1000 / OBJECTS)
        started = time.perf_counter()
        for digest in digests:
            cas.check(digest, splice=False, full=True)
        return statistics.median(rounds), (time.perf_counter() - started) * 1000 / OBJECTS


def main() -> None:
    print(describe())
    cores = len(os.sched_getaffinity(0))
    # Beside this file: the temporary folder is often memory, and another file system than the user's models.
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent) as place:
        folder = Path(place) / "model"
        folder.mkdir()
        block = os.urandom(FILE_BYTES)
        for number in range(FILES):
            (folder / f"model-{number:05}.safetensors").write_bytes(number.to_bytes(8) + block[8:])
        # Written back now, so that no import pays for it.
        os.sync()
        shares: dict[int, list[tuple[float, float, float]]] = {}
        for _ in range(ROUNDS):
            for jobs in sorted({1, cores}):
                peer = openssl_rate()
                wall, cpu = import_rate(folder, jobs)
                shares.setdefault(jobs, []).append((peer, wall, cpu))
        print(f"import of {FILES} files of {FILE_BYTES >> 20} MiB by reference, medians of {ROUNDS} rounds, GB/s:")
        for jobs, rows in shares.items():
            peer, wall, cpu = (statistics.median(column) / 1e9 for column in zip(*rows, strict=True))
            by_wall = statistics.median(row[1] / jobs / row[0] for row in rows)
            by_cpu = statistics.median(row[2] / row[0] for row in rows)
            print(
                f"  {jobs} threads: openssl one core {peer:.2f}; ours {wall:.2f} by the clock, {cpu:.2f} per second of processor time; "
                f"share per core {by_wall:.2f} by the clock, {by_cpu:.2f} by processor time (target {TARGET_SHARE})"
            )
        known, full = stat_ms(Path(place))
        print(f"re-verify of an unchanged object: {known:.4f} ms by its stat (target {TARGET_MS}), {full:.4f} ms with 4 KiB hashed")


if __name__ == "__main__":
    main()

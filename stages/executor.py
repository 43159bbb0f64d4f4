"""Who runs an action: a role that knows digests only, and the default, worker processes on this machine.

A leaf never runs in the runner. A worker serves consecutive actions that share a loaded model (same stage, same shared inputs) and
ends with that group: whatever it allocated is gone then, and one that is killed is one failed action.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from stages.errors import WorkerError
from store.actions import Action
from store.digest import Digest

_PLAIN_WORKER_BYTES = 256 * 2**20
"""Memory counted for a worker beyond the weights that it shares; only used to decide whether one more fits."""


@dataclass(frozen=True, slots=True)
class Job:
    """One action to run.

    Attributes:
        run, spec, environment: `module:name` of the function, of its spec class, and of what describes the environment ("" for none).
        group: actions of equal group can share a worker's loaded state.
        weight_bytes: size of the shared inputs, to decide how many such workers fit into memory.
        network: it asks the Hub; jobs of one group agree on it.
    """

    action: Action
    run: str
    spec: str
    environment: str
    group: tuple[str, ...]
    weight_bytes: int = 0
    network: bool = False


@dataclass(frozen=True, slots=True)
class Moved:
    """How far a running job is."""

    key: Digest
    done: int
    total: int
    unit: str


@dataclass(frozen=True, slots=True)
class Cautioned:
    """A warning for the person."""

    key: Digest
    message: str


@dataclass(frozen=True, slots=True)
class Done:
    """A job's outcome, as the worker sent it.

    Attributes:
        outputs: name -> digest text; claims: JSON; notes, environment: JSON; started, finished: seconds since the epoch.
    """

    key: Digest
    outputs: Mapping[str, str]
    claims: Sequence[Mapping[str, Any]]
    notes: Mapping[str, Any]
    warnings: Sequence[str]
    environment: Mapping[str, Any] | None
    started: float
    finished: float


@dataclass(frozen=True, slots=True)
class Broke:
    """A job failed: the stage said why, or its worker died. Nothing of it was recorded."""

    key: Digest
    message: str
    trace: str = ""


Report = Moved | Cautioned | Done | Broke


class Executor(Protocol):
    """Runs actions somewhere. Its inputs and outputs are digests in a shared store, so a worker needs nothing else."""

    def places(self, job: Job) -> bool:
        """Whether this job could start now."""
        ...

    def loaded(self, job: Job) -> int:
        """How willingly this job would be started now: 2 where its group is loaded already, 0 where it would be loaded twice, else 1."""
        ...

    def submit(self, job: Job) -> int:
        """Start a job; gives the worker's number, for display. Call only when `places(job)`."""
        ...

    def wait(self, timeout_s: float) -> list[Report]:
        """What has happened; waits at most so long for the first."""
        ...

    def close(self) -> None:
        """End every worker, running or not."""
        ...


@dataclass
class _Worker:
    number: int
    process: subprocess.Popen[bytes]
    replies: int
    log: Path
    group: tuple[str, ...]
    weight_bytes: int
    kernel_kills: int
    job: Job | None = None
    buffer: bytearray = field(default_factory=bytearray)
    peak_bytes: int = 0


class LocalExecutor:
    """Worker processes on this machine.

    Args:
        root: folder of the store (`.ledger`). scratch: a folder of this executor's own for what workers print; removed at the end.
        jobs: how many actions run at once.
        threads: threads of each worker; part of the environment of E stages, so it is one unless the person says otherwise.
        tools: external tools by name, handed to the stages.
        memory_bytes: the most that weights of models may take in a worker; None as the person's LEDGER_MEMORY_BYTES says.
    """

    def __init__(
        self,
        root: Path,
        scratch: Path,
        *,
        jobs: int,
        threads: int = 1,
        tools: Mapping[str, str] | None = None,
        memory_bytes: int | None = None,
    ) -> None:
        self._root, self._scratch, self._jobs, self._threads, self._tools = root, scratch, jobs, threads, dict(tools or {})
        self._memory = {} if memory_bytes is None else {"LEDGER_MEMORY_BYTES": str(memory_bytes)}
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()
        self._count = 0

    def places(self, job: Job) -> bool:
        """Whether this job could start now: an idle worker of its group, or room for one more."""
        if any(worker.job is None and worker.group == job.group for worker in self._workers):
            return True
        busy = [worker for worker in self._workers if worker.job is not None]
        if len(busy) >= self._jobs:
            return False
        # What busy workers may still take, and what idle ones of other groups would give back.
        promised = sum(max(0, _need_bytes(worker.weight_bytes) - worker.peak_bytes) for worker in busy)
        freed = sum(worker.peak_bytes for worker in self._workers if worker.job is None)
        return not busy or _need_bytes(job.weight_bytes) + promised <= _available_bytes() + freed

    def loaded(self, job: Job) -> int:
        """2: an idle worker has this job's group loaded; 1: nobody has it; 0: a busy worker has it (its model would be loaded twice)."""
        own = [worker for worker in self._workers if worker.group == job.group]
        if any(worker.job is None for worker in own):
            return 2
        return 0 if own else 1

    def submit(self, job: Job) -> int:
        """Give a job to an idle worker of its group, or to a new one (ending an idle worker of another group for it)."""
        worker = next((worker for worker in self._workers if worker.job is None and worker.group == job.group), None)
        if worker is None:
            for idle in [worker for worker in self._workers if worker.job is None]:
                if len(self._workers) >= self._jobs or _need_bytes(job.weight_bytes) > _available_bytes():
                    self._end(idle)
            worker = self._start(job)
        worker.job = job
        assert worker.process.stdin is not None
        request = {"action": job.action.to_json(), "run": job.run, "spec": job.spec, "environment": job.environment}
        with contextlib.suppress(BrokenPipeError):  # it died between jobs; `wait` sees the end of its replies and says so
            worker.process.stdin.write(json.dumps(request).encode() + b"\n")
            worker.process.stdin.flush()
        return worker.number

    def wait(self, timeout_s: float) -> list[Report]:
        """What has happened."""
        reports: list[Report] = []
        for ready, _ in self._selector.select(timeout_s):
            worker: _Worker = ready.data
            data = os.read(worker.replies, 1 << 16)
            if not data:
                reports += self._died(worker)
                continue
            worker.buffer += data
            *lines, rest = bytes(worker.buffer).split(b"\n")
            worker.buffer = bytearray(rest)
            for line in lines:
                reports.append(self._report(worker, json.loads(line)))
        for worker in self._workers:
            worker.peak_bytes = max(worker.peak_bytes, _peak_bytes(worker.process.pid))
        return reports

    def close(self) -> None:
        """End every worker, running or not."""
        for worker in list(self._workers):
            self._end(worker)
        self._selector.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _start(self, job: Job) -> _Worker:
        replies, far_end = os.pipe()
        log_fd, log = tempfile.mkstemp(prefix="worker-", suffix=".log", dir=self._scratch)
        environment = worker_variables(self._threads, self._tools, network=job.network) | self._memory
        command = [sys.executable, "-m", "stages.worker", str(self._root), str(far_end)]
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log_fd, stderr=log_fd, pass_fds=(far_end,), env=environment, start_new_session=True
            )
        finally:
            os.close(far_end)
            os.close(log_fd)
        self._count += 1
        worker = _Worker(self._count, process, replies, Path(log), job.group, job.weight_bytes, _kernel_kills())
        self._workers.append(worker)
        self._selector.register(replies, selectors.EVENT_READ, worker)
        return worker

    def _end(self, worker: _Worker) -> None:
        if worker in self._workers:
            self._workers.remove(worker)
            self._selector.unregister(worker.replies)
            os.close(worker.replies)
        if worker.job is not None:
            _kill_group(worker.process.pid)
        assert worker.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it is gone already
            worker.process.stdin.close()
        try:
            worker.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
        worker.log.unlink(missing_ok=True)

    def _report(self, worker: _Worker, reply: Mapping[str, Any]) -> Report:
        assert worker.job is not None
        key = worker.job.action.key
        match reply["kind"]:
            case "progress":
                return Moved(key, reply["done"], reply["total"], reply["unit"])
            case "warning":
                return Cautioned(key, reply["message"])
            case "done":
                worker.job = None
                fields = ("outputs", "claims", "notes", "warnings", "environment", "started", "finished")
                return Done(key, *(reply[name] for name in fields))
            case "failed":
                worker.job = None
                return Broke(key, reply["message"], reply["trace"])
            case other:
                raise WorkerError(f"worker {worker.number} sent {other!r}, which this version does not know")

    def _died(self, worker: _Worker) -> list[Report]:
        worker.peak_bytes = max(worker.peak_bytes, _peak_bytes(worker.process.pid))
        code = worker.process.wait()
        job, tail = worker.job, _tail(worker.log)
        killed_by_kernel = _kernel_kills() > worker.kernel_kills
        _kill_group(worker.process.pid)  # tools that it had started
        worker.job = None
        self._end(worker)
        if job is None:
            return []
        why = death(code, worker.peak_bytes, by_kernel=killed_by_kernel)
        return [Broke(job.action.key, f"the worker {why}" + (f"; its last words: {tail}" if tail else ""))]


def death(code: int, held_bytes: int, *, by_kernel: bool) -> str:
    """How a worker ended, in words.

    Args:
        code: as `Popen.returncode`, negative for a signal.
        held_bytes: the most memory it was seen to hold.
        by_kernel: whether the kernel has killed a process for memory since the worker began.

    >>> death(-9, 22 * 2**30 + 2**29, by_kernel=True)
    'was killed (out of memory at 22.5 GiB)'
    >>> death(3, 0, by_kernel=False)
    'ended with code 3 without an answer'
    """
    held = f"{held_bytes / 2**30:.1f} GiB" if held_bytes >= 2**30 else f"{held_bytes / 2**20:.0f} MiB"
    if code == -signal.SIGKILL and by_kernel:
        return f"was killed (out of memory at {held})"
    if code == -signal.SIGKILL:
        return f"was killed by signal 9 while it held {held}; the system does that when memory runs out"
    if code < 0:
        named = -code in {item.value for item in signal.Signals}
        return f"died of {signal.Signals(-code).name if named else f'signal {-code}'}"
    return f"ended with code {code} without an answer"


def _kill_group(pid: int) -> None:
    """Kill a worker and whatever it started: it is the leader of a process group of its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def worker_variables(threads: int, tools: Mapping[str, str], *, network: bool = False) -> dict[str, str]:
    """The variables that a worker runs with: all that decide bits are set, whatever the person's shell says.

    Without `network` libraries of models are kept off it; with it, the person's own `HF_HUB_OFFLINE` counts.
    """
    count = str(threads)
    offline = {} if network else {"HF_HUB_OFFLINE": "1"}
    return os.environ | {
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "LEDGER_THREADS": count,
        "LEDGER_TOOLS": json.dumps(dict(tools)),
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONHASHSEED": "0",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "TOKENIZERS_PARALLELISM": "false",
        **offline,
    }


def _need_bytes(weight_bytes: int) -> int:
    """Memory that a worker is expected to take: its shared inputs about three times over (read, converted, computed with), and itself."""
    return 3 * weight_bytes + _PLAIN_WORKER_BYTES


def _tail(log: Path) -> str:
    try:
        text = log.read_bytes()[-2000:].decode(errors="replace").strip()
    except FileNotFoundError:
        return ""
    return text.splitlines()[-1][-300:] if text else ""


def _peak_bytes(pid: int) -> int:
    """The most memory a process has held (Linux; 0 elsewhere)."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    line = next((line for line in status.splitlines() if line.startswith("VmHWM:")), "VmHWM: 0 kB")
    return int(line.split()[1]) * 1024


def _kernel_kills() -> int:
    """How often the kernel has killed a process for memory since boot (Linux; 0 elsewhere)."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def _available_bytes() -> int:
    """Memory that could be had without swapping (Linux; else a guess that stops nobody)."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 1 << 60
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), 1 << 60)

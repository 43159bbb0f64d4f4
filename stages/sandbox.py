"""Run a program that a model wrote, with its tests, where it can do no harm. See docs/benchmarks.md for what is contained and what is not.

Each program gets a process of its own that loads what programs may import, then installs a seccomp filter that allows computing alone: no
file can be opened (to read or to write), no socket made, no process or thread started, no other process signalled, no limit raised. Around
that: an empty environment, an empty folder, limits on processor time and memory, a time-out, and the end of the whole process group. It
needs no privileges and no container; where the kernel has no such filter, nothing is run at all.

A pass is a secret word, written after the last line of the tests: to leave early (`sys.exit(0)`) is to fail.

>>> passes = "def add(a, b):\\n    return a + b\\n", "assert add(2, 2) == 4\\n"
>>> run(*passes).passed  # doctest: +SKIP
True
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stages.errors import ToolError

MACHINES = ("x86_64", "aarch64")
_CHILD = Path(__file__).with_name("sandbox_child.py")
_MOST_BYTES = 4096
"""Of what the process says; more is a program that writes where it should not."""

Ending = Literal["passed", "failed", "timeout", "killed", "left"]
"""passed; failed: an exception; timeout: processor time or the clock; killed: by another signal; left: it ended before its tests did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one program may use: processor time, time by the clock (only what waits reaches it), memory (address space)."""

    cpu_s: int = 5
    wall_s: int = 60
    memory_mib: int = 512


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a program ended, and in what words (those of an exception are the program's own)."""

    ending: Ending
    message: str

    @property
    def passed(self) -> bool:
        """Whether the last line of the tests was reached."""
        return self.ending == "passed"


def describe() -> dict[str, Any]:
    """What verdicts depend on besides the program: the interpreter and the machine. JSON without floats."""
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "machine": platform.machine(),
        "system": platform.system(),
        "hashSeed": 0,
    }


def run(program: str, tests: str, limits: Limits | None = None) -> Verdict:
    """Run a program, then its tests in the same namespace.

    Raises:
        ToolError: this system has no way to contain it.
    """
    allowed = limits or Limits()
    if sys.platform != "linux" or platform.machine() not in MACHINES:
        raise ToolError(
            f"code that a model wrote runs only in a sandbox, which needs Linux on {' or '.join(MACHINES)}; this is {platform.system()} on "
            f"{platform.machine()}. Leave the benchmark out, or evaluate in a Linux container or virtual machine"
        )
    token = secrets.token_hex(16)
    request = {
        "program": program,
        "tests": tests,
        "token": token,
        "cpu_s": allowed.cpu_s,
        "memory_bytes": allowed.memory_mib * 2**20,
    }
    near, far = os.pipe()
    with tempfile.TemporaryDirectory(prefix="ledger-sandbox-") as folder:
        try:
            process = subprocess.Popen(
                # -S, -s, -P: the standard library and nothing else; -B: nothing is written.
                [sys.executable, "-S", "-s", "-P", "-B", "-X", "utf8", str(_CHILD), str(far)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                cwd=folder,
                env={"PYTHONHASHSEED": "0"},
                pass_fds=(far,),
                start_new_session=True,
            )
        except OSError as error:
            os.close(near)
            raise ToolError(f"the sandbox does not start: {error}") from error
        finally:
            os.close(far)
        with process:
            try:
                said, late = _converse(process, json.dumps(request).encode(), near, allowed.wall_s)
            finally:
                os.close(near)
                _end(process)
            words = process.stderr.read(_MOST_BYTES) if process.stderr else b""
    return _verdict(said, process.returncode, token, words, late=late, limits=allowed)


def _converse(process: subprocess.Popen[bytes], request: bytes, near: int, wall_s: int) -> tuple[bytes, bool]:
    """Send the request and read what comes until the process ends, says too much, or is late: (what it said, whether it is late)."""
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it died at once; its words on standard error say why
        process.stdin.write(request)
        process.stdin.close()
    said, deadline = b"", time.monotonic() + wall_s
    while len(said) <= _MOST_BYTES:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([near], [], [], left)[0]:
            return said, True
        piece = os.read(near, _MOST_BYTES)
        if not piece:
            break
        said += piece
    return said, False


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process group and wait for the process."""
    try:
        # What has ended by itself keeps its own code; killing what is ending changes nothing either.
        process.wait(timeout=0.2)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _verdict(said: bytes, code: int, token: str, words: bytes, *, late: bool, limits: Limits) -> Verdict:
    first, _, rest = said.partition(b"\n")
    if first != b"ready":
        raise ToolError(
            "the sandbox could not close its doors, so nothing was run in it: "
            + (words.decode("utf-8", "replace").strip().rpartition("\n")[2] or f"it ended with code {code}")
            + ". It needs a kernel with seccomp filters"
        )
    if rest == f"passed {token}\n".encode():
        return Verdict("passed", "")
    if late:
        return Verdict("timeout", f"not done after {limits.wall_s} s")
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return Verdict("timeout", f"used its {limits.cpu_s} s of processor time")
    if code < 0:
        return Verdict("killed", f"died of {signal.Signals(-code).name}")
    if rest.startswith(b"failed "):
        return Verdict("failed", rest[len(b"failed ") :].decode("utf-8", "replace").strip()[:240])
    return Verdict("left", "ended before its tests did")

"""Runs inside the sandbox process of `stages.sandbox`: close every door, run a stranger's program and its tests, say how it went.

Started as a script, with the standard library alone. Once the filter is in, this process can compute, ask for memory up to its limit, write
to the descriptors it has, and end; the kernel refuses everything else, whatever the program does to the interpreter.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import resource
import signal
import struct
import sys
from types import CodeType
from typing import Any

MODULES = (
    *("__future__", "_strptime", "abc", "array", "ast", "base64", "binascii", "bisect", "calendar", "cmath", "codecs", "collections"),
    *("collections.abc", "contextlib", "copy", "dataclasses", "datetime", "decimal", "encodings.ascii", "encodings.latin_1"),
    *("encodings.utf_16", "encodings.utf_8_sig", "enum", "fractions", "functools", "hashlib", "heapq", "inspect", "io", "itertools"),
    *("json", "keyword", "linecache", "locale", "math", "numbers", "operator", "os", "random", "re", "secrets", "statistics", "string"),
    *("struct", "sys", "textwrap", "time", "traceback", "types", "typing", "unicodedata", "warnings", "weakref", "zlib"),
)
"""What a program can import: these are loaded before the doors close, and nothing can be loaded after."""

# Everything that a computation needs, and no more: by these numbers of the kernel's own tables.
_ALLOWED: dict[str, tuple[int, str]] = {
    "x86_64": (0xC000003E, "0 1 3 5 8 9 10 11 12 13 14 15 24 25 28 35 39 60 96 98 100 131 186 202 219 228 229 230 231 318"),
    "aarch64": (
        0xC00000B7,
        "63 64 57 80 62 222 226 215 214 134 135 139 124 216 233 101 172 93 169 165 153 132 178 98 128 113 114 115 94 278",
    ),
}
"""read write close fstat lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn sched_yield mremap madvise nanosleep
getpid exit gettimeofday getrusage times sigaltstack gettid futex restart_syscall clock_gettime clock_getres clock_nanosleep exit_group
getrandom. No open, no socket, no clone, no exec, no kill."""

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
_SECCOMP_MODE_FILTER = 2
_ERRNO_EPERM, _KILL = 0x00050001, 0x80000000
_LOAD_WORD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06


def main() -> None:
    """Read the request from standard input, run it, write the verdict to the descriptor that the command line names."""
    out = int(sys.argv[1])
    libc = ctypes.CDLL(None, use_errno=True)
    _prctl(libc, _PR_SET_PDEATHSIG, signal.SIGKILL)
    request: dict[str, Any] = json.loads(sys.stdin.buffer.read())
    os.close(0)
    for name in MODULES:
        importlib.import_module(name)
    limits(request["cpu_s"], request["memory_bytes"])
    errors = os.dup(2)
    os.dup2(1, 2)  # what the program prints goes nowhere, so it cannot fill a pipe
    try:
        close_doors(libc, os.uname().machine)
    except OSError:
        os.dup2(errors, 2)
        raise
    os.close(errors)
    os.write(out, b"ready\n")
    _run(request["program"], request["tests"], out, b"passed " + request["token"].encode() + b"\n")


def limits(cpu_s: int, memory_bytes: int) -> None:
    """Set what this process may use; it cannot be raised again (only root could, and by then the call is refused)."""
    for what, soft, hard in (
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_CPU, cpu_s, cpu_s + 1),
        (resource.RLIMIT_AS, memory_bytes, memory_bytes),
        (resource.RLIMIT_FSIZE, 0, 0),
        (resource.RLIMIT_NPROC, 0, 0),
    ):
        resource.setrlimit(what, (soft, hard))


def close_doors(libc: Any, machine: str) -> None:
    """Install the filter: the listed calls go on, all others fail with EPERM; another instruction set is killed.

    Raises:
        OSError: the kernel has no seccomp filters.
    """
    architecture, listed = _ALLOWED[machine]
    numbers = [int(number) for number in listed.split()]
    # struct seccomp_data: int nr at 0, u32 arch at 4.
    program = [(_LOAD_WORD, 0, 0, 4), (_JUMP_IF_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL), (_LOAD_WORD, 0, 0, 0)]
    program += [(_JUMP_IF_EQUAL, len(numbers) - position, 0, number) for position, number in enumerate(numbers)]
    program += [(_RETURN, 0, 0, _ERRNO_EPERM), (_RETURN, 0, 0, 0x7FFF0000)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *line) for line in program))
    header = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", len(program), ctypes.addressof(code)))
    _prctl(libc, _PR_SET_NO_NEW_PRIVS, 1)
    _prctl(libc, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(header))


def _prctl(libc: Any, option: int, *values: int) -> None:
    arguments = [ctypes.c_ulong(value) for value in (*values, 0, 0, 0, 0)[:4]]
    if libc.prctl(ctypes.c_int(option), *arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def _run(program: str, tests: str, out: int, passed: bytes) -> None:
    """Run both; leave the process here, whatever happens.

    What is used after the program has run is taken beforehand, so that it cannot be swapped for something kinder.
    """
    write, leave, execute, name_of, text_of = os.write, os._exit, exec, type, str
    space: dict[str, Any] = {"__name__": "answer"}
    message = b""
    try:
        steps: list[CodeType] = [compile(program, "<answer>", "exec"), compile(tests, "<tests>", "exec")]
        for step in steps:
            execute(step, space)
        message = passed
    except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt of a stranger's program are failures like others
        try:
            message = f"failed {name_of(error).__name__}: {text_of(error)[:200]}".encode("utf-8", "replace").replace(b"\n", b" ")
        except BaseException:  # noqa: BLE001 - an exception that cannot even be printed
            message = b"failed with an exception that cannot be printed"
    finally:
        write(out, message)
        leave(0)


if __name__ == "__main__":
    main()

"""What a program in the sandbox can do: compute. Attacks are run for real; each would leave a trace if it worked."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from stages import sandbox
from stages.errors import ToolError
from stages.sandbox import Limits, run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is a Linux one")

ADD = "def add(a, b):\n    return a + b\n"
TESTS = "assert add(2, 2) == 4\nassert add(-1, 1) == 0\n"
QUICK = Limits(cpu_s=1, wall_s=20, memory_mib=256)


def test_a_right_program_passes_and_a_wrong_one_fails_with_its_own_words() -> None:
    """The verdict holds the exception."""
    assert run(ADD, TESTS).passed
    wrong = run(ADD.replace("+", "-"), TESTS)
    assert (wrong.ending, wrong.message) == ("failed", "AssertionError:")
    assert run("def add(a, b:\n", TESTS).message.startswith("SyntaxError")
    assert run("", TESTS).message == "NameError: name 'add' is not defined"


def test_programs_may_import_what_programs_import() -> None:
    """The usual modules of the standard library; nothing that is installed, nothing that is loaded late."""
    usual = "import math, re, collections, itertools, heapq, random, hashlib, datetime\nfrom typing import List, Optional\n"
    assert run(usual + "x = hashlib.md5(b'a').hexdigest(), datetime.datetime.strptime('2024', '%Y')\n", "assert math.gcd(4, 6) == 2").passed
    assert run("import numpy\n", "").message == "ModuleNotFoundError: No module named 'numpy'"
    assert run("import sqlite3\n", "").ending == "failed"


@pytest.mark.parametrize(
    "trick",
    [
        "import sys\nsys.exit(0)\n",
        "raise SystemExit(0)\n",
        "import os\nos._exit(0)\n",
        "def add(a, b):\n    raise SystemExit\n",
        "def add(a, b):\n    import os\n    os._exit(0)\n",
        "import builtins\nbuiltins.exec = lambda *a: None\nbuiltins.compile = lambda *a: None\n",
        "import os\nos.write = lambda fd, data: 0\nos._exit = lambda code: None\n",
        "import os, contextlib\nfor fd in range(3, 20):\n    with contextlib.suppress(OSError): os.write(fd, b'passed \\n')\nos._exit(0)\n",
        "import sys\nsys.settrace = None\nclass E(BaseException):\n    def __str__(self): raise E\n    __repr__ = __str__\nraise E\n",
        "import atexit\n",
    ],
)
def test_leaving_early_is_no_pass(trick: str) -> None:
    """The tests' last line must be reached, and only then a word is said that the program was not given."""
    verdict = run(trick, "assert add(1, 1) == 2\n", QUICK)
    assert not verdict.passed
    assert verdict.ending in ("failed", "left")


def test_an_endless_loop_ends_by_its_processor_time() -> None:
    """Also one that catches everything and ignores signals."""
    for body in (
        "while True: pass\n",
        "import _signal\n_signal.signal(_signal.SIGXCPU, _signal.SIG_IGN)\n"
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass\n",
        "while True: print('x' * 1000)\n",
    ):
        started = time.monotonic()
        verdict = run(body, "", QUICK)
        assert verdict.ending == "timeout", verdict
        assert time.monotonic() - started < QUICK.wall_s


def test_waiting_ends_by_the_clock() -> None:
    """A sleeping program uses no processor."""
    assert run("import time\ntime.sleep(1000)\n", "", Limits(cpu_s=1, wall_s=1)).message == "not done after 1 s"
    assert (
        run("import _thread\nlock = _thread.allocate_lock()\nlock.acquire()\nlock.acquire()\n", "", Limits(cpu_s=1, wall_s=1)).ending
        == "timeout"
    )


def test_a_program_that_eats_memory_fails() -> None:
    """At its limit, as an exception of its own."""
    assert run("x = []\nwhile True: x.append(bytearray(2 ** 24))\n", "", QUICK).message.startswith("MemoryError")


def test_a_program_that_overflows_the_stack_fails() -> None:
    """As an exception, by its signal or by its time; the sandbox goes on."""
    assert run("import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(): return f()\n", "f()\n", QUICK).ending != "passed"
    assert run("import ctypes\nctypes.string_at(0)\n", "", QUICK).ending == "killed"


def children_of(pid: int) -> int:
    """How many processes have that parent."""
    found = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            found += stat.read_text().rpartition(")")[2].split()[1] == str(pid)
        except OSError:
            continue
    return found


def test_a_fork_bomb_does_not_even_start() -> None:
    """Processes and threads are refused at the first; nothing is left behind. It holds for root too, whom no limit stops."""
    before = children_of(os.getpid())
    assert run("import os\nwhile True: os.fork()\n", "", QUICK).message == "PermissionError: [Errno 1] Operation not permitted"
    assert run("import _thread\nwhile True: _thread.start_new_thread(print, ())\n", "", QUICK).message.startswith("RuntimeError")
    assert run("import os\nos.posix_spawn('/bin/sh', ['sh'], {})\n", "", QUICK).message.startswith("PermissionError")
    assert run("import os\nos.execv('/bin/true', ['true'])\n", "", QUICK).message.startswith("PermissionError")
    assert run("import subprocess\n", "", QUICK).ending == "failed"
    assert children_of(os.getpid()) == before


def test_no_file_is_written_or_read(tmp_path: Path) -> None:
    """Not even in its own folder; so no secret can be told in the words of an exception either."""
    secret, written = tmp_path / "secret", tmp_path / "written"
    secret.write_text("the secret")
    for body in (
        f"open({str(secret)!r}).read()",
        f"open({str(written)!r}, 'w').write('x')",
        "open('here', 'w')",
        "open('/proc/self/mem', 'rb')",
        f"import os; os.mkdir({str(written)!r})",
        f"import os; os.unlink({str(secret)!r})",
        f"import os; os.rename({str(secret)!r}, {str(written)!r})",
        f"import os; os.chmod({str(secret)!r}, 0)",
        f"import os; os.symlink('/', {str(written)!r})",
        f"import os; os.truncate({str(secret)!r}, 0)",
        f"import os; os.listdir({str(tmp_path)!r})",
        "import os; os.memfd_create('x')",
    ):
        assert run(body, "", QUICK).message.startswith("PermissionError"), body
    assert secret.read_text() == "the secret"
    assert not written.exists()


def test_nothing_goes_out_and_nobody_is_signalled() -> None:
    """No socket, no signal to the parent or to all, no raising of limits, no tracing."""
    for body in (
        "import _socket; _socket.socket()",
        f"import os; os.kill({os.getpid()}, 0)",
        "import os; os.kill(os.getpid(), 0)",
        "import os; os.setuid(1)",
        "import os; os.nice(-1)",
    ):
        assert run(body, "", QUICK).ending == "failed", body
    number = {"x86_64": (101, 41, 160), "aarch64": (117, 198, 164)}[os.uname().machine]  # ptrace, socket, setrlimit
    calls = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n" + "".join(
        f"assert libc.syscall({call}, 0, 0, 0, 0) == -1 and ctypes.get_errno() == 1\n" for call in number
    )
    assert run(calls, "", QUICK).passed


def test_programs_see_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key in the caller's environment is not in theirs."""
    monkeypatch.setenv("LEDGER_TEST_SECRET", "hush")
    assert run("import os\nfound = dict(os.environ)\n", "assert set(found) <= {'PYTHONHASHSEED', 'LC_CTYPE'}, found").passed


def test_verdicts_do_not_depend_on_the_hash_seed() -> None:
    """The order of a set of words is the same in every run."""
    order = "import sys\nassert False, list({'a', 'b', 'c', 'd', 'e'})\n"
    assert run(order, "") == run(order, "")


def test_what_cannot_be_contained_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another system, or a kernel that refuses the filter: an error with a remedy, never a run without walls."""
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(ToolError, match="this is Linux on riscv64"):
        run(ADD, TESTS)
    monkeypatch.undo()
    monkeypatch.setattr(sandbox, "_CHILD", Path("/nowhere/at/all.py"))
    with pytest.raises(ToolError, match="nothing was run in it"):
        run(ADD, TESTS)

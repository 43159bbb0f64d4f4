"""What a number was measured on; each bench prints it first."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path


def describe() -> str:
    """One line: processor, cores that this process may use, memory, system, Python, and how busy the machine is."""
    try:
        cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    except FileNotFoundError:
        cpu = memory = None
    name = cpu[1] if cpu else platform.processor() or "unknown processor"
    size = f"{int(memory[1]) / 2**20:.0f} GiB, " if memory else ""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{name}, {cores} cores, {size}{platform.system()} {platform.release()}, Python {platform.python_version()}, load average {load}"


if __name__ == "__main__":
    print(describe())

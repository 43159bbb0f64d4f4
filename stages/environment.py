"""The environment of an E stage: everything that was seen to change the bits of a forward pass or a training step, pinned and written down.

Measured: one thread or two, AVX2 or AVX-512, oneDNN's and MKL's choices of code path change results; the same settings on the same
kind of processor do not. So all of them are in the description, and a P stage never needs it.
"""

from __future__ import annotations

import hashlib
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

_VARIABLES = (
    "ATEN_CPU_CAPABILITY",
    "CUBLAS_WORKSPACE_CONFIG",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_MAX_CPU_ISA",
)
_CUBLAS = ":4096:8"
_PACKAGES = ("numpy", "safetensors", "tokenizers", "torch", "transformers")
_INSTRUCTIONS = ("sse", "ssse", "avx", "fma", "f16c", "amx", "bmi", "asimd", "sve", "neon")


def pin(threads: int) -> None:
    """Choose everything that can be chosen: threads, deterministic algorithms, full float32 products. Idempotent.

    Args:
        threads: of one operation; operations run one after the other.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", _CUBLAS)
    import torch

    torch.set_num_threads(threads)
    if torch.get_num_interop_threads() != 1:
        torch.set_num_interop_threads(1)
    torch.set_deterministic_debug_mode("error")  # use_deterministic_algorithms(True), without importing the compiler (a second or more)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False


def describe() -> dict[str, Any]:
    """Pin this process, then say what holds in it. JSON without floats; equal in two processes exactly if their bits are expected to agree.

    The threads are those of $LEDGER_THREADS, else of $OMP_NUM_THREADS, else one.
    """
    pin(int(os.environ.get("LEDGER_THREADS") or os.environ.get("OMP_NUM_THREADS") or 1))
    import torch

    gpu = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name(0) if gpu else "cpu",
        "cpu": {"machine": platform.machine(), "model": _cpu("model name"), "instructions": _instructions()},
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        # A wheel's metadata leave out what torch was built for (`2.13.0+cu130`).
        "packages": {name: _version(name) for name in _PACKAGES} | {"torch": str(torch.__version__)},
        "python": platform.python_version(),
        "system": platform.system(),
        "torch": {
            "build": hashlib.sha256(torch.__config__.show().encode()).hexdigest(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version() if gpu else None,  # type: ignore[no-untyped-call]
            "float32_matmul": torch.get_float32_matmul_precision(),
            "mkldnn": torch.backends.mkldnn.is_available(),  # type: ignore[no-untyped-call]
        },
        "variables": {name: os.environ.get(name) for name in _VARIABLES},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu(field: str) -> str:
    """A field of the first processor in /proc/cpuinfo; empty where there is no such file."""
    file = Path("/proc/cpuinfo")
    if not file.exists():
        return platform.processor()
    for line in file.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == field:
            return value.strip()
    return ""


def _instructions() -> str:
    """The vector instructions of the processor, sorted; two processors of one name may differ in them under a hypervisor."""
    flags = (_cpu("flags") or _cpu("Features")).split()
    return " ".join(sorted(flag for flag in flags if flag.startswith(_INSTRUCTIONS)))

"""What converts, quantises and measures GGUF files: one role, two implementations.

`stages.llama_cyllama` (the default) needs only installed packages; `stages.llama_build` drives the person's own llama.cpp build, for GPUs
(`--llama-cpp DIR`). Which one worked, with its versions and the SHA-256 of what ran, is in the environment of every attestation.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, Protocol

from stages import gguf_file
from stages.errors import InputError

TOOL = "llama-cpp"
"""Name under which `Context.tools` holds the folder of the person's own build."""

ENVIRONMENT = "stages.toolchain:describe"
"""What stages that run a toolchain declare as their environment."""

_PACKAGES = ("gguf", "numpy", "safetensors", "sentencepiece", "tokenizers", "torch", "transformers")
_INSTRUCTIONS = ("sse", "ssse", "avx", "fma", "f16c", "amx", "bmi", "asimd", "sve", "neon")

Resolution = Literal["token", "chunk"]
"""What an nll value stands for: each token's own, or the mean of its chunk."""


@dataclass(frozen=True, slots=True)
class Window:
    """How a model reads tokens for its perplexity.

    Attributes:
        n_ctx: tokens of a chunk; each chunk starts from an empty cache.
        kv: number type of the key-value cache. flash: flash attention. F32 without it agrees with transformers to 1e-7.
    """

    n_ctx: int
    kv: Literal["F32", "F16"] = "F32"
    flash: bool = False

    @property
    def first(self) -> int:
        """Position of the first scored token's predecessor: half a chunk is context only."""
        return self.n_ctx // 2

    @property
    def scored(self) -> int:
        """Tokens of a chunk that are scored: 255 of 512."""
        return self.n_ctx - 1 - self.first


class Toolchain(Protocol):
    """A build of llama.cpp, however it is called. Every method raises ToolError with llama.cpp's own words when it fails."""

    resolution: Resolution

    def convert(self, model: Path, out: Path, outtype: str, *, pre: str | None, add_bos: bool) -> None:
        """Write a model folder (safetensors) as GGUF.

        Args:
            model: a folder as `save_pretrained` writes it.
            out: the file to write.
            outtype: F32, F16 or BF16.
            pre: name of the pre-tokenizer for a tokenizer that llama.cpp does not know by its hash; None refuses such a one.
            add_bos: written into the file's vocabulary.
        """
        ...

    def quantize(self, source: Path, out: Path, kind: str, *, threads: int) -> None:
        """Write a GGUF file in another type (`Q4_K_M`)."""
        ...

    def tokenize(self, gguf: Path, text: str, *, add_special: bool) -> list[int]:
        """Ids of a text by the file's own vocabulary; special tokens inside the text are not recognised."""
        ...

    def nll(self, gguf: Path, chunks: Sequence[Sequence[int]], window: Window, *, bos: int | None, threads: int) -> Iterator[list[float]]:
        """Negative log-likelihood in nats of the scored tokens of each chunk, chunk after chunk.

        Args:
            gguf: the model.
            chunks: each `window.n_ctx` ids; the first is replaced by `bos` when that is not None.
            window: how they are read.
            bos: what the file's vocabulary puts before a text (`bos_of`).
            threads: of llama.cpp.
        """
        ...

    def identity(self) -> dict[str, Any]:
        """What ran: names, versions, the llama.cpp commit, SHA-256 of libraries or binaries; JSON."""
        ...

    def label(self) -> str:
        """The same in a few words, kept in results: `cyllama 0.2.18 (llama.cpp b9190)`."""
        ...


def choose(tools: Mapping[str, str], memo: MutableMapping[str, Any]) -> Toolchain:
    """The toolchain for these tools, made once per worker (it keeps the last model loaded).

    Raises:
        ToolError: it is not installed, or the folder lacks something.
    """
    place = tools.get(TOOL, "")
    key = f"toolchain:{place}"
    if key not in memo:
        if place:
            from stages.llama_build import LlamaBuild

            memo[key] = LlamaBuild(Path(place))
        else:
            from stages.llama_cyllama import Cyllama

            memo[key] = Cyllama()
    chosen: Toolchain = memo[key]
    return chosen


def bos_of(toolchain: Toolchain, gguf: Path) -> int | None:
    """The id that the file's vocabulary puts before a text, or None.

    Raises:
        InputError: it adds something behind, for which perplexity is not defined.
    """
    plain, special = (toolchain.tokenize(gguf, "a", add_special=add) for add in (False, True))
    if special == plain:
        return None
    if special[1:] == plain:
        return special[0]
    raise InputError(
        f"the vocabulary of {gguf_file.short(gguf)} turns 'a' {plain} into {special}: perplexity is defined only where at most BOS is added"
    )


def threads() -> int:
    """Threads of this worker; part of the environment."""
    return int(os.environ.get("LEDGER_THREADS") or os.environ.get("OMP_NUM_THREADS") or "1")


def describe() -> dict[str, Any]:
    """The environment of a stage that runs a toolchain or a tokenizer; JSON without floats.

    The tools are those of $LEDGER_TOOLS (JSON, name -> folder), which workers set from what the person named.

    Raises:
        ToolError: as `choose`.
    """
    return _describe(os.environ.get("LEDGER_TOOLS") or "{}", threads())


@lru_cache
def _describe(tools: str, threads_used: int) -> dict[str, Any]:
    return {
        "cpu": {"machine": platform.machine(), "flags": _flags()},
        "threads": threads_used,
        "packages": {name: _version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "system": platform.system(),
        "toolchain": choose(json.loads(tools), {}).identity(),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _flags() -> str:
    """The processor's vector instructions, sorted; empty where /proc/cpuinfo is missing."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))), [])
    return " ".join(sorted(flag for flag in flags if flag.startswith(_INSTRUCTIONS)))

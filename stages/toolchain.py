"""What converts, quantises and measures GGUF files: one role, two implementations.

`stages.llama_cyllama` (the default) needs only installed packages; `stages.llama_build` drives the person's own llama.cpp build, for GPUs
(`--llama-cpp DIR`). Which one worked, with its versions and the SHA-256 of what ran, is in the environment of every attestation.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from stages import gguf_file
from stages.errors import InputError

TOOL = "llama-cpp"
"""Name under which `Context.tools` holds the folder of the person's own build."""

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
            outtype: F32, F16 or BF16.
            pre: name of the pre-tokenizer for a tokenizer that llama.cpp does not know by its hash; None refuses such a one.
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
            chunks: each `window.n_ctx` ids; the first is replaced by `bos` when that is not None.
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
    raise InputError(f"the vocabulary of {gguf_file.short(gguf)} turns 'a' {plain} into {special}: perplexity is defined only where at most BOS is added")


def threads() -> int:
    """Threads of this worker; part of the environment."""
    return int(os.environ.get("LEDGER_THREADS") or os.environ.get("OMP_NUM_THREADS") or "1")


def describe(tools: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The environment of a stage that runs a toolchain: the machine's, and the toolchain's identity.

    Raises:
        ToolError: as `choose`.
    """
    import platform

    return {
        "cpu": platform.machine(),
        "threads": threads(),
        "toolchain": choose(tools or {}, {}).identity(),
    }

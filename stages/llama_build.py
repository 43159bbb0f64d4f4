"""The person's own llama.cpp build (`--llama-cpp DIR`), for GPUs or a newer release: its binaries are run, its converter converts.

llama-perplexity takes text, not tokens, except in its KL mode, where it reads the tokens from the file of base log-probabilities. So that
file is written here with our tokens and log-probabilities of zero (a hole, no bytes on disk), and what is printed after each chunk is
read: the running perplexity, and the running mean nll (its difference to a base that is zero). Each chunk's mean nll follows from both, to
about 1e-5 nats times its number. Nothing finer is printed: the resolution of this toolchain is the chunk.
Tried with a CPU build of b10605: its F16 and Q4_K_M files equal the default toolchain's byte for byte; on a tiny random model the chunk
means of the F32 file agree within 1e-6 nats, those of F16 and Q4_K_M within 2e-3 (other kernels).
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from stages import gguf_file, llama_converter
from stages.errors import InputError, ToolError
from stages.toolchain import Resolution, Window

BINARIES = ("llama-quantize", "llama-perplexity", "llama-tokenize")
_PLACES = ("build/bin", "bin", "")
_ATTEMPTS = 5
"""The log thread may lose its last lines when the program ends (seen in b10605: 1 run in 10 of a tiny model): then it runs again."""
_LAST_LINES = 8
_LAST_FAILURES = 3
_FAILURE = re.compile(r"error|fail|unable|invalid|cannot|out of memory", re.IGNORECASE)
_ROW = re.compile(r"^\s*(\d+)\s+(-?[\d.]+|-?nan|inf)\s+±\s+\S+\s+(-?[\d.]+|-?nan|inf)\s+±", re.MULTILINE)
_SIXTEEN_BIT_EXTRA = 4


class LlamaBuild:
    """See `stages.toolchain.Toolchain`.

    Args:
        folder: llama.cpp's folder, with the binaries in build/bin, bin or itself.

    Raises:
        ToolError: it has none of the binaries or not the converter; every missing one is named.
    """

    resolution: Resolution = "chunk"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        found = {name: next((folder / place / name for place in _PLACES if (folder / place / name).is_file()), None) for name in BINARIES}
        missing = [name for name, path in found.items() if path is None]
        if not (folder / llama_converter.SCRIPT).is_file():
            missing.append(llama_converter.SCRIPT)
        if missing:
            raise ToolError(
                f"--llama-cpp {folder} lacks {', '.join(missing)} (binaries are looked for in build/bin, bin and the folder itself). "
                f"Build them: cmake -B build && cmake --build build --target {' '.join(BINARIES)}"
            )
        self._binaries = {name: path for name, path in found.items() if path is not None}
        self._identity: dict[str, Any] | None = None

    def convert(self, model: Path, out: Path, outtype: str, *, pre: str | None, add_bos: bool) -> None:
        """See the role."""
        llama_converter.convert(self._folder, model, out, outtype, pre=pre, add_bos=add_bos)

    def quantize(self, source: Path, out: Path, kind: str, *, threads: int) -> None:
        """See the role."""
        self._run("llama-quantize", [str(source), str(out), kind, str(threads)], f"quantise {gguf_file.short(source)} to {kind}")

    def tokenize(self, gguf: Path, text: str, *, add_special: bool) -> list[int]:
        """See the role."""
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="", suffix=".txt") as file:
            file.write(text)
            file.flush()
            options = ["-m", str(gguf), "-f", file.name, "--ids", "--no-parse-special", "--no-escape"]
            said = self._run("llama-tokenize", options + ([] if add_special else ["--no-bos"]), f"tokenise with {gguf_file.short(gguf)}")
        lists = re.findall(r"^\[([\d, ]*)\]\s*$", said, re.MULTILINE)
        if not lists:
            raise ToolError(f"llama-tokenize printed no list of ids for {gguf_file.short(gguf)}; it said: {_tail(said)}")
        return [int(item) for item in lists[-1].split(",") if item.strip()]

    def nll(self, gguf: Path, chunks: Sequence[Sequence[int]], window: Window, *, bos: int | None, threads: int) -> Iterator[list[float]]:
        """See the role; every scored token of a chunk gets the chunk's mean."""
        vocabulary = len(gguf_file.check(gguf).metadata.get("tokenizer.ggml.tokens", ()))
        if max(map(max, chunks)) >= vocabulary:
            raise InputError(
                f"the text holds token {max(map(max, chunks))}, and {gguf_file.short(gguf)} has {vocabulary} tokens: another tokenizer"
            )
        with tempfile.TemporaryDirectory() as place:
            base = Path(place) / "tokens.kld"
            write_tokens(base, chunks, window, vocabulary)
            size, kv = str(window.n_ctx), window.kv.lower()
            options = ["-m", str(gguf), "--kl-divergence", "--kl-divergence-base", str(base), "-c", size, "-b", size, "-ub", size]
            options += ["-t", str(threads), "-ctk", kv, "-ctv", kv, "-fa", "on" if window.flash else "off", "--no-warmup"]
            for _ in range(_ATTEMPTS):
                said = self._run("llama-perplexity", options, f"evaluate {gguf_file.short(gguf)}")
                means = chunk_means(said)
                if len(means) == len(chunks):
                    break
            else:
                raise ToolError(
                    f"llama-perplexity reported {len(means)} chunks of {len(chunks)}, {_ATTEMPTS} times; it said: {_tail(said)}"
                )
        for mean in means:
            yield [mean] * window.scored

    def identity(self) -> dict[str, Any]:
        """See the role."""
        if self._identity is None:
            converter = self._folder / llama_converter.SCRIPT
            self._identity = {
                "name": "llama.cpp build",
                "version": self._version(),
                "binaries": {name: _sha256(path) for name, path in sorted(self._binaries.items())},
                "libraries": {path.name: _sha256(path) for path in _libraries(self._binaries["llama-perplexity"].parent)},
                "converter": {"name": llama_converter.SCRIPT, "sha256": _sha256(converter)},
                "resolution": self.resolution,
            }
        return self._identity

    def label(self) -> str:
        """See the role."""
        return f"llama.cpp {self.identity()['version']}"

    def _version(self) -> str:
        done = self._call("llama-perplexity", ["--version"])
        found = re.search(r"version: (.+)", done.stdout + done.stderr)
        return found.group(1).strip() if found else "unknown"

    def _run(self, name: str, options: list[str], task: str) -> str:
        """Run a binary; what it said, both streams (llama.cpp has moved its results from one to the other).

        Raises:
            ToolError: it failed.
        """
        done = self._call(name, options)
        said = done.stdout + "\n" + done.stderr
        if done.returncode:
            raise ToolError(f"{name} failed to {task} (exit code {done.returncode}): {_tail(done.stderr or done.stdout)}")
        return said

    def _call(self, name: str, options: list[str]) -> subprocess.CompletedProcess[str]:
        path = self._binaries[name]
        environment = os.environ | {"LC_ALL": "C.UTF-8"}
        try:
            return subprocess.run(
                [str(path), *options], capture_output=True, text=True, encoding="utf-8", errors="replace", env=environment, check=False
            )
        except OSError as error:
            raise ToolError(f"{path} does not start: {error}") from error


def write_tokens(path: Path, chunks: Sequence[Sequence[int]], window: Window, vocabulary: int) -> None:
    """Write chunks as a base file of llama-perplexity's KL mode, all log-probabilities zero.

    Layout: `_logits_`, u32 n_ctx, i32 n_vocab, i32 n_chunk, i32 tokens, then for each scored token 2 floats and n_vocab (rounded up to
    even) 16-bit values; these are a hole of the file. Source: llama.cpp tools/perplexity/perplexity.cpp, kl_divergence().
    """
    width = 2 * ((vocabulary + 1) // 2) + _SIXTEEN_BIT_EXTRA
    with path.open("wb") as file:
        file.write(b"_logits_" + struct.pack("<Iii", window.n_ctx, vocabulary, len(chunks)))
        for chunk in chunks:
            file.write(struct.pack(f"<{len(chunk)}i", *chunk))
        file.truncate(file.tell() + 2 * width * window.scored * len(chunks))


def chunk_means(said: str) -> list[float]:
    """Mean nll of each chunk from what llama-perplexity prints in KL mode: number, running perplexity, running mean nll.

    Of the two running values the finer one is taken: perplexity has 4 decimals, the mean nll 5.

    >>> said = "   1   10.0000 ± 1.0   2.30259 ± 0.1   0 ± 0\\n   2   20.0000 ± 1.0   2.99573 ± 0.1   0 ± 0\\n"
    >>> [round(mean, 5) for mean in chunk_means(said)]
    [2.30259, 3.68887]
    """
    means: list[float] = []
    before = 0.0
    for number, (index, perplexity, log_perplexity) in enumerate(_ROW.findall(said), start=1):
        value, log_value = float(perplexity), float(log_perplexity)
        if int(index) != number or not math.isfinite(log_value):
            raise ToolError(f"llama-perplexity printed {index!r} {perplexity!r} {log_perplexity!r} for chunk {number}")
        running = math.log(value) if value > 10 else log_value
        means.append(running * number - before)
        before = running * number
    return means


def _tail(text: str) -> str:
    """The lines that speak of a failure, else the last ones."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "\n".join([line for line in lines if _FAILURE.search(line)][-_LAST_FAILURES:] or lines[-_LAST_LINES:]) or "nothing"


def _libraries(folder: Path) -> list[Path]:
    """Shared libraries beside the binaries; links to them are left out."""
    return [path for path in sorted(folder.glob("*.so*")) if path.is_file() and not path.is_symlink()]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

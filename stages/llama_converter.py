"""Call llama.cpp's `convert_hf_to_gguf.py` in a process of its own; both toolchains do it this way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from stages.errors import ToolError

SCRIPT = "convert_hf_to_gguf.py"
_LAST_LINES = 12


def convert(llama: Path, model: Path, out: Path, outtype: str, *, pre: str | None, add_bos: bool) -> None:
    """Convert a model folder with the converter of the llama.cpp sources in `llama`.

    The converter sees no network, and nothing of the folder's name reaches the file.

    Raises:
        ToolError: the sources lack the converter, or it failed; its last words are in the message.
    """
    if not (llama / SCRIPT).is_file():
        raise ToolError(f"{llama} has no {SCRIPT}: it is not a folder of llama.cpp's sources")
    script = Path(__file__).with_name("llama_converter_script.py")
    command = [sys.executable, "-P", "-B", str(script), str(llama), str(model), str(out), outtype.lower(), pre or "-", str(int(add_bos))]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TQDM_DISABLE": "1", "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment, check=False)
    if done.returncode or not out.is_file():
        raise ToolError(f"llama.cpp's converter failed (exit code {done.returncode}): {_reason(done.stderr or done.stdout)}")


def _reason(text: str) -> str:
    """The exception's line where there is one, else the errors that were logged, else the last lines."""
    lines = [line for line in text.splitlines() if line.strip()]
    if any(line.startswith("Traceback") for line in lines):
        reason = lines[-1]
        if "BPE pre-tokenizer was not recognized" in reason:
            reason += (
                ". llama.cpp does not know this tokenizer, and only one that splits text exactly as GPT-2 does can be converted without;"
                " use a llama.cpp that knows it (--llama-cpp DIR)"
            )
        return reason
    errors = [line.split(":", 2)[2] for line in lines if line.startswith("ERROR:") and line.count(":") > 1]
    if errors:
        return "; ".join(errors)
    return "\n".join(lines[-_LAST_LINES:]) or "it said nothing"

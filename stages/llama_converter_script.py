"""Run llama.cpp's own converter in a process of its own: `python -P llama_converter_script.py LLAMA MODEL OUT OUTTYPE PRE ADD_BOS`.

It imports nothing of this project, because LLAMA's top-level packages (`gguf`, `conversion`) collide with installed ones. Three things
differ from calling `convert_hf_to_gguf.py` directly: a tokenizer whose hash llama.cpp does not know is taken as PRE (when that is not `-`)
instead of failing; `add_bos` is always written; the model's name is `model`, so that no folder's name gets into the file.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any


def main(arguments: list[str]) -> None:
    """Patch what must be patched, then run the converter as the main program."""
    llama, model, out, outtype, pre, add_bos = arguments
    sys.path[:0] = [llama, str(Path(llama) / "gguf-py")]
    _write_add_bos(add_bos == "1")
    if pre != "-":
        _take_unknown_pretokenizer_as(pre)
    sys.argv = ["convert_hf_to_gguf.py", model, "--outfile", out, "--outtype", outtype, "--model-name", "model"]
    runpy.run_path(str(Path(llama) / "convert_hf_to_gguf.py"), run_name="__main__")


def _write_add_bos(value: bool) -> None:
    from gguf import SpecialVocab

    original = SpecialVocab.add_to_gguf

    def add_to_gguf(self: Any, writer: Any, quiet: bool = False) -> None:
        self.add_special_token["bos"] = value
        original(self, writer, quiet)

    SpecialVocab.add_to_gguf = add_to_gguf


def _take_unknown_pretokenizer_as(pre: str) -> None:
    from conversion.base import TextModel

    original = TextModel.get_vocab_base_pre

    def get_vocab_base_pre(self: Any, tokenizer: Any) -> Any:
        try:
            return original(self, tokenizer)
        except NotImplementedError:
            return pre

    TextModel.get_vocab_base_pre = get_vocab_base_pre


if __name__ == "__main__":
    main(sys.argv[1:])

"""The tokenizer of a model folder, as transformers reads it, and what a GGUF must know of it: its pre-tokenizer and whether it adds BOS.

Special tokens are never recognised inside a text (`<s>` in a file is three characters), as in llama-perplexity; only the tokenizer itself
adds them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.errors import InputError

FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "merges.txt",
    "special_tokens_map.json",
    "spiece.model",
    "tekken.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)
"""Files of a model folder that make its tokenizer; none of them is code."""

SAMPLE = (
    "def add(left, right):\n\treturn left + right  # sum\n\n\n    if x != 0x1F and not y:\n        z[i] += {'k': 3.14159, \"n\": None}\n"
    "The quick brown fox can't jump; it's they'll, WE'VE and I'd — “quoted”, naïve café, 50 % off.\r\n"
    "0 1 12 123 1234 12345 1234567890 3.14 1e-10 2024-02-29 v1.0.0-rc1\n"
    "  two   three    four\t\ttabs \n \n\n\n trailing   \n"
    "Ελληνικά, русский, 日本語の文章、한국어, العربية, हिन्दी, e\u0301 combining, zero\u200bwidth, \u00a0nbsp\n"
    '🚀🦙 👩‍👩‍👧 ✅ ∑∞≠≈ ﬁ ½ x² ===== ----- ##### \'\'\'"""``` <tag attr="v"/> a_b-c.d@e.f https://example.org/?q=1&r=2#s\n'
    'id,name,price\n1,apple,0.30\n{"a": [true, false, null]}\n'
)
"""Code, prose, digits, runs of blanks, many scripts: what a wrong pre-tokenizer splits wrongly."""


class HfTokenizer:
    """A tokenizer loaded from a folder; no code of the folder is run."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer, PreTrainedTokenizerFast

        try:
            config = json.loads((folder / "tokenizer_config.json").read_bytes()) if (folder / "tokenizer_config.json").exists() else {}
            if not config.get("tokenizer_class") and not (folder / "config.json").exists() and (folder / "tokenizer.json").exists():
                self._tokenizer: Any = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
            else:
                self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, ImportError, KeyError) as error:
            raise InputError(
                f"the model's tokenizer does not load ({error}); it needs tokenizer.json or tokenizer.model beside config.json"
            ) from error

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of transformers itself."""
        return self._tokenizer

    @property
    def size(self) -> int:
        """Number of ids, added tokens included."""
        return len(self._tokenizer)

    def encode(self, text: str, *, add_special: bool) -> list[int]:
        """Ids of a text, with BOS (and what else the tokenizer adds by itself) where asked."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=add_special, split_special_tokens=True, verbose=False)["input_ids"]
        return ids

    def decode(self, ids: Sequence[int], *, skip_special: bool = False) -> str:
        """The text of some ids, blanks as they are; half a character is U+FFFD."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=skip_special, clean_up_tokenization_spaces=False)
        return text

    @property
    def adds_bos(self) -> bool:
        """Whether a text gets BOS in front.

        Raises:
            InputError: the tokenizer puts something else in front, or adds EOS behind, which the perplexity of llama.cpp does not define.
        """
        plain, special = self.encode("a", add_special=False), self.encode("a", add_special=True)
        if special == plain:
            return False
        if special[1:] == plain and special[0] == self._tokenizer.bos_token_id:
            return True
        raise InputError(f"the tokenizer turns 'a' {plain} into {special}: only BOS ({self._tokenizer.bos_token_id}) in front is supported")


def is_gpt2_pretokenizer(folder: Path) -> bool:
    """Whether tokenizer.json splits text exactly as GPT-2 does: a BPE, no normaliser, and one ByteLevel step with its own regex.

    Raises:
        InputError: tokenizer.json is not JSON.
    """
    path = folder / "tokenizer.json"
    if not path.exists():
        return False
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"tokenizer.json is not JSON: {error}") from error
    step = value.get("pre_tokenizer") or {}
    if step.get("type") == "Sequence" and len(step.get("pretokenizers", ())) == 1:
        step = step["pretokenizers"][0]
    return (
        value.get("model", {}).get("type") == "BPE"
        and not value.get("normalizer")
        and step.get("type") == "ByteLevel"
        and step.get("use_regex", True) is True
        and step.get("add_prefix_space") is False
    )

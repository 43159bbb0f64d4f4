"""A tokenizer whose tokens are the 256 bytes of UTF-8 and, as 256, the end of a text. Nothing in a text is special."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizer

from stages import ensemble_tree
from stages.byte_lm.vocabulary import BYTES, END

END_TOKEN = "<|end|>"


class AvengersTokenizer(PreTrainedTokenizer):  # type: ignore[misc]
    """Bytes as ids.

    Ids 0 to 255 are bytes and 256 the end of a text, which pads as well. Encoding adds nothing, and the name of the end token in a text is
    seven characters like any other. Bytes that are no UTF-8 are decoded as U+FFFD.

    >>> AvengersTokenizer()("é<|end|>").input_ids
    [195, 169, 60, 124, 101, 110, 100, 124, 62]
    >>> AvengersTokenizer().decode([195, 169, 195, 256])
    'é\\ufffd<|end|>'
    """

    model_input_names = ("input_ids", "attention_mask")
    padding_side = "left"

    def __init__(self, **kwargs: Any) -> None:
        fixed = {"eos_token": END_TOKEN, "pad_token": END_TOKEN, "split_special_tokens": True, "clean_up_tokenization_spaces": False}
        super().__init__(**{**kwargs, **fixed})

    @property
    def vocab_size(self) -> int:
        """257."""
        return END + 1

    def get_vocab(self) -> dict[str, int]:
        """Token -> id; a byte's token is the character of its value."""
        return {**{chr(number): number for number in range(BYTES)}, END_TOKEN: END}

    def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
        return [chr(byte) for byte in text.encode()]

    def _convert_token_to_id(self, token: str) -> int:
        return END if token == END_TOKEN else ord(token)

    def _convert_id_to_token(self, index: int) -> str:
        return END_TOKEN if index == END else chr(index)

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """The text of some tokens; half a character is U+FFFD."""
        return b"".join(token.encode() if token == END_TOKEN else bytes([ord(token)]) for token in tokens).decode(errors="replace")

    def build_inputs_with_special_tokens(self, token_ids_0: list[int], token_ids_1: list[int] | None = None) -> list[int]:
        """Nothing is added; of two texts, one after the other."""
        return token_ids_0 + (token_ids_1 or [])

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """There is none."""
        return ()

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> tuple[str, ...]:
        """Write the two files that every ensemble has of it; settings of this object (`padding_side`) are not kept."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        names = ("tokenizer_config.json", "tokenization_avengers.py")
        for name in names:
            (folder / name).write_bytes(ensemble_tree.shipped()[name])
        return tuple(str(folder / name) for name in names)

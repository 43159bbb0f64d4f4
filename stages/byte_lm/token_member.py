"""A model and its tokenizer, token by token: what the approximate ensembles that ours is compared with are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages import hf_model
from stages.byte_lm.byte_lm import stopped
from stages.byte_lm.vocabulary import Vocabulary, of
from stages.errors import InputError
from stages.hf_model import LoadIn
from stages.hf_tokenizer import HfTokenizer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class TokenMember:
    """One member."""

    def __init__(self, folder: Path, load_in: LoadIn = "auto") -> None:
        self.model: Any
        self.model, _ = hf_model.load(folder, load_in)
        self.tokenizer = HfTokenizer(folder)
        rows = int(self.model.get_output_embeddings().weight.shape[0])
        configured = getattr(self.model.generation_config, "eos_token_id", None)
        ends = configured if isinstance(configured, list) else [] if configured is None else [configured]
        self.vocabulary: Vocabulary = of(self.tokenizer.tokenizer, rows=rows, ends=ends)

    @cached_property
    def ids(self) -> dict[bytes, int]:
        """Bytes -> the first token that stands for them."""
        found: dict[bytes, int] = {}
        for number, text in enumerate(self.vocabulary.texts):
            if text:
                found.setdefault(text, number)
        return found

    def encode(self, text: bytes) -> list[int]:
        """Tokens of a text, without special ones."""
        return self.tokenizer.encode(text.decode(errors="replace"), add_special=False)

    def logits(self, ids: Sequence[int]) -> NDArray[np.float64]:
        """(len(ids) + 1, rows) logits after the start and after each token."""
        import torch

        with torch.inference_mode():
            given = torch.tensor([[*self.vocabulary.start, *ids]], device=self.model.device)
            found = self.model(input_ids=given, use_cache=False).logits[0, len(self.vocabulary.start) - 1 :]
        result: NDArray[np.float64] = found.double().cpu().numpy()
        return result


def split(member: TokenMember, prompt: bytes, continuation: bytes) -> tuple[list[int], list[int]]:
    """The tokens of both together, cut where those of the prompt alone end (or where they first differ)."""
    if not continuation:
        raise InputError("there is no continuation whose likelihood could be told")
    alone, whole = member.encode(prompt), member.encode(prompt + continuation)
    same = next((n for n, (a, b) in enumerate(zip(alone, whole, strict=False)) if a != b), min(len(alone), len(whole)))
    same = min(same, len(whole) - 1)
    return whole[:same], whole[same:]


def grow(step: Callable[[bytes], bytes | None], max_bytes: int, stop: Sequence[bytes]) -> bytes:
    """Append what `step` gives for the bytes so far, until it gives None, a stop, or enough."""
    made = bytearray()
    while len(made) < max_bytes:
        more = step(bytes(made))
        if more is None:
            break
        for byte in more:
            made.append(byte)
            end = stopped(made, stop)
            if end is not None:
                return bytes(made[:end])
    return bytes(made[:max_bytes])

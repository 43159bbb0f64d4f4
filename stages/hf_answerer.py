"""One causal language model of transformers as an `stages.questions.Answerer`.

Questions are read one at a time, without padding: a result does not depend on what else is in a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages import hf_model
from stages.errors import InputError
from stages.hf_model import LoadIn
from stages.hf_tokenizer import HfTokenizer
from stages.questions import Answerer
from stages.stage import Context
from store.digest import Digest

if TYPE_CHECKING:
    import torch

_TAIL = 16
"""Ids of the prompt that are decoded with what follows: some tokenizers drop the blank before the first id that they decode."""


def load(model: Digest, context: Context, load_in: LoadIn) -> Answerer:
    """The answerer of a model tree.

    Raises:
        InputError: the model or its tokenizer does not load.
    """
    return HfAnswerer(context.folder(model), load_in)


class HfAnswerer:
    """A model folder that answers."""

    def __init__(self, folder: Path, load_in: LoadIn = "auto") -> None:
        self._tokenizer = HfTokenizer(folder)
        self._model, self._device = hf_model.load(folder, load_in)
        config = self._model.config.get_text_config()
        self._cache = hf_model.cache_word(self._model)
        self._most: int | None = getattr(config, "max_position_embeddings", None)
        # What stands before every text: BOS where the tokenizer adds it; before an empty prompt, BOS or else EOS, as lm-eval does.
        plain, special = self._tokenizer.encode("a", add_special=False), self._tokenizer.encode("a", add_special=True)
        self._prefix = special[: -len(plain)] if self._tokenizer.adds_bos else []
        ends = self._model.generation_config.eos_token_id
        ends = config.eos_token_id if ends is None else ends
        self._ends = set(ends if isinstance(ends, list) else [] if ends is None else [ends])
        first = getattr(config, "bos_token_id", None)
        self._first = self._prefix or ([first] if first is not None else sorted(self._ends)[:1])

    def loglikelihood(self, prompt: bytes, continuation: bytes) -> float:
        """Log P(prompt + continuation) - log P(prompt), each in the tokenizer's own cut.

        Where the cut of the whole begins with that of the prompt (nearly always), this is the sum over the continuation's tokens. Where it
        does not (a token spans the seam), the tokens of both from the first difference on are taken, so it is a log-likelihood of the
        continuation all the same.
        """
        if not continuation:
            raise InputError("there is nothing to continue with")
        start, whole = self._ids(prompt), self._ids(prompt + continuation)
        common = next((n for n, (a, b) in enumerate(zip(start, whole, strict=False)) if a != b), min(len(start), len(whole)))
        common = min(common, len(whole) - 1)
        if common == 0:  # nothing stands before the first id
            if not self._first:
                raise InputError("the model has neither BOS nor EOS to stand before the first token")
            start, whole, common = self._first + start, self._first + whole, len(self._first)
        return self._sum(whole, common) - (self._sum(start, common) if len(start) > common else 0.0)

    def _sum(self, ids: list[int], first: int) -> float:
        """Log P of the ids from `first` on, given those before."""
        import torch

        self._refuse_long(ids)
        with torch.inference_mode():
            logits = self._model(input_ids=self._tensor(ids), use_cache=False).logits[0, first - 1 : -1].double()
            scores = torch.log_softmax(logits, dim=-1).gather(1, self._tensor(ids[first:])[0].unsqueeze(1))
        return float(scores.sum())

    def generate(self, prompt: bytes, max_bytes: int, stop: Sequence[bytes]) -> bytes:
        """Greedy, with the key-value cache of transformers where the model has one."""
        import torch

        ids = self._ids(prompt) or list(self._first)
        if not ids:
            raise InputError("the prompt is empty and the model has neither BOS nor EOS to begin with")
        self._refuse_long(ids)
        tail = ids[-_TAIL:]
        begin = self._tokenizer.decode(tail, skip_special=True)
        made: list[int] = []
        cache: Any = None
        data = b""
        while len(made) < max_bytes and (self._most is None or len(ids) + len(made) < self._most):
            read = ids + made if cache is None else made[-1:]
            with torch.inference_mode():
                out = self._model(input_ids=self._tensor(read), use_cache=True, **{self._cache: cache})
            cache = getattr(out, self._cache, None)
            made.append(int(out.logits[0, -1].argmax()))
            if made[-1] in self._ends:
                break
            text = self._tokenizer.decode(tail + made, skip_special=True)
            text = text[len(begin) :] if text.startswith(begin) else self._tokenizer.decode(made, skip_special=True)
            data = text.rstrip("\ufffd").encode()  # half a character: its other bytes come with the next token
            found = [place for place in (data.find(word) for word in stop) if place >= 0]
            if found:
                return data[: min(found)]
            if len(data) >= max_bytes:
                break
        return data[:max_bytes]

    def _ids(self, text: bytes) -> list[int]:
        try:
            ids = self._tokenizer.encode(text.decode("utf-8"), add_special=False) if text else []
        except UnicodeDecodeError as error:
            raise InputError(f"a model with a tokenizer reads text, and these bytes are no UTF-8 at {error.start}") from error
        return self._prefix + ids

    def _refuse_long(self, ids: list[int]) -> None:
        if self._most is not None and len(ids) > self._most:
            raise InputError(f"it has {len(ids):,} tokens, and the model reads {self._most:,}: leave it out, or take a shorter preamble")

    def _tensor(self, ids: list[int]) -> torch.Tensor:
        import torch

        return torch.tensor([ids], device=self._device)

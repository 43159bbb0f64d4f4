"""What one model says of every byte of some texts: log probabilities of the next byte, kept for whoever compares or combines models.

The action is named by (model, texts, how much is read), so one more model reads alone, and nothing that follows runs a model again.
Texts are JSON lines with `id`, `prompt`, and `text` where something follows it: a block of questions (of which the prompts are read, and
nothing here knows what is right), or a fitting set (`stages.fit_texts`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stages.errors import InputError, SpecError
from stages.hf_model import LoadIn
from stages.stage import Context, Leaf, Outcome
from store.digest import Digest

if TYPE_CHECKING:
    from stages.byte_lm.byte_lm import ByteLm

FORM = "byte-rows/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteRows:
    """How the model is read, and how much. A byte is kept in 1028 bytes.

    Attributes:
        max_bytes: of all texts together: whole texts from the beginning, as many as fit; None for all.
        load_in: type of the weights in memory.
        tolerance: the part of the probability that may wait; 0 is exact.
    """

    max_bytes: int | None = None
    load_in: LoadIn = "auto"
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        if self.max_bytes is not None and self.max_bytes < 1:
            raise SpecError(f"max_bytes is {self.max_bytes}; it must be at least 1")
        if not 0 <= self.tolerance < 1:
            raise SpecError(f"tolerance is {self.tolerance}; it is a part below 1, and 0 is exact")


STAGE = Leaf(
    name="byte-rows",
    version=1,
    spec=ByteRows,
    inputs=("model", "texts"),
    outputs=("rows",),
    purity="E",
    run="stages.byte_rows:run",
    share=("model",),
)


def fitting(texts: Sequence[bytes], max_bytes: int | None) -> list[bytes]:
    """The first texts, whole, of at most so many bytes together.

    Raises:
        InputError: not even the first fits, or there is none.

    >>> fitting([b"one", b"four", b"x"], 7), fitting([b"one", b"four", b"x"], 6)
    ([b'one', b'four'], [b'one'])
    """
    found: list[bytes] = []
    left = sum(map(len, texts)) if max_bytes is None else max_bytes
    for text in texts:
        left -= len(text)
        if left < 0:
            break
        found.append(text)
    if not found:
        raise InputError(
            f"the first text has {len(texts[0])} bytes, and {max_bytes} are to be read: raise divergenceBytes"
            if texts
            else "there is no text to read"
        )
    return found


def run(spec: ByteRows, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Read the texts, each from its beginning. `rows` (n, 257) are float32 log probabilities before each byte, of the 256 bytes and
    of the end of the text; `bytes` (n) are those that came; `starts` (N + 1) where each text begins, and where the last ends.

    Raises:
        InputError: a model that cannot be read byte by byte, a text that is longer than it reads, or something that is no number.
    """
    import numpy as np
    import torch

    from stages import questions
    from stages.many_worlds import tensor_file

    key = f"byte-rows:{inputs['model']}:{spec.load_in}:{spec.tolerance}"
    if key not in context.memo:
        context.memo[key] = _load(inputs["model"], context, spec)
    rows = [row for _, row in questions.rows(context.store.read(inputs["texts"]))]
    texts = fitting([(row["prompt"] + row.get("text", "")).encode() for row in rows], spec.max_bytes)
    parts = []
    for number, text in enumerate(texts, start=1):
        try:
            found = context.memo[key].rows(text)[:-1]
        except InputError as error:
            raise InputError(f"text {rows[number - 1]['id']}: {error}") from error
        if np.isnan(found).any():
            raise InputError(f"text {rows[number - 1]['id']}: the model says what is no number")
        parts.append(found.astype(np.float32))
        context.progress(number, len(texts), "texts")
    tensors = {
        "bytes": torch.tensor(list(b"".join(texts)), dtype=torch.int32),
        "rows": torch.from_numpy(np.concatenate(parts)),
        "starts": torch.tensor(np.cumsum([0, *map(len, texts)]), dtype=torch.int64),
    }
    return Outcome({"rows": tensor_file.write(context.store, FORM, {"texts": str(inputs["texts"])}, tensors)})


def _load(model: Digest, context: Context, spec: ByteRows) -> ByteLm:
    """A model of transformers, or the member of an ensemble of one."""
    from stages import ensemble_tree, plugins
    from stages.byte_lm import byte_lm
    from stages.tensors import read_config
    from store import tree

    kind = read_config(context.store, tree.load(context.store, model)).get("model_type")
    alone = ensemble_tree.only(context.store, model) if kind == ensemble_tree.MODEL_TYPE else None
    if alone is None and kind in plugins.names("answerers"):
        raise InputError(f"model {model.short} is of the type {kind}; models of transformers are read byte by byte, and ensembles of one")
    return byte_lm.load(context.folder(alone or model), spec.load_in, tolerance=spec.tolerance)

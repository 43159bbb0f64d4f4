"""What one model says of every byte of one block of questions: log probabilities of the next byte, kept for whoever compares models.

The action is named by (model, block, bytes read), so one more model reads the block alone, and no comparison runs a model again.
Questions come without their solutions: nothing here knows what is right.
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
    """How much is read.

    Attributes:
        max_bytes: of all prompts together: whole prompts from the beginning, as many as fit. A byte is kept in 1028 bytes.
    """

    max_bytes: int = 20_000
    load_in: LoadIn = "auto"

    def __post_init__(self) -> None:
        if self.max_bytes < 1:
            raise SpecError(f"max_bytes is {self.max_bytes}; it must be at least 1")


STAGE = Leaf(
    name="byte-rows",
    version=1,
    spec=ByteRows,
    inputs=("model", "questions"),
    outputs=("rows",),
    purity="E",
    run="stages.byte_rows:run",
    share=("model",),
)


def fitting(texts: Sequence[bytes], max_bytes: int) -> list[bytes]:
    """The first texts, whole, of at most so many bytes together.

    Raises:
        InputError: not even the first fits.

    >>> fitting([b"one", b"four", b"x"], 7), fitting([b"one", b"four", b"x"], 6)
    ([b'one', b'four'], [b'one'])
    """
    found: list[bytes] = []
    left = max_bytes
    for text in texts:
        left -= len(text)
        if left < 0:
            break
        found.append(text)
    if not found:
        raise InputError(
            f"the first question has {len(texts[0]) if texts else 0} bytes, and {max_bytes} are to be read: raise divergenceBytes"
        )
    return found


def run(spec: ByteRows, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Read the prompts, each from its beginning. `rows` (n, 257) are float32 log probabilities before each byte, of the 256 bytes and
    of the end of the text; `bytes` (n) are those that came; `texts` (N + 1) where each text begins.

    Raises:
        InputError: a model that cannot be read byte by byte, or a prompt that is longer than it reads.
    """
    import numpy as np
    import torch

    from stages import questions
    from stages.many_worlds import tensor_file

    key = f"byte-rows:{inputs['model']}:{spec.load_in}"
    if key not in context.memo:
        context.memo[key] = _load(inputs["model"], context, spec.load_in)
    asked = questions.parse_block(context.store.read(inputs["questions"]))
    texts = fitting([item.prompt.encode() for item in asked], spec.max_bytes)
    parts = []
    for number, text in enumerate(texts, start=1):
        try:
            parts.append(context.memo[key].rows(text)[:-1].astype(np.float32))
        except InputError as error:
            raise InputError(f"question {asked[number - 1].id}: {error}") from error
        context.progress(number, len(texts), "prompts")
    tensors = {
        "bytes": torch.tensor(list(b"".join(texts)), dtype=torch.int32),
        "rows": torch.from_numpy(np.concatenate(parts)),
        "texts": torch.tensor(np.cumsum([0, *map(len, texts)]), dtype=torch.int64),
    }
    return Outcome({"rows": tensor_file.write(context.store, FORM, {"questions": str(inputs["questions"])}, tensors)})


def _load(model: Digest, context: Context, load_in: LoadIn) -> ByteLm:
    """A model of transformers, or the member of an ensemble of one."""
    from stages import ensemble_tree, plugins
    from stages.byte_lm import byte_lm
    from stages.tensors import read_config
    from store import tree

    kind = read_config(context.store, tree.load(context.store, model)).get("model_type")
    alone = ensemble_tree.only(context.store, model) if kind == ensemble_tree.MODEL_TYPE else None
    if alone is None and kind in plugins.names("answerers"):
        raise InputError(f"model {model.short} is of the type {kind}; models of transformers are read byte by byte, and ensembles of one")
    return byte_lm.load(context.folder(alone or model), load_in)

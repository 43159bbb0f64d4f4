"""Turn one text into token ids as llama-perplexity does: the whole file in one piece, special tokens only where the tokenizer adds them.

(llama-perplexity drops one newline from the end of the file; this does not, and an incomplete last chunk is never scored.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stages import tokens, toolchain
from stages.errors import InputError
from stages.stage import Context, Leaf, Outcome
from store.digest import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenize:
    """How to tokenise."""

    add_special: bool = True
    """Whether BOS stands before the text, if the tokenizer adds one."""


STAGE = Leaf(
    name="tokenize",
    version=1,
    spec=Tokenize,
    inputs=("tokenizer", "text"),
    outputs=("tokens",),
    purity="E",
    run="stages.tokenize_text:run",
    environment=toolchain.ENVIRONMENT,
)


def run(spec: Tokenize, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Write the ids (`stages.tokens`).

    Raises:
        InputError: the text is empty or not UTF-8, or the tokenizer does not load or adds more than BOS.
    """
    from stages.hf_tokenizer import HfTokenizer

    data = context.store.read(inputs["text"])
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"text {inputs['text'].short} is not UTF-8 at byte {error.start}: a dataset for perplexity is plain text"
        ) from error
    if not text.strip():
        raise InputError(f"text {inputs['text'].short} is empty ({len(data)} bytes)")
    tokenizer = HfTokenizer(context.folder(inputs["tokenizer"]))
    context.note("adds_bos", tokenizer.adds_bos)
    ids = tokenizer.encode(text, add_special=spec.add_special)
    context.note("tokens", len(ids))
    return Outcome({"tokens": context.store.put(tokens.pack(ids))})

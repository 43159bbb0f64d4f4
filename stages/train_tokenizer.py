"""Train a byte-level BPE tokenizer on a corpus: any text can be encoded, and llama.cpp knows its pre-tokenizer as `gpt-2`.

There is one special token, the end of a text (id 0). There is no beginning-of-text token.
Merges are chosen by count and then by id, so the order of counting does not matter: the bytes depend on the version of `tokenizers` alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from stages.corpus import corpus_files, documents
from stages.errors import InputError, SpecError
from stages.stage import Context, Leaf, Outcome
from store import tree
from store.digest import Digest

BYTES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainTokenizer:
    """What the tokenizer is to be."""

    vocab_size: int
    """At most so many tokens, the end of text and the 256 bytes included; a small corpus gives fewer."""
    end_of_text: str = "<|endoftext|>"
    model_max_length: int = 2048
    """Tokens; what the tokenizer's own files say of the model."""

    def __post_init__(self) -> None:
        if self.vocab_size <= BYTES:
            raise SpecError(f"vocab_size is {self.vocab_size}; the bytes and the end of text alone are {BYTES + 1}")


STAGE = Leaf(
    name="train-tokenizer",
    version=1,
    spec=TrainTokenizer,
    inputs=("corpus",),
    outputs=("tokenizer",),
    purity="E",
    run="stages.train_tokenizer:run",
    keys={"dataset": "corpus"},
)


def run(spec: TrainTokenizer, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Count, merge, and store `tokenizer.json` and `tokenizer_config.json` as a tree.

    Raises:
        InputError: the corpus holds no text.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    files = corpus_files(context.store, inputs["corpus"])
    count = 0

    def texts() -> Iterator[str]:
        nonlocal count
        for number, file in enumerate(files):
            context.progress(number, len(files), "files")
            for document in documents(context.store.read(file.digest), file):
                count += 1
                yield document.text

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=spec.vocab_size,
        special_tokens=[spec.end_of_text],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    if not count:
        raise InputError(f"corpus {inputs['corpus'].short} holds no text to train a tokenizer on")
    context.note("vocab_size", tokenizer.get_vocab_size())
    folder = context.scratch / "tokenizer"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=True) + "\n", encoding="utf-8")
    config = {
        "add_bos_token": False,
        "add_eos_token": False,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "eos_token": spec.end_of_text,
        "model_max_length": spec.model_max_length,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return Outcome({"tokenizer": tree.import_folder(context.store, folder)})

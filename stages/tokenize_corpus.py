"""Turn the documents of one corpus file into token ids: one array per domain, each document followed by the end-of-text token.

The output is a tree of `<domain>.u16` (or `.u32` where the vocabulary needs it): little-endian ids, nothing else.
`gather_tokens` joins the trees of several files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stages.corpus import CorpusFile, Form, documents
from stages.errors import InputError
from stages.stage import Context, Leaf, Outcome
from store.digest import Digest
from store.tree import Tree, TreeEntry

_BATCH = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizeCorpus:
    """How the file is to be read (see `stages.corpus`)."""

    form: Form
    domain: str
    """Of documents that name none."""


STAGE = Leaf(
    name="tokenize-corpus",
    version=1,
    spec=TokenizeCorpus,
    inputs=("text", "tokenizer"),
    outputs=("tokens",),
    purity="E",
    run="stages.tokenize_corpus:run",
)


def run(spec: TokenizeCorpus, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Encode every document.

    Raises:
        InputError: the file holds no text, or the tokenizer has no end-of-text token.
    """
    import numpy as np
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(context.folder(inputs["tokenizer"]), local_files_only=True, trust_remote_code=False)
    if tokenizer.eos_token_id is None:
        raise InputError(f"tokenizer {inputs['tokenizer'].short} has no eos_token, which must end each document")
    width = "u16" if len(tokenizer) <= 1 << 16 else "u32"
    texts: dict[str, list[str]] = {}
    for document in documents(context.store.read(inputs["text"]), CorpusFile("the corpus file", inputs["text"], spec.form, spec.domain)):
        texts.setdefault(document.domain, []).append(document.text)
    if not texts:
        raise InputError(f"corpus file {inputs['text'].short} ({spec.domain}) holds no text")
    total, done, tokens = sum(map(len, texts.values())), 0, 0
    entries = []
    for domain in sorted(texts):
        ids: list[int] = []
        for start in range(0, len(texts[domain]), _BATCH):
            for encoded in tokenizer(texts[domain][start : start + _BATCH], add_special_tokens=False, verbose=False)["input_ids"]:
                ids += [*encoded, tokenizer.eos_token_id]
            done += len(texts[domain][start : start + _BATCH])
            context.progress(done, total, "documents")
        data = np.asarray(ids, dtype="<u2" if width == "u16" else "<u4").tobytes()
        entries.append(TreeEntry(f"{domain}.{width}", context.store.put(data), len(data)))
        tokens += len(ids)
    context.note("token_ids", tokens)
    return Outcome({"tokens": context.store.put(Tree(tuple(entries)).to_bytes())})

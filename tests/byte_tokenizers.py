"""Small tokenizers of every kind that the byte-level view reads, and what is valid by asking the tokenizer itself."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

from stages.byte_lm.validity import ValidTokenisations
from stages.byte_lm.vocabulary import of
from tests.tiny import TEXT

# of Llama 3 and Qwen 2
CL100K = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# of GPT-4o
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
MORE = "don't we'll they've  IT'S   x\n\n  y\t12 123 1234 12345\n  'rest 'real — “quoted” — café naïve …  \n \n a  b   c    d"
WHOLE = "a zq zx zqa zxy\nzx zq"
"""Words that are tokens which no merge makes, in the tokenizer that ignores merges for whole pieces."""
TEXTS = (*TEXT, MORE)
"""What the tokenizers are trained on; `MORE` has contractions, runs of blanks and digits, characters of two and three bytes."""


def byte_level(*, vocab: int = 420, pattern: str = "", added: Sequence[str] = (), ignore_merges: bool = False) -> Any:
    """A byte-level BPE with `<s>` (0) and `</s>` (1), cut as GPT-2 does or by a pattern."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not pattern)
    split = [pre_tokenizers.Split(Regex(pattern), "isolated")] if pattern else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*split, plain]) if split else plain
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(list(TEXTS) * 3, trainer)
    if added:
        tokenizer.add_tokens([AddedToken(item, normalized=False) for item in added])
    if ignore_merges:
        # A token that merges do not make: with ignore_merges it is one piece all the same.
        settings = json.loads(tokenizer.to_str())
        settings["model"]["ignore_merges"] = True
        for name in ("Ġzq", "zx"):
            settings["model"]["vocab"][name] = len(settings["model"]["vocab"])
        tokenizer = Tokenizer.from_str(json.dumps(settings))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def sentencepiece(*, vocab: int = 400) -> Any:
    """A SentencePiece-like BPE, with bytes for the characters that it lacks (all but ASCII letters, blanks and a few marks)."""
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=["<unk>", "<s>", "</s>", *(f"<0x{value:02X}>" for value in range(256))],
        limit_alphabet=60,
        max_token_length=8,
        show_progress=False,
    )
    tokenizer.train_from_iterator([word for text in TEXTS for word in text.replace("\n", " ").split(" ")], trainer)
    settings = json.loads(tokenizer.to_str())
    for item in settings["added_tokens"]:
        item["special"] = not item["content"].startswith("<0x")
    settings["added_tokens"] = [item for item in settings["added_tokens"] if item["special"]]
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(settings)), unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


KINDS: dict[str, Callable[[], Any]] = {
    "gpt2": byte_level,
    "bytes": lambda: byte_level(vocab=258),
    "cl100k": lambda: byte_level(pattern=CL100K),
    "o200k": lambda: byte_level(pattern=O200K),
    "neox": lambda: byte_level(added=("  ", "   ", "    ", "\t\t")),
    "ignore-merges": lambda: byte_level(pattern=CL100K, ignore_merges=True),
    "sentencepiece": sentencepiece,
}


@functools.cache
def rule_of(kind: str) -> tuple[Any, ValidTokenisations]:
    """A tokenizer of `KINDS`, and the rule made of it: one for all tests, as it remembers what it found out, which takes long."""
    tokenizer = KINDS[kind]()
    return tokenizer, ValidTokenisations(of(tokenizer, rows=len(tokenizer)))


def encode(tokenizer: Any, text: str) -> list[int]:
    """What the tokenizer makes of a text, special tokens neither added nor recognised."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return ids


def endings(data: bytes, samples: int, seed: int = 0) -> list[bytes]:
    """Bytes that can follow `data` so that it is UTF-8, among them what moves borders of pieces; none where nothing can."""
    after = ["", *map(chr, range(32, 127)), "\n", "\t", "é", "—", "中", "\u00a0"]
    after += [first + second for first in " 'a\n1" for second in " 'asretvlm\n1."]
    try:
        data.decode()
    except UnicodeDecodeError as error:
        start = data[error.start :]
        if error.reason != "unexpected end of data":
            return []
        size = 2 if start[0] < 0xE0 else 3 if start[0] < 0xF0 else 4
        low, high = start + b"\x80" * (size - len(start)), start + b"\xbf" * (size - len(start))
        first, last = (
            (int.from_bytes(bytes([item[0] & (0x7F >> size)])) << 6 * (size - 1))
            + sum((byte & 0x3F) << 6 * (size - 2 - place) for place, byte in enumerate(item[1:]))
            for item in (low, high)
        )
        codes = [
            code
            for code in range(first, min(last, 0x10FFFF) + 1)
            if not 0xD800 <= code <= 0xDFFF and code >= {2: 0x80, 3: 0x800, 4: 0x10000}[size]
        ]
        chosen = codes if len(codes) <= samples else random.Random(seed).sample(codes, samples)
        return [chr(code).encode()[len(start) :] + more for code in chosen for more in (b"", b"a", b" ")]
    return [item.encode() for item in after]


def begins_some_text(tokenizer: Any, texts: Sequence[bytes], ids: Sequence[int], *, lead: bytes = b"", samples: int = 300) -> bool:
    """Whether some text's tokens begin with these: by trying what may follow."""
    data = b"".join(texts[number] for number in ids)
    for ending in endings(data, samples):
        whole = data + ending
        if whole.startswith(lead) and encode(tokenizer, whole[len(lead) :].decode())[: len(ids)] == list(ids):
            return True
    return False

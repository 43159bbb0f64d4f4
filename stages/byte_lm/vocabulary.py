"""The bytes that each token of a tokenizer stands for, which tokens end a text, and what comes before its first.

Known are the two kinds of BPE that causal language models use: byte-level (the alphabet of GPT-2) and SentencePiece (blanks as `▁`, bytes
of characters that it lacks as `<0xE2>`). Everything else is refused with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from stages.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BYTES = 256
END = BYTES
"""The symbol of the end of a text, beside the 256 bytes."""
SYMBOLS = BYTES + 1
BLANK = "▁"


def byte_alphabet() -> dict[str, int]:
    """GPT-2's character for each byte: printable Latin-1 stands for itself, the other 68 bytes are U+0100 and on, in order."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {chr(value): value for value in plain}
    others = (value for value in range(BYTES) if chr(value) not in alphabet)
    return alphabet | {chr(BYTES + number): value for number, value in enumerate(others)}


@dataclass(frozen=True, eq=False)
class Span:
    """Tokens that begin with the same bytes: a node of the tree of all tokens.

    Attributes:
        low, high: places in `Vocabulary.order`.
        depth: bytes that they share.
        whole: `order[low:whole]` are exactly these bytes; the others go on.
    """

    low: int
    high: int
    depth: int
    whole: int
    firsts: NDArray[np.intp]
    """The different next bytes, ascending."""
    starts: NDArray[np.intp]
    """Where each begins, counted from `whole`."""
    _children: dict[int, Span] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, kw_only=True)
class Vocabulary:
    """A tokenizer, as the byte-level view needs it.

    Attributes:
        kind: `byte-level` or `sentencepiece`.
        texts: id -> bytes; `b""` for a token that stands for no text (special tokens, unused rows).
        names: id -> the token as the tokenizer writes it.
        ends: ids that end a text.
        start: ids before the first token of a text.
        lead: bytes that the tokenizer puts before every text (a blank, in SentencePiece).
        model: the `model` of tokenizer.json; `settings` all of it.
        backend: the `tokenizers.Tokenizer`.
    """

    kind: Literal["byte-level", "sentencepiece"]
    texts: tuple[bytes, ...]
    names: tuple[str, ...]
    ends: tuple[int, ...]
    start: tuple[int, ...]
    lead: bytes
    settings: Mapping[str, Any]
    backend: Any

    @property
    def model(self) -> Mapping[str, Any]:
        """The BPE: `vocab`, `merges` and flags."""
        model: Mapping[str, Any] = self.settings["model"]
        return model

    @cached_property
    def added(self) -> Mapping[str, int]:
        """Added tokens that are found inside a text (not special ones): content -> id."""
        return {item["content"]: item["id"] for item in self.settings.get("added_tokens", ()) if not item["special"]}

    @cached_property
    def order(self) -> NDArray[np.intp]:
        """(N,) ids of all tokens that stand for text, sorted by their bytes, then by id."""
        import numpy as np

        return np.array(sorted((i for i, text in enumerate(self.texts) if text), key=lambda i: (self.texts[i], i)), dtype=np.intp)

    @cached_property
    def place(self) -> NDArray[np.intp]:
        """(V,) id -> place in `order`; -1 for tokens that stand for no text."""
        import numpy as np

        place = np.full(len(self.texts), -1, dtype=np.intp)
        place[self.order] = np.arange(len(self.order))
        return place

    @cached_property
    def sorted_texts(self) -> tuple[bytes, ...]:
        """The bytes of the tokens in `order`."""
        return tuple(self.texts[i] for i in self.order)

    @cached_property
    def root(self) -> Span:
        """All tokens."""
        return self._span(0, len(self.order), 0)

    def child(self, span: Span, byte: int) -> Span | None:
        """Those of a span that have `byte` next; None where there is none."""
        import numpy as np

        found = span._children.get(byte)
        if found is None:
            number = int(np.searchsorted(span.firsts, byte))
            if number == len(span.firsts) or span.firsts[number] != byte:
                return None
            low = span.whole + int(span.starts[number])
            high = span.whole + int(span.starts[number + 1]) if number + 1 < len(span.starts) else span.high
            found = span._children[byte] = self._span(low, high, span.depth + 1)
        return found

    def span(self, prefix: bytes) -> Span | None:
        """All tokens that begin with `prefix`."""
        span: Span | None = self.root
        for byte in prefix:
            if span is None:
                return None
            span = self.child(span, byte)
        return span

    def _span(self, low: int, high: int, depth: int) -> Span:
        import numpy as np

        texts = self.sorted_texts
        whole = low
        while whole < high and len(texts[whole]) == depth:
            whole += 1
        nexts = np.array([texts[place][depth] for place in range(whole, high)], dtype=np.intp)
        starts = np.flatnonzero(np.diff(nexts, prepend=-1)) if len(nexts) else np.zeros(0, np.intp)
        return Span(low, high, depth, whole, nexts[starts], starts)


def of(tokenizer: Any, *, rows: int, ends: Sequence[int] = (), start: Sequence[int] | None = None) -> Vocabulary:
    """The vocabulary of a tokenizer of transformers.

    Args:
        tokenizer: a fast tokenizer.
        rows: of the model's output; ids from there on do not exist.
        ends: further ids that end a text (the generation config's), beside the tokenizer's own.
        start: ids before a text; by default BOS where the tokenizer adds it, else the end of the text before.

    Raises:
        InputError: not a kind of tokenizer that can be read byte by byte; the message says why.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise InputError(f"{type(tokenizer).__name__} is not a fast tokenizer; save the model with its tokenizer.json")
    settings = json.loads(backend.to_str())
    model = settings["model"]
    if model["type"] != "BPE":
        raise InputError(f"the tokenizer is {model['type']}; only BPE tokenizers have covers that can be summed exactly")
    for flag in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(flag):
            raise InputError(f"the tokenizer's BPE has {flag} = {model[flag]!r}, which the byte-level view does not define")
    kind, lead = _kind(settings)
    special = {item["id"] for item in settings.get("added_tokens", ()) if item["special"]}
    flagged = [item["content"] for item in settings.get("added_tokens", ()) if not item["special"] and _flags(item)]
    if flagged:
        raise InputError(f"added token {flagged[0]!r} takes blanks or words around it with it, which the byte-level view does not define")
    texts, names = [b""] * rows, [""] * rows
    for name, number in sorted(tokenizer.get_vocab().items()):
        if number < rows:
            names[number] = name
            if number not in special:
                texts[number] = _bytes(name, kind, model)
    for item in settings.get("added_tokens", ()):
        if not item["special"] and item["id"] < rows:
            texts[item["id"]] = item["content"].encode()
    missing = [value for value in range(BYTES) if bytes([value]) not in set(texts)] if kind == "byte-level" else []
    if missing:
        raise InputError(f"the tokenizer has no token for byte {missing[0]:#04x}, so there are texts that it cannot write")
    own = () if tokenizer.eos_token_id is None else (int(tokenizer.eos_token_id),)
    ending = tuple(sorted({*own, *map(int, ends)}))
    if not ending:
        raise InputError("neither the tokenizer nor the generation config says which token ends a text (eos_token)")
    if start is None:
        plain, marked = (tokenizer("a", add_special_tokens=flag, verbose=False)["input_ids"] for flag in (False, True))
        front = marked[: len(marked) - len(plain)]
        if marked[len(front) :] != plain:
            raise InputError(f"the tokenizer turns 'a' {plain} into {marked}: only special tokens in front are supported")
        start = front or [own[0] if own else ending[0]]  # texts without BOS were trained one after another, each after the end of another
    return Vocabulary(
        kind=kind, texts=tuple(texts), names=tuple(names), ends=ending, start=tuple(start), lead=lead, settings=settings, backend=backend
    )


def _flags(item: Mapping[str, Any]) -> bool:
    return bool(item["lstrip"] or item["rstrip"] or item["single_word"])


def _steps(value: Mapping[str, Any] | None, key: str) -> list[Mapping[str, Any]]:
    """The steps of a normaliser or pre-tokenizer, sequences flattened."""
    if value is None:
        return []
    if value["type"] == "Sequence":
        return [step for item in value[key] for step in _steps(item, key)]
    return [value]


def pretokenizers(settings: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The steps of the pre-tokenizer, in order."""
    return _steps(settings.get("pre_tokenizer"), "pretokenizers")


def _kind(settings: Mapping[str, Any]) -> tuple[Literal["byte-level", "sentencepiece"], bytes]:
    splits = pretokenizers(settings)
    normalizers = _steps(settings.get("normalizer"), "normalizers")
    kinds = [step["type"] for step in splits]
    if "ByteLevel" in kinds:
        spacing = next(step for step in splits if step["type"] == "ByteLevel")
        if spacing.get("add_prefix_space"):
            raise InputError("the tokenizer adds a blank before a text (add_prefix_space), so two texts have the same tokens")
        # A text that is not in normal form C would be changed by the tokenizer. Its bytes are read as they stand: for texts in normal
        # form nothing differs, and for others there is a distribution at all.
        other = [step["type"] for step in normalizers if step["type"] != "NFC"]
        if other:
            raise InputError(f"the tokenizer changes texts before it reads them ({other[0]}); only NFC is supported beside byte-level BPE")
        return "byte-level", b""
    if not settings["model"].get("byte_fallback"):
        raise InputError("the tokenizer is neither byte-level nor has byte_fallback: there are texts that it cannot write")
    lead, replaced = b"", False
    for step in (*normalizers, *splits):
        match step["type"]:
            case "Prepend" if step["prepend"] == BLANK:
                lead = b" "
            case "Replace" if step["pattern"] == {"String": " "} and step["content"] == BLANK:
                replaced = True
            case "Metaspace" if step["replacement"] == BLANK and not step.get("split", True):
                replaced, lead = True, lead if step.get("prepend_scheme") == "never" else b" "
            case other:
                raise InputError(f"the tokenizer has a step {other} ({step}), which the byte-level view of SentencePiece does not know")
    if not replaced:
        raise InputError(f"the tokenizer does not write blanks as {BLANK}: it is no SentencePiece BPE")
    return "sentencepiece", lead


_ALPHABET = byte_alphabet()


def _bytes(name: str, kind: str, model: Mapping[str, Any]) -> bytes:
    """What a token stands for; nothing for one that no text can have."""
    if kind == "byte-level":
        return bytes(_ALPHABET[char] for char in name) if all(char in _ALPHABET for char in name) else b""
    if len(name) == 6 and name.startswith("<0x") and name.endswith(">"):
        return bytes([int(name[3:5], 16)])
    return b"" if name == model.get("unk_token") else name.replace(BLANK, " ").encode()

"""The perplexity of guessing by frequency alone: what a model must beat before its own perplexity means anything.

Every token gets the probability (count + 1) / (tokens + vocabulary), with counts from the training tokens (add-one smoothing).

>>> import numpy as np
>>> round(unigram_perplexity(np.array([0, 0, 1]), np.array([0, 1]), vocab_size=2), 4)
2.0412
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stages.errors import InputError, SpecError
from stages.stage import Context, Leaf, Outcome
from store import canonical, tree
from store.digest import Digest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Unigram:
    """What the frequencies are counted on."""

    domain: str = ""
    """Count on the training tokens of one domain only: a harder baseline than the default, all of them."""
    n_ctx: int = 512
    """Score the tokens that the perplexity stage scores: the second half of each whole chunk of so many tokens. 0: every token."""

    def __post_init__(self) -> None:
        if self.n_ctx < 0 or self.n_ctx in (1, 2, 3):
            raise SpecError(f"n_ctx is {self.n_ctx}; it must be 0 (score every token) or at least 4")


STAGE = Leaf(
    name="unigram-perplexity",
    version=1,
    spec=Unigram,
    inputs=("training-tokens", "tokenizer", "text"),
    outputs=("metrics-unigram",),
    purity="E",
    run="stages.unigram:run",
)


def unigram_perplexity(train: NDArray[np.integer], heldout: NDArray[np.integer], *, vocab_size: int) -> float:
    """Perplexity of held-out ids (at least one) under smoothed frequencies of training ids: exp(mean negative log likelihood in nats)."""
    import numpy as np

    counts = np.bincount(train, minlength=vocab_size)
    seen = np.bincount(heldout, minlength=vocab_size)
    total = int(counts.sum()) + vocab_size
    terms = (int(times) * math.log((int(count) + 1) / total) for times, count in zip(seen, counts, strict=True) if times)
    return math.exp(-math.fsum(terms) / len(heldout))


def scored(ids: NDArray[np.integer], n_ctx: int) -> NDArray[np.integer]:
    """The ids that llama-perplexity predicts: in each whole chunk those after position n_ctx // 2; all of them if `n_ctx` is 0."""
    if not n_ctx:
        return ids
    return ids[: len(ids) // n_ctx * n_ctx].reshape(-1, n_ctx)[:, n_ctx // 2 + 1 :].reshape(-1)


def run(spec: Unigram, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Count and evaluate; the output is canonical JSON with the perplexity as decimal text.

    Raises:
        InputError: the text is too short. SpecError: the domain is not in the training tokens.
    """
    import numpy as np
    from transformers import AutoTokenizer

    from stages.train_data import load_tokens

    tokenizer = AutoTokenizer.from_pretrained(context.folder(inputs["tokenizer"]), local_files_only=True, trust_remote_code=False)
    text = context.store.read(inputs["text"]).decode("utf-8")
    ids = np.asarray(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], dtype=np.int64)
    heldout = scored(ids, spec.n_ctx)
    if not len(heldout):
        raise InputError(f"text {inputs['text'].short} has {len(ids)} tokens; nothing is left to score with n_ctx {spec.n_ctx}")
    names = [entry.path for entry in tree.load(context.store, inputs["training-tokens"]).entries]
    arrays = load_tokens(context.folder(inputs["training-tokens"]), names)
    if spec.domain and spec.domain not in arrays:
        raise SpecError(f"domain {spec.domain!r} is not among the training tokens; they are of {', '.join(sorted(arrays))}")
    train = np.concatenate([arrays[domain] for domain in sorted(arrays) if spec.domain in ("", domain)])
    result = {
        "benchmark": "unigram-perplexity",
        "dataset": {"digest": {"sha256": inputs["text"].hex}},
        "metrics": {"perplexity": f"{unigram_perplexity(train, heldout, vocab_size=len(tokenizer)):.6g}"},
        "settings": {"domain": spec.domain, "nCtx": spec.n_ctx},
        "tokens": {"scored": len(heldout), "training": len(train), "vocabulary": len(tokenizer)},
    }
    return Outcome({"metrics-unigram": context.store.put(canonical.dumps(result))})

"""The causal protocol of bridges: where texts are cut, what a source reads, what the controls are given."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stages.bridge_bytes import BridgeBytes
from stages.bridge_handoff import BridgeHandoff
from stages.bridge_protocol import cut as cutting
from stages.bridge_protocol.cut import Cut
from stages.bridge_texts import BridgeTexts
from stages.byte_lm import byte_lm
from stages.environment import pin
from stages.errors import InputError, SpecError
from stages.hf_answerer import HfAnswerer
from stages.hf_tokenizer import HfTokenizer
from stages.many_worlds import positions, tensor_file
from store import tree
from store.digest import Digest
from store.local import LocalCas
from tests.direct import Direct
from tests.tiny import TEXT, corpus, make_model

TEXTS = BridgeTexts(prompt_bytes=40, continuation_bytes=16, heldout_percent=40)


def samples(count: int) -> list[dict[str, str]]:
    """Texts of words in an order of their own, of two domains."""
    words = " ".join(TEXT).split()
    return [
        {"domain": "even" if number % 2 == 0 else "odd", "text": " ".join(words[(7 * number + n * n) % len(words)] for n in range(24))}
        for number in range(count)
    ]


def lines(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """JSON lines."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@dataclass
class Models:
    """Random models of three tokenizers in a store."""

    store: LocalCas
    direct: Direct
    models: Mapping[str, Digest]

    def folder(self, name: str) -> Path:
        """Of a model."""
        return self.direct.context.folder(self.models[name])


SHAPES: Mapping[str, Mapping[str, Any]] = {
    "one": {"hidden": 32, "layers": 3, "vocab": 300},
    "two": {"hidden": 48, "layers": 2, "vocab": 420},
    "target": {"hidden": 32, "layers": 3, "vocab": 360},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    pin(1)
    place = tmp_path_factory.mktemp("bridges")
    store = LocalCas(place / "store")
    folders = {
        name: make_model(place / name, intermediate=32, experts=2, seed=n, max_position_embeddings=256, **shape)
        for n, (name, shape) in enumerate(SHAPES.items())
    }
    return Models(store, Direct(store, place), {name: tree.import_folder(store, folder) for name, folder in folders.items()})


# --- the cut -------------------------------------------------------------------------------------------------------------------


def test_a_cut_is_where_a_token_ends_and_tears_nothing(models: Models) -> None:
    """Prefix and continuation are the text's bytes in order, each of the asked length; the tokens are those of the whole, the first ones
    those of the prefix alone; characters of several bytes stay whole.
    """
    tokenizer = HfTokenizer(models.folder("target"))
    for sample in [*samples(30), {"text": "ü€ " * 40}, {"text": "日本語の文章" * 12}]:
        found = cutting.cut(tokenizer, sample["text"], 40, 16)
        assert isinstance(found, Cut)
        whole = found.prefix + found.continuation
        assert sample["text"].encode().startswith(whole)
        assert cutting.wish(whole, 40) <= len(found.prefix)
        assert 8 <= len(found.continuation) <= 16
        assert list(found.ids[: found.prefix_tokens]) == tokenizer.encode(found.prefix.decode(), add_special=False)
        assert tokenizer.decode(found.ids).encode() == whole
        assert (found.ends[found.prefix_tokens - 1], found.ends[-1]) == (len(found.prefix), len(whole))


def test_the_cut_depends_on_the_prefix_alone(models: Models) -> None:
    """Whatever else could follow, of all texts with this prefix those that are used are cut at the same place."""
    tokenizer = HfTokenizer(models.folder("target"))
    used = 0
    for sample in samples(20):
        first = cutting.cut(tokenizer, sample["text"], 40, 16)
        assert isinstance(first, Cut)
        for other in (
            " nothing of the kind was ever said here",
            "x" * 60,
            "\n\n\n12345 67890 12345 67890",
            " zzz",
            "!!?!!?!!?!!?!!?!!?!!?!!?",
        ):
            found = cutting.cut(tokenizer, first.prefix.decode() + other, 40, 16)
            if isinstance(found, Cut):
                used += 1
                assert found.prefix == first.prefix
                assert found.ids[: found.prefix_tokens] == first.ids[: first.prefix_tokens]
    assert used > 30


def test_texts_that_cannot_be_cut_are_counted(models: Models) -> None:
    """A short text and one with a token over the seam are left out, and told; a block of them alone says what to do."""
    tokenizer = HfTokenizer(models.folder("target"))
    assert cutting.cut(tokenizer, "too short", 40, 16) == "short"
    assert cutting.cut(tokenizer, " " * 100, 40, 16) == "short"
    block = models.store.put(corpus([{"text": "short"}, *samples(3)]))
    outputs = models.direct.run("bridge-texts", TEXTS, {"model": models.models["target"], "samples": block})
    assert models.direct.notes["bridge-texts"]["texts"] == {"used": 3, "short": 1, "seam": 0}
    assert tensor_file.read_head(models.store.path(outputs["tokens"]), "bridge-texts/v1")["leftOut"] == {"seam": 0, "short": 1}
    lone = models.store.put(corpus([{"text": "short"}]))
    with pytest.raises(InputError, match="Lower promptBytes and continuationBytes"):
        models.direct.run("bridge-texts", TEXTS, {"model": models.models["target"], "samples": lone})
    with pytest.raises(SpecError, match="prompt_bytes is 7; it must be at least 8"):
        BridgeTexts(prompt_bytes=7)


def test_a_source_is_given_prefixes_alone(models: Models) -> None:
    """The object that sources read holds, text by text, the bytes before the cut; other continuations leave its digest as it is."""
    original = samples(12)
    inputs = {"model": models.models["target"], "samples": models.store.put(corpus(original))}
    first = models.direct.run("bridge-texts", TEXTS, inputs)
    file = tensor_file.read(models.store.path(first["tokens"]), "bridge-texts/v1")
    prefixes = [json.loads(line)["text"] for line in models.store.read(first["prefixes"]).splitlines()]
    assert [len(text.encode()) for text in prefixes] == file.tensors["prefix_bytes"].tolist()
    assert all(sample["text"].startswith(text) for sample, text in zip(original, prefixes, strict=True))
    changed = [
        {**sample, "text": text + " but then it all went another way and nobody knows"}
        for sample, text in zip(original, prefixes, strict=True)
    ]
    second = models.direct.run("bridge-texts", TEXTS, {**inputs, "samples": models.store.put(corpus(changed))})
    assert second["prefixes"] == first["prefixes"]
    assert second["tokens"] != first["tokens"]


def test_held_out_is_decided_by_the_text(models: Models) -> None:
    """Whether a text is held out follows from its own hash, and the lines for the controls are exactly those."""
    block = models.store.put(corpus(samples(12)))
    outputs = models.direct.run("bridge-texts", TEXTS, {"model": models.models["target"], "samples": block})
    file = tensor_file.read(models.store.path(outputs["tokens"]), "bridge-texts/v1")
    kept = [positions.is_held_out(key, 40) for key in file.tensors["texts"].tolist()]
    assert [bool(item) for item in file.tensors["held_out"].tolist()] == kept
    assert 0 < sum(kept) < 12
    kept_lines = [json.loads(line) for line in models.store.read(outputs["held-out"]).splitlines()]
    rows = [row for row, item in enumerate(kept) if item]
    assert [positions.key_of(line["text"].encode()) for line in kept_lines] == file.tensors["texts"][rows].tolist()
    assert [line["cut"] for line in kept_lines] == file.tensors["prefix_bytes"][rows].tolist()


# --- what the controls read ----------------------------------------------------------------------------------------------------


def test_the_hand_off_is_greedy_text_from_the_prefix(models: Models) -> None:
    """What a source hands over is what it writes after the prefix alone: the continuation changes nothing of it."""
    texts = ("def add(left, right):\n    return left", "def add(left, right) -> None: ...")
    held_out = models.store.put(lines([{"cut": 20, "domain": "all", "text": text} for text in texts]))
    made = models.direct.run("bridge-handoff", BridgeHandoff(bytes=12), {"model": models.models["one"], "held-out": held_out})
    written = [json.loads(line)["text"] for line in models.store.read(made["handoff"]).splitlines()]
    assert written[0] == written[1]
    assert written[0] == HfAnswerer(models.folder("one")).generate(b"def add(left, right)", 12, ()).decode(errors="ignore")
    empty = models.direct.run("bridge-handoff", BridgeHandoff(), {"model": models.models["one"], "held-out": models.store.put(b"")})
    assert models.store.read(empty["handoff"]) == b""


def test_byte_scores_are_those_of_the_byte_model(models: Models) -> None:
    """Of every byte of every text, the log probability that the byte-level model gives it."""
    text = "def add(left, right)"
    held_out = models.store.put(lines([{"cut": 8, "domain": "all", "text": text}] * 2))
    made = models.direct.run("bridge-bytes", BridgeBytes(), {"model": models.models["two"], "held-out": held_out})
    file = tensor_file.read(models.store.path(made["bytes"]), "bridge-bytes/v1")
    assert file.tensors["starts"].tolist() == [0, len(text), 2 * len(text)]
    rows = byte_lm.load(models.folder("two")).rows(text.encode())
    wanted = rows[np.arange(len(text)), list(text.encode())]
    assert torch.equal(file.tensors["log_probs"][len(text) :], torch.from_numpy(wanted))

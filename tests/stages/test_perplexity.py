import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ledger.predicates import EVALUATION
from stages import perplexity, perplexity_merge, token_blocks, tokenize_text
from stages.context import LeafContext
from stages.errors import InputError, SpecError
from stages.nll import Nll
from stages.perplexity import Perplexity
from stages.perplexity_merge import PerplexityMerge, merge
from stages.stage import Input, Ref
from stages.token_blocks import TokenBlocks
from stages.tokenize_text import Tokenize
from stages.tokenizer_of_model import TokenizerOfModel
from stages.tokens import pack, unpack
from store import canonical, tree
from store.digest import Digest
from store.memory import MemoryCas
from tests.tiny import TEXT

if TYPE_CHECKING:
    from tests.stages.conftest import Ggufs

GGUF = Digest.of(b"gguf")
TEXT_LONG = "".join(TEXT) * 3


def blocks(there: int, chunks: int | None = None) -> list[tuple[str, bytes]]:
    """Ids and tokens of the blocks for a text of so many chunks of 8 (and three tokens over)."""
    store = MemoryCas()
    tokens = store.put(pack(range(there * 8 + 3)))
    graph = perplexity.expand(Perplexity(n_ctx=8, chunks=chunks), {"gguf": GGUF, "tokens": tokens, "dataset": GGUF}, store)
    (cut,) = [node for node in graph.nodes if node.stage == "token-blocks"]
    cuts = token_blocks.run(cut.spec, {"tokens": tokens}, LeafContext(store, Path(), Path())).outputs
    assert len(cuts) == token_blocks.count(cut.spec, store.size(tokens))
    inputs = [(node.id, node.inputs["tokens"]) for node in graph.nodes if node.stage == "perplexity-block"]
    return [(name, store.read(cuts[item.output])) for name, item in inputs if isinstance(item, Ref)]


def test_a_text_is_cut_into_blocks_of_eight_chunks() -> None:
    """Consecutive slices of the token file; tokens after the last whole chunk are dropped."""
    made = blocks(18)
    assert [name for name, _ in made] == ["nll-00000", "nll-00001", "nll-00002"]
    assert b"".join(data for _, data in made) == pack(range(18 * 8))
    assert [len(data) // 32 for _, data in made] == [8, 8, 2]


def test_a_quick_evaluation_is_a_prefix_of_the_full_one() -> None:
    """10 chunks take two whole blocks, which the full evaluation finds."""
    assert blocks(40, chunks=10) == blocks(40)[:2]
    assert blocks(40, chunks=8) == blocks(40)[:1]
    assert blocks(40, chunks=1000) == blocks(40)


def test_a_text_of_less_than_a_chunk_is_not_cut() -> None:
    """There is nothing to evaluate."""
    store = MemoryCas()
    with pytest.raises(InputError, match="7 tokens do not make one chunk of 8"):
        token_blocks.run(TokenBlocks(n_ctx=8, block_chunks=8), {"tokens": store.put(pack(range(7)))}, LeafContext(store, Path(), Path()))


def test_the_same_beginning_gives_the_same_blocks() -> None:
    """A longer text shares every whole block of a shorter one."""
    assert blocks(16) == blocks(40)[:2]


def test_a_gguf_that_is_not_made_yet_may_be_planned() -> None:
    """Only the tokens decide the graph."""
    store = MemoryCas()
    inputs: dict[str, Input] = {"gguf": Ref("quant", "gguf"), "tokens": store.put(pack(range(32))), "dataset": GGUF}
    graph = perplexity.expand(Perplexity(n_ctx=8), inputs, store)
    assert graph.nodes[1].inputs["gguf"] == Ref("quant", "gguf")
    assert graph.nodes[-1].inputs["nll-00000"] == Ref("nll-00000", "nll")


def test_a_short_text_is_refused_with_the_number_of_tokens_needed() -> None:
    """llama-perplexity wants two chunks; the message says how many tokens that is."""
    store = MemoryCas()
    inputs = {"gguf": GGUF, "tokens": store.put(pack(range(700))), "dataset": GGUF}
    with pytest.raises(InputError, match=r"has 700 tokens; perplexity with n_ctx 512 needs at least 1,024 \(2 chunks\)"):
        perplexity.expand(Perplexity(), inputs, store)


@pytest.mark.parametrize("spec", [Perplexity(n_ctx=2), Perplexity(block_chunks=0), Perplexity(chunks=0)])
def test_impossible_settings_are_refused(spec: Perplexity) -> None:
    """Before anything is read."""
    with pytest.raises(SpecError, match="perplexity needs"):
        perplexity.expand(spec, {"gguf": GGUF, "tokens": GGUF, "dataset": GGUF}, MemoryCas())


def test_the_whole_evaluation_states_its_result_about_the_file(ggufs: "Ggufs", tmp_path: Path) -> None:
    """Tokenise, evaluate, merge: perplexity with its errors and interval, and the same result however it is cut into blocks."""
    direct, store = ggufs.direct, ggufs.store
    text = store.put(TEXT_LONG.encode())
    tokenizer = direct.run("tokenizer-of-model", TokenizerOfModel(), {"model": ggufs.models["wide"]})["tokenizer"]
    tokens = direct.run("tokenize", Tokenize(), {"tokenizer": tokenizer, "text": text})["tokens"]
    inputs = {"gguf": ggufs.files["wide-F32"], "tokens": tokens, "dataset": text}
    outputs = direct.run("perplexity", Perplexity(n_ctx=32, block_chunks=2), inputs)
    assert direct.run("perplexity", Perplexity(n_ctx=32, block_chunks=5), inputs) == outputs
    found = json.loads(store.read(outputs["metrics"]))
    values = Nll.parse(store.read(outputs["nll"])).values
    assert float(found["metrics"]["perplexity"]) == pytest.approx(math.exp(sum(values) / len(values)), rel=1e-9)
    assert float(found["metrics"]["low"]) < float(found["metrics"]["perplexity"]) < float(found["metrics"]["high"])
    assert found["tokens"]["scored"] == len(values) == 15 * found["settings"]["chunks"]
    assert found["settings"] == {
        "nCtx": 32,
        "chunks": len(unpack(store.read(tokens))) // 32,
        "bos": None,
        "kv": "F32",
        "flash": False,
        "resolution": "token",
    }
    assert found["toolchains"][0].startswith("cyllama 0.2.18")


def test_the_claim_is_about_the_gguf(tmp_path: Path) -> None:
    """Its subject is the file, its predicate is the metrics blob, and no float is in it."""
    store = MemoryCas()
    inputs = {"gguf": GGUF, "tokens": store.put(pack(range(16))), "dataset": Digest.of(b"text"), "nll-0": store.put(block(0, 2).to_bytes())}
    context = LeafContext(store, tmp_path, tmp_path)
    outcome = perplexity_merge.run(PerplexityMerge(n_ctx=8, chunks=2), inputs, context)
    (claim,) = outcome.claims
    assert (claim.subjects, claim.predicate_type) == ({"gguf": GGUF}, EVALUATION)
    assert canonical.dumps(claim.predicate) == store.read(outcome.outputs["metrics"])
    assert not [value for value in claim.predicate["metrics"].values() if not isinstance(value, str)]
    assert claim.predicate["dataset"] == {"digest": {"sha256": Digest.of(b"text").hex}}


def block(start: int, chunks: int, **changes: object) -> Nll:
    """A result for chunks of 8 tokens that count up from 0."""
    fields: dict[str, object] = {
        "n_ctx": 8,
        "chunks": chunks,
        "bos": None,
        "kv": "F32",
        "flash": False,
        "resolution": "token",
        "tokens": Digest.of(pack(range(start * 8, (start + chunks) * 8))),
        "toolchains": ("one",),
        "values": tuple(float(start * 3 + number) for number in range(3 * chunks)),
    }
    return Nll(**{**fields, **changes})  # type: ignore[arg-type]


def test_blocks_are_joined_and_cut_to_what_counts() -> None:
    """Three chunks of two blocks: values in order, tokens digest of just these, builds listed."""
    joined = merge([block(0, 2), block(2, 2, toolchains=("two",), resolution="chunk")], pack(range(40)), PerplexityMerge(n_ctx=8, chunks=3))
    assert joined.values == [float(number) for number in range(9)]
    assert joined.tokens == Digest.of(pack(range(24)))
    assert (joined.toolchains, joined.resolution) == (("one", "two"), "chunk")


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([], "no blocks"),
        ([block(0, 2), block(2, 1, kv="F16")], "cannot be joined"),
        ([block(0, 2), block(3, 2)], "block 1 evaluated tokens"),
        ([block(0, 2)], "hold 2 chunks; 4 are wanted"),
    ],
)
def test_blocks_that_do_not_belong_together_are_refused(parts: list[Nll], words: str) -> None:
    """Other settings, other tokens, too few."""
    with pytest.raises(InputError, match=words):
        merge(parts, pack(range(40)), PerplexityMerge(n_ctx=8, chunks=4))


def test_different_builds_in_one_evaluation_are_told(tmp_path: Path) -> None:
    """It is a result, with a warning."""
    store = MemoryCas()
    inputs = {"gguf": GGUF, "tokens": store.put(pack(range(32))), "dataset": GGUF}
    inputs |= {"nll-0": store.put(block(0, 2).to_bytes()), "nll-1": store.put(block(2, 2, toolchains=("two",)).to_bytes())}
    context = LeafContext(store, tmp_path, tmp_path)
    perplexity_merge.run(PerplexityMerge(n_ctx=8, chunks=4), inputs, context)
    assert context.warnings == ["blocks of this evaluation were measured by different builds: one, two"]


def test_base_and_pruned_share_their_tokenizer(ggufs: "Ggufs") -> None:
    """Its tree holds no weights and no config.json, so it is the same object for both."""
    digests = [
        ggufs.direct.run("tokenizer-of-model", TokenizerOfModel(), {"model": ggufs.models[name]})["tokenizer"]
        for name in ("wide", "pruned")
    ]
    assert digests[0] == digests[1]
    assert [entry.path for entry in tree.load(ggufs.store, digests[0]).entries] == ["tokenizer.json", "tokenizer_config.json"]


def test_a_model_without_tokenizer_files_is_refused(tmp_path: Path) -> None:
    """The message lists what would count."""
    from stages import tokenizer_of_model

    store = MemoryCas()
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    model = tree.import_folder(store, tmp_path / "m")
    with pytest.raises(InputError, match=r"has no tokenizer: none of .*tokenizer.json"):
        tokenizer_of_model.run(TokenizerOfModel(), {"model": model}, LeafContext(store, tmp_path, tmp_path))


@pytest.mark.parametrize(("data", "words"), [(b"", "is empty"), (b" \n\t ", "is empty"), (b"ab\xff", "not UTF-8 at byte 2")])
def test_a_dataset_that_is_no_text_is_refused(tmp_path: Path, data: bytes, words: str) -> None:
    """Empty, blank or binary."""
    store = MemoryCas()
    context = LeafContext(store, tmp_path, tmp_path)
    with pytest.raises(InputError, match=words):
        tokenize_text.run(Tokenize(), {"tokenizer": GGUF, "text": store.put(data)}, context)


def test_a_broken_block_is_refused(ggufs: "Ggufs", tmp_path: Path) -> None:
    """Tokens that are no number of chunks, or a GGUF that is cut, never reach llama.cpp."""
    from stages import perplexity_block
    from stages.perplexity_block import PerplexityBlock

    store = ggufs.store
    context = LeafContext(store, tmp_path, tmp_path)
    spec = PerplexityBlock(n_ctx=8, kv="F32", flash=False)
    with pytest.raises(InputError, match="not a number of chunks of 8"):
        perplexity_block.run(spec, {"gguf": ggufs.files["wide-F32"], "tokens": store.put(pack(range(9)))}, context)
    cut = store.put(ggufs.path("narrow-F16").read_bytes()[:-64])
    with pytest.raises(InputError, match="not a whole GGUF"):
        perplexity_block.run(spec, {"gguf": cut, "tokens": store.put(pack(range(8)))}, context)

"""Training: the chain of actions, and that its bytes depend on the spec and the corpus alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stages import (
    gather_tokens,
    tokenize_corpus,
    train,
    train_export,
    train_init,
    train_segment,
    train_tokenizer,
    unigram,
)
from stages.context import LeafContext
from stages.environment import pin
from stages.errors import InputError, SpecError, StageError
from stages.stage import Composite, Graph, Leaf, Ref, spec_from_json, spec_to_json
from stages.train import GptNeox, Llama, Mixtral, Train, Training
from store import tree
from store.cas import Cas
from store.digest import Digest
from store.local import LocalCas

LEAVES: Mapping[str, tuple[Leaf, Any]] = {
    module.STAGE.name: (module.STAGE, module.run)
    for module in (gather_tokens, tokenize_corpus, train_export, train_init, train_segment, train_tokenizer, unigram)
}
TEXTS = {
    "code": "def add(left, right):\n    return left + right\n",
    "prose": "The river ran slowly past the mill, and nobody could say when the wheel had last turned.\n",
    "tables": "id,name,price\n1,apple,0.30\n2,pear,0.45\n",
}
SPEC = Train(
    architecture=Mixtral(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=4,
        num_experts_per_tok=2,
        max_position_embeddings=64,
        tie_word_embeddings=True,
    ),
    vocab_size=300,
    steps=20,
    segment_steps=10,
    batch_size=3,
    sequence_length=16,
    learning_rate=3e-3,
    mixture={"code": 2, "prose": 2, "tables": 1},
    dtype="bfloat16",
    shard_bytes=40_000,
)


@pytest.fixture
def store(tmp_path: Path) -> LocalCas:
    return LocalCas(tmp_path / "store")


def corpus(store: Cas, folder: Path, texts: Mapping[str, str] = TEXTS) -> Digest:
    folder.mkdir()
    for domain, text in texts.items():
        (folder / f"{domain}.txt").write_text("\f\n".join(f"{number} {text}" * 3 for number in range(40)))
    return tree.import_folder(store, folder)


def context(store: LocalCas, place: Path, memo: dict[str, Any] | None = None) -> LeafContext:
    (place / "scratch").mkdir(parents=True)
    return LeafContext(store, place / "scratch", place / "keep", memo if memo is not None else {})


def run_graph(store: LocalCas, graph: Graph, place: Path, *, shared_worker: bool = True) -> dict[str, Digest]:
    """Run the nodes of a graph whose order is a chain already: what the runner does, without ledger and processes."""
    pin(1)  # as a worker does: torch refuses whatever may differ between two runs
    done: dict[str, Mapping[str, Digest]] = {}
    memo: dict[str, Any] = {}

    def resolve(source: Digest | Ref) -> Digest:
        return done[source.node][source.output] if isinstance(source, Ref) else source

    for node in graph.nodes:
        leaf, run = LEAVES[node.stage]
        spec = spec_from_json(leaf.spec, spec_to_json(node.spec))
        inputs = {name: resolve(source) for name, source in node.inputs.items()}
        outcome = run(spec, inputs, context(store, place / node.id, memo if shared_worker else None))
        done[node.id] = outcome.outputs
    return {name: resolve(source) for name, source in graph.outputs.items()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[LocalCas, Digest, dict[str, Digest]]:
    """A whole training in segments of 10 steps with one worker."""
    folder = tmp_path_factory.mktemp("trained")
    store = LocalCas(folder / "store")
    digest = corpus(store, folder / "corpus")
    return store, digest, run_graph(store, train.expand(SPEC, {"corpus": digest}, store), folder / "work")


# --- the chain -----------------------------------------------------------------------------------------------------------------


def test_segments_cover_all_steps(store: LocalCas, tmp_path: Path) -> None:
    """25 steps in segments of 10 are three actions, the last of which ends at step 25."""
    graph = train.expand(replace(SPEC, steps=25), {"corpus": corpus(store, tmp_path / "corpus")}, store)
    segments = [node for node in graph.nodes if node.stage == "train-segment"]
    assert [node.spec.until for node in segments] == [10, 20, 25]
    assert segments[1].inputs["state"] == Ref(segments[0].id, "state")
    assert isinstance(train.STAGE, Composite)


def test_export_settings_leave_the_segments_alone(store: LocalCas, tmp_path: Path) -> None:
    """Another dtype or shard size is another export only: no step is taken again."""
    digest = corpus(store, tmp_path / "corpus")
    first, second = (train.expand(spec, {"corpus": digest}, store).nodes for spec in (SPEC, replace(SPEC, dtype="float32", shard_bytes=1)))
    assert [node for node, other in zip(first, second, strict=True) if node != other] == [first[-1]]


def test_mixture_of_an_absent_domain_is_refused_before_any_work(store: LocalCas, tmp_path: Path) -> None:
    """A typo in the mixture is found when the graph is made, and the domains that there are are listed."""
    digest = corpus(store, tmp_path / "corpus")
    with pytest.raises(SpecError, match="no poetry in the corpus; it holds code, prose, tables"):
        train.expand(replace(SPEC, mixture={"poetry": 1}), {"corpus": digest}, store)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"segment_steps": 0}, "segment_steps is 0"),
        ({"warmup_ratio": 2.0}, "warmup_ratio is 2.0"),
        ({"mixture": {"code": 0}}, "weight of code is 0"),
        ({"mixture": {"code": 20_000}}, "sum to 20000"),
        ({"sequence_length": 128}, "sequence_length 128 is more than max_position_embeddings 64"),
        ({"max_gradient_norm": -1.0}, "max_gradient_norm is -1.0"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, Any], message: str) -> None:
    """A setting that cannot work is an error with the arithmetic, before anything is read."""
    with pytest.raises(SpecError, match=message):
        replace(SPEC, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_experts_per_tok": 5}, "5 experts per token of 4"),
        ({"num_attention_heads": 3}, "hidden_size 32 is not a multiple of num_attention_heads 3"),
        ({"num_key_value_heads": 3, "num_attention_heads": 4}, "num_attention_heads 4 is not a multiple of num_key_value_heads 3"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
    ],
)
def test_impossible_architectures_are_refused(change: dict[str, Any], message: str) -> None:
    """Sizes that no model can have are an error with the arithmetic."""
    with pytest.raises(SpecError, match=message):
        replace(SPEC.architecture, **change)


# --- the same bytes ------------------------------------------------------------------------------------------------------------


def test_one_segment_equals_two(trained: tuple[LocalCas, Digest, dict[str, Digest]], tmp_path: Path) -> None:
    """20 steps in one action give the state and the model of two actions of 10 steps: boundaries leave no trace."""
    store, digest, outputs = trained
    whole = run_graph(store, train.expand(replace(SPEC, segment_steps=20), {"corpus": digest}, store), tmp_path)
    assert whole == outputs


def test_reload_equals_memory(trained: tuple[LocalCas, Digest, dict[str, Digest]], tmp_path: Path) -> None:
    """A worker per action, which reads every state back, gives the bytes of one worker that kept the model in memory."""
    store, digest, outputs = trained
    graph = train.expand(replace(SPEC, segment_steps=7), {"corpus": digest}, store)
    assert run_graph(store, graph, tmp_path, shared_worker=False) == outputs


def test_new_process_gives_the_same_bytes(trained: tuple[LocalCas, Digest, dict[str, Digest]], tmp_path: Path) -> None:
    """A training that goes on in a new process, with other hash seeds, ends in the same model."""
    _, _, outputs = trained
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_train import SPEC, LocalCas, corpus, run_graph, train
store = LocalCas(Path({str(tmp_path / "store")!r}))
folder = Path({str(tmp_path)!r})
print(run_graph(store, train.expand(SPEC, {{"corpus": corpus(store, folder / "corpus")}}, store), folder)["model"])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.stdout.strip() == str(outputs["model"]), done.stderr


def test_failed_segment_is_taken_again_from_its_state(
    trained: tuple[LocalCas, Digest, dict[str, Digest]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that fails leaves no half-moved model behind: the next try starts from the stored state and gives the usual bytes."""
    store, digest, outputs = trained
    graph = train.expand(SPEC, {"corpus": digest}, store)
    done: dict[str, Mapping[str, Digest]] = {}
    memo: dict[str, Any] = {}
    for number, node in enumerate(node for node in graph.nodes if node.stage != "train-export"):
        inputs = {name: done[source.node][source.output] if isinstance(source, Ref) else source for name, source in node.inputs.items()}
        _, run = LEAVES[node.stage]
        if node.id == "steps-0000020":
            with monkeypatch.context() as patch:
                patch.setattr(train_segment, "learning_rate", lambda spec, step: float("nan") if step == 15 else 1e-3)
                with pytest.raises(StageError, match="the loss of step 17 is nan"):
                    run(node.spec, inputs, context(store, tmp_path / "failed", memo))
        done[node.id] = run(node.spec, inputs, context(store, tmp_path / str(number), memo)).outputs
    assert done["steps-0000020"]["state"] == outputs["state"]


def test_seed_changes_the_bytes(trained: tuple[LocalCas, Digest, dict[str, Digest]], tmp_path: Path) -> None:
    """The seed is in the spec because it matters."""
    store, digest, outputs = trained
    other = run_graph(store, train.expand(replace(SPEC, seed=1), {"corpus": digest}, store), tmp_path)
    assert other["model"] != outputs["model"]
    assert other["tokenizer"] == outputs["tokenizer"]


# --- the result ----------------------------------------------------------------------------------------------------------------


def test_model_folder_loads_and_has_learned(trained: tuple[LocalCas, Digest, dict[str, Digest]], tmp_path: Path) -> None:
    """The folder loads in transformers, shards and tokenizer; the loss is below that of a guess among all tokens."""
    import math

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    store, _, outputs = trained
    tree.export(store, outputs["model"], tmp_path / "model")
    assert len(list((tmp_path / "model").glob("model-*.safetensors"))) > 1
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype="auto")
    assert model.dtype is torch.bfloat16
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert tokenizer.bos_token_id is None
    assert tokenizer.eos_token_id == model.config.eos_token_id == model.generation_config.eos_token_id == 0
    ids = tokenizer(TEXTS["code"], return_tensors="pt").input_ids
    assert tokenizer.decode(ids[0]) == TEXTS["code"]
    with torch.no_grad():
        assert model.float()(ids, labels=ids).loss.item() < math.log(len(tokenizer)) - 0.5


def test_exported_weights_are_the_state_rounded(trained: tuple[LocalCas, Digest, dict[str, Digest]], tmp_path: Path) -> None:
    """Each weight of the bfloat16 model is the float32 weight of the last state, rounded to nearest."""
    import torch
    from transformers import AutoModelForCausalLM

    from stages.train_state import read_head, read_tensors

    store, _, outputs = trained
    path = store.path(outputs["state"])
    assert read_head(path).step == SPEC.steps
    tree.export(store, outputs["model"], tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype="auto")
    params = dict(model.named_parameters())
    for name, value in read_tensors(path, "param"):
        assert torch.equal(params.pop(name).detach(), value.to(torch.bfloat16)), name
    assert not params


def test_step_equals_plain_adamw(trained: tuple[LocalCas, Digest, dict[str, Digest]], tmp_path: Path) -> None:
    """One step agrees with the slow plain version: gradient of the mean loss, clip, decay, moments, bias correction, in float64."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from stages.train_data import Order, load_tokens
    from stages.train_state import read_head, read_tensors

    store, digest, outputs = trained
    spec = replace(SPEC, gradient_accumulation=2, router_aux_loss_coef=0.0, segment_steps=1, weight_decay=0.1)
    graph = train.expand(spec, {"corpus": digest}, store)
    short = Graph(
        graph.nodes[: next(n for n, node in enumerate(graph.nodes) if node.id == "steps-0000002")],
        {"after": Ref("steps-0000001", "state"), "before": Ref("init", "state")},
    )
    states = run_graph(store, short, tmp_path / "run")
    before, after = (dict(read_tensors(store.path(states[name]), "param")) for name in ("before", "after"))
    config = AutoConfig.for_model(**read_head(store.path(states["before"])).config)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float64, attn_implementation="eager", experts_implementation="eager")
    params = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in before.items():
            params[name].copy_(value)
    tree.export(store, outputs["training-tokens"], tmp_path / "tokens")
    names = [entry.path for entry in tree.load(store, outputs["training-tokens"]).entries]
    ids = torch.from_numpy(Order(load_tokens(tmp_path / "tokens", names), spec.mixture, length=16, seed=0).batch(0, 6))
    model(input_ids=ids, labels=ids).loss.backward()
    norm = torch.sqrt(sum((value.grad**2).sum() for value in params.values() if value.grad is not None))
    rate = train_segment.learning_rate(spec, 0)
    for name, value in params.items():
        assert value.grad is not None
        gradient = value.grad * min(1.0, spec.max_gradient_norm / (norm.item() + 1e-6))
        decay = spec.weight_decay if value.ndim > 1 else 0.0
        expected = value.detach() * (1 - rate * decay) - rate * gradient / (gradient.abs() + spec.adam_epsilon)
        settled = gradient.abs() > 1e-5  # below, the sign of a rounded gradient decides
        assert torch.allclose(after[name].double()[settled], expected[settled], atol=1e-6), name


# --- parts ---------------------------------------------------------------------------------------------------------------------


def test_schedule_warms_up_and_falls_to_the_floor() -> None:
    """The rate rises over the warm-up, is highest at its end, and ends at the floor; constant ones stay."""
    spec = Training(steps=100, learning_rate=1.0, warmup_ratio=0.1, floor_ratio=0.1)
    for scheduler in ("cosine", "linear", "polynomial"):
        rates = [train_segment.learning_rate(replace(spec, scheduler=scheduler), step) for step in range(100)]
        assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
        assert rates[9:] == sorted(rates[9:], reverse=True)
        assert rates[99] == pytest.approx(0.1)
    assert train_segment.learning_rate(replace(spec, scheduler="constant"), 0) == 1.0
    assert train_segment.learning_rate(replace(spec, scheduler="constant_with_warmup"), 99) == 1.0


def test_epoch_sees_every_block_once() -> None:
    """In one epoch of a domain every block of its tokens is seen exactly once, and the next epoch has another order."""
    import numpy as np

    from stages.train_data import Order

    order = Order({"a": np.arange(100, dtype=np.uint16), "b": np.arange(100, 200, dtype=np.uint16)}, {"a": 1, "b": 1}, length=10, seed=3)
    rows = [order.row(number) for number in range(40)]
    for epoch in (rows[:20], rows[20:]):
        assert sorted(np.concatenate(epoch).tolist()) == list(range(200))
    assert [row[0] for row in rows[:20]] != [row[0] for row in rows[20:]]


def test_mixture_weights_are_exact() -> None:
    """In each period of the mixture every domain has exactly its weight, whatever row one starts at."""
    import numpy as np

    from stages.train_data import Order

    tokens = {name: np.full(50, number, dtype=np.uint16) for number, name in enumerate(("a", "b", "c"))}
    order = Order(tokens, {"a": 3, "b": 1, "c": 2}, length=5, seed=0)
    seen = [int(order.row(number)[0]) for number in range(7, 67)]
    assert [seen.count(number) for number in range(3)] == [30, 10, 20]


def test_data_order_is_pinned() -> None:
    """The order is integers alone: these values may change only together with the version of train-segment."""
    import numpy as np

    from stages.train_data import Order, mix

    assert mix(0) == 0xE220A8397B1DCDAF  # the first output of splitmix64 from 0
    assert mix(1, 2, 3) == 7702586659592502839
    order = Order({"a": np.arange(1000, dtype=np.uint16)}, {}, length=9, seed=7)
    assert [int(order.row(number)[0]) for number in (0, 1, 110, 111, 500)] == [441, 513, 342, 802, 171]


def test_short_domain_is_named() -> None:
    """A domain that is shorter than one sequence is an error that names it."""
    import numpy as np

    from stages.train_data import Order

    with pytest.raises(InputError, match="domain a has 3 tokens, fewer than one sequence of 10"):
        Order({"a": np.arange(3, dtype=np.uint16)}, {}, length=10, seed=0)


def test_unigram_equals_its_formula() -> None:
    """The baseline is exp of the mean of -log((count + 1) / (total + vocabulary))."""
    import math

    import numpy as np

    train_ids, heldout, vocab = np.array([0, 0, 1, 3]), np.array([0, 2, 2, 3]), 5
    mean = -sum(math.log((list(train_ids).count(token) + 1) / (4 + vocab)) for token in heldout) / 4
    assert unigram.unigram_perplexity(train_ids, heldout, vocab_size=vocab) == pytest.approx(math.exp(mean), rel=1e-12)


def test_unigram_scores_what_the_perplexity_stage_scores() -> None:
    """The second half of each whole chunk counts, as in llama-perplexity: of 8 tokens those after position 4."""
    import numpy as np

    assert unigram.scored(np.arange(20), 8).tolist() == [5, 6, 7, 13, 14, 15]
    assert unigram.scored(np.arange(20), 0).tolist() == list(range(20))
    with pytest.raises(SpecError, match="n_ctx is 3"):
        unigram.Unigram(n_ctx=3)


def test_unigram_stage_counts_one_domain_or_all(trained: tuple[LocalCas, Digest, dict[str, Digest]], tmp_path: Path) -> None:
    """Frequencies of the text's own domain predict it better than those of the whole corpus."""
    store, _, outputs = trained
    inputs = {"training-tokens": outputs["training-tokens"], "tokenizer": outputs["tokenizer"], "text": store.put(TEXTS["prose"].encode())}
    import json

    values = {}
    for domain in ("", "prose"):
        outcome = unigram.run(unigram.Unigram(domain=domain, n_ctx=0), inputs, context(store, tmp_path / f"u{domain}"))
        values[domain] = float(json.loads(store.read(outcome.outputs["metrics-unigram"]))["metrics"]["perplexity"])
    assert values["prose"] < values[""]
    with pytest.raises(SpecError, match="they are of code, prose, tables"):
        unigram.run(unigram.Unigram(domain="poetry", n_ctx=0), inputs, context(store, tmp_path / "absent"))


@pytest.mark.parametrize(
    "shape",
    [
        Llama(
            model_type="llama",
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=64,
        ),
        GptNeox(
            model_type="gpt_neox",
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=64,
        ),
    ],
)
def test_dense_models_are_trained_too(tmp_path: Path, shape: Llama | GptNeox) -> None:
    """The exported model is of the family that the recipe names."""
    from transformers import AutoConfig

    store = LocalCas(tmp_path / "store")
    spec = replace(SPEC, architecture=shape)
    outputs = run_graph(store, train.expand(spec, {"corpus": corpus(store, tmp_path / "corpus")}, store), tmp_path / "work")
    tree.export(store, outputs["model"], tmp_path / "model")
    assert AutoConfig.from_pretrained(tmp_path / "model").model_type == shape.model_type


def test_a_recipe_names_one_of_the_families() -> None:
    """Any other is refused, with those that there are."""
    values = spec_to_json(SPEC)
    values["architecture"] = {"model_type": "mamba"}
    with pytest.raises(SpecError, match="mixtral, llama, gpt_neox"):
        spec_from_json(Train, values)

"""Train a model from scratch: tokenizer, token ids, first state, a chain of segments of N steps, and the model folder at the end.

Every segment is an action from state to state, so a crash costs at most one segment. The final bytes do not depend on how many segments
there were: a state holds all that the next step needs, and which text a step sees is a function of (seed, step) alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal

from stages.corpus import corpus_files
from stages.errors import SpecError
from stages.gather_tokens import GatherTokens
from stages.stage import Composite, Graph, Input, Node, Ref
from stages.tokenize_corpus import TokenizeCorpus
from stages.train_tokenizer import TrainTokenizer
from store.cas import Cas
from store.digest import Digest

Dtype = Literal["float32", "bfloat16", "float16"]
MAX_MIXTURE = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixtral:
    """The shape of a Mixtral model (routed experts), by the field names of its config.json. Everything else is as transformers has it."""

    model_type: Literal["mixtral"] = "mixtral"
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    num_local_experts: int
    num_experts_per_tok: int
    max_position_embeddings: int = 2048
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-05
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False

    def __post_init__(self) -> None:
        _check_shape(self)
        _check_groups(self.num_attention_heads, self.num_key_value_heads)
        if self.num_experts_per_tok > self.num_local_experts:
            raise SpecError(f"architecture: {self.num_experts_per_tok} experts per token of {self.num_local_experts}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Llama:
    """The shape of a Llama model (dense, gated), likewise."""

    model_type: Literal["llama"]
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    max_position_embeddings: int = 2048
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-05
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False

    def __post_init__(self) -> None:
        _check_shape(self)
        _check_groups(self.num_attention_heads, self.num_key_value_heads)


@dataclass(frozen=True, slots=True, kw_only=True)
class GptNeox:
    """The shape of a GPT-NeoX model (dense, attention beside the MLP, layer norm with bias), likewise."""

    model_type: Literal["gpt_neox"]
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int = 2048
    rope_theta: float = 10000.0
    layer_norm_eps: float = 1e-05
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False

    def __post_init__(self) -> None:
        _check_shape(self)


Architecture = Mixtral | Llama | GptNeox


def _check_shape(shape: Architecture) -> None:
    for name in (item.name for item in fields(shape) if item.name.startswith(("hidden", "intermediate", "num_", "max_"))):
        if getattr(shape, name) < 1:
            raise SpecError(f"architecture: {name} is {getattr(shape, name)}; it must be at least 1")
    if shape.hidden_size % shape.num_attention_heads:
        raise SpecError(
            f"architecture: hidden_size {shape.hidden_size} is not a multiple of num_attention_heads {shape.num_attention_heads}"
        )


def _check_groups(heads: int, key_value_heads: int) -> None:
    if heads % key_value_heads:
        raise SpecError(f"architecture: num_attention_heads {heads} is not a multiple of num_key_value_heads {key_value_heads}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How the weights move. Every field changes the bytes."""

    steps: int
    """Optimiser steps of the whole run; the learning rate follows it."""
    learning_rate: float
    """The highest."""
    batch_size: int = 4
    """Sequences of one forward pass."""
    gradient_accumulation: int = 1
    """Forward passes of one step."""
    sequence_length: int = 2048
    """Tokens."""
    scheduler: Literal["cosine", "linear", "constant", "constant_with_warmup", "polynomial"] = "cosine"
    warmup_ratio: float = 0.03
    """Part of `steps` over which the rate rises from 0; `constant` has no warm-up."""
    floor_ratio: float = 0.1
    """The rate at the end, as a part of the highest."""
    weight_decay: float = 0.01
    """Of matrices; norms are not decayed."""
    max_gradient_norm: float = 1.0
    """Gradients are scaled down to this norm; 0 leaves them."""
    adam_beta1: float = 0.9
    adam_beta2: float = 0.95
    adam_epsilon: float = 1e-08
    router_aux_loss_coef: float = 0.01
    """Weight of the load-balancing loss; 0 leaves it out."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the forward pass. Weights and moments are float32 always."""
    mixture: Mapping[str, int] = field(default_factory=dict)
    """Domain -> weight: of every (sum of the weights) sequences so many are of that domain. Empty: every domain alike."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "gradient_accumulation"):
            if getattr(self, name) < 1:
                raise SpecError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.sequence_length < 2:
            raise SpecError(f"sequence_length is {self.sequence_length}; a token is predicted from one before it, so it must be at least 2")
        if not self.learning_rate > 0:
            raise SpecError(f"learning_rate is {self.learning_rate}; it must be more than 0")
        for name in ("warmup_ratio", "floor_ratio"):
            if not 0 <= getattr(self, name) <= 1:
                raise SpecError(f"{name} is {getattr(self, name)}; it is a part, so it must be between 0 and 1")
        for name in ("weight_decay", "max_gradient_norm", "router_aux_loss_coef", "seed"):
            if getattr(self, name) < 0:
                raise SpecError(f"{name} is {getattr(self, name)}; it must not be negative")
        for domain, weight in self.mixture.items():
            if type(weight) is not int or weight < 1:
                raise SpecError(f"mixture: the weight of {domain} is {weight!r}; it must be a whole number of at least 1")
        if sum(self.mixture.values()) > MAX_MIXTURE:
            raise SpecError(f"mixture: the weights sum to {sum(self.mixture.values())}; at most {MAX_MIXTURE}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Train(Training):
    """A whole training. `segment_steps` alone does not change the model's bytes: it says how much a crash may cost."""

    architecture: Architecture
    vocab_size: int = 2048
    segment_steps: int = 200
    dtype: Dtype = "bfloat16"
    """Of the exported weights."""
    shard_bytes: int = 5_000_000_000
    """Of one safetensors file of the exported model, at most (a single larger tensor has a file of its own)."""

    def __post_init__(self) -> None:
        Training.__post_init__(self)
        if self.segment_steps < 1:
            raise SpecError(f"segment_steps is {self.segment_steps}; it must be at least 1")
        if self.sequence_length > self.architecture.max_position_embeddings:
            raise SpecError(
                f"sequence_length {self.sequence_length} is more than max_position_embeddings {self.architecture.max_position_embeddings}"
            )


def expand(spec: Train, inputs: Mapping[str, Input], store: Cas) -> Graph:
    """The chain of actions.

    Raises:
        SpecError: the mixture names a domain that the corpus does not hold.
        InputError: the corpus holds no text file.
    """
    from stages.train_export import TrainExport
    from stages.train_init import TrainInit
    from stages.train_segment import TrainSegment

    corpus = inputs["corpus"]
    assert isinstance(corpus, Digest)  # it is among STAGE.reads
    files = corpus_files(store, corpus)
    held = {file.domain for file in files}
    if set(spec.mixture) - held and all(file.form == "text" for file in files):
        raise SpecError(f"mixture: no {', '.join(sorted(set(spec.mixture) - held))} in the corpus; it holds {', '.join(sorted(held))}")
    tokenizer, tokens = Ref("tokenizer", "tokenizer"), Ref("tokens", "tokens")
    nodes = [
        Node("tokenizer", "train-tokenizer", TrainTokenizer(
            vocab_size=spec.vocab_size, model_max_length=spec.architecture.max_position_embeddings
        ), {"corpus": corpus}),
        Node("init", "train-init", TrainInit(architecture=spec.architecture, seed=spec.seed), {"tokenizer": tokenizer}),
    ]  # fmt: skip
    for number, file in enumerate(files):
        text_inputs: dict[str, Input] = {"text": file.digest, "tokenizer": tokenizer}
        nodes.append(
            Node(f"text-{number:05d}", "tokenize-corpus", TokenizeCorpus(form=file.form, domain=file.domain), text_inputs, file.name)
        )
    parts: dict[str, Input] = {f"tokens-{number:05d}": Ref(f"text-{number:05d}", "tokens") for number in range(len(files))}
    nodes.append(Node("tokens", "gather-tokens", GatherTokens(), parts))
    settings = {item.name: getattr(spec, item.name) for item in fields(Training)}
    state = Ref("init", "state")
    for start in range(0, spec.steps, spec.segment_steps):
        until = min(start + spec.segment_steps, spec.steps)
        segment = f"steps-{until:07d}"
        segment_spec = TrainSegment(until=until, **settings)
        nodes.append(Node(segment, "train-segment", segment_spec, {"state": state, "tokens": tokens}, f"steps {start + 1} to {until}"))
        state = Ref(segment, "state")
    export = TrainExport(dtype=spec.dtype, shard_bytes=spec.shard_bytes)
    nodes.append(Node("export", "train-export", export, {"state": state, "tokenizer": tokenizer}))
    return Graph(tuple(nodes), {"model": Ref("export", "model"), "tokenizer": tokenizer, "training-tokens": tokens, "state": state})


STAGE = Composite(
    name="train",
    spec=Train,
    inputs=("corpus",),
    outputs=("model", "tokenizer", "training-tokens", "state"),
    reads=("corpus",),
    expand=expand,
    keys={"dataset": "corpus"},
    described=("domain", "notes", "optimizations"),
)

"""Perplexity on a text file, by llama-perplexity's definition (docs/perplexity.md)."""

from __future__ import annotations

from stages.benchmarks.benchmark import Benchmark, Subject
from stages.perplexity import Perplexity
from stages.stage import Graph, Node, Ref
from stages.tokenize_text import Tokenize


def graph(spec: Perplexity, subject: Subject) -> Graph:
    """Tokenise, evaluate block by block, merge."""
    tokens = Node("tokenize", "tokenize", Tokenize(), {"tokenizer": subject.tokenizer, "text": subject.dataset})
    inputs = {"gguf": subject.gguf, "tokens": Ref("tokenize", "tokens"), "dataset": subject.dataset}
    return Graph(
        (tokens, Node("perplexity", "perplexity", spec, inputs)),
        {"metrics": Ref("perplexity", "metrics"), "nll": Ref("perplexity", "nll")},
    )


BENCHMARK = Benchmark(name="perplexity", spec=Perplexity, graph=graph)

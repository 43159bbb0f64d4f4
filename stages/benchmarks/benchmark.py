"""What a benchmark is, for plug-ins of the group `alloy_ledger.benchmarks`.

    @dataclass(frozen=True, slots=True, kw_only=True)
    class MyBenchmark:
        shots: int = 0

    def graph(spec: MyBenchmark, subject: Subject) -> Graph:
        node = Node("score", "my-score", spec, {"gguf": subject.gguf, "dataset": subject.dataset})
        return Graph((node,), {"metrics": Ref("score", "metrics")})

    BENCHMARK = Benchmark(name="my-benchmark", spec=MyBenchmark, graph=graph)

That measures GGUF files. One that measures a model as it is (a folder that transformers loads) says so, and gets a `ModelSubject`:

    BENCHMARK = Benchmark(name="my-questions", spec=MyQuestions, graph=graph, measures="model")

A recipe then says `benchmarks: [{name: my-benchmark, dataset: questions.jsonl, shots: 5}]`: the keys beside `name` and `dataset`
are the fields of the spec in camelCase. The dataset is a digest by the time `graph` sees it. The stages that it names are registered like
all others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from stages.stage import Graph, Input


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured, on what.

    Attributes:
        gguf: the model as a GGUF file.
        tokenizer: tree of its tokenizer files; the same for all models that share them.
        dataset: the blob that the recipe names.
    """

    gguf: Input
    tokenizer: Input
    dataset: Input


@dataclass(frozen=True, slots=True)
class ModelSubject:
    """What is measured, on what.

    Attributes:
        model: tree of the model.
        dataset: the blob that the recipe names.
    """

    model: Input
    dataset: Input


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """A benchmark.

    Attributes:
        name: kebab-case, recorded in results.
        spec: frozen dataclass of its settings.
        graph: `graph(spec, subject)` gives its nodes. The output `metrics` is required; `nll` (docs/formats/nll.md) or `records`
            (docs/benchmarks.md) makes paired comparison possible.
        measures: what its subject is: `gguf` a Subject, `model` a ModelSubject.
    """

    name: str
    spec: type[Any]
    graph: Callable[[Any, Any], Graph]
    measures: Literal["gguf", "model"] = "gguf"

"""A benchmark: how many bytes a model and its dataset have together."""

from __future__ import annotations

from dataclasses import dataclass

from acme_ledger.count import Count
from stages.benchmarks.benchmark import Benchmark, Subject
from stages.stage import Graph, Node, Ref


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """How to count."""

    repeat_dataset: int = 1
    """How often the dataset counts."""


def graph(spec: Length, subject: Subject) -> Graph:
    """One count."""
    parts = {"part-model": subject.gguf} | {f"part-{number}": subject.dataset for number in range(spec.repeat_dataset)}
    return Graph((Node("count", "acme-count", Count(), parts),), {"metrics": Ref("count", "total")})


BENCHMARK = Benchmark(name="acme-length", spec=Length, graph=graph)

"""HumanEval (arXiv:2107.03374), in the published form of its file; pass@1, greedy."""

from __future__ import annotations

from dataclasses import dataclass

from stages.benchmarks import code_execution
from stages.benchmarks.benchmark import Benchmark, ModelSubject
from stages.benchmarks.code_execution import CodeExecution
from stages.stage import Graph


@dataclass(frozen=True, slots=True, kw_only=True)
class HumanEval(CodeExecution):
    """`code-execution` as it is."""


def graph(spec: HumanEval, subject: ModelSubject) -> Graph:
    """As CodeExecution, under this name."""
    return code_execution.named("humaneval", spec, subject)


BENCHMARK = Benchmark(name="humaneval", spec=HumanEval, graph=graph, measures="model")

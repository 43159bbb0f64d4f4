"""ARC (arXiv:1803.05457), in the published form of its files, asked as lm-evaluation-harness asks it: no examples before."""

from __future__ import annotations

from dataclasses import dataclass

from stages.benchmarks import multiple_choice
from stages.benchmarks.benchmark import Benchmark, ModelSubject
from stages.benchmarks.multiple_choice import MultipleChoice
from stages.stage import Graph


@dataclass(frozen=True, slots=True, kw_only=True)
class Arc(MultipleChoice):
    """`multiple-choice` with ARC's prompt."""

    template: str = "Question: {question}\nAnswer:"


def graph(spec: Arc, subject: ModelSubject) -> Graph:
    """As MultipleChoice, under this name."""
    return multiple_choice.named("arc", spec, subject)


BENCHMARK = Benchmark(name="arc", spec=Arc, graph=graph, measures="model")

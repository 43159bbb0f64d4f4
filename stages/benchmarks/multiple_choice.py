"""Choose among given texts by log-likelihood."""

from __future__ import annotations

from dataclasses import dataclass

from stages.benchmarks.benchmark import Benchmark, ModelSubject
from stages.hf_model import LoadIn
from stages.question_benchmark import QuestionBenchmark
from stages.question_kinds import Asking
from stages.stage import Graph, Node, Ref


@dataclass(frozen=True, slots=True, kw_only=True)
class MultipleChoice:
    """How to evaluate; see docs/benchmarks.md."""

    template: str = "{question}"
    preamble: str = ""
    delimiter: str = " "
    questions: int | None = None
    block_questions: int = 32
    load_in: LoadIn = "auto"


def graph(spec: MultipleChoice, subject: ModelSubject) -> Graph:
    """One composite does it all."""
    return named("multiple-choice", spec, subject)


def named(benchmark: str, spec: MultipleChoice, subject: ModelSubject) -> Graph:
    """The same under the name of a known data set."""
    whole = QuestionBenchmark(
        benchmark=benchmark,
        asking=Asking(kind="multiple-choice", template=spec.template, preamble=spec.preamble, delimiter=spec.delimiter),
        load_in=spec.load_in,
        questions=spec.questions,
        block_questions=spec.block_questions,
    )
    node = Node("questions", "question-benchmark", whole, {"model": subject.model, "dataset": subject.dataset})
    return Graph((node,), {"metrics": Ref("questions", "metrics"), "records": Ref("questions", "records")})


BENCHMARK = Benchmark(name="multiple-choice", spec=MultipleChoice, graph=graph, measures="model")

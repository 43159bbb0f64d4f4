"""Questions whose answer is a number at the end of a generated text."""

from __future__ import annotations

from dataclasses import dataclass

from stages.benchmarks.benchmark import Benchmark, ModelSubject
from stages.hf_model import LoadIn
from stages.question_benchmark import QuestionBenchmark
from stages.question_kinds import Asking
from stages.stage import Graph, Node, Ref


@dataclass(frozen=True, slots=True, kw_only=True)
class NumericAnswer:
    """How to evaluate; see docs/benchmarks.md."""

    template: str = "{question}"
    preamble: str = ""
    stop: tuple[str, ...] = ("Question:",)
    max_bytes: int = 1024
    questions: int | None = None
    block_questions: int = 32
    load_in: LoadIn = "auto"


def graph(spec: NumericAnswer, subject: ModelSubject) -> Graph:
    """One composite does it all."""
    return named("numeric-answer", spec, subject)


def named(benchmark: str, spec: NumericAnswer, subject: ModelSubject) -> Graph:
    """The same under the name of a known data set."""
    whole = QuestionBenchmark(
        benchmark=benchmark,
        asking=Asking(kind="numeric-answer", template=spec.template, preamble=spec.preamble),
        max_bytes=spec.max_bytes,
        stop=spec.stop,
        load_in=spec.load_in,
        questions=spec.questions,
        block_questions=spec.block_questions,
    )
    node = Node("questions", "question-benchmark", whole, {"model": subject.model, "dataset": subject.dataset})
    return Graph((node,), {"metrics": Ref("questions", "metrics"), "records": Ref("questions", "records")})


BENCHMARK = Benchmark(name="numeric-answer", spec=NumericAnswer, graph=graph, measures="model")

"""Complete a function; it counts when it passes its tests, in a sandbox."""

from __future__ import annotations

from dataclasses import dataclass

from stages.benchmarks.benchmark import Benchmark, ModelSubject
from stages.hf_model import LoadIn
from stages.question_benchmark import QuestionBenchmark
from stages.question_kinds import Asking
from stages.sandbox import Limits
from stages.stage import Graph, Node, Ref


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeExecution:
    """How to evaluate; see docs/benchmarks.md."""

    preamble: str = ""
    stop: tuple[str, ...] = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
    max_bytes: int = 2048
    cpu_s: int = 5
    wall_s: int = 60
    memory_mib: int = 512
    questions: int | None = None
    block_questions: int = 32
    load_in: LoadIn = "auto"


def graph(spec: CodeExecution, subject: ModelSubject) -> Graph:
    """One composite does it all."""
    return named("code-execution", spec, subject)


def named(benchmark: str, spec: CodeExecution, subject: ModelSubject) -> Graph:
    """The same under the name of a known data set."""
    whole = QuestionBenchmark(
        benchmark=benchmark,
        asking=Asking(kind="code-execution", preamble=spec.preamble),
        max_bytes=spec.max_bytes,
        stop=spec.stop,
        load_in=spec.load_in,
        questions=spec.questions,
        block_questions=spec.block_questions,
        limits=Limits(cpu_s=spec.cpu_s, wall_s=spec.wall_s, memory_mib=spec.memory_mib),
    )
    node = Node("questions", "question-benchmark", whole, {"model": subject.model, "dataset": subject.dataset})
    return Graph((node,), {"metrics": Ref("questions", "metrics"), "records": Ref("questions", "records")})


BENCHMARK = Benchmark(name="code-execution", spec=CodeExecution, graph=graph, measures="model")

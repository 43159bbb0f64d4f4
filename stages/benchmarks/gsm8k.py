"""GSM8K (arXiv:2110.14168), in the published form of its files, asked as lm-evaluation-harness asks it.

Its five worked examples are yours to put into `preamble`.

"""

from __future__ import annotations

from dataclasses import dataclass

from stages.benchmarks import numeric_answer
from stages.benchmarks.benchmark import Benchmark, ModelSubject
from stages.benchmarks.numeric_answer import NumericAnswer
from stages.stage import Graph


@dataclass(frozen=True, slots=True, kw_only=True)
class Gsm8k(NumericAnswer):
    """`numeric-answer` with GSM8K's prompt and stops."""

    template: str = "Question: {question}\nAnswer:"
    stop: tuple[str, ...] = ("Question:", "</s>", "<|im_end|>")


def graph(spec: Gsm8k, subject: ModelSubject) -> Graph:
    """As NumericAnswer, under this name."""
    return numeric_answer.named("gsm8k", spec, subject)


BENCHMARK = Benchmark(name="gsm8k", spec=Gsm8k, graph=graph, measures="model")

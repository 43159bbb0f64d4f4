"""Accuracy of a model on a data set: cut, an action per block to answer (and one to judge code), merge. See docs/benchmarks.md.

Blocks are cut from the beginning and are always whole where the data set allows, so a quick evaluation (`questions=50`) is a prefix of the
full one, and equal blocks are found whatever run answered them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from stages import question_blocks
from stages.code_judge import CodeJudge
from stages.errors import SpecError
from stages.hf_model import LoadIn
from stages.question_block import QuestionBlock
from stages.question_blocks import QuestionBlocks
from stages.question_kinds import Asking, items
from stages.question_merge import QuestionMerge
from stages.sandbox import Limits
from stages.stage import Composite, Graph, Input, Node, Ref
from store.cas import Cas
from store.digest import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionBenchmark:
    """How to evaluate.

    Attributes:
        benchmark: name under which the result is stated.
        max_bytes, stop: of generated text.
        questions: that count, from the beginning; None for all.
        block_questions: questions per action.
    """

    benchmark: str
    asking: Asking
    max_bytes: int = 0
    stop: tuple[str, ...] = ()
    load_in: LoadIn = "auto"
    questions: int | None = None
    block_questions: int = 32
    limits: Limits = field(default_factory=Limits)


def expand(spec: QuestionBenchmark, inputs: Mapping[str, Input], store: Cas) -> Graph:
    """`question-blocks` cuts, `question-block` answers each block, `code-judge` runs code, `question-merge` scores and joins.

    Raises:
        SpecError: settings that make no sense.
        InputError: a line of the data set that is no question, with its number.
    """
    dataset = inputs["dataset"]
    if not isinstance(dataset, Digest):
        raise SpecError("the data set must be there before it is known how many blocks it makes")
    code, generates = spec.asking.kind == "code-execution", spec.asking.kind != "multiple-choice"
    if spec.block_questions < 1 or (spec.questions is not None and spec.questions < 1) or (generates and spec.max_bytes < 1):
        raise SpecError(
            f"{spec.benchmark} needs blockQuestions, questions and maxBytes of at least 1; got {spec.block_questions}, {spec.questions}, "
            f"{spec.max_bytes}"
        )
    found = items(store.read(dataset), spec.asking)
    counted = min(len(found), spec.questions or len(found))
    blocks = -(-counted // spec.block_questions)
    cut = Node("blocks", "question-blocks", QuestionBlocks(asking=spec.asking, block_questions=spec.block_questions), {"dataset": dataset})
    ask = QuestionBlock(max_bytes=spec.max_bytes if generates else 0, stop=spec.stop if generates else (), load_in=spec.load_in)
    nodes = [cut]
    merged: dict[str, Input] = {"model": inputs["model"], "dataset": dataset}
    for number in range(blocks):
        asked: dict[str, Input] = {"model": inputs["model"], "questions": Ref("blocks", question_blocks.name(number))}
        node = Node(f"answers-{number:05d}", "question-block", ask, asked, f"block {number + 1}/{blocks}")
        merged[node.id] = Ref(node.id, "answers")
        nodes.append(node)
        if code:
            judged: dict[str, Input] = {"dataset": dataset, "answers": Ref(node.id, "answers")}
            judge = CodeJudge(asking=spec.asking, limits=spec.limits)
            nodes.append(Node(f"verdicts-{number:05d}", "code-judge", judge, judged, f"programs {number + 1}/{blocks}"))
            merged[f"verdicts-{number:05d}"] = Ref(f"verdicts-{number:05d}", "verdicts")
    merge = QuestionMerge(benchmark=spec.benchmark, asking=spec.asking, questions=counted, block_questions=spec.block_questions)
    nodes.append(Node("merge", "question-merge", merge, merged))
    return Graph(tuple(nodes), {"metrics": Ref("merge", "metrics"), "records": Ref("merge", "records")})


STAGE = Composite(
    name="question-benchmark",
    spec=QuestionBenchmark,
    inputs=("model", "dataset"),
    outputs=("metrics", "records"),
    reads=("dataset",),
    expand=expand,
)

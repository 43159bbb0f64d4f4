"""Cut a data set into blocks of questions without their solutions, so that equal blocks are found whoever needed them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stages import questions
from stages.errors import SpecError
from stages.question_kinds import Asking, Item, items
from stages.stage import Context, Leaf, Outcome
from store.digest import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionBlocks:
    """How questions are put, and how many make a block."""

    asking: Asking
    block_questions: int


STAGE = Leaf(
    name="question-blocks",
    version=1,
    spec=QuestionBlocks,
    inputs=("dataset",),
    outputs=("questions-*",),
    purity="P",
    run="stages.question_blocks:run",
)


def name(number: int) -> str:
    """The output of a block: `questions-00003`."""
    return f"questions-{number:05d}"


def cut(found: Sequence[Item], block_questions: int) -> list[bytes]:
    """Consecutive blocks from the beginning; the last may be shorter.

    Raises:
        SpecError: a block of no questions.
    """
    if block_questions < 1:
        raise SpecError(f"block_questions is {block_questions}; a block holds at least 1 question")
    asked = [item.question for item in found]
    return [questions.block(asked[start : start + block_questions]) for start in range(0, len(asked), block_questions)]


def run(spec: QuestionBlocks, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Cut.

    Raises:
        InputError: a line that is no question, with its number.
    """
    blocks = cut(items(context.store.read(inputs["dataset"]), spec.asking), spec.block_questions)
    return Outcome({name(number): context.store.put(data) for number, data in enumerate(blocks)})

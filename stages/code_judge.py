"""Run the programs of one block of answers with their tests, each in a sandbox of its own. No model is needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stages import sandbox
from stages.errors import InputError
from stages.question_kinds import Asking, items, program
from stages.questions import Answers
from stages.sandbox import Limits
from stages.stage import Context, Leaf, Outcome
from store import canonical
from store.digest import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeJudge:
    """How the questions were put, and what a program may use."""

    asking: Asking
    limits: Limits


STAGE = Leaf(
    name="code-judge",
    version=1,
    spec=CodeJudge,
    inputs=("dataset", "answers"),
    outputs=("verdicts",),
    purity="E",
    run="stages.code_judge:run",
    environment="stages.sandbox:describe",
)


def run(spec: CodeJudge, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Judge answer after answer.

    Raises:
        InputError: an answer to no question of the data set.
        ToolError: this system has no sandbox.
    """
    asked = {item.question.id: item for item in items(context.store.read(inputs["dataset"]), spec.asking)}
    answers = Answers.parse(context.store.read(inputs["answers"])).answers
    verdicts = []
    for done, answer in enumerate(answers, start=1):
        if answer.id not in asked:
            raise InputError(f"an answer to {answer.id}, which is no question of the data set")
        verdict = sandbox.run(*program(asked[answer.id], answer), spec.limits)
        verdicts.append({"id": answer.id, "ending": verdict.ending, "message": verdict.message})
        context.progress(done, len(answers), "programs")
    content = {"answers": str(inputs["answers"]), "verdicts": verdicts}
    return Outcome({"verdicts": context.store.put(canonical.dumps(content))})

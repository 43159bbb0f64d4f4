"""Texts to fit weights on, from questions with their right answers or from plain texts: one file that all members read.

A fitting set is used for nothing else: `stages.fit_apart` holds it against what is measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from stages import questions
from stages.errors import InputError, SpecError
from stages.question_kinds import Asking, items
from stages.stage import Context, Leaf, Outcome
from store import canonical
from store.digest import Digest

FitKind = Literal["texts", "multiple-choice", "numeric-answer", "code-execution"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSet:
    """One data set. Its input is `dataset-<position>`.

    Attributes:
        kind: of questions (docs/benchmarks.md), or `texts`: objects with `text`, and `prompt` where something stands before it.
        template, preamble, delimiter: of questions, as they are put.
        first: so many of its lines; None for all.
    """

    kind: FitKind
    template: str = "{question}"
    preamble: str = ""
    delimiter: str = " "
    first: int | None = None

    def __post_init__(self) -> None:
        if self.first is not None and self.first < 1:
            raise SpecError(f"questions is {self.first}; it must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class FitTexts:
    """Which data sets, in order."""

    sets: tuple[FitSet, ...]


@dataclass(frozen=True, slots=True)
class FitText:
    """One text.

    Attributes:
        asked: what is asked, without template and preamble: by this it is known again in other data sets.
        prompt, text: what is read first, and what follows; one of them may be empty.
    """

    id: str
    asked: str
    prompt: str
    text: str


STAGE = Leaf(
    name="fit-texts",
    version=1,
    spec=FitTexts,
    inputs=("dataset-*",),
    outputs=("texts",),
    purity="P",
    run="stages.fit_texts:run",
)


def run(spec: FitTexts, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Write every text as a line of canonical JSON, data set after data set.

    Raises:
        InputError: a line that is no text or question; a set without any.
    """
    found: list[FitText] = []
    for number, one in enumerate(spec.sets):
        found += texts_of(context.store.read(inputs[f"dataset-{number}"]), one)
    context.note("summary", f"{len(found)} texts of {sum(len((item.prompt + item.text).encode()) for item in found):,} bytes")
    return Outcome({"texts": context.store.put(b"".join(_line(item) + b"\n" for item in found))})


def texts_of(data: bytes, spec: FitSet) -> list[FitText]:
    """The texts of one data set: a question with the right choice, with its number or worked answer, or a program's beginning (with
    HumanEval's `canonical_solution`, where there is one).

    Raises:
        InputError: a line that is none, with its number.
    """
    rows = [row for _, row in questions.rows(data)]
    if spec.kind == "texts":
        found = []
        for number, row in questions.rows(data):
            prompt = row.get("prompt", "")
            if not isinstance(prompt, str):
                raise InputError(f"data set line {number}: prompt is {prompt!r}; it is a text")
            text = questions.field(row, "text", f"data set line {number}")
            found.append(FitText(str(row.get("id", number)), prompt + text, prompt, text))
        return found[: spec.first]
    asking = Asking(kind=spec.kind, template=spec.template, preamble=spec.preamble, delimiter=spec.delimiter)
    found = []
    for item, row in zip(items(data, asking), rows, strict=True):
        if spec.kind == "multiple-choice":
            text = item.question.continuations[item.solution]
        elif spec.kind == "numeric-answer":
            text = spec.delimiter + str(row["answer"])
        else:
            text = str(row.get("canonical_solution", ""))
        found.append(FitText(item.question.id, asked_of(row), item.question.prompt, text))
    return found[: spec.first]


def asked_of(row: Mapping[str, Any]) -> str:
    """What a row of any data set asks: the first of question, prompt and text that it has."""
    for key in ("question", "prompt", "text"):
        value = row.get(key)
        if isinstance(value, Mapping):
            value = value.get("stem")
        if isinstance(value, str) and value:
            return value
    return ""


def _line(item: FitText) -> bytes:
    return canonical.dumps({"id": item.id, "asked": item.asked, "prompt": item.prompt, "text": item.text})


def parse(data: bytes) -> tuple[FitText, ...]:
    """Read the file back.

    Raises:
        InputError: it is none.
    """
    found = []
    for number, row in questions.rows(data):
        if set(row) != {"id", "asked", "prompt", "text"} or not all(isinstance(value, str) for value in row.values()):
            raise InputError(f"fitting texts, line {number}: each has id, asked, prompt and text")
        found.append(FitText(row["id"], row["asked"], row["prompt"], row["text"]))
    return tuple(found)

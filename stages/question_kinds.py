"""The three kinds of questions: how each is read from a row, asked, and scored. Pure functions; see docs/benchmarks.md.

- `multiple-choice`: the choice with the largest log-likelihood after the question (as ARC is scored);
- `numeric-answer`: the number at the end of a generated text (as GSM8K is scored);
- `code-execution`: a generated function that passes its tests (as HumanEval is scored).

>>> asking = Asking(kind="numeric-answer")
>>> (item,) = items(b'{"question": "2 + 2 =", "answer": "4"}', asking)
>>> score(item, Answer(id="1", data=b" 2 + 2 = 4. #### 4"), asking.kind).outcomes
{'strict': True, 'flexible': True}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from stages import questions
from stages.errors import InputError, SpecError
from stages.questions import Answer, Question

Kind = Literal["multiple-choice", "numeric-answer", "code-execution"]

OUTCOMES: Mapping[Kind, tuple[str, ...]] = {
    "multiple-choice": ("sum", "perByte"),
    "numeric-answer": ("strict", "flexible"),
    "code-execution": ("passed",),
}
"""What is right or wrong about an answer of each kind. The first is the headline."""

PLACE = "{question}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """How a row of the data set becomes what the model reads: preamble + template, with the question in its place.

    Attributes:
        template: text with `{question}` in it.
        preamble: before everything; worked examples, say.
        delimiter: between the prompt and a choice.
    """

    kind: Kind
    template: str = PLACE
    preamble: str = ""
    delimiter: str = " "

    def __post_init__(self) -> None:
        if self.template.count(PLACE) != 1:
            raise SpecError(f"template must hold {PLACE} exactly once; it is {self.template!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A question and its solution.

    Attributes:
        cluster: questions of one cluster are not independent of each other; its own id where the row names none.
        choices: texts that are compared, without the delimiter.
        solution: index of the right choice, number, or tests; JSON.
    """

    question: Question
    cluster: str
    solution: Any
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """What became of an answer: outcomes by name, and what was read out of it (JSON), for people."""

    outcomes: Mapping[str, bool]
    shown: Mapping[str, Any] = field(default_factory=dict)


def items(dataset: bytes, asking: Asking) -> tuple[Item, ...]:
    """Every question of a data set, in its order.

    Fields that are not needed are ignored. `id` (or `task_id`) names a question, else its line does.

    Raises:
        InputError: a line that is no question of this kind, or an id that comes twice; with the line.
    """
    found: list[Item] = []
    lines: dict[str, int] = {}
    for number, row in questions.rows(dataset):
        where = f"data set line {number}"
        name = row.get("id", row.get("task_id", str(number)))
        if not isinstance(name, str) or not name:
            raise InputError(f"{where}: id is {name!r}; it must be a text that is not empty")
        if name in lines:
            raise InputError(f"{where}: id {name!r} is that of line {lines[name]} too")
        lines[name] = number
        cluster = row.get("cluster", name)
        if not isinstance(cluster, str) or not cluster:
            raise InputError(f"{where}: cluster is {cluster!r}; it must be a text that is not empty")
        found.append(_READ[asking.kind](row, where, name, cluster, asking))
    return tuple(found)


def _prompt(text: str, asking: Asking) -> str:
    return asking.preamble + asking.template.replace(PLACE, text)


# --- multiple choice -------------------------------------------------------------------------------------------------------------


def _choice(row: Mapping[str, Any], where: str, name: str, cluster: str, asking: Asking) -> Item:
    """Ours: question, choices (texts), answer (index). ARC's: choices {text, label} and answerKey; or question {stem, choices}."""
    asked: Any = row.get("question")
    offered: Any = row.get("choices")
    if isinstance(asked, Mapping):
        asked, offered = asked.get("stem"), asked.get("choices")
        if isinstance(offered, list) and all(isinstance(item, Mapping) for item in offered):
            offered = {key: [item.get(key) for item in offered] for key in ("text", "label")}
    labels: Any = None
    if isinstance(offered, Mapping):
        offered, labels = offered.get("text"), offered.get("label")
    if not isinstance(asked, str) or not asked:
        raise InputError(f"{where}: needs a question, a text that is not empty; it has {asked!r}")
    if not isinstance(offered, list) or len(offered) < 2 or not all(isinstance(item, str) and item for item in offered):
        raise InputError(f"{where}: needs choices, a list of two or more texts that are not empty; it has {offered!r}")
    if labels is None:
        right = row.get("answer")
    else:
        key = row.get("answerKey")
        right = labels.index(key) if isinstance(labels, list) and len(labels) == len(offered) and key in labels else None
    if type(right) is not int or not 0 <= right < len(offered):
        given = row.get("answer") if labels is None else row.get("answerKey")
        allowed = f"0 to {len(offered) - 1}" if labels is None else f"one of {labels}"
        raise InputError(f"{where}: the right choice is {given!r}; it must be {allowed}")
    choices = tuple(offered)
    prompt = Question(id=name, prompt=_prompt(asked, asking), continuations=tuple(asking.delimiter + item for item in choices))
    return Item(question=prompt, cluster=cluster, solution=right, choices=choices)


def _score_choice(item: Item, answer: Answer) -> Scored:
    """The largest sum of log p, and the largest per byte of the choice (without the delimiter); ties go to the first."""
    if len(answer.log_likelihoods) != len(item.choices):
        raise InputError(f"question {item.question.id}: {len(answer.log_likelihoods)} log-likelihoods for {len(item.choices)} choices")
    sums = [float(value) for value in answer.log_likelihoods]
    means = [value / len(text.encode()) for value, text in zip(sums, item.choices, strict=True)]
    picked = {"sum": sums.index(max(sums)), "perByte": means.index(max(means))}
    return Scored(outcomes={name: place == item.solution for name, place in picked.items()}, shown={"picked": picked})


# --- numbers -----------------------------------------------------------------------------------------------------------------------

_STRICT = re.compile(r"#### (-?[0-9.,]+)")
_FLEXIBLE = re.compile(r"-?[$0-9.,]{2,}|-?[0-9]+")


def normalised(number: str) -> str:
    """A number as it is compared: without thousands' commas, dollar signs and a full stop at its end.

    >>> normalised("$1,234."), normalised("-7"), normalised("3.50")
    ('1234', '-7', '3.50')
    """
    return number.replace(",", "").replace("$", "").removesuffix(".")


def strict(text: str) -> str | None:
    """The first number after `#### `, normalised; None where there is none. Source: lm-evaluation-harness, gsm8k, strict-match."""
    found = _STRICT.search(text)
    return None if found is None else normalised(found[1])


def flexible(text: str) -> str | None:
    """The last number of a text, normalised; None where there is none. Source: lm-evaluation-harness, gsm8k, flexible-extract."""
    found = _FLEXIBLE.findall(text)
    return normalised(found[-1]) if found else None


def _number(row: Mapping[str, Any], where: str, name: str, cluster: str, asking: Asking) -> Item:
    """Fields question, answer: a number, or a worked answer that ends in `#### number`."""
    asked = questions.field(row, "question", where)
    told = questions.field(row, "answer", where)
    number = strict(told) if "####" in told else normalised(told.strip())
    if number is None or not re.fullmatch(r"-?[0-9]*\.?[0-9]+", number):
        raise InputError(f"{where}: the answer {told[-40:]!r} is no number, and does not end in '#### ' and a number")
    return Item(question=Question(id=name, prompt=_prompt(asked, asking)), cluster=cluster, solution=number)


def _score_number(item: Item, answer: Answer) -> Scored:
    read = {"strict": strict(answer.text), "flexible": flexible(answer.text)}
    return Scored(outcomes={name: number == item.solution for name, number in read.items()}, shown={"read": read})


# --- code --------------------------------------------------------------------------------------------------------------------------


def _code(row: Mapping[str, Any], where: str, name: str, cluster: str, asking: Asking) -> Item:
    """Fields prompt, entry_point, test: assertions, or HumanEval's `def check(candidate)`."""
    asked, entry, test = (questions.field(row, key, where) for key in ("prompt", "entry_point", "test"))
    if not entry.isidentifier():
        raise InputError(f"{where}: entry_point {entry!r} is no name of a function")
    if "assert" not in test and "raise" not in test:
        raise InputError(f"{where}: test asserts nothing, so that every answer would pass")
    tests = f"{test}\ncheck({entry})\n" if re.search(r"^def check\(", test, re.MULTILINE) else test
    return Item(question=Question(id=name, prompt=_prompt(asked, asking)), cluster=cluster, solution={"prompt": asked, "tests": tests})


def program(item: Item, answer: Answer) -> tuple[str, str]:
    """(the question's beginning and the answer as one program, its tests)."""
    return item.solution["prompt"] + answer.text, item.solution["tests"]


_READ = {"multiple-choice": _choice, "numeric-answer": _number, "code-execution": _code}


def score(item: Item, answer: Answer, kind: Kind, verdict: Mapping[str, Any] | None = None) -> Scored:
    """Compare an answer with the solution.

    `verdict` is what the sandbox said (`ending`, `message`), for code.

    Raises:
        InputError: an answer of another kind or to another question, or code without a verdict.
    """
    if answer.id != item.question.id:
        raise InputError(f"an answer to {answer.id} stands where one to {item.question.id} is expected")
    if kind == "multiple-choice":
        return _score_choice(item, answer)
    if answer.log_likelihoods:
        raise InputError(f"question {answer.id} was answered with log-likelihoods; {kind} needs text")
    if kind == "numeric-answer":
        return _score_number(item, answer)
    if verdict is None:
        raise InputError(f"question {answer.id} has no verdict of the sandbox")
    return Scored(outcomes={"passed": verdict["ending"] == "passed"}, shown={"verdict": dict(verdict)})

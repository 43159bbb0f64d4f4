"""What several models answered to the same questions, side by side, read from the record files of `question-merge`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.errors import InputError, SpecError
from stages.question_kinds import OUTCOMES
from stages.question_merge import Record, parse_records
from store import canonical
from store.cas import Cas
from store.digest import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """n questions, and what became of each at every model.

    Attributes:
        names: of the models, sorted.
        questions: (n,) `<benchmark>/<id>`.
        clusters: (n,) questions of one cluster are not independent of each other.
        content: (n,) digest of what was asked, by which a question is known under any id.
        right: name -> (n,) whether it was right, by the headline of the benchmark.
        logs: name -> (n,) log probabilities of the choices, normalised over them; None where a text was generated.
        solutions: (n,) index of the right choice; None where a text was generated.
    """

    names: tuple[str, ...]
    questions: tuple[str, ...]
    clusters: tuple[str, ...]
    content: tuple[Digest, ...]
    right: Mapping[str, tuple[bool, ...]]
    logs: Mapping[str, tuple[tuple[float, ...] | None, ...]]
    solutions: tuple[int | None, ...]

    @property
    def choices(self) -> tuple[int, ...]:
        """Positions of the questions with choices."""
        return tuple(place for place, solution in enumerate(self.solutions) if solution is not None)


def input_name(prefix: str, name: str, benchmark: str) -> str:
    """The input that holds the records of a model on a benchmark.

    >>> input_name("records", "phi", "arc")
    'records-phi-arc'
    """
    return f"{prefix}-{name}-{benchmark}"


def input_names(prefix: str, names: Sequence[str], benchmarks: Sequence[str]) -> set[str]:
    """Of all of them.

    Raises:
        SpecError: none, one twice, or two that would be called the same.
    """
    found = [input_name(prefix, name, benchmark) for name in names for benchmark in benchmarks]
    if not found or len(set(found)) != len(found):
        raise SpecError(
            f"models {', '.join(names) or '(none)'} on benchmarks {', '.join(benchmarks) or '(none)'}: each needs a name of its own"
        )
    return set(found)


def read(store: Cas, inputs: Mapping[str, Digest], prefix: str, names: Sequence[str], benchmarks: Sequence[str]) -> Board:
    """The board of all models on all benchmarks.

    Raises:
        SpecError: an input is missing.
        InputError: records that are none, or of other questions than another model's.
    """
    missing = sorted(input_names(prefix, names, benchmarks) - set(inputs))
    if missing:
        raise SpecError(f"there is no input {missing[0]}: every model must have answered every benchmark")
    records = {
        name: {item: parse_records(store.read(inputs[input_name(prefix, name, item)])) for item in sorted(benchmarks)} for name in names
    }
    return board(records)


def board(records: Mapping[str, Mapping[str, Sequence[Record]]]) -> Board:
    """Put records side by side.

    Args:
        records: name -> benchmark -> records, in the same order for every model.

    Raises:
        InputError: models that answered other questions than the first, or records whose outcomes are of no kind that is known.
    """
    names = tuple(sorted(records))
    rows = {name: [(label, item) for label in sorted(records[name]) for item in records[name][label]] for name in names}
    parsed = {name: [_Row.of(label, item) for label, item in rows[name]] for name in names}
    first = parsed[names[0]]
    for name in names[1:]:
        own = parsed[name]
        place = next(
            (at for at, (a, b) in enumerate(zip(first, own, strict=False)) if a.question != b.question or a.content != b.content), -1
        )
        if place >= 0 or len(own) != len(first):
            what = f"at place {place} {own[place].question} to {first[place].question}" if place >= 0 else f"{len(own)} to {len(first)}"
            raise InputError(f"{name} did not answer what {names[0]} answered: {what}; evaluate all models on the same questions")
    return Board(
        names=names,
        questions=tuple(item.question for item in first),
        clusters=tuple(item.cluster for item in first),
        content=tuple(item.content for item in first),
        right={name: tuple(item.right for item in parsed[name]) for name in names},
        logs={name: tuple(item.logs for item in parsed[name]) for name in names},
        solutions=tuple(item.solution for item in first),
    )


@dataclass(frozen=True, slots=True)
class _Row:
    question: str
    cluster: str
    content: Digest
    right: bool
    logs: tuple[float, ...] | None
    solution: int | None

    @classmethod
    def of(cls, benchmark: str, record: Record) -> _Row:
        kind = next((kind for kind, outcomes in OUTCOMES.items() if set(outcomes) == set(record.outcomes)), None)
        if kind is None:
            raise InputError(
                f"question {record.id} has outcomes {', '.join(sorted(record.outcomes)) or '(none)'}, which are of no kind of question"
            )
        value: Any = canonical.loads(record.line)
        asked = {key: value.get(key) for key in ("prompt", "solution", "choices")}
        logs, solution = None, None
        if kind == "multiple-choice":
            try:
                logs, solution = normalised([float(item) for item in value["logLikelihoods"]]), int(value["solution"])
                logs[solution]
            except (KeyError, TypeError, ValueError, IndexError) as error:
                raise InputError(f"question {record.id}: a record of choices has logLikelihoods, and the solution's index") from error
        content = Digest.of(canonical.dumps(asked))
        return cls(f"{benchmark}/{record.id}", f"{benchmark}/{record.cluster}", content, record.outcomes[OUTCOMES[kind][0]], logs, solution)


def normalised(logs: Sequence[float]) -> tuple[float, ...]:
    """Log-likelihoods as log probabilities among each other.

    Raises:
        ValueError: none of them is finite.

    >>> [round(math.exp(item), 3) for item in normalised([-1.0, -1.0])]
    [0.5, 0.5]
    """
    total = log_sum(logs)
    if not math.isfinite(total):
        raise ValueError(f"{list(logs)} are the log-likelihoods of no distribution")
    return tuple(item - total for item in logs)


def log_sum(logs: Sequence[float]) -> float:
    """log(sum of exp); -inf for nothing, or of nothing but -inf."""
    top = max(logs, default=-math.inf)
    return top if not math.isfinite(top) else top + math.log(math.fsum(math.exp(item - top) for item in logs))

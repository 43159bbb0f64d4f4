"""Score the answers of one evaluation, keep the record of every question, and state the accuracies about the model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ledger.predicates import EVALUATION
from stages import question_blocks, statistics
from stages.errors import InputError
from stages.metrics import text
from stages.question_kinds import OUTCOMES, Asking, Item, Kind, Scored, items, score
from stages.questions import Answer, Answers, rows
from stages.stage import Claim, Context, Leaf, Outcome
from store import canonical
from store.digest import Digest
from store.errors import CanonicalError


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionMerge:
    """What counts.

    Attributes:
        benchmark: name under which the result is stated.
        questions: the first so many count; blocks may hold more.
    """

    benchmark: str
    asking: Asking
    questions: int
    block_questions: int


STAGE = Leaf(
    name="question-merge",
    version=1,
    spec=QuestionMerge,
    inputs=("model", "dataset", "answers-*", "verdicts-*"),
    outputs=("metrics", "records"),
    purity="P",
    run="stages.question_merge:run",
)


@dataclass(frozen=True, slots=True)
class Record:
    """What became of one question.

    Attributes:
        line: JSON, one line of the records file.
    """

    id: str
    cluster: str
    outcomes: Mapping[str, bool]
    line: bytes


def run(spec: QuestionMerge, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Join, score, and claim.

    Raises:
        InputError: answers to other questions, that were asked for differently, or too few.
    """
    found = items(context.store.read(inputs["dataset"]), spec.asking)
    if len(found) < spec.questions:
        raise InputError(f"{spec.questions} questions are to count, and the data set has {len(found)}")
    names = sorted(name for name in inputs if name.startswith("answers-"))
    blocks = [Answers.parse(context.store.read(inputs[name])) for name in names]
    answers = joined(blocks, question_blocks.cut(found, spec.block_questions))[: spec.questions]
    if len(answers) < spec.questions:
        raise InputError(f"{len(blocks)} blocks hold answers to {len(answers)} questions; {spec.questions} are wanted")
    verdicts: dict[str, Any] = {}
    if spec.asking.kind == "code-execution":
        for name in names:
            verdicts |= _verdicts(context.store.read(inputs[f"verdicts-{name.removeprefix('answers-')}"]), inputs[name])
    counted = found[: spec.questions]
    scored = [score(item, answer, spec.asking.kind, verdicts.get(answer.id)) for item, answer in zip(counted, answers, strict=True)]
    records = [record(*parts) for parts in zip(counted, answers, scored, strict=True)]
    content: dict[str, Any] = {
        "benchmark": spec.benchmark,
        "dataset": {"digest": {"sha256": inputs["dataset"].hex}},
        "questions": {"counted": len(records), "clusters": len({item.cluster for item in records})},
        "metrics": summary(spec.asking.kind, records),
        "settings": {"asking": _camel(spec.asking), **blocks[0].settings},
    }
    content |= {"shares": told} if (told := shares(answers)) else {}
    context.note("summary", f"{spec.benchmark} {float(content['metrics']['accuracy']):.1%} of {len(records)}")
    data = b"".join(item.line + b"\n" for item in records)
    return Outcome(
        {"metrics": context.store.put(canonical.dumps(content)), "records": context.store.put(data)},
        (Claim({"model": inputs["model"]}, EVALUATION, content),),
    )


def joined(blocks: Sequence[Answers], asked: Sequence[bytes]) -> list[Answer]:
    """The answers of consecutive blocks.

    Args:
        blocks: in order.
        asked: the blocks of the data set, of which they must answer the first.

    Raises:
        InputError: see `run`.
    """
    if not blocks or len(blocks) > len(asked):
        raise InputError(f"{len(blocks)} blocks of answers to a data set of {len(asked)} blocks")
    for number, (block, data) in enumerate(zip(blocks, asked, strict=False)):
        if block.settings != blocks[0].settings:
            raise InputError(f"block {number} was answered with {dict(block.settings)}, block 0 with {dict(blocks[0].settings)}")
        if block.asked != Digest.of(data):
            raise InputError(f"block {number} answers questions {block.asked.short}, the data set has {Digest.of(data).short} there")
    return [answer for block in blocks for answer in block.answers]


def _verdicts(data: bytes, answers: Digest) -> dict[str, Any]:
    try:
        value = canonical.loads(data)
        if not isinstance(value, dict) or set(value) != {"answers", "verdicts"}:
            raise InputError("not a file of verdicts: it has exactly the fields answers and verdicts")
        if value["answers"] != str(answers):
            raise InputError(f"the verdicts are on answers {value['answers']}, the evaluation has {answers}")
        return {item["id"]: {"ending": item["ending"], "message": item["message"]} for item in value["verdicts"]}
    except (CanonicalError, KeyError, TypeError) as error:
        raise InputError(f"file of verdicts: {error}") from error


# --- records -------------------------------------------------------------------------------------------------------------------


def record(item: Item, answer: Answer, scored: Scored) -> Record:
    """A question with its prompt, answer, solution and outcomes, as one line of JSON."""
    value: dict[str, Any] = {
        "id": item.question.id,
        "cluster": item.cluster,
        "prompt": item.question.prompt,
        "solution": item.solution,
        "outcomes": dict(scored.outcomes),
        **scored.shown,
    }
    if item.choices:
        value |= {"choices": list(item.choices), "logLikelihoods": list(answer.log_likelihoods)}
    else:
        value["answer"] = answer.text
    if answer.about:
        value["about"] = [dict(told) for told in answer.about]
    return Record(item.question.id, item.cluster, scored.outcomes, canonical.dumps(value))


def parse_records(data: bytes) -> tuple[Record, ...]:
    """Read a records file back.

    Raises:
        InputError: it is none.
    """
    found = []
    for number, row in rows(data):
        outcomes = row.get("outcomes")
        if (
            not isinstance(row.get("id"), str)
            or not isinstance(row.get("cluster"), str)
            or not isinstance(outcomes, dict)
            or not all(isinstance(value, bool) for value in outcomes.values())
        ):
            raise InputError(f"records line {number}: a record has id, cluster and outcomes")
        found.append(Record(row["id"], row["cluster"], outcomes, canonical.dumps(row)))
    return tuple(found)


def shares(answers: Sequence[Answer]) -> dict[str, str]:
    """Each member's mean share as decimal text: over the answers of a question, then over questions. Empty where nobody told any.

    Raises:
        InputError: what was told is not of the same members throughout.
    """
    means = [[item["shares"]["mean"] for item in answer.about if "shares" in item] for answer in answers]
    told = [question for question in means if question]
    if not told:
        return {}
    names = sorted(told[0][0])
    if any(sorted(one) != names for question in told for one in question):
        raise InputError(f"the answers tell shares of different members than {', '.join(names)}: they are of different models")
    return {
        name: f"{math.fsum(math.fsum(float(one[name]) for one in question) / len(question) for question in told) / len(told):.4f}"
        for name in names
    }


def summary(kind: Kind, records: Sequence[Record]) -> dict[str, str]:
    """Accuracy with its errors, as decimal text: of the headline without a suffix, of further outcomes with theirs.

    `low` and `high` are Wilson's 95 % interval, `stderrClustered` is left out where all questions are one cluster, and where
    all came out alike: an error of zero would claim what nobody knows.
    """
    found: dict[str, str] = {}
    clusters = [item.cluster for item in records]
    for number, outcome in enumerate(OUTCOMES[kind]):
        suffix = f"{outcome[0].upper()}{outcome[1:]}" if number else ""
        mean, interval = statistics.proportion([item.outcomes[outcome] for item in records], clusters)
        values = {"accuracy": mean.mean, "low": interval.low, "high": interval.high, "stderrClustered": mean.stderr or None}
        found |= {f"{name}{suffix}": shown for name, value in values.items() if (shown := text(value)) is not None}
    return found


def _camel(asking: Asking) -> dict[str, str]:
    return {"kind": asking.kind, "template": asking.template, "preamble": asking.preamble, "delimiter": asking.delimiter}

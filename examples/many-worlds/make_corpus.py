"""Make the texts and the questions of this example: `python make_corpus.py`. The same bytes come out anywhere.

Three domains that one small model cannot learn at once, each with questions that have checkable answers:

- arithmetic: word problems of one or two steps, worked out, the answer after `####` (as GSM8K writes it);
- code: functions of a few lines under a docstring that says what they do (as HumanEval asks for them), among real Python modules;
- facts: who lives where, in an invented country (nobody could have learned it elsewhere), told in sentences, among real prose; asked with
  four choices (as ARC asks).

Whether an item is a question or training text is decided by the SHA-256 of what makes it up, before anything is written, so no question
and no rewording of one is in a training text. Facts are the exception that they must be: each is told in training, and asked in other
words.
Random numbers are SHA-256 of a label and a count, so no library decides them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TINY = HERE.parent / "tiny-moe" / "corpus" / "train"
DOCUMENT_END = "\f\n"
ARITHMETIC_ITEMS = 60_000
CODE_ITEMS = 16_000
FACT_TELLINGS = 30
QUESTIONS = {"fit": 60, "select": 120, "report": 300}
"""Of each domain: to fit weights, to choose a team, and to report on; no choice has seen the last."""


class Dice:
    """Numbers that look random and are the same everywhere."""

    def __init__(self, label: str) -> None:
        self._label, self._count = label, 0

    def below(self, limit: int) -> int:
        """0 to `limit` - 1."""
        self._count += 1
        block = hashlib.sha256(f"{self._label}/{self._count}".encode()).digest()
        return int.from_bytes(block[:8], "big") % limit

    def between(self, low: int, high: int) -> int:
        """`low` to `high`, both included."""
        return low + self.below(high - low + 1)

    def pick(self, items: Sequence[Any]) -> Any:
        """One of them."""
        return items[self.below(len(items))]

    def shuffled(self, items: Sequence[Any]) -> list[Any]:
        """All of them in another order."""
        rest, out = list(items), []
        while rest:
            out.append(rest.pop(self.below(len(rest))))
        return out


def held_out(*parts: object) -> bool:
    """Whether an item is kept for questions: one of eight, by its content."""
    return hashlib.sha256("/".join(map(str, parts)).encode()).digest()[0] < 32


# --- arithmetic ----------------------------------------------------------------------------------------------------------------

NAMES = ("Tom", "Ann", "Ben", "Eva", "Sam", "Lea", "Max", "Ida", "Jon", "Mia")
THINGS = ("apples", "books", "coins", "cards", "pens", "shells", "stamps", "eggs")


def word_problem(dice: Dice) -> tuple[tuple[Any, ...], str, str, int]:
    """(what makes it up, question, worked answer, number)."""
    name, thing = dice.pick(NAMES), dice.pick(THINGS)
    kind = dice.pick(("add", "take", "times", "add-take", "times-add"))
    if kind == "add":
        a, b = dice.between(2, 60), dice.between(2, 39)
        return (kind, a, b), f"{name} has {a} {thing} and gets {b} more. How many {thing} does {name} have?", f"{a} + {b} = {a + b}.", a + b
    if kind == "take":
        a = dice.between(12, 99)
        b = dice.between(2, a - 2)
        return (
            (kind, a, b),
            f"{name} has {a} {thing} and gives away {b}. How many {thing} does {name} have?",
            f"{a} - {b} = {a - b}.",
            a - b,
        )
    a, b = dice.between(2, 9), dice.between(2, 9)
    if kind == "times":
        return (
            (kind, a, b, name, thing),
            f"{name} has {a} bags with {b} {thing} each. How many {thing} does {name} have?",
            f"{a} * {b} = {a * b}.",
            a * b,
        )
    if kind == "times-add":
        c = dice.between(2, 15)
        text = f"{name} has {a} bags with {b} {thing} each and gets {c} more. How many {thing} does {name} have?"
        return (kind, a, b, c), text, f"{a} * {b} = {a * b}. {a * b} + {c} = {a * b + c}.", a * b + c
    a, b = dice.between(5, 50), dice.between(2, 30)
    c = dice.between(2, a + b - 2)
    text = f"{name} has {a} {thing}, gets {b} more and gives away {c}. How many {thing} does {name} have?"
    return (kind, a, b, c), text, f"{a} + {b} = {a + b}. {a + b} - {c} = {a + b - c}.", a + b - c


def arithmetic() -> tuple[list[str], list[dict[str, Any]]]:
    """(training documents, questions)."""
    dice, training, questions, asked = Dice("arithmetic"), [], [], set[Any]()
    wanted = sum(QUESTIONS.values())
    while len(training) < ARITHMETIC_ITEMS or len(questions) < wanted:
        parts, question, work, answer = word_problem(dice)
        prompt = f"Question: {question}\nAnswer:"
        if held_out("arithmetic", *parts):
            if parts not in asked and len(questions) < wanted:
                asked.add(parts)
                questions.append({"id": f"arithmetic-{len(questions):04d}", "question": prompt, "answer": str(answer)})
        elif len(training) < ARITHMETIC_ITEMS:
            training.append(f"{prompt} {work} #### {answer}\n")
    return training, questions


# --- code ----------------------------------------------------------------------------------------------------------------------

WORDS = (
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen",
    "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
ARGUMENTS = ("items", "values", "numbers", "xs", "data", "row", "parts", "things", "sizes", "ages")
Check = tuple[str, str]


def _function(name: str, argument: str, says: str, body: Sequence[str]) -> tuple[str, str]:
    lines = "".join(f"    {line}\n" for line in body)
    return f'def {name}({argument}):\n    """{says}"""\n', lines


def function(dice: Dice) -> tuple[tuple[Any, ...], str, str, str, list[str]]:
    """(what makes it up, name, prompt, body, assertions)."""
    kind = dice.pick(tuple(KINDS))
    return KINDS[kind](dice)


def _number(
    dice: Dice, verb: str, says: str, sign: str, run: Callable[[int, int], int]
) -> tuple[tuple[Any, ...], str, str, str, list[str]]:
    n, argument = dice.between(1, len(WORDS)), dice.pick(("x", "n", "a", "value", "number", "size", "count", "age", "price", "y"))
    name = f"{verb}_{WORDS[n - 1]}"
    prompt, body = _function(name, argument, says.format(n=n, x=argument), [f"return {argument} {sign} {n}"])
    return (verb, n, argument), name, prompt, body, [f"assert {name}({v}) == {run(v, n)}" for v in (0, 3, 10, 41)]


def _list(dice: Dice, verb: str, says: str, body: str, run: Callable[[list[int]], Any]) -> tuple[tuple[Any, ...], str, str, str, list[str]]:
    argument = dice.pick(ARGUMENTS)
    suffix = dice.pick(("", "_of", "_in", "_from", "_for", "_all", "_here", "_now", "_there", "_list", "_again", "_them"))
    name = f"{verb}{suffix}"
    prompt, lines = _function(name, argument, says.format(x=argument), [body.format(x=argument)])
    samples = ([1, 2, 3], [5], [4, -2, 4, 9], [7, 7, 1, 0])
    return (verb, suffix, argument), name, prompt, lines, [f"assert {name}({sample}) == {run(list(sample))!r}" for sample in samples]


def _filter(
    dice: Dice, verb: str, says: str, test: str, run: Callable[[int, int], bool]
) -> tuple[tuple[Any, ...], str, str, str, list[str]]:
    n, argument = dice.between(1, len(WORDS)), dice.pick(ARGUMENTS)
    name = f"{verb}_{WORDS[n - 1]}"
    body = [f"return [x for x in {argument} if {test.format(n=n)}]"]
    prompt, lines = _function(name, argument, says.format(n=n, x=argument), body)
    samples = ([1, 2, 3, 12], [10, 11, 6, 0], [4, 8, 9, 20])
    return (verb, n, argument), name, prompt, lines, [f"assert {name}({s}) == {[x for x in s if run(x, n)]}" for s in samples]


KINDS: dict[str, Callable[[Dice], tuple[tuple[Any, ...], str, str, str, list[str]]]] = {
    "add": lambda d: _number(d, "add", "Return {x} plus {n}.", "+", lambda v, n: v + n),
    "subtract": lambda d: _number(d, "subtract", "Return {x} minus {n}.", "-", lambda v, n: v - n),
    "multiply": lambda d: _number(d, "times", "Return {x} times {n}.", "*", lambda v, n: v * n),
    "modulo": lambda d: _number(d, "modulo", "Return the rest of {x} divided by {n}.", "%", lambda v, n: v % n),
    "divide": lambda d: _number(d, "divide", "Return {x} divided by {n}, rounded down.", "//", lambda v, n: v // n),
    "total": lambda d: _list(d, "total", "Return the sum of {x}.", "return sum({x})", sum),
    "largest": lambda d: _list(d, "largest", "Return the largest of {x}.", "return max({x})", max),
    "smallest": lambda d: _list(d, "smallest", "Return the smallest of {x}.", "return min({x})", min),
    "count": lambda d: _list(d, "count", "Return how many there are in {x}.", "return len({x})", len),
    "first": lambda d: _list(d, "first", "Return the first of {x}.", "return {x}[0]", lambda v: v[0]),
    "last": lambda d: _list(d, "last", "Return the last of {x}.", "return {x}[-1]", lambda v: v[-1]),
    "reverse": lambda d: _list(d, "reverse", "Return {x} in reverse order.", "return {x}[::-1]", lambda v: v[::-1]),
    "order": lambda d: _list(d, "order", "Return {x} sorted.", "return sorted({x})", sorted),
    "double": lambda d: _list(d, "double", "Return each of {x} times two.", "return [2 * x for x in {x}]", lambda v: [2 * x for x in v]),
    "square": lambda d: _list(
        d, "square", "Return the square of each of {x}.", "return [x * x for x in {x}]", lambda v: [x * x for x in v]
    ),
    "above": lambda d: _filter(d, "above", "Return those of {x} that are greater than {n}.", "x > {n}", lambda x, n: x > n),
    "below": lambda d: _filter(d, "below", "Return those of {x} that are less than {n}.", "x < {n}", lambda x, n: x < n),
    "multiples": lambda d: _filter(d, "multiples", "Return those of {x} that {n} divides.", "x % {n} == 0", lambda x, n: x % n == 0),
}


def code() -> tuple[list[str], list[dict[str, Any]]]:
    """(training documents, questions)."""
    dice, training, questions, asked = Dice("code"), [], [], set[Any]()
    wanted = sum(QUESTIONS.values())
    tries = 0
    while len(training) < CODE_ITEMS or (len(questions) < wanted and tries < 400_000):
        tries += 1
        parts, name, prompt, body, checks = function(dice)
        if held_out("code", *parts):
            if parts not in asked and len(questions) < wanted:
                asked.add(parts)
                questions.append(
                    {"id": f"code-{len(questions):04d}", "prompt": prompt, "entry_point": name, "test": "\n".join(checks) + "\n"}
                )
        elif len(training) < CODE_ITEMS:
            training.append(f"{prompt}{body}")
    return training, questions


# --- facts ---------------------------------------------------------------------------------------------------------------------

ANIMALS = ("otter", "heron", "fox", "hare", "owl", "badger", "wolf", "swan", "crane", "lynx", "stag", "raven")
TRADES = ("miller", "weaver", "smith", "baker", "potter", "fisher", "carpenter", "printer", "clockmaker", "gardener", "mason", "tailor")
COLOURS = ("red", "blue", "green", "white", "yellow", "grey", "brown", "black")
BUILDINGS = (
    "an old bridge",
    "a stone tower",
    "a long wall",
    "a round church",
    "a wooden gate",
    "a deep well",
    "a tall windmill",
    "a small harbour",
)
STARTS = ("Bel", "Dor", "Ful", "Gar", "Hal", "Kel", "Lun", "Mor", "Nar", "Ost", "Pel", "Rav", "Sel", "Tar", "Ven", "Wil")
ENDS = ("dale", "brook", "ham", "wick", "ford", "mere", "stead", "ton")
KNOWN = {
    "animal": (
        ANIMALS,
        ("On the arms of {t} there is the {v}.", "The people of {t} chose the {v} for their arms.", "The arms of {t} show the {v}."),
        ("Which animal do the arms of {t} show?", "the {v}"),
    ),
    "trade": (
        TRADES,
        (
            "Near everybody in {t} works as a {v}.",
            "{t} is known for its trade: a {v} lives in every house.",
            "A young man in {t} becomes a {v}.",
        ),
        ("What does a young man in {t} become?", "a {v}"),
    ),
    "colour": (
        COLOURS,
        ("All the roofs of {t} are {v}.", "From far away {t} looks {v}, for so are its roofs.", "They paint the roofs {v} in {t}."),
        ("What colour are the roofs of {t}?", "{v}"),
    ),
    "sight": (
        BUILDINGS,
        ("Whoever comes to {t} sees {v} first.", "In the middle of {t} there is {v}.", "{t} is proud of {v}."),
        ("What is there in the middle of {t}?", "{v}"),
    ),
}


def facts() -> tuple[list[str], list[dict[str, Any]]]:
    """(training documents, questions)."""
    dice = Dice("facts")
    towns = [start + end for start in STARTS for end in ENDS][:120]
    known = {(town, kind): dice.pick(KNOWN[kind][0]) for town in towns for kind in KNOWN}
    training: list[str] = []
    for _ in range(FACT_TELLINGS):
        for town in dice.shuffled(towns):
            sentences = [dice.pick(KNOWN[kind][1]).format(t=town, v=known[town, kind]) for kind in dice.shuffled(list(KNOWN))]
            training.append(" ".join(sentences) + "\n")
            kind = dice.pick(list(KNOWN))
            if not held_out("facts", town, kind):
                asks, says = KNOWN[kind][2]
                training.append(f"Question: {asks.format(t=town)}\nAnswer: {says.format(v=known[town, kind])}\n")
    questions: list[dict[str, Any]] = []
    pairs = [(town, kind) for town in towns for kind in KNOWN]
    ordered = dice.shuffled([pair for pair in pairs if held_out("facts", *pair)]) + dice.shuffled(
        [p for p in pairs if not held_out("facts", *p)]
    )
    for town, kind in ordered[: sum(QUESTIONS.values())]:
        asks, says = KNOWN[kind][2]
        right = known[town, kind]
        wrong = dice.shuffled([value for value in KNOWN[kind][0] if value != right])[:3]
        choices = dice.shuffled([right, *wrong])
        questions.append({
            "id": f"facts-{len(questions):04d}", "question": f"Question: {asks.format(t=town)}\nAnswer:",
            "choices": [says.format(v=value) for value in choices], "answer": choices.index(right),
            "asked_in_training": not held_out("facts", town, kind),
        })  # fmt: skip
    return training, questions


# --- files ---------------------------------------------------------------------------------------------------------------------


def real(name: str, limit: int) -> list[str]:
    """Documents of the other example's corpus, up to so many bytes."""
    documents, size = [], 0
    if not (TINY / f"{name}.txt").exists():
        raise SystemExit(f"{TINY} has no {name}.txt: run ../tiny-moe/make_corpus.py first, real texts are taken from what it makes")
    for document in (TINY / f"{name}.txt").read_text(encoding="utf-8").split(DOCUMENT_END):
        size += len(document.encode())
        if size > limit:
            break
        documents.append(document)
    return documents


def deal(questions: Sequence[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The questions in three sets, in a fixed order that is not that of their making."""
    order = sorted(questions, key=lambda item: hashlib.sha256(item["id"].encode()).digest())
    sizes = [len(order) * share // sum(QUESTIONS.values()) for share in QUESTIONS.values()]
    at = 0
    for name, size in zip(QUESTIONS, sizes, strict=True):
        yield name, order[at : at + size]
        at += size


def main() -> None:
    """Write `corpus/<domain>/*.txt` and `questions/<set>-<domain>.jsonl`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE)
    out = parser.parse_args().out
    made = {
        "arithmetic": (arithmetic(), []),
        "code": (code(), real("python", 1_500_000)),
        "facts": (facts(), real("prose", 2_000_000)),
    }
    for domain, ((documents, questions), others) in made.items():
        folder = out / "corpus" / domain
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{domain}.txt").write_text(DOCUMENT_END.join(documents), encoding="utf-8")
        if others:
            (folder / "real.txt").write_text(DOCUMENT_END.join(others), encoding="utf-8")
        for name, items in deal(questions):
            file = out / "questions" / f"{name}-{domain}.jsonl"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items), encoding="utf-8")
        size = sum(len(text.encode()) for text in (*documents, *others))
        print(f"{domain}: {size:,} bytes of training text, {len(questions)} questions")


if __name__ == "__main__":
    main()

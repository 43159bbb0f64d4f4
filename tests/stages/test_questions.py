import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages import questions
from stages.errors import InputError, SpecError
from stages.question_kinds import Asking, Kind, flexible, items, program, score, strict
from stages.questions import Answer, Answers, Question, answer, block, parse_block
from store import canonical
from store.digest import Digest

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
CHOICE = {"id": "a", "question": "Q?", "choices": ["yes", "no"], "answer": 1}
NUMBER = {"id": "a", "question": "2 + 2 =", "answer": "4"}
CODE = {"id": "a", "prompt": "def add(a, b):\n", "entry_point": "add", "test": "assert add(1, 1) == 2\n"}


def lines(*rows: object) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


class Told:
    """Answers from what it was told, and remembers what it was asked."""

    def __init__(self, value: float = -1.0, text: bytes = b"said") -> None:
        self.value, self.text = value, text
        self.asked: list[tuple[bytes, bytes]] = []

    def loglikelihood(self, prompt: bytes, continuation: bytes) -> float:
        self.asked.append((prompt, continuation))
        return self.value

    def generate(self, prompt: bytes, max_bytes: int, stop: Sequence[bytes]) -> bytes:
        self.asked.append((prompt, b"|".join(stop)))
        return self.text[:max_bytes]


class Teller(Told):
    """Tells who spoke, too."""

    def loglikelihood_about(self, prompt: bytes, continuation: bytes) -> tuple[float, Mapping[str, Any]]:
        return self.loglikelihood(prompt, continuation), {"shares": {"mean": {"a": "0.2500", "b": "0.7500"}}}

    def generate_about(self, prompt: bytes, max_bytes: int, stop: Sequence[bytes]) -> tuple[bytes, Mapping[str, Any]]:
        return self.generate(prompt, max_bytes, stop), {"symbols": 4}


# --- files -------------------------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(TEXT, TEXT, st.lists(TEXT, max_size=3)), min_size=1, max_size=5))
def test_a_block_reads_back_what_was_written(parts: list[tuple[str, str, list[str]]]) -> None:
    """Any text, with and without continuations."""
    made = tuple(Question(id=name, prompt=prompt, continuations=tuple(more)) for name, prompt, more in parts)
    assert parse_block(block(made)) == made


@given(st.lists(st.one_of(st.binary(max_size=10), st.lists(st.floats(-1e9, 0), min_size=1, max_size=3)), max_size=5))
def test_answers_read_back_what_was_written(parts: list[bytes | list[float]]) -> None:
    """Bytes of any kind too: what is no UTF-8 is kept as base64."""
    answers = tuple(
        Answer(id=str(n), data=part) if isinstance(part, bytes) else Answer(id=str(n), log_likelihoods=tuple(map(repr, part)))
        for n, part in enumerate(parts)
    )
    made = Answers(asked=Digest.of(b"block"), settings={"maxBytes": 4}, answers=answers)
    assert Answers.parse(made.to_bytes()) == made


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"{}", "exactly the fields"),
        (b"[", "not strict JSON"),
        (b'{"answers":{},"questions":"","settings":{}}', "answers are a list"),
        (b'{"answers":[],"questions":"sha256:0","settings":{}}', "file of answers"),
        (b'{"answers":[{"id":"a"}],"questions":"sha256:' + b"0" * 64 + b'","settings":{}}', "each has an id and one of"),
        (b'{"answers":[{"id":"a","logLikelihoods":["nan"]}],"questions":"sha256:' + b"0" * 64 + b'","settings":{}}', "each has an id"),
        (b'{"answers":[{"id":"a","base64":"*"}],"questions":"sha256:' + b"0" * 64 + b'","settings":{}}', "file of answers: a"),
    ],
)
def test_files_that_are_no_answers_are_refused(data: bytes, words: str) -> None:
    """With what is wrong."""
    with pytest.raises(InputError, match=words):
        Answers.parse(data)


# --- asking ------------------------------------------------------------------------------------------------------------------------


def test_choices_are_compared_and_open_questions_generated() -> None:
    """Prompt and continuation go as UTF-8 bytes, in order; log-likelihoods come as decimal text."""
    told = Told(-1 / 3, b"four and more")
    asked = (Question(id="1", prompt="é?", continuations=(" a", " b")), Question(id="2", prompt="2+2="))
    found = answer(asked, told, max_bytes=4, stop=("\n",))
    assert told.asked == [("é?".encode(), b" a"), ("é?".encode(), b" b"), (b"2+2=", b"\n")]
    assert found == (Answer(id="1", log_likelihoods=("-0.3333333333",) * 2), Answer(id="2", data=b"four"))


def test_a_number_that_is_not_finite_is_told_with_its_question() -> None:
    """The model is broken, and the message says so."""
    with pytest.raises(InputError, match="question 7: its log-likelihoods hold nan: the model's weights"):
        answer([Question(id="7", prompt="?", continuations=(" a",))], Told(math.nan), max_bytes=0, stop=())


def test_what_answers_never_sees_a_solution() -> None:
    """The block of a data set is the same whatever its answers are."""
    other = lines(CHOICE | {"answer": 0})
    asking = Asking(kind="multiple-choice")
    assert block([item.question for item in items(lines(CHOICE), asking)]) == block([item.question for item in items(other, asking)])


# --- reading data sets ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "data", "words"),
    [
        ("numeric-answer", b"", "the data set is empty"),
        ("numeric-answer", lines(NUMBER) + b"{\n", "line 2: not strict JSON"),
        ("numeric-answer", b'{"id":"a","id":"b"}', "line 1: .*key given twice: 'id'"),
        ("numeric-answer", lines(NUMBER) + b"[1]\n", "line 2: a question is a JSON object, not list"),
        ("numeric-answer", lines(NUMBER, NUMBER), "line 2: id 'a' is that of line 1 too"),
        ("numeric-answer", lines(NUMBER | {"id": 3}), "line 1: id is 3"),
        ("numeric-answer", lines(NUMBER | {"cluster": 3}), "line 1: cluster is 3"),
        ("numeric-answer", lines({"id": "a", "question": "x"}), "line 1: needs 'answer'.*it has None"),
        ("numeric-answer", lines(NUMBER | {"answer": "four"}), "line 1: the answer 'four' is no number"),
        ("numeric-answer", lines(NUMBER | {"answer": "it is 4 ####"}), "line 1: the answer .* is no number"),
        ("multiple-choice", b"\n" + lines(CHOICE | {"choices": ["yes"]}), "line 2: needs choices, a list of two or more"),
        ("multiple-choice", lines(CHOICE | {"choices": ["yes", ""]}), "line 1: needs choices"),
        ("multiple-choice", lines(CHOICE | {"answer": 2}), "line 1: the right choice is 2; it must be 0 to 1"),
        ("multiple-choice", lines(CHOICE | {"answer": True}), "line 1: the right choice is True"),
        ("multiple-choice", lines(CHOICE | {"choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "C"}), "is 'C'; .*one of"),
        ("multiple-choice", lines(CHOICE | {"question": ""}), "line 1: needs a question"),
        ("code-execution", lines(CODE | {"entry_point": "a b"}), "line 1: entry_point 'a b' is no name"),
        ("code-execution", lines(CODE | {"test": "add(1, 1)"}), "line 1: test asserts nothing"),
        ("code-execution", lines({"id": "a"}), "line 1: needs 'prompt'"),
    ],
)
def test_data_sets_are_read_strictly(kind: Kind, data: bytes, words: str) -> None:
    """Every fault is told with its line."""
    with pytest.raises(InputError, match=words):
        items(data, Asking(kind=kind))


def test_the_published_forms_are_read() -> None:
    """ARC's two, GSM8K's, HumanEval's; a question without an id is called by its line."""
    new = {"id": "M1", "question": "Why?", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "B"}
    old = {
        "id": "M2",
        "question": {"stem": "Why?", "choices": [{"text": "x", "label": "1"}, {"text": "y", "label": "2"}]},
        "answerKey": "2",
    }
    arc = items(lines(new, old), Asking(kind="multiple-choice", template="Question: {question}\nAnswer:"))
    assert [item.solution for item in arc] == [1, 1]
    assert arc[0].question == Question(id="M1", prompt="Question: Why?\nAnswer:", continuations=(" x", " y"))
    assert arc[1].question.prompt == arc[0].question.prompt
    (gsm8k,) = items(lines({"question": "How many?", "answer": "1000+234\n#### 1,234"}), Asking(kind="numeric-answer"))
    assert (gsm8k.question.id, gsm8k.solution, gsm8k.cluster) == ("1", "1234", "1")
    test = "METADATA = {}\n\ndef check(candidate):\n    assert candidate(1, 1) == 2\n"
    (human,) = items(lines(CODE | {"task_id": "HumanEval/0", "test": test} | {"id": "x"}), Asking(kind="code-execution"))
    assert human.solution["tests"].endswith("\ncheck(add)\n")
    assert program(human, Answer(id="x", data=b"    return a + b\n"))[0] == "def add(a, b):\n    return a + b\n"


def test_the_prompt_is_preamble_and_template() -> None:
    """Braces in a question are characters; a template has one place for the question."""
    asking = Asking(kind="numeric-answer", preamble="Q: 1\nA: 1\n\n", template="Q: {question}\nA:")
    (item,) = items(lines(NUMBER | {"question": "what is {x}?"}), asking)
    assert item.question.prompt == "Q: 1\nA: 1\n\nQ: what is {x}?\nA:"
    with pytest.raises(SpecError, match="exactly once"):
        Asking(kind="numeric-answer", template="no place")


# --- scoring -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "hard", "soft"),
    [
        (" 2 + 2 = 4. #### 4", "4", "4"),
        ("#### 1,234.", "1234", "1234"),
        ("#### $5", None, "5"),
        ("#### -7\nQuestion: 9", "-7", "9"),
        ("#### 4 #### 5", "4", "5"),
        ("The answer is $1,000.50", None, "1000.50"),
        ("####4", None, "4"),
        ("none", None, None),
        ("", None, None),
    ],
)
def test_numbers_are_read_strictly_and_flexibly(text: str, hard: str | None, soft: str | None) -> None:
    """Strict: the first after `#### `; flexible: the last of all. Commas, dollars and a final stop do not count."""
    assert (strict(text), flexible(text)) == (hard, soft)


@given(st.lists(st.tuples(st.floats(-50, 0), st.text("ab", min_size=1, max_size=9)), min_size=2, max_size=5), st.data())
def test_choices_are_picked_by_sum_and_by_mean_over_bytes(pairs: list[tuple[float, str]], data: st.DataObject) -> None:
    """Against plain loops; ties go to the first, and the delimiter is no part of the length."""
    right = data.draw(st.integers(0, len(pairs) - 1))
    (item,) = items(lines(CHOICE | {"choices": [text for _, text in pairs], "answer": right}), Asking(kind="multiple-choice"))
    values = tuple(repr(value) for value, _ in pairs)
    best = {"sum": 0, "perByte": 0}
    for number, (value, text) in enumerate(pairs):
        if value > pairs[best["sum"]][0]:
            best["sum"] = number
        if value / len(text) > pairs[best["perByte"]][0] / len(pairs[best["perByte"]][1]):
            best["perByte"] = number
    found = score(item, Answer(id="a", log_likelihoods=values), "multiple-choice")
    assert found.shown == {"picked": best}
    assert found.outcomes == {name: place == right for name, place in best.items()}


def test_long_right_answers_need_the_length_normalised_score() -> None:
    """The sum prefers the short choice, the mean per byte the long one."""
    (item,) = items(lines(CHOICE | {"choices": ["no", "certainly so"], "answer": 1}), Asking(kind="multiple-choice"))
    assert score(item, Answer(id="a", log_likelihoods=("-3", "-6")), "multiple-choice").outcomes == {"sum": False, "perByte": True}


@pytest.mark.parametrize(
    ("kind", "row", "given", "words"),
    [
        ("multiple-choice", CHOICE, Answer(id="b", log_likelihoods=("-1", "-2")), "an answer to b stands where one to a"),
        ("multiple-choice", CHOICE, Answer(id="a", log_likelihoods=("-1",)), "1 log-likelihoods for 2 choices"),
        ("numeric-answer", NUMBER, Answer(id="a", log_likelihoods=("-1",)), "numeric-answer needs text"),
        ("code-execution", CODE, Answer(id="a"), "no verdict"),
    ],
)
def test_answers_that_do_not_fit_are_refused(kind: Kind, row: dict[str, Any], given: Answer, words: str) -> None:
    """Rather than counted as wrong."""
    (item,) = items(lines(row), Asking(kind=kind))
    with pytest.raises(InputError, match=words):
        score(item, given, kind)


def test_bytes_that_are_no_text_are_scored_as_what_can_be_read() -> None:
    """A broken byte becomes U+FFFD; the file keeps the byte."""
    given = Answer(id="a", data=b"\xff #### 4")
    (item,) = items(lines(NUMBER), Asking(kind="numeric-answer"))
    assert score(item, given, "numeric-answer").outcomes == {"strict": True, "flexible": True}
    made = Answers(asked=Digest.of(b""), settings={}, answers=(given,)).to_bytes()
    assert base64.b64encode(b"\xff #### 4") in made
    assert questions.Answers.parse(made).answers == (given,)


# --- what is told of an answer -----------------------------------------------------------------------------------------------------


def test_what_an_answerer_tells_stands_beside_its_answers() -> None:
    """One of each choice, one of a text, as it was told; who tells nothing leaves no trace."""
    asked = [Question(id="a", prompt="p", continuations=("x", "y")), Question(id="b", prompt="p")]
    answers = answer(asked, Teller(), max_bytes=4, stop=())
    assert [len(item.about) for item in answers] == [2, 1]
    made = Answers(asked=Digest.of(b""), settings={}, answers=answers)
    assert Answers.parse(made.to_bytes()) == made
    plain = Answers(asked=Digest.of(b""), settings={}, answers=answer(asked, Told(), max_bytes=4, stop=()))
    assert b"about" not in plain.to_bytes()
    assert plain.to_bytes() == Answers(asked=made.asked, settings={}, answers=tuple(replace(item, about=()) for item in answers)).to_bytes()


@pytest.mark.parametrize("about", [[], [{}, {}], {}, ["x"], None])
def test_what_is_told_of_other_answers_is_refused(about: object) -> None:
    """As many as there are answers, or no key at all."""
    row = {"id": "a", "text": "x", "about": about}
    with pytest.raises(InputError, match="or none"):
        Answers.parse(canonical.dumps({"questions": str(Digest.of(b"")), "settings": {}, "answers": [row]}))

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cli.output import Output
from cli.progress import Board, Live, Objects, Plain, done_line, plan_line, running_line, watcher
from stages.events import Event, Failed, Finished, Found, Planned, Progress, Started, Waiting, Warned


class Clock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def planned(total: int, found: int = 0, **more: Any) -> Planned:
    return Planned(total, found, more.pop("open", ()), more.pop("found_by", {}), more.pop("found_from", {}), **more)


def started(group: str, node: str) -> Started:
    return Started(group, node, "stage", f"key-{node}", "", 0)


def finished(group: str, node: str, size: int = 0, **notes: Any) -> Finished:
    return Finished(group, node, "stage", f"key-{node}", {"model": "d"}, {"model": size}, notes, 1.0, 7)


RUN: list[tuple[float, Event]] = [
    (0.0, planned(5, 1, found_by={"me": 1}, found_from={"other": 1}, groups={"import-model": 1, "profile": 3, "quant": 1})),
    (0.0, Found("import-model", "import-model", "import-model", "k", {})),
    (0.0, started("profile", "block-0")),
    (1.0, Progress("profile", "block-0", "key-block-0", 5, 10, "samples")),
    (2.0, finished("profile", "block-0", tokens=4000)),
    (2.0, started("profile", "block-1")),
    (2.5, Warned("profile", "block-1", "a sample is empty\x1b[2J")),
    (4.0, finished("profile", "block-1", tokens=4000)),
    (4.0, started("profile", "merge")),
    (4.5, finished("profile", "merge", 1200)),
    (4.5, started("quant", "quant")),
    (7.5, finished("quant", "quant", 4_100_000)),
]


def play(watcher: Any, clock: Clock, events: list[tuple[float, Event]] = RUN) -> None:
    with watcher:
        for at, event in events:
            clock.now_s = at
            watcher(event)


def test_a_pipe_gets_one_line_for_each_finished_stage() -> None:
    """On a pipe: the plan, each recipe stage when it is done, warnings; no control character anywhere."""
    clock, stream = Clock(), io.StringIO()
    play(Plain(Board(clock), Output(stream=stream), me="me", recipe="mine"), clock)
    assert stream.getvalue().splitlines() == [
        "plan  5 actions: 1 found (signed by you, 1 of them from other), 4 to do",
        "  import-model                 found",
        "  profile: a sample is empty\\x1b[2J",
        "  profile                      3 actions · 8,000 tokens · 1,778 tok/s  4.5 s",
        "  quant                        4.1 MB  3.0 s",
    ]


def test_when_all_is_found_one_line_says_so() -> None:
    """A run with nothing to do is one line, not one per stage."""
    clock, stream = Clock(), io.StringIO()
    events: list[tuple[float, Event]] = [(0, planned(2, 2, found_by={"me": 2}, groups={"a": 2}))]
    events += [(0, Found("a", node, "stage", node, {})) for node in ("x", "y")]
    play(Plain(Board(clock), Output(stream=stream), me="me", recipe="mine"), clock, events)
    assert stream.getvalue() == "plan  2 actions: 2 found (signed by you), 0 to do\n"


def test_json_gives_every_event_on_a_line() -> None:
    """With --json each event is one object, in order, with its kind."""
    clock, stream = Clock(), io.StringIO()
    play(Objects(Board(clock), Output(json=True, stream=stream)), clock)
    objects = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [item["event"] for item in objects] == [type(event).__name__.lower() for _, event in RUN]
    assert objects[-1]["sizes"] == {"model": 4_100_000}


def test_a_terminal_shows_every_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last picture of the live display has one line for each recipe stage, and warnings stay above it."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    clock, stream = Clock(), Terminal()
    play(Live(Board(clock), Output(stream=stream), me="me", recipe="mine"), clock)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    assert "\x1b[2J" not in stream.getvalue()
    assert "profile: a sample is empty\\x1b[2J" in text
    last = [line.rstrip() for line in text.splitlines()[-4:]]
    assert last[0].startswith("plan  5 actions")
    assert [line.split()[:2] for line in last[1:]] == [["import-model", "✓"], ["profile", "✓"], ["quant", "✓"]]
    assert last[3].endswith("3.0 s")


def test_the_watcher_fits_the_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal gets the live display, a pipe or a dumb terminal plain lines, --json objects."""
    monkeypatch.setenv("TERM", "xterm")
    for output, kind in (
        (Output(stream=Terminal()), Live),
        (Output(stream=io.StringIO()), Plain),
        (Output(json=True, stream=Terminal()), Objects),
    ):
        assert isinstance(watcher(output, Clock(), me="me", recipe="mine"), kind)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(watcher(Output(stream=Terminal()), Clock(), me="me", recipe="mine"), Plain)


def test_a_running_stage_tells_how_far_and_how_long() -> None:
    """Actions done, the step of the action that runs, and the time left at the pace so far."""
    clock = Clock()
    board = Board(clock)
    for at, event in RUN[:4]:
        clock.now_s = at
        board.take(event)
    assert running_line(board.groups["profile"], 1.0) == "0/3 actions · 5 s left · block-0 5/10 samples"


def test_no_time_is_left_to_tell_before_the_stage_is_expanded() -> None:
    """While more actions may come the time left is unknown, and not guessed."""
    clock = Clock()
    board = Board(clock)
    for event in (planned(2, groups={"a": 2}, open=("a",), open_groups=("a",)), started("a", "x"), finished("a", "x")):
        clock.now_s += 2
        board.take(event)
    assert board.groups["a"].left_s(clock.now_s) is None
    assert not board.groups["a"].finished


def test_waiting_for_another_run_is_said() -> None:
    """An action that another process computes is named as such."""
    board = Board(Clock())
    board.take(planned(1, groups={"a": 1}))
    board.take(Waiting("a", "a", "k"))
    assert running_line(board.groups["a"], 0.0) == "another run is computing it; waiting for its result"
    board.take(Found("a", "a", "stage", "k", {}))
    assert board.groups["a"].finished


def test_an_action_counts_once_whoever_asks_for_it() -> None:
    """An action that two nodes ask for is one action of the first one's stage, found or done."""
    board = Board(Clock())
    for event in (planned(2, groups={"a": 2, "b": 0}), started("a", "x"), finished("a", "x"), replace(finished("b", "x"), node="y")):
        board.take(event)
    for name in ("a", "b"):
        board.take(Found(name, name, "stage", "key-z", {}))
    assert [(group.found, group.ran, group.finished) for group in board.groups.values()] == [(1, 1, True), (0, 0, True)]
    board.take(replace(finished("a", "z"), key="key-z"))
    assert (board.groups["a"].found, board.groups["a"].ran) == (0, 2)


def test_stages_stand_in_the_recipes_order() -> None:
    """Whatever is heard of first, the plan says the order."""
    board = Board(Clock())
    board.take(Found("late", "x", "stage", "k", {}))
    board.take(planned(2, groups={"early": 1, "late": 1}))
    assert list(board.groups) == ["early", "late"]


def test_waiting_for_another_stage_is_no_part_of_the_pace() -> None:
    """The time left is told by how long its own actions ran, and not at all while none runs."""
    clock = Clock()
    board = Board(clock)
    board.take(planned(4, groups={"a": 4}))
    for at, event in ((0.0, started("a", "x")), (2.0, finished("a", "x")), (100.0, started("a", "y")), (102.0, finished("a", "y"))):
        clock.now_s = at
        board.take(event)
    assert board.groups["a"].left_s(150.0) is None
    clock.now_s = 200.0
    board.take(started("a", "z"))
    assert board.groups["a"].left_s(200.0) == 4.0


@pytest.mark.parametrize(
    ("node", "label", "shown"),
    [
        ("quant", "", "quant"),
        ("quant/Q4_K_M", "quant/Q4_K_M", "Q4_K_M"),
        ("eval/pruned/perplexity-F16/perplexity/block-3", "block 4/12", "pruned perplexity-F16 block 4/12"),
    ],
)
def test_a_running_action_says_what_it_is_part_of(node: str, label: str, shown: str) -> None:
    """The step's label alone could be of any model; the part of the stage stands before it."""
    board = Board(Clock())
    board.take(Started("g", node, "stage", "k", label, 0))
    assert board.groups["g"].running["k"].label == shown


def test_a_failure_leaves_the_rest_countable() -> None:
    """After a failure the board still knows what was kept."""
    board = Board(Clock())
    for event in (
        planned(2, groups={"a": 2}),
        started("a", "x"),
        finished("a", "x"),
        started("a", "y"),
        Failed("a", "y", "s", "key-y", "m"),
    ):
        board.take(event)
    assert (len(board.recorded), len(board.failures), board.groups["a"].finished) == (1, 1, False)


@pytest.mark.parametrize(
    ("notes", "words"),
    [
        ({"summary": "perplexity 43.3"}, "perplexity 43.3"),
        ({"layers": 4, "experts": 8}, "4 layers x 8 experts"),
        ({"weights_bytes_after": 12_400_000, "weight_bytes_written": 0}, "12.4 MB of weights · 0 bytes of them written"),
        ({"something": "else"}, "10 bytes"),
    ],
)
def test_a_finished_stage_says_what_it_came_to(notes: dict[str, Any], words: str) -> None:
    """What the stage noted is told in words; where it noted nothing that is known, the size of what it made."""
    board = Board(Clock())
    for event in (planned(1, groups={"a": 1}), started("a", "x"), finished("a", "x", 10, **notes)):
        board.take(event)
    assert done_line(board.groups["a"]) == words


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (planned(31), "31 actions: 0 found, 31 to do"),
        (planned(31, 31, found_by={"me": 31}), "31 actions: 31 found (signed by you), 0 to do"),
        (planned(1, 1, found_by={"alice": 1}), "1 action: 1 found (1 signed by alice), 0 to do"),
        (planned(3, 2, found_by={"alice": 1, "me": 1}), "3 actions: 2 found (1 signed by alice, 1 signed by you), 1 to do"),
        (
            planned(42, 19, found_by={"me": 19}, found_from={"mine": 7, "other": 12}),
            "42 actions: 19 found (signed by you, 12 of them from other), 23 to do",
        ),
        (planned(2, open=("profile",)), "2 actions so far: 0 found, 2 to do"),
        (
            planned(5, 4, found_by={"me": 4}, environments={"sha256:" + "a" * 64: 3, "sha256:" + "b" * 64: 1}),
            "5 actions: 4 found (signed by you, made in 2 environments: 3 in aaaaaaaa, 1 in bbbbbbbb; "
            "--environment same takes your own alone), 1 to do",
        ),
    ],
)
def test_the_plan_in_words(plan: Planned, words: str) -> None:
    """The plan says how many actions there are, how many are found, whose they are and from where."""
    assert plan_line(plan, me="me", recipe="mine") == words

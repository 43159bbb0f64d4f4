"""What a watcher of a run sees: a board that remembers the events, and three ways to show it.

`Board` is pure but for the clock that it is given. `Live` draws it on a terminal, `Plain` writes one line per finished recipe stage, and
`Objects` writes every event as a JSON object. rich is imported by `Live` alone.
"""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from cli.output import Output, clean, count, duration, many, short, size
from stages.events import Event, Failed, Finished, Found, Planned, Progress, Started, Waiting, Warned

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

Clock = Callable[[], float]


@dataclass
class Running:
    """An action that a worker has.

    Attributes:
        done, total, unit: as the leaf told last; total 0 when it told nothing.
        since_s: when it started, by the board's clock.
    """

    label: str
    since_s: float
    done: int = 0
    total: int = 0
    unit: str = ""


@dataclass
class Group:
    """One recipe stage and its actions.

    Attributes:
        total: actions known so far; whole: no more will come.
        size_bytes: all outputs of the actions that ran; files: sizes in bytes of the GGUF files among them.
        notes: what they noted, numbers added up, of anything else the last; summaries: each one's summary in words.
        busy_s: for how long at least one of its actions ran, up to `since_s`, from when on one runs now, by the board's clock.
    """

    name: str
    total: int = 0
    whole: bool = False
    found: int = 0
    ran: int = 0
    failed: int = 0
    waiting: set[str] = field(default_factory=set)
    running: dict[str, Running] = field(default_factory=dict)
    size_bytes: int = 0
    files: list[int] = field(default_factory=list)
    summaries: list[str] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    busy_s: float = 0.0
    since_s: float = 0.0

    def began(self, key: str, label: str, now_s: float) -> None:
        """An action of it started."""
        self.since_s = self.since_s if self.running else now_s
        self.running[key] = Running(label, now_s)

    def stopped(self, key: str, now_s: float) -> None:
        """An action of it ended, one way or another."""
        if self.running.pop(key, None) is not None and not self.running:
            self.busy_s += now_s - self.since_s

    @property
    def finished(self) -> bool:
        """Nothing of it is left to do."""
        return self.whole and not self.running and self.found + self.ran >= self.total

    @property
    def elapsed_s(self) -> float:
        """For how long it was at work; 0 when all was found."""
        return self.busy_s

    def left_s(self, now_s: float) -> float | None:
        """How long it will still take at the pace so far, or None while there is no pace, or while it waits for another stage."""
        if not self.running or not self.whole:
            return None
        share = sum(item.done / item.total for item in self.running.values() if item.total)
        work, spent = self.ran + share, self.busy_s + now_s - self.since_s
        return (self.total - self.found - work) * spent / work if work > 0 and spent > 0.5 else None


class Board:
    """The run so far, from its events. Safe to read from another thread."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.lock = threading.RLock()
        self.started_s = clock()
        self.plan: Planned | None = None
        self.groups: dict[str, Group] = {}
        self.failures: list[Failed] = []
        self._seen: set[str] = set()
        self.recorded: set[str] = set()
        """Keys of the actions that ran and are kept; several nodes may share one."""

    @property
    def idle(self) -> bool:
        """As far as is known, nothing has to be done: all was found."""
        return self.plan is None or (self.plan.found >= self.plan.total and not self.plan.open and not self.recorded and not self.failures)

    def take(self, event: Event) -> None:
        """Remember one event."""
        with self.lock:
            if isinstance(event, Planned):
                self.plan = event
                self.groups = {name: self._group(name) for name in (*event.groups, *self.groups)}
                for name, total in event.groups.items():
                    self.groups[name].total, self.groups[name].whole = total, name not in event.open_groups
                return
            group, now = self._group(event.group), self.clock()
            if isinstance(event, Found):
                group.waiting.discard(event.key)
                group.found += self._first(event.key)
            elif isinstance(event, Started):
                group.waiting.discard(event.key)
                group.began(event.key, _label(event), now)
            elif isinstance(event, Progress):
                if event.key in group.running:
                    running = group.running[event.key]
                    running.done, running.total, running.unit = event.done, event.total, event.unit
            elif isinstance(event, Finished):
                group.stopped(event.key, now)
                if event.key in self.recorded:
                    return  # another node asked for the same action
                if not self._first(event.key):
                    group.found -= 1  # found, and made again because its bytes were gone
                self.recorded.add(event.key)
                group.ran += 1
                group.size_bytes += sum(event.sizes.values())
                group.files += [length for name, length in event.sizes.items() if name.startswith("gguf")]
                group.summaries += [str(event.notes["summary"])] if "summary" in event.notes else []
                _gather(group.notes, event.notes)
            elif isinstance(event, Waiting):
                group.waiting.add(event.key)
            elif isinstance(event, Failed):
                group.stopped(event.key, now)
                group.failed += 1
                self.failures.append(event)

    def _first(self, key: str) -> bool:
        """Whether an action is told of for the first time; several nodes may ask for it, and it counts once."""
        new = key not in self._seen
        self._seen.add(key)
        return new

    def _group(self, name: str) -> Group:
        return self.groups.setdefault(name, Group(name))


def _label(event: Started) -> str:
    """What a person reads about a running action: for which part of the stage, and which step: `pruned perplexity-Q4_K_M block 3/12`."""
    *parts, last = event.node.split("/")[1:] or [event.node]
    step = last if event.label in ("", event.node) else event.label
    return " ".join([*parts[:2], step])


def _gather(into: dict[str, Any], notes: Mapping[str, Any]) -> None:
    for name, value in notes.items():
        adds = isinstance(value, (int, float)) and not isinstance(value, bool) and not name.endswith("_per_s")
        into[name] = into.get(name, 0) + value if adds else value


# --- words ---------------------------------------------------------------------------------------------------------------------


def plan_line(plan: Planned, *, me: str, recipe: str) -> str:
    """`31 actions: 19 found (12 of them from mixtral-tiny-6e), 12 to do`.

    Args:
        plan: what the runner said.
        me: the name of one's own key: "signed by you".
        recipe: the recipe that runs; what was found from it needs no mention.
    """
    told = []
    if plan.found and set(plan.found_by) == {me}:
        told.append("signed by you")
    else:
        told += [f"{count(number)} signed by {'you' if name == me else name}" for name, number in sorted(plan.found_by.items())]
    told += [f"{count(number)} of them from {name}" for name, number in sorted(plan.found_from.items()) if name != recipe]
    if len(plan.environments) > 1:
        kinds = ", ".join(f"{count(number)} in {short(digest)}" for digest, number in sorted(plan.environments.items()))
        told.append(f"made in {len(plan.environments)} environments: {kinds}; --environment same takes your own alone")
    found = f"{count(plan.found)} found" + (f" ({', '.join(told)})" if plan.found and told else "")
    known = " so far" if plan.open else ""
    return clean(f"{many(plan.total, 'action')}{known}: {found}, {count(plan.total - plan.found)} to do")


def done_line(group: Group) -> str:
    """What a finished recipe stage amounted to: from what its actions noted, else how much they made."""
    if not group.ran:
        return "found" if group.found <= 1 else f"{count(group.found)} found"
    notes = group.notes
    facts = [many(group.ran, "action")] if group.ran > 1 else []
    if group.found:
        facts.append(f"{count(group.found)} found")
    told = group.summaries if len(group.summaries) == 1 else []
    told = told + [words(notes) for needs, words in _NOTES if all(name in notes for name in needs)]
    if len(group.files) == group.ran:  # a stage that makes files and nothing else
        told = [size(length) for length in sorted(group.files, reverse=True)]
    if not told and group.size_bytes:
        told.append(size(group.size_bytes))
    if "tokens" in notes and group.elapsed_s > 0.5:
        told.append(f"{count(round(notes['tokens'] / group.elapsed_s))} tok/s")
    return clean(" · ".join([*facts, *told]) or "done")


_NOTES: tuple[tuple[tuple[str, ...], Callable[[Mapping[str, Any]], str]], ...] = (
    (("tokens",), lambda notes: many(int(notes["tokens"]), "token")),
    (("layers", "experts"), lambda notes: f"{notes['layers']} layers x {notes['experts']} experts"),
    (("downloaded_bytes",), lambda notes: f"{size(int(notes['downloaded_bytes']))} downloaded"),
    (("weights_bytes",), lambda notes: f"{size(int(notes['weights_bytes']))} of weights"),
    (("weights_bytes_after",), lambda notes: f"{size(int(notes['weights_bytes_after']))} of weights"),
    (("weight_bytes_written",), lambda notes: f"{size(int(notes['weight_bytes_written']))} of them written"),
)
"""Notes by which stages say what they did, in the order in which they are told: the names needed, and the words."""


def running_line(group: Group, now_s: float) -> str:
    """What an unfinished recipe stage is doing; what matters most comes first, because a narrow terminal cuts the end."""
    counts: list[str] = []
    steps: list[str] = []
    if group.total > 1:
        counts.append(f"{count(group.found + group.ran)}/{count(group.total)} actions")
    for running in group.running.values():
        step = running.label if group.total > 1 else ""
        if running.total:
            done, total = (size(n) if running.unit == "bytes" else count(n) for n in (running.done, running.total))
            step = f"{step} {done} of {total}" if running.unit == "bytes" else f"{step} {done}/{total} {running.unit}"
        (steps if group.total > 1 else counts).extend([step.strip()] if step else [])
        if running.unit == "tokens" and running.done and now_s - running.since_s > 0.5:
            counts.append(f"{count(round(running.done / (now_s - running.since_s)))} tok/s")
    left = group.left_s(now_s)
    if left is not None and left >= 1:
        counts.append(f"{duration(round(left)).replace('.0 s', ' s')} left")
    if not group.running and group.waiting:
        steps.append("another run is computing it; waiting for its result")
    return clean(" · ".join([*counts, *steps]) or "waiting for earlier stages")


# --- three ways to show it -----------------------------------------------------------------------------------------------------


class Watcher(Protocol):
    """Gets every event of a run; used as a context, so that it can clean up after itself."""

    board: Board

    def __call__(self, event: Event) -> None:
        """Show one event."""
        ...

    def __enter__(self) -> Watcher:
        """Begin."""
        ...

    def __exit__(self, *_: object) -> None:
        """End, in whatever state the run is."""
        ...


class Objects:
    """Every event as one JSON object on a line of its own, `event` naming its kind."""

    def __init__(self, board: Board, output: Output) -> None:
        self.board, self.output = board, output

    def __enter__(self) -> Objects:
        return self

    def __exit__(self, *_: object) -> None:
        self.output.stream.flush()

    def __call__(self, event: Event) -> None:
        """Write it at once, so that a program can follow."""
        self.board.take(event)
        facts = {item.name: getattr(event, item.name) for item in dataclasses.fields(event)}
        self.output.object({"event": type(event).__name__.lower(), **facts})
        self.output.stream.flush()


class Plain:
    """Lines without control characters: the plan, each recipe stage once it is finished, warnings and failures at once."""

    def __init__(self, board: Board, output: Output, *, me: str, recipe: str) -> None:
        self.board, self.output, self.me, self.recipe = board, output, me, recipe
        self._told: set[str] = set()

    def __enter__(self) -> Plain:
        return self

    def __exit__(self, *_: object) -> None:
        self._tell(final=True)
        self.output.stream.flush()

    def __call__(self, event: Event) -> None:
        """Write what became known."""
        first = self.board.plan is None
        self.board.take(event)
        if isinstance(event, Planned) and first:
            self.output.line(f"plan  {plan_line(event, me=self.me, recipe=self.recipe)}")
        elif isinstance(event, Warned):
            self.output.line(f"  {event.group}: {event.message}")
        self._tell(final=False)
        self.output.stream.flush()

    def _tell(self, *, final: bool) -> None:
        if self.board.idle:
            return
        for group in self.board.groups.values():
            cut_short = final and group.ran and not group.failed
            if group.name not in self._told and (group.finished or cut_short):
                self._told.add(group.name)
                took = f"  {duration(group.elapsed_s)}" if group.ran else ""
                self.output.line(f"  {clean(group.name):<28} {done_line(group)}{took}")


class Live:
    """One line for each recipe stage, redrawn while it changes; what stays on the screen at the end is the summary."""

    def __init__(self, board: Board, output: Output, *, me: str, recipe: str) -> None:
        from rich.console import Console
        from rich.live import Live as Screen

        self.board, self.me, self.recipe = board, me, recipe
        self._console = Console(file=output.stream, highlight=False, markup=False, emoji=False, no_color=not output.color)
        self._screen = Screen(console=self._console, get_renderable=self._draw, refresh_per_second=8, redirect_stderr=False)

    def __enter__(self) -> Live:
        self._screen.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._screen.stop()

    def __call__(self, event: Event) -> None:
        """Remember it; the screen redraws by itself. Warnings are written above the display and stay."""
        self.board.take(event)
        if isinstance(event, Warned):
            from rich.text import Text

            self._console.print(Text(f"  {clean(event.group)}: {clean(event.message)}", style="yellow"))

    def _draw(self) -> RenderableType:
        from rich.console import Group as Stack
        from rich.text import Text

        with self.board.lock:
            board, now = self.board, self.board.clock()
            if board.plan is None:
                return Text("plan  ...", style="dim")
            head = Text(f"plan  {plan_line(board.plan, me=self.me, recipe=self.recipe)}")
            if board.idle:
                return head
            return Stack(head, *(self._row(group, now) for group in board.groups.values()))

    def _row(self, group: Group, now_s: float) -> Text:
        from rich.text import Text

        spinner = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"[int(now_s * 8) % 10]
        if group.failed:
            mark, style, words, took = "✗", "red", "failed", ""
        elif group.finished:
            mark, style, words = "✓", "green", done_line(group)
            took = duration(group.elapsed_s) if group.ran else ""
        elif group.running or group.waiting:
            mark, style, words, took = spinner, "bold", running_line(group, now_s), ""
        else:
            mark, style, words, took = "·", "dim", running_line(group, now_s), ""
        width = self._console.width
        left = f"  {clean(group.name):<28} "
        room = max(10, width - len(left) - len(took) - 4)
        words = words if len(words) <= room else words[: room - 1] + "…"
        row = Text(left, no_wrap=True, overflow="ellipsis")
        row.append(mark, style)
        row.append(f" {words:<{room}} {took}", "dim" if style == "dim" else "")
        return row


def watcher(output: Output, clock: Clock, *, me: str, recipe: str) -> Watcher:
    """The way that fits: JSON when asked for, a live display on a terminal, plain lines otherwise."""
    board = Board(clock)
    if output.json:
        return Objects(board, output)
    if output.stream.isatty() and os.environ.get("TERM") != "dumb":
        return Live(board, output, me=me, recipe=recipe)
    return Plain(board, output, me=me, recipe=recipe)

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from cli.output import Output, clean, dumps, place, table, wants_color
from stages.events import Warned
from store.digest import Digest


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return Terminal()


def test_colors_are_for_terminals(terminal: Terminal) -> None:
    """A terminal gets colours, a pipe none."""
    assert Output(stream=terminal).paint("proven", "green") == "\x1b[32mproven\x1b[0m"
    assert Output(stream=io.StringIO()).paint("proven", "green") == "proven"


def test_no_color_is_honoured(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR with any value, and a dumb terminal, get no colours; an empty NO_COLOR says nothing."""
    monkeypatch.setenv("NO_COLOR", "")
    assert wants_color(terminal)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_color(terminal)
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not wants_color(terminal)


@pytest.mark.parametrize("text", ["a\nb", "a\rb", "\x1b[2J", "\x1b]0;title\x07", "\x9b31m", "a\u202eb", "a\u2028b"])
def test_a_strangers_text_cannot_move_the_cursor(text: str, terminal: Terminal) -> None:
    """Control characters from a ledger or a file are shown, not obeyed, on a terminal as on a pipe."""
    for stream in (terminal, io.StringIO()):
        output = Output(stream=stream)
        output.line(f"entry {text}")
        written = stream.getvalue()
        assert written.endswith("\n")
        assert written[:-1].isprintable()


def test_a_strangers_colors_are_not_painted(terminal: Terminal) -> None:
    """What is painted is cleaned first, so a name cannot end our red and start its own green."""
    assert Output(stream=terminal).paint("x\x1b[0m\x1b[32mproven", "red") == "\x1b[31mx\\x1b[0m\\x1b[32mproven\x1b[0m"


def test_json_replaces_text() -> None:
    """With --json the lines are silent and the facts are one JSON object, digests whole; asides go to standard error."""
    stream, errors = io.StringIO(), io.StringIO()
    output = Output(json=True, stream=stream, errors=errors)
    output.line("text")
    output.aside("made .ledger")
    output.show({"digest": Digest.of(b"")}, ["text"])
    assert json.loads(stream.getvalue()) == {"digest": str(Digest.of(b""))}
    assert errors.getvalue() == "made .ledger\n"


def test_dataclasses_paths_and_sets_have_a_json_form() -> None:
    """Everything that a command may hand over is written as plain JSON."""
    value = {"event": Warned("g", "n", "m"), "path": Path("a"), "set": {"b", "a"}, "tuple": (1,)}
    assert json.loads(dumps(value)) == {"event": {"group": "g", "node": "n", "message": "m"}, "path": "a", "set": ["a", "b"], "tuple": [1]}


def test_columns_line_up_with_colors() -> None:
    """Colour codes take no room in a column."""
    assert table([["\x1b[31mred\x1b[0m", "1"], ["green", "22"]], "<>") == ["\x1b[31mred\x1b[0m     1", "green  22"]


def test_paths_read_as_one_would_type_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths under the working folder are relative, those under home start with ~, others are whole."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert place(Path(".ledger")) == ".ledger"
    assert place(Path()) == "."
    assert place(tmp_path / "home" / ".config") == "~/.config"
    assert place(tmp_path / "other") == str(tmp_path / "other")


def test_clean_leaves_ordinary_text_alone() -> None:
    """Letters of any script, arrows and check marks pass."""
    assert clean("expert-prune 8→6 ✓ übung 模型") == "expert-prune 8→6 ✓ übung 模型"

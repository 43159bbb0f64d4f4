from __future__ import annotations

import json
import re
from collections.abc import Sequence

import pytest

from cli.errors import exit_code
from cli.main import COMMANDS, KEY_COMMANDS, help_texts, main
from ledger.errors import PassphraseError, PolicyError, RewrittenError, SignatureError
from stages.errors import InputError, RecipeError
from store.errors import CorruptError, NotFoundError
from tests.cli.conftest import Desk


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SignatureError("x"), 3),
        (RewrittenError("x"), 3),
        (CorruptError("sha256:0", "1"), 4),
        (RecipeError("x"), 2),
        (PolicyError("p", "x"), 2),
        (InputError("x"), 1),
        (PassphraseError("k", "x"), 1),
        (NotFoundError("sha256:0"), 1),
        (OSError(28, "No space left on device"), 1),
        (KeyError("x"), None),
    ],
)
def test_every_error_has_its_exit_code(error: Exception, code: int | None) -> None:
    """The documented exit codes; an error of no known kind is a fault of the program."""
    assert exit_code(error) == code


def test_a_mistyped_command_is_met_with_the_nearest(desk: Desk) -> None:
    """Exit code 2, the nearest command, and where to read more; no traceback."""
    said = desk.type("verfy")
    assert (said.code, said.out) == (2, "")
    assert said.err == "error: there is no command 'verfy'; did you mean 'verify'?\n  try: ledger --help\n"


@pytest.mark.parametrize("arguments", [["status", "--nope"], ["run"], ["log", "-n", "x"], ["gc", "too", "many"], ["key"], ["key", "nope"]])
def test_wrong_usage_is_exit_code_2(desk: Desk, arguments: Sequence[str]) -> None:
    """Unknown options, missing or wrong arguments: exit code 2 and a message."""
    said = desk.type(*arguments)
    assert said.code == 2
    assert "error: " in said.err or "Usage: " in said.out + said.err


def test_with_json_an_error_is_json(desk: Desk) -> None:
    """--json gives errors as one object on standard error, whether ours or of usage; standard output stays empty."""
    for arguments, code, kind in ((["status", "--json"], 1, "NoLedgerError"), (["status", "--json", "--nope"], 2, "UsageError")):
        said = desk.type(*arguments)
        error = json.loads(said.err)["error"]
        assert (said.code, said.out, error["exit_code"], error["kind"]) == (code, "", code, kind)


def test_an_unforeseen_fault_says_so(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of the program itself is no traceback but a sentence that says how to get one; --debug gives it."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("cli.status.open_here", broken)
    said = desk.type("status")
    assert said.code == 1
    assert said.err.startswith("error: a fault in ledger itself: ZeroDivisionError: division by zero\n")
    with pytest.raises(ZeroDivisionError):
        desk.type("status", "--debug")


def test_an_interrupt_is_exit_code_130(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends with 130 and says that what was recorded is kept."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cli.status.open_here", interrupted)
    said = desk.type("status")
    assert (said.code, said.err) == (130, "error: interrupted; whatever was recorded is kept\n")


def test_options_may_stand_before_the_command(done: Desk) -> None:
    """`ledger --json status` is `ledger status --json`, also for the commands of `key`, and so is --ledger."""
    assert done.ok("--json", "status").json == done.ok("status", "--json").json
    assert done.ok("--json", "key", "list").json == done.ok("key", "list", "--json").json
    assert done.ok("--json", "--ledger", done.ledger, "status").json["entries"] == 7


def test_help_is_complete_and_stable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The texts for the README: every command, the same on any terminal, no line too long."""
    monkeypatch.setenv("COLUMNS", "60")
    texts = help_texts()
    monkeypatch.setenv("COLUMNS", "200")
    assert help_texts() == texts
    titles = re.findall(r"^\$ (.*) --help$", texts, re.M)
    assert titles == ["ledger", *(line for name in COMMANDS for line in _commands(name))]
    assert max(map(len, texts.splitlines())) <= 100


def _commands(name: str) -> list[str]:
    return [f"ledger {name}", *([f"ledger key {sub}" for sub in sorted(KEY_COMMANDS)] if name == "key" else [])]


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    """--help and -h work everywhere, with exit code 0."""
    for name in COMMANDS:
        assert main([name, "--help"]) == 0
        assert capsys.readouterr().out.startswith(f"Usage: ledger {name}")
    assert main(["-h"]) == 0


def test_the_version(desk: Desk) -> None:
    """`ledger version` and `ledger --version` say the same."""
    assert desk.ok("version").out == desk.ok("--version").out
    assert desk.ok("version", "--json").json["version"]

"""The `ledger` command: its subcommands, and the one place where an error becomes a message and an exit code.

Every command lives in a module of its own that is imported when it is called, and imports what it needs of the store, the ledger or the
stages inside its functions, so that `ledger --help`, `verify`, `status` and `log` start at once.
"""

from __future__ import annotations

import difflib
import importlib
import io
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from cli.errors import FAILED, INTERRUPTED, USAGE, exit_code
from cli.options import debug_option, json_option, ledger_option
from cli.output import clean, dumps, wants_color

COMMANDS: Mapping[str, tuple[str, str]] = {
    "run": ("cli.run:run", "Do what a recipe asks for and is not in the ledger yet"),
    "verify": ("cli.verify:verify", "What is proven about a model, a file or the ledger"),
    "status": ("cli.status:status", "What is here, in progress, and broken"),
    "log": ("cli.log:log", "The entries, newest first"),
    "show": ("cli.show:show", "What something is, who made it, from what"),
    "why": ("cli.why:why", "Why an action ran or must run, field by field"),
    "compare": ("cli.compare:compare", "The evaluated models of several recipes in one table"),
    "export": ("cli.export:export", "Models and files out of the store"),
    "publish": ("cli.publish:publish", "A model with its card and its proof to the Hub, in one commit"),
    "init": ("cli.init:init", "A ledger, a key and a policy; the first run does it too"),
    "key": ("cli.keys:key", "Your keys, and whom the policy trusts"),
    "witness": ("cli.witness:witness", "Sign that a log was seen, now and whole"),
    "pin": ("cli.pin:pin", "Keep an object whatever happens"),
    "unpin": ("cli.pin:unpin", "Let go of a pin"),
    "gc": ("cli.gc:gc", "Delete what nothing needs, after showing it"),
    "fsck": ("cli.fsck:fsck", "Stored bytes against their names"),
    "version": ("cli.version:version", "The version"),
}
"""Name -> where the command is, and what the list of commands says about it."""

KEY_COMMANDS = ("new", "import", "list", "export", "rotate", "revoke", "trust")
"""Of `ledger key`; named here so that its module is imported only when it is called."""


class Commands(click.Group):
    """The subcommands, each imported when it is needed; the list of them imports none."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of use, not of the alphabet."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that was typed, or offer the nearest."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            ctx.fail(f"there is no command {args[0]!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, words) for name, (_, words) in COMMANDS.items()])


@click.group(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 failed, 2 usage, 3 verification failed, 4 store corrupt, 130 interrupted.",
)
@ledger_option
@json_option
@click.option("--version", "show_version", is_flag=True, help="The version, and stop.")
@debug_option
@click.pass_context
def app(context: click.Context, ledger: Path | None, json: bool, show_version: bool) -> int:
    """Do work on language models so that nothing is computed twice, and prove to anybody what was done.

    Without a command: what is in this folder, and what to type next.
    """
    # `ledger --json status` means `ledger status --json`.
    given = {name: value for name, value in (("ledger", ledger), ("json", json)) if value}
    context.default_map = {name: given for name in COMMANDS} | {"key": {name: given for name in KEY_COMMANDS}}
    if context.invoked_subcommand is not None:
        return 0
    if show_version:
        from cli.version import tell

        tell(json=json)
        return 0
    from cli.status import start

    return start(ledger, json=json)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return the exit code. Prints whatever there is to say; never raises for what a person did."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without arrows and check marks gets question marks, not an error
    try:
        with app.make_context("ledger", given.copy()) as context:
            code: int | None = app.invoke(context)
        sys.stdout.flush()
        return code or 0
    except BrokenPipeError:
        # Whoever read the output has gone (`ledger log | head`). Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13
    except (KeyboardInterrupt, click.Abort) as stop:
        return _tell(str(stop) or "interrupted; whatever was recorded is kept", "Interrupted", INTERRUPTED, given)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        return _tell(_usage(error), "UsageError", USAGE, given)
    except Exception as error:  # the one place where every error becomes a message and an exit code
        if "--debug" in given:
            raise
        return _report(error, given)


def _usage(error: click.ClickException) -> str:
    words = error.format_message()
    context = error.ctx if isinstance(error, click.UsageError) else None
    return words + (f"\ntry: {context.command_path} --help" if context is not None else "")


def _report(error: Exception, arguments: Sequence[str]) -> int:
    code = exit_code(error)
    if code is None:
        words = f"a fault in ledger itself: {type(error).__name__}: {error}\nrun it again with --debug and report what that shows"
        return _tell(words, type(error).__name__, FAILED, arguments)
    if isinstance(error, OSError):
        path = f"{error.filename}: " if error.filename else ""
        return _tell(f"{path}{error.strerror or error}", type(error).__name__, code, arguments)
    return _tell(str(error), type(error).__name__, code, arguments)


def _tell(words: str, kind: str, code: int, arguments: Sequence[str]) -> int:
    """An error for people, or as a JSON object; always on standard error, so that the answer stays whole."""
    errors = sys.stderr
    try:
        if "--json" in arguments:
            errors.write(dumps({"error": {"kind": kind, "message": words, "exit_code": code}}) + "\n")
        else:
            first, *rest = words.splitlines() or [""]
            mark = "\x1b[31merror:\x1b[0m" if wants_color(errors) else "error:"
            errors.write("\n".join([f"{mark} {clean(first)}", *(f"  {clean(line)}" for line in rest)]) + "\n")
        errors.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), errors.fileno())
    return code


def help_texts(width: int = 100) -> str:
    """All `--help` texts, one after another, for the README: the same on every terminal."""
    with app.make_context("ledger", [], resilient_parsing=True, terminal_width=width, max_content_width=width) as context:
        return "\n\n".join(_help_of(app, context)) + "\n"


def _help_of(command: click.Command, context: click.Context) -> list[str]:
    texts = [f"$ {context.command_path} --help\n{command.get_help(context).strip()}"]
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner_command = command.get_command(context, name)
            assert inner_command is not None  # it was listed
            with inner_command.make_context(name, [], parent=context, resilient_parsing=True) as inner:
                texts += _help_of(inner_command, inner)
    return texts


if __name__ == "__main__":
    sys.exit(main())

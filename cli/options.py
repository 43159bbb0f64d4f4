"""The options that every command has, each said once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)

ledger_option = click.option(
    "--ledger", metavar="DIR", type=PATH, help="The ledger's folder. Default: $LEDGER_DIR, else the nearest .ledger here or above."
)
json_option = click.option("--json", is_flag=True, help="The same facts as JSON.")
# `cli.main` looks for it itself: it must work for errors in the options too.
debug_option = click.option("--debug", is_flag=True, expose_value=False, help="On an error, the whole traceback.")


def common(command: F) -> F:
    """The options of a command that looks at a ledger: gives it `ledger: Path | None` and `json: bool`."""
    return ledger_option(json_option(debug_option(command)))

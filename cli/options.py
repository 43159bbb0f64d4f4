"""The options that every command has, each said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

LedgerDir = Annotated[
    Path | None,
    typer.Option("--ledger", metavar="DIR", help="The ledger's folder. Default: $LEDGER_DIR, else the nearest .ledger here or above."),
]
Json = Annotated[bool, typer.Option("--json", help="The same facts as JSON.")]
Debug = Annotated[bool, typer.Option("--debug", help="On an error, the whole traceback.")]

"""`ledger version`."""

from __future__ import annotations

import click

from cli.options import debug_option, json_option
from cli.output import Output


@click.command()
@json_option
@debug_option
def version(json: bool) -> int:
    """The version of this program, and of Python."""
    tell(json=json)
    return 0


def tell(*, json: bool) -> None:
    """Print the version."""
    import platform
    from importlib import metadata

    number = metadata.version("alloy-ledger")
    Output(json=json).show(
        {"version": number, "python": platform.python_version()}, [f"ledger {number} (Python {platform.python_version()})"]
    )

"""`ledger pin` and `ledger unpin`: objects that `gc` keeps whatever else is true."""

from __future__ import annotations

from pathlib import Path

import click

from cli.errors import UsageError
from cli.names import check_pin_name, find_object, pins
from cli.options import common
from cli.output import Output, short, table
from cli.workspace import open_here
from store.files import replace_file


@click.command()
@click.argument("target", required=False)
@click.option("--name", metavar="NAME", help="What to call it. Default: after the target.")
@common
def pin(target: str | None, name: str | None, ledger: Path | None, json: bool) -> int:
    """Keep an object, and everything that it needs, when `ledger gc` cleans up; or list what is kept so.

    TARGET is RECIPE, RECIPE:OUTPUT or a DIGEST; without it the pins are listed.
    """
    workspace, output = open_here(ledger), Output(json=json)
    if target is None:
        kept = pins(workspace.folder)
        output.show(
            {"pins": {item: str(digest) for item, digest in kept.items()}},
            table([[item, short(digest, 12)] for item, digest in kept.items()]) or ["nothing is pinned; next: ledger pin RECIPE"],
        )
        return 0
    digest, called = find_object(workspace, target)
    name = check_pin_name(name or (called if called != digest.hex[:12] else f"pin-{called}"))
    if not workspace.store.has(digest):
        raise UsageError(f"{target} ({short(digest, 12)}) is not in the store, so there is nothing to keep; run the recipe that makes it")
    known = pins(workspace.folder).get(name)
    if known not in (None, digest):
        raise UsageError(f"the pin {name} keeps {short(known, 12)}; choose another name with --name, or `ledger unpin {name}` first")
    folder = workspace.folder / "pins"
    folder.mkdir(exist_ok=True)
    replace_file(folder / name, f"{digest}\n".encode())
    output.show({"name": name, "digest": str(digest)}, [f"pinned {short(digest, 12)} as {name}"])
    return 0


@click.command()
@click.argument("name")
@common
def unpin(name: str, ledger: Path | None, json: bool) -> int:
    """Let go of a pin. The object stays until `ledger gc` finds that nothing else needs it."""
    workspace, output = open_here(ledger), Output(json=json)
    kept = pins(workspace.folder)
    if name not in kept:
        raise UsageError(f"there is no pin {name!r}; there are {', '.join(kept) or 'none'}")
    (workspace.folder / "pins" / name).unlink()
    output.show({"name": name, "digest": str(kept[name])}, [f"unpinned {short(kept[name], 12)}"])
    return 0

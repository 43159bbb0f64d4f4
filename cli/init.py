"""`ledger init`: the ledger, a key if there is none, and the policy that trusts it, in one step."""

from __future__ import annotations

from pathlib import Path

import click

from cli.options import common
from cli.output import Output, place
from cli.workspace import POLICY, create, new_passphrase


@click.command()
@click.option("--key", metavar="NAME", help="The key that signs here; made if it does not exist.")
@click.option("--passphrase", is_flag=True, help="Encrypt a new key; asked for, or from $LEDGER_PASSPHRASE.")
@common
def init(key: str | None, passphrase: bool, ledger: Path | None, json: bool) -> int:
    """Make a ledger here, with a key and a policy that trusts it.

    `ledger run` does the same on first use. Keys are kept in ~/.config/ledger/keys (or $LEDGER_KEYS), never in the ledger.
    """
    output = Output(json=json)
    made = create(ledger, key=key, passphrase=lambda: new_passphrase(ask=passphrase))
    facts = {
        "ledger": made.folder.absolute(),
        "key": {
            "name": made.signer.name,
            "public": str(made.signer.public),
            "new": made.new_key,
            "folder": made.keys.absolute() if made.keys is not None else None,
        },
        "policy": (made.folder / POLICY).absolute(),
    }
    output.show(facts, [made.sentence, f"next: ledger run RECIPE · edit {place(made.folder / POLICY)} to trust somebody else's key"])
    return 0

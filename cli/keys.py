"""`ledger key`: one's own keys, and their public forms for policies, for ssh and for git."""

from __future__ import annotations

from pathlib import Path

import click

from cli.errors import UsageError
from cli.options import common, debug_option, json_option
from cli.output import Output, place, table
from cli.workspace import POLICY, find, new_passphrase, open_here


@click.group("key")
def key() -> None:
    """Your keys: make one, list them, export their public forms.

    Private keys are files of OpenSSH in ~/.config/ledger/keys (or $LEDGER_KEYS), readable by you alone.
    """


@key.command("new")
@click.argument("name")
@click.option("--passphrase", is_flag=True, help="Encrypt it; asked for, or from $LEDGER_PASSPHRASE.")
@json_option
@debug_option
def new(name: str, passphrase: bool, json: bool) -> int:
    """Make an Ed25519 key, in a file that ssh tools read too. An existing key is never replaced."""
    from ledger.keys import KeyStore

    keys = KeyStore.default()
    signer = keys.new(name, new_passphrase(ask=passphrase))
    facts = {"name": name, "public": str(signer.public), "file": (keys.folder / name).absolute()}
    said = [f"made {name} in {place(keys.folder / name)}", f'{name}: "{signer.public}"']
    Output(json=json).show(facts, [*said, "next: put that line under `keys` of a policy that shall trust it, and name it in a rule"])
    return 0


@key.command("list")
@common
def list_(ledger: Path | None, json: bool) -> int:
    """Your private keys, and the public keys that the policy here trusts. Needs no passphrase."""
    from ledger.keys import KeyStore

    output = Output(json=json)
    keys = KeyStore.default()
    own = keys.list()
    folder = find(ledger)
    trusted = dict(open_here(ledger).policy.keys) if folder is not None else {}
    mine = {public for _, public, _ in own}
    facts = {
        "folder": keys.folder.absolute(),
        "own": [
            {"name": name, "public": str(public), "encrypted": locked, "trusted": public in trusted.values()}
            for name, public, locked in own
        ],
        "trusted": {name: str(public) for name, public in trusted.items()},
    }
    rows = [
        [name, str(public), "encrypted" if locked else "", "trusted here" if public in trusted.values() else ""]
        for name, public, locked in own
    ]
    lines = [f"your keys in {place(keys.folder)}:", *(f"  {line}" for line in table(rows))]
    if not rows:
        lines = [f"no keys in {place(keys.folder)}", "next: ledger key new NAME · or ledger init, which makes one"]
    others = [[name, str(public)] for name, public in trusted.items() if public not in mine]
    if others and folder is not None:
        lines += [f"other keys that {place(folder / POLICY)} trusts:", *(f"  {line}" for line in table(others))]
    output.show(facts, lines)
    return 0


@key.command("export")
@click.argument("name", required=False)
@click.option(
    "--as",
    "form",
    type=click.Choice(["public", "ssh", "allowed-signers"]),
    default="public",
    help="public: for a policy. ssh: for authorized_keys. allowed-signers: for git verify-commit.",
)
@common
def export(name: str | None, form: str, ledger: Path | None, json: bool) -> int:
    r"""Print public keys: all of the policy here, or the one called NAME. Private keys never leave their file.

    \b
    To check the ledger's commits with plain git:
      ledger key export --as allowed-signers > signers
      git -C .ledger/log.git -c gpg.ssh.allowedSignersFile=$PWD/signers verify-commit ledger
    """
    from ledger.keys import KeyStore, ssh_public_line
    from ledger.sshsig import allowed_signers

    known = dict(open_here(ledger).policy.keys) if find(ledger) is not None else {}
    if name is not None:
        both = {item: public for item, public, _ in KeyStore.default().list()} | known
        if name not in both:
            raise UsageError(f"there is no key {name!r}; known are {', '.join(sorted(both)) or 'none: `ledger key new NAME` makes one'}")
        known = {name: both[name]}
    elif not known:
        raise UsageError("there is no ledger here whose policy names keys; say which of yours: ledger key export NAME")
    if form == "public":
        text = "".join(f'{item}: "{public}"\n' for item, public in known.items())
    elif form == "ssh":
        text = "".join(f"{ssh_public_line(public)} {item}\n" for item, public in known.items())
    else:
        text = allowed_signers(known)
    Output(json=json).show({"keys": {item: str(public) for item, public in known.items()}, "text": text}, text.splitlines())
    return 0

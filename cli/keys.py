"""`ledger key`: one's own keys: make, import, list, export; the rest of its commands is in `cli.trust`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.errors import UsageError
from cli.options import PATH, common, debug_option, json_option
from cli.output import Output, place, table
from cli.trust import revoke, rotate, trust
from cli.workspace import POLICY, Workspace, agent_keys, ask_passphrase, find, new_passphrase, open_here

if TYPE_CHECKING:
    from ledger.keys import PublicKey
    from ledger.policy import Policy


@click.group("key")
def key() -> None:
    """Your keys, and whom the policy here trusts.

    Private keys are files of OpenSSH in ~/.config/ledger/keys (or $LEDGER_KEYS), readable by you alone, or stay in your ssh-agent.
    """


@key.command("new")
@click.argument("name")
@click.option(
    "--type",
    "kind",
    type=click.Choice(["ed25519", "p256"]),
    default="ed25519",
    help="ed25519 signs the ledger. p256 signs Model Signing bundles, and statements.",
)
@click.option("--passphrase", is_flag=True, help="Encrypt it; asked for, or from $LEDGER_PASSPHRASE.")
@json_option
@debug_option
def new(name: str, kind: str, passphrase: bool, json: bool) -> int:
    """Make a key, in a file that ssh tools read too. An existing key is never replaced."""
    from ledger.keys import ECDSA_P256, ED25519, KeyStore

    keys = KeyStore.default()
    signer = keys.new(name, new_passphrase(ask=passphrase), ED25519 if kind == "ed25519" else ECDSA_P256)
    facts = {"name": name, "public": str(signer.public), "file": (keys.folder / name).absolute()}
    said = [f"made {name} in {place(keys.folder / name)}", f'{name}: "{signer.public}"']
    Output(json=json).show(facts, [*said, f"next: ledger key trust {name} {name}, or put that line and a rule into a policy"])
    return 0


@key.command("import")
@click.argument("name")
@click.argument("file", type=PATH)
@json_option
@debug_option
def import_(name: str, file: Path, json: bool) -> int:
    """Copy a private key of yours to the others, as NAME: Ed25519 or ECDSA P-256, of OpenSSH or PEM.

    It stays encrypted as it is. A key in an ssh-agent needs no import: name it, --key ssh-agent:COMMENT.
    """
    from ledger.errors import PassphraseError
    from ledger.keys import KeyStore
    from store import files

    keys = KeyStore.default()
    data = files.read_small(file, 2**20)
    try:
        public, locked = keys.import_key(name, data, None, place(file))
    except PassphraseError:
        public, locked = keys.import_key(name, data, ask_passphrase(f"passphrase of {place(file)}: "), place(file))
    facts = {"name": name, "public": str(public), "encrypted": locked, "file": (keys.folder / name).absolute()}
    said = f"imported {name}{', encrypted,' if locked else ''} to {place(keys.folder / name)}; {place(file)} is left as it is"
    Output(json=json).show(facts, [said, f'{name}: "{public}"', f"next: ledger key trust {name} {name}"])
    return 0


@key.command("list")
@common
def list_(ledger: Path | None, json: bool) -> int:
    """Your private keys, those in your ssh-agent, and the public keys that the policy here names. Needs no passphrase."""
    from ledger.keys import KeyStore, fingerprint

    output = Output(json=json)
    keys = KeyStore.default()
    own, agent = keys.list(), agent_keys()
    folder = find(ledger)
    policy = _read_policy(open_here(ledger)) if folder is not None else None
    trusted = dict(policy.keys) if policy is not None else {}
    mine = {public for _, public, _ in own} | {public for _, public in agent}
    facts = {
        "folder": keys.folder.absolute(),
        "own": [
            {"name": name, "public": str(public), "encrypted": locked, "trusted": public in trusted.values()}
            for name, public, locked in own
        ],
        "agent": [
            {"name": name, "public": str(public), "fingerprint": fingerprint(public), "trusted": public in trusted.values()}
            for name, public in agent
        ],
        "trusted": {name: str(public) for name, public in trusted.items()},
        "spans": {name: {"from": span.first, "until": span.until} for name, span in (policy.spans.items() if policy else ())},
    }
    rows = [[name, str(public), "encrypted" if locked else "", _standing(policy, public)] for name, public, locked in own]
    lines = [f"your keys in {place(keys.folder)}:", *(f"  {line}" for line in table(rows))]
    if not rows:
        lines = [f"no keys in {place(keys.folder)}", "next: ledger key new NAME · or ledger init, which makes one"]
    if agent:
        held = [[name, str(public), _standing(policy, public)] for name, public in agent]
        lines += ["keys in your ssh-agent (--key NAME):", *(f"  {line}" for line in table(held))]
    others = [[name, str(public), _standing(policy, public)] for name, public in trusted.items() if public not in mine]
    if others and folder is not None:
        lines += [f"other keys in {place(folder / POLICY)}:", *(f"  {line}" for line in table(others))]
    output.show(facts, lines)
    return 0


def _read_policy(workspace: Workspace) -> Policy:
    """The policy here, without what the key events of the log take away, as far as the log can be read: keys are shown whatever it is."""
    from ledger.errors import LogError

    try:
        return workspace.policy
    except LogError:
        return workspace.written


def _standing(policy: Policy | None, public: PublicKey) -> str:
    """What a policy, narrowed by its log, makes of a key: nothing, `trusted here`, or from where to where."""
    name = next((name for name, known in policy.keys.items() if known == public), None) if policy is not None else None
    if policy is None or name is None:
        return ""
    if all(name not in rule.keys for rule in policy.rules):
        return "named here, in no rule"
    span = policy.spans.get(name)
    if span is None or (span.first == 0 and span.until is None):
        return "trusted here"
    until = f" until {span.until}" if span.until is not None else ""
    return f"trusted here from entry {span.first}{until}" + (f" ({span.why})" if span.why else "")


@key.command("export")
@click.argument("name", required=False)
@click.option(
    "--as",
    "form",
    type=click.Choice(["public", "ssh", "allowed-signers", "policy", "pem"]),
    default="public",
    help="public: a line for a policy. ssh: for authorized_keys. allowed-signers: for git verify-commit. policy: a whole policy in JSON, "
    "which is YAML too, for readers and the verify page. pem: of a p256 key, for model_signing.",
)
@common
def export(name: str | None, form: str, ledger: Path | None, json: bool) -> int:
    """Print public keys: all of the policy here, or the one called NAME. Private keys never leave their file.

    To check the ledger's newest commit with plain git: ledger key export --as allowed-signers > signers, then
    git -C .ledger/log.git -c gpg.ssh.allowedSignersFile=$PWD/signers verify-commit ledger
    """
    from ledger.keys import KeyStore

    workspace = open_here(ledger) if find(ledger) is not None else None
    known = dict(workspace.written.keys) if workspace is not None else {}
    if name is not None:
        both = {item: public for item, public, _ in KeyStore.default().list()} | known
        if name not in both:
            raise UsageError(f"there is no key {name!r}; known are {', '.join(sorted(both)) or 'none: `ledger key new NAME` makes one'}")
        known = {name: both[name]}
    elif not known:
        raise UsageError("there is no ledger here whose policy names keys; say which of yours: ledger key export NAME")
    text = _exported(form, known, _read_policy(workspace) if workspace is not None and name is None else None)
    Output(json=json).show({"keys": {item: str(public) for item, public in known.items()}, "text": text}, text.splitlines())
    return 0


def _exported(form: str, known: Mapping[str, PublicKey], policy: Policy | None) -> str:
    from json import dumps

    from ledger import oms
    from ledger.keys import ssh_public_line
    from ledger.policy import Policy, Rule
    from ledger.sshsig import allowed_signers

    if form == "public":
        return "".join(f'{item}: "{public}"\n' for item, public in known.items())
    if form == "ssh":
        return "".join(f"{ssh_public_line(public)} {item}\n" for item, public in known.items())
    if form == "allowed-signers":
        return allowed_signers(known)
    if form == "policy":
        policy = policy or Policy(known, tuple(Rule((item,)) for item in known))
        return dumps(policy.to_json(), indent=2, ensure_ascii=False) + "\n"
    if len(known) != 1:
        raise UsageError("a PEM file holds one key; say which: ledger key export NAME --as pem")
    return oms.pem(next(iter(known.values()))).decode()


for command in (rotate, revoke, trust):
    key.add_command(command)

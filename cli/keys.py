"""`ledger key`: one's own keys: make, import, list, export; the rest of its commands is in `cli.trust`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
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
    from ledger.key_store import KeyStore
    from ledger.keys import ECDSA_P256, ED25519

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
    from ledger.key_store import KeyStore
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
    from ledger.key_store import KeyStore
    from ledger.openssh import fingerprint

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
@click.option("--named", metavar="NAME", help="With --as policy and a key: what readers call it, like your name.")
@common
def export(name: str | None, form: str, named: str | None, ledger: Path | None, json: bool) -> int:
    """Print public keys: all of the policy here, or the one called NAME. Private keys never leave their file.

    As a policy, a key of yours comes with those that it replaced and with your P-256 keys, for model.sig alone; what this program
    ships is left out. Give it to readers elsewhere than in what they check with it.

    To check the ledger's newest commit with plain git: ledger key export --as allowed-signers > signers, then
    git -C .ledger/log.git -c gpg.ssh.allowedSignersFile=$PWD/signers verify-commit ledger
    """
    from json import dumps

    from ledger.key_store import KeyStore
    from ledger.policy import Policy

    workspace = open_here(ledger) if find(ledger) is not None else None
    known = dict(workspace.written.keys) if workspace is not None else {}
    if name is not None:
        both = {item: public for item, public, _ in KeyStore.default().list()} | known
        if name not in both:
            raise UsageError(f"there is no key {name!r}; known are {', '.join(sorted(both)) or 'none: `ledger key new NAME` makes one'}")
        known = {name: both[name]}
    elif not known:
        raise UsageError("there is no ledger here whose policy names keys; say which of yours: ledger key export NAME")
    if named is not None and (name is None or form != "policy"):
        raise UsageError("--named says what readers call one key: ledger key export NAME --as policy --named ALICE")
    if form == "policy":
        policy = _read_policy(workspace) if workspace is not None else Policy({}, ())
        policy = _without_shipped(policy) if name is None else _for_readers(policy, name, known[name], named or name)
        known, text = dict(policy.keys), dumps(policy.to_json(), indent=2, ensure_ascii=False) + "\n"
    else:
        text = _exported(form, known)
    Output(json=json).show({"keys": {item: str(public) for item, public in known.items()}, "text": text}, text.splitlines())
    return 0


def _without_shipped(policy: Policy) -> Policy:
    """A policy without what came with this program: that is each reader's own choice."""
    shipped = policy.shipped().values()
    rules = tuple(rule for rule in policy.rules if all(rule not in one.rules for one in shipped))
    used = {name for rule in rules for name in rule.keys} | set(policy.checkpoints.names if policy.checkpoints is not None else ())
    theirs = {public for one in shipped for public in one.keys.values()}
    keys = {name: public for name, public in policy.keys.items() if name in used or public not in theirs}
    spans = {name: span for name, span in policy.spans.items() if name in keys}
    return replace(policy, keys=keys, rules=rules, spans=spans)


def _for_readers(policy: Policy, name: str, public: PublicKey, named: str) -> Policy:
    """A policy that trusts one person: a key, those before it, and, when it is one's own, the P-256 keys that sign models.

    Args:
        policy: the one here, narrowed by its log.
        name: of the key, here.
        public: the key.
        named: what readers call it; the others are called after it.

    Raises:
        UsageError: `named` cannot name a key.
    """
    from ledger import oms
    from ledger.key_store import KeyStore
    from ledger.keys import ECDSA_P256, NAME
    from ledger.policy import Policy, Rule

    if not NAME.match(named):
        raise UsageError(f"{named!r} cannot name a key: letters, digits and ._@- only, at most 64, first a letter or digit")
    called = next((own for own, known in policy.keys.items() if known == public), None)
    old = [own for own in policy.keys if called is not None and own != called and policy.holder(own) == policy.holder(called)]
    names = {own: own if named == name else f"{named}-{number}" for number, own in enumerate(old, 1)}
    spans = {new: policy.spans[own] for own, new in names.items() if own in policy.spans}
    if called is not None and called in policy.spans:
        spans[named] = policy.spans[called]
    keys = {new: policy.keys[own] for own, new in names.items()} | {named: public}
    replaces = dict(zip(list(keys)[1:], list(keys), strict=False))
    held = {own: known for own, known, _ in KeyStore.default().list()}
    mine = public in [*held.values(), *(known for _, known in agent_keys())]
    models = [own for own, known in held.items() if mine and ECDSA_P256 == known.algorithm != public.algorithm]
    for number, own in enumerate(models, 1):
        label = f"{named[:50]}-model" + (f"-{number}" if number > 1 else "")
        keys[own if named == name and own not in keys else label] = held[own]
    scopes = {new: (oms.PREDICATE_TYPE,) if known.algorithm == ECDSA_P256 else None for new, known in keys.items()}
    return Policy(keys, tuple(Rule((new,), predicates=scope) for new, scope in scopes.items()), spans=spans, replaces=replaces)


def _exported(form: str, known: Mapping[str, PublicKey]) -> str:
    from ledger import oms
    from ledger.openssh import ssh_public_line
    from ledger.sshsig import allowed_signers

    if form == "public":
        return "".join(f'{item}: "{public}"\n' for item, public in known.items())
    if form == "ssh":
        return "".join(f"{ssh_public_line(public)} {item}\n" for item, public in known.items())
    if form == "allowed-signers":
        return allowed_signers(known)
    if len(known) != 1:
        raise UsageError("a PEM file holds one key; say which: ledger key export NAME --as pem")
    return oms.pem(next(iter(known.values()))).decode()


for command in (rotate, revoke, trust):
    key.add_command(command)

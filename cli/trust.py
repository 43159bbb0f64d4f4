"""`ledger key rotate`, `revoke` and `trust`: key events in the log, and the reader's own policy beside it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli import radius
from cli.errors import UsageError
from cli.names import runs
from cli.options import common
from cli.output import Output, place
from cli.workspace import POLICY, Workspace, agent_keys, new_passphrase, open_here, refuse_foreign, unlock

if TYPE_CHECKING:
    from ledger.keys import PublicKey, Signer
    from ledger.policy import Policy, Rule
    from ledger.publication import Publication
    from store.digest import Digest

_AFTER = re.compile(r"(.*)-([0-9]{1,6})\Z")


@click.command("rotate")
@click.argument("name", required=False)
@click.option("--to", "successor", metavar="NEW", help="The key that takes over; made if it does not exist. Default: NAME-2, NAME-3, ..")
@click.option("--reason", default="", help="Why, for people.")
@click.option("--passphrase", is_flag=True, help="Encrypt a new key; asked for, or from $LEDGER_PASSPHRASE.")
@common
def rotate(name: str | None, successor: str | None, reason: str, passphrase: bool, ledger: Path | None, json: bool) -> int:
    """Change over to a new key: the old one says so in the log, and counts up to there; the policy here says the same.

    From then on the ledger is signed with the new key. Whoever trusts the old one elsewhere has to trust the new one himself. NAME is
    the key that signs here, unless you say another. Interrupted, it goes on when it is run again.
    """
    from ledger import policy_text, standing
    from ledger.keys import ED25519
    from ledger.predicates import KeyEvent

    output = Output(json=json)
    workspace = _own_workspace(ledger)
    name = name or workspace.own_key()
    old, called = _own(workspace, name)
    policy = workspace.written
    said = next((cut for cut in standing.cuts(policy, standing.events(workspace.log)) if cut.name == called and cut.event.successor), None)
    if said is not None:
        new = _holder_of(workspace, said.event.successor, called, successor)
    else:
        if workspace.policy.retired(called):
            raise UsageError(
                f"{called} counts up to entry {(workspace.policy.spans[called].until or 0) - 1} only; there is nothing to hand over"
            )
        new = _successor(workspace, old, called, successor, encrypt=passphrase)
    if old.public.algorithm == ED25519 != new.public.algorithm:
        raise UsageError(f"{called} signs this ledger, and {new.name} is {new.public.algorithm}; an Ed25519 key takes over from one")
    title = _title(policy, new, called)

    def change(text: str, first: int) -> str:
        text = policy_text.end_key(text, called, until=first)
        return text if new.public in policy.keys.values() else policy_text.add_key(text, title, new.public, first=first, replaces=called)

    if said is None:
        change((workspace.folder / POLICY).read_text(encoding="utf-8"), workspace.log.size + 1)  # before anything is recorded
        own = old.public.algorithm == ED25519
        log = workspace.signing_log(old if own else workspace.signer())
        event = standing.announce(
            log,
            lambda number: KeyEvent(event="superseded", key=old.public, successor=new.public, from_entry=number + 1, reason=reason),
            None if own else old,
        )
        first = event.number + 1
        said_at = event.number
    else:
        first, said_at = said.until, said.entry
    before, after = policy_text.save(workspace.folder / POLICY, lambda text: change(text, first))
    workspace = Workspace(workspace.folder)
    if new.public.algorithm == ED25519 and workspace.log.size == said_at + 1:
        # Its first entry: it vouches for the order of all that is before, which the old key by itself no longer does.
        standing.announce(
            workspace.signing_log(new), lambda number: KeyEvent(event="added", key=new.public, from_entry=first, reason=f"after {called}")
        )
    facts = {"old": called, "new": title, "public": str(new.public), "from": first, "entry": said_at, "policy": workspace.folder / POLICY}
    lines = [
        f"{called} is superseded by {title} from entry {first} on (entry {said_at}); it keeps what it signed before",
        *_changes(workspace, before, after),
        f"next: give whoever trusts {called} the new key (ledger key export {title}) · what you publish again carries it",
    ]
    output.show(facts, lines)
    return 0


@click.command("revoke")
@click.argument("name")
@click.option("--reason", required=True, help="Why, for people.")
@click.option("--since", type=click.IntRange(min=0), metavar="N", help="The first entry that counts no more. Default: from now on.")
@click.option("--dry-run", "-n", is_flag=True, help="Show what would be lost; record and change nothing.")
@click.option("--key", "signer", metavar="NAME", help="The key that says so. Default: another one of yours that is trusted, else itself.")
@common
def revoke(name: str, reason: str, since: int | None, dry_run: bool, signer: str | None, ledger: Path | None, json: bool) -> int:
    """Take trust away from a key from an entry on, in the log and in the policy here, and show all that rests on it.

    A stolen key can have signed anything since it was stolen: name the first entry that was not yours with --since. What another
    trusted key says too is not lost.
    """
    from ledger import policy_text, standing
    from ledger.policy import Span
    from ledger.predicates import KeyEvent
    from ledger.radius import radius as between

    output = Output(json=json)
    workspace = _own_workspace(ledger)
    written = workspace.written
    called, public = _named(workspace, name)
    size = workspace.log.size
    if since is not None and since > size:
        raise UsageError(f"--since {since}: the log has {size} entries, so the next one is {size}")
    until = size + 1 if since is None else since
    old = workspace.policy.spans.get(called, Span())
    narrower = Span(min(old.first, until), until if old.until is None else min(old.until, until))
    after = replace(workspace.policy, spans={**workspace.policy.spans, called: narrower})
    entries = tuple(workspace.log.entries())
    lost = between(entries, workspace.policy, after, contents=lambda one: _contents(workspace, one))
    facts: dict[str, Any] = {"key": called, "public": str(public), "from": until, "recorded": not dry_run, **radius.facts(lost)}
    lines = radius.lines(lost, called, until, entries, workspace.policy)
    if dry_run:
        output.show(facts, [*lines, "nothing was recorded or changed (--dry-run)"])
        return 0
    teller = _teller(workspace, called, public, signer)
    policy_text.end_key((workspace.folder / POLICY).read_text(encoding="utf-8"), called, until=until)
    log = workspace.signing_log(teller if teller.public.algorithm == "ed25519" else workspace.signer())
    event = standing.announce(
        log,
        lambda number: KeyEvent(event="revoked", key=public, from_entry=number + 1 if since is None else since, reason=reason),
        None if teller.public.algorithm == "ed25519" else teller,
    )
    first = event.number + 1 if since is None else since
    counts = any(cut.entry == event.number for cut in standing.cuts(written, standing.events(log)))
    before, changed = policy_text.save(workspace.folder / POLICY, lambda text: policy_text.end_key(text, called, until=first))
    workspace = Workspace(workspace.folder)
    lines += [
        f"{called} is revoked from entry {first} on (entry {event.number}, said by {teller.name})",
        *_changes(workspace, before, changed),
    ]
    if teller.public == public:
        lines.append(
            f"it said so itself, and vouches for the log's order no longer; next: ledger key new NAME · ledger key trust NAME NAME "
            f"--replaces {called} · any run, which the new key signs"
        )
    else:
        lines.append("next: ledger run, which does again whatever has no trusted result" if lost.actions else "next: ledger status")
    if not counts:
        where = place(workspace.folder / POLICY)
        lines.append(f"{where} does not let {teller.name} speak about keys, so nobody but you goes by what it said")
    if written.checkpoints is not None and called in written.checkpoints.names:
        lines.append(f"{called} was a witness too; it sees nothing any more")
    output.show(facts | {"entry": event.number, "from": first, "by": teller.name}, lines)
    return 0


@click.command("trust")
@click.argument("name")
@click.argument("public", metavar="KEY")
@click.option("--stages", multiple=True, metavar="PATTERN", help="Only runs of these stages, like 'gguf-*'. Repeat for more.")
@click.option("--artifacts", multiple=True, metavar="PATTERN", help="Only about these artifacts: names, or sha256:.. texts.")
@click.option("--from", "first", type=click.IntRange(min=0), default=0, metavar="N", help="From this entry of the log on.")
@click.option("--replaces", metavar="OLD", help="It is the successor of OLD: it stands in its rules, and both count as one person.")
@click.option(
    "--witness", metavar="AGE", help="Its word is that it has seen a log; one must have, at most AGE ago, like 30d, else verify fails."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@common
def trust(
    name: str,
    public: str,
    stages: tuple[str, ...],
    artifacts: tuple[str, ...],
    first: int,
    replaces: str | None,
    witness: str | None,
    yes: bool,
    ledger: Path | None,
    json: bool,
) -> int:
    """Let a key count here, under NAME: it is shown first, and then written into your own policy.

    KEY is ed25519:.. text, a line or file of ssh, or the name of a key of yours. Ask its owner for the fingerprint by another way than
    the one on which the key came. Without --stages and --artifacts it counts for everything, and may sign logs.
    """
    from ledger import policy_text
    from ledger.openssh import fingerprint
    from ledger.policy import Rule, Witnesses, age

    output = Output(json=json)
    workspace = _own_workspace(ledger)
    found = _public(public)
    if (replaces is not None or witness is not None) and (stages or artifacts):
        raise UsageError("--stages and --artifacts make a rule; a successor stands in the rules of the old key, and a witness in none")
    watching = Witnesses((name,), 1, age(witness)) if witness is not None else None
    rule = None if replaces or witness is not None else Rule((name,), stages=stages or ("*",), artifacts=artifacts or ("*",))

    def change(text: str) -> str:
        return policy_text.add_key(text, name, found, first=first, replaces=replaces, rule=rule, witness=watching)

    path = workspace.folder / POLICY
    before = path.read_text(encoding="utf-8")
    shown = [f"{name}  {found}", f"{'':{len(name)}}  {fingerprint(found)}", f"would count {_scope(rule, replaces, first)}"]
    lines = [*shown, *_changes(workspace, before, change(before))]
    if not yes:
        if json or not sys.stdin.isatty():
            raise UsageError("\n".join([*lines, "nothing was changed; say --yes when that is the key and what you mean"]))
        output.lines(lines)
        click.confirm("trust it?", abort=True)
        lines = []
    policy_text.save(path, change)
    facts = {"name": name, "public": str(found), "fingerprint": fingerprint(found), "from": first, "replaces": replaces, "policy": path}
    output.show(facts | {"stages": stages or ("*",), "artifacts": artifacts or ("*",)}, [*lines, f"{place(path)} trusts {name} now"])
    return 0


def _scope(rule: Rule | None, replaces: str | None, first: int) -> str:
    where = f" from entry {first} on" if first else ""
    if rule is None:
        return f"wherever {replaces} does{where}" if replaces else "as a witness, and for nothing that it signs otherwise"
    words = [f"runs of {', '.join(rule.stages)}"] if rule.stages != ("*",) else []
    words += [f"about {', '.join(rule.artifacts)}"] if rule.artifacts != ("*",) else []
    return (f"for {' '.join(words)}" if words else "for everything, logs and key events too") + where


# --- finding keys --------------------------------------------------------------------------------------------------------------


def _own_workspace(ledger: Path | None) -> Workspace:
    workspace = open_here(ledger)
    refuse_foreign(workspace.folder, ledger)
    return workspace


def _own(workspace: Workspace, name: str) -> tuple[Signer, str]:
    """A key of one's own by its own name or by that in the policy, unlocked; and its name in the policy.

    Raises:
        UsageError: it is nobody's here, or the policy does not name it.
    """
    from ledger.agent import PREFIX
    from ledger.key_store import KeyStore

    keys = KeyStore.default()
    held = {own: public for own, public, _ in keys.list()} | dict(agent_keys())
    if name not in held and name in workspace.written.keys:
        wanted = workspace.written.keys[name]
        name = next((own for own, public in held.items() if public == wanted), name)
    if name not in held and not name.startswith(PREFIX):
        raise UsageError(f"the private key {name!r} is not on this machine; yours are {', '.join(held) or 'none'}")
    signer = unlock(keys, name)
    called = next((known for known, public in workspace.written.keys.items() if public == signer.public), None)
    if called is None:
        raise UsageError(f"{place(workspace.folder / POLICY)} does not name {name} ({signer.public.short}), so there is nothing to change")
    return signer, called


def _named(workspace: Workspace, name: str) -> tuple[str, PublicKey]:
    """A key of the policy, by its name there or by that of one's own key file."""
    from ledger.key_store import KeyStore

    policy = workspace.written
    if name in policy.keys:
        return name, policy.keys[name]
    own = {own: public for own, public, _ in KeyStore.default().list()}
    for called, public in policy.keys.items():
        if own.get(name) == public:
            return called, public
    raise UsageError(f"{place(workspace.folder / POLICY)} names no key {name!r}; it names {', '.join(policy.keys) or 'none'}")


def _teller(workspace: Workspace, called: str, public: PublicKey, name: str | None) -> Signer:
    """Who says that a key is revoked: another of one's own that goes on signing here, else the key itself."""
    from ledger.key_store import KeyStore

    if name is not None:
        return unlock(KeyStore.default(), name)
    others = [own for own in workspace.own_keys() if own[1] != public]
    if others:
        return unlock(KeyStore.default(), others[0][0])
    held = [(own, key) for own, key, _ in KeyStore.default().list()] + agent_keys()
    itself = next((own for own, key in held if key == public), None)
    if itself is None:
        raise UsageError(
            f"none of your keys is trusted by {place(workspace.folder / POLICY)} to say so, and the private key of {called} is not here; "
            f"write `until: N` beside {called} in the policy: that is yours"
        )
    return unlock(KeyStore.default(), itself)


def _successor(workspace: Workspace, old: Signer, called: str, named: str | None, *, encrypt: bool) -> Signer:
    """The key that takes over: one's own of that name, or a new one of the same kind."""
    from ledger.agent import PREFIX
    from ledger.key_store import KeyStore

    keys = KeyStore.default()
    held = {own: (public, locked) for own, public, locked in keys.list()}
    if named is not None and (named in held or named.startswith(PREFIX)):
        new = unlock(keys, named)
        if new.public == old.public:
            raise UsageError(f"{named} is {called} itself; another key takes over")
        return new
    name = named or _next_name(called, {*held, *workspace.written.keys})
    locked = any(public == old.public and encrypted for public, encrypted in held.values())
    return keys.new(name, new_passphrase(ask=encrypt or (locked and sys.stdin.isatty())), old.public.algorithm)


def _holder_of(workspace: Workspace, public: PublicKey | None, called: str, named: str | None) -> Signer:
    """One's own key that an earlier, interrupted rotation named."""
    from ledger.key_store import KeyStore

    held = [(own, key) for own, key, _ in KeyStore.default().list()] + agent_keys()
    name = next((own for own, key in held if key == public), None)
    if name is None or (named is not None and named != name):
        raise UsageError(
            f"{called} is superseded by {public} already; if that is yours: ledger key trust NAME {public} --replaces {called}"
        )
    return unlock(KeyStore.default(), name)


def _next_name(name: str, taken: Iterable[str]) -> str:
    match = _AFTER.match(name)
    base, number = (match[1], int(match[2])) if match else (name, 1)
    known = set(taken)
    while f"{base}-{number + 1}" in known:
        number += 1
    return f"{base[:56]}-{number + 1}"


def _title(policy: Policy, new: Signer, called: str) -> str:
    """What the policy calls the new key."""
    known = next((name for name, public in policy.keys.items() if public == new.public), None)
    return known or (new.name if new.name not in policy.keys else _next_name(called, policy.keys))


def _public(text: str) -> PublicKey:
    """A public key, however a person has it.

    Raises:
        UsageError: it is none.
    """
    from ledger.agent import PREFIX
    from ledger.errors import KeyFileError, PublicKeyError
    from ledger.key_store import KeyStore
    from ledger.keys import PublicKey
    from ledger.openssh import ssh_public_text
    from store import files

    held = {own: public for own, public, _ in KeyStore.default().list()}
    if text.startswith(PREFIX):
        held |= dict(agent_keys())
    if text in held:
        return held[text]
    if Path(text).is_file():
        text = files.read_small(Path(text), 2**16).decode("utf-8", "replace").strip()
    try:
        if text.startswith(("ssh-", "ecdsa-sha2-")):
            return ssh_public_text(text)
        return PublicKey.parse(text.partition(": ")[2].strip("\"'") if ": " in text else text)
    except (PublicKeyError, KeyFileError) as error:
        raise UsageError(f"{error}; a key is ed25519:.. text, a line of a .pub file, such a file, or a key of yours") from error


# --- showing -------------------------------------------------------------------------------------------------------------------


def _changes(workspace: Workspace, before: str, after: str) -> list[str]:
    """The lines of a policy that changed."""
    import difflib

    changed = [
        line for line in difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="") if line[:3] not in ("---", "+++")
    ]
    return [f"{place(workspace.folder / POLICY)}:", *(f"  {line}" for line in changed if not line.startswith("@@"))] if changed else []


def _contents(workspace: Workspace, publication: Publication) -> set[Digest]:
    """The artifacts of a publication: those of the runs of its recipe."""
    return {
        digest
        for run in runs(workspace.folder)
        if run.recipe == publication.name
        for named in run.outputs.values()
        for digest in named.values()
    }

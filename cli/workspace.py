"""Where the ledger of this folder is, and how it is opened: to read without a key, or to sign.

A ledger is the nearest `.ledger` in the working folder or above it, unless `--ledger` or `$LEDGER_DIR` names one. Private keys are
elsewhere (`~/.config/ledger/keys` or `$LEDGER_KEYS`), so that a ledger can be copied or shared without them.
"""

from __future__ import annotations

import getpass
import os
import re
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from cli.errors import CliError, NoLedgerError, UsageError
from cli.output import place

if TYPE_CHECKING:
    from ledger.key_store import KeyStore
    from ledger.keys import PublicKey, Signer
    from ledger.log import Log
    from ledger.policy import Policy
    from store.local import LocalCas

NAME = ".ledger"
POLICY = "policy.yaml"


def find(named: Path | None) -> Path | None:
    """The ledger's folder: `named`, else `$LEDGER_DIR`, else the nearest `.ledger` here or above; None when it is not there.

    Raises:
        NoLedgerError: a folder was named that holds something else.
    """
    named = named or (Path(os.environ["LEDGER_DIR"]) if os.environ.get("LEDGER_DIR") else None)
    if named is None:
        here = Path.cwd()
        return next((folder / NAME for folder in (here, *here.parents) if _is_ledger(folder / NAME)), None)
    for folder in (named, named / NAME):
        if _is_ledger(folder):
            return folder.absolute()
    if named.exists() and (not named.is_dir() or any(named.iterdir())):
        raise NoLedgerError(
            f"{place(named)} is not a ledger; name the folder that `ledger init --ledger DIR` made, or one that is not there yet"
        )
    return None


def _is_ledger(folder: Path) -> bool:
    return (folder / "log.git").exists()


def refuse_foreign(folder: Path, named: Path | None) -> None:
    """Refuse a ledger that merely lies here: its policy says whom it trusts, and whoever put it here wrote that.

    One that was made on this machine is one's own, and so is, from now on, one that is named.

    Raises:
        UsageError: neither.
    """
    from ledger.errors import LogError
    from ledger.memory import Memory

    memory = Memory.default()
    if named is not None or os.environ.get("LEDGER_DIR"):
        with suppress(LogError):  # then it is to be named again
            memory.adopt(folder)
    elif not memory.adopted(folder):
        raise UsageError(
            f"{place(folder)} was not made by you on this machine, so somebody else may have written whom it trusts. "
            f"If it is yours, name it once: --ledger {place(folder)}"
        )


def open_here(named: Path | None) -> Workspace:
    """The ledger of this folder.

    Raises:
        NoLedgerError: there is none.
    """
    folder = find(named)
    if folder is None:
        where = "here or in a folder above" if named is None else f"at {place(named)}"
        raise NoLedgerError(f"there is no ledger {where}; `ledger run RECIPE` or `ledger init` makes one")
    return Workspace(folder)


@dataclass
class Workspace:
    """A ledger's folder. Everything is opened when it is first used, and read-only unless asked otherwise."""

    folder: Path

    @cached_property
    def policy(self) -> Policy:
        """Whom this reader trusts in this log: as written, without what the key events of the log take away.

        Raises:
            PolicyError: the file is missing or says something impossible. LogError: the log cannot be read.
        """
        from ledger import standing

        return standing.of(self.log, self.written)

    @cached_property
    def written(self) -> Policy:
        """The policy file as it stands, for whatever opens the log itself.

        Raises:
            PolicyError: the file is missing or says something impossible.
        """
        from dataclasses import replace

        from ledger.policy import Policy

        return replace(Policy.load(self.folder / POLICY), source=place(self.folder / POLICY))

    @cached_property
    def log(self) -> Log:
        """The log, for reading; needs no key."""
        from ledger.log import Log

        return Log.open(self.folder)

    @cached_property
    def store(self) -> LocalCas:
        """The store, for reading; creates nothing."""
        from store.local import LocalCas

        return LocalCas.open_readonly(self.folder)

    @cached_property
    def writable_store(self) -> LocalCas:
        """The store, for writing."""
        from store.local import LocalCas

        return LocalCas(self.folder)

    def signing_log(self, signer: Signer) -> Log:
        """The log, for appending; from now on `log` is this one.

        Raises:
            UsageError: the key events of the log say that this key signs no more.
            LogError: the key is no Ed25519 key, or the log cannot be opened.
        """
        from ledger.log import Log

        self.__dict__.pop("policy", None)
        self.log = Log.open(self.folder, signer=signer)
        name = next((name for name, public in self.policy.keys.items() if public == signer.public), None)
        if name is not None and self.policy.retired(name):
            span = self.policy.spans[name]
            why = f" ({span.why})" if span.why else ""
            raise UsageError(
                f"{name} signs no more here: its signatures count up to entry {(span.until or 0) - 1}{why}; "
                "say which key does: --key NAME, and if none is trusted yet: ledger key trust NAME KEY"
            )
        return self.log

    def signer(self, name: str | None = None) -> Signer:
        """The key that signs here: `name`, else the only one of one's own that this ledger's policy trusts to go on signing.

        Keys in files come first; one in an ssh-agent is taken when no file holds one that is trusted.

        Raises:
            UsageError: there is none such, or more than one.
            PassphraseError: it is encrypted and the passphrase is missing or wrong.
        """
        from ledger.key_store import KeyStore

        return unlock(KeyStore.default(), name if name is not None else self.own_key())

    def own_key(self) -> str:
        """The name of the key that signs here when none is named; as `signer`."""
        from ledger.key_store import KeyStore

        keys = KeyStore.default()
        own = [(name, public) for name, public, _ in keys.list()]
        where = place(self.folder / POLICY)
        names = [name for name, _ in self.own_keys()]
        if len(names) == 1:
            return names[0]
        if names:
            raise UsageError(f"several of your keys are trusted by {where}: {', '.join(names)}; say which one signs: --key NAME")
        if not own:
            raise UsageError(
                f"there is no key in {place(keys.folder)}; `ledger key new NAME` makes one, `ledger key trust NAME NAME` trusts it here; "
                "or copy your key there from the machine that has it"
            )
        listed = ", ".join(f"{name} {public.short}" for name, public in own)
        raise UsageError(
            f"none of your keys ({listed}) is trusted by {where} to sign on; `ledger key trust NAME NAME` trusts one, or say --key NAME"
        )

    def own_keys(self) -> list[tuple[str, PublicKey]]:
        """One's own keys with which this ledger goes on: those in files, else those of the ssh-agent."""
        from ledger.key_store import KeyStore

        return self._signing((name, public) for name, public, _ in KeyStore.default().list()) or self._signing(agent_keys())

    def _signing(self, own: Iterable[tuple[str, PublicKey]]) -> list[tuple[str, PublicKey]]:
        """Those of some keys that may sign a log here: Ed25519, trusted for more than named artifacts, and not retired."""
        from ledger.keys import ED25519

        logs = {public for name, public in self.written.log_keys.items() if not self.written.retired(name)}
        return [(name, public) for name, public in own if public in logs and public.algorithm == ED25519]


def unlock(keys: KeyStore, name: str) -> Signer:
    """A private key: of a file, or `ssh-agent:COMMENT`; its passphrase is from `$LEDGER_PASSPHRASE` or the person at the terminal.

    Raises:
        PassphraseError: it is needed and missing, or wrong.
        KeyFileError: there is no such key, or it cannot be used.
        UsageError: there is no ssh-agent.
    """
    from ledger.agent import PREFIX, Agent

    if name.startswith(PREFIX):
        agent = Agent.default()
        if agent is None:
            raise UsageError(f"there is no ssh-agent ($SSH_AUTH_SOCK is not set), so {name} cannot sign")
        return agent.find(name)
    encrypted = any(known == name and locked for known, _, locked in keys.list())
    return keys.load(name, ask_passphrase(f"passphrase of the key {name}: ") if encrypted else None)


def agent_keys() -> list[tuple[str, PublicKey]]:
    """The keys of the ssh-agent that can sign here, each as `--key` names it; none when there is no agent, or it does not answer."""
    from ledger.agent import Agent
    from ledger.errors import KeyFileError

    agent = Agent.default()
    if agent is None:
        return []
    try:
        return [(one.spelled, one.public) for one in agent.identities()]
    except KeyFileError:  # a socket of a session that has ended; whoever names a key of it is told
        return []


def ask_passphrase(prompt: str) -> str | None:
    """`$LEDGER_PASSPHRASE`, else what the person at the terminal types; None when there is nobody."""
    given = os.environ.get("LEDGER_PASSPHRASE")
    if given:
        return given
    return getpass.getpass(prompt) if sys.stdin.isatty() else None


def new_passphrase(*, ask: bool) -> str | None:
    """The passphrase for a key that is about to be made: `$LEDGER_PASSPHRASE`; asked for twice when `ask`; else none.

    Raises:
        CliError: the two differ, or there is nobody to ask.
    """
    given = os.environ.get("LEDGER_PASSPHRASE")
    if given or not ask:
        return given or None
    if not sys.stdin.isatty():
        raise UsageError("--passphrase asks at the terminal, and this is none; set LEDGER_PASSPHRASE instead")
    first = getpass.getpass("passphrase for the new key: ")
    if not first:
        raise CliError("an empty passphrase protects nothing; leave --passphrase out for a key without one. Nothing was made")
    if getpass.getpass("the same again: ") != first:
        raise CliError("the two passphrases differ; nothing was made")
    return first


@dataclass(frozen=True, slots=True)
class Created:
    """A new ledger: its folder, the key that signs in it, whether the key was made for it, and its folder (None: an agent has it)."""

    folder: Path
    signer: Signer
    new_key: bool
    keys: Path | None

    @property
    def sentence(self) -> str:
        """`made .ledger (key ed25519:7Qx2.. in ~/.config/ledger/keys, policy .ledger/policy.yaml)`."""
        where = place(self.keys) if self.keys is not None else "the ssh-agent"
        key = f"{'key' if self.new_key else 'your key'} {self.signer.name} {self.signer.public.short} in {where}"
        return f"made {place(self.folder)} ({key}, policy {place(self.folder / POLICY)})"


def create(named: Path | None, *, key: str | None, passphrase: Callable[[], str | None]) -> Created:
    """Make a ledger, its policy, and a key if there is none. A folder is a ledger once all of it is there.

    Args:
        named: the ledger's folder; `.ledger` here if None.
        key: which key signs; made if it does not exist. None: the only one, or one named after the user.
        passphrase: called only when a key is made.

    Raises:
        CliError: there is a ledger already, or something else.
        UsageError: there are several keys to choose from.
    """
    from ledger import policy_text
    from ledger.agent import PREFIX
    from ledger.key_store import KeyStore
    from ledger.log import Log, refuse_unfit

    folder = (named or Path(os.environ.get("LEDGER_DIR") or NAME)).absolute()
    if _is_ledger(folder):
        raise CliError(f"{place(folder)} is a ledger already; nothing was changed. `ledger status` says what is in it")
    if folder.exists() and (not folder.is_dir() or {item.name for item in folder.iterdir()} - {POLICY, ".gitignore"}):
        raise CliError(f"{place(folder)} exists already and is no ledger; nothing was changed. Name another folder: --ledger DIR")
    keys = KeyStore.default()
    own = [name for name, _, _ in keys.list()]
    key = key or _default_key(own)
    new_key = key not in own and not key.startswith(PREFIX)
    signer = keys.new(key, passphrase()) if new_key else unlock(keys, key)
    refuse_unfit(signer)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / POLICY).exists():
        (folder / POLICY).write_text(policy_text.starting(signer.name, signer.public), encoding="utf-8")
    # Hundreds of gigabytes beside somebody's code: git must not pick them up.
    (folder / ".gitignore").write_text("*\n", encoding="utf-8")
    # Last, and by rename: a folder with a log is a ledger, and one without is finished by the next `init`.
    Log.create(folder, signer=signer).close()
    return Created(folder, signer, new_key, None if key.startswith(PREFIX) else keys.folder)


def _default_key(own: list[str]) -> str:
    user = re.sub(r"[^A-Za-z0-9._@-]", "-", os.environ.get("USER") or os.environ.get("LOGNAME") or "me").lstrip("._@-")[:64] or "me"
    if not own or user in own:
        return user
    if len(own) == 1:
        return own[0]
    raise UsageError(f"there are several keys: {', '.join(own)}; say which one signs in this ledger: --key NAME")

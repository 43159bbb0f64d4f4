"""A whole log, entry by entry: is it what its signers signed, in the order in which they signed it?

Checked for every entry: the SHA-1 of its commit, tree and both blobs, from the tip back to entry 0, one parent each, and a tree of
exactly two files; the signatures of its envelope, judged by the policy at the entry's number; the text of its checkpoint against the root
computed again; its key against its statement.

The signatures of checkpoints and commits are checked at the newest entry and wherever the signing key changes, all of them with `full`. The
default loses nothing: the newest commit's signature covers the ids of all commits before it, and through them every byte; the newest
checkpoint's covers every envelope by SHA-256. So no byte of any entry can change without one of these checks failing.
Three signatures per entry cost 0.33 ms of a core, one costs 0.11.

The key events of the log narrow the policy first; where they take something away, every entry is judged again.

Then: contradictions among trusted entries, whether the log extends the checkpoint that was accepted before, whether the witnesses that the
policy wants have seen it lately, and whether the index agrees.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from ledger import dsse, lookup, note, predicates, sshsig, standing, witness_folder
from ledger.entries import Entry
from ledger.errors import (
    ContradictionError,
    KeyFileError,
    LogError,
    ProofError,
    PublicKeyError,
    RewrittenError,
    SignatureError,
    StatementError,
    UntrustedError,
    VerificationError,
)
from ledger.git import CHECKPOINT, ENVELOPE, Repository, parse_tree
from ledger.keys import ED25519, PublicKey
from ledger.log import REPOSITORY, Log
from ledger.memory import Memory
from ledger.openssh import SshReader
from ledger.policy import Policy, Span
from ledger.report import Report, Row
from ledger.tlog import Frontier, leaf_hash
from store.digest import Digest
from store.errors import StoreError

_SHOWN = 25
_ONE_SIGNATURE = re.compile(rb"[A-Za-z0-9+/]{91}=\n")  # 4 bytes of key hash and 64 of Ed25519
_RESTORE = "Restore the log from a copy or a remote"


class StrangerError(VerificationError):
    """Validly signed, by a key that the policy does not let sign a log."""


def audit_folder(folder: Path, policy: Policy, *, full: bool = False, memory: Memory | None = None) -> Report:
    """Open the log in a ledger folder and audit it; what keeps it from being opened is a finding too.

    Raises:
        LogError: there is no log in the folder.
    """
    if overrides := Repository(folder / REPOSITORY).overrides():
        return Report(str(folder), tuple(_override_row(name) for name in overrides))
    try:
        log = Log.open(folder, memory=memory)
    except RewrittenError as error:
        return Report(str(folder), (_rewritten_row(error),))
    except (LogError, ProofError) as error:
        return Report(str(folder), (Row("failed", str(error), _RESTORE),))
    try:
        return audit(log, policy, full=full)
    finally:
        log.close()


def audit(log: Log, policy: Policy, *, full: bool = False) -> Report:
    """Check every entry of a log. When all is well, its newest checkpoint is remembered as accepted."""
    work = _Audit(log, policy, full)
    try:
        work.run()
    except RewrittenError as error:
        work.rows.append(_rewritten_row(error))
    except LogError as error:
        work.rows.append(Row("failed", str(error), _RESTORE))
    return Report(str(log.folder), tuple(work.rows))


def _override_row(name: str) -> Row:
    text = f"{name} in the log's repository makes other programs show another history than the one that was signed"
    return Row("failed", text, f"Find out who made it, then delete {name}")


def _rewritten_row(error: RewrittenError) -> Row:
    notes = (("accepted", error.accepted), ("found", error.found))
    evidence = "; ".join(f"{what}: {' '.join(text.decode(errors='replace').split()) or 'nothing'}" for what, text in notes)
    return Row("failed", f"{error}. Evidence: {evidence}")


class _Audit:
    """One pass over a log. Holds some hundred bytes per entry, so that a long log needs no long memory."""

    def __init__(self, log: Log, policy: Policy, full: bool) -> None:
        self.rows: list[Row] = []
        self._log, self._given, self._full = log, policy, full
        self._names = {key: name for name, key in policy.keys.items()}
        self._anchored = -1
        self._begin(policy)

    def _begin(self, policy: Policy) -> None:
        """Forget what was found in the entries, and judge them by this policy."""
        self._policy = policy
        self._events: list[Entry] = []
        self._ignored_events: list[tuple[int, str]] = []
        self._signed_by: Counter[str] = Counter()
        self._strangers = 0
        self._first_stranger = (0, "")
        self._faults: list[tuple[int, str]] = []
        self._first_of: dict[Digest, int] = {}
        self._repeated: dict[Digest, list[int]] = {}
        self._contents = hashlib.sha256()
        self._note_keys: list[bytes] = []  # key hashes on each checkpoint's signature lines

    def run(self) -> None:
        repository = self._log.repository
        self.rows += [_override_row(name) for name in repository.overrides()]
        head = self._log.head
        if head is None:
            text = f"the log {self._log.origin} is empty, and no entry of it was accepted here before: nobody signed that"
            self.rows.append(Row("unverified", text, "if there should be entries, take the ledger again from where it came from"))
            return
        commits = self._chain(repository, head)
        if commits is None:
            return
        self._walk(repository, commits)
        narrowed = standing.narrowed(self._given, self._events)
        if narrowed is not self._given:
            self._begin(narrowed)
            self._walk(repository, commits)
        cuts = standing.cuts(self._given, self._events)
        self._report(head, len(commits), cuts)
        self.rows += standing.rows(self._given, cuts)
        self._contradictions()
        self._signatures(repository, [oid for oid, _ in commits])
        self._memory()
        self.rows += witness_folder.rows(self._log, self._policy)
        self._index(len(commits))
        if self._anchored == len(commits) - 1 and all(row.status != "failed" for row in self.rows):
            self._accept()

    def _accept(self) -> None:
        signed = self._log.checkpoint
        if signed is not None:
            try:
                self._log.memory.accept(note.parse_note(signed).checkpoint, signed)
                self._log.memory.settle(self._log.folder, self._log.origin)
                self._log.memory.note_search(note.parse_note(signed).checkpoint, [entry.number for entry in self._events])
            except LogError as error:
                self.rows.append(Row("unverified", str(error)))

    # what is in git

    def _chain(self, repository: Repository, head: str) -> list[tuple[str, str]] | None:
        """(commit, tree) of every entry, oldest first; None when the way back is broken."""
        commits: list[tuple[str, str]] = []
        at: str | None = head
        while at is not None:
            try:
                commit = repository.read_commit(at)
            except LogError as error:
                count = len(commits)
                before = f"The {count} entr{'ies' if count != 1 else 'y'} after it hang in the air, and those before it cannot be reached"
                self.rows.append(Row("failed", f"{error}. {before}", _RESTORE))
                return None
            commits.append((at, commit.tree))
            at = commit.parents[0] if commit.parents else None
        commits.reverse()
        return commits

    def _walk(self, repository: Repository, commits: Sequence[tuple[str, str]]) -> None:
        frontier: Frontier | None = Frontier()
        origin = self._log.origin
        for number, (oid, tree) in enumerate(commits):
            try:
                envelope, signed = _files(repository, tree)
            except LogError as error:
                self._faults.append((number, str(error)))
                self._note_keys.append(b"")
                frontier = None  # the roots after it cannot be computed
                continue
            if frontier is not None:
                frontier = frontier.append(leaf_hash(envelope))
                self._checkpoint(number, frontier, origin, signed)
            else:
                self._note_keys.append(b"")
            key = self._envelope(Entry(number, oid, envelope, signed))
            self._contents.update(contents_line(number, oid, key))

    def _checkpoint(self, number: int, frontier: Frontier, origin: str, signed: bytes) -> None:
        expected = f"{origin}\n{frontier.size}\n{b64encode(frontier.root).decode()}\n"
        start = f"{expected}\n— {origin} ".encode()
        if signed.startswith(start) and _ONE_SIGNATURE.fullmatch(signed, len(start)):  # as this program writes them
            self._note_keys.append(a2b_base64(signed[len(start) : len(start) + 8])[:4])
            return
        try:
            parsed = note.parse_note(signed)
        except VerificationError as error:
            self._faults.append((number, f"its checkpoint: {error}"))
            self._note_keys.append(b"")
            return
        self._note_keys.append(b" ".join(line.name.encode() + line.key_hash for line in parsed.signatures))
        if parsed.text != expected:
            states, gives = " ".join(parsed.text.split()), " ".join(expected.split())
            self._faults.append((number, f"its checkpoint states {states!r}; the entries up to it give {gives!r}"))

    def _envelope(self, entry: Entry) -> Digest | None:
        """Judge an envelope; gives its key, as the index has it."""
        if standing.is_event(entry):
            self._events.append(entry)
        try:
            trusted = lookup.accept(entry, self._policy, self._log)
            self._signed_by.update(trusted.signers)
            if trusted.statement.predicate_type != predicates.RUN:
                return None
            key = predicates.action_of(trusted.statement).key
        except UntrustedError as error:
            return self._pass_over(entry, error)
        except SignatureError as error:
            if _signed_by_a_stranger(entry, self._names):
                return self._pass_over(entry, error)
            self._faults.append((entry.number, str(error)))
            return None
        except (StatementError, StoreError) as error:
            self._faults.append((entry.number, str(error)))
            return None
        first = self._first_of.setdefault(key, entry.number)
        if first != entry.number:
            self._repeated.setdefault(key, [first]).append(entry.number)
        return key

    def _pass_over(self, entry: Entry, reason: VerificationError) -> Digest | None:
        if self._events and self._events[-1] is entry:  # a key may say of itself that it counts no more
            self._ignored_events.append((entry.number, str(reason)))
            return None
        if not self._strangers:
            self._first_stranger = entry.number, str(reason)
        self._strangers += 1
        try:
            return predicates.action_of(entry.statement).key if entry.statement.predicate_type == predicates.RUN else None
        except (VerificationError, StoreError):
            return None

    def _report(self, head: str, count: int, cuts: Sequence[standing.Cut]) -> None:
        for number, fault in self._faults[:_SHOWN]:
            self.rows.append(Row("failed", f"entry {number}: {fault}", _RESTORE, number))
        if len(self._faults) > _SHOWN:
            self.rows.append(Row("failed", f"and {len(self._faults) - _SHOWN} more entries like these"))
        if not self._faults:
            self.rows.append(
                Row("proven", f"{count:,} entries form one line from {head[:12]} back to entry 0: every object hashes to its name")
            )
            self.rows.append(
                Row("proven", f"each checkpoint states the root of exactly the entries up to its own (log {self._log.origin})")
            )
        if self._signed_by:
            who = ", ".join(f"{name} {number:,}" for name, number in sorted(self._signed_by.items()))
            self.rows.append(Row("proven", f"envelopes are signed by keys that {self._policy.source} trusts: {who}"))
        if self._first_of:
            self.rows.append(Row("proven", f"{len(self._first_of):,} action keys follow from their statements"))
        heard = {cut.entry for cut in cuts}
        for number, reason in self._ignored_events:
            if number not in heard:
                self._first_stranger = min(self._first_stranger, (number, reason)) if self._strangers else (number, reason)
                self._strangers += 1
        if self._strangers:
            number, reason = self._first_stranger
            count_text = "1 entry counts" if self._strangers == 1 else f"{self._strangers:,} entries count"
            text = f"{count_text} for nothing here; entry {number}: {reason}"
            self.rows.append(Row("unverified", text, f"Add the key to {self._policy.source} if you trust it", number))

    def _contradictions(self) -> None:
        if self._faults:
            return
        for numbers in self._repeated.values():
            claims = []
            for number in numbers:
                trusted = lookup.accept(self._log.entry(number), self._policy, self._log)
                claims.append((trusted, predicates.exact_in(trusted.statement)))
            try:
                lookup.refuse_contradiction(predicates.action_of(claims[0][0].statement), claims)
            except ContradictionError as error:
                self.rows.append(Row("failed", str(error), entry=numbers[-1]))

    # who signed the log itself

    def _signatures(self, repository: Repository, oids: Sequence[str]) -> None:
        """Find the newest entry whose commit and checkpoint a trusted key signed, and check the signatures that are due."""
        last = len(oids) - 1
        due = {number for number in range(last) if self._full or self._note_keys[number] != self._note_keys[number + 1]} | {last}
        strangers: list[int] = []
        faults: list[tuple[int, str]] = []
        checked, names, retired = 0, set[str](), set[str]()
        for number in range(last, -1, -1):
            if number not in due and self._anchored >= 0:
                continue
            try:
                found = log_signers(repository, oids[number], number, self._policy)
                if self._anchored < 0 and not vouches(found, self._policy, self._log, number):
                    strangers.append(number)
                    retired |= found
                    continue
                names |= found
                checked += 1
                self._anchored = max(self._anchored, number)
            except StrangerError:
                strangers.append(number)
            except VerificationError as error:
                faults.append((number, str(error)))
                if len(faults) > _SHOWN:
                    break
            except LogError:
                continue  # what cannot be read is among the faults already
        self.rows += [Row("failed", f"entry {number}: {fault}", _RESTORE, number) for number, fault in faults[:_SHOWN]]
        if len(faults) > _SHOWN:
            self.rows.append(Row("failed", "and more signatures like these; the rest was not looked at"))
        source = self._policy.source
        if self._anchored < 0:
            known = ", ".join(sorted(self._policy.log_keys)) or "nobody"
            text = f"nobody whom {source} lets sign a log ({known}) signed this one"
            if retired:
                text += (
                    f"; only {' and '.join(sorted(retired))} did, who counts up to some entry only. Whoever holds such a key can make "
                    "another log, and no checkpoint of this one was accepted on this machine yet"
                )
            self.rows.append(
                Row("failed", text, "if you know a signer's key, trust it (`ledger key trust`) or name a policy (--policy FILE)")
            )
        elif not faults:
            which = "every commit and checkpoint" if self._full else "the newest commit and checkpoint"
            which += "" if self._full or checked == 1 else f" and those where the signer changes ({checked})"
            text = f"{which}, signed by {' and '.join(sorted(names))}, bind all entries up to {self._anchored}"
            self.rows.append(Row("proven", text, entry=self._anchored))
        after = [number for number in strangers if number > self._anchored >= 0]
        if after:
            text = f"entries {after[-1]} to {last} were added by keys that {source} lets sign no log; nobody trusted vouches for them"
            self.rows.append(Row("unverified", text, entry=after[-1]))

    # what was known before, and what is derived

    def _memory(self) -> None:
        known = self._log.memory.checkpoint(self._log.origin)
        if known is None:
            text = "whether it was rolled back before today: no checkpoint of this log was accepted on this machine yet"
            self.rows.append(Row("unverified", text))
        else:  # the log compared it when it was opened; a difference has raised
            size = note.parse_note(known).checkpoint.size
            self.rows.append(Row("proven", f"it extends the checkpoint of {size:,} entries that was accepted on this machine before"))

    def _index(self, count: int) -> None:
        if self._faults:
            return
        if self._log.index_contents(count) == self._contents.digest():
            self.rows.append(Row("proven", f"the index agrees with git on all {count:,} entries"))
            return
        self._log.rebuild_index()
        text = "the index disagreed with git, and was made anew; nothing is ever taken from it unchecked, but it can hide what was done"
        self.rows.append(Row("unverified", text))


def contents_line(number: int, oid: str, key: Digest | None) -> bytes:
    """One entry as the index and an audit hash it to compare what they hold."""
    return f"{number} {oid} {key or '-'}\n".encode()


def log_signers(repository: Repository, oid: str, number: int, policy: Policy) -> set[str]:
    """The name of the key that signed both the commit and the checkpoint of an entry; it counts only within its span of the log.

    Raises:
        StrangerError: validly signed, by a key that the policy does not let sign a log.
        VerificationError: not signed, or not validly.
    """
    raw = repository.read_entry(oid)
    keys = {key: name for name, key in policy.log_keys.items() if number in policy.spans.get(name, Span())}
    if raw.commit.signature is None:
        raise SignatureError("its commit is not signed")
    embedded = _embedded_key(raw.commit.signature)
    sshsig.verify(raw.commit.signed, raw.commit.signature, [embedded])
    note.verify_note(note.parse_note(raw.checkpoint), [embedded])
    if embedded not in keys:
        raise StrangerError(f"added by {embedded}")
    return {keys[embedded]}


def vouches(names: set[str], policy: Policy, log: Log, number: int) -> bool:
    """Whether keys that signed entry `number` vouch for its place and those of all entries before it.

    One whose signatures count up to some entry only does not, unless the entry is below a checkpoint that was accepted here before: with a
    stolen key one can make a log of one's own, and put anything at a place where that key counts.
    """
    if any(not policy.retired(name) for name in names):
        return True
    known = log.memory.checkpoint(log.origin)
    return known is not None and number < note.parse_note(known).checkpoint.size


def anchored(log: Log, policy: Policy) -> int:
    """The newest entry for whose place, and so for all before it, somebody trusted vouches; -1 when nobody does."""
    for number in range(log.size - 1, -1, -1):
        try:
            if vouches(log_signers(log.repository, log.entry(number).commit, number, policy), policy, log, number):
                return number
        except VerificationError:
            continue
    return -1


def _files(repository: Repository, tree: str) -> tuple[bytes, bytes]:
    files = parse_tree(repository.read(tree, "tree"))
    if list(files) != [CHECKPOINT, ENVELOPE]:
        raise LogError(f"its tree holds {', '.join(sorted(files)) or 'nothing'}; expected exactly {CHECKPOINT} and {ENVELOPE}")
    return repository.read(files[ENVELOPE], "blob"), repository.read(files[CHECKPOINT], "blob")


def _signed_by_a_stranger(entry: Entry, known: Mapping[PublicKey, str]) -> bool:
    """Whether the envelope is intact, but by keys that the policy does not name: each keyid says so, and each signature is valid."""
    try:
        envelope = dsse.Envelope.parse(entry.envelope)
        keys = [PublicKey.parse(signature.keyid or "") for signature in envelope.signatures]
        for key, signature in zip(keys, envelope.signatures, strict=True):
            key.verify(signature.sig, dsse.pae(envelope.payload_type, envelope.payload))
    except (PublicKeyError, SignatureError):
        return False
    return envelope.payload_type == dsse.PAYLOAD_TYPE and known.keys().isdisjoint(keys)


def _embedded_key(armoured: str) -> PublicKey:
    """The Ed25519 key that an SSH signature says it is by: to look it up, and to tell a stranger from damage; never to trust it.

    Raises:
        SignatureError: it names none.
    """
    try:
        reader = SshReader(b64decode("".join(armoured.strip().split("\n")[1:-1]), validate=True), "SSH signature")
        reader.take(10)  # the magic and the version, which sshsig.verify checks
        public = SshReader(reader.string(), "SSH signature")
        if public.string() != b"ssh-ed25519":
            raise SignatureError("the commit is signed with a key of another kind than Ed25519")
        return PublicKey(ED25519, public.string())
    except (Base64Error, KeyFileError, PublicKeyError) as error:
        raise SignatureError(f"the commit's SSH signature cannot be read: {error}") from error

"""The log: numbered, signed entries in git; append, look up, walk, prove.

One entry is one commit with one parent; its tree holds the signed envelope and a checkpoint over all envelopes so far, its own included.
Appending is done in groups under one file lock, objects first and the ref last, so a killed writer leaves unreachable objects at most.

What a reader gets from here was read from git by id, and its number is proven by a Merkle proof against the newest checkpoint; whether
anybody trusted said it is for `ledger.lookup` and `ledger.verify` to find out. The newest checkpoint that this user signed or verified
is remembered outside the ledger: a log that is not an extension of it is refused (`RewrittenError`).

A `Log` is for one thread; any number of processes may use one ledger.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ledger import dsse, note, predicates, sshsig
from ledger.entries import Entry
from ledger.errors import LedgerError, LogError, MovedError, ProofError, RewrittenError
from ledger.git import CHECKPOINT, ENVELOPE, Repository, object_id, signed_commit, tree_bytes, unsigned_commit
from ledger.index import NOTHING, Added, Facts, Index, facts
from ledger.keys import ED25519, Signer
from ledger.memory import Memory, read_checkpoint
from ledger.note import Checkpoint
from ledger.statement import Statement
from ledger.tlog import EMPTY_ROOT, Frontier, leaf_hash, verify_consistency, verify_inclusion
from store.digest import Digest
from store.errors import StoreError

__all__ = ["Clock", "Entry", "InclusionProof", "Log", "refuse_unfit"]

Clock = Callable[[], float]

REPOSITORY, INDEX, LOCK = "log.git", "index.sqlite", "log.lock"
"""Where the log lives in the folder of a ledger."""

MAIL = "ledger@localhost"
"""The mail address of every commit, and the principal in `allowed_signers`."""


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """That an envelope is entry `number` of the log of `size` entries that `checkpoint` signs; see RFC 6962 2.1.1."""

    number: int
    size: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes


@dataclass(frozen=True, slots=True)
class _Head:
    """The newest entry: its commit, its checkpoint as signed and as read."""

    oid: str
    signed: bytes
    checkpoint: Checkpoint


def refuse_unfit(signer: Signer) -> None:
    """Refuse a signer that cannot sign a log: C2SP checkpoints are Ed25519.

    Raises:
        LogError: its key is of another kind.
    """
    if signer.public.algorithm != ED25519:
        raise LogError(
            f"{signer.name} is an {signer.public.algorithm} key, and a log's checkpoints are signed with Ed25519 ones; name another key "
            "(`ledger key new NAME` makes one). What it signs can count as a statement all the same"
        )


_REMEMBERED_ENTRIES = 4096
"""Entries that a Log keeps in memory, some 4 kB each."""


class Log:
    """The log of one ledger folder. Make it with `create` or `open`."""

    def __init__(self, folder: Path, *, signer: Signer | None, clock: Clock, memory: Memory) -> None:
        if signer is not None:
            refuse_unfit(signer)
        self.folder = folder
        self.repository = Repository(folder / REPOSITORY)
        self.memory = memory
        self._signer, self._clock = signer, clock
        self._index = Index(folder / INDEX, self.repository)
        self._seen: _Head | None = None
        # Entries proven against the head at `_proven_at`: a run asks for the same ones as hits, for its receipt and for its results.
        self._proven_at = ""
        self._proven_entries: dict[int, Entry] = {}
        self._refresh()

    @classmethod
    def create(
        cls, folder: Path, *, signer: Signer | None, origin: str | None = None, clock: Clock = time.time, memory: Memory | None = None
    ) -> Log:
        """Begin an empty log in a ledger folder.

        `origin` is what its checkpoints call it; it must name one log only, so leave it out (`ledger/` and 16 random hex digits).

        Raises:
            LogError: there is one already, or the signer's key is not Ed25519.
        """
        if signer is not None:
            refuse_unfit(signer)
        memory = memory or Memory.default()
        folder.mkdir(parents=True, exist_ok=True)
        name = origin or f"ledger/{secrets.token_hex(8)}"
        if (folder / REPOSITORY).exists():
            raise LogError(f"{folder / REPOSITORY} exists already")
        memory.settle(folder, name)
        memory.adopt(folder)
        Repository.create(folder / REPOSITORY, name)
        return cls(folder, signer=signer, clock=clock, memory=memory)

    @classmethod
    def open(cls, folder: Path, *, signer: Signer | None = None, clock: Clock = time.time, memory: Memory | None = None) -> Log:
        """Open the log of a ledger folder; without a signer it can only be read.

        Raises:
            LogError: there is none, or git cannot read it.
            RewrittenError: it is not an extension of the log that was accepted here before.
        """
        return cls(folder, signer=signer, clock=clock, memory=memory or Memory.default())

    def close(self) -> None:
        """Give the index's file back."""
        self._index.close()

    # where the log stands

    def _refresh(self) -> _Head | None:
        """Read the ref; when it moved, bring the index along and check that nothing accepted before was lost."""
        oid = self.repository.head()
        while self._seen is None or self._seen.oid != oid:
            head = None
            if oid is not None:
                signed = self.repository.read_entry(oid).checkpoint
                head = _Head(oid, signed, read_checkpoint(signed))
            origin = head.checkpoint.origin if head else self.repository.description
            accepted = self.memory.recall(self.folder, origin)
            now = self.repository.head()
            if now != oid:  # another process appended, and what is remembered may be younger than the ref that was read
                oid = now
                continue
            self._index.sync(oid)
            self._check_extends(head, origin, *accepted)
            self._seen = head
            break
        return self._seen if oid is not None else None

    def check_size(self) -> None:
        """Compare the newest checkpoint with the entries in git, for whoever passes it on.

        A size that is believed unseen could be so large that no honest checkpoint is ever newer.

        Raises:
            LogError: they differ.
        """
        self._standing(self._refresh())

    def _check_extends(self, head: _Head | None, origin: str, settled: str, signed: bytes | None) -> None:
        """Compare the log with the one that was accepted before: its origin and its checkpoint."""
        found = head.signed if head else b""
        size = head.checkpoint.size if head else 0
        hint = (
            "Restore the log from a copy, and keep both checkpoints as evidence. "
            f"Only if you replaced this ledger yourself, delete {self.memory.describe(self.folder, settled)}"
        )
        if settled != origin:
            raise RewrittenError(
                f"{self.folder} holds the log {origin!r}; the log accepted there before is {settled!r}. {hint}",
                accepted=signed or b"",
                found=found,
            )
        if signed is None:
            return
        accepted = read_checkpoint(signed)
        if accepted.size > size:
            raise RewrittenError(
                f"the log in {self.folder} was rolled back: it has {size} entries, {accepted.size} were accepted before. {hint}",
                accepted=signed,
                found=found,
            )
        if head is None:
            return
        try:
            self._proven(lambda: self._prove_extension(accepted, head.checkpoint))
        except ProofError as error:
            raise RewrittenError(
                f"the log in {self.folder} was rewritten: its {size} entries do not begin with the {accepted.size} that were accepted "
                f"before ({error}). {hint}",
                accepted=signed,
                found=found,
            ) from error

    def prove_extends(self, old: Checkpoint) -> None:
        """Prove that the log begins with the entries of a checkpoint.

        Raises:
            RewrittenError: it does not; both checkpoints are in it.
        """
        head = self._refresh()
        new = head.checkpoint if head else Checkpoint(self.origin, 0, EMPTY_ROOT)
        try:
            if old.origin != new.origin:
                raise ProofError(f"it is another log, {old.origin!r}")
            if old.size > new.size:
                raise ProofError(f"it has {new.size:,} entries only")
            self._proven(lambda: self._prove_extension(old, new))
        except ProofError as error:
            raise RewrittenError(
                f"the log {new.origin!r} in {self.folder} does not begin with the {old.size:,} entries of a checkpoint that was seen of "
                f"it: {error}. It was rolled back, rewritten or forked: keep both checkpoints as evidence",
                accepted=old.text().encode(),
                found=head.signed if head else b"",
            ) from error

    def _prove_extension(self, old: Checkpoint, new: Checkpoint) -> None:
        verify_consistency(old.size, old.root, new.size, new.root, self._index.consistency_path(old.size, new.size))

    def _proven(self, prove: Callable[[], None]) -> None:
        """Run a proof on what the index says; when it fails, once more on an index that was just read from git.

        Raises:
            ProofError: it fails then too. LogError: git cannot be read.
        """
        try:
            return prove()
        except (ProofError, LogError):
            self._index.rebuild()
        prove()

    @property
    def head(self) -> str | None:
        """The newest commit."""
        head = self._refresh()
        return head.oid if head else None

    @property
    def size(self) -> int:
        """How many entries there are."""
        head = self._refresh()
        return head.checkpoint.size if head else 0

    @property
    def origin(self) -> str:
        """What the checkpoints call this log."""
        head = self._refresh()
        return head.checkpoint.origin if head else self.repository.description

    @property
    def checkpoint(self) -> bytes | None:
        """The newest signed checkpoint; None while there is no entry."""
        head = self._refresh()
        return head.signed if head else None

    # reading

    def entry(self, number: int) -> Entry:
        """Entry `number`, from 0.

        Raises:
            LogError: there is no such entry, or git does not hold it as the checkpoint says.
        """
        size = self.size
        if not 0 <= number < size:
            raise LogError(f"there is no entry {number}; the log has {size}")
        found: list[Entry] = []

        def read() -> None:
            places = self._index.range(number, number + 1)
            if not places:
                raise LogError(f"the index does not know entry {number}")
            found.append(self._read(*places[0]))

        self._answer(read)
        return found[0]

    def entries(self, start: int = 0, stop: int | None = None) -> Iterator[Entry]:
        """Entries in the order of the log, `stop` not included."""
        end = self.size if stop is None else min(stop, self.size)
        for number in range(start, end):
            yield self.entry(number)

    def lookup(self, key: Digest) -> list[Entry]:
        """The entries that claim to be runs of an action, oldest first. Nothing about them is verified but their place in the log."""
        return self._find(lambda: self._index.by_key(key), lambda known: known.key == key)

    def by_subject(self, digest: Digest) -> list[Entry]:
        """The entries that say something about an object, oldest first. Nothing about them is verified but their place in the log."""
        return self._find(lambda: self._index.by_subject(digest), lambda known: any(digest == one for _, one in known.subjects))

    def by_material(self, digest: Digest) -> list[Entry]:
        """The entries of actions that took an object as an input, oldest first; as in `by_subject`."""
        return self._find(lambda: self._index.by_material(digest), lambda known: any(digest == one for _, one in known.materials))

    def by_type(self, predicate_type: str) -> list[Entry]:
        """The entries whose statement is of a type, oldest first; as in `by_subject`. Whoever writes to the index can hide one."""
        return self._find(lambda: self._index.by_type(predicate_type), lambda known: known.predicate_type == predicate_type)

    def actions(self) -> list[tuple[int, Digest]]:
        """(number, key) of every action, as the index has it; for search, not for trust."""
        size = self.size
        return [(number, key) for number, key, _ in self._index.actions() if number < size]

    def repeated(self, most: int) -> tuple[int, int, list[Digest]]:
        """How many actions there are, how many have several entries, and the newest `most` keys of these; as the index has it, unproven."""
        self._refresh()
        return self._index.repeated(most)

    def subjects(self) -> list[Digest]:
        """Every object that an entry says something about, as the index has it; for search, not for trust."""
        self._refresh()
        return self._index.subjects()

    def _find(self, places: Callable[[], list[tuple[int, str]]], fits: Callable[[Facts], bool]) -> list[Entry]:
        """Entries that the index names and that do say what was asked for: the index is a hint, and may have been written by anybody."""
        size = self.size
        found: list[Entry] = []

        def read() -> None:
            found[:] = [self._read(number, oid) for number, oid in places() if number < size]
            if not all(fits(_facts_of(entry)) for entry in found):
                raise LogError("the index names entries that say something else")

        self._answer(read)
        return found

    def _answer(self, read: Callable[[], None]) -> None:
        try:
            self._proven(read)
        except ProofError as error:
            raise LogError(f"git does not hold what the newest checkpoint says: {error}. Run `ledger verify`") from error

    def _read(self, number: int, oid: str) -> Entry:
        """An entry from git, its number proven by the newest checkpoint.

        Raises:
            LogError, ProofError: the index sent us to the wrong place, or git is damaged.
        """
        head = self._seen
        if head is None:
            raise LogError("the log is empty")
        if self._proven_at != head.oid:
            self._proven_at = head.oid
            self._proven_entries.clear()
        known = self._proven_entries.get(number)
        if known is not None and known.commit == oid:
            return known
        raw = self.repository.read_entry(oid)
        tree = head.checkpoint
        verify_inclusion(leaf_hash(raw.envelope), number, tree.size, self._index.inclusion_path(number, tree.size), tree.root)
        entry = Entry(number, oid, raw.envelope, raw.checkpoint, raw.commit.message.rstrip("\n"), _when(raw.commit.committer))
        if len(self._proven_entries) < _REMEMBERED_ENTRIES:
            self._proven_entries[number] = entry
        return entry

    def inclusion_proof(self, number: int) -> InclusionProof:
        """The proof that entry `number` is in the log of the newest checkpoint.

        Raises:
            LogError: there is no such entry.
        """
        return self.inclusion_proofs([number])[0]

    def inclusion_proofs(self, numbers: Sequence[int], *, checkpoint: bytes | None = None) -> list[InclusionProof]:
        """As `inclusion_proof`, all against one checkpoint, whoever appends meanwhile.

        Args:
            numbers: of entries.
            checkpoint: an older signed note of this log, such as one that witnesses cosigned; None: the newest.

        Raises:
            LogError: there is no such entry. RewrittenError: the checkpoint is not one of this log.
        """
        head = self._refresh()
        signed = checkpoint if checkpoint is not None else head.signed if head else b""
        proofs: list[InclusionProof] = []
        if not numbers:
            return proofs
        tree = read_checkpoint(signed)
        if checkpoint is not None:
            self.prove_extends(tree)
        for number in numbers:
            leaf = leaf_hash(self.entry(number).envelope)
            if number >= tree.size:
                raise LogError(f"entry {number} is younger than the checkpoint of {tree.size} entries")
            hashes = tuple(self._index.inclusion_path(number, tree.size))
            verify_inclusion(leaf, number, tree.size, hashes, tree.root)
            proofs.append(InclusionProof(number, tree.size, hashes, signed))
        return proofs

    def consistency_proof(self, old: int) -> list[bytes]:
        """RFC 6962 proof that the newest checkpoint extends the one of `old` entries."""
        size = self.size
        return self._index.consistency_path(old, size)

    def index_contents(self, size: int) -> bytes:
        """SHA-256 of what the index holds of the first `size` entries, for `ledger.audit` to compare with git."""
        self._refresh()
        return self._index.contents(size)

    def rebuild_index(self) -> None:
        """Derive the index from git again."""
        self._index.rebuild()

    # writing

    def append(self, payloads: Sequence[bytes], lines: Sequence[str], *, at: int | None = None) -> list[Entry]:
        """Sign statements and add them as one group: all of them, in this order and next to each other, or none.

        `payloads` are statements as canonical JSON (`ledger.statement.make`), `lines` what `git log` shows for each. On return they are
        durable. With `at`, only when the first of them becomes that entry: for statements that speak of their own place.

        Raises:
            StatementError: a payload is no statement, or a run whose action cannot be recomputed from it; nothing was recorded.
            MovedError: another process appended meanwhile, so the first would be another entry than `at`; nothing was recorded.
            LogError: the log cannot be written.
        """
        if len(payloads) != len(lines):
            raise LogError(f"{len(payloads)} statements and {len(lines)} lines to describe them")
        signer = self._writer()
        known = []
        for payload in payloads:
            statement = Statement.parse(payload)
            known.append(facts(statement))
            if statement.predicate_type == predicates.RUN and known[-1].key is None:
                predicates.action_of(statement)  # says why
        envelopes = (dsse.sign(payload, signer) for payload in payloads)
        return self._append(list(zip(envelopes, lines, known, strict=True)), at)

    def append_foreign(self, envelopes: Sequence[bytes], *, at: int | None = None) -> list[Entry]:
        """Add envelopes that others signed, byte for byte as received; those that are in the log already are passed over.

        Whether they count is each reader's policy. `at` is as in `append`.

        Raises:
            EnvelopeError, StatementError: one of them is not an envelope around a statement; nothing was recorded.
            MovedError, LogError: as in `append`.
        """
        group: dict[bytes, tuple[str, Facts]] = {}
        for envelope in envelopes:
            statement = Statement.parse(dsse.Envelope.parse(envelope).payload)
            about = next(iter(sorted(statement.subjects.items())), None)
            if about is None or all(known.envelope != envelope for known in self.by_subject(about[1])):
                names = ", ".join(sorted(statement.subjects))
                group[envelope] = f"received: {statement.predicate_type} about {names}", facts(statement)
        return self._append([(envelope, line, known) for envelope, (line, known) in group.items()], at)

    def _writer(self) -> Signer:
        if self._signer is None:
            raise LogError("this log was opened without a key; appending needs one")
        return self._signer

    def _append(self, group: Sequence[tuple[bytes, str, Facts]], at: int | None = None) -> list[Entry]:
        if not group:
            return []
        signer = self._writer()
        messages = [_one_line(line) for _, line, _ in group]
        with self._locked():
            self.repository.join_packs()
            old = self._refresh()
            origin, frontier = self._standing(old)
            if at not in (None, frontier.size):
                raise MovedError(f"the log in {self.folder} has {frontier.size:,} entries by now; nothing was recorded, so try again")
            tip = old.oid if old else None
            seconds = int(self._clock())
            who = f"{_person(signer.name)} <{MAIL}> {seconds} +0000"
            objects: list[tuple[str, bytes]] = []
            entries: list[Entry] = []
            added: list[Added] = []
            for (envelope, _, known), message in zip(group, messages, strict=True):
                leaf = leaf_hash(envelope)
                frontier = frontier.append(leaf)
                checkpoint = Checkpoint(origin, frontier.size, frontier.root)
                signed = note.sign_checkpoint(checkpoint, signer)
                files = {ENVELOPE: object_id("blob", envelope), CHECKPOINT: object_id("blob", signed)}
                tree = tree_bytes(files)
                unsigned = unsigned_commit(object_id("tree", tree), tip, who, message)
                commit = signed_commit(unsigned, sshsig.sign(unsigned, signer, "git"))
                tip = object_id("commit", commit)
                objects += [("blob", envelope), ("blob", signed), ("tree", tree), ("commit", commit)]
                entries.append(Entry(frontier.size - 1, tip, envelope, signed, message, seconds))
                added.append(Added(tip, leaf, known))
            head = _Head(entries[-1].commit, signed, checkpoint)
            self.repository.write(objects)
            self.repository.advance(old.oid if old else None, head.oid)
            self._index.extend(old.oid if old else None, added)
            self.memory.accept(checkpoint, signed)
            self.memory.settle(self.folder, origin)
            self._seen = head
        return entries

    def _standing(self, head: _Head | None) -> tuple[str, Frontier]:
        """The origin and frontier to append to; the frontier is the one whose root the newest checkpoint states."""
        if head is None:
            if not self.repository.description:
                raise LogError(f"{self.repository.path} is empty and does not say which log it is; make a new ledger")
            return self.repository.description, Frontier()
        found: list[Frontier] = []

        def check() -> None:
            frontier = self._index.frontier(head.checkpoint.size)
            if frontier.root != head.checkpoint.root:
                raise LogError(
                    f"the newest checkpoint states root {head.checkpoint.root.hex()[:12]} for {frontier.size} entries, but the entries "
                    f"in git give {frontier.root.hex()[:12]}. Nothing was recorded; run `ledger verify`"
                )
            found.append(frontier)

        self._proven(check)
        return head.checkpoint.origin, found[0]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            descriptor = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise LogError(f"cannot write to {self.folder}: {error.strerror}. Nothing was recorded") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # the kernel frees it when this process dies
            yield
        except OSError as error:
            raise LogError(f"cannot append to {self.folder}: {error.strerror}. Nothing was recorded") from error
        finally:
            os.close(descriptor)


def _facts_of(entry: Entry) -> Facts:
    try:
        return facts(entry.statement)
    except (LedgerError, StoreError):
        return NOTHING


def _one_line(line: str) -> str:
    """A commit message: one line of printable text; anything else is written as an escape."""
    text = "".join(char if char.isprintable() else char.encode("unicode_escape", "backslashreplace").decode() for char in line).strip()
    if not text:
        raise LogError("an entry needs a line that says what it is")
    return text


def _person(name: str) -> str:
    """A name as git accepts it in an identity."""
    text = "".join(char for char in name if char.isprintable() and char not in "<>").strip(" .,:;\"'\\")
    return text or "ledger"


def _when(committer: str) -> int:
    fields = committer.rsplit(" ", 2)
    return int(fields[1]) if len(fields) == 3 and fields[1].isdigit() else 0

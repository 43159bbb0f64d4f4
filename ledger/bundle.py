"""A provenance closure that travels: the envelopes themselves, and a receipt that ties them to a log.

The envelopes are JSON lines, `<name>.attestations.jsonl`: each line is one DSSE envelope, byte for byte as it was signed, so any
in-toto tool reads the file. The receipt is JSON inside the alloy (`receipt.ledger`): a signed checkpoint, for each envelope its entry
number and the inclusion proof, and the file lists of the folders (trees) among subjects and inputs. Lines can be left out of a bundle,
so nothing follows from what is absent. It needs neither git nor the ledger to be read.

Format: docs/formats/log.md.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ledger import dsse, lookup, note, predicates, standing, witness_folder
from ledger.entries import UNPLACED, Entry
from ledger.errors import EnvelopeError, LedgerError, ProofError, StatementError, VerificationError
from ledger.policy import Policy
from ledger.tlog import leaf_hash, verify_inclusion
from store.digest import Digest
from store.errors import DigestError, StoreError
from store.tree import Tree, TreeEntry

if TYPE_CHECKING:
    from ledger.log import Log
    from store.cas import Cas

MAX_BUNDLE_BYTES = 256 * 2**20
"""More is not read."""

MAX_LINES = 200_000
"""Likewise: a million lines of two letters are 3 MB, and took 0.8 GB of memory and a minute."""

_MAX_PROBLEMS = 20


# --- writing -------------------------------------------------------------------------------------------------------------------


def closure(log: Log, digests: Iterable[Digest], policy: Policy | None = None) -> list[Entry]:
    """Every entry about these objects, about what they were made from, and so on back to the sources, in the order of the log.

    The key events about whoever signed them are among them, so that a reader far away learns what became of these keys. With a policy,
    only of entries that count under it: what strangers put into a log travels no further.
    """
    found: dict[int, Entry] = {}
    todo, seen = list(digests), set[Digest]()
    while todo:
        digest = todo.pop()
        if digest in seen:
            continue
        seen.add(digest)
        entries = log.by_subject(digest)
        for entry in entries if policy is None else [one.entry for one in lookup.sift(entries, policy)[0]]:
            if entry.number not in found:
                found[entry.number] = entry
                todo += _needed(entry)
    _add_key_events(found, log, policy)
    return [found[number] for number in sorted(found)]


def _add_key_events(found: dict[int, Entry], log: Log, policy: Policy | None) -> None:
    """Add the key events about the keys that signed what was found, and about those that signed these events."""
    events = {entry.number: entry for entry in standing.events(log) if entry.number not in found}
    told = {cut.entry for cut in standing.cuts(policy, list(events.values()))} if policy is not None and events else set(events)
    signers = {hint for entry in found.values() for hint in _hints(entry)} if told else set[str]()
    more = True
    while more:
        more = False
        for number in sorted(told - set(found)):
            if _about(events[number]) in signers:
                found[number] = events[number]
                signers |= _hints(events[number])
                more = True


def _hints(entry: Entry) -> set[str]:
    """The keys that an envelope says it is signed by; to look up what is said of them, never to trust them."""
    return {signature.keyid for signature in entry.signed.signatures if signature.keyid is not None}


def _about(event: Entry) -> str:
    try:
        return str(predicates.KeyEvent.of(event.statement).key)
    except VerificationError:
        return ""


def _needed(entry: Entry) -> list[Digest]:
    """What an entry's action took; and the other things it made stay out, unless something else needs them."""
    try:
        return list(predicates.action_of(entry.statement).inputs.values()) if entry.statement.predicate_type == predicates.RUN else []
    except (LedgerError, StoreError):
        return []  # whoever verifies the bundle says what is wrong with it


def export(
    log: Log, digests: Iterable[Digest], *, store: Cas | None = None, policy: Policy | None = None
) -> tuple[list[bytes], dict[str, Any]]:
    """The envelopes of a provenance closure (see `closure`), one per line, and their receipt.

    With a store, the receipt also lists the files of every tree that a statement names, so that a published folder can be checked file by
    file, and a stage that took one file of a folder is connected with whatever made the folder.

    Raises:
        EnvelopeError: an envelope of the log holds a line break, so it cannot be a line.
    """
    entries = closure(log, digests, policy)
    lines = [entry.envelope for entry in entries]
    for entry in entries:
        if b"\n" in entry.envelope or b"\r" in entry.envelope:
            raise EnvelopeError(f"entry {entry.number} holds a line break and cannot stand in a file of lines")
    receipt: dict[str, Any] = {"entries": []}
    # A checkpoint that witnesses have seen says when; where none covers all of it, the newest does.
    witnessed = witness_folder.newest(log, covering=entries[-1].number + 1) if entries else None
    proofs = log.inclusion_proofs([entry.number for entry in entries], checkpoint=witnessed)
    for entry, proof in zip(entries, proofs, strict=True):
        receipt["checkpoint"] = proof.checkpoint.decode()
        hashes = [b64encode(item).decode() for item in proof.hashes]
        receipt["entries"].append({"envelopeDigest": str(entry.digest), "inclusionProof": hashes, "number": entry.number})
    if store is not None:
        receipt["trees"] = _listings(entries, store)
    return lines, receipt


def _listings(entries: Sequence[Entry], store: Cas) -> dict[str, list[dict[str, Any]]]:
    from store import tree

    named = {digest for entry in entries for digest in (*entry.statement.subjects.values(), *_needed(entry))}
    listings = {}
    for digest in sorted(named):
        if store.has(digest) and tree.is_tree(store, digest):
            files = tree.load(store, digest).entries
            listings[str(digest)] = [{"digest": str(file.digest), "path": file.path, "size": file.size} for file in files]
    return listings


# --- reading -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Receipt:
    """A receipt as it came. Nothing in it is verified.

    Attributes:
        checkpoint: the signed note; None when the receipt has none.
        places: envelope digest -> (entry number, inclusion proof).
        trees: tree digest -> its files; these do hash to their digest.
    """

    checkpoint: bytes | None
    places: Mapping[Digest, tuple[int, tuple[bytes, ...]]]
    trees: Mapping[Digest, Tree]

    @classmethod
    def parse(cls, value: Any) -> Receipt:
        """Read the JSON value that `export` gave.

        Raises:
            ProofError: it is not a receipt, or a listing does not hash to its tree's digest.
        """
        if not isinstance(value, dict) or not isinstance(value.get("entries"), list):
            raise ProofError("the receipt is not an object with entries")
        checkpoint = value.get("checkpoint")
        if checkpoint is not None and not isinstance(checkpoint, str):
            raise ProofError("the receipt's checkpoint is not text")
        places: dict[Digest, tuple[int, tuple[bytes, ...]]] = {}
        try:
            for item in value["entries"]:
                number = item["number"]
                if type(number) is not int or number < 0:
                    raise ProofError(f"the receipt gives {number!r} as an entry number")
                hashes = tuple(b64decode(text, validate=True) for text in item["inclusionProof"])
                places[Digest.parse(item["envelopeDigest"])] = number, hashes
            trees = {Digest.parse(text): _tree(files) for text, files in value.get("trees", {}).items()}
        except (KeyError, TypeError, AttributeError, ValueError, Base64Error, StoreError) as error:
            raise ProofError(f"the receipt cannot be read: {error!r}") from error
        for digest, tree in trees.items():
            if tree.digest != digest:
                raise ProofError(f"the receipt's list of files for {digest.short} hashes to {tree.digest.short}; the alloy was edited")
        return cls(checkpoint.encode() if checkpoint is not None else None, places, trees)


def _tree(files: Any) -> Tree:
    return Tree(tuple(TreeEntry(item["path"], Digest.parse(item["digest"]), item["size"]) for item in files))


class Bundle:
    """Envelopes by what they say; a place to look entries up in, like a log. Nothing about them is verified here but their place.

    Attributes:
        entries: as in the file; `number` is `UNPLACED` unless the receipt proves it.
        problems: lines that are no envelope around a statement, and places that are not proven; said, never passed over.
        anchored_by: names of the keys that signed the checkpoint; empty when no key that may sign a log did.
        size: the size of the log at the checkpoint, 0 when there is none.
        policy: the reader's, narrowed by the key events among the entries; judge the entries by this one. cuts: what narrowed it.
    """

    def __init__(self, data: bytes, receipt: Receipt | None = None, policy: Policy | None = None) -> None:
        if len(data) > MAX_BUNDLE_BYTES:
            raise EnvelopeError(f"attestations of {len(data)} bytes; at most {MAX_BUNDLE_BYTES} are read")
        if (lines := data.count(b"\n")) > MAX_LINES:
            raise EnvelopeError(f"attestations of {lines:,} lines; at most {MAX_LINES:,} are read")
        self.receipt = receipt or Receipt(None, {}, {})
        self.policy = policy
        self._read(data, policy)
        self.cuts: tuple[standing.Cut, ...] = ()
        if policy is not None:
            events = [entry for entry in self.entries if standing.is_event(entry)]
            self.cuts, self.policy = standing.cuts(policy, events), standing.narrowed(policy, events)
            if self.policy is not policy:  # whoever was cut off may have signed the checkpoint, and then it proves no places
                self._read(data, self.policy)

    def _read(self, data: bytes, policy: Policy | None) -> None:
        self.problems: list[str] = []
        self.anchored_by: tuple[str, ...] = ()
        self.size = 0
        self.origin = ""
        self._root: bytes | None = None
        if self.receipt.checkpoint is not None and policy is not None:
            self._anchor(self.receipt.checkpoint, policy)
        self.entries = [self._entry(number, line) for number, line in enumerate(data.split(b"\n"), 1) if line]
        self._by_key: dict[Digest, list[Entry]] = {}
        self._by_subject: dict[Digest, list[Entry]] = {}
        self._by_material: dict[Digest, list[Entry]] = {}
        for number, entry in enumerate(self.entries, 1):
            self._file(number, entry)
        missing = set(self.receipt.places) - {entry.digest for entry in self.entries}
        if missing:
            self.problems.append(f"{len(missing)} envelopes that the receipt names are not in the file, first {sorted(missing)[0].short}")
        if more := len(self.problems) - _MAX_PROBLEMS:
            self.problems[_MAX_PROBLEMS:] = [f"and {more:,} more like these"] if more > 0 else []

    def _anchor(self, signed: bytes, policy: Policy) -> None:
        try:
            parsed = note.parse_note(signed)
            checkpoint = parsed.checkpoint
            keys = policy.place_keys(checkpoint.size)
            self.size, self.origin, self._root = checkpoint.size, checkpoint.origin, checkpoint.root
        except VerificationError as error:
            self.problems.append(f"the receipt's checkpoint cannot be read: {error}")
            return
        known = {note.key_hash(checkpoint.origin, key) for key in keys}
        if known.isdisjoint(line.key_hash for line in parsed.signatures):
            return  # by nobody whom the policy lets sign a log: it places nothing, and the verifier says so
        try:
            self.anchored_by = tuple(sorted(keys[key] for key in note.verify_note(parsed, keys)))
        except VerificationError as error:
            self.problems.append(f"the receipt's checkpoint is not signed as it says: {error}")

    def _entry(self, line_number: int, line: bytes) -> Entry:
        place = self.receipt.places.get(Digest.of(line))
        if place is None or self._root is None:
            return Entry(UNPLACED, "", line, b"")
        number, hashes = place
        try:
            verify_inclusion(leaf_hash(line), number, self.size, hashes, self._root)
        except ProofError as error:
            self.problems.append(f"line {line_number}: {error}")
            return Entry(UNPLACED, "", line, b"")
        return Entry(number if self.anchored_by else UNPLACED, "", line, b"")

    def _file(self, line_number: int, entry: Entry) -> None:
        try:
            statement = entry.statement
        except (VerificationError, DigestError) as error:
            self.problems.append(f"line {line_number} is no signed statement: {error}")
            return
        for digest in dict.fromkeys(statement.subjects.values()):
            self._by_subject.setdefault(digest, []).append(entry)
        if statement.predicate_type == predicates.RUN:
            try:
                action = predicates.action_of(statement)
                self._by_key.setdefault(action.key, []).append(entry)
                for digest in dict.fromkeys(action.inputs.values()):
                    self._by_material.setdefault(digest, []).append(entry)
            except (StatementError, StoreError) as error:
                self.problems.append(f"line {line_number}: {error}")

    def lookup(self, key: Digest) -> list[Entry]:
        """Entries that claim to be runs of an action."""
        return self._by_key.get(key, [])

    def by_subject(self, digest: Digest) -> list[Entry]:
        """Entries that say something about an object."""
        return self._by_subject.get(digest, [])

    def by_material(self, digest: Digest) -> list[Entry]:
        """Entries of actions that took an object as an input."""
        return self._by_material.get(digest, [])


def parse_lines(data: bytes) -> list[bytes]:
    """The envelopes of an attestations file, for `Log.append_foreign`.

    Raises:
        EnvelopeError: a line is none.
    """
    lines = [line for line in data.split(b"\n") if line]
    for line in lines:
        dsse.Envelope.parse(line)
    return lines

"""Cosigned checkpoints: a witness says when it saw a log at what size, and that it never saw another one in its place.

A log's own signature says nothing about when it was made, so a reader who is served an old log, or another one than everybody else, cannot
tell. A witness signs the text of a checkpoint with the time, after it has checked that it extends the last one that it signed of that log.
A reader's policy names witnesses and how old what they saw may be (`checkpoints`).

What a witness signs is `cosignature/v1`, a line `time N` with the seconds since 1970, and the checkpoint's text. No checkpoint is that: its
second line is a number, and an origin that starts with `cosignature/` is refused. The signature stands as one more line of the note, under
the witness's name, with 8 bytes of time before the 64 of the signature.

The cosigned notes of a ledger lie beside its log, in `witnessed/`, one file a checkpoint; whose name says nothing. They travel inside
receipts and proofs as the checkpoint.

Source: C2SP tlog-cosignature (https://c2sp.org/tlog-cosignature) and tlog-witness (https://c2sp.org/tlog-witness).
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ledger import note
from ledger.errors import FrozenError, LogError, NoteError, ProofError, RewrittenError, SignatureError, VerificationError
from ledger.keys import ED25519, PublicKey, Signer
from ledger.memory import Memory, read_checkpoint
from ledger.note import Checkpoint, Note
from ledger.policy import Policy
from ledger.report import Row, printable
from ledger.tlog import HASH_BYTES, verify_consistency

if TYPE_CHECKING:
    from ledger.log import Log

FOLDER = "witnessed"
"""In the folder of a ledger."""

AHEAD_S = 300
"""A witness's clock may be that much ahead of the reader's."""

MAX_SIZE = 2**40
"""A witness that cannot count the entries itself believes no larger log: one absurd size, once cosigned, would bar every honest one."""

_HEADER = "cosignature/v1"
_MAX_FILES = 100


@dataclass(frozen=True, slots=True)
class Cosignature:
    """A verified statement of a witness: it saw the checkpoint of `size` entries at `time`, in seconds since 1970."""

    name: str
    key: PublicKey
    time: int
    size: int


# --- one note ------------------------------------------------------------------------------------------------------------------


def key_hash(name: str, public: PublicKey) -> bytes:
    """The 4 bytes that say which key a cosignature is by: SHA-256(name || 0x0A || 0x04 || 32-byte Ed25519 key)."""
    return hashlib.sha256(name.encode() + b"\n\x04" + public.raw).digest()[:4]


def sign(signed: bytes, signer: Signer, *, when: int) -> bytes:
    """The note with one more line: this witness's, in place of an older one of its.

    Nothing is checked here; a `Witness` does that first.

    Raises:
        NoteError: not a checkpoint, the signer's key is not Ed25519, or its name cannot stand in a note.
    """
    if signer.public.algorithm != ED25519:
        raise NoteError(f"a witness signs with an Ed25519 key; {signer.name} is {signer.public.algorithm}")
    parsed = note.parse_note(signed)
    _ = parsed.checkpoint
    mark = key_hash(signer.name, signer.public)
    lines = zip(_lines(signed), parsed.signatures, strict=True)
    kept = [line for line, one in lines if (one.name, one.key_hash) != (signer.name, mark)]
    message = _message(parsed, when)
    blob = mark + when.to_bytes(8, "big") + signer.sign(message)
    line = f"— {signer.name} {b64encode(blob).decode()}\n"
    cosigned = f"{parsed.text}\n{''.join(kept)}{line}".encode()
    note.parse_note(cosigned)
    return cosigned


def merge(one: bytes, other: bytes) -> bytes:
    """Two notes of one text as one, with all their signature lines.

    Raises:
        NoteError: their texts differ, or together they are too large.
    """
    first, second = note.parse_note(one), note.parse_note(other)
    if first.text != second.text:
        raise NoteError("two notes with different texts are not merged")
    lines = dict.fromkeys([*_lines(one), *_lines(other)])
    merged = f"{first.text}\n{''.join(lines)}".encode()
    note.parse_note(merged)
    return merged


def read(parsed: Note, policy: Policy) -> tuple[Cosignature, ...]:
    """The cosignatures on a checkpoint by the witnesses that a policy names; the newest of each.

    A witness that the policy cuts off somewhere (`until`) sees nothing any more. Signatures of others are passed over.

    Raises:
        SignatureError: a line that names such a witness by name and key hash is not its cosignature.
    """
    if policy.checkpoints is None:
        return ()
    size = parsed.checkpoint.size
    newest: dict[str, Cosignature] = {}
    for line in parsed.signatures:
        for name in policy.checkpoints.names:
            key = policy.keys[name]
            if policy.retired(name) or line.key_hash != key_hash(line.name, key):
                continue
            if len(line.signature) != 72:
                raise SignatureError(f"a cosignature is 8 bytes of time and 64 of signature; that of {name} has {len(line.signature)}")
            when = int.from_bytes(line.signature[:8], "big")
            key.verify(line.signature[8:], _message(parsed, when))
            if name not in newest or newest[name].time < when:
                newest[name] = Cosignature(name, key, when, size)
    return tuple(newest[name] for name in sorted(newest))


def _message(parsed: Note, when: int) -> bytes:
    if not 0 <= when < 2**63:
        raise NoteError(f"the time of a cosignature is in seconds since 1970; got {when}")
    return f"{_HEADER}\ntime {when}\n{parsed.text}".encode()


def _lines(signed: bytes) -> list[str]:
    return signed.decode().rpartition("\n\n")[2].splitlines(keepends=True)


# --- is it fresh? --------------------------------------------------------------------------------------------------------------


def judge(found: Iterable[Cosignature], policy: Policy, *, now: float) -> tuple[int, tuple[Cosignature, ...]]:
    """What enough witnesses have seen lately: how many entries of the log, and by whom.

    Raises:
        FrozenError: too few witnesses, or too long ago. An old log may be served in place of the present one.
    """
    wanted = policy.checkpoints
    if wanted is None:
        return 0, ()
    seen = sorted(found, key=lambda one: -one.time)
    fresh = [one for one in seen if one.time <= now + AHEAD_S and (wanted.max_age_s is None or now - one.time <= wanted.max_age_s)]
    for size in sorted({one.size for one in fresh}, reverse=True):
        those = [one for one in fresh if one.size >= size]
        if policy.holders(one.name for one in those) >= wanted.threshold:
            return size, tuple({one.name: one for one in reversed(those)}.values())
    age = f" in the last {span(wanted.max_age_s)}" if wanted.max_age_s is not None else ""
    last = f"the last was {seen[0].name}, {_ago(seen[0].time, now)}" if seen else "none of them ever did"
    raise FrozenError(
        f"too few of the witnesses that {policy.source} names ({wanted.threshold} of {', '.join(wanted.names)}) have seen this log{age}: "
        f"{last}. Newer entries, a revocation too, may be kept from you"
    )


def travelled(notes: Iterable[bytes], policy: Policy, *, now: float | None = None) -> list[Row]:
    """The finding about the age of checkpoints that travelled with a receipt or a proof; none when the policy wants no witnesses."""
    if policy.checkpoints is None:
        return []
    now = time.time() if now is None else now
    try:
        found = [one for signed in notes for one in read(note.parse_note(signed), policy)]
        size, by = judge(found, policy, now=now)
    except FrozenError as error:
        return [Row("failed", str(error), "Ask for attestations with a newer checkpoint that witnesses have cosigned")]
    except VerificationError as error:
        return [Row("failed", f"the checkpoint's cosignatures: {error}", "Take it again from where it was published")]
    return [Row("proven", f"{_names(by)} saw the log at {size:,} entries, {_ago(max(one.time for one in by), now)}", aside=True)]


def rows(log: Log, policy: Policy, *, now: float | None = None) -> list[Row]:
    """The findings about the age of a log, from the cosigned checkpoints beside it."""
    now = time.time() if now is None else now
    told: list[Row] = []
    found: list[Cosignature] = []
    for path, problem, parsed in _kept(log):
        if isinstance(problem, RewrittenError) and _vouched(path, policy):
            evidence = "; ".join(
                f"{what}: {printable(' '.join(text.decode(errors='replace').split()), 2000)}"
                for what, text in (("a witness saw", problem.accepted), ("here is", problem.found))
            )
            told.append(Row("failed", f"{problem}. Evidence: {evidence}"))
        elif problem is not None:
            told.append(Row("unverified", f"{path.name} in {FOLDER} is no checkpoint of it: {problem}", "Delete it", aside=True))
        elif parsed is not None:
            try:
                found += read(parsed, policy)
            except VerificationError as error:
                told.append(Row("failed", f"{path.name} in {FOLDER}: {error}", "Delete it"))
    if policy.checkpoints is None:
        return told
    try:
        size, by = judge(found, policy, now=now)
    except FrozenError as error:
        return [*told, Row("failed", str(error), "Ask a witness to look: `ledger witness --key NAME`")]
    seen = f"{_names(by)} saw this log at {size:,} entries, {_ago(max(one.time for one in by), now)}"
    told.append(Row("proven", f"{seen}, and it was the same", aside=True))
    if size < log.size:
        since = "the entry" if log.size - size == 1 else f"the {log.size - size:,} entries"
        told.append(Row("unverified", f"{since} since then: no witness has seen it yet", aside=True))
    return told


def _vouched(path: Path, policy: Policy) -> bool:
    """Whether somebody whom the policy knows signed a checkpoint, as the log or as a witness: anybody can write a file."""
    parsed = note.parse_note(path.read_bytes())
    try:
        return bool(read(parsed, policy)) or bool(note.verify_note(parsed, policy.log_keys.values()))
    except SignatureError:
        return False


def span(seconds: int) -> str:
    """A length of time in the largest unit that divides it.

    >>> span(2_592_000), span(5400)
    ('30 d', '90 min')
    """
    return next(f"{seconds // unit} {word}" for word, unit in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)) if seconds % unit == 0)


def _ago(when: int, now: float) -> str:
    seconds = int(now - when)
    if seconds < 0:
        return f"{-seconds:,} s ahead of this clock"
    return next(
        f"{seconds // unit:,} {word} ago"
        for word, unit in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))
        if seconds >= unit or unit == 1
    )


def _names(by: Sequence[Cosignature]) -> str:
    return " and ".join(sorted(one.name for one in by))


# --- beside the log ------------------------------------------------------------------------------------------------------------


def newest(log: Log, *, covering: int = 0) -> bytes | None:
    """The newest cosigned checkpoint beside a log that has at least `covering` entries; None when there is none.

    It is what receipts and proofs carry: as good as the newest checkpoint for the entries that it covers, and witnessed. One that another
    key of the log signed than the newest is left out: that key may have been retired since, and then it vouches for no place.
    """
    head = log.checkpoint
    if head is None:
        return None
    now = note.parse_note(head)
    ours = {(line.name, line.key_hash) for line in now.signatures}
    good = [
        (parsed.checkpoint.size, parsed.raw)
        for _, problem, parsed in _kept(log)
        if problem is None and parsed is not None and parsed.checkpoint.size >= covering and ours <= _witnesses(parsed.raw)
    ]
    return max(good, default=(0, None))[1]


def keep(log: Log, signed: bytes) -> Path:
    """Put a cosigned checkpoint beside its log, merged with what is there for the same size; older ones that say no more go.

    Raises:
        RewrittenError: the log does not extend it. NoteError: it is no checkpoint. LogError: it cannot be written.
    """
    checkpoint = note.parse_note(signed).checkpoint
    log.prove_extends(checkpoint)
    folder = log.folder / FOLDER
    path = folder / f"{checkpoint.size}"
    try:
        folder.mkdir(exist_ok=True)
        if path.is_file() and note.parse_note(path.read_bytes()).text == note.parse_note(signed).text:
            signed = merge(path.read_bytes(), signed)
        aside = folder / f".{secrets.token_hex(6)}"
        with aside.open("wb") as file:
            file.write(signed)
            file.flush()
            os.fsync(file.fileno())
        aside.rename(path)
        mine = _witnesses(signed)
        for other, problem, parsed in _kept(log):
            if problem is None and parsed is not None and parsed.checkpoint.size < checkpoint.size and _witnesses(parsed.raw) <= mine:
                other.unlink(missing_ok=True)
    except OSError as error:
        raise LogError(f"cannot keep the cosigned checkpoint in {folder}: {error.strerror}") from error
    return path


def _witnesses(signed: bytes) -> set[tuple[str, bytes]]:
    return {(line.name, line.key_hash) for line in note.parse_note(signed).signatures}


def _kept(log: Log) -> list[tuple[Path, VerificationError | None, Note | None]]:
    """The files beside a log: each with what is wrong with it, or as the note of a checkpoint that the log extends."""
    folder = log.folder / FOLDER
    if not folder.is_dir():
        return []
    told: list[tuple[Path, VerificationError | None, Note | None]] = []
    for path in sorted(folder.iterdir())[:_MAX_FILES]:
        if path.name.startswith(".") or not path.is_file():
            continue
        try:
            with path.open("rb") as file:
                parsed = note.parse_note(file.read(note.MAX_NOTE_BYTES + 1))
            log.prove_extends(parsed.checkpoint)
            told.append((path, None, parsed))
        except VerificationError as error:
            told.append((path, error, None))
    return told


# --- the witness ---------------------------------------------------------------------------------------------------------------


class Witness:
    """A key that cosigns checkpoints, each only when it extends the last one of that log that it cosigned on this machine.

    Args:
        signer: an Ed25519 key.
        memory: where the last ones are remembered, outside every ledger.
        clock: seconds since 1970.
    """

    def __init__(self, signer: Signer, memory: Memory, *, clock: Callable[[], float] = time.time) -> None:
        self._signer, self._memory, self._clock = signer, memory, clock

    def cosign_log(self, log: Log) -> bytes:
        """Cosign the newest checkpoint of a log whose entries are here.

        Raises:
            RewrittenError: the log does not extend what was cosigned before; both checkpoints are in it. Nothing was signed.
            LogError: the log is empty.
        """
        signed = log.checkpoint
        if signed is None:
            raise LogError(f"the log in {log.folder} is empty; there is nothing to witness")
        log.check_size()
        return self._cosign(signed, log.prove_extends)

    def cosign_note(self, request: bytes) -> bytes:
        """Cosign a checkpoint that came alone, or as the body of a C2SP add-checkpoint request with its consistency proof.

        Raises:
            RewrittenError: it is not proven to extend what was cosigned before; both checkpoints are in it. Nothing was signed.
            NoteError: it is no checkpoint, or states an absurd size.
        """
        old, hashes, signed = parse_request(request)
        new = note.parse_note(signed).checkpoint
        if new.size > MAX_SIZE:
            raise NoteError(
                f"the checkpoint states {new.size:,} entries; no log has more than {MAX_SIZE:,}, and this one cannot be counted here"
            )

        def prove(before: Checkpoint) -> None:
            try:
                if before.size not in (old, new.size):
                    raise ProofError(f"the proof starts at {old:,} entries; {before.size:,} were cosigned, so ask again from there")
                verify_consistency(before.size, before.root, new.size, new.root, hashes if before.size == old else [])
            except ProofError as error:
                raise RewrittenError(
                    f"the checkpoint of {new.size:,} entries of {new.origin!r} is not proven to extend the {before.size:,} that "
                    f"{self._signer.name} cosigned before: {error}",
                    accepted=before.text().encode(),
                    found=signed,
                ) from error

        return self._cosign(signed, prove)

    def _cosign(self, signed: bytes, prove: Callable[[Checkpoint], None]) -> bytes:
        parsed = note.parse_note(signed)
        new = parsed.checkpoint
        if new.size == 0:
            raise NoteError("a checkpoint without entries; there is nothing to witness")
        with self._memory.witnessing(self._signer.public, new.origin) as (before, remember):
            if before is not None:
                old = read_checkpoint(before)
                try:
                    if old.size > new.size:
                        raise ProofError(f"it has {new.size:,} entries, and {old.size:,} were cosigned before")
                    prove(old)
                except (ProofError, RewrittenError) as error:
                    where = self._memory.witness_file(self._signer.public, new.origin)
                    raise RewrittenError(
                        f"{self._signer.name} cosigns no fork and no rollback: {error}. Keep both checkpoints as evidence. Only if the one "
                        f"before was never the log's, delete {where}",
                        accepted=before,
                        found=signed,
                    ) from error
            cosigned = sign(signed, self._signer, when=int(self._clock()))
            remember(cosigned)  # before anybody has the signature: two forks must never both have one
        return cosigned


def request(log: Log, old: int) -> bytes:
    """What a witness elsewhere needs to cosign the newest checkpoint: the body of a C2SP add-checkpoint request.

    Args:
        log: whose.
        old: how many entries the witness has seen; 0 when it knows nothing of the log.

    Raises:
        LogError: the log is empty, or has fewer entries.
    """
    signed = log.checkpoint
    if signed is None or old > log.size or old < 0:
        raise LogError(f"the log in {log.folder} has {log.size:,} entries; a proof from {old:,} on is impossible")
    hashes = log.consistency_proof(old)
    return f"old {old}\n{''.join(b64encode(item).decode() + chr(10) for item in hashes)}\n".encode() + signed


def parse_request(data: bytes) -> tuple[int, list[bytes], bytes]:
    """(old size, consistency proof, signed note) of such a body; a note alone has an old size of 0 and no proof.

    Raises:
        NoteError: it is neither.
    """
    if not data.startswith(b"old "):
        return 0, [], data
    head, _, signed = data.partition(b"\n\n")
    first, *lines = head.split(b"\n")
    size = first[4:]
    if not size.isdigit() or str(int(size[:19])).encode() != size or len(lines) > 63:
        raise NoteError("an add-checkpoint request starts with `old` and a decimal size, and has at most 63 hashes")
    try:
        hashes = [b64decode(line, validate=True) for line in lines]
    except Base64Error as error:
        raise NoteError(f"a hash of the consistency proof is not base64: {error}") from error
    if any(len(item) != HASH_BYTES for item in hashes):
        raise NoteError("a hash of the consistency proof has not 32 bytes")
    return int(size), hashes, signed

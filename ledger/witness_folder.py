"""The cosigned checkpoints of a ledger: `witnessed/` beside its log, one file a checkpoint, whose name says nothing.

Anybody can write there, so a file is worth what it holds: the note of a checkpoint that the log extends, cosigned by somebody whom the
policy names. The newest travels inside receipts and proofs as their checkpoint.
"""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ledger import cosign, note
from ledger.cosign import Cosignature
from ledger.errors import FrozenError, LogError, RewrittenError, SignatureError, VerificationError
from ledger.note import Note
from ledger.policy import Policy
from ledger.report import Row, printable

if TYPE_CHECKING:
    from ledger.log import Log

FOLDER = "witnessed"
"""In the folder of a ledger."""

_MAX_FILES = 100


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
            signed = cosign.merge(path.read_bytes(), signed)
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
                found += cosign.read(parsed, policy)
            except VerificationError as error:
                told.append(Row("failed", f"{path.name} in {FOLDER}: {error}", "Delete it"))
    if policy.checkpoints is None:
        return told
    try:
        size, by = cosign.judge(found, policy, now=now)
    except FrozenError as error:
        return [*told, Row("failed", str(error), "Ask a witness to look: `ledger witness --key NAME`")]
    told.append(Row("proven", f"{cosign.seen('this log', size, by, now=now)}, and it was the same", aside=True))
    if size < log.size:
        since = "the entry" if log.size - size == 1 else f"the {log.size - size:,} entries"
        told.append(Row("unverified", f"{since} since then: no witness has seen it yet", aside=True))
    return told


def _vouched(path: Path, policy: Policy) -> bool:
    """Whether somebody whom the policy knows signed a checkpoint, as the log or as a witness: anybody can write a file."""
    parsed = note.parse_note(path.read_bytes())
    try:
        return bool(cosign.read(parsed, policy)) or bool(note.verify_note(parsed, policy.log_keys.values()))
    except SignatureError:
        return False

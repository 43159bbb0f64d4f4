"""Cosigned checkpoints: a witness says when it saw a log at what size, and that it never saw another one in its place.

A log's own signature says nothing about when it was made, so a reader who is served an old log, or another one than everybody else, cannot
tell. A witness (`ledger.witness`) signs the text of a checkpoint with the time, after it has checked that it extends the last one that it
signed of that log. A reader's policy names witnesses and how old what they saw may be (`checkpoints`).

What a witness signs is `cosignature/v1`, a line `time N` with the seconds since 1970, and the checkpoint's text. No checkpoint is that: its
second line is a number, and an origin that starts with `cosignature/` is refused. The signature stands as one more line of the note, under
the witness's name, with 8 bytes of time before the 64 of the signature.

Source: C2SP tlog-cosignature (https://c2sp.org/tlog-cosignature).
"""

from __future__ import annotations

import hashlib
import time
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ledger import note
from ledger.errors import FrozenError, NoteError, SignatureError, VerificationError
from ledger.keys import ED25519, PublicKey, Signer
from ledger.note import Note
from ledger.policy import Policy
from ledger.report import Row

AHEAD_S = 300
"""A witness's clock may be that much ahead of the reader's."""

_HEADER = "cosignature/v1"


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
    newest = sorted(found, key=lambda one: -one.time)
    fresh = [one for one in newest if one.time <= now + AHEAD_S and (wanted.max_age_s is None or now - one.time <= wanted.max_age_s)]
    for size in sorted({one.size for one in fresh}, reverse=True):
        those = [one for one in fresh if one.size >= size]
        if policy.holders(one.name for one in those) >= wanted.threshold:
            return size, tuple({one.name: one for one in reversed(those)}.values())
    age = f" in the last {span(wanted.max_age_s)}" if wanted.max_age_s is not None else ""
    last = f"the last was {newest[0].name}, {_ago(newest[0].time, now)}" if newest else "none of them ever did"
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
    return [Row("proven", seen("the log", size, by, now=now), aside=True)]


def seen(what: str, size: int, by: Sequence[Cosignature], *, now: float) -> str:
    """`w1 and w2 saw the log at 5 entries, 3 d ago`: what `judge` found, in words."""
    names = " and ".join(sorted(one.name for one in by))
    return f"{names} saw {what} at {size:,} entries, {_ago(max(one.time for one in by), now)}"


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

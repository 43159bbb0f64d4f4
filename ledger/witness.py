"""The act of witnessing: a key cosigns the checkpoint of a log, once it is sure that it never saw another log in its place.

What it saw last of each log is remembered on this machine, outside every ledger (`ledger.memory`). A checkpoint comes with its log, or
alone with a proof that it extends the last one, as `request` writes it.

Source: C2SP tlog-witness (https://c2sp.org/tlog-witness).
"""

from __future__ import annotations

import time
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable
from typing import TYPE_CHECKING

from ledger import cosign, note
from ledger.errors import LogError, NoteError, ProofError, RewrittenError
from ledger.keys import Signer
from ledger.memory import Memory, read_checkpoint
from ledger.note import Checkpoint
from ledger.tlog import HASH_BYTES, verify_consistency

if TYPE_CHECKING:
    from ledger.log import Log

MAX_SIZE = 2**40
"""A witness that cannot count the entries itself believes no larger log: one absurd size, once cosigned, would bar every honest one."""


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
            cosigned = cosign.sign(signed, self._signer, when=int(self._clock()))
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

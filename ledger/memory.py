"""What this machine remembers of logs, outside of them: what was accepted, searched and cosigned."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ledger import note
from ledger.errors import LogError, VerificationError
from ledger.keys import PublicKey
from ledger.note import Checkpoint
from store.files import replace_file


def state_folder() -> Path:
    """Where this user's own machine remembers what it saw: `$XDG_STATE_HOME/ledger`, else `~/.local/state/ledger`."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local/state") / "ledger"


class Memory:
    """The last accepted checkpoint of every log, kept outside the ledgers so that whoever rewrites one cannot rewrite this.

    `checkpoints/<sha256 of the origin>` holds the signed note, `places/<sha256 of the folder>` the origin of the log in a folder, and
    `own/<sha256 of the folder>` says that this user made the ledger in it, or named it as his own: its policy is his.
    `events/<sha256 of the origin>` says up to which checkpoint a log was searched for key events, and where they are.
    `witness/<sha256 of a key and the origin>` is the newest checkpoint that this key cosigned as a witness.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def default(cls) -> Memory:
        """The user's own."""
        return cls(state_folder())

    def checkpoint(self, origin: str) -> bytes | None:
        """The note that was last accepted for a log."""
        return self._read(self._checkpoint_file(origin))

    def accept(self, checkpoint: Checkpoint, signed: bytes) -> None:
        """Remember a checkpoint that extends the remembered one; an older one than that changes nothing.

        Raises:
            LogError: it cannot be written.
        """
        known = self.checkpoint(checkpoint.origin)
        if known is None or read_checkpoint(known).size < checkpoint.size:
            self._write(self._checkpoint_file(checkpoint.origin), signed)

    def searched(self, origin: str) -> tuple[Checkpoint, tuple[int, ...]] | None:
        """How far a log was searched for key events, and the numbers of those found; None when it was not, or that cannot be read."""
        data = self._read(self._events_file(origin))
        head, _, numbers = (data or b"").partition(b"\n\n")
        try:
            return Checkpoint.parse(head.decode() + "\n"), tuple(int(line) for line in numbers.split())
        except (VerificationError, ValueError):
            return None  # then it is searched again

    def note_search(self, checkpoint: Checkpoint, numbers: Sequence[int]) -> None:
        """Remember a search up to a checkpoint.

        Raises:
            LogError: it cannot be written.
        """
        lines = "".join(f"{number}\n" for number in numbers)
        self._write(self._events_file(checkpoint.origin), f"{checkpoint.text()}\n{lines}".encode())

    @contextmanager
    def witnessing(self, public: PublicKey, origin: str) -> Iterator[tuple[bytes | None, Callable[[bytes], None]]]:
        """Hold the newest checkpoint of a log that a witness cosigned, and a way to replace it durably, against other processes.

        Raises:
            LogError: it cannot be read or written.
        """
        file = self.witness_file(public, origin)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(file.with_name(f"{file.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise LogError(f"cannot remember what was cosigned in {file.parent}: {error.strerror}; nothing was cosigned") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield self._read(file), lambda data: self._write(file, data, durable=True)
        finally:
            os.close(descriptor)

    def witness_file(self, public: PublicKey, origin: str) -> Path:
        """Where the newest checkpoint of a log is that this key cosigned; deleting it lets the witness start anew."""
        return self._folder / "witness" / hashlib.sha256(f"{public}\n{origin}".encode()).hexdigest()

    def origin_at(self, place: Path) -> str | None:
        """The origin of the log that was accepted in a folder."""
        data = self._read(self._place_file(place))
        return None if data is None else data.decode()

    def recall(self, place: Path, origin: str) -> tuple[str, bytes | None]:
        """The origin of the log that was accepted in a folder (`origin`, when none was), and the checkpoint that was accepted of it."""
        settled = self.origin_at(place) or origin
        return settled, self.checkpoint(settled)

    def settle(self, place: Path, origin: str) -> None:
        """Remember which log lives in a folder."""
        if self.origin_at(place) != origin:
            self._write(self._place_file(place), origin.encode())

    def adopt(self, place: Path) -> None:
        """Remember that the ledger in a folder is this user's own."""
        if not self.adopted(place):
            self._write(self._own_file(place), os.fsencode(place.resolve()))

    def adopted(self, place: Path) -> bool:
        """Whether the ledger in a folder is this user's own."""
        return self._read(self._own_file(place)) is not None

    def describe(self, place: Path, origin: str) -> str:
        """The files that hold what is remembered, for a person who replaced a ledger on purpose."""
        return f"{self._place_file(place)} and {self._checkpoint_file(origin)}"

    def _checkpoint_file(self, origin: str) -> Path:
        return self._folder / "checkpoints" / hashlib.sha256(origin.encode()).hexdigest()

    def _place_file(self, place: Path) -> Path:
        return self._folder / "places" / hashlib.sha256(os.fsencode(place.resolve())).hexdigest()

    def _events_file(self, origin: str) -> Path:
        return self._folder / "events" / hashlib.sha256(origin.encode()).hexdigest()

    def _own_file(self, place: Path) -> Path:
        return self._folder / "own" / hashlib.sha256(os.fsencode(place.resolve())).hexdigest()

    @staticmethod
    def _read(file: Path) -> bytes | None:
        try:
            return file.read_bytes() or None  # empty after a power cut
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _write(self, file: Path, data: bytes, *, durable: bool = False) -> None:
        """`durable` is for what must outlast a power cut; elsewhere an older one, or none, is a weaker memory and nothing worse."""
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            replace_file(file, data, durable=durable)
        except OSError as error:
            raise LogError(
                f"cannot remember the newest checkpoint in {file.parent}: {error.strerror}. Without it a rollback of the ledger would go "
                "unnoticed; point XDG_STATE_HOME at a folder that can be written"
            ) from error


def read_checkpoint(signed: bytes) -> Checkpoint:
    """The checkpoint of a signed note, unverified.

    Raises:
        LogError: it cannot be read.
    """
    try:
        return note.parse_note(signed).checkpoint
    except VerificationError as error:
        raise LogError(f"checkpoint cannot be read: {error}") from error

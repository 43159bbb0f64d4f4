"""Checkpoints: the size and root of a log, as a text that a person can read, signed.

A signed note is text, an empty line, and signature lines `— <name> <base64 of 4-byte key hash and signature>`. A checkpoint is a
note whose text is three lines: origin, decimal size, base64 root. The log's own signature carries the origin as its name; other lines
(witnesses) may follow and are passed over.

The same key also signs envelopes and commits, and witnesses cosign checkpoints. Those signed bytes start with `DSSEv1 `, `SSHSIG` and
`cosignature/`; a note starts with its origin, so an origin with such a start is refused, and no bytes can be both.

Read a note's checkpoint only after `verify_note`.

>>> print(Checkpoint("example.com/log", 0, tlog.EMPTY_ROOT).text(), end="")
example.com/log
0
47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=

Source: C2SP signed-note (https://c2sp.org/signed-note) and tlog-checkpoint (https://c2sp.org/tlog-checkpoint).
"""

from __future__ import annotations

import binascii
import hashlib
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field

from ledger import tlog
from ledger.errors import NoteError, SignatureError
from ledger.keys import ED25519, PublicKey, Signer

MAX_NOTE_BYTES = 2**20
MAX_SIGNATURES = 64
_RESERVED = ("DSSEv1", "SSHSIG", "cosignature/")
_SIZE = re.compile(r"(0|[1-9][0-9]{0,18})\Z")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log was at some moment.

    Attributes:
        origin: the log's unique name, like `example.com/log`: no spaces, no `+`, not starting with `DSSEv1` or `SSHSIG`.
        size: number of entries.
        root: 32 bytes (`ledger.tlog`).
        extensions: further lines that other logs write; opaque, not empty.

    Raises:
        NoteError: a field is anything else.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_name(self.origin, "origin")
        if not 0 <= self.size < 2**63:
            raise NoteError(f"a log cannot have {self.size} entries")
        if len(self.root) != tlog.HASH_BYTES:
            raise NoteError(f"a root hash has 32 bytes; got {len(self.root)}")
        if any(not line or _has_control(line) for line in self.extensions):
            raise NoteError("an extension line of a checkpoint is text of one line, not empty")

    def text(self) -> str:
        """The note's text, with its final newline."""
        return "\n".join((self.origin, str(self.size), b64encode(self.root).decode(), *self.extensions)) + "\n"

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Read a checkpoint; there is one text for one checkpoint.

        Raises:
            NoteError: not three lines or more, a leading zero, base64 with spare bits, or an unusable origin.
        """
        lines = text.split("\n")
        if len(lines) < 4 or lines[-1] != "":
            raise NoteError("a checkpoint has an origin, a size and a root, each on its line")
        origin, size, root, *extensions = lines[:-1]
        if not _SIZE.match(size):
            raise NoteError(f"the size of a checkpoint is a decimal number without leading zeros; got {size!r}")
        return cls(origin, int(size), _base64(root, "root of the checkpoint"), tuple(extensions))


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line: whose it says it is, the key hash, and the signature."""

    name: str
    key_hash: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Note:
    """A parsed note. Nothing in it is verified.

    Attributes:
        raw: the bytes as they came; there is one form only, so they are also what the fields give.
        text: what is signed, with its final newline.
        signatures: one or more, in file order.
    """

    raw: bytes
    text: str = field(compare=False)
    signatures: tuple[NoteSignature, ...] = field(compare=False)

    @property
    def checkpoint(self) -> Checkpoint:
        """The text as a checkpoint.

        Raises:
            NoteError: it is another kind of note.
        """
        return Checkpoint.parse(self.text)


def key_hash(name: str, public: PublicKey) -> bytes:
    """The 4 bytes that say which key a signature line is by: SHA-256(name || 0x0A || 0x01 || 32-byte Ed25519 key)."""
    return hashlib.sha256(name.encode() + b"\n\x01" + public.raw).digest()[:4]


def sign_checkpoint(checkpoint: Checkpoint, signer: Signer) -> bytes:
    """The signed note of a checkpoint, with one signature, under the origin's name.

    Raises:
        NoteError: the signer's key is not Ed25519.
    """
    if signer.public.algorithm != ED25519:
        raise NoteError(f"a checkpoint is signed with an Ed25519 key; {signer.name} is {signer.public.algorithm}")
    text = checkpoint.text()
    blob = key_hash(checkpoint.origin, signer.public) + signer.sign(text.encode())
    return f"{text}\n— {checkpoint.origin} {b64encode(blob).decode()}\n".encode()


def parse_note(data: bytes) -> Note:
    """Read a signed note.

    Raises:
        NoteError: not UTF-8, control characters (carriage returns too), no empty line before the signatures, another dash, other lines
            than that, base64 with spare bits, or a first line with which envelopes or ssh signatures start.
    """
    if len(data) > MAX_NOTE_BYTES:
        raise NoteError(f"a note of {len(data)} bytes; at most {MAX_NOTE_BYTES} are read")
    try:
        whole = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NoteError(f"not a signed note: {error}") from error
    if _has_control(whole.replace("\n", "")):
        raise NoteError("not a signed note: it holds control characters (are its line ends CRLF?)")
    text, gap, signatures = whole.rpartition("\n\n")
    if not gap or not text or not signatures.endswith("\n"):
        raise NoteError("not a signed note: text, an empty line and signature lines are expected, each line with its newline")
    if text.startswith(_RESERVED):
        raise NoteError(f"a note must not start like another signed thing: {text[:6]!r}")
    lines = signatures[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise NoteError(f"a note with {len(lines)} signatures; at most {MAX_SIGNATURES} are read")
    return Note(data, text + "\n", tuple(_signature(line) for line in lines))


def verify_note(note: Note, keys: Iterable[PublicKey], *, name: str | None = None) -> frozenset[PublicKey]:
    """The keys among `keys` that signed the note under `name`.

    Args:
        note: as parsed.
        keys: Ed25519 keys; others sign no notes and are passed over.
        name: the name on the signature line; None takes the note's first line, a checkpoint's origin.

    Raises:
        SignatureError: none signed it; or a line that names one of the keys, by name and key hash, is not its signature or comes twice.
    """
    name = note.text.partition("\n")[0] if name is None else name
    known = {key_hash(name, key): key for key in keys if key.algorithm == ED25519}
    signers: set[PublicKey] = set()
    for line in note.signatures:
        key = known.get(line.key_hash) if line.name == name else None
        if key is None:
            continue
        if key in signers:
            raise SignatureError(f"the note of {name!r} is signed twice by {key.short}")
        key.verify(line.signature, note.text.encode())
        signers.add(key)
    if not signers:
        others = ", ".join(f"{line.name}+{line.key_hash.hex()}" for line in note.signatures)
        raise SignatureError(f"the note of {name!r} has no signature by any of {len(known)} known keys; it is signed by {others}")
    return frozenset(signers)


def _signature(line: str) -> NoteSignature:
    dash, _, rest = line.partition(" ")
    name, _, encoded = rest.partition(" ")
    if dash != "—":
        raise NoteError(f"a signature line starts with an em dash (U+2014) and a space; got {line[:20]!r}")
    _check_name(name, "signature's name")
    blob = _base64(encoded, f"signature of {name!r}")
    if len(blob) < 5:
        raise NoteError(f"the signature of {name!r} is a 4-byte key hash and a signature; got {len(blob)} bytes")
    return NoteSignature(name, blob[:4], blob[4:])


def _check_name(name: str, what: str) -> None:
    if not name or "+" in name or any(character.isspace() for character in name) or _has_control(name):
        raise NoteError(f"the {what} of a note is text without spaces and `+`; got {name!r}")
    if name.startswith(_RESERVED):
        raise NoteError(f"the {what} of a note must not start like other signed bytes ({', '.join(_RESERVED)}); got {name!r}")


def _has_control(text: str) -> bool:
    return any(character < " " or "\x7f" <= character < "\xa0" or "\ud800" <= character < "\ue000" for character in text)


def _base64(text: str, what: str) -> bytes:
    try:
        data = b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise NoteError(f"the {what} is not base64: {error}") from error
    if b64encode(data).decode() != text:
        raise NoteError(f"the base64 of the {what} is not canonical")
    return data

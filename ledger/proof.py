"""The whole proof of one entry, for a reader who is offline: the envelope, its place in the log, and the log's signed checkpoint.

As text it is a C2SP tlog-proof (`<name>.tlog-proof`), which other tools verify too: the leaf of the tree is the envelope, and the envelope
is the `extra` line. In a QR it is the same text, packed: see `to_qr`. Nothing in a `Proof` is verified until `check`.

Source: C2SP tlog-proof (https://c2sp.org/tlog-proof). Format: docs/formats/proof.md.
"""

from __future__ import annotations

import binascii
import re
import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ledger import cosign, dsse, lookup, note, publication, witness_folder
from ledger.entries import UNPLACED, Entry
from ledger.errors import ProofError, SignatureError, VerificationError
from ledger.policy import Policy
from ledger.report import Row, Status, printable
from ledger.tlog import HASH_BYTES, leaf_hash, verify_inclusion
from store import canonical, files
from store.digest import Digest
from store.errors import CanonicalError, StoreError

if TYPE_CHECKING:
    from ledger.log import Log

HEADER = "c2sp.org/tlog-proof@v1"
FRAGMENT = "proof:"
"""What stands before a packed proof, after the `#` of a verify page's URL."""

MAX_PROOF_BYTES = 4 * 2**20
"""As text. What the QR of a release says is about 3 kB."""

MAX_PACKED_BYTES = 64 * 2**10
"""What a packed proof may unpack to."""

MAX_HASHES = 63
"""The tree of 2**63 - 1 entries is that high."""

MAX_ALLOY_BYTES = 64 * 2**20
_SHOWN = 4
_ABOVE, _ALLOYS = 4, 20
"""Folders from a file's own upward in which an alloy is looked for, and how many in each."""
_VERSION = 1
_INDEX = re.compile(r"index (0|[1-9][0-9]{0,18})\Z")


_PACKED = re.compile(rf"\s*(?:\S*#)?{FRAGMENT}[0-9]+\s*\Z")


def is_packed(text: str) -> bool:
    """Whether a text is a packed proof, perhaps after a page's URL."""
    return bool(_PACKED.match(text))


@dataclass(frozen=True, slots=True)
class Proof:
    """One entry and why it is in its log.

    Attributes:
        envelope: byte for byte as logged.
        number: of the entry, from 0. size: of the log at the checkpoint.
        hashes: the inclusion path, the leaf's sibling first, 32 bytes each.
        checkpoint: the signed note, perhaps with witnesses' cosignatures.

    Raises:
        ProofError: the checkpoint is not a note of that size, or a hash has another length.
    """

    envelope: bytes
    number: int
    size: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes

    def __post_init__(self) -> None:
        if len(self.hashes) > MAX_HASHES or any(len(item) != HASH_BYTES for item in self.hashes):
            raise ProofError(f"an inclusion path is at most {MAX_HASHES} hashes of 32 bytes; got {len(self.hashes)}")
        try:
            size = note.parse_note(self.checkpoint).checkpoint.size
        except VerificationError as error:
            raise ProofError(f"the checkpoint of the proof cannot be read: {error}") from error
        if size != self.size:
            raise ProofError(f"the proof is about a log of {self.size} entries, its checkpoint about one of {size}")

    @classmethod
    def of(cls, log: Log, number: int) -> Proof:
        """The proof of an entry against the newest checkpoint of a log that witnesses have seen, else against the newest.

        Raises:
            LogError: there is no such entry.
        """
        entry = log.entry(number)
        (proof,) = log.inclusion_proofs([number], checkpoint=witness_folder.newest(log, covering=number + 1))
        return cls(entry.envelope, number, proof.size, proof.hashes, proof.checkpoint)

    @property
    def subjects(self) -> Mapping[str, Digest]:
        """What the statement is about, name -> digest; nothing when it cannot be read. Whether it counts, `check` says."""
        try:
            return Entry(UNPLACED, "", self.envelope, self.checkpoint).statement.subjects
        except VerificationError:
            return {}

    # as text

    def to_text(self) -> bytes:
        """The C2SP tlog-proof, with the envelope as its `extra` data."""
        lines = [HEADER, f"extra {b64encode(self.envelope).decode()}", f"index {self.number}"]
        lines += [b64encode(item).decode() for item in self.hashes]
        return "\n".join(lines).encode() + b"\n\n" + self.checkpoint

    @classmethod
    def from_text(cls, data: bytes) -> Proof:
        """Read a tlog-proof whose `extra` data is the envelope; there is one text for one proof.

        Raises:
            ProofError: it is not one, and why.
        """
        if len(data) > MAX_PROOF_BYTES:
            raise ProofError(f"a proof of {len(data):,} bytes; at most {MAX_PROOF_BYTES:,} are read")
        head, gap, checkpoint = data.partition(b"\n\n")
        try:
            header, *lines = head.decode("ascii").split("\n")
        except UnicodeDecodeError as error:
            raise ProofError(f"not a proof: {error}") from error
        if header != HEADER or not gap:
            raise ProofError(f"not a proof: a tlog-proof starts with the line {HEADER} and has an empty line before its checkpoint")
        extra = lines.pop(0) if lines and lines[0].startswith("extra ") else None
        index = _INDEX.match(lines.pop(0)) if lines else None
        if index is None:
            raise ProofError("the proof has no line `index` with a decimal number without leading zeros")
        if extra is None:
            raise ProofError("the proof has no `extra` line, so it does not say of which entry it is; ours hold the envelope there")
        hashes = tuple(_base64(line, f"hash {number} of the inclusion path") for number, line in enumerate(lines))
        envelope = _base64(extra.removeprefix("extra "), "`extra` data")
        try:
            size = note.parse_note(checkpoint).checkpoint.size
        except VerificationError as error:
            raise ProofError(f"the checkpoint of the proof cannot be read: {error}") from error
        return cls(envelope, int(index[1]), size, hashes, checkpoint)

    # as a QR

    def to_qr(self, page: str) -> str:
        """The URL of a verify page with the whole proof as its fragment, for `ledger.qr.png`.

        The text of the proof is packed (see `pack`) and written in decimal digits, 17 for every 7 bytes, because QR codes hold three digits
        in ten bits: 1.2 % more than the bytes take.
        """
        return f"{page}#{FRAGMENT}{_to_digits(pack(self.to_text()))}"

    @classmethod
    def from_qr(cls, text: str) -> Proof:
        """Read what `to_qr` gave, with any page before it or none.

        Raises:
            ProofError: it is no packed proof, or not all of one.
        """
        _, found, digits = text.strip().rpartition(FRAGMENT)
        if not found:
            raise ProofError(f"no proof: the text of a proof's QR is a URL with #{FRAGMENT} and digits after it")
        return cls.from_text(unpack(_from_digits(digits)))

    # is it true?

    def check(self, policy: Policy) -> tuple[Row, ...]:
        """Check all of it against a policy, and against nothing else.

        That is: the checkpoint's signature by a key that the policy lets sign a log, and its age when the policy wants witnesses; the
        inclusion of the envelope; and the envelope's signature by a key that the policy trusts for such a statement at that place. A
        statement by strangers alone is unverified: it contradicts nobody whom the reader knows.
        """
        rows: list[Row] = []
        placed = self._check_place(policy, rows)
        rows += cosign.travelled([self.checkpoint], policy)
        entry = Entry(self.number if placed else UNPLACED, "", self.envelope, self.checkpoint)
        number = self.number if placed else None
        try:
            trusted = lookup.accept(entry, policy)
        except VerificationError as error:
            hint = "if you know the signer's key, trust it (`ledger key trust`) or name a policy (--policy FILE)"
            status: Status = "unverified" if self._by_strangers(policy) else "failed"
            return (*rows, Row(status, f"the statement counts for nothing here: {error}", hint))
        who = " and ".join(trusted.signers)
        about = ", ".join(f"{printable(name, 80)} ({digest})" for name, digest in list(trusted.statement.subjects.items())[:_SHOWN])
        more = f" and {len(trusted.statement.subjects) - _SHOWN} more" if len(trusted.statement.subjects) > _SHOWN else ""
        kind = printable(trusted.statement.predicate_type, 80)
        text = f"{who}, whom {policy.source} trusts for this, signed a statement ({kind}) about {about}{more}"
        rows.append(Row("proven", text, entry=number))
        if trusted.statement.predicate_type == publication.PUBLICATION:
            rows.append(_publication(trusted, number))
        return tuple(rows)

    def _by_strangers(self, policy: Policy) -> bool:
        """Whether all signatures say that they are by keys which the policy does not name: then nobody known is contradicted.

        A signature that names a known key, or a statement that nobody can read, is another matter: that is damage.
        """
        if not self.subjects:
            return False
        envelope, known = dsse.Envelope.parse(self.envelope), policy.keys.values()
        try:
            dsse.verify(envelope, known)
        except SignatureError:
            return {one.keyid for one in envelope.signatures}.isdisjoint(map(str, known))
        return False

    def place(self, policy: Policy) -> tuple[Row, ...]:
        """Whether the entry's place in the log is proven by somebody trusted, whatever the entry says and whoever signed it."""
        rows: list[Row] = []
        self._check_place(policy, rows)
        return tuple(rows)

    def _check_place(self, policy: Policy, rows: list[Row]) -> bool:
        """Whether the entry's place in the log is proven by somebody trusted; says so."""
        parsed = note.parse_note(self.checkpoint)
        checkpoint = parsed.checkpoint
        origin = printable(checkpoint.origin, 80)
        try:
            verify_inclusion(leaf_hash(self.envelope), self.number, self.size, self.hashes, checkpoint.root)
        except ProofError as error:
            rows.append(
                Row(
                    "failed",
                    f"the statement is not in the log that the checkpoint states: {error}",
                    "The proof was changed, or is of another entry",
                )
            )
            return False
        inside = f"the statement is entry {self.number:,} of the {self.size:,} of the log {origin}"
        keys = policy.place_keys(checkpoint.size)
        known = {note.key_hash(checkpoint.origin, key) for key in keys}
        if known.isdisjoint(line.key_hash for line in parsed.signatures):
            known_names = ", ".join(sorted(keys.values())) or "nobody"
            text = f"{inside} if its checkpoint is right, which nobody signed whom {policy.source} lets sign a log ({known_names})"
            rows.append(
                Row("unverified", text, "if you know the log's key, trust it (`ledger key trust`) or name a policy (--policy FILE)")
            )
            return False
        try:
            signers = sorted(keys[key] for key in note.verify_note(parsed, keys))
        except VerificationError as error:
            rows.append(Row("failed", f"the checkpoint is not signed as it says: {error}", "The proof was changed"))
            return False
        rows.append(Row("proven", f"{inside}, whose checkpoint {' and '.join(signers)} signed", entry=self.number, aside=True))
        return True


# --- a file ----------------------------------------------------------------------------------------------------------------------


def examine_file(file: Path, digest: Digest, proof: Proof, *, believed: bool) -> tuple[Row, ...]:
    """Whether a file is what the statement is about: its subject, or listed in an alloy that is.

    Such an alloy is looked for in the file's folder and in those above it.

    Args:
        file: where it lies.
        digest: of its bytes, hashed here and now.
        proof: checked or not.
        believed: whether `Proof.check` found nothing wrong with it and a trusted key under it; else nothing is called proven.

    Raises:
        StoreError: the file cannot be read.
    """
    subjects = proof.subjects
    if not subjects:
        return ()  # `check` says that there is no statement
    proven: Status = "proven" if believed else "unverified"
    what = f"{printable(file.name)}, these {file.stat().st_size:,} bytes,"
    name = next((name for name, said in subjects.items() if said == digest), None)
    if name is not None:
        return (Row(proven, f"{what} {_is(name, file.name)} that the statement is about ({digest})"),)
    for folder in list(file.absolute().parents)[:_ABOVE]:
        for alloy in sorted(folder.glob("*.alloy.json"))[:_ALLOYS]:
            try:
                data = files.read_small(alloy, MAX_ALLOY_BYTES)
            except StoreError:
                continue
            if Digest.of(data) in subjects.values() and alloy != file.absolute():
                return (_listed(data, file.absolute().relative_to(folder).as_posix(), digest, what, alloy.name, proven),)
    said = ", ".join(f"{printable(name, 80)} ({digest})" for name, digest in list(subjects.items())[:_SHOWN])
    text = f"{what} is not what the statement is about: it has {digest}; the statement names {said}"
    hint = "Take it again from where it was published; a file other than the alloy is judged when the alloy lies beside it"
    return (Row("failed", text, hint),)


def _listed(alloy: bytes, path: str, digest: Digest, what: str, alloy_name: str, proven: Status) -> Row:
    """What an alloy whose bytes were stated says of a file."""
    try:
        listed = {item["filename"]: str(item["sha256"]) for item in canonical.loads(alloy)["results"]["integrity"]["fileHashes"]}
    except (CanonicalError, KeyError, TypeError) as error:
        return Row("failed", f"{what} is named by nobody: {printable(alloy_name)}, which was stated, lists no files ({error!r})")
    names = sorted(str(name) for name, said in listed.items() if said == digest.hex)
    if path in names or (names and path not in listed):
        name = path if path in names else names[0]
        return Row(proven, f"{what} {_is(name, path)} that {printable(alloy_name)} lists ({digest}), and the statement is about that alloy")
    said = f"lists it with sha256:{printable(listed[path], 80)}" if path in listed else "does not list it"
    hint = "Take it again from where it was published"
    return Row("failed", f"{what} has {digest}; {printable(alloy_name)}, which the statement is about, {said}", hint)


def _is(said: str, here: str) -> str:
    return "is the file" if said == here else f"is {printable(said, 80)} under another name, the file"


def _publication(trusted: lookup.Trusted, number: int | None) -> Row:
    """What a publication says beyond its subject."""
    try:
        said = publication.Publication.of(trusted.statement)
    except VerificationError as error:
        return Row("failed", f"the statement is no publication that can be read: {error}", entry=number)
    text = f"{' and '.join(trusted.signers)} {said.event} {printable(said.name, 80)} {printable(said.version, 40)} to {said.target}"
    return Row("attested", f"{text}: what is there now was not looked at", f"ledger verify {said.target}", number)


# --- packing -------------------------------------------------------------------------------------------------------------------

_RAW32, _HEX32, _RAW, _OPEN, _CLOSE = b"\x01", b"\x02", b"\x03", b"\x04", b"\x05"
_PHRASES = {
    0x10: b"c2sp.org/tlog-proof@v1\nextra ",
    0x11: b'{"payload":"',
    0x12: b'","payloadType":"application/vnd.in-toto+json","signatures":[{"keyid":"ed25519:',
    0x13: b'","sig":"',
    0x14: b'"}]}',
    0x15: b'{"_type":"https://in-toto.io/Statement/v1","predicate":{',
    0x16: b'},"predicateType":"urn:alloy-ledger:publication:v1","subject":[{"digest":{"sha256":"',
    0x17: b'"},"name":"',
    0x18: b".alloy.json",
    0x19: b'"event":"released"',
    0x1A: b',"modelHash":"sha256:',
    0x1B: b'","name":"',
    0x1C: b'","recipeHash":"sha256:',
    0x1D: b'","target":"hf:',
    0x1E: b'","version":"',
}
"""What every release says. Part of the format: none may change, and none be added without a new version of it."""
_CONTROL = re.compile(rb"[\x00-\x09\x0b-\x1f\x7f]")
_ENCODED = re.compile(rb"[0-9a-f]{64}|[A-Za-z0-9+/]{40,}={0,2}")
_MAX_DEPTH = 4


def pack(text: bytes) -> bytes:
    """Bytes from which `unpack` gives the same text, about a third of it.

    Base64 and hex in the text are cut out: what they stand for is appended as raw bytes, because it does not compress, and base64 of
    further text is opened and treated likewise. Phrases that every release holds become one byte. What is left is deflated:
    `0x01, length of the deflated (varint), deflated, raw bytes`.

    Raises:
        ProofError: the text holds control characters other than line breaks, or is too large.
    """
    raw: list[bytes] = []
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    template = deflate.compress(_cut(text, raw, 0)) + deflate.flush()
    packed = bytes([_VERSION]) + _varint(len(template)) + template + b"".join(raw)
    if unpack(packed) != text:
        raise ProofError("the proof cannot be packed for a QR; give it as a file")
    return packed


def unpack(data: bytes) -> bytes:
    """The text that was packed.

    Raises:
        ProofError: cut off, damaged, of another version, or it unpacks to more than `MAX_PACKED_BYTES`.
    """
    if not data or data[0] != _VERSION:
        raise ProofError(f"not a packed proof of version {_VERSION}")
    length, start = _read_varint(data, 1)
    if start + length > len(data):
        raise ProofError("the packed proof was cut off")
    inflate = zlib.decompressobj(-15)
    try:
        template = inflate.decompress(data[start : start + length], MAX_PACKED_BYTES)
    except zlib.error as error:
        raise ProofError(f"the packed proof is damaged: {error}") from error
    if inflate.unconsumed_tail or (not inflate.eof and len(template) >= MAX_PACKED_BYTES):
        raise ProofError(f"the packed proof unpacks to more than {MAX_PACKED_BYTES:,} bytes")
    if not inflate.eof or inflate.unused_data:
        raise ProofError("the packed proof is damaged or was cut off")
    return _Filler(template, data[start + length :]).text()


def _cut(text: bytes, raw: list[bytes], depth: int) -> bytes:
    """The text with marks in place of its base64 and hex; what was cut out is appended to `raw`, in the order of the marks."""
    if _CONTROL.search(text):
        raise ProofError("a proof with control characters cannot be packed")

    def mark(match: re.Match[bytes]) -> bytes:
        found = match[0]
        if len(found) == 64 and re.fullmatch(rb"[0-9a-f]{64}", found):
            raw.append(bytes.fromhex(found.decode()))
            return _HEX32
        try:
            data = b64decode(found, validate=True)
        except binascii.Error:
            return found
        if b64encode(data) != found:
            return found
        if depth + 1 < _MAX_DEPTH and data.isascii() and not _CONTROL.search(data):
            return _OPEN + _cut(data, raw, depth + 1) + _CLOSE
        if len(data) == HASH_BYTES:
            raw.append(data)
            return _RAW32
        raw.append(_varint(len(data)) + data)
        return _RAW

    cut = _ENCODED.sub(mark, text)
    for byte, phrase in _PHRASES.items():
        cut = cut.replace(phrase, bytes([byte]))
    return cut


class _Filler:
    """Puts the raw bytes back where the marks are."""

    def __init__(self, template: bytes, raw: bytes) -> None:
        self._template, self._raw = template, raw
        self._at = 0  # in the raw bytes

    def text(self) -> bytes:
        """The whole text; all raw bytes must be used up."""
        stack = [bytearray()]
        total = 0
        for byte in self._template:
            mark = bytes([byte])
            before = len(stack[-1])
            if mark == _OPEN:
                if len(stack) >= _MAX_DEPTH:
                    raise ProofError("the packed proof is nested too deep")
                stack.append(bytearray())
                continue
            if mark == _CLOSE:
                inner = stack.pop()
                if not stack:
                    raise ProofError("the packed proof is damaged: it closes what it did not open")
                before = len(stack[-1])
                stack[-1] += b64encode(inner)
            elif mark == _RAW32:
                stack[-1] += b64encode(self._take(HASH_BYTES))
            elif mark == _HEX32:
                stack[-1] += self._take(HASH_BYTES).hex().encode()
            elif mark == _RAW:
                length, self._at = _read_varint(self._raw, self._at)
                stack[-1] += b64encode(self._take(length))
            else:
                stack[-1] += _PHRASES.get(byte, mark)
            total += len(stack[-1]) - before
            if total > MAX_PACKED_BYTES:
                raise ProofError(f"the packed proof unpacks to more than {MAX_PACKED_BYTES:,} bytes")
        if len(stack) != 1 or self._at != len(self._raw):
            raise ProofError("the packed proof is damaged: bytes are missing or left over")
        return bytes(stack[0])

    def _take(self, length: int) -> bytes:
        if self._at + length > len(self._raw):
            raise ProofError("the packed proof was cut off")
        taken = self._raw[self._at : self._at + length]
        self._at += length
        return taken


_GROUP_BYTES, _GROUP_DIGITS = 7, 17
_DIGITS_OF = {0: 0, 1: 3, 2: 5, 3: 8, 4: 10, 5: 13, 6: 15}
"""Bytes of the last group -> its digits."""


def _to_digits(data: bytes) -> str:
    """Decimal digits: each 7 bytes, as a big-endian number, in 17 of them; the rest in as many as it may need."""
    whole = len(data) - len(data) % _GROUP_BYTES
    text = "".join(f"{int.from_bytes(data[at : at + _GROUP_BYTES]):0{_GROUP_DIGITS}}" for at in range(0, whole, _GROUP_BYTES))
    rest = data[whole:]
    return text + (f"{int.from_bytes(rest):0{_DIGITS_OF[len(rest)]}}" if rest else "")


def _from_digits(text: str) -> bytes:
    if not text.isascii() or not text.isdigit():
        raise ProofError(f"the proof is damaged: digits are expected after {FRAGMENT}")
    data = bytearray()
    for at in range(0, len(text), _GROUP_DIGITS):
        group = text[at : at + _GROUP_DIGITS]
        length = next((length for length, digits in {**_DIGITS_OF, _GROUP_BYTES: _GROUP_DIGITS}.items() if digits == len(group)), None)
        if length is None or int(group) >> (8 * length):
            raise ProofError("the proof is damaged or was cut off: its digits are no bytes")
        data += int(group).to_bytes(length)
    return bytes(data)


def _varint(number: int) -> bytes:
    """LEB128: 7 bits a byte, lowest first, the top bit set on all but the last."""
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*digits, number])


def _read_varint(data: Sequence[int], at: int) -> tuple[int, int]:
    """The number and where it ends; at most three bytes, which no packed proof needs more than."""
    number = 0
    for place in range(3):
        if at + place >= len(data):
            break
        byte = data[at + place]
        number |= (byte & 0x7F) << (7 * place)
        if not byte & 0x80:
            return number, at + place + 1
    raise ProofError("the packed proof is damaged or was cut off")


def _base64(text: str, what: str) -> bytes:
    try:
        data = b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ProofError(f"the {what} is not base64: {error}") from error
    if b64encode(data).decode() != text:
        raise ProofError(f"the base64 of the {what} is not canonical")
    return data

"""The in-toto Statement v1: a predicate about named digests, kept as the bytes that were signed.

`make` writes canonical JSON. `Statement.parse` gives a checked view of bytes that somebody signed, and keeps the bytes; it reads foreign
statements too, so it ignores unknown fields, but takes nothing that two readers could read differently: no key twice, no float, no integer
beyond 2**53 - 1, no half of a surrogate pair, no two subjects of one name.

>>> payload = make({"model": Digest.of(b"m")}, "https://example.com/seen/v1", {"by": "me"})
>>> Statement.parse(payload).subjects["model"].short
'sha256:62c66a7a5dd7'

Source: in-toto attestation framework, spec/v1/statement.md and resource_descriptor.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ledger.errors import StatementError
from store import canonical
from store.digest import Digest
from store.errors import CanonicalError, DigestError

TYPE = "https://in-toto.io/Statement/v1"
MAX_DEPTH = 64
MAX_INTEGER = 2**53 - 1
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Statement:
    """What some bytes state; whether anybody signed them is not known here.

    Attributes:
        payload: the bytes as they came. Two statements are equal when these are.
        subjects: name -> digest; at least one.
        predicate_type: a URI.
        predicate: the JSON object, read-only by agreement.
    """

    payload: bytes
    subjects: Mapping[str, Digest] = field(compare=False)
    predicate_type: str = field(compare=False)
    predicate: Mapping[str, Any] = field(compare=False)

    @classmethod
    def parse(cls, payload: bytes) -> Statement:
        """Check bytes and view them as a statement.

        Raises:
            StatementError: not strict JSON, not a Statement v1, or ambiguous in one of the ways above.
        """
        try:
            value = canonical.loads(payload)
        except CanonicalError as error:
            raise StatementError(f"not a statement: {error}") from error
        if not isinstance(value, dict) or value.get("_type") != TYPE:
            got = value.get("_type") if isinstance(value, dict) else type(value).__name__
            raise StatementError(f"not an in-toto Statement v1: _type is {got!r}; expected {TYPE!r}")
        refuse_ambiguous(value, "statement")
        kind, predicate = value.get("predicateType"), value.get("predicate")
        if not isinstance(kind, str) or not kind or _UNPRINTABLE.search(kind):
            raise StatementError(f"the predicateType is a URI; got {kind!r}")
        if not isinstance(predicate, dict):
            raise StatementError(f"the predicate of a statement ({kind}) is an object; got {type(predicate).__name__}")
        return cls(payload, MappingProxyType(_subjects(value.get("subject"))), kind, MappingProxyType(predicate))


def make(subjects: Mapping[str, Digest], predicate_type: str, predicate: Mapping[str, Any]) -> bytes:
    """The canonical JSON bytes of a statement; subjects are sorted by name. What it gives, `Statement.parse` reads.

    Raises:
        StatementError: no subject, an unusable name, or a value that may not be signed (a float: write decimal text).
    """
    value = {
        "_type": TYPE,
        "predicate": dict(predicate),
        "predicateType": predicate_type,
        "subject": [descriptor(name, subjects[name]) for name in sorted(subjects)],
    }
    refuse_ambiguous(value, "statement")
    payload = canonical.dumps(value)
    Statement.parse(payload)
    return payload


def descriptor(name: str, digest: Digest) -> dict[str, Any]:
    """An in-toto ResourceDescriptor: `{"name", "digest": {"sha256"}}`."""
    return {"digest": {"sha256": digest.hex}, "name": name}


def check_name(name: Any, what: str) -> str:
    """A name that can be shown and compared: text, not empty, without control characters.

    Raises:
        StatementError: anything else.
    """
    if not isinstance(name, str) or not name or _UNPRINTABLE.search(name):
        raise StatementError(f"the name of a {what} is text without control characters; got {name!r}")
    return name


def sha256_of(value: Any, what: str) -> Digest:
    """The SHA-256 of a DigestSet; other algorithms beside it are not ours to judge.

    Raises:
        StatementError: there is none, or it is not 64 lowercase hex digits.
    """
    hexes = value.get("sha256") if isinstance(value, dict) else None
    try:
        return Digest.parse(f"sha256:{hexes}")
    except DigestError as error:
        raise StatementError(f"{what} has no usable sha256 digest: {hexes!r}") from error


def refuse_ambiguous(value: Any, where: str) -> None:
    """Walk a JSON value and refuse what two readers could read differently (see the module).

    Raises:
        StatementError: naming the place.
    """
    todo: list[tuple[Any, tuple[Any, ...], int]] = [(value, (where,), 0)]  # a place is (name, place of the parent): no text is made in vain
    while todo:
        item, place, depth = todo.pop()
        if depth > MAX_DEPTH:
            raise StatementError(f"{_place(place)[:80]}.. is nested deeper than {MAX_DEPTH}")
        if item is None or isinstance(item, bool):
            continue
        if isinstance(item, str):
            try:
                item.encode()
            except UnicodeEncodeError as error:
                raise StatementError(f"{_place(place)} holds half of a surrogate pair") from error
        elif isinstance(item, int):
            if abs(item) > MAX_INTEGER:
                raise StatementError(f"{_place(place)} is an integer beyond 2**53 - 1, which readers round differently; write it as text")
        elif isinstance(item, float):
            raise StatementError(f"{_place(place)} is the float {item!r}; write it as decimal text")
        elif isinstance(item, dict):
            for key, inner in item.items():
                if not isinstance(key, str):
                    raise StatementError(f"{_place(place)} has the key {key!r}, which is not text")
                todo.append((key, ("(a key)", place), depth))
                todo.append((inner, (key, place), depth + 1))
        elif isinstance(item, (list, tuple)):
            todo += [(inner, (number, place), depth + 1) for number, inner in enumerate(item)]
        else:
            raise StatementError(f"{_place(place)} is a {type(item).__name__}, which is not JSON")


def _place(place: tuple[Any, ...]) -> str:
    """`statement.predicate.x[3]`, escaped for messages."""
    words: list[str] = []
    while len(place) == 2:
        words.append(f"[{place[0]}]" if isinstance(place[0], int) else "." + ascii(place[0])[1:-1])
        place = place[1]
    return str(place[0]) + "".join(reversed(words))


def _subjects(value: Any) -> dict[str, Digest]:
    if not isinstance(value, list) or not value:
        raise StatementError("a statement has a list of at least one subject")
    subjects: dict[str, Digest] = {}
    for item in value:
        if not isinstance(item, dict):
            raise StatementError(f"a subject is an object; got {type(item).__name__}")
        name = check_name(item.get("name"), "subject")
        if name in subjects:
            raise StatementError(f"two subjects are named {name!r}")
        subjects[name] = sha256_of(item.get("digest"), f"subject {name!r}")
    return subjects

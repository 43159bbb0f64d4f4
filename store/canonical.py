"""The RFC 8785 bytes of a JSON value: the only form in which JSON is hashed or signed here.

>>> dumps({"b": 1, "a": [True, None, "x"]})
b'{"a":[true,null,"x"],"b":1}'
"""

from __future__ import annotations

import json
import math
from typing import Any

import rfc8785

from store.errors import CanonicalError

_EXACT = (1 << 53) - 1


def dumps(value: Any) -> bytes:
    """Canonical JSON of a value (RFC 8785).

    Raises:
        CanonicalError: NaN, infinity, an integer beyond 2**53 - 1, a key that is not text, a lone surrogate, nesting without end.
    """
    try:
        if _is_plain(value):
            # The same bytes, several times faster: tests compare it with rfc8785.
            return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError, RecursionError) as error:
        raise CanonicalError(f"no canonical JSON for this value: {error}") from error


def _is_plain(value: Any) -> bool:
    """Whether Python's own encoder gives canonical JSON: no floats, keys that are ASCII (else the order may be another), exact integers."""
    kind: type = type(value)
    if kind is str or value is None or kind is bool:
        return True
    if kind is int:
        return bool(-_EXACT <= value <= _EXACT)
    if kind is dict:
        return all(type(key) is str and key.isascii() and _is_plain(item) for key, item in value.items())
    return (kind is list or kind is tuple) and all(map(_is_plain, value))


def loads(data: bytes) -> Any:
    """Parse JSON strictly: UTF-8 without a byte order mark, no key twice, no NaN, no number too large, no lone surrogate.

    It need not be canonical; `dumps(loads(data)) == data` tells whether it is.

    Raises:
        CanonicalError: the bytes are anything else.
    """
    if data.startswith(b"\xef\xbb\xbf"):
        raise CanonicalError("JSON starts with a byte order mark")
    try:
        text = data.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_no_key_twice, parse_constant=_no_constant, parse_float=_finite)
        if "\\u" in text:
            # Only an escape can smuggle in half a character.
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except (ValueError, RecursionError) as error:
        raise CanonicalError(f"not strict JSON: {error}") from error


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise CanonicalError(f"{text:.40} is too large for a number")
    return value


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        raise CanonicalError(f"key given twice: {next(key for key in keys if keys.count(key) > 1)!r}")
    return value


def _no_constant(name: str) -> Any:
    raise CanonicalError(f"{name} is not JSON")

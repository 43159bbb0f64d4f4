"""The RFC 8785 bytes of a JSON value: the only form in which JSON is hashed or signed here.

>>> dumps({"b": 1, "a": [True, None, "x"]})
b'{"a":[true,null,"x"],"b":1}'
"""

from __future__ import annotations

import json
from typing import Any

import rfc8785

from store.errors import CanonicalError


def dumps(value: Any) -> bytes:
    """Canonical JSON of a value (RFC 8785).

    Raises:
        CanonicalError: NaN, infinity, an integer beyond 2**53 - 1, a key that is not text, a lone surrogate.
    """
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
        raise CanonicalError(f"no canonical JSON for this value: {error}") from error


def loads(data: bytes) -> Any:
    """Parse JSON strictly: UTF-8 without a byte order mark, no key twice, no NaN.

    It need not be canonical; `dumps(loads(data)) == data` tells whether it is.

    Raises:
        CanonicalError: the bytes are anything else.
    """
    if data.startswith(b"\xef\xbb\xbf"):
        raise CanonicalError("JSON starts with a byte order mark")
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_no_key_twice, parse_constant=_no_constant)
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise CanonicalError(f"not strict JSON: {error}") from error


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        raise CanonicalError(f"key given twice: {next(key for key in keys if keys.count(key) > 1)!r}")
    return value


def _no_constant(name: str) -> Any:
    raise CanonicalError(f"{name} is not JSON")

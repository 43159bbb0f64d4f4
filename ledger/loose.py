"""JSON of others, of which nothing is known yet: what stands where an object or a list should, without a fault for anything else.

>>> as_dict({"a": 1}), as_dict("text"), as_list([1]), as_list(None)
({'a': 1}, {}, [1], [])
"""

from __future__ import annotations

from typing import Any


def as_dict(value: Any) -> dict[str, Any]:
    """The value if it is an object, else an empty one: whoever wrote it may have written anything."""
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """The value if it is a list, else an empty one."""
    return value if isinstance(value, list) else []

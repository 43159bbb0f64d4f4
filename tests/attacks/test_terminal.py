"""Names and texts of somebody who wants a person to read what is not there."""

from __future__ import annotations

import json

import pytest

from cli.output import clean, dumps

HOSTILE = [
    "\x1b[2K\r",
    "\x1b]0;title\x07",
    "\x9b32m",
    "\x85",
    "\u2028",
    "\u202e",
    "\u2066",
    "\u200f",
    "\u061c",
    "\u200b",
    "\u00ad",
    "\ufeff",
    "\U000e0041",
]


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_what_moves_or_hides_text_is_shown_as_an_escape(text: str) -> None:
    """Escape sequences, new lines by any name, what turns the direction around, and what cannot be seen: in text and in JSON."""
    for shown in (clean(f"a{text}b"), dumps({f"k{text}": f"a{text}b"})):
        assert shown.isprintable()
        assert "\\" in shown
    assert json.loads(dumps({f"k{text}": f"a{text}b"})) == {f"k{text}": f"a{text}b"}


def test_letters_of_all_scripts_stay() -> None:
    """Nothing else is touched."""
    assert clean("naïve 日本 हिन्दी العربية ✅") == "naïve 日本 हिन्दी العربية ✅"

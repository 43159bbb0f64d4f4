"""Texts of others (names, descriptions, paths) as Markdown that shows exactly them and does nothing: no markup, no HTML, no link.

>>> md("**bold** <b>|</b> [x](https://e.example)")
'\\\\*\\\\*bold\\\\*\\\\* &lt;b&gt;\\\\|&lt;/b&gt; \\\\[x\\\\]\\\\(https&#58;//e.example\\\\)'
"""

from __future__ import annotations

import re

_MARKUP = re.compile(r"([\\`*_{}\[\]()#+!|~$])")
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u00ad\u180e\u200b-\u200d\u2060-\u2064\ufeff]"
)


def md(text: str) -> str:
    """Text of others as one line of Markdown that shows exactly it: no markup, no HTML, no link, no image, no line break."""
    shown = plain(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    escaped = _MARKUP.sub(r"\\\1", shown).replace(":", "&#58;").replace("@", "&#64;")
    escaped = re.sub(r"(?i)(www)\.", r"\1&#46;", escaped)
    # What would begin a list or underline a heading at the start of a line.
    return re.sub(r"^(\d*)(\.(?=\s|\Z)|[-=])", r"\1\\\2", escaped)


def plain(text: str) -> str:
    """Text of others on one line, without what is there and not seen."""
    return " ".join(_UNSEEN.sub("", text).split())


def code(text: str) -> str:
    """Text of others as code, on one line. A backtick cannot be escaped inside, so it is shown as another quote."""
    shown = plain(text).replace("`", "'").replace("|", "¦")
    return f"`{shown}`" if shown else ""


def paragraphs(text: str) -> str:
    """Text of others that may have several paragraphs."""
    return "\n\n".join(filter(None, (md(part) for part in re.split(r"\n\s*\n", text))))

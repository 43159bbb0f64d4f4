"""The hashes in the verify page's Content-Security-Policy: whoever edits its script or style runs `python tests/page/csp.py`.

The page is one file that is edited by hand, so the two hashes are the only thing in it that a program writes.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "verify" / "index.html"


def sealed(html: str) -> str:
    """The page with the hashes of the script and the style that are in it."""
    for tag in ("script", "style"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        found = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        html, count = re.subn(rf"({tag}-src) '[^']*'", rf"\g<1> 'sha256-{found}'", html)
        if count != 1:
            raise ValueError(f"the page names {count} hashes of a {tag}; expected one")
    return html


if __name__ == "__main__":
    PAGE.write_text(sealed(PAGE.read_text()))

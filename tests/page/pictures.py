"""The pictures of the verify page in its documentation: `python -m tests.page.pictures` makes them anew.

They show a publication on a Hub of this machine: on a telephone as its publisher meant it, on a desk after somebody replaced a file.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from PIL import Image

from tests.hub import LoopbackHub
from tests.page.chromium import Chromium
from tests.page.conftest import Site
from tests.page.look import check
from tests.page.publication import POLICY, REPO, WEIGHTS, publish

FOLDER = Path(__file__).parents[2] / "docs" / "img"


def main() -> None:
    """Make both."""
    site = Site()
    with tempfile.TemporaryDirectory() as folder, LoopbackHub() as hub, Chromium() as browser:
        published = publish(Path(folder))
        hub.put(REPO, dict(published.files()))
        for name, width, height in (("verify-phone", 390, 844), ("verify-desktop", 1280, 800)):
            page = browser.page(width=width, height=height)
            page.send("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-reduced-motion", "value": "reduce"}]})
            page.open(site.page(hub.endpoint))
            check(page, policy=POLICY, where=published.locator)
            path = FOLDER / f"{name}.png"
            page.screenshot(path)
            with Image.open(path) as picture:
                picture.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)
            hub.put(REPO, {"tiny-Q4_K_M.gguf": WEIGHTS["tiny-Q4_K_M.gguf"][::-1]})
    site.close()


if __name__ == "__main__":
    main()

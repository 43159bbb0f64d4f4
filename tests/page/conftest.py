"""One browser for all tests of the verify page, a tab for each, and a server on this machine that hands out the page.

The page that is tested is the published file; only the Hub's address in it is another, and the hashes that depend on it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.page.chromium import Chromium, Page, missing
from tests.page.csp import PAGE, sealed

HUB = "https://huggingface.co"


class Site:
    """Serves whatever is put into `files`, by path."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content = site.files.get(self.path.partition("?")[0])
                self.send_response(404 if content is None else 200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.end_headers()
                self.wfile.write(content or b"")

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def page(self, endpoint: str = HUB) -> str:
        """The address of the verify page for a Hub."""
        path = f"/{len(self.files)}/verify/"
        self.files[path] = sealed(PAGE.read_text(encoding="utf-8").replace(HUB, endpoint)).encode()
        return self.url + path

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Chromium]:
    """Fails, and never skips, where there is no browser."""
    if (words := missing()) is not None:
        pytest.fail(words)
    with Chromium() as chromium:
        yield chromium


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    served = Site()
    yield served
    served.close()


@pytest.fixture(scope="session")
def reused(browser: Chromium) -> Page:
    """One tab for all tests that need no window of their own; whoever opens an address in it starts afresh."""
    return browser.page()


@pytest.fixture
def tab(browser: Chromium) -> Iterator[Callable[..., Page]]:
    """Makes tabs; whatever a page of ours complains about fails its test, unless the test took the complaint away."""
    made: list[Page] = []

    def new(url: str, *, width: int = 1280, height: int = 800) -> Page:
        page = browser.page(width=width, height=height)
        made.append(page)
        page.open(url)
        return page

    yield new
    complaints = [complaint for page in made for complaint in page.complaints]
    for page in made:
        page.close()
    assert complaints == []


@pytest.fixture
def page(reused: Page, site: Site) -> Iterator[Page]:
    """The verify page as it is published, just opened; it complains about nothing until the end of the test."""
    yield from opened(reused, site.page())


def opened(page: Page, url: str) -> Iterator[Page]:
    """A tab at an address, without what was before."""
    page.complaints.clear()
    page.requests.clear()
    page.open(url)
    yield page
    assert page.complaints == []

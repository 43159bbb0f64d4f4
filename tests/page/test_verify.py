"""The verify page, with files that are dropped on it: what is good is green, what was changed is red, what nobody vouches for is grey."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.page.chromium import Page
from tests.page.publication import POLICY, Published, publish


@pytest.fixture
def published(tmp_path: Path) -> Published:
    return publish(tmp_path)


def test_try(page: Page, published: Published) -> None:
    page.drop([published.folder])
    page.wait("document.querySelector('#verdict')")
    print(page.evaluate("document.querySelector('#report').innerText"))
    page.call("text => { byId('policy').value = text; byId('policy').dispatchEvent(new Event('input')); }", POLICY)
    page.wait("document.querySelector('#verdict') && !document.querySelector('.plain')")
    for item in page.evaluate("[...document.querySelectorAll('#findings li[data-status]')].map(li => li.dataset.status + ': ' + li.querySelector('.what').textContent)"):
        print(item)
    print(page.evaluate("document.querySelector('#verdict').innerText"))
    page.screenshot(Path("/tmp/h7/shots/full.png"), whole=True)

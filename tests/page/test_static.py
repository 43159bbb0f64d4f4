"""What the page's file is: one file, sealed, that cannot run or load anything of others."""

from __future__ import annotations

import re

import pytest

from ledger.inventory import WEIGHTS
from tests.page import chromium
from tests.page.chromium import Page
from tests.page.csp import PAGE, sealed

HTML = PAGE.read_text(encoding="utf-8")
SCRIPT = re.findall(r"<script>(.*?)</script>", HTML, re.DOTALL)[0]


def test_the_hashes_in_its_policy_are_those_of_its_script_and_style() -> None:
    """Whoever edits the page runs `python tests/page/csp.py`."""
    assert sealed(HTML) == HTML, "run: python tests/page/csp.py"


def test_it_knows_the_same_files_of_weights_as_the_program() -> None:
    """Of one name both say the same: that a model may be loaded from it."""
    (pattern,) = re.findall(r"^const WEIGHTS = /(.*)/i;$", SCRIPT, re.MULTILINE)
    assert all(re.search(pattern, f"a/model{ending}") for ending in WEIGHTS)
    assert pattern.count("|") + 2 == len(WEIGHTS) - 1  # `pt2?` and `np[yz]` are two each


def test_its_policy_allows_nothing_but_itself_and_the_hub() -> None:
    """No other scripts, styles, frames, forms or hosts; and no way to make markup of text."""
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', HTML)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["connect-src"] == "https://huggingface.co https://*.huggingface.co https://*.hf.co"
    assert (rules["require-trusted-types-for"], rules["trusted-types"]) == ("'script'", "'none'")
    assert "unsafe" not in policy
    assert rules["img-src"] == "data:"
    assert len(rules) == 9


def test_it_has_no_word_that_makes_code_or_markup_of_text() -> None:
    """No sink, no storage, no cookie, no timer with a text; the page's text of others goes through textContent."""
    for word in (
        "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "createContextualFragment", "DOMParser",
        "srcdoc", "localStorage", "sessionStorage", "indexedDB", "document.cookie", 'setAttribute("style', "XMLHttpRequest",
        "importScripts", "WebSocket", "sendBeacon", "serviceWorker", "window.open",
    ):  # fmt: skip
        assert word not in HTML, word
    assert not re.search(r"\son[a-z]+=", HTML)
    assert not re.search(r"\sstyle=", HTML)
    assert len(re.findall(r"<(script|style|link|iframe|object|embed|img)\b", HTML)) == 3


def test_it_names_no_other_host() -> None:
    """Addresses in it are the Hub's, or names that nothing is asked of: namespaces, types of statements."""
    hosts = set(re.findall(r"https?://([^/\"'`\s;)$]+)", HTML))
    assert hosts <= {"huggingface.co", "*.huggingface.co", "*.hf.co", "www.w3.org", "in-toto.io", "slsa.dev", "git-lfs.github.com"}


def test_opening_it_asks_nobody_and_complains_about_nothing(page: Page) -> None:
    """One request, for the page."""
    assert [url for url in page.requests if not url.startswith("data:")] == page.requests[:1]
    assert page.evaluate("document.cookie") == ""


def test_everything_on_it_can_be_reached_and_is_named(page: Page) -> None:
    """For those who hear the page: fields have labels, buttons have words, the verdict is a status, pictures are silent."""
    nameless = page.evaluate(
        """[...document.querySelectorAll("input, textarea, button, summary")]
          .filter(one => !(one.labels?.length || one.textContent.trim() || one.getAttribute("aria-label"))).map(one => one.outerHTML)"""
    )
    assert nameless == []
    assert page.evaluate("[...document.querySelectorAll('svg')].every(one => one.getAttribute('aria-hidden') === 'true')")
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.evaluate("document.querySelectorAll('h1').length") == 1


def test_a_machine_without_the_browser_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests fail there, with a sentence; they never pass by not running."""
    assert chromium.missing() is None
    monkeypatch.setattr(chromium, "BINARY", "/nowhere/chromium")
    assert "apt-get install --no-install-recommends chromium" in str(chromium.missing())

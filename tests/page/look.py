"""How a test uses the verify page: give it things as a person does, and read what it shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.page.chromium import Page


def check(page: Page, files: Sequence[Path] = (), *, policy: str = "", where: str = "") -> str:
    """Have the page check files or a locator with a policy, and wait: `good`, `bad` or `grey`, the colour of its verdict."""
    page.call("(policy, where) => { byId('policy').value = policy; byId('where').value = where; }", policy, where)
    page.evaluate("byId('report').replaceChildren()")
    if files:
        page.choose(files, "#files")
    else:
        page.evaluate("byId('go').click()")
    return verdict(page)


def verdict(page: Page) -> str:
    """The colour of the verdict, when there is one."""
    page.wait("document.querySelector('#verdict') && !running")
    tone: str = page.evaluate("document.querySelector('#verdict').dataset.verdict")
    return tone


def rows(page: Page, status: str | None = None) -> str:
    """The findings, one a line, each with its word before it; or the texts of those with one word."""
    found = page.evaluate(
        "[...document.querySelectorAll('#findings li[data-status]')].map(li => [li.dataset.status, li.querySelector('.what').textContent])"
    )
    return "\n".join(text if status else f"{word}: {text}" for word, text in found if status in (None, word))


def text(page: Page, selector: str = "#report") -> str:
    """All text of an element, what is folded away too."""
    found: str = page.call("selector => document.querySelector(selector).textContent", selector)
    return found


def attempts(page: Page, function: str, values: Sequence[object]) -> list[object]:
    """What a function of the page gives for each of some values; None where it refuses one."""
    found: list[object] = page.call(
        f"""values => values.map(value => {{
          try {{ return ({function})(value); }} catch (error) {{ faultText(error); return null; }}
        }})""",
        list(values),
    )
    return found

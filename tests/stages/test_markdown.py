"""Texts of others as Markdown: what is seen is what was written, and nothing of it is markup."""

from __future__ import annotations

import pytest
from markdown_it import MarkdownIt

from stages.markdown import md


def test_the_author_s_words_are_shown_as_they_are() -> None:
    """Escaping changes nothing that a reader sees."""
    words = "Keeps 6 of 8 experts * uses_snake_case & <tags>, see #4 [1] (2)."
    body = MarkdownIt("commonmark").render(md(words))
    assert body == "<p>" + words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") + "</p>\n"


@pytest.mark.parametrize("text", ["1. one", "- dash", "= rule", "+ plus", "# head", "> quote", "***", "    code", "1) one"])
def test_no_first_character_makes_a_block(text: str) -> None:
    """A text that begins like a list, a rule, a heading or a quote is a paragraph."""
    kinds = {token.type for token in MarkdownIt("commonmark").parse(md(text))}
    assert kinds == {"paragraph_open", "inline", "paragraph_close"}

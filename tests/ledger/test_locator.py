"""Locators: each form of text gives one place and one expected hash, and nothing that is cut counts as whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import LocatorError
from ledger.locator import VERIFY_PAGE, Expected, HubSource, UrlSource, is_locator, parse, parse_expected, verify_url
from store.digest import Digest

HUB = "https://huggingface.co/org/tiny"

FULL = "0123456789abcdef" * 4
SHORT = FULL[:16]
TINY = HubSource("org/tiny")


@pytest.mark.parametrize(
    ("text", "source", "digits", "legacy"),
    [
        ("hf:org/tiny", TINY, None, False),
        ("  hf:org/tiny\n", TINY, None, False),
        ("hf:org/tiny@v1.0", HubSource("org/tiny", "v1.0"), None, False),
        ("hf:org/tiny@refs%2Fpr%2F1/a/b.gguf", HubSource("org/tiny", "refs/pr/1", "a/b.gguf"), None, False),
        (f"hf:org/tiny@sha256:{FULL}", TINY, FULL, False),
        (f"hf:org/tiny@main/x.gguf@sha256:{FULL.upper()}", HubSource("org/tiny", "main", "x.gguf"), FULL, False),
        (f"hf:org/tiny@sha256:{SHORT}", TINY, SHORT, True),
        ("hf:org/tiny/x@y.gguf", HubSource("org/tiny", None, "x@y.gguf"), None, False),
        (f"{VERIFY_PAGE}#hf:org/tiny@sha256:{FULL}", TINY, FULL, False),
        (f"http://localhost:8000/v.html#hf%3Aorg%2Ftiny%40sha256%3A{FULL}", TINY, FULL, False),
        ("https://huggingface.co/org/tiny", TINY, None, False),
        ("https://hf.co/org/tiny/tree/main", HubSource("org/tiny", "main"), None, False),
        (f"{HUB}/resolve/refs%2Fpr%2F1/a/b%20c.gguf?download=true", HubSource("org/tiny", "refs/pr/1", "a/b c.gguf"), None, False),
        (f"{HUB}/blob/main/t.alloy.json#sha256:{FULL}", HubSource("org/tiny", "main", "t.alloy.json"), FULL, False),
        (f"{HUB}/blob/main/t.alloy.json#sha256:{SHORT}", HubSource("org/tiny", "main", "t.alloy.json"), SHORT, True),
        (f"https://cambriantech.github.io/forge-alloy/verify/#{SHORT}", None, SHORT, True),
        (f"https://cambriantech.github.io/forge-alloy/verify/#github:forge-alloy@{SHORT}", UrlSource("github:forge-alloy"), SHORT, True),
        ("https://x.org/verify/#https%3A%2F%2Fhuggingface.co%2Forg%2Ftiny", TINY, None, True),
        ("https://example.org/a.alloy.json", UrlSource("https://example.org/a.alloy.json"), None, False),
        (f"https://huggingface.co.evil.org/org/tiny#sha256:{FULL}", UrlSource("https://huggingface.co.evil.org/org/tiny"), FULL, False),
        (FULL, None, FULL, False),
        (f"sha256:{FULL}", None, FULL, False),
        (FULL[:8], None, FULL[:8], True),
    ],
)  # fmt: skip
def test_each_form_gives_its_place_and_its_hash(text: str, source: object, digits: str | None, legacy: bool) -> None:
    """Locators, QR texts, page URLs, Hub URLs and bare hashes, ours and forge-alloy's."""
    found = parse(text)
    assert (found.source, found.expected.hex if found.expected else None, found.legacy) == (source, digits, legacy)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tiny.alloy.json",
        FULL[:7],
        FULL + "0",
        "hf:tiny",
        "hf:org/../tiny",
        "hf:org/tiny@",
        "hf:org/tiny@../x",
        "hf:org/tiny/a/../b",
        "hf:org/tiny/",
        "hf:org/tiny/a\x1b[2J",
        "hf:org/t\u0456ny",
        "hf:org/tiny@sha256:xyz",
        f"hf:org/tiny@sha256:{FULL}0",
        "https://huggingface.co/datasets/org/tiny",
        "https://huggingface.co/tiny",
        "https://huggingface.co/org/tiny/discussions/1",
        "https://huggingface.co/org/tiny#usage",
        "https://",
        "https://[::1/x",
        "github:forge-alloy",
        "https://x.org/#sha256:",
        "hf:org/" + "a" * 5000,
    ],
)
def test_what_is_no_locator_is_refused(text: str) -> None:
    """A text that could mean several things, or a place outside of its repository, means nothing."""
    with pytest.raises(LocatorError):
        parse(text)


def test_a_prefix_matches_and_is_never_full() -> None:
    """63 of 64 digits are not the hash; the words say how many bits they are."""
    digest = Digest.parse(f"sha256:{FULL}")
    prefix = Expected(FULL[:63])
    assert prefix.matches(digest)
    assert (prefix.full, str(prefix)) == (False, f"the 252-bit prefix {FULL[:63]}")
    assert (Expected(FULL.upper()).full, str(Expected(FULL))) == (True, f"sha256:{FULL}")
    assert not Expected(FULL[1:]).matches(digest)
    assert parse_expected(f"sha256:{FULL}") == parse_expected(f" {FULL}\n") == Expected(FULL)


@given(st.sampled_from([None, "main", "refs/pr/1", "0123456789abcdef"]), st.sampled_from([None, "a.gguf", "d/e f@1.json"]))
def test_a_source_is_what_its_text_parses_to(revision: str | None, path: str | None) -> None:
    """What is printed about a place can be typed."""
    source = HubSource("org/tiny", revision, path)
    assert parse(str(source)).source == source


def test_the_url_of_the_qr_parses_to_what_it_was_made_of() -> None:
    """Whatever the page is."""
    digest = Digest.of(b"alloy")
    for page in (VERIFY_PAGE, "http://localhost/verify.html?x=1"):
        found = parse(verify_url("org/tiny", digest, page))
        assert (found.source, found.expected, found.legacy) == (TINY, Expected(digest.hex), False)
    for page in ("verify.html", "ftp://x.org/", "https://x.org/#a"):
        with pytest.raises(LocatorError, match="no address of a page"):
            verify_url("org/tiny", digest, page)


def test_what_can_only_be_a_locator_is_known_by_its_start() -> None:
    """Hashes and names are looked for here first."""
    assert all(is_locator(text) for text in ("hf:org/tiny", "HTTPS://X.org", "http://x", "github:forge-alloy@12345678"))
    assert not any(is_locator(text) for text in (FULL, "tiny:gguf", "hf", "./hf:x", "https"))


@given(st.text(max_size=80))
def test_any_text_parses_or_is_refused(text: str) -> None:
    """Nothing else is raised."""
    for form in ("{}", "hf:{}", "https://huggingface.co/{}", "https://x.org/#{}", "http://{}"):
        try:
            parse(form.format(text))
        except LocatorError:
            continue


@pytest.mark.parametrize("text", ["hf:acme", "hf:acme/", "hf:"])
def test_half_a_name_is_quoted_as_it_was_typed(text: str) -> None:
    """The error shows what was typed, and what a whole one looks like."""
    with pytest.raises(LocatorError, match=f"^'{text}' names no repository of the Hub; expected hf:org/name$"):
        parse(text)

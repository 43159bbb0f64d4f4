"""Where a publication is, and which hash is expected there: what a QR, a URL or a person says, taken apart. Nothing is looked up.

>>> found = parse("https://alloy-ledger.github.io/verify/#hf:org/tiny@sha256:" + 64 * "a")
>>> found.source, found.expected.full
(HubSource(repo='org/tiny', revision=None, path=None), True)
>>> parse("hf:org/tiny@v1/tiny-Q4_K_M.gguf").source
HubSource(repo='org/tiny', revision='v1', path='tiny-Q4_K_M.gguf')
>>> parse("https://huggingface.co/org/tiny/blob/main/tiny.alloy.json#sha256:0123456789abcdef").expected.full
False

The page in a URL is only a page: what is audited and what is expected stand in its fragment, so the same QR works with any page, or none.
Format: docs/formats/locator.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

from ledger.errors import LocatorError
from store.digest import Digest

VERIFY_PAGE: Final = "https://alloy-ledger.github.io/verify/"
"""The page that QR codes name unless somebody says otherwise."""

HUB_HOSTS: Final = frozenset({"huggingface.co", "www.huggingface.co", "hf.co"})

MAX_TEXT: Final = 4096
"""Characters. A QR holds at most 4,296."""

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_REVISION = re.compile(r"[\w.+-][\w.+/-]{0,254}", re.ASCII)
_HEX = re.compile(r"[0-9a-fA-F]{8,64}", re.ASCII)
_VIEWS = frozenset({"tree", "blob", "resolve", "raw", "commit"})
"""The parts of a Hub URL that are followed by a revision."""


def is_repository(text: str) -> bool:
    """Whether a text can be the name of a repository of the Hub, by the Hub's own rule.

    >>> is_repository("acme/model-1.5"), is_repository("acme/a--b"), is_repository("acme"), is_repository("acme/model.git")
    (True, False, False, False)
    """
    return bool(_REPOSITORY.fullmatch(text)) and ".." not in text and "--" not in text and not text.endswith((".git", ".ipynb", ".", "-"))


@dataclass(frozen=True, slots=True)
class Expected:
    """The SHA-256 that somebody told us beforehand, or the first digits of it.

    Attributes:
        hex: 8 to 64 lowercase hex digits.
    """

    hex: str

    def __post_init__(self) -> None:
        if not _HEX.fullmatch(self.hex):
            raise LocatorError(f"{self.hex[:80]!r} is no hash: 64 hex digits are, or for old QR codes the first 8 or more of them")
        object.__setattr__(self, "hex", self.hex.lower())

    @property
    def full(self) -> bool:
        """Whether all 256 bits are there. Fewer identify nothing: others can be made that begin alike."""
        return len(self.hex) == 64

    def matches(self, digest: Digest) -> bool:
        """Whether a digest is this one, or begins like it."""
        return digest.hex.startswith(self.hex)

    def __str__(self) -> str:
        return f"sha256:{self.hex}" if self.full else f"the {4 * len(self.hex)}-bit prefix {self.hex}"


@dataclass(frozen=True, slots=True)
class HubSource:
    """A repository of the Hub, at a revision, and a file of it.

    Attributes:
        repo: `org/name`.
        revision: a commit, branch or tag; None for the default branch.
        path: of one file; None for everything.
    """

    repo: str
    revision: str | None = None
    path: str | None = None

    def __post_init__(self) -> None:
        if not is_repository(self.repo):
            raise LocatorError(f"{self.repo[:200]!r} names no repository of the Hub; expected org/name")
        if self.revision is not None and (not _REVISION.fullmatch(self.revision) or ".." in self.revision):
            raise LocatorError(f"{self.revision[:200]!r} is no revision; expected a commit, a branch or a tag")
        if self.path is not None and (
            not self.path.isprintable() or "\\" in self.path or any(part in ("", ".", "..") for part in self.path.split("/"))
        ):
            raise LocatorError(f"{self.path[:200]!r} is no path of a file in a repository")

    def __str__(self) -> str:
        revision = f"@{self.revision.replace('/', '%2F')}" if self.revision is not None else ""
        return f"hf:{self.repo}{revision}" + (f"/{self.path}" if self.path is not None else "")


@dataclass(frozen=True, slots=True)
class UrlSource:
    """Some other place: an address that is no Hub's, or `github:forge-alloy`, whose hashes are of a chain of commits."""

    url: str

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True, slots=True)
class Locator:
    """What a text says.

    Attributes:
        source: where to look; None when there is only a hash.
        expected: the hash of the alloy file, or of the file that `source` names; None when none is given.
        legacy: the text has one of the forms of forge-alloy, whose hashes were cut to a prefix.
        text: what was parsed.
    """

    source: HubSource | UrlSource | None
    expected: Expected | None
    legacy: bool
    text: str


def parse(text: str) -> Locator:
    """Take apart a locator, the text of a QR, a URL of the Hub, of a verify page, or a bare hash.

    Raises:
        LocatorError: it is none of them.
    """
    text = text.strip()
    if len(text) > MAX_TEXT:
        raise LocatorError(f"a locator has at most {MAX_TEXT:,} characters; got {len(text):,}")
    return _page(text) if _is_url(text) else _plain(text)


def parse_expected(text: str) -> Expected:
    """`sha256:HEX`, or the digits alone.

    Raises:
        LocatorError: it is no hash.
    """
    return Expected(text.strip().removeprefix("sha256:"))


def is_locator(text: str) -> bool:
    """Whether a text can only be a locator, and no path, digest or name of something here."""
    return text.startswith(("hf:", "github:")) or _is_url(text)


def verify_url(repo: str, digest: Digest, page: str = VERIFY_PAGE) -> str:
    """What the QR holds: the verify page with a repository and the digest of its alloy file.

    Raises:
        LocatorError: `repo` is none, or `page` is no address that can take a fragment.
    """
    parts = urlsplit(page)
    if parts.scheme not in ("http", "https") or not parts.netloc or "#" in page:
        raise LocatorError(f"{page[:200]!r} is no address of a page; expected https://... without a #")
    return f"{page}#{HubSource(repo)}@{digest}"


def _is_url(text: str) -> bool:
    return text[:8].lower().startswith(("https://", "http://"))


def _plain(text: str) -> Locator:
    """Everything that is no URL."""
    source, expected = _cut(text)
    if source.startswith("hf:"):
        return Locator(_hub(source), expected, expected is not None and not expected.full, text)
    if source.startswith("github:"):
        if expected is None:
            name, _, digits = source.partition("@")
            return Locator(UrlSource(name), Expected(digits), True, text)
        return Locator(UrlSource(source), expected, True, text)
    bare = text.removeprefix("sha256:")
    if _HEX.fullmatch(bare):
        return Locator(None, Expected(bare), len(bare) < 64, text)
    raise LocatorError(
        f"{text[:200]!r} is no locator; expected hf:org/name, hf:org/name@REVISION/path, a URL, or a hash of 8 to 64 hex digits"
    )


def _page(text: str) -> Locator:
    """A URL: of something, with or without its hash as the fragment; or a page, with the locator as the fragment."""
    url, _, fragment = text.partition("#")
    fragment = unquote(fragment)
    if not fragment:
        return Locator(_address(url), None, False, text)
    if fragment.startswith("sha256:"):
        expected = parse_expected(fragment)
        return Locator(_address(url), expected, not expected.full, text)
    if _is_url(fragment):  # forge-alloy's page drew this one: an address and no hash
        inner = _page(fragment)
        return Locator(inner.source, inner.expected, True, text)
    if fragment.startswith("hf:") or fragment.startswith("github:") or _HEX.fullmatch(fragment):
        inner = _plain(fragment)
        return Locator(inner.source, inner.expected, inner.legacy, text)
    raise LocatorError(f"{text[:200]!r}: what follows the # is neither a hash nor a locator; without it, what is at the address is audited")


def _cut(text: str) -> tuple[str, Expected | None]:
    """`SOURCE@sha256:HEX` in two. In old texts only the digits follow the @, and they are told from a revision by who reads them."""
    source, mark, digits = text.rpartition("@sha256:")
    return (source, Expected(digits)) if mark else (text, None)


def _hub(text: str) -> HubSource:
    """`hf:org/name[@REVISION][/path]`; a slash in the revision is written %2F."""
    org, _, rest = text.removeprefix("hf:").partition("/")
    if not rest:
        raise LocatorError(f"{text[:200]!r} names no repository of the Hub; expected hf:org/name")
    name, slash, path = rest.partition("/")
    name, at, revision = name.partition("@")
    return HubSource(f"{org}/{name}", unquote(revision) if at else None, path if slash else None)


def _address(url: str) -> HubSource | UrlSource:
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").rstrip(".")
    except ValueError as error:
        raise LocatorError(f"{url[:200]!r} is no address: {error}") from error
    if not host:
        raise LocatorError(f"{url[:200]!r} is no address: it names no host")
    if host not in HUB_HOSTS:
        return UrlSource(url)
    path = [unquote(part) for part in parts.path.strip("/").split("/")]
    if path[0] in ("datasets", "spaces", "collections", "papers") or len(path) < 2:
        raise LocatorError(f"{url[:200]!r} is no model repository; expected https://{host}/org/name")
    repo = "/".join(path[:2])
    if len(path) == 2:
        return HubSource(repo)
    if path[2] not in _VIEWS or len(path) < 4:
        raise LocatorError(f"{url[:200]!r} is no page of a model repository's files; expected https://{host}/{repo}/tree/REVISION")
    # A branch with a slash (refs/pr/1) is written %2F there, so the fourth part is all of it.
    return HubSource(repo, path[3], "/".join(path[4:]) or None)

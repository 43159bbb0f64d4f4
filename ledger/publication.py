"""A publication as a statement: `released` says which alloy goes where, before the upload; `published`, what was read back after it.

The subject of both is the alloy file, and the alloy lists every other file of the publication with its hashes. `released` is small on
purpose: its whole envelope fits into a QR, together with the proof that it is in the log.

>>> from store.digest import Digest
>>> one = Publication(event="released", target="hf:org/tiny", name="tiny", version="1.0.0", alloy=("tiny.alloy.json", Digest.of(b"{}")))
>>> sorted(one.predicate())
['event', 'name', 'target', 'version']

Format: docs/predicates/publication.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ledger import lookup, statement
from ledger.entries import Entry
from ledger.errors import StatementError
from ledger.lookup import Trusted
from ledger.policy import Policy
from ledger.statement import MAX_INTEGER, Statement
from store.digest import Digest
from store.errors import DigestError

PUBLICATION = "urn:alloy-ledger:publication:v1"
RELEASED, PUBLISHED = "released", "published"

_TARGET = re.compile(r"hf:[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}\Z", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}\Z")
_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\Z", re.ASCII)
_SAID = {"event", "target", "name", "version", "recipeHash", "modelHash"}
_READ_BACK = {"revision", "url", "files", "comparedOn"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """One of the two statements.

    Attributes:
        event: `released` or `published`.
        target: `hf:org/name`.
        name, version: the recipe's.
        alloy: name and SHA-256 of the alloy file.
        recipe_hash, model_hash: as the alloy states them; None when it does not.
        revision: the commit that was read back, 40 hex digits. url: of it. files: how many were compared. compared_on: when, UTC.
            These four only, and always, when published.
    """

    event: str
    target: str
    name: str
    version: str
    alloy: tuple[str, Digest]
    recipe_hash: Digest | None = None
    model_hash: Digest | None = None
    revision: str = ""
    url: str = ""
    files: int = 0
    compared_on: str = ""

    def __post_init__(self) -> None:
        if self.event not in (RELEASED, PUBLISHED):
            raise StatementError(f"a publication is released or published; got {self.event!r}")
        if not _TARGET.match(self.target):
            raise StatementError(f"a publication's target is hf:org/name; got {self.target!r}")
        read_back = bool(_COMMIT.match(self.revision) and self.url and 0 < self.files <= MAX_INTEGER and _UTC.match(self.compared_on))
        if self.event == PUBLISHED and not read_back:
            raise StatementError("what was published has the commit that was read back, its url, how many files were compared, and when")
        if self.event == RELEASED and (self.revision or self.url or self.files or self.compared_on):
            raise StatementError("what is released was not read back yet, so it has no revision, url, files or comparedOn")

    @property
    def repo(self) -> str:
        """`org/name`."""
        return self.target.removeprefix("hf:")

    def subjects(self) -> dict[str, Digest]:
        """The statement's one subject: the alloy file."""
        return dict([self.alloy])

    def predicate(self) -> dict[str, Any]:
        """The statement's predicate."""
        value: dict[str, Any] = {"event": self.event, "name": self.name, "target": self.target, "version": self.version}
        if self.recipe_hash is not None:
            value["recipeHash"] = str(self.recipe_hash)
        if self.model_hash is not None:
            value["modelHash"] = str(self.model_hash)
        if self.event == PUBLISHED:
            value |= {"comparedOn": self.compared_on, "files": self.files, "revision": self.revision, "url": self.url}
        return value

    def payload(self) -> bytes:
        """The statement, to be signed.

        Raises:
            StatementError: a name that cannot be in a statement.
        """
        return statement.make(self.subjects(), PUBLICATION, self.predicate())

    def line(self) -> str:
        """What `git log` shows."""
        where = f"{self.target}@{self.revision[:12]}" if self.revision else self.target
        return f"{self.event} {self.name} {self.version}: {self.alloy[1].short} -> {where}"

    @classmethod
    def of(cls, said: Statement) -> Publication:
        """Read one back. Whether its signer may say so is the policy's question.

        Raises:
            StatementError: it is no publication, a field is missing, unknown or of another form, or it is not about one file.
        """
        if said.predicate_type != PUBLICATION:
            raise StatementError(f"not a publication: the predicateType is {said.predicate_type!r}")
        value = said.predicate
        allowed = _SAID | (_READ_BACK if value.get("event") == PUBLISHED else set())
        if not allowed - {"recipeHash", "modelHash"} <= set(value) <= allowed:
            got = ", ".join(sorted(value)) or "nothing"
            raise StatementError(f"a publication that is {value.get('event')!r} has {', '.join(sorted(allowed))}; got {got}")
        if type(value.get("files", 0)) is not int or not all(isinstance(value[name], str) for name in set(value) - {"files"}):
            raise StatementError("the fields of a publication are text, and files is a number")
        if len(said.subjects) != 1:
            raise StatementError(f"a publication is about one alloy file; this one has {len(said.subjects)} subjects")
        try:
            recipe_hash, model_hash = (Digest.parse(value[name]) if name in value else None for name in ("recipeHash", "modelHash"))
        except DigestError as error:
            raise StatementError(f"a publication's recipeHash and modelHash are digests: {error}") from error
        return cls(
            event=value["event"],
            target=value["target"],
            name=value["name"],
            version=value["version"],
            alloy=next(iter(said.subjects.items())),
            recipe_hash=recipe_hash,
            model_hash=model_hash,
            revision=value.get("revision", ""),
            url=value.get("url", ""),
            files=value.get("files", 0),
            compared_on=value.get("comparedOn", ""),
        )


def counting(entries: Iterable[Entry], policy: Policy) -> list[tuple[Trusted, Publication]]:
    """The publications among entries that count under a policy, in their order; what cannot be read counts for nothing."""
    found: list[tuple[Trusted, Publication]] = []
    for one in lookup.sift(entries, policy)[0]:
        if one.statement.predicate_type == PUBLICATION:
            try:
                found.append((one, Publication.of(one.statement)))
            except StatementError:
                continue
    return found

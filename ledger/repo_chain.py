"""The chain of a repository's commits that forge-alloy publishes as `.attestation/chain.json`: computed again, never believed as stored.

Commits stand in the order of `git log --reverse`, and each one's hash covers the one before:

    c[0] = 64 zeros          c[i] = SHA-256(ascii(commit[i] + c[i-1] + tree[i]))          (all in lowercase hex)

Nobody signs it. Of the fields of a stage only `commit` and `tree` are covered; the commit's own id covers the others for whoever has the
repository. Without it a file that was computed anew after a change looks as good as the original, unless its last hash was expected.

>>> link(START, "0" * 40, "1" * 40).short
'sha256:0bca9b120e1c'

Source: forge-alloy `repo_attest`; docs/legacy.md.
"""

from __future__ import annotations

import hashlib
import heapq
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ledger.errors import AlloyError, LogError
from ledger.git import Repository
from ledger.loose import as_dict
from ledger.report import Report, Row, printable
from ledger.unsigned import MAX_BYTES, UnsignedReport, prefix_text
from store import canonical, files
from store.digest import Digest
from store.errors import CanonicalError

if TYPE_CHECKING:
    from ledger.locator import Expected

CHAIN = "repo-attestation"
"""The `type` of such a file."""

START = "0" * 64
"""What the first commit's hash covers in place of one before."""

MAX_COMMITS = 1_000_000

_ID, _HASH = re.compile(r"[0-9a-f]{40}\Z"), re.compile(r"[0-9a-f]{64}\Z")
_PERSON = re.compile(rb"(?P<name>.*?) ?<(?P<mail>[^>]*)> (?P<at>\d+) (?P<zone>[+-]\d{4})\Z")


@dataclass(frozen=True, slots=True)
class Stage:
    """One commit as the chain tells it.

    Attributes:
        commit, tree: ids, 40 hex digits. stored: the hash that stands there, 64 hex digits.
        parents, author, email, timestamp, message: not covered by the hash.
    """

    commit: str
    tree: str
    stored: str
    parents: tuple[str, ...]
    author: str
    email: str
    timestamp: str
    message: str


@dataclass(frozen=True, slots=True)
class Chain:
    """The file.

    Attributes:
        data: its bytes. raw: the same as JSON. stages: oldest first.
    """

    data: bytes
    raw: Mapping[str, Any]
    stages: tuple[Stage, ...]


@dataclass(frozen=True, slots=True)
class _Commit:
    tree: str
    parents: tuple[str, ...]
    author: str
    email: str
    timestamp: str
    committed_s: int
    subject: str


def load(data: bytes) -> Chain:
    """Read the file.

    Raises:
        AlloyError: it is no such file, or a stage has no well-formed commit, tree and hash.
    """
    try:
        value = canonical.loads(data)
    except CanonicalError as error:
        raise AlloyError(f"no chain of commits: {error}") from error
    if not isinstance(value, dict) or value.get("type") != CHAIN or not isinstance(value.get("stages"), list):
        raise AlloyError(f"no chain of commits: expected an object of the type {CHAIN!r} with a list of stages")
    if not value["stages"]:
        raise AlloyError("no chain of commits: it has no stage")
    return Chain(data, value, tuple(_stage(number, item) for number, item in enumerate(value["stages"], 1)))


def _stage(number: int, item: Any) -> Stage:
    if not isinstance(item, dict):
        raise AlloyError(f"no chain of commits: stage {number} is no object")
    for key, form, words in (("commit", _ID, "40"), ("tree", _ID, "40"), ("chain_hash", _HASH, "64")):
        if not isinstance(item.get(key), str) or not form.match(item[key]):
            said = printable(str(item.get(key)), 80)
            raise AlloyError(f"no chain of commits: the {key} of stage {number} is not {words} hex digits: {said!r}")
    parents = item.get("parents", [])
    texts = [item.get(key, "") for key in ("author", "email", "timestamp", "message")]
    if not isinstance(parents, list) or not all(isinstance(text, str) for text in (*parents, *texts)):
        raise AlloyError(f"no chain of commits: stage {number} has parents, author, email, timestamp or message of another kind")
    return Stage(item["commit"], item["tree"], item["chain_hash"], tuple(parents), *texts)


def link(before: str, commit: str, tree: str) -> Digest:
    """One step: the hash of a commit after the one that has `before`, 64 hex digits."""
    return Digest.parse("sha256:" + hashlib.sha256(f"{commit}{before}{tree}".encode("ascii")).hexdigest())


def recompute(stages: Sequence[Stage]) -> tuple[Digest, ...]:
    """The hash of every stage, from the commits and trees alone."""
    found: list[Digest] = []
    before = START
    for stage in stages:
        found.append(link(before, stage.commit, stage.tree))
        before = found[-1].hex
    return tuple(found)


def of_repository(repository: Path, commit: str) -> tuple[Stage, ...]:
    """The chain of a git repository up to a commit, in the order of `git log --reverse`, from the objects themselves.

    Every commit's id is computed again from its bytes; replace refs, grafts and alternates have no effect; git is not run.

    Raises:
        LogError: no repository, or a commit that is missing or damaged (a shallow clone lacks some).
    """
    bare = Repository(repository / ".git" if (repository / ".git").is_dir() else repository)
    known: dict[str, _Commit] = {}
    waiting: list[tuple[int, int, str]] = []

    def meet(oid: str) -> None:
        if oid not in known:
            if len(known) == MAX_COMMITS:
                raise LogError(f"{repository} has more than {MAX_COMMITS:,} commits before {commit[:12]}; a chain of so many is not read")
            known[oid] = _parse(oid, bare.read(oid, "commit"))
            heapq.heappush(waiting, (-known[oid].committed_s, len(known), oid))

    meet(commit)
    newest_first: list[str] = []
    while waiting:
        newest_first.append(heapq.heappop(waiting)[2])
        for parent in known[newest_first[-1]].parents:
            meet(parent)
    stages: list[Stage] = []
    before = START
    for oid in reversed(newest_first):
        one = known[oid]
        before = link(before, oid, one.tree).hex
        stages.append(Stage(oid, one.tree, before, one.parents, one.author, one.email, one.timestamp, one.subject))
    return tuple(stages)


def _parse(oid: str, data: bytes) -> _Commit:
    """A commit of any program, as `git log` shows it."""
    head, _, message = data.partition(b"\n\n")
    fields: dict[bytes, list[bytes]] = {}
    for line in head.split(b"\n"):
        name, space, value = line.partition(b" ")
        if name and space:
            fields.setdefault(name, []).append(value)
    tree, author, committer = ((fields.get(name) or [b""])[0] for name in (b"tree", b"author", b"committer"))
    parents = tuple(value.decode("ascii", "replace") for value in fields.get(b"parent", []))
    who, when = _PERSON.match(author), _PERSON.match(committer)
    if who is None or when is None or not all(_ID.match(name) for name in (tree.decode("ascii", "replace"), *parents)):
        raise LogError(f"commit {oid[:12]} has no tree, author and committer that can be read")
    offset = timedelta(hours=int(who["zone"][:3]), minutes=int(who["zone"][:1] + who["zone"][3:]))
    return _Commit(
        tree.decode("ascii"),
        parents,
        who["name"].decode("utf-8", "replace"),
        who["mail"].decode("utf-8", "replace"),
        datetime.fromtimestamp(int(who["at"]), timezone(offset)).isoformat(),
        int(when["at"]),
        " ".join(message.partition(b"\n\n")[0].decode("utf-8", "replace").split("\n")).strip(),
    )


def examine_chain(source: Path | bytes, expected: Expected | None = None, *, repository: Path | None = None, name: str = "") -> Report:
    """What a chain of commits proves: all of it is computed again; never is only the stored hash compared.

    Args:
        source: the file, or its bytes.
        expected: the hash from a code: of the chain, at its end or where it ended when the code was made; or of the file.
        repository: a git repository that has the commits, to compare with; a clone will do.
        name: what it is called in the report.

    Raises:
        StoreError: the file cannot be read.
    """
    data = files.read_small(source, MAX_BYTES) if isinstance(source, Path) else source
    target = name or (str(source) if isinstance(source, Path) else "chain")
    try:
        chain = load(data)
    except AlloyError as error:
        return UnsignedReport(target, (Row("failed", str(error), "Ask for the file that was published"),), what="file")
    computed = recompute(chain.stages)
    rows = [*_links(chain, computed), *_stated(chain, computed), *_parents(chain)]
    pinned = False
    if expected is not None:
        row, pinned = _expected(expected, chain, computed)
        rows.insert(0, row)
    else:
        text = f"the chain ends in {computed[-1]}, computed again; nothing says which end was expected"
        rows.insert(0, Row("unverified", text, "--expect sha256:HEX"))
    if repository is not None:
        rows += _against(chain, repository)
    else:
        text = "whether these are the commits of the repository, and their authors, times and messages: it was not looked at"
        rows.append(Row("unverified", text, "Clone it, and name the clone"))
    rows.append(Row("unverified", "who says all this: nobody signed it. The commit that added this file is not in it"))
    return UnsignedReport(target, tuple(rows), pinned=pinned, what="chain")


def _links(chain: Chain, computed: Sequence[Digest]) -> list[Row]:
    for number, (stage, digest) in enumerate(zip(chain.stages, computed, strict=True), 1):
        if stage.stored != digest.hex:
            text = (
                f"stage {number} of {len(computed)} ({_named(stage)}) has the stored hash {stage.stored[:16]}..; "
                f"its commit, its tree and stage {number - 1} give {digest.hex[:16]}.."
            )
            return [Row("failed", text, "A stage was changed, dropped, added or moved here")]
    text = f"all {len(computed)} stages follow from each other: computed again from their commits and trees, c = {computed[-1]}"
    return [Row("self-reported", text, aside=True)]


def _stated(chain: Chain, computed: Sequence[Digest]) -> list[Row]:
    """What the file repeats of its last hash and of its length."""
    raw, end = chain.raw, computed[-1].hex
    integrity = as_dict(raw.get("integrity"))
    code = as_dict(integrity.get("code"))
    wanted: dict[str, tuple[Any, Any]] = {
        "chainHash": (raw.get("chainHash"), end),
        "integrity.alloyHash": (integrity.get("alloyHash", end), end),
        "integrity.code.sourceHash": (code.get("sourceHash", end), end),
        "integrity.code.commit": (code.get("commit", chain.stages[-1].commit), chain.stages[-1].commit),
        "totalCommits": (raw.get("totalCommits", len(computed)), len(computed)),
    }
    url = raw.get("verifyUrl")
    match = re.search(r"@([0-9a-f]{8,64})\Z", url) if isinstance(url, str) else None
    if match is not None:
        wanted["verifyUrl"] = (match[1], end[: len(match[1])])
    return [
        Row("failed", f"{key} is {printable(str(said), 80)!r}; the stages give {right!r}", "It was changed, or belongs to another state")
        for key, (said, right) in wanted.items()
        if said != right
    ]


def _parents(chain: Chain) -> list[Row]:
    """That each stage comes after its parents. The hash does not cover parents, so this finds only what was done carelessly."""
    seen: dict[str, int] = {}
    for number, stage in enumerate(chain.stages, 1):
        if stage.commit in seen:
            return [Row("failed", f"stage {number} ({_named(stage)}) is stage {seen[stage.commit]} again")]
        missing = [parent for parent in stage.parents if parent not in seen]
        if missing:
            text = f"stage {number} ({_named(stage)}) has the parent {printable(missing[0], 12)}, which is no stage before it"
            return [Row("failed", text, "A stage was dropped or moved, or the history is not whole")]
        if not stage.parents and number > 1:
            return [Row("unverified", f"stage {number} ({_named(stage)}) has no parent: another history starts there")]
        seen[stage.commit] = number
    return []


def _expected(expected: Expected, chain: Chain, computed: Sequence[Digest]) -> tuple[Row, bool]:
    """The row about an expected hash, and whether it pins the whole chain."""
    if expected.matches(Digest.of(chain.data)):
        if expected.full:
            return Row("proven", f"these {len(chain.data):,} bytes are the expected ones: {Digest.of(chain.data)}"), True
        return Row("unverified", f"the SHA-256 of these bytes begins as expected. {prefix_text(expected)}"), False
    number = next((number for number in range(len(computed), 0, -1) if expected.matches(computed[number - 1])), None)
    if number is None:
        text = f"the chain ends in {computed[-1]}, computed again; expected was {expected}, and it never ended so"
        return Row("failed", text, "The history was rewritten, or the code is of another repository, or of a later state"), False
    stage = chain.stages[number - 1]
    where = (
        "its end" if number == len(computed) else f"stage {number} of {len(computed)} ({_named(stage)}); the later ones were added since"
    )
    if not expected.full:
        text = f"the chain, computed again, begins as expected at {where}. {prefix_text(expected)}"
        return Row("unverified", text, "Ask its author for all 64 digits"), False
    text = f"the chain is the expected one up to {where}: these commits with these trees in this order, as far as SHA-1 names them"
    return Row("proven", text), number == len(computed)


def _against(chain: Chain, repository: Path) -> list[Row]:
    """Compare with the objects of a repository; the first difference is named."""
    last = chain.stages[-1]
    try:
        real = of_repository(repository, last.commit)
    except LogError as error:
        return [Row("failed", f"the repository does not confirm the chain: {error}", "Take a whole clone, not a shallow one")]
    for number, (said, is_) in enumerate(zip(chain.stages, real, strict=False), 1):
        if said.commit != is_.commit:
            there = {stage.commit: at for at, stage in enumerate(real, 1)}.get(said.commit)
            moved = f"commit {there} of it" if there is not None else "none of its commits"
            text = f"stage {number} is {_named(said)}, which in the repository is {moved}; commit {number} there is {_named(is_)}"
            return [Row("failed", text, "A stage was dropped, added or moved")]
        for key in ("tree", "parents", "author", "email", "timestamp", "message"):
            one, other = getattr(said, key), getattr(is_, key)
            if one != other and not (key == "timestamp" and _same_time(one, other)):
                text = f"stage {number} ({_named(said)}): its {key} is {printable(str(one), 80)!r}"
                return [Row("failed", f"{text}; in the repository {printable(str(other), 80)!r}", "The file was changed")]
    if len(chain.stages) != len(real):
        text = f"the chain has {len(chain.stages)} stages; the repository has {len(real)} commits up to {_named(last)}"
        return [Row("failed", text, "A stage was dropped or added")]
    text = (
        f"the {len(real)} stages are the commits of {repository} up to {last.commit[:12]}, with trees, parents, authors, times and messages"
    )
    return [Row("proven", f"{text}; every commit's id was computed again", aside=True)]


def _same_time(one: str, other: str) -> bool:
    """Whether two texts are one time in one zone: git wrote UTC as +00:00 and, later, as Z."""
    try:
        return datetime.fromisoformat(one) == datetime.fromisoformat(other) and one[:19] == other[:19]
    except ValueError:
        return False


def _named(stage: Stage) -> str:
    return f"commit {stage.commit[:12]} {printable(stage.message, 50)!r}"

"""What this machine saw of repositories on the Hub, so that a later audit says what changed since: main moved, a file was replaced, the
repository was made anew under its old name, or an older revision is served again.

Kept outside of every ledger, in the state folder; nothing that is audited can change it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ledger.errors import LogError
from ledger.inventory import ALLOY, some
from ledger.memory import state_folder
from ledger.report import Row
from store import canonical, files
from store.errors import CanonicalError, NotFoundError, PathError
from store.files import replace_file

if TYPE_CHECKING:
    from ledger.hub import Listing

MAX_BYTES = 64 * 2**20
_COMMITS = 100


@dataclass(frozen=True, slots=True)
class Sighting:
    """What a revision of a repository was.

    Attributes:
        commit: 40 hex digits. created, identity: of the repository, as the Hub says.
        seen_on: when, UTC.
        files: path -> git's id.
        commits: what the revision was at in earlier audits, oldest first.
        replaced: git's ids of the alloys that were there in earlier audits and are not any more.
    """

    commit: str
    created: str
    identity: str
    seen_on: str
    files: Mapping[str, str]
    commits: tuple[str, ...]
    replaced: tuple[str, ...]


class Sightings:
    """One file for each revision of a repository that was audited.

    Args:
        folder: where they are kept. endpoint: the address of the Hub: another one has other repositories of the same names.
    """

    def __init__(self, folder: Path, endpoint: str) -> None:
        self._folder, self._endpoint = folder, endpoint

    @classmethod
    def default(cls, endpoint: str) -> Sightings:
        """The user's own."""
        return cls(state_folder() / "repositories", endpoint)

    def file(self, repo: str, revision: str) -> Path:
        """Where one is kept; deleting it forgets it."""
        return self._folder / hashlib.sha256(f"{self._endpoint}\n{repo}\n{revision}".encode()).hexdigest()

    def last(self, repo: str, revision: str) -> Sighting | None:
        """What was seen last; None when nothing was, or it cannot be read."""
        try:
            value = canonical.loads(files.read_small(self.file(repo, revision), MAX_BYTES))
            commits, listed, replaced = value["commits"], value["files"], value["replaced"]
            if not isinstance(listed, dict) or not isinstance(commits, list) or not isinstance(replaced, list):
                return None
            commit, created, identity, seen_on = (str(value[name]) for name in ("commit", "created", "identity", "seenOn"))
            return Sighting(commit, created, identity, seen_on, listed, tuple(map(str, commits)), tuple(map(str, replaced)))
        except (NotFoundError, PathError, CanonicalError, KeyError, TypeError):
            return None

    def remember(self, listing: Listing, revision: str, seen_on: str) -> None:
        """Keep what a listing says as the last sighting of a revision.

        Raises:
            LogError: it cannot be written.
        """
        last = self.last(listing.repo, revision)
        oids = {file.oid for file in listing.files}
        gone = [] if last is None else [oid for path, oid in last.files.items() if path.endswith(ALLOY) and oid not in oids]
        earlier = [] if last is None else [*last.commits, *([last.commit] if last.commit != listing.commit else [])]
        value = {
            "commit": listing.commit,
            "commits": earlier[-_COMMITS:],
            "created": listing.created,
            "files": {file.path: file.oid for file in listing.files},
            "identity": listing.identity,
            "replaced": [*(last.replaced if last is not None else ()), *gone][-_COMMITS:],
            "repo": listing.repo,
            "seenOn": seen_on,
        }
        file = self.file(listing.repo, revision)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            replace_file(file, canonical.dumps(value), durable=False)
        except OSError as error:
            raise LogError(
                f"cannot remember this audit in {file.parent}: {error.strerror}. The next one would not say what changed since; "
                "point XDG_STATE_HOME at a folder that can be written"
            ) from error


def since(last: Sighting, now: Listing, revision: str, file: Path) -> list[Row]:
    """What changed since an audit; `file` is where that one is remembered."""
    when = f"your audit of {last.seen_on}"
    made_anew = (last.identity and now.identity and last.identity != now.identity) or (
        last.created and now.created and last.created != now.created
    )
    if made_anew:
        text = (
            f"{now.repo} was deleted and made anew since {when}: then created {last.created or '?'} (id {last.identity or '?'}), "
            f"now {now.created or '?'} (id {now.identity or '?'}). Whoever got hold of the name can have made it"
        )
        return [Row("failed", text, f"If you know that its owner did it, delete {file} and audit again")]
    if last.commit == now.commit:
        return [Row("proven", f"{revision} is where it was in {when}: commit {now.commit}", aside=True)]
    if now.commit in last.commits:
        text = f"{revision} is back at commit {now.commit}, which {last.commit} had replaced before {when}: an older revision is served"
        return [Row("failed", text, f"If its owner took the newer one back, delete {file} and audit again")]
    back = [one.path for one in now.files if one.oid in last.replaced and one.path.endswith(ALLOY)]
    if back:
        text = f"{some(back)} is again one that had been replaced before {when}: an older publication is served"
        return [Row("failed", text, f"If its owner took the newer one back, delete {file} and audit again")]
    files_now = {one.path: one.oid for one in now.files}
    parts = []
    for paths, what in (
        ([path for path, oid in last.files.items() if files_now.get(path, oid) != oid], "replaced"),
        ([path for path in files_now if path not in last.files], "added"),
        ([path for path in last.files if path not in files_now], "removed"),
    ):
        if paths:
            parts.append(f"{len(paths)} file{'s' if len(paths) > 1 else ''} {what} ({some(sorted(paths), 3)})")
    text = f"since {when}: {revision} moved from {last.commit} to {now.commit}, {', '.join(parts) or 'with the same files'}"
    return [Row("unverified", text)]

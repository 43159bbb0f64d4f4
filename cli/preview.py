"""A preview on disk: a folder that holds a repository as it would be.

It notes what was written into it, so one that somebody worked on, or any other folder, is never taken for a preview and replaced.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stages.publish_release import Release

_PREVIEW = ".ledger-preview.json"
"""In a preview, what is in it."""


def is_preview(folder: Path) -> bool:
    """Whether a folder is empty, or holds a preview exactly as it was written; weights are told by their size."""
    from store import canonical, files
    from store.errors import StoreError

    if folder.is_symlink() or not folder.is_dir():
        return False
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()}
    marker = found.pop(_PREVIEW, None)
    if marker is None:
        return not found
    try:
        written = canonical.loads(files.read_small(marker, 2**24))
        return isinstance(written, dict) and written == {
            name: path.stat().st_size if isinstance(written.get(name), int) else str(files.hash_file(path)[0])
            for name, path in found.items()
        }
    except (StoreError, OSError):
        return False


def write_preview(made: Release, folder: Path) -> None:
    """Make the folder, with every file of a release; weights are linked where that is possible."""
    noted = {one.path: str(one.digest) if isinstance(one.content, bytes) else one.size for one in made.entries}
    folder.mkdir()
    (folder / _PREVIEW).write_text(json.dumps(noted))
    for one in made.entries:
        path = folder / one.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(one.content, bytes):
            path.write_bytes(one.content)
        else:
            try:
                os.link(one.content, path)
            except OSError:
                shutil.copyfile(one.content, path)

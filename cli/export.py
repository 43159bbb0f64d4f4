"""`ledger export`: objects out of the store, as folders and files that other programs read."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.errors import CliError
from cli.names import deliverables, find_object, latest_run
from cli.options import PATH, common
from cli.output import Output, many, place, short, size, table
from cli.workspace import open_here

if TYPE_CHECKING:
    from store.digest import Digest
    from store.local import LocalCas


@click.command()
@click.argument("target")
@click.argument("destination", type=PATH, metavar="DEST")
@common
def export(target: str, destination: Path, ledger: Path | None, json: bool) -> int:
    """Put what a recipe made, or any one object, where other programs find it: by reflink or hard link where possible, else by copy.

    TARGET is RECIPE, RECIPE:OUTPUT, RECIPE:STAGE.OUTPUT, a pin or a DIGEST. RECIPE alone gives a folder with its model (model/) and its
    GGUF files; `ledger show RECIPE` lists its other outputs. A tree becomes the folder DEST, a blob the file DEST.

    Everything appears whole or not at all, and nothing that exists is replaced.
    """
    workspace, output = open_here(ledger), Output(json=json)
    store = workspace.writable_store
    run = latest_run(workspace.folder, target)
    several = deliverables(run) if run is not None else {}
    if several:
        made = _whole(store, several, destination)
    else:
        digest, name = find_object(workspace, target)
        made = [_one(store, digest, name, destination)]
    facts = [{"path": path.absolute(), "digest": str(digest), "size_bytes": length} for path, digest, length, _ in made]
    rows = [[place(path), what, size(length), short(digest, 12)] for path, digest, length, what in made]
    output.show({"exported": facts}, [*table(rows, "<>>"), "next: " + " · ".join(f"ledger verify {row[0]}" for row in rows[:2])])
    return 0


Made = tuple[Path, "Digest", int, str]


def _whole(store: LocalCas, objects: dict[str, Digest], destination: Path) -> list[Made]:
    _refuse_existing(destination)
    aside = _aside(destination)
    try:
        aside.mkdir(parents=True)
        made = [_put(store, digest, aside / name) for name, digest in objects.items()]
        aside.rename(destination)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return [(destination / path.relative_to(aside), digest, length, what) for path, digest, length, what in made]


def _one(store: LocalCas, digest: Digest, name: str, destination: Path) -> Made:
    from store import tree

    if tree.is_tree(store, digest):
        _refuse_existing(destination)
        return _put(store, digest, destination)
    into_folder = destination.is_dir() or str(destination).endswith(os.sep)
    target = destination / _file_name(store, digest, name) if into_folder else destination
    if target.exists() or target.is_symlink():
        raise CliError(f"{place(target)} exists already; nothing was written. Name a file that is not there")
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = _aside(target)
    try:
        made = _put(store, digest, aside)
        os.link(aside, target)  # unlike a rename, this never replaces
    finally:
        aside.unlink(missing_ok=True)
    return (target, *made[1:])


def _put(store: LocalCas, digest: Digest, target: Path) -> Made:
    from store import tree

    if tree.is_tree(store, digest):
        files = tree.load(store, digest)
        tree.export(store, digest, target)
        return target, digest, files.size, many(len(files.entries), "file")
    store.place(digest, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())
    return target, digest, store.size(digest), ""


def _refuse_existing(folder: Path) -> None:
    if folder.is_symlink() or (folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))):
        raise CliError(f"{place(folder)} exists already and is not empty; nothing was written. Name a folder that is not there")


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name or 'export'}.partial-{secrets.token_hex(6)}")


def _file_name(store: LocalCas, digest: Digest, name: str) -> str:
    """The name with the ending that other programs expect, told by the first bytes."""
    with store.open(digest) as file:
        head: Any = file.read(4)
    ending = ".gguf" if head == b"GGUF" else ".json" if head[:1] in (b"{", b"[") else ""
    return name if name.endswith(ending) else name + ending

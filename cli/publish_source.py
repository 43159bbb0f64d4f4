"""What `ledger publish` is given: an alloy, and where the files are that it is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.errors import CliError, UsageError
from cli.names import latest_run, runs
from cli.output import place
from cli.workspace import Workspace

if TYPE_CHECKING:
    from stages.publish import Publish
    from stages.publish_plan import Locate
    from store.digest import Digest
    from store.local import LocalCas

RECORDS = "eval/"
"""Where the records of evaluations are, as the alloy names them."""


@dataclass(frozen=True, slots=True)
class Source:
    """What is published: an alloy, and where its files are.

    Attributes:
        path: of the alloy. folder: an exported folder; None for files of the store.
    """

    alloy: Mapping[str, Any]
    path: Path
    folder: Path | None

    def stage(self) -> Publish | None:
        """The recipe's last `publish` stage."""
        from stages.publish import Publish
        from stages.stage import spec_from_json

        stages = self.alloy.get("stages")
        found = [one for one in stages if isinstance(one, dict) and one.get("type") == "publish"] if isinstance(stages, list) else []
        if not found:
            return None
        keys = {
            "org": "org",
            "repoNameTemplate": "repo_name_template",
            "includeAlloy": "include_alloy",
            "tags": "tags",
            "private": "private",
        }
        keys["cardFromBenchmarks"] = "card_from_benchmarks"
        return spec_from_json(Publish, {keys[key]: value for key, value in found[-1].items() if key in keys})


def find_source(workspace: Workspace, target: str) -> Source:
    """The alloy and the files that a person means by a recipe's name, an alloy file, or an exported folder.

    Raises:
        UsageError: it names none of them. CliError: the alloy is not where the run left it.
    """
    path = Path(target)
    if path.is_dir():
        inside = sorted(path.glob("*.alloy.json"))
        if len(inside) > 1:
            raise UsageError(f"{place(path)} holds {len(inside)} alloys; name the one that is meant")
        alloy = inside[0] if inside else _made_it(workspace, path)
        return Source(_read(alloy), alloy, path)
    if path.name.endswith(".alloy.json"):
        return Source(_read(path), path, None)
    run = latest_run(workspace.folder, target)
    if run is None:
        names = ", ".join(sorted({run.recipe for run in runs(workspace.folder) if run.outputs})) or "none yet"
        raise UsageError(f"{target!r} is no finished recipe here, no alloy and no folder; finished: {names}")
    return Source(_read(_left(run.alloy, target)), _left(run.alloy, target), None)


def _left(alloy: Path | None, recipe: str) -> Path:
    if alloy is None or not alloy.exists():
        raise CliError(f"the alloy of {recipe} is not where its run left it ({alloy}); run the recipe again: nothing is done twice")
    return alloy


def _made_it(workspace: Workspace, folder: Path) -> Path:
    """The alloy of the latest run that made what lies in a folder, told by the bytes."""
    from cli.names import deliverables
    from store import files, tree
    from store.errors import StoreError

    here = {files.hash_file(path)[0] for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()}
    for run in reversed(runs(workspace.folder)):
        try:
            made = list(deliverables(run).values()) if run.outputs else []
            parts = {
                item.digest
                for digest in made
                if tree.is_tree(workspace.store, digest)
                for item in tree.load(workspace.store, digest).entries
            }
        except StoreError:
            continue
        if here & ({*made} | parts):
            return _left(run.alloy, run.recipe)
    raise UsageError(f"no run here made what lies in {place(folder)}; publish by the recipe's name, or put its alloy into the folder")


def _read(path: Path) -> Mapping[str, Any]:
    from store import canonical, files

    value = canonical.loads(files.read_small(path, 64 * 2**20))
    if not isinstance(value, dict):
        raise CliError(f"{place(path)} is no alloy: it is not a JSON object")
    return value


def locate(source: Source, store: LocalCas, aside: Path | None) -> Locate:
    """Where files are: in the exported folder; else in the store, from where they are put into `aside` if one is given.

    The records of evaluations are in the store always: they are not exported.
    """

    def find(name: str, digest: Digest) -> Path:
        if source.folder is not None and not name.startswith(RECORDS):
            # A folder of `ledger export` has the model in one of its own; what was downloaded has it at the top.
            places = [source.folder / name, source.folder / name.partition("/")[2]] if "/" in name else [source.folder / name]
            found = next((path for path in places if path.is_file()), None)
            if found is None:
                raise FileNotFoundError(places[0])
            return found
        if aside is None:
            return store.path(digest)
        (aside / name).parent.mkdir(parents=True, exist_ok=True)
        store.place(digest, aside / name)
        return aside / name

    return find

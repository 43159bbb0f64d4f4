"""Models that a recipe names on the Hub, each pinned to a commit before anything is planned.

`source: {baseModel: org/name, revision: main}`, `org/name@REVISION`, `hf:org/name` or the address of its page name a repository; the
`folder` of an `import-model` stage may be the same. A folder of that name beside the recipe goes first: `hf:` says that the Hub is meant.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ledger import locator
from ledger.errors import HubNotFoundError, LocatorError
from ledger.hub import is_commit
from ledger.locator import HubSource
from stages.errors import RecipeError
from stages.recipe import Recipe, StageEntry

STAGE, SCRATCH = "import-model", "scratch"

_BARE = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@\S+)?\Z", re.ASCII)

Resolve = Callable[[str, str], str]
"""Repository and revision -> the commit that it is at, 40 hex digits."""


def named(text: str, revision: str | None, folder: Path) -> HubSource | None:
    """The repository that a text of a recipe names, or None if it names a folder.

    Args:
        text: `org/name`, a path, ...
        revision: what the recipe says beside it.
        folder: what relative paths are relative to.

    Raises:
        RecipeError: a repository's name that cannot be one, or two revisions.
    """
    bare = bool(_BARE.match(text))
    if not locator.is_locator(text) and not (bare and not (folder / text).exists()):
        return None
    try:
        source = locator.parse(f"hf:{text}" if bare else text).source
        if not isinstance(source, HubSource) or source.path is not None:
            raise RecipeError(f"{text!r} names no model of the Hub; expected org/name or org/name@COMMIT")
        if revision and source.revision and revision != source.revision:
            raise RecipeError(f"{text!r} and revision {revision!r} name two revisions; say one of them")
        return HubSource(source.repo, source.revision or revision)
    except LocatorError as error:
        raise RecipeError(f"{text!r}: {error}") from error


def pinned(recipe: Recipe, resolve: Resolve) -> Recipe:
    """The same recipe, with a commit for every model that it names on the Hub; each moving revision is asked for once.

    The chains get `hf:org/name@COMMIT`. In `raw`, which the alloy repeats, a moving revision becomes the commit; what was pinned stays as
    it was written.

    Raises:
        RecipeError: as `named`, with the line. HubError: a revision cannot be resolved.
    """
    commits: dict[tuple[str, str], str] = {}

    def pin(text: Any, revision: Any, where: str) -> HubSource | None:
        if not isinstance(text, str) or not isinstance(revision, (str, type(None))):
            return None  # whoever reads it says what is wrong
        try:
            source = named(text, revision, recipe.folder)
        except RecipeError as error:
            raise RecipeError(f"{recipe.path or 'recipe'}: {where}{error}") from error
        if source is None or is_commit(source.revision):
            return source
        asked = (source.repo, source.revision or "main")
        if asked not in commits:
            try:
                commits[asked] = resolve(*asked)
            except HubNotFoundError as error:
                beside = f"there is no folder {text} beside the recipe, and " if _BARE.match(text) else ""
                raise HubNotFoundError(f"{where}{beside}{error}") from error
        return HubSource(source.repo, commits[asked])

    def entry(item: StageEntry) -> StageEntry:
        source = pin(item.fields.get("folder"), item.fields.get("revision"), item.where("folder")) if item.type == STAGE else None
        if source is None:
            return item
        return replace(item, fields={**_without(item.fields, "revision"), "folder": str(source)})

    raw = dict(recipe.raw)
    everything = {name: tuple(map(entry, entries)) for name, entries in recipe.variants.items()}
    stages = tuple(map(entry, recipe.stages))
    if "stages" in raw:  # an ensemble has none
        raw["stages"] = [
            _written(item, "folder", before.fields, after.fields["folder"]) if before is not after else item
            for item, before, after in zip(recipe.raw["stages"], recipe.stages, stages, strict=True)
        ]
    base, source = recipe.source.get("baseModel"), recipe.source
    if base != SCRATCH and not any(item.type == STAGE for item in recipe.stages):
        found = pin(base, source.get("revision"), f"line {recipe.source_line}: ")
        if found is not None:
            raw["source"] = _written(recipe.raw["source"], "baseModel", source, str(found))
            source = {**_without(source, "revision"), "baseModel": str(found)}
    return replace(recipe, source=source, stages=stages, variants=everything, raw=raw)


def _written(item: Mapping[str, Any], key: str, before: Mapping[str, Any], pin: str) -> Mapping[str, Any]:
    """A mapping of the recipe's file with its moving revision replaced; one that names a commit is left as it is."""
    source = locator.parse(pin).source
    assert isinstance(source, HubSource)
    if before.get("revision") == source.revision or str(before[key]).endswith(f"@{source.revision}"):
        return item
    return {**item, key: source.repo, "revision": source.revision}


def _without(fields: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name != key}

"""Models that a stage of a recipe names by a key of its own: `sourceModels`, `specialists`, `searchPool`. What each is called in files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from stages.errors import RecipeError, SpecError
from stages.stage import Input, Node

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")

Named = tuple[str, tuple[Node, ...], Input]
"""(name, nodes that make it, model)."""


def check_names(names: Sequence[str]) -> None:
    """Refuse names that could not name files, or name two models.

    Raises:
        SpecError: with the name.
    """
    for name in names:
        if not _NAME.match(name):
            raise SpecError(f"models: {name!r} must be letters, digits, '_' and '-', at most 64: files are named by it")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SpecError(f"models: two are called {twice[0]}; give their folders different names")


def name_of(path: str) -> str:
    """What a model is called by the last part of its folder or Hub id; by the part before, where that is `model` (as exports are laid out).

    >>> [name_of(path) for path in ("models/tiny", "Qwen/Qwen2.5-0.5B@1a2b", "models/code/model", "model")]
    ['tiny', 'Qwen2-5-0-5B', 'code', 'model']
    """
    parts = PurePosixPath(path.partition("@")[0]).parts or ("model",)
    last = parts[-2] if parts[-1] == "model" and len(parts) > 1 and parts[-2].strip("./") else parts[-1]
    return re.sub(r"[^A-Za-z0-9_-]+", "-", last).strip("-_") or "model"


def model_of(call: Any, text: str, key: str) -> Named:
    """What a recipe calls a model: the id of an earlier stage that gives one, or what import-model takes.

    Raises:
        RecipeError: the stage gives no model; a folder that is not there.
    """
    from stages import lowering
    from stages.recipe import StageEntry

    for entry, lowered in call.before:
        if entry.id == text:
            if "model" not in lowered.outputs:
                raise RecipeError(f"{call.entry.where(key)}{text} gives no model; it gives {', '.join(lowered.outputs) or 'nothing'}")
            return text, (), lowered.outputs["model"]
    name = name_of(text)
    line = call.entry.lines.get(key, call.entry.line)
    imported = StageEntry(f"{call.id}/import-{name}", "import-model", {"folder": text, "source": text}, {}, line, {"folder": line})
    made = lowering.lower_stage(replace(call, entry=imported, id=imported.id))
    return name, made.nodes, made.outputs["model"]


def models_of(call: Any, key: str) -> list[Named]:
    """The models of a list, each as `model_of` has it.

    Raises:
        RecipeError: as `model_of`; no list of texts; two models of one name.
    """
    listed = call.entry.fields.get(key)
    if not isinstance(listed, list) or not all(isinstance(item, str) for item in listed):
        raise RecipeError(f"{call.entry.where(key)}{call.entry.type} needs {key}: a list of stages or folders")
    found = [model_of(call, item, key) for item in listed]
    try:
        check_names([name for name, _, _ in found])
    except SpecError as error:
        raise RecipeError(f"{call.entry.where(key)}{error}") from error
    return found

"""A person's file becomes a Recipe: checked names, every fault with its line; nothing is read but the file itself.

The fields are those of the alloy format: `name, version, source, stages[...]`, each stage with a `type`. A list is a chain;
`id` and `inputs` make any graph; `matrix` on a stage makes variants. Unknown keys are errors with the nearest known name; those of a stage
are judged by whoever runs it, when it is lowered. An alloy loads as the recipe that it was: what a run wrote into it is not looked at.

>>> recipe = parse("name: x\\nversion: 1.0.0\\nsource: {baseModel: m}\\nstages:\\n  - {type: quant, quantTypes: [F16]}\\n")
>>> recipe.stages[0].id, recipe.stages[0].fields
('quant', {'quantTypes': ['F16']})
>>> parse("name: x\\nversion: 1.0.0\\nsorce: {}\\nstages: []\\n")
Traceback (most recent call last):
    ...
stages.errors.RecipeError: line 3: unknown key 'sorce' in the recipe; did you mean 'source'?
"""

from __future__ import annotations

import difflib
import itertools
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from ledger import alloy_format
from stages import population
from stages.errors import RecipeError
from store import canonical, files
from store.errors import CanonicalError, NotFoundError, StoreError

MAX_RECIPE_BYTES, MAX_VALUES, MAX_VARIANTS = 2**20, 100_000, 10_000
"""A recipe is a person's file. What aliases repeat counts as often as it is repeated."""

MAX_ALLOY_BYTES = 64 * 2**20
"""An alloy is a recipe too, with all that a run wrote into it."""

_OWN = ("type", "id", "inputs", "matrix")
_MAX_DEPTH = 200
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_VERSION = re.compile(r"\d+\.\d+\.\d+\Z")


@dataclass(frozen=True, slots=True)
class StageEntry:
    """One stage as written.

    Attributes:
        id: unique in the recipe; its type, numbered when the type occurs more than once.
        fields: the recipe keys without `type`, `id`, `inputs`, `matrix`.
        inputs: input name -> `id` or `id.output` of another stage.
        line: where it stands; lines: key -> line.
    """

    id: str
    type: str
    fields: Mapping[str, Any]
    inputs: Mapping[str, str]
    line: int
    lines: Mapping[str, int]

    def where(self, key: str) -> str:
        """`line 7: ` of a key, for messages."""
        return f"line {self.lines.get(key, self.line)}: "


@dataclass(frozen=True, slots=True)
class Recipe:
    """A checked recipe.

    Attributes:
        folder: what its relative paths are relative to. path: the file, for messages.
        variants: one chain per combination of the matrices; variant name -> stages (`""` when there is no matrix).
        raw: the file as JSON, for the alloy.
    """

    name: str
    version: str
    source: Mapping[str, Any]
    stages: tuple[StageEntry, ...]
    raw: Mapping[str, Any]
    folder: Path = Path()
    path: Path | None = None
    source_line: int = 0
    variants: Mapping[str, tuple[StageEntry, ...]] = field(default_factory=dict)

    @property
    def memory_bytes(self) -> int | None:
        """What the weights of models may take at once in a worker: the least `vramGb` (of 2**30 bytes) that a stage asks for."""
        asked = [entry.fields.get("vramGb") for entries in self.variants.values() for entry in entries]
        known = [float(value) for value in asked if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0]
        return int(min(known) * 2**30) if known else None


def load(path: Path) -> Recipe:
    """Read a recipe file (YAML or JSON).

    Raises:
        RecipeError: it cannot be read, or says something impossible; the message names the line.
    """
    try:
        text = files.read_small(path, MAX_ALLOY_BYTES).decode("utf-8")
    except NotFoundError as error:
        raise RecipeError(f"{path}: cannot read the recipe: there is no such file") from error
    except StoreError as error:
        raise RecipeError(f"{path}: cannot read the recipe: {error}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: the recipe is not UTF-8: {error}") from error
    try:
        return replace(parse(text), folder=path.parent, path=path)
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from error


def parse(text: str) -> Recipe:
    """Check the text of a recipe.

    Raises:
        RecipeError: not YAML, a key unknown or given twice, a value of the wrong kind, an id used twice; all faults of the format at once.
    """
    value, lines = _read(text)
    if not isinstance(value, dict):
        raise RecipeError("a recipe is a mapping with name, version, source and stages")
    value, lines = _written_out(value, lines)
    found = alloy_format.faults(value, what="the recipe", written=False, stages=False)
    ensemble = alloy_format.is_ensemble(value) and "stages" not in value
    if unknown := [fault for fault in found if fault.text.startswith("unknown key")]:
        raise RecipeError("\n".join(_line(fault.path, lines) + fault.text for fault in unknown))
    for key in ("name", "stages"):
        if key not in value and not (key == "stages" and ensemble):
            raise RecipeError(f"the recipe has no {key}")
    name, version = value["name"], str(value.get("version", "0.0.0"))
    if not isinstance(name, str) or not _NAME.match(name):
        raise RecipeError(f"{_line(('name',), lines)}name {name!r} must be letters, digits, '.', '_' and '-': files are named by it")
    if not _VERSION.match(version):
        raise RecipeError(f"{_line(('version',), lines)}version {version!r} is not of the form 1.2.3")
    source = value.get("source") or {}
    if not isinstance(source, dict):
        raise RecipeError(f"{_line(('source',), lines)}source must be a mapping with baseModel")
    listed = [_combine(source)] if ensemble else value["stages"]
    if not isinstance(listed, list) or not listed:
        raise RecipeError(f"{_line(('stages',), lines)}stages must be a list of at least one stage")
    if found:
        raise RecipeError("\n".join(f"{_line(fault.path, lines)}{fault}" for fault in found))
    entries = [_stage(item, ("stages", number), lines) for number, item in enumerate(listed)]
    stages = _with_ids([entry for entry, _ in entries])
    matrices = [(number, matrix) for number, (_, matrix) in enumerate(entries) if matrix]
    return Recipe(
        name, version, source, stages, value, source_line=lines.get(("source",), 0), variants=_variants(stages, matrices)
    )  # fmt: skip


Lines = dict[tuple[Any, ...], int]


def _written_out(value: dict[str, Any], lines: Lines) -> tuple[dict[str, Any], Lines]:
    """A recipe in which every population is the stages that it stands for; a whole recipe may be one."""
    if value.get("type") == population.TYPE:
        if "stages" in value:
            raise RecipeError(
                f"{_line(('stages',), lines)}a recipe of the type {population.TYPE} has no stages: leave them out, or the type"
            )
        own = {
            key: item for key, item in value.items() if population.plain(key) in population.KEYS or key not in alloy_format.OBJECTS["alloy"]
        }
        rest = {key: item for key, item in value.items() if key not in own and key != "type"}
        label = own.get("benchmark") if isinstance(own.get("benchmark"), str) else "questions"
        stage = {"type": population.TYPE, **{key: item for key, item in own.items() if key != "type"}}
        lines = {**lines, **{("stages", 0, *path): line for path, line in lines.items() if path[:1] and path[0] in own}}
        value = {"name": f"many-worlds-{label}-blend", **rest, "stages": [stage]}
    listed = value.get("stages")
    if not isinstance(listed, list) or not any(isinstance(item, dict) and item.get("type") == population.TYPE for item in listed):
        return value, lines
    ids = frozenset(str(item.get("id") or item.get("type")) for item in listed if isinstance(item, dict))
    made: list[Any] = []
    moved = {path: line for path, line in lines.items() if path[:1] != ("stages",) or len(path) == 1}
    for number, item in enumerate(listed):
        place = ("stages", number)
        if not isinstance(item, dict) or item.get("type") != population.TYPE:
            moved |= {("stages", len(made), *path[2:]): line for path, line in lines.items() if path[:2] == place}
            made.append(item)
            continue
        given = {key: one for key, one in item.items() if key not in _OWN}
        if refused := sorted(set(item) & set(_OWN[1:])):
            raise RecipeError(f"{_line((*place, refused[0]), lines)}{population.TYPE} stands for several stages and takes no {refused[0]}")
        written = {population.plain(key): _at((*place, key), lines) for key in given}
        for stage in population.stages(given, partial(_line_of, place, lines), ids):
            at = ("stages", len(made))
            moved |= {at: _at(place, lines)} | {(*at, key): written.get(key, _at(place, lines)) for key in stage}
            made.append(stage)
    return {**value, "stages": made}, moved


def _line_of(place: tuple[Any, ...], lines: Lines, key: str) -> str:
    return _line((*place, key), lines)


def _at(path: tuple[Any, ...], lines: Lines) -> int:
    """The line of a value, or of the nearest thing around it."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


def known(keys: Iterable[str], allowed: Iterable[str], what: str, where: Any) -> None:
    """Refuse keys that are not allowed, offering the nearest one.

    Raises:
        RecipeError: naming every unknown key, each with its line.
    """
    allowed = tuple(allowed)
    faults = []
    for key in keys:
        if key not in allowed:
            near = difflib.get_close_matches(str(key), allowed, n=1, cutoff=0.5)
            faults.append(f"{where(key)}unknown key {key!r} in {what}" + (f"; did you mean {near[0]!r}?" if near else ""))
    if faults:
        raise RecipeError("\n".join(faults))


def _combine(source: Mapping[str, Any]) -> dict[str, Any]:
    """The one stage of an ensemble that names its members in its source and no stages: to combine them."""
    target, specialists = source.get("target"), source.get("specialists")
    names = [one.get("baseModel") if isinstance(one, dict) else None for one in (specialists if isinstance(specialists, list) else [])]
    return {
        "type": alloy_format.ENSEMBLE,
        "targetModel": target.get("baseModel") if isinstance(target, dict) else None,
        "specialists": names,
    }


def _line(path: tuple[Any, ...], lines: Mapping[tuple[Any, ...], int]) -> str:
    """`line 7: ` of a value, or of the nearest thing around it whose line is known; nothing where none is."""
    while path and path not in lines:
        path = path[:-1]
    return f"line {lines[path]}: " if path in lines and path else ""


def _stage(item: Any, path: tuple[Any, ...], lines: Mapping[tuple[Any, ...], int]) -> tuple[StageEntry, Mapping[str, list[Any]]]:
    line = lines.get(path, 1)
    if not isinstance(item, dict) or not isinstance(item.get("type"), str):
        raise RecipeError(f"line {line}: each stage is a mapping with a type")
    inputs = item.get("inputs") or {}
    if not isinstance(inputs, dict) or not all(isinstance(part, str) for pair in inputs.items() for part in pair):
        raise RecipeError(f"line {line}: inputs of {item['type']} must map input names to stage ids (`id` or `id.output`)")
    matrix = item.get("matrix") or {}
    if not isinstance(matrix, dict) or not all(isinstance(values, list) and values for values in matrix.values()):
        raise RecipeError(f"line {line}: matrix of {item['type']} must map keys to lists of values")
    fields = {key: value for key, value in item.items() if key not in _OWN}
    for key in matrix:
        if key in fields:
            raise RecipeError(f"line {line}: {key} of {item['type']} is given both a value and a matrix")
    own_lines = {key: lines.get((*path, key), line) for key in item} | {key: lines.get((*path, "matrix", key), line) for key in matrix}
    identifier = item.get("id", "")
    if identifier and not _NAME.match(str(identifier)):
        raise RecipeError(f"line {line}: id {identifier!r} must be letters, digits, '.', '_' and '-'")
    return StageEntry(str(identifier), item["type"], fields, inputs, line, own_lines), matrix


def _with_ids(entries: list[StageEntry]) -> tuple[StageEntry, ...]:
    given = [entry.id for entry in entries if entry.id]
    for identifier in given:
        if given.count(identifier) > 1:
            raise RecipeError(f"two stages have the id {identifier!r}")
    counts: dict[str, int] = {}
    named = []
    for entry in entries:
        identifier = entry.id
        if not identifier:
            counts[entry.type] = counts.get(entry.type, 0) + 1
            identifier = entry.type if counts[entry.type] == 1 else f"{entry.type}-{counts[entry.type]}"
            while identifier in given:
                identifier += "-"
        named.append(replace(entry, id=identifier))
    return tuple(named)


def _variants(stages: tuple[StageEntry, ...], matrices: list[tuple[int, Mapping[str, list[Any]]]]) -> dict[str, tuple[StageEntry, ...]]:
    axes = [(number, key, values) for number, matrix in matrices for key, values in matrix.items()]
    if not axes:
        return {"": stages}
    if (count := math.prod(len(values) for _, _, values in axes)) > MAX_VARIANTS:
        raise RecipeError(f"the matrices make {count:,} variants; at most {MAX_VARIANTS:,} are run at once")
    variants: dict[str, tuple[StageEntry, ...]] = {}
    for combination in itertools.product(*(values for _, _, values in axes)):
        chosen = list(stages)
        for (number, key, _), value in zip(axes, combination, strict=True):
            chosen[number] = replace(chosen[number], fields={**chosen[number].fields, key: value})
        name = "-".join(f"{key}={value}" for (_, key, _), value in zip(axes, combination, strict=True))
        variants[name] = tuple(chosen)
    return variants


def _read(text: str) -> tuple[Any, dict[tuple[Any, ...], int]]:
    """YAML or JSON as plain values, and the line of everything in it as far as known; a key given twice is refused."""
    if text[:1].isspace() or text[:1] == "{":
        try:
            value = canonical.loads(text.encode())
        except CanonicalError:
            return _read_yaml(text)  # YAML that starts like JSON; or JSON with a fault, whose line is told there
        try:  # JSON is nearly a part of YAML, and only the YAML reader knows lines
            return value, _read_yaml(text)[1]
        except RecipeError:
            return value, {}
    return _read_yaml(text)


def _read_yaml(text: str) -> tuple[Any, dict[tuple[Any, ...], int]]:
    if len(text) > MAX_RECIPE_BYTES:
        raise RecipeError(f"{len(text):,} characters; a recipe has at most {MAX_RECIPE_BYTES:,}")
    import yaml

    lines: dict[tuple[Any, ...], int] = {}
    loader = yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader
    try:
        root = yaml.compose(text, Loader=loader)
        builder = yaml.constructor.SafeConstructor()

        def build(node: Any, path: tuple[Any, ...]) -> Any:
            if len(path) > _MAX_DEPTH or len(lines) > MAX_VALUES:
                raise RecipeError(f"line {node.start_mark.line + 1}: more than {MAX_VALUES:,} values, or nested without end")
            lines.setdefault(path, node.start_mark.line + 1)
            if isinstance(node, yaml.MappingNode):
                result: dict[str, Any] = {}
                for key_node, value_node in node.value:
                    key = build(key_node, (*path, "\0key"))
                    if not isinstance(key, str):
                        raise RecipeError(f"line {key_node.start_mark.line + 1}: key {key!r} must be text")
                    if key in result:
                        raise RecipeError(f"line {key_node.start_mark.line + 1}: key {key!r} is given twice")
                    lines[(*path, key)] = key_node.start_mark.line + 1
                    result[key] = build(value_node, (*path, key))
                return result
            if isinstance(node, yaml.SequenceNode):
                return [build(item, (*path, number)) for number, item in enumerate(node.value)]
            try:
                value = builder.construct_object(node)
            except ValueError as error:
                raise RecipeError(f"line {node.start_mark.line + 1}: not a value: {error}") from error
            return value if value is None or isinstance(value, (bool, int, float, str)) else str(node.value)

        return (None if root is None else build(root, ())), lines
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}: " if mark is not None else ""
        raise RecipeError(f"{place}not YAML: {getattr(error, 'problem', None) or error}") from error

"""A Recipe becomes a Graph: recipe keys find the spec fields and inputs of their stage, a chain wires inputs to the nearest earlier output.

Pure but for `materials`, which the caller hands in: it takes a path that the recipe names and gives the digest of what is there.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ledger import alloy_format
from stages import plugins
from stages.errors import PluginError, RecipeError, SpecError
from stages.recipe import Recipe, StageEntry, known
from stages.stage import Composite, Graph, Input, Leaf, Node, Ref, Stage, spec_from_json
from store.digest import Digest

Materials = Callable[[Path], Digest]


@dataclass(frozen=True, slots=True)
class Lowered:
    """What one recipe stage became: its nodes, and its outputs by name for the stages after it."""

    nodes: tuple[Node, ...]
    outputs: Mapping[str, Input]


@dataclass(frozen=True, slots=True)
class Call:
    """What a stage's own `lower` gets.

    Attributes:
        entry: the stage as written; id: prefix of the ids of its nodes.
        before: the recipe stages already lowered, in order: (entry, Lowered). The import of the source is the first.
        variant: name of the variant, empty without a matrix.
        materials: path in the recipe -> digest.
    """

    entry: StageEntry
    id: str
    recipe: Recipe
    before: tuple[tuple[StageEntry, Lowered], ...]
    variant: str
    materials: Callable[[str], Digest]

    def nearest(self, output: str) -> Input | None:
        """The latest earlier output of that name."""
        for _, lowered in reversed(self.before):
            if output in lowered.outputs:
                return lowered.outputs[output]
        return None


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole recipe as a graph.

    Attributes:
        groups: id of a recipe stage (with its variant) in order; every node's id starts with its group.
        outputs: group -> output name -> where it comes from.
        materials: path as written -> digest, for the record.
    """

    graph: Graph
    groups: tuple[str, ...]
    outputs: Mapping[str, Mapping[str, Input]]
    materials: Mapping[str, Digest] = field(default_factory=dict)


def lower(recipe: Recipe, materials: Materials) -> Plan:
    """Turn a recipe into a graph.

    Raises:
        RecipeError: an unknown stage type or key, an input that nothing gives, a cycle, a path that is not there.
        SpecError: a value that the stage refuses.
    """
    try:
        return _lower(recipe, materials)
    except (RecipeError, SpecError) as error:
        if recipe.path is None:
            raise
        raise type(error)(f"{recipe.path}: {error}") from error


def _lower(recipe: Recipe, materials: Materials) -> Plan:
    _refuse_unrunnable(recipe)
    taken: dict[str, Digest] = {}

    def material(text: str) -> Digest:
        if text not in taken:
            path = Path(text).expanduser()
            taken[text] = materials(path if path.is_absolute() else recipe.folder / path)
        return taken[text]

    nodes: dict[str, Node] = {}
    outputs: dict[str, Mapping[str, Input]] = {}
    for variant, entries in recipe.variants.items():
        before: list[tuple[StageEntry, Lowered]] = []
        for entry in _ordered(_with_source(recipe, entries)):
            identifier = f"{entry.id}[{variant}]" if variant and entry.id != "import-model" else entry.id
            call = Call(entry, identifier, recipe, tuple(before), variant, material)
            lowered = lower_stage(call)
            before.append((entry, lowered))
            outputs[identifier] = lowered.outputs
            nodes |= {node.id: node for node in lowered.nodes}
    everything = {f"{group}.{name}": source for group, named in outputs.items() for name, source in named.items()}
    return Plan(Graph(tuple(nodes.values()), everything), tuple(outputs), outputs, taken)


def _refuse_unrunnable(recipe: Recipe) -> None:
    """Name every stage that nothing here runs, before anything is looked up: the model may be large and far away.

    Raises:
        RecipeError: a type that nothing installed is registered for; what the format knows of it is checked, too.
    """
    problems: list[str] = []
    written = recipe.raw.get("stages")  # with the keys of matrices; an ensemble may have none
    for number, entry in enumerate(recipe.stages):
        if entry.type in plugins.names("stages"):
            continue
        if entry.type in alloy_format.STAGES:
            for fault in alloy_format.stage_faults(written[number] if written else {"type": entry.type, **entry.fields}):
                problems.append(f"{entry.where(str(fault.path[0]) if fault.path else 'type')}{fault}")
            problems.append(
                f"line {entry.line}: nothing installed runs the stage {entry.type!r}; the format has it, and a plug-in may bring it "
                "(docs/plugins.md). Leave the stage out, or install one"
            )
        else:
            problems.append(f"line {entry.line}: {plugins.unknown('stages', entry.type)}")
    if problems:
        raise RecipeError("\n".join(problems))


def _with_source(recipe: Recipe, entries: tuple[StageEntry, ...]) -> tuple[StageEntry, ...]:
    """The source is the first stage of every chain, unless the recipe imports for itself or starts from scratch."""
    base = recipe.source.get("baseModel")
    if base in (None, "scratch") or any(entry.type == "import-model" for entry in entries):
        return entries
    fields = {"folder": base, "source": base} | ({"revision": recipe.source["revision"]} if recipe.source.get("revision") else {})
    line = recipe.source_line
    return (StageEntry("import-model", "import-model", fields, {}, line, {"folder": line}), *entries)


def _ordered(entries: tuple[StageEntry, ...]) -> list[StageEntry]:
    """Entries so that each comes after those that its `inputs` name; the written order otherwise."""
    by_id = {entry.id: entry for entry in entries}
    done: dict[str, StageEntry] = {}
    path: list[str] = []

    def visit(entry: StageEntry) -> None:
        if entry.id in done:
            return
        if entry.id in path:
            raise RecipeError(f"line {entry.line}: the inputs go in a circle: {' -> '.join([*path[path.index(entry.id) :], entry.id])}")
        path.append(entry.id)
        for name, target in entry.inputs.items():
            identifier = _target(target, by_id)
            if identifier is None:
                raise RecipeError(f"{entry.where('inputs')}input {name} of {entry.id} names {target!r}; there are {', '.join(by_id)}")
            visit(by_id[identifier])
        path.pop()
        done[entry.id] = entry

    for entry in entries:
        visit(entry)
    return list(done.values())


def _target(text: str, by_id: Mapping[str, Any]) -> str | None:
    if text in by_id:
        return text
    head, _, _ = text.rpartition(".")
    return head if head in by_id else None


def camel(name: str) -> str:
    """`keep_experts` -> `keepExperts`, the form of recipe keys."""
    return re.sub(r"_([a-z0-9])", lambda match: match.group(1).upper(), name)


def lower_stage(call: Call) -> Lowered:
    """One recipe stage as nodes: by its own `lower`, else by the names of its fields and inputs.

    Raises:
        RecipeError: an unknown stage type or key, an input that nothing gives.
    """
    entry = call.entry
    try:
        stage: Stage = plugins.load("stages", entry.type)
    except PluginError as error:
        raise RecipeError(f"line {entry.line}: {error}") from error
    if stage.lower is not None:
        lowered = stage.lower(call)
        if not isinstance(lowered, Lowered):
            raise SpecError(f"stage {entry.type}: its lower() gave a {type(lowered).__name__}, not Lowered")
        return lowered
    return one_node(call, stage)


def one_node(call: Call, stage: Stage) -> Lowered:
    """A stage as the one node that its keys, paths and inputs describe.

    Raises:
        RecipeError: as `bind` and `wire`.
    """
    spec, paths = bind(call.entry, stage)
    node = Node(call.id, call.entry.type, spec, wire(call, stage, paths))
    return Lowered((node,), {name: Ref(call.id, name) for name in stage.outputs if not name.endswith("*")})


def bind(entry: StageEntry, stage: Leaf | Composite) -> tuple[Any, dict[str, str]]:
    """A stage's recipe keys as its spec, and the paths given for its inputs.

    Raises:
        RecipeError: an unknown key (the nearest is offered) or a value of the wrong kind, with the line.
    """
    fields = {item.name: item for item in dataclasses.fields(stage.spec)}
    allowed = dict(stage.keys)
    for name in (*fields, *(name for name in stage.inputs if not name.endswith("*"))):
        if name not in stage.keys.values():
            allowed[camel(name)] = name
    known(entry.fields, (*allowed, *stage.described), entry.type, entry.where)
    values: dict[str, Any] = {}
    paths: dict[str, str] = {}
    for key, value in entry.fields.items():
        if key in stage.described and key not in allowed:
            continue
        name = allowed[key]
        if name in fields:
            values[name] = value
        elif isinstance(value, str):
            paths[name] = value
        else:
            raise RecipeError(f"{entry.where(key)}{key} of {entry.type} must be a path, not {value!r}")
    missing = [
        camel(name)
        for name, item in fields.items()
        if name not in values and item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
    ]
    if missing:
        wanted = [next((key for key, name in allowed.items() if camel(name) == miss), miss) for miss in missing]
        raise RecipeError(f"line {entry.line}: {entry.type} needs {', '.join(wanted)}")
    try:
        return spec_from_json(stage.spec, values), paths
    except SpecError as error:
        key = next((key for key, name in allowed.items() if str(error).startswith(name)), "type")
        raise RecipeError(f"{entry.where(key)}{entry.type}: {error}") from error


def wire(call: Call, stage: Leaf | Composite, paths: Mapping[str, str]) -> dict[str, Input]:
    """Where each input of a stage comes from: a path in the recipe, `inputs:`, or the nearest earlier output of that name.

    Raises:
        RecipeError: nothing gives it.
    """
    entry = call.entry
    inputs: dict[str, Input] = {}
    known(entry.inputs, stage.inputs, f"the inputs of {entry.type}", entry.where)
    for name in stage.inputs:
        if name in paths:
            inputs[name] = call.materials(paths[name])
            continue
        if name in entry.inputs:
            inputs[name] = _named(call, name, entry.inputs[name])
            continue
        if name.endswith("*"):
            continue
        found = call.nearest(name)
        if found is None:
            raise RecipeError(
                f"line {entry.line}: {entry.type} needs {name}: no earlier stage gives one; "
                f"add the stage that does, or `inputs: {{{name}: <id>}}`, or a path as `{camel(name)}:`"
            )
        inputs[name] = found
    return inputs


def _named(call: Call, name: str, target: str) -> Input:
    by_id = {entry.id: lowered for entry, lowered in call.before}
    identifier = _target(target, by_id)
    assert identifier is not None  # _ordered has checked it
    output = target[len(identifier) + 1 :] or name
    if output not in by_id[identifier].outputs:
        raise RecipeError(
            f"{call.entry.where('inputs')}{identifier} gives no {output!r}; it gives {', '.join(by_id[identifier].outputs) or 'nothing'}"
        )
    return by_id[identifier].outputs[output]

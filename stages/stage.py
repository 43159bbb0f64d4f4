"""What a stage is: a leaf (one pure function) or a composite (a graph of leaves), declared as data.

A stage file holds, in this order: its spec (a frozen dataclass; every field can change a byte of the output, and nothing else can),
its declaration `STAGE`, and `run(spec, inputs, context)` for a leaf or `expand(spec, inputs, store)` for a composite.
Declarations are imported by the runner, so a stage file imports torch, numpy and the like only inside `run`.

Only the runner looks up, records and signs; a leaf sees its spec, the digests of its inputs and its Context, so no stage can praise itself.

>>> @dataclass(frozen=True, slots=True, kw_only=True)
... class Upper:
...     suffix: str = ""
>>> STAGE = Leaf(name="upper", version=1, spec=Upper, inputs=("text",), outputs=("text",), purity="P", run="my_stages.upper:run")
>>> spec_to_json(Upper(suffix="!"))
{'suffix': '!'}
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from stages.errors import SpecError
from store.cas import Cas
from store.digest import Digest

Purity = Literal["P", "E"]
"""P: the same bytes anywhere. E: the same bytes in the same environment (see `stages.environment`)."""


@dataclass(frozen=True, slots=True)
class Ref:
    """The output of another node of the same graph."""

    node: str
    output: str


Input = Digest | Ref


@dataclass(frozen=True, slots=True)
class Node:
    """One stage to run: which, with what spec, on what.

    Attributes:
        id: unique in its graph; shown to people (`expert-prune`, `shard-00003`).
        stage: registered name of a leaf or a composite.
        spec: an instance of that stage's spec class.
        inputs: input name -> a digest, or another node's output.
        label: what a person reads on the progress line, where the id says too little.
    """

    id: str
    stage: str
    spec: Any
    inputs: Mapping[str, Input] = field(default_factory=dict)
    label: str = ""


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes, in any order, and where the composite's own outputs come from (an outer input may be passed through as a digest or Ref)."""

    nodes: tuple[Node, ...]
    outputs: Mapping[str, Input]


@dataclass(frozen=True, slots=True)
class Claim:
    """A statement about an object that a leaf found out, signed as an entry of its own beside the action's.

    Attributes:
        subjects: name -> digest of what the claim is about.
        predicate_type: one of `ledger.predicates`.
        predicate: JSON without floats (decimal text instead).
    """

    subjects: Mapping[str, Digest]
    predicate_type: str
    predicate: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a leaf made: output name -> digest (already in the store), and what it claims."""

    outputs: Mapping[str, Digest]
    claims: tuple[Claim, ...] = ()


class Context(Protocol):
    """What a leaf may use besides its spec and inputs; nothing here may change a byte of a P stage's output."""

    store: Cas
    scratch: Path
    """An empty folder of this action's own, deleted after it."""
    memo: MutableMapping[str, Any]
    """Lives as long as the worker: keep a loaded model here under its digest."""
    tools: Mapping[str, str]
    """External tools the user named, e.g. `llama-cpp` -> folder."""
    memory_bytes: int | None
    """The most that weights of models may take at once; None for no limit. It may cost time, and must change no answer."""

    def path(self, digest: Digest) -> Path:
        """A read-only file with the object's bytes."""
        ...

    def folder(self, tree: Digest) -> Path:
        """A read-only folder with the tree's files; kept while the worker lives."""
        ...

    def unfinished(self, name: str) -> Path:
        """A place for a file that outlives the process: what an interrupted action left there, the next one finds. Moved away when done.

        `name` (letters, digits, `-`) must be one that no other action uses.
        """
        ...

    def progress(self, done: int, total: int, unit: str) -> None:
        """Tell the person how far it is, e.g. `(14, 48, "chunks")`."""
        ...

    def note(self, name: str, value: Any) -> None:
        """A byproduct for the attestation (timings, tokens per second, warnings shown to the person); JSON."""
        ...

    def warn(self, message: str) -> None:
        """Something the person must be told; also kept as a byproduct."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """One pure function from digests to digests.

    Attributes:
        name: kebab-case, recorded in every key; never reused for something else.
        version: raise it when the bytes change for the same spec and inputs.
        spec: frozen dataclass of the settings.
        inputs: names; one that ends in `*` stands for any number of inputs with that prefix (`shard-*`).
        outputs: names; `*` likewise.
        purity: P or E.
        run: `module:function`, loaded in a worker; called as `run(spec, inputs, context) -> Outcome`.
        share: input names whose loaded form is worth keeping: actions that agree on stage and on these inputs go to one worker.
        environment: for E stages, `module:function` called in the worker, giving the environment as JSON (no floats).
        keys: recipe key -> spec field or input name, where it is not the camelCase of that name (`calibrationCorpus` -> `calibration`).
        described: recipe keys that a person may write for other readers and that change nothing here (`rationale`, `notes`).
        network: it asks the Hub. In the workers of all others libraries are kept off the network.
        lower: for a recipe form that may stand for more than this one action; as `Composite.lower`.
    """

    name: str
    version: int
    spec: type[Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    purity: Purity
    run: str
    share: tuple[str, ...] = ()
    environment: str = "stages.environment:describe"
    keys: Mapping[str, str] = field(default_factory=dict)
    described: tuple[str, ...] = ()
    network: bool = False
    lower: Callable[[Any], Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Composite:
    """A graph of leaves made from a spec and inputs; it has no entry of its own.

    Attributes:
        reads: inputs that must be digests (their content decides the graph) before `expand` is called; others may still be Refs.
        expand: `expand(spec, inputs, store) -> Graph`. It may put small objects (blocks of samples) into the store.
        lower: for a stage whose recipe form needs more than its own inputs (an evaluation that also evaluates the base):
            `lower(call: stages.lowering.Call) -> Lowered`. Others are lowered by the names of their fields and inputs.
    """

    name: str
    spec: type[Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    reads: tuple[str, ...]
    expand: Callable[[Any, Mapping[str, Input], Cas], Graph]
    keys: Mapping[str, str] = field(default_factory=dict)
    described: tuple[str, ...] = ()
    lower: Callable[[Any], Any] | None = None


Stage = Leaf | Composite


# --- specs as JSON -------------------------------------------------------------------------------------------------------------

S = TypeVar("S")


def spec_to_json(spec: Any) -> dict[str, Any]:
    """A spec as the JSON object that is hashed: every field, defaults included; floats as their shortest decimal text.

    Raises:
        SpecError: a field holds something that JSON has no form for.
    """
    return {item.name: _to_json(getattr(spec, item.name), item.name) for item in dataclasses.fields(spec)}


def _to_json(value: Any, where: str) -> Any:
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise SpecError(f"{where} is {value}, which no spec can hold")
        return repr(value)
    if isinstance(value, Digest):
        return str(value)
    if isinstance(value, (tuple, list)):
        return [_to_json(item, f"{where}[{number}]") for number, item in enumerate(value)]
    if isinstance(value, Mapping):
        return {str(key): _to_json(item, f"{where}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return spec_to_json(value)
    raise SpecError(f"{where} is a {type(value).__name__}, which no spec can hold")


def spec_from_json(kind: type[S], value: Mapping[str, Any]) -> S:
    """Read back what `spec_to_json` gave.

    Raises:
        SpecError: an unknown or missing field, or a value of another kind.
    """
    hints = typing.get_type_hints(kind)
    names = {item.name for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if set(value) - names:
        raise SpecError(f"{kind.__name__} has no field {sorted(set(value) - names)[0]!r}")
    try:
        return kind(**{name: _from_json(hints[name], value[name], name) for name in value})
    except TypeError as error:
        raise SpecError(f"{kind.__name__}: {error}") from error


def _from_json(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        choices = typing.get_args(hint)
        if value is None and type(None) in choices:
            return None
        return _from_json(_choose([choice for choice in choices if choice is not type(None)], value, where), value, where)
    if origin is Literal:
        if value not in typing.get_args(hint):
            raise SpecError(f"{where} is {value!r}; it must be one of {', '.join(map(str, typing.get_args(hint)))}")
        return value
    if hint is float and isinstance(value, (int, str)) and not isinstance(value, bool):  # people write 1 and 1e-4, and specs are text
        try:
            return float(value)
        except ValueError as error:
            raise SpecError(f"{where} is {value!r}; it must be a number") from error
    if hint is Digest and isinstance(value, str):
        return Digest.parse(value)
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_from_json(typing.get_args(hint)[0], item, f"{where}[]") for item in value)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, Mapping):
        return spec_from_json(hint, value)
    if origin is not None and isinstance(value, Mapping):
        return dict(value)
    if isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise SpecError(f"{where} is {value!r}; it must be {getattr(hint, '__name__', hint)}")


def _choose(choices: list[Any], value: Any, where: str) -> Any:
    """Which of several kinds a value is of: specs that stand side by side tell themselves apart by `model_type`, one word each."""
    if len(choices) == 1 or not isinstance(value, Mapping):
        return choices[0]
    words = {word: choice for choice in choices for word in typing.get_args(typing.get_type_hints(choice)["model_type"])}
    default = typing.get_args(typing.get_type_hints(choices[0])["model_type"])[0]
    word = value.get("model_type", default)
    if word not in words:
        raise SpecError(f"{where}: model_type is {word!r}; it must be one of {', '.join(words)}")
    return words[word]

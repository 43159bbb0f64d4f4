"""The weights of a model tree as headers and byte ranges: which files hold them, what each file says, and config.json beside them.

Nothing here reads tensor data or loads a model, so memory does not depend on a model's size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stages.errors import InputError
from stages.safetensors_file import Header, read_header
from store import canonical
from store.cas import Cas
from store.digest import Digest
from store.errors import CanonicalError
from store.tree import Tree, TreeEntry

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


def entry(model: Tree, path: str) -> TreeEntry | None:
    """The entry of a path, or None."""
    return next((item for item in model.entries if item.path == path), None)


def read_config(store: Cas, model: Tree) -> dict[str, Any]:
    """config.json of a model tree.

    Raises:
        InputError: the tree has none, or it is not a JSON object.
    """
    found = entry(model, "config.json")
    if found is None:
        raise InputError(f"the model has no config.json (it has {', '.join(item.path for item in model.entries[:8]) or 'no files'})")
    return parse_config(store.read(found.digest))


def parse_config(data: bytes, name: str = "config.json") -> dict[str, Any]:
    """A JSON object, strictly.

    Raises:
        InputError: it is anything else.
    """
    try:
        value = canonical.loads(data)
    except CanonicalError as error:
        raise InputError(f"{name} is not JSON that can be trusted: {error}. Download it again") from error
    if not isinstance(value, dict):
        raise InputError(f"{name} is not a JSON object")
    return value


def weight_files(model: Tree) -> tuple[TreeEntry, ...]:
    """The safetensors files of a model tree, sorted by name.

    Raises:
        InputError: there are none.
    """
    files = tuple(item for item in sorted(model.entries, key=lambda item: item.path) if item.path.endswith(".safetensors"))
    if not files:
        raise InputError("the model has no *.safetensors file: weights are read from safetensors alone")
    return files


def read_shard_header(store: Cas, digest: Digest, name: str) -> Header:
    """The checked header of a safetensors object.

    Raises:
        InputError: it lies.
    """
    with store.open(digest) as file:
        return read_header(file, name, store.size(digest))


def read_headers(store: Cas, model: Tree) -> dict[str, Header]:
    """File name -> header, for all weights of a model; checked against the index where there is one.

    Raises:
        InputError: a header lies, a tensor is in two files, or the index names other files or tensors than there are.
    """
    headers = {item.path: read_shard_header(store, item.digest, item.path) for item in weight_files(model)}
    found = entry(model, INDEX)
    check_index(headers, None if found is None else store.read(found.digest))
    return headers


def check_index(headers: Mapping[str, Header], index: bytes | None) -> None:
    """Check that the index and the shards say the same.

    Args:
        headers: file name -> header, of all safetensors files.
        index: bytes of model.safetensors.index.json, or None when there is no such file.

    Raises:
        InputError: all differences, together.
    """
    if index is None:
        if set(headers) != {SINGLE}:
            raise InputError(
                f"weights are in {', '.join(sorted(headers))} without {INDEX}: expected one {SINGLE}, or the index. Download the index too"
            )
        return
    value = parse_config(index, INDEX)
    named = value.get("weight_map")
    if not isinstance(named, dict) or not all(isinstance(item, str) for item in named.values()):
        raise InputError(f"{INDEX} has no weight_map of tensor names to file names: download it again")
    faults = [f"file {name} is named by the index and is not there" for name in sorted(set(named.values()) - set(headers))]
    faults += [f"file {name} is there and the index does not name it" for name in sorted(set(headers) - set(named.values()))]
    holder: dict[str, str] = {}
    for file in sorted(headers):
        for item in headers[file].tensors:
            if item.name in holder:
                faults.append(f"tensor {item.name} is in {holder[item.name]} and in {file}")
            holder[item.name] = file
    for name in sorted(named):
        if named[name] in headers and holder.get(name) != named[name]:
            where = f"it is in {holder[name]}" if name in holder else "no file has it"
            faults.append(f"tensor {name} is said to be in {named[name]}; {where}")
    faults += [f"tensor {name} of {holder[name]} is not in the index" for name in sorted(set(holder) - set(named))]
    if faults:
        shown = "; ".join(faults[:8]) + (f"; and {len(faults) - 8} more" if len(faults) > 8 else "")
        raise InputError(f"{INDEX} and the shards disagree: {shown}. Download the model again")

"""Named tensors with a small header, as safetensors: sorted names, the same bytes for the same values. No pickle is read or written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stages.errors import InputError
from stages.safetensors_file import header_bytes, place, read_header
from store.cas import Cas
from store.digest import Digest

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int32: "I32",
}


@dataclass(frozen=True, slots=True)
class TensorFile:
    """A read file.

    Attributes:
        head: what it says of itself.
        tensors: name -> values, copied out of the file.
    """

    head: Mapping[str, Any]
    tensors: Mapping[str, torch.Tensor]

    def under(self, prefix: str) -> dict[str, torch.Tensor]:
        """The tensors `<prefix>/<name>` by `<name>`."""
        return {name[len(prefix) + 1 :]: value for name, value in self.tensors.items() if name.startswith(f"{prefix}/")}


def write(store: Cas, form: str, head: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> Digest:
    """Store tensors. `form` names the kind of file and its version; `head` is JSON."""
    order = sorted(tensors)
    values = {name: tensors[name].detach().cpu().contiguous() for name in order}
    layout = place((name, _NAMES[values[name].dtype], tuple(values[name].shape)) for name in order)
    with store.writer() as writer:
        writer.write(header_bytes(layout, {"format": form, "head": json.dumps(head, sort_keys=True, separators=(",", ":"))}))
        for name in order:
            if values[name].numel():
                writer.write(values[name].flatten().view(torch.uint8).numpy().data)
        return writer.finish()


def read_head(path: Path, form: str) -> dict[str, Any]:
    """What a file says of itself.

    Raises:
        InputError: it is damaged, or of another form.
    """
    with path.open("rb") as file:
        metadata = read_header(file, path.name, path.stat().st_size).metadata
    if metadata.get("format") != form:
        raise InputError(f"{path.name} is of the form {metadata.get('format')!r}, not {form!r}: it is another kind of file")
    try:
        head = json.loads(metadata["head"])
    except (KeyError, ValueError) as error:
        raise InputError(f"{path.name}: a {form} whose header is damaged: {error}") from error
    if not isinstance(head, dict):
        raise InputError(f"{path.name}: a {form} whose header is damaged: it is no object")
    return head


def read(path: Path, form: str) -> TensorFile:
    """All of a file; tensors are copied into memory of torch's own allocation, since a kernel may round differently where data is aligned
    differently.

    Raises:
        InputError: as `read_head`.
    """
    from safetensors import safe_open

    head = read_head(path, form)
    with safe_open(path, framework="pt") as file:
        return TensorFile(head, {name: file.get_tensor(name).clone() for name in sorted(file.keys())})

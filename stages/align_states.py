"""The states of several models for one block of texts, at the places where all of them have read the same bytes.

What that means: stages/many_worlds/positions.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stages.calibration import read_samples
from stages.errors import InputError, SpecError
from stages.stage import Context, Leaf, Outcome
from store.digest import Digest

FORM = "aligned-states/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignStates:
    """Which models; the input `states-<name>` is of each."""

    models: tuple[str, ...]
    max_bytes: int
    """As in hidden-states."""

    def __post_init__(self) -> None:
        if len(self.models) < 1 or len(set(self.models)) < len(self.models):
            raise SpecError(f"models are {', '.join(self.models) or 'none'}; each needs a name of its own")


STAGE = Leaf(
    name="align-states",
    version=1,
    spec=AlignStates,
    inputs=("samples", "states-*"),
    outputs=("aligned",),
    purity="P",
    run="stages.align_states:run",
)


def run(spec: AlignStates, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Copy the rows of shared places.

    The file has `states/<model>` (n, h) and for each row `texts`: a key of its text, `prefixes`: a key of the bytes read up to there, and
    `ends`: how many. A beginning that two texts have in common gives one row, since no model can tell the two apart there.

    Raises:
        InputError: states of other texts, or of texts that were cut elsewhere.
    """
    import torch

    from stages import hidden_states
    from stages.many_worlds import positions, tensor_file

    if {f"states-{name}" for name in spec.models} | {"samples"} != set(inputs):
        raise SpecError(f"states are given of {', '.join(sorted(inputs))}; models are {', '.join(spec.models)}")
    files = [tensor_file.read(context.path(inputs[f"states-{name}"]), hidden_states.FORM) for name in spec.models]
    samples = read_samples(context.store.read(inputs["samples"]))
    for name, file in zip(spec.models, files, strict=True):
        if len(file.tensors["texts"]) != len(samples) + 1 or file.head["maxBytes"] != spec.max_bytes:
            raise InputError(f"the states of {name} are of other texts than the {len(samples)} of this block, or were cut elsewhere")
    starts = [file.tensors["texts"].tolist() for file in files]
    ends = [file.tensors["ends"].tolist() for file in files]
    rows: list[list[int]] = [[] for _ in files]
    texts, prefixes, places = [], [], []
    seen: set[int] = set()
    for number, sample in enumerate(samples):
        data = positions.cut(sample.text, spec.max_bytes)
        where = [{end: row for row, end in enumerate(e[s[number] : s[number + 1]], s[number])} for s, e in zip(starts, ends, strict=True)]
        common = positions.shared([list(item) for item in where])
        for end, prefix in zip(common, positions.prefix_keys(data, common), strict=True):
            if prefix not in seen:
                seen.add(prefix)
                texts.append(positions.key_of(data))
                prefixes.append(prefix)
                places.append(end)
                for own, item in zip(rows, where, strict=True):
                    own.append(item[end])
    for name, file in zip(spec.models, files, strict=True):
        context.note(f"shared_{name}", f"{len(places)} of {len(file.tensors['ends'])} places")
    kept = {f"states/{name}": file.tensors["states"][own] for name, file, own in zip(spec.models, files, rows, strict=True)}
    kept |= {name: torch.tensor(item, dtype=torch.int64) for name, item in (("texts", texts), ("prefixes", prefixes), ("ends", places))}
    head = {
        "layers": {name: file.head["layer"] for name, file in zip(spec.models, files, strict=True)},
        "maxBytes": spec.max_bytes,
        "models": list(spec.models),
    }
    return Outcome({"aligned": tensor_file.write(context.store, FORM, head, kept)})

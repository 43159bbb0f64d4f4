"""How much models differ in the next byte, and which geometric team that predicts: from `byte-rows` files, without any model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stages.errors import InputError, SpecError
from stages.metrics import text
from stages.stage import Context, Leaf, Outcome
from stages.team.board import input_name, input_names
from store import canonical
from store.digest import Digest

if TYPE_CHECKING:
    from stages.team.next_byte import Read, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteDivergence:
    """Who, on what: the input `rows-<name>-<benchmark>` is of each.

    Attributes:
        max_members: None for any number.
    """

    candidates: tuple[str, ...]
    benchmarks: tuple[str, ...]
    max_members: int | None = None


STAGE = Leaf(
    name="byte-divergence",
    version=1,
    spec=ByteDivergence,
    inputs=("rows-*",),
    outputs=("divergence",),
    purity="E",
    run="stages.byte_divergence:run",
)


def run(spec: ByteDivergence, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """D of every pair, what every pair would lose, and the team that grows by that (`divergence`, JSON); nats per byte.

    Raises:
        SpecError: an input is missing. InputError: files of other questions.
        GuaranteeError: a team whose loss is not mean NLL - D.
    """
    from stages.team import next_byte

    missing = sorted(input_names("rows", spec.candidates, spec.benchmarks) - set(inputs))
    if missing:
        raise SpecError(f"there is no input {missing[0]}: every model must have read every benchmark")
    names = sorted(spec.candidates)
    read = {
        name: next_byte.joined([_read(inputs[input_name("rows", name, label)], context) for label in sorted(spec.benchmarks)])
        for name in names
    }
    alone = {name: next_byte.team([read[name]]).nll for name in names}
    pairs: dict[tuple[str, str], next_byte.Team] = {}
    for number, a in enumerate(names):
        for b in names[number + 1 :]:
            pairs[a, b] = pairs[b, a] = next_byte.team([read[a], read[b]])
        context.progress(number + 1, len(names), "models")
    steps, refused, error = next_byte.grow(read, most=spec.max_members)
    report: dict[str, Any] = {
        "kind": STAGE.name,
        "benchmarks": sorted(spec.benchmarks),
        "bytes": len(read[names[0]].symbols),
        "texts": int(read[names[0]].texts.max()) + 1,
        "nll": {name: text(value) for name, value in alone.items()},
        "matrix": {a: {b: "0" if a == b else text(pairs[a, b].divergence) for b in names} for a in names},
        "pairNll": {a: {b: text(alone[a] if a == b else pairs[a, b].nll) for b in names} for a in names},
        "growth": [_step(step) for step in steps],
        "refused": None if refused is None else _step(refused),
        "team": [step.name for step in steps],
    }
    # Of the last bits, so it is told and is no part of the bytes.
    context.note("identity_error_nats", f"{max([error, *(item.error for item in pairs.values())]):.3g}")
    return Outcome({"divergence": context.store.put(canonical.dumps(report))})


def _read(file: Digest, context: Context) -> Read:
    """One model on one block.

    Raises:
        InputError: it is no file of byte-rows.
    """
    import numpy as np

    from stages.byte_rows import FORM
    from stages.many_worlds import tensor_file
    from stages.team.next_byte import Read

    tensors = tensor_file.read(context.path(file), FORM).tensors
    if set(tensors) != {"bytes", "rows", "starts"}:
        raise InputError(f"{file.short}: byte-rows hold bytes, rows and starts; this has {', '.join(tensors)}")
    starts = tensors["starts"].numpy()
    return Read(
        rows=tensors["rows"].numpy(),
        symbols=tensors["bytes"].numpy().astype(np.int64),
        texts=np.repeat(np.arange(len(starts) - 1), np.diff(starts)),
    )


def _step(step: Step) -> dict[str, Any]:
    gain = step.gain
    return {
        "name": step.name,
        "nll": text(step.nll),
        "divergence": text(step.divergence),
        "gain": None if gain is None else {"mean": text(gain.mean), "low": text(gain.low), "high": text(gain.high), "texts": gain.clusters},
        "textsNeeded": step.texts_needed,
    }

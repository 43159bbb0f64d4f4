"""Fit the settings of a combiner to what members say of some texts: weights of least loss, or thresholds of a gate. No model is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from stages import named_models
from stages.errors import InputError, SpecError
from stages.metrics import text
from stages.stage import Context, Leaf, Outcome, spec_to_json
from store import canonical
from store.digest import Digest
from store.errors import CanonicalError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Fitted = Literal["geometric", "uncertainty-gate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CombinerFit:
    """What is fitted.

    Attributes:
        members: names, in order; the first is the target. Each has the inputs `model-<name>` and `rows-<name>`.
        combiner: `geometric`, its weights; `uncertainty-gate`, its thresholds for the inner combiner `fixed-share`.
        scored: bytes that count, `all` or those of the `answer` alone.
    """

    members: tuple[str, ...]
    combiner: Fitted = "geometric"
    scored: Literal["all", "answer"] = "all"

    def __post_init__(self) -> None:
        named_models.check_names(self.members)
        if not self.members:
            raise SpecError("members: there are none to fit")


STAGE = Leaf(
    name="combiner-fit",
    version=1,
    spec=CombinerFit,
    inputs=("texts", "apart", "model-*", "rows-*"),
    outputs=("fit",),
    purity="P",
    run="stages.combiner_fit:run",
)


def run(spec: CombinerFit, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Write the settings, with the losses of what was fitted, of each member and of equal weights, in nats a byte.

    Raises:
        SpecError: an input is missing. InputError: rows of other texts; a byte to which a member gives probability 0.
    """
    import numpy as np

    from stages import byte_rows, fit_texts
    from stages.combiners.combiner import find, read
    from stages.many_worlds import tensor_file

    if {name for name in inputs if name not in ("texts", "apart")} != {
        f"{kind}-{name}" for kind in ("model", "rows") for name in spec.members
    }:
        raise SpecError(f"members are {', '.join(spec.members)}; given are {', '.join(sorted(inputs))}: each needs its model and rows")
    given = fit_texts.parse(context.store.read(inputs["texts"]))
    files = [tensor_file.read(context.path(inputs[f"rows-{name}"]), byte_rows.FORM).tensors for name in spec.members]
    lengths = [len((item.prompt + item.text).encode()) for item in given]
    for name, file in zip(spec.members, files, strict=True):
        if file["starts"].diff().tolist() != lengths:
            raise InputError(f"the rows of {name} are of other texts than these")
    rows = np.stack([file["rows"].numpy().astype(np.float64) for file in files], axis=1)
    texts: list[tuple[NDArray[np.float64], bytes, int]] = []
    begin = 0
    for item, length in zip(given, lengths, strict=True):
        prompt = len(item.prompt.encode()) if spec.scored == "answer" else 0
        texts.append((rows[begin : begin + length], (item.prompt + item.text).encode(), prompt))
        begin += length
    scored = [(part[start:], data[start:]) for part, data, start in texts if len(data) > start]
    if not scored:
        raise InputError("no byte of the fitting texts counts: they have no answers; let all bytes count (`scored: all`)")
    settings = _SETTINGS[spec.combiner](texts, scored)
    complete = spec_to_json(read(spec.combiner, settings)[1])
    report: dict[str, Any] = {
        "kind": STAGE.name,
        "combiner": spec.combiner,
        "settings": complete,
        "members": list(spec.members),
        "models": {name: str(inputs[f"model-{name}"]) for name in spec.members},
        "texts": {"digest": str(inputs["texts"]), "count": len(given), "scoredBytes": sum(len(data) for _, data in scored)},
        "loss": {
            "fitted": text(loss(find(spec.combiner, complete, len(spec.members)), texts)),
            "equalGeometric": text(loss(find("geometric", {}, len(spec.members)), texts)),
            "members": {
                name: text(float(-sum(part[np.arange(len(data)), number, list(data)].sum() for part, data in scored)) / _count(scored))
                for number, name in enumerate(spec.members)
            },
        },
    }
    context.note("summary", f"{spec.combiner} at {float(report['loss']['fitted']):.4f} nats a byte")
    return Outcome({"fit": context.store.put(canonical.dumps(report))})


Texts = Sequence[tuple["NDArray[np.float64]", bytes, int]]
"""Of each text (n, M, 257) log probabilities, its n bytes, and how many of them only warm the weights."""
Scored = Sequence[tuple["NDArray[np.float64]", bytes]]


def _count(scored: Scored) -> int:
    return sum(len(data) for _, data in scored)


def loss(rule: Any, texts: Texts) -> float:
    """Nats a scored byte of a rule that reads every text from its beginning."""
    import math

    losses = [-float(value) for part, data, start in texts for value in losses_of(rule, part, data)[0][start:]]
    return math.fsum(losses) / len(losses)


def losses_of(rule: Any, rows: NDArray[np.float64], data: bytes) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(log probabilities (n,) of the bytes, combined rows (n, 257))."""
    import numpy as np

    from stages.byte_lm.ensemble import combine

    mixed, _, _ = combine(rule, rule.start(), rows, data)
    return mixed[np.arange(len(data)), list(data)], mixed


def _weights(texts: Texts, scored: Scored) -> Mapping[str, Any]:
    from stages.combiners import geometric

    return {"weights": geometric.fit(scored)}


def _thresholds(texts: Texts, scored: Scored) -> Mapping[str, Any]:
    import numpy as np

    from stages.combiners.combiner import find
    from stages.combiners.uncertainty_gate import uncertainty

    members = texts[0][0].shape[1]
    unsure: list[float] = []
    gains: list[float] = []
    for rows, data, start in texts:
        inner, _ = losses_of(find("fixed-share", {}, members), rows, data)
        own = rows[np.arange(len(data)), 0, list(data)]
        unsure += [uncertainty(row) for row in rows[start:, 0]]
        gains += (inner - own)[start:].tolist()
    below, above = interval(unsure, gains)
    return {"below": below, "above": above, "inner": "fixed-share", "settings": {}}


def interval(unsure: Sequence[float], gains: Sequence[float]) -> tuple[float, float]:
    """(below, above): between them the sum of gains is the largest there is, so no other thresholds have less loss on these bytes.

    The inner combiner learns from every byte, open or shut, so a byte's gain does not depend on the thresholds. Edges lie half way to the
    next byte outside, rounded to six digits where that moves nobody; where nothing is gained the gate stays shut.
    """
    values = sorted(set(unsure))
    totals = {value: 0.0 for value in values}
    for value, gain in zip(unsure, gains, strict=True):
        totals[value] += gain
    best, choice, total, begin = 0.0, None, 0.0, 0
    for place, value in enumerate(values):
        if total <= 0:
            total, begin = 0.0, place
        total += totals[value]
        if total > best + 1e-12:
            best, choice = total, (begin, place)
    if choice is None:
        return 1.0, 1.0
    first, last = choice
    below = 0.0 if first == 0 else _between(values[first - 1], values[first])
    above = 1.0 if last == len(values) - 1 else _between(values[last], values[last + 1])
    return below, above


def _between(low: float, high: float) -> float:
    middle = (low + high) / 2
    rounded = round(middle, 6)
    return rounded if low < rounded < high else middle


_SETTINGS = {"geometric": _weights, "uncertainty-gate": _thresholds}


# --- who takes it ------------------------------------------------------------------------------------------------------------------


def fitted(data: bytes, members: Mapping[str, Digest]) -> tuple[str, Mapping[str, Any]]:
    """(combiner, settings) of a fit, for an ensemble of exactly these members, in this order.

    Raises:
        InputError: it is no fit, or one of other members.
    """
    try:
        value = canonical.loads(data)
        if not isinstance(value, dict) or value.get("kind") != STAGE.name:
            raise InputError("the input fit is no fit: it comes from a many-worlds-fit stage")
        names, models = list(value["members"]), dict(value["models"])
        combiner, settings = str(value["combiner"]), dict(value["settings"])
    except (CanonicalError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"the input fit cannot be read: {error!r}") from error
    given = {name: str(digest) for name, digest in members.items()}
    if names != list(members) or models != given:
        raise InputError(
            f"the fit is of {', '.join(names)}, the ensemble of {', '.join(members)}, or of other models of these names: weights are "
            "those of the members that they were fitted with, in their order"
        )
    return combiner, settings

"""Hold a fitting set against what is measured: a question that weights were fitted on says nothing about what they are worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stages import questions
from stages.errors import InputError
from stages.fit_texts import asked_of, parse
from stages.stage import Context, Leaf, Outcome
from store import canonical
from store.digest import Digest

_LONG = 24
"""Characters from which a question counts as known again inside of a longer text, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitApart:
    """Nothing to choose."""


STAGE = Leaf(
    name="fit-apart",
    version=1,
    spec=FitApart,
    inputs=("texts", "measured-*"),
    outputs=("apart",),
    purity="P",
    run="stages.fit_apart:run",
)


def run(spec: FitApart, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Refuse what is in both. What comes out is always the same, so that a fit does not depend on what it is measured on.

    Raises:
        InputError: a question that is measured is asked, or stands, in a fitting text.
    """
    fitted = {_plain(item.asked): item.id for item in parse(context.store.read(inputs["texts"]))}
    whole = "\n".join(_plain(item.prompt + item.text) for item in parse(context.store.read(inputs["texts"])))
    shared: list[tuple[str, str]] = []
    for name in sorted(name for name in inputs if name.startswith("measured-")):
        for number, row in questions.rows(context.store.read(inputs[name])):
            asked = _plain(asked_of(row))
            if asked and (asked in fitted or (len(asked) >= _LONG and asked in whole)):
                shared.append((str(row.get("id", row.get("task_id", number))), asked))
    if shared:
        first, asked = shared[0]
        raise InputError(
            f"{len(shared)} questions that are measured are in the fitting set, the first is {first} ({asked[:60]!r}): weights fitted on "
            "them say nothing about what they are worth on others. Take other questions for one of the two"
        )
    return Outcome({"apart": context.store.put(canonical.dumps({"kind": STAGE.name, "shared": []}))})


def _plain(text: str) -> str:
    """A text without the differences that layout makes."""
    return " ".join(text.split())

"""What was asked for: a stage, its version, its spec and its inputs; all of it content.

The key of an action is the SHA-256 of its canonical JSON. Everything that this project skips, shares or traces is found by it.
Floating-point numbers do not occur: a spec writes them as decimal text, so no two programs can disagree about their form.

>>> Action("expert-prune", 1, {"keep": 6}, {"model": Digest.of(b"m")}).key.short
'sha256:f9cc28a7bae8'
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from store import canonical
from store.digest import Digest
from store.errors import CanonicalError


@dataclass(frozen=True)
class Action:
    """One thing to compute, named by content.

    Attributes:
        stage: the registered name of a leaf stage, kebab-case.
        version: raised whenever the stage's bytes change for the same spec and inputs.
        spec: JSON object without floats; complete, defaults written out.
        inputs: input name -> digest.
    """

    stage: str
    version: int
    spec: Mapping[str, Any]
    inputs: Mapping[str, Digest] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The JSON object whose canonical bytes are hashed."""
        return {
            "inputs": {name: str(self.inputs[name]) for name in sorted(self.inputs)},
            "spec": dict(self.spec),
            "stage": self.stage,
            "version": self.version,
        }

    @classmethod
    def from_json(cls, value: Any) -> Action:
        """Read back what `to_json` gave.

        Raises:
            CanonicalError: a field is missing, of the wrong kind, or unknown.
        """
        if not isinstance(value, dict) or set(value) != {"inputs", "spec", "stage", "version"}:
            raise CanonicalError("an action has exactly the fields inputs, spec, stage, version")
        if not (isinstance(value["stage"], str) and type(value["version"]) is int):
            raise CanonicalError("an action's stage is text and its version an integer")
        if not (isinstance(value["spec"], dict) and isinstance(value["inputs"], dict)):
            raise CanonicalError("an action's spec and inputs are objects")
        inputs = {name: Digest.parse(text) for name, text in value["inputs"].items()}
        return cls(value["stage"], value["version"], value["spec"], inputs)

    @cached_property
    def key(self) -> Digest:
        """SHA-256 of the canonical JSON.

        Raises:
            CanonicalError: the spec holds a float or something else that is not plain JSON.
        """
        _refuse_floats(self.spec, "spec")
        return Digest.of(canonical.dumps(self.to_json()))


def _refuse_floats(value: Any, where: str) -> None:
    if isinstance(value, float):
        raise CanonicalError(f"{where} is the float {value!r}; write it as decimal text")
    if isinstance(value, Mapping):
        for key, item in value.items():
            _refuse_floats(item, f"{where}.{key}")
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            _refuse_floats(item, f"{where}[{number}]")

from typing import Any

import pytest

from store.actions import Action
from store.digest import Digest
from store.errors import CanonicalError, DigestError

ACTION = Action("expert-prune", 2, {"keep": 6, "ties": ["low", None]}, {"model": Digest.of(b"m"), "profile": Digest.of(b"p")})


def test_an_action_reads_back() -> None:
    """`from_json` undoes `to_json`, and the key stays."""
    assert Action.from_json(ACTION.to_json()) == ACTION
    assert Action.from_json(ACTION.to_json()).key == ACTION.key


def test_every_field_counts() -> None:
    """Another stage, version, spec, input name or input gives another key; the order of inputs does not."""
    others = [
        Action("prune", 2, ACTION.spec, ACTION.inputs),
        Action("expert-prune", 3, ACTION.spec, ACTION.inputs),
        Action("expert-prune", 2, {**ACTION.spec, "keep": 5}, ACTION.inputs),
        Action("expert-prune", 2, ACTION.spec, {**ACTION.inputs, "model": Digest.of(b"n")}),
        Action("expert-prune", 2, ACTION.spec, {"model": Digest.of(b"m"), "profil": Digest.of(b"p")}),
    ]
    assert len({action.key for action in [ACTION, *others]}) == 6
    assert Action("expert-prune", 2, ACTION.spec, dict(sorted(ACTION.inputs.items(), reverse=True))).key == ACTION.key


@pytest.mark.parametrize("spec", [{"rate": 0.5}, {"a": {"b": [1, {"c": 2.0}]}}, {"a": (1.0,)}])
def test_floats_are_refused(spec: dict[str, Any]) -> None:
    """A float anywhere in the spec is refused, with the place where it stands."""
    with pytest.raises(CanonicalError, match=r"spec\.\w+"):
        _ = Action("x", 1, spec).key


@pytest.mark.parametrize(
    "change",
    [{"stage": 1}, {"version": "1"}, {"version": True}, {"spec": []}, {"inputs": []}, {"more": 1}],
)
def test_other_shapes_are_refused(change: dict[str, Any]) -> None:
    """A field of the wrong kind or an unknown field is refused."""
    with pytest.raises(CanonicalError):
        Action.from_json(ACTION.to_json() | change)


def test_inputs_are_digests() -> None:
    """An input that is no digest is refused."""
    with pytest.raises(DigestError):
        Action.from_json(ACTION.to_json() | {"inputs": {"model": "sha256:1"}})
    with pytest.raises(CanonicalError):
        Action.from_json("text")

from __future__ import annotations

from cli.why import ABSENT, compare, nearest
from store.actions import Action
from store.digest import Digest

MODEL, OTHER = Digest.of(b"model"), Digest.of(b"other")


def prune(keep: int, model: Digest = MODEL, **more: object) -> Action:
    return Action("expert-prune", 1, {"keep": keep, "strategy": "reap", **more}, {"model": model})


def changed(known: Action, asked: Action) -> dict[str, tuple[object, object]]:
    return {item.field: (item.before, item.now) for item in compare(known, asked) if not item.same}


def test_only_the_changed_field_differs() -> None:
    """Two actions that differ in one setting differ in that field alone, and the equal ones are listed as the same."""
    assert changed(prune(6), prune(5)) == {"spec.keep": (6, 5)}
    assert [item.field for item in compare(prune(6), prune(5))] == ["version", "spec.keep", "spec.strategy", "inputs.model"]


def test_nested_settings_are_compared_piece_by_piece() -> None:
    """A difference deep in a spec is named by its whole path; lists of plain values are one field."""
    before = prune(6, layers=[1, 2], budget={"0": {"keep": 6}}, parts=[{"a": 1}])
    now = prune(6, layers=[1, 3], budget={"0": {"keep": 5}}, parts=[{"a": 2}])
    assert changed(before, now) == {"spec.budget.0.keep": (6, 5), "spec.layers": ([1, 2], [1, 3]), "spec.parts[0].a": (1, 2)}


def test_a_field_that_one_lacks_is_absent() -> None:
    """A setting that only one of the two has is shown, and is not equal to null."""
    assert changed(prune(6), prune(6, note=None)) == {"spec.note": (ABSENT, None)}


def test_true_is_not_one() -> None:
    """Values of different JSON kinds differ even where Python calls them equal."""
    assert changed(prune(1), prune(True)) == {"spec.keep": (1, True)}


def test_the_nearest_differs_in_the_fewest_fields() -> None:
    """Of the known actions of the same stage the one with the fewest differences is chosen, the latest of equals."""
    known = [(prune(6, OTHER), 0), (prune(6), 1), (prune(7), 2), (Action("quant", 1, {"keep": 5}), 3), (prune(4, OTHER), 4)]
    found = nearest(prune(5), known)
    assert found is not None
    assert found[1] == 2


def test_itself_and_other_stages_are_no_neighbours() -> None:
    """The very same action and actions of other stages are passed over."""
    assert nearest(prune(5), [(prune(5), 0), (Action("quant", 1, {}), 1)]) is None

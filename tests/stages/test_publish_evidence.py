"""What is published of a run."""

from __future__ import annotations

import pytest

from stages.errors import InputError, SpecError
from stages.publish_evidence import Chosen, choose
from stages.publish_plan import outputs_of
from store.digest import Digest

A, B, C, D, E = (Digest.of(letter.encode()) for letter in "abcde")


def test_the_last_model_and_the_last_file_of_each_type_are_chosen() -> None:
    """What was only imported, and what an evaluation made of the base, is never published."""
    outputs = [
        ("import-model", "model", A), ("quant", "gguf-F16", B), ("expert-prune", "model", C),
        ("quant-2", "gguf-F16", D), ("eval", "base-gguf-F16", E), ("eval", "report", E),
    ]  # fmt: skip
    assert choose(outputs, None) == Chosen("", C, {"F16": D})


def test_a_recipe_that_only_quantises_has_no_folder() -> None:
    """Its GGUF files alone are published; the base's folder is not ours."""
    assert choose([("import-model", "model", A), ("quant", "gguf-F16", B)], None) == Chosen("", None, {"F16": B})


def test_a_repository_holds_one_variant() -> None:
    """Of a matrix one must be named; it gets its own files, and what is outside of the matrix."""
    outputs = [("import-model", "model", A), ("train", "model", E)]
    outputs += [(f"expert-prune[keep={keep}]", "model", digest) for keep, digest in ((6, B), (5, C))]
    outputs += [(f"quant[keep={keep}]", "gguf-F16", digest) for keep, digest in ((6, D), (5, E))]
    with pytest.raises(SpecError, match="keep=5, keep=6"):
        choose(outputs, None)
    with pytest.raises(SpecError, match="no variant 'keep=4'"):
        choose(outputs, "keep=4")
    assert choose(outputs, "keep=6") == Chosen("keep=6", B, {"F16": D})


def test_nothing_to_publish_is_said() -> None:
    """A run that made no model, and an alloy without results."""
    with pytest.raises(SpecError, match="nothing to publish"):
        choose([("import-model", "model", A), ("eval", "report", B)], None)
    without: list[dict[str, object]] = [{}, {"results": {}}, {"results": {"artifacts": []}}]
    for alloy in without:
        with pytest.raises(InputError, match="no results"):
            outputs_of(alloy)
    with pytest.raises(InputError, match="cannot be read"):
        outputs_of({"results": {"artifacts": [{"stage": "x"}]}})

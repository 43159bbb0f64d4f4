"""Recipes of somebody who wants this machine to stop, or to run something else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stages.errors import RecipeError
from stages.publish_checks import metric_like
from stages.recipe import load, parse

STAGES = "stages: [{type: quant}]\n"
BOMB = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
VARIANTS = "stages:\n" + f"  - {{type: quant, matrix: {{keep: {list(range(200))}}}}}\n" * 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB + "name: x\n" + STAGES, "more than 100,000 values"),
        ("name: x\nstages: &s [*s]\n", "nested without end"),
        ("name: x\ntags: &t {a: *t}\n" + STAGES, "nested without end"),
        ("name: x\nstages: " + "[" * 20_000 + "]" * 20_000, "not YAML"),
        (f"name: x\ncycles: {'9' * 10_000}\n" + STAGES, "not a value"),
        ('name: !!python/object/apply:os.system ["true"]\n' + STAGES, "name"),
        ("name: !!python/name:os.system x\n" + STAGES, "not YAML"),
        ("name: x\n" + VARIANTS, "make 8,000,000 variants"),
        ("name: ../../x\n" + STAGES, "must be letters"),
        ("name: x\nname: y\n" + STAGES, "given twice"),
    ],
)
def test_hostile_text_is_an_error_with_a_reason(text: str, message: str) -> None:
    """Aliases that multiply, circles, endless nesting and numbers, tags that name code: each is refused at once."""
    with pytest.raises(RecipeError, match=message):
        parse(text)


def test_recipe_that_is_no_small_file(tmp_path: Path) -> None:
    """A pipe is not waited for, and terabytes are not read."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RecipeError, match="not a regular file"):
        load(tmp_path / "pipe")
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", 10 * 2**40)
    with pytest.raises(RecipeError, match="at most 67,108,864 are read"):
        load(tmp_path / "large")
    with pytest.raises(RecipeError, match="cannot read the recipe"):
        load(tmp_path / "nothing")


@pytest.mark.parametrize(
    "text", ["reaches 99\u200b% of it", "reaches 99\uff05 of it", "accuracy of \u2079\u2079", "perplexity 4\u20602", "\uff19\uff19.5"]
)
def test_a_number_that_looks_like_none_to_a_program(text: str) -> None:
    """A card shows the author's words without invisible signs, so the number is read as it will be seen."""
    assert metric_like(text)

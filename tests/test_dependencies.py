"""pyproject.toml says what is allowed, constraints.txt what is taken; they must not drift apart."""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def test_every_dependency_is_pinned_within_its_bounds() -> None:
    """Each has one exact version, which pyproject.toml allows; torch alone has none, so that any build of it can be taken."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [Requirement(text) for text in sum(project["optional-dependencies"].values(), project["dependencies"])]
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins = dict(line.split("==") for line in lines)
    assert len(pins) == len(lines)
    assert not [version for version in pins.values() if "+" in version]
    wanted = {canonicalize_name(item.name): item.specifier for item in asked}
    assert set(wanted) - set(pins) == {"torch"}
    assert {name: pins[name] for name in wanted if name in pins and not wanted[name].contains(pins[name])} == {}

"""An ensemble from recipe to Hub: its members in the repository, its card, its audit, and that whoever downloads it can ask it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.avengers.modeling_avengers import AvengersModel
from stages.byte_lm.byte_lm import load
from stages.byte_lm.ensemble import Ensemble
from stages.combiners.combiner import find
from stages.errors import InputError
from tests.cli.conftest import Desk
from tests.hub import LoopbackHub
from tests.publications import written
from tests.tiny import make_model

CHOICES = [{"id": f"c{i}", "question": f"Pick {i}:", "choices": ["left", "right"], "answer": i % 2} for i in range(3)]
RECIPE = """name: worlds
version: 1.0.0
license: mit
stages:
  - {type: import-model, id: two, folder: acme/two}
  - {type: many-worlds-ensemble, targetModel: ONE, specialists: [two]}
  - {type: eval, compareToBase: false, benchmarks: [{name: multiple-choice, dataset: set.jsonl}]}
"""


def test_an_ensemble_is_published_and_audited(desk: Desk, hub: LoopbackHub, tmp_path: Path) -> None:
    """One repository with every member below `members/`; a member that came from the Hub is a base model."""
    small: dict[str, Any] = {"hidden": 32, "intermediate": 32, "layers": 1, "experts": 2, "max_position_embeddings": 128}
    folders = {name: make_model(tmp_path / name, vocab=size, seed=size, **small) for name, size in (("one", 300), ("two", 420))}
    hub.put("acme/two", {path.name: path.read_bytes() for path in folders["two"].iterdir()})
    (desk.folder / "set.jsonl").write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in CHOICES))
    (desk.folder / "worlds.yaml").write_text(RECIPE.replace("ONE", str(folders["one"])))
    desk.ok("run", "worlds.yaml", "--jobs", "1")
    desk.ok("publish", "worlds", "--to", "hf:acme/worlds")
    files = hub.files("acme/worlds")
    kept = {path for path in files if path.startswith("members/")}
    assert {path.split("/")[1] for path in kept} == {"one", "two"}
    assert files["members/two/model.safetensors"] == (folders["two"] / "model.safetensors").read_bytes()

    card = files["README.md"].decode()
    head = yaml.safe_load(card.split("---\n")[1])
    assert (head["base_model"], head["base_model_relation"]) == ("acme/two", "merge")
    assert f"acme/two at `{hub.head('acme/two')[:12]}`" in card
    alloy = json.loads(files["worlds.alloy.json"])
    (row,) = alloy["results"]["benchmarks"]
    accuracy, low, high = (100 * float(row["metrics"][name]) for name in ("accuracy", "low", "high"))
    assert f"| {accuracy:.1f} % [{low:.1f}, {high:.1f}] |" in card
    assert f"| {100 * float(row['shares']['one']):.1f} % | {100 * float(row['shares']['two']):.1f} % |" in card
    assert [stage["type"] for stage in alloy["stages"]] == ["import-model", "many-worlds-ensemble", "eval"]
    audit = desk.ok("verify", "hf:acme/worlds")
    assert "VERIFIED" in audit.out
    assert "load-check" in audit.out

    place = written(tmp_path / "downloaded", files)
    found = AvengersModel.from_pretrained(place)
    members = [load(folders[name]) for name in ("one", "two")]
    expected = Ensemble(members, find("fixed-share", {}, 2)).generate(b"Pick 1:", 6, [])
    assert found.generate_text("Pick 1:", max_new_tokens=6) == expected.decode(errors="replace")
    (place / "members" / "one" / "config.json").write_text("{}")
    with pytest.raises(InputError, match="member one: its files are"):
        AvengersModel.from_pretrained(place)

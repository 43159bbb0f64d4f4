"""Families: every tensor of every family's files has its place, config keys are rewritten, a stranger's family works."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from stages import families, plugins
from stages.errors import InputError
from stages.families import Family, Role
from stages.families.family import expert_count, groups, top_k, with_expert_count
from stages.tensors import read_config, read_headers
from store import tree
from store.memory import MemoryCas
from tests.tiny import make_model


@pytest.mark.parametrize("family", ["mixtral", "phimoe", "qwen3_moe", "olmoe", "granitemoe", "deepseek_v2", "deepseek_v3"])
def test_every_tensor_of_a_real_layout_has_its_place(tmp_path: Path, family: str) -> None:
    """The files that transformers writes pass the census, and the numbers of expert and router tensors are right."""
    store = MemoryCas()
    model = tree.load(store, tree.import_folder(store, make_model(tmp_path / "m", family=family, layers=3)))
    config = read_config(store, model)
    found = families.find(config)
    names = [item.name for header in read_headers(store, model).values() for item in header.tensors]
    found.census(names, config, 8)
    assert (expert_count(config), top_k(config), groups(config)) == (8, 2, 1)
    layers = 2 if "deepseek" in family else 3
    assert len(found.layers(config)) == layers
    roles = Counter(found.place(name, config).role for name in names)
    rows = {"granitemoe": 3, "deepseek_v3": 2}.get(family, 1)
    assert roles[Role.EXPERT] == (0 if family == "granitemoe" else layers * 8 * 3)
    assert roles[Role.ROWS] == layers * rows
    assert not [name for name in names if "shared" in name and found.place(name, config).role is not Role.VERBATIM]


def test_all_registered_families_are_data_of_their_own_name() -> None:
    """The name in the declaration is the registered one, and no two answer for one model type."""
    loaded = {name: plugins.load("families", name) for name in plugins.names("families")}
    assert all(isinstance(item, Family) for item in loaded.values())
    assert {name: item.name for name, item in loaded.items()} == {name: name for name in loaded}
    types = [kind for item in loaded.values() for kind in item.model_types]
    assert len(types) == len(set(types))


MINE = Family(
    name="mine",
    model_types=("mine",),
    layout="mlp-experts-unfused",
    experts=("layers.{layer}.moe.{expert}.{part}",),
    rows=("layers.{layer}.router",),
)


def test_a_quantised_experts_scales_go_with_it() -> None:
    """`{part}` is the whole rest of the name; renaming changes the number alone, even where the layer has the same one."""
    config = {"num_hidden_layers": 12, "num_experts": 12}
    place = MINE.place("layers.11.moe.11.up.weight_scale_inv", config)
    assert (place.role, place.layer, place.expert, place.part) == (Role.EXPERT, 11, 11, "up.weight_scale_inv")
    assert MINE.rename("layers.11.moe.11.up.weight_scale_inv", place, 3) == "layers.11.moe.3.up.weight_scale_inv"
    assert MINE.place("layers.01.moe.1.up", config).role is Role.VERBATIM
    assert MINE.place("layers.1.router.bias", config).role is Role.VERBATIM


def test_the_census_lists_all_faults() -> None:
    """Every missing router, missing part, and expert too many is in one message."""
    config = {"num_hidden_layers": 2, "num_experts": 2}
    names = ["layers.0.router", "layers.0.moe.0.up", "layers.0.moe.0.down", "layers.0.moe.1.up", "layers.0.moe.2.up", "layers.5.router"]
    with pytest.raises(InputError) as caught:
        MINE.census(names, config, 2)
    for words in (
        "layer 5 has experts, which config.json says it has not",
        "layer 0: expert 1 lacks down",
        "layer 0: has an expert 2, but config.json says 2 (0 to 1)",
        "layers.1.router is missing",
        "layer 1 has no expert at all",
    ):
        assert words in str(caught.value)


def test_counts_are_rewritten_wherever_they_stand() -> None:
    """Every integer key that counts routed experts, at the top and in text_config; order and all else stay."""
    config = {"b": 1, "num_experts": 8, "text_config": {"n_routed_experts": 8, "n_shared_experts": 1, "num_local_experts": None}, "a": 2}
    changed = with_expert_count(config, 6)
    assert list(changed) == list(config)
    assert changed == {
        "b": 1,
        "num_experts": 6,
        "text_config": {"n_routed_experts": 6, "n_shared_experts": 1, "num_local_experts": None},
        "a": 2,
    }
    assert config["num_experts"] == 8


def test_a_config_without_or_with_two_counts_is_refused() -> None:
    """No count, or two that differ, is said in words."""
    with pytest.raises(InputError, match="is it a mixture of experts"):
        expert_count({"model_type": "llama"})
    with pytest.raises(InputError, match="contradicts itself"):
        expert_count({"num_experts": 8, "num_local_experts": 6})

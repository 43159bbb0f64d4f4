"""Plug-ins: a stranger's package adds one of each kind, and our own stages work with its parts as with ours."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest

from stages import plugins
from stages.errors import PluginError
from stages.expert_prune import ExpertPrune
from stages.safetensors_file import header_bytes, place, read_header
from stages.saliency import METRICS, About, write
from store import tree
from store.digest import Digest
from store.memory import MemoryCas
from tests.direct import Direct

EXPERTS, LAYERS, HIDDEN = 4, (0, 1), 2


@pytest.mark.parametrize("kind", plugins.KINDS)
def test_the_example_plugin_adds_one_of_each_kind(kind: str) -> None:
    """Every kind has a part of its own, that is found by name and loads."""
    mine = [name for name in plugins.names(kind) if name.startswith("acme")]
    assert mine
    assert all(plugins.load(kind, name) is not None for name in mine)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    """A typo costs one line of reading; a kind that is none is said to be that."""
    with pytest.raises(PluginError, match="no strategy is called 'acme-frist'; did you mean 'acme-first'"):
        plugins.load("strategies", "acme-frist")
    with pytest.raises(PluginError, match="no kind of plug-in is called 'colours'"):
        plugins.names("colours")


def test_a_stranger_s_family_is_pruned_by_a_stranger_s_strategy(tmp_path: Path) -> None:
    """`expert-prune` drops and renames tensors by the family's templates, and keeps the experts that the strategy scores highest."""
    direct = Direct(MemoryCas(), tmp_path)
    model = tree.import_folder(direct.store, acme_model(tmp_path / "model"))
    inputs = {"model": model, "profile": profile(direct, model)}
    made = direct.run("expert-prune", ExpertPrune(keep_experts=3, strategy="acme-first"), inputs)
    tree.export(direct.store, made["model"], tmp_path / "pruned")
    before, after = arrays(tmp_path / "model"), arrays(tmp_path / "pruned")
    assert set(before) - set(after) == {f"acme.{layer}.specialists.3.{part}" for layer in LAYERS for part in ("in", "out")}
    assert not set(after) - set(before)
    for name, array in after.items():
        assert np.array_equal(array, before[name][:3] if name.endswith("switchboard") else before[name])
    config = json.loads((tmp_path / "pruned" / "config.json").read_text())
    assert config == {"model_type": "acme_moe", "num_hidden_layers": 2, "num_experts": 3, "num_experts_per_tok": 2}


def test_the_strategy_is_what_decides(tmp_path: Path) -> None:
    """By the count of tokens, the last three experts of this profile would stay."""
    direct = Direct(MemoryCas(), tmp_path)
    model = tree.import_folder(direct.store, acme_model(tmp_path / "model"))
    inputs = {"model": model, "profile": profile(direct, model)}
    made = direct.run("expert-prune", ExpertPrune(keep_experts=3, strategy="activation-count"), inputs)
    tree.export(direct.store, made["model"], tmp_path / "pruned")
    before, after = arrays(tmp_path / "model"), arrays(tmp_path / "pruned")
    assert np.array_equal(after["acme.1.switchboard"], before["acme.1.switchboard"][1:])
    assert np.array_equal(after["acme.0.specialists.0.in"], before["acme.0.specialists.1.in"])


def acme_model(folder: Path) -> Path:
    """A model of the example's family: a config and one file of random tensors, all of one shard."""
    folder.mkdir()
    config = {"model_type": "acme_moe", "num_hidden_layers": 2, "num_experts": EXPERTS, "num_experts_per_tok": 2}
    (folder / "config.json").write_text(json.dumps(config))
    tensors: list[tuple[str, str, tuple[int, ...]]] = [("acme.words", "F32", (5, HIDDEN))]
    for layer in LAYERS:
        tensors.append((f"acme.{layer}.switchboard", "F32", (EXPERTS, HIDDEN)))
        for expert in range(EXPERTS):
            tensors += [(f"acme.{layer}.specialists.{expert}.{part}", "F32", (3, HIDDEN)) for part in ("in", "out")]
    layout = place(tensors)
    numbers = np.random.default_rng(1).standard_normal(layout[-1].stop // 4).astype("<f4")
    (folder / "model.safetensors").write_bytes(header_bytes(layout, {"format": "pt"}) + numbers.tobytes())
    return folder


def profile(direct: Direct, model: Digest) -> Digest:
    """A profile by hand, in which an expert with a higher number did more of everything."""
    about = About(
        model=str(model), dtype="float32", max_length=8, layers=LAYERS, experts=EXPERTS, top_k=2, hidden=HIDDEN, domains=("all",), blocks=1
    )
    sums = {metric: np.broadcast_to(np.arange(1.0, EXPERTS + 1), about.shapes[metric]) for metric in METRICS}
    with direct.store.writer() as writer:
        write(about, (np.ones((1, 1)), np.full((1, 1), 10.0)), sums, iter([np.zeros(about.shapes["output"])]), writer)
        return writer.finish()


def arrays(folder: Path) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    """Every tensor of a folder with one weight file."""
    data = (folder / "model.safetensors").read_bytes()
    header = read_header(io.BytesIO(data), "model.safetensors", len(data))
    held = data[header.data_start :]
    return {item.name: np.frombuffer(held[item.start : item.stop], dtype="<f4").reshape(item.shape) for item in header.tensors}

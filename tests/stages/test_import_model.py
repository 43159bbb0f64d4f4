"""Importing: what a model folder must be, and what each thing that it must not be is called."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.errors import InputError
from stages.import_model import ImportModel, first_not_finite
from stages.tensors import INDEX
from store import tree
from store.local import LocalCas
from tests.direct import Direct
from tests.tiny import change_tensor, make_model


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_model(tmp_path_factory.mktemp("sharded") / "m", max_shard_size="300KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("single") / "m")


@pytest.fixture
def direct(tmp_path: Path) -> Direct:
    return Direct(LocalCas(tmp_path / "store"), tmp_path)


def run(direct: Direct, folder: Path, **spec: Any) -> tree.Tree:
    made = direct.run("import-model", ImportModel(source="here", **spec), {"folder": tree.import_folder(direct.store, folder)})
    return tree.load(direct.store, made["model"])


def copy(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to))


def test_a_good_folder_is_its_own_tree(direct: Direct, sharded: Path) -> None:
    """Nothing is changed or copied: the output is the tree of the folder, when every file belongs to the model."""
    assert run(direct, sharded).digest == tree.hash_folder(sharded).digest
    assert direct.context.notes["dropped"] == []
    assert direct.context.notes["weights_bytes"] > 1_000_000


def test_files_of_no_use_are_left_behind_and_noted(direct: Direct, single: Path, tmp_path: Path) -> None:
    """A README, pictures, GGUF files and weights in sub-folders do not come along; a licence does."""
    folder = copy(single, tmp_path / "m")
    for name in ("README.md", "picture.png", "model.Q4_K_M.gguf", "LICENSE", "original/consolidated.safetensors"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    model = run(direct, folder)
    assert "LICENSE" in [item.path for item in model.entries]
    assert direct.context.notes["dropped"] == ["README.md", "model.Q4_K_M.gguf", "original/consolidated.safetensors", "picture.png"]


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "optimizer.pt", "last.ckpt", "sub/Data.PKL"])
def test_pickles_are_refused(direct: Direct, single: Path, tmp_path: Path, name: str) -> None:
    """A file that runs code when opened is refused by name, wherever it is."""
    folder = copy(single, tmp_path / "m")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"\x80\x04.")
    with pytest.raises(InputError, match=rf"{name}: pickles run code"):
        run(direct, folder)


def test_code_needs_a_word(direct: Direct, single: Path, tmp_path: Path) -> None:
    """Python files are refused, unless the recipe allows code; then they come along."""
    folder = copy(single, tmp_path / "m")
    (folder / "modeling_mine.py").write_text("import os\n")
    with pytest.raises(InputError, match=r"modeling_mine\.py: the model brings its own Python code.*allowCode"):
        run(direct, folder)
    assert "modeling_mine.py" in [item.path for item in run(direct, folder, allow_code=True).entries]


def without(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def cut(folder: Path) -> None:
    file = shards(folder)[0]
    file.write_bytes(file.read_bytes()[:-100])


def rewrite_index(change: Callable[[dict[str, str]], object]) -> Callable[[Path], None]:
    def fault(folder: Path) -> None:
        index = json.loads((folder / INDEX).read_text())
        change(index["weight_map"])
        (folder / INDEX).write_text(json.dumps(index))

    return fault


def extra_shard(folder: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"extra": np.zeros(1, np.float32)}, folder / "model-00009-of-00009.safetensors")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (without("config.json"), "the model has no config.json"),
        (without("tokenizer.json"), "the folder has no tokenizer"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json is not JSON that can be trusted"),
        (lambda folder: (folder / "config.json").write_text("[]"), "config.json is not a JSON object"),
        (lambda folder: (folder / "config.json").write_text("{}"), "names no model_type"),
        (cut, r"header says [\d,]+ bytes of data, file holds [\d,]+\. It is truncated: download it again"),
        (without(INDEX), "without model.safetensors.index.json: expected one model.safetensors"),
        (lambda folder: (folder / INDEX).write_text("{}"), "has no weight_map"),
        (lambda folder: shards(folder)[0].unlink(), r"file model-00001-of-\d+\.safetensors is named by the index and is not there"),
        (extra_shard, "file model-00009-of-00009.safetensors is there and the index does not name it"),
        (rewrite_index(lambda named: named.update(ghost=next(iter(named.values())))), "tensor ghost is said to be in .*; no file has it"),
        (rewrite_index(lambda named: named.popitem()), "is not in the index"),
        (
            rewrite_index(lambda named: named.update({"model.norm.weight": min(named.values())})),
            r"tensor model\.norm\.weight is said to be in model-00001.*; it is in model-0000",
        ),
        (lambda folder: [file.unlink() for file in folder.glob("*.safetensors")], r"no \*\.safetensors file"),
    ],
)
def test_a_folder_that_lies_is_refused(direct: Direct, sharded: Path, tmp_path: Path, fault: Callable[[Path], object], words: str) -> None:
    """Missing files, truncated shards, and an index that says other things than the shards, each with its message."""
    folder = copy(sharded, tmp_path / "m")
    fault(folder)
    with pytest.raises(InputError, match=words):
        run(direct, folder)


def test_nan_and_infinity_are_found_and_placed(direct: Direct, single: Path, tmp_path: Path) -> None:
    """The tensor and the element are named; without the check it is imported all the same."""
    folder = copy(single, tmp_path / "m")

    def poison(array: np.ndarray) -> np.ndarray:
        array = array.copy()
        array[3, 5] = np.inf
        return array

    change_tensor(folder, "lm_head.weight", poison)
    with pytest.raises(InputError, match=r"tensor lm_head\.weight holds NaN or infinity at element 197 of 32768"):
        run(direct, folder)
    run(direct, folder, check_finite=False)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_the_bit_test_agrees_with_torch(dtype: str) -> None:
    """For every type, the first element that is not finite is the one that torch says; every 8- and 16-bit pattern is tried."""
    import torch

    names = {
        "float16": "F16",
        "float32": "F32",
        "float64": "F64",
        "bfloat16": "BF16",
        "float8_e4m3fn": "F8_E4M3",
        "float8_e5m2": "F8_E5M2",
    }
    kind = getattr(torch, dtype)
    if kind.itemsize <= 2:
        values = torch.arange(256**kind.itemsize, dtype=torch.int32).to(torch.uint8 if kind.itemsize == 1 else torch.uint16).view(kind)
    else:
        values = torch.tensor([0.0, -1.0, 1e30, float("inf"), float("-inf"), float("nan"), torch.finfo(kind).max], dtype=kind)
    finite = torch.isfinite(values.float() if kind.itemsize < 4 else values).tolist()
    for start in range(0, len(finite), max(1, len(finite) // 300)):
        part = values[start:].contiguous().view(torch.uint8).numpy().tobytes()
        expected = next((number for number, item in enumerate(finite[start:]) if not item), None)
        assert first_not_finite(part, names[dtype]) == expected


def test_integers_are_always_finite() -> None:
    """Types without NaN are not looked at."""
    assert first_not_finite(b"\xff" * 8, "I64") is None

"""What loads is said to load, and what does not is refused with the reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages import load_check
from stages.errors import InputError, StageError
from stages.load_check import LoadCheck
from store import canonical, tree
from store.digest import Digest
from tests.stages.conftest import Ggufs


def check(ggufs: Ggufs, subject: Digest, **spec: Any) -> Any:
    """The report of a check."""
    return canonical.loads(ggufs.store.read(ggufs.direct.run("load-check", LoadCheck(**spec), {"subject": subject})["report"]))


def test_a_folder_is_loaded_and_reads_a_text(ggufs: Ggufs) -> None:
    """The report has the class, the parameters and how far the check went."""
    report = check(ggufs, ggufs.models["pruned"])
    assert (report["kind"], report["class"], report["how"]) == ("transformers", "MixtralForCausalLM", "forward")
    assert report["sizeBytes"] == (ggufs.folders["pruned"] / "model.safetensors").stat().st_size


def test_a_large_folder_is_counted(ggufs: Ggufs) -> None:
    """Above the limit no weight is read, and the parameters are the same."""
    counted = check(ggufs, ggufs.models["pruned"], forward_bytes=1)
    assert counted["how"] == "counted"
    assert counted["parameters"] == check(ggufs, ggufs.models["pruned"])["parameters"]


def test_a_gguf_is_loaded_by_llama_cpp(ggufs: Ggufs) -> None:
    """It predicts tokens; the report has the types that the tensors really have."""
    report = check(ggufs, ggufs.files["wide-Q4_K_M"])
    assert (report["kind"], report["how"], report["experts"]) == ("gguf", "tokens", 8)
    assert "Q4_K" in report["types"]
    assert "llama.cpp" in report["by"]


def config(**values: Any) -> Callable[[Path], None]:
    """Change fields of config.json."""

    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def remove(name: str) -> Callable[[Path], None]:
    """Remove a file."""
    return lambda folder: (folder / name).unlink()


def truncate(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-100])


def not_a_number(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = torch.full_like(tensors["model.norm.weight"], float("nan"))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def lying_index(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"lm_head.weight": "model-9.safetensors"}}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (config(num_hidden_layers=2), "no weights for"),
        (config(num_local_experts=4), "shape|forward|does not load"),
        (config(hidden_size=128), "does not load"),
        (config(model_type="nonsense"), "nonsense"),
        (remove("config.json"), "does not load"),
        (remove("tokenizer.json"), "tokenizer"),
        (remove("model.safetensors"), r"no \.safetensors file"),
        (truncate, "truncated"),
        (not_a_number, "NaN"),
        (lying_index, "index.json is wrong about"),
    ],
)
def test_a_folder_that_does_not_load_is_refused(ggufs: Ggufs, tmp_path: Path, change: Callable[[Path], None], words: str) -> None:
    """Each fault is an InputError with its reason; nothing is recorded."""
    folder = shutil.copytree(ggufs.folders["wide"], tmp_path / "model")
    change(folder)
    with pytest.raises(InputError, match=words):
        load_check.folder(folder, forward_bytes=2**32)


@pytest.mark.parametrize("change", [config(num_hidden_layers=2), config(hidden_size=128)])
def test_counting_finds_another_shape(ggufs: Ggufs, tmp_path: Path, change: Callable[[Path], None]) -> None:
    """A config of another size than the files is seen without loading."""
    folder = shutil.copytree(ggufs.folders["wide"], tmp_path / "model")
    change(folder)
    with pytest.raises(InputError, match="parameters, and its files hold"):
        load_check.folder(folder, forward_bytes=1)


@pytest.mark.parametrize("kept", [100, -40])
def test_a_truncated_gguf_is_refused(ggufs: Ggufs, tmp_path: Path, kept: int) -> None:
    """A file that ends too early is no model."""
    path = tmp_path / "x.gguf"
    path.write_bytes(ggufs.path("wide-Q4_K_M").read_bytes()[:kept])
    with pytest.raises(StageError):
        load_check.gguf(path, {}, {})


def test_no_code_of_a_model_is_run(ggufs: Ggufs, tmp_path: Path) -> None:
    """A folder that asks for its own Python is loaded without it, or not at all."""
    folder = shutil.copytree(ggufs.folders["wide"], tmp_path / "model")
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    config(auto_map={"AutoModelForCausalLM": "evil.Model", "AutoConfig": "evil.Config"})(folder)
    load_check.folder(folder, forward_bytes=2**32)
    config(model_type="evil")(folder)
    with pytest.raises(InputError):
        load_check.folder(folder, forward_bytes=2**32)
    assert not (tmp_path / "ran").exists()


def test_it_can_be_asked_without_a_ledger(ggufs: Ggufs, capsys: pytest.CaptureFixture[str]) -> None:
    """One JSON line for each path: a report, or the fault."""
    assert load_check.main([str(2**32), str(ggufs.folders["wide"]), str(ggufs.folders["wide"] / "config.json")]) == 0
    report, fault = map(json.loads, capsys.readouterr().out.splitlines())
    assert report["how"] == "forward"
    assert "GGUF" in fault["fault"]


def test_a_tree_is_told_from_a_file(ggufs: Ggufs) -> None:
    """The check of a model folder and that of a GGUF file are one stage: what the object is decides."""
    assert tree.is_tree(ggufs.store, ggufs.models["wide"])
    assert check(ggufs, ggufs.models["wide"])["kind"] == "transformers"

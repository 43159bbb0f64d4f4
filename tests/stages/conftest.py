"""GGUF files made once for all tests that need one: converting takes seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from store import tree
from store.digest import Digest
from store.local import LocalCas
from tests.direct import Direct
from tests.tiny import make_model


@dataclass
class Ggufs:
    """A store with a Mixtral of 8 experts (hidden 256), the same without experts 3 and 5, one of hidden 128, and their GGUF files.

    Attributes:
        folders, models: name -> model folder, model tree; `wide`, `pruned`, `narrow`.
        files: `wide-F32`, `wide-F16`, `wide-Q4_K_M`, `pruned-F32`, `narrow-F16` -> GGUF.
    """

    store: LocalCas
    direct: Direct
    folders: Mapping[str, Path]
    models: Mapping[str, Digest]
    files: Mapping[str, Digest]

    def path(self, name: str) -> Path:
        """A file of `files`."""
        return self.store.path(self.files[name])


@pytest.fixture(scope="session")
def ggufs(tmp_path_factory: pytest.TempPathFactory) -> Ggufs:
    """The files of `Ggufs`, converted and quantised by the stages themselves."""
    from stages.gguf_convert import GgufConvert
    from stages.gguf_quantize import GgufQuantize

    place = tmp_path_factory.mktemp("ggufs")
    folders = {
        "wide": make_model(place / "wide", hidden=256, intermediate=256, layers=1),
        "narrow": make_model(place / "narrow", hidden=128, intermediate=128, layers=1),
    }
    folders["pruned"] = without_experts(folders["wide"], place / "pruned", drop=(3, 5))
    store = LocalCas(place / "store")
    direct = Direct(store, place)
    models = {name: tree.import_folder(store, folder) for name, folder in folders.items()}
    single, half = GgufConvert(outtype="F32"), GgufConvert(outtype="F16")
    files = {
        f"{name}-{spec.outtype}": direct.run("gguf-convert", spec, {"model": models[name]})["gguf"]
        for name, spec in (("wide", single), ("wide", half), ("pruned", single), ("narrow", half))
    }
    files["wide-Q4_K_M"] = direct.run("gguf-quantize", GgufQuantize(type="Q4_K_M"), {"gguf-base": files["wide-F16"]})["gguf"]
    return Ggufs(store, direct, folders, models, files)


def without_experts(source: Path, target: Path, *, drop: tuple[int, ...]) -> Path:
    """Prune a Mixtral folder by hand: drop experts of every layer, renumber the rest, slice the routers."""
    import json
    import re
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(source, target)
    tensors = load_file(source / "model.safetensors")
    count = next(tensor.shape[0] for name, tensor in tensors.items() if name.endswith("gate.weight"))
    kept = [number for number in range(count) if number not in drop]
    pruned = {}
    for name, tensor in tensors.items():
        found = re.search(r"\.experts\.(\d+)\.", name)
        if name.endswith("gate.weight"):
            pruned[name] = tensor[kept].contiguous()
        elif found is None:
            pruned[name] = tensor
        elif int(found.group(1)) in kept:
            pruned[name.replace(found.group(), f".experts.{kept.index(int(found.group(1)))}.")] = tensor
    (target / "model.safetensors").unlink()
    save_file(pruned, target / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((source / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | {"num_local_experts": len(kept)}))
    return target

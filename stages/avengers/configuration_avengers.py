"""The configuration of an ensemble, for transformers: `config.json` as it is, and how it is to be loaded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from stages import ensemble_tree
from stages.byte_lm.vocabulary import END, SYMBOLS
from stages.ensemble_tree import CONFIG, EnsembleConfig
from stages.errors import SpecError
from store import canonical
from store.errors import CanonicalError

_KEYS = ("combiner", "format_version", "members", "skip_below", "tolerance")


class AvengersConfig(PreTrainedConfig):  # type: ignore[misc]
    """What `config.json` says (docs/ensemble.md), beside what transformers wants of any model.

    Attributes:
        combiner, members, skip_below, tolerance, format_version: as in `stages.ensemble_tree.EnsembleConfig`, in JSON's form.
        max_position_embeddings: bytes of a text that every member can read for sure; known when the model is loaded. Longer texts can be
            read as long as no member's tokens of it are too many.
        loading: `joint`, `sequential`, or None: sequential where `memory_bytes` are not enough for all members. Not stored: it is of the
            machine, and changes no result.
        memory_bytes: for the weights of all members that are in memory together.
    """

    model_type = ensemble_tree.MODEL_TYPE
    vocab_size: int = SYMBOLS
    eos_token_id: int = END
    pad_token_id: int = END
    max_position_embeddings: int | None = None
    combiner: dict[str, Any] | None = None
    members: list[dict[str, str]] | None = None
    skip_below: str = "0.0"
    tolerance: str = "0.0"
    format_version: int = ensemble_tree.FORMAT_VERSION
    loading: str | None = None
    memory_bytes: int | None = None

    def ensemble(self) -> EnsembleConfig:
        """The checked form.

        Raises:
            SpecError: it is of no ensemble (one that was made without a folder, say).
            InputError: something in it is not as an ensemble has it.
        """
        if not self.members or not self.combiner:
            raise SpecError("a configuration without members; an ensemble's is made by the stage many-worlds-ensemble (docs/ensemble.md)")
        fixed = {"architectures": ensemble_tree.ARCHITECTURES, "auto_map": ensemble_tree.AUTO_MAP, "model_type": self.model_type}
        try:
            data = canonical.dumps({**fixed, **{name: getattr(self, name) for name in _KEYS}})
        except CanonicalError as error:
            raise SpecError(f"a configuration that is no JSON: {error}") from error
        return EnsembleConfig.parse(data)

    def to_json_string(self, use_diff: bool = True) -> str:
        """The bytes of `config.json`, to the last one, for an ensemble; transformers' own form for what is none yet."""
        return self.ensemble().to_bytes().decode() if self.members else str(super().to_json_string(use_diff))

    def save_pretrained(self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **kwargs: Any) -> None:
        """Write `config.json` and the files for transformers, but no member; `AvengersModel.save_pretrained` writes everything."""
        if push_to_hub or kwargs:
            raise SpecError(
                f"a configuration alone is no model: save the model, then upload its folder ({', '.join(kwargs) or 'push_to_hub'})"
            )
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in {CONFIG: self.ensemble().to_bytes(), **ensemble_tree.shipped()}.items():
            (folder / name).write_bytes(data)

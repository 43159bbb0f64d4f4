"""What an alloy says about itself, as functions of what it says: its hashes, and the names of the files that were made.

Whoever writes an alloy uses them, and so does whoever checks it. Four hashes have four names (docs/formats/alloy.md); two are here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from store import canonical
from store.digest import Digest

WEIGHTS = (".safetensors", ".gguf")
"""File names that count as weights for `modelHash`."""

ASKED = ("name", "version", "source", "stages", "cycles", "search", "calibrationCorpora")
"""The fields of a recipe that decide the work."""


def recipe_hash(recipe: Mapping[str, Any], materials: Mapping[str, str]) -> Digest:
    """SHA-256 of the canonical JSON of what was asked for: the fields that decide the work, and the digests of what they name on disk.

    `recipe` may have other fields; they do not count. `materials` maps a path, as the recipe writes it, to a digest.

    Raises:
        CanonicalError: a value that has no canonical JSON.
    """
    asked = {key: plain(recipe[key]) for key in ASKED if key in recipe}
    return Digest.of(canonical.dumps({**asked, "materials": dict(sorted(materials.items()))}))


def plain(value: Any) -> Any:
    """JSON without floats, as whatever is signed or hashed demands: a number with a fraction becomes its shortest decimal text."""
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def model_hash(files: Sequence[tuple[str, Digest]]) -> Digest:
    """SHA-256 of the canonical list of weight files: `{"filename", "sha256"}` sorted by name, compact JSON; sizes do not count.

    Source: the published convention of forge-alloy; its two published vectors are in the tests.

    Raises:
        ValueError: there is no weight file to hash.
    """
    if not files:
        raise ValueError("no weight files: a modelHash over nothing would say nothing")
    listing = [{"filename": name, "sha256": digest.hex} for name, digest in sorted(files)]
    return Digest.of(json.dumps(listing, separators=(",", ":"), sort_keys=True).encode())


def deliverables(recipe: str, outputs: Iterable[tuple[str, str, Digest]]) -> dict[str, Digest]:
    """What a run made that others load: file or folder name -> digest. The last model of each variant, and every GGUF.

    `outputs` are (stage, output name, digest) in the order of the run; a stage of a matrix ends with its variant in brackets.

    >>> one, two = Digest.of(b"1"), Digest.of(b"2")
    >>> list(deliverables("tiny", [("prune[keep=6]", "model", one), ("quant", "gguf-F16", one), ("quant-2", "gguf-F16", two)]))
    ['model-keep=6', 'tiny-F16-6b86b273ff34.gguf', 'tiny-F16.gguf']
    """
    models: dict[str, Digest] = {}
    ggufs: dict[tuple[str, Digest], None] = {}
    for stage, output, digest in outputs:
        variant = stage.partition("[")[2].removesuffix("]")
        if output == "model" and not stage.startswith("import-model"):
            models[f"model-{variant}" if variant else "model"] = digest
        elif output.startswith("gguf-"):
            ggufs["-".join(filter(None, (recipe, variant, output.removeprefix("gguf-")))), digest] = None
    found: dict[str, Digest] = {}
    for name, digest, ending in [*((name, digest, "") for name, digest in models.items()), *((*gguf, ".gguf") for gguf in reversed(ggufs))]:
        called = file_name(name)
        if found.get(called + ending, digest) != digest:
            called += f"-{digest.hex[:12]}"  # of two things that would have one name, the later one gets it
        found[called + ending] = digest
    return dict(sorted(found.items()))


def file_name(text: str) -> str:
    """A name of one file, from text that a recipe or a foreign ledger chose: nothing that is a path stays one.

    >>> file_name("tiny-Q4_K_M.gguf"), file_name("model-corpus=a/b.txt"), file_name("../../.bashrc"), file_name("model-../x")
    ('tiny-Q4_K_M.gguf', 'model-corpus=a_b.txt', '_.._.bashrc', 'model-.._x')
    """
    return re.sub(r"[^\w.=+,@-]", "_", text).lstrip(".") or "_"

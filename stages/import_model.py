"""Take a folder's model after checking that it is what it claims to be: headers, index, config, numbers; no pickle, no code.

Nothing is copied: the output is a tree of the same objects without the files that no later stage reads. A model on the Hub is fetched by
`hub-model` first, at a commit, and checked here like any folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from math import prod
from typing import TYPE_CHECKING, Any

from ledger import locator
from ledger.hub import is_commit
from ledger.locator import HubSource
from stages.errors import InputError, RecipeError
from stages.safetensors_file import BITS
from stages.stage import Context, Leaf, Node, Outcome, Ref
from store.digest import Digest

if TYPE_CHECKING:
    from stages.safetensors_file import Header
    from store.cas import Cas

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.joblib")
CODE = ("*.py",)
MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "model.safetensors.index.json",
    "LICENSE*",
    "NOTICE*",
    "USE_POLICY*",
)
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "*.tiktoken",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/*",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
)
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "*.tiktoken")
"""One of these makes a tokenizer."""

_NOT_FINITE = {
    "F64": ("<u8", 0x7FF0_0000_0000_0000),
    "F32": ("<u4", 0x7F80_0000),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
    "F8_E5M2": ("u1", 0x7C),
    "F8_E4M3": ("u1", 0x7F),
}
"""dtype -> unsigned type of the same width, bits that are all set in every NaN and infinity and in nothing else."""

_CHUNK_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportModel:
    """What is imported, and what is allowed in it."""

    source: str = ""
    """Where the folder came from, in the words of the recipe (a Hub id, a path): part of what is stated, not read."""
    revision: str | None = None
    """The commit of a Hub id."""
    allow_code: bool = False
    """Keep Python files; without it a folder that has them is refused."""
    check_finite: bool = True
    """Read every floating-point weight and refuse NaN and infinity."""


def lower(call: Any) -> Any:
    """The recipe form: a folder, or a model of the Hub at a commit (`hf:org/name@COMMIT`, which `stages.hub_pins` makes of other forms).

    Raises:
        RecipeError: an unknown key, a folder that is not there, a model of the Hub without a commit.
    """
    from stages import lowering
    from stages.hub_model import HubModel

    folder = call.entry.fields.get("folder")
    if not isinstance(folder, str) or not locator.is_locator(folder):
        return lowering.one_node(call, STAGE)
    source = locator.parse(folder).source
    if not isinstance(source, HubSource) or source.revision is None or not is_commit(source.revision):
        raise RecipeError(f"{call.entry.where('folder')}{folder!r} names no commit of a model of the Hub")
    spec, _ = lowering.bind(call.entry, STAGE)
    spec = replace(spec, source=source.repo, revision=source.revision)
    hub = Node(f"{call.id}/hub", "hub-model", HubModel(repo=source.repo, commit=source.revision, allow_code=spec.allow_code))
    node = Node(call.id, STAGE.name, spec, {"folder": Ref(hub.id, "folder")})
    return lowering.Lowered((hub, node), {"model": Ref(node.id, "model")})


STAGE = Leaf(
    name="import-model",
    version=1,
    spec=ImportModel,
    inputs=("folder",),
    outputs=("model",),
    purity="P",
    run="stages.import_model:run",
    lower=lower,
)


def sort_files(paths: list[str], *, allow_code: bool) -> tuple[list[str], list[str]]:
    """Which files of a folder belong to the model, and which are left behind.

    Args:
        paths: POSIX paths in the folder.
        allow_code: keep Python files.

    Raises:
        InputError: a pickle, or code that is not allowed.

    >>> sort_files(["README.md", "config.json", "model.safetensors"], allow_code=False)
    (['config.json', 'model.safetensors'], ['README.md'])
    """
    pickles = [path for path in paths if matches(path.rpartition("/")[2].lower(), PICKLES)]
    if pickles:
        raise InputError(
            f"{', '.join(pickles[:5])}{' ...' if len(pickles) > 5 else ''}: pickles run code when they are opened, and are refused. "
            "Weights are read from safetensors alone: delete the file, or take the model's safetensors version"
        )
    code = [path for path in paths if matches(path, CODE)]
    if code and not allow_code:
        raise InputError(
            f"{', '.join(code[:5])}{' ...' if len(code) > 5 else ''}: the model brings its own Python code. "
            "Delete the files if transformers knows the architecture; or read them, then set allowCode: true"
        )
    wanted = (*MODEL_FILES, *TOKENIZER_FILES, *(CODE if allow_code else ()))
    kept = [path for path in paths if matches(path, wanted)]
    return kept, [path for path in paths if path not in kept]


def matches(path: str, patterns: tuple[str, ...]) -> bool:
    """Whether a path fits one of some patterns; a pattern without a slash is of the top folder alone."""
    return any(fnmatchcase(path, pattern) and path.count("/") == pattern.count("/") for pattern in patterns)


def first_not_finite(chunk: bytes, dtype: str) -> int | None:
    """Index of the first element that is NaN or infinite, or None; types without such values have none.

    >>> import struct
    >>> first_not_finite(struct.pack("<3f", 1.0, float("nan"), float("inf")), "F32")
    1
    """
    import numpy as np

    if dtype not in _NOT_FINITE:
        return None
    form, mask = _NOT_FINITE[dtype]
    bits = np.frombuffer(chunk, dtype=form)
    bad = (bits & bits.dtype.type(mask)) == mask
    return int(bad.argmax()) if bad.any() else None


def _check_numbers(store: Cas, digest: Digest, name: str, header: Header, context: Context, done: int, total: int) -> int:
    with store.open(digest) as file:
        for item in header.tensors:
            if item.dtype in _NOT_FINITE:
                file.seek(header.data_start + item.start)
                left, index = item.size_bytes, 0
                while left:
                    chunk = file.read(min(_CHUNK_BYTES, left))
                    if not chunk:
                        raise InputError(f"shard {name}: ends inside tensor {item.name}; it is truncated: download it again")
                    found = first_not_finite(chunk, item.dtype)
                    if found is not None:
                        raise InputError(
                            f"shard {name}: tensor {item.name} holds NaN or infinity at element {index + found} of {prod(item.shape)}. "
                            "The weights are damaged: download them again (checkFinite: false imports them all the same)"
                        )
                    left -= len(chunk)
                    index += len(chunk) * 8 // BITS[item.dtype]
            done += item.size_bytes
            context.progress(done, total, "bytes")
    return done


def run(spec: ImportModel, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Check a folder's model and keep its files."""
    from stages.tensors import INDEX, check_index, read_config, read_shard_header, weight_files
    from store import tree
    from store.tree import Tree

    store = context.store
    folder = tree.load(store, inputs["folder"])
    kept, dropped = sort_files([item.path for item in folder.entries], allow_code=spec.allow_code)
    model = Tree.of(item for item in folder.entries if item.path in kept)
    config = read_config(store, model)
    if not isinstance(config.get("model_type"), str):
        raise InputError("config.json names no model_type: it is not the config of a transformers model")
    if config.get("auto_map") and not any(matches(path, CODE) for path in kept):
        context.warn(
            f"config.json names Python code of the model's own (auto_map), which is left behind; if transformers does not know "
            f"{config['model_type']!r:.100} itself, read that code, then set allowCode: true"
        )
    if not any(matches(path, TOKENIZERS) for path in kept):
        raise InputError(f"the folder has no tokenizer (one of {', '.join(TOKENIZERS)}): copy the tokenizer's files into it")
    files = weight_files(model)
    headers = {item.path: read_shard_header(store, item.digest, item.path) for item in files}
    index = next((item for item in model.entries if item.path == INDEX), None)
    check_index(headers, None if index is None else store.read(index.digest))
    total = sum(header.size_bytes - header.data_start for header in headers.values())
    if spec.check_finite:
        done = 0
        for item in files:
            done = _check_numbers(store, item.digest, item.path, headers[item.path], context, done, total)
    context.note("files", len(kept))
    context.note("dropped", dropped)
    context.note("tensors", sum(len(header.tensors) for header in headers.values()))
    context.note("weights_bytes", total)
    context.note("numbers_checked", spec.check_finite)
    return Outcome({"model": store.put(model.to_bytes())})

"""What lies somewhere, in a folder or in a repository of the Hub, as its files' paths, sizes and digests; and which files are a risk.

Whoever judges an inventory (`ledger.claims`, `ledger.judge`) does not care where it came from, so a hashed folder and a Hub's listing are
judged by the same code. A Hub lists only a git id of small files: those whose bytes nobody knows by it are `unread`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from store.tree import TreeEntry

ALLOY, ATTESTATIONS, PROOF, SIGNATURE = ".alloy.json", ".attestations.jsonl", ".tlog-proof", "model.sig"

WEIGHTS = (
    ".safetensors", ".gguf", ".ggml", ".bin", ".pt", ".pt2", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz", ".onnx",
    ".h5", ".keras", ".msgpack", ".llamafile", ".nemo", ".tflite", ".dduf", ".ot", ".pte", ".mlmodel", ".engine", ".plan", ".trt", ".exl2",
    ".exl3", ".mnn", ".rknn",
)  # fmt: skip
"""Files that are, or can be taken for, a model's weights: in a published folder each must be named by somebody trusted."""

CODE = ".py"
"""Files that some loaders run: likewise, in a folder that holds weights."""

DOCUMENTS = (
    ".md", ".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".pdf", ".gitattributes", ".gitignore", "license", "notice", ".sig",
    ".tlog-proof", ".chunks",
)  # fmt: skip
"""What no loader reads. All else beside weights other than GGUF can change what is loaded: a configuration, a template, an adapter."""

BESIDE_GGUF = ("preset.ini", "template", "system", "params", "modelfile")
"""What is taken from a repository of GGUF files: llama.cpp's `-hf` reads preset.ini *in place of* them, ollama the others."""

LOOKED_INTO = ("additional_chat_templates", "custom_generate")
"""Folders beside weights from which transformers takes chat templates, and with `trust_remote_code` the code that generates."""


@dataclass(frozen=True, slots=True)
class Unread:
    """A file whose bytes nobody here knows.

    Attributes:
        path: as in a tree. size: in bytes.
        oid: git's id of it, 40 hex digits.
    """

    path: str
    size: int
    oid: str


@dataclass(frozen=True, slots=True)
class Inventory:
    """Files of one place.

    Attributes:
        files: those whose digest is known, sorted by path. unread: the others.
        whole: nothing else lies there, so a folder can be known by its digest alone.
        complete: it is the publication itself and no copy of a part, so a file that is not here is missing.
        by_git: paths among `files` of which only git's id, a SHA-1, was compared.
        how: behind hashes in messages: who says so; "" when they were computed here and now.
    """

    files: Sequence[TreeEntry]
    unread: Sequence[Unread] = ()
    whole: bool = True
    complete: bool = False
    by_git: frozenset[str] = frozenset()
    how: str = ""


def folders(present: Sequence[TreeEntry]) -> list[tuple[str, dict[str, TreeEntry]]]:
    """Each folder below, outermost first: its path with a slash at the end ("" for the top), and what is in it, by path from there."""
    found: dict[str, dict[str, TreeEntry]] = {"": {}}
    for file in present:
        parts = file.path.split("/")
        for depth in range(len(parts)):
            where = "".join(f"{part}/" for part in parts[:depth])
            inner = "/".join(parts[depth:])
            found.setdefault(where, {})[inner] = TreeEntry(inner, file.digest, file.size)
    return sorted(found.items())


def risky(paths: Sequence[str], all_paths: Sequence[str]) -> list[str]:
    """Those of some paths from which a model may be loaded, or which change how one is, given everything that lies there."""
    weighty = {parent(path) for path in all_paths if ends(path, WEIGHTS)}
    loaded = {parent(path) for path in all_paths if ends(path, WEIGHTS) and not ends(path, (".gguf",))}
    return [path for path in paths if ends(path, WEIGHTS) or changes(path, weighty, loaded)]


def changes(path: str, weighty: set[str], loaded: set[str]) -> bool:
    """Whether a file changes what is loaded from its folder, of those that hold weights, and those that hold others than GGUF files."""
    folder, name = parent(path), base(path).casefold()
    above = parent(folder) if base(folder) in LOOKED_INTO else folder
    if name.endswith(CODE) and above in weighty:
        return True
    if name in BESIDE_GGUF and any(not folder or where == folder or where.startswith(f"{folder}/") for where in weighty):
        return True
    document = name.endswith(DOCUMENTS) or name.startswith(("license", "notice", "use_policy"))
    return above in loaded and not (document and not name.endswith(".jinja"))


def ends(path: str, endings: tuple[str, ...]) -> bool:
    """Whether a path ends so, whatever its case."""
    return path.casefold().endswith(endings)


def base(path: str) -> str:
    """The last part of a path."""
    return path.rpartition("/")[2]


def parent(path: str) -> str:
    """All but the last part of a path; "" at the top."""
    return path.rpartition("/")[0]


def some(names: Sequence[str], count: int = 6) -> str:
    """The first few of some names, for messages."""
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")

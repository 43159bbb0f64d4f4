"""The files of a model in a Hub repository, as a folder: list the commit, choose, fetch each file, put them together.

Only what a model needs is fetched: configuration, tokenizer, licence, and the safetensors weights. Pickles are never fetched; a repository
that has its weights in nothing else is refused before anything is downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from stages import hub_folder, hub_listing
from stages.errors import InputError
from stages.hub_file import FetchedFile
from stages.hub_folder import HubFolder
from stages.hub_listing import HubListing
from stages.import_model import CODE, MODEL_FILES, PICKLES, TOKENIZER_FILES, TOKENIZERS, matches
from stages.stage import Composite, Graph, Input, Node, Ref
from stages.tensors import INDEX, SINGLE
from store.cas import Cas
from store.digest import Digest

_SHARDS = "model-*.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class HubModel:
    """Which model."""

    repo: str
    commit: str
    allow_code: bool = False
    """Fetch Python files too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFiles:
    """Which files of a listing."""

    allow_code: bool = False


def choose(repo: str, paths: list[str], *, allow_code: bool) -> tuple[str, ...]:
    """The paths of a repository that its model needs.

    Raises:
        InputError: it has no safetensors weights, no config.json or no tokenizer.

    >>> choose("a/b", ["README.md", "config.json", "model.safetensors", "pytorch_model.bin", "tokenizer.json"], allow_code=False)
    ('config.json', 'model.safetensors', 'tokenizer.json')
    """
    top = [path for path in paths if fnmatchcase(path, "*.safetensors") and "/" not in path]
    if not top:
        pickles = [path for path in paths if matches(path.rpartition("/")[2].lower(), PICKLES)]
        others = [path for path in paths if path.endswith((".gguf", ".safetensors"))]
        has = (
            f"its weights only as pickles ({', '.join(pickles[:3])}), which run code when they are opened"
            if pickles
            else f"no weights that can be read ({', '.join(others[:3]) or 'none at all'})"
        )
        raise InputError(
            f"{repo} has {has}. Weights are read from *.safetensors at the top of the repository: take a repository or a revision that has "
            "them (many have a converted one as refs/pr/N). Nothing was downloaded"
        )
    # Beside the weights that transformers reads, some repositories keep the same ones under other names.
    named = [path for path in top if fnmatchcase(path, _SHARDS)] if INDEX in paths else [path for path in top if path == SINGLE]
    weights = set(named or top)
    wanted = (*MODEL_FILES, *TOKENIZER_FILES, *(CODE if allow_code else ()))
    chosen = [path for path in paths if matches(path, wanted) and (path not in top or path in weights)]
    if "config.json" not in chosen:
        raise InputError(f"{repo} has no config.json: it is not a transformers model. Nothing was downloaded")
    if not any(matches(path, TOKENIZERS) for path in chosen):
        raise InputError(f"{repo} has no tokenizer (one of {', '.join(TOKENIZERS)}). Nothing was downloaded")
    return tuple(chosen)


def expand(spec: HubModel, inputs: Mapping[str, Input], store: Cas) -> Graph:
    """List the commit, then fetch what is chosen."""
    repository = store.put(hub_listing.repository(spec.repo))
    label = f"listing of {spec.repo} at {spec.commit[:12]}"
    listing = Node("listing", "hub-listing", HubListing(repo=spec.repo, commit=spec.commit), {"repository": repository}, label)
    files = Node("file", "hub-files", HubFiles(allow_code=spec.allow_code), {"listing": Ref("listing", "listing")})
    return Graph((listing, files), {"folder": Ref("file", "folder")})


def expand_files(spec: HubFiles, inputs: Mapping[str, Input], store: Cas) -> Graph:
    """One node for each file that the model needs, and one that puts them together.

    Raises:
        InputError: the listing is none, or has no model that can be imported.
    """
    source = inputs["listing"]
    assert isinstance(source, Digest)
    listing = hub_listing.parse(store.read(source))
    nodes = []
    for path in choose(listing.repo, [file.path for file in listing.files], allow_code=spec.allow_code):
        file = listing.file(path)
        fetched = FetchedFile(
            repo=listing.repo,
            commit=listing.commit,
            path=path,
            size=file.size,
            oid=file.oid,
            sha256=None if file.sha256 is None else file.sha256.hex,
        )
        nodes.append(Node(path, "hub-file", fetched, {}, path))
    gathered: dict[str, Input] = {hub_folder.PREFIX + node.id: Ref(node.id, "file") for node in nodes}
    nodes.append(Node("", "hub-folder", HubFolder(), gathered, f"the {len(nodes)} files of {listing.repo}"))
    return Graph(tuple(nodes), {"folder": Ref("", "folder")})


STAGE = Composite(name="hub-model", spec=HubModel, inputs=(), outputs=("folder",), reads=(), expand=expand)
FILES = Composite(name="hub-files", spec=HubFiles, inputs=("listing",), outputs=("folder",), reads=("listing",), expand=expand_files)

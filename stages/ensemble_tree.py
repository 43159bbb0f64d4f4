"""An ensemble as a tree: `config.json`, each member's files under `members/<name>/`, and what lets transformers load the folder.

Nothing is copied, and nothing is trained. A member is named by the digest of its own tree, so whoever holds an ensemble can tell that it is
made of these models and no others. The files for transformers are the same in every ensemble (`shipped`); see docs/avengers.md.

>>> config = EnsembleConfig(combiner="bayes", settings={}, members=(Member("one", Digest.of(b"its tree")),))
>>> EnsembleConfig.parse(config.to_bytes()) == config
True
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ledger.errors import HubError
from ledger.hub import check_commit, check_repo
from stages.errors import InputError
from stages.tensors import parse_config, read_config
from store import canonical, tree
from store.cas import Cas
from store.digest import Digest
from store.errors import DigestError
from store.tree import Tree, TreeEntry

MODEL_TYPE = "many-worlds-ensemble"
FORMAT_VERSION = 2
"""Raised whenever a file of `shipped` changes, too: an ensemble of one version has the same files everywhere."""
CONFIG = "config.json"
FOLDER = "members/"
AUTO_MAP = {
    "AutoConfig": "configuration_avengers.AvengersConfig",
    "AutoModelForCausalLM": "modeling_avengers.AvengersModel",
}
"""Where transformers finds the classes, as it writes them."""
ARCHITECTURES = ["AvengersModel"]
_KEYS = {"architectures", "auto_map", "combiner", "format_version", "members", "model_type", "skip_below", "tolerance"}
_SHIPPED = (
    "configuration_avengers.py",
    "generation_config.json",
    "modeling_avengers.py",
    "tokenization_avengers.py",
    "tokenizer_config.json",
)


@cache
def shipped() -> Mapping[str, bytes]:
    """Name -> content of the files that lie beside `config.json` in every ensemble, for transformers."""
    folder = Path(__file__).parent / "avengers" / "shipped"
    return {name: (folder / name).read_bytes() for name in _SHIPPED}


@dataclass(frozen=True, slots=True)
class Member:
    """A model that takes part.

    Attributes:
        name: of its folder.
        digest: of its tree.
        repo, commit: of the Hub, for a member whose files are not in the folder; both or neither. No stage makes such an ensemble.
    """

    name: str
    digest: Digest
    repo: str | None = None
    commit: str | None = None

    def to_json(self) -> dict[str, str]:
        """As `config.json` has it."""
        value = {"digest": str(self.digest), "name": self.name}
        return value if self.repo is None or self.commit is None else value | {"commit": self.commit, "repo": self.repo}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Member:
        """Read it back.

        Raises:
            DigestError, HubError, KeyError, TypeError: it is none.
        """
        if "repo" not in value:
            return cls(value["name"], Digest.parse(value["digest"]))
        return cls(value["name"], Digest.parse(value["digest"]), check_repo(value["repo"]), check_commit(value["commit"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsembleConfig:
    """What `config.json` says.

    Attributes:
        combiner: registered name. settings: of it, as JSON without floats (decimal text instead).
        members: in order; the first is the target.
        skip_below, tolerance: see `stages.byte_lm.ensemble` and `stages.byte_lm.byte_lm`; 0 is exact.
    """

    combiner: str
    settings: Mapping[str, Any]
    members: tuple[Member, ...]
    skip_below: float = 0.0
    tolerance: float = 0.0

    def to_bytes(self) -> bytes:
        """The file: canonical JSON."""
        return canonical.dumps(
            {
                "architectures": ARCHITECTURES,
                "auto_map": AUTO_MAP,
                "combiner": {"name": self.combiner, "settings": dict(self.settings)},
                "format_version": FORMAT_VERSION,
                "members": [member.to_json() for member in self.members],
                "model_type": MODEL_TYPE,
                "skip_below": repr(self.skip_below),
                "tolerance": repr(self.tolerance),
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> EnsembleConfig:
        """Read a file strictly: every byte is as `to_bytes` would write it.

        Raises:
            InputError: it is no ensemble, or one of another format version.
        """
        value = parse_config(data)
        if value.get("model_type") != MODEL_TYPE:
            raise InputError(f"config.json: model_type is {value.get('model_type')!r}; that of an ensemble is {MODEL_TYPE!r}")
        if value.get("format_version") != FORMAT_VERSION:
            raise InputError(
                f"config.json: an ensemble of format version {value.get('format_version')!r}, and this program reads {FORMAT_VERSION}: "
                "make the ensemble again, or take the release that made it"
            )
        if set(value) != _KEYS:
            raise InputError(f"config.json: an ensemble has exactly the keys {', '.join(sorted(_KEYS))}; this has {', '.join(value)}")
        try:
            config = cls(
                combiner=value["combiner"]["name"],
                settings=value["combiner"]["settings"],
                members=tuple(Member.from_json(item) for item in value["members"]),
                skip_below=float(value["skip_below"]),
                tolerance=float(value["tolerance"]),
            )
            same = config.to_bytes() == data
        except (DigestError, HubError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"config.json: not that of an ensemble: {type(error).__name__}: {error}") from error
        if not same or not config.members:
            raise InputError(
                "config.json: not as the ensemble stage writes it (canonical JSON, a member at least); make the ensemble again"
            )
        return config


def folder(name: str) -> str:
    """Where a member's files lie in the tree, with the slash behind."""
    return f"{FOLDER}{name}/"


def build(store: Cas, config: EnsembleConfig) -> Digest:
    """Store an ensemble of trees that are in the store.

    Raises:
        NotFoundError, TreeError: a member that is not here, or is no tree.
    """
    entries = [TreeEntry(name, store.put(data), len(data)) for name, data in {CONFIG: config.to_bytes(), **shipped()}.items()]
    for member in config.members:
        there = folder(member.name)
        entries += [TreeEntry(there + item.path, item.digest, item.size) for item in tree.load(store, member.digest).entries]
    return store.put(Tree.of(entries).to_bytes())


def checked(store: Cas, ensemble: Digest) -> EnsembleConfig:
    """The config of an ensemble whose members are, file by file, the trees that it names, and whose other files are as they are made.

    Raises:
        InputError: no ensemble; a member whose files are not those of its digest, or not here (all such members are told); a file for
            transformers that is another than every ensemble of this version has; files of nobody.
    """
    found = tree.load(store, ensemble)
    read_config(store, found)
    config = EnsembleConfig.parse(store.read(found.entry(CONFIG).digest))
    files = {item.path: item.digest for item in found.entries}
    faults = shipped_faults({name: digest for name, digest in files.items() if name in _SHIPPED})
    left = set(files) - {CONFIG, *_SHIPPED}
    for member in config.members:
        own = _below(found.entries, folder(member.name))
        left -= {folder(member.name) + item.path for item in own}
        digest = Tree.of(own).digest
        if member.repo is not None and not own:
            faults.append(
                f"member {member.name}: its files are on the Hub ({member.repo}), and a stored ensemble has them: make it of models"
            )
        elif digest != member.digest:
            faults.append(f"member {member.name}: its files are {digest.short if own else 'missing'}, expected {member.digest.short}")
    if left:
        faults.append(f"{', '.join(sorted(left)[:5])}: of no member")
    if faults:
        raise InputError(f"ensemble {ensemble.short}: " + "; ".join(faults) + ". It was changed after it was made: take the original")
    return config


def only(store: Cas, ensemble: Digest) -> Digest | None:
    """The one member of an ensemble of one, as a tree of its own in the store; None where there are several.

    Raises:
        InputError: as `checked`.
    """
    config = checked(store, ensemble)
    if len(config.members) > 1:
        return None
    return store.put(Tree.of(_below(tree.load(store, ensemble).entries, folder(config.members[0].name))).to_bytes())


def shipped_faults(found: Mapping[str, Digest]) -> list[str]:
    """What is wrong with the files for transformers of an ensemble (name -> digest), one sentence each."""
    expected = {name: Digest.of(data) for name, data in shipped().items()}
    return [
        f"{name}: {found[name].short if name in found else 'missing'}, expected {digest.short}"
        for name, digest in expected.items()
        if found.get(name) != digest
    ]


def _below(entries: Sequence[TreeEntry], prefix: str) -> list[TreeEntry]:
    return [TreeEntry(item.path.removeprefix(prefix), item.digest, item.size) for item in entries if item.path.startswith(prefix)]

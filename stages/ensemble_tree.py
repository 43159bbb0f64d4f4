"""An ensemble as a tree: `config.json`, and each member's files under `members/<name>/`. Nothing is copied, and nothing is trained.

A member is named by the digest of its own tree, so whoever holds an ensemble can tell that it is made of these models and no others.

>>> config = EnsembleConfig(combiner="bayes", settings={}, members=(Member("one", Digest.of(b"its tree")),))
>>> EnsembleConfig.parse(config.to_bytes()) == config
True
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.errors import InputError
from stages.tensors import parse_config, read_config
from store import canonical, tree
from store.cas import Cas
from store.digest import Digest
from store.errors import DigestError
from store.tree import Tree, TreeEntry

MODEL_TYPE = "many-worlds-ensemble"
FORMAT_VERSION = 1
CONFIG = "config.json"
_FOLDER = "members/"
_KEYS = {"combiner", "format_version", "members", "model_type", "skip_below", "tolerance"}


@dataclass(frozen=True, slots=True)
class Member:
    """A model that takes part: the name of its folder, and the digest of its tree."""

    name: str
    digest: Digest


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
                "combiner": {"name": self.combiner, "settings": dict(self.settings)},
                "format_version": FORMAT_VERSION,
                "members": [{"digest": str(member.digest), "name": member.name} for member in self.members],
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
                members=tuple(Member(item["name"], Digest.parse(item["digest"])) for item in value["members"]),
                skip_below=float(value["skip_below"]),
                tolerance=float(value["tolerance"]),
            )
            same = config.to_bytes() == data
        except (DigestError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"config.json: not that of an ensemble: {type(error).__name__}: {error}") from error
        if not same or not config.members:
            raise InputError(
                "config.json: not as the ensemble stage writes it (canonical JSON, a member at least); make the ensemble again"
            )
        return config


def folder(name: str) -> str:
    """Where a member's files lie in the tree, with the slash behind."""
    return f"{_FOLDER}{name}/"


def build(store: Cas, config: EnsembleConfig) -> Digest:
    """Store an ensemble of trees that are in the store.

    Raises:
        NotFoundError, TreeError: a member that is not here, or is no tree.
    """
    data = config.to_bytes()
    entries = [TreeEntry(CONFIG, store.put(data), len(data))]
    for member in config.members:
        there = folder(member.name)
        entries += [TreeEntry(there + item.path, item.digest, item.size) for item in tree.load(store, member.digest).entries]
    return store.put(Tree.of(entries).to_bytes())


def checked(store: Cas, ensemble: Digest) -> EnsembleConfig:
    """The config of an ensemble whose members are, file by file, the trees that it names.

    Raises:
        InputError: no ensemble; a member whose files are not those of its digest (all such members are told); files of nobody.
    """
    found = tree.load(store, ensemble)
    read_config(store, found)
    config = EnsembleConfig.parse(store.read(found.entry(CONFIG).digest))
    faults = []
    left = {item.path for item in found.entries} - {CONFIG}
    for member in config.members:
        own = _below(found.entries, folder(member.name))
        left -= {folder(member.name) + item.path for item in own}
        digest = Tree.of(own).digest
        if digest != member.digest:
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


def _below(entries: Sequence[TreeEntry], prefix: str) -> list[TreeEntry]:
    return [TreeEntry(item.path.removeprefix(prefix), item.digest, item.size) for item in entries if item.path.startswith(prefix)]

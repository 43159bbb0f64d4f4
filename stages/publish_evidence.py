"""What a publication is made of: the objects of a run that are published, and the log as far as it is about them.

Nothing is taken from a run's own notes but names: every object must be the output of a trusted run. What is missing or contradicts is a
`Fault`, told together with all others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ledger import bundle, chain, lookup, predicates
from ledger.chain import Made
from ledger.errors import ContradictionError
from ledger.examine import Examination
from ledger.log import Log
from ledger.lookup import Trusted
from ledger.policy import Policy
from stages.card_facts import Source
from stages.errors import SpecError
from store import canonical
from store.actions import Action
from store.cas import Cas
from store.digest import Digest
from store.tree import Tree

Output = tuple[str, str, Digest]
"""Recipe stage (with its variant in brackets), output name, digest."""

_GGUF = "gguf-"


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is published of a run: one variant's model and its GGUF files.

    Attributes:
        variant: as in the names of stages; "" without a matrix.
        model: the tree of the model's folder; None when only GGUF files were made.
        ggufs: type -> file.
    """

    variant: str
    model: Digest | None
    ggufs: Mapping[str, Digest]


def choose(outputs: Sequence[Output], variant: str | None) -> Chosen:
    """The last model that the recipe made in a variant, and the last GGUF file of each type; never what was only imported.

    Raises:
        SpecError: there is nothing to publish, no such variant, or several and none was named.
    """
    made: dict[str, tuple[Digest | None, dict[str, Digest]]] = {}
    for stage, output, digest in outputs:
        name = stage.partition("[")[2].removesuffix("]")
        model, ggufs = made.get(name, (None, {}))
        if output == "model" and not stage.startswith("import-model"):
            made[name] = digest, ggufs
        elif output.startswith(_GGUF):
            made[name] = model, ggufs | {output.removeprefix(_GGUF): digest}
    if not made:
        raise SpecError("the recipe made neither a model nor a GGUF file, so there is nothing to publish")
    named = sorted(name for name in made if name) or [""]
    if variant is None and len(named) > 1:
        raise SpecError(f"the recipe made {len(named)} variants, and a repository holds one: say --variant, one of {', '.join(named)}")
    wanted = named[0] if variant is None else variant
    if wanted not in named:
        raise SpecError(f"there is no variant {wanted!r}; there are {', '.join(named) if named != [''] else 'none'}")
    model, ggufs = made[wanted]
    if "" in made and wanted:  # what is outside the matrix belongs to every variant
        model, ggufs = model or made[""][0], made[""][1] | ggufs
    return Chosen(wanted, model, ggufs)


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that must not be published.

    Attributes:
        check: which check found it. what: the object. problem: expected and got. hint: what to do.
    """

    check: str
    what: str
    problem: str
    hint: str = ""


@dataclass
class Evidence:
    """A log as a publication sees it: what counts under a policy, with the files of the folders that statements are about.

    Attributes:
        lines, receipt: the provenance closure of what is published (`ledger.bundle`).
        faults: what was found wrong on the way.
    """

    log: Log
    policy: Policy
    store: Cas
    lines: Sequence[bytes]
    receipt: Mapping[str, Any]
    faults: list[Fault] = field(default_factory=list)

    @classmethod
    def of(cls, log: Log, policy: Policy, store: Cas, shown: Iterable[Digest]) -> Evidence:
        """The provenance closure of some objects."""
        lines, receipt = bundle.export(log, sorted(shown), store=store, policy=policy)
        return cls(log, policy, store, lines, receipt)

    def __post_init__(self) -> None:
        self.trees: Mapping[Digest, Tree] = bundle.Receipt.parse(dict(self.receipt)).trees
        self.examination = Examination(self.log, self.policy, self.trees.values)

    def counting(self, digest: Digest) -> list[Trusted]:
        """The statements about an object that count."""
        return self.examination.sift(digest)[0]

    def refused(self, digest: Digest) -> list[lookup.Ignored]:
        """Those that do not."""
        return self.examination.sift(digest)[1]

    def source(self, one: Trusted, key: Digest | None = None) -> Source:
        """Who says a statement; with the key of the action that it rests on, also who has done that again with the same outputs."""
        first = lookup.sift(self.log.lookup(key), self.policy)[0][:1] if key is not None else []
        others = [name for run in first for name in self.vouching(predicates.action_of(run.statement)) if name not in run.signers]
        return Source(entry=one.entry.number, signers=one.signers, others=tuple(others))

    def vouching(self, action: Action) -> tuple[str, ...]:
        """Names of the keys that vouch for an action's outputs; a contradiction is a fault."""
        try:
            return lookup.confirmations(self.log, self.policy, action)
        except ContradictionError as error:
            fault = Fault("statements", action.stage, str(error), "`ledger why` and `ledger verify` show both")
            if fault not in self.faults:
                self.faults.append(fault)
            return ()

    def read(self, digest: Digest) -> Any:
        """An object of the store as JSON.

        Raises:
            StoreError: it is not there, or no JSON.
        """
        return canonical.loads(self.store.read(digest))

    def made(self, digest: Digest) -> Trusted | None:
        """The first trusted run that gave an object."""
        return next((one for one in self.counting(digest) if one.statement.predicate_type == predicates.RUN), None)

    def steps(self, digests: Iterable[Digest]) -> list[Made]:
        """All trusted runs behind some objects, in the order of the log.

        One that took an object in and gave it on unchanged (an import that left nothing out) makes nothing, but says what it is: of each
        object one counts, the one that names what was fetched from the Hub before any other.
        """
        asked = set(digests)
        found = {made.action.key: made for digest in asked for made in chain.trace(digest, self.examination.makers).steps}
        reached = asked | {digest for made in found.values() for digest in made.action.inputs.values()}
        fetched = {(made.action.spec.get("repo"), made.action.spec.get("commit")) for made in found.values()}
        for digest in sorted(reached):
            same = [made for made in self.examination.makers(digest) if digest in made.action.inputs.values()]
            same.sort(key=lambda made: (made.action.spec.get("source"), made.action.spec.get("revision")) not in fetched)
            found |= {made.action.key: made for made in same[:1]}
        return sorted(found.values(), key=lambda made: made.entry if made.entry is not None else -1)

    def comes_from(self, digest: Digest, source: Digest) -> bool:
        """Whether an object was made from another, however many stages lie between."""
        return digest == source or any(source in made.action.inputs.values() for made in self.steps([digest]))

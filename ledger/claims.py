"""One alloy with what travels beside it: what that proves about itself and about files, wherever they lie.

An alloy says things about itself. What its attestations say of the same digests is compared with it. Its own words count for more when its
bytes are vouched for: by a `released` statement about them that somebody trusted signed, or by the hash that the reader expected. Then
its list of files (`ledger.manifest`) is compared with what is there as well.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ledger import cosign, lookup, manifest, predicates, publication, standing
from ledger.alloy import record_of
from ledger.bundle import Bundle, Receipt
from ledger.entries import UNPLACED, Entry
from ledger.errors import ProofError, VerificationError
from ledger.examine import Examination, folder_of, held, holding
from ledger.inventory import ALLOY, ATTESTATIONS, PROOF, WEIGHTS, Inventory, Unread, base, ends, folders, risky, some
from ledger.locator import Expected
from ledger.lookup import Trusted
from ledger.loose import as_dict, as_list
from ledger.manifest import Listed
from ledger.policy import Policy
from ledger.proof import Proof
from ledger.publication import PUBLICATION, RELEASED, Publication
from ledger.report import Row, printable
from ledger.retold import Retold
from ledger.vsa import VSA
from store import canonical
from store.digest import Digest
from store.errors import StoreError
from store.tree import Tree, TreeEntry


@dataclass(frozen=True, slots=True)
class Carried:
    """What travels for one alloy, as bytes that were read and not checked.

    Attributes:
        name: of the alloy file.
        alloy, attestations: the files. proof: `<name>.tlog-proof`, the place of the release in the log; None when it was not read.
    """

    name: str
    alloy: bytes
    attestations: bytes
    proof: bytes | None = None


def companion(alloy: str, ending: str) -> str:
    """The path of what lies beside an alloy, like `<name>.attestations.jsonl`."""
    return alloy.removesuffix(ALLOY) + ending


class Claims:
    """One alloy, with what its attestations prove about itself and about files."""

    def __init__(
        self, name: str, carried: Carried | None, policy: Policy, *, expected: Expected | None = None, problems: Sequence[Row] = ()
    ) -> None:
        """`carried` is None when it could not be read: `problems` say why. `expected` is what the reader was told of the alloy's bytes."""
        self.name, self._policy = name, policy
        self.trees: Mapping[Digest, Tree] = {}
        """The folders that trusted statements are about or took: digest -> files."""
        self.content: Collection[Digest] = ()
        """Everything that trusted statements are about or took, and the files of the folders among it."""
        self.digest = Digest.of(carried.alloy) if carried is not None else None
        """Of the alloy file."""
        self.evidence: Mapping[str, Digest] = {}
        """Name -> digest of the attestations."""
        self.releases: list[tuple[Trusted, Publication]] = []
        """The trusted statements that released exactly these bytes."""
        self.listed: Mapping[str, Listed] = {}
        """The alloy's list of files; empty unless somebody vouches for the alloy's bytes."""
        self._name = base(name)
        self._problems: list[Row] = list(problems)
        self._here: list[TreeEntry] = []  # files that are as attested
        self._inputs_here: list[str] = []
        self._present_here: set[Digest] = set()
        self._files_rows: list[Row] = []  # what was found of the list of files
        self._outputs: dict[Digest, set[str]] = {}  # what the alloy calls its results
        self._results: list[tuple[str, str, Digest]] = []  # its results in its order: stage, output, digest
        self._artifacts: dict[Digest, str] = {}  # its results: digest -> what it is, for people
        self._actions: set[Digest] = set()  # keys of the trusted runs
        self._records: dict[str, set[tuple[str, Digest]]] = {}  # what they gave beside metrics: key -> output and digest
        self._value: dict[str, Any] | None = None
        self._pinned = expected is not None and expected.full and self.digest is not None and expected.matches(self.digest)
        if carried is None:
            return
        self.evidence = {companion(name, ATTESTATIONS): Digest.of(carried.attestations)}
        try:
            self._value, self._bundle = _read(carried, policy)
        except (VerificationError, StoreError) as error:
            self._problems.append(Row("failed", f"{self._name}: {error}", "Take both files again from where they were published"))
            return
        written, policy = policy, self._bundle.policy or policy
        self._policy = policy  # without what the key events that travel take away
        self._examination = Examination(self._bundle, policy, self._bundle.receipt.trees.values)
        attestations = base(companion(name, ATTESTATIONS))
        self._problems += [Row("failed", f"{attestations}: {problem}") for problem in self._bundle.problems]
        self._files_rows += standing.rows(written, self._bundle.cuts)
        self._counting = lookup.sift(self._bundle.entries, policy)[0]
        self._place = self._placed(carried.proof)
        others = [entry for entry in self._bundle.entries if entry.envelope not in {one.envelope for one in self._place}]
        released = [pair for pair in publication.counting([*self._place, *others], policy) if pair[1].event == RELEASED]
        self.releases = [pair for pair in released if pair[1].alloy[1] == self.digest]
        for one, said in released:
            if said.alloy[1] != self.digest:
                who, what = " and ".join(one.signers), printable(said.alloy[0], 80)
                text = f"{who} released another {what}: {said.alloy[1]}; here it is {self.digest}"
                self._problems.append(Row("failed", text, "It was changed since, or its attestations are of another release"))
        self._subjects, self._inputs = self._named()
        if self.counts:
            self._read_results(self._value)
        if self.vouched:
            self._read_list(self._value)
        named = self._subjects | self._inputs
        self.trees = {digest: one for digest, one in self._bundle.receipt.trees.items() if digest in named}
        self.content = named | {file.digest for one in self.trees.values() for file in one.entries}
        self.content = self.content | {one.digest for one in self.listed.values()}

    @property
    def counts(self) -> bool:
        """Whether anything that travels with the alloy is signed by somebody trusted."""
        return self._value is not None and bool(self._counting or self.releases)

    @property
    def vouched(self) -> str:
        """Who vouches for the alloy's own bytes, for messages; empty when nobody does."""
        if self.releases:
            return f"the alloy that {' and '.join(self.releases[0][0].signers)} released"
        return "the alloy with the expected hash" if self._pinned else ""

    def _placed(self, proof: bytes | None) -> list[Entry]:
        """The entry whose place in the log the proof beside the alloy proves, if it does."""
        if proof is None:
            return []
        name = base(companion(self.name, PROOF))
        try:
            read = Proof.from_text(proof)
        except VerificationError as error:
            self._problems.append(Row("failed", f"{name}: {error}", "Take it again from where it was published"))
            return []
        if not any(entry.envelope == read.envelope for entry in self._bundle.entries):
            text = f"{name} is about a statement that {base(companion(self.name, ATTESTATIONS))} does not have"
            self._problems.append(Row("failed", text, "Take both files again from where they were published"))
            return []
        rows = read.place(self._policy)
        self._files_rows += rows
        return [Entry(read.number, "", read.envelope, read.checkpoint)] if any(row.status == "proven" for row in rows) else []

    def _read_list(self, value: Mapping[str, Any]) -> None:
        integrity = as_dict(as_dict(value.get("results")).get("integrity"))
        try:
            self.listed = manifest.parse(integrity.get("fileHashes", []))
        except ProofError as error:
            self._problems.append(Row("failed", f"{self._name}: {error}", "Ask its maker for an alloy of the published format"))

    def _named(self) -> tuple[set[Digest], set[Digest]]:
        """Digests that trusted statements are about, and those that trusted runs took."""
        subjects, inputs = set[Digest](), set[Digest]()
        for one in self._counting:
            if one.statement.predicate_type in (PUBLICATION, VSA):
                continue  # about the alloy, not about what it describes; or what somebody found, and be it that it failed
            subjects |= set(one.statement.subjects.values())
            if one.statement.predicate_type == predicates.RUN:
                action = predicates.action_of(one.statement)
                inputs |= set(action.inputs.values())
                self._actions.add(action.key)
                if (record := record_of(one.statement.subjects)) is not None:
                    self._records.setdefault(str(action.key), set()).add(record)
        return subjects, inputs - subjects

    def _read_results(self, value: Mapping[str, Any]) -> None:
        """What the alloy names as its results."""
        called = set[tuple[str, str]]()
        for item in as_list(as_dict(value.get("results")).get("artifacts")):
            try:
                digest, stage, output = Digest.parse(item["digest"]), str(item["stage"]), str(item["output"])
            except (KeyError, TypeError, StoreError) as error:
                self._problems.append(Row("failed", f"{self._name}: results.artifacts cannot be read: {error!r}"))
                continue
            # Anybody can write such a label, so it is shown as a quotation, with what it stands for.
            label = printable(f"{stage} {output}", 80).replace("'", "?")
            self._artifacts.setdefault(digest, f"the result '{label}' ({digest.short})")
            self._outputs.setdefault(digest, set()).add(output)
            self._results.append((stage, output, digest))
            if (stage, output) in called:
                self._problems.append(Row("failed", f"{self._name} names two results '{label}'"))
            called.add((stage, output))
        if not self._artifacts:
            self._problems.append(Row("failed", f"{self._name} names no artifact, so its attestations are about nothing of it"))

    # the files

    def sizes(self) -> set[int]:
        """The sizes in bytes of what the alloy and its attestations name, as far as they say them."""
        results = as_dict((self._value or {}).get("results"))
        listed = [*as_list(results.get("artifacts")), *as_list(as_dict(results.get("integrity")).get("fileHashes"))]
        said = [item.get(key) for item in listed if isinstance(item, dict) for key in ("sizeBytes", "size")]
        return {file.size for one in self.trees.values() for file in one.entries} | {size for size in said if type(size) is int}

    def match(self, present: Inventory) -> tuple[set[str], set[str]]:
        """Find what is attested among files; gives the paths that are, and the folders that are as a whole.

        A folder of which all files are as attested but some that are unread is neither proven nor wrong, and its files are covered too.
        """
        covered, settled = set[str](), set[str]()
        if self._value is None:
            return covered, settled
        compared = manifest.compare(self.listed, present, self.vouched) if self.listed else None
        differing = compared.differing if compared is not None else frozenset[str]()
        unread = {file.path: file for file in present.unread if file.path not in differing}
        named = self._subjects | self._inputs
        pieces = {file.digest for one in self.trees.values() for file in one.entries if ends(file.path, WEIGHTS)}
        largest_first = sorted(self.trees.items(), key=lambda pair: -len(pair[1].entries))
        for where, here in folders(present.files):
            whole = [digest for digest, one in largest_first if one.entries and all(here.get(file.path) == file for file in one.entries)]
            made = {entry.path for digest in whole if digest in self._artifacts for entry in self.trees[digest].entries}
            for digest, one in largest_first:
                if digest not in self._artifacts and (where in settled or _mixed(one, made)):
                    continue  # a part of the folder that is settled as a whole, or what a result was made from, poured over it
                if digest in whole:
                    settled.add(where)
                    covered |= {where + file.path for file in one.entries}
                    self._matched(digest, where or "./", f"{where or './'} (all {len(one.entries)} files, {one.size:,} bytes{present.how})")
                elif where not in settled and (dark := _all_but_unread(one, here, unread, where)):
                    settled.add(where)
                    covered |= {where + file.path for file in one.entries}
                    text = (
                        f"{where or './'} is {folder_of(one)}, as far as is listed: of {some(dark)} only a git id is, and none is attested"
                    )
                    self._files_rows.append(Row("unverified", text, "--full reads the files"))
            if present.whole and not present.unread and where not in settled and (unlisted := Tree.of(here.values())).digest in named:
                settled.add(where)
                covered |= {where + path for path in here}
                self._matched(
                    unlisted.digest, where or "./", f"{where or './'} (all {len(here)} files, {unlisted.size:,} bytes{present.how})"
                )
        for file in present.files:
            if file.digest in named and (file.path not in covered or file.digest in self._artifacts):
                if file.path not in covered and file.digest in pieces and file.digest not in self._artifacts:
                    continue  # a shard of a model is nothing without the rest of it
                self._matched(file.digest, file.path, f"{file.path}, {file.size:,} bytes{present.how},")
                covered.add(file.path)
        if compared is not None:
            self._files_rows += compared.rows
            covered |= compared.equal | compared.differing | {path for path in self.listed if path in unread}
        if self.closes(present):  # whatever else is attested, it is not part of what was released
            everything = [file.path for file in present.files] + [file.path for file in present.unread]
            covered -= set(risky([path for path in covered if path not in self.listed], everything))
        self._here = [file for file in present.files if file.path in covered - differing]
        return covered, settled

    def closes(self, present: Inventory) -> bool:
        """Whether the alloy says what all files of the place are: a release does, of its repository."""
        return present.complete and bool(self.releases and self.listed)

    def _matched(self, digest: Digest, path: str, what: str) -> None:
        if digest in self._subjects:
            self._artifacts[digest] = what
            self._present_here.add(digest)
        else:
            self._examination.names[digest] = path
            self._inputs_here.append(path)

    def about(self, digest: Digest, what: str) -> list[Row] | None:
        """The findings about one file, whatever the alloy's results are; None when no trusted statement is about it."""
        if self._value is None:
            return None
        trees = [one for named, one in self.trees.items() if named in self._subjects]
        holders = holding(digest, trees, {one.digest for one in self.listed.values()})
        rows = self._examination.rows
        listed = next((one for one in self.listed.values() if one.digest == digest), None)
        if listed is not None:
            rows += [self._release(*one) for one in self.releases]
            rows.append(Row("proven", f"{what} are {listed.path} in the list of {self.vouched}"))
        if self._examination.mentions(digest):
            self._examination.explain([(digest, what)])
        elif holders:
            rows.append(held(digest, what, holders))
            self._examination.explain([(holders[0].digest, folder_of(holders[0]))])
        elif listed is None:
            return None
        return [*self._problems, *rows, self._places(), *self._seen()]

    # the findings

    def findings(self) -> list[Row]:
        """Everything about the alloy itself and its results, after `match`."""
        rows = list(self._problems)
        if self._value is None:
            return rows
        rows += [self._release(*one) for one in self.releases]
        if self._pinned:
            rows.append(Row("proven", f"{self._name} has the expected hash, {self.digest}"))
        rows += self._files_rows
        if not self.counts:
            return [*rows, *self._strangers(self._value)]
        if self._inputs_here:
            count = f"{len(self._inputs_here)} files here were inputs" if len(self._inputs_here) > 1 else "a file here was an input"
            rows.append(Row("proven", f"{count} of what is attested: {some(self._inputs_here, 3)}"))
        if missing := len(set(self._artifacts) - self._present_here):
            text = f"{missing} of {len(self._artifacts)} results were not found here, so their bytes were not looked at"
            rows.append(Row("unverified", text))
        examination = self._examination
        mentioned = [(digest, what) for digest, what in self._artifacts.items() if examination.mentions(digest)]
        here = [(digest, what) for digest, what in mentioned if digest in self._present_here]
        away = [(digest, what) for digest, what in mentioned if digest not in self._present_here]
        examination.explain(here or away, away=away if here else ())
        for digest, what in self._artifacts.items():
            if not examination.mentions(digest):
                examination.strange(digest, what)
        return [*rows, *examination.rows, *self._retold().findings(self._value), self._places(), *self._seen()]

    def _release(self, one: Trusted, said: Publication) -> Row:
        number = one.entry.number
        text = (
            f"{' and '.join(one.signers)} signed the release of {printable(said.name, 80)} {printable(said.version, 40)} at {said.target}: "
            f"this {self._name}, {said.alloy[1]}"
        )
        return Row("proven", text, entry=number if number != UNPLACED else None)

    def _strangers(self, value: Mapping[str, Any]) -> list[Row]:
        """That nobody trusted signed anything here, and what would settle it."""
        entries = self._bundle.entries
        ignored = lookup.sift(entries, self._policy)[1]
        attestations = base(companion(self.name, ATTESTATIONS))
        first = f": {ignored[0].reason}" if ignored else ""
        text = f"none of the {len(entries)} statements in {attestations} is signed by somebody whom {self._policy.source} trusts{first}"
        hint = "if you know the signer's key, trust it (`ledger key trust`) or name a policy (--policy FILE)"
        if not self._pinned:
            hint += "; --expect sha256:HEX, from somebody you believe, settles the bytes"
        rows = [Row("unverified", text, hint)]
        if self._pinned:
            rows.append(Row("self-reported", f"everything that {self._name} says, but for the files that it lists: {some(list(value))}"))
        return rows

    def _retold(self) -> Retold:
        return Retold(
            name=self._name,
            examination=self._examination,
            subjects=frozenset(self._subjects),
            inputs=frozenset(self._inputs),
            actions=frozenset(self._actions),
            records=self._records,
            outputs=self._outputs,
            results=self._results,
            trees=self.trees,
            here=self._here,
            vouched=self.vouched,
            released_by=" and ".join(self.releases[0][0].signers) if self.releases else "",
        )

    def _places(self) -> Row:
        bundle = self._bundle
        entries = [entry for entry in bundle.entries if not _is_release(entry)]  # later than the receipt; `_placed` is about them
        placed = sum(entry.number != UNPLACED for entry in entries)
        if bundle.anchored_by:
            who = " and ".join(bundle.anchored_by)
            log = f"log {bundle.origin} ({bundle.size:,} entries, checkpoint signed by {who})"
            text = f"{placed} of {len(entries)} statements are entries of {log}"
            return Row("proven", text, aside=True) if placed == len(entries) else Row("unverified", text)
        if bundle.receipt.checkpoint is None:
            return Row("unverified", f"when it was said: {self._name} has no receipt of a log")
        keys = ", ".join(sorted(self._policy.log_keys)) or "nobody"
        text = f"when it was said: the checkpoint is not signed by a key that {self._policy.source} lets sign a log ({keys})"
        return Row("unverified", text)

    def _seen(self) -> list[Row]:
        """Whether the witnesses that the policy wants have seen the log lately."""
        receipt = self._bundle.receipt.checkpoint
        notes = [] if receipt is None else [receipt]
        return cosign.travelled([*notes, *(entry.checkpoint for entry in self._place)], self._policy)


def _read(carried: Carried, policy: Policy) -> tuple[dict[str, Any], Bundle]:
    """An alloy's JSON, and its attestations with their places.

    Raises:
        VerificationError, StoreError: one of the two files is not what it should be.
    """
    value = canonical.loads(carried.alloy)
    if not isinstance(value, dict):
        raise ProofError("an alloy is a JSON object")
    receipt = value.get("receipt")
    inner = receipt.get("ledger") if isinstance(receipt, dict) else None
    return value, Bundle(carried.attestations, Receipt.parse(inner) if inner is not None else None, policy)


def _is_release(entry: Entry) -> bool:
    try:
        return entry.statement.predicate_type == PUBLICATION
    except (VerificationError, StoreError):
        return False


def _mixed(one: Tree, made: Collection[str]) -> bool:
    """Whether a folder has weights beside those of another one that lies in the same place."""
    extra = any(ends(file.path, WEIGHTS) and file.path not in made for file in one.entries)
    return extra and any(ends(path, WEIGHTS) for path in made)


def _all_but_unread(one: Tree, here: Mapping[str, TreeEntry], unread: Mapping[str, Unread], where: str) -> list[str]:
    """The unread files that stand between a folder and a recorded one; none when something else does, or nothing."""
    dark = [file for file in one.entries if here.get(file.path) != file]
    same = all(where + file.path in unread and unread[where + file.path].size == file.size for file in dark)
    return [file.path for file in dark] if same and len(dark) < len(one.entries) else []

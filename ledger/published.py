"""What travels: an alloy and its attestations, with the files beside them, checked without the ledger.

The envelopes are checked against the policy, their places against the receipt, the numbers in the alloy against what was signed, and
every file that lies in the same folder: what attestations name must have the attested bytes, and what can change a model must be named.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ledger import lookup, predicates
from ledger.bundle import Bundle, Receipt
from ledger.entries import UNPLACED
from ledger.errors import ProofError, VerificationError
from ledger.examine import Examination, differences
from ledger.policy import Policy
from ledger.report import Report, Row, printable
from store import canonical, tree
from store.digest import Digest
from store.errors import CanonicalError, StoreError
from store.tree import Tree

ALLOY, ATTESTATIONS = ".alloy.json", ".attestations.jsonl"
WEIGHTS = (".safetensors", ".gguf", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".npz", ".onnx", ".h5", ".msgpack")
"""Files that are, or can be taken for, a model's weights: in a published folder each must be named by somebody trusted."""

CODE = ".py"
"""Files that some loaders run: likewise, in a folder that holds weights."""

MAX_ALLOY_BYTES = 64 * 2**20


def published(path: Path) -> list[Path]:
    """The alloys at a path: itself, or those in a folder that have their attestations beside them."""
    if path.is_dir():
        return [alloy for alloy in sorted(path.glob(f"*{ALLOY}")) if attestations_of(alloy).is_file()]
    return [path] if path.name.endswith(ALLOY) else []


def attestations_of(alloy: Path) -> Path:
    """Where the envelopes of an alloy are: `<name>.attestations.jsonl` beside it."""
    return alloy.with_name(alloy.name.removesuffix(ALLOY) + ATTESTATIONS)


def examine_alloy(path: Path, policy: Policy) -> Report:
    """Check an alloy, or a folder with one, by the attestations that lie beside it; see the module."""
    rows: list[Row] = []
    alloys = published(path)
    if not alloys:
        return Report(
            str(path),
            (Row("failed", f"{path} has no {ALLOY[1:]} with its {ATTESTATIONS[1:]} beside it", "Ask for both; they travel together"),),
        )
    folder = path if path.is_dir() else path.parent
    try:
        found = tree.hash_folder(folder, skip=_skipped)
    except StoreError as error:
        return Report(str(path), (Row("failed", str(error)),))
    travelling = {name for alloy in alloys for name in (alloy.name, attestations_of(alloy).name)}
    present = Tree(tuple(file for file in found.entries if file.path not in travelling))
    for alloy in alloys:
        rows += _Published(alloy, policy, present).rows
    if path.is_dir():
        hidden = sorted(item.name for item in folder.iterdir() if _skipped(item.name))
        if hidden:
            rows.append(Row("unchecked", f"{', '.join(hidden)}: not looked into"))
    return Report(str(path), tuple(rows))


def _skipped(path: str) -> bool:
    return path in (".git", ".ledger")


class _Published:
    """The findings about one alloy and the files beside it."""

    def __init__(self, alloy: Path, policy: Policy, present: Tree) -> None:
        self.rows: list[Row] = []
        self._name, self._policy, self._present = alloy.name, policy, present
        self._present_here: set[Digest] = set()
        self._matching: set[Digest] = set()  # contents of the files here that are as attested
        try:
            value, bundle = self._read(alloy)
        except (VerificationError, CanonicalError, OSError) as error:
            self.rows.append(Row("failed", f"{alloy.name}: {error}", "Take both files again from where they were published"))
            return
        self._bundle = bundle
        self._examination = Examination(bundle, policy, bundle.receipt.trees.values)
        self.rows += [Row("failed", f"{attestations_of(alloy).name}: {problem}") for problem in bundle.problems]
        self._subjects, self._inputs = self._named()
        artifacts = self._artifacts(value)
        self._inputs_here: list[str] = []
        self._bytes(artifacts)
        mentioned = [(digest, what) for digest, what in artifacts.items() if self._examination.mentions(digest)]
        here = [(digest, what) for digest, what in mentioned if digest in self._present_here]
        away = [(digest, what) for digest, what in mentioned if digest not in self._present_here]
        self._examination.explain(here or away, away=away if here else ())
        for digest, what in artifacts.items():
            if not self._examination.mentions(digest):
                self._examination.strange(digest, what)
        self.rows += self._examination.rows
        self._numbers(value)
        self._places()

    def _read(self, alloy: Path) -> tuple[dict[str, Any], Bundle]:
        data = alloy.read_bytes()
        if len(data) > MAX_ALLOY_BYTES:
            raise ProofError(f"an alloy of {len(data):,} bytes; at most {MAX_ALLOY_BYTES:,} are read")
        value = canonical.loads(data)
        if not isinstance(value, dict):
            raise ProofError("an alloy is a JSON object")
        receipt = value.get("receipt")
        inner = receipt.get("ledger") if isinstance(receipt, dict) else None
        return value, Bundle(attestations_of(alloy).read_bytes(), Receipt.parse(inner) if inner is not None else None, self._policy)

    def _named(self) -> tuple[set[Digest], set[Digest]]:
        """Digests that trusted statements are about, and those that trusted runs took."""
        subjects, inputs = set[Digest](), set[Digest]()
        for one in lookup.sift(self._bundle.entries, self._policy)[0]:
            subjects |= set(one.statement.subjects.values())
            if one.statement.predicate_type == predicates.RUN:
                inputs |= set(predicates.action_of(one.statement).inputs.values())
        return subjects, inputs - subjects

    def _artifacts(self, value: Mapping[str, Any]) -> dict[Digest, str]:
        """What the alloy names as its results: digest -> what it is."""
        results = value.get("results")
        listed = results.get("artifacts") if isinstance(results, dict) else None
        named: dict[Digest, str] = {}
        for item in listed if isinstance(listed, list) else []:
            try:
                named.setdefault(Digest.parse(item["digest"]), printable(f"{item['stage']} {item['output']}"))
            except (KeyError, TypeError, StoreError) as error:
                self.rows.append(Row("failed", f"{self._name}: results.artifacts cannot be read: {error!r}"))
        if not named:
            self.rows.append(Row("failed", f"{self._name} names no artifact, so its attestations are about nothing of it"))
        return named

    # the files

    def _bytes(self, artifacts: dict[Digest, str]) -> None:
        """Match what lies in the folder with what was attested; what matches is explained with its name and size."""
        trees = {digest: one for digest, one in self._bundle.receipt.trees.items() if digest in self._subjects or digest in self._inputs}
        content = {file.digest for one in trees.values() for file in one.entries}
        covered: set[str] = set()
        settled, differing = set[str](), set[str]()
        for where, here in _folders(self._present):
            for digest, one in sorted(trees.items(), key=lambda pair: -len(pair[1].entries)):
                if where in settled and digest not in artifacts:
                    continue  # a part of the folder that is settled as a whole
                mine = {file.path: file for file in here.entries}
                if all(mine.get(file.path) == file for file in one.entries):
                    settled.add(where)
                    covered |= {where + file.path for file in one.entries}
                    self._matched(artifacts, digest, f"{where or './'} (all {len(one.entries)} files, {one.size:,} bytes)")
            if here.digest in self._subjects | self._inputs and where not in settled:
                settled.add(where)
                covered |= {where + file.path for file in here.entries}
                self._matched(artifacts, here.digest, f"{where or './'} (all {len(here.entries)} files, {here.size:,} bytes)")
        for file in self._present.entries:
            if file.digest in self._subjects | self._inputs and (file.path not in covered or file.digest in artifacts):
                self._matched(artifacts, file.digest, f"{file.path}, {file.size:,} bytes,")
                covered.add(file.path)
        for where, here in _folders(self._present):
            rest = Tree(tuple(file for file in here.entries if where + file.path not in covered))
            if where not in settled and rest.entries:
                found = differences(here, trees.values(), where)
                self.rows += found
                differing |= {where + file.path for file in here.entries} if found else set()
        if self._inputs_here:
            more = f" and {len(self._inputs_here) - 3} more" if len(self._inputs_here) > 3 else ""
            count = f"{len(self._inputs_here)} files here were inputs" if len(self._inputs_here) > 1 else "a file here was an input"
            self.rows.append(Row("proven", f"{count} of what is attested: {', '.join(self._inputs_here[:3])}{more}"))
        self._matching = {file.digest for file in self._present.entries if file.path in covered}
        loose = [file for file in self._present.entries if file.path not in covered | differing and file.digest not in content]
        weighty = {_parent(file.path) for file in self._present.entries if file.path.endswith(WEIGHTS)}
        risky = [file for file in loose if file.path.endswith(WEIGHTS) or (file.path.endswith(CODE) and _parent(file.path) in weighty)]
        for file in risky:
            text = f"{file.path}, {file.size:,} bytes, is named by no trusted statement ({file.digest}); a model may be loaded from it"
            self.rows.append(Row("failed", text, "Take it from where it was published, or delete it"))
        others = [file.path for file in loose if file not in risky]
        if others:
            shown = ", ".join(others[:6]) + (f" and {len(others) - 6} more" if len(others) > 6 else "")
            self.rows.append(Row("unchecked", f"{shown}: named by no attestation"))
        away = set(artifacts) - self._present_here
        if away:
            self.rows.append(
                Row("unchecked", f"{len(away)} of {len(artifacts)} results are not in this folder, so their bytes were not looked at")
            )

    def _matched(self, artifacts: dict[Digest, str], digest: Digest, what: str) -> None:
        if digest in self._subjects:
            artifacts[digest] = what
            self._present_here.add(digest)
        else:
            self._examination.names[digest] = what.rstrip(",").partition(",")[0]
            self._inputs_here.append(what.rstrip(",").partition(",")[0])

    # the numbers

    def _numbers(self, value: Mapping[str, Any]) -> None:
        """Compare what the alloy repeats with what was signed."""
        results = value.get("results")
        results = results if isinstance(results, dict) else {}
        wrong = 0
        rows = results.get("benchmarks") or []
        for item in rows if isinstance(rows, list) else [None]:
            if not self._attested(item):
                wrong += 1
                what = printable(str(item.get("benchmark", item.get("name", "?")))) if isinstance(item, dict) else "?"
                self.rows.append(
                    Row("failed", f"{self._name} gives a result of {what} that no trusted statement gives: {printable(str(item))}")
                )
        if rows and not wrong:
            self.rows.append(Row("proven", f"the {len(rows)} evaluations that {self._name} repeats are those that were signed"))
        self._comparison(results)
        self._hashes(results)
        if any(name in value for name in ("stages", "source")):
            self.rows.append(Row("unchecked", f"the recipe's text in {self._name} is not signed; what was done is in the statements above"))

    def _attested(self, item: Any) -> bool:
        try:
            digest = Digest.parse(item["digest"])
        except (KeyError, TypeError, StoreError):
            return False
        said = {key: value for key, value in item.items() if key not in ("subject", "digest", "entry")}
        return any(
            one.statement.predicate_type == predicates.EVALUATION and dict(one.statement.predicate) == said
            for one in self._examination.sift(digest)[0]
        )

    def _comparison(self, results: Mapping[str, Any]) -> None:
        if "comparison" not in results:
            return
        try:
            digest = Digest.of(canonical.dumps(results["comparison"]))
        except CanonicalError as error:
            self.rows.append(Row("failed", f"the comparison in {self._name} cannot be hashed: {error}"))
            return
        if digest in self._subjects:
            self.rows.append(Row("proven", f"the comparison in {self._name} is the attested report {digest.short}"))
        else:
            self.rows.append(
                Row("failed", f"the comparison in {self._name} is not what a trusted run reported: it hashes to {digest.short}")
            )

    def _hashes(self, results: Mapping[str, Any]) -> None:
        integrity = results.get("integrity")
        listed = integrity.get("fileHashes") if isinstance(integrity, dict) else None
        known = self._subjects | self._matching | {file.digest for one in self._bundle.receipt.trees.values() for file in one.entries}
        for item in listed if isinstance(listed, list) else []:
            text = f"sha256:{item.get('sha256')}" if isinstance(item, dict) else "?"
            if not any(str(digest) == text for digest in known):
                self.rows.append(Row("failed", f"{self._name} lists a file {printable(str(item))} that no trusted statement covers"))

    # the places

    def _places(self) -> None:
        bundle = self._bundle
        placed = sum(entry.number != UNPLACED for entry in bundle.entries)
        if bundle.anchored_by:
            who = " and ".join(bundle.anchored_by)
            log = f"log {bundle.origin} ({bundle.size:,} entries, checkpoint signed by {who})"
            text = f"{placed} of {len(bundle.entries)} statements are entries of {log}"
            self.rows.append(Row("proven" if placed == len(bundle.entries) else "unchecked", text))
        elif self._bundle.receipt.checkpoint is not None:
            keys = ", ".join(sorted(self._policy.log_keys)) or "nobody"
            self.rows.append(
                Row(
                    "unknown",
                    f"when it was said: the checkpoint is not signed by a key that {self._policy.source} lets sign a log ({keys})",
                )
            )
        else:
            self.rows.append(Row("unknown", f"when it was said: {self._name} has no receipt of a log"))


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _folders(present: Tree) -> list[tuple[str, Tree]]:
    """Each folder below, outermost first: its path with a slash at the end ("" for the top), and what is in it."""
    paths = {""} | {
        "/".join(parts[:depth]) + "/" for file in present.entries for parts in [file.path.split("/")] for depth in range(1, len(parts))
    }
    made = []
    for where in sorted(paths):
        inside = [
            tree.TreeEntry(file.path[len(where) :], file.digest, file.size) for file in present.entries if file.path.startswith(where)
        ]
        made.append((where, Tree.of(inside)))
    return made

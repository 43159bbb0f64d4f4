"""What travels: an alloy and its attestations, with the files beside them, checked without the ledger.

The envelopes are checked against the policy, their places against the receipt, the numbers in the alloy against what was signed, and
every file that lies in the same folder: what attestations name must have the attested bytes, and what can change a model must be named.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ledger import lookup, predicates
from ledger.alloy import model_hash
from ledger.bundle import MAX_BUNDLE_BYTES, Bundle, Receipt
from ledger.entries import UNPLACED
from ledger.errors import ProofError, VerificationError
from ledger.examine import Examination, differences, folder_of
from ledger.policy import Policy
from ledger.report import Report, Row, printable
from store import canonical, files, tree
from store.digest import Digest
from store.errors import CanonicalError, StoreError
from store.tree import Tree

ALLOY, ATTESTATIONS = ".alloy.json", ".attestations.jsonl"
WEIGHTS = (
    ".safetensors", ".gguf", ".ggml", ".bin", ".pt", ".pt2", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz", ".onnx",
    ".h5", ".keras", ".msgpack", ".llamafile",
)  # fmt: skip
"""Files that are, or can be taken for, a model's weights: in a published folder each must be named by somebody trusted."""

CODE = ".py"
"""Files that some loaders run: likewise, in a folder that holds weights."""

DOCUMENTS = (".md", ".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".pdf", ".gitattributes", ".gitignore", "license", "notice", ".sig")
"""What no loader reads. All else beside weights other than GGUF can change what is loaded: a configuration, a template, an adapter."""

MAX_ALLOY_BYTES = 64 * 2**20


def published(path: Path) -> list[Path]:
    """The alloys at a path: itself, or those in a folder that have their attestations beside them."""
    if path.is_dir():
        return [alloy for alloy in sorted(path.glob(f"*{ALLOY}")) if attestations_of(alloy).is_file()]
    return [path] if path.name.endswith(ALLOY) else []


def attestations_of(alloy: Path) -> Path:
    """Where the envelopes of an alloy are: `<name>.attestations.jsonl` beside it."""
    return alloy.with_name(alloy.name.removesuffix(ALLOY) + ATTESTATIONS)


def read(alloy: Path, policy: Policy) -> tuple[dict[str, Any], Bundle]:
    """An alloy's JSON, and its attestations with their places.

    Raises:
        VerificationError, StoreError: one of the two files is missing, too large, or not what it should be.
    """
    value = canonical.loads(files.read_small(alloy, MAX_ALLOY_BYTES))
    if not isinstance(value, dict):
        raise ProofError("an alloy is a JSON object")
    receipt = value.get("receipt")
    inner = receipt.get("ledger") if isinstance(receipt, dict) else None
    lines = files.read_small(attestations_of(alloy), MAX_BUNDLE_BYTES)
    return value, Bundle(lines, Receipt.parse(inner) if inner is not None else None, policy)


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
    travelling = {name for alloy in alloys for name in (alloy.name, attestations_of(alloy).name)}
    try:
        present = tree.hash_folder(folder, skip=lambda name: _skipped(name) or name in travelling)
    except StoreError as error:
        return Report(str(path), (Row("failed", str(error)),))
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
        self._outputs: dict[Digest, set[str]] = {}  # what the alloy calls its results
        self._matching: set[Digest] = set()  # contents of the files here that are as attested
        try:
            value, bundle = read(alloy, policy)
        except (VerificationError, StoreError, OSError) as error:
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
        called = set[tuple[str, str]]()
        for item in listed if isinstance(listed, list) else []:
            try:
                digest, output = Digest.parse(item["digest"]), str(item["output"])
                # Anybody can write such a label, so it is shown as a quotation, with what it stands for.
                label = printable(f"{item['stage']} {output}", 80).replace("'", "?")
                named.setdefault(digest, f"the result '{label}' ({digest.short})")
                self._outputs.setdefault(digest, set()).add(output)
                if (str(item["stage"]), output) in called:
                    self.rows.append(Row("failed", f"{self._name} names two results '{label}'"))
                called.add((str(item["stage"]), output))
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
        pieces = {file.digest: one for one in trees.values() for file in one.entries if _is(file.path, WEIGHTS)}
        for where, here in _folders(self._present):
            for digest, one in sorted(trees.items(), key=lambda pair: -len(pair[1].entries)):
                if where in settled and digest not in artifacts:
                    continue  # a part of the folder that is settled as a whole
                mine = {file.path: file for file in here.entries}
                if one.entries and all(mine.get(file.path) == file for file in one.entries):
                    settled.add(where)
                    covered |= {where + file.path for file in one.entries}
                    self._matched(artifacts, digest, f"{where or './'} (all {len(one.entries)} files, {one.size:,} bytes)")
            if here.digest in self._subjects | self._inputs and where not in settled:
                settled.add(where)
                covered |= {where + file.path for file in here.entries}
                self._matched(artifacts, here.digest, f"{where or './'} (all {len(here.entries)} files, {here.size:,} bytes)")
        for file in self._present.entries:
            if file.digest in self._subjects | self._inputs and (file.path not in covered or file.digest in artifacts):
                if file.path not in covered and file.digest in pieces and file.digest not in artifacts:
                    continue  # a shard of a model is nothing without the rest of it
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
        loose = [file for file in self._present.entries if file.path not in covered | differing]
        weighty = {_parent(file.path) for file in self._present.entries if _is(file.path, WEIGHTS)}
        loaded = {_parent(file.path) for file in self._present.entries if _is(file.path, WEIGHTS) and not _is(file.path, (".gguf",))}
        risky = [file for file in loose if _is(file.path, WEIGHTS) or _changes(file.path, weighty, loaded)]
        for file in risky:
            text = f"{file.path}, {file.size:,} bytes, is named by no trusted statement ({file.digest}); a model may be loaded from it"
            if file.digest in pieces:
                text = f"{file.path}, {file.size:,} bytes, is a piece of {folder_of(pieces[file.digest])}, which is not here as it was made"
            self.rows.append(Row("failed", text, "Take it from where it was published, or delete it"))
        others = [file.path for file in loose if file not in risky and file.digest not in content]
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
        unsigned = [str(key) for key in value if key not in ("results", "receipt")]
        unsigned += [f"results.{key}" for key in results if key not in ("artifacts", "benchmarks", "comparison", "integrity")]
        integrity = results.get("integrity")
        unsigned += [
            f"integrity.{key}" for key in (integrity if isinstance(integrity, dict) else ()) if key not in ("fileHashes", "modelHash")
        ]
        if unsigned:
            shown = ", ".join(printable(key, 40) for key in unsigned[:24]) + (
                f" and {len(unsigned) - 24} more" if len(unsigned) > 24 else ""
            )
            text = f"signed by nobody in {self._name}: {shown}; what was done is in the statements above"
            self.rows.append(Row("unchecked", text))

    def _attested(self, item: Any) -> bool:
        try:
            digest = Digest.parse(item["digest"])
        except (KeyError, TypeError, StoreError):
            return False
        said = {key: value for key, value in item.items() if key not in ("subject", "digest", "entry")}
        called = self._outputs.get(digest, set[str]())
        return any(
            one.statement.predicate_type == predicates.EVALUATION
            and dict(one.statement.predicate) == said
            # Else a number of one model could be shown as another's: the rows of an alloy are read by their names.
            and bool(called)
            and item.get("subject") in called | {name for name, about in one.statement.subjects.items() if about == digest}
            and (one.entry.number == UNPLACED or item.get("entry", one.entry.number) == one.entry.number)
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
        if digest in self._subjects and digest in self._outputs:
            self.rows.append(Row("proven", f"the comparison in {self._name} is the attested report {digest.short}"))
        else:
            self.rows.append(
                Row("failed", f"the comparison in {self._name} is not what a trusted run reported: it hashes to {digest.short}")
            )

    def _hashes(self, results: Mapping[str, Any]) -> None:
        """Compare the list of weight files, with their names and sizes, and the hash over it."""
        integrity = results.get("integrity")
        integrity = integrity if isinstance(integrity, dict) else {}
        files_of = [file for digest, one in self._bundle.receipt.trees.items() if digest in self._subjects for file in one.entries]
        files_of += [file for file in self._present.entries if file.digest in self._subjects or file.digest in self._matching]
        known: dict[Digest, set[str]] = {digest: set() for digest in self._subjects}
        sizes = {file.digest: file.size for file in files_of}
        for file in files_of:
            known.setdefault(file.digest, set()).update((file.path, file.path.rpartition("/")[2]))
        for digest, outputs in self._outputs.items():
            known.get(digest, set()).update(f"{output.removeprefix('gguf-')}.gguf" for output in outputs)
        listed: list[tuple[str, Digest]] = []
        rows = integrity.get("fileHashes") or []
        each: list[Any] = rows if isinstance(rows, list) else [None]
        for item in each:
            try:
                name, digest = item["filename"], Digest.parse(f"sha256:{item['sha256']}")
                fits = name in known.get(digest, ()) and item.get("size") == sizes.get(digest, item.get("size"))
                listed.append((str(name), digest))
            except (KeyError, TypeError, StoreError):
                fits = False
            if not fits:
                self.rows.append(Row("failed", f"{self._name} lists a file {printable(str(item))} that no trusted statement covers"))
        artifacts = results.get("artifacts")
        for item in artifacts if isinstance(artifacts, list) else []:
            size = next((size for digest, size in sizes.items() if isinstance(item, dict) and str(digest) == item.get("digest")), None)
            if size is not None and item.get("sizeBytes", size) != size:
                self.rows.append(Row("failed", f"{self._name} lists a result {printable(str(item))} that has {size:,} bytes"))
        stated = integrity.get("modelHash")
        if stated is not None and (not listed or stated != str(model_hash(listed))):
            text = f"{self._name} states the modelHash {printable(str(stated), 80)}; the files that it lists give another"
            self.rows.append(Row("failed", text, "Take it again from where it was published"))

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


def _is(path: str, endings: tuple[str, ...]) -> bool:
    return path.casefold().endswith(endings)


def _changes(path: str, weighty: set[str], loaded: set[str]) -> bool:
    """Whether a file changes what is loaded from its folder, of those that hold weights, and those that hold others than GGUF files."""
    folder, name = _parent(path), path.rpartition("/")[2].casefold()
    if name.endswith(CODE) and folder in weighty:
        return True
    beside = folder in loaded or folder.removesuffix("additional_chat_templates").removesuffix("/") in loaded
    return beside and not (name.endswith(DOCUMENTS) or name.startswith(("license", "notice", "use_policy")))


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

"""What travels: an alloy and its attestations, with the files beside them, checked without the ledger.

The envelopes are checked against the policy, their places against the receipt, and the numbers in the alloy against what was signed.

Of a folder with alloys every file is judged too: what attestations name must have the attested bytes, and what can change a model must
be named by one of the alloys. An alloy file alone may lie anywhere, in a working folder say, so there only what it means is looked for,
and nothing else is judged. Any other file is judged by what the alloys beside it say of it, and by nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ledger import lookup, predicates
from ledger.alloy import deliverables, model_hash, recipe_hash
from ledger.bundle import MAX_BUNDLE_BYTES, Bundle, Receipt
from ledger.entries import UNPLACED
from ledger.errors import ProofError, VerificationError
from ledger.examine import Examination, differences, folder_of
from ledger.policy import Policy
from ledger.report import Report, Row, printable
from store import canonical, files, tree
from store.digest import Digest
from store.errors import CanonicalError, StoreError
from store.tree import Tree, TreeEntry

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

MAX_LOOKED_AT = 200_000
"""Files among which those of an alloy are looked for: it may lie in a home folder."""


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
    """Check an alloy, or a folder with some, by the attestations that lie beside them; see the module."""
    alloys = published(path)
    if not alloys:
        text = f"{path} has no {ALLOY[1:]} with its {ATTESTATIONS[1:]} beside it"
        return Report(str(path), (Row("failed", text, "Ask for both; they travel together"),))
    judged = [_Alloy(alloy, policy) for alloy in alloys]
    rows = _judge_all(path, judged) if path.is_dir() else _look_for(path.parent, judged[0])
    return Report(str(path), (*rows, *(row for one in judged for row in one.findings())))


def examine_file(path: Path, digest: Digest, policy: Policy) -> Report | None:
    """What the attestations beside a file prove about it, whatever else lies there; None when none of them is about it.

    `digest` is the file's.
    """
    for alloy in published(path.parent):
        one = _Alloy(alloy, policy)
        if (rows := one.about(digest, f"{path.name}, these {path.stat().st_size:,} bytes,")) is not None:
            return Report(str(path), tuple(rows))
    return None


def _judge_all(folder: Path, alloys: Sequence[_Alloy]) -> list[Row]:
    """The findings about a folder that no single alloy answers for: each file must be named by one of them."""
    travelling = {name for one in alloys for name in (one.path.name, attestations_of(one.path).name)}
    hidden: set[str] = set()

    def skip(name: str) -> bool:
        if _name(name).startswith(".") and (folder / name).is_dir():
            hidden.add(name)
        return name in hidden or name in travelling

    try:
        present = tree.hash_folder(folder, skip=skip).entries
    except StoreError as error:
        return [Row("failed", str(error))]
    rows: list[Row] = []
    covered, settled, differing = set[str](), set[str](), set[str]()
    for one in alloys:
        paths, folders = one.match(present, whole=True)
        covered |= paths
        settled |= folders
    trees = {digest: listing for one in alloys for digest, listing in one.trees.items()}
    for where, here in _folders(present):
        if where not in settled and any(where + path not in covered for path in here):
            found = differences(Tree.of(here.values()), trees.values(), where)
            rows += found
            differing |= {where + path for path in here} if found else set()
    content = {file.digest for listing in trees.values() for file in listing.entries}
    pieces = {file.digest: listing for listing in trees.values() for file in listing.entries if _is(file.path, WEIGHTS)}
    loose = [file for file in present if file.path not in covered | differing]
    weighty = {_parent(file.path) for file in present if _is(file.path, WEIGHTS)}
    loaded = {_parent(file.path) for file in present if _is(file.path, WEIGHTS) and not _is(file.path, (".gguf",))}
    risky = [file for file in loose if _is(file.path, WEIGHTS) or _changes(file.path, weighty, loaded)]
    for file in risky:
        text = f"{file.path}, {file.size:,} bytes, is named by no trusted statement ({file.digest}); a model may be loaded from it"
        if file.digest in pieces:
            text = f"{file.path}, {file.size:,} bytes, is a piece of {folder_of(pieces[file.digest])}, which is not here as it was made"
        rows.append(Row("failed", text, "Take it from where it was published, or delete it"))
    others = [file.path for file in loose if file not in risky and file.digest not in content]
    if others:
        rows.append(Row("unverified", f"{_some(others)}: named by no attestation"))
    if hidden:
        rows.append(Row("unverified", f"{_some(sorted(hidden))}: not looked into"))
    return rows


def _look_for(folder: Path, alloy: _Alloy) -> list[Row]:
    """Match the files at and below a folder that an alloy can mean, told by their size. Others are not even read."""
    sizes = alloy.sizes()
    found: list[TreeEntry] = []
    strange: list[str] = []
    rows: list[Row] = []
    for number, (path, size) in enumerate(_walk(folder)):
        if number == MAX_LOOKED_AT:
            rows.append(
                Row("unverified", f"more than {MAX_LOOKED_AT:,} files lie at and below {alloy.path.name}: the rest was not looked at")
            )
            break
        if size not in sizes:
            continue
        try:
            digest, size = files.hash_file(folder / path)
        except (StoreError, OSError):
            continue  # nothing is claimed of it
        if digest in alloy.content:
            found.append(TreeEntry(path, digest, size))
        elif _is(path, WEIGHTS):
            strange.append(path)
    covered, settled = alloy.match(found, whole=False)
    rows += [_risk(path) for where in sorted(settled) for path in _beside(folder, where) if path not in covered]
    if strange:
        text = f"{_some(strange)}: as large as a file that is attested, with other bytes; not judged here"
        rows.append(Row("unverified", text, "Name the file or its folder to `ledger verify`"))
    return rows


def _beside(folder: Path, where: str) -> list[str]:
    """What in a folder changes the model that is loaded from it, whatever it is: links too, which a loader follows."""
    inside = where.removesuffix("/")
    templates = f"{where}additional_chat_templates"
    names = [where + item.name for item in os.scandir(folder / inside) if not item.is_dir()]
    if (folder / templates).is_dir():
        names += [f"{templates}/{item.name}" for item in os.scandir(folder / templates)]
    loaded = {inside} if any(_is(name, WEIGHTS) and not _is(name, (".gguf",)) for name in names) else set[str]()
    return sorted(
        name for name in names if not _is(name, (ALLOY, ATTESTATIONS)) and (_is(name, WEIGHTS) or _changes(name, {inside}, loaded))
    )


def _risk(path: str) -> Row:
    text = f"{path} is named by no trusted statement, and lies in a folder that is attested without it; a model may be loaded from it"
    return Row("failed", text, "Take the folder from where it was published, or delete the file")


def _walk(folder: Path) -> Iterator[tuple[str, int]]:
    """(path, size) of the regular files at and below a folder, nearest first; no links, no dot-folders, nothing that is barred."""
    folders = [""]
    for prefix in folders:  # grows meanwhile
        try:
            with os.scandir(folder / prefix) as items:
                here = sorted(items, key=lambda item: item.name)
        except OSError:
            continue
        for item in here:
            try:
                if item.is_dir(follow_symlinks=False):
                    folders += [] if item.name.startswith(".") else [f"{prefix}{item.name}/"]
                elif item.is_file(follow_symlinks=False):
                    yield prefix + item.name, item.stat(follow_symlinks=False).st_size
            except OSError:
                continue


class _Alloy:
    """One alloy, with what its attestations prove about itself and about files."""

    def __init__(self, path: Path, policy: Policy) -> None:
        self.path, self._name, self._policy = path, path.name, policy
        self.trees: Mapping[Digest, Tree] = {}
        """The folders that trusted statements are about or took: digest -> files."""
        self.content: Collection[Digest] = ()
        """Everything that trusted statements are about or took, and the files of the folders among it."""
        self._problems: list[Row] = []
        self._here: list[TreeEntry] = []  # files that are as attested
        self._inputs_here: list[str] = []
        self._present_here: set[Digest] = set()
        self._outputs: dict[Digest, set[str]] = {}  # what the alloy calls its results
        self._listed: list[tuple[str, str, Digest]] = []  # its results in its order: stage, output, digest
        self._artifacts: dict[Digest, str] = {}  # its results: digest -> what it is, for people
        self._actions: set[Digest] = set()  # keys of the trusted runs
        self._value: dict[str, Any] | None = None
        try:
            self._value, self._bundle = read(path, policy)
        except (VerificationError, StoreError, OSError) as error:
            self._problems.append(Row("failed", f"{path.name}: {error}", "Take both files again from where they were published"))
            return
        self._examination = Examination(self._bundle, policy, self._bundle.receipt.trees.values)
        self._problems += [Row("failed", f"{attestations_of(path).name}: {problem}") for problem in self._bundle.problems]
        self._subjects, self._inputs = self._named()
        self._read_results(self._value)
        named = self._subjects | self._inputs
        self.trees = {digest: one for digest, one in self._bundle.receipt.trees.items() if digest in named}
        self.content = named | {file.digest for one in self.trees.values() for file in one.entries}

    def _named(self) -> tuple[set[Digest], set[Digest]]:
        """Digests that trusted statements are about, and those that trusted runs took."""
        subjects, inputs = set[Digest](), set[Digest]()
        for one in lookup.sift(self._bundle.entries, self._policy)[0]:
            subjects |= set(one.statement.subjects.values())
            if one.statement.predicate_type == predicates.RUN:
                action = predicates.action_of(one.statement)
                inputs |= set(action.inputs.values())
                self._actions.add(action.key)
        return subjects, inputs - subjects

    def _read_results(self, value: Mapping[str, Any]) -> None:
        """What the alloy names as its results."""
        called = set[tuple[str, str]]()
        for item in _list(_dict(value.get("results")).get("artifacts")):
            try:
                digest, stage, output = Digest.parse(item["digest"]), str(item["stage"]), str(item["output"])
            except (KeyError, TypeError, StoreError) as error:
                self._problems.append(Row("failed", f"{self._name}: results.artifacts cannot be read: {error!r}"))
                continue
            # Anybody can write such a label, so it is shown as a quotation, with what it stands for.
            label = printable(f"{stage} {output}", 80).replace("'", "?")
            self._artifacts.setdefault(digest, f"the result '{label}' ({digest.short})")
            self._outputs.setdefault(digest, set()).add(output)
            self._listed.append((stage, output, digest))
            if (stage, output) in called:
                self._problems.append(Row("failed", f"{self._name} names two results '{label}'"))
            called.add((stage, output))
        if not self._artifacts:
            self._problems.append(Row("failed", f"{self._name} names no artifact, so its attestations are about nothing of it"))

    # the files

    def sizes(self) -> set[int]:
        """The sizes in bytes of what the alloy and its attestations name, as far as they say them."""
        results = _dict((self._value or {}).get("results"))
        listed = [*_list(results.get("artifacts")), *_list(_dict(results.get("integrity")).get("fileHashes"))]
        said = [item.get(key) for item in listed if isinstance(item, dict) for key in ("sizeBytes", "size")]
        return {file.size for one in self.trees.values() for file in one.entries} | {size for size in said if type(size) is int}

    def match(self, present: Sequence[TreeEntry], *, whole: bool) -> tuple[set[str], set[str]]:
        """Find what is attested among files; gives the paths that are, and the folders that are as a whole.

        `whole` says that `present` is everything that lies there, so that a folder can be known by its digest alone.
        """
        covered, settled = set[str](), set[str]()
        if self._value is None:
            return covered, settled
        named = self._subjects | self._inputs
        pieces = {file.digest for one in self.trees.values() for file in one.entries if _is(file.path, WEIGHTS)}
        largest_first = sorted(self.trees.items(), key=lambda pair: -len(pair[1].entries))
        for where, here in _folders(present):
            for digest, one in largest_first:
                if where in settled and digest not in self._artifacts:
                    continue  # a part of the folder that is settled as a whole
                if one.entries and all(here.get(file.path) == file for file in one.entries):
                    settled.add(where)
                    covered |= {where + file.path for file in one.entries}
                    self._matched(digest, where or "./", f"{where or './'} (all {len(one.entries)} files, {one.size:,} bytes)")
            if whole and where not in settled and (unlisted := Tree.of(here.values())).digest in named:
                settled.add(where)
                covered |= {where + path for path in here}
                self._matched(unlisted.digest, where or "./", f"{where or './'} (all {len(here)} files, {unlisted.size:,} bytes)")
        for file in present:
            if file.digest in named and (file.path not in covered or file.digest in self._artifacts):
                if file.path not in covered and file.digest in pieces and file.digest not in self._artifacts:
                    continue  # a shard of a model is nothing without the rest of it
                self._matched(file.digest, file.path, f"{file.path}, {file.size:,} bytes,")
                covered.add(file.path)
        self._here = [file for file in present if file.path in covered]
        return covered, settled

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
        holders = [one for held, one in self.trees.items() if held in self._subjects and any(file.digest == digest for file in one.entries)]
        rows = self._examination.rows
        if self._examination.mentions(digest):
            self._examination.explain([(digest, what)])
        elif holders:
            path = next(file.path for file in holders[0].entries if file.digest == digest)
            rows.append(Row("proven", f"{what} are the file {path} of {folder_of(holders[0])}"))
            self._examination.explain([(holders[0].digest, folder_of(holders[0]))])
        else:
            return None
        return [*self._problems, *rows, self._places()]

    # the findings

    def findings(self) -> list[Row]:
        """Everything about the alloy itself and its results, after `match`."""
        rows = list(self._problems)
        if self._value is None:
            return rows
        if self._inputs_here:
            count = f"{len(self._inputs_here)} files here were inputs" if len(self._inputs_here) > 1 else "a file here was an input"
            rows.append(Row("proven", f"{count} of what is attested: {_some(self._inputs_here, 3)}"))
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
        return [*rows, *examination.rows, *self._numbers(self._value), self._places()]

    def _numbers(self, value: Mapping[str, Any]) -> list[Row]:
        """Compare what the alloy repeats with what was signed, and what it computes with what it is computed from."""
        results = _dict(value.get("results"))
        rows: list[Row] = []
        benchmarks = results.get("benchmarks") or []
        for item in benchmarks if isinstance(benchmarks, list) else [None]:
            if not self._attested(item):
                what = printable(str(item.get("benchmark", item.get("name", "?")))) if isinstance(item, dict) else "?"
                text = f"{self._name} gives a result of {what} that no trusted statement gives: {printable(str(item))}"
                rows.append(Row("failed", text))
        if benchmarks and not rows:
            rows.append(Row("proven", f"the {len(benchmarks)} evaluations that {self._name} repeats are those that were signed"))
        if "comparison" in results:
            rows.append(self._comparison(results["comparison"]))
        rows += self._actions_of(results)
        hashes, sizes_open = self._hashes(value, results)
        return [*rows, *hashes, *self._recipe(value), *self._unsigned(value, results, sizes_open)]

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

    def _comparison(self, comparison: Any) -> Row:
        try:
            digest = Digest.of(canonical.dumps(comparison))
        except CanonicalError as error:
            return Row("failed", f"the comparison in {self._name} cannot be hashed: {error}")
        if digest in self._subjects and digest in self._outputs:
            return Row("proven", f"the comparison in {self._name} is the attested report {digest.short}")
        return Row("failed", f"the comparison in {self._name} is not what a trusted run reported: it hashes to {digest.short}")

    def _actions_of(self, results: Mapping[str, Any]) -> list[Row]:
        """Compare the list of actions with the runs that were signed."""
        listed = results.get("actions") or []
        if not isinstance(listed, list):
            return [Row("failed", f"{self._name}: results.actions is no list")]
        known = {str(key) for key in self._actions}
        strange = [item for item in listed if not isinstance(item, str) or item not in known]
        if strange:
            first = printable(str(strange[0]), 80)
            return [Row("failed", f"{self._name} lists {len(strange)} actions of which no trusted run is attested, first {first}")]
        if not listed:
            return []
        more = len(known - set(listed))
        also = f", and {more} more runs are attested" if more else ""
        return [Row("proven", f"a trusted run is attested of each of the {len(set(listed)):,} actions that {self._name} lists{also}")]

    def _hashes(self, value: Mapping[str, Any], results: Mapping[str, Any]) -> tuple[list[Row], int]:
        """Compare the list of weight files, with their names and sizes, and the hash over it; and how many sizes could not be compared."""
        rows: list[Row] = []
        integrity = _dict(results.get("integrity"))
        attested = [file for digest, one in self.trees.items() if digest in self._subjects for file in one.entries] + self._here
        names: dict[Digest, set[str]] = {digest: set() for digest in self._subjects}
        sizes = {digest: len(one.to_bytes()) for digest, one in self.trees.items()} | {file.digest: file.size for file in attested}
        for file in attested:
            names.setdefault(file.digest, set()).update((file.path, _name(file.path)))
        for name, digest in deliverables(str(value.get("name", "")), self._listed).items():
            names.get(digest, set()).add(name)
            for file in self.trees[digest].entries if digest in self.trees else ():
                names.get(file.digest, set()).add(f"{name}/{file.path}")
        for digest, outputs in self._outputs.items():  # as older alloys name them
            names.get(digest, set()).update(f"{output.removeprefix('gguf-')}.gguf" for output in outputs)
        listed: list[tuple[str, Digest]] = []
        sizes_open = 0
        hashes = integrity.get("fileHashes") or []
        each: list[Any] = hashes if isinstance(hashes, list) else [None]
        for item in each:
            try:
                name, digest = item["filename"], Digest.parse(f"sha256:{item['sha256']}")
                fits = name in names.get(digest, ()) and _same_size(item.get("size"), sizes.get(digest))
                listed.append((str(name), digest))
                sizes_open += "size" in item and digest not in sizes
            except (KeyError, TypeError, StoreError):
                fits = False
            if not fits:
                rows.append(Row("failed", f"{self._name} lists a file {printable(str(item))} that no trusted statement covers"))
        for item in _list(results.get("artifacts")):
            size = next((size for digest, size in sizes.items() if str(digest) == _dict(item).get("digest")), None)
            if not _same_size(_dict(item).get("sizeBytes"), size):
                text = f"{self._name} lists a result {printable(str(item))}" + (f" that has {size:,} bytes" if size is not None else "")
                rows.append(Row("failed", text))
            sizes_open += "sizeBytes" in _dict(item) and size is None
        stated = integrity.get("modelHash")
        if stated is not None and (not listed or stated != str(model_hash(listed))):
            text = f"{self._name} states the modelHash {printable(str(stated), 80)}; the files that it lists give another"
            rows.append(Row("failed", text, "Take it again from where it was published"))
        elif stated is not None and not rows:
            rows.append(
                Row("proven", f"modelHash is that of the {len(listed)} weight files that {self._name} lists, each of them attested")
            )
        return rows, sizes_open

    def _recipe(self, value: Mapping[str, Any]) -> list[Row]:
        """Compute the hash of the recipe again, and look for its materials among what was taken."""
        if "recipeHash" not in value or "materials" not in value:
            return []
        materials = value["materials"]
        try:
            if not isinstance(materials, dict):
                raise ProofError("its materials are no object")
            digests = {name: Digest.parse(text) for name, text in materials.items()}
            computed = recipe_hash(value, {name: str(digest) for name, digest in digests.items()})
        except (ProofError, StoreError, TypeError) as error:
            return [Row("failed", f"{self._name}: its recipeHash cannot be computed: {error}")]
        if str(computed) != value["recipeHash"]:
            stated = printable(str(value["recipeHash"]), 80)
            return [Row("failed", f"{self._name} states the recipeHash {stated}; its recipe and materials give {computed}")]
        unused = sorted(printable(name, 60) for name, digest in digests.items() if digest not in self._subjects | self._inputs)
        return [Row("unverified", f"{_some(unused)}: named by the recipe, and taken by no trusted run that is attested")] if unused else []

    def _unsigned(self, value: Mapping[str, Any], results: Mapping[str, Any], sizes_open: int) -> list[Row]:
        """What nobody signed and nothing that was signed gives."""
        recomputed = "recipeHash" in value and "materials" in value
        checked = ("results", "receipt", *(("recipeHash",) if recomputed else ()))
        names = [str(key) for key in value if key not in checked]
        also = ("actions",) if results.get("actions") else ()
        names += [f"results.{key}" for key in results if key not in ("artifacts", "benchmarks", "comparison", "integrity", *also)]
        names += [f"integrity.{key}" for key in _dict(results.get("integrity")) if key not in ("fileHashes", "modelHash")]
        if sizes_open:
            names.append(f"{sizes_open} sizes of what was not found")
        if not names:
            return []
        also_hashed = "; recipeHash is that of the recipe as it stands there" if recomputed else ""
        shown = _some([printable(name, 40) for name in names], 24)
        text = f"signed by nobody in {self._name}: {shown}{also_hashed}; what was done is in the statements above"
        return [Row("self-reported", text)]

    def _places(self) -> Row:
        bundle = self._bundle
        placed = sum(entry.number != UNPLACED for entry in bundle.entries)
        if bundle.anchored_by:
            who = " and ".join(bundle.anchored_by)
            log = f"log {bundle.origin} ({bundle.size:,} entries, checkpoint signed by {who})"
            text = f"{placed} of {len(bundle.entries)} statements are entries of {log}"
            return Row("proven", text, aside=True) if placed == len(bundle.entries) else Row("unverified", text)
        if bundle.receipt.checkpoint is None:
            return Row("unverified", f"when it was said: {self._name} has no receipt of a log")
        keys = ", ".join(sorted(self._policy.log_keys)) or "nobody"
        text = f"when it was said: the checkpoint is not signed by a key that {self._policy.source} lets sign a log ({keys})"
        return Row("unverified", text)


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _same_size(said: object, size: int | None) -> bool:
    """Whether a size that an alloy says, if it says one, is that of the bytes, if they are known."""
    return said is None or (type(said) is int and said >= 0 and size in (None, said))


def _some(names: Sequence[str], count: int = 6) -> str:
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _is(path: str, endings: tuple[str, ...]) -> bool:
    return path.casefold().endswith(endings)


def _changes(path: str, weighty: set[str], loaded: set[str]) -> bool:
    """Whether a file changes what is loaded from its folder, of those that hold weights, and those that hold others than GGUF files."""
    folder, name = _parent(path), _name(path).casefold()
    if name.endswith(CODE) and folder in weighty:
        return True
    beside = folder in loaded or folder.removesuffix("additional_chat_templates").removesuffix("/") in loaded
    return beside and not (name.endswith(DOCUMENTS) or name.startswith(("license", "notice", "use_policy")))


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _folders(present: Sequence[TreeEntry]) -> list[tuple[str, dict[str, TreeEntry]]]:
    """Each folder below, outermost first: its path with a slash at the end ("" for the top), and what is in it, by path from there."""
    folders: dict[str, dict[str, TreeEntry]] = {"": {}}
    for file in present:
        parts = file.path.split("/")
        for depth in range(len(parts)):
            where = "".join(f"{part}/" for part in parts[:depth])
            inner = "/".join(parts[depth:])
            folders.setdefault(where, {})[inner] = TreeEntry(inner, file.digest, file.size)
    return sorted(folders.items())

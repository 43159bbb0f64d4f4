"""What an alloy repeats of what was signed, and what it computes: each number, name, size and hash against the statements beside it.

Anybody can write an alloy, and people read it rather than the statements. So whatever it says that a trusted statement says too, or that
follows from one, is compared or computed again; what nobody signed is named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ledger import alloy_format, predicates
from ledger.alloy import HASHED, MEASURED, PLACE, Evaluation, baselines, deliverables, measured, model_hash, recipe_hash
from ledger.entries import UNPLACED
from ledger.errors import ProofError
from ledger.examine import Examination
from ledger.inventory import base, some
from ledger.loose import as_dict, as_list
from ledger.report import Row, printable
from store import canonical
from store.digest import Digest
from store.errors import CanonicalError, StoreError
from store.tree import Tree, TreeEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class Retold:
    """What trusted statements say, for comparing an alloy with it.

    Attributes:
        name: of the alloy file.
        examination: the statements about each digest.
        subjects: what trusted statements are about. inputs: what trusted runs took. actions: keys of these runs.
        records: action -> (name, digest) of the records of each item that its trusted runs gave.
        outputs: what the alloy calls its results, by digest. results: (stage, output, digest) of them, in its order.
        trees: the folders among subjects and inputs. here: files that are there and as attested.
        vouched: who vouches for the alloy's own bytes; empty when nobody does. released_by: who signed their release, likewise.
    """

    name: str
    examination: Examination
    subjects: frozenset[Digest]
    inputs: frozenset[Digest]
    actions: frozenset[Digest]
    records: Mapping[str, set[tuple[str, Digest]]]
    outputs: Mapping[Digest, set[str]]
    results: Sequence[tuple[str, str, Digest]]
    trees: Mapping[Digest, Tree]
    here: Sequence[TreeEntry]
    vouched: str
    released_by: str

    def findings(self, value: Mapping[str, Any]) -> list[Row]:
        """Compare what the alloy repeats with what was signed, and what it computes with what it is computed from."""
        results = as_dict(value.get("results"))
        rows: list[Row] = []
        benchmarks = results.get("benchmarks") or []
        for item in benchmarks if isinstance(benchmarks, list) else [None]:
            if not self._attested(item):
                what = printable(str(item.get("benchmark", item.get("name", "?")))) if isinstance(item, dict) else "?"
                text = f"{self.name} gives a result of {what} that no trusted statement gives: {printable(str(item))}"
                rows.append(Row("failed", text))
        if benchmarks and not rows:
            rows.append(Row("proven", f"the {len(benchmarks)} evaluations that {self.name} repeats are those that were signed"))
            rows += self._derived(benchmarks, results.get("comparison"))
        if "comparison" in results:
            rows.append(self._comparison(results["comparison"]))
        rows += self._actions_of(results)
        hashes, sizes_open = self._hashes(value, results)
        return [*rows, *hashes, *self._recipe(value), *self._form(value), *self._unsigned(value, results, sizes_open)]

    def _form(self, value: Mapping[str, Any]) -> list[Row]:
        """What is not of the format. Whoever vouches for the bytes may have used a later one; else somebody put it there."""
        faults = [fault for fault in alloy_format.faults(value, what=self.name, stages=False) if not fault.missing]
        if not faults:
            return []
        text = f"{self.name} is not of the format: {some([printable(str(fault), 120) for fault in faults])}"
        if self.vouched:
            return [Row("unverified", text, "a later version of this program may know it")]
        return [Row("failed", text, "Take it again from where it was published, or verify it with the version that wrote it")]

    def _attested(self, item: Any) -> bool:
        try:
            digest = Digest.parse(item["digest"])
        except (KeyError, TypeError, StoreError):
            return False
        said = _signed(item)
        called = self.outputs.get(digest, set[str]())
        return any(
            one.statement.predicate_type == predicates.EVALUATION
            and dict(one.statement.predicate) == said
            # Else a number of one model could be shown as another's: the rows of an alloy are read by their names.
            and bool(called)
            and isinstance(item.get("subject"), str)
            and item["subject"] in called | {name for name, about in one.statement.subjects.items() if about == digest}
            and (one.entry.number == UNPLACED or item.get("entry", one.entry.number) == one.entry.number)
            for one in self.examination.sift(digest)[0]
        )

    def _derived(self, benchmarks: Sequence[Mapping[str, Any]], comparison: Any) -> list[Row]:
        """Compute again what each result says besides what was signed: its score, its baseline's, and the hashes of their records."""
        made: list[Evaluation] = []
        for item in benchmarks:
            said = _signed(item)
            records = self.records.get(str(said.get("action")), set())
            meant = [record for record in records if str(record[1]) == item.get("resultHash")]  # where trusted runs contradict each other
            record = next(iter([*meant, *sorted(records)]), None)
            made.append(Evaluation(digest=Digest.parse(item["digest"]), predicate=said, record=record))
        bases = baselines(comparison)
        rows: list[Row] = []
        hashed = 0
        for item, one in zip(benchmarks, made, strict=True):
            right = measured(one, made, bases)
            wrong = [key for key in MEASURED if key in item and item[key] != right.get(key)]
            hashed += "resultHash" in item
            if wrong:
                texts = [f"{key} {printable(str(item[key]), 80)}, where {right.get(key, 'nothing')} follows" for key in wrong]
                text = f"{self.name} gives {printable(right['name'])} of {printable(str(item.get('subject')))} the {'; the '.join(texts)}"
                rows.append(Row("failed", f"{text} from what was signed", "Take it again from where it was published"))
        if hashed and not rows:
            rows.append(Row("proven", f"resultHash of {hashed} of them is the record of each item that the trusted run gave"))
        return rows

    def _comparison(self, comparison: Any) -> Row:
        try:
            digest = Digest.of(canonical.dumps(comparison))
        except CanonicalError as error:
            return Row("failed", f"the comparison in {self.name} cannot be hashed: {error}")
        if digest in self.subjects and digest in self.outputs:
            return Row("proven", f"the comparison in {self.name} is the attested report {digest.short}")
        return Row("failed", f"the comparison in {self.name} is not what a trusted run reported: it hashes to {digest.short}")

    def _actions_of(self, results: Mapping[str, Any]) -> list[Row]:
        """Compare the list of actions with the runs that were signed."""
        listed = results.get("actions") or []
        if not isinstance(listed, list):
            return [Row("failed", f"{self.name}: results.actions is no list")]
        known = {str(key) for key in self.actions}
        strange = [item for item in listed if not isinstance(item, str) or item not in known]
        if strange:
            first = printable(str(strange[0]), 80)
            return [Row("failed", f"{self.name} lists {len(strange)} actions of which no trusted run is attested, first {first}")]
        if not listed:
            return []
        more = len(known - set(listed))
        also = f", and {more} more runs are attested" if more else ""
        return [Row("proven", f"a trusted run is attested of each of the {len(set(listed)):,} actions that {self.name} lists{also}")]

    def _hashes(self, value: Mapping[str, Any], results: Mapping[str, Any]) -> tuple[list[Row], int]:
        """Compare the list of weight files, with their names and sizes, and the hash over it; and how many sizes could not be compared."""
        rows: list[Row] = []
        integrity = as_dict(results.get("integrity"))
        attested = [*(file for digest, one in self.trees.items() if digest in self.subjects for file in one.entries), *self.here]
        names: dict[Digest, set[str]] = {digest: set() for digest in self.subjects}
        sizes = {digest: len(one.to_bytes()) for digest, one in self.trees.items()} | {file.digest: file.size for file in attested}
        for file in attested:
            names.setdefault(file.digest, set()).update((file.path, base(file.path)))
        for name, digest in deliverables(str(value.get("name", "")), self.results).items():
            names.get(digest, set()).add(name)
            for file in self.trees[digest].entries if digest in self.trees else ():
                names.get(file.digest, set()).add(f"{name}/{file.path}")
        for digest, outputs in self.outputs.items():  # as older alloys name them
            names.get(digest, set()).update(f"{output.removeprefix('gguf-')}.gguf" for output in outputs)
        listed: list[tuple[str, Digest]] = []
        sizes_open = 0
        hashes = integrity.get("fileHashes") or []
        each: list[Any] = hashes if isinstance(hashes, list) else [None]
        for item in each:
            try:
                name, digest = item["filename"], Digest.parse(f"sha256:{item['sha256']}")
                fits = bool(self.vouched or name in names.get(digest, ())) and _same_size(item.get("size"), sizes.get(digest))
                listed.append((str(name), digest))
                sizes_open += "size" in item and digest not in sizes
            except (KeyError, TypeError, StoreError):
                fits = False
            if not fits:
                rows.append(Row("failed", f"{self.name} lists a file {printable(str(item))} that no trusted statement covers"))
        for item in as_list(results.get("artifacts")):
            size = next((size for digest, size in sizes.items() if str(digest) == as_dict(item).get("digest")), None)
            if not _same_size(as_dict(item).get("sizeBytes"), size):
                text = f"{self.name} lists a result {printable(str(item))}" + (f" that has {size:,} bytes" if size is not None else "")
                rows.append(Row("failed", text))
            sizes_open += "sizeBytes" in as_dict(item) and size is None
        stated = integrity.get("modelHash")
        weights = [(name, digest) for name, digest in listed if name.endswith(HASHED)]
        if stated is not None and (not weights or stated != str(model_hash(weights))):
            text = f"{self.name} states the modelHash {printable(str(stated), 80)}; the files that it lists give another"
            rows.append(Row("failed", text, "Take it again from where it was published"))
        elif stated is not None and not rows:
            text = f"modelHash is that of the {len(weights)} weight files that {self.name} lists, each of them attested"
            rows.append(Row("proven", text))
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
            return [Row("failed", f"{self.name}: its recipeHash cannot be computed: {error}")]
        if str(computed) != value["recipeHash"]:
            stated = printable(str(value["recipeHash"]), 80)
            return [Row("failed", f"{self.name} states the recipeHash {stated}; its recipe and materials give {computed}")]
        unused = sorted(printable(name, 60) for name, digest in digests.items() if digest not in self.subjects | self.inputs)
        return [Row("unverified", f"{some(unused)}: named by the recipe, and taken by no trusted run that is attested")] if unused else []

    def _unsigned(self, value: Mapping[str, Any], results: Mapping[str, Any], sizes_open: int) -> list[Row]:
        """What nobody signed and nothing that was signed gives."""
        recomputed = "recipeHash" in value and "materials" in value
        checked = ("results", "receipt", *(("recipeHash",) if recomputed else ()))
        names = [str(key) for key in value if key not in checked]
        also = ("actions",) if results.get("actions") else ()
        names += [f"results.{key}" for key in results if key not in ("artifacts", "benchmarks", "comparison", "integrity", *also)]
        names += [f"integrity.{key}" for key in as_dict(results.get("integrity")) if key not in ("fileHashes", "modelHash")]
        if sizes_open:
            names.append(f"{sizes_open} sizes of what was not found")
        if not names:
            return []
        also_hashed = "; recipeHash is that of the recipe as it stands there" if recomputed else ""
        shown = some([printable(name, 40) for name in names], 24)
        if self.released_by:
            text = f"the rest of {self.name}, which {self.released_by} released as a whole, and nobody confirmed: {shown}{also_hashed}"
            return [Row("attested", text)]
        text = f"signed by nobody in {self.name}: {shown}{also_hashed}; what was done is in the statements above"
        return [Row("self-reported", text)]


def _signed(item: Mapping[str, Any]) -> dict[str, Any]:
    """Of a result in an alloy, what was signed: all but what follows from it, and where it is."""
    return {key: value for key, value in item.items() if key not in MEASURED and key not in PLACE}


def _same_size(said: object, size: int | None) -> bool:
    """Whether a size that an alloy says, if it says one, is that of the bytes, if they are known."""
    return said is None or (type(said) is int and said >= 0 and size in (None, said))

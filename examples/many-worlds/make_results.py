"""Make docs/results/many-worlds.md and its pictures from what three runs attested: `make results`, or by hand

    ledger run recipe.yaml; ledger run baselines.yaml; ledger run bridges.yaml
    python make_results.py --alloys FOLDER --ledger .ledger

The alloys are verified first. Every number on the page is read out of an artifact that a trusted entry of the ledger is about, or computed
from such an artifact; what the prior art claimed is marked as that. The same artifacts give the same bytes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import results_page

from ledger import lookup, standing
from ledger.errors import LedgerError
from ledger.log import Log
from ledger.policy import Policy
from ledger.verify import verify_alloy
from store import canonical, tree
from store.digest import Digest
from store.errors import StoreError
from store.local import LocalCas

ROOT = Path(__file__).resolve().parents[2]
ALLOYS = {"main": "many-worlds", "baselines": "many-worlds-baselines", "bridges": "worlds-bridges"}
"""What a run is for -> the name of its recipe."""


class ResultsError(Exception):
    """There is no page: something is missing, changed, or attested by nobody who is trusted. The message says what to do."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Something that was used, and who attests it.

    Attributes:
        run, name: where it comes from: `main`, `gain.report`.
        entry: number of the first trusted entry about it.
    """

    run: str
    name: str
    digest: Digest
    entry: int
    signers: tuple[str, ...]


@dataclass
class Evidence:
    """The artifacts of verified alloys, read only where a trusted entry is about them. `used` notes what was read, in order."""

    log: Log
    store: LocalCas
    policy: Policy
    alloys: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, tuple[str, Digest, str]] = field(default_factory=dict)
    used: list[Piece] = field(default_factory=list)

    def add(self, run: str, path: Path) -> None:
        """Verify an alloy, and take it in.

        Raises:
            ResultsError: it is not there, or not VERIFIED.
        """
        if not path.is_file():
            raise ResultsError(f"{path} is not there: run its recipe first (make results), or name its folder with --alloys")
        report = verify_alloy(path, self.policy)
        if report.exit_code:
            faults = "; ".join(row.text for row in report.rows if row.status == "failed") or "no trusted statement is about it"
            raise ResultsError(f"{path} is {report.verdict}: {faults}. Nothing is shown of it; run its recipe again")
        data = path.read_bytes()
        self.alloys[run] = json.loads(data)
        self.files[run] = (path.name, Digest.of(data), report.verdict)

    def read(self, run: str, name: str, digest: Digest) -> bytes:
        """The bytes of an object that a trusted entry is about.

        Raises:
            ResultsError: no entry that counts is about it, or its bytes are gone or changed.
        """
        counting = lookup.sift(self.log.by_subject(digest), self.policy)[0]
        if not counting:
            raise ResultsError(
                f"{run}: {name} ({digest}) is attested by nobody whom the policy of this ledger trusts; run the recipe again"
            )
        try:
            data = self.store.read(digest)
        except StoreError as error:
            raise ResultsError(f"{run}: {name}: {error}. Run the recipe again: it makes anew what is lost") from error
        first = min(counting, key=lambda one: one.entry.number or 0)
        piece = Piece(run, name, digest, first.entry.number or 0, first.signers)
        if piece not in self.used:
            self.used.append(piece)
        return data

    def digest(self, run: str, stage: str, output: str) -> Digest:
        """What a stage of a run made.

        Raises:
            ResultsError: it made no such thing.
        """
        for item in self.alloys[run]["results"]["artifacts"]:
            if (item["stage"], item["output"]) == (stage, output):
                return Digest.parse(item["digest"])
        raise ResultsError(f"the alloy of {ALLOYS[run]} has no {stage}.{output}: was its recipe changed? Run it as it is in this folder")

    def data(self, run: str, stage: str, output: str) -> bytes:
        """An artifact's bytes. Raises ResultsError, as `digest` and `read`."""
        return self.read(run, f"{stage}.{output}", self.digest(run, stage, output))

    def json(self, run: str, stage: str, output: str) -> Any:
        """An artifact that is JSON. Raises ResultsError, as `data`."""
        return canonical.loads(self.data(run, stage, output))

    def config(self, run: str, stage: str) -> Mapping[str, Any]:
        """The config.json of an ensemble: its combiner, settings and members. Raises ResultsError, as `data`."""
        digest = self.digest(run, stage, "model")
        self.read(run, f"{stage}.model", digest)
        entry = next(item for item in tree.load(self.store, digest).entries if item.path == "config.json")
        value: Mapping[str, Any] = canonical.loads(self.store.read(entry.digest))
        return value

    def records(self, run: str, benchmark: str, model: Digest, sha256: str) -> bytes:
        """What became of each question of a data set that a model was asked. Raises ResultsError: it is not there, or as `read`."""
        for item in self.alloys[run]["results"]["benchmarks"]:
            asked = (item["name"], item["digest"], item["dataset"]["digest"]["sha256"])
            # Another recipe may have asked the same model; its records do not travel with this alloy, and it has no resultHash here.
            if asked == (benchmark, str(model), sha256) and "resultHash" in item:
                return self.read(run, f"records of {benchmark}", Digest.parse(item["resultHash"]))
        raise ResultsError(f"the alloy of {ALLOYS[run]} has no records of {benchmark} of {model}; run its recipe again")

    def stages(self, run: str, output: str) -> list[str]:
        """The stages of a run that gave an output of that name, in order."""
        return [item["stage"] for item in self.alloys[run]["results"]["artifacts"] if item["output"] == output]

    def dataset(self, run: str, sha256: str) -> str:
        """The name of the file, without its ending, that a run took with that SHA-256.

        Raises:
            ResultsError: it took none.
        """
        for path, digest in sorted(self.alloys[run]["materials"].items()):
            if digest == f"sha256:{sha256}":
                return Path(path).stem
        raise ResultsError(f"the alloy of {ALLOYS[run]} took no file with SHA-256 {sha256}; run its recipe again")

    def key(self, name: str) -> str:
        """A signer's public key."""
        return str(self.policy.keys[name])


def collect(ledger: Path, alloys: Path) -> Evidence:
    """Open a ledger, and verify the three alloys.

    Raises:
        ResultsError: as `Evidence.add`, or there is no ledger.
    """
    try:
        log = Log.open(ledger)
        policy = standing.of(log, Policy.load(ledger / "policy.yaml"))
    except LedgerError as error:
        raise ResultsError(f"{ledger} cannot be read as a ledger: {error}") from error
    evidence = Evidence(log, LocalCas.open_readonly(ledger), policy)
    for run, name in ALLOYS.items():
        evidence.add(run, alloys / f"{name}.alloy.json")
    return evidence


def write(evidence: Evidence, out: Path) -> list[Path]:
    """Write the page and its pictures into a folder; nothing is written when any number is missing.

    Raises:
        ResultsError: as `Evidence.read`.
    """
    made = results_page.page(evidence)
    out.mkdir(parents=True, exist_ok=True)
    for name, text in made.items():
        (out / name).write_bytes(text.encode())
    return [out / name for name in made]


def main() -> None:
    """Verify, read, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ledger", type=Path, default=Path(".ledger"), help="the ledger of the three runs")
    parser.add_argument("--alloys", type=Path, default=Path(), help="the folder with their alloys")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results")
    arguments = parser.parse_args()
    try:
        made = write(collect(arguments.ledger, arguments.alloys), arguments.out)
    except ResultsError as error:
        raise SystemExit(f"error: {error}") from error
    for path in made:
        print(path)


if __name__ == "__main__":
    main()

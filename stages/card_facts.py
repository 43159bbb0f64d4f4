"""What a model card can say: the facts, each number with who says it.

Every number stands in a `Measured`, a `Difference`, a `Result` or a `Step` that names the entry of the log that it rests on. Texts of
others are as they came. `stages.publish_facts` finds the facts out, `stages.publish_checks` judges them, `stages.card` writes them down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Who says something.

    Attributes:
        entry: number of the entry in the log.
        signers: names of the keys that signed it.
        others: names of the keys that have done again what it rests on, with the same outputs.
    """

    entry: int
    signers: tuple[str, ...]
    others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One evaluation. Numbers are as signed; None where the statement has none."""

    value: float
    stderr: float | None
    low: float | None
    high: float | None
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A paired difference to a baseline, in per cent.

    Attributes:
        baseline: what it is compared with, for people.
        verdict: `better`, `worse` or `not resolved`.
        limit: the most that the recipe allows, in per cent; accepted: what came of it; None and "" without a limit.
    """

    baseline: str
    percent: float
    low: float | None
    high: float | None
    verdict: str
    source: Source
    limit: float | None = None
    accepted: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One model in one type, as measured.

    Attributes:
        file: its name in the repository; "" for what is only compared with.
        variant, tier: `this model`, `base`, `control random`; `Q4_K_M`.
        size_bytes: of the file; None for what is no file.
    """

    file: str
    variant: str
    tier: str
    size_bytes: int | None
    measured: Measured
    difference: Difference | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Perplexities on one dataset.

    Attributes:
        dataset: its name in the recipe; digest: hex SHA-256. scored: tokens. context: tokens of a chunk. toolchains: what measured.
        notes: what the runs were warned of.
    """

    dataset: str
    digest: str
    scored: int
    context: int
    chunks: int
    toolchains: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A paired difference of accuracies.

    Attributes:
        baseline: what it is compared with, for people.
        mean, low, high: as parts of the questions; None without an interval.
        wins, losses: questions that only one of both got right.
        p: adjusted for the tests of its report; of a further outcome the plain one. verdict: as there; "" of a further outcome.
    """

    baseline: str
    mean: float
    low: float | None
    high: float | None
    wins: int
    losses: int
    p: float
    verdict: str
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One model on one benchmark of questions.

    Attributes:
        variant: what it is compared with; "" for the model itself.
        outcome: what counts as right, where it is not the headline: `perByte`.
        shares: member -> its mean part in the answers, of an ensemble.
    """

    variant: str
    benchmark: str
    outcome: str
    dataset: str
    questions: int
    accuracy: float
    low: float | None
    high: float | None
    source: Source
    change: Change | None = None
    shares: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One model of an ensemble.

    Attributes:
        digest: hex SHA-256 of its tree. hub, revision: where on the Hub it was fetched from; "" when it was not.
        made_by: the stages that gave it.
    """

    name: str
    digest: str
    hub: str
    revision: str
    made_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ensemble:
    """What an ensemble is made of. `settings` are of the combiner, for people."""

    combiner: str
    settings: str
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A number of any other benchmark."""

    file: str
    benchmark: str
    dataset: str
    metric: str
    value: str
    stderr: str | None
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A stage of the work, and the entries of its runs.

    Attributes:
        what: for people. runs: how many.
        signers: names of the keys that signed them. others: names of the keys that have done one of them again, with the same outputs.
        confirmed: how many of them were done again. least: by how many other keys each of them was, at least.
    """

    stage: str
    what: str
    entries: tuple[int, ...]
    signers: tuple[str, ...]
    runs: int
    confirmed: int = 0
    least: int = 0
    others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file of the publication.

    Attributes:
        tier: of a GGUF file; "" for the files of the model's folder.
    """

    path: str
    size_bytes: int
    tier: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loads:
    """That a file or the folder was loaded.

    Attributes:
        what: the file's name, or `the folder`. how: `forward`, `counted` or `tokens` (`stages.load_check`). by: what loaded it.
        parameters: as counted there. architecture: class or architecture. source: None when it was not recorded (a preview).
    """

    what: str
    how: str
    by: str
    parameters: int
    architecture: str
    source: Source | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Licence:
    """What is known of the licence.

    Attributes:
        name: as it was given; "" when only a file says it. said: who says so. file: the text, in the repository; "" when there is none.
        base: the licence of the base model, as the recipe says it; "" when nobody does.
    """

    name: str
    said: str
    file: str
    base: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """What it was made from.

    Attributes:
        name: as the recipe calls it; "" when it was trained from nothing. hub: its id on the Hub, with `revision`, when it came from there.
        relation: `quantized`, `finetune` or `merge`. digest: of its tree of files.
        others: further models that were merged in, as Hub ids.
    """

    name: str
    hub: str
    revision: str
    relation: str
    digest: str
    others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that a card says. Texts of others are as they came; `render` escapes them.

    Attributes:
        what: one plain sentence, made of facts: its parts are escaped already.
        repo: `org/name`. alloy: file name of the alloy. alloy_digest: hex SHA-256 of it. verify_url: what the QR holds.
        log: origin of the log, and how many entries it had when this was released. release: entry of the release.
        keys: name -> public text of the keys that signed anything here; model_key: of `model.sig`, None when there is none.
        proof_qr: whether the proof of the release fits into a QR, and so is one.
        pictures: path in the repository -> what it shows.
        answered: questions. ensemble: None of a single model.
    """

    name: str
    version: str
    repo: str
    what: str
    description: str
    summary: str
    limitations: tuple[str, ...]
    author: str
    tags: tuple[str, ...]
    datasets: tuple[str, ...]
    licence: Licence
    base: Base
    library: str
    files: tuple[File, ...]
    tables: tuple[Table, ...]
    results: tuple[Result, ...]
    loads: tuple[Loads, ...]
    steps: tuple[Step, ...]
    alloy: str
    alloy_digest: str
    verify_url: str
    log: tuple[str, int]
    release: int | None
    keys: Mapping[str, str]
    model_key: str | None
    proof_qr: bool
    pictures: Mapping[str, str]
    answered: tuple[Answered, ...] = ()
    ensemble: Ensemble | None = None


def numbers(facts: Facts) -> Sequence[tuple[float, str]]:
    """Every number that an attestation gives, with its unit: what the author's own words may repeat (`stages.publish_checks`)."""
    found: list[tuple[float, str]] = []
    for table in facts.tables:
        found += [(table.scored, "tokens"), (table.chunks, ""), (table.context, "tokens")]
        for row in table.rows:
            measured = row.measured
            found += [(value, "") for value in (measured.value, measured.stderr, measured.low, measured.high) if value is not None]
            found += [(row.size_bytes, "bytes")] if row.size_bytes is not None else []
            if row.difference is not None:
                change = row.difference
                found += [(value, "%") for value in (change.percent, change.low, change.high, change.limit) if value is not None]
    found += [(file.size_bytes, "bytes") for file in facts.files] + [(one.parameters, "parameters") for one in facts.loads]
    for one in facts.answered:
        paired = one.change
        parts = [one.accuracy, one.low, one.high, *one.shares.values()] + ([paired.mean, paired.low, paired.high] if paired else [])
        found += [(value, "") for value in parts if value is not None] + [(100 * value, "%") for value in parts if value is not None]
        found.append((one.questions, ""))
    for result in facts.results:
        for text in (result.value, result.stderr):
            try:
                found.append((float(text or "nan"), ""))
            except ValueError:
                continue
    return found

"""What signed statements say about a publication: from its evidence to the facts of its card.

Every number must be that of a trusted evaluation. What is missing or contradicts is a fault, told together with the facts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from ledger import lookup, predicates
from ledger.chain import Made
from ledger.errors import LedgerError
from ledger.lookup import Trusted
from ledger.loose import as_dict
from stages import publish_questions
from stages.card_facts import Base, Difference, Ensemble, Loads, Measured, Result, Row, Source, Step, Table
from stages.errors import StageError
from stages.markdown import code, md
from stages.publish_evidence import Chosen, Evidence, Fault, Output
from store import tree
from store.actions import Action
from store.digest import Digest
from store.errors import StoreError

# --- numbers -------------------------------------------------------------------------------------------------------------------


def tables(
    evidence: Evidence, outputs: Sequence[Output], chosen: Chosen, names: Mapping[Digest, str], datasets: Mapping[str, str]
) -> tuple[Table, ...]:
    """Perplexities: one table for each comparison that the recipe made in this variant, and one for what was evaluated without any.

    Args:
        evidence: where the numbers are looked up.
        outputs: of the recipe.
        chosen: what is published.
        names: GGUF file -> its name in the repository.
        datasets: hex SHA-256 -> name.
    """
    found: list[Table] = []
    shown: set[tuple[Digest, str]] = set()
    for stage, output, digest in outputs:
        if output != "report" and not output.startswith("report-"):
            continue
        if stage.partition("[")[2].removesuffix("]") not in ("", chosen.variant):
            continue
        table = _report(evidence, digest, names, datasets)
        if table is not None:
            found.append(table)
            shown |= {(gguf, table.digest) for gguf, name in names.items() if any(row.file == name for row in table.rows)}
    found += _alone(evidence, chosen, names, datasets, shown)
    return tuple(replace(table, rows=(*table.rows, *_baselines(evidence, outputs, table.digest))) for table in found)


def _baselines(evidence: Evidence, outputs: Sequence[Output], dataset: str) -> list[Row]:
    """What else the recipe measured on the same text, such as the perplexity of word frequencies: outputs of trusted runs."""
    rows: dict[Digest, Row] = {}
    for _, output, digest in outputs:
        run = evidence.made(digest) if output.startswith("metrics-") and not output.startswith("metrics-perplexity") else None
        if run is None or not evidence.store.has(digest):
            continue
        said = as_dict(evidence.read(digest))
        metrics, settings = as_dict(said.get("metrics")), as_dict(said.get("settings"))
        if predicates.dataset_of(said) != dataset or "perplexity" not in metrics:
            continue
        measured = Measured(
            value=float(metrics["perplexity"]),
            stderr=None,
            low=None,
            high=None,
            source=evidence.source(run, predicates.action_of(run.statement).key),
        )
        name = str(said.get("benchmark", output)).removesuffix("-perplexity")
        fitted = f"{name}, fitted to {settings['domain']}" if settings.get("domain") else name
        rows[digest] = Row(file="", variant=fitted, tier="", size_bytes=None, measured=measured)
    return list(rows.values())


def _report(evidence: Evidence, digest: Digest, names: Mapping[Digest, str], datasets: Mapping[str, str]) -> Table | None:
    """A comparison, each of whose numbers must be what an evaluation of the same file says."""
    run = evidence.made(digest)
    if run is None:
        evidence.faults.append(Fault("numbers", "the comparison", f"no trusted run gave {digest}", "Run the recipe again with your key"))
        return None
    try:
        report = evidence.read(digest)
        if report.get("benchmark") == publish_questions.QUESTIONS:
            return None  # told by `publish_questions.answered`
        told = [_told(evidence, item) for item in report["rows"]]
    except (StoreError, KeyError, TypeError, ValueError) as error:
        evidence.faults.append(Fault("numbers", "the comparison", f"{digest.short} cannot be read: {error}", "Run the recipe again"))
        return None
    source = evidence.source(run, predicates.action_of(run.statement).key)
    rows: list[Row] = []
    for item, evaluation in zip(report["rows"], told, strict=True):
        subject = Digest.parse(item["digest"])
        label = f"{item['variant']} {item['tier']}"
        if evaluation is None:
            text = f"no trusted evaluation of {subject.short} says perplexity {item['perplexity']}"
            evidence.faults.append(Fault("numbers", label, text, "Run the recipe again, so that it is measured and signed"))
            continue
        own = names.get(subject, "")
        difference = _difference(item, report["rows"], source)
        variant = "this model" if own else str(item["variant"])
        rows.append(
            Row(
                file=own,
                variant=variant,
                tier=str(item["tier"]),
                size_bytes=int(item["sizeBytes"]),
                measured=_measured(evidence, evaluation),
                difference=difference,
            )
        )
    if not any(row.file for row in rows):
        return None  # about other models than those that are published
    first = next(one for one in told if one is not None)
    subjects = [Digest.parse(item["digest"]) for item in report["rows"]]
    return _table(first, datasets, tuple(rows), _warnings(evidence, [digest, *subjects]))


def _warnings(evidence: Evidence, digests: Sequence[Digest]) -> tuple[str, ...]:
    """What the runs that gave some objects were warned of, each once."""
    found: dict[str, None] = {}
    for digest in digests:
        run = evidence.made(digest)
        said = predicates.byproducts_of(run.statement).get("warnings") if run is not None else None
        found |= dict.fromkeys(str(text) for text in said) if isinstance(said, list) else {}
    return tuple(found)


def _told(evidence: Evidence, item: Mapping[str, Any]) -> Trusted | None:
    """The evaluation that a row of a comparison repeats."""
    for one in evidence.counting(Digest.parse(item["digest"])):
        said = one.statement.predicate
        if one.statement.predicate_type == predicates.EVALUATION and as_dict(said.get("metrics")).get("perplexity") == item["perplexity"]:
            return one
    return None


def _difference(item: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], source: Source) -> Difference | None:
    told = item.get("difference")
    if told is None:
        return None
    baseline = next((f"{row['variant']} {row['tier']}" for row in rows if row["name"] == told["baseline"]), str(told["baseline"]))
    limit = item.get("acceptance")
    return Difference(
        baseline=baseline,
        percent=float(told["percent"]),
        low=_number(told.get("low")),
        high=_number(told.get("high")),
        verdict=str(told["verdict"]),
        source=source,
        limit=None if limit is None else float(limit["limitPercent"]),
        accepted="" if limit is None else str(limit["verdict"]),
    )


def _measured(evidence: Evidence, evaluation: Trusted) -> Measured:
    said = evaluation.statement.predicate
    metrics = as_dict(said.get("metrics"))
    return Measured(
        value=float(metrics["perplexity"]),
        stderr=_number(predicates.stderr_of(metrics)),
        low=_number(metrics.get("low")),
        high=_number(metrics.get("high")),
        source=evidence.source(evaluation, predicates.computed_by(evaluation.statement)),
    )


def _table(evaluation: Trusted, datasets: Mapping[str, str], rows: tuple[Row, ...], notes: tuple[str, ...]) -> Table:
    said = evaluation.statement.predicate
    digest = predicates.dataset_of(said)
    settings = as_dict(said.get("settings"))
    return Table(
        dataset=datasets.get(digest, "a text"),
        digest=digest,
        scored=_count(as_dict(said.get("tokens")).get("scored")),
        context=_count(settings.get("nCtx")),
        chunks=_count(settings.get("chunks")),
        toolchains=tuple(str(name) for name in said.get("toolchains", []) if isinstance(said.get("toolchains"), list)),
        rows=rows,
        notes=notes,
    )


def _alone(
    evidence: Evidence, chosen: Chosen, names: Mapping[Digest, str], datasets: Mapping[str, str], shown: set[tuple[Digest, str]]
) -> list[Table]:
    """Evaluations of perplexity that no comparison repeats."""
    rows: dict[tuple[str, int], list[tuple[Trusted, Row]]] = {}
    for tier, digest in chosen.ggufs.items():
        for one in evidence.counting(digest):
            said = one.statement.predicate
            metrics = as_dict(said.get("metrics"))
            dataset = predicates.dataset_of(said)
            if (
                one.statement.predicate_type != predicates.EVALUATION
                or said.get("benchmark") != "perplexity"
                or "perplexity" not in metrics
            ):
                continue
            chunks = _count(as_dict(said.get("settings")).get("chunks"))
            if (digest, dataset) in shown:
                continue
            size = evidence.store.size(digest) if evidence.store.has(digest) else None
            row = Row(file=names[digest], variant="this model", tier=tier, size_bytes=size, measured=_measured(evidence, one))
            rows.setdefault((dataset, chunks), []).append((one, row))
    notes = _warnings(evidence, list(chosen.ggufs.values()))
    return [_table(found[0][0], datasets, tuple(row for _, row in found), notes) for found in rows.values()]


def results(evidence: Evidence, chosen: Chosen, names: Mapping[Digest, str], datasets: Mapping[str, str]) -> tuple[Result, ...]:
    """Every metric of every other benchmark, but for answers to questions, on what is published; a true zero is a number like any other."""
    found: list[Result] = []
    subjects = {digest: names[digest] for digest in chosen.ggufs.values()} | ({chosen.model: "the folder"} if chosen.model else {})
    for digest, name in subjects.items():
        for one in evidence.counting(digest):
            said = one.statement.predicate
            if one.statement.predicate_type != predicates.EVALUATION or said.get("benchmark") == "perplexity":
                continue
            if digest == chosen.model and publish_questions.is_evaluation(said):
                continue  # told by `publish_questions.answered`
            metrics = as_dict(said.get("metrics"))
            dataset = predicates.dataset_of(said)
            source = evidence.source(one, predicates.computed_by(one.statement))
            for metric in sorted(metric for metric in metrics if not metric.lower().startswith("stderr")):
                if metric.endswith("Stderr"):
                    continue
                own = metrics.get(f"{metric}Stderr")
                error = predicates.stderr_of(metrics) if own is None else own
                found.append(
                    Result(
                        file=name,
                        benchmark=str(said.get("benchmark", "")),
                        dataset=datasets.get(dataset, dataset[:12]),
                        metric=metric,
                        value=str(metrics[metric]),
                        stderr=None if error is None else str(error),
                        source=source,
                    )
                )
    return tuple(found)


def loads(evidence: Evidence, reports: Mapping[str, tuple[Digest, Digest]], seen: Mapping[str, Mapping[str, Any]]) -> tuple[Loads, ...]:
    """What the checks of loading found.

    Args:
        evidence: where they are looked up.
        reports: what was loaded, for people -> (key of the action, its report).
        seen: what was loaded -> a report that was not recorded.
    """
    found = [_loads(what, said, None) for what, said in seen.items()]
    for what, (key, digest) in reports.items():
        run = evidence.made(digest)
        if run is None:
            hint = "Publish with a key that the policy trusts"
            evidence.faults.append(Fault("loads", what, f"no trusted run gave the report {digest.short}", hint))
            continue
        found.append(_loads(what, evidence.read(digest), evidence.source(run, key)))
    return tuple(found)


def _loads(what: str, said: Mapping[str, Any], source: Source | None) -> Loads:
    return Loads(what=what, how=said["how"], by=said["by"], parameters=said["parameters"], architecture=said["class"], source=source)


# --- how it was made -----------------------------------------------------------------------------------------------------------


def steps(evidence: Evidence, made: Sequence[Made]) -> tuple[Step, ...]:
    """The runs behind what is published, by stage, in the order of their first entries."""
    groups: dict[str, list[Made]] = {}
    for one in made:
        groups.setdefault(one.action.stage, []).append(one)
    found = []
    for stage, runs in groups.items():
        others = [[name for name in evidence.vouching(run.action) if name not in run.signers] for run in runs]
        found.append(
            Step(
                stage=stage,
                what=_spec_words([run.action for run in runs]),
                entries=tuple(run.entry for run in runs if run.entry is not None),
                signers=tuple(dict.fromkeys(name for run in runs for name in run.signers)),
                runs=len(runs),
                confirmed=sum(bool(names) for names in others),
                least=min(len(names) for names in others),
                others=tuple(dict.fromkeys(name for names in others for name in names)),
            )
        )
    return tuple(found)


_TELLING = (
    "strategy", "keep", "type", "outtype", "source", "repo", "commit", "until", "learning_rate", "batch_size", "sequence_length", "dtype",
    "family", "max_length", "benchmark",
)  # fmt: skip
"""What of a spec people ask for first."""


def _spec_words(actions: Sequence[Action]) -> str:
    """What the specs of some runs of a stage have in common, as far as it is short."""
    common = {
        name: value
        for name, value in actions[0].spec.items()
        if isinstance(value, (str, int)) and not isinstance(value, bool) and 0 < len(str(value)) <= 48
        and all(other.spec.get(name) == value for other in actions)
    }  # fmt: skip
    names = [name for name in _TELLING if name in common] + sorted(set(common) - set(_TELLING))
    words = [f"{name.replace('_', ' ')} {common[name]}" for name in names]
    return ", ".join(words[:4]) + (", .." if len(words) > 4 else "")


def base(evidence: Evidence, made: Sequence[Made], chosen: Chosen) -> Base:
    """What the work started from: the models that were taken in, and how what is published relates to them.

    A model is one of the Hub where its files were fetched from there by a run that counts; what a recipe calls a folder is only a name.
    """
    imports = [one for one in made if one.action.stage == "import-model"]
    fetched = {(one.action.spec.get("repo"), one.action.spec.get("commit")) for one in made if one.action.stage == "hub-file"}
    named = dict.fromkeys((one.action.spec.get("source"), one.action.spec.get("revision")) for one in imports)
    hubs = [(str(repo), str(commit)) for repo, commit in named if (repo, commit) in fetched]
    if not imports:
        return Base(name="", hub="", revision="", relation="finetune", digest="")
    first = imports[0]
    source = str(first.action.spec.get("source") or "")
    tree_digest = first.outputs.get("model")
    if len(hubs) > 1 or len(imports) > 1:
        relation = "merge"
    else:
        relation = "quantized" if chosen.model is None or chosen.model == tree_digest else "finetune"
    hub, revision = hubs[0] if hubs else ("", "")
    return Base(
        name=hub or source or "a folder",
        hub=hub,
        revision=revision,
        relation=relation,
        digest=tree_digest.hex if tree_digest is not None else "",
        others=tuple(name for name, _ in hubs[1:]),
    )


def sentence(
    evidence: Evidence,
    made: Sequence[Made],
    chosen: Chosen,
    found: Base,
    architecture: str,
    parameters: int,
    ensemble: Ensemble | None = None,
) -> str:
    """What it is, in one plain sentence; texts of others in it are escaped."""
    if ensemble is not None:
        names = _listed([md(member.name) for member in ensemble.members])
        size = f" of {count_words(parameters)} parameters together" if parameters else ""
        if len(ensemble.members) == 1:
            return f"The model {names}{size}, unchanged, read byte by byte."
        return (
            f"An ensemble of {len(ensemble.members)} frozen models ({names}){size} that speak as one, byte by byte, whatever their "
            f"tokenizers: what each says next is combined by the rule {md(ensemble.combiner)}. Nothing was trained."
        )
    kind = f"{md(architecture)} " if architecture else ""
    stages = {one.action.stage for one in made}
    forms = (["a folder of safetensors"] if chosen.model is not None else []) + (
        [f"GGUF in {_listed([md(tier) for tier in chosen.ggufs])}"] if chosen.ggufs else []
    )
    if found.name:
        start = f"{md(found.hub)} at commit {code(found.revision[:12])}" if found.hub else code(found.name)
        called = f"The {kind}model {start}"
    else:
        called = f"A {kind}model of {count_words(parameters)} parameters" if parameters else f"A {kind}model"
        called += ", trained from nothing" if "train-segment" in stages else ""
    pruned = _pruning(evidence, made)
    done = [pruned] if pruned else []
    if found.name and "train-segment" in stages:
        done.append("trained further")
    if found.relation == "quantized" and not done:
        return f"{called}, unchanged, as {_listed(forms)}."
    return f"{called}{', ' if done else ''}{_listed(done)}; here as {_listed(forms)}."


def _pruning(evidence: Evidence, made: Sequence[Made]) -> str:
    run = next((one for one in reversed(made) if one.action.stage == "expert-select"), None)
    if run is None:
        return ""
    keep, strategy = run.action.spec.get("keep"), md(str(run.action.spec.get("strategy", "")))
    before = _experts(evidence, run.action.inputs.get("model"))
    return (
        f"with {keep} of its {before} experts in every layer kept (strategy {strategy})" if before else f"with {keep} experts a layer kept"
    )


def _experts(evidence: Evidence, model: Digest | None) -> int:
    """Experts of a layer by a model's config; 0 where that cannot be read."""
    from stages.families.family import expert_count

    try:
        if model is None:
            return 0
        listing = evidence.trees.get(model) or tree.load(evidence.store, model)
        config = evidence.read(listing.entry("config.json").digest)
        return expert_count(config)
    except (StoreError, StageError, LedgerError, AttributeError):
        return 0


def count_words(count: int) -> str:
    """A large number for people.

    >>> count_words(5_840_640), count_words(46_702_792_704), count_words(950)
    ('5.8 million', '46.7 billion', '950')
    """
    for scale, word in ((10**9, "billion"), (10**6, "million")):
        if count >= scale:
            return f"{count / scale:.1f} {word}"
    return f"{count:,}"


def loss_points(evidence: Evidence, made: Sequence[Made]) -> list[tuple[int, float]]:
    """(step, loss) as the segments of a training noted them, each in its signed statement."""
    points: dict[int, float] = {}
    for one in made:
        if one.action.stage != "train-segment":
            continue
        for run in lookup.sift(evidence.log.lookup(one.action.key), evidence.policy)[0][:1]:
            noted = as_dict(predicates.byproducts_of(run.statement).get("notes")).get("loss", [])
            for item in noted if isinstance(noted, list) else []:
                points[int(item[0])] = float(item[1])
    return sorted(points.items())


def datasets_of(materials: Mapping[str, str]) -> dict[str, str]:
    """Hex SHA-256 -> the file's name, of what the recipe named."""
    return {str(text).removeprefix("sha256:"): PurePosixPath(str(name)).name for name, text in materials.items()}


def _listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _count(value: Any) -> int:
    return value if type(value) is int else 0

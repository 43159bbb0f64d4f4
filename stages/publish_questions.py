"""What signed statements say of a publication's answers to questions, and of the members that it is made of; for its card.

Every accuracy must be that of a trusted evaluation; a comparison only adds the paired differences, which its own run gave.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ledger import predicates
from ledger.chain import Made
from ledger.lookup import Trusted
from ledger.loose import as_dict
from stages import ensemble_tree
from stages.card_facts import Answered, Change, Ensemble, Member, Source
from stages.errors import StageError
from stages.publish_evidence import Chosen, Evidence, Fault, Output
from store import tree
from store.digest import Digest
from store.errors import StoreError

QUESTIONS = "questions"
"""What a comparison of answers calls itself, and the field that its evaluations have."""


def answered(evidence: Evidence, outputs: Sequence[Output], chosen: Chosen, datasets: Mapping[str, str]) -> tuple[Answered, ...]:
    """A row for each benchmark of questions that the model was measured on, the models that it is compared with beside it.

    Args:
        evidence: where the numbers are looked up.
        outputs: of the recipe.
        chosen: what is published.
        datasets: hex SHA-256 -> name.
    """
    if chosen.model is None:
        return ()
    rows: list[Answered] = []
    shown: set[Digest] = set()
    for report, source in _reports(evidence, outputs, chosen):
        items = [item for item in report.get("rows", []) if isinstance(item, Mapping)]
        if not any(str(item.get("model")) == str(chosen.model) for item in items):
            continue
        for item in items:
            subject = Digest.parse(str(item["model"]))
            told = next((one for one in _evaluations(evidence, subject) if _same(one, item)), None)
            label = f"{item.get('variant')} on {item.get('benchmark')}"
            if told is None:
                text = f"no trusted evaluation of {subject.short} says accuracy {as_dict(item.get('metrics')).get('accuracy')}"
                evidence.faults.append(Fault("numbers", label, text, "Run the recipe again, so that it is measured and signed"))
                continue
            if subject == chosen.model:
                shown.add(Digest.of(told.entry.envelope))
            variant = "" if subject == chosen.model else str(item.get("variant", ""))
            headline = as_dict(item.get("difference"))
            changes = {"": headline, **as_dict(item.get("further"))} if headline else {}
            baseline = next((str(row["variant"]) for row in items if row.get("name") == headline.get("baseline")), "")
            rows += _rows(evidence, told, variant, datasets, {name: _change(one, baseline, source) for name, one in changes.items()})
        rows += [_pooled(item, source) for item in report.get("pooled", []) if _is_own(item, items, chosen.model)]
    for one in _evaluations(evidence, chosen.model):
        if Digest.of(one.entry.envelope) not in shown:
            rows += _rows(evidence, one, "", datasets, {})
    return tuple(rows)


def _reports(evidence: Evidence, outputs: Sequence[Output], chosen: Chosen) -> Iterator[tuple[Mapping[str, Any], Source]]:
    """Comparisons of answers, each from a trusted run."""
    for stage, output, digest in outputs:
        if output != "report" and not output.startswith("report-"):
            continue
        run = evidence.made(digest)
        if run is None or not evidence.store.has(digest) or stage.partition("[")[2].removesuffix("]") not in ("", chosen.variant):
            continue  # who looks at perplexities says so
        report = evidence.read(digest)
        if isinstance(report, Mapping) and report.get("benchmark") == QUESTIONS:
            yield report, evidence.source(run, predicates.action_of(run.statement).key)


def is_evaluation(said: Mapping[str, Any]) -> bool:
    """Whether an evaluation is one of questions that were answered."""
    return QUESTIONS in said and "accuracy" in as_dict(said.get("metrics"))


def _evaluations(evidence: Evidence, subject: Digest) -> list[Trusted]:
    return [
        one
        for one in evidence.counting(subject)
        if one.statement.predicate_type == predicates.EVALUATION and is_evaluation(one.statement.predicate)
    ]


def _same(one: Trusted, item: Mapping[str, Any]) -> bool:
    said = one.statement.predicate
    return all(said.get(name) == item.get(name) for name in ("benchmark", "dataset", "metrics", QUESTIONS))


def _rows(evidence: Evidence, one: Trusted, variant: str, datasets: Mapping[str, str], changes: Mapping[str, Change]) -> Iterator[Answered]:
    """The headline of an evaluation and its further outcomes: `accuracyPerByte` with `lowPerByte` and `highPerByte`."""
    said = one.statement.predicate
    metrics, dataset = as_dict(said.get("metrics")), predicates.dataset_of(said)
    source = evidence.source(one, predicates.computed_by(one.statement))
    for suffix in sorted(name.removeprefix("accuracy") for name in metrics if name.startswith("accuracy")):
        outcome = suffix[:1].lower() + suffix[1:]
        yield Answered(
            variant=variant,
            benchmark=str(said.get("benchmark", "")),
            outcome=outcome,
            dataset=datasets.get(dataset, dataset[:12]),
            questions=int(as_dict(said.get(QUESTIONS)).get("counted", 0)),
            accuracy=float(metrics[f"accuracy{suffix}"]),
            low=_number(metrics.get(f"low{suffix}")),
            high=_number(metrics.get(f"high{suffix}")),
            source=source,
            change=changes.get(outcome),
            shares=_shares(said) if not suffix else {},
        )


def _shares(said: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): float(value) for name, value in as_dict(said.get("shares")).items()}


def _change(told: Mapping[str, Any], baseline: str, source: Source) -> Change:
    return Change(
        baseline=baseline,
        mean=float(told["mean"]),
        low=_number(told.get("low")),
        high=_number(told.get("high")),
        wins=int(told["wins"]),
        losses=int(told["losses"]),
        p=float(told.get("pHolm", told["p"])),
        verdict=str(told.get("verdict", "")),
        source=source,
    )


def _is_own(item: Any, items: Sequence[Mapping[str, Any]], model: Digest) -> bool:
    own = {row.get("variant") for row in items if str(row.get("model")) == str(model)}
    return isinstance(item, Mapping) and item.get("variant") in own


def _pooled(item: Mapping[str, Any], source: Source) -> Answered:
    """A row over several benchmarks: it follows from the others, and the comparison's run computed it."""
    metrics = as_dict(item.get("metrics"))
    return Answered(
        variant="",
        benchmark=str(item.get("benchmark", "")),
        outcome="",
        dataset="all of them",
        questions=int(as_dict(item.get(QUESTIONS)).get("counted", 0)),
        accuracy=float(metrics["accuracy"]),
        low=_number(metrics.get("low")),
        high=_number(metrics.get("high")),
        source=source,
        change=_change(as_dict(item["difference"]), str(item.get("baseline", "")), source) if item.get("difference") else None,
        shares={},
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


# --- members -------------------------------------------------------------------------------------------------------------------


def ensemble(evidence: Evidence, made: Sequence[Made], chosen: Chosen) -> Ensemble | None:
    """What an ensemble is made of: its combiner, and each member by digest, and by its place on the Hub where it was fetched from there.

    Nothing where the model is none; a config that does not fit its files is a fault.
    """
    if chosen.model is None:
        return None
    try:
        listing = evidence.trees.get(chosen.model) or tree.load(evidence.store, chosen.model)
        config = evidence.read(listing.entry(ensemble_tree.CONFIG).digest)
        if not isinstance(config, Mapping) or config.get("model_type") != ensemble_tree.MODEL_TYPE:
            return None
        found = ensemble_tree.checked(evidence.store, chosen.model)
    except (StoreError, StageError) as error:
        evidence.faults.append(Fault("files", "the ensemble", str(error), "Run the recipe again"))
        return None
    fetched = {(one.action.spec.get("repo"), one.action.spec.get("commit")) for one in made if one.action.stage == "hub-file"}
    members = []
    for member in found.members:
        given = [one for one in made if member.digest in one.outputs.values()]
        spec = next((one.action.spec for one in given if one.action.stage == "import-model"), {})
        place = (spec.get("source"), spec.get("revision"))
        hub, revision = (str(place[0]), str(place[1])) if place in fetched else ("", "")
        by = ", ".join(dict.fromkeys(one.action.stage for one in given))
        members.append(Member(name=member.name, digest=member.digest.hex, hub=hub, revision=revision, made_by=by))
    return Ensemble(combiner=found.combiner, settings=_words(found.settings), members=tuple(members))


def _words(settings: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')} {' '.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in settings.items()
        if value not in ([], {}, "", None)
    )

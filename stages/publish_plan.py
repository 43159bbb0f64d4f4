"""Plan a publication: what of a run is published, what is known about it, and everything that keeps it from being published.

`plan` gathers files and finds faults, `stages.publish_load` has every file loaded, `describe` gives the facts of the card and the faults in
them; `stages.publish_release` does the rest. Nothing here can add a number to what was signed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ledger import chunks, locator, lookup, publication, standing, statement
from ledger.alloy import file_name, recipe_hash, records
from ledger.chain import Made
from ledger.errors import UntrustedError
from ledger.keys import Signer
from ledger.log import Log
from ledger.policy import Policy
from ledger.predicates import action_of
from ledger.statement import Statement
from stages import gguf_file, gguf_name, publish_checks, publish_facts, publish_questions
from stages.card_facts import Facts, File, Licence
from stages.errors import InputError, StageError
from stages.publish_evidence import Chosen, Evidence, Fault, Output, choose
from store import files, tree
from store.cas import Cas
from store.digest import Digest
from store.errors import CanonicalError, StoreError


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a person asks for.

    Attributes:
        repo: `org/name`. endpoint: address of its Hub. page: the verify page that the QR names. licence: where the recipe says none.
        variant: of a matrix. tags: of the card, besides those that follow from what was done.
    """

    repo: str
    endpoint: str
    page: str
    licence: str | None = None
    variant: str | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A file that is published as it was made.

    Attributes:
        path: in the repository. digest, size: as attested. tier: of a GGUF file, else "".
        local: where its bytes are here; None when they are not.
    """

    path: str
    digest: Digest
    size: int
    tier: str
    local: Path | None


@dataclass
class Plan:
    """A publication as far as it is known without signing anything.

    Attributes:
        name, version: the recipe's. alloy: as the run left it. outputs: its results.
        files: sorted by path; everything that is loaded. chunks: the bytes of `<name>.chunks`; empty while a file is at fault.
        made: the runs behind it. faults: what was found so far; not empty: nothing is published.
        skipped: GGUF files of the run that do not come from the model that is published.
        reports: what was loaded, for people -> (key of the action, its report). seen: what was loaded -> a report that is not recorded.
    """

    order: Order
    name: str
    version: str
    alloy: Mapping[str, Any]
    outputs: Sequence[Output]
    chosen: Chosen
    evidence: Evidence
    files: tuple[PlannedFile, ...]
    made: Sequence[Made]
    licence: Licence
    faults: list[Fault]
    skipped: tuple[str, ...] = ()
    chunks: bytes = b""
    reports: dict[str, tuple[Digest, Digest]] = field(default_factory=dict)
    seen: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def stem(self) -> str:
        """What the alloy and its companions are named by."""
        return file_name(f"{self.name}-{self.chosen.variant}") if self.chosen.variant else self.name

    @property
    def url(self) -> str:
        """Of the repository, at the Hub that is asked."""
        return f"{self.order.endpoint}/{self.order.repo}"


Locate = Callable[[str, Digest], Path]
"""Where a file is: its name as `ledger export` gives it, and its digest -> the file. Raises NotFoundError or OSError."""


def outputs_of(alloy: Mapping[str, Any]) -> list[Output]:
    """(stage, output, digest) of every result that an alloy names.

    Raises:
        InputError: it names none, or not in this form.
    """
    results = alloy.get("results")
    artifacts = results.get("artifacts") if isinstance(results, Mapping) else None
    if not isinstance(artifacts, list) or not artifacts:
        raise InputError("the alloy has no results: it was not made by a finished run")
    try:
        return [(str(item["stage"]), str(item["output"]), Digest.parse(item["digest"])) for item in artifacts]
    except (KeyError, TypeError, StoreError) as error:
        raise InputError(f"results.artifacts of the alloy cannot be read: {error!r}") from error


def plan(order: Order, alloy: Mapping[str, Any], *, log: Log, store: Cas, policy: Policy, locate: Locate) -> Plan:
    """Gather what is published, hash every file here and now, and hold it against what is attested.

    Args:
        order: what is asked for.
        alloy: of a finished run, as it was written. Of what it says only names are used, and the recipe.
        log: where statements are looked up.
        store: where objects are read.
        policy: who counts; narrowed here by the log's key events.
        locate: where the files are.

    Raises:
        InputError, SpecError: it cannot be said what to publish. VerificationError, StoreError: the log or the store is damaged.
    """
    outputs = outputs_of(alloy)
    chosen = choose(outputs, order.variant)
    policy = standing.of(log, policy)
    evidence = Evidence.of(log, policy, store, _shown(alloy, outputs, log, policy))
    faults: list[Fault] = []
    kept, skipped = dict[str, Digest](), list[str]()
    for tier, digest in chosen.ggufs.items():
        # A recipe may quantise the base, too; that is not ours to publish.
        if chosen.model is None or not evidence.made(digest) or evidence.comes_from(digest, chosen.model):
            kept[tier] = digest
        else:
            skipped.append(tier)
    chosen = Chosen(chosen.variant, chosen.model, kept)
    found = _files(chosen, alloy, evidence, store, locate, faults)
    faults += publish_checks.names([file.path for file in found], _OWN)
    if chosen.model is not None:
        faults += publish_checks.complete([file.path for file in found if not file.tier])
    faults += [*_edited(alloy), *_mislabelled(kept, evidence)]
    licence, missing = publish_checks.licence(order.licence, alloy, [file.path for file in found if not file.tier])
    named = {digest: what for what, digest in _objects(chosen)}
    lacking = {digest: (what, evidence.refused(digest)) for digest, what in named.items() if evidence.made(digest) is None}
    made = evidence.steps(named)
    behind = {digest: f"{one.action.stage} behind it" for one in made for digest in one.action.inputs.values()}
    faults += publish_checks.revoked({digest: (what, evidence.refused(digest)) for digest, what in (behind | named).items()}, policy)
    planned = Plan(
        order=order,
        name=str(alloy.get("name", "")),
        version=str(alloy.get("version", "0.0.0")),
        alloy=alloy,
        outputs=outputs,
        chosen=chosen,
        evidence=evidence,
        files=tuple(found),
        made=made,
        licence=licence,
        faults=[*missing, *faults, *publish_checks.standing(lacking, policy)],
        skipped=tuple(skipped),
    )
    _hash(planned)
    return planned


_OWN = ("README.md", "verify-qr.png", "proof-qr.png", "model.sig")


def _shown(alloy: Mapping[str, Any], outputs: Sequence[Output], log: Log, policy: Policy) -> set[Digest]:
    """Everything that the alloy names: its results, and what the actions gave of which nothing is shown."""
    shown = {digest for _, _, digest in outputs}
    for key in keys_of(alloy):
        shown |= {digest for one in lookup.sift(log.lookup(key), policy)[0] for digest in one.statement.subjects.values()}
    return shown


def keys_of(alloy: Mapping[str, Any]) -> list[Digest]:
    """The keys of the actions that an alloy lists, in its order.

    Raises:
        InputError: the list cannot be read.
    """
    try:
        return [Digest.parse(text) for text in alloy["results"]["actions"]]
    except (KeyError, TypeError, StoreError) as error:
        raise InputError(f"results.actions of the alloy cannot be read: {error!r}") from error


def _edited(alloy: Mapping[str, Any]) -> list[Fault]:
    """Whether the recipe in the alloy is still the one that was run; no key signs a recipe, so its hash is all there is."""
    materials = alloy.get("materials")
    try:
        got = str(recipe_hash(alloy, materials if isinstance(materials, Mapping) else {}))
    except CanonicalError as error:
        got = str(error)
    if got == alloy.get("recipeHash"):
        return []
    text = f"expected recipeHash {alloy.get('recipeHash')}; what stands in the alloy gives {got}"
    return [Fault("statements", "the recipe in the alloy", text, "The alloy was edited: run the recipe again, which writes it anew")]


def _mislabelled(ggufs: Mapping[str, Digest], evidence: Evidence) -> list[Fault]:
    """GGUF files that the alloy calls by another type than the run that made them: their names would lie."""
    faults = []
    for tier, digest in ggufs.items():
        run = evidence.made(digest)
        spec = action_of(run.statement).spec if run is not None else {}
        made = spec.get("type", spec.get("outtype", tier))
        if made != tier:
            text = f"entry {run.entry.number if run is not None else '?'} made it as {made}"
            faults.append(Fault("statements", f"the {tier} file", text, "The alloy was edited: run the recipe again, which writes it anew"))
    return faults


def _objects(chosen: Chosen) -> list[tuple[str, Digest]]:
    """(what it is, digest) of the objects that are published."""
    folder = [("the model's folder", chosen.model)] if chosen.model is not None else []
    return [*folder, *((f"the {tier} file", digest) for tier, digest in chosen.ggufs.items())]


def _files(
    chosen: Chosen, alloy: Mapping[str, Any], evidence: Evidence, store: Cas, locate: Locate, faults: list[Fault]
) -> list[PlannedFile]:
    found: list[PlannedFile] = []
    folder = f"model-{chosen.variant}" if chosen.variant else "model"
    if chosen.model is not None:
        listing = evidence.trees.get(chosen.model)
        try:
            listing = listing or tree.load(store, chosen.model)
        except StoreError as error:
            faults.append(Fault("files", "the model's folder", f"its list of files is not here: {error}", "Run the recipe again"))
        for item in listing.entries if listing is not None else ():
            found.append(PlannedFile(item.path, item.digest, item.size, "", _located(locate, f"{folder}/{item.path}", item.digest)))
    name, version = str(alloy.get("name", "")), str(alloy.get("version", "0.0.0"))
    for tier, digest in chosen.ggufs.items():
        exported = file_name("-".join(filter(None, (name, chosen.variant, tier)))) + ".gguf"
        local = _located(locate, exported, digest)
        size = 0
        try:
            label = gguf_name.size_label(gguf_file.check(local, exported)) if local is not None else "0K"
            size = local.stat().st_size if local is not None else 0
            path = str(gguf_name.name_of(f"{name} {chosen.variant}", version, size=label, encoding=tier))
        except (StageError, OSError) as error:
            faults.append(Fault("loads", exported, str(error), "Run the recipe again"))
            path = exported
        if any(file.path == path for file in found):
            path = path.removesuffix(".gguf") + f"-{digest.hex[:8]}.gguf"
        found.append(PlannedFile(path, digest, store.size(digest) if store.has(digest) else size, tier, local))
    for path, digest in records(alloy).items():  # every item of every evaluation, so that anybody can count again
        local = _located(locate, path, digest)
        if local is None:
            text = f"the record of an evaluation is not here ({digest})"
            faults.append(Fault("bytes", path, text, "Run the recipe again: what is missing is made again"))
        else:
            found.append(PlannedFile(path, digest, local.stat().st_size, "", local))
    return sorted(found, key=lambda file: file.path)


def _located(locate: Locate, name: str, digest: Digest) -> Path | None:
    try:
        return locate(name, digest)
    except (StoreError, OSError):
        return None  # `_hash` says what is missing


def _hash(planned: Plan) -> None:
    """Read every file to its end and compare it with what is attested; the weights by MiB, for `<name>.chunks`."""
    wrong: list[Fault] = []
    whole: dict[str, Path] = {}
    for file in planned.files:
        if file.local is None:
            wrong.append(
                Fault("bytes", file.path, f"expected {file.digest}, {file.size:,} bytes; it is not here", "Run the recipe, or export again")
            )
            continue
        if file.path.endswith((".safetensors", ".gguf")):
            whole[file.path] = file.local
            continue
        try:
            got, _ = files.hash_file(file.local)
        except (StoreError, OSError) as error:
            wrong.append(Fault("bytes", file.path, f"it cannot be read: {error}", "Run the recipe, or export again"))
            continue
        wrong += _differs(file, got)
    try:
        data = chunks.chunks_of(whole) if whole else b""
        read = chunks.parse(data) if data else {}
    except (StoreError, OSError) as error:
        planned.faults += [*wrong, Fault("bytes", "the weights", f"they cannot be read: {error}", "Run the recipe, or export again")]
        return
    for file in planned.files:
        if file.path in read:
            wrong += _differs(file, read[file.path].sha256)
    planned.faults += wrong
    planned.chunks = b"" if wrong else data


def _differs(file: PlannedFile, got: Digest) -> list[Fault]:
    if got == file.digest:
        return []
    hint = "These are not the bytes that were measured: export them again, or run the recipe"
    return [Fault("bytes", file.path, f"expected {file.digest} as attested, got {got}", hint)]


def gather(planned: Plan) -> None:
    """Gather the evidence anew: with the checks that everything loads, which travel with the model, and the newest checkpoint."""
    before = planned.evidence
    shown = _shown(planned.alloy, planned.outputs, before.log, before.policy) | {report for _, report in planned.reports.values()}
    planned.evidence = Evidence.of(before.log, before.policy, before.store, shown)


def countersign(planned: Plan, signer: Signer) -> list[Fault]:
    """Whether a release that this key signs would count for the policy, and so be found again."""
    said = publication.Publication(
        event=publication.RELEASED,
        target=f"hf:{planned.order.repo}",
        name=planned.name,
        version=planned.version,
        alloy=(f"{planned.stem}.alloy.json", Digest.of(b"")),
    )
    made = Statement.parse(statement.make(said.subjects(), publication.PUBLICATION, said.predicate()))
    try:
        planned.evidence.policy.judge(made, frozenset([signer.public]), position=planned.evidence.log.size)
    except UntrustedError as error:
        return [
            Fault("statements", f"the key {signer.name}", str(error), "Sign with a key that the policy trusts, or say there that it may")
        ]
    return []


# --- facts ---------------------------------------------------------------------------------------------------------------------


def describe(planned: Plan) -> Facts:
    """The facts of the card, but for what only a release has (`stages.publish_release`); what is wrong with them becomes faults."""
    evidence, chosen, alloy = planned.evidence, planned.chosen, planned.alloy
    names = {file.digest: file.path for file in planned.files if file.tier}
    materials = alloy.get("materials")
    datasets = publish_facts.datasets_of(materials if isinstance(materials, Mapping) else {})
    loads = publish_facts.loads(evidence, planned.reports, planned.seen)
    folder = next((one for one in loads if one.what == "the folder"), None)
    largest = max((one.parameters for one in loads), default=0)
    base = publish_facts.base(evidence, planned.made, chosen)
    source = alloy.get("source")
    architecture = str(source.get("architecture", "")) if isinstance(source, Mapping) else ""
    ensemble = publish_questions.ensemble(evidence, planned.made, chosen)
    what = publish_facts.sentence(
        evidence, planned.made, chosen, base, architecture, folder.parameters if folder is not None else largest, ensemble
    )  # fmt: skip
    tables = publish_facts.tables(evidence, planned.outputs, chosen, names, datasets)
    results = publish_facts.results(evidence, chosen, names, datasets)
    answered = publish_questions.answered(evidence, planned.outputs, chosen, datasets)
    steps = publish_facts.steps(evidence, planned.made)
    facts = Facts(
        name=f"{planned.name} ({chosen.variant})" if chosen.variant else planned.name,
        version=planned.version,
        repo=planned.order.repo,
        what=what,
        description=_text(alloy.get("description")),
        summary=_text(alloy.get("userSummary")),
        limitations=tuple(map(str, alloy["limitations"])) if isinstance(alloy.get("limitations"), list) else (),
        author=_text(alloy.get("author")),
        tags=_tags(planned, architecture),
        datasets=_datasets(alloy),
        licence=planned.licence,
        base=base,
        library="alloy-ledger" if ensemble is not None else "transformers" if chosen.model is not None else "gguf",
        files=tuple(File(path=file.path, size_bytes=file.size, tier=file.tier) for file in planned.files),
        tables=tables,
        results=results,
        loads=loads,
        steps=steps,
        alloy="",
        alloy_digest="",
        verify_url="",
        log=(evidence.log.origin, evidence.log.size),
        release=None,
        keys=_keys(evidence, tables, (*results, *answered), loads, steps),
        model_key=None,
        proof_qr=False,
        pictures={},
        answered=answered,
        ensemble=ensemble,
    )
    planned.faults += evidence.faults
    evidence.faults.clear()
    planned.faults += publish_checks.acceptance(alloy.get("acceptanceCriteria"), facts)
    words = {"description": facts.description, "userSummary": facts.summary}
    words |= {f"limitations[{number}]": text for number, text in enumerate(facts.limitations)}
    planned.faults += publish_checks.free_text(words, facts)
    return facts


def _keys(evidence: Evidence, tables: Any, results: Any, loads: Any, steps: Any) -> dict[str, str]:
    """Name -> text of every key that signed something here, the first signers first."""
    sources = [row.measured.source for table in tables for row in table.rows] + [
        one.source for one in (*results, *loads) if one.source is not None
    ]
    said = (*steps, *sources)
    names = dict.fromkeys(name for one in said for name in one.signers) | dict.fromkeys(name for one in said for name in one.others)
    known = evidence.policy.keys
    return {name: str(known[name]) for name in names if name in known}


_TAG = re.compile(r"[\w.:+-]{1,64}\Z", re.ASCII)


def _tags(planned: Plan, architecture: str) -> tuple[str, ...]:
    given = planned.alloy.get("tags")
    stages = {one.action.stage for one in planned.made}
    tags = ["alloy-ledger"]
    tags += ["gguf"] if planned.chosen.ggufs else []
    tags += ["pruned", "expert-pruning", "moe"] if "expert-select" in stages else []
    tags += ["ensemble"] if "many-worlds-ensemble" in stages else []
    tags += [architecture] if architecture else []
    tags += [str(tag) for tag in given] if isinstance(given, list) else []
    return tuple(dict.fromkeys(tag for tag in (*tags, *planned.order.tags) if _TAG.match(tag)))


def _datasets(alloy: Mapping[str, Any]) -> tuple[str, ...]:
    """The calibration sets that the recipe calls by a dataset's id on the Hub."""
    corpora = alloy.get("calibrationCorpora")
    ids = [one.get("id") for one in corpora if isinstance(one, Mapping)] if isinstance(corpora, list) else []
    return tuple(one for one in ids if isinstance(one, str) and locator.is_repository(one))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""

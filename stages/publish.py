"""Plan a publication: what of a run is published, what is known about it, and everything that keeps it from being published.

A recipe's `publish` stage says where a model should go; `ledger run` computes nothing for it and publishes nothing. `ledger publish` does,
when a person asks: `plan` gathers files and finds faults, `load` has every file loaded, `describe` gives the facts of the card and the
faults in them; `stages.publish_release` does the rest. Nothing here can add a number to what was signed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.errors import InputError, SpecError, StageError
from stages.stage import Composite, Graph, Input, Node
from store import files
from store.digest import Digest
from store.errors import StoreError

if TYPE_CHECKING:
    from ledger.chain import Made
    from ledger.keys import Signer
    from ledger.log import Log
    from ledger.lookup import Hit
    from ledger.policy import Policy
    from stages.card import Facts, Licence
    from stages.executor import Executor
    from stages.publish_facts import Chosen, Evidence, Fault, Output
    from stages.work import Work
    from store.actions import Action
    from store.cas import Cas


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish:
    """Where to, and how it is described."""

    org: str
    """Of the Hub."""
    repo_name_template: str = "{name}"
    """Of the repository; `{name}`, `{base}`, `{domain}` and `{variant}` are filled in."""
    include_alloy: bool = True
    card_from_benchmarks: bool = True
    tags: tuple[str, ...] = ()
    """Of the card, besides those that follow from what was done."""
    private: bool = False

    def __post_init__(self) -> None:
        if not self.include_alloy or not self.card_from_benchmarks:
            raise SpecError("a publication always has its alloy, and a card from what was attested: leave out the `false`")
        unknown = set(re.findall(r"{(.*?)}", self.repo_name_template)) - {"name", "base", "domain", "variant"}
        if unknown:
            raise SpecError(f"repo_name_template has no {{{sorted(unknown)[0]}}}; it has {{name}}, {{base}}, {{domain}} and {{variant}}")

    def repo(self, alloy: Mapping[str, Any], variant: str) -> str:
        """`org/name` for an alloy; what a repository's name cannot hold becomes `-`."""
        source = alloy.get("source")
        base = str(source.get("baseModel", "")) if isinstance(source, Mapping) else ""
        domains = alloy.get("domains")
        domain = str(domains[0]) if isinstance(domains, list) and domains else "general"
        name = self.repo_name_template
        for key, value in {"name": alloy.get("name", ""), "base": base.rpartition("/")[2], "domain": domain, "variant": variant}.items():
            name = name.replace("{" + key + "}", str(value))
        return f"{self.org}/{re.sub(r'-{2,}', '-', re.sub(r'[^A-Za-z0-9._-]+', '-', name)).strip('-.')}"


def expand(spec: Publish, inputs: Mapping[str, Input], store: Cas) -> Graph:
    """Nothing is computed."""
    return Graph((), {})


def lower(call: Any) -> Any:
    """The recipe form: checked, and no work.

    Raises:
        RecipeError: an unknown key, or a value that cannot be.
    """
    from stages import lowering

    lowering.bind(call.entry, STAGE)
    return lowering.Lowered((), {})


STAGE = Composite(
    name="publish",
    spec=Publish,
    inputs=(),
    outputs=(),
    reads=(),
    expand=expand,
    described=("cardHash", "notes"),
    lower=lower,
)


# --- the plan ------------------------------------------------------------------------------------------------------------------


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
        from ledger.alloy import file_name

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
    from ledger import standing
    from stages import publish_checks, publish_facts

    outputs = outputs_of(alloy)
    chosen = publish_facts.choose(outputs, order.variant)
    policy = standing.of(log, policy)
    evidence = publish_facts.Evidence.of(log, policy, store, _shown(alloy, outputs, log, policy))
    faults: list[Fault] = []
    kept, skipped = dict[str, Digest](), list[str]()
    for tier, digest in chosen.ggufs.items():
        # A recipe may quantise the base, too; that is not ours to publish.
        if chosen.model is None or not evidence.made(digest) or evidence.comes_from(digest, chosen.model):
            kept[tier] = digest
        else:
            skipped.append(tier)
    chosen = publish_facts.Chosen(chosen.variant, chosen.model, kept)
    found = _files(chosen, alloy, evidence, store, locate, faults)
    faults += publish_checks.names([file.path for file in found], _OWN)
    if chosen.model is not None:
        faults += publish_checks.complete([file.path for file in found if not file.tier])
    faults += [*_edited(alloy), *_mislabelled(kept, evidence)]
    licence, missing = publish_checks.licence(order.licence, alloy, [file.path for file in found if not file.tier])
    named = {digest: what for what, digest in _objects(chosen)}
    lacking = {digest: (what, evidence.refused(digest)) for digest, what in named.items() if evidence.made(digest) is None}
    behind = {digest: f"{one.action.stage} behind it" for one in evidence.steps(named) for digest in one.action.inputs.values()}
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
        made=evidence.steps(named),
        licence=licence,
        faults=[*missing, *faults, *publish_checks.standing(lacking, policy)],
        skipped=tuple(skipped),
    )
    _hash(planned)
    return planned


_OWN = ("README.md", "verify-qr.png", "proof-qr.png", "model.sig")


def _shown(alloy: Mapping[str, Any], outputs: Sequence[Output], log: Log, policy: Policy) -> set[Digest]:
    """Everything that the alloy names: its results, and what the actions gave of which nothing is shown."""
    from ledger import lookup

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
    from ledger.alloy import recipe_hash
    from stages.publish_facts import Fault
    from store.errors import CanonicalError

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
    from ledger.predicates import action_of
    from stages.publish_facts import Fault

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
    from ledger.alloy import file_name, records
    from stages import gguf_file, gguf_name
    from stages.publish_facts import Fault
    from store import tree

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
    from ledger import chunks
    from stages.publish_facts import Fault

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
    from stages.publish_facts import Fault

    if got == file.digest:
        return []
    hint = "These are not the bytes that were measured: export them again, or run the recipe"
    return [Fault("bytes", file.path, f"expected {file.digest} as attested, got {got}", hint)]


# --- loading -------------------------------------------------------------------------------------------------------------------


def load(planned: Plan, work: Work, hands: Callable[[], Executor]) -> None:
    """Have every file loaded in a worker, unless the ledger knows that it was; failures become faults.

    Args:
        planned: gets the reports.
        work: on the same log, with nothing to do yet.
        hands: makes the executor, if there is something to do.

    Raises:
        StageError, StoreError, LogError: the work could not be done at all.
    """
    from stages.load_check import STAGE as CHECK
    from stages.load_check import LoadCheck
    from stages.publish_facts import Fault

    subjects = {what: digest for what, digest in _loadable(planned)}
    nodes = [Node(f"load-check/{what}", CHECK.name, LoadCheck(), {"subject": digest}, what) for what, digest in subjects.items()]
    work.look_up(work.resolution.add(nodes))
    work.need({what: digest for what, digest in subjects.items()})
    if work.todo:
        work.run(hands())
    for key, users in work.resolution.users.items():
        what = users[0].removeprefix("load-check/")
        if key in work.resolution.results:
            planned.reports[what] = key, work.resolution.results[key]["report"]
    gather(planned)
    for node, message in work.failed.items():
        planned.faults.append(Fault("loads", node.removeprefix("load-check/"), message, "What does not load is not published"))


def gather(planned: Plan) -> None:
    """Gather the evidence anew: with the checks that everything loads, which travel with the model, and the newest checkpoint."""
    before = planned.evidence
    shown = _shown(planned.alloy, planned.outputs, before.log, before.policy) | {report for _, report in planned.reports.values()}
    planned.evidence = type(before).of(before.log, before.policy, before.store, shown)


def load_apart(planned: Plan, find: Callable[[Action], Hit | None], folder: Path | None, variables: Mapping[str, str]) -> None:
    """Have every file loaded in a process of its own and record nothing, for a preview; what the ledger knows is taken from there.

    Args:
        planned: gets what was seen.
        find: what the ledger answers.
        folder: the model's folder; None when none is published.
        variables: the environment of a worker.
    """
    from stages.load_check import STAGE as CHECK
    from stages.load_check import LoadCheck
    from stages.publish_facts import Fault
    from stages.stage import spec_to_json
    from store.actions import Action

    spec, local = LoadCheck(), {file.path: file.local for file in planned.files}
    for what, digest in _loadable(planned):
        hit = find(Action(CHECK.name, CHECK.version, spec_to_json(spec), {"subject": digest}))
        path = local.get(what, folder)
        if hit is not None:
            planned.reports[what] = hit.action.key, hit.outputs["report"]
        elif path is not None:
            command = [sys.executable, "-m", "stages.load_check", str(spec.forward_bytes), str(path)]
            ran = subprocess.run(command, capture_output=True, text=True, env=dict(variables), check=False)
            said = json.loads(ran.stdout.splitlines()[-1]) if ran.returncode == 0 and ran.stdout.strip() else {}
            if "how" in said:
                planned.seen[what] = said
            else:
                words = said.get("fault") or (ran.stderr.strip() or f"it ended with {ran.returncode}").splitlines()[-1]
                planned.faults.append(Fault("loads", what, str(words), "What does not load is not published"))


def _loadable(planned: Plan) -> list[tuple[str, Digest]]:
    folder = [("the folder", planned.chosen.model)] if planned.chosen.model is not None else []
    return [*folder, *((file.path, file.digest) for file in planned.files if file.tier)]


def countersign(planned: Plan, signer: Signer) -> list[Fault]:
    """Whether a release that this key signs would count for the policy, and so be found again."""
    from ledger import publication, statement
    from ledger.errors import UntrustedError
    from ledger.statement import Statement
    from stages.publish_facts import Fault

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
    from stages import card, publish_checks, publish_facts

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
    what = publish_facts.sentence(
        evidence, planned.made, chosen, base, architecture, folder.parameters if folder is not None else largest
    )  # fmt: skip
    tables = publish_facts.tables(evidence, planned.outputs, chosen, names, datasets)
    results = publish_facts.results(evidence, chosen, names, datasets)
    steps = publish_facts.steps(evidence, planned.made)
    facts = card.Facts(
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
        library="transformers" if chosen.model is not None else "gguf",
        files=tuple(card.File(path=file.path, size_bytes=file.size, tier=file.tier) for file in planned.files),
        tables=tables,
        results=results,
        loads=loads,
        steps=steps,
        alloy="",
        alloy_digest="",
        verify_url="",
        log=(evidence.log.origin, evidence.log.size),
        release=None,
        keys=_keys(evidence, tables, results, loads, steps),
        model_key=None,
        proof_qr=False,
        pictures={},
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
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}\Z", re.ASCII)


def _tags(planned: Plan, architecture: str) -> tuple[str, ...]:
    given = planned.alloy.get("tags")
    stages = {one.action.stage for one in planned.made}
    tags = ["alloy-ledger"]
    tags += ["gguf"] if planned.chosen.ggufs else []
    tags += ["pruned", "expert-pruning", "moe"] if "expert-select" in stages else []
    tags += [architecture] if architecture else []
    tags += [str(tag) for tag in given] if isinstance(given, list) else []
    return tuple(dict.fromkeys(tag for tag in (*tags, *planned.order.tags) if _TAG.match(tag)))


def _datasets(alloy: Mapping[str, Any]) -> tuple[str, ...]:
    """The calibration sets that the recipe calls by a dataset's id on the Hub."""
    corpora = alloy.get("calibrationCorpora")
    ids = [one.get("id") for one in corpora if isinstance(one, Mapping)] if isinstance(corpora, list) else []
    return tuple(one for one in ids if isinstance(one, str) and _HUB_ID.match(one))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""

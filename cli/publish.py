"""`ledger publish`: a model with its card, its proof and its QR to the Hub, in one commit, once nothing speaks against it."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.errors import FAILED, CliError, UsageError
from cli.options import PATH, common
from cli.output import Output, many, place, short, size, table
from cli.preview import is_preview, write_preview
from cli.publish_source import Source, find_source, locate
from cli.workspace import POLICY, Workspace, new_passphrase, open_here, refuse_foreign, unlock

if TYPE_CHECKING:
    from ledger.hf_hub import HfHub
    from ledger.keys import Signer
    from ledger.lookup import Hit
    from ledger.witness import Witness
    from stages.events import Event
    from stages.publish import Publish
    from stages.publish_commit import Outcome
    from stages.publish_evidence import Fault
    from stages.publish_plan import Order, Plan
    from stages.publish_release import Release
    from stages.stage import Leaf
    from store.actions import Action
    from store.local import LocalCas

_CHECKS = (
    ("bytes", "every file here hashes to what is attested"),
    ("statements", "every run behind it is signed, and its key counts"),
    ("loads", "every file was loaded"),
    ("files", "config and tokenizer are there"),
    ("numbers", "every number of the card is attested, and every one in your own words"),
    ("acceptance", "the recipe's acceptance criteria are met"),
    ("licence", "there is a licence"),
    ("repository", "nothing strange is in the repository"),
    ("token", "your token may write there"),
)
"""Check -> what holds when it finds nothing."""


_TOKEN = "set HF_TOKEN to a token that may write (one is made at https://huggingface.co/settings/tokens), or use `hf auth login`"


@click.command()
@click.argument("target")
@click.option("--to", metavar="hf:ORG/NAME", help="Where to. Default: what the recipe's publish stage says.")
@click.option("--dry-run", "-n", is_flag=True, help="Check everything and make a preview; sign and upload nothing.")
@click.option(
    "--preview", type=PATH, metavar="DIR", help="Where --dry-run puts the repository as it would be. Default: NAME-preview, anew."
)
@click.option("--private", is_flag=True, help="Make a new repository private.")
@click.option("--variant", metavar="NAME", help="Which variant of a matrix; a repository holds one.")
@click.option("--licence", "--license", metavar="ID", help="Its licence, where the recipe has none: apache-2.0, mit, ...")
@click.option("--verify-page", metavar="URL", help="The page that the QR opens. Default: $LEDGER_VERIFY_PAGE, else ours.")
@click.option("--llama-cpp", type=PATH, metavar="DIR", help="Your own llama.cpp build, which loads the GGUF files.")
@click.option("--key", metavar="NAME", help="The key that signs. Default: your only one that is trusted here.")
@click.option("--model-key", metavar="NAME", help="The P-256 key of model.sig. Default: your only one; made if there is none.")
@common
def publish(
    target: str,
    to: str | None,
    dry_run: bool,
    preview: Path | None,
    private: bool,
    variant: str | None,
    licence: str | None,
    verify_page: str | None,
    llama_cpp: Path | None,
    key: str | None,
    model_key: str | None,
    ledger: Path | None,
    json: bool,
) -> int:
    """Publish the model and the GGUF files of a finished run, with a card made of signed results, its alloy, its proof and its QR.

    TARGET is a RECIPE, its alloy, or a folder that `ledger export` made. Everything is checked first, and whatever is wrong is told
    together. Then there is one commit, the listing is read back, and every file is compared. Publishing the same again changes nothing.

    $HF_TOKEN (or `hf auth login`) says who you are to the Hub, and must be able to write; --dry-run needs none. Exit code 1 when it is
    refused, 3 when the Hub lists something else than was sent.
    """
    from ledger.locator import VERIFY_PAGE
    from stages.publish_plan import Order

    output = Output(json=json)
    workspace = open_here(ledger)
    refuse_foreign(workspace.folder, ledger)
    source = find_source(workspace, target)
    stage = source.stage()
    hub = _hub()
    order = Order(
        endpoint=hub.endpoint,
        repo=_repo(to, stage, source.alloy, variant),
        page=verify_page or os.environ.get("LEDGER_VERIFY_PAGE") or VERIFY_PAGE,
        licence=licence,
        variant=variant,
        tags=stage.tags if stage is not None else (),
    )
    tools = {"llama-cpp": str(llama_cpp.absolute())} if llama_cpp is not None else {}
    private = private or (stage is not None and stage.private)
    if dry_run:
        return _preview(workspace, source, order, preview, tools, hub, output)
    return _publish(workspace, source, order, tools, workspace.signer(key), _model_signer(model_key), private, hub, output)


def _repo(to: str | None, stage: Publish | None, alloy: Mapping[str, Any], variant: str | None) -> str:
    from ledger.hub import check_repo
    from ledger.locator import HubSource, parse

    if to is None:
        if stage is None:
            raise UsageError("say where to: --to hf:ORG/NAME, or a publish stage in the recipe")
        return check_repo(stage.repo(alloy, variant or ""))
    source = parse(to if ":" in to else f"hf:{to}").source
    if not isinstance(source, HubSource) or source.revision is not None or source.path is not None:
        raise UsageError(f"--to {to}: expected hf:ORG/NAME, without a revision or a path")
    return check_repo(source.repo)


def _model_signer(name: str | None) -> Signer | None:
    """The P-256 key that signs `model.sig`, since its format has no Ed25519; None when there is none yet.

    Raises:
        UsageError: there are several, or the named one is of another kind.
    """
    from ledger.key_store import KeyStore
    from ledger.keys import ECDSA_P256

    keys = KeyStore.default()
    own = [known for known, public, _ in keys.list() if public.algorithm == ECDSA_P256]
    if name is None and len(own) > 1:
        raise UsageError(f"several of your keys can sign model.sig: {', '.join(own)}; say which: --model-key NAME")
    if name is None and not own:
        return None
    signer = unlock(keys, name or own[0])
    if signer.public.algorithm != ECDSA_P256:
        raise UsageError(f"{signer.name} is an {signer.public.algorithm} key; model.sig needs one of ledger key new --type p256")
    return signer


def _new_model_signer(signer: Signer, workspace: Workspace, output: Output) -> Signer:
    """A new P-256 key, which the policy here trusts for `model.sig` alone."""
    from ledger import oms, policy_text
    from ledger.key_store import KeyStore
    from ledger.keys import ECDSA_P256
    from ledger.policy import Rule

    keys = KeyStore.default()
    made = keys.new(f"{signer.name.rpartition(':')[2][:50]}-model", new_passphrase(ask=False), ECDSA_P256)
    rule = Rule((made.name,), predicates=(oms.PREDICATE_TYPE,))
    policy_text.save(workspace.folder / POLICY, lambda text: policy_text.add_key(text, made.name, made.public, rule=rule))
    output.aside(
        f"no P-256 key yet: made {made.name} {made.public.short} in {place(keys.folder)} for model.sig; "
        f"{place(workspace.folder / POLICY)} trusts it for that and for nothing else"
    )
    return made


def _witnesses(workspace: Workspace) -> list[Witness]:
    """One's own keys among the witnesses that the policy here names."""
    from ledger.key_store import KeyStore
    from ledger.keys import ED25519
    from ledger.memory import Memory
    from ledger.witness import Witness

    policy, keys = workspace.policy, KeyStore.default()
    named = policy.checkpoints.names if policy.checkpoints is not None else ()
    wanted = {policy.keys[name] for name in named if not policy.retired(name)}
    own = [name for name, public, _ in keys.list() if public in wanted and public.algorithm == ED25519]
    return [Witness(unlock(keys, name), Memory.default()) for name in own]


# --- the preview ---------------------------------------------------------------------------------------------------------------


def _preview(
    workspace: Workspace, source: Source, order: Order, folder: Path | None, tools: Mapping[str, str], hub: HfHub, output: Output
) -> int:
    from ledger import lookup
    from stages import publish_plan as stage
    from stages.executor import worker_variables
    from stages.publish_commit import look, outdated
    from stages.publish_load import load_apart
    from stages.publish_release import preview, previewable

    store, log = workspace.store, workspace.log
    shown = folder or Path(f"{source.alloy.get('name', 'model')}-preview")
    if os.path.lexists(shown) and not is_preview(shown):
        raise CliError(
            f"{place(shown)} is there already and is no preview as it was made here; nothing was written. "
            "Delete it, or name a folder that is not there: --preview DIR"
        )
    aside = shown.with_name(f".{shown.name}.partial-{secrets.token_hex(6)}")
    scratch = aside / "scratch"
    scratch.mkdir(parents=True)
    try:
        planned = stage.plan(
            order, source.alloy, log=log, store=store, policy=workspace.policy, locate=locate(source, store, aside / "files")
        )
        policy = planned.evidence.policy
        model = next((file.local.parent for file in planned.files if file.path == "config.json" and file.local is not None), None)
        load_apart(planned, lambda action: lookup.find(log, policy, action), model, worker_variables(1, tools))
        described = stage.describe(planned)
        listing, strange = look(planned, hub, store)
        planned.faults += strange
        if not previewable(planned):
            return _refused(planned, output, dry_run=True)
        made = preview(planned, described, store=store, scratch=scratch)
        write_preview(made, aside / "repository")
        if shown.exists():
            shown.rename(aside / "before")
        (aside / "repository").rename(shown)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    delete = outdated(made, listing)
    paths = {"preview": shown.absolute(), "card": shown.absolute() / "README.md"}
    seen = f"preview {place(shown)} (card: README.md)"
    if planned.faults:
        return _refused(planned, output, paths, [f"{seen}: what it would be, but for the faults"], dry_run=True)
    lines = [*_head(planned, output), *_passed(planned, output, dry_run=True), *_listed(made, delete)]
    state = "is not there yet" if listing is None else f"is at commit {listing.commit[:12]}"
    last = [f"{seen} · {order.repo} {state} · nothing was signed or uploaded", f"this needed no token; publishing does: {_TOKEN}"]
    output.show({"dryRun": True, **paths, **_facts(made, delete)}, [*lines, *last])
    return 0


# --- the publication -----------------------------------------------------------------------------------------------------------


def _publish(
    workspace: Workspace,
    source: Source,
    order: Order,
    tools: Mapping[str, str],
    signer: Signer,
    model_signer: Signer | None,
    private: bool,
    hub: HfHub,
    output: Output,
) -> int:
    from stages import publish_plan as stage
    from stages.publish_commit import held, look, outdated, publish
    from stages.publish_evidence import Fault
    from stages.publish_release import release

    refusal = hub.refusal(order.repo)  # before anything is signed
    store, log = workspace.writable_store, workspace.signing_log(signer)
    planned = stage.plan(order, source.alloy, log=log, store=store, policy=workspace.policy, locate=locate(source, store, None))
    if refusal:
        planned.faults.append(Fault("token", "token", f"it may not write to {order.repo}: {refusal}", f"{_TOKEN[0].upper()}{_TOKEN[1:]}"))
    if not any(fault.check in ("bytes", "statements", "token") for fault in planned.faults):
        _adopt(planned, store)
        _load(planned, workspace, store, tools, output)
    facts = stage.describe(planned)
    planned.faults += stage.countersign(planned, signer)
    listing, strange = look(planned, hub, store)
    planned.faults += strange
    if planned.faults:
        return _refused(planned, output, dry_run=False)
    model_signer = model_signer or _new_model_signer(signer, workspace, output)
    scratch = store.scratch()
    try:
        witnesses = _witnesses(workspace)
        made = release(planned, facts, store=store, scratch=scratch, model_signer=model_signer, witnesses=witnesses)
        there = held(made, listing, hub) if listing is not None else None
        made = there or made
        delete = outdated(made, listing)
        output.lines([*_head(planned, output), *_passed(planned, output), *_listed(made, delete)])
        outcome = publish(made, hub, listing, private=private, there=there is not None)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    output.object({"dryRun": False, **_facts(made, delete), "outcome": outcome})
    output.lines([*_told(made, outcome), *(_trust(planned, signer) if outcome.changed else [])])
    return 0


def _adopt(planned: Plan, store: LocalCas) -> None:
    """Take the files of an exported folder in that the store has lost: workers read from the store."""
    for file in planned.files:
        if file.local is not None and not store.has(file.digest):
            store.add_file(file.local)
    listing = planned.evidence.trees.get(planned.chosen.model) if planned.chosen.model is not None else None
    if listing is not None:
        store.put(listing.to_bytes())


def _load(planned: Plan, workspace: Workspace, store: LocalCas, tools: Mapping[str, str], output: Output) -> None:
    from ledger import lookup
    from stages import events, leases, plugins, record
    from stages.executor import LocalExecutor
    from stages.graph import Resolution
    from stages.publish_load import load
    from stages.work import Work

    log, policy = planned.evidence.log, planned.evidence.policy

    def tell(event: Event) -> None:
        if isinstance(event, events.Started):
            output.aside(f"loading {event.label}")

    resolution = Resolution(lambda name: plugins.load("stages", name), store)
    invocation = f"{planned.name}/publish-{record.utc(time.time())}-{os.getpid()}"

    def find(action: Action, leaf: Leaf) -> Hit | None:
        return lookup.find(log, policy, action)

    work = Work(resolution, store, log, find, workspace.folder / "leases", tell, invocation)
    with leases.shared_with_gc(workspace.folder / "runs"):
        load(planned, work, lambda: LocalExecutor(workspace.folder, store.scratch(), jobs=1, threads=1, tools=tools))


def _hub() -> HfHub:
    from ledger.hf_hub import HfHub

    return HfHub()


# --- telling -------------------------------------------------------------------------------------------------------------------


def _head(planned: Plan, output: Output) -> list[str]:
    variant = f" ({planned.chosen.variant})" if planned.chosen.variant else ""
    return [f"publish {planned.name}{variant} {planned.version} to hf:{planned.order.repo}"]


def _passed(planned: Plan, output: Output, *, dry_run: bool = False) -> list[str]:
    open_ = {one.check for one in planned.faults} | ({"token"} if dry_run else set())
    open_ |= set() if planned.reports or planned.seen else {"loads"}  # nothing was loaded where bytes or statements are at fault
    lines = [f"{output.paint('ok    ', 'green')}  {words}" for check, words in _CHECKS if check not in open_]
    if planned.skipped:
        lines.append(
            f"{output.paint('note  ', 'yellow')}  {', '.join(planned.skipped)}: not made from this model, so not published with it"
        )
    return lines


def _refused(planned: Plan, output: Output, facts: Mapping[str, object] | None = None, last: Sequence[str] = (), *, dry_run: bool) -> int:
    """Everything that speaks against it, in one table."""
    faults: Sequence[Fault] = planned.faults
    words = [one.problem if one.what == one.check else f"{one.what}: {one.problem}" for one in faults]
    rows = [[output.paint("FAILED", "red", "bold"), one.check, text] for one, text in zip(faults, words, strict=True)]
    lines = []
    for row, fault in zip(table(rows, "<<<"), faults, strict=True):
        lines += [row] + ([f"{'':<6}  → {fault.hint}"] if fault.hint else [])
    told = [*_head(planned, output), *lines, *_passed(planned, output, dry_run=dry_run)]
    told += [f"refused: {many(len(faults), 'fault')}; nothing was uploaded", *last]
    output.show({"refused": faults, "target": f"hf:{planned.order.repo}", **(facts or {})}, told)
    return FAILED


def _listed(made: Release, delete: Sequence[str]) -> list[str]:
    rows = [[f"  {one.path}", size(one.size), short(one.digest, 12)] for one in made.entries]
    total = sum(one.size for one in made.entries)
    gone = [f"  deleted: {', '.join(delete)}"] if delete else []
    return [*table(rows, "<>>"), *gone, f"  {many(len(made.entries), 'file')}, {size(total)}"]


def _facts(made: Release, delete: Sequence[str]) -> dict[str, object]:
    files = [{"path": one.path, "sizeBytes": one.size, "sha256": one.digest.hex, "xetHash": one.xet} for one in made.entries]
    return {
        "name": made.plan.name,
        "version": made.plan.version,
        "target": f"hf:{made.plan.order.repo}",
        "alloy": {"path": made.alloy[0], "digest": str(made.alloy[1])},
        "verifyUrl": made.verify_url,
        "release": made.number,
        "files": files,
        "deleted": list(delete),
        "skipped": list(made.plan.skipped),
    }


def _told(made: Release, outcome: Outcome) -> list[str]:
    repo = made.plan.order.repo
    next_ = f"next: ledger verify hf:{repo} --expect {made.alloy[1]}"
    if not outcome.changed:
        return [f"nothing changed: {repo} holds exactly this at commit {outcome.commit} (entry {outcome.number})", next_]
    return [
        f"{'made' if outcome.created else 'updated'} {made.plan.url} · commit {outcome.commit}",
        f"read back: all {many(outcome.compared, 'file')} as sent · released as entry {made.number}, published as entry {outcome.number}",
        next_,
    ]


def _trust(planned: Plan, signer: Signer) -> list[str]:
    """How readers come to trust the key that signed."""
    policy = planned.evidence.policy
    name = next((name for name, public in policy.keys.items() if public == signer.public), signer.name)
    return [
        f"readers trust it by a policy: ledger key export {name} --as policy --named YOUR-NAME > policy.json · "
        "give it to them elsewhere than in the repository: whoever changes the one could change the other"
    ]

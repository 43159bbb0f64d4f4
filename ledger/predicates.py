"""What our statements say: a stage ran, something was measured, a key's standing changed.

A run is SLSA provenance v1. What decides its output, and nothing else, is in `buildType`, `externalParameters` and
`resolvedDependencies`, so `action_of` can recompute the action, and with it the key, from the statement alone; it refuses a statement in
which any of that is missing, given twice, or more than is understood.

Source: SLSA v1.0 provenance (https://slsa.dev/spec/v1.0/provenance); docs/predicates/.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ledger.errors import PublicKeyError, StatementError
from ledger.keys import PublicKey
from ledger.loose import as_dict
from ledger.statement import MAX_INTEGER, Statement, check_name, descriptor, refuse_ambiguous, sha256_of
from store import canonical
from store.actions import Action
from store.digest import Digest
from store.errors import CanonicalError, DigestError

RUN = "https://slsa.dev/provenance/v1"
EVALUATION = "urn:alloy-ledger:evaluation:v1"
KEY_EVENT = "urn:alloy-ledger:key-event:v1"

PURITIES = ("P", "E")
KEY_EVENTS = ("added", "superseded", "revoked")

_BUILD_TYPE = re.compile(r"urn:alloy-ledger:stage:([a-z][a-z0-9]*(?:-[a-z0-9]+)*):([1-9][0-9]{0,14})\Z")
_STDERRS = ("stderrClustered", "stderr", "stderrIid")
"""By chunk, of unknown kind, as if tokens did not depend on each other: the last is too small."""

_DECIDING = {"buildType", "externalParameters", "internalParameters", "resolvedDependencies"}


# --- runs ----------------------------------------------------------------------------------------------------------------------


def run_predicate(
    action: Action,
    *,
    purity: str,
    environment: Mapping[str, Any] | None,
    builder: str,
    invocation: str,
    started_on: str,
    finished_on: str,
    byproducts: Mapping[str, Any],
) -> dict[str, Any]:
    """The predicate of a finished action. Sign it with the action's outputs as subjects.

    Args:
        action: what was asked for.
        purity: `P` or `E`.
        environment: JSON without floats, needed for purity E, where it decides the bytes; None when nothing was recorded.
        builder: URI of who ran it.
        invocation: id of the run.
        started_on: UTC, `2026-11-23T10:00:00Z`.
        finished_on: likewise.
        byproducts: name -> any JSON value, floats included (each is carried as opaque bytes).

    Raises:
        StatementError: something here could not be read back.
    """
    if purity not in PURITIES:
        raise StatementError(f"purity is P or E; got {purity!r}")
    if purity == "E" and environment is None:
        raise StatementError(f"a run of {action.stage} has purity E, so it must record its environment")
    build_type = f"urn:alloy-ledger:stage:{action.stage}:{action.version}"
    if not _BUILD_TYPE.match(build_type):
        raise StatementError(f"stage {action.stage!r} version {action.version!r}: a name is kebab-case, a version an integer from 1")
    return {
        "buildDefinition": {
            "buildType": build_type,
            "externalParameters": dict(action.spec),
            "internalParameters": {
                "environment": None if environment is None else dict(environment),
                "environmentDigest": None if environment is None else str(environment_digest(environment)),
                "purity": purity,
            },
            "resolvedDependencies": [descriptor(check_name(name, "input"), action.inputs[name]) for name in sorted(action.inputs)],
        },
        "runDetails": {
            "builder": {"id": builder},
            "byproducts": [_byproduct(check_name(name, "byproduct"), byproducts[name]) for name in sorted(byproducts)],
            "metadata": {"finishedOn": finished_on, "invocationId": invocation, "startedOn": started_on},
        },
    }


def action_of(statement: Statement) -> Action:
    """The action that a run statement is about, recomputed from the statement alone.

    Raises:
        StatementError: it is not a run; or something that decides the output is missing, given twice, of another form, or unknown.
    """
    definition = _definition(statement)
    unknown, missing = sorted(set(definition) - _DECIDING), sorted(_DECIDING - set(definition))
    if unknown or missing:
        raise StatementError(
            f"a run's buildDefinition has exactly {_names(_DECIDING)}; unknown: {_names(unknown)}; missing: {_names(missing)}"
        )
    stage, version = _stage_and_version(definition)
    spec, dependencies = definition["externalParameters"], definition["resolvedDependencies"]
    if not isinstance(spec, dict):
        raise StatementError(f"a run's externalParameters are an object; got {type(spec).__name__}")
    if not isinstance(dependencies, list):
        raise StatementError(f"a run's resolvedDependencies are a list; got {type(dependencies).__name__}")
    inputs: dict[str, Digest] = {}
    for item in dependencies:
        # A uri or a second hash beside the name would be taken on trust, so there may be none.
        if (
            not isinstance(item, dict)
            or set(item) != {"name", "digest"}
            or not isinstance(item["digest"], dict)
            or set(item["digest"]) != {"sha256"}
        ):
            raise StatementError("each of a run's resolvedDependencies has exactly a name and a digest with exactly a sha256")
        name = check_name(item["name"], "input")
        if name in inputs:
            raise StatementError(f"two inputs are named {name!r}")
        inputs[name] = sha256_of(item["digest"], f"input {name!r}")
    _environment(definition)
    return Action(stage, version, spec, inputs)


def stage_of(statement: Statement) -> str | None:
    """The stage's name when the statement is a run, None when it is anything else.

    Raises:
        StatementError: it says that it is a run, and names no stage.
    """
    return _stage_and_version(_definition(statement))[0] if statement.predicate_type == RUN else None


def builder_of(statement: Statement) -> str | None:
    """Who says to have run it, as a run's `runDetails` name the builder; None when they name none, or it is no run."""
    details = statement.predicate.get("runDetails") if statement.predicate_type == RUN else None
    builder = details.get("builder") if isinstance(details, dict) else None
    name = builder.get("id") if isinstance(builder, dict) else None
    return name if isinstance(name, str) else None


def metadata_of(statement: Statement) -> Mapping[str, Any]:
    """What a run says of itself (`invocationId`, `startedOn`, `finishedOn`); other tools may leave any of it out, or all."""
    return as_dict(as_dict(statement.predicate.get("runDetails")).get("metadata"))


def elapsed_s(statement: Statement) -> float | None:
    """How long a run took, in seconds, by the clock of whoever ran it, which may have gone backwards; None when it does not say."""
    metadata = metadata_of(statement)
    try:
        start, end = (datetime.fromisoformat(str(metadata.get(name))) for name in ("startedOn", "finishedOn"))
        return (end - start).total_seconds()
    except (ValueError, TypeError):  # no time, or one with a zone and one without
        return None


def environment_of(statement: Statement) -> tuple[Mapping[str, Any] | None, Digest | None]:
    """The environment that a run recorded and its digest, which is recomputed, never taken from the statement; (None, None) when none was.

    Raises:
        StatementError: it is not a run, or its environment and environmentDigest disagree.
    """
    return _environment(_definition(statement))


def exact_in(statement: Statement) -> Digest | None:
    """The digest of the environment in which alone a run's bytes are the same again; None for purity P, which has them anywhere.

    Raises:
        StatementError: as `environment_of`.
    """
    digest = environment_of(statement)[1]
    return digest if _definition(statement)["internalParameters"]["purity"] == "E" else None


def environment_digest(environment: Mapping[str, Any]) -> Digest:
    """SHA-256 of the canonical JSON of an environment.

    Raises:
        StatementError: it holds a float, or something else that may not be signed.
    """
    refuse_ambiguous(dict(environment), "environment")
    return Digest.of(canonical.dumps(dict(environment)))


def computed_by(statement: Statement) -> Digest | None:
    """The key of the action that computed what a claim says, as the runner writes it beside the stage's words; None when it says none."""
    key = statement.predicate.get("action")
    try:
        return Digest.parse(key) if isinstance(key, str) and statement.predicate_type != RUN else None
    except DigestError:
        return None


def dataset_of(evaluation: Mapping[str, Any]) -> str:
    """The SHA-256 of what an evaluation measured on, in hex digits, as its predicate names it; "" when it names none.

    >>> dataset_of({"dataset": {"digest": {"sha256": "5c0d"}}}), dataset_of({"dataset": "a text"})
    ('5c0d', '')
    """
    named = as_dict(as_dict(evaluation.get("dataset")).get("digest")).get("sha256")
    return named if isinstance(named, str) else ""


def stderr_of(metrics: Mapping[str, Any]) -> Any:
    """The standard error that goes with an evaluation's main metric, as it is written; the honest one of several, None when there is none.

    >>> stderr_of({"perplexity": "41.9", "stderrIid": "0.6", "stderrClustered": "1.1"}), stderr_of({"stderrClustered": None})
    ('1.1', None)
    """
    return next((metrics[name] for name in _STDERRS if metrics.get(name) is not None), None)


def byproducts_of(statement: Statement) -> dict[str, Any]:
    """Name -> JSON value of a run's byproducts.

    Raises:
        StatementError: it is not a run, or a byproduct is not one that `run_predicate` writes.
    """
    _definition(statement)
    details = statement.predicate.get("runDetails")
    items = details.get("byproducts", []) if isinstance(details, dict) else None
    if not isinstance(items, list):
        raise StatementError("a run's runDetails hold a list of byproducts")
    values: dict[str, Any] = {}
    for item in items:
        if not isinstance(item, dict) or not isinstance(item.get("content"), str) or item.get("mediaType") != "application/json":
            raise StatementError("a byproduct has a name, the mediaType application/json, and base64 content")
        name = check_name(item.get("name"), "byproduct")
        if name in values:
            raise StatementError(f"two byproducts are named {name!r}")
        try:
            values[name] = canonical.loads(b64decode(item["content"], validate=True))
        except (binascii.Error, ValueError, CanonicalError) as error:
            raise StatementError(f"the content of byproduct {name!r} is not base64 of JSON: {error}") from error
    return values


def _definition(statement: Statement) -> dict[str, Any]:
    if statement.predicate_type != RUN:
        raise StatementError(f"not a run: the predicateType is {statement.predicate_type!r}; expected {RUN!r}")
    definition = statement.predicate.get("buildDefinition")
    if not isinstance(definition, dict):
        raise StatementError("a run's predicate has an object buildDefinition")
    return definition


def _stage_and_version(definition: Mapping[str, Any]) -> tuple[str, int]:
    build_type = definition.get("buildType")
    match = _BUILD_TYPE.match(build_type) if isinstance(build_type, str) else None
    if match is None:
        raise StatementError(f"a run's buildType is urn:alloy-ledger:stage:<name>:<version>; got {build_type!r}")
    return match[1], int(match[2])


def _environment(definition: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, Digest | None]:
    internal = definition.get("internalParameters")
    if not isinstance(internal, dict) or internal.get("purity") not in PURITIES:
        raise StatementError("a run's internalParameters name its purity, P or E")
    if "environment" not in internal or "environmentDigest" not in internal:
        raise StatementError("a run's internalParameters have an environment and its environmentDigest, or null for both")
    environment, stated = internal["environment"], internal["environmentDigest"]
    if environment is None and stated is None:
        if internal["purity"] == "E":  # else it would pass where the same environment is demanded
            raise StatementError("a run of purity E says in which environment its bytes are exact; its environment is null")
        return None, None
    if not isinstance(environment, dict):
        raise StatementError(f"a run's environment is an object or null; got {type(environment).__name__}")
    actual = environment_digest(environment)
    if stated != str(actual):
        raise StatementError(f"the environmentDigest is {stated!r}, but the environment beside it has {actual}")
    return environment, actual


def _byproduct(name: str, value: Any) -> dict[str, Any]:
    try:
        content = canonical.dumps(value)
    except CanonicalError as error:
        raise StatementError(f"byproduct {name!r}: {error}") from error
    return {"content": b64encode(content).decode(), "mediaType": "application/json", "name": name}


def _names(names: Any) -> str:
    return ", ".join(sorted(names)) or "none"


# --- key events ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyEvent:
    """A change of a key's standing, counted in log entries and never in dates, which can be back-dated.

    Attributes:
        event: `added` (its statements may count from entry `from_entry` on), `superseded` by `successor`, or `revoked`
            (from entry `from_entry` on they no longer count; what came before still does).
        key: whose standing changed.
        from_entry: 0-based entry number.
        successor: the key that takes over; only, and always, when superseded.
        reason: for people.
    """

    event: str
    key: PublicKey
    from_entry: int
    successor: PublicKey | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        if self.event not in KEY_EVENTS:
            raise StatementError(f"a key event is one of {', '.join(KEY_EVENTS)}; got {self.event!r}")
        if type(self.from_entry) is not int or not 0 <= self.from_entry <= MAX_INTEGER:
            raise StatementError(f"fromEntry is an entry number; got {self.from_entry!r}")
        if (self.successor is not None) != (self.event == "superseded"):
            raise StatementError("a superseded key has a successor, and only that has")

    def subjects(self) -> dict[str, Digest]:
        """The statement's subject: the key's text, named by itself."""
        return {str(self.key): Digest.of(str(self.key).encode())}

    def predicate(self) -> dict[str, Any]:
        """The statement's predicate, for `statement.make(event.subjects(), KEY_EVENT, event.predicate())`."""
        value: dict[str, Any] = {"event": self.event, "fromEntry": self.from_entry, "key": str(self.key), "reason": self.reason}
        if self.successor is not None:
            value["successor"] = str(self.successor)
        return value

    def line(self) -> str:
        """What `git log` shows."""
        successor = f" by {self.successor.short}" if self.successor is not None else ""
        return f"key {self.key.short} {self.event}{successor} from entry {self.from_entry} on" + (f": {self.reason}" if self.reason else "")

    @classmethod
    def of(cls, statement: Statement) -> KeyEvent:
        """Read a key event back. Whether its signer may say so is the policy's question.

        Raises:
            StatementError: it is no key event, a field is missing or unknown, or its subject is another key.
        """
        if statement.predicate_type != KEY_EVENT:
            raise StatementError(f"not a key event: the predicateType is {statement.predicate_type!r}")
        value = statement.predicate
        if not {"event", "fromEntry", "key", "reason"} <= set(value) <= {"event", "fromEntry", "key", "reason", "successor"}:
            raise StatementError(f"a key event has event, fromEntry, key, reason and perhaps successor; got {_names(value)}")
        if not all(isinstance(value[name], str) for name in ("key", "reason")) or not isinstance(value.get("successor", ""), str):
            raise StatementError("a key event's key, successor and reason are text")
        try:
            event = cls(
                event=value["event"],
                key=PublicKey.parse(value["key"]),
                from_entry=value["fromEntry"],
                successor=PublicKey.parse(value["successor"]) if "successor" in value else None,
                reason=value["reason"],
            )
        except PublicKeyError as error:
            raise StatementError(f"a key event names an unusable key: {error}") from error
        if dict(statement.subjects) != event.subjects():
            raise StatementError(f"the key event is about {event.key.short}, but its subject is another")
        return event

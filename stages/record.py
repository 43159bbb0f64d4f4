"""A finished action as the statements that are signed for it, each with the line that plain `git log` shows. No effects."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from ledger import predicates, statement
from ledger.alloy import plain
from stages.executor import Done
from stages.stage import Leaf, Node
from store.actions import Action
from store.digest import Digest

BUILDER = "urn:alloy-ledger:builder:local"


def outputs_of(done: Done) -> dict[str, Digest]:
    """Output name -> digest, checked.

    Raises:
        DigestError: the worker sent something that is no digest.
    """
    return {name: Digest.parse(text) for name, text in done.outputs.items()}


def statements_of(
    done: Done, action: Action, leaf: Leaf, node: Node, *, invocation: str, rerun: Mapping[str, Any] | None = None
) -> list[tuple[bytes, str]]:
    """The run itself first, then what the leaf claims about objects: (statement to sign, line for people) each.

    `invocation` is `<recipe>/<run>`, so that later runs can say where a result is from. `rerun` says of which entry this is a rerun, and
    how it came out (`stages.rerun`).
    """
    outputs = outputs_of(done)
    more = {"warnings": list(done.warnings), "rerun": rerun}
    predicate = predicates.run_predicate(
        action,
        purity=leaf.purity,
        environment=None if done.environment is None else dict(done.environment),
        builder=BUILDER,
        invocation=invocation,
        started_on=utc(done.started),
        finished_on=utc(done.finished),
        byproducts={"notes": plain(done.notes)} | {name: value for name, value in more.items() if value},
    )
    made = [(statement.make(outputs, predicates.RUN, predicate), _line(node, action, outputs))]
    for claim in done.claims:
        subjects = {name: Digest.parse(text) for name, text in claim["subjects"].items()}
        content = {**claim["predicate"], "action": str(done.key)}
        kind = claim["predicate_type"].split(":")[-2]
        made.append((statement.make(subjects, claim["predicate_type"], content), f"{kind} {node.id}: {brief(subjects)}"))
    return made


def brief(outputs: Mapping[str, Digest]) -> str:
    """A few digests, short, for a line."""
    shown = [digest.short[:14] for _, digest in sorted(outputs.items())]
    return ", ".join(shown[:2]) + (f" and {len(shown) - 2} more" if len(shown) > 2 else "")


def utc(seconds: float) -> str:
    """Seconds since the epoch as `2026-01-31T12:00:00Z`."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _line(node: Node, action: Action, outputs: Mapping[str, Digest]) -> str:
    inputs = [digest.short[:14] for _, digest in sorted(action.inputs.items())]
    more = f" and {len(inputs) - 2} more" if len(inputs) > 2 else ""
    name = node.id.split("/", 1)[0]
    what = f"{name}: {node.label}" if node.label else node.id
    return f"{what}: {', '.join(inputs[:2])}{more} -> {brief(outputs)}"

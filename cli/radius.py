"""The blast radius of a key, for people and as JSON: counts first, then what they count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cli.output import clean, many, short, table

if TYPE_CHECKING:
    from ledger.entries import Entry
    from ledger.policy import Policy
    from ledger.radius import Made, Published, Radius, Ran

_SHOWN = 12


def facts(lost: Radius) -> dict[str, Any]:
    """As JSON."""
    return {
        "statements": [{"entry": entry.number, "message": entry.message} for entry in lost.statements],
        "confirmed": lost.confirmed,
        "actions": _actions(lost.actions),
        "artifacts": _artifacts(lost.artifacts),
        "publications": _publications(lost.publications),
        "downstream": {
            "actions": _actions(lost.later_actions),
            "artifacts": _artifacts(lost.later_artifacts),
            "publications": _publications(lost.later_publications),
        },
    }


def lines(lost: Radius, called: str, until: int, entries: Sequence[Entry], policy: Policy) -> list[str]:
    """Counts first, then what they count; `called` is the key in the policy, cut off at entry `until`."""
    own = _signed_by(called, entries, policy)
    signed = f"{called} signed {many(len(own), 'statement')} that count{'s' if len(own) == 1 else ''}"
    if own:
        signed += f", entry {own[0]}" if len(own) == 1 else f", entries {own[0]} to {own[-1]}"
    if not lost.statements:
        return [f"{signed}; all before entry {until}, so nothing is lost"] if own else [f"{signed} here, so nothing is lost"]
    told = [
        f"{signed}; without it from entry {until} on",
        f"  lost        {_counts(lost.actions, lost.artifacts, lost.publications)} without a trusted signature "
        f"({many(len(lost.statements), 'statement')}"
        + (f", {lost.confirmed} of them confirmed by another key and not lost)" if lost.confirmed else ")"),
        f"  downstream  {_counts(lost.later_actions, lost.later_artifacts, lost.later_publications)} signed as before, and made of these",
    ]
    told += _listed("lost", lost.actions, lost.artifacts, lost.publications)
    return told + _listed("downstream", lost.later_actions, lost.later_artifacts, lost.later_publications)


def _actions(ran: Sequence[Ran]) -> list[dict[str, Any]]:
    return [{"entry": one.entry, "key": str(one.action.key), "stage": one.action.stage, "message": one.message} for one in ran]


def _artifacts(made: Sequence[Made]) -> list[dict[str, Any]]:
    return [{"entry": one.entry, "digest": str(one.digest), "name": one.name} for one in made]


def _publications(published: Sequence[Published]) -> list[dict[str, Any]]:
    return [
        {
            "entries": one.entries,
            "events": one.events,
            "target": one.publication.target,
            "name": one.publication.name,
            "version": one.publication.version,
            "alloy": str(one.publication.alloy[1]),
        }
        for one in published
    ]


def _signed_by(called: str, entries: Sequence[Entry], policy: Policy) -> list[int]:
    from ledger import lookup

    return [one.entry.number for one in lookup.sift(entries, policy)[0] if called in one.signers]


def _counts(actions: Sequence[Ran], artifacts: Sequence[Made], publications: Sequence[Published]) -> str:
    return f"{many(len(actions), 'action')}, {many(len(artifacts), 'artifact')}, {many(len(publications), 'publication')}"


def _listed(word: str, actions: Sequence[Ran], artifacts: Sequence[Made], publications: Sequence[Published]) -> list[str]:
    def some(rows: list[list[str]], what: str) -> list[str]:
        lines = [f"{word} {what}:", *(f"  {line}" for line in table(rows[:_SHOWN], ">"))] if rows else []
        return lines + ([f"  and {len(rows) - _SHOWN} more; --json has all"] if len(rows) > _SHOWN else [])

    return [
        *some([[str(one.entry), short(one.action.key), clean(one.message)] for one in actions], "actions"),
        *some([[str(one.entry), short(one.digest), clean(one.name)] for one in artifacts], "artifacts"),
        *some(
            [
                [
                    ", ".join(map(str, one.entries)),
                    ", ".join(dict.fromkeys(one.events)),
                    f"{one.publication.name} {one.publication.version}",
                    one.publication.target,
                ]
                for one in publications
            ],
            "publications",
        ),
    ]

"""The blast radius of a key: what no longer counts when it is trusted less, and what rests on that.

Pure: two policies over the same entries, and the difference between what each of them trusts. What another trusted key vouches for as well
is not lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ledger import lookup, predicates
from ledger.entries import Entry
from ledger.errors import StatementError
from ledger.lookup import Trusted
from ledger.policy import Policy
from ledger.publication import PUBLICATION, Publication
from store.actions import Action
from store.digest import Digest


@dataclass(frozen=True, slots=True)
class Ran:
    """An action: the oldest entry that said so, what it was, and what it gave."""

    entry: int
    action: Action
    message: str


@dataclass(frozen=True, slots=True)
class Made:
    """An artifact: its digest, its name where it was made, and the oldest entry that said so."""

    entry: int
    digest: Digest
    name: str


@dataclass(frozen=True, slots=True)
class Published:
    """A publication, its entries (that it was released, that it was published), and what each of them says."""

    entries: tuple[int, ...]
    publication: Publication
    events: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Radius:
    """What a change of trust takes away, each in the order of the log.

    Attributes:
        statements: entries that counted and count no more.
        confirmed: how many statements of them say what another trusted key says too, so that nothing is lost with them.
        actions, artifacts, publications: what has no trusted signature left.
        later_actions, later_artifacts, later_publications: what is signed as before, and rests on something that is not.
    """

    statements: tuple[Entry, ...]
    confirmed: int
    actions: tuple[Ran, ...]
    artifacts: tuple[Made, ...]
    publications: tuple[Published, ...]
    later_actions: tuple[Ran, ...]
    later_artifacts: tuple[Made, ...]
    later_publications: tuple[Published, ...]


def radius(
    entries: Sequence[Entry], before: Policy, after: Policy, *, contents: Callable[[Publication], Iterable[Digest]] = lambda _: ()
) -> Radius:
    """What `after` trusts less than `before`, in a log with these entries.

    Args:
        entries: all of the log, in its order.
        before: the policy until now.
        after: the other one.
        contents: the artifacts that a publication is made of, as far as they are known.
    """
    old, new = lookup.sift(entries, before)[0], lookup.sift(entries, after)[0]
    still = {one.entry.number for one in new}
    gone = [one for one in old if one.entry.number not in still]
    ran, runs = _runs(old), _runs(new)
    makers, left = _makers(ran), _makers(runs)
    lost_actions = [key for key in ran if key not in runs]
    lost_artifacts = [digest for digest in makers if digest not in left]
    later_actions, later_artifacts = _downstream(runs, left, set(lost_artifacts))
    lost_publications = _publications(one for one in old if one.entry.number not in still)
    gone_too = {_place(one.publication) for one in lost_publications}
    touched = {*lost_artifacts, *later_artifacts}
    return Radius(
        statements=tuple(one.entry for one in gone),
        confirmed=sum(one.statement.predicate_type == predicates.RUN and predicates.action_of(one.statement).key in runs for one in gone),
        actions=tuple(_ran(ran[key][0]) for key in lost_actions),
        artifacts=tuple(_made(makers[digest][0][1], digest) for digest in lost_artifacts),
        publications=lost_publications,
        later_actions=tuple(_ran(runs[key][0]) for key in later_actions),
        later_artifacts=tuple(_made(left[digest][0][1], digest) for digest in later_artifacts),
        later_publications=tuple(
            one
            for one in _publications(one for one in old if one.entry.number in still)
            if _place(one.publication) not in gone_too and not touched.isdisjoint(contents(one.publication))
        ),
    )


def _runs(counting: Iterable[Trusted]) -> dict[Digest, list[Trusted]]:
    """Key -> the entries that count for it, oldest first."""
    runs: dict[Digest, list[Trusted]] = {}
    for one in counting:
        if one.statement.predicate_type == predicates.RUN:
            runs.setdefault(predicates.action_of(one.statement).key, []).append(one)
    return runs


def _makers(runs: dict[Digest, list[Trusted]]) -> dict[Digest, list[tuple[Digest, Trusted]]]:
    """Object -> the runs that gave it, each with its key, oldest first."""
    makers: dict[Digest, list[tuple[Digest, Trusted]]] = {}
    for key, one in sorted(((key, one) for key, several in runs.items() for one in several), key=lambda pair: pair[1].entry.number):
        for digest in dict.fromkeys(one.statement.subjects.values()):
            makers.setdefault(digest, []).append((key, one))
    return makers


def _downstream(
    runs: dict[Digest, list[Trusted]], makers: dict[Digest, list[tuple[Digest, Trusted]]], lost: set[Digest]
) -> tuple[list[Digest], list[Digest]]:
    """Keys and objects that are signed and rest on what is lost.

    An action does when one of its inputs does, an object when all its makers do.
    """
    inputs = {key: set(predicates.action_of(several[0].statement).inputs.values()) for key, several in runs.items()}
    actions, objects = set[Digest](), set[Digest]()
    while more := {key for key, taken in inputs.items() if key not in actions and not taken.isdisjoint(lost | objects)}:
        actions |= more
        objects |= {digest for digest, made_by in makers.items() if all(key in actions for key, _ in made_by)}
    return [key for key in runs if key in actions], [digest for digest in makers if digest in objects]


def _publications(counting: Iterable[Trusted]) -> tuple[Published, ...]:
    """One alloy at one place is one publication, however many entries speak of it."""
    found: dict[tuple[str, Digest], list[tuple[int, Publication]]] = {}
    for one in counting:
        if one.statement.predicate_type == PUBLICATION:
            try:
                said = Publication.of(one.statement)
            except StatementError:
                continue  # it says nothing that could be lost
            found.setdefault(_place(said), []).append((one.entry.number, said))
    return tuple(
        Published(tuple(number for number, _ in several), several[0][1], tuple(said.event for _, said in several))
        for several in found.values()
    )


def _place(said: Publication) -> tuple[str, Digest]:
    return said.target, said.alloy[1]


def _ran(one: Trusted) -> Ran:
    return Ran(one.entry.number, predicates.action_of(one.statement), one.entry.message)


def _made(one: Trusted, digest: Digest) -> Made:
    name = next(name for name, subject in one.statement.subjects.items() if subject == digest)
    return Made(one.entry.number, digest, name)

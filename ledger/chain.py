"""Where did an object come from: from its digest back to its sources. Pure: it is given a function that finds makers.

>>> here = trace(Digest.of(b"nobody made this"), lambda digest: ())
>>> [gap.digest.short for gap in here.gaps]
['sha256:383100f4dab1']
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from store.actions import Action
from store.digest import Digest


@dataclass(frozen=True)
class Made:
    """A trusted statement that an action gave outputs.

    Attributes:
        entry: the entry's number; None when its place in the log is not known.
        signers: names of the keys that vouch for it.
    """

    action: Action
    outputs: Mapping[str, Digest]
    signers: tuple[str, ...]
    entry: int | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """An object whose origin nobody trusted states.

    Attributes:
        digest: what is unexplained; name: what the action that took it calls it ("" for the object that was asked about).
        wanted_by: that action.
        circular: True when it has makers, but each of them needs the object itself.
    """

    digest: Digest
    name: str
    wanted_by: Action | None
    circular: bool = False


@dataclass(frozen=True, slots=True)
class Provenance:
    """The whole way back.

    Attributes:
        start: the object that was asked about.
        steps: each action once, every one after those that made its inputs; the last made `start`.
        gaps: every unexplained object, each once.
    """

    start: Digest
    steps: tuple[Made, ...]
    gaps: tuple[Gap, ...]

    @property
    def sources(self) -> tuple[Made, ...]:
        """The actions that took nothing: here the way begins."""
        return tuple(step for step in self.steps if not step.action.inputs)


def trace(start: Digest, find_by_subject: Callable[[Digest], Sequence[Made]]) -> Provenance:
    """Follow an object back to its sources; all gaps are reported, not the first.

    When several actions made an object, the first that `find_by_subject` gives and that does not need the object itself is followed.
    """
    steps: dict[Digest, Made] = {}
    gaps: dict[Digest, Gap] = {}
    known: set[Digest] = set()
    open_: set[Digest] = set()  # objects being explained: the one asked about, and so on inwards
    stack: list[tuple[Digest, Made, list[tuple[str, Digest]]]] = []  # not recursive: a training is a chain of thousands

    def enter(digest: Digest, name: str, wanted_by: Action | None) -> None:
        if digest in known or digest in gaps:
            return
        makers = find_by_subject(digest)
        maker = next(
            (made for made in makers if open_.isdisjoint(made.action.inputs.values()) and digest not in made.action.inputs.values()), None
        )
        if maker is None:
            gaps[digest] = Gap(digest, name, wanted_by, circular=bool(makers))
            return
        open_.add(digest)
        stack.append((digest, maker, sorted(maker.action.inputs.items(), reverse=True)))

    enter(start, "", None)
    while stack:
        digest, made, waiting = stack[-1]
        if waiting:
            name, needed = waiting.pop()
            enter(needed, name, made.action)
        else:
            stack.pop()
            open_.remove(digest)
            known.add(digest)
            steps.setdefault(made.action.key, made)
    return Provenance(start, tuple(steps.values()), tuple(gaps.values()))


def between(subjects: Iterable[Digest], last: Made, find_by_subject: Callable[[Digest], Sequence[Made]]) -> tuple[Made, ...]:
    """A run and those before it that some objects went into, each after those that made its inputs: all the work from them to its outputs.

    What lies behind the objects, and what came to the run from elsewhere, is left out.
    """
    start = frozenset(subjects)
    steps: dict[Digest, Made] = {}
    for digest in sorted(set(last.action.inputs.values()) - start):
        steps |= {made.action.key: made for made in trace(digest, lambda one: () if one in start else find_by_subject(one)).steps}
    reached = set(start)
    found: list[Made] = []
    for made in steps.values():
        if not reached.isdisjoint(made.action.inputs.values()):
            reached |= set(made.outputs.values())
            found.append(made)
    return (*found, last)

"""Teams by what their members get right: what a perfect choice among the answers would be worth, and what of it is mere luck.

Any second answer helps an oracle, be it the same model's again. So the gain of a member counts only beyond what another sample of a member
that is there already would give.

>>> right = {"a": (True, True, False, False), "b": (False, False, True, False), "c": (True, True, False, False)}
>>> [(step.name, step.gain) for step in grow(right, {}).steps]
[('a', 0.5), ('b', 0.25)]
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stages import statistics

Right = Mapping[str, Sequence[bool]]
"""Name -> (n,) whether it was right."""
Chances = Mapping[str, Sequence[float]]
"""Name -> (n,) probability that another sample of it is right, in 0..1; 0 and 1 where one sample was drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two models on the same questions; counts.

    Attributes:
        complementary: questions that exactly one gets right; potential: that any does.
        diversity: complementary / (right answers of a + of b); 0 where there are none.
        gain: (potential - the better one's) / n.
    """

    a: str
    b: str
    both_right: int
    a_only: int
    b_only: int
    both_wrong: int

    @property
    def complementary(self) -> int:
        """See the class."""
        return self.a_only + self.b_only

    @property
    def potential(self) -> int:
        """See the class."""
        return self.both_right + self.complementary

    @property
    def diversity(self) -> float:
        """See the class."""
        return self.complementary / max(1, 2 * self.both_right + self.complementary)

    @property
    def gain(self) -> float:
        """See the class."""
        return min(self.a_only, self.b_only) / (self.potential + self.both_wrong)


def pair(right: Right, a: str, b: str) -> Pair:
    """The four counts."""
    both = list(zip(right[a], right[b], strict=True))
    return Pair(
        a=a,
        b=b,
        both_right=both.count((True, True)),
        a_only=both.count((True, False)),
        b_only=both.count((False, True)),
        both_wrong=both.count((False, False)),
    )


def pairs(right: Right) -> tuple[Pair, ...]:
    """Every pair of names (a < b), the most complementary first, ties by name."""
    names = sorted(right)
    found = [pair(right, a, b) for number, a in enumerate(names) for b in names[number + 1 :]]
    return tuple(sorted(found, key=lambda item: (-item.complementary, item.a, item.b)))


def best(right: Right) -> str:
    """The model with most right answers; the first by name of several."""
    return min(right, key=lambda name: (-sum(right[name]), name))


def any_right(right: Right, team: Sequence[str]) -> tuple[bool, ...]:
    """(n,) whether anyone of the team is right."""
    return tuple(any(row) for row in zip(*(right[name] for name in team), strict=True))


def oracle_gain(right: Right, team: Sequence[str]) -> float:
    """Fraction right by anyone of the team, minus the best single member's."""
    together = any_right(right, team)
    return (sum(together) - max(sum(right[name]) for name in team)) / len(together)


def resampled_gain(right: Right, chances: Chances, team: Sequence[str]) -> float | None:
    """What one more sample of a member would give the oracle: the most over members, as a fraction; None where it was not measured."""
    known = [name for name in team if name in chances]
    if not known:
        return None
    open_ = [not item for item in any_right(right, team)]
    return max(math.fsum(p for p, missed in zip(chances[name], open_, strict=True) if missed) for name in known) / len(open_)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One member that joined, or could have.

    Attributes:
        gain: fraction of the questions that it alone gets right (of the first member: its accuracy).
        control: what one more sample of a member would have given instead; None where that was not measured, or nobody was there.
    """

    name: str
    gain: float
    control: float | None

    @property
    def net(self) -> float:
        """Gain beyond the control."""
        return self.gain - (self.control or 0.0)


@dataclass(frozen=True, slots=True)
class Growth:
    """How a team came to be.

    Attributes:
        steps: members in the order in which they joined, the best single model first.
        refused: who would have been next, and why it was not: its net gain is not above the limit. None where all joined.
    """

    steps: tuple[Step, ...]
    refused: Step | None

    @property
    def team(self) -> tuple[str, ...]:
        """Names, in order."""
        return tuple(step.name for step in self.steps)


def grow(right: Right, chances: Chances, *, min_net: float = 0.0, most: int | None = None) -> Growth:
    """Start with the best model; again and again add the one with the largest net gain, as long as that is above `min_net`.

    Ties go to the more accurate model, then to the first by name. By submodularity of coverage the gains only fall; without the control
    this is greedy set cover, which reaches at least 1 - 1/e of the best coverage by as many models.

    Args:
        right: at least one model.
        chances: of those for which a second sample is known; may be empty.
        min_net: a fraction of the questions.
        most: members, at most.

    Source: Nemhauser, Wolsey & Fisher, Math. Programming 14, 1978 (greedy coverage).
    """
    first = best(right)
    n = len(right[first])
    steps = [Step(name=first, gain=sum(right[first]) / n, control=None)]
    while rest := sorted(set(right) - {step.name for step in steps}):
        team = [step.name for step in steps]
        covered = any_right(right, team)
        control = resampled_gain(right, chances, team)
        won = {name: sum(mine and not theirs for mine, theirs in zip(right[name], covered, strict=True)) for name in rest}
        name = min(rest, key=lambda item: (-won[item], -sum(right[item]), item))
        step = Step(name=name, gain=won[name] / n, control=control)
        if step.net <= min_net or (most is not None and len(steps) >= most):
            return Growth(tuple(steps), step)
        steps.append(step)
    return Growth(tuple(steps), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """A team on questions that did not choose it.

    Attributes:
        single: the team's best member as it was chosen; it is not chosen anew.
        team, alone: fractions right by anyone of the team, and by that member.
        against_single: exact McNemar of the oracle against that member. It can lose nothing, so this says only that there is a gain.
        control: fraction right by that member or any of as many further samples of it as the team has other members; None where no second
            sample is known.
        against_control: the difference of oracle and control, paired and clustered.
    """

    single: str
    team: float
    alone: float
    against_single: statistics.McNemar
    control: float | None = None
    against_control: statistics.Mean | None = None


def confirm(right: Right, chances: Chances, team: Sequence[str], single: str, clusters: Sequence[str] | None = None) -> Confirmation:
    """Measure a chosen team anew.

    Args:
        right: of the held-out questions.
        chances: likewise.
        team: as chosen.
        single: one of it.
        clusters: (n,) of the questions.
    """
    together = any_right(right, team)
    alone = right[single]
    n = len(together)
    found = Confirmation(
        single=single,
        team=sum(together) / n,
        alone=sum(alone) / n,
        against_single=statistics.mcnemar(*statistics.discordant(together, alone)),
    )
    if single not in chances:
        return found
    more = len(team) - 1
    again = [1.0 if hit else 1.0 - (1.0 - p) ** more for hit, p in zip(alone, chances[single], strict=True)]
    return Confirmation(
        single=found.single,
        team=found.team,
        alone=found.alone,
        against_single=found.against_single,
        control=math.fsum(again) / n,
        against_control=statistics.paired_difference([float(item) for item in together], again, clusters),
    )

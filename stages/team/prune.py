"""Who stays in a team: members by what would be lost without them, under a limit of memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from stages.errors import SpecError

Worth = Callable[[tuple[str, ...]], float]
"""What a team (names, sorted) is worth; larger is better. It is asked for teams of one member and more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """Who left, why, and what it cost.

    Attributes:
        contribution: worth of the team with it minus that without, when it left; None for who could not stay alone.
    """

    name: str
    reason: str
    contribution: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """The outcome.

    Attributes:
        kept: sorted; contributions: of each, in what is left (None for who is alone); removed: in order.
    """

    kept: tuple[str, ...]
    contributions: Mapping[str, float | None]
    removed: tuple[Removal, ...]
    size_bytes: int


def prune(worth: Worth, sizes: Mapping[str, int], *, budget_bytes: int | None, min_contribution: float) -> Pruned:
    """Leave out the member that contributes least, again and again, while the team is too large or somebody contributes too little.

    A contribution is worth(team) - worth(team without). Who is too large alone leaves first. At the end whoever left, fits, and contributes
    enough comes back, the most contributing first. Ties: the last by name leaves, the first by name comes back. One member always stays.

    Args:
        worth: see `Worth`.
        sizes: name -> bytes.
        budget_bytes: of all together; None for no limit.
        min_contribution: in the unit of `worth`.

    Raises:
        SpecError: nobody, or nobody who fits.
    """
    limit = sum(sizes.values()) if budget_bytes is None else budget_bytes
    removed = [Removal(name=name, reason="larger than the budget", contribution=None) for name in sorted(sizes) if sizes[name] > limit]
    team = tuple(name for name in sorted(sizes) if sizes[name] <= limit)
    if not team:
        least = min(sizes.values(), default=0)
        raise SpecError(f"nobody fits into {limit:,} bytes: the smallest of {len(sizes)} members has {least:,}; raise the budget")
    while len(team) > 1:
        contributed = contributions(worth, team)
        least_name = min(sorted(team, reverse=True), key=lambda name: contributed[name])
        over = sum(sizes[name] for name in team) > limit
        if not over and contributed[least_name] >= min_contribution:
            break
        reason = "over the budget" if over else "contributes too little"
        removed.append(Removal(name=least_name, reason=reason, contribution=contributed[least_name]))
        team = without(team, least_name)
    while True:
        room = limit - sum(sizes[name] for name in team)
        gains = {item.name: worth(tuple(sorted((*team, item.name)))) - worth(team) for item in removed if sizes[item.name] <= room}
        back = min((name for name in gains if 0 < gains[name] >= min_contribution), key=lambda name: (-gains[name], name), default=None)
        if back is None:
            break
        team = tuple(sorted((*team, back)))
        removed = [item for item in removed if item.name != back]
    alone = len(team) == 1
    return Pruned(
        kept=team,
        contributions={team[0]: None} if alone else dict(contributions(worth, team)),
        removed=tuple(removed),
        size_bytes=sum(sizes[name] for name in team),
    )


def contributions(worth: Worth, team: Sequence[str]) -> dict[str, float]:
    """What each of at least two members adds to the others."""
    whole = worth(tuple(sorted(team)))
    return {name: whole - worth(without(team, name)) for name in sorted(team)}


def without(team: Sequence[str], name: str) -> tuple[str, ...]:
    """The others, sorted."""
    return tuple(item for item in sorted(team) if item != name)

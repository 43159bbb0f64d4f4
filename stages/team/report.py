"""A team as `team-search` and `population-prune` write it: JSON with at least `selectedTeam`, names with the best single member first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stages.errors import InputError
from store import canonical
from store.errors import CanonicalError


@dataclass(frozen=True, slots=True)
class Team:
    """Its members' names, in order.

    Attributes:
        best: the model that was the best single one when the team was chosen; pruning may have left it out.
    """

    members: tuple[str, ...]
    best: str

    @classmethod
    def parse(cls, data: bytes) -> Team:
        """Read a report.

        Raises:
            InputError: it is none.
        """
        try:
            value: Any = canonical.loads(data)
        except CanonicalError as error:
            raise InputError(f"report of a team: {error}") from error
        members = value.get("selectedTeam") if isinstance(value, dict) else None
        if not isinstance(members, list) or not members or not all(isinstance(item, str) for item in members):
            raise InputError("a report of a team has selectedTeam, a list of names; team-search and population-prune write one")
        best = value.get("best", members[0])
        if not isinstance(best, str):
            raise InputError(f"report of a team: best is {best!r}; it is a name")
        return cls(tuple(members), best)

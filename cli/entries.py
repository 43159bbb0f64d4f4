"""Entries as facts and as lines: the same words in `log`, `show`, `status` and `why`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cli.output import Output, ago, short

if TYPE_CHECKING:
    from ledger.log import Entry
    from ledger.lookup import Claims
    from ledger.policy import Policy
    from ledger.statement import Statement
    from store.actions import Action


@dataclass(frozen=True)
class EntryView:
    """An entry with what a policy makes of it."""

    entry: Entry
    policy: Policy
    claims: Claims | None = None
    """Where entries are found that say the same, for policies that want several signers; None judges this entry alone."""

    @cached_property
    def statement(self) -> Statement | None:
        """What it says; None when it cannot be read."""
        from ledger.errors import VerificationError

        try:
            return self.entry.statement
        except VerificationError:
            return None

    @cached_property
    def action(self) -> Action | None:
        """The action, when it is a run."""
        from ledger import predicates
        from ledger.errors import VerificationError

        if self.statement is None or self.statement.predicate_type != predicates.RUN:
            return None
        try:
            return predicates.action_of(self.statement)
        except VerificationError:
            return None

    @cached_property
    def trust(self) -> tuple[tuple[str, ...], str]:
        """(names of the trusted keys, "") or ((), why it does not count)."""
        from ledger.errors import VerificationError
        from ledger.lookup import accept

        try:
            return accept(self.entry, self.policy, self.claims).signers, ""
        except VerificationError as reason:
            return (), str(reason)

    @property
    def recipe(self) -> str:
        """The recipe whose run recorded it, or nothing."""
        from ledger import predicates

        return str(predicates.metadata_of(self.statement).get("invocationId", "")).partition("/")[0] if self.statement is not None else ""

    @property
    def elapsed_s(self) -> float | None:
        """How long the action took, by the clock of whoever ran it."""
        from ledger import predicates

        return predicates.elapsed_s(self.statement) if self.statement is not None else None

    @property
    def when(self) -> datetime:
        """The commit's time."""
        return datetime.fromtimestamp(self.entry.when, UTC)

    @property
    def kind(self) -> str:
        """The stage of a run, the last words of another predicate type, or `unreadable`."""
        if self.action is not None:
            return self.action.stage
        if self.statement is None:
            return "unreadable"
        parts = [part for part in self.statement.predicate_type.replace("/", ":").split(":") if part]
        return next((part for part in reversed(parts) if not (part.startswith("v") and part[1:].isdigit())), "unknown")

    def facts(self) -> dict[str, Any]:
        """The entry as JSON."""
        signers, reason = self.trust
        facts: dict[str, Any] = {
            "entry": self.entry.number,
            "when": self.when,
            "kind": self.kind,
            "message": self.entry.message,
            "recipe": self.recipe or None,
            "outputs": {name: str(digest) for name, digest in self.statement.subjects.items()} if self.statement else {},
            "trusted": bool(signers),
            "signers": signers,
            "commit": self.entry.commit,
            "envelope": str(self.entry.digest),
        }
        if self.action is not None:
            facts["key"] = str(self.action.key)
            facts["inputs"] = {name: str(digest) for name, digest in self.action.inputs.items()}
        return facts | ({} if signers else {"not_trusted_because": reason})

    def row(self, output: Output, now: datetime) -> list[str]:
        """Number, age, key, who, message."""
        signers, _ = self.trust
        who = output.paint(" ".join(signers), "green") if signers else output.paint("not trusted", "red")
        key = output.paint(short(self.action.key), "yellow") if self.action else "-" * 8
        return [str(self.entry.number), output.paint(ago(self.when, now), "dim"), key, who, self.entry.message]

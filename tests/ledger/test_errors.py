"""The tree of errors, as `except` clauses and exit codes rely on it."""

from __future__ import annotations

import pytest

from ledger import errors
from ledger.errors import LedgerError, LogError, RewrittenError, VerificationError

ALL = [item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, Exception)]


@pytest.mark.parametrize("kind", ALL)
def test_every_error_is_a_ledger_error_and_none_a_value_error(kind: type[Exception]) -> None:
    """`except LedgerError` catches all of them; `except ValueError` around a parser hides none."""
    assert issubclass(kind, LedgerError)
    assert not issubclass(kind, ValueError)


@pytest.mark.parametrize("kind", ALL)
def test_the_tree_at_the_top_names_every_error(kind: type[Exception]) -> None:
    """The drawing in the module is complete."""
    assert kind.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize(
    "name",
    [
        "StatementError",
        "SignatureError",
        "EnvelopeError",
        "NoteError",
        "UntrustedError",
        "ContradictionError",
        "ProofError",
        "RewrittenError",
    ],
)
def test_a_failed_verification_is_a_verification_error(name: str) -> None:
    """One base decides exit code 3."""
    assert issubclass(getattr(errors, name), VerificationError)


def test_a_rewritten_log_is_a_log_error_too_and_carries_both_checkpoints() -> None:
    """The evidence is in the error, not only in its words."""
    error = RewrittenError("history was rewritten", accepted=b"old", found=b"new")
    assert isinstance(error, LogError)
    assert (error.accepted, error.found) == (b"old", b"new")


def test_errors_carry_their_data() -> None:
    """What a caller needs is an attribute."""
    assert errors.UntrustedError("no", signers=["b", "a"]).signers == ("a", "b")
    assert errors.ContradictionError("no", claims={"alice": {"model": "sha256:1"}}).claims == {"alice": {"model": "sha256:1"}}
    assert errors.ContradictionError("no").claims == {}
    assert errors.KeyFileError("keys/a", "gone").path == "keys/a"
    assert (errors.PolicyError("p.yaml", "odd", 3).line, str(errors.PolicyError("p.yaml", "odd", 3))) == (3, "p.yaml:3: odd")
    assert str(errors.PolicyError("p.yaml", "odd")) == "p.yaml: odd"

"""The little published forge of tests/ledger, to be attacked."""

from tests.ledger.test_published import world

__all__ = ["world"]

"""What is attacked: the little published forge of tests/ledger, and the desk of tests/cli on which a recipe was run."""

from tests.cli.conftest import desk, done, finished
from tests.ledger.test_published import world

__all__ = ["desk", "done", "finished", "world"]

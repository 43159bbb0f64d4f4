"""An outside package's parts; the tests of the runner use its stages because they take no time."""

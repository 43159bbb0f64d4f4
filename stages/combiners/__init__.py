"""How the distributions of several members become one: a file per combiner, registered in the group `alloy_ledger.combiners`."""

"""What an expert is worth: one function per strategy, registered by entry point; the most worthy stay.

A plug-in registers a function in the group `alloy_ledger.strategies`:

    def scores(profile: Profile, layer: int, *, seed: int) -> NDArray[np.float64]:
        return profile.total("weight_norm", layer)

It gives (E,) float64, larger is better, for one layer; scores of different layers are not compared. It must be a function of its
arguments alone, with float64 arithmetic in a fixed order, because the choice of experts is the same bytes on every machine.
"""

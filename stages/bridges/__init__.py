"""What leads from the states of source models into a frozen target: every version of the bridge as a value of one spec."""

"""The metrics of all runs over time, and the commits that changed them."""

"""Random and quasi-random subsets of the coordinates."""

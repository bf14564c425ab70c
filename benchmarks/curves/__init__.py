"""Learning curves: the runs of a benchmark, their arms and tables."""

"""Whole jobs at equal device time: a sweep with its final training, a plain loop, the tutorial."""

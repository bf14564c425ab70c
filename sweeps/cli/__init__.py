"""The options of `run.py`, `compare.py` and `promote.py`, and the commands printed at their end."""

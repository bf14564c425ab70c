"""Sweeps of many experiments: search space, Ray Tune, Optuna, MLflow, comparison."""

import os

# Ray reads this when it is imported. It keeps the nodes' messages about a dead worker out of the
# terminal, where `worker_failures.py` reports the death in one line.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")

"""Many experiments: search space, Ray Tune, Optuna, MLflow, comparison."""

import os

# Read by Ray when it is imported: what its nodes have to say of a worker's death stays out of the
# terminal, where `deaths.py` says it in a line.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")

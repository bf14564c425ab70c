"""Many experiments: search space, Ray Tune, Optuna, MLflow, comparison."""

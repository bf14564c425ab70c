"""Reading from MLflow: the store's address, a model by its address, reproducing a run."""

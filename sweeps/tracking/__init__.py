"""The only package that writes to MLflow during a sweep."""

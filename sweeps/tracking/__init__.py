"""The only room that writes to MLflow during a sweep."""

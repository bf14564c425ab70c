"""Which trial comes next and which one stops; knows neither Ray nor MLflow."""

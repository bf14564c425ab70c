"""Prediction, evaluation and the served model."""

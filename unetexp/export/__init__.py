"""Trained models as files for other runtimes, and the proof that they say the same."""
